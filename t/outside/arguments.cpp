// arguments.cpp - calls with any number of arguments, and what a single call needs in front of them.
#include "calling.hpp"
#include "errors.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

namespace par = evparallel;
using testing::has;
using testing::misuse_of;
using namespace std::chrono_literals;

namespace {

// Memory that the children of a case share with it.
struct Shared {
  std::atomic<int> begun{0};
  std::atomic<bool> open{false};
};
Shared* shared = nullptr;

struct Point {
  int x = 0;
  int y = 0;
};
EVPARALLEL_FIELDS(Point, x, y)

// No default constructor, and cannot be copied.
class Name {
public:
  explicit Name(std::string text) : text_(std::move(text)) {}
  Name(Name&&) noexcept = default;
  Name& operator=(Name&&) noexcept = default;
  const std::string& text() const noexcept { return text_; }

private:
  std::string text_;
};

}  // namespace

namespace evparallel {
template <>
struct Io<Name> {
  static void put(Writer& out, const Name& name) { RawIo<std::string>::put(out, name.text()); }
  static Name get(Reader& in) { return Name(RawIo<std::string>::get(in)); }
};
}  // namespace evparallel

void testing_main_init() {
  shared = &testing::shared<Shared>();
  testing::take_default_snapshot();
}

namespace {

std::string join(int a, double b, const std::string& c) {
  return std::to_string(a) + " " + std::to_string(static_cast<int>(b)) + " " + c;
}

// The address of the bytes of a string, as a number that can be sent.
std::uintptr_t address_of(const std::string& text) {
  return reinterpret_cast<std::uintptr_t>(text.data());
}

}  // namespace

// ---- any number of arguments ----

BOOST_AUTO_TEST_CASE(a_remote_function_takes_several_arguments) {
  par::Reactor loop;
  par::Remote<std::string(int, double, std::string)> f = par::run(loop, &join);
  std::vector<std::string> answers;
  const auto keep = [&](par::Result<std::string> r) { answers.push_back(r.value()); };
  f(1, 2.0, "x", keep);
  const std::string stays = "stays";
  const int one = 1;
  f(one, 3, stays, keep);
  f({}, {}, {}, keep);
  std::string moved(100, 'm');
  f(2, 4.0, std::move(moved), keep);
  loop.run();
  BOOST_TEST(answers == (std::vector<std::string>{"1 2 x", "1 3 stays", "0 0 ",
                                                  "2 4 " + std::string(100, 'm')}),
             boost::test_tools::per_element());
  BOOST_TEST(f.wait(5, 6.0, "y").value() == "5 6 y");
  BOOST_TEST(f.wait({}, 6.0, {}).value() == "0 6 ");
}

BOOST_AUTO_TEST_CASE(a_pool_takes_several_arguments) {
  par::Reactor loop;
  par::Pool<std::string(int, double, std::string)> pool = par::pool(loop, &join);
  std::vector<std::string> answers(3);
  for (int i = 0; i < 3; ++i)
    pool.submit(i, 2.0, "x", [&answers, i](par::Result<std::string> r) {
      answers[static_cast<std::size_t>(i)] = r.value();
    });
  loop.run();
  BOOST_TEST(answers == (std::vector<std::string>{"0 2 x", "1 2 x", "2 2 x"}),
             boost::test_tools::per_element());
  BOOST_TEST(pool.wait({}, 6.0, {}).value() == "0 6 ");
}

BOOST_AUTO_TEST_CASE(a_reply_follows_several_arguments) {
  par::Reactor loop;
  auto f = par::run(loop, [](int a, const std::string& b, const par::Reply<std::string>& reply) {
    reply(b + std::to_string(a));
  });
  BOOST_TEST(f.wait(7, "seven").value() == "seven7");
}

BOOST_AUTO_TEST_CASE(functions_without_arguments_take_options_too) {
  par::Reactor loop;
  par::Remote<void()> nothing = par::run(loop, [] {});
  auto pool = par::pool(loop, [] { return 4; });
  int done = 0;
  nothing([&](par::Result<void> r) { done += r ? 1 : 0; });
  nothing(par::CallOptions{}, [&](par::Result<void> r) { done += r ? 1 : 0; });
  pool.submit(par::CallOptions{}, [&](par::Result<int> r) { done += r.value(); });
  loop.run();
  BOOST_TEST(done == 6);
  BOOST_TEST(nothing.wait(par::CallOptions{}).has_value());
  BOOST_TEST(pool.wait(par::CallOptions{}).value() == 4);
}

