// control_client.cpp - the client end of a control socket, with a real snapshot: it queues requests and receives
// reports.  Then the table of spawns, the table of spares, and the pool of objects.
#include "elsewhere.hpp"
#include "private_names.hpp"
#include "process.hpp"
#include "testing.hpp"

#include "spawn/control_client.hpp"
#include "system/fork.hpp"
#include "snapshot/server.hpp"
#include "base/object_pool.hpp"
#include "system/socket.hpp"
#include "spawn/spare_children.hpp"
#include "spawn/spawn_table.hpp"
#include "codec/wire.hpp"

#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <memory>
#include <random>
#include <set>
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

namespace {

// A child sends each byte back, and exits with the status that follows an 'x'.
void child_main(ChildArgs&& spawn) {
  char byte;
  while (::recv(spawn.socket.get(), &byte, 1, 0) == 1) {
    if (byte == 'x') {
      if (::recv(spawn.socket.get(), &byte, 1, 0) != 1) break;
      ::_exit(byte);
    }
    if (::send(spawn.socket.get(), &byte, 1, MSG_NOSIGNAL) != 1) break;
  }
  ::_exit(0);
}

void become_server(void* argument) {
  ServerStart& start = *static_cast<ServerStart*>(argument);
  close_registered_except(
      {start.control.get(), start.rendezvous.get(), start.rendezvous_child.get()});
  set_role(Role::snapshot);
  serve(std::move(start));
}

// One snapshot and its client.
class Far {
public:
  Far() {
    ServerStart start;
    OwnedFd ours;
    if (make_pair(PairKind::packets, ours, start.control) != 0)
      throw std::runtime_error("no socket pair");
    if (make_rendezvous(start.rendezvous, start.rendezvous_child) != 0)
      throw std::runtime_error("no rendezvous socket");
    start.slots = map_slots();
    start.cancel_table = CancelTable::map();
    start.program = Program::here();
    start.child_main = &child_main;
    const Forked forked = fork_clean(&become_server, &start);
    start.control.close();
    start.rendezvous.close();
    start.rendezvous_child.close();
    if (forked.pid < 0) throw std::runtime_error("no fork");
    make_group(forked.pid);
    pid = forked.pid;
    client = ControlClient(std::move(ours));
    Report begun{};
    const auto reported = [&] { return client.take(begun) == IoResult::done; };
    if (!testing::eventually(reported) || begun.kind != ReportKind::begun)
      throw std::runtime_error("the snapshot has not begun");
  }
  Far(const Far&) = delete;
  Far& operator=(const Far&) = delete;
  ~Far() {
    client.close();
    if (pid == 0) return;
    ::kill(pid, SIGCONT);
    end();
  }

