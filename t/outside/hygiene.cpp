// hygiene.cpp - a child's own state: seed, hooks, names, and its priority when memory runs out.
#include "calling.hpp"
#include "elsewhere.hpp"
#include "errors.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <new>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

namespace par = evparallel;
using testing::has;
using testing::result_of_call;

namespace {

// The log of hooks, one letter each, shared by all processes of this program.
struct Diary {
  char text[4096];
  void clear() { std::memset(text, 0, sizeof text); }
  // Cases that do not read the log write it, too, and do not clear it: letters beyond its size are dropped.
  void note(char c) {
    const std::size_t size = std::strlen(text);
    if (size + 1 < sizeof text) text[size] = c;
  }
};
Diary* diary = nullptr;

enum Wish { nothing, start_throws, exit_throws, exit_exits };
Wish wish = nothing;  // copied into the snapshot that is taken

struct Wished {
  explicit Wished(Wish w, const par::SnapshotOptions& options = {}) {
    wish = w;
    snapshot = std::make_unique<par::Snapshot>(options);
    wish = nothing;
  }
  Wished(const Wished&) = delete;
  Wished& operator=(const Wished&) = delete;
  ~Wished() {
    const pid_t pid = snapshot->pid();
    snapshot.reset();
    BOOST_TEST(testing::gone(pid));  // another process may be alive
    const par::Snapshot next;
  }
  par::Options options() {
    par::Options all;
    all.snapshot = snapshot.get();
    return all;
  }
  std::unique_ptr<par::Snapshot> snapshot;
};

std::string contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::string proc(pid_t pid, const char* what) {
  return contents("/proc/" + std::to_string(pid) + "/" + what);
}

// The command line that ps(1) shows.
std::string command_line(pid_t pid) {
  std::string text = proc(pid, "cmdline");
  while (!text.empty() && text.back() == '\0') text.pop_back();
  std::replace(text.begin(), text.end(), '\0', ' ');
  return text;
}

std::string short_name(pid_t pid) {
  const std::string text = proc(pid, "comm");
  return text.substr(0, text.find('\n'));
}

// The end of a process whose task is `f`.
template <class F>
par::ExitStatus end_of(par::Reactor& loop, F f, const par::Options& options,
                       std::string* error = nullptr) {
  par::ExitStatus status;
  auto p = par::process(loop, f, options);
  p.on_error([&](const par::Error& e) {
    if (error) *error = e.what();
  });
  p.on_exit([&](const par::ExitStatus& how) { status = how; });
  p.close();
  loop.run();
  return status;
}

const std::string& program() {
  static const std::string name = program_invocation_short_name;
  return name;
}

}  // namespace

void testing_main_init() {
  diary = &testing::shared<Diary>();
  par::at_child_start([] { diary->note('1'); });
  par::at_child_start([owned = std::make_unique<int>(2)] {
    if (wish == start_throws) throw std::runtime_error("from a start hook");
    diary->note(static_cast<char>('0' + *owned));
  });
  par::at_child_exit([] { diary->note('a'); });
  par::at_child_exit([] {
    if (wish == exit_throws) throw std::runtime_error("from an exit hook");
    if (wish == exit_exits) std::exit(9);
    diary->note('b');
  });
}

// ---- hooks ----

BOOST_AUTO_TEST_CASE(start_hooks_run_in_order_before_the_task_and_exit_hooks_in_reverse_after_it) {
  Wished wished(nothing);
  par::Reactor loop;
  diary->clear();
  const par::ExitStatus how = end_of(
      loop, [](par::Pipe<int, int>) { diary->note('T'); }, wished.options());
  BOOST_TEST((how.cause == par::Cause::normal));
  BOOST_TEST(diary->text == "12Tba");
}

BOOST_AUTO_TEST_CASE(exit_hooks_run_however_a_child_ends) {
  Wished wished(nothing);
  par::Reactor loop;
  const auto diary_of = [&](void (*task)(par::Pipe<int, int>), int code) {
    diary->clear();
    const par::ExitStatus how = end_of(loop, task, wished.options());
    BOOST_TEST(how.exited());
    BOOST_TEST(how.code() == code);
    return std::string(diary->text);
  };
  BOOST_TEST(diary_of([](par::Pipe<int, int>) { std::exit(3); }, 3) == "12ba");
  BOOST_TEST(diary_of([](par::Pipe<int, int>) { throw 1; }, 70) == "12ba");
  BOOST_TEST(diary_of([](par::Pipe<int, int>) { ::_exit(4); }, 4) == "12");
  diary->clear();
  const par::ExitStatus how = end_of(
      loop, [](par::Pipe<int, int>) { ::raise(SIGKILL); }, wished.options());
  BOOST_TEST(how.signalled());
  BOOST_TEST(diary->text == "12");
}

