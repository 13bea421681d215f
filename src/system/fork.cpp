// fork.cpp - fork, wait, and signals to other processes.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#include "system/fork.hpp"

#include "base/retry_eintr.hpp"
#include "base/startup_path.hpp"
#include "system/failpoint.hpp"
#include "system/flush_streams.hpp"
#include "system/new_descriptor.hpp"
#include "system/process_stat.hpp"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <utility>

// Weak: it is defined if the program was built with a sanitizer, whether or not this library was.
extern "C" __attribute__((weak, visibility("default"))) void __lsan_do_leak_check();

namespace evparallel::detail {

namespace {

Role current_role = Role::parent;
pid_t snapshot_of_child = 0;  // in a child; 0: no snapshot to die with
// See check_death_signal(), which is for loops of several threads of a child.  A step that two of
// them count at the same time may be counted once.
std::atomic<std::uint64_t> steps_gone{0};
std::atomic<std::uint64_t> next_look{0};
std::atomic<bool> ids_changed{false};
constexpr pid_t nobody = -1;
pid_t program = 0;  // in a snapshot and its children: the pid of the program, or `nobody`

// Blocked in the snapshot and not ignored: a child then only has to unblock them.
constexpr int blocked_in_snapshot[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGTSTP};

void set_disposition(int signum, void (*to)(int)) noexcept {
  struct sigaction action {};
  action.sa_handler = to;
  ::sigaction(signum, &action, nullptr);  // the C library rightly refuses its own two signals
}

// A service manager that stops a service may send this signal to each process of it, and children
// have to answer calls for which the program still waits.
void end_if_meant(int, siginfo_t* info, void*) noexcept {
  const pid_t from = info->si_pid;
  const bool sent = info->si_code <= 0 && info->si_code != SI_TIMER;
  if (sent && from != program && from != ::getppid() && from != ::getpid()) return;
  const int error = errno;
  set_disposition(SIGTERM, SIG_DFL);
  ::kill(::getpid(), SIGTERM);  // blocked until this function returns
  errno = error;
}

void end_by_term_if_meant() noexcept {
  struct sigaction action {};
  action.sa_sigaction = end_if_meant;
  action.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK;
  ::sigaction(SIGTERM, &action, nullptr);
}

sigset_t snapshot_signals() noexcept {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  sigaddset(&set, SIGCONT);
  return set;
}

// By system call number: the wrapper is on a page that a child does not use otherwise, and each new
// page of the C library costs a page fault.
EVPARALLEL_EARLY void unblock_all_signals() noexcept {
  constexpr sigset_t none{};
  ::syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, nullptr, _NSIG / 8);
}

std::chrono::microseconds microseconds_of(const timeval& time) noexcept {
  return std::chrono::seconds(time.tv_sec) + std::chrono::microseconds(time.tv_usec);
}

bool reap(pid_t pid, int flags, Reaped& out) noexcept {
  rusage usage{};
  if (retry_on_eintr([&] { return ::wait4(pid, &out.wait_status, flags, &usage); }) != pid)
    return false;
  out.pid = pid;
  out.usage = {microseconds_of(usage.ru_utime), microseconds_of(usage.ru_stime), usage.ru_maxrss,
               usage.ru_minflt, usage.ru_majflt};
  return true;
}

}  // namespace

EVPARALLEL_EARLY Role role() noexcept {
  return current_role;
}
EVPARALLEL_EARLY void set_role(Role now) noexcept {
  current_role = now;
}

EVPARALLEL_EARLY OwnerProcess OwnerProcess::here() noexcept {
  return {::getpid(), current_role};
}
bool OwnerProcess::is_here() const noexcept {
  return pid == ::getpid() && role == current_role;
}

namespace {

EVPARALLEL_EARLY Forked fork_now(void (*far)(void*), void* argument) noexcept {
  fault_at(Failpoint::fork);
  const pid_t pid = ::fork();
  const int error = pid < 0 ? errno : 0;
  if (pid == 0) {
    far(argument);
    ::_exit(70);
  }
  fault_at(Failpoint::forked);
  return {pid, error};
}

}  // namespace

