// 22-preflight.cpp - what a snapshot taken now would inherit: threads and descriptors, by name and kind.
#include "testing.hpp"

#include "descriptor.hpp"
#include "socket.hpp"

#include <evparallel/preflight.hpp>

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <future>
#include <stdexcept>
#include <string>
#include <thread>
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

BOOST_AUTO_TEST_CASE(there_are_none) {
  const PreflightReport report = preflight();
  BOOST_TEST(report.threads.empty());
  BOOST_TEST(report.descriptors_known);
  BOOST_TEST(!report.in_the_way());
  BOOST_TEST(report.describe() == "");
}

BOOST_AUTO_TEST_CASE(they_are_named) {
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
    BOOST_TEST(has(report.describe(), "), "));
    BOOST_TEST(!has(report.describe(), "\n"));
  }
  BOOST_TEST(!preflight().in_the_way());
}

// A thread that was joined may be listed for a moment.
BOOST_AUTO_TEST_CASE(joined_threads_are_not_in_the_way) {
  for (int i = 0; i < 200; ++i) {
    std::thread([] {}).join();
    const PreflightReport report = preflight();
    if (report.in_the_way()) BOOST_ERROR(report.describe());
  }
  BOOST_TEST(preflight().threads.empty());
}

// Asked by a thread, the first one is another.
BOOST_AUTO_TEST_CASE(the_calling_thread_is_left_out) {
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

BOOST_AUTO_TEST_CASE(those_of_event_loops_are_refused) {
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

BOOST_AUTO_TEST_CASE(rarer_ones_are_refused) {
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

BOOST_AUTO_TEST_CASE(the_others_are_only_listed) {
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

// A name is no kind.
BOOST_AUTO_TEST_CASE(a_file_may_be_called_anything) {
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

BOOST_AUTO_TEST_CASE(they_come_in_order) {
  const Own low(::dup(STDERR_FILENO));
  const Own high(::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 200));
  const PreflightReport report = preflight();
  BOOST_TEST(report.descriptors.size() == testing::count_descriptors());
  BOOST_TEST(std::is_sorted(report.descriptors.begin(), report.descriptors.end(),
                            [](const auto& a, const auto& b) { return a.fd < b.fd; }));
  for (const int fd : {0, 1, 2, low.get(), high.get()}) BOOST_TEST(find(report, fd) != nullptr);
}

BOOST_AUTO_TEST_CASE(those_of_the_library_are_left_out) {
  Descriptor one;
  Descriptor other;
  BOOST_REQUIRE(make_pair(PairKind::packets, one, other) == 0);
  const Descriptor epoll(::epoll_create1(EPOLL_CLOEXEC));
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

BOOST_AUTO_TEST_CASE(all_that_is_in_the_way_is_described) {
  const Own epoll(::epoll_create1(EPOLL_CLOEXEC));
  const Own inotify(::inotify_init1(IN_CLOEXEC));
  const Waiting thread("busy");
  const std::string text = preflight().describe();
  BOOST_TEST(text == "thread " + std::to_string(thread.tid()) + " (busy), descriptor " +
                         std::to_string(epoll.get()) + " (eventpoll), descriptor " +
                         std::to_string(inotify.get()) + " (inotify)");
}

BOOST_AUTO_TEST_SUITE_END()
