// process.cpp - step 5: one child with typed messages both ways.
#include <evparallel/evparallel.hpp>

#include <cstdio>
#include <sstream>
#include <string>

namespace par = evparallel;

struct Count {
  int line = 0;
  int words = 0;
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Count, line, words)

// Runs in the child: reads lines, writes a Count for each.  It sets its callback and returns.
static void count_words(par::Pipe<std::string, Count> pipe) {
  pipe.on_message([pipe, line = 0](const std::string& text) mutable {
    std::istringstream in(text);
    Count count{++line, 0};
    for (std::string word; in >> word;) ++count.words;
    pipe.send(count);
  });
}

int main() {
  par::init();
  par::Reactor loop;
  par::Options options;
  options.high_water = 16 * 1024;
  auto child = par::process(loop, count_words, options);

  // Writes until the pipe is full; on_drain continues.
  const int lines = 5000;
  int sent = 0;
  int pauses = 0;
  const auto write = [&] {
    while (sent < lines) {
      ++sent;
      if (!child.send("the quick brown fox jumps over the lazy dog")) {
        ++pauses;
        return;
      }
    }
    if (!child.closed()) child.close();
  };
  long words = 0;
  int last = 0;
  child.on_start([](pid_t pid) { std::printf("started: %s\n", pid > 0 ? "yes" : "no"); });
  child.on_drain(write);
  child.on_message([&](const Count& count) {
    words += count.words;
    last = count.line;
  });
  child.on_error([](const par::Error& error) { std::printf("error: %s\n", error.what()); });
  child.on_end([&] { std::printf("%d lines, %ld words\n", last, words); });
  child.on_exit([](const par::ExitStatus& status) {
    std::printf("the child ended: cause %s\n", to_string(status.cause));
  });
  write();
  loop.run();
  std::printf("the writer had to pause: %s\n", pauses > 0 ? "yes" : "no");
}
