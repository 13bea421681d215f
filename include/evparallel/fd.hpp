// fd.hpp - open descriptors as messages: accepted connections, files, pipes.
// Licence: see COPYING.  Manual: evparallel_fd(3).
#pragma once

#include <evparallel/io.hpp>

#include <cstddef>
#include <utility>

namespace evparallel {

// Owns one open descriptor and closes it in the destructor.  Move-only.  As a message, or in one,
// it refers to the same open file, pipe or socket on the other side.
class EVPARALLEL_API Fd {
public:
  Fd() noexcept = default;
  explicit Fd(int fd) noexcept : fd_(fd) {}  // takes ownership; -1: none
  Fd(Fd&& other) noexcept : fd_(other.release()) {}
  Fd& operator=(Fd&& other) noexcept {
    reset(other.release());
    return *this;
  }
  ~Fd() { reset(); }

  // Duplicates a descriptor, close-on-exec; `fd` keeps its owner.
  // Fails: Error{overloaded} with os_error(); std::logic_error if it is not open.
  static Fd dup(int fd);

  int get() const noexcept { return fd_; }
  explicit operator bool() const noexcept { return fd_ >= 0; }
  // The caller owns it from now on.
  int release() noexcept { return std::exchange(fd_, -1); }
  void reset(int fd = -1) noexcept;

private:
  int fd_ = -1;
};

namespace detail {

EVPARALLEL_API std::size_t attach(Writer&, const Fd&);
EVPARALLEL_API std::size_t attach(Writer&, Fd&&);
EVPARALLEL_API void put_index(Writer&, std::size_t index);
EVPARALLEL_API Fd take_fd(Reader&);

}  // namespace detail

// The message contains the index of the descriptor among those that are sent with it.  A descriptor
// that is sent by reference is duplicated first, so that the original may be closed at once.  An Fd
// without a descriptor is refused.  A message has at most 253 descriptors.
template <>
struct Io<Fd> {
  static void put(Writer& out, const Fd& fd) { detail::put_index(out, detail::attach(out, fd)); }
  static void put(Writer& out, Fd&& fd) {
    detail::put_index(out, detail::attach(out, std::move(fd)));
  }
  static Fd get(Reader& in) { return detail::take_fd(in); }
};

// For documents, found by argument-dependent look-up: an Fd may be part of a value for JsonIo,
// CborIo and MsgpackIo.
template <class Json>
void to_json(Json& document, const Fd& fd) {
  document = detail::attach(CodecScope::writer(), fd);
}
template <class Json>
void from_json(const Json& document, Fd& fd) {
  fd = Fd(CodecScope::reader().take_descriptor(document.template get<std::size_t>()));
}

}  // namespace evparallel
