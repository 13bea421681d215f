// stream.cpp - streams of a pool, the brakes of streams and maps, and ranges that wait for input.
#include "calling.hpp"
#include "elsewhere.hpp"
#include "errors.hpp"
#include "mapping.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <iterator>
#include <memory>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <streambuf>
#include <string>
#include <utility>
#include <vector>

namespace par = evparallel;
using testing::into;
using testing::numbers;
using testing::Received;
using testing::summary_of;
using namespace std::chrono_literals;

namespace {

// Memory that the children of a case share with it.
struct Shared {
  std::atomic<bool> open{false};
  std::atomic<int> calls{0};
  std::atomic<pid_t> pid{0};
};
Shared* shared = nullptr;

}  // namespace

void testing_main_init() {
  shared = &testing::shared<Shared>();
  testing::take_default_snapshot();
}

namespace {

void reset() {
  new (shared) Shared;
}

int mixed(int x) {
  ++shared->calls;
  return x ^ 21;
}

// Waits until the case lets it go on.
int held(int x) {
  ++shared->calls;
  while (!shared->open) ::usleep(100);
  return x ^ 21;
}

par::PoolOptions of(unsigned workers) {
  par::PoolOptions options;
  options.workers = workers;
  return options;
}

par::MapOptions chunks_of(std::size_t items) {
  par::MapOptions options;
  options.chunk = items;
  return options;
}

// Pushes the numbers up to `count`, or up to the first false.
struct Pusher {
  void operator()() {
    while (next < count)
      if (!stream->push(next++)) return;
    stream->close();
  }

  par::Stream<int>* stream;
  int count;
  int next = 0;
};

}  // namespace

// ---- items and results ----

BOOST_AUTO_TEST_CASE(a_hundred_thousand_pushed_items_are_answered_in_order) {
  par::Reactor loop;
  auto pool = par::pool(loop, mixed, of(2));
  Received received;
  auto stream = pool.stream(into(received), summary_of(received));
  Pusher push{&stream, 100000};
  int drained = 0;
  stream.on_drain([&] {
    ++drained;
    push();
  });
  push();
  BOOST_TEST(push.next < 100000);
  BOOST_TEST(received.next == 0u);  // never from inside the call
  loop.run();
  BOOST_TEST(drained > 0);
  BOOST_TEST(received.each_once(100000));
  BOOST_TEST(received.right == 100000u);
  BOOST_TEST(received.in_order);
  BOOST_REQUIRE(received.summary.has_value());
  BOOST_TEST(received.summary->done == 100000u);
  BOOST_TEST(received.summary->failed == 0u);
  BOOST_TEST(!received.summary->stopped);
  BOOST_TEST(!received.summary->error.has_value());
  BOOST_TEST(pool.pending() == 0u);
}

BOOST_AUTO_TEST_CASE(results_of_an_unordered_stream_come_as_they_are_ready) {
  reset();
  par::Reactor loop;
  auto pool = par::pool(
      loop, [](int x) { return x == 0 ? held(x) : x ^ 21; }, of(2));
  Received received;
  par::MapOptions options;
  options.ordered = false;
  auto stream = pool.stream(
      [&](std::size_t i, const par::Result<int>& r) {
        received(i, r);
        if (i == 999) shared->open = true;
      },
      summary_of(received), std::move(options));
  stream.push(0);
  BOOST_TEST(testing::loop_until(loop, [&] { return shared->calls > 0; }));
  for (int i = 1; i < 1000; ++i) stream.push(i);
  stream.close();
  loop.run();
  BOOST_TEST(received.each_once(1000));
  BOOST_TEST(received.right == 1000u);
  BOOST_TEST(!received.in_order);
}

BOOST_AUTO_TEST_CASE(a_stream_without_items_ends_after_close) {
  par::Reactor loop;
  auto pool = par::pool(loop, mixed, of(2));
  Received received;
  auto stream = pool.stream(into(received), summary_of(received));
  stream.close();
  BOOST_TEST(!received.summary.has_value());
  stream.close();
  loop.run();
  BOOST_REQUIRE(received.summary.has_value());
  BOOST_TEST(received.summary->done == 0u);
  BOOST_TEST(!received.summary->stopped);
  BOOST_TEST(pool.stats().started == 0u);
}

BOOST_AUTO_TEST_CASE(an_open_stream_without_items_does_not_keep_the_loop_running) {
  par::Reactor loop;
  auto pool = par::pool(loop, mixed, of(2));
  Received received;
  auto stream = pool.stream(into(received), summary_of(received));
  loop.run();
  for (int i = 0; i < 3; ++i) {
    stream.push(i);
    loop.run();
    BOOST_TEST(received.next == static_cast<std::size_t>(i) + 1);
  }
  BOOST_TEST(pool.pending() == 1u);
  BOOST_TEST(!received.summary.has_value());
  stream.close();
  loop.run();
  BOOST_TEST(received.summary.has_value());
  BOOST_TEST(pool.pending() == 0u);
}

BOOST_AUTO_TEST_CASE(a_stream_starts_no_more_children_than_it_has_items) {
  par::Reactor loop;
  auto pool = par::pool(loop, mixed, of(4));
  Received received;
  auto stream = pool.stream(into(received), summary_of(received));
  stream.push(0);
  loop.run();
  BOOST_TEST(received.right == 1u);
  BOOST_TEST(pool.stats().started == 1u);
}

BOOST_AUTO_TEST_CASE(pushed_items_are_converted_as_for_a_call) {
  par::Reactor loop;
  auto add = par::pool(
      loop, [](const std::vector<double>& x) { return std::accumulate(x.begin(), x.end(), 0.0); },
      of(1));
  std::vector<double> sums;
  auto lists = add.stream([&](std::size_t, par::Result<double> r) { sums.push_back(r.value()); });
  lists.push({1, 2});
  const std::vector<double> kept{3, 4};
  lists.push(kept);
  std::vector<double> given{5, 6};
  lists.push(std::move(given));
  loop.run();
  BOOST_TEST(sums == (std::vector<double>{3, 7, 11}));
  BOOST_TEST(kept.size() == 2u);

  auto length = par::pool(
      loop, [](const std::string& x) { return x.size(); }, of(1));
  std::vector<std::size_t> sizes;
  auto words =
      length.stream([&](std::size_t, par::Result<std::size_t> r) { sizes.push_back(r.value()); });
  words.push("one");
  const char* three = "three";
  words.push(three);
  loop.run();
  BOOST_TEST(sizes == (std::vector<std::size_t>{3, 5}));
}

