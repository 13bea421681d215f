// short_text.hpp - short byte strings, copied and stored inline.
// Licence: see COPYING.
#pragma once

#include <evparallel/detail/export.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace evparallel {

namespace detail {

// At most this number of bytes is copied inline: a first call of the C library is expensive in a
// new process.
constexpr std::size_t most_in_line = 32;

template <class Word>
void copy_ends(char* to, const char* from, std::size_t size) noexcept {
  Word first;
  Word last;
  std::memcpy(&first, from, sizeof first);
  std::memcpy(&last, from + size - sizeof last, sizeof last);
  std::memcpy(to, &first, sizeof first);
  std::memcpy(to + size - sizeof last, &last, sizeof last);
}

// Requires: size <= most_in_line.
inline void copy_short(char* to, const char* from, std::size_t size) noexcept {
  struct Half {
    std::uint64_t words[2];
  };
  if (size >= 16) return copy_ends<Half>(to, from, size);
  if (size >= 8) return copy_ends<std::uint64_t>(to, from, size);
  if (size >= 4) return copy_ends<std::uint32_t>(to, from, size);
  if (size >= 2) return copy_ends<std::uint16_t>(to, from, size);
  if (size == 1) *to = *from;
}

// Stores up to most_in_line bytes, without a string.
class InlineBuffer {
public:
  InlineBuffer() noexcept = default;
  InlineBuffer(const InlineBuffer&) noexcept = default;
  InlineBuffer& operator=(const InlineBuffer&) noexcept = default;
  InlineBuffer(InlineBuffer&& other) noexcept : InlineBuffer(other) { other.clear(); }
  InlineBuffer& operator=(InlineBuffer&& other) noexcept {
    if (this == &other) return *this;
    *this = other;
    other.clear();
    return *this;
  }
  ~InlineBuffer() = default;

  std::size_t size() const noexcept { return size_; }
  bool has_room(std::size_t size) const noexcept {
    return size <= most_in_line && size_ <= most_in_line - size;
  }
  std::string_view view() const noexcept { return {text_, size_}; }
  // Requires: has_room().
  void append(std::string_view text) noexcept {
    copy_short(text_ + size_, text.data(), text.size());
    size_ += text.size();
  }
  void clear() noexcept { size_ = 0; }

private:
  std::size_t size_ = 0;
  char text_[most_in_line] = {};
};

}  // namespace detail

}  // namespace evparallel
