// processes.cpp - forks, waits and signals of a script.
#include "processes.hpp"

#include "fuzzing.hpp"

#include "system/polling.hpp"

#include <setjmp.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace fuzzing {

namespace {

Processes* current = nullptr;
int signal_descriptor = -1;  // of the snapshot; readable once a child has ended

struct Mapping {
  void* from;
  std::size_t size;
};
// Set while run_as_process() runs.
std::vector<Mapping>* mappings = nullptr;
sigjmp_buf* way_out = nullptr;

}  // namespace

Processes& processes() {
  if (!current) reset_processes();
  return *current;
}

void reset_processes() {
  delete std::exchange(current, new Processes);
  signal_descriptor = -1;
}

void Processes::end(pid_t pid, int wait_status) {
  if (living.erase(pid) == 0) return;
  evparallel::detail::Reaped how;
  how.pid = pid;
  how.wait_status = wait_status;
  ended.push_back(how);
  const std::uint64_t one = 1;
  if (signal_descriptor >= 0) REQUIRE(::write(signal_descriptor, &one, sizeof one) == sizeof one);
}

void run_as_process(const std::function<void()>& f) {
  std::vector<Mapping> made;
  sigjmp_buf here;
  mappings = &made;
  way_out = &here;
  if (sigsetjmp(here, 0) == 0) f();
  mappings = nullptr;
  way_out = nullptr;
  for (const Mapping& one : made) ::munmap(one.from, one.size);
}

}  // namespace fuzzing

// The linker sends all calls of these functions here.
extern "C" {
void __real__exit(int) __attribute__((noreturn));
void __wrap__exit(int) __attribute__((noreturn));
void* __real_mmap(void*, std::size_t, int, int, int, off_t);
void* __wrap_mmap(void*, std::size_t, int, int, int, off_t);

void __wrap__exit(int status) {
  if (fuzzing::way_out) siglongjmp(*fuzzing::way_out, 1);
  __real__exit(status);
}

void* __wrap_mmap(void* at, std::size_t size, int protection, int flags, int fd, off_t offset) {
  void* const made = __real_mmap(at, size, protection, flags, fd, offset);
  if (fuzzing::mappings && made != MAP_FAILED) fuzzing::mappings->push_back({made, size});
  return made;
}

// evparallel::detail::now_ns()
std::int64_t __real__ZN10evparallel6detail6now_nsEv() noexcept;
std::int64_t __wrap__ZN10evparallel6detail6now_nsEv() noexcept;
std::int64_t __wrap__ZN10evparallel6detail6now_nsEv() noexcept {
  const std::int64_t now = fuzzing::processes().now;
  return now != 0 ? now : __real__ZN10evparallel6detail6now_nsEv();
}
}

namespace evparallel::detail {

using fuzzing::processes;

namespace {

Role current_role = Role::parent;

}  // namespace

// ---- fork.hpp ----

Role role() noexcept {
  return current_role;
}
void set_role(Role now) noexcept {
  current_role = now;
}
OwnerProcess OwnerProcess::here() noexcept {
  return {::getpid(), current_role};
}
bool OwnerProcess::is_here() const noexcept {
  return pid == ::getpid() && role == current_role;
}

Forked fork_clean(void (*)(void*), void* argument) noexcept {
  return {processes().on_fork_of_snapshot(argument), 0};
}

Forked fork_child(void (*)(void*), void*) noexcept {
  if (processes().fork_error != 0) return {-1, processes().fork_error};
  const pid_t pid = processes().next_child++;
  processes().living.insert(pid);
  return {pid, 0};
}

Forked fork_sibling() noexcept {
  return {-1, EAGAIN};
}

void on_fork_in_child(void (*)()) noexcept {}
bool become_snapshot(pid_t) noexcept {
  return true;
}
int open_signal_descriptor() noexcept {
  return fuzzing::signal_descriptor = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
}
void drain_signal_descriptor(int fd) noexcept {
  std::uint64_t count;
  while (::read(fd, &count, sizeof count) > 0) {}
}
bool parent_is(pid_t pid) noexcept {
  return pid != 0;
}
void add_to_oom_score(int) noexcept {}
bool become_child(pid_t, pid_t) noexcept {
  return true;
}
void check_death_signal(unsigned) noexcept {}
void leave_death_signal() noexcept {}
void detach_stdin() noexcept {}
int stdin_is_no_null_device() noexcept {
  return 0;
}
void open_missing_standard_descriptors() noexcept {}
void end_child(int status) noexcept {
  ::_exit(status);
}

void make_group(pid_t) noexcept {}
pid_t group_of(pid_t) noexcept {
  return 0;
}
bool is_child_of_this_process(pid_t) noexcept {
  return false;
}

// The number of a child that is reaped may belong to any process.
bool kill_process(pid_t pid, int signum) noexcept {
  const bool here = processes().living.count(pid) > 0;
  bool zombie = false;
  for (const Reaped& one : processes().ended) zombie = zombie || one.pid == pid;
  REQUIRE(here || zombie);
  ++processes().signals;
  if (signum < 0 || signum > 64) return false;
  if (here && signum == SIGKILL) processes().end(pid, SIGKILL);
  return true;
}

void kill_group(pid_t pid, int signum) noexcept {
  kill_process(pid, signum);
}

void kill_born_by(pid_t pid, std::int64_t) noexcept {
  processes().survivors_killed.insert(pid);
}

bool reap_next(Reaped& out, bool (*has_group)(pid_t)) noexcept {
  if (processes().ended.empty()) return false;
  if (has_group(processes().ended.front().pid)) kill_group(processes().ended.front().pid, SIGKILL);
  out = processes().ended.front();
  processes().ended.pop_front();
  return true;
}

bool ended(pid_t pid, Reaped& out) noexcept {
  REQUIRE(pid == fuzzing::Processes::snapshot);
  if (!processes().snapshot_has_ended) return false;
  out = Reaped{};
  out.pid = pid;
  return true;
}

// ---- polling.hpp ----

int wait_for(pollfd* what, std::size_t count, int ms) noexcept {
  constexpr std::int64_t ns_a_ms = 1000000;
  for (;;) {
    const int ready = ::poll(what, count, 0);
    if (ready != 0 || ms == 0) return ready;
    REQUIRE(processes().on_wait != nullptr);  // or it waits for ever
    if (processes().on_wait() == fuzzing::Processes::Step::look_again || ms < 0) continue;
    processes().now += ms * ns_a_ms;
    return 0;
  }
}

int refused_to_wait() noexcept {
  return 0;
}

void pause_for(int) noexcept {}

std::size_t bytes_to_read(int fd) noexcept {
  int count = 0;
  return ::ioctl(fd, FIONREAD, &count) == 0 && count > 0 ? static_cast<std::size_t>(count) : 0;
}

}  // namespace evparallel::detail
