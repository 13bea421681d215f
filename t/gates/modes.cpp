// modes.cpp - a program that uses most of the library; modes.sh compiles it in each mode of a compiler, and runs it.
#include <evparallel/evparallel.hpp>
#if __cplusplus >= 202002L
#include <evparallel/coroutine.hpp>
#endif

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <iostream>
#include <stdexcept>
#include <streambuf>
#include <string>
#include <vector>

namespace par = evparallel;

namespace {

// A type with a codec of its own.
struct Range {
  std::uint32_t first = 0;
  std::uint32_t last = 0;
};

struct RangeIo {
  static void put(par::Writer& out, const Range& range) { out.write(&range, sizeof range); }
  static Range get(par::Reader& in) {
    Range range;
    in.read(&range, sizeof range);
    return range;
  }
};

struct Refused : std::runtime_error {
  using std::runtime_error::runtime_error;
};

int failures = 0;

void expect(bool holds, const char* what) {
  if (holds) return;
  std::printf("not so: %s\n", what);
  ++failures;
}

std::uint32_t sum(Range range) {
  std::uint32_t all = 0;
  for (std::uint32_t i = range.first; i <= range.last; ++i) all += i;
  return all;
}

std::string greet(const std::string& name) {
  if (name.empty()) throw Refused("no name");
  return "hello " + name;
}

// An exception inside of another one: both have virtual functions, which have no type with -fno-rtti.
int refuse(int) {
  try {
    throw Refused("the inner one");
  } catch (const Refused&) {
    std::throw_with_nested(Refused("the outer one"));
  }
}

// A buffer of a class of the program, which the library flushes.
class Counter : public std::streambuf {
public:
  int flushes = 0;

private:
  int sync() override {
    ++flushes;
    return 0;
  }
};

void doubles(par::Pipe<int, std::vector<int>> pipe) {
  pipe.on_message([pipe](int n) mutable { pipe.send({n, 2 * n}); });
}

void call(par::Reactor& loop) {
  auto remote = par::run(loop, greet);
  std::string said;
  par::Errc code{};
  std::string type;
  std::string text;
  remote("world", [&](par::Result<std::string> r) { said = r.value(); });
  remote("", [&](par::Result<std::string> r) {
    code = r.error().code();
    type = r.error().remote_type();
    text = r.error().what();
  });
  loop.run();
  expect(said == "hello world", "a call is answered");
  expect(code == par::Errc::remote_exception, "an exception of the child is an error here");
  expect(type.find("Refused") != std::string::npos, "which has the type of the exception");
  expect(text.find("no name") != std::string::npos, "and its text");

  auto refused = par::run(loop, refuse);
  refused(1, [&](par::Result<int> r) { text = r.error().what(); });
  loop.run();
  expect(text.find("the outer one") != std::string::npos, "an exception with another one arrives");
  expect(text.find("the inner one") != std::string::npos, "and so does the other one");

  auto total = par::run<par::RawIo, RangeIo>(loop, sum);
  std::uint32_t all = 0;
  total(Range{1, 100}, [&](par::Result<std::uint32_t> r) { all = r.value(); });
  loop.run();
  expect(all == 5050, "a codec of the program sends the argument");
}

void exchange(par::Reactor& loop) {
  auto child = par::process(loop, doubles);
  std::vector<int> seen;
  bool exited = false;
  child.on_message([&](const std::vector<int>& pair) { seen = pair; });
  child.on_exit([&](const par::ExitStatus& status) { exited = status.exited(); });
  child.send(21);
  child.close();
  loop.run();
  expect(seen == std::vector<int>{21, 42}, "a process sends a message");
  expect(exited, "and ends");
}

void map(par::Reactor& loop) {
  par::PoolOptions options;
  options.workers = 2;
  auto pool = par::pool(
      loop,
      [](int n) {
        if (n == 13) throw std::out_of_range("thirteen");
        return n * n;
      },
      options);
  int one = 0;
  pool.submit(7, [&](par::Result<int> r) { one = r.value(); });
  std::vector<int> numbers;
  for (int i = 0; i < 100; ++i) numbers.push_back(i);
  std::vector<int> squares(numbers.size());
  std::size_t done = 0;
  std::size_t failed = 0;
  pool.map(
      numbers,
      [&](std::size_t i, par::Result<int> r) {
        if (r) squares[i] = *r;
      },
      [&](const par::MapSummary& summary) {
        done = summary.done;
        failed = summary.failed;
      });
  loop.run();
  expect(one == 49, "a pool answers a call");
  expect(squares[99] == 99 * 99, "a map answers each item");
  expect(done == 99 && failed == 1, "an item that throws fails alone");
}

#if __cplusplus >= 202002L
void await(par::Reactor& loop) {
  auto remote = par::run(loop, [](int n) { return n + 1; });
  const auto twice = [&]() -> par::Task<int> {
    const int next = co_await par::call(remote, 1);
    co_return co_await par::call(remote, next);
  };
  expect(par::wait(loop, twice()) == 3, "a coroutine awaits calls");
}
#endif

}  // namespace

int main() {
  Counter counter;
  std::streambuf* const usual = std::clog.rdbuf(&counter);
  par::init();
  {
    par::Reactor loop;
    call(loop);
    exchange(loop);
    map(loop);
#if __cplusplus >= 202002L
    await(loop);
#endif
  }
  expect(counter.flushes > 0, "the library flushes a buffer of the program");
  std::clog.rdbuf(usual);
  if (failures == 0) std::puts("all of it works");
  return failures == 0 ? 0 : 1;
}