namespace {

// Counts its copies in this process.
struct Text {
  explicit Text(std::string t) : text(std::move(t)) {}
  Text(const Text& other) : text(other.text) { ++copies; }
  Text(Text&&) = default;
  std::string text;
  static int copies;
};
int Text::copies = 0;

struct TextIo {
  static void put(par::Writer& out, const Text& value) { out.write(value.text); }
  static void put(par::Writer& out, Text&& value) {
    auto kept = std::make_shared<Text>(std::move(value));
    out.adopt(kept, kept->text.data(), kept->text.size());
  }
  static Text get(par::Reader& in) { return Text(in.take_rest()); }
};

}  // namespace

BOOST_AUTO_TEST_CASE(an_item_that_is_moved_in_is_not_copied) {
  par::Reactor loop;
  auto pool = par::pool<par::RawIo<std::size_t>, TextIo>(
      loop, [](const Text& x) { return x.text.size(); }, of(1));
  std::vector<std::size_t> sizes;
  auto stream =
      pool.stream([&](std::size_t, par::Result<std::size_t> r) { sizes.push_back(r.value()); });
  for (const std::size_t size : {std::size_t{1} << 20, std::size_t{10}})
    stream.push(Text(std::string(size, 'x')));
  loop.run();
  BOOST_TEST(sizes == (std::vector<std::size_t>{std::size_t{1} << 20, 10}));
  BOOST_TEST(Text::copies == 0);
}

BOOST_AUTO_TEST_CASE(descriptors_and_shared_bytes_are_pushed) {
  if (testing::no_memfd()) return testing::skip("no memfd");
  par::Reactor loop;
  auto read = par::pool(
      loop,
      [](const par::Fd& fd) {
        char c = 0;
        return ::read(fd.get(), &c, 1) == 1 ? c - 'a' : -1;
      },
      of(2));
  std::vector<int> letters;
  int drained = 0;
  auto fds = read.stream([&](std::size_t, par::Result<int> r) { letters.push_back(r.value()); });
  int sent = 0;
  const auto push = [&] {
    while (sent < 500) {
      int ends[2];
      BOOST_REQUIRE(::pipe(ends) == 0);
      const char letter = static_cast<char>('a' + sent++ % 26);
      BOOST_TEST(::write(ends[1], &letter, 1) == 1);
      ::close(ends[1]);
      if (!fds.push(par::Fd(ends[0]))) return;
    }
    fds.close();
  };
  fds.on_drain([&] {
    ++drained;
    push();
  });
  push();
  BOOST_TEST(sent < 200);  // the number of open descriptors is limited
  loop.run();
  BOOST_TEST(drained > 0);
  BOOST_TEST(letters.size() == 500u);
  for (std::size_t i = 0; i < letters.size(); ++i)
    if (letters[i] != static_cast<int>(i % 26)) BOOST_ERROR("wrong letter");

  auto size = par::pool(
      loop, [](const par::SharedBytes& bytes) { return bytes.size(); }, of(2));
  std::vector<std::size_t> sizes;
  auto bytes =
      size.stream([&](std::size_t, par::Result<std::size_t> r) { sizes.push_back(r.value()); });
  for (std::size_t i = 1; i <= 20; ++i)
    bytes.push(par::SharedBytes::copy_of(std::string(i * 1000, 'x')));
  loop.run();
  BOOST_TEST(sizes.size() == 20u);
  for (std::size_t i = 0; i < sizes.size(); ++i) BOOST_TEST(sizes[i] == (i + 1) * 1000);
}

BOOST_AUTO_TEST_CASE(a_stream_reports_its_progress) {
  par::Reactor loop;
  auto pool = par::pool(loop, mixed, of(2));
  Received received;
  std::vector<par::Progress> reports;
  par::MapOptions options;
  options.on_progress = [&](const par::Progress& p) { reports.push_back(p); };
  options.progress_every = 0ms;
  auto stream = pool.stream(into(received), std::move(options));
  for (int i = 0; i < 10; ++i) stream.push(i);
  loop.run();
  BOOST_TEST(stream.progress().done == 10u);
  BOOST_TEST(stream.progress().total == 0u);
  stream.push(10);
  stream.close();
  BOOST_TEST(stream.progress().total == 11u);
  loop.run();
  BOOST_TEST(stream.progress().done == 0u);  // it is over
  BOOST_REQUIRE(!reports.empty());
  BOOST_TEST(reports.back().done == 11u);
  BOOST_TEST(reports.back().total == 11u);
}

// ---- the brakes ----

BOOST_AUTO_TEST_CASE(slow_children_make_push_return_false) {
  reset();
  par::Reactor loop;
  auto pool = par::pool(loop, held, of(2));
  Received received;
  auto stream = pool.stream(into(received), summary_of(received), chunks_of(1));
  int drained = 0;
  stream.on_drain([&] { ++drained; });
  int pushed = 0;
  while (stream.push(pushed++)) BOOST_REQUIRE(pushed <= 4096);
  testing::turn(loop, 10);
  BOOST_TEST(drained == 0);
  BOOST_TEST(testing::loop_until(loop, [&] { return shared->calls == 2; }));
  // Two chunks for each child are on their way; all others wait here.
  while (stream.push(pushed++)) BOOST_REQUIRE(pushed <= 4096 + 4);
  BOOST_TEST(pushed > 4096);
  BOOST_TEST(drained == 0);
  shared->open = true;
  BOOST_TEST(testing::loop_until(loop, [&] { return drained > 0; }));
  BOOST_TEST(shared->calls >= 2000);
  loop.run();
  BOOST_TEST(drained == 1);
  BOOST_TEST(received.right == static_cast<std::size_t>(pushed));
  BOOST_TEST(received.in_order);
}

