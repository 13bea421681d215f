// main.cpp - runs the cases of one test program, reports them in TAP, and checks what each case leaves behind.
//
// Boost.Test has no TAP output. A process left behind would keep the standard output open, and the TAP driver would
// wait for it for ever: so every case is followed by a check for remaining processes.
#include "last_words.hpp"
#include "process.hpp"
#include "testing.hpp"

#include <boost/test/tree/traverse.hpp>
#include <boost/test/tree/visitor.hpp>
#ifdef EVPARALLEL_TEST_HEADERS_ONLY
#include <boost/test/included/unit_test.hpp>
#endif

#include <poll.h>
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

// Present in an audit build.
extern "C" {
[[gnu::weak]] void __lsan_do_leak_check();
[[gnu::weak]] void __sanitizer_set_death_callback(void (*)());
}

[[gnu::weak]] void testing_main_init() {}

namespace testing {
namespace {

namespace but = boost::unit_test;
using Clock = std::chrono::steady_clock;

constexpr int exit_ran_on = 70;  // a process forked by a case did what only the test program may do
constexpr int exit_timed_out = 99;  // automake: a hard error

pid_t test_program = 0;

// One page shared with everything forked from here: the case may reap a process before the harness can look at its exit
// status.
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

// ---- output -------------------------------------------------------------------------------------

// Turns the log of Boost.Test into TAP comments.
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
    line_.pop_back();
    if (in_case) note_evidence(line_);
    line_.clear();
  }
  std::string line_;
};

// ---- time: SIGALRM ends the program --------------------------------------------------------------

// Everything that the handler needs is made before it can run: the handler must not allocate.
char case_line[512];
char bail_out[512];

// A process that keeps the standard output open would keep the TAP driver waiting.
void end_everything(const char* how) {
  if (in_case) say_last(case_line);
  if (::write(STDOUT_FILENO, how, std::strlen(how)) >= 0) kill_everything();
}

void on_alarm(int) {
  if (::getpid() != test_program) return;
  end_everything(bail_out);
  ::_exit(exit_timed_out);
}

void on_crash(int signum) {
  ::signal(signum, SIG_DFL);
  if (::getpid() == test_program) end_everything("# the test program has crashed\n");
  ::raise(signum);
}

// Called in a process that a sanitizer is about to end, after its report: in any process that was forked from here,
// whose status may never be waited for.
void on_report() {
  ++astray->reports;
  if (::getpid() == test_program) end_everything("# a sanitizer ends the test program\n");
}

// ---- processes: which are left -------------------------------------------------------------------

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
  std::vector<pid_t> ours;       // unexpected children of the test program
  std::vector<pid_t> snapshots;  // children of expected children
  bool none() const { return ours.empty() && snapshots.empty(); }
};

// Looks once, and reaps ended processes: after the case nothing else reaps them. Reports processes that ran on.
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

// Waits until nothing is left. Remaining processes are reported as such, and not as a wait that timed out.
Leftovers settle(bool& ran_on) {
  const auto end = Clock::now() + patience();
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
  settle(ran_on);  // killed processes are also reaped before the next case begins
  return names;
}

// ---- descriptors ---------------------------------------------------------------------------------

std::string list_descriptors() {
  std::string list;
  for (const auto& [number, target] : descriptors_of(::getpid()))
    list += "# " + std::to_string(number) + " -> " + target + "\n";
  return list;
}

// ---- the observer --------------------------------------------------------------------------------

std::string tap_name(const but::test_unit& unit) {
  std::string name = unit.full_name();
  std::replace(name.begin(), name.end(), '#', '_');  // would start a TAP directive
  return name;
}

class TapObserver : public but::test_observer {
public:
  void test_start(but::counter_t cases, but::test_unit_id) override {
    write_out("1.." + std::to_string(cases) + "\n");
  }

  void test_finish() override {
    if (failures_.empty()) return;
    write_out("# ---- failed: " + std::to_string(failed_) + " of " + std::to_string(reported_) +
              " ----\n" + failures_);
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
    forget_evidence();
    std::snprintf(case_line, sizeof case_line, "# in case %.400s\n", current.name.c_str());
    in_case = true;
    limit();
  }

  void assertion_result(but::assertion_result result) override {
    if (result == but::AR_TRIGGERED) return;  // a warning
    ++current.asserted;
    if (result != but::AR_FAILED) return;
    only_in_test_program("failed an assertion, which only the test program can tell");
    ++current.failed;
    note_seed();
  }

  void exception_caught(const boost::execution_exception&) override {
    only_in_test_program("let an exception leave its case");
    ++current.failed;
    note_seed();
  }

  void test_unit_aborted(const but::test_unit& unit) override {
    if (unit.p_type == but::TUT_CASE && current.failed == 0) current.failed = 1;
  }

