// answers.cpp - a child that sends what no child of the library sends: every call ends, once, and names the cause.
#include "calling.hpp"
#include "process.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace par = evparallel;
using namespace std::chrono_literals;

namespace {

// Memory that the children of a case share with it.
struct Shared {
  std::atomic<int> begun{0};
};
Shared* shared = nullptr;

}  // namespace

void testing_main_init() {
  shared = &testing::shared<Shared>();
  testing::take_default_snapshot();
}

namespace {

// ---- frames, as in evparallel_protocol(7) ----

enum Kind : std::uint8_t { call = 2, value = 3, error = 4, message = 5, end = 6, unknown = 99 };

int socket_type_of(int fd) {
  int type = 0;
  socklen_t size = sizeof type;
  return ::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 ? type : 0;
}

// Writes to the data socket of this child, past the library.
void send_frame(std::uint8_t kind, std::uint64_t id, const std::string& body) {
  std::string frame(16, '\0');
  const std::uint64_t word = body.size() | std::uint64_t{kind} << 48;
  std::memcpy(frame.data(), &word, sizeof word);
  std::memcpy(frame.data() + 8, &id, sizeof id);
  frame += body;
  for (const auto& [fd, target] : testing::descriptors_of(::getpid()))
    if (fd > STDERR_FILENO && socket_type_of(fd) == SOCK_STREAM &&
        ::write(fd, frame.data(), frame.size()) != static_cast<ssize_t>(frame.size()))
      throw std::runtime_error("the frame was not written");
}

// ---- tasks ----

// The body of an error frame.
std::string error_body(std::int32_t code, std::int32_t delivery) {
  const std::int32_t numbers[] = {code, 0, delivery, 0};
  std::string body(reinterpret_cast<const char*>(numbers), sizeof numbers);
  return body + std::string(3 * sizeof(std::uint64_t), '\0');  // no text, no type, no stack
}

[[noreturn]] void live_on() {
  for (;;) ::pause();
}

// Sends an empty frame of a kind in place of its answer, and lives on.
int send_kind(int kind) {
  ++shared->begun;
  send_frame(static_cast<std::uint8_t>(kind), par::this_call::id(), {});
  live_on();
}

// Sends it, and ends.
int send_kind_and_end(int kind) {
  ++shared->begun;
  send_frame(static_cast<std::uint8_t>(kind), par::this_call::id(), {});
  ::_exit(0);
}

// Answers with an error of this code, which says that the call was not begun.
int refuse(int code) {
  ++shared->begun;
  constexpr auto not_begun = static_cast<std::int32_t>(par::Delivery::sent);
  send_frame(error, par::this_call::id(), error_body(code, not_begun));
  return code;
}

// The same for the task itself.
int fail_the_task(int code) {
  ++shared->begun;
  send_frame(error, 0, error_body(code, 0));
  live_on();
}

// Answers the only item of a chunk, and claims to have spent so much time on it.
int claim_time(std::int64_t ns) {
  const std::uint64_t length = 1;
  std::string body(reinterpret_cast<const char*>(&ns), sizeof ns);
  const std::uint64_t word = length << 1;
  body.append(reinterpret_cast<const char*>(&word), sizeof word);
  send_frame(value, par::this_call::id(), body + "7");
  return 0;
}

// Sends its standard error with a byte that belongs to no frame.  Returns an errno, or 0.
int send_a_descriptor(int) {
  for (const auto& [fd, target] : testing::descriptors_of(::getpid()))
    if (fd > STDERR_FILENO && socket_type_of(fd) == SOCK_STREAM)
      return testing::send_along(fd, {STDERR_FILENO});
  return -1;
}

// Whether the kernel lets a socket refuse descriptors: since Linux 6.16.
bool sockets_may_refuse_descriptors() {
  constexpr int so_passrights = 83;
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return false;
  const int off = 0;
  const bool may = ::setsockopt(pair[0], SOL_SOCKET, so_passrights, &off, sizeof off) == 0;
  ::close(pair[0]);
  ::close(pair[1]);
  return may;
}

void reset() {
  new (shared) Shared;
}

// A child that lives on gets no time to end by itself.
par::Options hurried() {
  par::Options options;
  options.linger = options.grace = 0ms;
  return options;
}

std::optional<par::Error> error_of_call(int (*task)(int), int kind) {
  reset();
  par::Reactor loop;
  auto f = par::run(loop, task, hurried());
  std::optional<par::Error> got;
  int answers = 0;
  f(kind, [&](par::Result<int> r) {
    ++answers;
    if (!r) got = r.error();
  });
  loop.run();
  BOOST_TEST(answers == 1);
  return got;
}

std::optional<par::Error> error_of_pool(int (*task)(int), int kind) {
  reset();
  par::Reactor loop;
  par::PoolOptions options;
  options.workers = 1;
  options.child = hurried();
  auto pool = par::pool(loop, task, options);
  std::optional<par::Error> got;
  int answers = 0;
  pool.submit(kind, [&](par::Result<int> r) {
    ++answers;
    if (!r) got = r.error();
  });
  loop.run();
  BOOST_TEST(answers == 1);
  return got;
}

}  // namespace

