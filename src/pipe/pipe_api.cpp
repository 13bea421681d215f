// pipe_api.cpp - the functions that a Pipe calls.
// Runs in: parent, child.  Licence: see COPYING.
#include "pipe/pipe_core.hpp"

namespace evparallel {

namespace detail {

Writer* draft_begin(Loop& loop) noexcept {
  return loop.begin_draft();
}
void draft_end(Loop& loop) noexcept {
  loop.end_draft();
}

Loop& pipe_loop(PipeCore& core) noexcept {
  return *core.loop();
}
bool pipe_send(PipeCore& core, Writer& message) {
  return core.send(message);
}
void pipe_close(PipeCore& core) {
  core.close();
}
void pipe_pause(PipeCore& core) {
  core.pause();
}
void pipe_resume(PipeCore& core) {
  core.resume();
}
std::size_t pipe_buffered(const PipeCore& core) noexcept {
  return core.buffered();
}
bool pipe_closed(const PipeCore& core) noexcept {
  return core.closed();
}
void pipe_on_message(PipeCore& core, Callback<void(Reader&)> callback) {
  core.set_on_message(std::move(callback));
}
void pipe_on_end(PipeCore& core, Callback<void()> callback) {
  core.set_on_end(std::move(callback));
}
void pipe_on_error(PipeCore& core, Callback<void(const Error&)> callback) {
  core.set_on_error(std::move(callback));
}
void pipe_on_drain(PipeCore& core, Callback<void()> callback) {
  core.set_on_drain(std::move(callback));
}
void pipe_bad_message(PipeCore& core, const Error& error) {
  core.report_error(error);
}

}  // namespace detail

}  // namespace evparallel