  void test_unit_skipped(const but::test_unit& unit, but::const_string reason) override {
    forget_evidence();
    if (unit.p_type != but::TUT_CASE || !unit.is_enabled()) return;
    report(false, tap_name(unit) + ": not run: " + std::string(reason.begin(), reason.size()));
  }

  void test_unit_finish(const but::test_unit& unit, unsigned long) override {
    if (unit.p_type != but::TUT_CASE) return;
    only_in_test_program("ran on to the end of its case");
    ::alarm(0);
    in_case = false;
    const std::string complaint = what_is_wrong();
    if (complaint.empty() && !current.skip_reason.empty()) {
      report(true, current.name + " # SKIP " + current.skip_reason);
    } else {
      report(complaint.empty(), current.name + (complaint.empty() ? "" : " - " + complaint));
    }
  }

  // After the results collector, so that the collector has handled every event first.
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

  // All complaints: one must not hide another.
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

  void report(bool good, const std::string& text) {
    write_out((good ? "ok " : "not ok ") + std::to_string(++reported_) + " - " + text + "\n");
    if (good) return;
    ++failed_;
    failures_ += "# " + text + "\n" + evidence();
  }

  int reported_ = 0;
  int failed_ = 0;
  std::string failures_;  // repeated at the end: a truncated log may contain nothing else
};

bool set_up() {
  static TapObserver observer;
  static CommentBuffer buffer;
  static std::ostream comments(&buffer);
  but::framework::register_observer(observer);
  but::unit_test_log.set_stream(comments);
  return true;
}

// Of all cases, including those that are disabled by default.
class NamePrinter : public but::test_tree_visitor {
  void visit(const but::test_case& unit) override { write_out(tap_name(unit) + "\n"); }
};

int print_names(char* program) {
  but::framework::init(&set_up, 1, &program);
  but::framework::finalize_setup_phase();
  NamePrinter printer;
  but::traverse_test_tree(but::framework::master_test_suite(), printer, true);
  but::framework::shutdown();
  return 0;
}

}  // namespace

// ---- functions for test programs -----------------------------------------------------------------

std::size_t count_descriptors() {
  const std::size_t count = descriptors_of(::getpid()).size();
  if (count == 0) throw std::runtime_error("/proc/self/fd cannot be read");
  return count;
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

// As src/system/emulation.cpp, which a test of t/outside does not see.
bool emulated() {
  std::error_code error;
  return std::filesystem::read_symlink("/proc/self/exe", error) !=
         std::filesystem::read_symlink("/proc/thread-self/exe", error);
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
  // Without /proc it could not look, and with a /proc of other numbers it searches for its threads for ever.
  char number[16] = {};
  const bool is_ours = ::readlink("/proc/self", number, sizeof number - 1) > 0 &&
                       std::to_string(::getpid()) == number;
  if (watched_for_leaks() && is_ours) __lsan_do_leak_check();
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

std::chrono::steady_clock::duration patience() {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::seconds(60) * time_scale());
}

void ran_out(const char* file, int line) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(patience()).count();
  const std::string text = "waited in vain for " + std::to_string(seconds) + " s";
  if (::getpid() == test_program && in_case) {
    but::unit_test_log << but::log::begin(file, static_cast<std::size_t>(line))
                       << but::log_all_errors << text << but::log::end();
    but::framework::assertion_result(but::AR_FAILED);
    return;
  }
  const std::string place = std::string("# ") + file + "(" + std::to_string(line) + "): process " +
                            std::to_string(::getpid()) + " " + text + "\n";
  if (::write(STDERR_FILENO, place.data(), place.size()) < 0) return;
}

bool is_ready(int fd, short events, const char* file, int line) {
  pollfd wait{fd, events, 0};
  return wait_until([&] { return ::poll(&wait, 1, 0) == 1; }, [&] { ::poll(&wait, 1, 100); }, file,
                    line);
}

std::uint32_t seed(std::uint32_t usual) {
  const char* const text = std::getenv("TEST_SEED");
  const auto seed = text ? static_cast<std::uint32_t>(std::strtoul(text, nullptr, 10)) : usual;
  set_seed(seed);
  return seed;
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
  if (argc == 2 && std::string(argv[1]) == "--names") return testing::print_names(argv[0]);
  testing::test_program = ::getpid();
  // Processes that a case leaves behind become children of this process, not of init: so the harness can see them, and
  // wait for them.
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  // A shell without job control lets a program that it starts in the background ignore them.
  for (const int signum : {SIGINT, SIGQUIT}) ::signal(signum, SIG_DFL);
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
        (old.sa_flags & SA_SIGINFO) != 0 || old.sa_handler != SIG_DFL;  // that of a sanitizer
    if (!taken) ::sigaction(signum, &action, nullptr);
  }
  std::atexit([] {  // a case that calls exit()
    if (::getpid() == testing::test_program && testing::in_case)
      testing::end_everything("# the test program calls exit()\n");
  });
  testing::astray = &testing::shared<testing::Astray>();
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