BOOST_AUTO_TEST_CASE(hooks_run_once_in_each_child_of_a_remote_function) {
  Wished wished(nothing);
  par::Reactor loop;
  diary->clear();
  pid_t pid = 0;
  {
    auto f = par::run(
        loop,
        [](int x) {
          diary->note('c');
          return x + static_cast<int>(::getpid());
        },
        wished.options());
    pid = result_of_call(loop, f, 0).value();
    result_of_call(loop, f, 0);
  }
  BOOST_TEST(testing::eventually([&] { return !testing::process_exists(pid); }));
  BOOST_TEST(diary->text == "12ccba");
}

BOOST_AUTO_TEST_CASE(a_remote_function_starts_its_child_without_a_call) {
  Wished wished(nothing);
  par::Reactor loop;
  diary->clear();
  const auto f = par::run(
      loop, [](int x) { return x; }, wished.options());
  const par::Hold hold = loop.hold();
  BOOST_TEST(testing::eventually([&] {
    loop.run_for(std::chrono::milliseconds(1));
    return std::strcmp(diary->text, "12") == 0;
  }));
}

BOOST_AUTO_TEST_CASE(an_exception_of_a_start_hook_fails_the_task_like_its_own) {
  Wished wished(start_throws);
  par::Reactor loop;
  diary->clear();
  auto f = par::run(
      loop,
      [](int x) {
        diary->note('T');
        return x;
      },
      wished.options());
  const par::Result<int> answer = result_of_call(loop, f, 1);
  BOOST_REQUIRE(!answer.has_value());
  BOOST_TEST((answer.error().code() == par::Errc::remote_exception));
  BOOST_TEST(has(answer.error().what(), "from a start hook"));
  std::string error;
  const par::ExitStatus how = end_of(
      loop, [](par::Pipe<int, int>) { diary->note('T'); }, wished.options(), &error);
  BOOST_TEST(how.code() == 70);
  BOOST_TEST(has(error, "from a start hook"));
  BOOST_TEST(!has(diary->text, "T"));
  BOOST_TEST(std::string(diary->text).substr(0, 3) == "1ba");  // hooks that have begun end
}

BOOST_AUTO_TEST_CASE(an_exception_of_an_exit_hook_sets_the_status_and_other_hooks_run) {
  Wished wished(exit_throws);
  par::Reactor loop;
  diary->clear();
  const par::ExitStatus how = end_of(
      loop, [](par::Pipe<int, int>) {}, wished.options());
  BOOST_TEST(how.code() == 70);
  BOOST_TEST((how.cause == par::Cause::error));
  BOOST_TEST(diary->text == "12a");
}

BOOST_AUTO_TEST_CASE(an_exit_hook_may_exit_and_each_runs_once) {
  Wished wished(exit_exits);
  par::Reactor loop;
  diary->clear();
  const par::ExitStatus how = end_of(
      loop, [](par::Pipe<int, int>) {}, wished.options());
  BOOST_TEST(how.code() == 9);
  BOOST_TEST(diary->text == "12a");
}

BOOST_AUTO_TEST_CASE(an_exit_hook_of_a_task_runs_and_its_output_is_written) {
  Wished wished(nothing);
  par::Reactor loop;
  diary->clear();
  std::string line;
  par::Options options = wished.options();
  options.out = par::Stdio::capture();
  options.on_line = [&](const par::OutputLine& received) { line = received.text; };
  end_of(
      loop,
      [](par::Pipe<int, int>) {
        par::at_child_exit([] {
          diary->note('x');
          std::printf("printed by a hook");
        });
        try {
          par::at_child_start([] {});
        } catch (const std::logic_error&) {
          diary->note('L');
        }
      },
      options);
  BOOST_TEST(diary->text == "12Lxba");
  BOOST_TEST(line == "printed by a hook");
}

