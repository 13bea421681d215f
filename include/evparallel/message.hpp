// message.hpp - a message that a codec writes or reads.
// Licence: see COPYING.  Manual: evparallel_io(3).
#pragma once

#include <evparallel/detail/attachment.hpp>
#include <evparallel/detail/short_text.hpp>
#include <evparallel/error.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace evparallel {

// A message that is being written.  Nothing of it is sent before it is complete.
class EVPARALLEL_API Writer {
public:
  // Fails: std::logic_error after adopt().
  void write(const void* data, std::size_t size) {
    write(std::string_view(static_cast<const char*>(data), size));
  }
  void write(std::string_view text) {
    if (owner_) refuse_more();
    if (bytes_.empty() && took_short(text)) return;
    bytes_.append(text);
  }

  // Ends the message with `size` bytes that are not copied: `owner` keeps them alive until they are
  // sent.  Nothing can be written after them.
  void adopt(std::shared_ptr<const void> owner, const void* data, std::size_t size);

  // Sends an open descriptor with the message; `owner` keeps it open until it is sent.  Returns its
  // index in this message, which the codec writes, for Reader::take_descriptor().  The limit of
  // their number is checked when the message is sent.
  std::size_t attach(int fd, std::shared_ptr<const void> owner);
  // Takes over the descriptors of a message that becomes a part of the same whole; the indices of
  // further ones follow theirs.
  void take_attached(Writer& other) noexcept { attached_ = std::move(other.attached_); }

  std::size_t size() const noexcept { return short_.size() + bytes_.size() + adopted_size_; }

  // The written bytes, as a string that may be changed and moved from.
  std::string& bytes() {
    if (short_.size() > 0) join();
    return bytes_;
  }
  // For the channel: the written bytes, and the adopted bytes behind them.
  std::string_view written() const noexcept {
    return short_.size() > 0 ? short_.view() : std::string_view(bytes_);
  }
  const std::shared_ptr<const void>& adopted_owner() const noexcept { return owner_; }
  std::string_view adopted() const noexcept { return {adopted_, adopted_size_}; }
  const std::shared_ptr<std::vector<Attachment>>& attached() const noexcept { return attached_; }
  void drop_attached() noexcept { attached_.reset(); }
  // Adopts the written bytes if there are `large` of them or more and nothing else is adopted: a
  // queue can then send them while they are kept here.  Returns their owner: if it is the only one
  // left, its memory may be reused.
  std::shared_ptr<std::string> share(std::size_t large);
  void clear() noexcept;

private:
  [[noreturn]] static void refuse_more();
  // Stores the text inline if it fits with all before it; otherwise moves that to the string.
  bool took_short(std::string_view text) {
    const bool fits = short_.has_room(text.size());
    if (fits)
      short_.append(text);
    else if (short_.size() > 0)
      join();
    return fits;
  }
  void join();

  detail::InlineBuffer short_;  // all written bytes; or it is empty
  std::string bytes_;
  std::shared_ptr<const void> owner_;
  const char* adopted_ = nullptr;
  std::size_t adopted_size_ = 0;
  std::shared_ptr<std::vector<Attachment>> attached_;  // null in the usual case
};

namespace detail {

// A size in a message has 64 bits.  One that is no size here is longer than any message, too.
constexpr std::size_t size_in_message(std::uint64_t size) noexcept {
  return size < SIZE_MAX ? static_cast<std::size_t>(size) : SIZE_MAX;
}

}  // namespace detail

// A received message.  The views that it returns are valid until the codec returns.
class EVPARALLEL_API Reader {
public:
  explicit Reader(std::string_view bytes) noexcept : bytes_(bytes), total_(bytes.size()) {}
  // `whole` holds exactly `bytes` and may be moved from: then a large string is received without a
  // copy.
  Reader(std::string_view bytes, std::string* whole) noexcept
      : bytes_(bytes), total_(bytes.size()), whole_(whole) {}
  // `descriptors` were received; those that are not taken still belong to the owner of the vector.
  Reader(std::string_view bytes, std::string* whole, std::vector<int>* descriptors) noexcept
      : bytes_(bytes), total_(bytes.size()), whole_(whole), descriptors_(descriptors) {}

  // The next `size` bytes.  Fails: Errc::bad_message past the end.
  std::string_view read(std::size_t size) {
    const std::string_view part = take(size);
    whole_ = nullptr;  // there is a view of it now
    return part;
  }
  void read(void* to, std::size_t size) {
    const char* const from = take(size).data();
    if (size > 0) std::memcpy(to, from, size);  // an empty message may have no address
  }

  // The same, but the view is valid only until the next call of take_rest() or take_last(), which
  // can still return the memory of the message.
  std::string_view take(std::size_t size) {
    if (size > bytes_.size()) refuse(size);
    const std::string_view part(bytes_.data(), size);
    bytes_.remove_prefix(size);
    return part;
  }
  char take_byte() { return take(1)[0]; }
  // The same as a message of its own; the descriptors in it have the indices of the whole.
  Reader take_part(std::size_t size) {
    Reader part(take(size), nullptr, descriptors_);
    part.max_decoded_ = max_decoded_;
    return part;
  }

  // All bytes that are left, as a view or as a string of its own.
  std::string_view rest() noexcept {
    whole_ = nullptr;  // there is a view of it now
    return std::exchange(bytes_, std::string_view{});
  }
  std::string take_rest();

  // The last `size` bytes, as a view or as a string of its own; those before them can still be
  // read.  `kept` may get a copy of those, and must exist as long as they are read.
  // Fail: Errc::bad_message if there are fewer.
  std::string_view read_last(std::size_t size);
  std::string take_last(std::size_t size, std::string& kept);

  // The descriptor that was attached under this index; the caller owns it now, and it is
  // close-on-exec.
  // Fails: Errc::bad_message if none was received under this index, or it was taken before.
  int take_descriptor(std::size_t index);
  bool has_descriptors() const noexcept { return descriptors_ && !descriptors_->empty(); }

  // Options::max_decoded of the receiver.
  std::size_t max_decoded() const noexcept { return max_decoded_; }
  void set_max_decoded(std::size_t size) noexcept { max_decoded_ = size; }

  std::size_t remaining() const noexcept { return bytes_.size(); }
  // How many bytes are in front of the next one.
  std::size_t offset() const noexcept { return total_ - bytes_.size(); }

  // Bytes that are left over are bad input, too.  Fails: Errc::bad_message.
  void expect_end() const;

private:
  [[noreturn]] void refuse(std::size_t wanted) const;

  std::string_view bytes_;
  std::size_t total_;
  std::string* whole_ = nullptr;
  std::vector<int>* descriptors_ = nullptr;
  std::size_t max_decoded_ = SIZE_MAX;
};

// Makes the message available that a codec of this thread works on, for conversions that are called
// through a document and do not see the message.
class EVPARALLEL_API CodecScope {
public:
  explicit CodecScope(Writer& writer) noexcept : CodecScope(&writer, nullptr) {}
  explicit CodecScope(Reader& reader) noexcept : CodecScope(nullptr, &reader) {}
  ~CodecScope();
  CodecScope(const CodecScope&) = delete;
  CodecScope& operator=(const CodecScope&) = delete;

  // Fail: std::logic_error outside of such a codec.
  static Writer& writer();
  static Reader& reader();

private:
  CodecScope(Writer*, Reader*) noexcept;
  Writer* outer_writer_;
  Reader* outer_reader_;
};

}  // namespace evparallel
