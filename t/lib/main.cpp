// main.cpp - runs the cases of one test program, tells them in TAP, and watches what each leaves behind.
//
// Boost.Test has no TAP of its own. A process left behind would keep our standard output open, and the
// TAP driver would wait for it for ever: so every case is followed by a look at what it left.
#include "testing.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <new>
#include <ostream>
#include <sstream>
#include <stdexcept>
#include <streambuf>

// There in an audit build.
extern "C" {
[[gnu::weak]] void __lsan_do_leak_check();
[[gnu::weak]] void __sanitizer_set_death_callback(void (*)());
}

[[gnu::weak]] void testing_main_init() {}

namespace testing {
namespace {

namespace but = boost::unit_test;
using Clock = std::chrono::steady_clock;

constexpr int exit_ran_on = 70;     // a process forked by a case did what only the test program may
constexpr int exit_timed_out = 99;  // automake: a hard error
constexpr unsigned default_limit = 60;
constexpr std::chrono::seconds patience(2);  // for what a case has started and ended

pid_t test_program = 0;

// One page shared with everything forked from here: the case may reap a process before we can look at
// its exit status.
struct Astray {
  volatile sig_atomic_t processes;
  std::atomic<int> reports;  // processes that a sanitizer has ended
};
Astray* astray = nullptr;
bool in_case = false;

std::vector<pid_t> expected;

struct CaseState {
  std::string name;
  unsigned long asserted = 0;
  unsigned long failed = 0;
  std::size_t descriptors = 0;
  int allowed_descriptors = 0;
  int allowed_reports = 0;
  std::string skip_reason;
};
CaseState current;

// ---- output: one write per line, so that no buffer is cloned by a fork ---------------------------

void write_out(const std::string& text) {
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t n = ::write(STDOUT_FILENO, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;
    done += static_cast<std::size_t>(n);
  }
}

// Turns what Boost.Test logs into TAP comments.
class CommentBuffer : public std::streambuf {
protected:
  int_type overflow(int_type c) override {
    if (c == traits_type::eof()) return 0;
    line_ += static_cast<char>(c);
    if (c == '\n') flush_line();
    return c;
  }

private:
  void flush_line() {
    write_out("# " + line_);
    line_.clear();
  }
  std::string line_;
};

// ---- time: SIGALRM ends the program --------------------------------------------------------------

// All that the handler needs is made before it can run: in it nothing may allocate.
char bail_out[512];

// The children of this process, for a signal handler: no allocation, no stdio.
std::size_t own_children(pid_t* out, std::size_t room) {
  char path[64] = "/proc/thread-self/children";
  char text[4096];
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  const ssize_t n = ::read(fd, text, sizeof text);
  ::close(fd);
  std::size_t count = 0;
  pid_t pid = 0;
  for (ssize_t i = 0; i < n && count < room; ++i) {
    if (text[i] >= '0' && text[i] <= '9') {
      pid = pid * 10 + (text[i] - '0');
    } else if (pid != 0) {
      out[count++] = pid;
      pid = 0;
    }
  }
  return count;
}

// Ends every child and, as orphans come to us, every descendant.
void kill_everything() {
  pid_t pids[256];
  for (int turn = 0; turn < 500; ++turn) {
    const std::size_t count = own_children(pids, 256);
    if (count == 0) return;
    for (std::size_t i = 0; i < count; ++i) {
      const pid_t group = ::getpgid(pids[i]);
      if (group > 0 && group != ::getpgrp()) ::kill(-group, SIGKILL);
      ::kill(pids[i], SIGKILL);
    }
    while (::waitpid(-1, nullptr, WNOHANG) > 0) {}
    ::poll(nullptr, 0, 1);
  }
}

void on_alarm(int) {
  if (::getpid() != test_program) return;
  if (::write(STDOUT_FILENO, bail_out, std::strlen(bail_out)) < 0) ::_exit(exit_timed_out);
  kill_everything();
  ::_exit(exit_timed_out);
}

// Whoever kept our standard output open would keep the TAP driver waiting.
void on_crash(int signum) {
  ::signal(signum, SIG_DFL);
  if (::getpid() == test_program) kill_everything();
  ::raise(signum);
}

// In the process that a sanitizer is about to end, after its report: any that was forked from here, and nobody may
// be waiting for its status.
void on_report() {
  ++astray->reports;
  if (::getpid() == test_program) kill_everything();
}

// ---- processes: who is left ----------------------------------------------------------------------

std::string name_of(pid_t pid) {
  std::ifstream comm("/proc/" + std::to_string(pid) + "/comm");
  std::string name;
  std::getline(comm, name);
  return name.empty() ? "?" : name;
}

bool is_expected(pid_t pid) {
  return std::find(expected.begin(), expected.end(), pid) != expected.end();
}

struct Leftovers {
  std::vector<pid_t> ours;       // children of the test program that were not expected
  std::vector<pid_t> snapshots;  // children of expected children
  bool none() const { return ours.empty() && snapshots.empty(); }
};

// Looks once, and reaps what has ended: after the case nobody else will. Tells of those that ran on.
Leftovers look(bool& ran_on) {
  Leftovers found;
  for (const pid_t pid : children_of(::getpid())) {
    if (is_expected(pid)) {
      for (const pid_t grandchild : children_of(pid)) found.snapshots.push_back(grandchild);
      continue;
    }
    int status = 0;
    if (::waitpid(pid, &status, WNOHANG) == 0)
      found.ours.push_back(pid);
    else if (WIFEXITED(status) && WEXITSTATUS(status) == exit_ran_on)
      ran_on = true;
  }
  return found;
}

// Waits until nothing is left, in vain for at most `patience`.
Leftovers settle(bool& ran_on) {
  const auto end =
      Clock::now() + std::chrono::duration_cast<Clock::duration>(patience * time_scale());
  for (;;) {
    Leftovers left = look(ran_on);
    if (left.none() || Clock::now() >= end) return left;
    ::poll(nullptr, 0, 1);
  }
}

std::string end_leftovers(const Leftovers& left) {
  std::string names;
  for (const auto* group : {&left.ours, &left.snapshots}) {
    for (const pid_t pid : *group) {
      names += (names.empty() ? "" : ", ") + std::to_string(pid) + " " + name_of(pid);
      if (!process_exists(pid)) names += " (zombie)";
      ::kill(pid, SIGKILL);
    }
  }
  bool ran_on = false;
  settle(ran_on);  // what was killed is also reaped before the next case begins
  return names;
}

// ---- descriptors ---------------------------------------------------------------------------------

std::string list_descriptors() {
  std::string list;
  DIR* dir = ::opendir("/proc/self/fd");
  if (dir == nullptr) return list;
  while (const dirent* entry = ::readdir(dir)) {
    char target[256];
    const std::string path = std::string("/proc/self/fd/") + entry->d_name;
    const ssize_t n = ::readlink(path.c_str(), target, sizeof target);
    if (n > 0 && std::atoi(entry->d_name) != ::dirfd(dir)) {
      list += std::string("# ") + entry->d_name + " -> " +
              std::string(target, static_cast<std::size_t>(n)) + "\n";
    }
  }
  ::closedir(dir);
  return list;
}

// ---- the observer --------------------------------------------------------------------------------

std::string tap_name(const but::test_unit& unit) {
  std::string name = unit.full_name();
  const auto slash = name.find('/');  // the part before it is the same in all: the master suite
  if (slash != std::string::npos) name.erase(0, slash + 1);
  std::replace(name.begin(), name.end(), '#', '_');  // would start a TAP directive
  return name;
}

class TapObserver : public but::test_observer {
public:
  void test_start(but::counter_t cases, but::test_unit_id) override {
    write_out("1.." + std::to_string(cases) + "\n");
  }

