// fault.cpp - the switches of fault.hpp.
// Licence: see COPYING.
#include "fault.hpp"

#include "socket.hpp"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

namespace evparallel {

namespace {

// Closed behind the back of whoever uses it, as closefrom(3) in a task does: a loop that watches it
// hears nothing.  The number stays taken, by a socket without another end: the next one to be made
// would get it, and pass for this one.
void close_behind(int fd) noexcept {
  Descriptor dead;
  Descriptor other;
  if (make_pair(PairKind::stream, dead, other) == 0) ::dup3(dead.get(), fd, O_CLOEXEC);
}

// No address is written to: a sanitizer would turn that into an exit.
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

int fault_at_fork() noexcept {
  if (!faults.armed) return 0;
  if (role() == Role::snapshot) ++faults.children;
  if (faults.fork_failures == 0) return 0;
  --faults.fork_failures;
  return faults.fork_errno;
}

FrameFault fault_at_frame() noexcept {
  if (!faults.armed) return FrameFault::none;
  ++faults.frames;
  if (faults.frames == faults.die_at_frame) die_of_fault();
  return faults.frames == faults.cut_frame ? FrameFault::cut : FrameFault::none;
}

void pass_hop(Hop hop) noexcept {
  const HopFault& fault = faults.at_hop;
  if (fault.deed == Deed::none || fault.hop != hop || fault.role != role()) return;
  if (fault.role == Role::child && fault.child != 0 && fault.child != faults.children) return;
  if (fault.gate && !fault.gate->open) return;
  const pid_t self = ::getpid();
  if (faults.passed_by != self) {  // what was counted is another's, inherited
    faults.passed_by = self;
    faults.passed = 0;
  }
  if (++faults.passed != fault.passage) return;
  // Replicas have all been told the same, and so have their children: one does it.
  const bool each_does_it = fault.role == Role::child && fault.child == 0;
  pid_t nobody = 0;
  if (fault.gate && !each_does_it && !fault.gate->taken_by.compare_exchange_strong(nobody, self))
    return;
  if (fault.gate && !closes(fault.deed)) fault.gate->done_by = self;
  do_deed(fault.deed);
  if (fault.gate && closes(fault.deed)) fault.gate->done_by = self;
}

void die_of_fault() noexcept {
  ::kill(::getpid(), SIGKILL);
  for (;;) ::pause();
}

}  // namespace evparallel
