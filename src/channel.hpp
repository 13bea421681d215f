// channel.hpp - untyped frames on one socket.
// Licence: see COPYING.
//
// Passive: a descriptor and two verbs, receive and flush.  A plain `run` child drives it with
// blocking calls, all others from a loop.
#pragma once

#include "frame.hpp"
#include "socket.hpp"

namespace evparallel {

class Channel {
public:
  Channel(Descriptor socket, std::size_t max_message) noexcept
      : socket_(std::move(socket)), in_(max_message), max_message_(max_message) {}

  int fd() const noexcept { return socket_.get(); }
  bool is_open() const noexcept { return static_cast<bool>(socket_); }

  // ---- out ----
  // Queues one frame; `message` is left empty, or keeps what it holds.
  // Fails, and nothing was queued: Errc::too_large, also for too many descriptors;
  // Errc::bad_message where one of them is not open.
  enum class Message : bool { taken, kept };
  void put(FrameKind, std::uint64_t id, Writer& message, Message = Message::taken);
  // Writes what is queued.  done: nothing is left; again, later: something is; end: nobody reads it
  // any more, and it is gone.
  Flow flush(Wait);
  // No more frames: says so, and closes the direction once all is written.
  void finish();
  bool finished() const noexcept { return finishing_; }
  // Finished and written, or nobody reads.
  bool out_over() const noexcept { return out_dead_ || (finishing_ && out_.empty()); }
  bool out_dead() const noexcept { return out_dead_; }
  std::size_t queued() const noexcept { return out_.size(); }
  // Bytes ever taken, and ever written: what tells whether a frame has left.
  std::uint64_t bytes_put() const noexcept { return bytes_written_ + out_.size(); }
  std::uint64_t bytes_written() const noexcept { return bytes_written_; }

  // Memory for what is queued; requires: nothing was put yet.
  void use_room(ByteRow room) noexcept { out_.use_room(std::move(room)); }

  // ---- in ----
  // One read, into `scratch` or into the large frame under way.  Then take frames with next() until
  // it says no, then call keep(), before scratch is used for anything else.
  Flow receive(char* scratch, std::size_t size, Wait);
  // The descriptors of a frame are closed with the next one, unless they are taken.
  // Fails: Errc::bad_message where the stream makes no sense.
  bool next(Frame& frame);
  // Those of the last frame, for who keeps its message.
  Batch take_along() noexcept { return std::move(current_); }
  void keep() { in_.keep(); }
  // Behind the frame that next() gave last there is something, if only a part of a frame.
  bool more_is_here() const noexcept { return in_.in_frame(); }
  // An end of file was read.
  bool in_over() const noexcept { return in_over_; }
  // The end of file came inside a frame.
  bool torn() const noexcept { return in_over_ && in_.in_frame(); }

  void set_max_message(std::size_t size) noexcept;
  void close() noexcept;

private:
  static void check_along(const Writer& message);
  [[noreturn]] void refuse_size(Writer& message) const;
  void match_along(Frame&);

  Descriptor socket_;
  FrameReader in_;
  FrameQueue out_;
  std::size_t max_message_;
  std::uint64_t bytes_written_ = 0;
  std::vector<Batch> along_;  // came, and their frames are not complete yet
  Batch current_;             // of the last frame
  bool finishing_ = false;
  bool out_dead_ = false;
  bool in_over_ = false;
};

}  // namespace evparallel
