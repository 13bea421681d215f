// freeze_memory.hpp - moves large private memory of this process to files in memory.
// Runs in: snapshot.  Licence: see COPYING.
//
// A fork then has no page tables of that memory to copy: fork(2) does not copy a private mapping of
// a file through which nothing was written, since a process that needs a page finds it in the file.
// Contents and addresses stay the same, and so does the behaviour of malloc, free and realloc.
// Two things change: madvise(MADV_DONTNEED) brings the frozen bytes back, and the kernel refuses
// madvise(MADV_FREE).
#pragma once

#include <evparallel/error.hpp>

#include <cstdint>
#include <optional>
#include <string>

namespace evparallel::detail {

enum class FreezeStep : std::uint32_t {
  none,   // all is frozen
  look,   // the memory map could not be read
  memfd,  // no file in memory
  copy,   // no room for the copy
  map,    // the copy could not be mapped
  fork,   // a replica of the frozen process could not be forked
  end,    // the caller stopped it
};

struct FreezeOutcome {
  FreezeStep failed_at = FreezeStep::none;
  std::int32_t error = 0;   // an errno
  std::uint64_t bytes = 0;  // frozen, with pages that were never touched
};

// Returns what prevents a freeze of this program, before anything is done.  Empty: nothing.
std::optional<Error> why_not_frozen();

// Freezes this process in pieces of at most 64 MB, so that no more than one piece exists twice.  On
// failure the contents of all memory are unchanged, and part of it is frozen.  Calls `go_on` before
// each piece.  From now on a core dump contains the frozen memory if it contains private memory at
// all.
// Requires: one thread, all signals blocked.
FreezeOutcome freeze(bool (*go_on)(const void*), const void* argument) noexcept;

// The error to report for a freeze that has failed.  `how`: how the process has ended, if it has.
Error error_of(const FreezeOutcome&, const std::string& how = {});

}  // namespace evparallel::detail
