// pipe.cpp - both ends of a pipe in one process: the events, their order, and their absence.
#include "calling.hpp"
#include "private_names.hpp"
#include "testing.hpp"

#include "pipe/pipe_core.hpp"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace par = evparallel;
using par::detail::PipeCore;
using Strings = std::vector<std::string>;

namespace {

constexpr std::size_t limit = 1 << 20;

struct Owner final : par::PipeObserver {
  void on_broken() override { ++broken; }
  void on_over() override { ++over; }
  int broken = 0;
  int over = 0;
};

using Codecs = par::detail::PipeCodecs<std::string, std::string>;
const Codecs& raw = par::detail::pipe_codecs<std::string, std::string, par::RawIo<std::string>,
                                             par::RawIo<std::string>>;
using Pipe = par::Pipe<std::string, std::string>;

// One end, and its events.
struct End {
  End(par::Reactor& loop, par::OwnedFd socket, PipeCore::ExitReport exit_report, std::size_t mark)
      : core(std::make_shared<PipeCore>(loop.loop(), par::Channel(std::move(socket), limit), mark,
                                        exit_report, &owner)),
        pipe(core, raw) {
    core->start();
  }
  ~End() { core->abort(); }

  void listen() {
    pipe.on_message([this](std::string s) { received.push_back(s); });
    pipe.on_end([this] { received.push_back("END"); });
    pipe.on_error([this](const par::Error& e) {
      received.push_back(std::string("ERROR ") + par::to_string(e.code()));
    });
  }

  Owner owner;
  std::shared_ptr<PipeCore> core;
  Pipe pipe;
  Strings received;
};

// The parent's end receives an exit report, the child's end none.  A hold keeps the loop running as an open Process
// does.
struct Fixture {
  explicit Fixture(std::size_t mark = 100000) {
    par::OwnedFd one;
    par::OwnedFd other;
    BOOST_REQUIRE(par::make_pair(par::PairKind::stream, one, other) == 0);
    child_socket = other.get();
    parent = std::make_unique<End>(loop, std::move(one), PipeCore::ExitReport::comes, mark);
    child = std::make_unique<End>(loop, std::move(other), PipeCore::ExitReport::none, mark);
    parent->listen();
    child->listen();
  }
  // Until the condition holds.
  template <class F>
  bool until(F condition, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return testing::loop_until(loop, condition, file, line);
  }

  par::Reactor loop;
  std::unique_ptr<End> parent;
  std::unique_ptr<End> child;
  int child_socket = -1;
};

par::Error death() {
  return par::Error(par::Errc::child_killed, "dead");
}

}  // namespace

BOOST_AUTO_TEST_CASE(messages_arrive_in_order_in_both_directions) {
  Fixture f;
  for (int i = 0; i < 100; ++i) {
    f.parent->pipe.send("p" + std::to_string(i));
    f.child->pipe.send("c" + std::to_string(i));
  }
  BOOST_TEST(
      f.until([&] { return f.parent->received.size() == 100 && f.child->received.size() == 100; }));
  for (int i = 0; i < 100; ++i) {
    BOOST_TEST(f.parent->received[static_cast<std::size_t>(i)] == "c" + std::to_string(i));
    BOOST_TEST(f.child->received[static_cast<std::size_t>(i)] == "p" + std::to_string(i));
  }
}

BOOST_AUTO_TEST_CASE(either_side_may_half_close_and_the_other_goes_on) {
  for (const bool parent_first : {true, false}) {
    Fixture f;
    End& first = parent_first ? *f.parent : *f.child;
    End& second = parent_first ? *f.child : *f.parent;
    first.pipe.send("a");
    first.pipe.close();
    BOOST_TEST(first.pipe.closed());
    BOOST_TEST(f.until([&] { return second.received.size() == 2; }));
    BOOST_TEST((second.received == Strings{"a", "END"}));
    second.pipe.send("b");
    second.pipe.close();
    BOOST_TEST(f.until([&] { return first.received.size() == 2; }));
    BOOST_TEST((first.received == Strings{"b", "END"}));
    BOOST_TEST(f.until([&] { return f.child->owner.over == 1; }));  // both directions: no report
    BOOST_TEST(f.parent->owner.over == 0);
    f.parent->core->conclude(death());
    BOOST_TEST(f.parent->owner.over == 1);
    BOOST_TEST((f.parent->received.back() == "END"));  // after a clean end there is no error
  }
}

BOOST_AUTO_TEST_CASE(a_broken_end_waits_for_the_exit_report) {
  Fixture f;
  f.child->pipe.send("last");
  f.child->core->abort();
  BOOST_TEST(f.until([&] { return f.parent->owner.broken == 1; }));
  BOOST_TEST((f.parent->received == Strings{"last"}));
  BOOST_TEST(!f.parent->core->usable());
  f.parent->core->conclude(death());
  BOOST_TEST((f.parent->received == Strings{"last", "ERROR child_killed", "END"}));
  BOOST_TEST(f.parent->owner.over == 1);
}

BOOST_AUTO_TEST_CASE(a_broken_end_is_reported_at_once_without_an_exit_report) {
  Fixture f;
  f.parent->pipe.send("last");
  f.parent->core->abort();
  BOOST_TEST(f.until([&] { return f.child->received.size() == 3; }));
  BOOST_TEST((f.child->received == Strings{"last", "ERROR closed", "END"}));
}

BOOST_AUTO_TEST_CASE(the_exit_report_is_enough_if_no_end_of_file_comes) {
  Fixture f;
  f.child->pipe.send("a");
  f.child->pipe.send("b");
  f.parent->core->conclude(death());  // before anything was read; the other end remains open
  BOOST_TEST((f.parent->received == Strings{"a", "b", "ERROR child_killed", "END"}));
  BOOST_TEST(f.parent->owner.over == 1);
}

// As a forked copy of the child could: each message that the parent reads is followed by another.
BOOST_AUTO_TEST_CASE(what_another_process_writes_after_the_exit_report_is_not_read,
                     *testing::guarantee("A.6")) {
  for (const bool paused : {false, true}) {
    Fixture f;
    int written = 1;
    f.parent->pipe.on_message([&](const std::string& s) {
      f.parent->received.push_back(s);
      if (++written < 1000) f.child->pipe.send("more");
      f.child->core->flush_now();
    });
    f.child->pipe.send("last");
    if (paused) f.parent->pipe.pause();
    f.parent->core->conclude(death());
    if (paused) f.parent->pipe.resume();
    BOOST_TEST(f.until([&] { return f.parent->owner.over == 1; }));
    BOOST_TEST((f.parent->received == Strings{"last", "ERROR child_killed", "END"}));
  }
}

BOOST_AUTO_TEST_CASE(a_frame_that_another_process_completes_after_the_exit_report_is_torn,
                     *testing::guarantee("A.6")) {
  Fixture f;
  constexpr char half[] = {1, 0, 0, 0};
  BOOST_REQUIRE(::write(f.child_socket, half, sizeof half) == sizeof half);
  f.parent->core->conclude(death());
  BOOST_TEST((f.parent->received == Strings{"ERROR bad_message", "END"}));
}

