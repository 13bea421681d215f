// server.cpp - the snapshot, driven directly over its control socket: every request, every end.
#include "private_names.hpp"
#include "process.hpp"
#include "tcp_pair.hpp"
#include "testing.hpp"

#include "snapshot/child_table.hpp"
#include "snapshot/client_table.hpp"
#include "system/failpoint.hpp"
#include "system/fork.hpp"
#include "snapshot/server.hpp"
#include "system/socket.hpp"
#include "codec/wire.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

using namespace evparallel;
using testing::eventually;
using testing::is_ready;
using testing::process_exists;
using testing::state_of;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

namespace {

bool is_gone(pid_t pid) {
  return ::kill(pid, 0) != 0 && errno == ESRCH;
}

// The exit status of a process that is to end by itself; 1000 and more: a signal.  -1: it does not
// end.
int end_of(pid_t pid) {
  int status = 0;
  const auto ended = [&] { return ::waitpid(pid, &status, WNOHANG) == pid; };
  if (eventually(ended)) return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
  ::kill(pid, SIGKILL);
  ::waitpid(pid, nullptr, 0);
  return -1;
}

std::vector<int> descriptors_of(pid_t pid) {
  std::vector<int> numbers;
  for (const auto& [number, target] : testing::descriptors_of(pid)) numbers.push_back(number);
  return numbers;
}

// One bit for each number.
std::int64_t mask_of(const std::vector<int>& numbers) {
  std::int64_t mask = 0;
  for (const int number : numbers) mask |= number < 62 ? std::int64_t{1} << number : 0;
  return mask;
}

// ---- a child: orders of two bytes on its data socket, answers of eight bytes ----

char file_at_end[256];  // set before the server is forked; a child writes it when its socket ends

enum Order : char {
  echo = 'e',
  leave = 'x',  // _exit(value)
  ignore_term = 'i',
  exit_at_term = 't',  // _exit(value) when SIGTERM comes
  die_by = 'k',        // raise(value)
  spin = 's',          // for ever, after the answer
  burn = 'b',          // uses some processor time
  list = 'l',          // its descriptors, one bit each
  socket_number = 'S',
  door_number = 'D',
  leave_behind = 'g',         // forks a process of its group that only waits; answers its pid
  pass_door = 'd',            // sends the rendezvous socket with the answer
  connect_to_snapshot = 'c',  // 1: the snapshot has accepted its control socket, 0: refused
  connect_often = 'C',        // makes so many control sockets; answers how many are refused
  connect_as_program = 'A',   // in the name of the program; 1 if it is refused
  nested_spawn = 'n',         // forks a child of its own; answers its pid
  nested_spawns = 'N',   // forks children that end at once, and acknowledges none; answers how many
  nested_exit = 'q',     // ends that child, and answers its wait status
  nested_replica = 'r',  // asks for a replica; 1 if its control socket is dropped
  nested_junk =
      'j',  // sends a request that is too short or, with 1, too long; 1 if the control socket then ends
  write_at_end = 'w',  // writes file_at_end, some time after the end of file
  begin_call = 'B',    // 1 if it may begin the call of that number, otherwise 0
  finish_call = 'F',
};

pid_t program_pid = 0;
OwnedFd nested_control;
OwnedFd nested_data;
int status_at_term = 0;

bool connect_at(int rendezvous) {
  OwnedFd theirs;
  if (make_pair(PairKind::packets, nested_control, theirs) != 0) return false;
  const char byte = 0;
  IoResult flow;
  do flow = send_packet(rendezvous, &byte, 1, theirs.get());
  while (flow == IoResult::would_block && is_ready(rendezvous, POLLOUT));
  theirs.close();
  return flow == IoResult::done;
}

// Whether the snapshot refuses a control socket; it says nothing if it accepts one.
bool is_refused(const OwnedFd& control) {
  Report report{};
  return receive_packet(control.get(), &report, sizeof report).size == sizeof report &&
         report.kind == ReportKind::failed && report.id == no_spawn;
}

// The sockets stay open. The last one is refused, so the snapshot has seen the others by then.
std::int64_t connect_so_often(int rendezvous, int count) {
  static OwnedFd controls[256];
  std::int64_t refused = 0;
  for (int i = 0; i < count; ++i) {
    if (!connect_at(rendezvous)) return -1;
    controls[i] = std::move(nested_control);
  }
  if (!is_ready(controls[count - 1].get())) return -2;
  for (int i = 0; i < count; ++i) refused += is_refused(controls[i]);
  return refused;
}

// root may name another process as the sender.
std::int64_t connect_in_name_of(pid_t pid, int rendezvous) {
  OwnedFd theirs;
  if (make_pair(PairKind::packets, nested_control, theirs) != 0) return -1;
  const ucred name{pid, ::getuid(), ::getgid()};
  if (testing::send_along(rendezvous, {theirs.get()}, &name) != 0) return -2;
  theirs.close();
  return is_ready(nested_control.get()) && is_refused(nested_control) ? 1 : 0;
}

bool next_nested(Report& report) {
  if (!is_ready(nested_control.get())) return false;
  return receive_packet(nested_control.get(), &report, sizeof report).flow == IoResult::done;
}

// Asks for a child with this id, whose end of the data socket is nested_data.  Returns a negative number if it cannot.
std::int64_t ask_for_nested(std::uint64_t id) {
  OwnedFd theirs;
  if (make_pair(PairKind::stream, nested_data, theirs) != 0) return -1;
  Request request{};
  request.kind = RequestKind::spawn;
  request.slot = no_slot;
  request.id = id;
  const bool sent =
      send_packet(nested_control.get(), &request, sizeof request, theirs.get()) == IoResult::done;
  theirs.close();  // without the shutdown of its destructor: the child has it now
  return sent ? 0 : -2;
}

std::int64_t spawn_nested() {
  if (const std::int64_t failure = ask_for_nested(77)) return failure;
  Report report{};
  if (!next_nested(report) || report.kind != ReportKind::spawned || report.id != 77) return -3;
  return report.pid;
}

// Until one fails with EAGAIN.
std::int64_t spawn_without_end() {
  for (std::int64_t count = 0;; ++count) {
    if (const std::int64_t failure = ask_for_nested(100)) return failure;
    nested_data.close();
    Report report{};
    do
      if (!next_nested(report)) return -3;
    while (report.kind == ReportKind::exited);
    if (report.kind == ReportKind::failed) return report.code == EAGAIN ? count : -4;
  }
}

std::int64_t carry_out(char what, unsigned char value, ChildArgs& spawn) {
  switch (what) {
    case leave: ::_exit(value);
    case ignore_term: ::signal(SIGTERM, SIG_IGN); return what;
    case exit_at_term:
      status_at_term = value;
      ::signal(SIGTERM, [](int) { ::_exit(status_at_term); });
      return what;
    case die_by: ::raise(value); return what;
    case burn: {
      rusage usage{};
      do ::getrusage(RUSAGE_SELF, &usage);
      while (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec < 20000);
      return what;
    }
    case list: return mask_of(descriptors_of(::getpid()));
    case socket_number: return spawn.socket.get();
    case door_number: return spawn.rendezvous.get();
    case leave_behind: {
      const pid_t pid = ::fork();
      while (pid == 0) ::pause();
      return pid;
    }
    case connect_to_snapshot:
      if (!connect_at(spawn.rendezvous.get())) return -1;
      return what;
    case connect_often: return connect_so_often(spawn.rendezvous.get(), value);
    case connect_as_program: return connect_in_name_of(program_pid, spawn.rendezvous.get());
    case nested_spawn: return spawn_nested();
    case nested_spawns: return spawn_without_end();
    case nested_exit: {
      const char bytes[2] = {leave, static_cast<char>(value)};
      Report report{};
      if (::write(nested_data.get(), bytes, 2) != 2 || !next_nested(report)) return -1;
      return report.kind == ReportKind::exited && report.id == 77 ? report.code : -2;
    }
    case nested_replica: {
      OwnedFd ours;
      OwnedFd theirs;
      if (make_pair(PairKind::packets, ours, theirs) != 0) return -1;
      Request request{};
      request.kind = RequestKind::fork_replica;
      send_packet(nested_control.get(), &request, sizeof request, theirs.get());
      theirs.close();
      char byte;
      if (!is_ready(ours.get())) return -2;
      return receive_packet(ours.get(), &byte, 1).flow == IoResult::closed ? 1 : 0;
    }
    case nested_junk: {
      const std::string junk(value == 0 ? 4 : sizeof(Request) + 1, 1);
      if (send_packet(nested_control.get(), junk.data(), junk.size(), -1) != IoResult::done)
        return -1;
      char byte;
      if (!is_ready(nested_control.get())) return -2;
      return receive_packet(nested_control.get(), &byte, 1).flow == IoResult::closed ? 1 : 0;
    }
    case begin_call: return spawn.slot->begin(value) ? 1 : 0;
    case finish_call: spawn.slot->finish(value); return what;
    default: return what;
  }
}

void child_main(ChildArgs&& spawn) {
  const int fd = spawn.socket.get();
  bool writes = false;
  char order[2];
  while (::recv(fd, order, 2, MSG_WAITALL) == 2) {
    writes = writes || order[0] == write_at_end;
    const std::int64_t said = carry_out(order[0], static_cast<unsigned char>(order[1]), spawn);
    if (order[0] == pass_door) {
      if (send_packet(fd, &said, sizeof said, spawn.rendezvous.get()) != IoResult::done)
        ::_exit(97);
    } else if (::send(fd, &said, sizeof said, MSG_NOSIGNAL) != sizeof said) {
      break;
    }
    while (order[0] == spin) {}
  }
  if (writes) {
    ::poll(nullptr, 0, 20);  // a slow end
    const int file = ::open(file_at_end, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (::write(file, "flushed ", 8) != 8) ::_exit(96);
  }
  ::_exit(0);
}

// ---- the side of the test ----

struct Kid {
  std::uint64_t id = 0;
  pid_t pid = 0;
  std::uint32_t slot = no_slot;
  OwnedFd socket;

  void order(char what, int value = 0) const {
    const char bytes[2] = {what, static_cast<char>(value)};
    if (::send(socket.get(), bytes, 2, MSG_NOSIGNAL) != 2)
      throw std::runtime_error("the child is gone");
  }
  std::int64_t answer() const {
    std::int64_t said = 0;
    if (!is_ready(socket.get()) || ::recv(socket.get(), &said, sizeof said, 0) != sizeof said)
      throw std::runtime_error("the child does not answer");
    return said;
  }
  std::int64_t ask(char what, int value = 0) const {
    order(what, value);
    return answer();
  }
};

struct Start {
  ServerStart server;
  void (*prepare)();
};

void become_server(void* argument) {
  Start& start = *static_cast<Start*>(argument);
  close_registered_except({start.server.control.get(), start.server.rendezvous.get(),
                           start.server.rendezvous_child.get()});
  set_role(Role::snapshot);
  if (start.prepare) start.prepare();
  serve(std::move(start.server));
}

// One snapshot.
class Far {
public:
  explicit Far(void (*prepare)() = nullptr) {
    Start start;
    start.prepare = prepare;
    if (make_pair(PairKind::packets, control, start.server.control) != 0)
      throw std::runtime_error("no socket pair");
    if (make_rendezvous(start.server.rendezvous, start.server.rendezvous_child) != 0)
      throw std::runtime_error("no rendezvous socket");
    slots = map_slots();
    start.server.slots = slots;
    start.server.cancel_table = CancelTable::map();
    start.server.program = Program::here();
    program_pid = ::getpid();
    start.server.child_main = &child_main;
    const Forked forked = fork_clean(&become_server, &start);
    start.server.control.close();
    start.server.rendezvous.close();
    start.server.rendezvous_child.close();
    if (forked.pid < 0) throw std::runtime_error("no fork");
    make_group(forked.pid);
    pid = forked.pid;
    if (next().kind != ReportKind::begun) throw std::runtime_error("the snapshot has not begun");
  }
  // A replica that `living` forks; its start is sent as `start` says.
  enum class Sent { all, no_slots, nothing };
  Far(Far& living, Sent sent) {
    OwnedFd theirs;
    OwnedFd file;
    if (make_pair(PairKind::packets, control, theirs) != 0 || make_slots(file) != 0)
      throw std::runtime_error("no socket pair or no slots");
    slots = map_slots_of(file.get());
    OwnedFd served;
    OwnedFd sender;
    if (make_rendezvous(served, sender) != 0) throw std::runtime_error("no rendezvous socket");
    const ReplicaStart start{};
    const int along[] = {file.get(), served.get(), sender.get()};
    if (sent != Sent::nothing)
      send_packet(control.get(), &start, sizeof start, along, sent == Sent::all ? 3 : 0);
    served.close();
    sender.close();
    Request request{};
    request.kind = RequestKind::fork_replica;
    if (!living.send(request, theirs.get())) throw std::runtime_error("it takes no request");
    theirs.close();
    for (int i = 0; i < 2; ++i) {
      const Report report = next();
      if (report.kind == ReportKind::begun) begun = report;
      if (report.kind == ReportKind::replica_forked) birth = report;
    }
    pid = birth.pid;
  }
  // Another Reactor of the program that `snapshot` belongs to.
  Far(const Far& snapshot, const OwnedFd& door) : slots(snapshot.slots) {
    OwnedFd theirs;
    if (make_pair(PairKind::packets, control, theirs) != 0 ||
        send_packet(door.get(), "k", 1, theirs.get()) != IoResult::done)
      throw std::runtime_error("no connection");
    theirs.close();
  }
  Far(const Far&) = delete;
  Far& operator=(const Far&) = delete;
  ~Far() {
    control.reset();
    if (pid != 0) end();
  }

  void suspend() const {
    ::kill(pid, SIGSTOP);
    BOOST_REQUIRE(eventually([this] { return state_of(pid) == 'T'; }));
  }
  void wake() const { ::kill(pid, SIGCONT); }
  bool send(Request request, int along = -1) {
    request.seen = seen;
    IoResult flow;
    while ((flow = send_packet(control.get(), &request, sizeof request, along)) ==
           IoResult::would_block)
      if (!is_ready(control.get(), POLLOUT)) return false;
    return flow == IoResult::done;
  }
  // Asks for a child, and does not wait for the report of its start.
  Kid ask_for_child() {
    Kid kid;
    kid.id = ++last_id;
    OwnedFd theirs;
    if (make_pair(PairKind::stream, kid.socket, theirs) != 0)
      throw std::runtime_error("no socket pair");
    Request request{};
    request.kind = RequestKind::spawn;
    request.slot = no_slot;
    request.id = kid.id;
    if (!send(request, theirs.get())) throw std::runtime_error("the snapshot takes no request");
    theirs.close();
    return kid;
  }
  Kid spawn() {
    Kid kid = ask_for_child();
    const Report report = next();
    if (report.kind != ReportKind::spawned || report.id != kid.id)
      throw std::runtime_error("no child was spawned");
    kid.pid = report.pid;
    kid.slot = report.slot;
    return kid;
  }
  void direct(RequestKind kind, const Kid& kid, int signum, std::int64_t linger_ms = 0,
              std::int64_t grace_ms = 0) {
    Request request{};
    request.kind = kind;
    request.slot = kid.slot;
    request.id = kid.id;
    request.signum = signum;
    request.linger_ms = linger_ms;
    request.grace_ms = grace_ms;
    request.cause = static_cast<std::int32_t>(Cause::terminated);
    if (!send(request)) throw std::runtime_error("the snapshot takes no request");
  }
  // For call 0 the ping is compared.
  void kill_if_still_running(const Kid& kid, Cause cause, std::uint64_t call, std::uint64_t ping,
                             std::int64_t linger_ms, std::int64_t grace_ms = 60000) {
    Request request{};
    request.kind = RequestKind::kill_if_still_running;
    request.slot = kid.slot;
    request.id = kid.id;
    request.linger_ms = linger_ms;
    request.grace_ms = grace_ms;
    request.cause = static_cast<std::int32_t>(cause);
    request.call = call;
    request.ping = ping;
    if (!send(request)) throw std::runtime_error("the snapshot takes no request");
  }
  void kill(const Kid& kid, int signum) { direct(RequestKind::kill, kid, signum); }
  void stop(RequestKind how = RequestKind::stop) { direct(how, Kid{}, 0); }

  Report next() {
    Report report{};
    if (!is_ready(control.get())) throw std::runtime_error("the snapshot says nothing");
    const Packet packet = receive_packet(control.get(), &report, sizeof report);
    if (packet.flow != IoResult::done || packet.size != sizeof report)
      throw std::runtime_error("no report");
    if (report.kind == ReportKind::exited) ++exits;
    return report;
  }
  bool says_nothing() {
    Report report{};
    return receive_packet(control.get(), &report, sizeof report).flow == IoResult::would_block;
  }
  bool is_over() {
    Report report{};
    return is_ready(control.get()) &&
           receive_packet(control.get(), &report, sizeof report).flow == IoResult::closed;
  }
  // The snapshot still serves requests.
  bool works() {
    const Kid kid = spawn();
    const bool answers = kid.ask(echo) == echo;
    kid.order(leave, 0);
    const Report report = next();
    return answers && report.kind == ReportKind::exited && report.id == kid.id;
  }
  // The exit status of the snapshot; 1000 and more: a signal.  -1: it had to be killed.
  int end() { return end_of(std::exchange(pid, 0)); }

  OwnedFd control;
  pid_t pid = 0;
  Slot* slots = nullptr;
  Report begun{};           // of a replica
  Report birth{};           // by the one that has forked it
  std::uint64_t seen = 0;   // sent with each request
  std::uint64_t exits = 0;  // received exit reports
  std::uint64_t last_id = 0;
};

void check_exited(const Report& report, const Kid& kid, int code, Cause cause) {
  BOOST_TEST((report.kind == ReportKind::exited));
  BOOST_TEST(report.id == kid.id);
  BOOST_TEST(report.pid == kid.pid);
  BOOST_TEST(report.slot == kid.slot);
  BOOST_TEST((WIFEXITED(report.code) && WEXITSTATUS(report.code) == code));
  BOOST_TEST(std::string(to_string(static_cast<Cause>(report.cause))) == to_string(cause));
}

void check_killed(const Report& report, const Kid& kid, int signum, Cause cause) {
  BOOST_TEST((report.kind == ReportKind::exited));
  BOOST_TEST(report.id == kid.id);
  BOOST_TEST((WIFSIGNALED(report.code) && WTERMSIG(report.code) == signum));
  BOOST_TEST(std::string(to_string(static_cast<Cause>(report.cause))) == to_string(cause));
}

bool sees_end(const OwnedFd& socket) {
  char byte;
  return is_ready(socket.get()) &&
         receive(socket.get(), &byte, 1, Wait::no).flow == IoResult::closed;
}

// A file that children write at their end.
class FileAtEnd {
public:
  FileAtEnd() {
    std::strcpy(file_at_end, "/tmp/evparallel-30-XXXXXX");
    const int fd = ::mkstemp(file_at_end);
    if (fd < 0) throw std::runtime_error("no file");
    ::close(fd);
  }
  FileAtEnd(const FileAtEnd&) = delete;
  FileAtEnd& operator=(const FileAtEnd&) = delete;
  ~FileAtEnd() { ::unlink(file_at_end); }
  std::string content() const {
    std::ifstream file(file_at_end);
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
  }
};

// A process between the test and a snapshot, for the test to kill.  Its pids come through a pipe.
class Middle {
public:
  template <class F>
  explicit Middle(F f) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
    pid_ = ::fork();
    if (pid_ == 0) {
      try {
        f(ends[1]);
      } catch (...) {
        ::_exit(99);
      }
      for (;;) ::pause();
    }
    ::close(ends[1]);
    from_ = ends[0];
  }
  Middle(const Middle&) = delete;
  Middle& operator=(const Middle&) = delete;
  ~Middle() {
    if (pid_ != 0) kill();
    ::close(from_);
  }
  pid_t next_pid() const {
    pid_t pid = 0;
    if (!is_ready(from_) || ::read(from_, &pid, sizeof pid) != sizeof pid)
      throw std::runtime_error("the process between says nothing");
    return pid;
  }
  static void announce(int fd, pid_t pid) {
    if (::write(fd, &pid, sizeof pid) != sizeof pid) ::_exit(98);
  }
  void kill() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }

private:
  pid_t pid_ = 0;
  int from_ = -1;
};

