// control.cpp - the control and rendezvous sockets of a snapshot, with clients that send anything.
//
// The snapshot is the real one; its children are numbers.  Each request for a child is answered once, each child that
// was reported ends once, no signal is sent to a number that is not that of a child, and none outlives the snapshot.
#include "fuzzing.hpp"
#include "processes.hpp"

#include "base/clock.hpp"
#include "codec/wire.hpp"
#include "shared/cancel_table.hpp"
#include "shared/child_slots.hpp"
#include "snapshot/server.hpp"
#include "spawn/control_client.hpp"
#include "system/socket.hpp"

#include <evparallel/error.hpp>

#include <signal.h>
#include <unistd.h>

#include <map>
#include <memory>
#include <vector>

using namespace evparallel;
using namespace evparallel::detail;
using fuzzing::Processes;
using fuzzing::processes;

namespace {

// ---- a client ----

class Client {
public:
  explicit Client(OwnedFd socket, bool is_parent) noexcept
      : socket_(std::move(socket)), is_parent_(is_parent) {}

  bool is_open() const noexcept { return static_cast<bool>(socket_); }
  void close() noexcept { socket_.close(); }

  void send(std::string_view packet, const std::vector<int>& along) {
    if (!is_open()) return;
    const IoResult sent =
        send_packet(socket_.fd(), packet.data(), packet.size(), along.data(), along.size());
    if (sent != IoResult::done || packet.size() != sizeof(Request)) return;
    Request request;
    std::memcpy(&request, packet.data(), sizeof request);
    if (request.kind == RequestKind::spawn) ++unanswered_[request.id];
    if (request.kind == RequestKind::leave && !is_parent_) has_left_ = true;
  }

  void read_reports() {
    while (is_open()) {
      Report report{};
      const IoResult flow = socket_.take(report);
      if (flow == IoResult::would_block) return;
      if (flow == IoResult::closed) return close();
      check(report);
    }
  }

private:
  struct Child {
    std::uint64_t id;
    pid_t pid;
  };

  void check(const Report& report) {
    switch (report.kind) {
      case ReportKind::begun:
        REQUIRE(is_parent_ && !begun_ && report.code == 0);
        begun_ = true;
        return;
      case ReportKind::spawned: {
        answer(report.id);
        REQUIRE(report.slot < slot_count);
        REQUIRE(processes().is_child(report.pid));
        const bool added = children_.emplace(report.slot, Child{report.id, report.pid}).second;
        REQUIRE(added || has_left_);  // it learns of no end any more
        children_[report.slot] = {report.id, report.pid};
        return;
      }
      case ReportKind::failed: REQUIRE(report.code != 0); return answer(report.id);
      case ReportKind::exited: {
        const auto found = children_.find(report.slot);
        REQUIRE(found != children_.end());
        REQUIRE(found->second.id == report.id && found->second.pid == report.pid);
        REQUIRE(report.cause >= 0 && report.cause <= static_cast<int>(Cause::start_timeout));
        children_.erase(found);
        return;
      }
      default: fuzzing::fail(__FILE__, __LINE__, "a report that nothing has caused");
    }
  }

  void answer(std::uint64_t id) {
    const auto found = unanswered_.find(id);
    REQUIRE(found != unanswered_.end());
    if (--found->second == 0) unanswered_.erase(found);
  }

  ControlClient socket_;
  bool is_parent_;
  bool begun_ = false;
  bool has_left_ = false;
  std::map<std::uint64_t, int> unanswered_;
  std::map<std::uint32_t, Child> children_;
};

// ---- descriptors that come along ----

// Closed when they have been sent, or not.
class Along {
public:
  Along(std::size_t count, unsigned kinds) {
    for (; count > 0; --count, kinds /= 4) {
      OwnedFd one;
      OwnedFd other;
      const PairKind kind = kinds % 4 == 0   ? PairKind::stream
                            : kinds % 4 == 1 ? PairKind::packets
                                             : PairKind::datagrams;
      if (kinds % 4 == 3)
        one = OwnedFd(::dup(STDERR_FILENO));
      else
        REQUIRE(make_pair(kind, one, other) == 0);
      numbers_.push_back(one.get());
      owned_.push_back(std::move(one));
    }
  }
  ~Along() {
    for (OwnedFd& one : owned_) one.close();
  }
  Along(const Along&) = delete;
  Along& operator=(const Along&) = delete;
  const std::vector<int>& numbers() const noexcept { return numbers_; }

private:
  std::vector<OwnedFd> owned_;
  std::vector<int> numbers_;
};

std::string_view bytes_of(const Request& request) {
  return {reinterpret_cast<const char*>(&request), sizeof request};
}

// ---- the script ----

class Play {
public:
  Play(fuzzing::Script script, OwnedFd parent, OwnedFd rendezvous, Slot* slots)
      : script_(script), rendezvous_(std::move(rendezvous)), slots_(slots) {
    clients_.push_back(std::make_unique<Client>(std::move(parent), true));
  }

  Processes::Step go_on() {
    if (is_over_) return Processes::Step::time_is_over;
    if (script_.empty()) {
      end();
      return Processes::Step::look_again;
    }
    Processes::Step done = Processes::Step::look_again;
    unsigned order;
    do {
      order = script_.byte();
      if (order % 16 == 9) done = Processes::Step::time_is_over;
      obey(order % 16);
    } while (order >= 128 && !script_.empty());
    return done;
  }
  std::size_t connections() const noexcept { return connections_; }

private:
  Client& client() { return *clients_[script_.byte() % clients_.size()]; }

  pid_t child() {
    auto found = processes().living.begin();
    if (found == processes().living.end()) return 0;
    for (std::size_t i = script_.byte() % processes().living.size(); i > 0; --i) ++found;
    return *found;
  }