Forked fork_clean(void (*far)(void*), void* argument) noexcept {
  if (const int error = fault_at(Failpoint::try_fork)) return {-1, error};
  flush_streams();
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  const Forked forked = fork_now(far, argument);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return forked;
}

EVPARALLEL_EARLY Forked fork_child(void (*far)(void*), void* argument) noexcept {
  if (const int error = fault_at(Failpoint::try_fork, 1)) return {-1, error};
  flush_streams();
  return fork_now(far, argument);
}

// The C library has no such fork.  It caches the number of the thread, and the kernel writes the
// new number to that tid_address if the tid_address is known.
Forked fork_sibling() noexcept {
  if (const int error = fault_at(Failpoint::try_fork)) return {-1, error};
  flush_streams();
  int* tid_address = nullptr;
  const bool known = ::prctl(PR_GET_TID_ADDRESS, &tid_address) == 0 && tid_address != nullptr;
  const unsigned long flags =
      CLONE_PARENT | SIGCHLD | (known ? CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID : 0);
  // On some machines the last two arguments are swapped; the other one is used only with
  // CLONE_SETTLS.
  const auto pid =
      static_cast<pid_t>(::syscall(SYS_clone, flags, nullptr, nullptr, tid_address, tid_address));
  return {pid, pid < 0 ? errno : 0};
}

void on_fork_in_child(void (*call)()) noexcept {
  ::pthread_atfork(nullptr, nullptr, call);
}

bool become_snapshot(pid_t parent) noexcept {
  for (int signum = 1; signum < NSIG; ++signum) set_disposition(signum, SIG_DFL);
  end_by_term_if_meant();  // for its children
  ::setpgid(0, 0);
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  program = parent != 0 ? parent : nobody;
  ::prctl(PR_SET_PDEATHSIG, SIGCONT);
  // This is checked after the death signal is set, so that one of the two reports the death.
  return parent_is(parent);
}

int open_signal_descriptor() noexcept {
  const sigset_t set = snapshot_signals();
  sigset_t blocked = set;
  for (const int signum : blocked_in_snapshot) sigaddset(&blocked, signum);
  ::pthread_sigmask(SIG_SETMASK, &blocked, nullptr);
  return open_signals(set);
}

void drain_signal_descriptor(int fd) noexcept {
  signalfd_siginfo info[8];
  while (retry_on_eintr([&] { return ::read(fd, info, sizeof info); }) > 0) {}
}

EVPARALLEL_EARLY bool parent_is(pid_t pid) noexcept {
  return ::getppid() == pid;
}

void add_to_oom_score(int added) noexcept {
  constexpr int most = 1000;  // the kernel's own bound
  const int fd = open_file("/proc/self/oom_score_adj", O_RDWR);
  if (fd < 0) return;
  char text[16] = {};
  if (added != 0 && retry_on_eintr([&] { return ::read(fd, text, sizeof text - 1); }) > 0) {
    const int wanted = std::clamp(std::atoi(text) + std::clamp(added, -most, most), -most, most);
    const int size = std::snprintf(text, sizeof text, "%d", wanted);
    // The kernel does not permit a lower score: then it stays as it is.
    retry_on_eintr([&] { return ::pwrite(fd, text, static_cast<std::size_t>(size), 0); });
  }
  ::close(fd);
}

EVPARALLEL_EARLY bool become_child(pid_t snapshot, pid_t group) noexcept {
  snapshot_of_child = snapshot;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (!parent_is(snapshot)) return false;
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  if (group == 0 || ::setpgid(0, group) != 0) ::setpgid(0, 0);
  unblock_all_signals();
  return true;
}

namespace {

constexpr std::uint64_t most_steps = 256;  // between two checks

// Returns true if the ids have changed.
bool death_signal_is_gone() noexcept {
  int signum = SIGKILL;
  return ::prctl(PR_GET_PDEATHSIG, &signum) == 0 && signum == 0;
}

void look_at_death_signal() noexcept {
  if (snapshot_of_child == 0) return;
  const std::uint64_t steps = steps_gone.load(std::memory_order_relaxed);
  next_look.store(std::min(2 * steps, steps + most_steps), std::memory_order_relaxed);
  if (!ids_changed && !death_signal_is_gone()) return;
  ids_changed = true;
  next_look = 0;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (!parent_is(snapshot_of_child)) kill_process(::getpid(), SIGKILL);
}

}  // namespace