// A table of a snapshot stands in memory of zeroes.
template <class T>
class InZeroedMemory {
public:
  InZeroedMemory()
      : memory_(::mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {
    if (memory_ == MAP_FAILED) throw std::runtime_error("no memory");
  }
  InZeroedMemory(const InZeroedMemory&) = delete;
  InZeroedMemory& operator=(const InZeroedMemory&) = delete;
  ~InZeroedMemory() { ::munmap(memory_, sizeof(T)); }
  T* operator->() const { return static_cast<T*>(memory_); }
  T& operator*() const { return *static_cast<T*>(memory_); }

private:
  void* memory_;
};

}  // namespace

// ---- spawn ----

BOOST_AUTO_TEST_SUITE(spawning)

BOOST_AUTO_TEST_CASE(a_child_is_spawned_and_exits) {
  Far far;
  for (const int code : {0, 3}) {
    const Kid kid = far.spawn();
    BOOST_TEST(kid.pid > 0);
    BOOST_TEST(kid.slot < slot_count);
    BOOST_TEST(process_exists(kid.pid));
    BOOST_TEST(kid.ask(echo) == echo);
    BOOST_TEST(far.says_nothing());
    kid.order(leave, code);
    check_exited(far.next(), kid, code, code == 0 ? Cause::normal : Cause::error);
    BOOST_TEST(is_gone(kid.pid));  // reaped before it was reported
    BOOST_TEST(sees_end(kid.socket));
  }
  BOOST_TEST(far.says_nothing());
}

