// printed.cpp - output is printed once, completely, and before the answer.
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <functional>
#include <iostream>

namespace par = evparallel;

namespace {

// Runs `f` in a process of its own with standard output on a file or a pipe, lets it end normally, and returns the
// output of it and of all processes that it has forked.
template <class F>
std::string printed(F f, bool to_pipe) {
  int ends[2];
  if (::pipe(ends) != 0) throw std::runtime_error("pipe");
  char name[] = "/tmp/evparallel-XXXXXX";
  const int file = ::mkstemp(name);
  ::unlink(name);
  const pid_t pid = ::fork();
  if (pid == 0) {
    // Standard error is the pipe in either case: its end of file shows that all processes that could print are gone.
    ::dup2(to_pipe ? ends[1] : file, STDOUT_FILENO);
    ::dup2(ends[1], STDERR_FILENO);
    for (const int fd : {ends[0], ends[1], file}) ::close(fd);
    f();
    std::exit(0);
  }
  ::close(ends[1]);
  std::string text;
  char buffer[65536];
  for (ssize_t got; (got = ::read(ends[0], buffer, sizeof buffer)) > 0;)
    text.append(buffer, static_cast<std::size_t>(got));
  ::close(ends[0]);
  ::waitpid(pid, nullptr, 0);
  ::lseek(file, 0, SEEK_SET);
  for (ssize_t got; (got = ::read(file, buffer, sizeof buffer)) > 0;)
    text.append(buffer, static_cast<std::size_t>(got));
  ::close(file);
  return text;
}

std::size_t count(const std::string& text, const std::string& what) {
  std::size_t times = 0;
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1))
    ++times;
  return times;
}

// Keeps all processors busy during its lifetime.  It does not use threads: a process that is forked beside them may
// inherit a lock that one of them held.
class Load {
public:
  Load() {
    for (pid_t& pid : spinning_) {
      pid = ::fork();
      for (volatile bool on = pid == 0; on;) continue;
    }
  }
  ~Load() {
    for (const pid_t pid : spinning_) {
      ::kill(pid, SIGKILL);
      ::waitpid(pid, nullptr, 0);
    }
  }

private:
  pid_t spinning_[4];
};

int print_all(int x) {
  std::printf("answered %d\n", x);
  std::cout << "streamed " << x << '\n';
  return x;
}

struct AtDestruction {
  ~AtDestruction() { std::printf("destroyed\n"); }
};

// Prints in every process, at every stage, and ends without waiting for its idle children.
void program() {
  std::printf("before\n");  // in the buffer when the snapshot is forked
  std::cout << "before too\n";
  static const AtDestruction object;
  std::atexit([] { std::printf("at exit\n"); });
  par::init();
  std::printf("after\n");
  par::Reactor loop;
  auto f = par::run(loop, print_all);
  for (int i = 0; i < 5; ++i) f(i, [](par::Result<int> r) { r.value(); });
  auto exits = par::run(loop, [](int) -> int {
    std::printf("exits\n");
    std::exit(3);
  });
  exits(0, [](par::Result<int>) {});
  loop.run();
  // This child prints when it sees the end of its parent.
  static auto p = par::process(loop, [](par::Pipe<int, int> pipe) {
    pipe.send(1);
    pipe.on_end([] { std::printf("last words\n"); });
    pipe.on_error([pipe](const par::Error&) { pipe.close(); });
  });
  p.on_message([&](int) { loop.stop(); });
  loop.run();
}

void check(const std::string& text) {
  for (const char* once :
       {"before\n", "before too\n", "after\n", "at exit\n", "destroyed\n", "exits\n"})
    BOOST_TEST(count(text, once) == 1u, once << " in:\n" << text);
  // Unless it did not run in the 400 ms that it has.
  BOOST_TEST(count(text, "last words\n") <= 1u, text);
  for (int i = 0; i < 5; ++i) {
    BOOST_TEST(count(text, "answered " + std::to_string(i)) == 1u);
    BOOST_TEST(count(text, "streamed " + std::to_string(i)) == 1u);
  }
}

}  // namespace

BOOST_AUTO_TEST_CASE(nothing_is_lost_and_nothing_is_printed_twice,
                     *testing::guarantee("6.1 6.2 6.3 6.4")) {
  for (const bool to_pipe : {false, true}) {
    for (int i = 0; i < 10; ++i) check(printed(program, to_pipe));
    BOOST_TEST(
        testing::eventually([&] { return count(printed(program, to_pipe), "last words\n") == 1; }));
  }
}

BOOST_AUTO_TEST_CASE(nothing_is_lost_or_printed_twice_under_load) {
  const Load load;
  for (const bool to_pipe : {false, true})
    for (int i = 0; i < 20; ++i) check(printed(program, to_pipe));
}

BOOST_AUTO_TEST_CASE(output_of_a_task_is_written_before_its_answer_arrives) {
  const std::string text = printed(
      [] {
        par::init();
        par::Reactor loop;
        auto f = par::run(loop, print_all);
        std::function<void(par::Result<int>)> next = [&](par::Result<int> r) {
          std::printf("heard %d\n", r.value());
          std::fflush(stdout);
          if (*r < 20) f(*r + 1, next);
        };
        f(0, next);
        loop.run();
      },
      true);
  for (int i = 0; i <= 20; ++i) {
    const std::string x = std::to_string(i);
    BOOST_TEST(text.find("answered " + x + "\n") < text.find("heard " + x + "\n"));
    BOOST_TEST(text.find("streamed " + x + "\n") < text.find("heard " + x + "\n"));
  }
}

BOOST_AUTO_TEST_CASE(the_hello_example_prints_hello) {
  const std::string text = printed(
      [] {
        par::init();
        par::Reactor loop;
        auto puts = par::run(loop, [](const std::string& s) { return std::puts(s.c_str()); });
        puts("hello", [](par::Result<int> r) { r.value(); });
        loop.run();
      },
      false);
  BOOST_TEST(text == "hello\n");
}
