// freeze_memory.hpp - puts large private memory of this process on files in memory, so that a fork of it has
// no page tables to copy.
// Runs in: snapshot.  Licence: see COPYING.
//
// A private mapping of a file through which nobody has written is not copied by fork(2): whoever
// needs a page finds it in the file.  Contents and addresses stay, and so does all that malloc, free
// and realloc do.  What changes: madvise(MADV_DONTNEED) brings the frozen bytes back, and
// madvise(MADV_FREE) is refused by the kernel.
#pragma once

#include <evparallel/error.hpp>

#include <cstdint>
#include <optional>

namespace evparallel {

enum class FreezeStep : std::uint32_t {
  none,   // all is frozen
  look,   // what memory there is could not be read
  memfd,  // no file in memory
  copy,   // no room to copy to
  map,    // the copy could not be mapped
  fork,   // of a replica of what is frozen
  end,    // it was not to go on
};

struct FreezeOutcome {
  FreezeStep failed_at = FreezeStep::none;
  std::int32_t error = 0;   // an errno
  std::uint64_t bytes = 0;  // that are frozen, those never touched among them
};

// What stands in the way in this program, before anything is done.  Empty: nothing.
std::optional<Error> why_not_frozen();

// Freezes this process, piece by piece, so that never more than a piece of 64 MB is there twice.
// Where it fails the contents of all memory are as they were, partly frozen.  `go_on` is asked before
// each piece.  From now on core dumps have the frozen memory, if they have private memory at all.
// Requires: one thread, all signals blocked.
FreezeOutcome freeze(bool (*go_on)(const void*), const void* argument) noexcept;

// What is to be said of one that has failed.
Error error_of(const FreezeOutcome&);

}  // namespace evparallel