BOOST_AUTO_TEST_CASE(many_bytes_make_push_return_false) {
  reset();
  par::Reactor loop;
  par::PoolOptions options = of(1);
  options.child.high_water = 10000;
  auto pool = par::pool(
      loop,
      [](const std::string& x) {
        held(0);
        return static_cast<int>(x.size());
      },
      options);
  std::size_t size = 0;
  auto stream =
      pool.stream([&](std::size_t, par::Result<int> r) { size += static_cast<unsigned>(*r); });
  int drained = 0;
  stream.on_drain([&] { ++drained; });
  BOOST_TEST(stream.push(std::string(6000, 'x')));
  BOOST_TEST(!stream.push(std::string(6000, 'x')));
  BOOST_TEST(!stream.push(std::string(6000, 'x')));  // it is taken, too
  BOOST_TEST(drained == 0);
  shared->open = true;
  loop.run();
  BOOST_TEST(drained == 1);
  BOOST_TEST(size == 18000u);
  BOOST_TEST(stream.push(std::string(6000, 'x')));
}

BOOST_AUTO_TEST_CASE(a_late_result_of_an_ordered_stream_makes_push_return_false) {
  reset();
  par::Reactor loop;
  auto pool = par::pool(
      loop, [](int x) { return x == 0 ? held(x) : mixed(x); }, of(2));
  Received received;
  auto stream = pool.stream(into(received), summary_of(received), chunks_of(10));
  int pushed = 0;
  bool stopped = false;
  const auto push = [&] {
    while (stream.push(pushed++)) {}
    stopped = true;
  };
  stream.on_drain([&] {
    stopped = false;
    if (pushed < 100000) push();
  });
  push();
  int before = -1;
  BOOST_TEST(testing::eventually([&] {
    loop.run_for(20ms);
    return stopped && shared->calls > 100 && shared->calls == std::exchange(before, shared->calls);
  }));
  BOOST_TEST(shared->calls <= 10 * (64 * 2 + 4));
  BOOST_TEST(pushed <= 10 * (64 * 2 + 4) + 4096);
  BOOST_TEST(received.next == 0u);
  shared->open = true;
  loop.run();
  BOOST_TEST(received.right == static_cast<std::size_t>(pushed));
  BOOST_TEST(received.in_order);
}

BOOST_AUTO_TEST_CASE(a_paused_stream_sends_nothing_and_makes_push_return_false) {
  reset();
  par::Reactor loop;
  auto pool = par::pool(loop, mixed, of(2));
  Received received;
  auto stream = pool.stream(into(received), summary_of(received));
  int drained = 0;
  stream.on_drain([&] { ++drained; });
  stream.pause();
  for (int i = 0; i < 3; ++i) BOOST_TEST(!stream.push(i));
  testing::turn(loop, 50);
  BOOST_TEST(shared->calls == 0);
  BOOST_TEST(drained == 0);
  stream.resume();
  BOOST_TEST(drained == 0);  // from the loop
  BOOST_TEST(stream.push(3));
  loop.run();
  BOOST_TEST(drained == 1);
  BOOST_TEST(received.right == 4u);
  stream.resume();  // has no effect
  loop.run();
  BOOST_TEST(drained == 1);
}

BOOST_AUTO_TEST_CASE(a_paused_stream_keeps_the_results_that_come) {
  for (const bool ordered : {true, false}) {
    reset();
    par::Reactor loop;
    auto pool = par::pool(loop, held, of(2));
    Received received;
    par::MapOptions options = chunks_of(10);
    options.ordered = ordered;
    auto stream = pool.stream(into(received), summary_of(received), std::move(options));
    for (int i = 0; i < 200; ++i) stream.push(i);
    stream.close();
    BOOST_TEST(testing::loop_until(loop, [&] { return shared->calls == 2; }));
    stream.pause();
    shared->open = true;
    // The children finish their chunks; no further one is sent.
    BOOST_TEST(testing::loop_until(loop, [&] { return pool.stats().running == 0; }));
    testing::turn(loop, 20);
    BOOST_TEST(shared->calls <= 40);
    BOOST_TEST(received.next == 0u);
    stream.resume();
    BOOST_TEST(received.next == 0u);  // from the loop
    loop.run();
    BOOST_TEST(received.each_once(200));
    BOOST_TEST(received.right == 200u);
    if (ordered) BOOST_TEST(received.in_order);
    BOOST_TEST(received.summary.has_value());
  }
}

BOOST_AUTO_TEST_CASE(a_stream_may_be_paused_at_any_result) {
  par::Reactor loop;
  auto pool = par::pool(loop, mixed, of(2));
  Received received;
  par::Stream<int> stream;
  stream = pool.stream(
      [&](std::size_t i, const par::Result<int>& r) {
        received(i, r);
        if (i % 7 == 0) stream.pause();
        if (i % 21 == 0) stream.resume();
      },
      summary_of(received), chunks_of(10));
  for (int i = 0; i < 99; ++i) stream.push(i);
  stream.close();
  for (const std::size_t stop : {7u, 14u, 28u, 35u, 49u, 56u, 70u, 77u, 91u, 98u}) {
    BOOST_TEST(testing::loop_until(loop, [&] { return received.next > stop; }));
    testing::turn(loop, 5);
    BOOST_TEST(received.next == stop + 1);
    BOOST_TEST(!received.summary.has_value());  // not even after the last result
    stream.resume();
  }
  loop.run();
  BOOST_TEST(received.summary.has_value());
  BOOST_TEST(received.each_once(99));
  BOOST_TEST(received.in_order);
  BOOST_TEST(received.right == 99u);
}

// ---- items that fail ----

BOOST_AUTO_TEST_CASE(an_item_that_its_codec_refuses_fails_in_its_turn) {
  par::Reactor loop;
  par::PoolOptions options = of(2);
  options.child.max_message = 1000;
  auto pool = par::pool(
      loop, [](const std::string& x) { return x.size(); }, options);
  std::vector<std::string> results;
  std::optional<par::MapSummary> summary;
  auto stream = pool.stream(
      [&](std::size_t i, par::Result<std::size_t> r) {
        BOOST_TEST(i == results.size());
        if (!r) BOOST_TEST((r.error().delivery() == par::Delivery::not_sent));
        results.push_back(r ? std::to_string(*r) : par::to_string(r.error().code()));
      },
      [&](const par::MapSummary& s) { summary = s; });
  for (const char* item : {"one", "\xff", "three", "\xfe", "\xfd", "four"}) stream.push(item);
  stream.push(std::string(2000, 'x'));
  stream.push("last");
  stream.close();
  loop.run();
  BOOST_TEST(results == (std::vector<std::string>{"3", "bad_message", "5", "bad_message",
                                                  "bad_message", "4", "too_large", "4"}));
  BOOST_REQUIRE(summary.has_value());
  BOOST_TEST(summary->done == 4u);
  BOOST_TEST(summary->failed == 4u);
  BOOST_TEST(!summary->stopped);
}