EVPARALLEL_EARLY void check_death_signal(unsigned steps) noexcept {
  const std::uint64_t gone = steps_gone.load(std::memory_order_relaxed) + steps;
  steps_gone.store(gone, std::memory_order_relaxed);
  if (gone > steps_of_call && gone >= next_look.load(std::memory_order_relaxed))
    look_at_death_signal();
}

void leave_death_signal() noexcept {
  snapshot_of_child = 0;
}

namespace {

int why_no_null_device = 0;

int open_null_device() noexcept {
  return open_file("/dev/null", O_RDWR);
}

// Makes `number` a duplicate of `fd`, and closes `fd`.
void put_in_place(int fd, int number) noexcept {
  if (fd < 0) return;
  ::dup2(fd, number);
  ::close(fd);
}

}  // namespace

void detach_stdin() noexcept {
  int in = open_null_device();
  if (in < 0) {
    why_no_null_device = errno;
    in = open_end_of_file();
  }
  if (in < 0) ::close(STDIN_FILENO);  // children must not read the program's input
  put_in_place(in, STDIN_FILENO);
}

EVPARALLEL_EARLY int stdin_is_no_null_device() noexcept {
  return why_no_null_device;
}

void open_missing_standard_descriptors() noexcept {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    if (::fcntl(fd, F_GETFD) >= 0) continue;
    const int null = open_null_device();
    put_in_place(null >= 0 ? null : open_nothing(), fd);
  }
}

EVPARALLEL_EARLY void end_child(int status) noexcept {
  // Without /proc it cannot look for leaks; in a /proc with other pids it searches its threads for
  // ever.
  if (__lsan_do_leak_check && proc_has_our_numbers()) __lsan_do_leak_check();
  ::_exit(status);
}

void make_group(pid_t pid) noexcept {
  ::setpgid(pid, pid);
}
pid_t group_of(pid_t pid) noexcept {
  if (pid == 0) return 0;
  return std::max<pid_t>(::getpgid(pid), 0);
}
bool is_child_of_this_process(pid_t pid) noexcept {
  siginfo_t info{};
  const auto id = static_cast<id_t>(pid);
  return retry_on_eintr([&] { return ::waitid(P_PID, id, &info, WEXITED | WNOHANG | WNOWAIT); }) ==
         0;
}
bool kill_process(pid_t pid, int signum) noexcept {
  return ::kill(pid, signum) == 0;
}

namespace {

void kill_opened(int process, pid_t pid) noexcept {
#ifdef SYS_pidfd_send_signal
  if (process >= 0) ::syscall(SYS_pidfd_send_signal, process, SIGKILL, nullptr, 0);
#endif
  if (process < 0) kill_process(pid, SIGKILL);
}

}  // namespace

// The process is opened before its start time is compared, so the process that is compared is the
// one that is killed.  If only one descriptor is left, it is used for the comparison.
void kill_born_by(pid_t pid, std::int64_t boottime) noexcept {
  int process = open_process(pid);
  bool meant = was_born_by(pid, boottime);
  if (!meant && errno == EMFILE && process >= 0) {
    ::close(std::exchange(process, -1));
    meant = was_born_by(pid, boottime);
  }
  if (meant) kill_opened(process, pid);
  if (process >= 0) ::close(process);
}

void kill_group(pid_t pid, int signum) noexcept {
  ::kill(-pid, signum);
}

bool reap_next(Reaped& out, bool (*has_group)(pid_t)) noexcept {
  siginfo_t info{};
  const int looked =
      retry_on_eintr([&] { return ::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT); });
  if (looked != 0 || info.si_pid == 0) return false;
  if (has_group(info.si_pid)) kill_group(info.si_pid, SIGKILL);
  return reap(info.si_pid, 0, out);
}

bool ended(pid_t pid, Reaped& out) noexcept {
  if (reap(pid, WNOHANG, out)) return true;
  if (::kill(pid, 0) == 0 || errno != ESRCH) return false;
  out = Reaped{};
  out.pid = pid;
  return true;
}

}  // namespace evparallel::detail