  void obey(unsigned order) {
    switch (order) {
      case 0: {  // any bytes as a request
        Client& from = client();
        Request request{};
        const std::string_view some = script_.bytes(sizeof request);
        std::memcpy(static_cast<void*>(&request), some.data(), some.size());
        const Along along = take_along();
        return from.send(bytes_of(request), along.numbers());
      }
      case 1:
      case 2: {
        Client& from = client();
        Request request = request_of(RequestKind::spawn, next_id_++);
        request.streams = script_.number<std::uint32_t>();
        request.seen = script_.byte();
        request.seed = 1;
        std::size_t streams = 0;
        for (int i = 0; i < 3; ++i) streams += request.streams >> i & 1;
        const Along along(order == 1 ? 1 + streams : script_.byte() % 5, 0);
        return from.send(bytes_of(request), along.numbers());
      }
      case 3:
      case 4: {  // about a child
        Client& from = client();
        Request request = request_of(static_cast<RequestKind>(script_.byte() % 12));
        if (request.kind == RequestKind::spawn) request.kind = RequestKind::terminate;
        request.id = script_.byte();
        request.slot = order == 3 ? script_.byte() : no_slot;
        request.seen = script_.byte();
        request.signum = script_.number<std::int8_t>();
        request.cause = script_.byte() % 12;
        request.grace_ms = script_.number<std::int16_t>();
        request.linger_ms = script_.number<std::int16_t>();
        request.call = script_.byte();
        request.ping = script_.byte();
        const Along along = take_along();
        return from.send(bytes_of(request), along.numbers());
      }
      case 5: {
        Client& from = client();
        const Along along = take_along();
        return from.send(script_.counted_bytes(), along.numbers());
      }
      case 6: {
        const unsigned how = script_.byte();
        const int status = how < 128 ? how << 8 : how % 31 + 1;
        if (const pid_t pid = child()) processes().end(pid, status);
        return;
      }
      case 7: {  // a child writes into its slot, or into another one
        Slot& slot = slots_[script_.byte() % slots_in_use];
        slot.call.store(script_.byte());
        slot.answered_ping.store(script_.byte());
        slot.task_at.store(script_.number<std::int64_t>());
        slot.stop_request.store(static_cast<StopRequest>(script_.byte() % 4));
        slot.started.store(script_.byte() % 2 != 0);
        return;
      }
      case 8: return client().read_reports();
      case 9: processes().now += std::int64_t{script_.byte()} * 10000000; return;
      case 10: processes().fork_error = script_.byte() % 2 ? EAGAIN : 0; return;
      case 11: {
        Client& gone = client();
        if (&gone != clients_.front().get() || script_.byte() == 0) gone.close();
        return;
      }
      case 12:
      case 13: return connect(script_.byte());
      case 14: {  // anything to the rendezvous socket
        const Along along = take_along();
        const std::string_view bytes = script_.counted_bytes();
        connections_ += along.numbers().size();
        send_packet(rendezvous_.get(), bytes.data(), bytes.size(), along.numbers().data(),
                    along.numbers().size());
        return;
      }
      default: return;
    }
  }

  Along take_along() {
    const std::size_t count = script_.byte() % (most_along + 2);
    return Along(count, script_.byte());
  }

  // A further Reactor of the program.
  void connect(unsigned kind) {
    OwnedFd ours;
    OwnedFd theirs;
    REQUIRE(make_pair(kind % 8 == 0   ? PairKind::stream
                      : kind % 8 == 1 ? PairKind::datagrams
                                      : PairKind::packets,
                      ours, theirs) == 0);
    const char byte = 0;
    if (send_packet(rendezvous_.get(), &byte, 1, theirs.get()) == IoResult::done) ++connections_;
    theirs.close();
    clients_.push_back(std::make_unique<Client>(std::move(ours), false));
  }

  // The program ends, and its snapshot with it.
  void end() {
    is_over_ = true;
    for (const auto& one : clients_) {
      one->read_reports();
      one->close();
    }
    rendezvous_.close();
  }

public:
  static constexpr std::size_t slots_in_use = 64;

private:
  fuzzing::Script script_;
  std::vector<std::unique_ptr<Client>> clients_;
  OwnedFd rendezvous_;
  Slot* slots_;
  bool is_over_ = false;
  std::uint64_t next_id_ = 1;
  std::size_t connections_ = 0;
};

Slot* clean_slots() {
  static Slot* const slots = map_slots();
  REQUIRE(slots != nullptr);
  for (std::size_t i = 0; i < Play::slots_in_use; ++i) slots[i].clear();
  return slots;
}

CancelTable* cancel_table() {
  static CancelTable* const table = CancelTable::map();
  REQUIRE(table != nullptr);
  return table;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::size_t before = fuzzing::open_descriptors();
  fuzzing::reset_processes();
  processes().now = std::int64_t{1} << 40;
  {
    OwnedFd parent;
    ServerStart start;
    REQUIRE(make_pair(PairKind::packets, parent, start.control) == 0);
    REQUIRE(make_rendezvous(start.rendezvous, start.rendezvous_child) == 0);
    OwnedFd rendezvous(::dup(start.rendezvous_child.get()));
    start.slots = clean_slots();
    start.cancel_table = cancel_table();
    start.program = Program::here();
    start.child_main = [](ChildArgs&&) { fuzzing::fail(__FILE__, __LINE__, "a child here"); };
    Play play({data, size}, std::move(parent), std::move(rendezvous), start.slots);
    processes().on_wait = [&] { return play.go_on(); };
    fuzzing::run_as_process([&] { serve(std::move(start)); });
    REQUIRE(processes().living.empty());
    close_registered_except({});
  }
  REQUIRE(fuzzing::open_descriptors() == before);
  return 0;
}
