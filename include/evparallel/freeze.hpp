// freeze.hpp - memory that a frozen snapshot is to freeze beside that of malloc.
// Licence: see COPYING.  Manual: evparallel_snapshot(3).
#pragma once

#include <evparallel/detail/export.hpp>

#include <cstddef>

namespace evparallel {

// Snapshots that are taken from now on with SnapshotOptions::freeze freeze these bytes, too, as far
// as they are whole pages of private anonymous memory then: what the program has from mmap(2), or a
// large array in static storage.  What is no such memory is left as it is.
// Fails: std::logic_error for what cannot be memory.
EVPARALLEL_API void freezable(const void* from, std::size_t size);

}  // namespace evparallel
