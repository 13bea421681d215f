// control_client.hpp - the client's end of a control socket, the counterpart of server.hpp.
// Runs in: parent.  Licence: see COPYING.
//
// Passive: it has no loop.  The owner of the object watches the socket, calls take() when it is
// readable and flush() when it is writable.
#pragma once

#include "base/ring_buffer.hpp"
#include "system/socket.hpp"
#include "system/stdio_plan.hpp"
#include "codec/wire.hpp"

namespace evparallel::detail {

// A request about that child, or about none; all other members are 0.
Request request_of(RequestKind, std::uint64_t id = no_spawn, std::uint32_t slot = no_slot) noexcept;

class ControlClient {
public:
  ControlClient() noexcept = default;
  explicit ControlClient(OwnedFd control) noexcept : control_(std::move(control)) {
    refuse_descriptors(control_.get());  // no report has some
  }

  int fd() const noexcept { return control_.get(); }
  explicit operator bool() const noexcept { return static_cast<bool>(control_); }

  // Sends a request, with descriptors if there are any, or queues it if the socket is full or too
  // many descriptors are in flight.  The descriptors are copies that this process owns; they are
  // dropped when they have been sent.  Returns false if the queue is full, too, or there is no memory
  // for it: then nothing is taken.
  bool ask(Request, OwnedFd along = {}, StdioPlan streams = {}) noexcept;
  // Sends what is queued.  Returns true if nothing is left to send.
  bool flush();
  bool idle() const noexcept { return queue_.empty(); }
  // No event says when the first request of the queue can be sent: too many descriptors are in
  // flight.
  bool must_retry() const noexcept { return !idle() && flow_ == IoResult::retry_later; }
  // The socket has refused a request for good: take() returns what was reported before, then the
  // end.
  bool ended() const noexcept { return ended_; }

  IoResult take(Report&);
  // The other end is in another pid namespace: from now on the pid of a new child is the one that
  // the kernel translates for this process.  It is the pid of the snapshot if the kernel was not
  // asked to.
  void translate_numbers() noexcept;

  void close() noexcept;

private:
  struct Queued {
    Request request{};
    OwnedFd along{};
    StdioPlan streams{};
  };
  // True: it has left, or never will.
  bool send(Queued&) noexcept;

  OwnedFd control_;
  RingBuffer<Queued> queue_;
  IoResult flow_ = IoResult::done;  // of the last attempt
  std::uint64_t seen_ = 0;          // exits received
  bool ended_ = false;
  bool translated_ = false;
};

}  // namespace evparallel::detail