BOOST_AUTO_TEST_CASE(callables_and_options_may_be_arguments) {
  // A type that converts to anything callable does not take the place of the callback.
  struct Callable {
    int number = 0;
    int operator()(par::Result<int>) const { return number; }
  };
  struct CallableIo {
    static void put(par::Writer& out, const Callable& c) { out.write(&c.number, sizeof c.number); }
    static Callable get(par::Reader& in) {
      Callable c;
      in.read(&c.number, sizeof c.number);
      return c;
    }
  };
  par::Reactor loop;
  auto f = par::run<par::RawIo, CallableIo>(
      loop, [](const Callable& a, const Callable& b) { return a.number - b.number; });
  BOOST_TEST(f.wait(Callable{7}, Callable{5}).value() == 2);
  int answer = 0;
  f(Callable{1}, {}, [&](par::Result<int> r) { answer = r.value(); });
  loop.run();
  BOOST_TEST(answer == 1);
}

BOOST_AUTO_TEST_CASE(each_argument_has_a_codec_of_its_own) {
  par::Reactor loop;
  auto json = par::run(loop, [](const std::map<std::string, int>& a, const Name& b, Point c,
                                const std::vector<std::string>& d) {
    return std::to_string(a.at("one")) + b.text() + std::to_string(c.x * 10 + c.y) + d.at(1);
  });
  BOOST_TEST(json.wait({{"one", 1}}, Name("n"), {2, 3}, {"a", "b"}).value() == "1n23b");
  auto packed = par::run<par::PackedIo, par::PackedIo>(
      loop, [](std::vector<Point> a, std::string b, std::pair<int, int> c) {
        return a.at(0).y + c.second + static_cast<int>(b.size());
      });
  BOOST_TEST(packed.wait({{1, 2}}, std::string("\0\xff", 2), {1, 100}).value() == 104);
}

BOOST_AUTO_TEST_CASE(bytes_of_any_kind_and_length_are_arguments) {
  par::Reactor loop;
  auto f = par::run<par::RawIo, par::RawIo>(
      loop, [](const std::string& a, const std::string& b, const std::string& c) {
        return std::to_string(a.size()) + "," + std::to_string(b.size()) + "," +
               std::to_string(c.size()) + "," +
               std::string({a.empty() ? '-' : a.back(), b.empty() ? '-' : b.back(),
                            c.empty() ? '-' : c.back()});
      });
  const std::vector<std::size_t> sizes{0, 1, 40, 70000, 300000};
  for (const std::size_t a : sizes)
    for (const std::size_t b : sizes)
      for (const std::size_t c : sizes) {
        const std::string wanted = std::to_string(a) + "," + std::to_string(b) + "," +
                                   std::to_string(c) + "," +
                                   std::string({a ? 'a' : '-', b ? 'b' : '-', c ? 'c' : '-'});
        BOOST_TEST(f.wait(std::string(a, 'a'), std::string(b, 'b'), std::string(c, 'c')).value() ==
                   wanted);
        const std::string x(a, 'a'), y(b, 'b'), z(c, 'c');
        BOOST_TEST(f.wait(x, y, z).value() == wanted);
      }
}

BOOST_AUTO_TEST_CASE(descriptors_in_several_arguments_arrive_at_their_places) {
  par::Reactor loop;
  auto f = par::run(loop, [](const par::Fd& a, const std::string& text,
                             const std::vector<par::Fd>& b, const par::Fd& c) {
    std::string all;
    for (const par::Fd* fd : {&a, &b.at(0), &b.at(1), &c}) {
      char byte = '?';
      if (::pread(fd->get(), &byte, 1, 0) == 1) all += byte;
    }
    return all + text;
  });
  const auto file_with = [](char byte) {
    par::Fd fd(::memfd_create("argument", MFD_CLOEXEC));
    BOOST_REQUIRE(::pwrite(fd.get(), &byte, 1, 0) == 1);
    return fd;
  };
  std::vector<par::Fd> two;
  two.push_back(file_with('b'));
  two.push_back(file_with('c'));
  BOOST_TEST(f.wait(file_with('a'), "!", std::move(two), file_with('d')).value() == "abcd!");
}