BOOST_AUTO_TEST_CASE(a_process_that_a_task_forks_runs_no_exit_hooks) {
  Wished wished(nothing);
  par::Reactor loop;
  diary->clear();
  const par::ExitStatus how = end_of(
      loop,
      [](par::Pipe<int, int>) {
        const pid_t pid = ::fork();
        if (pid == 0) std::exit(0);
        int status = 0;
        ::waitpid(pid, &status, 0);
        diary->note(WEXITSTATUS(status) == 0 ? 'F' : '?');
      },
      wished.options());
  BOOST_TEST((how.cause == par::Cause::normal));
  BOOST_TEST(diary->text == "12Fba");
}

BOOST_AUTO_TEST_CASE(hooks_apply_to_later_snapshots) {
  const int status = testing::elsewhere([] {
    par::Snapshot before;
    par::at_child_start([] { diary->note('!'); });
    par::Snapshot after;
    par::Reactor loop;
    for (par::Snapshot* snapshot : {&before, &after}) {
      par::Options options;
      options.snapshot = snapshot;
      diary->clear();
      end_of(
          loop, [](par::Pipe<int, int>) {}, options);
      if (std::string(diary->text) != (snapshot == &before ? "12ba" : "12!ba")) return 1;
    }
    return 0;
  });
  BOOST_TEST(status == 0);
}

// ---- seeds ----

namespace {

struct Numbers {
  std::uint64_t seed;
  long of_rand;
  long of_random;
  double of_drand48;
  bool operator==(const Numbers& o) const {
    return seed == o.seed && of_rand == o.of_rand && of_random == o.of_random &&
           of_drand48 == o.of_drand48;
  }
};

// The numbers of children of a new snapshot, in the order in which they were requested.
std::vector<Numbers> numbers_of(const par::SnapshotOptions& options, int children) {
  Wished wished(nothing, options);
  par::Reactor loop;
  std::vector<Numbers> all;
  for (int i = 0; i < children; ++i) {
    auto f = par::run<par::RawIo>(
        loop,
        [](int) {
          return Numbers{par::child_seed(), std::rand(), ::random(), ::drand48()};
        },
        wished.options());
    all.push_back(result_of_call(loop, f, 1).value());
  }
  return all;
}

par::SnapshotOptions seeded(std::uint64_t seed) {
  par::SnapshotOptions options;
  options.seed = seed;
  return options;
}

}  // namespace

BOOST_AUTO_TEST_CASE(no_two_children_have_the_same_random_numbers) {
  std::set<std::uint64_t> seeds;
  std::set<long> rands;
  std::set<double> drands;
  for (const par::SnapshotOptions& options :
       {par::SnapshotOptions{}, par::SnapshotOptions{}, seeded(1), seeded(2)})
    for (const Numbers& numbers : numbers_of(options, 20)) {
      seeds.insert(numbers.seed);
      rands.insert(numbers.of_rand);
      drands.insert(numbers.of_drand48);
    }
  BOOST_TEST(seeds.size() == 80U);
  BOOST_TEST(rands.size() >= 79U);  // 31 bits
  BOOST_TEST(drands.size() == 80U);
}

BOOST_AUTO_TEST_CASE(a_seed_gives_the_same_random_numbers_in_each_run) {
  BOOST_TEST((numbers_of(seeded(5), 10) == numbers_of(seeded(5), 10)));
  BOOST_TEST((numbers_of(seeded(0), 3) == numbers_of(seeded(0), 3)));
  BOOST_TEST((numbers_of({}, 3) != numbers_of({}, 3)));
}

