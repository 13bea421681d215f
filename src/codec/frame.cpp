// frame.cpp - cuts and joins frames.
// Runs in: parent, child.  Licence: see COPYING.
#include "codec/frame.hpp"

#include "base/startup_path.hpp"

#include <algorithm>
#include <new>

namespace evparallel::detail {

namespace {

// A body of at least this size gets memory of its own, so that it is received in its final place.
constexpr std::size_t large_body = 32 * 1024;
constexpr std::size_t first_room = 256 * 1024;
// A reader that keeps no bytes releases memory above this.
constexpr std::size_t kept_capacity = 64 * 1024;

EVPARALLEL_EARLY void write_header(char* to, FrameKind kind, std::uint64_t id,
                                   const Writer& message) noexcept {
  const std::uint64_t attached = message.attached() ? message.attached()->size() : 0;
  const std::uint64_t word =
      message.size() | std::uint64_t{static_cast<std::uint8_t>(kind)} << 48 | attached << 56;
  std::memcpy(to, &word, sizeof word);
  std::memcpy(to + sizeof word, &id, sizeof id);
}

}  // namespace

// ---- FrameReader ----

EVPARALLEL_EARLY std::string_view FrameReader::pending() const noexcept {
  return carry_at_ < carry_.size() ? std::string_view(carry_).substr(carry_at_) : view_;
}

// Makes `wanted` bytes contiguous at the front of pending(), if there are enough.
EVPARALLEL_EARLY bool FrameReader::pull(std::size_t wanted) {
  const std::string_view have = pending();
  if (have.size() >= wanted) return true;
  if (carry_at_ == carry_.size()) return false;
  const std::size_t missing = std::min(wanted - have.size(), view_.size());
  carry_.append(view_.data(), missing);
  view_.remove_prefix(missing);
  return carry_.size() - carry_at_ >= wanted;
}

EVPARALLEL_EARLY void FrameReader::consume(std::size_t size) noexcept {
  if (carry_at_ < carry_.size())
    carry_at_ += size;
  else
    view_.remove_prefix(size);
}

EVPARALLEL_EARLY void FrameReader::keep() {
  if (view_.empty() && carry_.capacity() <= kept_capacity && carry_at_ == 0) return;
  if (carry_at_ > 0) {
    carry_.erase(0, carry_at_);
    carry_at_ = 0;
  }
  try {
    carry_.append(view_);
  } catch (const std::bad_alloc&) {
    if (!skip_kept()) throw;
  }
  view_ = {};
  if (carry_.empty() && carry_.capacity() > kept_capacity) carry_.shrink_to_fit();
}

// There is no memory for the bytes of a small frame: they are dropped.  False: they are not bytes of
// one frame alone.  Those of a header need no memory of their own.
bool FrameReader::skip_kept() noexcept {
  const std::size_t size = carry_.size() + view_.size();
  if (state_ != State::small || size > length_) return false;
  carry_.clear();
  skip_body(size);
  return true;
}

void FrameReader::skip_body(std::size_t skipped) noexcept {
  skipped_ = skipped;
  why_skipped_ = Frame::Skipped::no_memory;
  state_ = State::skipped;
}

namespace {

EVPARALLEL_EARLY bool is_known(std::uint64_t kind) noexcept {
  return kind >= static_cast<std::uint64_t>(FrameKind::task) &&
         kind <= static_cast<std::uint64_t>(FrameKind::ping);
}

}  // namespace

// The usual case: a short frame that is completely in the fed bytes.
EVPARALLEL_EARLY bool FrameReader::next_at_once(Frame& frame) noexcept {
  if (state_ != State::header || !carry_.empty() || view_.size() < frame_header_size) return false;
  std::uint64_t word;
  std::memcpy(&word, view_.data(), sizeof word);
  const std::uint64_t length = word & frame_length_limit;
  const std::uint64_t kind = word >> 48 & 0xff;
  if (!is_known(kind) || length >= large_body || length > max_body_ ||
      length > view_.size() - frame_header_size)
    return false;
  frame.kind = static_cast<FrameKind>(kind);
  std::memcpy(&frame.id, view_.data() + sizeof word, sizeof frame.id);
  frame.body = {view_.data() + frame_header_size, static_cast<std::size_t>(length)};
  frame.whole = nullptr;
  frame.skipped = Frame::Skipped::no;
  frame.attached = static_cast<unsigned>(word >> 56);
  frame.descriptors = nullptr;
  view_.remove_prefix(frame_header_size + static_cast<std::size_t>(length));
  return true;
}

EVPARALLEL_EARLY bool FrameReader::next(Frame& frame) {
  if (next_at_once(frame)) return true;
  if (carry_at_ > 0 && carry_at_ == carry_.size()) {
    carry_.clear();
    carry_at_ = 0;
  }
  if (state_ == State::header && !next_header()) return false;
  switch (state_) {
    case State::small: return next_small(frame);
    case State::large: return next_large(frame);
    default: return next_skipped(frame);
  }
}

// Reads a header, whose bytes may have come in two pieces.
EVPARALLEL_EARLY bool FrameReader::take_header(char* to) noexcept {
  const std::size_t carried = std::min(carry_.size() - carry_at_, frame_header_size);
  const std::size_t missing = frame_header_size - carried;
  if (missing > view_.size()) return false;
  std::memcpy(to, carry_.data() + carry_at_, carried);
  if (missing > 0) std::memcpy(to + carried, view_.data(), missing);  // else it may be nullptr
  carry_at_ += carried;
  view_.remove_prefix(missing);
  return true;
}

EVPARALLEL_EARLY bool FrameReader::next_header() {
  char bytes[frame_header_size];
  if (!take_header(bytes)) return false;
  std::uint64_t word;
  std::memcpy(&word, bytes, sizeof word);
  std::memcpy(&id_, bytes + sizeof word, sizeof id_);
  length_ = word & frame_length_limit;
  const std::uint64_t kind = word >> 48 & 0xff;
  attached_ = static_cast<unsigned>(word >> 56);
  if (!is_known(kind))
    throw Error(Errc::bad_message,
                "bad message: a frame has the unknown kind " + std::to_string(kind));
  kind_ = static_cast<FrameKind>(kind);
  // An error is reported whatever the user's limit is.
  const std::uint64_t limit =
      kind_ == FrameKind::error ? std::max(max_body_, error_body_limit) : max_body_;
  if (length_ > limit) {
    state_ = State::skipped;
    why_skipped_ = Frame::Skipped::too_large;
    skipped_ = 0;
  } else if (length_ > large_.max_size()) {
    skip_body(0);
  } else if (length_ >= large_body) {
    state_ = State::large;
    // The memory of the last frame is filled again.
    if (large_.size() > length_) large_.resize(static_cast<std::size_t>(length_));
    large_filled_ = 0;
  } else {
    state_ = State::small;
  }
  return true;
}

EVPARALLEL_EARLY bool FrameReader::next_small(Frame& frame) {
  const std::size_t length = static_cast<std::size_t>(length_);
  try {
    if (!pull(length)) return false;
  } catch (const std::bad_alloc&) {
    skip_body(0);
    return next_skipped(frame);
  }
  frame =
      Frame{kind_,   id_,     pending().substr(0, length), nullptr, Frame::Skipped::no, attached_,
            nullptr, SIZE_MAX};
  consume(length);
  state_ = State::header;
  return true;
}

bool FrameReader::next_large(Frame& frame) {
  while (large_filled_ < length_ && !pending().empty()) {
    const Room free = room();
    if (free.size == 0) return next_skipped(frame);
    const std::size_t size = std::min(free.size, pending().size());
    std::memcpy(free.data, pending().data(), size);
    filled(size);
    consume(size);
  }
  if (large_filled_ < length_) return false;
  large_.resize(large_filled_);
  frame = Frame{kind_, id_, large_, &large_, Frame::Skipped::no, attached_, nullptr, SIZE_MAX};
  state_ = State::header;
  return true;
}

bool FrameReader::next_skipped(Frame& frame) {
  while (skipped_ < length_ && !pending().empty()) {
    const std::size_t size =
        static_cast<std::size_t>(std::min<std::uint64_t>(length_ - skipped_, pending().size()));
    consume(size);
    skipped_ += size;
  }
  if (skipped_ < length_) return false;
  frame = Frame{kind_, id_, {}, nullptr, why_skipped_, attached_, nullptr, SIZE_MAX};
  state_ = State::header;
  return true;
}

namespace {

// At most four times the bytes that have arrived, in such steps that the last one ends at the
// length: then all steps together move a third of the message.
std::size_t next_capacity(std::size_t arrived, std::size_t length) noexcept {
  const std::size_t most = std::max(first_room, 4 * std::min(arrived, SIZE_MAX / 4));
  while (length > most) length = length / 4 + (length % 4 != 0 ? 1 : 0);
  return length;
}

}  // namespace

EVPARALLEL_EARLY FrameReader::Room FrameReader::room() {
  if (state_ != State::large || large_filled_ == length_) return {nullptr, 0};
  const std::size_t length = static_cast<std::size_t>(length_);
  if (large_filled_ == large_.size() && large_.size() == large_.capacity()) try {
      large_.reserve(next_capacity(large_filled_, length));
    } catch (const std::bad_alloc&) {
      skip_rest_of_large();
      return {nullptr, 0};
    }
  // A resize fills with zeros: only as much at a time as stays in a cache until it is overwritten,
  // and as much as one read returns.
  if (large_.size() - large_filled_ < first_room / 2)
    large_.resize(std::min({length, large_.capacity(), large_filled_ + first_room}));
  return {large_.data() + large_filled_, large_.size() - large_filled_};
}

// There is no memory for the frame: its first bytes are dropped, too.
void FrameReader::skip_rest_of_large() noexcept {
  skip_body(std::exchange(large_filled_, 0));
  std::string().swap(large_);
}

// ---- FrameQueue ----

EVPARALLEL_EARLY void FrameQueue::put_header(FrameKind kind, std::uint64_t id,
                                             const Writer& message) {
  char header[frame_header_size];
  write_header(header, kind, id, message);
  append({header, frame_header_size}, {});
}

// Adopted and large parts stay in their own memory: the next frame begins behind them.
EVPARALLEL_EARLY void FrameQueue::append(std::string_view first, std::string_view second) {
  if (segments_.empty()) {
    small_.append(first);
    small_.append(second);
    return;
  }
  if (segments_.back().owner || segments_.back().bytes.size() >= large_body)
    segments_.emplace_back();
  segments_.back().bytes.append(first).append(second);
}

// Appends the header, and the written part of the message.
EVPARALLEL_EARLY void FrameQueue::put_whole(FrameKind kind, std::uint64_t id,
                                            const Writer& message) {
  char header[frame_header_size];
  write_header(header, kind, id, message);
  append({header, frame_header_size}, message.written());
}

EVPARALLEL_EARLY void FrameQueue::push_adopted(const Writer& message) {
  if (!message.adopted_owner()) return;
  Segment adopted;
  adopted.owner = message.adopted_owner();
  adopted.data = message.adopted().data();
  adopted.size = message.adopted().size();
  segments_.push_back(std::move(adopted));
}

EVPARALLEL_EARLY void FrameQueue::push_attached(const Writer& message) {
  if (!message.attached()) return;
  along_.push_back({written_ + size_ - frame_header_size - message.size(), message.attached()});
}

EVPARALLEL_EARLY const std::vector<Attachment>* FrameQueue::along() const noexcept {
  return !along_.empty() && along_.front().at == written_ ? along_.front().attached.get() : nullptr;
}

EVPARALLEL_EARLY std::size_t FrameQueue::most_at_once() const noexcept {
  for (const Along& next : along_)
    if (next.at > written_) return static_cast<std::size_t>(next.at - written_);
  return size_;
}

// Calls f(), which appends; if there is no memory, takes back what it has appended.
template <class F>
EVPARALLEL_EARLY void FrameQueue::appended_whole(const Writer& message, F f) {
  const std::size_t before = size_;
  size_ += frame_header_size + message.size();
  try {
    f();
  } catch (...) {
    truncate(before);
    throw;
  }
}

EVPARALLEL_EARLY void FrameQueue::push(FrameKind kind, std::uint64_t id, Writer& message) {
  appended_whole(message, [&] { push_taken(kind, id, message); });
  message.clear();
}

EVPARALLEL_EARLY void FrameQueue::push_taken(FrameKind kind, std::uint64_t id, Writer& message) {
  push_attached(message);
  if (message.written().size() < large_body) {
    put_whole(kind, id, message);
  } else {
    put_header(kind, id, message);
    segments_.emplace_back().bytes.swap(message.bytes());
  }
  push_adopted(message);
}

void FrameQueue::push_kept(FrameKind kind, std::uint64_t id, Writer& message) {
  message.share(large_body);
  appended_whole(message, [&] {
    push_attached(message);
    put_whole(kind, id, message);
    push_adopted(message);
  });
}

EVPARALLEL_EARLY int FrameQueue::front(ByteSpan* pieces, int max) const noexcept {
  int count = 0;
  std::size_t left = most_at_once();
  const auto add = [&](std::string_view bytes) {
    bytes = bytes.substr(0, left);
    left -= bytes.size();
    if (!bytes.empty()) pieces[count++] = {bytes.data(), bytes.size()};
  };
  for (std::size_t at = 0; at < small_.size() && count < max && left > 0;) {
    const std::string_view bytes = small_.from(at);
    at += bytes.size();
    add(bytes);
  }
  for (std::size_t i = 0; i < segments_.size() && count < max && left > 0; ++i)
    add(segments_[i].view());
  return count;
}

EVPARALLEL_EARLY void FrameQueue::written(std::size_t size) noexcept {
  if (size > 0 && along()) along_.erase(along_.begin());
  written_ += size;
  size_ -= size;
  const std::size_t of_small = std::min(size, small_.size());
  if (of_small > 0) small_.drop_front(of_small);
  for (size -= of_small; size > 0;) {
    Segment& first = segments_.front();
    const std::size_t left = first.view().size();
    const std::size_t now = std::min(left, size);
    size -= now;
    first.written += now;
    if (now == left) segments_.pop_front();
  }
}

void FrameQueue::clear() noexcept {
  small_.clear();
  segments_.clear();
  along_.clear();
  size_ = 0;
}

void FrameQueue::truncate(std::size_t size) noexcept {
  if (size >= size_) return;
  size_ = size;
  while (!along_.empty() && along_.back().at >= written_ + size) along_.pop_back();
  const std::size_t in_small = std::min(size, small_.size());
  small_.drop_back(small_.size() - in_small);
  size -= in_small;
  std::size_t kept = 0;
  while (size > 0) {
    Segment& segment = segments_[kept++];
    const std::size_t now = std::min(size, segment.view().size());
    if (segment.owner)
      segment.size = segment.written + now;
    else
      segment.bytes.resize(segment.written + now);
    size -= now;
  }
  while (segments_.size() > kept) segments_.pop_back();
}

}  // namespace evparallel::detail