BOOST_AUTO_TEST_CASE(pause_holds_back_messages_and_ends) {
  Fixture f;
  f.parent->pipe.pause();
  f.child->pipe.send("a");
  f.child->pipe.close();
  testing::turn(f.loop, 1);  // the end is written
  f.parent->core->conclude(death());
  testing::turn(f.loop, 10);
  BOOST_TEST(f.parent->received.empty());
  f.parent->pipe.resume();
  BOOST_TEST(f.parent->received.empty());  // never from inside the call
  BOOST_TEST(f.until([&] { return f.parent->owner.over == 1; }));
  BOOST_TEST((f.parent->received == Strings{"a", "END"}));
}

BOOST_AUTO_TEST_CASE(pausing_inside_a_callback_stops_before_the_next_message) {
  Fixture f;
  f.parent->pipe.on_message([&](std::string s) {
    f.parent->received.push_back(s);
    f.parent->pipe.pause();
  });
  for (const char* s : {"a", "b", "c"}) f.child->pipe.send(s);
  for (std::size_t n = 1; n <= 3; ++n) {
    BOOST_TEST(f.until([&] { return f.parent->received.size() >= n; }));
    testing::turn(f.loop, 5);
    BOOST_TEST(f.parent->received.size() == n);
    f.parent->pipe.resume();
  }
  BOOST_TEST((f.parent->received == Strings{"a", "b", "c"}));
}

BOOST_AUTO_TEST_CASE(the_high_water_mark_is_followed_by_a_drain) {
  Fixture f(50000);
  f.child->pipe.pause();
  int drains = 0;
  f.parent->pipe.on_drain([&] { ++drains; });
  int accepted = 0;
  while (f.parent->pipe.send(std::string(10000, 'x')) && accepted < 1000) ++accepted;
  BOOST_TEST(accepted < 1000);
  BOOST_TEST(f.parent->pipe.buffered() > 50000u);
  BOOST_TEST(!f.parent->pipe.send("also taken"));
  testing::turn(f.loop, 5);
  BOOST_TEST(drains == 0);
  f.child->pipe.resume();
  BOOST_TEST(
      f.until([&] { return f.child->received.size() == static_cast<std::size_t>(accepted) + 2; }));
  BOOST_TEST(drains == 1);
  BOOST_TEST(f.parent->pipe.buffered() == 0u);
  BOOST_TEST(f.child->received.back() == "also taken");
}

BOOST_AUTO_TEST_CASE(send_after_own_close_is_misuse) {
  Fixture f;
  f.parent->pipe.close();
  BOOST_CHECK_THROW(f.parent->pipe.send("x"), std::logic_error);
  f.parent->pipe.close();
  BOOST_TEST(f.until([&] { return f.child->received.size() == 1; }));
}

BOOST_AUTO_TEST_CASE(send_after_the_end_of_the_other_side_is_dropped_and_reported_once) {
  Fixture f;
  f.parent->core->abort();
  BOOST_TEST(f.until([&] { return f.child->received.size() == 2; }));
  BOOST_TEST((f.child->received == Strings{"ERROR closed", "END"}));
  for (int i = 0; i < 3; ++i) {
    // The rule that an end without on_end closes this side does not apply: on_end is set.
    BOOST_TEST(f.child->pipe.send("x"));
    testing::turn(f.loop, 2);
  }
  BOOST_TEST((f.child->received == Strings{"ERROR closed", "END"}));
  BOOST_TEST(f.child->pipe.closed());
}

BOOST_AUTO_TEST_CASE(in_a_child_without_on_end_the_parents_end_closes_the_child) {
  Fixture f;
  f.child->pipe.on_end(nullptr);
  f.parent->pipe.send("a");
  f.parent->pipe.close();
  BOOST_TEST(f.until([&] { return f.child->owner.over == 1; }));
  BOOST_TEST((f.child->received == Strings{"a"}));
  BOOST_TEST(f.until([&] { return f.parent->received == Strings{"END"}; }));
}

BOOST_AUTO_TEST_CASE(the_first_message_waits_for_a_callback) {
  Fixture f;
  f.parent->pipe.on_message(nullptr);
  f.child->pipe.send("a");
  f.child->pipe.send("b");
  f.child->pipe.close();
  testing::turn(f.loop, 10);
  BOOST_TEST(f.parent->received.empty());
  f.parent->listen();
  BOOST_TEST(f.parent->received.empty());
  BOOST_TEST(f.until([&] { return f.parent->received.size() == 3; }));
  BOOST_TEST((f.parent->received == Strings{"a", "b", "END"}));
}

BOOST_AUTO_TEST_CASE(messages_without_a_callback_do_not_hold_back_the_end) {
  Fixture f;
  f.parent->pipe.on_message(nullptr);
  f.child->pipe.send("a");
  f.child->pipe.send("b");
  f.parent->core->conclude(death());
  BOOST_TEST((f.parent->received == Strings{"ERROR child_killed", "END"}));
}

BOOST_AUTO_TEST_CASE(a_bad_message_is_reported_and_the_next_one_arrives) {
  Fixture f;
  const par::detail::PipeCodecs<int, int>& numbers =
      par::detail::pipe_codecs<int, int, par::RawIo<int>, par::RawIo<int>>;
  const par::Pipe<int, int> strict(f.parent->core, numbers);
  int sum = 0;
  strict.on_message([&](int x) { sum += x; });
  f.child->pipe.send("abc");    // one byte short
  f.child->pipe.send("abcde");  // one byte over
  par::Pipe<int, int>(f.child->core, numbers).send(7);
  BOOST_TEST(f.until([&] { return sum == 7; }));
  BOOST_TEST((f.parent->received == Strings{"ERROR bad_message", "ERROR bad_message"}));
}

BOOST_AUTO_TEST_CASE(a_bad_message_without_on_error_is_thrown_out_of_run) {
  Fixture f;
  f.parent->pipe.on_error(nullptr);
  par::Pipe<int, int>(f.parent->core,
                      par::detail::pipe_codecs<int, int, par::RawIo<int>, par::RawIo<int>>)
      .on_message([](int) {});
  f.child->pipe.send("abc");
  BOOST_CHECK_THROW(f.until([] { return false; }), par::Error);
}

