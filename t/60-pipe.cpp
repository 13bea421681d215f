// 60-pipe.cpp - both ends of a pipe in one process: what is told, in which order, and what is not.
#include "testing.hpp"

#include "pipe_core.hpp"

#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <stdexcept>

namespace par = evparallel;
using par::detail::PipeCore;
using Strings = std::vector<std::string>;

namespace {

constexpr std::size_t limit = 1 << 20;

struct Owner final : par::PipeOwner {
  void on_broken() override { ++broken; }
  void on_over() override { ++over; }
  int broken = 0;
  int over = 0;
};

using Codecs = par::detail::PipeCodecs<std::string, std::string>;
const Codecs& raw = par::detail::pipe_codecs<std::string, std::string, par::RawIo<std::string>,
                                             par::RawIo<std::string>>;
using Pipe = par::Pipe<std::string, std::string>;

// One end, and what it has heard.
struct End {
  End(par::Reactor& loop, par::Descriptor socket, PipeCore::LastWord last_word, std::size_t mark)
      : core(std::make_shared<PipeCore>(loop.loop(), par::Channel(std::move(socket), limit), mark,
                                        last_word, &owner)),
        pipe(core, raw) {
    core->start();
  }
  ~End() { core->shut(); }

  void listen() {
    pipe.on_message([this](std::string s) { heard.push_back(s); });
    pipe.on_end([this] { heard.push_back("END"); });
    pipe.on_error([this](const par::Error& e) {
      heard.push_back(std::string("ERROR ") + par::to_string(e.code()));
    });
  }

  Owner owner;
  std::shared_ptr<PipeCore> core;
  Pipe pipe;
  Strings heard;
};

// The parent's end hears a last word, the child's none.  A hold keeps the loop running as an open Process does.
struct Fixture {
  explicit Fixture(std::size_t mark = 100000) {
    par::Descriptor one;
    par::Descriptor other;
    BOOST_REQUIRE(par::make_pair(par::PairKind::stream, one, other) == 0);
    parent = std::make_unique<End>(loop, std::move(one), PipeCore::LastWord::comes, mark);
    child = std::make_unique<End>(loop, std::move(other), PipeCore::LastWord::none, mark);
    parent->listen();
    child->listen();
  }
  // Until the condition holds.
  template <class F>
  bool until(F condition) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!condition() && std::chrono::steady_clock::now() < end) {
      const auto timer = loop.after(std::chrono::milliseconds(5), [] {});
      loop.run_for(std::chrono::milliseconds(1));
    }
    return condition();
  }

  par::Reactor loop;
  std::unique_ptr<End> parent;
  std::unique_ptr<End> child;
};

par::Error death() {
  return par::Error(par::Errc::child_killed, "dead");
}

}  // namespace

BOOST_AUTO_TEST_CASE(messages_arrive_in_order_both_ways) {
  Fixture f;
  for (int i = 0; i < 100; ++i) {
    f.parent->pipe.send("p" + std::to_string(i));
    f.child->pipe.send("c" + std::to_string(i));
  }
  BOOST_TEST(
      f.until([&] { return f.parent->heard.size() == 100 && f.child->heard.size() == 100; }));
  for (int i = 0; i < 100; ++i) {
    BOOST_TEST(f.parent->heard[static_cast<std::size_t>(i)] == "c" + std::to_string(i));
    BOOST_TEST(f.child->heard[static_cast<std::size_t>(i)] == "p" + std::to_string(i));
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
    BOOST_TEST(f.until([&] { return second.heard.size() == 2; }));
    BOOST_TEST((second.heard == Strings{"a", "END"}));
    second.pipe.send("b");
    second.pipe.close();
    BOOST_TEST(f.until([&] { return first.heard.size() == 2; }));
    BOOST_TEST((first.heard == Strings{"b", "END"}));
    BOOST_TEST(f.until([&] { return f.child->owner.over == 1; }));  // both directions: no last word
    BOOST_TEST(f.parent->owner.over == 0);
    f.parent->core->conclude(death());
    BOOST_TEST(f.parent->owner.over == 1);
    BOOST_TEST((f.parent->heard.back() == "END"));  // a clean end is no error, whatever follows
  }
}

