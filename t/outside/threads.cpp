// threads.cpp - a Reactor for each thread, one snapshot for all of them, and handles in the wrong thread.
#include "calling.hpp"
#include "elsewhere.hpp"
#include "errors.hpp"
#include "process.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace par = evparallel;

namespace {

using namespace std::chrono_literals;
using testing::in;
using testing::misuse_of;

int twice(int x) {
  return 2 * x;
}

pid_t own_pid() {
  return ::getpid();
}

pid_t parent_pid() {
  return ::getppid();
}

std::uint64_t own_seed() {
  return par::child_seed();
}

// Waits until as many threads have come here.
class Meeting {
public:
  explicit Meeting(int threads) : left_(threads) {}
  void wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    if (--left_ == 0) all_.notify_all();
    all_.wait(lock, [this] { return left_ <= 0; });
  }

private:
  std::mutex mutex_;
  std::condition_variable all_;
  int left_;
};

// Runs `f(index)` in as many threads at once; what leaves it ends the test.
template <class F>
void in_threads(int count, F f) {
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) threads.emplace_back([i, &f] { f(i); });
  for (std::thread& one : threads) one.join();
}

template <class F>
void in_a_thread(F f) {
  std::thread(std::move(f)).join();
}

// In another thread while this one waits.
template <class F>
std::string misuse_elsewhere(F f) {
  std::string text;
  in_a_thread([&] { text = misuse_of(f); });
  return text;
}

std::string thread_number() {
  return std::to_string(::syscall(SYS_gettid));
}

// Whether the error names the thread of the Reactor, and another one.
bool names_this_thread(const std::string& text) {
  return text.find("belongs to thread " + thread_number()) != std::string::npos &&
         text.find("evparallel: thread ") == 0 &&
         text.find("evparallel: thread " + thread_number() + " ") == std::string::npos;
}

bool is_gone(pid_t pid) {
  return testing::eventually([pid] { return !testing::process_exists(pid); });
}

}  // namespace

// ---- one snapshot for several Reactors ----

BOOST_AUTO_TEST_CASE(eight_threads_use_one_snapshot_at_once) {
  {
    par::Snapshot snapshot;
    const pid_t of_snapshot = snapshot.pid();
    std::atomic<int> right{0};
    Meeting meeting(8);
    in_threads(8, [&](int index) {
      par::Reactor loop;
      auto f = par::run(loop, twice, in(snapshot));
      auto parent = par::run(loop, parent_pid, in(snapshot));
      meeting.wait();
      for (int i = 0; i < 50; ++i)
        if (f.wait(index + i).value() == 2 * (index + i)) ++right;
      if (parent.wait().value() == of_snapshot) ++right;
    });
    BOOST_TEST(right == 8 * 51);
    BOOST_TEST(snapshot.alive());
  }
  testing::close_abandoned();
}

// Eight threads make pools, call and drop them a hundred times; meanwhile the program forks, and at
// the end it exits while all of that goes on.
BOOST_AUTO_TEST_CASE(threads_make_and_drop_pools_while_the_program_forks_and_exits) {
  const int status = testing::elsewhere([] {
    static par::Snapshot* const snapshot = new par::Snapshot;
    static std::atomic<int> rounds{0};
    static std::atomic<int> wrong{0};
    constexpr int all_rounds = 100;
    for (int i = 0; i < 8; ++i)
      std::thread([] {
        par::Reactor loop;
        for (int round = 0;; ++round) {
          par::PoolOptions options;
          options.workers = 2;
          options.child = in(*snapshot);
          auto pool = par::pool(loop, twice, options);
          int sum = 0;
          for (int x = 0; x < 4; ++x)
            pool.submit(x, [&sum](par::Result<int> r) { sum += r.value(); });
          if (pool.wait(10).value() != 20) ++wrong;
          loop.run();
          if (sum != 12) ++wrong;
          pool.submit(1, [](par::Result<int>) {});  // is dropped with the pool
          if (round < all_rounds) ++rounds;
        }
      }).detach();
    int copies = 0;
    while (rounds < 8 * all_rounds) {
      const pid_t copy = ::fork();
      if (copy == 0) {
        // The copy has the handles of the others, and a Reactor of its own.
        par::Reactor own;
        bool fired = false;
        const par::Timer timer = own.after(1ms, [&] { fired = true; });
        own.run();
        ::_exit(fired ? 0 : 1);
      }
      int how = -1;
      if (copy < 0 || ::waitpid(copy, &how, 0) != copy || how != 0) return 1;
      ++copies;
    }
    if (wrong != 0) return 2;
    if (copies == 0) return 3;
    ::exit(42);
  });
  BOOST_TEST(status == 42);
}