BOOST_AUTO_TEST_CASE(a_too_large_message_is_refused_by_the_writer_and_skipped_by_the_reader) {
  Fixture f;
  BOOST_CHECK_EXCEPTION(f.parent->pipe.send(std::string(limit + 1, 'x')), par::Error,
                        [](const par::Error& e) { return e.code() == par::Errc::too_large; });
  f.parent->pipe.send(std::string(limit, 'x'));
  BOOST_TEST(f.until([&] { return f.child->received.size() == 1; }));
  BOOST_TEST(f.child->received[0].size() == limit);

  par::OwnedFd one;
  par::OwnedFd other;
  BOOST_REQUIRE(par::make_pair(par::PairKind::stream, one, other) == 0);
  End reader(f.loop, std::move(one), PipeCore::ExitReport::none, 1000);
  reader.listen();
  par::Channel generous(std::move(other), 10 * limit);
  for (const std::size_t size : {std::size_t{3}, limit + 1, std::size_t{4}}) {
    par::Writer message;
    message.write(std::string(size, 'y'));
    generous.put(par::FrameKind::message, 0, message);
  }
  BOOST_TEST(f.until([&] {
    generous.flush(par::Wait::no);
    return reader.received.size() == 3;
  }));
  BOOST_TEST((reader.received == Strings{"yyy", "ERROR too_large", "yyyy"}));
}

BOOST_AUTO_TEST_CASE(a_malformed_stream_ends_the_pipe) {
  Fixture f;
  par::OwnedFd one;
  par::OwnedFd other;
  BOOST_REQUIRE(par::make_pair(par::PairKind::stream, one, other) == 0);
  End reader(f.loop, std::move(one), PipeCore::ExitReport::none, 1000);
  reader.listen();
  const std::string rubbish(64, '\xee');
  BOOST_REQUIRE(::send(other.get(), rubbish.data(), rubbish.size(), 0) == 64);
  BOOST_TEST(f.until([&] { return reader.received.size() == 2; }));
  BOOST_TEST((reader.received == Strings{"ERROR bad_message", "END"}));
}

BOOST_AUTO_TEST_CASE(callbacks_may_replace_themselves_and_shut_the_pipe) {
  Fixture f;
  f.parent->pipe.on_message([&](std::string s) {
    f.parent->received.push_back("first " + s);
    f.parent->pipe.on_message([&](std::string t) {
      f.parent->received.push_back("second " + t);
      f.parent->core->abort();
    });
  });
  for (const char* s : {"a", "b", "c"}) f.child->pipe.send(s);
  BOOST_TEST(f.until([&] { return f.parent->received.size() == 2; }));
  testing::turn(f.loop, 5);
  BOOST_TEST((f.parent->received == Strings{"first a", "second b"}));
}

BOOST_AUTO_TEST_CASE(an_exception_in_a_callback_loses_no_message) {
  Fixture f;
  f.parent->pipe.on_message([&](std::string s) {
    f.parent->received.push_back(s);
    if (s == "b") throw std::runtime_error("mine");
  });
  for (const char* s : {"a", "b", "c", "d"}) f.child->pipe.send(s);
  BOOST_CHECK_THROW(f.until([&] { return f.parent->received.size() == 4; }), std::runtime_error);
  BOOST_TEST((f.parent->received == Strings{"a", "b"}));
  BOOST_TEST(f.until([&] { return f.parent->received.size() == 4; }));
  BOOST_TEST((f.parent->received == Strings{"a", "b", "c", "d"}));
}

BOOST_AUTO_TEST_CASE(an_abandoned_pipe_writes_all_sent_messages) {
  Fixture f;
  for (int i = 0; i < 20; ++i) f.parent->pipe.send(std::string(100000, 'x'));
  BOOST_TEST(f.parent->pipe.buffered() > 0u);
  f.parent->core->detach();
  BOOST_TEST(f.until([&] { return f.child->received.size() == 21; }));
  BOOST_TEST(f.child->received.back() == "END");
  BOOST_TEST(f.child->received.front().size() == 100000u);
}

BOOST_AUTO_TEST_CASE(handlers_are_released_at_the_end) {
  auto token = std::make_shared<int>(0);
  Fixture f;
  f.parent->pipe.on_message([token](std::string) {});
  f.parent->pipe.on_end([token, pipe = f.parent->pipe] {});
  BOOST_TEST(token.use_count() == 3);
  f.parent->core->conclude(death());
  BOOST_TEST(token.use_count() == 1);
}

BOOST_AUTO_TEST_CASE(a_message_is_sent_at_once_and_calls_of_one_callback_together) {
  Fixture f;
  // The bytes in the socket are counted.
  par::OwnedFd one;
  par::OwnedFd other;
  BOOST_REQUIRE(par::make_pair(par::PairKind::stream, one, other) == 0);
  End writer(f.loop, std::move(one), PipeCore::ExitReport::none, limit);
  const auto waiting = [&] {
    char bytes[8192];
    return ::recv(other.get(), bytes, sizeof bytes, MSG_PEEK | MSG_DONTWAIT);
  };
  ssize_t sent = 0;
  ssize_t called = 0;
  const auto call = [&] {
    par::Writer message;
    message.write("0123456789");
    writer.core->put(par::FrameKind::call, 1, message, PipeCore::FlushPolicy::with_the_turn);
  };
  f.loop
      .after(std::chrono::nanoseconds(0),
             [&] {
               writer.pipe.send("0123456789");
               sent = waiting();
               for (int i = 0; i < 100; ++i) call();
               called = waiting();
             })
      .detach();
  testing::turn(f.loop, 5);
  BOOST_TEST(sent == 26);
  BOOST_TEST(called == 26);  // no further write
  BOOST_TEST(waiting() == 101 * 26);
  // Outside of the loop every message is sent at once.
  call();
  BOOST_TEST(waiting() == 102 * 26);
}

BOOST_AUTO_TEST_CASE(eight_megabytes_are_sent_without_a_copy) {
  par::Reactor loop;
  par::OwnedFd one;
  par::OwnedFd other;
  BOOST_REQUIRE(par::make_pair(par::PairKind::stream, one, other) == 0);
  auto writer = std::make_shared<PipeCore>(loop.loop(), par::Channel(std::move(one), 1 << 24), 1000,
                                           PipeCore::ExitReport::none, nullptr);
  auto reader = std::make_shared<PipeCore>(loop.loop(), par::Channel(std::move(other), 1 << 24),
                                           1000, PipeCore::ExitReport::none, nullptr);
  std::string got;
  Pipe(reader, raw).on_message([&](std::string s) { got = std::move(s); });
  writer->start();
  reader->start();
  std::string text(8 << 20, 'x');
  text[12345] = 'y';
  Pipe(writer, raw).send(std::string(text));
  BOOST_TEST(testing::loop_until(loop, [&] { return !got.empty(); }));
  BOOST_TEST((got == text));
  writer->abort();
  reader->abort();
}

// ---- more of them ----