BOOST_AUTO_TEST_CASE(a_broken_end_waits_for_the_last_word_where_one_comes) {
  Fixture f;
  f.child->pipe.send("last");
  f.child->core->shut();
  BOOST_TEST(f.until([&] { return f.parent->owner.broken == 1; }));
  BOOST_TEST((f.parent->heard == Strings{"last"}));
  BOOST_TEST(!f.parent->core->usable());
  f.parent->core->conclude(death());
  BOOST_TEST((f.parent->heard == Strings{"last", "ERROR child_killed", "END"}));
  BOOST_TEST(f.parent->owner.over == 1);
}

BOOST_AUTO_TEST_CASE(a_broken_end_is_told_at_once_where_no_last_word_comes) {
  Fixture f;
  f.parent->pipe.send("last");
  f.parent->core->shut();
  BOOST_TEST(f.until([&] { return f.child->heard.size() == 3; }));
  BOOST_TEST((f.child->heard == Strings{"last", "ERROR closed", "END"}));
}

BOOST_AUTO_TEST_CASE(the_last_word_is_enough_where_the_end_of_file_never_comes) {
  Fixture f;
  f.child->pipe.send("a");
  f.child->pipe.send("b");
  f.parent->core->conclude(death());  // before anything was read; the other end stays open
  BOOST_TEST((f.parent->heard == Strings{"a", "b", "ERROR child_killed", "END"}));
  BOOST_TEST(f.parent->owner.over == 1);
}

BOOST_AUTO_TEST_CASE(pause_keeps_messages_and_ends_back) {
  Fixture f;
  f.parent->pipe.pause();
  f.child->pipe.send("a");
  f.child->pipe.close();
  f.parent->core->conclude(death());
  f.loop.run_for(std::chrono::milliseconds(10));
  BOOST_TEST(f.parent->heard.empty());
  f.parent->pipe.resume();
  BOOST_TEST(f.parent->heard.empty());  // never from inside the call
  BOOST_TEST(f.until([&] { return f.parent->owner.over == 1; }));
  BOOST_TEST((f.parent->heard == Strings{"a", "END"}));
}

BOOST_AUTO_TEST_CASE(pausing_inside_a_callback_stops_before_the_next_message) {
  Fixture f;
  f.parent->pipe.on_message([&](std::string s) {
    f.parent->heard.push_back(s);
    f.parent->pipe.pause();
  });
  for (const char* s : {"a", "b", "c"}) f.child->pipe.send(s);
  for (std::size_t n = 1; n <= 3; ++n) {
    BOOST_TEST(f.until([&] { return f.parent->heard.size() >= n; }));
    f.loop.run_for(std::chrono::milliseconds(5));
    BOOST_TEST(f.parent->heard.size() == n);
    f.parent->pipe.resume();
  }
  BOOST_TEST((f.parent->heard == Strings{"a", "b", "c"}));
}

BOOST_AUTO_TEST_CASE(the_high_water_mark_and_the_drain) {
  Fixture f(50000);
  f.child->pipe.pause();
  int drains = 0;
  f.parent->pipe.on_drain([&] { ++drains; });
  int accepted = 0;
  while (f.parent->pipe.send(std::string(10000, 'x')) && accepted < 1000) ++accepted;
  BOOST_TEST(accepted < 1000);
  BOOST_TEST(f.parent->pipe.buffered() > 50000u);
  BOOST_TEST(!f.parent->pipe.send("also taken"));
  f.loop.run_for(std::chrono::milliseconds(5));
  BOOST_TEST(drains == 0);
  f.child->pipe.resume();
  BOOST_TEST(
      f.until([&] { return f.child->heard.size() == static_cast<std::size_t>(accepted) + 2; }));
  BOOST_TEST(drains == 1);
  BOOST_TEST(f.parent->pipe.buffered() == 0u);
  BOOST_TEST(f.child->heard.back() == "also taken");
}

BOOST_AUTO_TEST_CASE(send_after_ones_own_close_is_misuse) {
  Fixture f;
  f.parent->pipe.close();
  BOOST_CHECK_THROW(f.parent->pipe.send("x"), std::logic_error);
  f.parent->pipe.close();
  BOOST_TEST(f.until([&] { return f.child->heard.size() == 1; }));
}

BOOST_AUTO_TEST_CASE(send_after_the_others_end_is_dropped_and_told_once) {
  Fixture f;
  f.parent->core->shut();
  BOOST_TEST(f.until([&] { return f.child->heard.size() == 2; }));
  BOOST_TEST((f.child->heard == Strings{"ERROR closed", "END"}));
  for (int i = 0; i < 3; ++i) {
    // The rule that an end without on_end closes this side does not hold here: there is one.
    BOOST_TEST(f.child->pipe.send("x"));
    f.loop.run_for(std::chrono::milliseconds(2));
  }
  BOOST_TEST((f.child->heard == Strings{"ERROR closed", "END"}));
  BOOST_TEST(f.child->pipe.closed());
}

