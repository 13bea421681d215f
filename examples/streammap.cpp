// streammap.cpp - the prime factors of the numbers on standard input, line by line, as factor(1)
// prints them.
//
// Shows: a stream with a brake at each end.  Input is read only as fast as the children work, and
// they get items only as fast as the output is taken, so any number of lines needs little memory.
#include <evparallel/evparallel.hpp>

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <stdexcept>
#include <string>

namespace par = evparallel;

static std::string factors_of(const std::string& line) {
  if (line.find_first_not_of("0123456789") != std::string::npos || line.empty())
    throw std::invalid_argument("\"" + line + "\" is not a number");
  unsigned long left = std::stoul(line);
  std::string text = line + ":";
  for (unsigned long factor = 2; left > 1; ++factor) {
    if (left / factor < factor) factor = left;
    for (; left % factor == 0; left /= factor) text += " " + std::to_string(factor);
  }
  return text;
}

int main() {
  par::init();
  par::Reactor loop;
  auto pool = par::pool(loop, factors_of);
  par::Watch input, output;
  par::Stream<std::string> stream;
  std::string unread;     // the beginning of a line
  std::string unwritten;  // results

  const auto write_results = [&] {
    // The number of bytes that a ready pipe takes at once.
    const auto written =
        ::write(STDOUT_FILENO, unwritten.data(), std::min<std::size_t>(unwritten.size(), 4096));
    if (written < 0) throw std::runtime_error("cannot write");
    unwritten.erase(0, static_cast<std::size_t>(written));
    if (unwritten.size() < 32768) stream.resume();
    if (unwritten.empty()) output = {};
  };
  stream = pool.stream(
      [&](std::size_t, par::Result<std::string> result) {
        unwritten += (result ? *result : result.error().what()) + std::string("\n");
        if (unwritten.size() > 65536) stream.pause();
        if (!output.active()) output = loop.on_writable(STDOUT_FILENO, write_results);
      },
      [](const par::MapSummary& s) { std::fprintf(stderr, "%zu lines\n", s.done + s.failed); });

  const auto read_lines = [&] {
    char block[65536];
    const auto size = ::read(STDIN_FILENO, block, sizeof block);
    if (size > 0) unread.append(block, static_cast<std::size_t>(size));
    if (size <= 0 && !unread.empty()) unread += '\n';
    bool more = true;
    std::size_t at = 0;
    for (std::size_t end; (end = unread.find('\n', at)) != std::string::npos; at = end + 1)
      more = stream.push(unread.substr(at, end - at));
    unread.erase(0, at);
    if (!more || size <= 0) input = {};  // until on_drain, or for ever
    if (size <= 0) stream.close();
  };
  stream.on_drain([&] { input = loop.on_readable(STDIN_FILENO, read_lines); });
  input = loop.on_readable(STDIN_FILENO, read_lines);
  loop.run();
}