BOOST_AUTO_TEST_CASE(many_children_are_spawned_at_the_same_time) {
  Far far;
  std::vector<Kid> kids;
  for (int i = 0; i < 30; ++i) kids.push_back(far.ask_for_child());
  for (Kid& kid : kids) {
    const Report report = far.next();
    BOOST_TEST((report.kind == ReportKind::spawned));
    BOOST_TEST(report.id == kid.id);
    kid.pid = report.pid;
    kid.slot = report.slot;
  }
  std::vector<std::uint32_t> used;
  for (const Kid& kid : kids) {
    BOOST_TEST(kid.ask(echo) == echo);
    used.push_back(kid.slot);
  }
  std::sort(used.begin(), used.end());
  BOOST_TEST((std::unique(used.begin(), used.end()) == used.end()));
  for (const Kid& kid : kids) kid.order(leave, static_cast<int>(kid.id));
  std::vector<bool> reported(kids.size() + 1);
  for (std::size_t i = 0; i < kids.size(); ++i) {
    const Report report = far.next();
    BOOST_REQUIRE((report.id >= 1 && report.id <= kids.size()));
    BOOST_TEST(!reported[static_cast<std::size_t>(report.id)]);
    reported[static_cast<std::size_t>(report.id)] = true;
    check_exited(report, kids[static_cast<std::size_t>(report.id - 1)], static_cast<int>(report.id),
                 Cause::error);
  }
}

BOOST_AUTO_TEST_CASE(the_resource_use_of_a_child_is_reported) {
  Far far;
  const Kid kid = far.spawn();
  kid.ask(burn);
  kid.order(leave, 0);
  const Report report = far.next();
  BOOST_TEST(report.user_us + report.system_us >= 20000);
  BOOST_TEST(report.max_rss > 0);
  BOOST_TEST(report.minor_faults > 0);
}

BOOST_AUTO_TEST_CASE(a_child_starts_in_its_own_group_under_its_snapshot) {
  Far far;
  const Kid kid = far.spawn();
  BOOST_TEST(::getpgid(kid.pid) == kid.pid);
  BOOST_TEST(::getpgid(far.pid) == far.pid);
  std::ifstream status("/proc/" + std::to_string(kid.pid) + "/status");
  std::string line;
  bool is_childs = false;
  while (std::getline(status, line))
    if (line == "PPid:\t" + std::to_string(far.pid)) is_childs = true;
  BOOST_TEST(is_childs);
  char target[64] = {};
  BOOST_TEST(::readlink(("/proc/" + std::to_string(far.pid) + "/fd/0").c_str(), target,
                        sizeof target - 1) > 0);
  BOOST_TEST(std::string(target) == "/dev/null");
}

BOOST_AUTO_TEST_CASE(a_child_inherits_only_descriptors_of_the_program) {
  const OwnedFd of_the_library(::dup(STDERR_FILENO));
  const int of_the_program = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  std::vector<int> expected = descriptors_of(::getpid());
  expected.erase(std::find(expected.begin(), expected.end(), of_the_library.get()));
  {
    Far first;
    const Kid of_first = first.spawn();
    Far second;
    const Kid before = second.spawn();
    const Kid kid = second.spawn();
    const std::int64_t seen = kid.ask(list);
    std::vector<int> all = expected;
    all.push_back(static_cast<int>(kid.ask(socket_number)));
    all.push_back(static_cast<int>(kid.ask(door_number)));
    BOOST_TEST(seen == mask_of(all));
    BOOST_TEST((mask_of(all) & 7) == 7);  // the standard descriptors
  }
  ::close(of_the_program);
}

BOOST_AUTO_TEST_CASE(a_snapshot_accumulates_no_descriptors) {
  Far far;
  BOOST_TEST(far.works());
  const auto before = descriptors_of(far.pid).size();
  for (int i = 0; i < 20; ++i) {
    BOOST_TEST(far.works());
    const Kid kid = far.spawn();
    kid.ask(connect_to_snapshot);
    BOOST_TEST(kid.ask(nested_spawn) > 0);
    kid.order(leave, 0);
    far.next();
    // A descriptor with a request that takes none.
    Request request{};
    request.kind = RequestKind::kill;
    request.slot = no_slot;
    request.id = 999999;
    BOOST_TEST(far.send(request, STDERR_FILENO));
  }
  BOOST_TEST(eventually([&] { return descriptors_of(far.pid).size() == before; }));
}

BOOST_AUTO_TEST_CASE(a_failed_fork_is_reported_and_the_next_one_works) {
  Far far([] {
    fault::Plan plan;
    plan.victim = fault::Victim::snapshot;
    plan.fork_failures = 3;
    plan.fork_errno = EAGAIN;
    fault::arm(plan);
  });
  for (int i = 0; i < 3; ++i) {
    const Kid kid = far.ask_for_child();
    const Report report = far.next();
    BOOST_TEST((report.kind == ReportKind::failed));
    BOOST_TEST(report.id == kid.id);
    BOOST_TEST(report.code == EAGAIN);
    BOOST_TEST(sees_end(kid.socket));  // no process holds the other end
  }
  BOOST_TEST(far.works());
  BOOST_TEST(far.works());
}

BOOST_AUTO_TEST_CASE(a_spawn_without_a_descriptor_fails) {
  Far far;
  Request request{};
  request.kind = RequestKind::spawn;
  request.slot = no_slot;
  request.id = 1234;
  BOOST_TEST(far.send(request));
  const Report report = far.next();
  BOOST_TEST((report.kind == ReportKind::failed));
  BOOST_TEST(report.id == 1234U);
  BOOST_TEST(report.code == EMFILE);
  BOOST_TEST(far.works());
}

// Asks for a child with descriptors in addition to its socket.
Kid ask_with(Far& far, std::uint32_t streams, const std::vector<int>& others) {
  Kid kid;
  kid.id = ++far.last_id;
  OwnedFd theirs;
  if (make_pair(PairKind::stream, kid.socket, theirs) != 0)
    throw std::runtime_error("no socket pair");
  Request request{};
  request.kind = RequestKind::spawn;
  request.slot = no_slot;
  request.id = kid.id;
  request.streams = streams;
  std::vector<int> along = {theirs.get()};
  along.insert(along.end(), others.begin(), others.end());
  if (send_packet(far.control.get(), &request, sizeof request, along.data(), along.size()) !=
      IoResult::done)
    throw std::runtime_error("the snapshot takes no request");
  theirs.close();
  return kid;
}

struct PipeEnds {
  OwnedFd reading;
  OwnedFd writing;
  PipeEnds() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
    reading = OwnedFd(ends[0]);
    writing = OwnedFd(ends[1]);
  }
};

bool no_other_end(const OwnedFd& end) {
  pollfd wait{end.get(), 0, 0};
  return ::poll(&wait, 1, 0) == 1 && (wait.revents & (POLLHUP | POLLERR)) != 0;
}

BOOST_AUTO_TEST_CASE(only_the_child_keeps_the_standard_streams_of_a_spawn) {
  Far far;
  const std::int64_t plain = far.spawn().ask(list);
  far.next();
  const std::vector<int> before = descriptors_of(far.pid);
  PipeEnds in;
  PipeEnds out;
  PipeEnds err;
  Kid kid = ask_with(far, stream_comes(0) | stream_comes(1) | stream_comes(2),
                     {in.reading.get(), out.writing.get(), err.writing.get()});
  const Report report = far.next();
  BOOST_REQUIRE((report.kind == ReportKind::spawned));
  BOOST_TEST(descriptors_of(far.pid) == before, boost::test_tools::per_element());
  BOOST_TEST(kid.ask(list) == plain);
  for (PipeEnds* ends : {&out, &err}) ends->writing.close();
  kid.order(leave, 0);
  far.next();
  // No other process holds an end.
  for (PipeEnds* ends : {&out, &err}) BOOST_TEST(no_other_end(ends->reading));
  in.reading.close();
  BOOST_TEST(no_other_end(in.writing));
}

