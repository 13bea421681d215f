// channel.cpp - frames over a socket.
// Runs in: parent, child.  Licence: see COPYING.
#include "pipe/channel.hpp"

#include "base/startup_path.hpp"
#include "system/failpoint.hpp"
#include "system/polling.hpp"

#include <algorithm>
#include <new>

namespace evparallel::detail {

namespace {

// The limit is for what users send.  Tasks come from the program itself; errors are short.
EVPARALLEL_EARLY bool is_limited(FrameKind kind) noexcept {
  return kind != FrameKind::task && kind != FrameKind::error;
}

// True for what users send, and for answers; false for the library's own frames.
bool is_message(FrameKind kind, std::uint64_t id) noexcept {
  return kind == FrameKind::message || kind == FrameKind::call || kind == FrameKind::value ||
         (kind == FrameKind::error && id != 0);
}

// A batch arrives with the first byte of its frame, and the frames of one read are cut before the
// next read: there is one at most, of the frame that is not complete.  Others belong to no frame.
constexpr std::size_t most_batches = 1;

}  // namespace

void Channel::check_along(const Writer& message) {
  const std::vector<Attachment>& attached = *message.attached();
  if (attached.size() > most_descriptors)
    throw Error(Errc::too_large, "too large: the message has " + std::to_string(attached.size()) +
                                     " descriptors, and the limit is " +
                                     std::to_string(most_descriptors));
  for (const Attachment& one : attached)
    if (!descriptor_is_open(one.fd))
      throw Error(Errc::bad_message, "bad message: descriptor " + std::to_string(one.fd) +
                                         " in the message is not open");
}

void Channel::refuse_size(Writer& message) const {
  const std::string text = "too large: the message has " + std::to_string(message.size()) +
                           " bytes, and the limit is " + std::to_string(max_message_);
  message.clear();
  throw Error(Errc::too_large, text);
}

EVPARALLEL_EARLY void Channel::put(FrameKind kind, std::uint64_t id, Writer& message,
                                   Message which) {
  if (message.size() > max_message_ && is_limited(kind)) refuse_size(message);
  if (message.attached()) check_along(message);
  if (out_dead_) {
    if (which == Message::taken) message.clear();
    return;
  }
  FrameQueue& out = traffic_->out;
  const std::size_t before = out.size();
  if (which == Message::taken)
    out.push(kind, id, message);
  else
    out.push_kept(kind, id, message);
  if (has_failpoint_hook()) fault_at_put(kind, id, before);
}

void Channel::fault_at_put(FrameKind kind, std::uint64_t id, std::size_t before) {
  if (fault_at(Failpoint::put, is_message(kind, id)) == 0) return;
  traffic_->out.truncate(before + size_of_truncated_frame());
  flush(Wait::yes);
  die_of_fault();
}

EVPARALLEL_EARLY IoResult Channel::flush(Wait wait) {
  if (end_ == End::missing && !out_dead_ && !put_end()) return IoResult::retry_later;
  while (queued() > 0) {
    FrameQueue& out = traffic_->out;
    fault_at(Failpoint::write);
    ByteSpan pieces[16];
    const Transfer sent = send(socket_.get(), pieces, out.front(pieces, 16), wait, out.along());
    if (sent.flow == IoResult::would_block || sent.flow == IoResult::retry_later) return sent.flow;
    if (sent.flow == IoResult::closed) {
      // Only this direction is dead: what the other side has written before its end is still to be
      // read.
      out_dead_ = true;
      out.clear();
      release_if_idle();
      return IoResult::closed;
    }
    out.written(sent.size);
    bytes_written_ += sent.size;
    if (out.empty()) fault_at(Failpoint::written);
  }
  release_if_idle();
  if (finished()) half_close(socket_.get());
  return IoResult::done;
}

// While frames are cut, the last frame may be in the memory of the buffers, until the next one or
// keep().
EVPARALLEL_EARLY void Channel::release_if_idle() noexcept {
  if (traffic_.can_be_given_back() && !frame_in_use_ && traffic_->none()) traffic_.give_back();
}

void Channel::finish() noexcept {
  if (finished()) return;
  end_ = End::missing;
  if (!out_dead_) put_end();
}

// False: there is no memory for it.
bool Channel::put_end() noexcept {
  Writer nothing;
  try {
    traffic_->out.push(FrameKind::end, 0, nothing);
  } catch (const std::bad_alloc&) {
    return false;
  }
  end_ = End::queued;
  return true;
}

EVPARALLEL_EARLY IoResult Channel::receive(char* scratch, std::size_t size, Wait wait) {
  std::size_t most = SIZE_MAX;
  return receive(scratch, size, wait, most);
}

EVPARALLEL_EARLY IoResult Channel::receive(char* scratch, std::size_t size, Wait wait,
                                           std::size_t& most) {
  if (most == 0) {
    in_over_ = true;
    return IoResult::closed;
  }
  FrameReader& in = traffic_->in;
  const FrameReader::Room room = in.room();
  const bool direct = room.size > 0;
  const Transfer got =
      detail::receive(socket_.get(), direct ? room.data : scratch,
                      std::min(direct ? room.size : size, most), wait, &traffic_->along);
  if (got.flow == IoResult::closed) in_over_ = true;
  if (got.flow != IoResult::done) {
    release_if_idle();
    return got.flow;
  }
  fault_at(Failpoint::read);
  most -= got.size;
  if (direct)
    in.filled(got.size);
  else
    in.feed({scratch, got.size});
  return IoResult::done;
}

std::size_t Channel::input_here() const noexcept {
  return is_open() ? bytes_to_read(socket_.get()) : 0;
}

EVPARALLEL_EARLY bool Channel::next(Frame& frame) {
  if (!traffic_.peek()) return false;
  ChannelBuffers& traffic = *traffic_;
  traffic.in.set_max_body(max_message_);
  if (!traffic.in.next(frame)) {
    if (traffic.along.size() > most_batches)
      throw Error(Errc::bad_message, "bad message: descriptors arrived that belong to no frame");
    return false;
  }
  frame_in_use_ = true;
  frame.max_decoded = max_decoded();
  if (frame.attached > 0 || !traffic.current.descriptors.empty()) match_along(frame);
  return true;
}

EVPARALLEL_EARLY void Channel::keep() {
  frame_in_use_ = false;
  if (!traffic_.peek()) return;
  traffic_->in.keep();
  release_if_idle();
}

void Channel::match_along(Frame& frame) {
  ReceivedFds& current = traffic_->current;
  current = ReceivedFds();
  if (frame.attached == 0) return;
  std::vector<ReceivedFds>& along = traffic_->along;
  if (!along.empty()) {
    current = std::move(along.front());
    along.erase(along.begin());
  }
  // If their number differs, they are not those that were sent.
  if (current.descriptors.size() != frame.attached) current = ReceivedFds();
  frame.descriptors = &current.descriptors;
}

// The body of the last frame stays valid: its receiver may still use it.
void Channel::close() noexcept {
  if (ChannelBuffers* traffic = traffic_.peek()) {
    traffic->out.clear();
    traffic->along.clear();
    traffic->current = ReceivedFds();
  }
  out_dead_ = true;
  in_over_ = true;
  socket_.reset();
}

}  // namespace evparallel::detail
