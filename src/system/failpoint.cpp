// failpoint.cpp - the hook of the failpoints, and the plan of faults of the program.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#include "system/failpoint.hpp"

#include "base/negative.hpp"
#include "system/fork.hpp"

#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <stdexcept>
#include <string>

namespace evparallel {

namespace detail {

FailpointHook failpoint_hook = nullptr;

namespace {

fault::Plan armed_plan;
unsigned children = 0;  // forked by the snapshot so far; in a child: its own number

// The counts of the process `of`.  A process that has inherited them begins anew.
struct Counts {
  pid_t of = 0;
  std::uint64_t messages = 0;
  std::uint64_t forks = 0;
};
Counts counts;

Counts& own_counts() noexcept {
  const pid_t self = ::getpid();
  if (counts.of != self) {
    counts = {};
    counts.of = self;
  }
  return counts;
}

void stand_still(std::chrono::milliseconds time) noexcept {
  timespec left{static_cast<time_t>(time.count() / 1000),
                static_cast<long>(time.count() % 1000 * 1000000)};
  while (::nanosleep(&left, &left) != 0 && errno == EINTR) {}
}

int count_message() noexcept {
  const std::uint64_t number = ++own_counts().messages;
  if (number == armed_plan.delay_message) stand_still(armed_plan.delay);
  if (number == armed_plan.die_at_message) die_of_fault();
  return number == armed_plan.cut_message ? EPIPE : 0;
}

int count_fork() noexcept {
  const std::uint64_t number = ++own_counts().forks;
  if (number == armed_plan.die_at_fork) die_of_fault();
  return number <= armed_plan.fork_failures ? armed_plan.fork_errno : 0;
}

}  // namespace

bool is_victim(fault::Victim victim, unsigned child) noexcept {
  switch (victim) {
    case fault::Victim::parent: return role() == Role::parent;
    case fault::Victim::snapshot: return role() == Role::snapshot;
    case fault::Victim::child: return role() == Role::child && (child == 0 || child == children);
  }
  return false;
}

int follow_plan(Failpoint failpoint, int value) noexcept {
  const bool is_ours = is_victim(armed_plan.victim, armed_plan.child);
  if (failpoint == Failpoint::put) return is_ours && value != 0 ? count_message() : 0;
  if (failpoint != Failpoint::try_fork) return 0;
  const int error = is_ours ? count_fork() : 0;
  if (error == 0 && value != 0) ++children;
  return error;
}

std::size_t size_of_truncated_frame() noexcept {
  return armed_plan.cut_to;
}

void die_of_fault() noexcept {
  ::kill(::getpid(), SIGKILL);
  for (;;) ::pause();
}

}  // namespace detail

// ---- interface of the program ----

namespace fault {

using namespace detail;

namespace {

void check(const Plan& plan) {
  const auto refuse_if = [](bool wrong, const char* why) {
    if (wrong) throw std::logic_error(std::string("evparallel: an impossible fault: ") + why);
  };
  const bool of_messages = plan.die_at_message || plan.cut_message || plan.delay_message;
  const bool of_forks = plan.fork_failures || plan.die_at_fork;
  refuse_if(of_messages && plan.victim == Victim::snapshot, "a snapshot sends no messages");
  refuse_if(of_forks && plan.victim == Victim::child, "the snapshot forks, not the child");
  refuse_if(plan.child != 0 && plan.victim != Victim::child,
            "child is set, but the victim is not a child");
  refuse_if(plan.fork_failures != 0 && plan.fork_errno <= 0,
            "fork_failures is set, but fork_errno is not");
  refuse_negative("fault::Plan::delay", plan.delay);
}

}  // namespace

void arm(const Plan& plan) {
  check(plan);
  disarm();
  armed_plan = plan;
  failpoint_hook = follow_plan;
}

void disarm() noexcept {
  failpoint_hook = nullptr;
  armed_plan = {};
  counts = {};
}

}  // namespace fault

}  // namespace evparallel