namespace {

std::string said(const Strings& received) {
  std::string all;
  for (const std::string& s : received) all += (all.empty() ? "" : " ") + s;
  return all;
}

std::size_t count(const Strings& received, const std::string& what) {
  return static_cast<std::size_t>(std::count(received.begin(), received.end(), what));
}

std::string header_of(par::FrameKind kind, std::uint64_t id, std::uint64_t size) {
  const std::uint64_t word = size | std::uint64_t{static_cast<std::uint8_t>(kind)} << 48;
  std::string bytes(16, '\0');
  std::memcpy(bytes.data(), &word, 8);
  std::memcpy(bytes.data() + 8, &id, 8);
  return bytes;
}

std::string frame_of(par::FrameKind kind, const std::string& body, std::uint64_t id = 0) {
  return header_of(kind, id, body.size()) + body;
}

// One end of a pipe; the test reads and writes the other socket itself.
struct RawFixture {
  explicit RawFixture(PipeCore::ExitReport exit_report, std::size_t mark = 100000,
                      par::PairKind kind = par::PairKind::stream) {
    par::OwnedFd one;
    BOOST_REQUIRE(par::make_pair(kind, one, other) == 0);
    end = std::make_unique<End>(loop, std::move(one), exit_report, mark);
    end->listen();
  }
  void write(const std::string& bytes) const {
    BOOST_REQUIRE(::send(other.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT) ==
                  static_cast<ssize_t>(bytes.size()));
  }
  // All bytes that can be read now.
  std::string read() const {
    std::string all;
    std::vector<char> bytes(1 << 16);
    for (;;) {
      const ssize_t got = ::recv(other.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
      if (got <= 0) return all;
      all.append(bytes.data(), static_cast<std::size_t>(got));
    }
  }
  template <class F>
  bool until(F condition, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return testing::loop_until(loop, condition, file, line);
  }

  par::Reactor loop;
  par::OwnedFd other;
  std::unique_ptr<End> end;
};

}  // namespace

// ---- a waiting writer ----

// A relay of messages: it stops reading while it cannot write.  When the other side dies, no write leads to a drain;
// the end must be reported all the same.
BOOST_AUTO_TEST_CASE(a_writer_that_waits_for_a_drain_gets_the_end) {
  for (const bool parent_waits : {false, true}) {
    Fixture f(50000);
    End& waiting = parent_waits ? *f.parent : *f.child;
    End& dying = parent_waits ? *f.child : *f.parent;
    waiting.pipe.on_drain([&] { waiting.pipe.resume(); });
    dying.pipe.pause();
    for (int i = 0; i < 1000 && waiting.pipe.send(std::string(10000, 'x')); ++i) {}
    waiting.pipe.pause();
    BOOST_TEST(waiting.pipe.buffered() > 50000u);
    dying.core->abort();
    testing::turn(f.loop, 20);
    if (parent_waits) f.parent->core->conclude(death());
    const auto ended = [&] { return count(waiting.received, "END") == 1; };
    BOOST_TEST(f.until(ended));
    if (parent_waits) BOOST_TEST(waiting.owner.over == 1);
  }
}

BOOST_AUTO_TEST_CASE(every_refused_send_is_followed_by_one_drain) {
  Fixture f(20000);
  int refusals = 0;
  int drains = 0;
  int sent = 0;
  const auto pump = [&] {
    while (sent < 3000) {
      ++sent;
      if (!f.parent->pipe.send(std::to_string(sent) + std::string(1000, 'x'))) {
        ++refusals;
        return;
      }
    }
  };
  f.parent->pipe.on_drain([&] {
    ++drains;
    BOOST_TEST(f.parent->pipe.buffered() <= 10000u);
    pump();
  });
  pump();
  BOOST_TEST(f.until([&] { return f.child->received.size() == 3000; }));
  BOOST_TEST(refusals > 0);
  BOOST_TEST(f.until([&] { return drains == refusals; }));
  for (std::size_t i = 0; i < 3000; ++i)
    if (f.child->received[i] != std::to_string(i + 1) + std::string(1000, 'x'))
      BOOST_ERROR("message " + std::to_string(i));
}

BOOST_AUTO_TEST_CASE(a_reader_that_does_not_read_makes_the_writer_wait) {
  for (const bool paused : {true, false}) {
    RawFixture f(PipeCore::ExitReport::none);
    if (paused)
      f.end->pipe.pause();
    else
      f.end->pipe.on_message(nullptr);
    std::string frames;
    for (int i = 0; i < 100; ++i)
      frames += frame_of(par::FrameKind::message, std::string(1000, 'm'));
    std::size_t at = 0;
    std::size_t taken = 0;
    int full = 0;
    while (full < 20 && taken < 50 * limit) {
      const ssize_t put = ::send(f.other.get(), frames.data() + at, frames.size() - at,
                                 MSG_NOSIGNAL | MSG_DONTWAIT);
      if (put < 0) {
        ++full;
        testing::turn(f.loop, 1);
        continue;
      }
      taken += static_cast<std::size_t>(put);
      at = (at + static_cast<std::size_t>(put)) % frames.size();
    }
    BOOST_TEST(full == 20);
    BOOST_TEST(taken < 2 * limit);  // the capacity of a socket, and one read
    BOOST_TEST(f.end->received.empty());
    f.end->pipe.resume();
    f.end->listen();
    const std::size_t whole = taken / 1016;
    BOOST_TEST(f.until([&] { return f.end->received.size() == whole; }));
  }
}

BOOST_AUTO_TEST_CASE(buffered_counts_the_bytes_that_are_not_written) {
  Fixture f(10);
  f.child->pipe.pause();
  BOOST_TEST(f.parent->pipe.buffered() == 0u);
  std::size_t sent = 0;
  while (f.parent->pipe.buffered() == 0 && sent < 10000) {
    f.parent->pipe.send(std::string(984, 'x'));
    ++sent;
  }
  const std::size_t first = f.parent->pipe.buffered();
  BOOST_TEST(first > 0u);
  BOOST_TEST(!f.parent->pipe.send(std::string(984, 'x')));
  BOOST_TEST(f.parent->pipe.buffered() == first + 1000);
  f.child->pipe.resume();
  BOOST_TEST(f.until([&] { return f.child->received.size() == sent + 1; }));
  BOOST_TEST(f.parent->pipe.buffered() == 0u);
}

// ---- the end of the other side ----

// The first message that cannot be written discovers the end.
BOOST_AUTO_TEST_CASE(a_send_after_the_end_of_the_other_side_is_reported) {
  for (const int sends : {1, 4}) {
    RawFixture f(PipeCore::ExitReport::none);
    f.write(frame_of(par::FrameKind::message, "a") + frame_of(par::FrameKind::end, ""));
    BOOST_TEST(f.until([&] { return f.end->received.size() == 2; }));
    f.other.reset();
    for (int i = 0; i < sends; ++i) BOOST_TEST(f.end->pipe.send("lost"));
    BOOST_TEST(f.until([&] { return f.end->received.size() == 3; }));
    testing::turn(f.loop, 20);
    BOOST_TEST(said(f.end->received) == "a END ERROR closed");
    BOOST_TEST(f.end->pipe.closed());
  }
}

BOOST_AUTO_TEST_CASE(messages_of_a_dead_process_arrive_before_its_end) {
  for (const auto exit_report : {PipeCore::ExitReport::none, PipeCore::ExitReport::comes}) {
    RawFixture f(exit_report);
    f.write(frame_of(par::FrameKind::message, "a") + frame_of(par::FrameKind::message, "b"));
    f.end->pipe.send("unread");  // makes the end a reset
    f.other.reset();
    for (int i = 0; i < 3; ++i) f.end->pipe.send("unheard");
    if (exit_report == PipeCore::ExitReport::comes) {
      BOOST_TEST(f.until([&] { return f.end->owner.broken == 1; }));
      f.end->core->conclude(death());
    }
    BOOST_TEST(f.until([&] { return count(f.end->received, "END") == 1; }));
    BOOST_REQUIRE(f.end->received.size() == 4u);
    BOOST_TEST(f.end->received[0] == "a");
    BOOST_TEST(f.end->received[1] == "b");
    BOOST_TEST(f.end->received[2].substr(0, 5) == "ERROR");  // for either kind of noticed end
    BOOST_TEST(f.end->received[3] == "END");
  }
}

BOOST_AUTO_TEST_CASE(a_torn_frame_is_an_error_and_ends_the_pipe) {
  for (const auto exit_report : {PipeCore::ExitReport::none, PipeCore::ExitReport::comes}) {
    const std::string stream =
        frame_of(par::FrameKind::message, "a") + frame_of(par::FrameKind::message, "bcd");
    for (std::size_t cut = 17; cut <= stream.size(); ++cut) {
      RawFixture f(exit_report);
      f.write(stream.substr(0, cut));
      f.other.reset();
      const bool torn = cut != 17 && cut != stream.size();
      const std::string messages = cut == stream.size() ? "a bcd" : "a";
      if (exit_report == PipeCore::ExitReport::none) {
        BOOST_TEST(f.until([&] { return count(f.end->received, "END") == 1; }));
        BOOST_TEST(said(f.end->received) ==
                   messages + (torn ? " ERROR bad_message END" : " ERROR closed END"));
        continue;
      }
      BOOST_TEST(f.until([&] { return f.end->owner.broken == 1; }));
      f.end->core->conclude(death());
      BOOST_TEST(count(f.end->received, "END") == 1u);
      BOOST_TEST(f.end->owner.over == 1);
      BOOST_TEST(f.end->owner.broken == 1);
      if (torn)
        BOOST_TEST((said(f.end->received) == messages + " ERROR bad_message END"));
      else
        BOOST_TEST(said(f.end->received) == messages + " ERROR child_killed END");
    }
  }
}

BOOST_AUTO_TEST_CASE(a_malformed_stream_and_an_exit_report_end_the_pipe) {
  RawFixture f(PipeCore::ExitReport::comes);
  f.write(frame_of(par::FrameKind::message, "a") + std::string(64, '\xee'));
  BOOST_TEST(f.until([&] { return f.end->owner.broken == 1; }));
  BOOST_TEST(said(f.end->received) == "a ERROR bad_message");
  BOOST_TEST(!f.end->core->usable());
  BOOST_TEST(f.end->pipe.send("dropped"));
  f.end->core->conclude(death());
  BOOST_TEST(said(f.end->received) == "a ERROR bad_message END");
  BOOST_TEST(f.end->owner.over == 1);
}

BOOST_AUTO_TEST_CASE(frames_after_the_end_are_not_messages) {
  RawFixture f(PipeCore::ExitReport::none);
  f.write(frame_of(par::FrameKind::end, "") + frame_of(par::FrameKind::message, "late"));
  testing::turn(f.loop, 20);
  BOOST_TEST(f.until([&] { return !f.end->received.empty(); }));
  BOOST_TEST(said(f.end->received).substr(0, 3) == "END");
  BOOST_TEST(count(f.end->received, "late") == 0u);
}

BOOST_AUTO_TEST_CASE(an_exit_report_may_come_while_the_pipe_is_paused) {
  RawFixture f(PipeCore::ExitReport::comes);
  for (const char* s : {"a", "b", "c"}) f.write(frame_of(par::FrameKind::message, s));
  f.end->pipe.on_message([&](std::string s) {
    f.end->received.push_back(s);
    if (s == "b") f.end->pipe.pause();
  });
  f.end->core->conclude(death());
  BOOST_TEST(said(f.end->received) == "a b");
  testing::turn(f.loop, 10);
  BOOST_TEST(said(f.end->received) == "a b");
  BOOST_TEST(f.end->owner.over == 0);
  f.end->pipe.resume();
  BOOST_TEST(f.until([&] { return f.end->owner.over == 1; }));
  BOOST_TEST(said(f.end->received) == "a b c ERROR child_killed END");
}

BOOST_AUTO_TEST_CASE(an_exception_during_the_exit_report_loses_nothing) {
  RawFixture f(PipeCore::ExitReport::comes);
  for (const char* s : {"a", "b", "c"}) f.write(frame_of(par::FrameKind::message, s));
  f.end->pipe.on_message([&](std::string s) {
    f.end->received.push_back(s);
    throw std::runtime_error(s);
  });
  f.end->pipe.on_end([&] {
    f.end->received.push_back("END");
    throw std::runtime_error("END");
  });
  f.loop.post([&] { f.end->core->conclude(death()); });
  Strings thrown;
  for (int i = 0; i < 20 && f.end->owner.over == 0; ++i) {
    try {
      testing::turn(f.loop, 20);
    } catch (const std::runtime_error& error) {
      thrown.push_back(error.what());
    }
  }
  BOOST_TEST(said(f.end->received) == "a b c ERROR child_killed END");
  BOOST_TEST(said(thrown).substr(0, 5) == "a b c");
  BOOST_TEST(f.end->owner.over == 1);
}

BOOST_AUTO_TEST_CASE(unread_messages_are_dropped_after_close) {
  Fixture f;
  f.parent->pipe.on_message(nullptr);
  for (int i = 0; i < 3; ++i) f.child->pipe.send(std::string(50000, 'x'));
  f.child->pipe.close();
  testing::turn(f.loop, 10);
  BOOST_TEST(f.parent->received.empty());
  f.parent->pipe.close();  // only the end is awaited now
  BOOST_TEST(f.until([&] { return !f.parent->received.empty(); }));
  BOOST_TEST(said(f.parent->received) == "END");
}

// ---- allowed actions in callbacks ----

BOOST_AUTO_TEST_CASE(every_callback_may_shut_the_pipe) {
  for (const int which : {0, 1, 2, 3}) {
    RawFixture f(PipeCore::ExitReport::none, 10);
    int called = 0;
    const auto act = [&, big = std::string(100, 'b')] {
      f.end->core->abort();
      called += big.size() == 100 ? 1 : 100;  // the callback is still intact
    };
    if (which == 0) f.end->pipe.on_message([act](std::string) { act(); });
    if (which == 1) f.end->pipe.on_error([act](const par::Error&) { act(); });
    if (which == 2) f.end->pipe.on_end(act);
    if (which == 3) f.end->pipe.on_drain(act);
    const std::size_t mib = 1 << 20;
    if (which == 3) {
      while (f.end->pipe.send(std::string(1000, 'x'))) {}
      f.read();
    } else {
      f.write(frame_of(par::FrameKind::message, "a") + frame_of(par::FrameKind::message, "b") +
              header_of(par::FrameKind::message, 0, 2 * mib));
      f.other.reset();
    }
    BOOST_TEST(f.until([&] {
      if (which == 3) f.read();
      return called > 0;
    }));
    testing::turn(f.loop, 5);
    BOOST_TEST(called == 1);
  }
}

BOOST_AUTO_TEST_CASE(every_callback_may_abandon_the_pipe) {
  for (const int which : {0, 1, 2}) {
    RawFixture f(PipeCore::ExitReport::comes);
    int called = 0;
    const auto act = [&, big = std::string(100, 'b')] {
      f.end->core->detach();
      f.end->core.reset();
      f.end->pipe = Pipe();
      called += big.size() == 100 ? 1 : 100;  // the callback is still intact
    };
    auto core = f.end->core;
    if (which == 0) f.end->pipe.on_message([act](std::string) { act(); });
    if (which == 1) f.end->pipe.on_error([act](const par::Error&) { act(); });
    if (which == 2) f.end->pipe.on_end(act);
    f.write(frame_of(par::FrameKind::message, "a") + frame_of(par::FrameKind::message, "b"));
    core->conclude(death());
    BOOST_TEST(f.until([&] { return called > 0; }));
    testing::turn(f.loop, 5);
    BOOST_TEST(called == 1);
    f.end->core = std::move(core);
  }
}

BOOST_AUTO_TEST_CASE(exceptions_of_every_callback_are_thrown_out_of_run) {
  for (const int which : {1, 2, 3}) {
    RawFixture f(PipeCore::ExitReport::none, 10);
    if (which == 1)
      f.end->pipe.on_error([](const par::Error&) { throw std::runtime_error("error"); });
    if (which == 2) f.end->pipe.on_end([] { throw std::runtime_error("end"); });
    if (which == 3) f.end->pipe.on_drain([] { throw std::runtime_error("drain"); });
    if (which == 3) {
      while (f.end->pipe.send(std::string(1000, 'x'))) {}
    } else {
      f.write(frame_of(par::FrameKind::message, "a"));
      f.other.reset();
    }
    std::string thrown;
    try {
      f.until([&] {
        if (which == 3) f.read();
        return false;
      });
    } catch (const std::runtime_error& error) {
      thrown = error.what();
    }
    BOOST_TEST(thrown == (which == 1 ? "error" : which == 2 ? "end" : "drain"));
    if (which == 1) {  // the sequence continues
      BOOST_TEST(f.until([&] { return count(f.end->received, "END") == 1; }));
    }
  }
}

// Only the callback of the pipe itself holds the pipe.
BOOST_AUTO_TEST_CASE(a_pipe_that_holds_itself_is_destroyed_with_the_reactor) {
  auto token = std::make_shared<int>(0);
  par::OwnedFd one;
  par::OwnedFd other;
  BOOST_REQUIRE(par::make_pair(par::PairKind::stream, one, other) == 0);
  {
    par::Reactor loop;
    auto core = std::make_shared<PipeCore>(loop.loop(), par::Channel(std::move(one), limit), 1000,
                                           PipeCore::ExitReport::none, nullptr);
    const Pipe pipe(core, raw);
    pipe.on_message([pipe, token](std::string) {});
    pipe.on_end([pipe, token] {});
    pipe.on_error([pipe, token](const par::Error&) {});
    pipe.on_drain([pipe, token] {});
    core->start();
    loop.run_for(std::chrono::milliseconds(1));
  }
  BOOST_TEST(token.use_count() == 1);
  char byte;
  BOOST_TEST(::recv(other.get(), &byte, 1, MSG_DONTWAIT) == 0);
}

BOOST_AUTO_TEST_CASE(a_pipe_that_outlives_its_reactor_does_nothing) {
  par::OwnedFd one;
  par::OwnedFd other;
  BOOST_REQUIRE(par::make_pair(par::PairKind::stream, one, other) == 0);
  Pipe pipe;
  int received = 0;
  {
    par::Reactor loop;
    auto core = std::make_shared<PipeCore>(loop.loop(), par::Channel(std::move(one), limit), 1000,
                                           PipeCore::ExitReport::none, nullptr);
    pipe = Pipe(core, raw);
    core->start();
    pipe.on_message([&](std::string) { ++received; });
    const std::string bytes = frame_of(par::FrameKind::message, "x");
    BOOST_REQUIRE(::send(other.get(), bytes.data(), bytes.size(), 0) == 17);
  }
  BOOST_TEST(pipe.closed());
  BOOST_TEST(pipe.send("x"));
  pipe.pause();
  pipe.resume();
  pipe.on_message([&](std::string) { ++received; });
  pipe.on_end([&] { ++received; });
  pipe.on_error([&](const par::Error&) { ++received; });
  pipe.on_drain([&] { ++received; });
  BOOST_TEST(pipe.buffered() == 0u);
  pipe.close();
  BOOST_TEST(received == 0);
}

BOOST_AUTO_TEST_CASE(frames_of_other_kinds_go_to_the_observer) {
  struct Other final : par::PipeObserver {
    void on_frame(par::Frame& frame) override {
      frames.push_back(std::to_string(static_cast<int>(frame.kind)) + ":" +
                       std::to_string(frame.id) + ":" + std::string(frame.body));
      if (frame.id == 2) throw std::runtime_error("frame");
    }
    Strings frames;
  } owner;
  par::Reactor loop;
  par::OwnedFd one;
  par::OwnedFd other;
  BOOST_REQUIRE(par::make_pair(par::PairKind::stream, one, other) == 0);
  auto core = std::make_shared<PipeCore>(loop.loop(), par::Channel(std::move(one), limit), 1000,
                                         PipeCore::ExitReport::none, &owner);
  core->start();
  const std::string bytes =
      frame_of(par::FrameKind::call, "a", 1) + frame_of(par::FrameKind::value, "b", 2) +
      frame_of(par::FrameKind::error, "c", 3) + frame_of(par::FrameKind::task, "d", 4);
  BOOST_REQUIRE(::send(other.get(), bytes.data(), bytes.size(), 0) ==
                static_cast<ssize_t>(bytes.size()));
  int thrown = 0;
  for (int i = 0; i < 1000 && owner.frames.size() < 4; ++i) {
    try {
      const auto timer = loop.after(std::chrono::milliseconds(5), [] {});
      loop.run_for(std::chrono::milliseconds(2));
    } catch (const std::runtime_error&) {
      ++thrown;
    }
  }
  BOOST_TEST(said(owner.frames) == "2:1:a 3:2:b 4:3:c 1:4:d");
  BOOST_TEST(thrown == 1);
  core->abort();
}

// ---- pause and resume ----

BOOST_AUTO_TEST_CASE(resuming_in_the_same_callback_loses_nothing) {
  Fixture f;
  f.parent->pipe.on_message([&](std::string s) {
    f.parent->pipe.pause();
    f.parent->received.push_back(s);
    f.parent->pipe.resume();
  });
  for (int i = 0; i < 500; ++i) f.child->pipe.send(std::to_string(i));
  f.child->pipe.close();
  BOOST_TEST(f.until([&] { return f.parent->received.size() == 501; }));
  for (std::size_t i = 0; i < 500; ++i) BOOST_TEST(f.parent->received[i] == std::to_string(i));
  BOOST_TEST(f.parent->received.back() == "END");
}

BOOST_AUTO_TEST_CASE(a_pipe_may_be_paused_before_the_first_read) {
  Fixture f;
  f.parent->pipe.pause();
  f.parent->pipe.pause();
  f.child->pipe.send("a");
  testing::turn(f.loop, 5);
  f.parent->pipe.resume();
  f.parent->pipe.pause();  // the last call counts
  testing::turn(f.loop, 5);
  BOOST_TEST(f.parent->received.empty());
  f.parent->pipe.resume();
  f.parent->pipe.resume();
  BOOST_TEST(f.until([&] { return f.parent->received.size() == 1; }));
}

BOOST_AUTO_TEST_CASE(the_callback_may_be_set_and_removed) {
  Fixture f;
  int received = 0;
  f.parent->pipe.on_message([&](std::string s) {
    f.parent->received.push_back(s);
    if (++received % 3 == 0) f.parent->pipe.on_message(nullptr);
  });
  for (int i = 0; i < 10; ++i) f.child->pipe.send(std::to_string(i));
  f.child->pipe.close();
  BOOST_TEST(f.until([&] { return received == 3; }));
  testing::turn(f.loop, 5);
  BOOST_TEST(received == 3);
  f.parent->listen();
  BOOST_TEST(f.until([&] { return count(f.parent->received, "END") == 1; }));
  BOOST_TEST(said(f.parent->received) == "0 1 2 3 4 5 6 7 8 9 END");
}

// Random actions: all sent messages are received in order, once.
BOOST_AUTO_TEST_CASE(random_traffic_arrives_in_order) {
  for (unsigned seed = 1; seed <= 25; ++seed) {
    std::mt19937 random(testing::seed(seed));
    Fixture f(5000);
    const par::Hold hold = f.loop.hold();
    Strings sent[2];
    End* const ends[2] = {f.parent.get(), f.child.get()};
    for (int step = 0; step < 200; ++step) {
      const unsigned side = random() % 2;
      End& end = *ends[side];
      switch (random() % 8) {
        case 0: end.pipe.pause(); break;
        case 1: end.pipe.resume(); break;
        case 2: f.loop.run_for(std::chrono::microseconds(200)); break;
        default: {
          const std::size_t size = random() % 10 == 0 ? random() % 200000 : random() % 50;
          std::string text(size, static_cast<char>('a' + random() % 26));
          text += std::to_string(step);
          sent[1 - side].push_back(text);
          if (random() % 2)
            end.pipe.send(text);
          else
            end.pipe.send(std::move(text));
        }
      }
    }
    for (End* end : ends) {
      end->pipe.close();
      end->pipe.resume();
    }
    for (Strings& list : sent) list.push_back("END");
    BOOST_TEST(f.until([&] {
      return ends[0]->received.size() >= sent[0].size() &&
             ends[1]->received.size() >= sent[1].size();
    }));
    BOOST_TEST((ends[0]->received == sent[0]));
    BOOST_TEST((ends[1]->received == sent[1]));
  }
}

BOOST_AUTO_TEST_CASE(a_message_may_be_answered_by_another_message) {
  Fixture f;
  int rounds = 0;
  f.child->pipe.on_message([&](std::string s) { f.child->pipe.send(s + "."); });
  f.parent->pipe.on_message([&](std::string s) {
    if (++rounds < 2000)
      f.parent->pipe.send(std::to_string(s.size()));
    else
      f.parent->pipe.close();
  });
  f.parent->pipe.send("go");
  BOOST_TEST(f.until([&] { return count(f.child->received, "END") == 1; }));
  BOOST_TEST(rounds == 2000);
}

// ---- messages that are not taken ----

BOOST_AUTO_TEST_CASE(a_too_large_message_without_on_error_is_thrown_out_of_run) {
  RawFixture f(PipeCore::ExitReport::none);
  f.end->pipe.on_error(nullptr);
  f.write(frame_of(par::FrameKind::message, "a"));
  f.write(header_of(par::FrameKind::message, 0, limit + 1));
  std::size_t left = limit + 1;
  std::string thrown;
  const auto skip = [&] {
    const std::string piece(std::min<std::size_t>(left, 100000), 'z');
    const ssize_t put = ::send(f.other.get(), piece.data(), piece.size(), MSG_DONTWAIT);
    if (put > 0) left -= static_cast<std::size_t>(put);
    return left == 0;
  };
  BOOST_TEST(f.until(skip));
  try {
    f.until([] { return false; });
  } catch (const par::Error& error) {
    thrown = par::to_string(error.code());
  }
  BOOST_TEST(thrown == "too_large");
  f.write(frame_of(par::FrameKind::message, "b"));
  BOOST_TEST(f.until([&] { return f.end->received.size() == 2; }));
  BOOST_TEST(said(f.end->received) == "a b");
}

BOOST_AUTO_TEST_CASE(a_pipe_continues_after_a_bad_message_without_on_error) {
  RawFixture f(PipeCore::ExitReport::none);
  f.end->pipe.on_error(nullptr);
  const par::Pipe<int, int> numbers(
      f.end->core, par::detail::pipe_codecs<int, int, par::RawIo<int>, par::RawIo<int>>);
  int sum = 0;
  numbers.on_message([&](int x) { sum += x; });
  f.write(frame_of(par::FrameKind::message, std::string("\1\0\0\0", 4)) +
          frame_of(par::FrameKind::message, "bad") +
          frame_of(par::FrameKind::message, std::string("\2\0\0\0", 4)));
  BOOST_CHECK_EXCEPTION(f.until([] { return false; }), par::Error,
                        [](const par::Error& e) { return e.code() == par::Errc::bad_message; });
  BOOST_TEST(f.until([&] { return sum == 3; }));
}

BOOST_AUTO_TEST_CASE(a_value_that_cannot_be_encoded_is_not_sent) {
  struct Picky {
    static void put(par::Writer& out, const std::string& s) {
      out.write("half");
      if (s == "bad") throw std::runtime_error("picky");
      out.write(s);
    }
    static std::string get(par::Reader& in) { return std::string(in.rest()); }
  };
  RawFixture f(PipeCore::ExitReport::none);
  const Pipe pipe(f.end->core, par::detail::pipe_codecs<std::string, std::string, Picky, Picky>);
  BOOST_CHECK_EXCEPTION(pipe.send("bad"), par::Error,
                        [](const par::Error& e) { return e.code() == par::Errc::bad_message; });
  BOOST_TEST(pipe.buffered() == 0u);
  pipe.send("good");
  BOOST_TEST(f.read() == frame_of(par::FrameKind::message, "halfgood"));
}

// ---- abandoned pipes ----

BOOST_AUTO_TEST_CASE(an_abandoned_pipe_holds_run_until_it_is_written) {
  RawFixture f(PipeCore::ExitReport::comes);
  const std::string large(900000, 'x');
  for (int i = 0; i < 5; ++i) f.end->pipe.send(large);
  f.end->core->detach();
  BOOST_TEST(f.loop.run_for(std::chrono::milliseconds(1)));
  BOOST_TEST(f.end->pipe.closed());
  std::size_t got = 0;
  const par::Watch watch = f.loop.on_readable(f.other.get(), [&] { got += f.read().size(); });
  const std::size_t all = 5 * (16 + large.size()) + 16;
  BOOST_TEST(f.until([&] { return got == all; }));
  char byte;
  BOOST_TEST(f.until([&] { return ::recv(f.other.get(), &byte, 1, MSG_DONTWAIT) == 0; }));
}

// A peer that reads only after it has written must not wait for ever.
BOOST_AUTO_TEST_CASE(an_abandoned_pipe_continues_to_read) {
  RawFixture f(PipeCore::ExitReport::comes);
  for (int i = 0; i < 3; ++i) f.end->pipe.send(std::string(900000, 'x'));
  f.end->core->detach();
  const std::string frame = frame_of(par::FrameKind::message, std::string(60000, 'y'));
  std::size_t at = 0;
  int frames = 0;
  BOOST_TEST(f.until([&] {
    const ssize_t put =
        ::send(f.other.get(), frame.data() + at, frame.size() - at, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (put > 0) at += static_cast<std::size_t>(put);
    if (at == frame.size()) {
      at = 0;
      ++frames;
    }
    return frames >= 40;
  }));
  std::size_t got = 0;
  BOOST_TEST(f.until([&] {
    got += f.read().size();
    return got == 3 * 900016 + 16;
  }));
  BOOST_TEST(f.end->received.empty());
}

BOOST_AUTO_TEST_CASE(an_abandoned_pipe_ends_when_its_reader_dies) {
  RawFixture f(PipeCore::ExitReport::comes);
  const auto token = std::make_shared<int>(0);
  f.end->pipe.on_end([token] {});
  for (int i = 0; i < 5; ++i) f.end->pipe.send(std::string(900000, 'x'));
  f.end->core->detach();
  BOOST_TEST(token.use_count() == 1);
  BOOST_TEST(f.loop.run_for(std::chrono::milliseconds(1)));
  f.other.reset();
  f.loop.run();  // returns
  BOOST_TEST(f.end->core->buffered() == 0u);
}

BOOST_AUTO_TEST_CASE(an_abandoned_pipe_is_destroyed_with_its_reactor) {
  par::OwnedFd one;
  par::OwnedFd other;
  BOOST_REQUIRE(par::make_pair(par::PairKind::stream, one, other) == 0);
  std::weak_ptr<PipeCore> alive;
  {
    par::Reactor loop;
    auto core = std::make_shared<PipeCore>(loop.loop(), par::Channel(std::move(one), limit), 1000,
                                           PipeCore::ExitReport::comes, nullptr);
    alive = core;
    core->start();
    const Pipe pipe(core, raw);
    while (pipe.send(std::string(100000, 'x')) || pipe.buffered() == 0) {}
    core->detach();
  }
  BOOST_TEST(alive.expired());
}

// ---- the size of a write ----

// On a socket of packets each write can be counted.
BOOST_AUTO_TEST_CASE(a_thousand_calls_in_one_callback_need_few_writes) {
  RawFixture f(PipeCore::ExitReport::none, limit, par::PairKind::packets);
  f.loop.post([&] {
    for (int i = 0; i < 1000; ++i) {
      par::Writer message;
      message.write("0123456789");
      f.end->core->put(par::FrameKind::call, static_cast<std::uint64_t>(i), message,
                       PipeCore::FlushPolicy::with_the_turn);
    }
  });
  testing::turn(f.loop, 5);
  std::vector<char> bytes(1 << 20);
  int writes = 0;
  std::size_t size = 0;
  for (;;) {
    const ssize_t got = ::recv(f.other.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (got <= 0) break;
    ++writes;
    size += static_cast<std::size_t>(got);
  }
  BOOST_TEST(size == 1000u * 26);
  BOOST_TEST(writes <= 3);
}

BOOST_AUTO_TEST_CASE(a_frame_that_may_wait_is_sent_with_the_next_one_or_in_the_next_turn) {
  RawFixture f(PipeCore::ExitReport::none, limit, par::PairKind::packets);
  const auto put = [&](PipeCore::FlushPolicy leave) {
    par::Writer message;
    message.write("0123456789");
    f.end->core->put(par::FrameKind::call, 1, message, leave);
  };
  put(PipeCore::FlushPolicy::with_the_next);
  BOOST_TEST(f.read().size() == 0u);
  put(PipeCore::FlushPolicy::at_once);
  BOOST_TEST(f.read().size() == 52u);  // one packet
  put(PipeCore::FlushPolicy::with_the_next);
  BOOST_TEST(f.read().size() == 0u);
  testing::turn(f.loop, 1);
  BOOST_TEST(f.read().size() == 26u);
}

BOOST_AUTO_TEST_CASE(a_batch_of_calls_has_a_limit) {
  RawFixture f(PipeCore::ExitReport::none, 100 * limit);
  std::size_t inside = 0;
  f.loop.post([&] {
    for (int i = 0; i < 100; ++i) {
      par::Writer message;
      message.write(std::string(10000, 'x'));
      f.end->core->put(par::FrameKind::call, 1, message, PipeCore::FlushPolicy::with_the_turn);
    }
    inside = f.read().size();
  });
  std::size_t all = 0;
  BOOST_TEST(f.until([&] {
    all += f.read().size();
    return all + inside == 100u * 10016;
  }));
  BOOST_TEST(inside > 0u);
}

BOOST_AUTO_TEST_CASE(a_message_is_received_whole_however_it_is_written) {
  RawFixture f(PipeCore::ExitReport::none);
  std::string stream;
  Strings expected;
  for (const std::size_t size : {0u, 1u, 100u, 40000u, 3u}) {
    expected.push_back(std::string(size, static_cast<char>('a' + size % 26)));
    stream += frame_of(par::FrameKind::message, expected.back());
  }
  stream += frame_of(par::FrameKind::end, "");
  expected.push_back("END");
  const par::Hold hold = f.loop.hold();
  for (std::size_t at = 0; at < stream.size();) {
    const std::size_t size = at < 200 || at > stream.size() - 100 ? 1 : 777;
    f.write(stream.substr(at, size));
    at += size;
    f.loop.run_for(std::chrono::microseconds(100));
  }
  BOOST_TEST(f.until([&] { return f.end->received.size() == expected.size(); }));
  BOOST_TEST((f.end->received == expected));
}
