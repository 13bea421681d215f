// supervisor.cpp - keeps a child in each place: starts, restarts, replacements, and the end.
// Runs in: parent.  Licence: see COPYING.
#include "call/supervisor.hpp"

#include "base/negative.hpp"
#include "system/failpoint.hpp"
#include "spawn/back_off.hpp"
#include "spawn/with_start.hpp"

#include <algorithm>
#include <climits>
#include <stdexcept>

namespace evparallel::detail {

namespace {

constexpr unsigned most_places = 4096;

void check_number(unsigned n) {
  if (n == 0)
    throw std::logic_error(
        "evparallel: a supervisor needs at least one place; close() ends all children");
  if (n > most_places)
    throw std::logic_error("evparallel: a supervisor has at most 4096 places, and " +
                           std::to_string(n) + " were requested");
}

const SuperviseOptions& checked(const SuperviseOptions& options) {
  refuse_negative("SuperviseOptions::first_pause", options.first_pause);
  refuse_negative("SuperviseOptions::longest_pause", options.longest_pause);
  refuse_negative("SuperviseOptions::stable_after", options.stable_after);
  refuse_negative("SuperviseOptions::restart_window", options.restart_window);
  if (options.grace) refuse_negative("SuperviseOptions::grace", *options.grace);
  return options;
}

Error too_many_restarts(unsigned index, const SuperviseOptions& options, const Error& last) {
  return unhealthy("place " + std::to_string(index) + " needed more than " +
                       std::to_string(options.max_restarts) + " restarts within " +
                       std::to_string(options.restart_window.count()) +
                       " ms (SuperviseOptions::max_restarts)",
                   last);
}

}  // namespace

SupervisorCore::SupervisorCore(const std::shared_ptr<Loop>& loop, Task task, unsigned n,
                               const SuperviseOptions& options)
    : loop_(loop),
      replicas_(Replicas::choose(options.child.snapshot, loop)),
      task_(with_start(std::move(task), options.child.on_start)),
      options_(checked(options)) {
  loop_->check_at_home();
  check_number(n);
  if (!options_.grace) options_.grace = options_.child.grace;
  options_.child.grace = *options_.grace;
  child_options_ = kept(options_.child);
  options_.child = {};  // its snapshot and its descriptors need not outlive this call
  places_.resize(n);
  clock_.set<&SupervisorCore::on_clock>(*loop_, -1, 0, this);
  register_with(*loop_);
}

void SupervisorCore::begin() {
  pump();
  loop_->hold();
  holds_loop_ = true;
}

// ---- interface of the user ----

std::vector<pid_t> SupervisorCore::pids() const {
  loop_->check_thread();
  std::vector<pid_t> pids;
  for (const Place& place : places_) {
    const bool runs = place.child && place.child->stage == SupervisedChild::Stage::running;
    pids.push_back(runs ? place.child->pid() : 0);
  }
  return pids;
}

unsigned SupervisorCore::running() const {
  loop_->check_thread();
  const auto runs = [](const Place& place) {
    return place.child && place.child->stage == SupervisedChild::Stage::running;
  };
  return static_cast<unsigned>(std::count_if(places_.begin(), places_.end(), runs));
}

// A child of an earlier generation is replaced.
void SupervisorCore::restart() {
  loop_->check_thread();
  if (!open()) return;
  ++generation_;
  pump_later();
}

void SupervisorCore::resize(unsigned n) {
  loop_->check_thread();
  check_number(n);
  if (!open()) return;
  for (std::size_t i = n; i < places_.size(); ++i) {
    request_end(places_[i].child);
    request_end(places_[i].successor);
  }
  places_.resize(n);
  pump_later();
}

void SupervisorCore::close() {
  loop_->check_thread();
  if (!open()) return;
  stage_ = Stage::closing;
  for (const Child& child : children_) request_end(child);
  pump_later();
}

void SupervisorCore::shutdown(std::chrono::milliseconds grace) {
  loop_->check_thread();
  refuse_negative("Supervisor::shutdown", grace);
  if (stage_ == Stage::over || !loop_->alive()) return;
  stage_ = Stage::closing;
  for (const Child& child : children_) child->end(grace);
  pump_later();
}

void SupervisorCore::abandon() noexcept {
  if (loop_->in_its_thread()) return abandon_here();
  loop_->call_in_its_thread([self = shared_from_this()] { self->abandon_here(); });
}

void SupervisorCore::abandon_here() noexcept {
  if (stage_ == Stage::over) return;
  stage_ = Stage::over;
  const auto keep = weak_from_this().lock();
  clock_.unset();
  places_.clear();
  for (const Child& child : std::exchange(children_, {})) child->detach();
  if (std::exchange(holds_loop_, false) && loop_->alive()) loop_->release();
  unregister();
  release_callbacks();
}

void SupervisorCore::on_loop_destroyed() noexcept {
  stage_ = Stage::over;
  const auto keep = weak_from_this().lock();
  clock_.unset();
  places_.clear();
  for (const Child& child : std::exchange(children_, {})) child->abort();
  release_callbacks();
}

void SupervisorCore::release_callbacks() noexcept {
  start_.release();
  exit_.release();
  failed_.release();
  closed_.release();
}

// ---- start ----

// A child that cannot be requested ends like one that could not be forked.
SupervisorCore::Child SupervisorCore::start_child(unsigned index) {
  const auto child = std::make_shared<SupervisedChild>(*this, index, generation_);
  try {
    child->start(*replicas_, loop_, task_, child_options_);
  } catch (const Error& error) {
    loop_->defer([self = shared_from_this(), child, error] {
      ExitStatus status;
      status.cause = Cause::not_started;
      if (self->stage_ != Stage::over) self->child_ended(*child, status, error);
    });
  }
  children_.push_back(child);
  return child;
}

void SupervisorCore::pump() {
  if (!open()) return;
  const std::int64_t now = now_ns();
  for (unsigned i = 0; i < places_.size(); ++i) fill(i, now);
  roll(now);
}

void SupervisorCore::pump_later() {
  if (std::exchange(pump_deferred_, true)) return;
  loop_->defer([self = shared_from_this()] {
    self->pump_deferred_ = false;
    self->pump();
    self->end_if_over();
  });
}

void SupervisorCore::fill(unsigned index, std::int64_t now) {
  Place& place = places_[index];
  if (place.child || place.done) return;
  if (options_.stop_first && has_children_of(index)) return;  // its end comes back here
  if (place.start_at > now) return wake_at(place.start_at);
  place.child = start_child(index);
}

bool SupervisorCore::has_children_of(unsigned index) const noexcept {
  return std::any_of(children_.begin(), children_.end(),
                     [index](const Child& child) { return child->index == index; });
}

// ---- a restart ----

void SupervisorCore::roll(std::int64_t now) {
  const auto replaced = static_cast<std::size_t>(std::count_if(
      places_.begin(), places_.end(), [](const Place& place) { return place.replacing; }));
  const std::size_t limit = options_.restarts_at_once == 0 ? SIZE_MAX : options_.restarts_at_once;
  std::size_t room = limit - std::min(limit, replaced);
  for (unsigned i = 0; i < places_.size(); ++i) {
    const Place& place = places_[i];
    const bool outdated = place.child && place.child->stage == SupervisedChild::Stage::running &&
                          place.child->generation < generation_;
    if (!outdated || place.successor || place.old) continue;
    if (!place.replacing && room == 0) continue;
    room -= !place.replacing;
    replace(i, now);
  }
}

void SupervisorCore::replace(unsigned index, std::int64_t now) {
  Place& place = places_[index];
  place.replacing = true;
  if (options_.stop_first) {
    request_end(place.child);
    place.old = std::exchange(place.child, nullptr);
  } else if (place.start_at > now) {
    wake_at(place.start_at);
  } else {
    place.successor = start_child(index);
  }
}

void SupervisorCore::request_end(const Child& child) {
  if (child && child->stage < SupervisedChild::Stage::ending) child->end(*options_.grace);
}

void SupervisorCore::child_running(SupervisedChild& child) {
  const auto keep = shared_from_this();
  child.stage = SupervisedChild::Stage::running;
  child.running_since = now_ns();
  Place& place = places_[child.index];
  if (place.successor.get() == &child) {
    request_end(place.child);
    place.old = std::exchange(place.child, std::exchange(place.successor, nullptr));
  }
  place.replacing = place.old != nullptr;
  loop_->call([&] { start_(child.index, child.pid()); });
  if (open()) pump_later();
}

// ---- the end of a child ----

void SupervisorCore::child_ended(SupervisedChild& child, const ExitStatus& status,
                                 const Error& error) {
  const auto keep = shared_from_this();
  const auto keep_child = child.shared_from_this();
  const bool expected = child.stage == SupervisedChild::Stage::ending;
  child.stage = SupervisedChild::Stage::ended;
  const Role role = take_out(child);
  loop_->call([&] { exit_(child.index, status); });
  if (stage_ == Stage::over) return;
  if (!expected && open()) after_end(child, role, status, error);
  if (stage_ == Stage::over) return;
  pump();
  end_if_over();
}

// If a child ends while its successor starts, that has its place at once.
SupervisorCore::Role SupervisorCore::take_out(SupervisedChild& child) {
  children_.erase(std::find(children_.begin(), children_.end(), child.shared_from_this()));
  if (child.index >= places_.size()) return Role::other;
  Place& place = places_[child.index];
  if (place.child.get() == &child) {
    place.child = std::exchange(place.successor, nullptr);
    return Role::child;
  }
  if (place.successor.get() == &child) {
    place.successor = nullptr;
    return Role::successor;
  }
  if (place.old.get() == &child) {
    place.old = nullptr;
    place.replacing = place.child == nullptr;
  }
  return Role::other;
}

void SupervisorCore::after_end(const SupervisedChild& child, Role role, const ExitStatus& status,
                               const Error& error) {
  if (child.index >= places_.size() || role == Role::other) return;
  Place& place = places_[child.index];
  if (role == Role::child && place.child) return;
  if (role == Role::child && !is_followed(status)) {
    place.done = true;
    place.replacing = false;
    return;
  }
  if (is_hopeless(error)) return give_up(error);
  const std::int64_t now = now_ns();
  pause(place, child, now);
  // A child that could not be replaced still runs.
  if (role == Role::child && exceeds_rate(place, now))
    give_up(too_many_restarts(child.index, options_, error));
}

bool SupervisorCore::is_followed(const ExitStatus& status) const noexcept {
  if (status.cause == Cause::not_started || options_.restart == Restart::always) return true;
  return options_.restart == Restart::on_failure && status.cause != Cause::normal;
}

// Every other child would fail as well.
bool SupervisorCore::is_hopeless(const Error& error) const noexcept {
  return error.code() == Errc::unknown_function || !replicas_->alive();
}

void SupervisorCore::pause(Place& place, const SupervisedChild& child, std::int64_t now) {
  const bool stable =
      child.running_since > 0 && deadline_from(child.running_since, options_.stable_after) <= now;
  if (stable) {
    place.short_lives = 0;
    place.start_at = now;
    return;
  }
  place.start_at = deadline_from(
      now, doubled_pause(options_.first_pause, place.short_lives, options_.longest_pause));
  if (place.short_lives < UINT_MAX) ++place.short_lives;
}

bool SupervisorCore::exceeds_rate(Place& place, std::int64_t now) {
  if (options_.max_restarts == UINT_MAX || options_.restart_window.count() == 0) return false;
  std::deque<std::int64_t>& restarts = place.restarts;
  while (!restarts.empty() && deadline_from(restarts.front(), options_.restart_window) <= now)
    restarts.pop_front();
  restarts.push_back(now);
  return restarts.size() > options_.max_restarts;
}

// ---- the end of all ----

void SupervisorCore::give_up(const Error& error) {
  close();
  loop_->call([&] {
    if (!failed_.is_set()) throw error;
    failed_(error);
  });
}

void SupervisorCore::end_if_over() {
  if (stage_ == Stage::over || !children_.empty()) return;
  const bool done =
      std::all_of(places_.begin(), places_.end(), [](const Place& place) { return place.done; });
  if (stage_ == Stage::open && !done) return;
  const auto keep = shared_from_this();
  stage_ = Stage::over;
  clock_.unset();
  if (std::exchange(holds_loop_, false)) loop_->release();
  unregister();
  loop_->call([&] { closed_(); });
  release_callbacks();
}

// ---- the timer ----

void SupervisorCore::wake_at(std::int64_t at) noexcept {
  if (at >= clock_at_) return;
  clock_at_ = at;
  clock_.add_in(std::chrono::nanoseconds(std::max<std::int64_t>(at - now_ns(), 0)));
}

void SupervisorCore::on_clock() {
  const auto keep = shared_from_this();
  clock_at_ = never;
  pump();
}

std::shared_ptr<SupervisorInterface> start_supervisor(Reactor& reactor, Task task, unsigned n,
                                                      const SuperviseOptions& options) {
  fault_at(Failpoint::run);
  const std::shared_ptr<Loop>& loop = reactor.loop();
  loop->check_thread();
  auto core = make_on<SupervisorCore>(loop, loop, std::move(task), n, options);
  core->begin();
  return core;
}

}  // namespace evparallel::detail
