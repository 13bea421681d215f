// evparallel.hpp - includes all headers, and gives an overview.
// Licence: see COPYING.  Manual: evparallel(7).
//
//   PARENT                          SNAPSHOT                    CHILD
//   run, process                                                your function
//     |  Remote / Process                                          ^
//     |  Pipe      <=========== data socket ==================> Pipe / Reply
//     |  Snapshot  <==== control socket ====> waits, forks ------> starts
//
// Read in this order: snapshot, run, pool, process, supervise, pipe, io, reactor, result, error.
//
// Rules that the other headers do not repeat:
// - Snapshot, Process, Remote, Timer and Watch own what they refer to and are move-only; Pipe,
//   Reply and Call are handles that may be copied, and so are those of a ReactorThread.
// - Arguments that are passed by reference must live until the call returns; callbacks and values
//   are moved in.
// - Callbacks run from the loop only, never from inside the call that set or caused them.
// - A Reactor and its handles are used by one thread; other threads may call Reactor::post, hold and
//   stop, and drop handles.  Each thread may have a Reactor of its own; any thread may use a
//   ReactorThread and its handles.
// - Misuse is std::logic_error, at the call; an error in set-up throws Error; each later error is
//   delivered in a Result or to on_error, exactly once.
#pragma once

#include <evparallel/backtrace.hpp>
#include <evparallel/binary_io.hpp>
#include <evparallel/call.hpp>
#include <evparallel/callable.hpp>
#include <evparallel/callback.hpp>
#include <evparallel/child_hooks.hpp>
#include <evparallel/error.hpp>
#include <evparallel/fault.hpp>
#include <evparallel/fd.hpp>
#include <evparallel/fields.hpp>
#include <evparallel/freeze.hpp>
#include <evparallel/interrupt.hpp>
#include <evparallel/io.hpp>
#include <evparallel/json_io.hpp>
#include <evparallel/map.hpp>
#include <evparallel/message.hpp>
#include <evparallel/options.hpp>
#include <evparallel/packed_io.hpp>
#include <evparallel/parallel_map.hpp>
#include <evparallel/pipe.hpp>
#include <evparallel/pool.hpp>
#include <evparallel/preflight.hpp>
#include <evparallel/process.hpp>
#include <evparallel/progress.hpp>
#include <evparallel/reactor.hpp>
#include <evparallel/reactor_thread.hpp>
#include <evparallel/result.hpp>
#include <evparallel/run.hpp>
#include <evparallel/shared_bytes.hpp>
#include <evparallel/snapshot.hpp>
#include <evparallel/start_task.hpp>
#include <evparallel/stdio_redirect.hpp>
#include <evparallel/stream.hpp>
#include <evparallel/supervise.hpp>
#include <evparallel/task.hpp>
#include <evparallel/this_call.hpp>
#include <evparallel/version.hpp>
#include <evparallel/with_state.hpp>
