// parent.cpp - a parent whose children and snapshot are a script: remote functions, pools and processes.
//
// Whatever they send: each callback comes once, none comes after the end, the loop becomes idle, and no descriptor is
// left.
#include "world.hpp"

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

using namespace evparallel;
using namespace std::chrono_literals;
using fuzzing::Once;
using fuzzing::Script;
using fuzzing::World;

namespace {

// These run in no child.
int add(int number) {
  return number + 1;
}
std::string shout(const std::string& text) {
  return text + "!";
}
std::vector<Fd> files(int) {
  return {};
}
void later(int number, Reply<int> reply) {
  reply(number);
}
void echo(Pipe<std::string, std::string> pipe) {
  pipe.on_message([pipe](const std::string& text) { pipe.send(text); });
}

Options options_of(unsigned bits, World& world) {
  Options options;
  options.snapshot = &world.snapshot();
  options.linger = options.grace = 0ms;
  options.max_message = 4096;
  options.max_decoded = 16 * 1024;
  options.high_water = 64;
  options.retries = bits & 1;
  options.idempotent = (bits & 2) != 0;
  options.backtrace = (bits & 4) != 0;
  if (bits & 8) {
    options.out = Stdio::capture();
    options.err = Stdio::capture();
    options.on_line = [](const OutputLine& line) { REQUIRE(line.text.size() <= 64 * 1024); };
    options.last_lines = 2;
  }
  if (bits & 16) options.deadline = 1ms;
  return options;
}

// What the program does with what it has: one of these for each kind.
class Program {
public:
  virtual ~Program() = default;
  virtual void act(Script&) = 0;
  virtual void drop() = 0;  // its handle
  virtual void go_on() {}   // it is not paused
  // All callbacks were called.
  virtual void check() = 0;
};

constexpr std::size_t most_calls = 40;

// Calls of a remote function or of a pool.
template <class Handle, class Make>
class Calls final : public Program {
public:
  Calls(Handle&& handle, Make make) : handle_(std::move(handle)), make_(make) { call(); }

  void act(Script& script) override {
    const unsigned what = script.byte();
    if (what % 4 < 2) return call();
    const Call& one = calls_[script.byte() % calls_.size()];
    if (what % 4 == 2)
      one.cancel();
    else
      one.set_deadline(std::chrono::milliseconds(script.byte() % 2));
  }
  void drop() override { handle_.reset(); }
  void check() override {
    for (const Once& one : answers_) REQUIRE(one.answered());
  }

private:
  void call() {
    if (!handle_ || calls_.size() >= most_calls) return;
    answers_.emplace_back();
    Once& once = answers_.back();
    calls_.push_back(make_(*handle_, [once](auto result) mutable { once.take(result); }));
  }

  std::optional<Handle> handle_;
  Make make_;
  std::vector<Once> answers_;
  std::vector<Call> calls_;
};

template <class Handle, class Make>
std::unique_ptr<Program> calls(Handle&& handle, Make make) {
  return std::make_unique<Calls<Handle, Make>>(std::move(handle), make);
}

// A process: messages, one end, one exit, in this order.
class Conversation final : public Program {
public:
  Conversation(Reactor& loop, const Options& options)
      : process_(process<RawIo, RawIo>(loop, echo, options)) {
    process_->on_message([this](const std::string& text) {
      REQUIRE(ends_ == 0 && exits_ == 0);
      REQUIRE(text.size() <= 4096);
    });
    process_->on_end([this] {
      REQUIRE(exits_ == 0);
      ++ends_;
    });
    process_->on_error([this](const Error& error) {
      REQUIRE(exits_ == 0);
      REQUIRE(error.code() >= Errc::no_snapshot && error.code() <= Errc::unhealthy);
    });
    process_->on_exit([this](const ExitStatus& status) {
      ++exits_;
      REQUIRE(!status.describe().empty());
    });
  }

  void act(Script& script) override {
    if (!process_) return;
    switch (script.byte() % 8) {
      case 0: return process_->pause();
      case 1: return process_->resume();
      case 2: return process_->close();
      case 3: return process_->kill(15);
      case 4: return process_->terminate(0ms);
      default:
        if (!process_->closed()) process_->send(std::string(script.byte(), 'x'));
    }
  }
  void drop() override { process_.reset(); }
  void go_on() override {
    if (process_) process_->resume();
  }
  void check() override {
    REQUIRE(ends_ <= 1 && exits_ <= 1);
    if (process_) REQUIRE(ends_ == 1 && exits_ == 1);
  }

private:
  int ends_ = 0;
  int exits_ = 0;
  std::optional<Process<std::string, std::string>> process_;
};

std::unique_ptr<Program> program(unsigned kind, Reactor& loop, const Options& options) {
  switch (kind % 7) {
    case 0:
      return calls(run<RawIo>(loop, add, options), [](auto& f, auto take) { return f(7, take); });
    case 1:
      return calls(run(loop, shout, options), [](auto& f, auto take) { return f("so", take); });
    case 2:
      return calls(run<PackedIo>(loop, files, options),
                   [](auto& f, auto take) { return f(2, take); });
    case 3:
      return calls(run<RawIo>(loop, later, options), [](auto& f, auto take) { return f(7, take); });
    case 4:
    case 5: {
      PoolOptions pool_options;
      pool_options.workers = 2;
      pool_options.max_failed_starts = 2;
      pool_options.min_workers = kind % 7 == 5 ? 1 : 0;
      pool_options.child = options;
      return calls(pool<RawIo>(loop, add, pool_options),
                   [](auto& f, auto take) { return f.submit(7, take); });
    }
    default: return std::make_unique<Conversation>(loop, options);
  }
}

void play(Script script) {
  World world;
  {
    Reactor loop;
    const unsigned kind = script.byte();
    const unsigned bits = script.byte();
    const std::unique_ptr<Program> one = program(kind, loop, options_of(bits, world));
    const std::size_t steps = script.remaining();
    while (!script.empty()) {
      world.look();
      const unsigned order = script.byte();
      if (order % 8 == 0)
        one->act(script);
      else if (order == 255)
        one->drop();
      else
        world.obey(script);
      if (order % 4 != 3) fuzzing::turn(loop);
    }
    if (bits & 32) one->drop();
    one->go_on();
    // A child that ends, or cannot be had, is not asked for without end.
    world.look();
    REQUIRE(world.children() <= 16 + steps + 8 * most_calls);
    fuzzing::run_to_the_end(world, loop, (bits & 64) != 0);
    one->check();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  // The first run opens what stays open.
  static const bool prepared = (play({nullptr, 0}), true);
  REQUIRE(prepared);
  const std::size_t before = fuzzing::open_descriptors();
  play({data, size});
  REQUIRE(fuzzing::open_descriptors() == before);
  return 0;
}
