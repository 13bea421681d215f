// stage.cpp - the program of a cell: the calls that it makes, and the results that it reports.
#include "stage.hpp"

#include "process.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>

namespace cell {

using testing::eventually;

namespace {

// Larger than the capacity of a socket.
constexpr std::size_t large = std::size_t{1} << 20;
// Short, so that cells are short; if the order matters, both orders are right.
constexpr std::chrono::milliseconds linger(60);
constexpr std::chrono::milliseconds grace(60);

// Set before the snapshot is taken: every process of the cell has these values.
Cell now;
Page* page = nullptr;
int said = -1;
int wake[2] = {-1, -1};  // wakes the program when the child is the caller
// Set in the program only.
pid_t snapshot = 0;
par::Snapshot* snapshot_handle = nullptr;
int losses = 0;  // of replicas

void say(Who who, Said what, int index = 0, int a = 0, int b = 0, bool wrong = false) {
  const Record record{what, who, index, a, b, wrong};
  if (::write(said, &record, sizeof record) != sizeof record) ::_exit(98);
}

void activate_trigger() {
  page->trigger.active = true;
}
bool is_done() {
  return page->trigger.done_by != 0;
}

// The open descriptors of a process except files, which the library does not open, but valgrind does.  Descriptors
// above the limit belong to valgrind, too.
std::size_t descriptors_of(pid_t pid) {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  const std::string folder = "/proc/" + std::to_string(pid) + "/fd/";
  std::size_t count = 0;
  for (const auto& [number, target] : testing::descriptors_of(pid)) {
    struct stat what {};
    const bool is_open = ::stat((folder + std::to_string(number)).c_str(), &what) == 0;
    count += is_open && (what.st_mode & S_IFMT) != S_IFREG && (what.st_mode & S_IFMT) != S_IFDIR &&
             static_cast<rlim_t>(number) < limit.rlim_cur;
  }
  return count;
}

par::Options child_options() {
  par::Options options;
  if (!par::in_child()) options.snapshot = snapshot_handle;
  options.linger = linger;
  options.grace = grace;
  return options;
}

struct Parcel {
  int index = 0;
  bool held = false;       // waits for `go` in the task
  bool script = false;     // plays the script of a caller
  Who who = Who::program;  // the process that made the call
  std::size_t answer = 0;  // size of the answer
  std::string bulk{};
};

std::string bulk_of(int index, std::size_t size) {
  return std::string(size, static_cast<char>('a' + index % 26));
}
bool is_right(const Parcel& parcel, std::size_t size) {
  return parcel.bulk == bulk_of(parcel.index, size);
}
Parcel work(const Parcel&);

void on_encode() {
  par::fault_at(Failpoint::encode);
  if (par::in_child()) ++page->encoded;
}

}  // namespace

}  // namespace cell

// The failpoints in the code of a program.
template <>
struct evparallel::Io<cell::Parcel> {
  static void put(Writer& out, const cell::Parcel& parcel) {
    cell::on_encode();
    const Head head{parcel.index, parcel.held, parcel.script, parcel.answer, parcel.who};
    out.write(&head, sizeof head);
    out.write(parcel.bulk);
  }
  static cell::Parcel get(Reader& in) {
    fault_at(Failpoint::decode);
    Head head;
    in.read(&head, sizeof head);
    cell::Parcel parcel{head.index, head.held != 0, head.script != 0, head.who, head.answer};
    parcel.bulk = in.read(in.remaining());
    return parcel;
  }

private:
  struct Head {
    std::int32_t index;
    std::int16_t held;
    std::int16_t script;
    std::uint64_t answer;
    cell::Who who;
    std::int32_t none = 0;
  };
};

namespace cell {

namespace {

// ---- the script of a caller, in any process -------------------------------------------------------

constexpr int calls_at_most = 200;  // in one moment

class Script {
public:
  Script(par::Reactor& reactor, const par::Options& options, Who who)
      : reactor_(reactor), options_(options), who_(who), hold_(reactor.hold()) {}
  virtual ~Script() = default;
  void play();

protected:
  virtual void start() = 0;  // asks for the child
  virtual bool is_born() const = 0;
  virtual void send(Parcel) = 0;
  virtual void close() = 0;
  virtual bool is_settled() const = 0;  // all calls that were sent are completed

