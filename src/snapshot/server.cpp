// server.cpp - the main loop of the snapshot.
// Runs in: snapshot.  Licence: see COPYING.  Manual: evparallel(7), evparallel_protocol(7).
//
// Order of one iteration: send reports; act on expired timers; wait; reap, and drop the clients
// that have died without reading their requests; serve one request of each client.  A request of a
// dead client is never served, and its children are killed.  Now and then the loop scans for
// orphans.
#include "snapshot/server.hpp"

#include "base/startup_path.hpp"
#include "system/failpoint.hpp"
#include "system/fork.hpp"
#include "system/polling.hpp"
#include "system/process_stat.hpp"
#include "system/random_seed.hpp"
#include "system/socket.hpp"
#include "codec/wire.hpp"
#include "shared/cancel_table.hpp"
#include "snapshot/child_table.hpp"
#include "snapshot/client_table.hpp"
#include "snapshot/freeze_handshake.hpp"
#include "snapshot/orphans.hpp"
#include "snapshot/replica.hpp"
#include "snapshot/termination.hpp"

#include <malloc.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <new>

namespace evparallel::detail {

namespace {

constexpr std::size_t first_client = 3;  // in the array for poll(2)
constexpr std::int64_t drain_ms = 400;   // the time that children get when the parent is gone
// The time that killed processes then get to end.  It is long because a busy machine needs it, and
// because only the snapshot can kill their orphans, while it lives.
constexpr std::int64_t end_ms = 5000;

// Children do not inherit this mapping.  Otherwise, while a child lives, the first write to each
// page would copy it.
struct Server {
  pid_t self;
  OwnedFd signals;
  OwnedFd rendezvous;        // receives what others send to connect
  OwnedFd rendezvous_child;  // the end that children inherit
  bool stopping;
  bool reports_unread;  // the first client reads no reports any more
  OwnedFd replica;      // the control socket of a replica to fork; none most of the time
  Terminator terminator;
  // Signals, the rendezvous socket, the program if its number is not known, and each client.
  pollfd waits[client_limit + first_client];
  ClientTable clients;
  Orphans orphans;
  ChildTable children;  // last: large, and only its beginning is touched
};

Server* server;
const ServerStart* start;  // also mapped in children

// ---- reports ----

Report failed(std::uint64_t id, int error) noexcept {
  Report report{};
  report.kind = ReportKind::failed;
  report.slot = no_slot;
  report.id = id;
  report.code = error;
  return report;
}

void answer(ClientIndex client, const Report& report) noexcept {
  server->clients.answer(client, report);
}

// ---- ends of children and of clients ----

// Ends the children of the client, and drops its requests unread.
void disconnect(ClientIndex index) noexcept {
  if (!server->clients[index].open) return;
  server->clients.close(index);
  for (ChildIndex i = 0; i < server->children.used(); ++i) {
    ChildEntry& child = server->children[i];
    if (child.stage != Stage::living || child.client != index) continue;
    child.client = no_client;  // no client may get its report, least of all the next in this place
    if (child.of_child) --server->children[server->clients[index].owner].slots;
    server->terminator.signal(i, SIGKILL, Cause::terminated);
  }
}

[[noreturn]] void leave() noexcept;

// A control socket has ended.  Without the parent there is no work left.
void lose(ClientIndex client) noexcept {
  if (server->clients[client].owner == no_child) leave();
  disconnect(client);
}

// The last child of a client that has left has ended.
void check_left(ClientIndex client) noexcept {
  if (server->clients[client].leaving && !server->children.any_of(client)) disconnect(client);
}

bool is_child(pid_t pid) noexcept {
  return server->children.find_pid(pid) != no_child;
}

void reap() noexcept {
  Reaped ended;
  while (reap_next(ended, is_child)) {
    fault_at(Failpoint::reap);
    server->orphans.scan_soon();
    const ChildIndex index = server->children.find_pid(ended.pid);
    if (index == no_child) {
      server->orphans.mark_ended(ended.pid);
      continue;
    }
    server->children.mark_ended(index);
    ChildEntry& child = server->children[index];
    child.exit_report = server->terminator.exit_report(index, ended);
    for (ClientIndex i = 1; i < server->clients.used(); ++i)
      if (server->clients[i].open && server->clients[i].owner == index) disconnect(i);
    const ClientIndex client = child.client;
    if (client != no_client && !server->clients[client].leaving) {
      server->children.push(server->clients[client].to_report, index);
      continue;
    }
    server->clients.free_slot(index);
    if (client != no_client) check_left(client);
  }
}

// ---- requests ----

// EVPARALLEL_EARLY is not enough: this function does not return, and the compiler takes such a
// function for a rarely called one.
[[gnu::section(".text.hot")]] void enter_child(void* argument);

// Runs in the child.
void enter_child(void* argument) {
  ChildArgs& spawn = *static_cast<ChildArgs*>(argument);
  spawn.no_null_device = spawn.streams.dup_into_place();
  close_registered_except({spawn.socket.get(), spawn.rendezvous.get()});
  fault_at(Failpoint::data_socket, spawn.socket.get());
  if (!become_child(spawn.snapshot, spawn.group)) ::_exit(0);
  set_role(Role::child);
  start->child_main(std::move(spawn));
  ::_exit(70);
}

void spawn_child(ClientIndex client, const Request& request, Packet& packet) noexcept {
  ChildArgs spawn;
  const bool whole = spawn.streams.claim(request.streams, packet);
  const ClientEntry& from = server->clients[client];
  const ChildIndex owner = from.of_program() ? no_child : from.owner;
  const bool may = whole && (owner == no_child || server->children.may_have_another(owner));
  const ChildIndex index = may ? server->children.take_free() : no_child;
  if (index == no_child) {
    packet.close();
    spawn.streams = {};
    return answer(client, failed(request.id, whole ? EAGAIN : EMFILE));
  }
  Slot& slot = start->slots[index];
  slot.clear();
  spawn.id = request.id;
  spawn.slot = &slot;
  spawn.slots = start->slots;
  spawn.cancel_table = start->cancel_table;
  spawn.modules = &start->modules;
  spawn.snapshot = server->self;
  if (request.group == Group::parent) spawn.group = group_of(start->program.pid());
  spawn.socket = std::move(packet.along);
  spawn.rendezvous = std::move(server->rendezvous_child);
  seed_generators(request.seed);  // here, where those pages are this process's own already
  const Forked forked = fork_child(enter_child, &spawn);
  server->rendezvous_child = std::move(spawn.rendezvous);
  spawn.socket.close();  // the child's now; a second holder would hide the end of the child
  spawn.streams = {};
  if (forked.pid < 0) {
    server->children.free(index);
    return answer(client, failed(request.id, forked.error));
  }
  if (spawn.group == 0) make_group(forked.pid);
  server->children.add(index, forked.pid, client, request.id, owner);
  Report report{};
  report.kind = ReportKind::spawned;
  report.slot = index;
  report.id = request.id;
  report.pid = forked.pid;
  report.born_before = boottime_ns();
  answer(client, report);
}

// The child that a request is about; no_child: it has ended.
ChildIndex find_child(ClientIndex client, const Request& request) noexcept {
  const auto matches = [&](ChildIndex i) {
    const ChildEntry& child = server->children[i];
    return child.stage == Stage::living && child.client == client && child.id == request.id;
  };
  if (request.slot < server->children.used())
    return matches(request.slot) ? request.slot : no_child;
  for (ChildIndex i = 0; i < server->children.used(); ++i)
    if (matches(i)) return i;
  return no_child;
}

void direct_child(ClientIndex client, const Request& request) noexcept {
  const ChildIndex index = find_child(client, request);
  if (index == no_child) return;
  if (request.kind == RequestKind::kill)
    server->terminator.signal(index, request.signum, Cause::killed);
  else
    server->terminator.set_clocks(index, request);
}

void stop(ClientIndex client, bool reads_reports) noexcept {
  if (server->clients[client].owner != no_child) return;
  server->stopping = true;
  server->reports_unread = !reads_reports;
}

// A Reactor of the program ends, and its children have their time to end.
void let_go(ClientIndex client) noexcept {
  if (server->clients[client].owner == no_child) return;
  server->clients.stop_reports(client);
  server->clients[client].leaving = true;
  check_left(client);
}

// It is forked at the end of the iteration, because the copy must not return here: it has none of
// the tables.
void want_replica(ClientIndex client, Packet& packet) noexcept {
  if (server->clients[client].owner == no_child) server->replica = std::move(packet.along);
}

// Reads and serves one request of one client.
void serve_request(ClientIndex client) noexcept {
  Request request{};
  ClientEntry& from = server->clients[client];
  Packet packet = receive_packet(from.control.get(), &request, sizeof request);
  if (packet.flow == IoResult::would_block) return;
  if (packet.flow == IoResult::closed || packet.size != sizeof request) return lose(client);
  if (!from.of_program()) packet.clear_linger();
  fault_at(Failpoint::serve);
  server->clients.free_seen(client, request.seen);
  switch (request.kind) {
    case RequestKind::spawn: spawn_child(client, request, packet); break;
    case RequestKind::kill:
    case RequestKind::terminate:
    case RequestKind::kill_if_still_running:
    case RequestKind::kill_if_not_started: direct_child(client, request); break;
    case RequestKind::stop: stop(client, true); break;
    case RequestKind::stop_without_reports: stop(client, false); break;
    case RequestKind::fork_replica: want_replica(client, packet); break;
    case RequestKind::leave: let_go(client); break;
  }
}

// An explicit refusal, so that the child does not take it for the end of the snapshot.
void refuse(OwnedFd& control) noexcept {
  const Report report = failed(no_spawn, EAGAIN);
  send_packet(control.get(), &report, sizeof report, -1);
  control.reset();
}

// The child that has sent something, or the program, for another Reactor of it.  no_child: neither.
// A program in another pid namespace has the number 0 here, as it has in `program`.
ChildIndex owner_of(pid_t sender) noexcept {
  if (sender == start->program.pid()) return the_program;
  return sender > 0 ? server->children.find_pid(sender) : no_child;
}

// A child that asks for children of its own, and each further Reactor of the program, sends one end
// of a control socket through the rendezvous socket.  The kernel supplies the pid of the sender, for
// which root may choose another; nobody chooses that of the process that has made the socket.
void accept_from_rendezvous() noexcept {
  char byte;
  Packet packet = receive_packet(server->rendezvous.get(), &byte, sizeof byte);
  if (packet.flow != IoResult::done) return;
  fault_at(Failpoint::rendezvous);
  if (!packet.along || !is_packet_socket(packet.along.get())) return;
  const bool honest = packet.sender == maker_of_pair(packet.along.get());
  const ChildIndex owner = honest ? owner_of(packet.sender) : no_child;
  if (owner == no_child || server->clients.accept_client(packet.along, owner) == no_client)
    refuse(packet.along);
}

// ---- the loop ----

// True once `none_is_left` returns true.
template <class F>
bool wait_for_ends(std::int64_t ms, F none_is_left) noexcept {
  const std::int64_t until = later(now_ns(), ms);
  for (;;) {
    drain_signal_descriptor(server->signals.get());
    reap();
    if (none_is_left()) return true;
    const std::int64_t now = now_ns();
    if (now >= until) return false;
    pollfd signals{server->signals.get(), POLLIN, 0};
    wait_for(&signals, 1, wait_until(until, now));
  }
}

bool no_child_lives() noexcept {
  return server->children.living() == 0;
}

// All children and their orphans are dead already or are killed now.
[[noreturn]] void end_with_all() noexcept {
  server->orphans.look();  // orphans that are here already need not wait for the last child
  const auto all_have_ended = [] { return no_child_lives() && !server->orphans.look(); };
  do wait_for_ends(end_ms, all_have_ended);
  while (server->orphans.has_group());
  ::_exit(0);
}

// The parent is gone.  Children see end of file on their sockets and get `drain_ms` to drain and
// flush.
[[noreturn]] void leave() noexcept {
  server->rendezvous.reset();  // a child that connects now is refused, and can end
  for (ClientIndex i = 0; i < server->clients.used(); ++i) {
    server->clients[i].open = false;
    server->clients[i].control.reset();
  }
  wait_for_ends(drain_ms, no_child_lives);
  for (ChildIndex i = 0; i < server->children.used(); ++i)
    if (server->children[i].stage == Stage::living)
      server->terminator.signal(i, SIGKILL, Cause::terminated);
  end_with_all();
}

void report() noexcept {
  server->clients.report_orphans(server->orphans.killed());
  server->clients.report_refusal(refused_to_wait());
  for (ClientIndex i = 0; i < server->clients.used(); ++i) {
    server->clients.report_ends(i);
    if (server->clients[i].open && server->clients[i].gone) lose(i);
  }
}

bool nothing_left_to_do() noexcept {
  const ClientEntry& parent = server->clients[0];
  return server->stopping && no_child_lives() && (!parent.behind() || server->reports_unread);
}

void on_signals() noexcept {
  drain_signal_descriptor(server->signals.get());
  if (!start->program.lives()) leave();
  reap();
}

// poll(2) skips the place of a client that is gone, since its descriptor is -1.
std::size_t gather_waits(pollfd* waits) noexcept {
  waits[0] = {server->signals.get(), POLLIN, 0};
  waits[1] = {server->rendezvous.get(), POLLIN, 0};
  waits[2] = {start->program.descriptor(), POLLIN, 0};
  for (ClientIndex i = 0; i < server->clients.used(); ++i) {
    const ClientEntry& client = server->clients[i];
    waits[first_client + i] = {client.open ? client.control.get() : -1,
                               static_cast<short>(client.behind() ? POLLOUT : POLLIN), 0};
  }
  return first_client + server->clients.used();
}

int wait_time(std::int64_t now) noexcept {
  const int clocks = server->terminator.wait_time(now);
  const int look = server->orphans.wait_time(now);
  return clocks < 0 || look < 0 ? std::max(clocks, look) : std::min(clocks, look);
}

void turn(std::int64_t now) noexcept {
  pollfd* const waits = server->waits;
  const std::size_t count = gather_waits(waits);
  const int ready = wait_for(waits, count, wait_time(now));
  if (ready <= 0) return;
  if (waits[0].revents || waits[2].revents) on_signals();
  for (std::size_t i = first_client; i < count; ++i) {
    const auto index = static_cast<ClientIndex>(i - first_client);
    const ClientEntry& client = server->clients[index];
    if (!client.open || !waits[i].revents) continue;
    if (waits[i].revents & POLLHUP)
      lose(index);  // with its unread requests
    else if (!client.behind())
      serve_request(index);
    if (client.gone) lose(index);
  }
  if (waits[1].revents) accept_from_rendezvous();
}

// Returns memory that the program has freed and malloc has kept: each fork would copy its page
// tables.  Some is left at the end of the heap, because children would ask the kernel for it.
void give_back_free_memory() noexcept {
  constexpr std::size_t left = 128 * 1024;
  ::malloc_trim(left);
}

// Returns 0 or an errno: then it cannot serve, and the control socket is still in `given`.
int set_up(ServerStart& given) noexcept {
  void* memory = ::mmap(nullptr, sizeof(Server), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return errno;
  ::madvise(memory, sizeof(Server), MADV_DONTFORK);
  // Not value-initialised: the children are zero pages that are allocated as they are touched.
  server = static_cast<Server*>(memory);
  start = &given;
  new (&server->signals) OwnedFd(open_signal_descriptor());
  if (!server->signals) return errno;
  new (&server->rendezvous) OwnedFd(std::move(given.rendezvous));
  new (&server->rendezvous_child) OwnedFd(std::move(given.rendezvous_child));
  new (&server->replica) OwnedFd;
  server->children.set_up();
  server->terminator.set_up(server->children, start->slots);
  server->orphans.set_up(server->children);
  server->clients.set_up(server->children, std::move(given.control), given.program.pid() == 0);
  server->self = ::getpid();
  fault_at(Failpoint::control_socket, server->clients[0].control.get());
  return 0;
}

// The first report to the parent.  The pid in it is in the pid namespace in which children's pids
// are reported.
void report_begun(const OwnedFd& control, int error) noexcept {
  Report report{};
  report.kind = ReportKind::begun;
  report.slot = no_slot;
  report.pid = ::getpid();
  report.code = error;
  send_packet(control.get(), &report, sizeof report, -1);
}

void set_up_or_leave(ServerStart& given, int error) noexcept {
  if (error == 0) error = set_up(given);
  if (error == 0) return;
  report_begun(given.control, error);
  ::_exit(71);
}

// Returns in a replica that this process has forked, and in no other process.
void serve_until_copied(ServerStart& given) noexcept {
  for (;;) {
    fault_at(Failpoint::turn);
    report();
    if (nothing_left_to_do()) end_with_all();
    const std::int64_t now = now_ns();
    server->terminator.check_timers(now);
    server->orphans.scan_if_due(now);
    turn(now);
    if (server->replica && fork_replica(given, std::move(server->replica))) return;
  }
}

}  // namespace

// Senders are named from the beginning, because somebody may send before the snapshot serves.
int make_rendezvous(OwnedFd& served, OwnedFd& sender) noexcept {
  const int error = make_pair(PairKind::datagrams, served, sender);
  if (error == 0) name_senders(served.get());
  return error;
}

// A replica begins here as well, so that its stack is as deep as that of the first process.
void serve(ServerStart&& given) {
  given.program.look_from_snapshot();
  if (!become_snapshot(given.program.pid())) ::_exit(71);
  give_back_free_memory();
  if (given.freeze && !become_frozen(given)) ::_exit(71);
  set_up_or_leave(given, given.unprepared);
  detach_stdin();
  for (;;) {
    report_begun(server->clients[0].control, 0);
    serve_until_copied(given);
    server = nullptr;  // it is not mapped here
    set_up_or_leave(given, become_replica(given));
  }
}

}  // namespace evparallel::detail