BOOST_AUTO_TEST_CASE(what_a_codec_refuses_names_its_error_and_leaves_the_others) {
  par::Reactor loop;
  auto f = par::run(loop, [](int a, const std::string& b, double c) {
    return std::to_string(a) + b + std::to_string(static_cast<int>(c));
  });
  const par::Result<std::string> refused = f.wait(1, "\xff", 2.0);
  BOOST_REQUIRE(!refused);
  BOOST_TEST((refused.error().code() == par::Errc::bad_message));
  BOOST_TEST(has(refused.error().what(), "RawIo"), refused.error().what());
  BOOST_TEST(f.wait(1, "x", 2.0).value() == "1x2");
}

BOOST_AUTO_TEST_CASE(all_arguments_together_have_the_limit_of_a_message) {
  par::Reactor loop;
  par::Options options;
  options.max_message = 1000;
  auto f = par::run<par::RawIo, par::RawIo>(
      loop,
      [](const std::string& a, const std::string& b) {
        return static_cast<int>(a.size() + b.size());
      },
      options);
  BOOST_TEST(f.wait(std::string(400, 'a'), std::string(400, 'b')).value() == 800);
  const par::Result<int> refused = f.wait(std::string(600, 'a'), std::string(600, 'b'));
  BOOST_REQUIRE(!refused);
  BOOST_TEST((refused.error().code() == par::Errc::too_large));
  BOOST_TEST(f.wait("a", "b").value() == 2);
}

BOOST_AUTO_TEST_CASE(the_longest_argument_is_received_in_the_memory_of_the_message) {
  par::Reactor loop;
  auto f =
      par::run<par::RawIo, par::RawIo>(loop, [](std::string large, int number, std::string small) {
        // A string that was moved out of a message has a capacity above its size: the other arguments
        // were in it.
        return std::array<std::size_t, 3>{
            {large.capacity() - large.size(), small.size(), static_cast<std::size_t>(number)}};
      });
  const auto seen =
      f.wait(std::string(std::size_t{8} << 20, 'x'), 5, std::string(1000, 'y')).value();
  BOOST_TEST(seen[0] >= 1000U);
  BOOST_TEST(seen[1] == 1000U);
  BOOST_TEST(seen[2] == 5U);
}

BOOST_AUTO_TEST_CASE(a_value_that_is_moved_in_leaves_its_variable) {
  par::Reactor loop;
  auto f = par::run<par::RawIo, par::RawIo>(
      loop, [](int, std::string text) { return static_cast<int>(text.size()); });
  std::string text(std::size_t{1} << 20, 'x');
  const std::uintptr_t before = address_of(text);
  int number = 3;
  const par::Result<int> kept = f.wait(number, text);
  BOOST_TEST(kept.value() == 1 << 20);
  BOOST_TEST(address_of(text) == before);
  BOOST_TEST(text.size() == std::size_t{1} << 20);
  const par::Result<int> moved = f.wait(number, std::move(text));
  BOOST_TEST(moved.value() == 1 << 20);
  BOOST_TEST(text.empty());  // NOLINT: a moved-from string is the subject
}

BOOST_AUTO_TEST_CASE(calls_of_a_child_that_died_are_made_again_with_all_arguments) {
  par::Reactor loop;
  par::Options options;
  options.retries = 1;
  options.idempotent = true;
  shared->begun = 0;
  auto f = par::run(
      loop,
      [](int a, const std::string& b) {
        if (++shared->begun == 1) ::raise(SIGKILL);
        return b + std::to_string(a);
      },
      options);
  BOOST_TEST(f.wait(1, "x").value() == "x1");
  BOOST_TEST(shared->begun == 2);
}

// ---- maps ----

