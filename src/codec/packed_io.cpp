// packed_io.cpp - counts, blocks and errors of the binary codec.
// Runs in: parent, child.  Licence: see COPYING.
#include <evparallel/packed_io.hpp>

namespace evparallel::detail {

namespace {

// Of the size of a block: its bytes are the last ones of the message.
constexpr std::uint64_t last_bit = std::uint64_t{1} << 63;

}  // namespace

void refuse_packed(const char* what) {
  throw Error(Errc::bad_message, std::string("bad message: ") + what);
}

void refuse_packed(const char* what, std::size_t offset) {
  throw Error(Errc::bad_message, std::string("bad message: ") + what + ", in front of offset " +
                                     std::to_string(offset));
}

PackedLevel::PackedLevel(std::size_t& depth) : depth_(depth) {
  if (depth == packed_depth_limit)
    throw Error(Errc::bad_message, "bad message: structs and containers are nested more than " +
                                       std::to_string(packed_depth_limit) + " levels deep");
  ++depth_;
}

// ---- writing ----

void PackedWriter::count(std::size_t count) {
  const std::uint64_t number = count;
  write(&number, sizeof number);
}

void PackedWriter::last_block(std::size_t size) {
  const std::uint64_t number = size | last_bit;
  write(&number, sizeof number);
}

void PackedWriter::finish() {
  if (owner_)
    out_.adopt(std::move(owner_), last_.data(), last_.size());
  else
    out_.write(last_);
}

// ---- reading ----

std::size_t PackedReader::count(std::size_t least) {
  std::uint64_t count;
  read(&count, sizeof count);
  if (count > remaining() / least)
    throw Error(Errc::bad_message, "bad message: " + std::to_string(count) +
                                       " elements cannot be in " + std::to_string(remaining()) +
                                       " bytes, at offset " + std::to_string(in_.offset()));
  return static_cast<std::size_t>(count);
}

PackedReader::Size PackedReader::block_size() {
  std::uint64_t number;
  read(&number, sizeof number);
  const bool is_last = (number & last_bit) != 0;
  if (is_last && has_last_) refuse("two blocks are at the end of the message");
  has_last_ = has_last_ || is_last;
  return {detail::size_in_message(number & ~last_bit), is_last};
}

std::string PackedReader::string() {
  const Size size = block_size();
  return size.is_last ? in_.take_last(size.bytes, kept_) : std::string(in_.take(size.bytes));
}

std::string_view PackedReader::block() {
  const Size size = block_size();
  return size.is_last ? in_.read_last(size.bytes) : in_.take(size.bytes);
}

}  // namespace evparallel::detail
