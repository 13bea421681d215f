// pool_worker.cpp - connects a pool with one of its children.
// Runs in: parent.  Licence: see COPYING.
#include "pool/pool_core.hpp"

#include <algorithm>
#include <new>

namespace evparallel::detail {

void PoolWorker::start() {
  started_at = last_answer_at = now_ns();
  callee_.spawn();
}

void PoolWorker::send(const Sent& what, Writer& argument, std::int64_t deadline) {
  struct OnResult {
    std::shared_ptr<PoolWorker> worker;
    std::uint64_t id;
    void operator()(Reader* in, const Error* error) { worker->on_result(id, in, error); }
  };
  if (sent.size() == sent.capacity()) sent.reserve(2 * sent.size() + 1);
  // The ids of the pool do not rise here: a call may come back from another child.
  const std::uint64_t id = next_id_++;
  PendingCall pending;
  pending.answer = OnResult{shared_from_this(), what.id};
  pending.deadline = deadline;
  try {
    if (callee_.usable())
      callee_.send(id, pending, argument, Callee::Keep::nothing);
    else
      callee_.defer(id, pending, argument, Callee::Keep::nothing);
  } catch (const Error& error) {
    auto late = std::make_unique<LateAnswer>(LateAnswer{std::move(pending.answer), error});
    loop_->reserve_deferred(1);
    complete_later(std::move(late));
  }
  sent.push_back(what);
  sent.back().remote_id = id;
  sent_total += what.items;
  chunks += what.chunk;
}

std::vector<PoolWorker::Sent>::iterator PoolWorker::find_sent(std::uint64_t id) {
  return std::find_if(sent.begin(), sent.end(), [id](const Sent& one) { return one.id == id; });
}

std::optional<PoolWorker::Sent> PoolWorker::take_sent(std::uint64_t id) {
  const auto found = find_sent(id);
  if (found == sent.end()) return std::nullopt;
  const Sent taken_out = *found;
  sent.erase(found);
  chunks -= taken_out.chunk;
  return taken_out;
}

// What cannot be taken back for lack of memory stays with the child.
std::vector<PoolWorker::Sent> PoolWorker::take_back_all(std::int64_t below) noexcept {
  std::vector<Sent> back;
  try {
    back.reserve(sent.size());
    for (std::size_t i = sent.size(); i-- > 0;) {
      const Sent one = sent[i];
      if (one.priority < below && take_back_sent(one.id)) back.push_back(one);
    }
  } catch (const std::bad_alloc&) {
    // What was taken back is returned in any case.
  }
  return back;
}

bool PoolWorker::take_back_sent(std::uint64_t id) {
  const auto found = find_sent(id);
  if (found == sent.end() || !callee_.take_back(found->remote_id)) return false;
  sent_total -= take_sent(id)->items;
  return true;
}

std::uint64_t PoolWorker::chunk_under_way() const noexcept {
  const std::uint64_t id = chunks > 0 ? callee_.answer_under_way() : 0;
  const auto found = std::find_if(
      sent.begin(), sent.end(), [id](const Sent& one) { return one.chunk && one.remote_id == id; });
  return found != sent.end() ? found->id : 0;
}

void PoolWorker::cancel_sent(std::uint64_t id) {
  const auto found = find_sent(id);
  if (found != sent.end()) callee_.cancel(found->remote_id);
}

void PoolWorker::set_deadline_of_sent(std::uint64_t id, std::chrono::nanoseconds time) {
  const auto found = find_sent(id);
  if (found != sent.end()) callee_.set_deadline(found->remote_id, time);
}

void PoolWorker::retire() {
  stage = Stage::retiring;
  end_if_done();
}

// Not earlier, because shutdown() starts the time in which the child has to end.
void PoolWorker::end_if_done() {
  if (stage == Stage::retiring && free()) callee_.shutdown();
}

void PoolWorker::give_up(std::chrono::milliseconds grace) {
  stage = Stage::retiring;
  sent.clear();
  chunks = 0;
  lost_calls.reset();
  callee_.terminate(grace);
  callee_.close();
}

void PoolWorker::abort() noexcept {
  pool_ = nullptr;
  stage = Stage::ended;
  callee_.abort();
  while (callee_.any_left()) callee_.take_left();  // they hold this object; the pool ends the calls
}

// The callback of a call that was given up comes before the child has finished the call.
void PoolWorker::on_result(std::uint64_t id, Reader* in, const Error* error) {
  const auto keep = shared_from_this();
  if (!pool_) return;
  const std::optional<Sent> what = take_sent(id);
  if (!what) return;
  if (error && error->delivery() == Delivery::started) {
    begun = true;
    if (callee_.is_abandoned(what->remote_id)) keep_lost_call(what->remote_id);
  }
  pool_->on_result(*this, *what, in, error);
  end_if_done();
}

// Without memory it counts as one that the child has left: what is sent next waits behind it.
void PoolWorker::keep_lost_call(std::uint64_t remote_id) noexcept {
  try {
    lost_calls->push_back(remote_id);
  } catch (const std::bad_alloc&) {
    return;
  }
}

// The pool counts the call as pending.
void PoolWorker::complete_later(std::unique_ptr<LateAnswer> late) noexcept {
  loop_->defer([late = std::move(late)] { late->answer(nullptr, &late->error); });
}

void PoolWorker::prepare_for_end() {
  if (!ending) ending = std::make_unique<End>();
}

void PoolWorker::on_started() {
  const auto keep = shared_from_this();
  if (pool_) pool_->child_started(*this);
}

void PoolWorker::on_ready() {
  const auto keep = shared_from_this();
  if (pool_) pool_->child_ready(*this);
}

void PoolWorker::on_ended(Callee&, const ExitStatus& status, const Error& end) {
  const auto keep = shared_from_this();
  std::vector<UnansweredCall> calls;
  bool listed = true;
  try {
    calls = callee_.take_unanswered(status, end);
  } catch (const std::bad_alloc&) {
    listed = false;
  }
  if (pool_) pool_->child_ended(*this, status, end);
  for (UnansweredCall& one : calls) answer(one, end);
  while (!listed && callee_.any_left()) {
    UnansweredCall one = callee_.take_left();
    answer(one, end);
  }
}

void PoolWorker::answer(UnansweredCall& one, const Error& end) {
  // The pool decides by the delivery alone whether a call is made again.
  if (one.delivery == Delivery::sent && !callee_.handle().slot_known())
    one.delivery = Delivery::started;
  const Error error = error_of(one, end);
  loop_->call([&] { one.kept.call.answer(nullptr, &error); });
}

void PoolWorker::on_abandoned_call_done(std::uint64_t remote_id) {
  const auto keep = shared_from_this();
  if (!lost_calls.peek()) return;
  const auto found = std::find(lost_calls->begin(), lost_calls->end(), remote_id);
  if (found == lost_calls->end()) return;
  lost_calls->erase(found);
  if (pool_) pool_->child_free(*this);
  end_if_done();
}

}  // namespace evparallel::detail
