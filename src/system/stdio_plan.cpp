// stdio_plan.cpp - the standard streams in a request and in the child.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#include "system/stdio_plan.hpp"

#include "base/startup_path.hpp"
#include "system/flush_streams.hpp"
#include "system/fork.hpp"

#include <unistd.h>

#include <cstdio>

namespace evparallel::detail {

void StdioPlan::give(int number, DupFd fd) noexcept {
  given[number] = std::move(fd);
  plan |= stream_comes(number);
}

std::size_t StdioPlan::list(int* to) const noexcept {
  std::size_t listed = 0;
  for (const DupFd& fd : given)
    if (fd) to[listed++] = fd.get();
  return listed;
}

bool StdioPlan::claim(std::uint32_t wanted, Packet& packet) noexcept {
  if (packet.lost_descriptor || !packet.along) return false;
  std::size_t next = 0;
  for (int number = 0; number < count; ++number)
    if (wanted & stream_comes(number)) given[number] = std::move(packet.others[next++]);
  plan = wanted;
  return packet.count == 1 + next;
}

EVPARALLEL_EARLY int StdioPlan::dup_into_place() const noexcept {
  if (plan == 0) return 0;
  // This comes before standard input changes: to open the null device here could fail.
  int error = 0;
  for (int number = STDOUT_FILENO; number < count; ++number) {
    if (!(plan & stream_null(number))) continue;
    ::dup2(STDIN_FILENO, number);
    error = stdin_is_no_null_device();
  }
  for (int number = STDIN_FILENO; number < count; ++number)
    if (given[number]) ::dup2(given[number].get(), number);
  // Output that a crash leaves in a buffer is lost.
  if (plan & stream_by_lines(STDOUT_FILENO)) std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);
  for (int number = STDOUT_FILENO; number < count; ++number)
    if (plan & stream_by_lines(number)) write_each_piece(number);
  return error;
}

}  // namespace evparallel::detail