BOOST_AUTO_TEST_CASE(in_a_child_without_on_end_the_parents_end_closes_the_child) {
  Fixture f;
  f.child->pipe.on_end(nullptr);
  f.parent->pipe.send("a");
  f.parent->pipe.close();
  BOOST_TEST(f.until([&] { return f.child->owner.over == 1; }));
  BOOST_TEST((f.child->heard == Strings{"a"}));
  BOOST_TEST(f.until([&] { return f.parent->heard == Strings{"END"}; }));
}

BOOST_AUTO_TEST_CASE(the_first_message_waits_until_somebody_listens) {
  Fixture f;
  f.parent->pipe.on_message(nullptr);
  f.child->pipe.send("a");
  f.child->pipe.send("b");
  f.child->pipe.close();
  f.loop.run_for(std::chrono::milliseconds(10));
  BOOST_TEST(f.parent->heard.empty());
  f.parent->listen();
  BOOST_TEST(f.parent->heard.empty());
  BOOST_TEST(f.until([&] { return f.parent->heard.size() == 3; }));
  BOOST_TEST((f.parent->heard == Strings{"a", "b", "END"}));
}

BOOST_AUTO_TEST_CASE(what_nobody_ever_listens_to_does_not_hold_the_end_back) {
  Fixture f;
  f.parent->pipe.on_message(nullptr);
  f.child->pipe.send("a");
  f.child->pipe.send("b");
  f.parent->core->conclude(death());
  BOOST_TEST((f.parent->heard == Strings{"ERROR child_killed", "END"}));
}

BOOST_AUTO_TEST_CASE(one_bad_message_is_told_and_the_next_one_comes) {
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
  BOOST_TEST((f.parent->heard == Strings{"ERROR bad_message", "ERROR bad_message"}));
}

BOOST_AUTO_TEST_CASE(a_bad_message_without_on_error_leaves_run) {
  Fixture f;
  f.parent->pipe.on_error(nullptr);
  par::Pipe<int, int>(f.parent->core,
                      par::detail::pipe_codecs<int, int, par::RawIo<int>, par::RawIo<int>>)
      .on_message([](int) {});
  f.child->pipe.send("abc");
  BOOST_CHECK_THROW(f.until([] { return false; }), par::Error);
}

BOOST_AUTO_TEST_CASE(too_large_is_refused_by_the_writer_and_skipped_by_the_reader) {
  Fixture f;
  BOOST_CHECK_EXCEPTION(f.parent->pipe.send(std::string(limit + 1, 'x')), par::Error,
                        [](const par::Error& e) { return e.code() == par::Errc::too_large; });
  f.parent->pipe.send(std::string(limit, 'x'));
  BOOST_TEST(f.until([&] { return f.child->heard.size() == 1; }));
  BOOST_TEST(f.child->heard[0].size() == limit);

  par::Descriptor one;
  par::Descriptor other;
  BOOST_REQUIRE(par::make_pair(par::PairKind::stream, one, other) == 0);
  End reader(f.loop, std::move(one), PipeCore::LastWord::none, 1000);
  reader.listen();
  par::Channel generous(std::move(other), 10 * limit);
  for (const std::size_t size : {std::size_t{3}, limit + 1, std::size_t{4}}) {
    par::Writer message;
    message.write(std::string(size, 'y'));
    generous.put(par::FrameKind::message, 0, message);
  }
  BOOST_TEST(f.until([&] {
    generous.flush(par::Wait::no);
    return reader.heard.size() == 3;
  }));
  BOOST_TEST((reader.heard == Strings{"yyy", "ERROR too_large", "yyyy"}));
}

BOOST_AUTO_TEST_CASE(a_stream_without_sense_ends_the_pipe) {
  Fixture f;
  par::Descriptor one;
  par::Descriptor other;
  BOOST_REQUIRE(par::make_pair(par::PairKind::stream, one, other) == 0);
  End reader(f.loop, std::move(one), PipeCore::LastWord::none, 1000);
  reader.listen();
  const std::string rubbish(64, '\xee');
  BOOST_REQUIRE(::send(other.get(), rubbish.data(), rubbish.size(), 0) == 64);
  BOOST_TEST(f.until([&] { return reader.heard.size() == 2; }));
  BOOST_TEST((reader.heard == Strings{"ERROR bad_message", "END"}));
}