  void test_aborted() override { write_out("Bail out! Boost.Test gave up\n"); }

  void test_unit_start(const but::test_unit& unit) override {
    if (unit.p_type != but::TUT_CASE) return;
    only_in_test_program("started the next case");
    current = CaseState{};
    current.name = tap_name(unit);
    current.descriptors = count_descriptors();
    astray->processes = 0;
    astray->reports = 0;
    in_case = true;
    limit(default_limit);
  }

  void assertion_result(but::assertion_result result) override {
    if (result == but::AR_TRIGGERED) return;  // a warning
    ++current.asserted;
    if (result != but::AR_FAILED) return;
    only_in_test_program("failed an assertion, which only the test program can tell");
    ++current.failed;
  }

  void exception_caught(const boost::execution_exception&) override {
    only_in_test_program("let an exception leave its case");
    ++current.failed;
  }

  void test_unit_aborted(const but::test_unit& unit) override {
    if (unit.p_type == but::TUT_CASE && current.failed == 0) current.failed = 1;
  }

  void test_unit_skipped(const but::test_unit& unit, but::const_string reason) override {
    if (unit.p_type != but::TUT_CASE || !unit.is_enabled()) return;
    tell(false, tap_name(unit) + ": not run: " + std::string(reason.begin(), reason.size()));
  }

