// snapshot.cpp - taking a snapshot: which one is used, what prevents it, and its fork.
// Runs in: parent.  Licence: see COPYING.
#include <evparallel/child_hooks.hpp>
#include <evparallel/snapshot.hpp>

#include "base/no_memory.hpp"
#include "base/startup_path.hpp"
#include "system/failpoint.hpp"
#include "system/new_descriptor.hpp"
#include "system/process_lock.hpp"
#include "system/process_title.hpp"
#include "child/child_main.hpp"
#include "spawn/replicas.hpp"

#include <alloca.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <new>
#include <stdexcept>

namespace evparallel {

using namespace detail;

namespace {

// Guarded by the SnapshotsLock, which is not held during a fork: the copy could not release it.
// Without a destructor, because objects that are destroyed last may use it.
struct Registry {
  std::shared_ptr<Snapshot> default_snapshot;
  std::shared_ptr<Replicas> of_child;  // in a child: the snapshot that forked it
};

Registry& registry() {
  static auto* all = new Registry;
  return *all;
}

void refuse_what_is_in_the_way(const SnapshotOptions& options) {
  if (living_loops() > 0)
    throw Error(
        Errc::refused,
        "refused: the program has a Reactor: take the snapshot before the Reactor is created, "
        "or after it is destroyed");
  if (options.preflight == Preflight::off) return;
  const PreflightReport report = preflight();
  if (!report.in_the_way()) return;
  const std::string text = report.describe();
  if (options.preflight == Preflight::strict)
    throw Error(Errc::refused, "refused: " + text + ", or use Preflight::warn");
  std::fprintf(stderr, "evparallel: %s\n", text.c_str());
}

void refuse_in_child() {
  if (role() != Role::parent)
    throw std::logic_error(
        "evparallel: a child cannot take a snapshot: take it in the program, before the child is "
        "started; run() and process() in a child fork from the snapshot of the child");
}

struct ServerArgs {
  ServerStart start{};
  const SnapshotOptions* options = nullptr;
};

Error no_shared_memory() {
  return system_error(Errc::spawn_failed, "spawn failed: there is no memory to share with children",
                      ENOMEM);
}

// Returns 0 or an errno.
int prepared() noexcept {
  try {
    prepare_child_main();
    return 0;
  } catch (const std::bad_alloc&) {
    return ENOMEM;
  }
}

[[gnu::noinline]] void begin_to_serve(ServerArgs& args) {
  ProcessTitle title;
  set_snapshot_title(title, args.options->name);
  args.start.unprepared = prepared();
  add_to_oom_score(args.options->oom_score_adj);
  serve(std::move(args.start));
}

// Runs in the snapshot.  All later stack frames are on a fresh page, so that a child writes to one
// page of the stack and not, by chance, to two.
void become_server(void* argument) {
  ServerArgs& args = *static_cast<ServerArgs*>(argument);
  close_registered_except({args.start.control.get(), args.start.rendezvous.get(),
                           args.start.rendezvous_child.get(), args.start.program.descriptor()});
  set_role(Role::snapshot);
  const auto page = static_cast<std::uintptr_t>(::getpagesize());
  const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
  auto* const rest = static_cast<volatile char*>(::alloca(here % page + 1));
  *rest = 0;  // allocates the page
  begin_to_serve(args);
}

}  // namespace

// ---- taking a snapshot ----

namespace {

constexpr unsigned most_replicas = 4096;

}  // namespace

std::shared_ptr<Replicas> Replicas::take(const SnapshotOptions& options) {
  refuse_in_child();
  if (options.replicas == 0)
    throw std::logic_error("evparallel: SnapshotOptions::replicas is 0, and the minimum is 1");
  if (options.replicas > most_replicas)
    throw std::logic_error("evparallel: SnapshotOptions::replicas is " +
                           std::to_string(options.replicas) + ", and the maximum is " +
                           std::to_string(most_replicas));
  if (options.spares > Spares::most)
    throw std::logic_error("evparallel: SnapshotOptions::spares is " +
                           std::to_string(options.spares) + ", and the maximum is " +
                           std::to_string(Spares::most));
  prepare_for_no_memory();
  SnapshotProcess::reap_abandoned();
  open_missing_standard_descriptors();
  refuse_what_is_in_the_way(options);
  const auto shared = std::make_shared<SnapshotShared>();
  shared->name = options.name;
  const unsigned processes = options.replicas + (options.standby ? 1 : 0);
  shared->replicas = processes;
  shared->seed = options.seed ? *options.seed : fresh_seed();
  shared->cancel_table = CancelTable::map();
  if (!shared->cancel_table) throw no_shared_memory();
  shared->modules = modules_now();
  shared->out_of_memory.watch();
  std::shared_ptr<Replicas> replicas(new Replicas(shared));
  replicas->spares_ = options.spares;
  if (options.freeze)
    for (auto& one : SnapshotProcess::take_frozen(shared, options)) replicas->add(std::move(one));
  for (std::size_t i = replicas->places_.size(); i < processes; ++i)
    replicas->add(SnapshotProcess::take(shared, options));
  replicas->standby_ = options.standby;
  for (std::size_t i = 0; options.spares > 0 && i < replicas->active(); ++i)
    replicas->places_[i].process->keep_spares(options.spares);
  replicas->publish();
  return replicas;
}

std::shared_ptr<SnapshotProcess> SnapshotProcess::take(std::shared_ptr<SnapshotShared> shared,
                                                       const SnapshotOptions& options) {
  std::shared_ptr<SnapshotProcess> entry(new SnapshotProcess(std::move(shared)));
  entry->fork_server(options);
  entry->wait_until_serving();
  return entry;
}

void SnapshotProcess::map_own_slots() {
  rendezvous_->slots = map_slots();
  if (!rendezvous_->slots) throw no_shared_memory();
}

void SnapshotProcess::fork_server(const SnapshotOptions& options) {
  ServerArgs args;
  args.options = &options;
  ServerStart& start = args.start;
  OwnedFd ours;
  int error = make_pair(PairKind::packets, ours, start.control);
  if (error == 0) error = make_rendezvous(start.rendezvous, start.rendezvous_child);
  if (error == 0) {
    rendezvous_->socket = DupFd(open_copy(start.rendezvous_child.get()));
    error = rendezvous_->socket ? 0 : errno;
  }
  if (error != 0)
    throw system_error(Errc::spawn_failed,
                       "spawn failed: the socket pairs for a snapshot could not be created", error);
  if (!rendezvous_->slots) map_own_slots();
  start.slots = rendezvous_->slots;
  start.cancel_table = shared_->cancel_table;
  start.modules = shared_->modules;
  start.program = Program::here();
  start.freeze = options.freeze;
  start.siblings = shared_->replicas - 1;
  start.child_main = &child_main;
  const Forked forked = fork_clean(become_server, &args);
  // The snapshot's now; a second holder would hide the end of the snapshot.
  start.control.close();
  start.rendezvous.close();
  start.rendezvous_child.close();
  if (forked.pid < 0)
    throw system_error(Errc::spawn_failed, "spawn failed: a snapshot could not be forked",
                       forked.error);
  adopt(forked.pid, std::move(ours));
}

void SnapshotProcess::adopt(pid_t pid, OwnedFd ours) {
  make_group(pid);
  rendezvous_->set_pid(pid);
  client_ = ControlClient(std::move(ours));
  fault_at(Failpoint::control_socket, client_.fd());
  state_ = State::connected;
}

std::shared_ptr<Replicas> Replicas::choose(const Snapshot* chosen,
                                           const std::shared_ptr<Loop>& loop) {
  return chosen_one(chosen)->for_loop(loop);
}

std::shared_ptr<Replicas> Replicas::chosen_one(const Snapshot* chosen) {
  if (chosen && chosen->replicas() && chosen->replicas()->is_at_home()) return chosen->replicas();
  const SnapshotsLock lock;
  use_inheritance();
  if (registry().of_child) return registry().of_child;
  if (chosen && chosen->replicas()) throw chosen->replicas()->another_process_has_it();
  if (chosen)
    throw Error(
        Errc::no_snapshot,
        "no snapshot: the Snapshot that Options::snapshot names is empty, since it was moved "
        "from: name the one that it was moved to");
  if (!registry().default_snapshot)
    throw Error(
        Errc::no_snapshot,
        "no snapshot: call evparallel::init() in main(), before the first Reactor and before "
        "threads start, or name a Snapshot in Options::snapshot");
  const std::shared_ptr<Replicas>& replicas = registry().default_snapshot->replicas();
  if (!replicas->is_at_home()) throw replicas->another_process_has_it();
  return replicas;
}

void Replicas::use_inheritance() {
  Inheritance* const inheritance = take_inheritance();
  if (!inheritance) return;
  const std::shared_ptr<SnapshotProcess> entry = SnapshotProcess::of_child(*inheritance);
  std::shared_ptr<Replicas> replicas(new Replicas(entry->shared()));
  replicas->add(entry);
  replicas->publish();
  registry().default_snapshot.reset(new Snapshot(replicas));
  registry().of_child = std::move(replicas);
}

std::shared_ptr<SnapshotProcess> SnapshotProcess::of_child(Inheritance& inheritance) {
  const auto shared = std::make_shared<SnapshotShared>();
  shared->home =
      inheritance
          .child;  // the first call may come from a copy of the child, which is not the owner
  shared->cancel_table = inheritance.cancel_table;
  shared->modules = *inheritance.modules;
  shared->seed = child_seed();
  std::shared_ptr<SnapshotProcess> entry(new SnapshotProcess(shared));
  entry->home_ = inheritance.child;
  entry->rendezvous_->set_pid(inheritance.snapshot);
  entry->rendezvous_->slots = inheritance.slots;
  entry->rendezvous_->socket = DupFd(std::move(inheritance.rendezvous));
  return entry;
}

// ---- the handles ----

Snapshot::Snapshot(const SnapshotOptions& options) : replicas_(Replicas::take(options)) {}
Snapshot::Snapshot(std::shared_ptr<Replicas> replicas) noexcept : replicas_(std::move(replicas)) {}
Snapshot::Snapshot(Snapshot&&) noexcept = default;
Snapshot& Snapshot::operator=(Snapshot&& other) noexcept {
  if (this != &other) {
    stop();
    replicas_ = std::move(other.replicas_);
  }
  return *this;
}
Snapshot::~Snapshot() {
  stop();
}

pid_t Snapshot::pid() const {
  return replicas_ ? replicas_->pid() : 0;
}
std::vector<pid_t> Snapshot::pids() const {
  return replicas_ ? replicas_->pids() : std::vector<pid_t>{};
}
bool Snapshot::alive() const {
  return replicas_ && replicas_->alive();
}
std::uint64_t Snapshot::orphans_killed() const {
  return replicas_ ? replicas_->orphans() : 0;
}
std::uint64_t Snapshot::frozen_bytes() const noexcept {
  return replicas_ ? replicas_->frozen() : 0;
}
void Snapshot::stop() noexcept {
  if (replicas_) replicas_->stop();
}
namespace {

std::shared_ptr<Replicas> clone_of(const std::shared_ptr<Replicas>& replicas,
                                   const std::string* name) {
  if (role() != Role::parent)
    throw std::logic_error(
        "evparallel: a child cannot clone a snapshot: clone it in the program; run() and process() "
        "in a child fork from the snapshot of the child");
  if (!replicas)
    throw Error(Errc::no_snapshot,
                "no snapshot: clone() of a Snapshot that is empty, since it was moved from: clone "
                "the one that it was moved to");
  return replicas->clone(name);
}

}  // namespace

Snapshot Snapshot::clone() {
  return Snapshot(clone_of(replicas_, nullptr));
}
Snapshot Snapshot::clone(const std::string& name) {
  return Snapshot(clone_of(replicas_, &name));
}
void Snapshot::on_lost(Callback<void(const ExitStatus&)> callback) {
  if (replicas_) replicas_->on_lost(std::move(callback));
}

namespace {

// The default snapshot of this process; null: none was taken.
Snapshot* taken_default() {
  const SnapshotsLock lock;
  Replicas::use_inheritance();
  Snapshot* const taken = registry().default_snapshot.get();
  return taken && taken->replicas()->is_at_home() ? taken : nullptr;
}

// Returns false if another thread has taken one meanwhile.
bool take_default(const SnapshotOptions& options) {
  auto made = std::make_shared<Snapshot>(options);
  const SnapshotsLock lock;
  std::shared_ptr<Snapshot>& taken = registry().default_snapshot;
  if (taken && taken->replicas()->is_at_home()) return false;
  taken = std::move(made);
  return true;
}

}  // namespace

void init(const SnapshotOptions& options) {
  refuse_in_child();
  if (taken_default() || !take_default(options))
    throw std::logic_error(
        "evparallel: init() has already been called: call it once, and construct a Snapshot for "
        "each further one");
}

Snapshot& default_or_init(const SnapshotOptions& options) {
  if (!taken_default()) {
    refuse_in_child();
    take_default(options);
  }
  return *taken_default();
}

Snapshot& default_snapshot() {
  const SnapshotsLock lock;
  Replicas::use_inheritance();
  if (!registry().default_snapshot)
    throw Error(
        Errc::no_snapshot,
        "no snapshot: call evparallel::init() in main(), before the first Reactor and before "
        "threads start");
  return *registry().default_snapshot;
}

bool in_child() noexcept {
  return role() == Role::child;
}

}  // namespace evparallel