// ---- frames of another kind ----

BOOST_AUTO_TEST_CASE(a_frame_that_no_function_sends_ends_its_calls_with_bad_message,
                     *testing::guarantee("A.1")) {
  for (const int kind : {message, call, unknown})
    for (const auto task : {send_kind, send_kind_and_end})
      for (const auto error_of : {error_of_call, error_of_pool}) {
        BOOST_TEST_CONTEXT("kind " << kind) {
          const std::optional<par::Error> error = error_of(task, kind);
          BOOST_REQUIRE(error.has_value());
          BOOST_TEST((error->code() == par::Errc::bad_message), error->what());
          BOOST_TEST((error->delivery() == par::Delivery::started));
          BOOST_TEST(shared->begun == 1);
        }
      }
}

BOOST_AUTO_TEST_CASE(a_child_that_sends_its_end_and_lives_on_is_ended_with_its_calls,
                     *testing::guarantee("A.2")) {
  for (const auto error_of : {error_of_call, error_of_pool}) {
    const std::optional<par::Error> error = error_of(send_kind, end);
    BOOST_REQUIRE(error.has_value());
    BOOST_REQUIRE(error->exit().has_value());
    BOOST_TEST(error->exit()->signalled());
    BOOST_TEST(shared->begun == 1);
  }
}

BOOST_AUTO_TEST_CASE(a_child_that_has_sent_its_end_gets_no_further_call) {
  reset();
  par::Reactor loop;
  par::PoolOptions options;
  options.workers = 1;
  auto pool = par::pool(
      loop,
      [](int) {
        if (++shared->begun == 1) send_frame(end, 0, {});
        return static_cast<int>(::getpid());
      },
      options);
  std::vector<int> pids;
  for (int i = 0; i < 3; ++i) {
    pool.submit(i, [&](par::Result<int> r) { pids.push_back(r.value_or(0)); });
    loop.run();
  }
  BOOST_REQUIRE(pids.size() == 3u);
  BOOST_TEST(pids[0] > 0);
  BOOST_TEST(pids[1] > 0);
  BOOST_TEST(pids[1] != pids[0]);
  BOOST_TEST(pids[2] == pids[1]);
}

// ---- errors ----

BOOST_AUTO_TEST_CASE(a_call_whose_child_denies_having_begun_it_is_not_repeated,
                     *testing::guarantee("A.3")) {
  for (const par::Errc code : {par::Errc::cancelled, par::Errc::deadline, par::Errc::child_killed,
                               par::Errc::child_exited, par::Errc::snapshot_lost})
    for (const auto error_of : {error_of_call, error_of_pool}) {
      BOOST_TEST_CONTEXT(par::to_string(code)) {
        const std::optional<par::Error> error = error_of(refuse, static_cast<int>(code));
        BOOST_REQUIRE(error.has_value());
        BOOST_TEST((error->code() == code));
        BOOST_TEST((error->delivery() == par::Delivery::started));
        BOOST_TEST(shared->begun == 1);
      }
    }
}

BOOST_AUTO_TEST_CASE(map_items_whose_child_denies_having_begun_them_are_not_repeated,
                     *testing::guarantee("A.3")) {
  for (const par::Errc code : {par::Errc::cancelled, par::Errc::deadline}) {
    reset();
    par::Reactor loop;
    par::PoolOptions options;
    options.workers = 1;
    auto pool = par::pool(loop, refuse, options);
    std::vector<par::Delivery> failed;
    pool.map(std::vector<int>(3, static_cast<int>(code)), [&](std::size_t, par::Result<int> r) {
      if (!r) failed.push_back(r.error().delivery());
    });
    loop.run();
    BOOST_TEST((failed == std::vector<par::Delivery>(3, par::Delivery::started)));
    BOOST_TEST(shared->begun == 3);
  }
}

BOOST_AUTO_TEST_CASE(an_error_of_an_unknown_code_is_bad_message, *testing::guarantee("A.1")) {
  for (const int code : {0, -1, 1000})
    for (const auto error_of : {error_of_call, error_of_pool}) {
      const std::optional<par::Error> error = error_of(refuse, code);
      BOOST_REQUIRE(error.has_value());
      BOOST_TEST((error->code() == par::Errc::bad_message));
      BOOST_TEST((error->delivery() == par::Delivery::started));
    }
}