  void test_unit_finish(const but::test_unit& unit, unsigned long) override {
    if (unit.p_type != but::TUT_CASE) return;
    only_in_test_program("ran on to the end of its case");
    ::alarm(0);
    in_case = false;
    const std::string complaint = what_is_wrong();
    if (complaint.empty() && !current.skip_reason.empty()) {
      tell(true, current.name + " # SKIP " + current.skip_reason);
    } else {
      tell(complaint.empty(), current.name + (complaint.empty() ? "" : " - " + complaint));
    }
  }

  // After the collector of results, so that it has seen everything first.
  int priority() override { return 5; }

private:
  static void only_in_test_program(const char* deed) {
    if (::getpid() == test_program) return;
    const std::string text = "# process " + std::to_string(::getpid()) + ", forked in \"" +
                             current.name + "\", " + deed + "\n";
    astray->processes = 1;
    if (::write(STDERR_FILENO, text.data(), text.size()) < 0) ::_exit(exit_ran_on);
    ::_exit(exit_ran_on);
  }

  // Every complaint there is: one must not hide the other.
  static std::string what_is_wrong() {
    std::vector<std::string> complaints;
    bool ran_on = false;
    const Leftovers left = settle(ran_on);
    if (!left.none()) complaints.push_back("left behind: " + end_leftovers(left));
    if (ran_on || astray->processes != 0)
      complaints.push_back("a process forked by it ran on as if it were the test program");
    const std::size_t now = count_descriptors();
    if (now > current.descriptors + static_cast<std::size_t>(current.allowed_descriptors)) {
      complaints.push_back("left " + std::to_string(now - current.descriptors) +
                           " descriptors open");
      write_out(list_descriptors());
    }
    if (astray->reports > current.allowed_reports)
      complaints.push_back("a sanitizer ended " + std::to_string(astray->reports) + " processes");
    if (current.failed != 0) complaints.push_back(std::to_string(current.failed) + " failed");
    if (current.asserted == 0 && current.skip_reason.empty())
      complaints.push_back("asserted nothing");
    std::string text;
    for (const auto& complaint : complaints) text += (text.empty() ? "" : "; ") + complaint;
    return text;
  }

  void tell(bool good, const std::string& text) {
    write_out((good ? "ok " : "not ok ") + std::to_string(++told_) + " - " + text + "\n");
  }

