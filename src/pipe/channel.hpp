// channel.hpp - untyped frames on one socket.
// Runs in: parent, child.  Licence: see COPYING.
//
// Passive: it has a descriptor and two main operations, receive and flush.  A plain `run` child
// uses it with blocking calls, all others use it from a loop.
#pragma once

#include "base/object_pool.hpp"
#include "system/socket.hpp"
#include "codec/frame.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace evparallel::detail {

// The frames in transit on one socket, in both directions.
struct ChannelBuffers {
  // True if nothing is in transit: then the next frame can use another object.
  bool none() const noexcept {
    return out.empty() && !in.in_frame() && along.empty() && current.descriptors.empty();
  }

  FrameReader in;
  FrameQueue out;
  std::vector<ReceivedFds> along;  // received, but their frames are not complete yet
  ReceivedFds current;             // of the last frame
};

class Channel {
public:
  // `traffic`: the buffers of the frames.  If they are pooled, they are returned whenever nothing
  // is in transit: of many sockets only a few need them at a time.
  Channel(OwnedFd socket, std::size_t max_message, Pooled<ChannelBuffers> traffic = {}) noexcept
      : socket_(std::move(socket)), traffic_(std::move(traffic)), max_message_(max_message) {}

  int fd() const noexcept { return socket_.get(); }
  bool is_open() const noexcept { return static_cast<bool>(socket_); }

  // ---- out ----
  // Queues one frame; `message` is left empty, or keeps its content.
  // Fails, and nothing was queued: Errc::too_large, also for too many descriptors;
  // Errc::bad_message if one of them is not open.
  enum class Message : bool { taken, kept };
  void put(FrameKind, std::uint64_t id, Writer& message, Message = Message::taken);
  // Writes the queued frames.  done: nothing is left; would_block, retry_later: something is left;
  // closed: the other side reads no more, and the queue is dropped.
  IoResult flush(Wait);
  // Queues the end frame, and closes this direction once all is written.  If there is no memory for
  // the frame, flush() queues it.
  void finish() noexcept;
  bool finished() const noexcept { return end_ != End::none; }
  // All is written after finish(), or the other side reads no more.
  bool out_over() const noexcept { return out_dead_ || (end_ == End::queued && queued() == 0); }
  bool out_dead() const noexcept { return out_dead_; }
  std::size_t queued() const noexcept { return traffic_.peek() ? traffic_.peek()->out.size() : 0; }
  // The number of bytes ever queued, and ever written: they say whether a frame has left.
  std::uint64_t bytes_put() const noexcept { return bytes_written_ + queued(); }
  std::uint64_t bytes_written() const noexcept { return bytes_written_; }

  // ---- in ----
  // Reads once, into `scratch` or into an unfinished large frame.  Then take frames with next()
  // until it returns false, and call keep() before scratch is used for anything else.  The input is
  // over after `most` bytes, from which those that are read are taken off.
  IoResult receive(char* scratch, std::size_t size, Wait);
  IoResult receive(char* scratch, std::size_t size, Wait, std::size_t& most);
  // The descriptors of a frame are closed with the next frame, unless they are taken.
  // Fails: Errc::bad_message if the stream makes no sense.
  bool next(Frame& frame);
  // The descriptors of the last frame, for a caller that keeps its message.
  ReceivedFds take_along() noexcept { return std::move(traffic_->current); }
  void keep();
  // There are bytes behind the last frame of next(), if only a part of a frame.
  bool more_is_here() const noexcept { return traffic_.peek() && traffic_.peek()->in.in_frame(); }
  // An end of file was read, or the last byte of those that may be.
  bool in_over() const noexcept { return in_over_; }
  // What is in the socket now.
  std::size_t input_here() const noexcept;
  // The input is over inside a frame.
  bool torn() const noexcept { return in_over_ && more_is_here(); }
  // The id of that frame; 0 if it is not known.
  std::uint64_t torn_id() const noexcept {
    return traffic_.peek() ? traffic_.peek()->in.id_under_way() : 0;
  }

  void set_max_message(std::size_t size) noexcept { max_message_ = size; }
  void set_max_decoded(std::size_t size) noexcept {
    max_decoded_ = static_cast<std::uint32_t>(std::min<std::size_t>(size / unit, no_limit));
  }
  std::size_t max_decoded() const noexcept {
    return max_decoded_ == no_limit ? SIZE_MAX : max_decoded_ * unit;
  }
  void close() noexcept;

private:
  static void check_along(const Writer& message);
  [[noreturn]] void refuse_size(Writer& message) const;
  void match_along(Frame&);
  void fault_at_put(FrameKind, std::uint64_t id, std::size_t before);
  void release_if_idle() noexcept;
  bool put_end() noexcept;

  enum class End : unsigned char {
    none,
    missing,
    queued
  };  // the end frame; missing: is to be queued
  static constexpr std::uint32_t no_limit = UINT32_MAX;
  static constexpr std::size_t unit = 1024;

  OwnedFd socket_;
  bool frame_in_use_ = false;  // a frame in the buffers may be in use
  End end_ = End::none;
  bool out_dead_ = false;
  bool in_over_ = false;
  // Options::max_decoded in units of 1 KiB: this fits between the others, and there is a channel for
  // each child.
  std::uint32_t max_decoded_ = no_limit;
  Pooled<ChannelBuffers> traffic_;
  std::size_t max_message_;
  std::uint64_t bytes_written_ = 0;
};

}  // namespace evparallel::detail
