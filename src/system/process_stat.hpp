// process_stat.hpp - what the kernel's table of processes says: /proc/PID/stat.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>

namespace evparallel {

// The numbers of a file like /proc/self/stat from the third field on; a letter is 0.  Returns how many
// there were; 0: the file cannot be read, and errno says why.
std::size_t read_stat(const char* path, std::uint64_t* numbers, std::size_t room) noexcept;

// CLOCK_BOOTTIME in nanoseconds, by which the kernel notes when a process is born.
std::int64_t boottime_ns() noexcept;

// Whether /proc goes by the numbers that processes have here: one that was mounted in another pid
// namespace has others, and what it says of a number is about a stranger.
bool proc_has_our_numbers() noexcept;

// Whether the process with this number was born up to then.  False also where that cannot be known;
// errno says why then, and is 0 else.
bool was_born_by(pid_t, std::int64_t boottime) noexcept;

}  // namespace evparallel
