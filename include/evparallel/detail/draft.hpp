// draft.hpp - the message that is being written, in memory that is reused.
// Licence: see COPYING.
#pragma once

#include <evparallel/io.hpp>

#include <optional>

namespace evparallel {

namespace detail {

// The owner of a buffer for one message.
class DraftBuffer {
public:
  virtual Writer* begin_draft() noexcept = 0;  // nullptr: it is in use
  virtual void end_draft() noexcept = 0;

protected:
  ~DraftBuffer() = default;
};

// A message that is being written in that buffer; if a codec itself sends a message, that one has a
// buffer of its own.
class Draft {
public:
  explicit Draft(DraftBuffer& buffer) : buffer_(buffer), writer_(buffer.begin_draft()) {
    if (!writer_) own_.emplace();
  }
  ~Draft() {
    if (writer_) buffer_.end_draft();
  }
  Draft(const Draft&) = delete;
  Draft& operator=(const Draft&) = delete;

  Writer& operator*() noexcept { return writer_ ? *writer_ : *own_; }

private:
  DraftBuffer& buffer_;
  Writer* writer_;
  std::optional<Writer> own_{};
};

}  // namespace detail

}  // namespace evparallel
