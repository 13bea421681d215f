// arguments.cpp - several arguments in one message: their lengths, and their order.
// Runs in: parent, child.  Licence: see COPYING.
#include <evparallel/detail/arguments.hpp>

namespace evparallel::detail {

namespace {

// Of a length: this argument stands at the end of the message.
constexpr std::uint64_t last_bit = std::uint64_t{1} << 63;

// What an argument gains by standing at the end: adopted bytes first, because they are not copied
// on either side.
bool gains_more(const Writer& one, const Writer& other) noexcept {
  if (one.adopted().size() != other.adopted().size())
    return one.adopted().size() > other.adopted().size();
  return one.size() > other.size();
}

// The last one, if several gain the same.
std::size_t choose_last(const Writer* parts, std::size_t count) noexcept {
  std::size_t last = count - 1;
  for (std::size_t i = count - 1; i-- > 0;)
    if (gains_more(parts[i], parts[last])) last = i;
  return last;
}

}  // namespace

void join_arguments(Writer& out, Writer* parts, std::size_t count) {
  const std::size_t last = choose_last(parts, count);
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint64_t length = parts[i].size() | (i == last ? last_bit : 0);
    out.write(&length, sizeof length);
  }
  for (std::size_t i = 0; i < count; ++i) {
    if (i == last) continue;
    out.write(parts[i].written());
    out.write(parts[i].adopted());
  }
  out.take_attached(parts[count - 1]);
  Writer& tail = parts[last];
  tail.share(adopt_threshold);
  out.write(tail.written());
  if (tail.adopted_owner())
    out.adopt(tail.adopted_owner(), tail.adopted().data(), tail.adopted().size());
}

std::size_t read_argument_lengths(Reader& in, std::size_t* lengths, std::size_t count) {
  std::size_t last = count;
  std::size_t left = in.remaining();
  const auto refuse = [&in](const char* what) {
    throw Error(Errc::bad_message,
                std::string("bad message: ") + what + ", at offset " + std::to_string(in.offset()));
  };
  left -= std::min(left, count * sizeof(std::uint64_t));
  for (std::size_t i = 0; i < count; ++i) {
    std::uint64_t length;
    in.read(&length, sizeof length);
    if ((length & last_bit) != 0) {
      if (last != count) refuse("two arguments stand at its end");
      last = i;
      length &= ~last_bit;
    }
    if (length > left) refuse("an argument is longer than the message");
    left -= lengths[i] = static_cast<std::size_t>(length);
  }
  if (last == count) refuse("no argument stands at its end");
  if (left > 0) refuse("the arguments are shorter than the message");
  return last;
}

}  // namespace evparallel::detail
