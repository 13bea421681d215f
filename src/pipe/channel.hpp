// channel.hpp - untyped frames on one socket.
// Runs in: parent, child.  Licence: see COPYING.
//
// Passive: a descriptor and two verbs, receive and flush.  A plain `run` child drives it with
// blocking calls, all others from a loop.
#pragma once

#include "base/object_pool.hpp"
#include "system/socket.hpp"
#include "codec/frame.hpp"

namespace evparallel {

// What is under way on one socket, both ways.
struct ChannelBuffers {
  // Nothing is; the next frame may as well pass through another one.
  bool none() const noexcept {
    return out.empty() && !in.in_frame() && along.empty() && current.descriptors.empty();
  }

  FrameReader in;
  FrameQueue out;
  std::vector<ReceivedFds> along;  // came, and their frames are not complete yet
  ReceivedFds current;             // of the last frame
};

class Channel {
public:
  // `traffic`: where the frames pass through.  One that is lent is given back whenever nothing is
  // under way: few of many sockets ever have one.
  Channel(OwnedFd socket, std::size_t max_message, Pooled<ChannelBuffers> traffic = {}) noexcept
      : socket_(std::move(socket)), traffic_(std::move(traffic)), max_message_(max_message) {}

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
  IoResult flush(Wait);
  // No more frames: says so, and closes the direction once all is written.
  void finish();
  bool finished() const noexcept { return finishing_; }
  // Finished and written, or nobody reads.
  bool out_over() const noexcept { return out_dead_ || (finishing_ && queued() == 0); }
  bool out_dead() const noexcept { return out_dead_; }
  std::size_t queued() const noexcept { return traffic_.peek() ? traffic_.peek()->out.size() : 0; }
  // Bytes ever taken, and ever written: what tells whether a frame has left.
  std::uint64_t bytes_put() const noexcept { return bytes_written_ + queued(); }
  std::uint64_t bytes_written() const noexcept { return bytes_written_; }

  // ---- in ----
  // One read, into `scratch` or into the large frame under way.  Then take frames with next() until
  // it says no, then call keep(), before scratch is used for anything else.
  IoResult receive(char* scratch, std::size_t size, Wait);
  // The descriptors of a frame are closed with the next one, unless they are taken.
  // Fails: Errc::bad_message where the stream makes no sense.
  bool next(Frame& frame);
  // Those of the last frame, for who keeps its message.
  ReceivedFds take_along() noexcept { return std::move(traffic_->current); }
  void keep();
  // Behind the frame that next() gave last there is something, if only a part of a frame.
  bool more_is_here() const noexcept { return traffic_.peek() && traffic_.peek()->in.in_frame(); }
  // An end of file was read.
  bool in_over() const noexcept { return in_over_; }
  // The end of file came inside a frame.
  bool torn() const noexcept { return in_over_ && more_is_here(); }
  // Of that frame; 0 where it is not known.
  std::uint64_t torn_id() const noexcept {
    return traffic_.peek() ? traffic_.peek()->in.id_under_way() : 0;
  }

  void set_max_message(std::size_t size) noexcept { max_message_ = size; }
  void close() noexcept;

private:
  static void check_along(const Writer& message);
  [[noreturn]] void refuse_size(Writer& message) const;
  void match_along(Frame&);
  void settle() noexcept;

  OwnedFd socket_;
  bool cutting_ = false;  // a frame of the traffic may be in use
  bool finishing_ = false;
  bool out_dead_ = false;
  bool in_over_ = false;
  Pooled<ChannelBuffers> traffic_;
  std::size_t max_message_;
  std::uint64_t bytes_written_ = 0;
};

}  // namespace evparallel