BOOST_AUTO_TEST_CASE(a_poison_item_fails_alone) {
  par::Reactor loop;
  auto pool = par::pool(
      loop,
      [](int x) {
        if (x == 1234) ::raise(SIGKILL);
        return x ^ 21;
      },
      of(2));
  Received received;
  auto stream = pool.stream(into(received), summary_of(received));
  Pusher push{&stream, 5000};
  stream.on_drain(std::ref(push));
  push();
  loop.run();
  BOOST_TEST(received.each_once(5000));
  BOOST_TEST(received.in_order);
  BOOST_TEST(received.failed == std::vector<std::size_t>{1234});
  BOOST_TEST(received.right == 4999u);
}

BOOST_AUTO_TEST_CASE(a_child_that_is_killed_at_work_loses_only_its_item) {
  reset();
  par::Reactor loop;
  auto pool = par::pool(
      loop,
      [](int x) {
        if (x != 10) return x ^ 21;
        shared->pid = ::getpid();
        for (;;) ::pause();
      },
      of(2));
  Received received;
  auto stream = pool.stream(into(received), summary_of(received));
  for (int i = 0; i < 1000; ++i) stream.push(i);
  // The item is sent again, alone, until it has ended its child.
  const par::Timer timer = loop.every(1ms, [&] {
    if (const pid_t pid = shared->pid.exchange(0)) ::kill(pid, SIGKILL);
  });
  BOOST_TEST(testing::loop_until(loop, [&] { return received.next == 1000; }));
  BOOST_TEST(received.in_order);
  BOOST_TEST(received.failed == std::vector<std::size_t>{10});
  BOOST_TEST(received.right == 999u);
}

BOOST_AUTO_TEST_CASE(a_stream_stops_on_the_first_error) {
  par::Reactor loop;
  auto pool = par::pool(
      loop,
      [](int x) {
        if (x == 5) throw std::runtime_error("five");
        return x ^ 21;
      },
      of(2));
  Received received;
  par::MapOptions options;
  options.stop_on_error = true;
  auto stream = pool.stream(into(received), summary_of(received), std::move(options));
  for (int i = 0; i < 100; ++i) stream.push(i);
  loop.run();
  BOOST_TEST(received.next == 6u);
  BOOST_TEST(received.failed == std::vector<std::size_t>{5});
  BOOST_REQUIRE(received.summary.has_value());
  BOOST_TEST(received.summary->stopped);
  BOOST_TEST(stream.push(100));  // it is dropped
  stream.close();
  loop.run();
  BOOST_TEST(received.next == 6u);
}

BOOST_AUTO_TEST_CASE(a_stream_ends_with_its_unhealthy_pool) {
  par::Reactor loop;
  par::PoolOptions options = of(2);
  options.child.on_start = [] { throw std::runtime_error("no start"); };
  options.max_failed_starts = 1;
  auto pool = par::pool(loop, mixed, options);
  Received received;
  auto stream = pool.stream(into(received), summary_of(received));
  stream.push(0);
  loop.run();
  BOOST_REQUIRE(received.summary.has_value());
  BOOST_TEST(received.summary->stopped);
  BOOST_REQUIRE(received.summary->error.has_value());
  BOOST_TEST((received.summary->error->code() == par::Errc::unhealthy));
  BOOST_TEST(stream.push(1));
}

// ---- ends ----

BOOST_AUTO_TEST_CASE(a_stream_may_be_cancelled) {
  reset();
  par::Reactor loop;
  par::PoolOptions options = of(2);
  options.child.grace = 20ms;
  auto pool = par::pool(loop, held, options);
  for (const bool paused : {false, true}) {
    reset();
    Received received;
    auto stream = pool.stream(into(received), summary_of(received));
    int drained = 0;
    stream.on_drain([&] { ++drained; });
    for (int i = 0; i < 5000; ++i) stream.push(i);
    BOOST_TEST(testing::loop_until(loop, [&] { return shared->calls > 0; }));
    if (paused) stream.pause();
    stream.cancel();
    BOOST_TEST(!received.summary.has_value());
    BOOST_TEST(stream.push(5000));  // it is dropped
    loop.run();
    BOOST_REQUIRE(received.summary.has_value());
    BOOST_TEST(received.summary->stopped);
    BOOST_TEST(received.next == 0u);
    BOOST_TEST(drained == 0);
    stream.resume();
    stream.cancel();
    stream.close();
    BOOST_TEST(testing::has(testing::misuse_of([&] { stream.push(1); }), "after close()"));
  }
  shared->open = true;
  Received other;
  auto stream = pool.stream(into(other), summary_of(other));
  stream.push(0);
  stream.close();
  loop.run();
  BOOST_TEST(other.right == 1u);  // the pool still works
}

BOOST_AUTO_TEST_CASE(push_after_close_is_refused) {
  par::Reactor loop;
  auto pool = par::pool(loop, mixed, of(1));
  Received received;
  auto stream = pool.stream(into(received), summary_of(received));
  stream.push(0);
  stream.close();
  BOOST_TEST(testing::has(testing::misuse_of([&] { stream.push(1); }), "after close()"));
  loop.run();
  BOOST_TEST(received.each_once(1));
  BOOST_TEST(testing::has(testing::misuse_of([&] { stream.push(1); }), "after close()"));
  pool.close();
  BOOST_TEST(testing::has(testing::misuse_of([&] { auto other = pool.stream(into(received)); }),
                          "after its close()"));
}

BOOST_AUTO_TEST_CASE(an_empty_stream_refuses_items) {
  par::Reactor loop;
  auto pool = par::pool(loop, mixed, of(1));
  par::Stream<int> empty;
  BOOST_TEST(!empty);
  empty.close();
  empty.cancel();
  empty.pause();
  empty.resume();
  empty.on_drain([] {});
  BOOST_TEST(empty.progress().done == 0u);
  BOOST_TEST(testing::has(testing::misuse_of([&] { empty.push(1); }), "empty Stream"));
  Received received;
  auto stream = pool.stream(into(received), summary_of(received));
  par::Stream<int> moved = std::move(stream);
  BOOST_TEST(static_cast<bool>(moved));
  BOOST_TEST(testing::has(testing::misuse_of([&] { stream.push(1); }), "empty Stream"));
  moved.push(0);
  moved = pool.stream(into(received));  // closes the first one
  loop.run();
  BOOST_TEST(received.right == 1u);
  BOOST_TEST(received.summary.has_value());
}