BOOST_AUTO_TEST_CASE(an_item_of_a_map_is_the_tuple_of_the_arguments) {
  par::Reactor loop;
  auto pool = par::pool(loop, [](int a, const std::string& b) { return b + std::to_string(a); });
  const std::vector<std::pair<int, std::string>> pairs{{1, "a"}, {2, "b"}};
  const auto of_pairs = par::values(pool.wait_map(pairs));
  BOOST_TEST(of_pairs == (std::vector<std::string>{"a1", "b2"}), boost::test_tools::per_element());
  std::vector<std::tuple<int, std::string>> tuples;
  for (int i = 0; i < 1000; ++i)
    tuples.emplace_back(i, std::string(static_cast<std::size_t>(i), 'x'));
  const auto of_tuples = par::values(pool.wait_map(std::move(tuples)));
  BOOST_REQUIRE(of_tuples.size() == 1000U);
  for (std::size_t i = 0; i < of_tuples.size(); ++i)
    BOOST_REQUIRE(of_tuples[i] == std::string(i, 'x') + std::to_string(i));
}

BOOST_AUTO_TEST_CASE(an_item_of_a_stream_is_the_tuple_of_the_arguments) {
  par::Reactor loop;
  auto pool = par::pool(loop, [](int a, const std::string& b) { return b + std::to_string(a); });
  std::vector<std::string> received;
  par::Stream<int, std::string> stream =
      pool.stream([&](std::size_t, par::Result<std::string> r) { received.push_back(r.value()); });
  stream.push({1, "a"});
  stream.push(std::make_pair(2, "b"));
  const std::tuple<int, std::string> kept(3, "c");
  stream.push(kept);
  stream.close();
  loop.run();
  BOOST_TEST(received == (std::vector<std::string>{"a1", "b2", "c3"}),
             boost::test_tools::per_element());
}

// ---- what a single call needs ----

BOOST_AUTO_TEST_CASE(a_deadline_of_one_call_does_not_affect_the_next) {
  par::Reactor loop;
  shared->open = false;
  const auto wait_for_cancel = [](int wait, const std::string& text) {
    while (wait && !par::this_call::cancelled()) ::usleep(100);
    return text;
  };
  auto f = par::run(loop, wait_for_cancel);
  auto pool = par::pool(loop, wait_for_cancel);
  par::CallOptions soon;
  soon.deadline = 20ms;
  const auto by_run = f.wait(soon, 1, "x");
  const auto by_pool = pool.wait(soon, 1, "x");
  BOOST_REQUIRE(!by_run);
  BOOST_REQUIRE(!by_pool);
  BOOST_TEST((by_run.error().code() == par::Errc::deadline));
  BOOST_TEST((by_pool.error().code() == par::Errc::deadline));
  BOOST_TEST(f.wait(0, "y").value() == "y");
  BOOST_TEST(pool.wait(0, "y").value() == "y");
}

BOOST_AUTO_TEST_CASE(a_call_without_a_deadline_of_its_own_has_that_of_the_function) {
  par::Reactor loop;
  par::Options options;
  options.deadline = 50ms;
  const auto wait_for_cancel = [](bool wait) {
    for (int i = 0; i < (wait ? 1000000 : 300); ++i) {
      if (wait && par::this_call::cancelled()) return 1;
      ::usleep(1000);
    }
    return 2;
  };
  par::PoolOptions pooled;
  pooled.child = options;
  auto f = par::run(loop, wait_for_cancel, options);
  auto pool = par::pool(loop, wait_for_cancel, pooled);
  BOOST_TEST((f.wait(true).error().code() == par::Errc::deadline));
  BOOST_TEST((pool.wait(true).error().code() == par::Errc::deadline));
  par::CallOptions none;
  none.deadline = 0ms;
  BOOST_TEST(f.wait(none, false).value() == 2);
  BOOST_TEST(pool.wait(none, false).value() == 2);
}

BOOST_AUTO_TEST_CASE(a_negative_deadline_of_a_call_is_a_mistake) {
  par::Reactor loop;
  auto f = par::run(loop, [](int x) { return x; });
  auto pool = par::pool(loop, [](int x) { return x; });
  par::CallOptions negative;
  negative.deadline = -1ms;
  const auto ignore = [](par::Result<int>) {};
  BOOST_TEST(has(misuse_of([&] { f(negative, 1, ignore); }), "CallOptions::deadline"));
  BOOST_TEST(has(misuse_of([&] { pool.submit(negative, 1, ignore); }), "CallOptions::deadline"));
  BOOST_TEST(f.wait(1).value() == 1);
}

