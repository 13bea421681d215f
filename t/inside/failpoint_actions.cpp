// failpoint_actions.cpp - the hook of the library's own tests: it counts hits, and acts at one of them.
#include "failpoint_actions.hpp"
#include "private_names.hpp"

#include "system/descriptor.hpp"
#include "system/socket.hpp"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

namespace failpoints {

namespace {

namespace par = evparallel;

// Plain memory, as the hook is: a process that inherits the hook inherits these.
Fault loaded;
int control = -1;  // this process's end of its control socket; -1: none
int data = -1;     // a child's end of its data socket

// The hits in the process `of`.  A process that inherits them counts from the beginning.
struct Hits {
  pid_t of = 0;
  std::uint64_t number = 0;
};
Hits hits;

std::uint64_t count_hit(pid_t self) noexcept {
  if (hits.of != self) hits = {self, 0};
  return ++hits.number;
}

// Closes a descriptor without the knowledge of the code that uses it, as closefrom(3) in a task
// does: a loop that watches it receives no event.  The number stays in use, by a socket without
// another end: the next descriptor would get it, and would be taken for this one.
void close_behind(int fd) noexcept {
  par::OwnedFd dead;
  par::OwnedFd other;
  if (par::make_pair(par::PairKind::stream, dead, other) == 0) ::dup3(dead.get(), fd, O_CLOEXEC);
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

void act(Action action) noexcept {
  switch (action) {
    case Action::none:
    case Action::fail: return;
    case Action::kill: par::die_of_fault();
    case Action::kill_parent: ::kill(::getppid(), SIGKILL); return;
    case Action::stop: ::kill(::getpid(), SIGSTOP); return;
    case Action::exit_0: ::_exit(0);
    case Action::exit_3: ::_exit(3);
    case Action::crash: crash();
    case Action::close_control: return close_behind(control);
    case Action::close_data: return close_behind(data);
  }
}

bool closes(Action action) noexcept {
  return action == Action::close_control || action == Action::close_data;
}

// All replicas have the same fault, and so have their children.  One process acts: the first that
// comes, or the one that was chosen before.
bool is_chosen(pid_t self) noexcept {
  const bool each_acts = loaded.victim == Victim::child && loaded.child == 0;
  if (!loaded.trigger || each_acts) return true;
  pid_t chosen = 0;
  return loaded.trigger->taken_by.compare_exchange_strong(chosen, self) || chosen == self;
}

bool is_due(Failpoint failpoint, pid_t self) noexcept {
  if (loaded.action == Action::none || loaded.failpoint != failpoint) return false;
  if (!par::is_victim(loaded.victim, loaded.child)) return false;
  if (loaded.trigger && !loaded.trigger->active) return false;
  return count_hit(self) == loaded.hit && is_chosen(self);
}

int act_at(Failpoint failpoint, int value) noexcept {
  if (failpoint == Failpoint::control_socket) control = value;
  if (failpoint == Failpoint::data_socket) data = value;
  const pid_t self = ::getpid();
  if (is_due(failpoint, self)) {
    if (loaded.trigger && !closes(loaded.action)) loaded.trigger->done_by = self;
    act(loaded.action);
    if (loaded.trigger && closes(loaded.action)) loaded.trigger->done_by = self;
    if (loaded.action == Action::fail) return loaded.error;
  }
  return par::follow_plan(failpoint, value);
}

}  // namespace

void load(const Fault& fault) noexcept {
  loaded = fault;
  hits = {};
  par::failpoint_hook = act_at;
}

}  // namespace failpoints
