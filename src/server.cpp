// server.cpp - the turns of the snapshot.
// Licence: see COPYING.  Manual: evparallel(7), evparallel_protocol(7).
//
// Order of one turn: report; look at the clocks; wait; reap, and drop the clients that have died,
// unread; serve one request of each client.  What a dead client had asked for is never served, and
// what it had is killed.
#include "server.hpp"

#include "children.hpp"
#include "endings.hpp"
#include "fault.hpp"
#include "fork.hpp"
#include "socket.hpp"
#include "wire.hpp"

#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <new>

namespace evparallel {

namespace {

using ClientIndex = std::uint32_t;
constexpr ClientIndex no_client = UINT32_MAX;
constexpr std::size_t client_limit = 1025;  // the first client, and children that ask
constexpr std::int64_t drain_ms = 400;      // what children get when the parent is gone

struct Client {
  Descriptor control;
  ChildIndex owner = no_child;  // the child that it is; no_child: the parent
  bool open = false;
  bool stuck = false;  // `answer` could not be sent yet; no request is read before it is
  Report answer{};
  std::uint64_t exits = 0;  // reported so far
  ChildList to_report;
  ChildList reported;  // until the client says that it has seen them
};

struct Server {
  ServerStart start;
  pid_t self;
  Descriptor signals;
  Descriptor door;        // where children knock
  Descriptor door_child;  // the end that they inherit
  bool stopping;
  bool unheard;  // nobody reads the first client's reports any more
  ClientIndex clients_used;
  Client clients[client_limit];
  Children children;
  Endings endings;
};

Server* server;

// ---- reports ----

// There is something left to tell it; no request of its is read before that.
bool behind(const Client& client) noexcept {
  return client.stuck || !client.to_report.empty();
}

Report failed(std::uint64_t id, int error) noexcept {
  Report report{};
  report.kind = Tell::failed;
  report.slot = no_slot;
  report.id = id;
  report.code = error;
  return report;
}

void lose(ClientIndex) noexcept;

// False: the client's socket is full, or it is gone.
bool send_report(ClientIndex client, const Report& report) noexcept {
  fault_at(Hop::report);
  switch (send_packet(server->clients[client].control.get(), &report, sizeof report, -1)) {
    case Flow::done: return true;
    case Flow::again: return false;
    default: lose(client); return false;
  }
}

void answer(ClientIndex client, const Report& report) noexcept {
  Client& to = server->clients[client];
  to.answer = report;
  to.stuck = !send_report(client, report);
}

void report_ends(ClientIndex index) noexcept {
  Client& client = server->clients[index];
  if (client.open && client.stuck) client.stuck = !send_report(index, client.answer);
  while (client.open && !client.stuck && !client.to_report.empty()) {
    ChildEntry& child = server->children[client.to_report.first];
    if (!send_report(index, child.last_word)) return;
    child.number = ++client.exits;
    server->children.push(client.reported, server->children.pop(client.to_report));
  }
}

void free_seen(Client& client, std::uint64_t seen) noexcept {
  while (!client.reported.empty() && server->children[client.reported.first].number <= seen)
    server->children.free(server->children.pop(client.reported));
}

// ---- ends of children and of clients ----

// Its children end with a client, and what it had asked for is dropped unread.
void disconnect(ClientIndex index) noexcept {
  Client& client = server->clients[index];
  if (!client.open) return;
  client.open = false;
  client.control.reset();
  client.stuck = false;
  for (ChildList* list : {&client.to_report, &client.reported})
    for (ChildIndex i = server->children.pop(*list); i != no_child; i = server->children.pop(*list))
      server->children.free(i);
  for (ChildIndex i = 0; i < server->children.used(); ++i) {
    ChildEntry& child = server->children[i];
    if (child.stage != Stage::living || child.client != index) continue;
    child.client = no_client;  // nobody is to hear of it, least of all the next one in this place
    server->endings.signal(i, SIGKILL, Cause::terminated);
  }
}

[[noreturn]] void leave() noexcept;

// A control socket has ended.  Without the parent there is no work left.
void lose(ClientIndex client) noexcept {
  if (server->clients[client].owner == no_child) leave();
  disconnect(client);
}

Report last_word_of(ChildIndex slot, const Ended& ended) noexcept {
  const ChildEntry& child = server->children[slot];
  Report report{};
  report.kind = Tell::exited;
  report.slot = slot;
  report.id = child.id;
  report.pid = child.pid;
  report.code = ended.wait_status;
  report.cause = static_cast<std::int32_t>(server->endings.cause_of(slot, ended.wait_status));
  report.user_us = ended.usage.user_time.count();
  report.system_us = ended.usage.system_time.count();
  report.max_rss = ended.usage.max_rss;
  report.minor_faults = ended.usage.minor_faults;
  report.major_faults = ended.usage.major_faults;
  return report;
}

void reap() noexcept {
  Ended ended;
  while (next_ended(ended)) {
    fault_at(Hop::reap);
    const ChildIndex index = server->children.find_pid(ended.pid);
    if (index == no_child) continue;  // not ours: somebody whom a child left behind
    server->children.mark_ended(index);
    ChildEntry& child = server->children[index];
    child.last_word = last_word_of(index, ended);
    for (ClientIndex i = 1; i < server->clients_used; ++i)
      if (server->clients[i].open && server->clients[i].owner == index) disconnect(i);
    if (child.client != no_client)
      server->children.push(server->clients[child.client].to_report, index);
    else
      server->children.free(index);
  }
}

// ---- requests ----

// In the copy.
void be_born(void* argument) {
  Spawn& spawn = *static_cast<Spawn*>(argument);
  spawn.streams.take_places();
  close_registered_except(spawn.socket.get(), spawn.door.get());
  faults.data = spawn.socket.get();
  spawn.modules = server->start.modules;  // here: to share it is to write into the heap
  if (!become_child(spawn.snapshot)) ::_exit(0);
  set_role(Role::child);
  server->start.live(std::move(spawn));
  ::_exit(70);
}

void spawn_child(ClientIndex client, const Request& request, Packet& packet) noexcept {
  Spawn spawn;
  if (!spawn.streams.claim(request.streams, packet))
    return answer(client, failed(request.id, EMFILE));
  const ChildIndex index = server->children.take_free();
  if (index == no_child) return answer(client, failed(request.id, EAGAIN));
  Slot& slot = server->start.slots[index];
  slot.clear();
  spawn.id = request.id;
  spawn.slot = &slot;
  spawn.slots = server->start.slots;
  spawn.notes = server->start.notes;
  spawn.snapshot = server->self;
  spawn.socket = std::move(packet.along);
  spawn.door = std::move(server->door_child);
  const Forked forked = fork_clean(be_born, &spawn);
  server->door_child = std::move(spawn.door);
  spawn.socket.drop();  // the child's now; a second holder would hide its end
  if (forked.pid < 0) {
    server->children.free(index);
    return answer(client, failed(request.id, forked.error));
  }
  make_group(forked.pid);
  server->children.add(index, forked.pid, client, request.id);
  Report report{};
  report.kind = Tell::spawned;
  report.slot = index;
  report.id = request.id;
  report.pid = forked.pid;
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
  if (request.kind == Ask::kill)
    server->endings.signal(index, request.signum, Cause::killed);
  else
    server->endings.set_clocks(index, request);
}

void stop(ClientIndex client, bool heard) noexcept {
  if (server->clients[client].owner != no_child) return;
  server->stopping = true;
  server->unheard = !heard;
}

// One request of one client.
void serve_request(ClientIndex client) noexcept {
  Request request{};
  Client& from = server->clients[client];
  Packet packet = receive_packet(from.control.get(), &request, sizeof request);
  if (packet.flow == Flow::again) return;
  if (packet.flow == Flow::end || packet.size != sizeof request) {
    packet.along.drop();
    return lose(client);
  }
  fault_at(Hop::serve);
  free_seen(from, request.seen);
  switch (request.kind) {
    case Ask::spawn: spawn_child(client, request, packet); break;
    case Ask::kill:
    case Ask::terminate:
    case Ask::strike: direct_child(client, request); break;
    case Ask::stop: stop(client, true); break;
    case Ask::stop_unheard: stop(client, false); break;
  }
  packet.along.drop();
}

// Said, so that it is not taken for our end.
void refuse(Descriptor& control) noexcept {
  const Report report = failed(no_spawn, EAGAIN);
  send_packet(control.get(), &report, sizeof report, -1);
  control.reset();
}

// A child asks for children of its own: it sends one end of a control socket through the door, and
// the kernel says who it is.
void open_door() noexcept {
  char byte;
  Packet packet = receive_packet(server->door.get(), &byte, sizeof byte);
  if (packet.flow != Flow::done) return;
  fault_at(Hop::door);
  const ChildIndex owner = packet.sender > 0 ? server->children.find_pid(packet.sender) : no_child;
  ClientIndex place = 1;
  while (place < server->clients_used && server->clients[place].open) ++place;
  if (!packet.along || owner == no_child || place == client_limit) return refuse(packet.along);
  if (place == server->clients_used) new (&server->clients[server->clients_used++]) Client;
  Client& client = server->clients[place];
  client = Client{};
  client.control = std::move(packet.along);
  client.owner = owner;
  client.open = true;
}

// ---- the turns ----

// The parent is gone.  Children see end of file on their sockets; they get a moment to drain and
// flush.
[[noreturn]] void leave() noexcept {
  const std::int64_t until = later(now_ns(), drain_ms);
  server->door.reset();  // who knocks now is refused, and can end
  for (ClientIndex i = 0; i < server->clients_used; ++i) {
    server->clients[i].open = false;
    server->clients[i].control.reset();
  }
  for (;;) {
    drain_signal_descriptor(server->signals.get());
    reap();
    if (server->children.living() == 0 || now_ns() >= until) break;
    pollfd signals{server->signals.get(), POLLIN, 0};
    ::poll(&signals, 1, wait_until(until));
  }
  for (ChildIndex i = 0; i < server->children.used(); ++i)
    if (server->children[i].stage == Stage::living)
      server->endings.signal(i, SIGKILL, Cause::terminated);
  ::_exit(0);
}

bool nothing_left_to_do() noexcept {
  const Client& parent = server->clients[0];
  return server->stopping && server->children.living() == 0 && (!behind(parent) || server->unheard);
}

void on_signals() noexcept {
  drain_signal_descriptor(server->signals.get());
  if (!parent_is(server->start.parent)) leave();
  reap();
}

std::size_t gather_waits(pollfd* waits, ClientIndex* whose) noexcept {
  std::size_t count = 0;
  waits[count++] = {server->signals.get(), POLLIN, 0};
  waits[count++] = {server->door.get(), POLLIN, 0};
  for (ClientIndex i = 0; i < server->clients_used; ++i) {
    const Client& client = server->clients[i];
    if (!client.open) continue;
    whose[count] = i;
    waits[count++] = {client.control.get(), static_cast<short>(behind(client) ? POLLOUT : POLLIN),
                      0};
  }
  return count;
}

void turn() noexcept {
  static pollfd waits[client_limit + 2];
  static ClientIndex whose[client_limit + 2];
  const std::size_t count = gather_waits(waits, whose);
  const int ready = ::poll(waits, count, server->endings.wait_time());
  if (ready <= 0) return;
  if (waits[0].revents) on_signals();
  for (std::size_t i = 2; i < count; ++i) {
    const Client& client = server->clients[whose[i]];
    if (!client.open || !waits[i].revents) continue;
    if (waits[i].revents & POLLHUP)
      lose(whose[i]);  // with all that it had still asked for
    else if (!behind(client))
      serve_request(whose[i]);
  }
  if (waits[1].revents) open_door();
}

bool set_up(ServerStart&& start) noexcept {
  void* memory = ::mmap(nullptr, sizeof(Server), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return false;
  // Not value-initialised: children are zero pages that only use touches.
  server = static_cast<Server*>(memory);
  new (&server->start) ServerStart(std::move(start));
  new (&server->signals) Descriptor(open_signal_descriptor());
  new (&server->door) Descriptor;
  new (&server->door_child) Descriptor;
  server->children.set_up();
  server->endings.set_up(server->children, server->start.slots);
  server->clients_used = 1;
  server->self = ::getpid();
  new (&server->clients[0]) Client;
  server->clients[0].control = std::move(server->start.control);
  server->clients[0].open = true;
  faults.control = server->clients[0].control.get();
  if (!server->signals || make_pair(PairKind::datagrams, server->door, server->door_child) != 0)
    return false;
  name_senders(server->door.get());
  return true;
}

}  // namespace

void serve(ServerStart&& start) {
  if (!become_snapshot(start.parent) || !set_up(std::move(start))) ::_exit(71);
  detach_stdin();
  for (;;) {
    fault_at(Hop::turn);
    for (ClientIndex i = 0; i < server->clients_used; ++i) report_ends(i);
    if (nothing_left_to_do()) ::_exit(0);
    server->endings.look_at_clocks();
    turn();
  }
}

}  // namespace evparallel
