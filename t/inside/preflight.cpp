// preflight.cpp - state that a snapshot would inherit or lose now: threads, descriptors, signals, timers, streams.
#include "elsewhere.hpp"
#include "private_names.hpp"
#include "process.hpp"
#include "testing.hpp"

#include "system/descriptor.hpp"
#include "system/socket.hpp"

#include <evparallel/preflight.hpp>

#include <nlohmann/json.hpp>

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio_ext.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <future>
#include <iostream>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using namespace evparallel;

namespace {

// A descriptor of the program, not of the library.
class Own {
public:
  explicit Own(int fd) : fd_(fd) {
    if (fd < 0) throw std::runtime_error("could not be opened");
  }
  Own(const Own&) = delete;
  Own& operator=(const Own&) = delete;
  ~Own() { ::close(fd_); }
  int get() const { return fd_; }

private:
  int fd_;
};

// A thread that waits until it is joined.
class Waiting {
public:
  explicit Waiting(const std::string& name) {
    std::promise<pid_t> started;
    thread_ = std::thread([this, name, &started] {
      ::pthread_setname_np(::pthread_self(), name.c_str());
      started.set_value(::gettid());
      leave_.get_future().wait();
    });
    tid_ = started.get_future().get();
  }
  ~Waiting() {
    leave_.set_value();
    thread_.join();
  }
  pid_t tid() const { return tid_; }

private:
  std::promise<void> leave_;
  std::thread thread_;
  pid_t tid_ = 0;
};

const PreflightReport::Descriptor* find(const PreflightReport& report, int fd) {
  for (const auto& descriptor : report.descriptors)
    if (descriptor.fd == fd) return &descriptor;
  return nullptr;
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

void check(int fd, const std::string& kind, bool refused) {
  const PreflightReport report = preflight();
  const auto* found = find(report, fd);
  BOOST_REQUIRE_MESSAGE(found, kind + " is not listed");
  BOOST_TEST(found->kind == kind);
  BOOST_TEST(found->refused == refused);
  BOOST_TEST(!found->target.empty());
  BOOST_TEST(report.in_the_way() == refused);
  BOOST_TEST(has(report.describe(), "descriptor " + std::to_string(fd) + " (" + kind + ")") ==
             refused);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(threads)

BOOST_AUTO_TEST_CASE(a_program_without_threads_lists_none) {
  const PreflightReport report = preflight();
  BOOST_TEST(report.threads.empty());
  BOOST_TEST(report.descriptors_known);
  BOOST_TEST(!report.in_the_way());
  BOOST_TEST(report.describe() == "");
}

BOOST_AUTO_TEST_CASE(threads_are_listed_with_their_names) {
  {
    const Waiting first("worker one");
    const Waiting second("odd ) (name");
    const PreflightReport report = preflight();
    BOOST_TEST(report.threads.size() == 2U);
    BOOST_TEST(report.in_the_way());
    for (const auto& expected : {std::pair{first.tid(), std::string("worker one")},
                                 std::pair{second.tid(), std::string("odd ) (name")}}) {
      const auto found =
          std::find_if(report.threads.begin(), report.threads.end(),
                       [&](const auto& thread) { return thread.tid == expected.first; });
      BOOST_REQUIRE((found != report.threads.end()));
      BOOST_TEST(found->name == expected.second);
      BOOST_TEST(has(report.describe(),
                     "thread " + std::to_string(expected.first) + " (" + expected.second + ")"));
    }
    BOOST_TEST(has(report.describe(), "), thread "));
    BOOST_TEST(has(report.describe(), "before the threads start"));
    BOOST_TEST(!has(report.describe(), "\n"));
  }
  BOOST_TEST(!preflight().in_the_way());
}

// A joined thread may be listed for a moment.
BOOST_AUTO_TEST_CASE(joined_threads_are_not_in_the_way) {
  for (int i = 0; i < 200; ++i) {
    std::thread([] {}).join();
    const PreflightReport report = preflight();
    if (report.in_the_way()) BOOST_ERROR(report.describe());
  }
  BOOST_TEST(preflight().threads.empty());
}

// For a call from a thread, the main thread is another thread.
BOOST_AUTO_TEST_CASE(the_calling_thread_is_not_listed) {
  PreflightReport report;
  pid_t caller = 0;
  std::thread([&] {
    caller = ::gettid();
    report = preflight();
  }).join();
  BOOST_REQUIRE(report.threads.size() == 1U);
  BOOST_TEST(report.threads[0].tid == ::getpid());
  BOOST_TEST(caller != ::getpid());
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(descriptors)

BOOST_AUTO_TEST_CASE(descriptors_of_event_loops_are_refused) {
  {
    const Own epoll(::epoll_create1(EPOLL_CLOEXEC));
    check(epoll.get(), "eventpoll", true);
  }
  {
    const Own inotify(::inotify_init1(IN_CLOEXEC));
    check(inotify.get(), "inotify", true);
  }
  BOOST_TEST(!preflight().in_the_way());
}

BOOST_AUTO_TEST_CASE(rare_kinds_of_descriptors_are_refused) {
  const long faults = ::syscall(SYS_userfaultfd, O_CLOEXEC);
  if (faults >= 0) {
    const Own owned(static_cast<int>(faults));
    check(owned.get(), "userfaultfd", true);
  }
  char parameters[120] = {};
  const long ring = ::syscall(SYS_io_uring_setup, 1, parameters);
  if (ring >= 0) {
    const Own owned(static_cast<int>(ring));
    check(owned.get(), "io_uring", true);
  }
  BOOST_TEST(!preflight().in_the_way());
}

BOOST_AUTO_TEST_CASE(other_descriptors_are_only_listed) {
  const Own file(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  check(file.get(), "file", false);
  const Own folder(::open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  check(folder.get(), "file", false);
  int ends[2];
  BOOST_REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  const Own reading(ends[0]);
  const Own writing(ends[1]);
  check(reading.get(), "pipe", false);
  check(writing.get(), "pipe", false);
  const Own tcp(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  check(tcp.get(), "socket", false);
  const Own local(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  check(local.get(), "socket", false);
  const Own counter(::eventfd(0, EFD_CLOEXEC));
  check(counter.get(), "eventfd", false);
  const Own timer(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC));
  check(timer.get(), "timerfd", false);
  sigset_t set;
  sigemptyset(&set);
  const Own signals(::signalfd(-1, &set, SFD_CLOEXEC));
  check(signals.get(), "signalfd", false);
  const Own memory(static_cast<int>(::syscall(SYS_memfd_create, "pipe:[7]", 1U)));
  check(memory.get(), "file", false);
  const PreflightReport report = preflight();
  BOOST_TEST(find(report, file.get())->target == "/dev/null");
  BOOST_TEST(report.describe() == "");
}

// The kind is not derived from the name.
BOOST_AUTO_TEST_CASE(a_file_may_have_any_name) {
  char folder[] = "/tmp/evparallel-22-XXXXXX";
  BOOST_REQUIRE(::mkdtemp(folder) != nullptr);
  const std::string path = std::string(folder) + "/anon_inode:[eventpoll]";
  {
    const Own file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    check(file.get(), "file", false);
    ::unlink(path.c_str());
    check(file.get(), "file", false);
  }
  ::rmdir(folder);
}

BOOST_AUTO_TEST_CASE(descriptors_are_listed_in_order) {
  const Own low(::dup(STDERR_FILENO));
  const Own high(::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 200));
  const PreflightReport report = preflight();
  BOOST_TEST(report.descriptors.size() == testing::count_descriptors());
  BOOST_TEST(std::is_sorted(report.descriptors.begin(), report.descriptors.end(),
                            [](const auto& a, const auto& b) { return a.fd < b.fd; }));
  for (const int fd : {0, 1, 2, low.get(), high.get()}) BOOST_TEST(find(report, fd) != nullptr);
}

BOOST_AUTO_TEST_CASE(descriptors_of_the_library_are_left_out) {
  OwnedFd one;
  OwnedFd other;
  BOOST_REQUIRE(make_pair(PairKind::packets, one, other) == 0);
  const OwnedFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  const PreflightReport report = preflight();
  BOOST_TEST(find(report, one.get()) == nullptr);
  BOOST_TEST(find(report, other.get()) == nullptr);
  BOOST_TEST(find(report, epoll.get()) == nullptr);
  BOOST_TEST(!report.in_the_way());
}

BOOST_AUTO_TEST_CASE(looking_opens_nothing) {
  const std::size_t before = testing::count_descriptors();
  for (int i = 0; i < 50; ++i) preflight();
  BOOST_TEST(testing::count_descriptors() == before);
}

BOOST_AUTO_TEST_CASE(everything_in_the_way_is_described) {
  const Own epoll(::epoll_create1(EPOLL_CLOEXEC));
  const Own inotify(::inotify_init1(IN_CLOEXEC));
  const Waiting thread("busy");
  const std::string text = preflight().describe();
  BOOST_TEST(
      text ==
      "thread " + std::to_string(thread.tid()) +
          " (busy) would be missing in the snapshot: take the snapshot before the thread starts; "
          "descriptor " +
          std::to_string(epoll.get()) +
          " (eventpoll) would be shared with the snapshot: take the snapshot before the event loop "
          "is created, or close the descriptor; descriptor " +
          std::to_string(inotify.get()) +
          " (inotify) would be shared with the snapshot: take the snapshot before files are "
          "watched, "
          "or close the descriptor");
}

BOOST_AUTO_TEST_CASE(each_refused_kind_of_descriptor_has_its_own_cure) {
  const std::pair<const char*, const char*> cures[] = {
      {"eventpoll", "before the event loop is created, or"},
      {"inotify", "before files are watched, or"},
      {"io_uring", "before the ring is set up, or"},
      {"userfaultfd", "before the descriptor is opened, or"}};
  for (const auto& [kind, cure] : cures) {
    PreflightReport report;
    report.descriptors = {{9, kind, "anon", true}};
    BOOST_TEST(has(report.describe(), cure));
  }
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(files)

namespace {

// A file in a folder of its own, and what may be beside it.
class Place {
public:
  std::string path() const { return folder_.path() + "/file"; }
  int open(int flags, const char* suffix = "") const {
    return ::open((path() + suffix).c_str(), flags | O_CLOEXEC, 0600);
  }

private:
  testing::Folder folder_;
};

PreflightReport::File file_of(int fd) {
  const PreflightReport report = preflight();
  const auto* found = find(report, fd);
  if (!found || !found->file) throw std::runtime_error("it is not listed as a regular file");
  return *found->file;
}

std::string access_of(int fd) {
  const PreflightReport::File file = file_of(fd);
  return std::string(file.read ? "r" : "") + (file.write ? "w" : "") + (file.append ? "a" : "");
}

// The first page of a SQLite database, as far as it matters.
void write_database(int fd) {
  std::string page("SQLite format 3", 16);
  page.resize(512);
  BOOST_REQUIRE(::write(fd, page.data(), page.size()) == static_cast<ssize_t>(page.size()));
}

void lock(int fd, int command) {
  struct flock all {};
  all.l_type = F_WRLCK;
  all.l_whence = SEEK_SET;
  BOOST_REQUIRE(::fcntl(fd, command, &all) == 0);
}

// Whether another process finds the file locked by locks of POSIX.
bool is_locked_for_others(int fd) {
  return testing::elsewhere([fd] {
           struct flock all {};
           all.l_type = F_WRLCK;
           all.l_whence = SEEK_SET;
           if (::fcntl(fd, F_GETLK, &all) != 0) return 2;
           return all.l_type == F_UNLCK ? 0 : 1;
         }) == 1;
}

using Locks = std::vector<std::string>;

}  // namespace

BOOST_AUTO_TEST_CASE(a_regular_file_is_reported_with_its_path_and_its_access_mode) {
  const Place place;
  const Own both(place.open(O_RDWR | O_CREAT));
  const Own reading(place.open(O_RDONLY));
  const Own appending(place.open(O_WRONLY | O_APPEND));
  const Own naming(place.open(O_PATH));
  BOOST_TEST(access_of(both.get()) == "rw");
  BOOST_TEST(access_of(reading.get()) == "r");
  BOOST_TEST(access_of(appending.get()) == "wa");
  BOOST_TEST(access_of(naming.get()) == "");
  const PreflightReport report = preflight();
  BOOST_TEST(find(report, both.get())->target == place.path());
  BOOST_TEST(file_of(both.get()).database == "");
  BOOST_TEST(file_of(both.get()).locks.empty());
  BOOST_TEST(!report.in_the_way());
  BOOST_TEST(report.describe() == "");
}

BOOST_AUTO_TEST_CASE(a_long_path_of_a_file_is_complete) {
  const testing::Folder folder;
  std::string path = folder.path();
  for (int i = 0; i < 3; ++i) {
    path += "/" + std::string(200, 'x');
    if (i < 2) BOOST_REQUIRE(::mkdir(path.c_str(), 0700) == 0);
  }
  const Own file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  const PreflightReport report = preflight();
  BOOST_TEST(find(report, file.get())->target == path);
}

BOOST_AUTO_TEST_CASE(only_regular_files_have_details_of_a_file) {
  const Own device(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const Own folder(::open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const Own counter(::eventfd(0, EFD_CLOEXEC));
  const PreflightReport report = preflight();
  for (const int fd : {device.get(), folder.get(), counter.get()})
    BOOST_TEST(!find(report, fd)->file.has_value());
}

BOOST_AUTO_TEST_CASE(locks_on_a_file_are_reported_by_kind_and_stay) {
  const Place place;
  {
    const Own file(place.open(O_RDWR | O_CREAT));
    lock(file.get(), F_SETLK);
    BOOST_TEST((file_of(file.get()).locks == Locks{"POSIX"}));
    BOOST_TEST(is_locked_for_others(file.get()));
  }
  {
    const Own file(place.open(O_RDWR));
    const Own another(place.open(O_RDWR));
    lock(file.get(), F_OFD_SETLK);
    BOOST_TEST((file_of(file.get()).locks == Locks{"OFDLCK"}));
    BOOST_TEST(file_of(another.get()).locks.empty());
  }
  const Own file(place.open(O_RDWR));
  BOOST_REQUIRE(::flock(file.get(), LOCK_EX) == 0);
  BOOST_TEST((file_of(file.get()).locks == Locks{"FLOCK"}));
  BOOST_TEST(!preflight().in_the_way());
}

BOOST_AUTO_TEST_CASE(an_sqlite_database_is_recognised_by_its_first_bytes) {
  const Place place;
  const Own file(place.open(O_RDWR | O_CREAT));
  write_database(file.get());
  lock(file.get(), F_SETLK);
  BOOST_TEST(file_of(file.get()).database == "SQLite");
  BOOST_TEST(::lseek(file.get(), 0, SEEK_CUR) == 512);
  BOOST_TEST(is_locked_for_others(file.get()));
  const std::string text = preflight().text();
  BOOST_TEST(has(text, "descriptor " + std::to_string(file.get()) + " (file) " + place.path() +
                           ": read, write; POSIX lock, "));
  BOOST_TEST(has(text, "; SQLite database: "));
  BOOST_TEST(preflight().describe() == "");
  BOOST_REQUIRE(::pwrite(file.get(), "s", 1, 0) == 1);
  BOOST_TEST(file_of(file.get()).database == "");
}

// A program may only write, and the bytes of a file that is not readable are not known.
BOOST_AUTO_TEST_CASE(a_database_is_recognised_by_the_journal_beside_it) {
  for (const char* suffix : {"-wal", "-journal"}) {
    const Place place;
    const Own file(place.open(O_WRONLY | O_CREAT));
    write_database(file.get());
    BOOST_TEST(file_of(file.get()).database == "");
    const Own journal(place.open(O_WRONLY | O_CREAT, suffix));
    BOOST_TEST(file_of(file.get()).database == "journal");
    BOOST_TEST(file_of(journal.get()).database == "");
  }
}

BOOST_AUTO_TEST_CASE(without_proc_no_file_is_known) {
  const auto status = testing::elsewhere_without_proc([] {
    const PreflightReport report = preflight();
    return report.descriptors.empty() && !report.descriptors_known && !report.in_the_way() ? 0 : 1;
  });
  if (!status) return testing::skip("/proc cannot be hidden here");
  BOOST_TEST(*status == 0);
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(signals)

namespace {

extern "C" void received(int) {}
extern "C" void received_with_details(int, siginfo_t*, void*) {}

// Sets the action of a signal for the lifetime of the object.
class At {
public:
  At(int signum, void (*handler)(int)) : signum_(signum) {
    struct sigaction action {};
    action.sa_handler = handler;
    ::sigaction(signum, &action, &before_);
  }
  At(int signum, void (*handler)(int, siginfo_t*, void*)) : signum_(signum) {
    struct sigaction action {};
    action.sa_flags = SA_SIGINFO;
    action.sa_sigaction = handler;
    ::sigaction(signum, &action, &before_);
  }
  At(const At&) = delete;
  At& operator=(const At&) = delete;
  ~At() { ::sigaction(signum_, &before_, nullptr); }

private:
  int signum_;
  struct sigaction before_ {};
};

std::optional<PreflightReport::Handler> handler_of(int signum) {
  for (const auto& handler : preflight().handlers)
    if (handler.signum == signum) return handler;
  return std::nullopt;
}

}  // namespace

BOOST_AUTO_TEST_CASE(signals_at_their_default_are_not_listed) {
  BOOST_TEST(!handler_of(SIGUSR1).has_value());
  BOOST_TEST(!handler_of(SIGRTMIN + 3).has_value());
}

BOOST_AUTO_TEST_CASE(handlers_are_named_by_their_library) {
  const At by_c(SIGUSR1, ::exit);
  const At by_cpp(SIGUSR2, reinterpret_cast<void (*)(int)>(&std::terminate));
  const auto c = handler_of(SIGUSR1);
  BOOST_REQUIRE(c.has_value());
  BOOST_TEST(c->signal == "SIGUSR1");
  BOOST_TEST(!c->ignored);
  BOOST_TEST(has(c->module, "libc"));
  BOOST_TEST(c->symbol == "exit");
  const auto cpp = handler_of(SIGUSR2);
  BOOST_REQUIRE(cpp.has_value());
  BOOST_TEST(has(cpp->module, "libstdc++"));
  BOOST_TEST(cpp->symbol == "std::terminate()");
}

BOOST_AUTO_TEST_CASE(handlers_of_the_program_and_ignored_signals_are_listed) {
  const At plain(SIGUSR1, received);
  const At detailed(SIGRTMIN + 3, received_with_details);
  const At ignored(SIGUSR2, SIG_IGN);
  for (const int signum : {SIGUSR1, SIGRTMIN + 3}) {
    const auto handler = handler_of(signum);
    BOOST_REQUIRE(handler.has_value());
    BOOST_TEST(!handler->ignored);
    BOOST_TEST(has(handler->module, "preflight"));
    // A program may not export the names of its functions.
    BOOST_TEST((has(handler->symbol, "received") || has(handler->symbol, "+0x")));
  }
  BOOST_TEST(handler_of(SIGRTMIN + 3)->signal == "signal " + std::to_string(SIGRTMIN + 3));
  BOOST_TEST(handler_of(SIGUSR2)->ignored);
  BOOST_TEST(handler_of(SIGUSR2)->module == "");
  BOOST_TEST(!preflight().in_the_way());
  BOOST_TEST(preflight().describe() == "");
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(timers)

namespace {

std::vector<PreflightReport::Timer> timers_of(const std::string& kind) {
  std::vector<PreflightReport::Timer> found;
  for (const auto& timer : preflight().timers)
    if (timer.kind == kind) found.push_back(timer);
  return found;
}

}  // namespace

BOOST_AUTO_TEST_CASE(interval_timers_are_listed) {
  const std::pair<__itimer_which, std::string> kinds[] = {{ITIMER_VIRTUAL, "virtual"},
                                                          {ITIMER_PROF, "profile"}};
  for (const auto& [which, kind] : kinds) {
    BOOST_TEST(timers_of(kind).empty());
    const itimerval wanted{{200, 500000}, {100, 0}};
    ::setitimer(which, &wanted, nullptr);
    const auto armed = timers_of(kind);
    const itimerval none{};
    ::setitimer(which, &none, nullptr);
    BOOST_REQUIRE(armed.size() == 1U);
    BOOST_TEST(armed[0].id == -1);
    // The kernel rounds up to a tick of its clock.
    BOOST_TEST(
        (armed[0].left > std::chrono::seconds(0) && armed[0].left < std::chrono::seconds(101)));
    BOOST_TEST((armed[0].interval >= std::chrono::milliseconds(200500)));
  }
}

BOOST_AUTO_TEST_CASE(an_alarm_is_listed_as_a_timer) {
  const unsigned left = ::alarm(0);  // the alarm of the test program itself
  BOOST_TEST(timers_of("real").empty());
  ::alarm(1000);
  const auto armed = timers_of("real");
  ::alarm(left);
  BOOST_REQUIRE(armed.size() == 1U);
  BOOST_TEST((armed[0].left > std::chrono::seconds(900)));
  BOOST_TEST((armed[0].interval == std::chrono::seconds(0)));
}

BOOST_AUTO_TEST_CASE(posix_timers_are_listed) {
  if (!preflight().timers_known) return testing::skip("this kernel does not list timers");
  timer_t timer{};
  sigevent silent{};
  silent.sigev_notify = SIGEV_NONE;
  BOOST_REQUIRE(::timer_create(CLOCK_MONOTONIC, &silent, &timer) == 0);
  BOOST_TEST(timers_of("posix").empty());  // it is not armed
  const itimerspec wanted{{3, 0}, {100, 0}};
  ::timer_settime(timer, 0, &wanted, nullptr);
  const auto armed = timers_of("posix");
  const PreflightReport report = preflight();
  ::timer_delete(timer);
  if (!report.timers_known) return testing::skip("timers have other numbers here than in /proc");
  BOOST_REQUIRE(armed.size() == 1U);
  BOOST_TEST(armed[0].id >= 0);
  BOOST_TEST(
      (armed[0].left > std::chrono::seconds(0) && armed[0].left <= std::chrono::seconds(100)));
  BOOST_TEST((armed[0].interval == std::chrono::seconds(3)));
  BOOST_TEST(!report.in_the_way());
  BOOST_TEST(timers_of("posix").empty());
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(streams)

namespace {

std::size_t pending(const std::string& name) {
  for (const auto& stream : preflight().streams)
    if (stream.name == name) return stream.pending;
  return 0;
}

}  // namespace

BOOST_AUTO_TEST_CASE(unwritten_output_is_listed) {
  BOOST_TEST(preflight().streams.empty());
  std::setvbuf(stderr, nullptr, _IOFBF, 64);
  for (const auto& [stream, name] : {std::pair{stdout, "stdout"}, std::pair{stderr, "stderr"}}) {
    std::fputs("12345", stream);
    const std::size_t found = pending(name);
    const PreflightReport report = preflight();
    ::__fpurge(stream);
    BOOST_TEST(found == 5U);
    BOOST_TEST(!report.in_the_way());
  }
  std::setvbuf(stderr, nullptr, _IONBF, 0);
  BOOST_TEST(preflight().streams.empty());
}

// The state after std::ios::sync_with_stdio(false): the streams have buffers of their own.
BOOST_AUTO_TEST_CASE(cpp_streams_with_their_own_buffer_are_listed) {
  const std::pair<std::ostream*, const char*> all[] = {
      {&std::cout, "std::cout"}, {&std::cerr, "std::cerr"}, {&std::clog, "std::clog"}};
  for (const auto& [stream, name] : all) {
    std::ofstream file("/dev/null");
    std::ostringstream text;
    std::streambuf* const before = stream->rdbuf(file.rdbuf());
    const std::ios::fmtflags flags = stream->flags();
    *stream << std::nounitbuf << "123";
    const std::size_t found = pending(name);
    stream->flush();
    const std::size_t flushed = pending(name);
    stream->rdbuf(text.rdbuf());
    *stream << "this goes nowhere";
    const std::size_t in_memory = pending(name);
    stream->flags(flags);
    stream->rdbuf(before);
    BOOST_TEST(found == 3U);
    BOOST_TEST(flushed == 0U);
    BOOST_TEST(in_memory == 0U);
  }
}

BOOST_AUTO_TEST_SUITE_END()

BOOST_AUTO_TEST_SUITE(the_report)

namespace {

PreflightReport sample() {
  PreflightReport report;
  report.threads = {{77, "odd\n\xff\"name"}};
  report.descriptors = {
      {0, "file", "/dev/null", false, std::nullopt},
      {5, "eventpoll", "anon", true, std::nullopt},
      {6, "file", "/a", false, PreflightReport::File{true, true, false, {"POSIX"}, "SQLite"}},
      {7, "file", "/b", false, PreflightReport::File{false, true, true, {"FLOCK"}, "journal"}},
      {8, "file", "/c", false, PreflightReport::File{}}};
  report.handlers = {{2, "SIGINT", false, "/lib/a.so", "f(int)"},
                     {13, "SIGPIPE", true, "", ""},
                     {15, "SIGTERM", false, "", ""}};
  report.timers = {{"real", -1, std::chrono::microseconds(1500000), std::chrono::microseconds(0)},
                   {"posix", 3, std::chrono::microseconds(20), std::chrono::seconds(2)}};
  report.timers_known = false;
  report.streams = {{"stdout", 12}};
  return report;
}

}  // namespace

BOOST_AUTO_TEST_CASE(the_text_has_a_line_for_each_finding) {
  BOOST_TEST(sample().text() ==
             "thread 77 (odd?\xEF\xBF\xBD\"name): in the way\n"
             "descriptor 0 (file) /dev/null\n"
             "descriptor 5 (eventpoll) anon: in the way\n"
             "descriptor 6 (file) /a: read, write; POSIX lock, which children do not have; SQLite "
             "database: a child must open it anew and not use this connection\n"
             "descriptor 7 (file) /b: write, append; FLOCK lock, which children share and can "
             "release; with a journal beside it: a child must open a database anew\n"
             "descriptor 8 (file) /c\n"
             "signal SIGINT: handled by f(int) in /lib/a.so\n"
             "signal SIGPIPE: ignored\n"
             "signal SIGTERM: handled\n"
             "timer real: 1.5 s left\n"
             "timer posix 3: 0.00002 s left, then every 2 s\n"
             "stream stdout: 12 bytes are not flushed\n");
  BOOST_TEST(
      sample().describe() ==
      "thread 77 (odd?\xEF\xBF\xBD\"name) would be missing in the snapshot: take the snapshot "
      "before the thread starts; descriptor 5 (eventpoll) would be shared with the snapshot: "
      "take the snapshot before the event loop is created, or close the descriptor");
  BOOST_TEST(PreflightReport{}.text() == "");
}

BOOST_AUTO_TEST_CASE(the_report_is_available_as_json) {
  const auto json = nlohmann::json::parse(sample().json());
  const auto expected = nlohmann::json::parse(R"json({
    "in_the_way": true,
    "threads": [{"tid": 77, "name": "odd?\ufffd\"name"}],
    "descriptors": [{"fd": 0, "kind": "file", "target": "/dev/null", "refused": false, "file": null},
                    {"fd": 5, "kind": "eventpoll", "target": "anon", "refused": true, "file": null},
                    {"fd": 6, "kind": "file", "target": "/a", "refused": false,
                     "file": {"read": true, "write": true, "append": false, "locks": ["POSIX"],
                              "database": "SQLite"}},
                    {"fd": 7, "kind": "file", "target": "/b", "refused": false,
                     "file": {"read": false, "write": true, "append": true, "locks": ["FLOCK"],
                              "database": "journal"}},
                    {"fd": 8, "kind": "file", "target": "/c", "refused": false,
                     "file": {"read": false, "write": false, "append": false, "locks": [],
                              "database": ""}}],
    "descriptors_known": true,
    "handlers": [
      {"signum": 2, "signal": "SIGINT", "ignored": false, "module": "/lib/a.so", "symbol": "f(int)"},
      {"signum": 13, "signal": "SIGPIPE", "ignored": true, "module": "", "symbol": ""},
      {"signum": 15, "signal": "SIGTERM", "ignored": false, "module": "", "symbol": ""}],
    "timers": [{"kind": "real", "id": -1, "left_us": 1500000, "interval_us": 0},
               {"kind": "posix", "id": 3, "left_us": 20, "interval_us": 2000000}],
    "timers_known": false,
    "streams": [{"name": "stdout", "pending": 12}]})json");
  BOOST_TEST((json == expected), json.dump());
  BOOST_TEST(!nlohmann::json::parse(PreflightReport{}.json())["in_the_way"].get<bool>());
  // The report of this process, whatever it contains.
  const PreflightReport now = preflight();
  const auto reported = nlohmann::json::parse(now.json());
  BOOST_TEST(reported["descriptors"].size() == now.descriptors.size());
  BOOST_TEST(reported["handlers"].size() == now.handlers.size());
}

BOOST_AUTO_TEST_SUITE_END()
