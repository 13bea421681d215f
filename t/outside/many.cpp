// many.cpp - many processes at once, told what to do by a codec of their own.
#include "calling.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <numeric>
#include <random>
#include <sstream>
#include <variant>

namespace par = evparallel;

void testing_main_init() {
  testing::take_default_snapshot();
}

namespace {

// What a worker is told: start with a name and a seed list, or stop.
struct Start {
  std::string name;
  std::vector<unsigned> seeds;
};
struct Stop {};
using Order = std::variant<Start, Stop>;

// One line of text: "start NAME SEED...", or "stop".
struct LineIo {
  static void put(par::Writer& out, const Order& order) {
    std::ostringstream line;
    if (const Start* start = std::get_if<Start>(&order)) {
      line << "start " << start->name;
      for (const unsigned seed : start->seeds) line << ' ' << seed;
    } else {
      line << "stop";
    }
    line << '\n';
    out.write(line.str());
  }
  static Order get(par::Reader& in) {
    std::istringstream line{std::string(in.rest())};
    std::string word;
    line >> word;
    if (word == "stop") return Stop{};
    if (word != "start") throw std::runtime_error("neither start nor stop: " + word);
    Start start;
    line >> start.name;
    for (unsigned seed; line >> seed;) start.seeds.push_back(seed);
    return start;
  }
};

// The same for all: a few million numbers from the seeds, summed.
std::uint64_t compute(const std::vector<unsigned>& seeds) {
  constexpr int numbers = 500000;
  std::uint64_t sum = 0;
  for (const unsigned seed : seeds) {
    std::minstd_rand random(seed);
    for (int i = 0; i < numbers; ++i) sum += random();
  }
  return sum;
}

void work(par::Pipe<Order, std::string> pipe) {
  pipe.on_message([pipe](Order order) {
    if (const Start* start = std::get_if<Start>(&order))
      pipe.send(start->name + " " + std::to_string(compute(start->seeds)));
    else
      pipe.close();
  });
}

}  // namespace

BOOST_AUTO_TEST_CASE(sixty_four_processes_at_random_times_all_give_the_same_answer) {
  constexpr int processes = 64;
  const std::vector<unsigned> seeds{1, 2, 3, 4};
  const std::string expected = std::to_string(compute(seeds));
  par::Reactor loop;
  std::mt19937 random(testing::seed(20261122));
  std::vector<par::Process<std::string, Order>> all(processes);
  int right = 0;
  int ended = 0;
  for (int i = 0; i < processes; ++i) {
    loop.after(std::chrono::milliseconds(random() % 300),
               [&, i] {
                 auto& p = all[static_cast<std::size_t>(i)];
                 p = par::process<par::DefaultIo, LineIo>(loop, work);
                 const std::string name = "worker" + std::to_string(i);
                 p.on_message([&, i, name](std::string answer) {
                   right += answer == name + " " + expected;
                   auto& self = all[static_cast<std::size_t>(i)];
                   self.send(Stop{});
                   self.close();
                 });
                 p.on_exit([&](const par::ExitStatus& status) {
                   ended += status.cause == par::Cause::normal;
                 });
                 p.send(Start{name, seeds});
               })
        .detach();
  }
  loop.run();
  BOOST_TEST(right == processes);
  BOOST_TEST(ended == processes);
}

BOOST_AUTO_TEST_CASE(five_hundred_children_at_once) {
  par::Reactor loop;
  std::vector<par::Process<int, int>> all;
  int sum = 0;
  int ended = 0;
  for (int i = 0; i < 500; ++i) {
    all.push_back(par::process(
        loop, [](par::Pipe<int, int> pipe) { pipe.on_message([pipe](int x) { pipe.send(x); }); }));
    all.back().on_message([&](int x) { sum += x; });
    all.back().on_exit(
        [&](const par::ExitStatus& status) { ended += status.cause == par::Cause::normal; });
    all.back().send(i);
    all.back().close();
  }
  loop.run();
  BOOST_TEST(sum == 500 * 499 / 2);
  BOOST_TEST(ended == 500);
}

BOOST_AUTO_TEST_CASE(a_hundred_thousand_calls_in_flight, *testing::guarantee("7.4")) {
  par::Reactor loop;
  auto f = par::run<par::RawIo, par::RawIo>(loop, [](int x) { return -x; });
  int right = 0;
  for (int i = 0; i < 100000; ++i)
    f(i, [&right, i](par::Result<int> r) { right += r.value() == -i; });
  BOOST_TEST(f.pending() == 100000u);
  loop.run();
  BOOST_TEST(right == 100000);
  BOOST_TEST(f.pending() == 0u);
}

BOOST_AUTO_TEST_CASE(asynchronous_calls_answered_in_any_order) {
  par::Reactor loop;
  auto f = par::run<par::RawIo, par::RawIo>(loop, [](int x, par::Reply<int> reply) {
    // The first call is answered last of all.
    static std::optional<par::Reply<int>> first;
    if (x == 0) {
      first = reply;
    } else {
      reply(x);
      if (x == 4999) (*first)(0);
    }
  });
  std::vector<int> order;
  for (int i = 0; i < 5000; ++i) f(i, [&](par::Result<int> r) { order.push_back(r.value()); });
  loop.run();
  BOOST_REQUIRE(order.size() == 5000u);
  BOOST_TEST(order.front() == 1);
  BOOST_TEST(order.back() == 0);
}

BOOST_AUTO_TEST_CASE(the_calls_of_many_children_are_never_mixed_up) {
  par::Reactor loop;
  std::vector<par::Remote<int, int>> all;
  for (int i = 0; i < 8; ++i) all.push_back(par::run(loop, [i](int x) { return x * 8 + i; }));
  int right = 0;
  for (int x = 0; x < 500; ++x)
    for (int i = 0; i < 8; ++i)
      all[static_cast<std::size_t>(i)](
          x, [&right, x, i](par::Result<int> r) { right += r.value() == x * 8 + i; });
  loop.run();
  BOOST_TEST(right == 4000);
}