BOOST_AUTO_TEST_CASE(a_spawn_with_a_wrong_number_of_descriptors_fails) {
  Far far;
  BOOST_TEST(far.works());
  const std::vector<int> before = descriptors_of(far.pid);
  for (const std::size_t count : {0U, 1U, 3U}) {
    const Kid kid = ask_with(far, stream_comes(0) | stream_comes(2),
                             std::vector<int>(count, far.control.get()));
    const Report report = far.next();
    BOOST_TEST((report.kind == ReportKind::failed));
    BOOST_TEST(report.id == kid.id);
    BOOST_TEST(report.code == EMFILE);
    BOOST_TEST(sees_end(kid.socket));
  }
  BOOST_TEST(descriptors_of(far.pid) == before, boost::test_tools::per_element());
  BOOST_TEST(far.works());
}

// There is room for some of the descriptors of the next spawn, so that the kernel truncates the
// list.
BOOST_AUTO_TEST_CASE(the_snapshot_keeps_none_of_four_descriptors_without_room) {
  Far far([] {
    int free[4];  // one that the snapshot opens at its start, and three of four
    for (int& fd : free) fd = ::open("/dev/null", O_RDONLY);
    const rlimit tight{static_cast<rlim_t>(free[3]) + 1, static_cast<rlim_t>(free[3]) + 1};
    for (const int fd : free) ::close(fd);
    ::setrlimit(RLIMIT_NOFILE, &tight);
  });
  BOOST_TEST(far.works());
  const std::vector<int> before = descriptors_of(far.pid);
  const std::uint32_t all = stream_comes(0) | stream_comes(1) | stream_comes(2);
  for (int i = 0; i < 3; ++i) {
    const Kid kid = ask_with(far, all, {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO});
    const Report report = far.next();
    BOOST_TEST((report.kind == ReportKind::failed));
    BOOST_TEST(report.id == kid.id);
    BOOST_TEST(report.code == EMFILE);
    BOOST_TEST(sees_end(kid.socket));
    BOOST_TEST(descriptors_of(far.pid) == before, boost::test_tools::per_element());
  }
  BOOST_TEST(far.works());  // only that spawn failed
}

BOOST_AUTO_TEST_CASE(a_descriptor_without_room_fails_the_spawn) {
  Far far([] {
    // There is room for the descriptors that the snapshot opens at its start, and no more.
    const int free = ::open("/dev/null", O_RDONLY);
    const rlimit tight{static_cast<rlim_t>(free) + 1, static_cast<rlim_t>(free) + 1};
    ::close(free);
    ::setrlimit(RLIMIT_NOFILE, &tight);
  });
  for (int i = 0; i < 3; ++i) {
    const Kid kid = far.ask_for_child();
    const Report report = far.next();
    BOOST_TEST((report.kind == ReportKind::failed));
    BOOST_TEST(report.id == kid.id);
    BOOST_TEST(report.code == EMFILE);
    BOOST_TEST(sees_end(kid.socket));
  }
}

// ---- slots ----

BOOST_AUTO_TEST_CASE(the_table_of_children_has_a_limit, *testing::guarantee("7.3")) {
  InZeroedMemory<ChildTable> table;
  ChildTable& children = *table;
  children.set_up();
  std::vector<bool> taken(16384);
  for (std::size_t i = 0; i < taken.size(); ++i) {
    const ChildIndex index = children.take_free();
    BOOST_REQUIRE(index < taken.size());
    BOOST_REQUIRE(!taken[index]);
    taken[index] = true;
  }
  BOOST_TEST(children.take_free() == no_child);
  children.free(77);
  BOOST_TEST(children.take_free() == 77U);
  BOOST_TEST(children.take_free() == no_child);
}

BOOST_AUTO_TEST_CASE(a_slot_is_reused_after_its_exit_was_acknowledged) {
  Far far;
  const Kid first = far.spawn();
  far.slots[first.slot].call = 42;
  first.order(leave, 0);
  far.next();
  const Kid second = far.spawn();  // no exit report was seen yet
  BOOST_TEST(second.slot != first.slot);
  BOOST_TEST(far.slots[first.slot].call == 42U);
  far.seen = 1;
  const Kid third = far.spawn();
  BOOST_TEST(third.slot == first.slot);
  BOOST_TEST(far.slots[first.slot].call == 0U);
  // An exit that was not reported yet cannot have been seen, whatever the client claims.
  far.seen = 1000;
  const Kid fourth = far.spawn();
  BOOST_TEST(fourth.slot != second.slot);
  BOOST_TEST(fourth.slot != third.slot);
}

BOOST_AUTO_TEST_CASE(acknowledged_exits_are_counted_in_order) {
  Far far;
  std::vector<Kid> kids;
  for (int i = 0; i < 4; ++i) kids.push_back(far.spawn());
  for (const int i : {2, 0, 3}) {
    kids[static_cast<std::size_t>(i)].order(leave, 0);
    far.next();
  }
  far.seen = 2;
  const Kid one = far.spawn();
  const Kid two = far.spawn();
  const Kid fresh = far.spawn();
  BOOST_TEST(one.slot == kids[2].slot);
  BOOST_TEST(two.slot == kids[0].slot);
  BOOST_TEST(fresh.slot > kids[3].slot);
}

BOOST_AUTO_TEST_SUITE_END()

// ---- ends of a child ----

BOOST_AUTO_TEST_SUITE(ends_of_children)

BOOST_AUTO_TEST_CASE(a_child_is_killed_by_slot) {
  Far far;
  for (const int signum : {SIGKILL, SIGTERM, SIGUSR1}) {
    const Kid kid = far.spawn();
    const Kid other = far.spawn();
    far.kill(kid, signum);
    check_killed(far.next(), kid, signum, Cause::killed);
    BOOST_TEST(other.ask(echo) == echo);
    other.order(leave, 0);
    far.next();
  }
}

BOOST_AUTO_TEST_CASE(a_child_is_killed_by_id_before_its_slot_is_known) {
  Far far;
  Kid kid = far.ask_for_child();
  far.kill(kid, SIGKILL);
  const Report report = far.next();
  BOOST_TEST((report.kind == ReportKind::spawned));
  kid.pid = report.pid;
  kid.slot = report.slot;
  check_killed(far.next(), kid, SIGKILL, Cause::killed);
}

BOOST_AUTO_TEST_CASE(a_request_about_an_unknown_child_does_nothing) {
  Far far;
  const Kid kid = far.spawn();
  const Kid gone = far.spawn();
  gone.order(leave, 0);
  far.next();
  Kid wrong;
  wrong.id = 4711;
  far.kill(wrong, SIGKILL);  // an unknown id
  wrong.slot = kid.slot;
  far.kill(wrong, SIGKILL);  // the slot of another child
  wrong.slot = no_slot - 1;
  far.kill(wrong, SIGKILL);  // an unknown slot
  far.kill(gone, SIGKILL);
  wrong.id = kid.id;
  wrong.slot = gone.slot;
  far.kill(wrong, SIGKILL);
  far.direct(RequestKind::terminate, gone, 0);
  far.direct(RequestKind::terminate, gone, 0, 0, 0);
  Request unknown{};
  unknown.kind = static_cast<RequestKind>(99);
  far.send(unknown);
  BOOST_TEST(far.works());
  BOOST_TEST(kid.ask(echo) == echo);
  far.kill(kid, 9999);  // an unknown signal
  BOOST_TEST(kid.ask(echo) == echo);
}

BOOST_AUTO_TEST_CASE(a_signal_that_the_snapshot_did_not_send_is_a_crash) {
  Far far;
  const Kid raising = far.spawn();
  raising.order(die_by, SIGUSR2);
  check_killed(far.next(), raising, SIGUSR2, Cause::crash);
  const Kid shot = far.spawn();
  ::kill(shot.pid, SIGKILL);
  check_killed(far.next(), shot, SIGKILL, Cause::crash);
  // A signal that the child survives, and one that it does not.
  const Kid other = far.spawn();
  far.kill(other, SIGCONT);
  BOOST_TEST(far.works());  // the request was executed
  other.order(die_by, SIGUSR2);
  check_killed(far.next(), other, SIGUSR2, Cause::crash);
}

BOOST_AUTO_TEST_CASE(a_child_is_terminated) {
  Far far;
  const Kid kid = far.spawn();
  far.direct(RequestKind::terminate, kid, 0, 0, 60000);
  check_killed(far.next(), kid, SIGTERM, Cause::terminated);
  const Kid polite = far.spawn();
  polite.ask(exit_at_term, 7);
  far.direct(RequestKind::terminate, polite, 0, 0, 60000);
  check_exited(far.next(), polite, 7, Cause::error);
}

BOOST_AUTO_TEST_CASE(a_child_that_ignores_sigterm_is_killed) {
  Far far;
  for (const int grace_ms : {60, 0, -5}) {
    const Kid kid = far.spawn();
    kid.ask(ignore_term);
    const auto start = Clock::now();
    far.direct(RequestKind::terminate, kid, 0, 0, grace_ms);
    check_killed(far.next(), kid, SIGKILL, Cause::terminated);
    BOOST_TEST((Clock::now() - start >= milliseconds(grace_ms)));
  }
}

