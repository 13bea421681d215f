// no_memory.hpp - the errors for a lack of memory in this process.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
//
// What ends a call must not need memory, so there are errors that were made before.
#pragma once

#include <evparallel/error.hpp>

#include <new>

namespace evparallel::detail {

// Makes the errors that the functions below return if there is no memory.  Called before there is a
// snapshot: its children inherit them.
// Fails: std::bad_alloc.
void prepare_for_no_memory();

// The error that names no purpose.
Error no_memory(Delivery) noexcept;

// `purpose`: such as "for the answer".  The process goes on, and may succeed with something smaller.
Error no_memory(const char* purpose) noexcept;

// The error that `make()` returns; or the one above, if there is no memory for it.
// Fails: as make(), except for std::bad_alloc.
template <class Make>
Error error_or_no_memory(Delivery delivery, Make make) {
  try {
    return make();
  } catch (const std::bad_alloc&) {
    return no_memory(delivery);
  }
}

// A copy; without its last words, if there is no memory for them.
ExitStatus copy_of(const ExitStatus&) noexcept;

}  // namespace evparallel::detail