BOOST_AUTO_TEST_CASE(a_dropped_stream_is_closed) {
  par::Reactor loop;
  auto pool = par::pool(loop, mixed, of(2));
  Received received;
  {
    auto stream = pool.stream(into(received), summary_of(received));
    for (int i = 0; i < 1000; ++i) stream.push(i);
  }
  loop.run();
  BOOST_TEST(received.each_once(1000));
  BOOST_TEST(received.right == 1000u);
  BOOST_REQUIRE(received.summary.has_value());
  BOOST_TEST(!received.summary->stopped);
}

BOOST_AUTO_TEST_CASE(a_stream_goes_on_when_its_pool_is_closed_and_ends_when_it_is_shut_down) {
  reset();
  par::Reactor loop;
  auto pool = par::pool(loop, mixed, of(2));
  Received received;
  auto stream = pool.stream(into(received), summary_of(received));
  stream.push(0);
  pool.close();
  stream.push(1);
  loop.run();
  BOOST_TEST(received.right == 2u);
  stream.push(2);
  loop.run();
  BOOST_TEST(received.right == 3u);
  stream.close();
  loop.run();
  BOOST_TEST(received.summary.has_value());
  // Its children end then.
  BOOST_TEST(testing::loop_until(loop, [&] { return pool.stats().workers.empty(); }));

  for (const bool paused : {false, true}) {
    reset();
    par::PoolOptions options = of(1);
    options.child.grace = 20ms;
    auto other = par::pool(loop, held, options);
    Received stopped;
    auto open = other.stream(into(stopped), summary_of(stopped), chunks_of(1));
    for (int i = 0; i < 100; ++i) open.push(i);
    BOOST_TEST(testing::loop_until(loop, [&] { return shared->calls == 1; }));
    if (paused) open.pause();
    other.shutdown(paused ? 1ms : std::chrono::milliseconds(1h));
    BOOST_TEST(open.push(100));  // it is dropped
    shared->open = !paused;
    loop.run();
    BOOST_REQUIRE(stopped.summary.has_value());
    BOOST_TEST(stopped.summary->stopped);
    BOOST_TEST(stopped.right == (paused ? 0u : 1u));
    BOOST_TEST(other.pending() == 0u);
    shared->open = true;
    BOOST_TEST(testing::loop_until(loop, [&] { return other.stats().workers.empty(); }));
  }
}

BOOST_AUTO_TEST_CASE(an_idle_stream_ends_with_its_pool) {
  par::Reactor loop;
  Received shut;
  auto pool = par::pool(loop, mixed, of(2));
  auto stream = pool.stream(into(shut), summary_of(shut));
  pool.shutdown(1h);
  loop.run();
  BOOST_REQUIRE(shut.summary.has_value());
  BOOST_TEST(shut.summary->stopped);

  Received dropped;
  auto other = par::pool(loop, mixed, of(2));
  stream = other.stream(into(dropped), summary_of(dropped));
  stream.push(0);
  loop.run();
  other = {};
  BOOST_TEST(!dropped.summary.has_value());
  BOOST_TEST(stream.push(1));  // it is dropped
  loop.run();
  BOOST_TEST(dropped.right == 1u);
  BOOST_REQUIRE(dropped.summary.has_value());
  BOOST_TEST(dropped.summary->stopped);
}

BOOST_AUTO_TEST_CASE(a_reactor_may_be_destroyed_before_a_stream) {
  par::Pool<int(int)> pool;
  par::Stream<int> stream;
  par::Stream<int> idle;
  par::Stream<int> ended;
  Received received;
  {
    par::Reactor loop;
    pool = par::pool(loop, mixed, of(2));
    // Closures that own a stream are released.
    const auto owned = std::make_shared<par::Stream<int>>();
    *owned = pool.stream([owned](std::size_t, const par::Result<int>&) {});
    owned->on_drain([owned] {});
    ended = pool.stream(into(received));
    ended.close();
    idle = pool.stream(into(received));
    stream = pool.stream(
        [&](std::size_t i, const par::Result<int>& r) {
          received(i, r);
          if (i == 10) loop.stop();
        },
        summary_of(received));
    stream.on_drain([] {});
    for (int i = 0; i < 5000; ++i) stream.push(i);
    loop.run();
  }
  for (par::Stream<int>* one : {&stream, &idle}) {
    BOOST_TEST(one->push(1));  // it is dropped
    one->pause();
    one->resume();
    one->on_drain([] {});
    one->cancel();
    one->close();
  }
  BOOST_TEST(received.next == 11u);
  BOOST_TEST(!received.summary.has_value());
}

BOOST_AUTO_TEST_CASE(a_forked_copy_of_the_program_leaves_a_stream_alone) {
  par::Reactor loop;
  auto pool = par::pool(loop, mixed, of(2));
  Received received;
  auto stream = pool.stream(into(received), summary_of(received));
  for (int i = 0; i < 100; ++i) stream.push(i);
  const int status = testing::elsewhere([&] {
    const bool dropped = stream.push(100);
    stream.pause();
    stream.cancel();
    stream.close();
    return dropped && !received.summary ? 0 : 1;
  });
  BOOST_TEST(status == 0);
  stream.push(100);
  stream.close();
  loop.run();
  BOOST_TEST(received.each_once(101));
  BOOST_TEST(received.summary.has_value());
}

// ---- callbacks ----

BOOST_AUTO_TEST_CASE(items_may_be_pushed_in_every_callback) {
  par::Reactor loop;
  auto pool = par::pool(loop, mixed, of(2));
  Received received;
  par::Stream<int> stream;
  int pushed = 0;
  int dropped = 0;
  stream = pool.stream(
      [&](std::size_t i, const par::Result<int>& r) {
        received(i, r);
        if (pushed < 20000 && i % 2 == 0) stream.push(pushed++);
        if (i == 19999) stream.cancel();
      },
      [&](const par::MapSummary& s) {
        received(s);
        dropped += stream.push(pushed);
      });
  stream.on_drain([&] {
    while (pushed < 20000 && stream.push(pushed++)) {}
  });
  while (stream.push(pushed++)) {}
  loop.run();
  BOOST_TEST(received.each_once(20000));
  BOOST_TEST(received.in_order);
  BOOST_TEST(received.right == 20000u);
  BOOST_TEST(received.summary.has_value());
  BOOST_TEST(dropped == 1);
}