  void settle(int line = __builtin_LINE()) {
    loop_until([&] { return is_settled(); }, line);
  }
  template <class F>
  void loop_until(F condition, int line = __builtin_LINE()) {
    const auto turn = [&] { reactor_.run_for(std::chrono::milliseconds(1)); };
    if (!testing::wait_until(condition, turn, __FILE__, line))
      say(who_, Said::waited_in_vain, line);
  }

  par::Reactor& reactor_;
  par::Options options_;
  Who who_;
  int pending_ = 0;

private:
  bool wants(Moment);
  bool target_calls() const { return now.target == caller_of(now.use); }
  bool target_works() const { return now.target == worker_of(now.use); }
  void begin();
  void disturb(Moment);
  void disturb_at_work(Moment);
  void disturb_at_draining();
  void send_large();
  void send_held(int count, std::size_t answer);

  par::Hold hold_;  // run_for() waits even if nothing is pending
  par::Timer bell_;
  int base_ = 0;
};

void Script::play() {
  begin();
  start();
  // With spares the fault hits the request for the next spare, which the library makes by itself, while this process
  // still waits for it.
  if (now.spares > 0 && now.moment == Moment::after_request && target_calls()) loop_until(is_done);
  if (wants(Moment::before_first_message)) {
    loop_until([&] { return is_born() || is_done(); });
    disturb(Moment::before_first_message);
  }
  send({first_call});
  settle();
  if (wants(Moment::mid_message)) {
    send_large();
    disturb(Moment::mid_message);
    settle();
  }
  if (wants(Moment::between_messages)) {
    disturb(Moment::between_messages);
    send({base_ + 1});
    settle();
  }
  for (const Moment moment : {Moment::one_pending, Moment::hundred_pending}) {
    if (!wants(moment)) continue;
    send_held(moment == Moment::one_pending ? 1 : 100, 0);
    disturb_at_work(moment);
    settle();
  }
  if (wants(Moment::draining)) {
    send_held(3, large);
    close();
    disturb_at_draining();
    settle();
  }
}

bool Script::wants(Moment moment) {
  if (now.moment != Moment::at_failpoint) return now.moment == moment;
  base_ += calls_at_most;  // each moment has its own numbers
  return true;
}

// A fault that a child triggers by itself is prepared before the child exists.
void Script::begin() {
  const bool by_itself =
      now.moment == Moment::before_first_message || now.moment == Moment::between_messages;
  if (now.moment == Moment::after_request || (target_works() && by_itself)) activate_trigger();
  disturb(Moment::before_request);
}

// Triggers the fault.  A target that does not call has acted when this returns, except for a child that is draining,
// which needs a reader.
void Script::disturb(Moment moment) {
  if (now.moment == moment) {
    activate_trigger();
    // These two processes wait; a wake-up has no further effect on them.
    if (now.target == Target::snapshot) ::kill(par::in_child() ? ::getppid() : snapshot, SIGCONT);
    if (now.use == Use::nested && now.target == Target::parent && ::write(wake[1], "", 1) != 1)
      ::_exit(97);
    if (target_works()) page->go = true;
    const bool by_itself = target_calls() || (target_works() && moment == Moment::draining);
    if (!by_itself && !eventually([] { return has_happened(now, *page); }))
      say(who_, Said::waited_in_vain, __LINE__);
  }
  page->go = true;
}

void Script::disturb_at_work(Moment moment) {
  eventually([] { return page->begun > 0 || is_done(); });
  if (now.moment != moment || !target_calls()) return disturb(moment);
  // The caller's own end comes in a callback, while the call waits.
  activate_trigger();
  bell_ = reactor_.after(std::chrono::milliseconds(0), [] {
    par::fault_at(Failpoint::callback);
    page->go = true;
  });
}

// The answers fill the socket, and nobody reads them yet.
void Script::disturb_at_draining() {
  eventually([] { return page->begun > 0 || is_done(); });
  if (!target_calls() && !target_works()) {
    page->go = true;
    eventually([] { return page->encoded > 0 || is_done(); });
  }
  disturb(Moment::draining);
}

// If neither end stops in the middle of the message by itself, the child executes another call meanwhile.
void Script::send_large() {
  const bool by_itself = target_calls() || target_works();
  if (now.moment == Moment::mid_message && by_itself) activate_trigger();
  if (now.moment == Moment::mid_message && !by_itself) {
    send_held(1, 0);
    eventually([] { return page->begun > 0; });
  }
  Parcel parcel{base_ + 2};
  parcel.bulk.assign(large, 'x');
  send(std::move(parcel));
}

void Script::send_held(int count, std::size_t answer) {
  page->begun = 0;
  page->encoded = 0;
  page->go = false;
  if (answer > 0 && now.moment == Moment::draining && target_works()) activate_trigger();
  for (int i = 1; i <= count; ++i) send({base_ + i, true, false, Who::program, answer});
}

// ---- a remote function ----------------------------------------------------------------------------

class RunScript final : public Script {
public:
  using Script::Script;