BOOST_AUTO_TEST_CASE(the_end_of_one_reactor_ends_its_children_alone) {
  {
    par::Snapshot snapshot;
    std::optional<par::Reactor> first(std::in_place);
    auto f = par::run(*first, own_pid, in(snapshot));
    const pid_t of_first = f.wait().value();
    pid_t of_other = 0;
    in_a_thread([&] {
      par::Options options = in(snapshot);
      options.linger = 0ms;
      par::Reactor other;
      auto g = par::run(other, own_pid, options);
      of_other = g.wait().value();
    });
    BOOST_TEST(of_other != of_first);
    BOOST_TEST(is_gone(of_other));
    BOOST_TEST(f.wait().value() == of_first);
    // And the other way round: the one that used it first ends, and the other one goes on.
    Meeting begun(2);
    Meeting ended(2);
    bool same = false;
    int answer = 0;
    std::thread other([&] {
      par::Reactor loop;
      auto g = par::run(loop, own_pid, in(snapshot));
      const pid_t pid = g.wait().value();
      begun.wait();
      ended.wait();
      same = g.wait().value() == pid;
      auto h = par::run(loop, twice, in(snapshot));
      answer = h.wait(4).value();
    });
    begun.wait();
    f = {};
    first.reset();
    ended.wait();
    other.join();
    BOOST_TEST(same);
    BOOST_TEST(answer == 8);
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(children_of_several_reactors_have_different_seeds) {
  {
    par::SnapshotOptions options;
    options.seed = 7;
    par::Snapshot snapshot(options);
    std::mutex mutex;
    std::set<std::uint64_t> seeds;
    par::Reactor first;
    auto f = par::run(first, own_seed, in(snapshot));
    seeds.insert(f.wait().value());
    in_threads(4, [&](int) {
      par::Reactor loop;
      for (int i = 0; i < 3; ++i) {
        auto g = par::run(loop, own_seed, in(snapshot));
        const std::uint64_t seed = g.wait().value();
        const std::lock_guard<std::mutex> lock(mutex);
        seeds.insert(seed);
      }
    });
    BOOST_TEST(seeds.size() == 13u);
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(each_reactor_has_spares_of_its_own) {
  {
    par::SnapshotOptions options;
    options.spares = 2;
    par::Snapshot snapshot(options);
    par::Reactor first;
    auto f = par::run(first, twice, in(snapshot));
    BOOST_TEST(f.wait(1).value() == 2);
    bool answered = true;
    in_a_thread([&] {
      par::Reactor loop;
      for (int i = 0; i < 20; ++i) {
        auto g = par::run(loop, twice, in(snapshot));
        answered = answered && g.wait(i).value() == 2 * i;
        loop.run_for(2ms);  // the time in which spares are refilled
      }
    });
    BOOST_TEST(answered);
    // The snapshot ends, although the spares of the other thread were never used.
    const pid_t pid = snapshot.pid();
    f = {};
    snapshot.stop();
    first.run_for(0ns);
    BOOST_TEST(testing::eventually([&] {
      first.run_for(0ns);
      return !testing::process_exists(pid);
    }));
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(a_stopped_snapshot_refuses_all_reactors_and_lets_their_children_end) {
  {
    par::Snapshot snapshot;
    par::Reactor first;
    auto f = par::run(first, twice, in(snapshot));
    BOOST_TEST(f.wait(1).value() == 2);
    Meeting begun(2);
    Meeting stopped(2);
    int answer = 0;
    std::string refusal;
    std::thread other([&] {
      par::Reactor loop;
      auto g = par::run(loop, twice, in(snapshot));
      answer = g.wait(1).value();
      begun.wait();
      stopped.wait();
      answer += g.wait(2).value();
      auto h = par::run(loop, twice, in(snapshot));
      refusal = h.wait(3).error().what();
    });
    begun.wait();
    snapshot.stop();
    stopped.wait();
    other.join();
    BOOST_TEST(answer == 6);
    BOOST_TEST(testing::has(refusal, "was stopped"), refusal);
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(all_reactors_learn_of_the_loss_of_a_snapshot) {
  {
    par::Snapshot snapshot;
    const pid_t pid = snapshot.pid();
    par::Reactor first;
    auto f = par::run(
        first,
        [] {
          for (;;) ::pause();
        },
        in(snapshot));
    std::vector<std::string> texts(4);
    Meeting begun(5);
    std::vector<std::thread> others;
    for (std::string& text : texts)
      others.emplace_back([&] {
        par::Reactor loop;
        auto g = par::run(
            loop,
            [](int x) {
              while (x > 0) ::pause();
              return x;
            },
            in(snapshot));
        if (g.wait(0).value() != 0) return;
        begun.wait();
        text = g.wait(1).error().what();
        auto h = par::run(loop, twice, in(snapshot));
        text += h.wait(1).error().code() == par::Errc::snapshot_lost ? "" : " not lost";
      });
    begun.wait();
    ::kill(pid, SIGKILL);
    const auto own = f.wait();
    for (std::thread& one : others) one.join();
    BOOST_TEST(testing::has(own.error().what(), "was killed by SIGKILL"), own.error().what());
    for (const std::string& text : texts) {
      BOOST_TEST(testing::has(text, "was killed by SIGKILL"), text);
      BOOST_TEST(!testing::has(text, "not lost"), text);
    }
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(another_reactor_uses_the_successor_of_a_lost_replica) {
  {
    par::SnapshotOptions options;
    options.replicas = 2;
    par::Snapshot snapshot(options);
    par::Reactor first;
    auto f = par::run(first, twice, in(snapshot));
    BOOST_TEST(f.wait(1).value() == 2);
    Meeting begun(2);
    Meeting replaced(2);
    std::set<pid_t> parents;
    std::thread other([&] {
      par::Reactor loop;
      auto g = par::run(loop, twice, in(snapshot));
      if (g.wait(1).value() != 2) return;
      begun.wait();
      replaced.wait();
      for (int i = 0; i < 4; ++i) {
        auto h = par::run(loop, parent_pid, in(snapshot));
        parents.insert(h.wait().value());
      }
    });
    begun.wait();
    const pid_t dead = snapshot.pids()[0];
    ::kill(dead, SIGKILL);
    BOOST_TEST(testing::eventually([&] {
      first.run_for(1ms);
      return snapshot.pids()[0] != dead;
    }));
    replaced.wait();
    other.join();
    const std::vector<pid_t> pids = snapshot.pids();
    BOOST_TEST((parents == std::set<pid_t>(pids.begin(), pids.end())));
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(a_clone_serves_several_threads_at_once) {
  {
    par::Snapshot snapshot;
    par::Reactor first;
    auto f = par::run(first, twice, in(snapshot));
    BOOST_TEST(f.wait(1).value() == 2);
    par::Snapshot copy = snapshot.clone();
    std::atomic<int> right{0};
    in_threads(4, [&](int index) {
      par::Reactor loop;
      auto g = par::run(loop, twice, in(copy));
      if (g.wait(index).value() == 2 * index) ++right;
    });
    BOOST_TEST(right == 4);
    BOOST_TEST(f.wait(2).value() == 4);
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(frozen_replicas_serve_several_threads) {
  {
    par::SnapshotOptions options;
    options.replicas = 2;
    options.freeze = true;
    std::optional<par::Snapshot> snapshot;
    try {
      snapshot.emplace(options);
    } catch (const par::Error& error) {
      BOOST_TEST((error.code() == par::Errc::refused), error.what());
      return;  // a kernel or a sanitizer that does not permit it
    }
    std::atomic<int> right{0};
    in_threads(4, [&](int index) {
      par::Reactor loop;
      for (int i = 0; i < 3; ++i) {
        auto g = par::run(loop, twice, in(*snapshot));
        if (g.wait(index).value() == 2 * index) ++right;
      }
    });
    BOOST_TEST(right == 12);
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(threads_of_a_child_have_children_of_their_own) {
  {
    par::Snapshot snapshot;
    par::Reactor loop;
    auto f = par::run(
        loop,
        [](int threads) {
          std::atomic<int> sum{0};
          in_threads(threads, [&](int index) {
            par::Reactor own;
            auto g = par::run(own, twice);
            sum += g.wait(index).value();
          });
          return sum.load();
        },
        in(snapshot));
    BOOST_TEST(f.wait(4).value() == 12);
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(the_reactor_of_a_child_belongs_to_its_main_thread) {
  {
    par::Snapshot snapshot;
    par::Reactor loop;
    auto f = par::run(
        loop,
        [] {
          std::string text;
          in_a_thread([&] { text = misuse_of([] { par::this_reactor(); }); });
          return text;
        },
        in(snapshot));
    const std::string text = f.wait().value();
    BOOST_TEST(testing::has(text, "belongs to the main thread of a child"), text);
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(a_snapshot_is_dropped_in_another_thread) {
  {
    auto snapshot = std::make_unique<par::Snapshot>();
    par::Reactor loop;
    auto f = par::run(loop, twice, in(*snapshot));
    BOOST_TEST(f.wait(1).value() == 2);
    in_a_thread([&] { snapshot.reset(); });
    BOOST_TEST(f.wait(2).value() == 4);
  }
  testing::close_abandoned();
}

// ---- a thread and its Reactor ----

BOOST_AUTO_TEST_CASE(post_and_hold_bind_a_reactor_to_no_thread) {
  par::Reactor loop;
  int calls = 0;
  loop.post([&] { ++calls; });
  par::Hold hold = loop.hold();
  hold.release();
  in_a_thread([&] { loop.run(); });
  BOOST_TEST(calls == 1);
  BOOST_TEST(testing::has(misuse_of([&] { loop.run(); }), "belongs to thread"));
}

BOOST_AUTO_TEST_CASE(each_first_use_binds_a_reactor) {
  testing::allow_descriptors(4);  // until the ends of the children are known
  const auto binds = [](const char* what, auto use) {
    par::Reactor loop;
    use(loop);
    const std::string text = misuse_elsewhere([&] { loop.run(); });
    BOOST_TEST(names_this_thread(text), what << ": " << text);
  };
  par::Snapshot snapshot;
  binds("run", [](par::Reactor& loop) { loop.run(); });
  binds("run_for", [](par::Reactor& loop) { loop.run_for(0ns); });
  binds("poll", [](par::Reactor& loop) { loop.poll(); });
  binds("fd", [](par::Reactor& loop) { loop.fd(); });
  binds("until_next", [](par::Reactor& loop) { loop.until_next(); });
  binds("after", [](par::Reactor& loop) { loop.after(1h, [] {}).cancel(); });
  binds("every", [](par::Reactor& loop) { loop.every(1h, [] {}).cancel(); });
  binds("on_readable", [](par::Reactor& loop) { loop.on_readable(0, [] {}).cancel(); });
  binds("on_writable", [](par::Reactor& loop) { loop.on_writable(1, [] {}).cancel(); });
  binds("on_signal", [](par::Reactor& loop) { loop.on_signal(SIGUSR1, [] {}).cancel(); });
  binds("on_exception", [](par::Reactor& loop) { loop.on_exception([](std::exception_ptr) {}); });
  binds("par::run",
        [&](par::Reactor& loop) { static_cast<void>(par::run(loop, twice, in(snapshot))); });
  binds("par::process", [&](par::Reactor& loop) {
    static_cast<void>(par::process(
        loop, [](par::Pipe<int, int>) {}, in(snapshot)));
  });
  binds("par::pool", [&](par::Reactor& loop) {
    par::PoolOptions options;
    options.child = in(snapshot);
    static_cast<void>(par::pool(loop, twice, options));
  });
  binds("par::supervise", [&](par::Reactor& loop) {
    par::SuperviseOptions options;
    options.child = in(snapshot);
    static_cast<void>(par::supervise(
        loop, [] {}, 1, options));
  });
}

BOOST_AUTO_TEST_CASE(handles_name_both_threads_in_the_wrong_one) {
  testing::allow_descriptors(12);  // until the ends of the children are known
  par::Snapshot snapshot;
  par::Reactor loop;
  par::PoolOptions options;
  options.workers = 1;
  options.child = in(snapshot);
  par::SuperviseOptions supervise_options;
  supervise_options.child = in(snapshot);
  auto f = par::run(loop, twice, in(snapshot));
  auto p = par::process(
      loop, [](par::Pipe<int, int> pipe) { pipe.on_message([](int) {}); }, in(snapshot));
  auto pool = par::pool(loop, twice, options);
  auto places = par::supervise(
      loop,
      [] {
        for (;;) ::pause();
      },
      1, supervise_options);
  par::Timer timer = loop.after(1h, [] {});
  const par::Call call = f(1, [](par::Result<int>) {});
  auto stream = pool.stream([](std::size_t, par::Result<int>) {});
  const par::MapHandle map = pool.map(std::vector<int>{1, 2}, [](std::size_t, par::Result<int>) {});
  const auto refused = [&](const char* what, auto use) {
    const std::string text = misuse_elsewhere(use);
    BOOST_TEST(names_this_thread(text), what << ": " << text);
  };
  refused("call", [&] { f(1, [](par::Result<int>) {}); });
  refused("wait", [&] { static_cast<void>(f.wait(1)); });
  refused("pid", [&] { f.pid(); });
  refused("pending", [&] { f.pending(); });
  refused("close", [&] { f.close(); });
  refused("Call::cancel", [&] { call.cancel(); });
  refused("Call::set_deadline", [&] { call.set_deadline(1s); });
  refused("send", [&] { p.send(1); });
  refused("Process::close", [&] { p.close(); });
  refused("on_message", [&] { p.on_message([](int) {}); });
  refused("on_end", [&] { p.on_end([] {}); });
  refused("pause", [&] { p.pause(); });
  refused("resume", [&] { p.resume(); });
  refused("buffered", [&] { p.buffered(); });
  refused("closed", [&] { p.closed(); });
  refused("Process::pid", [&] { p.pid(); });
  refused("kill", [&] { p.kill(SIGTERM); });
  refused("terminate", [&] { p.terminate(); });
  refused("on_exit", [&] { p.on_exit([](const par::ExitStatus&) {}); });
  refused("detach", [&] { p.detach(); });
  refused("submit", [&] { pool.submit(1, [](par::Result<int>) {}); });
  refused("pool.wait", [&] { static_cast<void>(pool.wait(1)); });
  refused("map", [&] { pool.map(std::vector<int>{1}, [](std::size_t, par::Result<int>) {}); });
  refused("stream", [&] { static_cast<void>(pool.stream([](std::size_t, par::Result<int>) {})); });
  refused("full", [&] { pool.full(); });
  refused("stats", [&] { pool.stats(); });
  refused("on_ready", [&] { pool.on_ready([](par::Result<void>) {}); });
  refused("on_closed", [&] { pool.on_closed([] {}); });
  refused("on_worker", [&] { pool.on_worker([](const par::WorkerEvent&) {}); });
  refused("Pool::close", [&] { pool.close(); });
  refused("shutdown", [&] { pool.shutdown(1s); });
  refused("push", [&] { stream.push(1); });
  refused("on_drain", [&] { stream.on_drain([] {}); });
  refused("MapHandle::pause", [&] { map.pause(); });
  refused("MapHandle::cancel", [&] { map.cancel(); });
  refused("MapHandle::progress", [&] { map.progress(); });
  refused("pids", [&] { places.pids(); });
  refused("running", [&] { places.running(); });
  refused("restart", [&] { places.restart(); });
  refused("resize", [&] { places.resize(2); });
  refused("Supervisor::close", [&] { places.close(); });
  refused("on_start", [&] { places.on_start([](unsigned, pid_t) {}); });
  refused("Timer::active", [&] { timer.active(); });
  refused("Snapshot::pid", [&] { snapshot.pid(); });
  refused("Snapshot::pids", [&] { snapshot.pids(); });
  refused("Snapshot::alive", [&] { snapshot.alive(); });
  refused("Snapshot::clone", [&] { static_cast<void>(snapshot.clone()); });
  refused("Snapshot::on_lost", [&] { snapshot.on_lost([](const par::ExitStatus&) {}); });
  // Nothing of it had an effect.
  BOOST_TEST(f.wait(4).value() == 8);
  BOOST_TEST(pool.wait(5).value() == 10);
  BOOST_TEST(timer.active());
  stream.close();
  places.close();
  p.close();
}

namespace {

// Tells in which thread it is destroyed.
struct Grave {
  explicit Grave(std::atomic<std::thread::id>& at) : where(&at) {}
  Grave(Grave&& other) noexcept : where(std::exchange(other.where, nullptr)) {}
  Grave& operator=(Grave&&) = delete;
  ~Grave() {
    if (where) *where = std::this_thread::get_id();
  }
  std::atomic<std::thread::id>* where;
};

}  // namespace

BOOST_AUTO_TEST_CASE(handles_that_are_dropped_elsewhere_end_in_the_thread_of_their_reactor) {
  testing::allow_descriptors(12);  // until the ends of the children are known
  par::Snapshot snapshot;
  par::Reactor loop;
  std::atomic<std::thread::id> at{};
  const auto ends_here = [&](const char* what, auto handle, auto set) {
    at = std::thread::id();
    set(handle, Grave(at));
    in_a_thread([&, h = std::move(handle)]() mutable { const auto dropped = std::move(h); });
    BOOST_TEST(testing::eventually([&] {
                 loop.run_for(0ns);
                 return at.load() != std::thread::id();
               }),
               what);
    BOOST_TEST((at.load() == std::this_thread::get_id()), what);
  };
  ends_here("Remote",
            par::run(
                loop,
                [](int x) {
                  for (;;) ::pause();
                  return x;
                },
                in(snapshot)),
            [](auto& f, Grave g) { f(1, [g = std::move(g)](par::Result<int>) {}); });
  ends_here("Process",
            par::process(
                loop, [](par::Pipe<int, int> pipe) { pipe.on_message([](int) {}); }, in(snapshot)),
            [](auto& p, Grave g) { p.on_message([g = std::move(g)](int) {}); });
  par::PoolOptions options;
  options.workers = 1;
  options.child = in(snapshot);
  ends_here("Pool",
            par::pool(
                loop,
                [](int x) {
                  for (;;) ::pause();
                  return x;
                },
                options),
            [](auto& pool, Grave g) { pool.submit(1, [g = std::move(g)](par::Result<int>) {}); });
  par::SuperviseOptions supervise_options;
  supervise_options.child = in(snapshot);
  ends_here("Supervisor",
            par::supervise(
                loop,
                [] {
                  for (;;) ::pause();
                },
                1, supervise_options),
            [](auto& s, Grave g) { s.on_closed([g = std::move(g)] {}); });
  {
    at = std::thread::id();
    auto timer = std::make_unique<par::Timer>(loop.after(1h, [g = Grave(at)] {}));
    in_a_thread([&] { timer.reset(); });
    loop.run();
    BOOST_TEST((at.load() == std::this_thread::get_id()));
  }
  {
    at = std::thread::id();
    int ends[2];
    BOOST_REQUIRE(::pipe(ends) == 0);
    auto watch = std::make_unique<par::Watch>(loop.on_readable(ends[0], [g = Grave(at)] {}));
    in_a_thread([&] { watch.reset(); });
    loop.run();
    BOOST_TEST((at.load() == std::this_thread::get_id()));
    ::close(ends[0]);
    ::close(ends[1]);
  }
  {
    auto pool = par::pool(loop, twice, options);
    bool over = false;
    int sum = 0;
    auto stream = pool.stream([&](std::size_t, par::Result<int> r) { sum += r.value(); },
                              [&](const par::MapSummary&) { over = true; });
    stream.push(1);
    stream.push(2);
    in_a_thread([s = std::move(stream)]() mutable { const auto dropped = std::move(s); });
    loop.run();
    BOOST_TEST(over);
    BOOST_TEST(sum == 6);
  }
}

BOOST_AUTO_TEST_CASE(handles_may_be_dropped_in_any_thread_after_their_reactor) {
  testing::allow_descriptors(20);
  {
    par::Snapshot snapshot;
    auto loop = std::make_unique<par::Reactor>();
    std::vector<par::Remote<int(int)>> all;
    std::vector<par::Timer> timers;
    std::vector<par::Pipe<int, int>> pipes;
    for (int i = 0; i < 8; ++i) {
      all.push_back(par::run(*loop, twice, in(snapshot)));
      all.back()(i, [](par::Result<int>) {});
      timers.push_back(loop->after(1h, [] {}));
      auto p = par::process(
          *loop, [](par::Pipe<int, int> pipe) { pipe.on_message([](int) {}); }, in(snapshot));
      pipes.push_back(p);
    }
    loop->run_for(0ns);
    loop.reset();
    in_threads(8, [&](int i) {
      const auto index = static_cast<std::size_t>(i);
      all[index] = {};
      timers[index] = {};
      pipes[index] = {};
    });
    BOOST_TEST(snapshot.alive());
  }
  testing::close_abandoned();
}

// Main makes it, a thread uses it, and main destroys it when the thread is over.
BOOST_AUTO_TEST_CASE(a_reactor_may_be_destroyed_in_another_thread) {
  {
    par::Snapshot snapshot;
    auto loop = std::make_unique<par::Reactor>();
    std::optional<par::Remote<int(int)>> f;
    int answer = 0;
    in_a_thread([&] {
      f.emplace(par::run(*loop, twice, in(snapshot)));
      answer = f->wait(3).value();
    });
    BOOST_TEST(answer == 6);
    f.reset();  // is posted to a loop that never runs again
    loop.reset();
    par::Reactor next;
    auto g = par::run(next, twice, in(snapshot));
    BOOST_TEST(g.wait(4).value() == 8);
  }
  testing::close_abandoned();
}

BOOST_AUTO_TEST_CASE(a_loop_is_stopped_from_another_thread) {
  par::Reactor loop;
  const par::Hold hold = loop.hold();
  std::thread other;
  loop.post([&] { other = std::thread([&] { loop.stop(); }); });
  loop.run();  // would never return
  other.join();
  // Outside run() it does nothing.
  in_a_thread([&] { loop.stop(); });
  bool called = false;
  loop.post([&] { called = true; });
  loop.run_for(0ns);
  BOOST_TEST(called);
}

BOOST_AUTO_TEST_CASE(posts_of_many_threads_are_all_called_in_the_thread_of_the_loop) {
  par::Reactor loop;
  std::thread::id here = std::this_thread::get_id();
  int calls = 0;
  int elsewhere = 0;
  par::Hold hold = loop.hold();
  std::thread others([&] {
    in_threads(8, [&](int) {
      for (int i = 0; i < 1000; ++i)
        loop.post([&] {
          ++calls;
          if (std::this_thread::get_id() != here) ++elsewhere;
        });
    });
    loop.post([&] { hold.release(); });
  });
  loop.run();
  others.join();
  BOOST_TEST(calls == 8000);
  BOOST_TEST(elsewhere == 0);
}

BOOST_AUTO_TEST_CASE(signals_are_watched_by_one_reactor_of_a_process) {
  par::Reactor loop;
  const par::Watch watch = loop.on_signal(SIGUSR1, [] {});
  const std::string text = misuse_elsewhere([] {
    par::Reactor other;
    static_cast<void>(other.on_signal(SIGUSR2, [] {}));
  });
  BOOST_TEST(testing::has(text, "another reactor of this process already watches signals"), text);
}

BOOST_AUTO_TEST_CASE(reactors_on_one_base_belong_to_one_thread) {
  par::Reactor loop;
  loop.run();
  const std::string text = misuse_elsewhere([&] { par::Reactor second(loop.base()); });
  BOOST_TEST(names_this_thread(text), text);
  par::Reactor second(loop.base());
  BOOST_TEST(names_this_thread(misuse_elsewhere([&] { second.run(); })));
}

BOOST_AUTO_TEST_CASE(threads_take_turns_with_a_reactor_that_is_bound_to_none) {
  {
    par::Snapshot snapshot;
    par::Reactor loop;
    loop.bind_to_no_thread();
    std::optional<par::Remote<int(int)>> f;
    int sum = 0;
    in_a_thread([&] { f.emplace(par::run(loop, twice, in(snapshot))); });
    in_a_thread([&] { (*f)(1, [&](par::Result<int> r) { sum += r.value(); }); });
    in_a_thread([&] { loop.run(); });
    BOOST_TEST(sum == 2);
    BOOST_TEST(f->wait(2).value() == 4);
    in_a_thread([&] { f.reset(); });
  }
  testing::close_abandoned();
  par::Reactor bound;
  bound.run();
  BOOST_TEST(names_this_thread(misuse_elsewhere([&] { bound.bind_to_no_thread(); })));
}

// Many threads open and close descriptors of the library: reactors, sockets of children.
BOOST_AUTO_TEST_CASE(threads_make_and_destroy_reactors_at_once) {
  const std::size_t before = testing::count_descriptors();
  in_threads(8, [](int) {
    for (int i = 0; i < 100; ++i) {
      par::Reactor loop;
      bool fired = false;
      const par::Timer timer = loop.after(0ns, [&] { fired = true; });
      loop.run();
      if (!fired) std::abort();
    }
  });
  BOOST_TEST(testing::count_descriptors() == before);
}
