// wire.hpp - the bytes on both sockets of a child.  Only this file defines their meaning.
// Runs in: parent, snapshot, child.  Licence: see COPYING.  Manual: evparallel_protocol(7).
//
// Both ends are the same image on the same machine, so numbers are in host order, and structures
// are sent as they are.
//
// Control socket (SOCK_SEQPACKET, one structure a packet):
//   client --Request--> snapshot --Report--> client
// Data socket (SOCK_STREAM):
//   frames of header (16 bytes) + body
#pragma once

#include <cstddef>
#include <cstdint>

namespace evparallel::detail {

constexpr std::uint32_t no_slot = UINT32_MAX;
constexpr std::uint64_t no_spawn = 0;  // in `failed`: the snapshot does not accept this client

// ---- control socket ----

enum class RequestKind : std::uint32_t {
  spawn = 1,  // fork a child; its end of the data socket is attached, then its standard streams
  kill,       // send it `signum`
  terminate,  // in `linger_ms`: SIGTERM, and SIGKILL `grace_ms` later
  kill_if_still_running,  // the same, if it still runs `call` then, or has not answered `ping`
  stop,                   // fork no more children; end with the last child
  stop_without_reports,   // the same, and the client reads no reports any more
  kill_if_not_started,    // as `terminate`, if the child is still not ready for its first call
  fork_replica,  // of the parent: fork a process beside this one; its control socket is attached
  leave,  // of another Reactor of the parent: it reads no reports any more, and asks for no children
};

// The process group of a child.
enum class Group : std::uint32_t { own, parent };

struct Request {
  RequestKind kind;
  std::uint32_t slot;  // from `spawned`; no_slot before that: then `id` finds the child
  std::uint64_t id;    // of the spawn, chosen by the client
  std::uint64_t seen;  // number of exits that this client has received: their slots may be reused
  std::int32_t signum;
  std::int32_t cause;  // a Cause: of an end by `terminate` or one of the `kill_if` requests
  std::int64_t grace_ms;
  std::int64_t linger_ms;
  std::uint64_t call;  // 0: `ping` counts
  std::uint64_t ping;
  std::uint64_t seed;     // of a spawn: the seed of the child
  std::uint32_t streams;  // of a spawn: the plan of the child's standard streams
  Group group;
};

enum class ReportKind : std::uint32_t {
  spawned = 1,      // `pid` runs and has `slot`
  failed,           // final: there is no child; `code` is an errno
  exited,           // final: `code` is a wait status
  orphans,          // `id` is the number of orphans that were killed up to now
  refused_to_wait,  // `code` is the errno of poll(2): the snapshot polls from time to time
  begun,  // to the parent, once and first: `pid` serves, or it cannot, and `code` is an errno
  replica_forked,  // on the socket of the new process, by the one that forked it: `pid`, or `code`
};

struct Report {
  ReportKind kind;
  std::uint32_t slot;
  std::uint64_t id;
  std::int32_t pid;
  std::int32_t code;
  std::int32_t cause;  // a Cause, as far as the snapshot knows it
  std::int32_t reserved;
  std::int64_t user_us;
  std::int64_t system_us;
  std::int64_t max_rss;
  std::int64_t minor_faults;
  std::int64_t major_faults;
  std::int64_t born_before;  // of `spawned`: CLOCK_BOOTTIME in nanoseconds, taken after the fork
};

// The first packet that the parent writes to the control socket of a `fork_replica`.  Attached: the
// memory of the slots of the new process, and both ends of its rendezvous socket.
struct ReplicaStart {
  std::uint32_t renamed;  // 1: it gets `name`; 0: that of the process that forks it
  char name[60];          // of the snapshot, in titles; cut, with a null byte at its end
};

// ---- data socket ----

enum class FrameKind : std::uint8_t {
  task = 1,  // to the child, first: what to run
  call,      // to the child: argument of call `id`
  value,     // from the child: answer to call `id`
  error,     // from the child: call `id` failed (id 0: the task itself)
  message,   // both ways: one value of a pipe
  end,       // both ways: no more frames; an end of file without it is a broken end
  ping,      // to the child: its loop writes the id into its slot
};

// Bytes 0-5: length of the body; byte 6: FrameKind; byte 7: 0; bytes 8-15: call id.
constexpr std::size_t frame_header_size = 16;
constexpr std::size_t error_body_limit = 64 * 1024;
constexpr std::uint64_t frame_length_limit = (std::uint64_t{1} << 48) - 1;
// No limit of a message, where a size has 32 bits, too.
constexpr std::size_t longest_body =
    frame_length_limit < SIZE_MAX ? static_cast<std::size_t>(frame_length_limit) : SIZE_MAX;

}  // namespace evparallel::detail
