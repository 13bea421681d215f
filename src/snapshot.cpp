// snapshot.cpp - taking a snapshot: which one is meant, what is in its way, and its fork.
// Licence: see COPYING.
#include <evparallel/snapshot.hpp>

#include "child.hpp"
#include "fault.hpp"
#include "titles.hpp"
#include "snapshot_entry.hpp"

#include <cerrno>
#include <cstdio>
#include <stdexcept>

namespace evparallel {

namespace {

// In static storage without a destructor: they must be there for whatever is destroyed last.
struct Registry {
  std::shared_ptr<Snapshot> default_snapshot;
  std::shared_ptr<SnapshotEntry> of_child;  // in a child: the snapshot that forked it
};

Registry& registry() {
  static auto* all = new Registry;
  return *all;
}

void refuse_what_is_in_the_way(const SnapshotOptions& options) {
  if (living_loops() > 0)
    throw Error(Errc::refused,
                "refused: a snapshot must be taken before the first Reactor is made");
  if (options.preflight == Preflight::off) return;
  const PreflightReport report = preflight();
  if (!report.in_the_way()) return;
  const std::string text =
      "a snapshot taken now would share this with the program: " + report.describe();
  if (options.preflight == Preflight::strict) throw Error(Errc::refused, "refused: " + text);
  std::fprintf(stderr, "evparallel: %s\n", text.c_str());
}

struct Birth {
  ServerStart start{};
  const SnapshotOptions* options = nullptr;
};

// In the copy.
void become_server(void* argument) {
  Birth& birth = *static_cast<Birth*>(argument);
  close_registered_except(birth.start.control.get(), -1);
  set_role(Role::snapshot);
  Title title;
  name_snapshot(title, birth.options->name);
  add_to_oom_score(birth.options->oom_score_adj);
  serve(std::move(birth.start));
}

}  // namespace

// ---- taking one ----

std::shared_ptr<SnapshotEntry> SnapshotEntry::take(const SnapshotOptions& options) {
  if (role() != Role::parent) throw std::logic_error("evparallel: a child cannot take a snapshot");
  reap_abandoned();
  open_missing_standard_descriptors();
  refuse_what_is_in_the_way(options);
  std::shared_ptr<SnapshotEntry> entry(new SnapshotEntry);
  entry->name_ = options.name;
  entry->seed_ = options.seed ? *options.seed : fresh_seed();
  entry->fork_server(options);
  return entry;
}

void SnapshotEntry::fork_server(const SnapshotOptions& options) {
  Birth birth;
  birth.options = &options;
  ServerStart& start = birth.start;
  Descriptor ours;
  if (const int error = make_pair(PairKind::packets, ours, start.control))
    throw system_error(Errc::spawn_failed, "spawn failed: no socket pair for a snapshot", error);
  slots_ = map_slots();
  notes_ = Notes::map();
  if (!slots_ || !notes_)
    throw system_error(Errc::spawn_failed, "spawn failed: no memory to share with children",
                       ENOMEM);
  modules_ = modules_now();
  start.slots = slots_;
  start.notes = notes_;
  start.modules = modules_;
  start.parent = home_.pid;
  start.live = &live;
  out_of_memory_.watch();
  const Forked forked = fork_clean(become_server, &birth);
  start.control.drop();  // the snapshot's now; a second holder would hide its end
  if (forked.pid < 0)
    throw system_error(Errc::spawn_failed, "spawn failed: fork of a snapshot", forked.error);
  make_group(forked.pid);
  pid_ = forked.pid;
  client_ = Client(std::move(ours));
  faults.control = client_.fd();
  state_ = State::connected;
}

std::shared_ptr<SnapshotEntry> SnapshotEntry::choose(const Snapshot* chosen) {
  if (chosen && chosen->entry() && chosen->entry()->is_at_home()) return chosen->entry();
  if (registry().of_child) return registry().of_child;
  if (chosen && chosen->entry()) throw chosen->entry()->another_process_has_it();
  if (chosen) throw Error(Errc::no_snapshot, "no snapshot: the handle that was named is empty");
  if (!registry().default_snapshot)
    throw Error(Errc::no_snapshot,
                "no snapshot: call evparallel::init() first, or name one in Options::snapshot");
  const std::shared_ptr<SnapshotEntry>& entry = registry().default_snapshot->entry();
  if (!entry->is_at_home()) throw entry->another_process_has_it();
  return entry;
}

Error SnapshotEntry::another_process_has_it() const {
  return Error(Errc::no_snapshot,
               "no snapshot: it was taken by process " + std::to_string(home_.pid) +
                   " and this is " + std::to_string(Home::here().pid) +
                   "; a program that daemonises or forks by itself must take it afterwards");
}

void SnapshotEntry::become_child(const Spawn& spawn, Descriptor door) {
  std::shared_ptr<SnapshotEntry> entry(new SnapshotEntry);
  entry->pid_ = spawn.snapshot;
  entry->slots_ = spawn.slots;
  entry->notes_ = spawn.notes;
  entry->modules_ = spawn.modules;
  entry->door_ = std::move(door);
  registry().default_snapshot.reset(new Snapshot(entry));
  registry().of_child = std::move(entry);
}

// ---- the handles ----

Snapshot::Snapshot(const SnapshotOptions& options) : entry_(SnapshotEntry::take(options)) {}
Snapshot::Snapshot(std::shared_ptr<SnapshotEntry> entry) noexcept : entry_(std::move(entry)) {}
Snapshot::Snapshot(Snapshot&&) noexcept = default;
Snapshot& Snapshot::operator=(Snapshot&& other) noexcept {
  if (this != &other) {
    stop();
    entry_ = std::move(other.entry_);
  }
  return *this;
}
Snapshot::~Snapshot() {
  stop();
}

pid_t Snapshot::pid() const noexcept {
  return entry_ ? entry_->pid() : 0;
}
bool Snapshot::alive() const noexcept {
  return entry_ && entry_->alive();
}
void Snapshot::stop() noexcept {
  if (entry_) entry_->stop();
}

void init(const SnapshotOptions& options) {
  const Snapshot* taken = registry().default_snapshot.get();
  if (taken && taken->entry()->is_at_home())
    throw std::logic_error("evparallel: init() was called already");
  registry().default_snapshot = std::make_shared<Snapshot>(options);
}

Snapshot& default_snapshot() {
  if (!registry().default_snapshot)
    throw Error(Errc::no_snapshot, "no snapshot: call evparallel::init() first");
  return *registry().default_snapshot;
}

bool in_child() noexcept {
  return role() == Role::child;
}

}  // namespace evparallel