  int told_ = 0;
};

bool set_up() {
  static TapObserver observer;
  static CommentBuffer buffer;
  static std::ostream comments(&buffer);
  but::framework::register_observer(observer);
  but::unit_test_log.set_stream(comments);
  return true;
}

}  // namespace

// ---- what test programs call ---------------------------------------------------------------------

std::size_t count_descriptors() {
  std::size_t count = 0;
  DIR* dir = ::opendir("/proc/self/fd");
  if (dir == nullptr) throw std::runtime_error("/proc/self/fd cannot be read");
  while (const dirent* entry = ::readdir(dir)) count += entry->d_name[0] != '.' ? 1 : 0;
  ::closedir(dir);
  return count - 1;  // the one that was open for looking
}

std::vector<pid_t> children_of(pid_t parent) {
  std::vector<pid_t> children;
  const std::string tasks = "/proc/" + std::to_string(parent) + "/task";
  DIR* dir = ::opendir(tasks.c_str());
  if (dir == nullptr) return children;  // it has ended
  while (const dirent* entry = ::readdir(dir)) {
    if (entry->d_name[0] == '.') continue;
    std::ifstream file(tasks + "/" + entry->d_name + "/children");
    for (pid_t pid = 0; file >> pid;) children.push_back(pid);
  }
  ::closedir(dir);
  return children;
}

bool process_exists(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::stringstream text;
  text << file.rdbuf();
  const std::string stat = text.str();
  const auto name_end = stat.rfind(')');  // the name may hold anything, brackets too
  if (name_end == std::string::npos || name_end + 2 >= stat.size()) return false;
  const char state = stat[name_end + 2];
  return state != 'Z' && state != 'X';
}

void expect_child(pid_t pid) {
  if (!is_expected(pid)) expected.push_back(pid);
}

void forget_child(pid_t pid) {
  expected.erase(std::remove(expected.begin(), expected.end(), pid), expected.end());
}

void allow_descriptors(int count) {
  current.allowed_descriptors += count;
}

std::string library_path(const std::string& name) {
  const auto folder = std::filesystem::read_symlink("/proc/self/exe").parent_path().parent_path();
  return (folder / "lib" / ".libs" / name).string();
}

bool no_memfd() {
  static const bool none = [] {
    const int fd = ::memfd_create("probe", MFD_CLOEXEC);
    if (fd < 0) return errno == ENOSYS;
    ::close(fd);
    return false;
  }();
  return none;
}

bool watched_for_leaks() {
  return __lsan_do_leak_check != nullptr;
}

void look_for_leaks() {
  // Without /proc it could not look, and would call that an error.
  if (watched_for_leaks() && ::access("/proc/self/task", R_OK) == 0) __lsan_do_leak_check();
}

int sanitizer_reports() {
  return astray->reports;
}

void allow_reports(int count) {
  current.allowed_reports += count;
}

void limit(unsigned seconds) {
  const auto scaled = std::max(1U, static_cast<unsigned>(seconds * time_scale()));
  ::alarm(0);  // the text must not change under the handler
  std::snprintf(bail_out, sizeof bail_out, "Bail out! case %.400s took longer than %u s\n",
                current.name.c_str(), scaled);
  ::alarm(scaled);
}

double time_scale() {
  static const double scale = [] {
    const char* text = std::getenv("TEST_TIME_SCALE");
    const double value = text == nullptr ? 1.0 : std::atof(text);
    return value > 0 ? value : 1.0;
  }();
  return scale;
}

void skip(const std::string& reason) {
  current.skip_reason = reason;
}

}  // namespace testing

int main(int argc, char** argv) {
  testing::test_program = ::getpid();
  // What a case leaves behind comes to us, not to init: so it can be seen, and waited for.
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  if (::access("/proc/thread-self/children", R_OK) != 0) {
    std::puts(
        "Bail out! this kernel has no /proc/thread-self/children: processes cannot be watched");
    return testing::exit_timed_out;
  }
  struct sigaction action = {};
  action.sa_handler = testing::on_alarm;
  ::sigaction(SIGALRM, &action, nullptr);
  action.sa_handler = testing::on_crash;
  for (const int signum : {SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV}) {
    struct sigaction old = {};
    ::sigaction(signum, nullptr, &old);
    const bool taken =
        (old.sa_flags & SA_SIGINFO) != 0 || old.sa_handler != SIG_DFL;  // a sanitizer's
    if (!taken) ::sigaction(signum, &action, nullptr);
  }
  std::atexit([] {  // a case that calls exit()
    if (::getpid() == testing::test_program && testing::in_case) testing::kill_everything();
  });
  void* const page = ::mmap(nullptr, sizeof(testing::Astray), PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return testing::exit_timed_out;
  testing::astray = new (page) testing::Astray{};
  if (__sanitizer_set_death_callback) __sanitizer_set_death_callback(testing::on_report);
  try {
    testing_main_init();
  } catch (const std::exception& error) {
    testing::write_out(std::string("Bail out! before the first case: ") + error.what() + "\n");
    testing::kill_everything();
    return testing::exit_timed_out;
  }

  // Boost would turn signals of children into failures, and count a failure again by its exit code.
  std::vector<std::string> words = {argv[0],
                                    "--catch_system_errors=no",
                                    "--result_code=no",
                                    "--detect_memory_leaks=0",
                                    "--report_level=no",
                                    "--color_output=no"};
  words.insert(words.end(), argv + 1, argv + argc);
  std::vector<char*> pointers;
  for (auto& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  return boost::unit_test::unit_test_main(&testing::set_up, static_cast<int>(words.size()),
                                          pointers.data());
}