BOOST_AUTO_TEST_CASE(callbacks_may_replace_themselves_and_shut_the_pipe) {
  Fixture f;
  f.parent->pipe.on_message([&](std::string s) {
    f.parent->heard.push_back("first " + s);
    f.parent->pipe.on_message([&](std::string t) {
      f.parent->heard.push_back("second " + t);
      f.parent->core->shut();
    });
  });
  for (const char* s : {"a", "b", "c"}) f.child->pipe.send(s);
  BOOST_TEST(f.until([&] { return f.parent->heard.size() == 2; }));
  f.loop.run_for(std::chrono::milliseconds(5));
  BOOST_TEST((f.parent->heard == Strings{"first a", "second b"}));
}

BOOST_AUTO_TEST_CASE(an_exception_in_a_callback_loses_no_message) {
  Fixture f;
  f.parent->pipe.on_message([&](std::string s) {
    f.parent->heard.push_back(s);
    if (s == "b") throw std::runtime_error("mine");
  });
  for (const char* s : {"a", "b", "c", "d"}) f.child->pipe.send(s);
  BOOST_CHECK_THROW(f.until([&] { return f.parent->heard.size() == 4; }), std::runtime_error);
  BOOST_TEST((f.parent->heard == Strings{"a", "b"}));
  BOOST_TEST(f.until([&] { return f.parent->heard.size() == 4; }));
  BOOST_TEST((f.parent->heard == Strings{"a", "b", "c", "d"}));
}

BOOST_AUTO_TEST_CASE(an_abandoned_pipe_writes_what_was_sent) {
  Fixture f;
  for (int i = 0; i < 20; ++i) f.parent->pipe.send(std::string(100000, 'x'));
  BOOST_TEST(f.parent->pipe.buffered() > 0u);
  f.parent->core->abandon();
  BOOST_TEST(f.until([&] { return f.child->heard.size() == 21; }));
  BOOST_TEST(f.child->heard.back() == "END");
  BOOST_TEST(f.child->heard.front().size() == 100000u);
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

BOOST_AUTO_TEST_CASE(what_is_sent_leaves_at_once_and_calls_of_one_callback_leave_together) {
  Fixture f;
  // Looked at in the socket.
  par::Descriptor one;
  par::Descriptor other;
  BOOST_REQUIRE(par::make_pair(par::PairKind::stream, one, other) == 0);
  End writer(f.loop, std::move(one), PipeCore::LastWord::none, limit);
  const auto waiting = [&] {
    char bytes[8192];
    return ::recv(other.get(), bytes, sizeof bytes, MSG_PEEK | MSG_DONTWAIT);
  };
  ssize_t sent = 0;
  ssize_t called = 0;
  const auto call = [&] {
    par::Writer message;
    message.write("0123456789");
    writer.core->put(par::FrameKind::call, 1, message, PipeCore::Leave::with_the_turn);
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
  f.loop.run_for(std::chrono::milliseconds(5));
  BOOST_TEST(sent == 26);
  BOOST_TEST(called == 26);  // nothing more yet
  BOOST_TEST(waiting() == 101 * 26);
  // Outside the loop nothing waits.
  call();
  BOOST_TEST(waiting() == 102 * 26);
}

BOOST_AUTO_TEST_CASE(eight_megabytes_moved_in) {
  par::Reactor loop;
  par::Descriptor one;
  par::Descriptor other;
  BOOST_REQUIRE(par::make_pair(par::PairKind::stream, one, other) == 0);
  auto writer = std::make_shared<PipeCore>(loop.loop(), par::Channel(std::move(one), 1 << 24), 1000,
                                           PipeCore::LastWord::none, nullptr);
  auto reader = std::make_shared<PipeCore>(loop.loop(), par::Channel(std::move(other), 1 << 24),
                                           1000, PipeCore::LastWord::none, nullptr);
  std::string got;
  Pipe(reader, raw).on_message([&](std::string s) { got = std::move(s); });
  writer->start();
  reader->start();
  std::string text(8 << 20, 'x');
  text[12345] = 'y';
  Pipe(writer, raw).send(std::string(text));
  while (got.empty()) {
    const auto timer = loop.after(std::chrono::milliseconds(5), [] {});
    loop.run_for(std::chrono::milliseconds(1));
  }
  BOOST_TEST((got == text));
  writer->shut();
  reader->shut();
}
