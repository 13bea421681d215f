// world.hpp - the snapshot and the children of a parent, played by a script.
//
// The parent is the library's own, in this process, with a real loop and real sockets.  What its snapshot reports, what
// its children send and what they write into shared memory comes from the script; so do their ends.
#pragma once

#include "fuzzing.hpp"

#include "codec/frame.hpp"
#include "codec/wire.hpp"
#include "shared/child_slots.hpp"
#include "system/descriptor.hpp"

#include <evparallel/evparallel.hpp>

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace fuzzing {

class World {
public:
  // A child that the parent has asked for.
  struct Child {
    std::uint64_t id = 0;
    evparallel::detail::OwnedFd socket{};
    std::vector<evparallel::detail::OwnedFd> streams{};
    std::uint32_t slot = evparallel::detail::no_slot;
    pid_t pid = 0;
    bool has_ended = false;
    bool end_received = false;
    std::uint64_t owner_id = 0;
    struct Call {
      std::uint64_t id;
      std::string argument;
    };
    std::deque<Call> calls{};  // unanswered
    evparallel::detail::FrameReader reader{};
  };

  World();
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  evparallel::Snapshot& snapshot() { return *snapshot_; }
  std::size_t children() const noexcept { return children_.size(); }

  // Reads requests of the parent, and what it has sent to its children.
  void look();
  // One order of the script.
  void obey(Script&);
  // The children that are there end in order; those that come are well-behaved, and answer each call with an error.
  void calm_down();
  void go_on();
  // The snapshot is lost with all children.
  void lose_snapshot();

private:
  Child* child(unsigned number) noexcept;
  void take(const evparallel::detail::Request&, evparallel::detail::OwnedFd socket,
            std::vector<evparallel::detail::OwnedFd> streams);
  void read_frames(Child&);
  void report(const evparallel::detail::Report&);
  void spawn(Child&, std::uint32_t slot);
  void end(Child&, int wait_status, int cause);
  void send(Child&, std::string_view bytes, std::size_t descriptors = 0);
  void send_frame(Child&, unsigned kind, std::uint64_t id, std::string_view body,
                  unsigned attached = 0, std::size_t descriptors = 0);
  void send_error(Child&, std::uint64_t id, Script&);
  void answer(Child&, Script&);
  void write_slot(Child&, Script&);
  void write_crash(Child&, Script&);

  std::optional<evparallel::Snapshot> snapshot_;
  evparallel::detail::OwnedFd control_;
  evparallel::detail::Slot* slots_ = nullptr;
  std::vector<std::unique_ptr<Child>> children_;
  std::size_t strange_ = 0;  // the first of them, which the script has played
};

// The answers to one call: one, and none after the end.
class Once {
public:
  template <class T>
  void take(const evparallel::Result<T>& result) {
    ++*answers_;
    REQUIRE(*answers_ == 1);
    if (result) return;
    const evparallel::Error& error = result.error();
    REQUIRE(error.code() >= evparallel::Errc::no_snapshot &&
            error.code() <= evparallel::Errc::unhealthy);
    REQUIRE(error.delivery() >= evparallel::Delivery::not_sent &&
            error.delivery() <= evparallel::Delivery::started);
    if (error.exit()) REQUIRE(!error.exit()->describe().empty());
    REQUIRE(!error.describe_backtrace().empty());
  }
  bool answered() const noexcept { return *answers_ == 1; }

private:
  std::shared_ptr<int> answers_ = std::make_shared<int>(0);
};

// Runs the loop until nothing is left to do, while the world goes on.  Fails if that does not come.
void run_to_the_end(World&, evparallel::Reactor&, bool in_order);
// One turn, whatever a callback throws.
void turn(evparallel::Reactor&);

}  // namespace fuzzing