BOOST_AUTO_TEST_CASE(a_stream_may_be_closed_inside_on_result) {
  par::Reactor loop;
  auto pool = par::pool(loop, mixed, of(2));
  Received received;
  par::Stream<int> stream;
  stream = pool.stream(
      [&](std::size_t i, const par::Result<int>& r) {
        received(i, r);
        if (i == 0) stream.close();
      },
      summary_of(received), chunks_of(50));
  for (int i = 0; i < 50; ++i) stream.push(i);
  loop.run();
  BOOST_TEST(received.each_once(50));
  BOOST_TEST(received.summary.has_value());
}

BOOST_AUTO_TEST_CASE(exceptions_of_the_callbacks_of_a_stream_lose_nothing) {
  par::Reactor loop;
  auto pool = par::pool(loop, mixed, of(2));
  Received received;
  auto stream = pool.stream(
      [&](std::size_t i, const par::Result<int>& r) {
        received(i, r);
        if (i == 1000) throw std::runtime_error("result");
      },
      [&](const par::MapSummary& s) {
        received(s);
        throw std::runtime_error("done");
      });
  Pusher push{&stream, 20000};
  bool thrown = false;
  stream.on_drain([&] {
    push();
    if (!std::exchange(thrown, true)) throw std::runtime_error("drain");
  });
  push();
  for (int i = 0; i < 3; ++i) BOOST_CHECK_THROW(loop.run(), std::runtime_error);
  loop.run();
  BOOST_TEST(thrown);
  BOOST_TEST(received.each_once(20000));
  BOOST_TEST(received.in_order);
  BOOST_TEST(received.summary.has_value());
}

BOOST_AUTO_TEST_CASE(a_callback_may_drop_the_stream) {
  par::Reactor loop;
  auto pool = par::pool(loop, mixed, of(2));
  Received received;
  auto stream = std::make_unique<par::Stream<int>>();
  *stream = pool.stream(
      [&](std::size_t i, const par::Result<int>& r) {
        received(i, r);
        if (i == 10) stream.reset();
      },
      summary_of(received));
  for (int i = 0; i < 1000; ++i) stream->push(i);
  loop.run();
  BOOST_TEST(received.each_once(1000));
  BOOST_TEST(received.summary.has_value());

  Received drained;
  stream = std::make_unique<par::Stream<int>>(pool.stream(into(drained), summary_of(drained)));
  stream->on_drain([&] { stream.reset(); });
  int pushed = 0;
  while (stream->push(pushed++)) {}
  loop.run();
  BOOST_TEST(!stream);
  BOOST_TEST(drained.each_once(static_cast<std::size_t>(pushed)));
  BOOST_TEST(drained.summary.has_value());

  Received done;
  stream =
      std::make_unique<par::Stream<int>>(pool.stream(into(done), [&](const par::MapSummary& s) {
        done(s);
        stream.reset();
      }));
  stream->push(0);
  stream->close();
  loop.run();
  BOOST_TEST(done.right == 1u);
  BOOST_TEST(!stream);
}

BOOST_AUTO_TEST_CASE(a_callback_may_drop_the_pool_of_its_stream) {
  par::Reactor loop;
  auto pool = std::make_unique<par::Pool<int(int)>>(par::pool(loop, mixed, of(2)));
  Received received;
  auto stream = pool->stream(
      [&](std::size_t i, const par::Result<int>& r) {
        received(i, r);
        if (i == 10) pool.reset();
      },
      summary_of(received));
  for (int i = 0; i < 1000; ++i) stream.push(i);
  loop.run();
  BOOST_TEST(received.next == 11u);
  BOOST_REQUIRE(received.summary.has_value());
  BOOST_TEST(received.summary->stopped);

  pool = std::make_unique<par::Pool<int(int)>>(par::pool(loop, mixed, of(2)));
  Received drained;
  auto other = pool->stream(into(drained), summary_of(drained));
  other.on_drain([&] { pool.reset(); });
  while (other.push(0)) {}
  loop.run();
  BOOST_TEST(!pool);
  BOOST_REQUIRE(drained.summary.has_value());
  BOOST_TEST(drained.summary->stopped);
}

BOOST_AUTO_TEST_CASE(streams_and_maps_of_one_pool_take_turns) {
  par::Reactor loop;
  auto pool = par::pool(loop, mixed, of(1));
  std::vector<int> order;
  const auto by_ten = [&order](int who) {
    return [&order, who](std::size_t i, const par::Result<int>& r) {
      BOOST_TEST((*r ^ 21) == static_cast<int>(i));
      if (i % 10 == 0) order.push_back(who);
    };
  };
  auto first = pool.stream(by_ten(1), chunks_of(10));
  auto second = pool.stream(by_ten(2), chunks_of(10));
  pool.map(numbers(400), by_ten(3), chunks_of(10));
  for (int i = 0; i < 400; ++i) {
    first.push(i);
    second.push(i);
  }
  loop.run();
  BOOST_REQUIRE(order.size() == 120u);
  for (std::size_t i = 3; i < order.size(); ++i) BOOST_TEST(order[i] == order[i - 3]);
  BOOST_TEST(order[0] + order[1] + order[2] == 6);
}

// ---- the brakes of a map ----

BOOST_AUTO_TEST_CASE(a_paused_map_pulls_nothing_and_delivers_nothing) {
  for (const bool ordered : {true, false}) {
    reset();
    par::Reactor loop;
    auto pool = par::pool(loop, held, of(2));
    Received received;
    int pulled = 0;
    par::MapOptions options = chunks_of(10);
    options.ordered = ordered;
    const par::MapHandle map = pool.map(
        [&]() -> std::optional<int> {
          return pulled < 200 ? std::optional(pulled++) : std::nullopt;
        },
        into(received), summary_of(received), std::move(options));
    map.pause();
    testing::turn(loop, 20);
    BOOST_TEST(pulled == 0);
    BOOST_TEST(pool.stats().started == 0u);
    map.resume();
    BOOST_TEST(pulled == 0);  // from the loop
    BOOST_TEST(testing::loop_until(loop, [&] { return shared->calls == 2; }));
    map.pause();
    const int before = pulled;
    shared->open = true;
    BOOST_TEST(testing::loop_until(loop, [&] { return pool.stats().running == 0; }));
    testing::turn(loop, 20);
    BOOST_TEST(pulled == before);
    BOOST_TEST(received.next == 0u);
    map.resume();
    BOOST_TEST(received.next == 0u);
    loop.run();
    BOOST_TEST(received.each_once(200));
    BOOST_TEST(received.right == 200u);
    if (ordered) BOOST_TEST(received.in_order);
    BOOST_TEST(received.summary.has_value());
    map.pause();
    map.resume();
  }
}

