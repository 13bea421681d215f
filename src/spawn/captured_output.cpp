// captured_output.cpp - splits the bytes of a pipe into lines.
// Runs in: parent.  Licence: see COPYING.
#include "spawn/captured_output.hpp"

#include "base/retry_eintr.hpp"
#include "system/new_descriptor.hpp"
#include "system/polling.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <new>

namespace evparallel::detail {

namespace {

constexpr std::size_t read_size = 64 * 1024;  // the capacity of a pipe

}  // namespace

// ---- the last lines ----

void LastLines::add(std::string_view text, bool goes_on) noexcept try {
  if (text.size() > bytes_) text.remove_prefix(text.size() - bytes_);
  kept_ += text;
  if (!goes_on) kept_ += '\n';
  // Keeps the newline at the end, and one byte in front that says whether a line begins there.
  if (kept_.size() > 2 * bytes_ + 2) kept_.erase(0, kept_.size() - bytes_ - 2);
} catch (const std::bad_alloc&) {
  return;  // a line less
}

std::string LastLines::text() const {
  std::string_view last = kept_;
  if (!last.empty() && last.back() == '\n') last.remove_suffix(1);
  if (last.size() > bytes_) {
    const std::size_t cut = last.size() - bytes_;
    // From the beginning of a line, if there is one.
    const std::size_t begin = last[cut - 1] == '\n' ? cut : last.find('\n', cut) + 1;
    last.remove_prefix(begin == 0 ? cut : begin);
  }
  std::size_t from = last.size() + 1;
  for (std::size_t lines = 0; lines < lines_ && from != 0; ++lines)
    from = from < 2 ? 0 : last.rfind('\n', from - 2) + 1;
  return std::string(lines_ == 0 ? std::string_view() : last.substr(from));
}

// ---- its life ----

CapturedOutput::CapturedOutput(const std::shared_ptr<Loop>& loop, std::string name, OnLine on_line,
                               const LastLines& last)
    : loop_(loop),
      name_(std::move(name)),
      streams_{{this, STDOUT_FILENO, {}, {}, {}, last}, {this, STDERR_FILENO, {}, {}, {}, last}} {
  on_line_.set(std::move(on_line));
  register_with(*loop_);
}

int CapturedOutput::open(int number, DupFd& theirs) {
  int ends[2];
  if (const int error = open_pipe(ends)) return error;
  Stream& stream = streams_[number - STDOUT_FILENO];
  stream.fd = OwnedFd(ends[0]);
  theirs = DupFd(ends[1]);
  // Only this end: the child's end blocks.
  return ::fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0 ? 0 : errno;
}

void CapturedOutput::start(pid_t pid) {
  pid_ = pid;
  for (Stream& stream : streams_) {
    if (!stream.fd || stream.event.added()) continue;
    stream.event.set<&Stream::on_readable>(*loop_, stream.fd.get(), EV_READ | EV_PERSIST, &stream);
    stream.event.add();
  }
}

void CapturedOutput::detach() {
  silenced_ = true;
  on_line_.release();
  for (Stream& stream : streams_)
    if (!loop_->alive()) close(stream);
  if (!streams_[0].fd && !streams_[1].fd) return;
  self_ = shared_from_this();
  try {
    start(pid_);
  } catch (...) {  // the loop can take no more descriptors: close, so that writes of the child fail
    for (Stream& stream : streams_) close(stream);
  }
}

void CapturedOutput::on_loop_destroyed() noexcept {
  const auto keep = std::move(self_);
  silenced_ = true;
  on_line_.release();
  for (Stream& stream : streams_) close(stream);
}

void CapturedOutput::close(Stream& stream) noexcept {
  stream.event.unset();
  stream.fd.reset();
  if (!streams_[0].fd && !streams_[1].fd) self_.reset();
}

std::string CapturedOutput::last_words() const {
  std::string words = streams_[1].last.text();
  return words.empty() ? streams_[0].last.text() : words;
}

// ---- reading ----

void CapturedOutput::on_readable(Stream& stream) {
  const auto keep = shared_from_this();
  if (!split_lines(stream)) return go_on_later();
  if (read(stream, read_size) == 0) return;
  if (!split_lines(stream)) go_on_later();
}

// Returns how many bytes came.  At the end of file passes on the rest, and closes.
std::size_t CapturedOutput::read(Stream& stream, std::size_t limit) {
  if (!stream.fd) return 0;
  const std::size_t held = stream.held.size();
  stream.held.resize(held + std::min(limit, read_size));
  const ssize_t got = retry_on_eintr([&] {
    return ::read(stream.fd.get(), stream.held.data() + held, stream.held.size() - held);
  });
  stream.held.resize(held + static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
  if (got == 0) emit_remainder(stream);
  return static_cast<std::size_t>(std::max<ssize_t>(got, 0));
}

// Reads only what is in the pipe now, because the writers may go on for ever.
bool CapturedOutput::take_what_is_there(Stream& stream) {
  if (!split_lines(stream)) return false;
  std::size_t left = stream.fd ? bytes_to_read(stream.fd.get()) : 0;
  while (left > 0) {
    const std::size_t got = read(stream, left);
    if (got == 0) break;
    left -= std::min(got, left);
    if (!split_lines(stream)) return false;
  }
  return true;
}

void CapturedOutput::catch_up() {
  const auto keep = shared_from_this();
  for (Stream& stream : streams_)
    if (!take_what_is_there(stream)) return go_on_later();
}

bool CapturedOutput::finish() {
  const auto keep = shared_from_this();
  for (Stream& stream : streams_) {
    if (!take_what_is_there(stream)) return false;
    emit_remainder(stream);
  }
  return true;
}

void CapturedOutput::go_on_later() noexcept {
  if (!loop_->alive() || std::exchange(going_on_, true)) return;
  loop_->defer_or_retry(*this, [self = shared_from_this()] { self->go_on(); });
}

void CapturedOutput::go_on() {
  going_on_ = false;
  for (Stream& stream : streams_)
    if (!split_lines(stream)) return go_on_later();
}

void CapturedOutput::retry() {
  const auto keep = shared_from_this();
  if (going_on_) go_on();
}

// ---- passing on ----

// Passes on the complete lines.  False: a callback has thrown or stopped the loop.
bool CapturedOutput::split_lines(Stream& stream) {
  const std::string_view held = stream.held;
  std::size_t from = 0;
  bool on = true;
  while (!silenced_ && from < held.size() && (on = !loop_->interrupted())) {
    const std::size_t end = held.find('\n', from);
    if (end == held.npos && held.size() - from < line_limit) break;
    const bool piece = end == held.npos || end - from > line_limit;
    emit(stream, held.substr(from, piece ? line_limit : end - from), piece);
    from = piece ? from + line_limit : end + 1;
  }
  stream.held.erase(0, silenced_ ? held.size() : from);
  return on;
}

void CapturedOutput::emit(Stream& stream, std::string_view text, bool goes_on) {
  stream.last.add(text, goes_on);
  loop_->call([&] { on_line_(OutputLine{pid_, name_, stream.number, text, goes_on}); });
}

void CapturedOutput::emit_remainder(Stream& stream) {
  const std::string rest = std::move(stream.held);
  stream.held.clear();
  close(stream);
  if (!rest.empty() && !silenced_) emit(stream, rest, false);
}

}  // namespace evparallel::detail