  // The program's part of a nested use; the rest is done by the child.
  void play_outer() {
    start();
    par::Watch reported = reactor_.on_readable(wake[0], [] {
      char byte;
      if (::read(wake[0], &byte, 1) != 1) ::_exit(96);
      par::fault_at(Failpoint::callback);
    });
    send({first_call, false, true});
    settle();
  }

  // A living snapshot then provides a child for this call; without one the call gets an error.
  void play_last(int index = last_call) {
    if (!remote_ || closed_) start();
    send({index});
    settle();
  }

  // If one replica is known to be lost, the other one provides the child.
  void play_spare() {
    const bool one_is_lost = now.target == Target::snapshot && now.moment != Moment::at_failpoint;
    if (one_is_lost) loop_until([] { return losses > 0; });
    play_last(spare_call);
    say(who_, Said::losses, 0, losses);
  }

private:
  void start() override {
    remote_ = par::run(reactor_, work, options_);
    closed_ = false;
  }
  bool is_born() const override { return remote_.pid() != 0; }
  bool is_settled() const override { return pending_ == 0; }
  void close() override {
    remote_.close();
    closed_ = true;
  }

  void send(Parcel parcel) override {
    const int index = parcel.index;
    const std::size_t size = parcel.answer;
    parcel.who = who_;
    ++pending_;
    say(who_, Said::accepted, index);
    remote_(std::move(parcel), [this, index, size](par::Result<Parcel> r) {
      par::fault_at(Failpoint::callback);
      if (--pending_ == 0) reactor_.stop();
      if (r) return say(who_, Said::answer, index, 0, 0, r->index != index || !is_right(*r, size));
      say(who_, Said::answer, index, static_cast<int>(r.error().code()),
          static_cast<int>(r.error().delivery()));
    });
  }

  par::Remote<Parcel(Parcel)> remote_;
  bool closed_ = false;
};

// A call may contain the script of a nested use.
Parcel work(const Parcel& in) {
  ++page->worked[static_cast<int>(in.who)][in.index];
  if (in.script) {
    RunScript script(par::this_reactor(), child_options(), Who::child);
    script.play();
    if (now.target != Target::snapshot) script.play_last();
    say(Who::child, Said::finished);
  }
  if (in.held) {
    ++page->begun;
    eventually([] { return page->go.load(); });
  }
  par::fault_at(Failpoint::call);
  Parcel out{in.index};
  out.bulk = bulk_of(in.index, in.answer);
  return out;
}

// ---- a process ------------------------------------------------------------------------------------

void echo(par::Pipe<Parcel, Parcel> pipe) {
  pipe.on_message([pipe](const Parcel& in) { pipe.send(work(in)); });
}

class ProcessScript final : public Script {
public:
  using Script::Script;