BOOST_AUTO_TEST_CASE(a_map_may_be_paused_at_any_result) {
  par::Reactor loop;
  auto pool = par::pool(loop, mixed, of(2));
  Received received;
  par::MapHandle map;
  map = pool.map(
      numbers(1000),
      [&](std::size_t i, const par::Result<int>& r) {
        received(i, r);
        if (i % 100 == 99) map.pause();
      },
      summary_of(received));
  for (std::size_t stop = 99; stop < 1000; stop += 100) {
    BOOST_TEST(testing::loop_until(loop, [&] { return received.next > stop; }));
    testing::turn(loop, 5);
    BOOST_TEST(received.next == stop + 1);
    BOOST_TEST(!received.summary.has_value());  // not even after the last result
    map.resume();
  }
  loop.run();
  BOOST_TEST(received.each_once(1000));
  BOOST_TEST(received.in_order);
  BOOST_TEST(received.summary.has_value());
}

BOOST_AUTO_TEST_CASE(a_paused_map_may_be_ended) {
  reset();
  par::Reactor loop;
  par::PoolOptions options = of(2);
  options.child.grace = 20ms;
  auto pool = par::pool(loop, mixed, options);
  Received cancelled;
  par::MapHandle map = pool.map(numbers(1000), into(cancelled), summary_of(cancelled));
  map.pause();
  map.cancel();
  loop.run();
  BOOST_REQUIRE(cancelled.summary.has_value());
  BOOST_TEST(cancelled.summary->stopped);

  Received shut;
  map = pool.map(
      numbers(1000),
      [&](std::size_t i, const par::Result<int>& r) {
        shut(i, r);
        if (i == 10) {
          map.pause();
          pool.shutdown(1ms);
        }
      },
      summary_of(shut));
  loop.run();
  BOOST_TEST(shut.next == 11u);
  BOOST_REQUIRE(shut.summary.has_value());
  BOOST_TEST(shut.summary->stopped);

  Received dropped;
  {
    auto other = par::pool(loop, mixed, of(2));
    map = other.map(numbers(1000), into(dropped), summary_of(dropped));
    map.pause();
  }
  loop.run();
  BOOST_REQUIRE(dropped.summary.has_value());
  BOOST_TEST(dropped.summary->stopped);
}

BOOST_AUTO_TEST_CASE(a_child_that_dies_while_its_map_is_paused_loses_only_its_item) {
  reset();
  par::Reactor loop;
  auto pool = par::pool(
      loop,
      [](int x) {
        if (x != 5) return x ^ 21;
        held(x);
        ::raise(SIGKILL);
        return 0;
      },
      of(1));
  Received received;
  const par::MapHandle map =
      pool.map(numbers(30), into(received), summary_of(received), chunks_of(10));
  BOOST_TEST(testing::loop_until(loop, [&] { return shared->calls == 1; }));
  map.pause();
  shared->open = true;
  BOOST_TEST(testing::loop_until(loop, [&] { return pool.stats().workers.empty(); }));
  testing::turn(loop, 5);
  BOOST_TEST(shared->calls == 1);  // its items are not sent again
  map.resume();
  loop.run();
  BOOST_TEST(received.each_once(30));
  BOOST_TEST(received.in_order);
  BOOST_TEST(received.failed == std::vector<std::size_t>{5});
}

BOOST_AUTO_TEST_CASE(a_range_may_pause_or_cancel_its_map) {
  par::Reactor loop;
  auto pool = par::pool(loop, mixed, of(2));
  Received received;
  int pulled = 0;
  par::MapHandle map;
  const auto pausing = [&]() -> std::optional<int> {
    if (pulled == 300) return std::nullopt;
    if (pulled % 100 == 50) map.pause();
    return pulled++;
  };
  map = pool.map(pausing, into(received), summary_of(received));
  for (const int stop : {51, 151, 251}) {
    BOOST_TEST(testing::loop_until(loop, [&] { return pulled == stop; }));
    testing::turn(loop, 5);
    BOOST_TEST(pulled == stop);
    map.resume();
  }
  loop.run();
  BOOST_TEST(received.each_once(300));

  Received stopped;
  pulled = 0;
  const auto cancelling = [&]() -> std::optional<int> {
    if (pulled == 50) map.cancel();
    return pulled++;
  };
  map = pool.map(cancelling, into(stopped), summary_of(stopped));
  loop.run();
  BOOST_TEST(pulled == 51);
  BOOST_TEST(stopped.next <= 50u);
  BOOST_REQUIRE(stopped.summary.has_value());
  BOOST_TEST(stopped.summary->stopped);
}

// ---- ranges that wait for input ----

