// binary_io.cpp - checks a binary message before it is parsed: how deep it nests, and what it would take.
// Runs in: parent, child.  Licence: see COPYING.
#include <evparallel/binary_io.hpp>

#include <array>
#include <limits>

namespace evparallel::detail {

namespace {

// The head of a data item.
struct Head {
  enum Kind {
    leaf,     // `count` bytes follow
    nest,     // `count` items follow
    endless,  // items follow up to a stop
    stop,
    strange  // anything else: nlohmann refuses it with its own message
  } kind;
  std::uint64_t count = 0;
};

constexpr std::uint64_t no_end = std::numeric_limits<std::uint64_t>::max();

// Takes a number of `size` bytes, the most significant first; false if there are fewer bytes.
bool take(std::string_view& bytes, std::size_t size, std::uint64_t& number) noexcept {
  if (bytes.size() < size) return false;
  number = 0;
  for (const char c : bytes.substr(0, size)) number = number << 8 | static_cast<unsigned char>(c);
  bytes.remove_prefix(size);
  return true;
}

// The number of keys and values.
std::uint64_t both(std::uint64_t pairs) noexcept {
  return pairs > no_end / 2 ? no_end : 2 * pairs;
}

Head cbor_head(std::string_view& bytes) noexcept {
  std::uint64_t first = 0;
  if (!take(bytes, 1, first)) return {Head::strange};
  const std::uint64_t major = first >> 5;
  const std::uint64_t low = first & 0x1f;
  if (low == 0x1f) {
    if (major >= 2 && major <= 5) return {Head::endless};
    return {major == 7 ? Head::stop : Head::strange};
  }
  std::uint64_t number = low;
  if (low >= 24 && (low > 27 || !take(bytes, std::size_t{1} << (low - 24), number)))
    return {Head::strange};
  switch (major) {
    case 2:
    case 3: return {Head::leaf, number};
    case 4: return {Head::nest, number};
    case 5: return {Head::nest, both(number)};
    case 6: return {Head::strange};  // a tag
    default: return {Head::leaf, 0};
  }
}

// For the first bytes from 0xc0 to 0xdf: families of sizes that double.
Head msgpack_long_head(unsigned first, std::string_view& bytes) noexcept {
  const auto size = [first](unsigned smallest) { return std::size_t{1} << (first - smallest); };
  const auto counted = [&bytes](Head::Kind kind, std::size_t digits) {
    Head head{kind};
    if (!take(bytes, digits, head.count)) head.kind = Head::strange;
    return head;
  };
  if (first < 0xc4) return {first == 0xc1 ? Head::strange : Head::leaf};  // nil, booleans
  if (first < 0xc7) return counted(Head::leaf, size(0xc4));               // binary
  if (first < 0xca) {                                                     // extension: a type, too
    Head head = counted(Head::leaf, size(0xc7));
    ++head.count;
    return head;
  }
  if (first < 0xcc) return {Head::leaf, 4 * size(0xca)};         // floating point
  if (first < 0xd0) return {Head::leaf, size(0xcc)};             // unsigned
  if (first < 0xd4) return {Head::leaf, size(0xd0)};             // signed
  if (first < 0xd9) return {Head::leaf, 1 + size(0xd4)};         // extension of a fixed size
  if (first < 0xdc) return counted(Head::leaf, size(0xd9));      // string
  if (first < 0xde) return counted(Head::nest, 2 * size(0xdc));  // array
  Head head = counted(Head::nest, 2 * size(0xde));               // map
  head.count = both(head.count);
  return head;
}

Head msgpack_head(std::string_view& bytes) noexcept {
  std::uint64_t first = 0;
  if (!take(bytes, 1, first)) return {Head::strange};
  if (first < 0x80 || first >= 0xe0) return {Head::leaf};    // a small integer
  if (first < 0x90) return {Head::nest, both(first & 0xf)};  // a small map
  if (first < 0xa0) return {Head::nest, first & 0xf};        // a small array
  if (first < 0xc0) return {Head::leaf, first & 0x1f};       // a short string
  return msgpack_long_head(static_cast<unsigned>(first), bytes);
}

// Follows the items with a stack of its own, whose size is limited, until the first item is
// complete or nlohmann refuses the rest.
template <class NextHead>
void check(std::string_view bytes, std::size_t most, NextHead next_head) {
  std::array<std::uint64_t, json_depth_limit> missing;  // items, for each level
  std::size_t depth = 0;
  std::size_t taken = 0;
  do {
    const Head head = next_head(bytes);
    const bool nests = head.kind == Head::nest || head.kind == Head::endless;
    taken += json_element_size + (nests ? json_nest_size : 0);
    if (taken > most) refuse_document(most);
    if (nests) {
      if (depth == missing.size()) refuse_depth();
      missing[depth++] = head.kind == Head::nest ? head.count : no_end;
    } else if (head.kind == Head::stop) {
      if (depth == 0 || missing[depth - 1] != no_end) return;
      missing[depth - 1] = 0;
    } else {
      if (head.kind == Head::strange || head.count > bytes.size()) return;
      bytes.remove_prefix(static_cast<std::size_t>(head.count));
      if (depth > 0 && missing[depth - 1] != no_end) --missing[depth - 1];
    }
    // A complete level is one item of the level around it.
    while (depth > 0 && missing[depth - 1] == 0)
      if (--depth > 0 && missing[depth - 1] != no_end) --missing[depth - 1];
  } while (depth > 0);
}

}  // namespace

void check_cbor(std::string_view bytes, std::size_t most) {
  check(bytes, most, cbor_head);
}

void check_msgpack(std::string_view bytes, std::size_t most) {
  check(bytes, most, msgpack_head);
}

}  // namespace evparallel::detail