BOOST_AUTO_TEST_CASE(a_child_is_terminated_before_its_slot_is_known) {
  Far far;
  Kid kid = far.ask_for_child();
  far.direct(RequestKind::terminate, kid, 0, 0, 60000);
  BOOST_TEST((far.next().kind == ReportKind::spawned));
  check_killed(far.next(), kid, SIGTERM, Cause::terminated);
}

BOOST_AUTO_TEST_CASE(each_child_has_its_own_clock) {
  Far far;
  std::vector<Kid> kids;
  const int graces[] = {120, 40, 80};
  for (const int grace : graces) {
    kids.push_back(far.spawn());
    kids.back().ask(ignore_term);
    static_cast<void>(grace);
  }
  const auto start = Clock::now();
  for (std::size_t i = 0; i < 3; ++i) far.direct(RequestKind::terminate, kids[i], 0, 0, graces[i]);
  for (int i = 0; i < 3; ++i) {
    const Report report = far.next();
    BOOST_REQUIRE((report.id >= 1 && report.id <= 3));
    check_killed(report, kids[static_cast<std::size_t>(report.id - 1)], SIGKILL, Cause::terminated);
    BOOST_TEST((Clock::now() - start >= milliseconds(graces[report.id - 1])));
  }
}

BOOST_AUTO_TEST_CASE(a_released_child_ends_by_itself) {
  Far far;
  const Kid kid = far.spawn();
  far.direct(RequestKind::terminate, kid, 0, 60000, 60000);
  BOOST_TEST(far.works());
  kid.order(leave, 5);
  check_exited(far.next(), kid, 5, Cause::error);
}

BOOST_AUTO_TEST_CASE(a_released_child_that_does_not_end_in_time_is_killed) {
  Far far;
  const Kid kid = far.spawn();
  auto start = Clock::now();
  far.direct(RequestKind::terminate, kid, 0, 50, 60000);
  check_killed(far.next(), kid, SIGTERM, Cause::terminated);
  BOOST_TEST((Clock::now() - start >= milliseconds(50)));
  const Kid deaf = far.spawn();
  deaf.ask(ignore_term);
  start = Clock::now();
  far.direct(RequestKind::terminate, deaf, 0, 50, 30);
  check_killed(far.next(), deaf, SIGKILL, Cause::terminated);
  BOOST_TEST((Clock::now() - start >= milliseconds(80)));
}

// A clock in milliseconds would cut off a part of the first one.
BOOST_AUTO_TEST_CASE(no_grace_period_is_cut_short) {
  Far far;
  constexpr std::int64_t linger_ms = 2;
  for (int i = 0; i < 50; ++i) {
    const Kid kid = far.spawn();
    const auto start = Clock::now();
    far.direct(RequestKind::terminate, kid, 0, linger_ms, 60000);
    check_killed(far.next(), kid, SIGTERM, Cause::terminated);
    BOOST_TEST((Clock::now() - start >= milliseconds(linger_ms)));
  }
}

BOOST_AUTO_TEST_CASE(a_shorter_time_replaces_a_longer_one) {
  Far far;
  const Kid kid = far.spawn();
  far.direct(RequestKind::terminate, kid, 0, INT64_MAX, 60000);
  far.direct(RequestKind::terminate, kid, 0, 60000, 60000);
  far.direct(RequestKind::terminate, kid, 0, 0, 60000);
  check_killed(far.next(), kid, SIGTERM, Cause::terminated);
  const Kid deaf = far.spawn();
  deaf.ask(ignore_term);
  far.direct(RequestKind::terminate, deaf, 0, 0, 60000);
  far.direct(RequestKind::terminate, deaf, 0, 0, 20);
  check_killed(far.next(), deaf, SIGKILL, Cause::terminated);
}

// ---- strikes ----

BOOST_AUTO_TEST_CASE(a_child_still_in_the_call_is_signalled) {
  for (const Cause cause : {Cause::cancelled, Cause::deadline}) {
    Far far;
    const Kid kid = far.spawn();
    BOOST_TEST(kid.ask(begin_call, 7) == 1);
    const auto start = Clock::now();
    far.kill_if_still_running(kid, cause, 7, 0, 10);
    check_killed(far.next(), kid, SIGTERM, cause);
    BOOST_TEST((Clock::now() - start >= milliseconds(10)));
  }
}

BOOST_AUTO_TEST_CASE(a_child_that_ignores_the_signal_is_killed) {
  Far far;
  const Kid kid = far.spawn();
  kid.ask(ignore_term);
  BOOST_TEST(kid.ask(begin_call, 7) == 1);
  far.kill_if_still_running(kid, Cause::cancelled, 7, 0, 1, 10);
  check_killed(far.next(), kid, SIGKILL, Cause::cancelled);
}

BOOST_AUTO_TEST_CASE(a_child_no_longer_in_the_call_is_not_signalled, *testing::guarantee("3.4")) {
  Far far;
  const Kid never_there = far.spawn();
  const Kid finished = far.spawn();
  finished.ask(begin_call, 7);
  finished.ask(finish_call, 7);
  const Kid at_the_next = far.spawn();
  at_the_next.ask(begin_call, 7);
  at_the_next.ask(finish_call, 7);
  at_the_next.ask(begin_call, 8);
  for (const Kid* kid : {&never_there, &finished, &at_the_next})
    far.kill_if_still_running(*kid, Cause::cancelled, 7, 0, 0);
  // This child is killed after the requests for the others, so that the snapshot has handled those
  // before.
  const Kid last = far.spawn();
  last.ask(begin_call, 7);
  far.kill_if_still_running(last, Cause::cancelled, 7, 0, 1);
  check_killed(far.next(), last, SIGTERM, Cause::cancelled);
  for (const Kid* kid : {&never_there, &finished, &at_the_next}) {
    BOOST_TEST(kid->ask(begin_call, 9) == 1);
    kid->order(leave, 0);
    check_exited(far.next(), *kid, 0, Cause::normal);
  }
}

BOOST_AUTO_TEST_CASE(a_child_that_answers_the_ping_is_not_signalled) {
  Far far;
  const Kid alive = far.spawn();
  const Kid hanging = far.spawn();
  far.slots[alive.slot].answered_ping = 3;
  far.slots[hanging.slot].answered_ping = 2;
  far.kill_if_still_running(alive, Cause::deadline, 0, 3, 0);
  far.kill_if_still_running(hanging, Cause::deadline, 0, 3, 0);
  check_killed(far.next(), hanging, SIGTERM, Cause::deadline);
  BOOST_TEST(alive.ask(echo) == echo);
}

// The stop flag is set before the kill, so that the child does not begin a call that would be lost.
BOOST_AUTO_TEST_CASE(a_child_that_must_stop_begins_no_other_call) {
  Far far;
  const Kid kid = far.spawn();
  kid.ask(ignore_term);
  BOOST_TEST(kid.ask(begin_call, 7) == 1);
  far.kill_if_still_running(kid, Cause::deadline, 7, 0, 0);
  BOOST_TEST(eventually([&] { return far.slots[kid.slot].stop_request != StopRequest::none; }));
  kid.ask(finish_call, 7);
  BOOST_TEST(kid.ask(begin_call, 8) == 0);
  BOOST_TEST(CallState::of(far.slots[kid.slot].call).id == 7U);
  BOOST_TEST((far.slots[kid.slot].stop_request == StopRequest::acknowledged));
  kid.order(leave, 0);
  check_exited(far.next(), kid, 0, Cause::deadline);
  far.seen = far.exits;
  const Kid next = far.spawn();  // the slot can be used again
  BOOST_TEST(next.slot == kid.slot);
  BOOST_TEST(next.ask(begin_call, 1) == 1);
}

BOOST_AUTO_TEST_CASE(a_due_signal_is_not_postponed) {
  Far far;
  const Kid kid = far.spawn();
  kid.ask(begin_call, 7);
  far.kill_if_still_running(kid, Cause::cancelled, 7, 0, 5);
  far.kill_if_still_running(kid, Cause::deadline, 7, 0, 60000);
  check_killed(far.next(), kid, SIGTERM, Cause::cancelled);
  const Kid other = far.spawn();
  other.ask(begin_call, 7);
  far.kill_if_still_running(other, Cause::cancelled, 6, 0, 60000);  // this kill misses already
  far.kill_if_still_running(other, Cause::deadline, 7, 0, 5);
  check_killed(far.next(), other, SIGTERM, Cause::deadline);
}

BOOST_AUTO_TEST_CASE(the_first_reason_to_end_a_child_is_reported) {
  Far far;
  const Kid kid = far.spawn();
  kid.ask(ignore_term);
  kid.ask(begin_call, 7);
  far.kill_if_still_running(kid, Cause::deadline, 7, 0, 0, 50);
  BOOST_TEST(eventually([&] { return far.slots[kid.slot].stop_request != StopRequest::none; }));
  far.direct(RequestKind::terminate, kid, 0, 0, 60000);
  check_killed(far.next(), kid, SIGKILL, Cause::deadline);
}

// SIGTERM is pending while a process is stopped: the signal that wakes it is not the one that ends
// it.
BOOST_AUTO_TEST_CASE(a_later_signal_does_not_hide_the_cause) {
  Far far;
  const Kid kid = far.spawn();
  far.kill(kid, SIGSTOP);
  BOOST_TEST(eventually([&] { return state_of(kid.pid) == 'T'; }));
  far.direct(RequestKind::terminate, kid, 0, 0, 60000);
  BOOST_TEST(far.works());  // the request was executed
  far.kill(kid, SIGCONT);
  check_killed(far.next(), kid, SIGTERM, Cause::terminated);
}

BOOST_AUTO_TEST_CASE(a_stopped_child_is_killed_too) {
  Far far;
  const Kid kid = far.spawn();
  far.kill(kid, SIGSTOP);
  BOOST_TEST(eventually([&] { return state_of(kid.pid) == 'T'; }));
  far.direct(RequestKind::terminate, kid, 0, 0, 30);
  check_killed(far.next(), kid, SIGKILL, Cause::terminated);
}

