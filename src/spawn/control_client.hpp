// control_client.hpp - the asking end of a control socket: the mirror of server.hpp.
// Runs in: parent.  Licence: see COPYING.
//
// Passive: it has no loop.  Its owner watches the socket, calls take() when it is readable and
// flush() when it is writable.
#pragma once

#include "system/socket.hpp"
#include "system/stdio_plan.hpp"
#include "codec/wire.hpp"

#include <deque>

namespace evparallel {

// About that child, or none; all else is 0.
Request request_of(RequestKind, std::uint64_t id = no_spawn, std::uint32_t slot = no_slot) noexcept;

class ControlClient {
public:
  ControlClient() noexcept = default;
  explicit ControlClient(OwnedFd control) noexcept : control_(std::move(control)) {}

  int fd() const noexcept { return control_.get(); }
  explicit operator bool() const noexcept { return static_cast<bool>(control_); }

  // Sends a request, with descriptors along where there are some; queues it where the socket is
  // full.  They are this process's copies, and are dropped when they have been sent.  Returns
  // false where the queue is full too: nothing was taken.
  bool ask(Request, OwnedFd along = {}, StdioPlan streams = {});
  // Sends what is queued.  Returns true when nothing is left to send.
  bool flush();
  bool idle() const noexcept { return queue_.empty(); }
  // The socket has refused a request for ever: take() gives what was reported before, then the end.
  bool ended() const noexcept { return ended_; }

  IoResult take(Report&);
  // The other end is in another pid namespace: the number of a child that was spawned is what the kernel makes of
  // it here.  It is that of the snapshot where the kernel was not asked.
  void translate_numbers() noexcept;

  void close() noexcept;

private:
  struct Queued {
    Request request;
    OwnedFd along;
    StdioPlan streams;
  };
  IoResult send(Queued&) noexcept;

  OwnedFd control_;
  std::deque<Queued> queue_;
  std::uint64_t seen_ = 0;  // exits heard of
  bool ended_ = false;
  bool translated_ = false;
};

}  // namespace evparallel
