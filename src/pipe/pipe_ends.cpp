// pipe_ends.cpp - how a pipe ends: cleanly, broken, with its spawn outcome, or by its observer.
// Runs in: parent, child.  Licence: see COPYING.
#include "pipe/pipe_core.hpp"

#include "base/no_memory.hpp"

#include <new>

namespace evparallel::detail {

namespace {

Error torn_frame() noexcept {
  return error_or_no_memory(Delivery::not_sent, [] {
    return Error(Errc::bad_message, "bad message: the stream ended inside a frame");
  });
}

Error torn_frame(const Error& end) noexcept {
  return error_or_no_memory(Delivery::not_sent, [&end] {
    return end.exit() ? torn_frame().with_exit(*end.exit()) : torn_frame();
  });
}

Error closed_without_end() noexcept {
  return error_or_no_memory(Delivery::not_sent, [] {
    return Error(Errc::closed, "closed: the other side ended without closing the pipe");
  });
}

}  // namespace

// Reports the error of the end: at most once, because on_end and on_exit report the end, too.
void PipeCore::fail_end(const Error& error) {
  if (std::exchange(error_reported_, true)) return;
  if (has_next()) return loop_->call([&] { take_next()(nullptr, &error); });
  if (handlers_.peek()) loop_->call([&] { handlers_->error(error); });
}

void PipeCore::on_end_of_file() {
  if (input_over()) {
    if (owner_ && exit_report_ == ExitReport::comes) owner_->on_closed();
    return check_over();
  }
  if (input_ == Input::broken) return;
  input_ = Input::broken;
  if (exit_report_ == ExitReport::comes) {
    if (owner_) owner_->on_broken();
    return;
  }
  if (channel_.torn()) fail_end(torn_frame());
  fail_end(closed_without_end());
  end_in(Input::ended);
}

void PipeCore::end_in(Input how) {
  if (input_over()) return;
  input_ = how;
  if (closes_with_other()) finish();
  if (has_next()) {
    rare_->next_had_end = true;
    loop_->call([&] { take_next()(nullptr, nullptr); });
  } else if (handlers_.peek()) {
    loop_->call([&] { handlers_->end(); });
  }
  check_over();
}

// This is the other side's end and no close(): on_error reports frames that are sent later.  A
// broken end closes the direction of a child, so that it ends; in the parent the spawn outcome
// follows.
bool PipeCore::closes_with_other() const noexcept {
  if (other_end_ == OtherEnd::is_left || has_on_end() || has_next() || ending()) return false;
  return input_ == Input::ended_cleanly ? !has_on_drain() : exit_report_ == ExitReport::none;
}

void PipeCore::conclude(const Error& error) {
  rare_->conclusion = error;
  rare_->input_left = channel_.input_here();
  if (input_ == Input::not_started) input_ = Input::open;
  drain_and_end();
}

// All that a dead child has written is in the socket.  This does not wait for an end of file,
// because another process may hold the socket, and even write to it.
void PipeCore::drain_and_end() {
  const auto keep = shared_from_this();
  if (over_reported_) return;
  try {
    if (!drain()) return;
  } catch (const std::bad_alloc&) {
    return loop_->retry_later();
  }
  const Error& conclusion = *rare_->conclusion;
  if (channel_.torn()) {
    if (owner_) owner_->on_torn(channel_.torn_id());
    fail_end(torn_frame(conclusion));
  }
  if (input_ != Input::ended_cleanly) fail_end(conclusion);
  end_in(Input::ended);
  if (has_on_error()) error_reported_ = true;  // on_over is the last callback
  over_reported_ = true;
  PipeObserver* owner = std::exchange(owner_, nullptr);
  abort();
  if (owner) owner->on_over();
}

// False: not all was read yet.
bool PipeCore::drain() {
  for (;;) {
    read_frames();
    if (paused_ || loop_->interrupted()) return false;  // goes on at resume(), or in the next run()
    if (channel_.in_over() || !channel_.is_open()) return true;
    if (channel_.receive(loop_->scratch(), Loop::scratch_size, Wait::no, rare_->input_left) ==
        IoResult::would_block)
      return true;
  }
}

// Without a spawn outcome to come, a pipe is over when both directions are.
void PipeCore::check_over() {
  if (!input_over() && !discard_) return;
  if (!channel_.out_over()) return;
  if (is_detached()) return abort();
  if (exit_report_ == ExitReport::comes || std::exchange(over_reported_, true)) return;
  if (owner_) owner_->on_over();
}

void PipeCore::detach() {
  owner_ = nullptr;
  const auto keep = shared_from_this();
  release_handlers();
  if (!loop_->alive() || !channel_.is_open()) return abort();
  try {
    prepare_conclusion();
  } catch (const std::bad_alloc&) {  // nothing could keep it until all is written
    return abort();
  }
  discard_ = true;
  paused_ = false;
  output_ = Output::closed;
  channel_.finish();
  written_ = channel_.flush(Wait::no);
  if (written_ != IoResult::would_block && written_ != IoResult::retry_later) return abort();
  rare_->self = keep;
  loop_->hold();
  update_interest();
  continue_later();
}

void PipeCore::release_handlers() noexcept {
  release_awaiting();
  if (!handlers_.peek()) return;
  handlers_->message.release();
  handlers_->end.release();
  handlers_->error.release();
  handlers_->drain.release();
}

// Coroutines that still wait receive the end, unless the loop is gone.
void PipeCore::release_awaiting() noexcept {
  if (!rare_.peek()) return;
  Next next = std::move(rare_->next);
  std::vector<Callback<void()>> all = std::move(rare_->awaiting_room);
  if (!loop_->alive()) return;
  if (next) loop_->defer_or_call([next = std::move(next)]() mutable { next(nullptr, nullptr); });
  for (Callback<void()>& one : all) loop_->defer_or_call(std::move(one));
}

void PipeCore::abort() noexcept {
  owner_ = nullptr;                           // events that a stop() has put off may still come
  const auto keep = weak_from_this().lock();  // a callback of its own may own the last handle
  close_channel();
  release_handlers();
  unregister();
  if (!is_detached()) return;
  if (loop_->alive()) loop_->release();
  rare_->self.reset();
}

void PipeCore::on_loop_destroyed() noexcept {
  owner_ = nullptr;
  abort();
}

}  // namespace evparallel::detail
