// pool_worker.cpp - connects a pool with one of its children.
// Runs in: parent.  Licence: see COPYING.
#include "pool/pool_core.hpp"

#include <algorithm>

namespace evparallel {

namespace detail {

void PoolWorker::start() {
  started_at = last_answer_at = now_ns();
  spawn();
}

void PoolWorker::send(const Sent& what, Writer& argument, std::int64_t deadline) {
  sent.push_back(what);
  Sent& added = sent.back();
  // The child's id of a call is known only after it is sent, and it may be answered at once.
  struct Heard {
    std::shared_ptr<PoolWorker> worker;
    std::uint64_t id;
    void operator()(Reader* in, const Error* error) { worker->heard(id, in, error); }
  };
  added.remote_id = call(argument, Heard{self(), what.id}, deadline);
  taken += what.items;
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

std::vector<PoolWorker::Sent> PoolWorker::take_back_all(std::int64_t below) {
  std::vector<Sent> back;
  for (std::size_t i = sent.size(); i-- > 0;) {
    const Sent one = sent[i];
    if (one.priority < below && take_back_sent(one.id)) back.push_back(one);
  }
  return back;
}

bool PoolWorker::take_back_sent(std::uint64_t id) {
  const auto found = find_sent(id);
  if (found == sent.end() || !take_back(found->remote_id)) return false;
  taken -= take_sent(id)->items;
  return true;
}

void PoolWorker::cancel_sent(std::uint64_t id) {
  const auto found = find_sent(id);
  if (found != sent.end()) cancel(found->remote_id);
}

void PoolWorker::set_deadline_of_sent(std::uint64_t id, std::chrono::nanoseconds time) {
  const auto found = find_sent(id);
  if (found != sent.end()) set_deadline(found->remote_id, time);
}

void PoolWorker::retire() {
  stage = Stage::retiring;
  end_if_done();
}

// Not earlier, because close_in_time() starts the time in which the child has to end.
void PoolWorker::end_if_done() {
  if (stage == Stage::retiring && free()) close_in_time();
}

void PoolWorker::leave() noexcept {
  pool_ = nullptr;
  stage = Stage::ended;
  drop();
}

// The callback of a call that was given up comes before the child has finished the call.
void PoolWorker::heard(std::uint64_t id, Reader* in, const Error* error) {
  const auto keep = self();
  if (!pool_) return;
  const std::optional<Sent> what = take_sent(id);
  if (!what) return;
  if (error && error->delivery() == Delivery::started) {
    begun = true;
    if (is_given_up(what->remote_id)) lost_calls->push_back(what->remote_id);
  }
  pool_->heard(*this, *what, in, error);
  end_if_done();
}

void PoolWorker::on_child_ready() {
  if (pool_) pool_->child_ready(*this);
}

void PoolWorker::on_child_ended(const ExitStatus& status, const Error& error) {
  const auto keep = self();
  if (pool_) pool_->child_ended(*this, status, error);
}

void PoolWorker::on_given_up_answered(std::uint64_t remote_id) {
  const auto keep = self();
  const auto found = std::find(lost_calls->begin(), lost_calls->end(), remote_id);
  if (found == lost_calls->end()) return;
  lost_calls->erase(found);
  if (pool_) pool_->child_free(*this);
  end_if_done();
}

}  // namespace detail

}  // namespace evparallel