namespace {

// Waits until the only child has begun `calls` items: it has answered all before the last of them.
bool wait_for_calls(int calls) {
  return testing::eventually([calls] { return shared->calls >= calls; });
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_range_that_waits_for_input_holds_no_result_back) {
  for (const bool ordered : {true, false}) {
    reset();
    par::Reactor loop;
    auto pool = par::pool(loop, mixed, of(1));
    Received received;
    par::MapOptions options;
    options.ordered = ordered;
    int pulled = 0;
    pool.map(
        [&]() -> std::optional<int> {
          if (pulled == 200) return std::nullopt;
          // The item before was sent, and its child has begun it.  So the one before that was
          // answered, at the latest in the last pull.
          if (pulled > 2) BOOST_TEST(received.next >= static_cast<std::size_t>(pulled) - 2);
          if (!wait_for_calls(pulled)) return std::nullopt;
          return pulled++;
        },
        into(received), summary_of(received), std::move(options));
    loop.run();
    BOOST_TEST(received.each_once(200));
    BOOST_TEST(received.right == 200u);
    BOOST_TEST(received.in_order);
  }
}

BOOST_AUTO_TEST_CASE(a_range_that_waits_after_a_burst_holds_no_item_back) {
  reset();
  par::Reactor loop;
  auto pool = par::pool(loop, mixed, of(2));
  Received received;
  int pulled = 0;
  pool.map(
      [&]() -> std::optional<int> {
        if (pulled == 210) return std::nullopt;
        // Seven items are there at once, and then none before all of them have been begun.
        if (pulled % 7 == 0 && !wait_for_calls(pulled)) return std::nullopt;
        return pulled++;
      },
      into(received), summary_of(received));
  loop.run();
  BOOST_TEST(received.each_once(210));
  BOOST_TEST(received.in_order);
}

BOOST_AUTO_TEST_CASE(a_range_that_waits_for_input_holds_no_call_back) {
  reset();
  par::Reactor loop;
  auto pool = par::pool(loop, mixed, of(2));
  Received received;
  int pulled = 0;
  int submitted = 0;
  int answered = 0;
  par::Timer timer;
  const auto submit_another = [&] {
    ++submitted;
    pool.submit(1, [&](par::Result<int> r) { answered += r.has_value(); });
  };
  pool.map(
      [&]() -> std::optional<int> {
        if (pulled == 200 || !wait_for_calls(pulled + submitted)) return std::nullopt;
        // A cancelled call is answered after this turn's pull.  So the timer is behind that of the
        // next pull, and submits a call in the same turn as it, but before it.
        if (pulled % 4 == 0)
          pool.submit(1, [&](par::Result<int>) { timer = loop.after(0ms, submit_another); })
              .cancel();
        return pulled++;
      },
      into(received), summary_of(received));
  loop.run();
  BOOST_TEST(received.each_once(200));
  BOOST_TEST(submitted == 50);
  BOOST_TEST(answered == submitted);
}

BOOST_AUTO_TEST_CASE(a_range_that_begins_to_wait_holds_no_item_back) {
  for (const std::size_t chunk : {0u, 10u}) {
    reset();
    par::Reactor loop;
    auto pool = par::pool(loop, mixed, of(1));
    Received received;
    int pulled = 0;
    pool.map(
        [&]() -> std::optional<int> {
          if (pulled == 20100) return std::nullopt;
          // Much input is there at once.  Then some items come slowly, which shows that there is a
          // reason to expect no more; from then on the range waits for its own items.
          if (pulled >= 20000) {
            if (pulled < 20010)
              ::usleep(2000);
            else if (!wait_for_calls(pulled))
              return std::nullopt;
          }
          return pulled++;
        },
        into(received), summary_of(received), chunks_of(chunk));
    loop.run();
    BOOST_TEST(received.each_once(20100));
    BOOST_TEST(received.right == 20100u);
    BOOST_TEST(received.in_order);
  }
}

namespace {

// Text that comes number by number: each one when the child has begun the call with the one before.
class SlowText : public std::streambuf {
public:
  explicit SlowText(int count) : count_(count) {}

private:
  int_type underflow() override {
    if (next_ == count_ || !wait_for_calls(next_)) return traits_type::eof();
    text_ = std::to_string(next_++) + " ";
    setg(text_.data(), text_.data(), text_.data() + text_.size());
    return traits_type::to_int_type(text_.front());
  }

  int count_;
  int next_ = 0;
  std::string text_{};
};

struct Numbers {
  std::istream_iterator<int> begin() { return std::istream_iterator<int>(in); }
  std::istream_iterator<int> end() { return {}; }
  std::istream& in;
};

}  // namespace

BOOST_AUTO_TEST_CASE(an_input_iterator_that_waits_holds_no_item_back) {
  reset();
  par::Reactor loop;
  auto pool = par::pool(loop, mixed, of(1));
  Received received;
  SlowText text(100);
  std::istream in(&text);
  pool.map(Numbers{in}, into(received), summary_of(received));
  loop.run();
  BOOST_TEST(received.each_once(100));
  BOOST_TEST(received.right == 100u);
}

BOOST_AUTO_TEST_CASE(a_large_result_is_delivered_before_its_range_waits_again) {
  reset();
  par::Reactor loop;
  auto pool = par::pool<par::RawIo, par::RawIo>(
      loop,
      [](int x) {
        shared->pid = ::getpid();
        shared->calls = x + 1;
        return std::string(std::size_t{8} << 20, 'x');
      },
      of(2));
  std::size_t results = 0;
  int pulled = 0;
  pool.map(
      [&]() -> std::optional<int> {
        BOOST_TEST(results + 1 >= static_cast<std::size_t>(pulled));
        if (pulled == 20) return std::nullopt;
        // The child sleeps when its socket is full: a part of the answer is there.
        const bool asleep =
            pulled == 0 || testing::eventually([&] {
              return shared->calls == pulled && testing::state_of(shared->pid) == 'S';
            });
        if (!asleep) return std::nullopt;
        return pulled++;
      },
      [&](std::size_t, const par::Result<std::string>& r) {
        BOOST_TEST(r.value().size() == std::size_t{8} << 20);
        ++results;
      });
  loop.run();
  BOOST_TEST(results == 20u);
}

BOOST_AUTO_TEST_CASE(a_waiting_range_does_not_hold_back_calls_and_other_maps) {
  reset();
  par::Reactor loop;
  auto pool = par::pool(
      loop,
      [](int x) {
        if (x >= 0) ++shared->calls;
        return x ^ 21;
      },
      of(1));
  Received waiting;
  std::size_t others = 0;
  int answers = 0;
  int pulled = 0;
  pool.map(
      [&]() -> std::optional<int> {
        if (pulled == 100 || !wait_for_calls(pulled)) return std::nullopt;
        return pulled++;
      },
      into(waiting), summary_of(waiting));
  std::vector<int> negative = numbers(1000);
  for (int& x : negative) x = -1 - x;
  pool.map(negative, [&](std::size_t, const par::Result<int>&) { ++others; });
  for (int i = 1; i <= 100; ++i) pool.submit(-i, [&](const par::Result<int>&) { ++answers; });
  loop.run();
  BOOST_TEST(waiting.each_once(100));
  BOOST_TEST(others == 1000u);
  BOOST_TEST(answers == 100);
}