BOOST_AUTO_TEST_CASE(one_call_may_be_made_again_where_the_function_says_never) {
  par::Reactor loop;
  par::Options options;
  options.idempotent = true;
  par::PoolOptions pooled;
  pooled.child = options;
  const auto die_first = [](int deaths) {
    if (++shared->begun <= deaths) ::raise(SIGKILL);
    return shared->begun.load();
  };
  auto f = par::run(loop, die_first, options);
  auto pool = par::pool(loop, die_first, pooled);
  par::CallOptions twice;
  twice.retries = 2;
  shared->begun = 0;
  BOOST_TEST(f.wait(twice, 2).value() == 3);
  shared->begun = 0;
  BOOST_TEST(pool.wait(twice, 2).value() == 3);
  shared->begun = 0;
  BOOST_TEST((f.wait(1).error().code() == par::Errc::child_killed));
  BOOST_TEST(shared->begun == 1);
  shared->begun = 0;
  BOOST_TEST((pool.wait(1).error().code() == par::Errc::child_killed));
  shared->begun = 0;
  BOOST_TEST((f.wait(twice, 3).error().code() == par::Errc::child_killed));
  BOOST_TEST(shared->begun == 3);
}

BOOST_AUTO_TEST_CASE(one_call_may_be_made_only_once_where_the_function_says_again) {
  par::Reactor loop;
  par::Options options;
  options.idempotent = true;
  options.retries = 5;
  auto f = par::run(
      loop,
      [](int x) {
        if (++shared->begun == 1) ::raise(SIGKILL);
        return x;
      },
      options);
  par::CallOptions once;
  once.retries = 0;
  shared->begun = 0;
  BOOST_TEST((f.wait(once, 7).error().code() == par::Errc::child_killed));
  BOOST_TEST(shared->begun == 1);
  shared->begun = 0;
  BOOST_TEST(f.wait(7).value() == 7);
}

// ---- callbacks ----

BOOST_AUTO_TEST_CASE(a_callback_may_take_its_call) {
  par::Reactor loop;
  auto f = par::run(loop, [](int x) {
    if (x < 0) throw std::runtime_error("below zero");
    return x;
  });
  auto pool = par::pool(loop, [](int x) { return x; });
  std::map<std::uint64_t, int> by_remote, by_pool;
  std::map<std::uint64_t, int> expected_of_remote, expected_of_pool;
  for (int i = -2; i < 5; ++i) {
    const par::Call call = f(i, [&](par::Result<int> r, par::Call c) {
      by_remote[c.id()] = r ? *r : -100;
      c.cancel();  // it is answered: no effect
      c.set_deadline(0s);
    });
    expected_of_remote[call.id()] = i < 0 ? -100 : i;
    const par::Call pooled = pool.submit(
        i, [&](par::Result<int> r, const par::Call& c) { by_pool[c.id()] = r.value(); });
    expected_of_pool[pooled.id()] = i;
  }
  loop.run();
  BOOST_TEST((by_remote == expected_of_remote));
  BOOST_TEST((by_pool == expected_of_pool));
}

BOOST_AUTO_TEST_CASE(a_refused_call_has_an_id_in_its_callback) {
  par::Reactor loop;
  auto f = par::run(loop, [](const std::string& x) { return x; });
  std::uint64_t seen = 0;
  const par::Call call = f("\xff", [&](par::Result<std::string> r, par::Call c) {
    BOOST_TEST(!r);
    seen = c.id();
  });
  loop.run();
  BOOST_TEST(seen == call.id());
  BOOST_TEST(seen != 0U);
}

BOOST_AUTO_TEST_CASE(the_short_callback_wins_where_both_fit) {
  par::Reactor loop;
  auto f = par::run(loop, [](int a, int b) { return a + b; });
  std::size_t count = 0;
  int sum = 0;
  f(1, 2, [&](auto... received) { count = sizeof...(received); });
  f(1, 2, [&](auto result) { sum = result.value(); });
  loop.run();
  BOOST_TEST(count == 1U);
  BOOST_TEST(sum == 3);
}