  // The parent's end of the data socket of a child.
  OwnedFd ask_for_child(std::uint64_t id) {
    OwnedFd ours;
    OwnedFd theirs;
    if (make_pair(PairKind::stream, ours, theirs) != 0) throw std::runtime_error("no socket pair");
    Request request{};
    request.kind = RequestKind::spawn;
    request.slot = no_slot;
    request.id = id;
    if (!client.ask(request, std::move(theirs))) throw std::runtime_error("the queue is full");
    return ours;
  }
  // A request without an effect.
  bool ask_nothing() {
    Request request{};
    request.kind = RequestKind::kill;
    request.slot = no_slot;
    request.id = 999999;
    return client.ask(request);
  }
  void fill() {
    for (int i = 0; i < 100000 && client.idle(); ++i) ask_nothing();
  }
  void flush_all() {
    while (!client.flush())
      if (!is_ready(client.fd(), POLLOUT)) throw std::runtime_error("the snapshot reads nothing");
  }
  Report next() {
    Report report{};
    for (;;) {
      const IoResult flow = client.take(report);
      if (flow == IoResult::done) return report;
      if (flow == IoResult::closed || !is_ready(client.fd())) throw std::runtime_error("no report");
    }
  }
  void suspend() {
    ::kill(pid, SIGSTOP);
    if (!eventually([&] { return state_of(pid) == 'T'; })) throw std::runtime_error("not stopped");
  }
  void wake() { ::kill(pid, SIGCONT); }
  int end() {
    int status = 0;
    const pid_t which = std::exchange(pid, 0);
    if (!eventually([&] { return ::waitpid(which, &status, WNOHANG) == which; })) {
      ::kill(which, SIGKILL);
      ::waitpid(which, nullptr, 0);
      return -1;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
  }

  pid_t pid = 0;
  ControlClient client;
};

bool echoes(const OwnedFd& socket) {
  char byte = 'e';
  if (::send(socket.get(), &byte, 1, MSG_NOSIGNAL) != 1) return false;
  byte = 0;
  return is_ready(socket.get()) && ::recv(socket.get(), &byte, 1, 0) == 1 && byte == 'e';
}

void leave(const OwnedFd& socket, char status) {
  const char bytes[] = {'x', status};
  BOOST_REQUIRE(::send(socket.get(), bytes, 2, MSG_NOSIGNAL) == 2);
}

bool sees_end(const OwnedFd& socket) {
  char byte;
  return is_ready(socket.get()) &&
         receive(socket.get(), &byte, 1, Wait::no).flow == IoResult::closed;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(client)

BOOST_AUTO_TEST_CASE(a_client_without_a_socket_does_nothing) {
  ControlClient none;
  BOOST_TEST(!none);
  BOOST_TEST(none.idle());
  BOOST_TEST(none.fd() == -1);
  none.close();
}

BOOST_AUTO_TEST_CASE(a_request_is_answered_by_reports) {
  Far far;
  BOOST_TEST(static_cast<bool>(far.client));
  Report report{};
  BOOST_TEST((far.client.take(report) == IoResult::would_block));
  const std::size_t before = testing::count_descriptors();
  const OwnedFd socket = far.ask_for_child(5);
  BOOST_TEST(testing::count_descriptors() == before + 1);  // the child's end was sent
  BOOST_TEST(far.client.idle());
  BOOST_TEST(far.client.flush());
  report = far.next();
  BOOST_TEST((report.kind == ReportKind::spawned));
  BOOST_TEST(report.id == 5U);
  BOOST_TEST(echoes(socket));
  leave(socket, 9);
  report = far.next();
  BOOST_TEST((report.kind == ReportKind::exited));
  BOOST_TEST(report.id == 5U);
  BOOST_TEST((WIFEXITED(report.code) && WEXITSTATUS(report.code) == 9));
  BOOST_TEST((far.client.take(report) == IoResult::would_block));
}

BOOST_AUTO_TEST_CASE(requests_wait_in_order_while_the_socket_is_full) {
  Far far;
  const OwnedFd first = far.ask_for_child(1);
  far.next();
  BOOST_TEST(echoes(first));
  far.suspend();
  far.fill();
  BOOST_TEST(!far.client.idle());
  BOOST_TEST(!far.client.flush());
  const std::size_t before = testing::count_descriptors();
  std::vector<OwnedFd> sockets;
  for (std::uint64_t id = 10; id < 30; ++id) sockets.push_back(far.ask_for_child(id));
  BOOST_TEST(testing::count_descriptors() == before + 40);  // their ends wait too
  Request request{};
  request.kind = RequestKind::kill;
  request.slot = no_slot;
  request.id = 29;
  request.signum = SIGKILL;
  BOOST_TEST(far.client.ask(request));
  Report report{};
  BOOST_TEST((far.client.take(report) == IoResult::would_block));
  far.wake();
  far.flush_all();
  BOOST_TEST(far.client.idle());
  BOOST_TEST(testing::count_descriptors() == before + 20);
  for (std::uint64_t id = 10; id < 30; ++id) {
    report = far.next();
    BOOST_TEST((report.kind == ReportKind::spawned));
    BOOST_TEST(report.id == id);
  }
  report = far.next();
  BOOST_TEST((report.kind == ReportKind::exited));
  BOOST_TEST(report.id == 29U);
  for (std::size_t i = 0; i + 1 < sockets.size(); ++i) BOOST_TEST(echoes(sockets[i]));
}

BOOST_AUTO_TEST_CASE(requests_wait_while_too_many_descriptors_are_in_flight,
                     *testing::guarantee("B.4")) {
  const int status = testing::elsewhere([] {
    if (::getuid() == 0 && ::setuid(65533) != 0) return 1;
    Far far;
    far.suspend();
    const rlimit tight{20, 20};
    ::setrlimit(RLIMIT_NOFILE, &tight);
    // The sockets are closed here, and stay in flight.
    std::uint64_t id = 1;
    for (; id < 100 && far.client.idle(); ++id) far.ask_for_child(id);
    if (!far.client.must_retry()) return 2;
    far.ask_for_child(id);  // behind it
    if (far.client.flush() || !far.client.must_retry()) return 3;
    far.wake();
    far.flush_all();
    return far.client.idle() && !far.client.must_retry() ? 0 : 4;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(the_queue_of_requests_has_a_limit, *testing::guarantee("7.3")) {
  Far far;
  const OwnedFd first = far.ask_for_child(1);
  far.next();
  far.suspend();
  far.fill();  // fills the socket; the first request then waits
  std::size_t waiting = 1;
  while (waiting < 200000 && far.ask_nothing()) ++waiting;
  BOOST_TEST(waiting == 65536U);
  // The end in a refused request is not kept.
  OwnedFd ours;
  OwnedFd theirs;
  BOOST_REQUIRE(make_pair(PairKind::stream, ours, theirs) == 0);
  Request request{};
  request.kind = RequestKind::spawn;
  request.slot = no_slot;
  request.id = 2;
  BOOST_TEST(!far.client.ask(request, std::move(theirs)));
  BOOST_TEST(sees_end(ours));
  far.wake();
  far.flush_all();
  const OwnedFd last = far.ask_for_child(3);
  far.flush_all();  // the last of the others may have filled the socket
  const Report report = far.next();
  BOOST_TEST((report.kind == ReportKind::spawned));
  BOOST_TEST(report.id == 3U);
}

BOOST_AUTO_TEST_CASE(acknowledged_exits_free_their_slots) {
  Far far;
  std::uint32_t slots[2];
  for (std::uint32_t& slot : slots) {
    const OwnedFd socket = far.ask_for_child(1);
    slot = far.next().slot;
    leave(socket, 0);
    BOOST_TEST((far.next().kind == ReportKind::exited));
  }
  BOOST_TEST(slots[0] == slots[1]);
}

// The count in a request is that of the moment when it is sent, not when it was queued.
BOOST_AUTO_TEST_CASE(a_queued_request_has_the_latest_count_when_it_is_sent) {
  Far far;
  const OwnedFd first = far.ask_for_child(1);
  const std::uint32_t slot = far.next().slot;
  leave(first, 0);
  BOOST_REQUIRE(is_ready(far.client.fd()));
  far.suspend();
  far.fill();
  const OwnedFd second = far.ask_for_child(2);
  BOOST_TEST((far.next().kind == ReportKind::exited));
  far.wake();
  far.flush_all();
  const Report report = far.next();
  BOOST_TEST((report.kind == ReportKind::spawned));
  BOOST_TEST(report.slot == slot);
}

BOOST_AUTO_TEST_CASE(a_closed_client_sends_nothing) {
  Far far;
  const OwnedFd first = far.ask_for_child(1);
  far.next();
  far.suspend();
  far.fill();
  const OwnedFd second = far.ask_for_child(2);
  far.client.close();
  BOOST_TEST(!far.client);
  BOOST_TEST(far.client.idle());
  BOOST_TEST(sees_end(second));  // its request was never sent
  far.wake();
  BOOST_TEST(far.end() == 0);
}

BOOST_AUTO_TEST_CASE(the_end_comes_after_all_reports) {
  Far far;
  std::vector<OwnedFd> sockets;
  for (std::uint64_t id = 1; id <= 4; ++id) sockets.push_back(far.ask_for_child(id));
  for (const OwnedFd& socket : sockets) BOOST_TEST(echoes(socket));  // so three reports were sent
  far.suspend();
  BOOST_TEST(far.ask_nothing());  // the snapshot dies with this unread
  ::kill(far.pid, SIGKILL);
  BOOST_TEST(far.end() == 1000 + SIGKILL);
  Report report{};
  std::uint64_t reported = 0;
  IoResult flow = IoResult::done;
  for (int i = 0; i < 10 && flow == IoResult::done; ++i) {
    flow = far.client.take(report);
    if (flow != IoResult::done) break;
    BOOST_TEST((report.kind == ReportKind::spawned));
    BOOST_TEST(report.id == ++reported);
  }
  BOOST_TEST((flow == IoResult::closed));
  BOOST_TEST(reported >= 3U);
  BOOST_TEST((far.client.take(report) == IoResult::closed));
}

BOOST_AUTO_TEST_CASE(a_request_to_a_dead_snapshot_does_no_harm) {
  Far far;
  ::kill(far.pid, SIGKILL);
  BOOST_TEST(far.end() == 1000 + SIGKILL);
  for (int i = 0; i < 3; ++i) {
    const OwnedFd socket = far.ask_for_child(1);
    BOOST_TEST(sees_end(socket));
    BOOST_TEST(far.client.idle());
    BOOST_TEST(far.client.flush());
  }
  Report report{};
  BOOST_TEST((far.client.take(report) == IoResult::closed));
}

// Queued requests are dropped with the snapshot: their sockets get an end of file.
BOOST_AUTO_TEST_CASE(queued_requests_to_a_dead_snapshot_are_dropped) {
  Far far;
  const OwnedFd first = far.ask_for_child(1);
  far.next();
  BOOST_TEST(echoes(first));  // now the child holds no descriptor of the snapshot
  far.suspend();
  far.fill();
  const OwnedFd second = far.ask_for_child(2);
  ::kill(far.pid, SIGKILL);
  BOOST_TEST(far.end() == 1000 + SIGKILL);
  BOOST_TEST(far.client.flush());
  BOOST_TEST(far.client.idle());
  BOOST_TEST(sees_end(second));
}

// A packet with the size of no report ends the connection.
BOOST_AUTO_TEST_CASE(a_broken_report_ends_the_connection) {
  for (const std::size_t size : {std::size_t{4}, sizeof(Report) - 1, sizeof(Report) + 1}) {
    OwnedFd ours;
    OwnedFd theirs;
    BOOST_REQUIRE(make_pair(PairKind::packets, ours, theirs) == 0);
    ControlClient client(std::move(ours));
    const std::string junk(size, 1);
    // The socket refuses descriptors, if the kernel has sockets that do.
    if (send_packet(theirs.get(), junk.data(), size, STDERR_FILENO) != IoResult::done)
      BOOST_TEST((send_packet(theirs.get(), junk.data(), size, -1) == IoResult::done));
    const std::size_t before = testing::count_descriptors();
    Report report{};
    BOOST_TEST((client.take(report) == IoResult::closed), size << " bytes");
    BOOST_TEST(testing::count_descriptors() == before);
  }
}

BOOST_AUTO_TEST_SUITE_END()

// ---- spawns ----

BOOST_AUTO_TEST_CASE(a_spawn_is_found_until_it_is_erased) {
  SpawnTable spawns;
  BOOST_TEST(spawns.find(1) == nullptr);
  spawns.erase(1);
  SpawnRecord& added = spawns.add(1);
  BOOST_TEST(added.id == 1u);
  BOOST_TEST(added.slot == no_slot);
  BOOST_TEST(!added.asked);
  added.pid = 4711;
  BOOST_REQUIRE(spawns.find(1) != nullptr);
  BOOST_TEST(spawns.find(1)->pid == 4711);
  BOOST_TEST(spawns.find(0) == nullptr);
  BOOST_TEST(spawns.find(2) == nullptr);
  spawns.erase(1);
  BOOST_TEST(spawns.find(1) == nullptr);
  spawns.erase(1);
  BOOST_TEST(spawns.ids().empty());
}

// The ids of spares are above all others, and both sequences increase.
BOOST_AUTO_TEST_CASE(spawns_may_end_in_any_order) {
  std::mt19937 random(testing::seed(41));
  SpawnTable spawns;
  std::set<std::uint64_t> expected;
  std::uint64_t next = 1;
  std::uint64_t next_spare = Spares::first_id;
  const auto one_of_them = [&] {
    auto found = expected.begin();
    std::advance(found, random() % expected.size());
    return *found;
  };
  for (int i = 0; i < 20000; ++i) {
    if (expected.empty() || (random() % 10 < 6 && i < 12000)) {
      const bool spare = random() % 4 == 0;
      const std::uint64_t id = spare ? next_spare++ : next++;
      next += random() % 3 == 0;  // a replica's id
      spawns.add(id).pid = static_cast<pid_t>(id & 0xffff);
      expected.insert(id);
    } else {
      const std::uint64_t id = one_of_them();
      spawns.erase(id);
      expected.erase(id);
      BOOST_REQUIRE(!spawns.find(id));
    }
    if (expected.empty()) continue;
    const std::uint64_t id = one_of_them();
    BOOST_REQUIRE(spawns.find(id));
    BOOST_REQUIRE(spawns.find(id)->id == id);
    BOOST_REQUIRE(spawns.find(id)->pid == static_cast<pid_t>(id & 0xffff));
  }
  const std::vector<std::uint64_t> ids = spawns.ids();
  BOOST_TEST(std::equal(ids.begin(), ids.end(), expected.begin(), expected.end()));
}

BOOST_AUTO_TEST_CASE(a_spare_that_a_spawn_has_taken_is_no_longer_a_spare) {
  SpawnTable spawns;
  BOOST_TEST(spawns.only_spares());
  spawns.add(Spares::first_id).spare = true;
  BOOST_TEST(spawns.only_spares());
  spawns.add(1);
  BOOST_TEST(!spawns.only_spares());
  spawns.erase(1);
  BOOST_TEST(spawns.only_spares());
  spawns.find(Spares::first_id)->spare = false;
  BOOST_TEST(!spawns.only_spares());
}

BOOST_AUTO_TEST_CASE(all_listeners_are_forgotten_at_once) {
  SpawnTable spawns;
  int somebody = 0;
  auto* const listener = reinterpret_cast<SpawnObserver*>(&somebody);
  for (const std::uint64_t id : {std::uint64_t{1}, std::uint64_t{2}, Spares::first_id})
    spawns.add(id).listener = listener;
  BOOST_TEST(spawns.find(2)->listener == listener);
  spawns.forget_listeners();
  for (const std::uint64_t id : spawns.ids()) BOOST_TEST(!spawns.find(id)->listener);
  BOOST_TEST(spawns.ids().size() == 3u);
}

// ---- an object pool ----

BOOST_AUTO_TEST_CASE(a_returned_object_is_lent_again) {
  ObjectPool<std::vector<int>> object_pool;
  Pooled<std::vector<int>> one(object_pool);
  Pooled<std::vector<int>> other(object_pool);
  BOOST_TEST(one.peek() == nullptr);
  one->reserve(100);
  const std::vector<int>* const place = one.peek();
  BOOST_TEST(&*one == place);
  one.give_back();
  BOOST_TEST(one.peek() == nullptr);
  BOOST_TEST(&*other == place);
  BOOST_TEST(other->capacity() >= 100u);
  BOOST_TEST(&*one != place);  // while the first object is in use
  other.give_back();
  other.give_back();
  BOOST_TEST(&*other == place);
}

// The pool does not keep its peak number of objects for ever.
BOOST_AUTO_TEST_CASE(an_object_pool_keeps_only_a_few_objects) {
  int living = 0;
  struct Counted {
    int* count = nullptr;
    ~Counted() {
      if (count) --*count;
    }
  };
  {
    ObjectPool<Counted> object_pool;
    std::vector<Pooled<Counted>> many;
    for (int i = 0; i < 100; ++i) {
      many.emplace_back(object_pool);
      many.back()->count = &living;
      ++living;
    }
    Pooled<Counted> moved = std::move(many.back());
    many.pop_back();
    for (Pooled<Counted>& one : many) one.give_back();
    BOOST_TEST(living >= 2);
    BOOST_TEST(living <= 20);
    BOOST_TEST(moved.peek() != nullptr);
  }
  BOOST_TEST(living == 0);
}

BOOST_AUTO_TEST_CASE(an_object_without_a_pool_is_kept_by_its_owner) {
  Pooled<std::vector<int>> own;
  BOOST_TEST(own.peek() == nullptr);
  own->push_back(1);
  own.give_back();
  BOOST_REQUIRE(own.peek() != nullptr);
  BOOST_TEST(own->size() == 1u);
  Pooled<std::vector<int>> given(std::make_unique<std::vector<int>>(3));
  BOOST_TEST(given->size() == 3u);
}
