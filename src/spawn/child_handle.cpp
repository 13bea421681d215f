// child_handle.cpp - from the request for a child to the report of its end.
// Runs in: parent.  Licence: see COPYING.
#include "spawn/child_handle.hpp"

#include "base/negative.hpp"
#include "base/no_memory.hpp"
#include "backtrace/crash_record.hpp"
#include "backtrace/symbolizer.hpp"
#include "codec/task_frame.hpp"

namespace evparallel::detail {

namespace {

Errc code_of(const ExitStatus& status) {
  switch (status.cause) {
    case Cause::snapshot_lost: return Errc::snapshot_lost;
    case Cause::deadline: return Errc::deadline;
    default: return status.signalled() ? Errc::child_killed : Errc::child_exited;
  }
}

Error error_of(const ExitStatus& status) noexcept {
  return error_or_no_memory(Delivery::not_sent, [&status] {
    const Errc code = code_of(status);
    return Error(code, std::string(to_string(code)) + ": " + status.describe()).with_exit(status);
  });
}

}  // namespace

const Options& checked(const Options& options) {
  refuse_negative("Options::deadline", options.deadline);
  refuse_negative("Options::start_timeout", options.start_timeout);
  refuse_negative("Options::grace", options.grace);
  refuse_negative("Options::linger", options.linger);
  refuse_negative("Options::limits.cpu", options.limits.cpu);
  refuse_negative("Options::limits.cpu_per_call", options.limits.cpu_per_call);
  return options;
}

std::shared_ptr<const OwnedOptions> kept(const Options& options) {
  return std::make_shared<const OwnedOptions>(options);
}

namespace {

bool same_spec(const Stdio& one, const Stdio& other) noexcept {
  return one.kind() == other.kind() && one.kind() != Stdio::Kind::descriptor;
}

}  // namespace

bool same_spec(const Options& one, const Options& other) {
  // This names every member, so that a new member does not compile until it is compared here.
  const auto& [snapshot, name, deadline, start_timeout, grace, linger, max_message, max_decoded,
               high_water, retries, idempotent, limits, nice, affinity, env, cwd, in, out, err,
               on_line, last_lines, last_bytes, on_start, process_group, backtrace] = one;
  // The caller compares the snapshot, and the task with its start.
  static_cast<void>(snapshot);
  static_cast<void>(on_start);
  return name == other.name && deadline == other.deadline && start_timeout == other.start_timeout &&
         grace == other.grace && linger == other.linger && max_message == other.max_message &&
         max_decoded == other.max_decoded && high_water == other.high_water &&
         retries == other.retries && idempotent == other.idempotent &&
         limits.cpu == other.limits.cpu && limits.cpu_per_call == other.limits.cpu_per_call &&
         limits.memory == other.limits.memory && nice == other.nice && affinity == other.affinity &&
         env == other.env && cwd == other.cwd && in.kind() != Stdio::Kind::inherited &&
         same_spec(in, other.in) && same_spec(out, other.out) && same_spec(err, other.err) &&
         !on_line && !other.on_line && last_lines == other.last_lines &&
         last_bytes == other.last_bytes && process_group == other.process_group &&
         backtrace == other.backtrace;
}

ChildHandle::ChildHandle(std::shared_ptr<SnapshotProcess> entry,
                         std::shared_ptr<const OwnedOptions> options, ChildObserver* owner)
    : entry_(std::move(entry)), options_(std::move(options)), owner_(owner) {}

ChildHandle::~ChildHandle() {
  if (id_ == 0) return;
  entry_->forget(id_);
  if (pipe_) pipe_->abort();  // spawn() has failed, or there was nothing to detach
}

namespace {

// A process begins by itself.  A remote function only waits for its first call, which mostly comes
// at once: task and call together wake the child only once.
PipeCore::FlushPolicy leave_of(ChildHandle::Use use) noexcept {
  return use == ChildHandle::Use::process ? PipeCore::FlushPolicy::at_once
                                          : PipeCore::FlushPolicy::with_the_next;
}

PipeCore::OtherEnd other_end_of(ChildHandle::Use use) noexcept {
  return use == ChildHandle::Use::process ? PipeCore::OtherEnd::closes
                                          : PipeCore::OtherEnd::is_left;
}

}  // namespace

std::shared_ptr<ChildHandle> ChildHandle::spawn(const std::shared_ptr<SnapshotProcess>& entry,
                                                const std::shared_ptr<Loop>& loop, const Task& task,
                                                std::shared_ptr<const OwnedOptions> kept, Use use,
                                                ChildObserver* owner) {
  const OwnedOptions& options = *kept;
  std::shared_ptr<ChildHandle> child(new ChildHandle(entry, std::move(kept), owner));
  if (options.environment.captures())
    child->output_ = std::make_shared<CapturedOutput>(
        loop, options.name,
        options.on_line ? CapturedOutput::OnLine(options.on_line) : CapturedOutput::OnLine(),
        LastLines(options.last_lines, options.last_bytes));
  StdioPlan streams = options.environment.open_streams(child->output_.get());
  const bool with_parent = options.process_group == ProcessGroup::parent;
  SnapshotProcess::SpawnTicket spawned = entry->spawn(
      loop, task, std::move(streams), with_parent ? Group::parent : Group::own, child.get());
  child->id_ = spawned.id;
  // Only the pipe of a process has handles of its own, whose last one may be dropped in any thread.
  const auto make_pipe = [&](auto&&... args) {
    return use == Use::process ? make_on<PipeCore>(loop, loop, std::move(args)...)
                               : std::make_shared<PipeCore>(loop, std::move(args)...);
  };
  Channel channel(std::move(spawned.socket), options.max_message,
                  Pooled<ChannelBuffers>(loop->extension<ObjectPool<ChannelBuffers>>()));
  channel.set_max_decoded(options.max_decoded);
  child->pipe_ = make_pipe(std::move(channel), options.high_water, PipeCore::ExitReport::comes,
                           child.get(), other_end_of(use));
  const bool limited = use == Use::process && options.deadline > options.deadline.zero();
  child->write_task(task, limited ? deadline_in(options.deadline) : no_deadline, spawned.seed,
                    leave_of(use));
  if (limited)
    entry->terminate(child->id_, no_slot, {options.deadline, options.grace, Cause::deadline});
  entry->limit_start(child->id_);
  // A captured line carries the pid, and is passed on before the frames behind it.
  if (!child->output_) child->pipe_->start();
  return child;
}

void ChildHandle::write_task(const Task& task, std::int64_t deadline, std::uint64_t seed,
                             PipeCore::FlushPolicy leave) {
  Writer frame;
  write_task_frame(
      frame,
      {task.entry, options_->max_message, options_->max_decoded, options_->high_water, owner_id_,
       deadline, options_->limits.cpu.count(), options_->limits.cpu_per_call.count(),
       options_->limits.memory, options_->nice, options_->backtrace, seed},
      options_->environment.text(), task.callable);
  pipe_->put(FrameKind::task, 0, frame, leave);
}

void ChildHandle::kill(int signum) {
  if (!ended()) entry_->kill(id_, slot_, signum);
}

void ChildHandle::terminate(std::chrono::milliseconds grace) {
  const std::chrono::milliseconds at_once{0};
  if (!ended()) entry_->terminate(id_, slot_, {at_once, grace, Cause::terminated});
}

void ChildHandle::kill_if_still_running(const SnapshotProcess::Clock& clock, std::uint64_t call,
                                        std::uint64_t ping) {
  if (!ended()) entry_->kill_if_still_running(id_, slot_, clock, call, ping);
}

void ChildHandle::kill_if_not_started(const SnapshotProcess::Clock& clock) {
  if (!ended()) entry_->kill_if_not_started(id_, slot_, clock);
}

void ChildHandle::shutdown() {
  if (!ended())
    entry_->terminate(id_, slot_, {options_->linger, options_->grace, Cause::terminated});
}

std::uint64_t ChildHandle::last_begun() const noexcept {
  if (end()) return end()->last_begun;
  const Slot* slot = entry_->slot(slot_);
  return slot ? CallState::of(slot->call.load()).id : 0;
}

bool ChildHandle::unused() const noexcept {
  if (end()) return end()->unused;
  const Slot* slot = entry_->slot(slot_);
  return id_ >= Spares::first_id && !(slot && slot->task_at.load() != 0);
}

bool ChildHandle::started() const noexcept {
  const Slot* slot = entry_->slot(slot_);
  return ended() || (slot && slot->started.load());
}

// This runs before the snapshot learns that this process knows of the end: see on_outcome().
std::shared_ptr<const CrashReport> ChildHandle::crash_report() const noexcept try {
  const CrashRecord* record = entry_->crash_record(slot_);
  const ExitStatus& status = end_.peek()->status;
  if (!options_->backtrace || !status.signalled() || !record) return nullptr;
  const std::optional<Crash> crash = read_crash(*record, owner_id_, status.signal());
  if (!crash) return nullptr;
  auto report = std::make_shared<CrashReport>();
  report->signal = crash->signal;
  report->code = crash->code;
  report->fault_address = reinterpret_cast<const void*>(crash->fault_address);
  report->frames = symbolised(entry_->modules(), crash->frames, First::instruction);
  return report;
} catch (const std::bad_alloc&) {
  return nullptr;
}

Error ChildHandle::explained(const Error& error) const noexcept try {
  return options_->backtrace ? symbolised(entry_->modules(), error) : error;
} catch (const std::bad_alloc&) {
  return error;
}

Delivery ChildHandle::delivery(std::uint64_t call, std::uint64_t offset) const noexcept {
  const bool no_child = end() && end()->status.cause == Cause::not_started;
  if (no_child || pipe_->bytes_written() <= offset) return Delivery::not_sent;
  return call <= last_begun() ? Delivery::started : Delivery::sent;
}

void ChildHandle::detach_observer() {
  owner_ = nullptr;
  entry_->forget(std::exchange(id_, 0));
  if (output_) output_->detach();
}

void ChildHandle::detach() {
  shutdown();
  detach_observer();
  pipe_->detach();
}

void ChildHandle::abort() {
  shutdown();
  detach_observer();
  pipe_->abort();
}

void ChildHandle::on_spawned(pid_t pid, std::uint32_t slot) {
  pid_ = pid;
  slot_ = slot;
  if (output_) {
    output_->start(pid);
    pipe_->start();
  }
  if (owner_) owner_->on_started(pid);
}

void ChildHandle::prepare_for_outcome() {
  static_cast<void>(*end_);
  pipe_->prepare_conclusion();
  if (owner_) owner_->prepare_for_end();
}

// The slot is read before the snapshot learns that this process knows of the end, and reuses the
// slot.
void ChildHandle::on_outcome(const SpawnOutcome& word) {
  const auto keep = shared_from_this();
  const std::uint64_t begun = last_begun();
  const bool is_unused = unused();
  end_->last_begun = begun;
  end_->unused = is_unused;
  end_->known = true;
  end_->error = word.failure;
  if (word.status) {
    end_->status = *word.status;
    end_->status.crash = crash_report();
  } else {
    end_->status.cause = Cause::not_started;
  }
  conclude();
}

// The output of the child is passed on before its end is reported.
void ChildHandle::conclude() {
  end_->concluding = false;
  if (output_) {
    if (!pass_output_on()) {
      end_->concluding = true;
      return pipe_->loop()->defer_or_retry(*pipe_,
                                           [self = shared_from_this()] { self->on_retry(); });
    }
    if (id_ == 0) return;  // a callback has dropped it
  }
  if (!end_->error) end_->error = error_of(end_->status);
  pipe_->conclude(*end_->error);
}

// False: not all of it was passed on yet.
bool ChildHandle::pass_output_on() try {
  if (!output_->finish()) return false;
  if (id_ != 0) end_->status.last_words = output_->last_words();
  return true;
} catch (const std::bad_alloc&) {
  pipe_->loop()->retry_later();
  return false;
}

void ChildHandle::on_retry() {
  if (end() && end_->concluding) conclude();
}

// A child that has started is not looked at any more: a timer costs each iteration of the loop a
// look at the clock.
void ChildHandle::on_input() {
  if (!std::exchange(has_sent_, true)) entry_->end_limit_of_start(id_);
  if (output_) pipe_->loop()->call([this] { output_->catch_up(); });
}

Error ChildHandle::on_task_error(const Error& bare) {
  const Error error = explained(bare);
  if (owner_) owner_->on_task_error(error);
  return error;
}

void ChildHandle::on_torn(std::uint64_t call) {
  if (owner_) owner_->on_torn(call);
}

void ChildHandle::on_frame(Frame& frame) {
  if (owner_) owner_->on_frame(frame);
}

// The socket of the child has ended, and the child has not, as far as is known: it gets its time to
// end.
void ChildHandle::on_broken() {
  shutdown();
}

void ChildHandle::on_closed() {
  entry_->look_later();
}

void ChildHandle::on_over() {
  const auto keep = shared_from_this();
  if (ChildObserver* owner = std::exchange(owner_, nullptr))
    owner->on_ended(end_->status, *end_->error);
}

}  // namespace evparallel::detail
