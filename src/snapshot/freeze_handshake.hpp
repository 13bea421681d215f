// freeze_handshake.hpp - how a snapshot becomes a frozen one, before it serves, and then several.
// Runs in: snapshot.  Licence: see COPYING.  Manual: evparallel_protocol(7).
//
// The first process freezes itself.  All others are forked from it, as children of the program like
// itself, so that they have the same files mapped and nothing is copied again.  What is said for that
// goes through the control socket of the first, before any request: FreezeReply once; then ForkReplicaRequest
// with a control socket along, and FreezeReply for it, for each of the others, which then says FreezeReply
// on its own socket.
#pragma once

#include "snapshot/freeze_memory.hpp"
#include "snapshot/server.hpp"

namespace evparallel {

struct FreezeReply {
  FreezeOutcome outcome;
  std::int32_t pid = 0;  // of the sibling
  std::int32_t reserved = 0;
};

struct ForkReplicaRequest {
  Slot* slots;  // mapped before the first one was forked
};

// In the first one, and later in each of the others, which has its own socket and slots in `start`
// then.  False: it is to end.
bool become_frozen(ServerStart& start) noexcept;

}  // namespace evparallel
