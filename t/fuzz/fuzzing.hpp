// fuzzing.hpp - the parts that all fuzz targets share: a script made of the input, failures, memory, descriptors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace fuzzing {

// Reports it and ends the program, so that libFuzzer writes the input into a file.
[[noreturn]] void fail(const char* file, int line, const char* what);

// Takes the input from its front.  An input that is too short reads as zeros.
class Script {
public:
  Script(const std::uint8_t* data, std::size_t size) noexcept
      : bytes_(reinterpret_cast<const char*>(data), size) {}

  bool empty() const noexcept { return bytes_.empty(); }
  std::size_t remaining() const noexcept { return bytes_.size(); }
  unsigned byte() noexcept { return number<std::uint8_t>(); }
  template <class T>
  T number() noexcept {
    T value{};
    const std::string_view some = bytes(sizeof value);
    if (!some.empty()) std::memcpy(&value, some.data(), some.size());
    return value;
  }
  // At most so many.
  std::string_view bytes(std::size_t most) noexcept {
    const std::string_view some = bytes_.substr(0, most);
    bytes_.remove_prefix(some.size());
    return some;
  }
  // With their number, a byte, in front.
  std::string_view counted_bytes() noexcept { return bytes(byte()); }
  std::string_view rest() noexcept { return bytes(bytes_.size()); }

private:
  std::string_view bytes_;
};

// The largest number of bytes that were allocated at one time during its lifetime.  One at a time.
class MemoryPeak {
public:
  MemoryPeak();
  ~MemoryPeak();
  MemoryPeak(const MemoryPeak&) = delete;
  MemoryPeak& operator=(const MemoryPeak&) = delete;
  std::size_t bytes() const noexcept;
};

// The number of descriptors that this process has open.
std::size_t open_descriptors();

}  // namespace fuzzing

#define REQUIRE(condition) ((condition) ? void() : ::fuzzing::fail(__FILE__, __LINE__, #condition))
