// frame.hpp - cuts a stream of bytes into frames and makes frames of messages.  No system call
// here.
// Runs in: parent, child.  Licence: see COPYING.
//
// A length is never believed: memory grows with what has arrived, at most to four times that.
#pragma once

#include "base/byte_queue.hpp"
#include "base/byte_span.hpp"
#include "base/ring_buffer.hpp"
#include "codec/wire.hpp"

#include <evparallel/io.hpp>

#include <string>
#include <string_view>

namespace evparallel {

struct Frame {
  FrameKind kind = FrameKind::end;
  std::uint64_t id = 0;
  std::string_view body;
  std::string* whole = nullptr;  // where the body is a string of its own that may be moved from
  // Why there is no body: the stream is in order all the same.
  enum class Skipped : unsigned char { no, too_large, no_memory } skipped = Skipped::no;
  unsigned attached = 0;                    // how many descriptors its sender says came along
  std::vector<int>* descriptors = nullptr;  // those that did

  Reader reader() const { return Reader(body, whole, descriptors); }
};

// Bytes in, frames out. use: give each piece that was received to feed(), take frames with next()
// until it says no, then keep(). A large frame under way offers room() instead, so that it is
// received where it stays.
class FrameReader {
public:
  explicit FrameReader(std::size_t max_body = frame_length_limit) noexcept : max_body_(max_body) {}

  void set_max_body(std::size_t size) noexcept { max_body_ = size; }

  // `bytes` must stay valid until keep().
  void feed(std::string_view bytes) noexcept { view_ = bytes; }
  // A frame's body is valid until the next call of any function here.
  // Fails: Errc::bad_message where the stream makes no sense; it must not be used any more then.
  bool next(Frame&);
  // What is not yet a frame is copied, so that the caller's buffer is free.
  void keep();

  // Room in the large frame under way: fill it, then say how much with filled().  Size 0: there is
  // none.
  struct Room {
    char* data;
    std::size_t size;
  };
  Room room();
  void filled(std::size_t size) noexcept { large_filled_ += size; }

  // True inside a frame: an end of file here has torn it.
  bool in_frame() const noexcept { return state_ != State::header || !pending().empty(); }
  // 0: of none, or its header is not complete.
  std::uint64_t id_under_way() const noexcept { return state_ == State::header ? 0 : id_; }

private:
  std::string_view pending() const noexcept;
  bool pull(std::size_t wanted);
  void consume(std::size_t size) noexcept;
  bool next_at_once(Frame&) noexcept;
  bool next_header();
  bool next_large(Frame&);
  bool next_skipped(Frame&);
  bool next_small(Frame&);
  void skip_rest_of_large() noexcept;

  enum class State : unsigned char { header, small, large, skipped };

  std::size_t max_body_;
  std::string_view view_;     // fed and not yet cut
  std::string carry_;         // kept from earlier pieces; comes before view_
  std::size_t carry_at_ = 0;  // bytes of carry_ that are cut
  State state_ = State::header;
  FrameKind kind_ = FrameKind::end;  // of the frame under way, with what follows
  Frame::Skipped why_skipped_ = Frame::Skipped::no;
  unsigned attached_ = 0;
  std::uint64_t id_ = 0;
  std::uint64_t length_ = 0;
  std::uint64_t skipped_ = 0;  // bytes of a frame without a body that have gone by
  std::string large_;
  std::size_t large_filled_ = 0;
};

// Frames out: a queue of bytes that is written from the front.
class FrameQueue {
public:
  // Appends one frame.  `message` is left empty, its memory where possible.
  void push(FrameKind, std::uint64_t id, Writer& message);
  // The same, and `message` keeps what it holds: large parts are shared.
  void push_kept(FrameKind, std::uint64_t id, Writer& message);

  // Memory for so many bytes of small frames.  Requires: nothing was pushed yet.
  void reserve(std::size_t size) { small_.reserve(size); }

  bool empty() const noexcept { return size_ == 0; }
  std::size_t size() const noexcept { return size_; }

  // The first pieces of the queue, at most `max`, up to the next frame that has descriptors along:
  // they go with its first byte, and nothing else may go before them in the same write.  Returns
  // how many.
  int front(ByteSpan* pieces, int max) const noexcept;
  // What is to go along with the first byte of the queue; nullptr: nothing.
  const std::vector<Attachment>* along() const noexcept;
  void written(std::size_t size) noexcept;
  void clear() noexcept;
  // Shortens the queue to its first `size` bytes; for fault injection.
  void cut(std::size_t size) noexcept;

private:
  struct Segment {
    std::string bytes;
    std::shared_ptr<const void> owner;  // set: data and size name the owner's bytes
    const char* data = nullptr;
    std::size_t size = 0;
    std::size_t written = 0;
    std::string_view view() const noexcept {
      return (owner ? std::string_view(data, size) : std::string_view(bytes)).substr(written);
    }
  };
  void put_whole(FrameKind, std::uint64_t id, const Writer& message);
  void put_header(FrameKind, std::uint64_t id, const Writer& message);
  void append(std::string_view first, std::string_view second);
  void push_adopted(const Writer& message);
  void push_attached(const Writer& message);
  std::size_t most_at_once() const noexcept;

  ByteQueue small_;               // first in the queue, and nearly always all of it
  RingBuffer<Segment> segments_;  // behind small_
  std::size_t size_ = 0;
  struct Along {
    std::uint64_t at;  // of the frame's first byte, counted from the first byte ever
    std::shared_ptr<std::vector<Attachment>> attached;
  };
  std::vector<Along> along_;  // few, and mostly none
  std::uint64_t written_ = 0;
};

}  // namespace evparallel
