// process_stat.hpp - the kernel's table of processes: /proc/PID/stat.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>

namespace evparallel::detail {

// Reads the numbers of a file like /proc/self/stat from the third field on; a letter reads as 0.
// Returns how many there were; 0: the file cannot be read, and errno says why.
std::size_t read_stat(const char* path, std::uint64_t* numbers, std::size_t room) noexcept;

// CLOCK_BOOTTIME in nanoseconds, the clock of the kernel's start times of processes.
std::int64_t boottime_ns() noexcept;

// Whether /proc uses the same pids as this process.  If it was mounted in another pid namespace it
// has others, and a pid in it is that of another process.
bool proc_has_our_numbers() noexcept;

// Whether the process with this pid was started at `boottime` or before.  Returns false also if
// that cannot be known: then errno says why; otherwise errno is 0.
bool was_born_by(pid_t, std::int64_t boottime) noexcept;

}  // namespace evparallel::detail
