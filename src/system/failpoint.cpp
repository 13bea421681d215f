// failpoint.cpp - plans of faults, and deeds at hops.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#include "system/failpoint.hpp"

#include "base/negative.hpp"
#include "system/socket.hpp"

#include <fcntl.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <stdexcept>
#include <string>

namespace evparallel {

namespace {

// Closes a descriptor without the knowledge of the code that uses it, as closefrom(3) in a task
// does: a loop that watches it receives no event.  The number stays in use, by a socket without
// another end: the next descriptor would get it, and would be taken for this one.
void close_behind(int fd) noexcept {
  OwnedFd dead;
  OwnedFd other;
  if (make_pair(PairKind::stream, dead, other) == 0) ::dup3(dead.get(), fd, O_CLOEXEC);
}

// Does not write to a bad address: a sanitizer would turn that into an exit.
[[noreturn]] void crash() noexcept {
  ::signal(SIGSEGV, SIG_DFL);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGSEGV);
  ::pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  ::raise(SIGSEGV);
  for (;;) ::pause();
}

void do_deed(Deed deed) noexcept {
  switch (deed) {
    case Deed::none: return;
    case Deed::kill: die_of_fault();
    case Deed::stop: ::kill(::getpid(), SIGSTOP); return;
    case Deed::exit_0: ::_exit(0);
    case Deed::exit_3: ::_exit(3);
    case Deed::crash: crash();
    case Deed::close_control: return close_behind(faults.control);
    case Deed::close_data: return close_behind(faults.data);
  }
}

bool closes(Deed deed) noexcept {
  return deed == Deed::close_control || deed == Deed::close_data;
}

}  // namespace

Faults faults;

namespace {

Faults::Counts& own_counts() noexcept {
  const pid_t self = ::getpid();
  if (faults.counts.of != self) {
    faults.counts = {};
    faults.counts.of = self;
  }
  return faults.counts;
}

bool is_meant(Role role_of_victim, unsigned child) noexcept {
  if (role() != role_of_victim) return false;
  return role() != Role::child || child == 0 || child == faults.children;
}

bool plan_is_ours() noexcept {
  const fault::Plan& plan = faults.plan;
  switch (plan.victim) {
    case fault::Victim::parent: return is_meant(Role::parent, 0);
    case fault::Victim::snapshot: return is_meant(Role::snapshot, 0);
    case fault::Victim::child: return is_meant(Role::child, plan.child);
  }
  return false;
}

void stand_still(std::chrono::milliseconds time) noexcept {
  timespec left{static_cast<time_t>(time.count() / 1000),
                static_cast<long>(time.count() % 1000 * 1000000)};
  while (::nanosleep(&left, &left) != 0 && errno == EINTR) {}
}

}  // namespace

int count_fork() noexcept {
  if (!plan_is_ours()) return 0;
  Faults::Counts& counts = own_counts();
  ++counts.forks;
  if (counts.forks == faults.plan.die_at_fork) die_of_fault();
  return counts.forks <= faults.plan.fork_failures ? faults.plan.fork_errno : 0;
}

FrameFault count_message() noexcept {
  if (!plan_is_ours()) return FrameFault::none;
  const fault::Plan& plan = faults.plan;
  const std::uint64_t number = ++own_counts().messages;
  if (number == plan.delay_message) stand_still(plan.delay);
  if (number == plan.die_at_message) die_of_fault();
  return number == plan.cut_message ? FrameFault::cut : FrameFault::none;
}

void pass_hop(Hop hop) noexcept {
  const HopFault& fault = faults.at_hop;
  if (fault.deed == Deed::none || fault.hop != hop || !is_meant(fault.role, fault.child)) return;
  if (fault.gate && !fault.gate->open) return;
  if (++own_counts().passed != fault.passage) return;
  const pid_t self = ::getpid();
  // All replicas have the same plan, and so have their children.  One process does the deed: the
  // first that comes, or the one that was chosen before.
  const bool each_does_it = fault.role == Role::child && fault.child == 0;
  pid_t chosen = 0;
  if (fault.gate && !each_does_it && !fault.gate->taken_by.compare_exchange_strong(chosen, self) &&
      chosen != self)
    return;
  if (fault.gate && !closes(fault.deed)) fault.gate->done_by = self;
  do_deed(fault.deed);
  if (fault.gate && closes(fault.deed)) fault.gate->done_by = self;
}

void die_of_fault() noexcept {
  ::kill(::getpid(), SIGKILL);
  for (;;) ::pause();
}

// ---- interface of the program ----

namespace fault {

namespace {

void check(const Plan& plan) {
  const auto refuse_if = [](bool wrong, const char* why) {
    if (wrong) throw std::logic_error(std::string("evparallel: a fault that cannot be: ") + why);
  };
  const bool of_messages = plan.die_at_message || plan.cut_message || plan.delay_message;
  const bool of_forks = plan.fork_failures || plan.die_at_fork;
  refuse_if(of_messages && plan.victim == Victim::snapshot, "a snapshot sends no messages");
  refuse_if(of_forks && plan.victim == Victim::child, "it is the snapshot that forks for a child");
  refuse_if(plan.child != 0 && plan.victim != Victim::child, "the victim is no child");
  refuse_if(plan.fork_failures != 0 && plan.fork_errno <= 0, "fork_failures without fork_errno");
  refuse_negative("fault::Plan::delay", plan.delay);
}

}  // namespace

void arm(const Plan& plan) {
  check(plan);
  disarm();
  faults.plan = plan;
  faults.armed = true;
}

void disarm() noexcept {
  faults.armed = false;
  faults.plan = {};
  faults.at_hop = {};
  faults.at_freeze = {};
  faults.counts = {};
}

}  // namespace fault

}  // namespace evparallel