  void play_end() {
    process_.close();
    loop_until([&] { return over_; });
  }

private:
  void start() override {
    process_ = par::process(reactor_, echo, options_);
    process_.on_message([this](const Parcel& in) {
      par::fault_at(Failpoint::callback);
      say(who_, Said::message, in.index, 0, 0, !is_right(in, in.bulk.empty() ? 0 : large));
      if (--pending_ == 0) reactor_.stop();
    });
    process_.on_error(
        [this](const par::Error& e) { say(who_, Said::error, 0, static_cast<int>(e.code())); });
    process_.on_end([this] { say(who_, Said::end); });
    process_.on_exit([this](const par::ExitStatus& status) {
      say(who_, Said::exit, 0, static_cast<int>(status.cause), status.wait_status);
      over_ = true;
      reactor_.stop();
    });
  }
  bool is_born() const override { return process_.pid() != 0 || over_; }
  bool is_settled() const override { return pending_ == 0 || over_; }
  void close() override { process_.close(); }

  void send(Parcel parcel) override {
    ++pending_;
    say(who_, Said::accepted, parcel.index);
    process_.send(parcel);
  }

  par::Process<Parcel, Parcel> process_;
  bool over_ = false;
};

// ---- the program ----------------------------------------------------------------------------------

struct Place {
  Failpoint failpoint;
  std::uint64_t hit;
};

// The failpoints at which a caller, or a callee, triggers the fault by itself.
Place place_in_caller(Moment moment) {
  switch (moment) {
    case Moment::before_request: return {Failpoint::run, 1};
    case Moment::after_request: return {Failpoint::sent, 1};
    case Moment::mid_message: return {Failpoint::write, 2};  // a part was sent
    case Moment::one_pending:
    case Moment::hundred_pending: return {Failpoint::callback, 1};
    case Moment::draining: return {Failpoint::read, 1};
    default: return {Failpoint::put, 1};
  }
}

Place place_in_worker(Moment moment) {
  switch (moment) {
    case Moment::after_request: return {Failpoint::child_main, 1};
    case Moment::before_first_message: return {Failpoint::task, 1};
    case Moment::mid_message: return {Failpoint::read, 2};  // a part was received
    case Moment::between_messages: return {Failpoint::written, 1};
    case Moment::draining: return {Failpoint::write, 2};  // a part, or one of the answers, was sent
    default: return {Failpoint::call, 1};
  }
}

Place place_of(const Cell& cell) {
  if (cell.moment == Moment::at_failpoint) return {cell.failpoint, cell.hit};
  if (cell.target == caller_of(cell.use)) return place_in_caller(cell.moment);
  if (cell.target == worker_of(cell.use)) return place_in_worker(cell.moment);
  if (cell.target == Target::parent) return {Failpoint::callback, 1};
  return {cell.moment == Moment::after_request ? Failpoint::serve : Failpoint::turn, 1};
}

failpoints::Action action_of(const Cell& cell) {
  switch (cell.action) {
    case Action::kill: return failpoints::Action::kill;
    case Action::stop_then_kill: return failpoints::Action::stop;
    case Action::exit_0: return failpoints::Action::exit_0;
    case Action::exit_3: return failpoints::Action::exit_3;
    case Action::crash: return failpoints::Action::crash;
    default: break;
  }
  const bool far = cell.target == Target::child || cell.target == Target::grandchild;
  return far ? failpoints::Action::close_data : failpoints::Action::close_control;
}

failpoints::Victim victim_of(const Cell& cell) {
  switch (cell.target) {
    case Target::parent: return failpoints::Victim::parent;
    case Target::snapshot: return failpoints::Victim::snapshot;
    default: return failpoints::Victim::child;
  }
}

void load_fault() {
  const Place place = place_of(now);
  failpoints::Fault fault;
  fault.action = action_of(now);
  fault.failpoint = place.failpoint;
  fault.victim = victim_of(now);
  fault.child = now.target == Target::grandchild ? 2 : 1;
  fault.hit = place.hit;
  fault.trigger = &page->trigger;
  failpoints::load(fault);
  if (now.moment == Moment::at_failpoint) activate_trigger();
}

void play_script() {
  par::Reactor reactor;
  if (now.use == Use::process) {
    ProcessScript script(reactor, child_options(), Who::program);
    script.play();
    script.play_end();
    RunScript(reactor, child_options(), Who::program).play_last();
  } else {
    RunScript script(reactor, child_options(), Who::program);
    now.use == Use::nested ? script.play_outer() : script.play();
    script.play_last();
  }
  if (now.replicas > 1) RunScript(reactor, child_options(), Who::program).play_spare();
}

// A snapshot has the descriptors of the program, and its own: the control socket, the signals, and two ends of the
// rendezvous socket.
constexpr std::size_t of_a_snapshot = 4;

void check_snapshot(pid_t pid, std::size_t before) {
  std::size_t after = 0;
  const std::size_t right = before + of_a_snapshot;
  if (!eventually([&] { return (after = descriptors_of(pid)) == right; }))
    say(Who::program, Said::snapshot_descriptors, 0, static_cast<int>(right),
        static_cast<int>(after));
}

// A snapshot that was given up is reaped when the next one is taken; here no other one can be taken.
void reap_snapshots() {
  par::fault::Plan plan;
  plan.victim = par::fault::Victim::parent;
  plan.fork_failures = 1;
  plan.fork_errno = EAGAIN;
  const par::fault::Armed armed(plan);
  try {
    par::Snapshot none;
  } catch (const par::Error&) {
    return;
  }
}

bool spares_wait(const par::Snapshot& taken) {
  std::size_t count = 0;
  for (const pid_t replica : taken.pids()) {
    for (const pid_t pid : testing::children_of(replica)) {
      std::ifstream file("/proc/" + std::to_string(pid) + "/comm");
      std::string name;
      count += std::getline(file, name) && name == "spare" && testing::state_of(pid) == 'S';
    }
  }
  return count == std::size_t{now.spares} * now.replicas;
}

void perform_all() {
  const std::size_t before = descriptors_of(::getpid());
  {
    par::SnapshotOptions options;
    options.replicas = now.replicas;
    options.spares = now.spares;
    par::Snapshot taken(options);
    snapshot = taken.pid();
    snapshot_handle = &taken;
    // The replica that is asked first; another replica may reach its first turn later.
    if (now.target == Target::snapshot && now.moment != Moment::at_failpoint)
      page->trigger.taken_by = snapshot;
    if (now.spares > 0) eventually([&] { return is_done() || spares_wait(taken); });
    if (now.replicas > 1) taken.on_lost([](const par::ExitStatus&) { ++losses; });
    play_script();
    const bool lives = now.target != Target::snapshot && now.target != Target::parent;
    for (const pid_t pid : taken.pids())
      if (lives) check_snapshot(pid, before);
  }
  std::size_t after = 0;
  const auto is_clean = [&] {
    reap_snapshots();
    return (after = descriptors_of(::getpid())) == before;
  };
  if (!eventually(is_clean))
    say(Who::program, Said::descriptors, 0, static_cast<int>(before), static_cast<int>(after));
}

}  // namespace

void perform(const Cell& cell, Page& shared, int to) {
  now = cell;
  page = &shared;
  said = to;
  const rlimit none{0, 0};
  ::setrlimit(RLIMIT_CORE, &none);
  if (::pipe2(wake, O_CLOEXEC | O_NONBLOCK) != 0) ::_exit(95);
  load_fault();
  try {
    perform_all();
    say(Who::program, Said::finished);
  } catch (const std::exception& e) {
    say(Who::program, Said::thrown);
    remark(name_of(cell) + ": " + e.what());
  }
  ::_exit(0);
}

// ---- state queries --------------------------------------------------------------------------------

bool has_happened(const Cell& cell, const Page& shared) {
  const pid_t pid = shared.trigger.done_by;
  if (pid == 0) return false;
  if (cell.action == Action::close) return true;
  const char state = testing::state_of(pid);
  return state == '-' || state == 'T' || state == 'Z' || state == 'X';
}

}  // namespace cell
