// process_stat.cpp - reading /proc/PID/stat.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#include "system/process_stat.hpp"

#include "base/retry_eintr.hpp"
#include "system/new_descriptor.hpp"

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace evparallel::detail {

std::size_t read_stat(const char* path, std::uint64_t* numbers, std::size_t room) noexcept {
  char text[2048];
  const int fd = open_file(path, O_RDONLY);
  if (fd < 0) return 0;
  const ssize_t size = retry_on_eintr([&] { return ::read(fd, text, sizeof text - 1); });
  ::close(fd);
  if (size <= 0) return 0;
  text[size] = '\0';
  const char* at = std::strrchr(text, ')');  // behind the name, which may contain anything
  std::size_t count = 0;
  while (at && count < room && (at = std::strchr(at, ' ')) != nullptr)
    numbers[count++] = std::strtoull(++at, nullptr, 10);
  return count;
}

std::int64_t boottime_ns() noexcept {
  timespec time{};
  ::clock_gettime(CLOCK_BOOTTIME, &time);
  return std::int64_t{time.tv_sec} * 1000000000 + time.tv_nsec;
}

bool proc_has_our_numbers() noexcept {
  char number[16] = {};
  return ::readlink("/proc/self", number, sizeof number - 1) > 0 && std::atoi(number) == ::getpid();
}

bool was_born_by(pid_t pid, std::int64_t boottime) noexcept {
  constexpr std::size_t start_time = 22 - 3;  // fields are counted from 1
  std::uint64_t numbers[start_time + 1];
  char path[32];
  std::snprintf(path, sizeof path, "/proc/%d/stat", static_cast<int>(pid));
  errno = 0;
  if (!proc_has_our_numbers()) return false;
  if (read_stat(path, numbers, start_time + 1) <= start_time) return false;
  const std::int64_t ns_per_tick = 1000000000 / ::sysconf(_SC_CLK_TCK);
  return numbers[start_time] <= static_cast<std::uint64_t>(boottime / ns_per_tick);
}

}  // namespace evparallel::detail
