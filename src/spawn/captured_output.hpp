// captured_output.hpp - what a child writes to captured streams: read by the loop, passed on by
// line.
// Runs in: parent.  Licence: see COPYING.
//
// Memory is bounded whatever the child writes: a line that is too long is passed on in pieces, and
// bytes that were not read yet wait in the pipe, and the child with them.
#pragma once

#include "base/callback_slot.hpp"
#include "loop/event_loop.hpp"

#include <evparallel/stdio_redirect.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace evparallel::detail {

// The last lines that were written, bounded.
class LastLines {
public:
  LastLines(std::size_t lines, std::size_t bytes) noexcept
      : lines_(lines), bytes_(std::min(bytes, SIZE_MAX / 4)) {}
  void add(std::string_view text, bool goes_on) noexcept;
  std::string text() const;  // without a newline at its end

private:
  std::size_t lines_;
  std::size_t bytes_;
  std::string kept_;  // up to twice the limit, so that adding a line moves no bytes
};

// The captured streams of one child.
class CapturedOutput final : public LoopObserver,
                             public std::enable_shared_from_this<CapturedOutput> {
public:
  static constexpr std::size_t line_limit = 64 * 1024;  // bytes; a longer line comes in pieces

  using OnLine = Callback<void(const OutputLine&)>;
  CapturedOutput(const std::shared_ptr<Loop>&, std::string name, OnLine, const LastLines&);
  ~CapturedOutput() override = default;

  // Makes the pipe of standard stream 1 or 2, and puts the child's end into `theirs`.  Returns 0 or
  // an errno.
  int open(int number, DupFd& theirs);
  // Reads from now on: the pid is known.
  void start(pid_t);
  // Reads what is in the pipes, so that it is passed on before what comes next.
  void catch_up();
  // Call this when the child has ended.  Reads what is in the pipes, passes it on with the
  // unfinished last line, and closes.  It does not wait for an end of file, because another process
  // may hold the pipe.  Returns false if a callback has thrown or stopped the loop: then call it
  // again.
  bool finish();
  // Releases the callback.  Reads and drops what still comes, so that no child dies of a write.
  void detach();

  // The last lines of standard error, or of standard output if standard error is empty.
  std::string last_words() const;

private:
  struct Stream {
    CapturedOutput* output = nullptr;
    int number = 0;
    OwnedFd fd{};
    Event event{};
    std::string held{};  // not passed on yet
    LastLines last;
    void on_readable() { output->on_readable(*this); }
  };
  void on_loop_destroyed() noexcept override;
  void retry() override;
  void on_readable(Stream&);
  std::size_t read(Stream&, std::size_t limit);
  bool take_what_is_there(Stream&);
  bool split_lines(Stream&);
  void emit(Stream&, std::string_view text, bool goes_on);
  void emit_remainder(Stream&);
  void go_on_later() noexcept;
  void go_on();
  void close(Stream&) noexcept;

  std::shared_ptr<Loop> loop_;
  std::string name_;
  CallbackSlot<void(const OutputLine&)> on_line_;
  Stream streams_[2];
  pid_t pid_ = 0;
  bool silenced_ = false;
  bool going_on_ = false;
  std::shared_ptr<CapturedOutput> self_;  // set while it reads without a callback
};

}  // namespace evparallel::detail
