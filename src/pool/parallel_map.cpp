// parallel_map.cpp - what a map without a loop of its own needs: a snapshot.
// Runs in: parent, child.  Licence: see COPYING.
#include <evparallel/parallel_map.hpp>

#include "loop/event_loop.hpp"

#include <stdexcept>

namespace evparallel::detail {

void prepare_blocking_map(const PoolOptions& options) {
  if (in_child())
    throw std::logic_error(
        "evparallel: map() was called in a child; make a pool on this_reactor() there");
  if (Loop::any_in_callback())
    throw std::logic_error(
        "evparallel: map() was called inside a callback of a Reactor; use Pool::map there");
  if (options.snapshots.empty() && !options.child.snapshot) default_or_init();
}

}  // namespace evparallel::detail
