// remote_core.cpp - a Remote: which child gets a call, and how it all ends.
// Runs in: parent.  Licence: see COPYING.
#include <evparallel/run.hpp>

#include "call/remote_core.hpp"

#include "base/negative.hpp"
#include "base/no_memory.hpp"
#include "system/failpoint.hpp"
#include "spawn/with_start.hpp"

#include <stdexcept>

namespace evparallel::detail {

RemoteCore::RemoteCore(const std::shared_ptr<Loop>& loop, std::shared_ptr<const ChildSpec> spec)
    : loop_(loop), spec_(std::move(spec)) {
  register_with(*loop_);
}

void RemoteCore::check_open() const {
  loop_->check_thread();
  if (!closed_ && loop_->alive()) return;
  if (closed_) throw std::logic_error("evparallel: a remote function was called after its close()");
  loop_->check_at_home();
  throw std::logic_error(
      "evparallel: a remote function was called after its Reactor was destroyed");
}

void RemoteCore::add_pending() noexcept {
  if (pending_++ == 0) loop_->hold();
}
void RemoteCore::remove_pending() noexcept {
  if (--pending_ == 0 && loop_->alive()) loop_->release();
}

// ---- the path of a call ----

void RemoteCore::spawn() {
  auto child = std::make_unique<Callee>(*this);
  if (current_) dying_->reserve(dying_->size() + 1);
  child->spawn();
  if (current_) dying_->push_back(std::move(current_));
  current_ = std::move(child);
}

Call RemoteCore::call(Writer& argument, Answer&& answer, const CallOptions& options) {
  check_open();
  const std::chrono::milliseconds limit = deadline_of(options, *spec_->options);
  const std::uint64_t id = next_id_++;
  PendingCall pending;
  pending.answer = std::move(answer);
  pending.deadline = limit > limit.zero() ? deadline_in(limit) : no_deadline;
  pending.repeats_left = options.retries.value_or(spec_->options->retries);
  repeats_ = repeats_ || pending.repeats_left > 0;
  try {
    dispatch(id, pending, argument);
    add_pending();
  } catch (const Error& error) {
    fail_later(error, std::move(pending.answer));
  }
  return Call(weak_from_this(), id);
}

// The end of a dead child whose calls may have to be made again must be handled first.  The new
// call is deferred until then, so that calls keep their order.
// Fails: Error{spawn_failed}, Error{too_large}, and the call was not taken.
void RemoteCore::dispatch(std::uint64_t id, PendingCall& pending, Writer& argument) {
  if (!current_ || !current_->usable()) {
    if (waits_for_end_of_child())
      return current_->defer(id, pending, argument, Callee::Keep::argument);
    spawn();
  }
  current_->send(id, pending, argument, Callee::Keep::argument);
}

bool RemoteCore::waits_for_end_of_child() const noexcept {
  return current_ && (current_->kill_requested() || repeats_ || current_->handle().unused());
}

Call RemoteCore::refuse(const Error& error, Answer answer) {
  check_open();
  fail_later(error, std::move(answer));
  return Call(weak_from_this(), next_id_++);
}

// Not from inside the call: the callback runs later, from the loop.
// Fails: std::bad_alloc, and the callback is not called.
void RemoteCore::fail_later(const Error& error, Answer answer) {
  auto late = std::make_unique<LateAnswer>(LateAnswer{std::move(answer), error});
  loop_->reserve_deferred(1);
  add_pending();
  complete_later(std::move(late));
}

// For a call that is counted in `pending_`.
void RemoteCore::complete_later(std::unique_ptr<LateAnswer> late) noexcept {
  loop_->defer([self = shared_from_this(), late = std::move(late)] {
    self->remove_pending();  // first: a callback may throw
    late->answer(nullptr, &late->error);
  });
}

// ---- queries ----

pid_t RemoteCore::pid() const {
  loop_->check_thread();
  return current_ ? current_->pid() : 0;
}

std::size_t RemoteCore::pending() const {
  loop_->check_thread();
  return pending_;
}

// ---- one call ----

Callee* RemoteCore::child_of(std::uint64_t id) noexcept {
  if (!loop_->alive() || aborted_) return nullptr;
  if (current_ && current_->has(id)) return current_.get();
  if (!dying_.peek()) return nullptr;
  for (auto& child : *dying_)
    if (child->has(id)) return child.get();
  return nullptr;
}

void RemoteCore::cancel(std::uint64_t id) {
  loop_->check_thread();
  if (Callee* const child = child_of(id)) child->cancel(id);
}

void RemoteCore::set_deadline(std::uint64_t id, std::chrono::nanoseconds time) {
  loop_->check_thread();
  if (Callee* const child = child_of(id)) child->set_deadline(id, time);
}

// ---- the end of the Remote ----

void RemoteCore::close() {
  loop_->check_thread();
  closed_ = true;
  if (current_) current_->close();
}

void RemoteCore::abort() noexcept {
  if (loop_->in_its_thread()) return abort_here();
  loop_->call_in_its_thread([self = shared_from_this()] { self->abort_here(); });
}

// Calls in progress fail with `cancelled`, from the loop.
void RemoteCore::abort_here() noexcept {
  if (std::exchange(aborted_, true)) return;
  closed_ = true;
  if (dying_.peek())
    for (const auto& child : *dying_) child->abort();
  if (current_) current_->abort();
  self_ = weak_from_this().lock();
  if (self_ && loop_->alive() && pending_ > 0)
    return loop_->defer_or_retry(*this, [self = self_] { self->answer_dropped_calls(); });
  const auto last = std::move(self_);  // its children are destroyed with it
}

void RemoteCore::retry() {
  if (self_) answer_dropped_calls();
}

// The calls of an aborted remote function.
void RemoteCore::answer_dropped_calls() {
  const auto keep = shared_from_this();
  const auto answer_all_of = [this](Callee& child) {
    while (child.any_left() && !loop_->interrupted()) answer_dropped_call(child);
    return !child.any_left();
  };
  bool all = true;
  if (dying_.peek())
    for (const auto& child : *dying_) all = all && answer_all_of(*child);
  if (current_) all = all && answer_all_of(*current_);
  if (all) return self_.reset();
  loop_->defer_or_retry(*this, [self = self_] { self->answer_dropped_calls(); });
}

void RemoteCore::answer_dropped_call(Callee& child) {
  UnansweredCall one = child.take_left();
  const Error error = error_or_no_memory(one.delivery, [&one] {
    return Error(Errc::cancelled, "cancelled: the remote function was dropped")
        .with_delivery(one.delivery);
  });
  remove_pending();  // first: a callback may throw
  loop_->call([&] { one.kept.call.answer(nullptr, &error); });
}

// The callbacks are destroyed without a call; they may own handles whose destructors come back
// here.
void RemoteCore::on_loop_destroyed() noexcept {
  const auto keep = weak_from_this().lock();
  self_.reset();
  const Lazy<std::vector<std::unique_ptr<Callee>>> dying = std::move(dying_);
  const std::unique_ptr<Callee> current = std::move(current_);
  if (dying.peek())
    for (const auto& child : *dying.peek()) child->abort();
  if (current) current->abort();
  pending_ = 0;
}

// ---- interface of a Remote and a Call ----

namespace {

bool same_spec(const Task& one, const Task& other) {
  return one.entry == other.entry && one.functions == other.functions &&
         one.callable == other.callable && one.replies_later == other.replies_later;
}

// The spec of the last Remote on a loop: a program that makes thousands makes most of them alike.
struct LastSpec {
  std::weak_ptr<const ChildSpec> spec;
};

std::shared_ptr<const ChildSpec> spec_of(Loop& loop, const Task& task, const Options& options) {
  std::shared_ptr<Replicas> replicas = Replicas::choose(options.snapshot, loop.shared_from_this());
  LastSpec& last = loop.extension<LastSpec>();
  std::shared_ptr<const ChildSpec> spec = last.spec.lock();
  if (spec && spec->replicas == replicas && same_spec(*spec->task, task) &&
      same_spec(*spec->options, options))
    return spec;
  spec = std::make_shared<const ChildSpec>(
      ChildSpec{std::move(replicas), std::make_shared<const Task>(task), kept(options)});
  last.spec = spec;
  return spec;
}

}  // namespace

std::shared_ptr<RemoteInterface> start_remote(Reactor& reactor, const Task& task,
                                              const Options& options) {
  fault_at(Failpoint::run);
  const std::shared_ptr<Loop>& loop = reactor.loop();
  loop->check_thread();
  auto core = make_on<RemoteCore>(loop, loop,
                                  options.on_start
                                      ? spec_of(*loop, with_start(task, options.on_start), options)
                                      : spec_of(*loop, task, options));
  core->spawn();
  return core;
}

void check_call_deadline(std::chrono::nanoseconds time) {
  refuse_negative("Call::set_deadline", time);
}

std::chrono::milliseconds deadline_of(const CallOptions& call, const Options& options) {
  if (!call.deadline) return options.deadline;
  refuse_negative("CallOptions::deadline", *call.deadline);
  return *call.deadline;
}

}  // namespace evparallel::detail