BOOST_AUTO_TEST_CASE(children_of_children_have_their_own_reproducible_seeds) {
  using Seeds = std::vector<std::uint64_t>;
  // The numbers of a child, and those of two children of its own.
  const auto family = [](int) {
    par::Reactor& inner = par::this_reactor();
    Seeds all = {par::child_seed()};
    for (int i = 0; i < 2; ++i) {
      auto g = par::run(inner, [] { return par::child_seed(); });
      const par::Timer patience = inner.after(testing::patience(), [&] { inner.stop(); });
      g([&](par::Result<std::uint64_t> r) {
        all.push_back(r.value());
        inner.stop();
      });
      inner.run();
    }
    return all;
  };
  const auto seeds = [&] {
    Wished wished(nothing, seeded(7));
    par::Reactor loop;
    Seeds all;
    for (int i = 0; i < 2; ++i) {
      auto f = par::run(loop, family, wished.options());
      const Seeds some = result_of_call(loop, f, 1).value();
      all.insert(all.end(), some.begin(), some.end());
    }
    return all;
  };
  const Seeds first = seeds();
  BOOST_TEST(first.size() == 6U);
  BOOST_TEST(std::set<std::uint64_t>(first.begin(), first.end()).size() == 6U);
  BOOST_TEST(first == seeds(), boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(only_a_child_has_a_seed) {
  BOOST_CHECK_THROW(par::child_seed(), std::logic_error);
}

// ---- names ----

namespace {

const char* const first_argument = program_invocation_name;  // the kernel's copy of it

}  // namespace

BOOST_AUTO_TEST_CASE(ps_shows_program_task_and_snapshot) {
  par::SnapshotOptions named;
  named.name = "images";
  Wished wished(nothing, named);
  Wished unnamed(nothing);
  BOOST_TEST(testing::eventually([&] { return short_name(wished.snapshot->pid()) == "images"; }));
  BOOST_TEST(
      testing::eventually([&] { return short_name(unnamed.snapshot->pid()) == "snapshot"; }));
  par::Reactor loop;
  struct Shown {
    std::string comm;
    std::string line;
  };
  const auto shown = [&](Wished& where, const std::string& name) {
    par::Options options = where.options();
    options.name = name;
    auto f = par::run(
        loop, [](int) { return static_cast<int>(::getpid()); }, options);
    const pid_t pid = result_of_call(loop, f, 1).value();
    return Shown{short_name(pid), command_line(pid)};
  };
  const bool lines = command_line(wished.snapshot->pid()) != command_line(::getpid());
  // Otherwise this kernel does not allow a process to change its command line.
  if (lines) BOOST_TEST(command_line(wished.snapshot->pid()) == program() + ": snapshot [images]");

  Shown child = shown(wished, "resize");
  BOOST_TEST(child.comm == "resize");
  if (lines) BOOST_TEST(child.line == program() + ": resize [images]");
  child = shown(unnamed, "a name that is longer than the kernel takes");
  BOOST_TEST(child.comm == "a name that is ");
  if (lines) BOOST_TEST(child.line == program() + ": a name that is longer than the kernel takes");
  child = shown(wished, "");
  BOOST_TEST(child.comm == short_name(::getpid()));
  if (lines) BOOST_TEST(child.line == program() + ": child [images]");
}

BOOST_AUTO_TEST_CASE(a_long_title_is_cut_and_changes_neither_arguments_nor_environment) {
  par::SnapshotOptions named;
  named.name.assign(1000, 's');
  const std::string line = command_line(::getpid());
  const std::string before = proc(::getpid(), "environ");
  Wished wished(nothing, named);
  par::Reactor loop;
  par::Options options = wished.options();
  options.name.assign(1000, 't');
  auto f = par::run(
      loop,
      [](int) {
        return std::vector<std::string>{first_argument, proc(::getpid(), "environ"),
                                        command_line(::getpid())};
      },
      options);
  const std::vector<std::string> seen = result_of_call(loop, f, 1).value();
  BOOST_TEST(seen.at(0) == program_invocation_name);
  BOOST_TEST(seen.at(1) == before);
  BOOST_TEST(seen.at(2).size() < 256U);
  BOOST_TEST(command_line(::getpid()) == line);
  BOOST_TEST(short_name(::getpid()) == program().substr(0, 15));
}

// ---- out of memory ----

BOOST_AUTO_TEST_CASE(children_end_first_when_memory_runs_out) {
  const int own = std::stoi(proc(::getpid(), "oom_score_adj"));
  const auto of_child = [&](int added) {
    par::SnapshotOptions options;
    options.oom_score_adj = added;
    Wished wished(nothing, options);
    par::Reactor loop;
    auto f = par::run(
        loop, [](int) { return std::stoi(proc(::getpid(), "oom_score_adj")); }, wished.options());
    return result_of_call(loop, f, 1).value();
  };
  BOOST_TEST(of_child(par::SnapshotOptions{}.oom_score_adj) == std::min(own + 200, 1000));
  BOOST_TEST(of_child(0) == own);
  BOOST_TEST(of_child(50) == std::min(own + 50, 1000));
  BOOST_TEST(of_child(100000) == 1000);
  BOOST_TEST(std::stoi(proc(::getpid(), "oom_score_adj")) == own);
}