BOOST_AUTO_TEST_CASE(the_group_of_a_child_ends_with_it) {
  Far far;
  for (const bool killed : {false, true}) {
    const Kid kid = far.spawn();
    const auto left = static_cast<pid_t>(kid.ask(leave_behind));
    BOOST_REQUIRE(left > 0);
    BOOST_TEST(process_exists(left));
    if (killed)
      far.kill(kid, SIGKILL);
    else
      kid.order(leave, 0);
    BOOST_TEST(far.next().id == kid.id);
    BOOST_TEST(eventually([&] { return !process_exists(left); }));
  }
}

// More exit reports than a control socket holds, while nobody reads.
BOOST_AUTO_TEST_CASE(unread_exit_reports_are_kept_in_order) {
  constexpr std::size_t count = 350;
  Far far;
  std::vector<Kid> kids;
  for (std::size_t i = 0; i < count; ++i) kids.push_back(far.spawn());
  for (const Kid& kid : kids) {
    kid.order(leave, static_cast<int>(kid.id % 200));
    BOOST_REQUIRE(eventually([&] { return is_gone(kid.pid); }));  // reaped, one after the other
  }
  // A request waits meanwhile.
  const Kid late = far.ask_for_child();
  for (const Kid& kid : kids)
    check_exited(far.next(), kid, static_cast<int>(kid.id % 200),
                 kid.id % 200 == 0 ? Cause::normal : Cause::error);
  const Report report = far.next();
  BOOST_TEST((report.kind == ReportKind::spawned));
  BOOST_TEST(report.id == late.id);
  BOOST_TEST(report.slot == count);  // no exit report was seen yet
  BOOST_TEST(far.says_nothing());
  far.seen = far.exits;
  BOOST_TEST(far.works());
}

BOOST_AUTO_TEST_SUITE_END()

// ---- ends of the snapshot ----

BOOST_AUTO_TEST_SUITE(ends_of_the_snapshot)

BOOST_AUTO_TEST_CASE(a_stopped_snapshot_without_children_ends_at_once) {
  Far far;
  BOOST_TEST(far.works());
  far.stop();
  BOOST_TEST(far.is_over());
  BOOST_TEST(far.end() == 0);
}

BOOST_AUTO_TEST_CASE(a_stopped_snapshot_ends_with_its_last_child) {
  Far far;
  const Kid first = far.spawn();
  const Kid second = far.spawn();
  far.stop();
  second.order(leave, 2);
  check_exited(far.next(), second, 2, Cause::error);
  BOOST_TEST(first.ask(echo) == echo);
  BOOST_TEST(process_exists(far.pid));
  far.kill(first, SIGTERM);  // it still reads requests
  check_killed(far.next(), first, SIGTERM, Cause::killed);
  BOOST_TEST(far.is_over());
  BOOST_TEST(far.end() == 0);
}

BOOST_AUTO_TEST_CASE(a_stopped_snapshot_reports_every_end_first) {
  constexpr std::size_t count = 350;
  for (const bool received : {true, false}) {
    Far far;
    std::vector<Kid> kids;
    for (std::size_t i = 0; i < count; ++i) kids.push_back(far.spawn());
    far.stop(received ? RequestKind::stop : RequestKind::stop_without_reports);
    // The execution of a later request shows that the snapshot has read the stop before unread exit
    // reports fill the socket.
    far.kill(kids[0], SIGSTOP);
    BOOST_REQUIRE(eventually([&] { return state_of(kids[0].pid) == 'T'; }));
    far.kill(kids[0], SIGCONT);
    BOOST_REQUIRE(eventually([&] { return state_of(kids[0].pid) != 'T'; }));
    for (const Kid& kid : kids) kid.order(leave, 0);
    for (const Kid& kid : kids) BOOST_REQUIRE(eventually([&] { return is_gone(kid.pid); }));
    if (!received) {
      BOOST_TEST(far.end() == 0);  // although nobody reads
      continue;
    }
    std::size_t reported = 0;
    for (; reported < count; ++reported)
      if (far.next().kind != ReportKind::exited) break;
    BOOST_TEST(reported == count);
    BOOST_TEST(far.is_over());
    BOOST_TEST(far.end() == 0);
  }
}

BOOST_AUTO_TEST_CASE(a_broken_request_ends_the_snapshot) {
  Far far;
  const Kid kid = far.spawn();
  BOOST_TEST((send_packet(far.control.get(), "junk", 4, -1) == IoResult::done));
  BOOST_TEST(far.is_over());
  BOOST_TEST(far.end() == 0);
  BOOST_TEST(eventually([&] { return !process_exists(kid.pid); }));
}

// The end of the control socket is not visible to a child; the end of its data socket is.
BOOST_AUTO_TEST_CASE(children_may_flush_when_the_snapshot_ends, *testing::guarantee("5.2")) {
  const FileAtEnd file;
  Far far;
  std::vector<Kid> kids;
  for (int i = 0; i < 3; ++i) {
    kids.push_back(far.spawn());
    BOOST_TEST(kids.back().ask(write_at_end) == write_at_end);
  }
  // Two children see the end of their sockets first, and one sees it together with that of the
  // control socket; the time limit of the snapshot starts when it continues.
  kids.erase(kids.begin(), kids.begin() + 2);
  far.suspend();
  far.control.reset();
  kids.clear();
  BOOST_TEST(eventually([&] { return file.content() == "flushed flushed flushed "; }));
  far.wake();
  BOOST_TEST(far.end() == 0);
  BOOST_TEST(file.content() == "flushed flushed flushed ");
}

BOOST_AUTO_TEST_CASE(spinning_children_are_killed_when_the_snapshot_ends,
                     *testing::guarantee("5.2")) {
  const FileAtEnd file;
  Far far;
  const Kid spinning = far.spawn();
  BOOST_TEST(spinning.ask(spin) == spin);
  auto end = Clock::now();
  const Kid deaf = far.spawn();
  deaf.ask(ignore_term);
  const auto left = static_cast<pid_t>(deaf.ask(leave_behind));
  {
    const Kid writing = far.spawn();
    writing.ask(write_at_end);
    end = Clock::now();
    far.suspend();
    far.control.reset();
  }
  BOOST_TEST(eventually([&] { return file.content() == "flushed "; }));
  far.wake();
  BOOST_TEST(eventually([&] { return !process_exists(spinning.pid); }));
  BOOST_TEST((Clock::now() - end >= milliseconds(400)));
  BOOST_TEST(far.end() == 0);
  for (const pid_t pid : {deaf.pid, left})
    BOOST_TEST(eventually([&] { return !process_exists(pid); }));
  BOOST_TEST(file.content() == "flushed ");
}

// A request after the end is not executed: it is not read any more.
BOOST_AUTO_TEST_CASE(nothing_is_spawned_for_a_dead_client, *testing::guarantee("5.1")) {
  const FileAtEnd file;
  Middle middle([](int announce) {
    Far far;
    if (!far.works()) ::_exit(1);
    ::kill(far.pid, SIGSTOP);
    if (!eventually([&] { return state_of(far.pid) == 'T'; })) ::_exit(1);
    for (int i = 0; i < 5; ++i) far.ask_for_child().order(write_at_end);
    Middle::announce(announce, far.pid);
    for (;;) ::pause();
  });
  const pid_t snapshot = middle.next_pid();
  middle.kill();
  BOOST_TEST(end_of(snapshot) == 0);
  BOOST_TEST(file.content() == "");
}

namespace {

void parent_dies(bool stopped) {
  const FileAtEnd file;
  Middle middle([stopped](int announce) {
    static Far far;
    static const Kid spinning = far.spawn();
    if (spinning.ask(spin) != spin) ::_exit(1);
    static const Kid writing = far.spawn();
    writing.ask(write_at_end);
    static const Kid nesting = far.spawn();
    nesting.ask(connect_to_snapshot);
    const auto nested = static_cast<pid_t>(nesting.ask(nested_spawn));
    if (stopped) {
      ::kill(far.pid, SIGSTOP);
      if (!eventually([&] { return state_of(far.pid) == 'T'; })) ::_exit(1);
    }
    for (const pid_t pid : {far.pid, spinning.pid, writing.pid, nesting.pid, nested})
      Middle::announce(announce, pid);
  });
  const pid_t snapshot = middle.next_pid();
  pid_t others[4];
  for (pid_t& pid : others) pid = middle.next_pid();
  for (const pid_t pid : others) BOOST_TEST(process_exists(pid));
  const auto end = Clock::now();
  middle.kill();
  BOOST_TEST(testing::gone(others[0]));
  BOOST_TEST((Clock::now() - end >= milliseconds(400)));
  BOOST_TEST(end_of(snapshot) == 0);
  for (const pid_t pid : others) BOOST_TEST(testing::gone(pid));
  // The child has the time for it, but the scheduler may not run it.
  const std::string written = file.content();
  BOOST_TEST((written == "flushed " || written == ""));
}

}  // namespace

BOOST_AUTO_TEST_CASE(the_snapshot_ends_when_its_parent_is_killed, *testing::guarantee("5.1")) {
  parent_dies(false);
}

BOOST_AUTO_TEST_CASE(a_stopped_snapshot_ends_when_its_parent_is_killed) {
  parent_dies(true);
}

BOOST_AUTO_TEST_CASE(a_killed_snapshot_takes_its_children_along, *testing::guarantee("5.3")) {
  Far far;
  const Kid kid = far.spawn();
  const Kid spinning = far.spawn();
  spinning.ask(spin);
  ::kill(far.pid, SIGKILL);
  BOOST_TEST(far.end() == 1000 + SIGKILL);
  BOOST_TEST(far.is_over());
  for (const pid_t pid : {kid.pid, spinning.pid})
    BOOST_TEST(eventually([&] { return !process_exists(pid); }));
  BOOST_TEST(sees_end(kid.socket));
}

