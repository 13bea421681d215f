// freeze.hpp - memory that a frozen snapshot freezes in addition to that of malloc.
// Licence: see COPYING.  Manual: evparallel_snapshot(3).
#pragma once

#include <evparallel/detail/export.hpp>

#include <cstddef>

namespace evparallel {

// Snapshots that are taken from now on with SnapshotOptions::freeze also freeze these bytes, as far
// as they are whole pages of private anonymous memory then: memory from mmap(2), or a large array
// in static storage.  Other memory is left alone.
// Fails: std::logic_error for an invalid address range.
EVPARALLEL_API void freezable(const void* from, std::size_t size);

}  // namespace evparallel
