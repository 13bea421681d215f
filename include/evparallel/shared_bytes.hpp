// shared_bytes.hpp - immutable bytes, of any size, that processes share.
// Licence: see COPYING.  Manual: evparallel_fd(3).
#pragma once

#include <evparallel/fd.hpp>

#include <cstddef>
#include <functional>
#include <memory>
#include <string_view>

namespace evparallel {

// A sealed memfd (memfd_create(2)), mapped for reading.  As a message it is sent as a descriptor:
// gigabytes take the time of a few bytes.  A cheap handle: copies share the memory, which is freed
// with the last of them in any process.
class EVPARALLEL_API SharedBytes {
public:
  SharedBytes() noexcept = default;  // empty

  // Fail: Error{refused} if the kernel has no memfd; Error{overloaded} with os_error(): no memory,
  // no descriptor, or above the limit of file sizes.
  static SharedBytes copy_of(const void* data, std::size_t size);
  static SharedBytes copy_of(std::string_view bytes) { return copy_of(bytes.data(), bytes.size()); }
  // `fill` writes into zeroed memory, which no other process sees before it has returned.
  static SharedBytes create(std::size_t size, const std::function<void(void*)>& fill);
  // Takes ownership of a memfd from elsewhere.  Fails: Error{bad_message} if it is no memfd, or can
  // still be written, grown or shrunk; Error{overloaded}.
  static SharedBytes from_memfd(Fd memfd);

  const void* data() const noexcept;
  std::size_t size() const noexcept;
  bool empty() const noexcept { return size() == 0; }
  std::string_view view() const noexcept { return {static_cast<const char*>(data()), size()}; }
  int fd() const noexcept;  // of the memfd, borrowed; -1: empty, and there is no memfd

  // For codecs.
  std::size_t attach_to(Writer&) const;

private:
  class Mapping;
  explicit SharedBytes(std::shared_ptr<const Mapping> mapping) noexcept
      : mapping_(std::move(mapping)) {}
  std::shared_ptr<const Mapping> mapping_;
};

// Received bytes are checked as SharedBytes::from_memfd() does.
template <>
struct Io<SharedBytes> {
  static void put(Writer& out, const SharedBytes& bytes) {
    detail::put_index(out, bytes.attach_to(out));
  }
  static SharedBytes get(Reader& in) { return SharedBytes::from_memfd(detail::take_fd(in)); }
};

template <class Json>
void to_json(Json& document, const SharedBytes& bytes) {
  document = bytes.attach_to(CodecScope::writer());
}
template <class Json>
void from_json(const Json& document, SharedBytes& bytes) {
  bytes = SharedBytes::from_memfd(
      Fd(CodecScope::reader().take_descriptor(document.template get<std::size_t>())));
}

}  // namespace evparallel
