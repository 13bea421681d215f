// freeze_handshake.hpp - how a snapshot freezes itself and forks its replicas before it serves.
// Runs in: snapshot.  Licence: see COPYING.  Manual: evparallel_protocol(7).
//
// The first process freezes itself.  All others are forked from it, as children of the program like
// the first one, so that they map the same files and nothing is copied again.  The messages for
// this go through the control socket of the first process, before any request: FreezeReply once;
// then, for each of the others, a ForkReplicaRequest that carries a control socket and both
// ends of a rendezvous socket, and a FreezeReply to it.  The new process then sends a FreezeReply on its own socket.
#pragma once

#include "snapshot/freeze_memory.hpp"
#include "snapshot/server.hpp"

namespace evparallel::detail {

struct FreezeReply {
  FreezeOutcome outcome;
  std::int32_t pid = 0;  // of the sibling
  std::int32_t reserved = 0;
};

struct ForkReplicaRequest {
  Slot* slots;  // mapped before the first process was forked
};

// Returns in the first process, and later in each of the others, which then has its own socket and
// slots in `start`.  Returns false if the process has to end.
bool become_frozen(ServerStart& start) noexcept;

}  // namespace evparallel::detail
