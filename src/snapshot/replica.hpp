// replica.hpp - a replica that a serving process of a snapshot forks beside itself.
// Runs in: snapshot.  Licence: see COPYING.  Manual: evparallel_protocol(7).
//
// The new process is a child of the program, as the one that forks it is, and takes nothing from it
// but its memory: it has no children, no clients, and none of its descriptors.
#pragma once

#include "system/fork.hpp"
#include "snapshot/server.hpp"

namespace evparallel::detail {

// Forks a process that has the same parent.  Fails in a pid namespace that cannot see the program:
// there no process can be forked as a child of the program.
Forked fork_sibling_of(const ServerStart&) noexcept;

// Forks a replica that serves the other end of `control`, and reports on that socket whether it
// could.  Returns true in the new process, whose `start` has the socket.
bool fork_replica(ServerStart& start, OwnedFd control) noexcept;
// In the new process, before it serves: reads its ReplicaStart.  Returns 0, or an errno if it cannot
// serve.
int become_replica(ServerStart& start) noexcept;

}  // namespace evparallel::detail
