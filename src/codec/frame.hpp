// frame.hpp - cuts a stream of bytes into frames, and makes frames of messages.  No system calls.
// Runs in: parent, child.  Licence: see COPYING.
//
// A length is never trusted: memory grows with the bytes that have arrived, to at most four times
// their number.
#pragma once

#include "base/byte_queue.hpp"
#include "base/byte_span.hpp"
#include "base/ring_buffer.hpp"
#include "codec/wire.hpp"

#include <evparallel/io.hpp>

#include <string>
#include <string_view>

namespace evparallel::detail {

struct Frame {
  FrameKind kind = FrameKind::end;
  std::uint64_t id = 0;
  std::string_view body;
  std::string* whole = nullptr;  // set if the body is a string of its own that may be moved from
  // The reason why there is no body; the stream itself is intact.
  enum class Skipped : unsigned char { no, too_large, no_memory } skipped = Skipped::no;
  unsigned attached = 0;                    // number of descriptors that its sender has sent
  std::vector<int>* descriptors = nullptr;  // those that were received
  std::size_t max_decoded = SIZE_MAX;       // Options::max_decoded

  Reader reader() const {
    Reader in(body, whole, descriptors);
    in.set_max_decoded(max_decoded);
    return in;
  }
};

// Bytes in, frames out.  To use it, give each received piece to feed(), take frames with next()
// until it returns false, then call keep().  An unfinished large frame offers room() instead, so
// that its bytes are received in their final place.
class FrameReader {
public:
  explicit FrameReader(std::size_t max_body = longest_body) noexcept : max_body_(max_body) {}

  void set_max_body(std::size_t size) noexcept { max_body_ = size; }

  // `bytes` must stay valid until keep().
  void feed(std::string_view bytes) noexcept { view_ = bytes; }
  // The body of a frame is valid until the next call of any function here.
  // Fails: Errc::bad_message if the stream makes no sense; then the reader must not be used any
  // more.
  bool next(Frame&);
  // Copies the bytes that are not yet a frame, so that the caller's buffer is free.  A frame for
  // which there is no memory is skipped.
  // Fails: std::bad_alloc, if there are bytes of several frames.
  void keep();

  // Room in the unfinished large frame: fill it, then call filled() with the number of bytes.  Size
  // 0: there is none.
  struct Room {
    char* data;
    std::size_t size;
  };
  Room room();
  void filled(std::size_t size) noexcept { large_filled_ += size; }

  // True inside a frame: an end of file here has torn it.
  bool in_frame() const noexcept { return state_ != State::header || !pending().empty(); }
  // 0: there is no unfinished frame, or its header is not complete.
  std::uint64_t id_under_way() const noexcept { return state_ == State::header ? 0 : id_; }

private:
  std::string_view pending() const noexcept;
  bool pull(std::size_t wanted);
  void consume(std::size_t size) noexcept;
  bool next_at_once(Frame&) noexcept;
  bool take_header(char* to) noexcept;
  bool next_header();
  bool next_large(Frame&);
  bool next_skipped(Frame&);
  bool next_small(Frame&);
  void skip_rest_of_large() noexcept;
  bool skip_kept() noexcept;
  void skip_body(std::size_t skipped) noexcept;

  enum class State : unsigned char { header, small, large, skipped };

  std::size_t max_body_;
  std::string_view view_;     // fed and not yet read as frames
  std::string carry_;         // kept from earlier pieces; comes before view_
  std::size_t carry_at_ = 0;  // number of bytes of carry_ that were read as frames
  State state_ = State::header;
  FrameKind kind_ = FrameKind::end;  // of the unfinished frame; so are the following ones
  Frame::Skipped why_skipped_ = Frame::Skipped::no;
  unsigned attached_ = 0;
  std::uint64_t id_ = 0;
  std::uint64_t length_ = 0;
  std::uint64_t skipped_ = 0;  // number of bytes that were skipped, of a frame without a body
  std::string large_;
  std::size_t large_filled_ = 0;
};

// Frames out: a queue of bytes that is written from the front.
class FrameQueue {
public:
  // Appends one frame.  `message` is left empty, and keeps its memory if possible.
  // Fails: std::bad_alloc, and nothing was appended; a large message may be lost.
  void push(FrameKind, std::uint64_t id, Writer& message);
  // The same, but `message` keeps its content: large parts are shared.
  void push_kept(FrameKind, std::uint64_t id, Writer& message);

  // Reserves memory for `size` bytes of small frames.  Requires: nothing was pushed yet.
  void reserve(std::size_t size) { small_.reserve(size); }

  bool empty() const noexcept { return size_ == 0; }
  std::size_t size() const noexcept { return size_; }

  // The first pieces of the queue, at most `max`, up to the next frame with descriptors: these are
  // sent with the first byte of their frame, and nothing may precede it in the same write.  Returns
  // the number of pieces.
  int front(ByteSpan* pieces, int max) const noexcept;
  // The descriptors to send with the first byte of the queue; nullptr: none.
  const std::vector<Attachment>* along() const noexcept;
  void written(std::size_t size) noexcept;
  void clear() noexcept;
  // Shortens the queue to its first `size` bytes; for fault injection.
  void truncate(std::size_t size) noexcept;

private:
  struct Segment {
    std::string bytes;
    std::shared_ptr<const void> owner;  // set: data and size refer to the owner's bytes
    const char* data = nullptr;
    std::size_t size = 0;
    std::size_t written = 0;
    std::string_view view() const noexcept {
      return (owner ? std::string_view(data, size) : std::string_view(bytes)).substr(written);
    }
  };
  template <class F>
  void appended_whole(const Writer& message, F);
  void push_taken(FrameKind, std::uint64_t id, Writer& message);
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
    std::uint64_t at;  // position of the frame's first byte, counted over all bytes ever
    std::shared_ptr<std::vector<Attachment>> attached;
  };
  std::vector<Along> along_;  // few, and mostly none
  std::uint64_t written_ = 0;
};

}  // namespace evparallel::detail
