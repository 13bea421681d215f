// fd.cpp - descriptors of the program that are sent in messages.
// Runs in: parent, child.  Licence: see COPYING.
#include <evparallel/fd.hpp>

#include "system/new_descriptor.hpp"

#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace evparallel {

using namespace detail;

Fd Fd::dup(int fd) {
  const int copy = open_copy(fd);
  if (copy >= 0) return Fd(copy);
  if (errno == EBADF)
    throw std::logic_error("evparallel: descriptor " + std::to_string(fd) +
                           " cannot be copied: it is not open");
  throw Error(Errc::overloaded, "overloaded: a descriptor could not be copied: too many open files")
      .with_os_error(errno);
}

void Fd::reset(int fd) noexcept {
  const int before = std::exchange(fd_, fd);
  if (before >= 0 && before != fd) ::close(before);
}

namespace detail {

std::size_t attach(Writer& out, const Fd& fd) {
  return attach(out, Fd::dup(fd.get()));
}

std::size_t attach(Writer& out, Fd&& fd) {
  if (!fd) throw std::logic_error("evparallel: an empty Fd cannot be sent");
  auto kept = std::make_shared<const Fd>(std::move(fd));
  const int number = kept->get();
  return out.attach(number, std::move(kept));
}

void put_index(Writer& out, std::size_t index) {
  const auto number = static_cast<std::uint32_t>(index);
  out.write(&number, sizeof number);
}

Fd take_fd(Reader& in) {
  std::uint32_t index;
  in.read(&index, sizeof index);
  return Fd(in.take_descriptor(index));
}

}  // namespace detail

}  // namespace evparallel