BOOST_AUTO_TEST_CASE(signals_do_not_end_the_snapshot) {
  Far far;
  const Kid kid = far.spawn();
  for (const int signum : {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGPIPE, SIGTSTP, SIGCONT, SIGCHLD}) {
    ::kill(far.pid, signum);
    BOOST_TEST(far.works());
  }
  BOOST_TEST(kid.ask(echo) == echo);
  // Its children handle SIGTERM themselves.
  ::kill(kid.pid, SIGTERM);
  check_killed(far.next(), kid, SIGTERM, Cause::crash);
}

BOOST_AUTO_TEST_SUITE_END()

// ---- the rendezvous socket ----

BOOST_AUTO_TEST_SUITE(the_door)

BOOST_AUTO_TEST_CASE(a_child_asks_for_its_own_children) {
  Far far;
  const Kid kid = far.spawn();
  BOOST_TEST(kid.ask(connect_to_snapshot) == connect_to_snapshot);
  for (int i = 0; i < 3; ++i) {
    const auto nested = static_cast<pid_t>(kid.ask(nested_spawn));
    BOOST_REQUIRE(nested > 0);
    BOOST_TEST(process_exists(nested));
    BOOST_TEST(::getpgid(nested) == nested);
    const auto status = static_cast<int>(kid.ask(nested_exit, 40 + i));
    BOOST_TEST((WIFEXITED(status) && WEXITSTATUS(status) == 40 + i));
    BOOST_TEST(is_gone(nested));
  }
  BOOST_TEST(far.says_nothing());  // the parent gets no report of it
}

BOOST_AUTO_TEST_CASE(a_grandchild_ends_with_the_child, *testing::guarantee("5.4")) {
  for (const int how : {0, 1, 2}) {
    Far far;
    const Kid kid = far.spawn();
    kid.ask(connect_to_snapshot);
    const auto nested = static_cast<pid_t>(kid.ask(nested_spawn));
    BOOST_REQUIRE(nested > 0);
    BOOST_TEST(process_exists(nested));
    if (how == 0) kid.order(leave, 0);
    if (how == 1) far.kill(kid, SIGKILL);
    if (how == 2) ::kill(kid.pid, SIGKILL);
    BOOST_TEST(far.next().id == kid.id);
    BOOST_TEST(eventually([&] { return !process_exists(nested); }));
    BOOST_TEST(far.says_nothing());
    BOOST_TEST(far.works());
  }
}

BOOST_AUTO_TEST_CASE(many_clients_are_served) {
  Far far;
  std::vector<Kid> kids;
  std::vector<pid_t> nested;
  for (int i = 0; i < 20; ++i) {
    kids.push_back(far.spawn());
    BOOST_TEST(kids.back().ask(connect_to_snapshot) == connect_to_snapshot);
    nested.push_back(static_cast<pid_t>(kids.back().ask(nested_spawn)));
    BOOST_TEST(nested.back() > 0);
  }
  // Each child loses only its own children.
  for (std::size_t i = 0; i < kids.size(); i += 2) {
    kids[i].order(leave, 0);
    BOOST_TEST(far.next().id == kids[i].id);
    BOOST_TEST(eventually([&] { return !process_exists(nested[i]); }));
  }
  for (std::size_t i = 1; i < kids.size(); i += 2) {
    BOOST_TEST(process_exists(nested[i]));
    BOOST_TEST(kids[i].ask(nested_exit, 0) == 0);
  }
}

BOOST_AUTO_TEST_CASE(a_broken_request_disconnects_only_its_sender, *testing::guarantee("B.1")) {
  Far far;
  const Kid kid = far.spawn();
  for (const int too_long : {0, 1}) {
    kid.ask(connect_to_snapshot);
    const auto nested = static_cast<pid_t>(kid.ask(nested_spawn));
    BOOST_TEST(kid.ask(nested_junk, too_long) == 1);
    BOOST_TEST(eventually([&] { return !process_exists(nested); }));
  }
  BOOST_TEST(kid.ask(echo) == echo);
  BOOST_TEST(kid.ask(connect_to_snapshot) == connect_to_snapshot);
  BOOST_TEST(kid.ask(nested_spawn) > 0);
  BOOST_TEST(far.works());
}

namespace {

// The sending end of the rendezvous socket, in a process that is not a child.
OwnedFd door_of(const Kid& kid) {
  kid.order(pass_door);
  if (!is_ready(kid.socket.get())) throw std::runtime_error("the child does not answer");
  std::int64_t said = 0;
  Packet packet = receive_packet(kid.socket.get(), &said, sizeof said);
  if (!packet.along) throw std::runtime_error("no door");
  return std::move(packet.along);
}

}  // namespace

// It is neither the program nor a child of the snapshot: another process of the program.
BOOST_AUTO_TEST_CASE(a_stranger_is_refused, *testing::guarantee("B.2")) {
  Far far;
  const Kid kid = far.spawn();
  OwnedFd rendezvous = door_of(kid);
  for (int i = 0; i < 20; ++i) {
    OwnedFd ours;
    OwnedFd theirs;
    BOOST_REQUIRE(make_pair(PairKind::packets, ours, theirs) == 0);
    Request request{};
    request.kind = RequestKind::stop;
    send_packet(ours.get(), &request, sizeof request, -1);
    const pid_t stranger = ::fork();
    if (stranger == 0)
      ::_exit(send_packet(rendezvous.get(), "k", 1, theirs.get()) == IoResult::done ? 0 : 1);
    BOOST_REQUIRE(end_of(stranger) == 0);
    theirs.close();
    Report reported{};
    BOOST_REQUIRE(is_ready(ours.get()));
    BOOST_TEST(receive_packet(ours.get(), &reported, sizeof reported).size == sizeof reported);
    BOOST_TEST((reported.kind == ReportKind::failed));
    BOOST_TEST(reported.id == no_spawn);
    BOOST_TEST(sees_end(ours));
  }
  BOOST_TEST(far.works());
  rendezvous.close();
}

// It named the program in SCM_CREDENTIALS, and had the rights of another Reactor of it.
BOOST_AUTO_TEST_CASE(a_child_that_claims_to_be_the_program_is_refused, *testing::guarantee("B.2")) {
  if (::geteuid() != 0) return testing::skip("only root may name another process");
  Far far;
  const Kid kid = far.spawn();
  BOOST_TEST(kid.ask(connect_as_program) == 1);
  BOOST_TEST(kid.ask(connect_to_snapshot) == connect_to_snapshot);
  BOOST_TEST(kid.ask(nested_spawn) > 0);
}

// ---- shares ----

BOOST_AUTO_TEST_CASE(a_child_cannot_take_the_control_sockets_of_others,
                     *testing::guarantee("B.3")) {
  Far far;
  const Kid kid = far.spawn();
  BOOST_TEST(kid.ask(connect_often, 65) == 1);
  const Kid other = far.spawn();
  BOOST_TEST(other.ask(connect_to_snapshot) == connect_to_snapshot);
  BOOST_TEST(other.ask(nested_spawn) > 0);
  // They are free again when it has ended.
  kid.order(leave, 0);
  BOOST_TEST(far.next().id == kid.id);
  const Kid next = far.spawn();
  BOOST_TEST(next.ask(connect_often, 65) == 1);
}

BOOST_AUTO_TEST_CASE(children_together_leave_control_sockets_to_the_program,
                     *testing::guarantee("B.3")) {
  InZeroedMemory<ChildTable> children;
  InZeroedMemory<ClientTable> clients;
  children->set_up();
  clients->set_up(*children, OwnedFd(), false);
  OwnedFd none;
  std::size_t accepted = 0;
  for (ChildIndex owner = 0; owner < 40; ++owner)
    for (std::size_t i = 0; i < clients_of_one_child; ++i)
      accepted += clients->accept_client(none, owner) != no_client;
  BOOST_TEST(accepted == clients_of_children);
  std::vector<ClientIndex> reactors;
  for (int i = 0; i < 64; ++i) {
    reactors.push_back(clients->accept_client(none, the_program));
    BOOST_TEST(reactors.back() != no_client);
  }
  BOOST_TEST(clients->accept_client(none, the_program) == no_client);
  clients->close(reactors.front());
  BOOST_TEST(clients->accept_client(none, 39) == no_client);
  BOOST_TEST(clients->accept_client(none, the_program) == reactors.front());
}

namespace {

// Fills the slots that a client may have with children that have ended, and that it acknowledges never.
std::uint32_t take_all_slots(ChildTable& children, ClientTable& clients, ClientIndex client) {
  static pid_t pid = 0;
  const ChildIndex owner = clients[client].owner;
  std::uint32_t taken = 0;
  while (children.may_have_another(owner)) {
    const ChildIndex index = children.take_free();
    if (index == no_child) break;
    children.add(index, ++pid, client, ++taken, owner);
    children.mark_ended(index);
    children[index].number = ++clients[client].exits;
    children.push(clients[client].reported, index);
  }
  return taken;
}

}  // namespace

