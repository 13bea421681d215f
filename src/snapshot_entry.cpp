// snapshot_entry.cpp - asking a snapshot for children, hearing of them, and of its own end.
// Licence: see COPYING.
#include "snapshot_entry.hpp"

#include "fault.hpp"
#include "task_frame.hpp"

#include <signal.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <vector>

namespace evparallel {

namespace {

// A snapshot that ends on its own, with its last child, and is still to be reaped.  Its control
// socket stays open: to close it is to say that the program has ended.
struct Abandoned {
  pid_t pid;
  Client client;
};

// Never destroyed: it must be there for whatever is destroyed last.
std::vector<Abandoned>& abandoned() {
  static auto* all = new std::vector<Abandoned>;
  return *all;
}

Request request_of(Ask kind, std::uint64_t id = no_spawn, std::uint32_t slot = no_slot) noexcept {
  Request request{};
  request.kind = kind;
  request.slot = slot;
  request.id = id;
  return request;
}

Request with_clock(Request request, const SnapshotEntry::Clock& clock) noexcept {
  request.cause = static_cast<std::int32_t>(clock.cause);
  request.grace_ms = clock.grace.count();
  request.linger_ms = clock.linger.count();
  return request;
}

}  // namespace

Error system_error(Errc code, const std::string& what, int number) {
  return Error(code, what + ": " + std::strerror(number)).with_os_error(number);
}

void SnapshotEntry::reap_abandoned() noexcept {
  std::vector<Abandoned>& all = abandoned();
  Ended how;
  for (std::size_t i = all.size(); i-- > 0;)
    if (ended(all[i].pid, how)) all.erase(all.begin() + static_cast<std::ptrdiff_t>(i));
}

// ---- at the door ----

// The door of the snapshot is open to all its children: through it goes one end of a fresh control
// socket.
// Returns 0 or an errno.
int SnapshotEntry::connect() {
  Descriptor ours;
  Descriptor theirs;
  if (const int error = make_pair(PairKind::packets, ours, theirs)) return error;
  fault_at(Hop::knock);
  const char byte = 0;
  if (send_packet(door_.get(), &byte, sizeof byte, theirs.get()) != Flow::done) return EAGAIN;
  theirs.drop();
  client_ = Client(std::move(ours));
  state_ = State::connected;
  refused_ = false;
  out_of_memory_.watch();
  return 0;
}

std::string SnapshotEntry::described() const {
  return (name_.empty() ? "process " : name_ + ", process ") + std::to_string(pid_);
}

Error SnapshotEntry::was_stopped() const {
  return Error(Errc::no_snapshot, "no snapshot: " + described() + " was stopped");
}

Error SnapshotEntry::is_dead() const {
  return Error(Errc::snapshot_lost, "snapshot lost: " + described() + " is dead");
}

// ---- its end ----

SnapshotEntry::~SnapshotEntry() {
  if (!home_.is_here() || role() != Role::parent) return;
  if (slots_) unmap_slots(slots_);
  if (notes_) Notes::unmap(notes_);
  if (pid_ == 0 || reaped_) return;
  // Where a child may live on, the socket stays open: its end would end the child.
  if (living_.empty() || !client_.ask(request_of(Ask::stop_unheard)) || !client_.idle())
    client_.close();
  abandoned().push_back({pid_, std::move(client_)});
  reap_abandoned();
}

bool SnapshotEntry::alive() const noexcept {
  return home_.is_here() && (state_ == State::connected || state_ == State::unconnected);
}

void SnapshotEntry::stop() noexcept {
  if (!home_.is_here() || state_ != State::connected || role() != Role::parent) return;
  ask(request_of(Ask::stop));
  state_ = State::stopped;
}

void SnapshotEntry::loop_gone() noexcept {
  const auto keep = std::move(self_);
  read_event_.unset();
  write_event_.unset();
  reap_event_.unset();
  loop_.reset();
  for (auto& item : living_) item.second.listener = nullptr;
}

// ---- asking ----

void SnapshotEntry::bind(const std::shared_ptr<Loop>& loop) {
  if (loop_ != loop) {
    if (loop_ && loop_->alive())
      throw std::logic_error(
          "evparallel: a snapshot is used by one Reactor at a time, and another one uses it");
    if (!loop->alive()) throw std::logic_error("evparallel: the Reactor is destroyed");
    loop_ = loop;
    self_ = shared_from_this();
    attach(*loop_);
    reap_event_.set<&SnapshotEntry::reap>(*loop_, -1, 0, this);
  }
  if (!client_ || read_event_.added()) return;
  read_event_.set<&SnapshotEntry::on_readable>(*loop_, client_.fd(), EV_READ | EV_PERSIST, this);
  write_event_.set<&SnapshotEntry::on_writable>(*loop_, client_.fd(), EV_WRITE | EV_PERSIST, this);
  read_event_.add();
}

// Why no child can be asked for that would run this task.  Empty: it can.
std::optional<Error> SnapshotEntry::why_not(const detail::Task& task) {
  if (std::optional<Error> unknown = why_unknown(*modules_, task)) return unknown;
  const int unreachable = state_ == State::unconnected ? connect() : 0;
  if (unreachable)
    return system_error(Errc::overloaded, "overloaded: the snapshot cannot be asked now",
                        unreachable);
  if (state_ == State::stopped) return was_stopped();
  if (state_ == State::lost) return is_dead();
  return std::nullopt;
}

std::uint64_t SnapshotEntry::spawn(const std::shared_ptr<Loop>& loop, const detail::Task& task,
                                   Descriptor socket, SpawnListener* listener) {
  fault_at(Hop::spawn);
  reap_abandoned();
  const std::uint64_t id = next_id_++;
  const std::optional<Error> failure = why_not(task);
  bind(loop);
  living_.emplace(id, Living{listener, 0, false});
  if (failure) {
    fail_later(id, *failure, std::move(socket));
    return id;
  }
  if (!ask(request_of(Ask::spawn, id), std::move(socket)))
    fail_later(id, Error(Errc::overloaded, "overloaded: too many requests wait for the snapshot"));
  else
    living_.at(id).asked = !client_.ended();
  return id;
}

// False: the queue is full.  In another process it does nothing: the socket is the program's.
bool SnapshotEntry::ask(const Request& request, Descriptor along) {
  if (state_ == State::lost || !client_ || !home_.is_here()) return true;
  if (!client_.ask(request, std::move(along))) return false;
  if (client_.ended()) {
    look_later();
    return true;
  }
  if (!client_.idle() && loop_ && loop_->alive()) write_event_.add();
  return true;
}

void SnapshotEntry::kill(std::uint64_t id, std::uint32_t slot, int signum) {
  Request request = request_of(Ask::kill, id, slot);
  request.signum = signum;
  ask(request);
}

void SnapshotEntry::terminate(std::uint64_t id, std::uint32_t slot, const Clock& clock) {
  ask(with_clock(request_of(Ask::terminate, id, slot), clock));
}

void SnapshotEntry::strike(std::uint64_t id, std::uint32_t slot, const Clock& clock,
                           std::uint64_t call, std::uint64_t ping) {
  Request request = with_clock(request_of(Ask::strike, id, slot), clock);
  request.call = call;
  request.ping = ping;
  ask(request);
}

void SnapshotEntry::look_later() {
  if (!loop_ || !loop_->alive()) return;
  loop_->defer([self = shared_from_this()] {
    if (self->client_) self->on_readable();
  });
}

void SnapshotEntry::forget(std::uint64_t id) noexcept {
  const auto found = living_.find(id);
  if (found != living_.end()) found->second.listener = nullptr;
}

const Slot* SnapshotEntry::slot(std::uint32_t index) const noexcept {
  return index < slot_count && slots_ ? slots_ + index : nullptr;
}

const CrashRecord* SnapshotEntry::crash_record(std::uint32_t index) const noexcept {
  return index < slot_count && slots_ ? &evparallel::crash_record(slots_, index) : nullptr;
}

// ---- hearing ----

void SnapshotEntry::on_writable() {
  if (client_.flush()) write_event_.remove();
}

void SnapshotEntry::on_readable() {
  const auto keep = shared_from_this();
  Report report{};
  for (;;) {
    const Flow flow = client_.take(report);
    if (flow == Flow::again) return;
    if (flow == Flow::end) return lost();
    take_report(report);
    if (loop_->interrupted()) return;  // the socket is still readable in the next run()
  }
}

ExitStatus status_of(const Report& report) {
  ExitStatus status;
  status.pid = report.pid;
  status.wait_status = report.code;
  status.cause = static_cast<Cause>(report.cause);
  status.usage.user_time = std::chrono::microseconds(report.user_us);
  status.usage.system_time = std::chrono::microseconds(report.system_us);
  status.usage.max_rss = report.max_rss;
  status.usage.minor_faults = report.minor_faults;
  status.usage.major_faults = report.major_faults;
  return status;
}

void SnapshotEntry::take_report(const Report& report) {
  if (report.id == no_spawn) refused_ = true;
  const auto found = living_.find(report.id);
  if (found == living_.end()) return;
  switch (report.kind) {
    case Tell::spawned:
      found->second.pid = report.pid;
      if (SpawnListener* listener = found->second.listener)
        loop_->call([&] { listener->on_spawned(report.pid, report.slot); });
      break;
    case Tell::failed:
      last_word(report.id,
                {std::nullopt, system_error(Errc::spawn_failed,
                                            "spawn failed: fork in the snapshot", report.code)});
      break;
    case Tell::exited: {
      ExitStatus status = status_of(report);
      const bool killed = status.cause == Cause::crash && status.signal() == SIGKILL;
      if (killed && out_of_memory_.take_kill()) status.cause = Cause::out_of_memory;
      last_word(report.id, {status, std::nullopt});
      break;
    }
  }
}

void SnapshotEntry::last_word(std::uint64_t id, const LastWord& word) {
  fault_at(Hop::last_word);
  const auto found = living_.find(id);
  if (found == living_.end()) return;
  SpawnListener* listener = found->second.listener;
  living_.erase(found);
  if (listener) loop_->call([&] { listener->on_last_word(word); });
}

// Until then the child's end of the data socket is kept: else each write to the other one would find
// it dead, and each call would ask again, with two more descriptors.
void SnapshotEntry::fail_later(std::uint64_t id, Error error, Descriptor socket) {
  loop_->defer(
      [self = shared_from_this(), id, error = std::move(error), socket = std::move(socket)] {
        self->last_word(id, {std::nullopt, error});
      });
}

// The control socket has ended: nobody can tell any more how those who live will end.  A child that
// was only not let in may knock again.
void SnapshotEntry::lost() {
  read_event_.remove();
  write_event_.remove();
  client_.close();
  const Error why = why_lost();
  if (role() == Role::child)
    state_ = State::unconnected;
  else if (state_ != State::stopped)
    state_ = State::lost;
  std::vector<std::uint64_t> ids;
  for (const auto& item : living_) ids.push_back(item.first);
  for (const std::uint64_t id : ids) {
    const Living& child = living_.at(id);
    ExitStatus status;
    status.pid = child.pid;
    status.cause = Cause::snapshot_lost;
    if (child.pid != 0)
      last_word(id, {status, std::nullopt});
    else if (child.asked && !refused_)
      last_word(id, {status, why});  // forked, or not: what was sent to it may have been done
    else
      last_word(id, {std::nullopt, why});
  }
  if (role() == Role::parent) reap();
}

Error SnapshotEntry::why_lost() const {
  if (refused_)
    return Error(Errc::overloaded,
                 "overloaded: too many children of this snapshot have children of their own");
  return state_ == State::stopped ? was_stopped() : is_dead();
}

// The socket of a dying process ends a little before the process can be waited for.
void SnapshotEntry::reap() {
  Ended how;
  if (!ended(pid_, how)) return reap_event_.add_in(std::chrono::milliseconds(1));
  reaped_ = true;
  self_.reset();
}

}  // namespace evparallel