// It ended the program.
BOOST_AUTO_TEST_CASE(a_failure_of_an_unknown_code_is_bad_message, *testing::guarantee("A.1")) {
  for (const int code : {0, -1, 1000})
    for (const auto error_of : {error_of_call, error_of_pool}) {
      const std::optional<par::Error> error = error_of(fail_the_task, code);
      BOOST_REQUIRE(error.has_value());
      BOOST_TEST((error->code() == par::Errc::bad_message));
    }
}

BOOST_AUTO_TEST_CASE(a_child_that_reports_its_failure_and_lives_on_is_ended_with_its_calls,
                     *testing::guarantee("A.2")) {
  for (const auto error_of : {error_of_call, error_of_pool}) {
    const std::optional<par::Error> error =
        error_of(fail_the_task, static_cast<int>(par::Errc::remote_exception));
    BOOST_REQUIRE(error.has_value());
    BOOST_TEST((error->code() == par::Errc::remote_exception));
    BOOST_REQUIRE(error->exit().has_value());
    BOOST_TEST(error->exit()->signalled());
    BOOST_TEST(shared->begun == 1);
  }
}

// ---- numbers in an answer ----

BOOST_AUTO_TEST_CASE(a_child_that_claims_to_have_spent_all_time_is_not_believed,
                     *testing::guarantee("A.7")) {
  for (const std::int64_t claimed : {INT64_MAX, INT64_MIN, std::int64_t{-1}}) {
    par::Reactor loop;
    par::PoolOptions options;
    options.workers = 1;
    auto pool = par::pool(loop, claim_time, options);
    std::vector<int> got;
    pool.map(std::vector<std::int64_t>(3, claimed),
             [&](std::size_t, par::Result<int> r) { got.push_back(r.value_or(-1)); });
    loop.run();
    BOOST_TEST((got == std::vector<int>{7, 7, 7}));
    BOOST_TEST((pool.stats().run.p99 >= 0ns));
    BOOST_TEST((pool.stats().run.p99 <= 2h));
  }
}

// ---- descriptors ----

BOOST_AUTO_TEST_CASE(a_child_cannot_send_descriptors_if_its_codec_takes_none,
                     *testing::guarantee("A.5")) {
  if (!sockets_may_refuse_descriptors()) return testing::skip("no SO_PASSRIGHTS before Linux 6.16");
  testing::allow_descriptors(1);  // of the other snapshot
  pid_t pid = 0;
  {
    par::SnapshotOptions with_spares;
    with_spares.spares = 1;
    par::Snapshot other(with_spares);
    pid = other.pid();
    for (par::Snapshot* const snapshot : {&par::default_snapshot(), &other}) {
      par::Reactor loop;
      par::PoolOptions options;
      options.workers = 1;
      options.child.snapshot = snapshot;
      auto f = par::run(loop, send_a_descriptor, options.child);
      BOOST_TEST(f.wait(0).value() == EPERM);
      BOOST_TEST(f.wait(0).value() == EPERM);
      auto pool = par::pool(loop, send_a_descriptor, options);
      BOOST_TEST(pool.wait(0).value() == EPERM);
      int received = 0;
      auto p = par::process(
          loop, [](par::Pipe<int, int> pipe) { pipe.send(send_a_descriptor(0)); }, options.child);
      p.on_message([&](int error) {
        received = error;
        p.close();
      });
      loop.run();
      BOOST_TEST(received == EPERM);
    }
  }
  BOOST_TEST(testing::gone(pid));
}

namespace {

struct Own {
  int value = 0;
};

template <class T>
struct OwnIo {
  static void put(par::Writer& out, const T&) { out.write("", 0); }
  static T get(par::Reader&) { return {}; }
};

}  // namespace

namespace evparallel::detail {

static_assert(!takes_descriptors<int, Io<int>>);
static_assert(!takes_descriptors<void, Io<int>>);
static_assert(!takes_descriptors<std::string, CborIo<std::string>>);
static_assert(
    !takes_descriptors<std::vector<std::vector<double>>, Io<std::vector<std::vector<double>>>>);
static_assert(!takes_descriptors<Own, RawIo<Own>>);
static_assert(!takes_descriptors<int, PackedIo<int>>);
static_assert(takes_descriptors<Fd, Io<Fd>>);
static_assert(takes_descriptors<std::vector<Fd>, Io<std::vector<Fd>>>);
static_assert(takes_descriptors<int, OwnIo<int>>);
static_assert(takes_descriptors<SharedBytes, Io<SharedBytes>>);

}  // namespace evparallel::detail