BOOST_AUTO_TEST_CASE(children_that_acknowledge_nothing_leave_slots_to_others,
                     *testing::guarantee("B.3")) {
  InZeroedMemory<ChildTable> children;
  InZeroedMemory<ClientTable> clients;
  children->set_up();
  clients->set_up(*children, OwnedFd(), false);
  OwnedFd none;
  std::vector<ClientIndex> liars;
  std::uint32_t taken = 0;
  for (pid_t pid = 1000001; pid <= 1000005; ++pid) {
    const ChildIndex owner = children->take_free();
    children->add(owner, pid, 0, 1, no_child);
    liars.push_back(clients->accept_client(none, owner));
    const std::uint32_t here = take_all_slots(*children, *clients, liars.back());
    BOOST_TEST(here == std::min(slots_of_one_child, slots_of_children - taken));
    // A second control socket does not give it more.
    const ClientIndex second = clients->accept_client(none, owner);
    BOOST_TEST(take_all_slots(*children, *clients, second) == 0U);
    taken += here;
  }
  BOOST_TEST(taken == slots_of_children);
  for (std::uint32_t i = taken + 5; i < slot_count; ++i)
    BOOST_REQUIRE(children->take_free() != no_child);  // those of the program
  // What is acknowledged, and what a client leaves behind, is free again.
  clients->free_seen(liars[0], 0);
  BOOST_TEST(!children->may_have_another((*clients)[liars[0]].owner));
  clients->free_seen(liars[0], 1000);
  BOOST_TEST(take_all_slots(*children, *clients, liars[0]) == 1000U);
  clients->close(liars[1]);
  const ClientIndex again = clients->accept_client(none, (*clients)[liars[1]].owner);
  BOOST_TEST(take_all_slots(*children, *clients, again) == slots_of_one_child);
}

BOOST_AUTO_TEST_CASE(a_child_that_acknowledges_nothing_gets_no_further_slot,
                     *testing::guarantee("B.3")) {
  if (testing::sanitized || testing::emulated())
    return testing::skip("4096 forks take minutes here");
  Far far;
  const Kid kid = far.spawn();
  BOOST_TEST(kid.ask(connect_to_snapshot) == connect_to_snapshot);
  BOOST_TEST(kid.ask(nested_spawns) == slots_of_one_child);
  BOOST_TEST(kid.ask(nested_spawns) == 0);
  BOOST_TEST(far.works());
  const Kid other = far.spawn();
  BOOST_TEST(other.ask(connect_to_snapshot) == connect_to_snapshot);
  BOOST_TEST(other.ask(nested_spawn) > 0);
  // The slots are free again when it has ended.
  kid.order(leave, 0);
  BOOST_TEST(far.next().id == kid.id);
  BOOST_TEST(other.ask(nested_exit, 0) == 0);
  BOOST_TEST(other.ask(nested_spawn) > 0);
}

// ---- other sockets ----

// The snapshot took any socket for a control socket: it waited in close(2), or for events of it without end.
BOOST_AUTO_TEST_CASE(another_socket_than_a_control_socket_is_dropped, *testing::guarantee("B.2")) {
  Far far;
  const Kid kid = far.spawn();
  OwnedFd rendezvous = door_of(kid);
  {
    testing::TcpPair tcp;
    send_packet(rendezvous.get(), "k", 1, tcp.fds[0]);
    tcp.close(0);
    char bytes[65536];
    ssize_t got;
    do got = ::recv(tcp.fds[1], bytes, sizeof bytes, 0);
    while (got > 0);
    BOOST_TEST(got == 0);  // the end: nobody has the other socket any more
  }
  for (const PairKind kind : {PairKind::datagrams, PairKind::stream}) {
    OwnedFd ours;
    OwnedFd theirs;
    BOOST_REQUIRE(make_pair(kind, ours, theirs) == 0);
    send_packet(rendezvous.get(), "k", 1, theirs.get());
    theirs.close();
    BOOST_TEST(far.works());
    BOOST_TEST(testing::eventually(
        [&] { return ::send(ours.get(), "x", 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0; }));
  }
  BOOST_TEST(far.works());
  rendezvous.close();
}

// A thread of the program with a Reactor of its own.
BOOST_AUTO_TEST_CASE(another_reactor_of_the_program_has_children_of_its_own) {
  Far far;
  const Kid kid = far.spawn();
  OwnedFd rendezvous = door_of(kid);
  {
    Far other(far, rendezvous);
    BOOST_TEST(other.works());
    const Kid its = other.spawn();
    BOOST_TEST(its.ask(echo) == echo);
    // It knows no child of the first one, and cannot stop the snapshot.
    other.kill(kid, SIGKILL);
    other.stop();
    BOOST_TEST(other.works());
    BOOST_TEST(kid.ask(echo) == echo);
    other.control.reset();
    BOOST_TEST(sees_end(its.socket));
  }
  BOOST_TEST(kid.ask(echo) == echo);
  BOOST_TEST(far.works());
  rendezvous.close();
}

BOOST_AUTO_TEST_CASE(children_of_a_reactor_that_has_left_have_their_time) {
  Far far;
  const Kid kid = far.spawn();
  OwnedFd rendezvous = door_of(kid);
  Far other(far, rendezvous);
  const Kid first = other.spawn();
  const Kid second = other.spawn();
  Request request{};
  request.kind = RequestKind::leave;
  BOOST_REQUIRE(other.send(request));
  BOOST_TEST(far.works());
  BOOST_TEST(first.ask(echo) == echo);
  first.order(leave, 0);
  BOOST_TEST(sees_end(first.socket));
  BOOST_TEST(second.ask(echo) == echo);
  BOOST_TEST(other.says_nothing());
  second.order(leave, 0);
  BOOST_TEST(other.is_over());  // without a report about either
  Far later(far, rendezvous);
  BOOST_REQUIRE(later.send(request));
  BOOST_TEST(later.is_over());
  BOOST_TEST(far.works());
  rendezvous.close();
}

BOOST_AUTO_TEST_CASE(a_connection_request_without_a_socket_does_no_harm) {
  Far far;
  const Kid kid = far.spawn();
  OwnedFd rendezvous = door_of(kid);
  const std::string long_knock(5000, 'k');
  BOOST_TEST((send_packet(rendezvous.get(), "k", 1, -1) == IoResult::done));
  BOOST_TEST(
      (send_packet(rendezvous.get(), long_knock.data(), long_knock.size(), -1) == IoResult::done));
  BOOST_TEST((send_packet(rendezvous.get(), "", 0, -1) == IoResult::done));
  BOOST_TEST(far.works());
  BOOST_TEST(kid.ask(connect_to_snapshot) == connect_to_snapshot);
  BOOST_TEST(kid.ask(nested_spawn) > 0);
  rendezvous.close();
}

// Only the parent may stop the snapshot.
BOOST_AUTO_TEST_CASE(a_child_cannot_stop_the_snapshot, *testing::guarantee("B.1")) {
  Far far;
  const Kid kid = far.spawn();
  OwnedFd rendezvous = door_of(kid);
  kid.ask(connect_to_snapshot);
  BOOST_TEST(kid.ask(nested_spawn) > 0);
  rendezvous.close();
  BOOST_TEST(far.works());
}

// ---- replicas ----

BOOST_AUTO_TEST_CASE(a_replica_is_forked_beside_the_process_that_is_asked) {
  Far far;
  const Kid kid = far.spawn();
  {
    Far replica(far, Far::Sent::all);
    BOOST_TEST(replica.begun.code == 0);
    BOOST_TEST(replica.birth.code == 0);
    BOOST_TEST(replica.birth.pid == replica.begun.pid);
    BOOST_TEST(replica.pid != far.pid);
    BOOST_TEST(::getpgid(replica.pid) == replica.pid);
    // It has slots and a table of its own: its first child has the first slot.
    const Kid its = replica.spawn();
    BOOST_TEST(its.slot == kid.slot);
    its.ask(begin_call, 5);
    BOOST_TEST((CallState::of(replica.slots[its.slot].call.load()).id == 5u));
    BOOST_TEST((CallState::of(far.slots[kid.slot].call.load()).id == 0u));
    // It has none of the sockets of the other: control, rendezvous, and those of the child on its way.
    BOOST_TEST(eventually(
        [&] { return descriptors_of(replica.pid).size() == descriptors_of(far.pid).size(); }));
    // It is asked to fork one, too.
    Far another(replica, Far::Sent::all);
    BOOST_TEST(another.begun.pid != replica.pid);
    BOOST_TEST(another.works());
    BOOST_TEST(replica.works());
    another.control.reset();
    BOOST_TEST(another.end() == 0);
    unmap_slots(another.slots);
    unmap_slots(replica.slots);
  }
  // The end of a replica, with its children, affects no child of the other.
  BOOST_TEST(kid.ask(echo) == echo);
  BOOST_TEST(far.works());
}

BOOST_AUTO_TEST_CASE(a_replica_outlives_the_process_that_forked_it) {
  Far far;
  const Kid kid = far.spawn();
  Far replica(far, Far::Sent::all);
  ::kill(far.pid, SIGKILL);
  BOOST_TEST(far.end() == 1000 + SIGKILL);
  BOOST_TEST(sees_end(far.control));
  BOOST_TEST(sees_end(kid.socket));
  BOOST_TEST(replica.works());
  replica.stop();
  BOOST_TEST(replica.end() == 0);
  unmap_slots(replica.slots);
}

BOOST_AUTO_TEST_CASE(a_replica_that_cannot_start_reports_why) {
  Far far;
  for (const Far::Sent sent : {Far::Sent::nothing, Far::Sent::no_slots}) {
    Far replica(far, sent);
    BOOST_TEST(replica.begun.code == (sent == Far::Sent::nothing ? EPROTO : EMFILE));
    BOOST_TEST(replica.begun.pid == replica.birth.pid);
    BOOST_TEST(replica.is_over());
    BOOST_TEST(replica.end() == 71);
    unmap_slots(replica.slots);
  }
  BOOST_TEST(far.works());
}

// Only the parent may ask for one.
BOOST_AUTO_TEST_CASE(a_child_cannot_have_a_replica_forked, *testing::guarantee("B.1")) {
  Far far;
  const Kid kid = far.spawn();
  kid.ask(connect_to_snapshot);
  BOOST_TEST(kid.ask(nested_spawn) > 0);
  BOOST_TEST(kid.ask(nested_replica) == 1);
  BOOST_TEST(testing::children_of(::getpid()) == std::vector<pid_t>{far.pid},
             boost::test_tools::per_element());
  BOOST_TEST(far.works());
}

BOOST_AUTO_TEST_SUITE_END()
