// child_environment.cpp - turns Options into bytes and descriptors for the child.
// Runs in: parent.  Licence: see COPYING.
#include "spawn/child_environment.hpp"

#include "base/system_error.hpp"
#include "system/new_descriptor.hpp"
#include "system/usable_cpus.hpp"

#include <unistd.h>

#include <cerrno>
#include <stdexcept>

namespace evparallel::detail {

namespace {

constexpr const char* names_of_streams[] = {"in", "out", "err"};

void check_text(const std::string& what, const std::string& text) {
  if (text.find('\0') != text.npos)
    throw std::logic_error("evparallel: Options::" + what + " contains a null byte");
}

// Numbers separated by commas.
std::string text_of(const std::vector<int>& cpus) {
  std::string text;
  for (const int cpu : cpus) {
    if (cpu < 0 || cpu > highest_cpu)
      throw std::logic_error("evparallel: Options::affinity contains an invalid CPU number: " +
                             std::to_string(cpu));
    text += (text.empty() ? "" : ",") + std::to_string(cpu);
  }
  return text;
}

// Name, directory, CPUs, and each variable as in environ, with a null byte behind each; empty if
// none of them is set.
std::string text_of(const Options& options) {
  check_text("name", options.name);
  check_text("cwd", options.cwd);
  if (options.name.empty() && options.cwd.empty() && options.affinity.empty() &&
      options.env.empty())
    return {};
  std::string text = options.name + '\0' + options.cwd + '\0' + text_of(options.affinity) + '\0';
  for (const auto& [name, value] : options.env) {
    if (name.empty() || name.find('=') != name.npos)
      throw std::logic_error("evparallel: Options::env contains an invalid name: \"" + name + '"');
    check_text("env", name + value);
    text += name + '=' + value + '\0';
  }
  return text;
}

Error no_stream(int number, int error) {
  return system_error(Errc::spawn_failed,
                      std::string("spawn failed: there is no descriptor left for Options::") +
                          names_of_streams[number],
                      error);
}

DupFd copy_of(int fd, int number) {
  const int copy = open_copy(fd);
  if (copy >= 0) return DupFd(copy);
  if (errno != EBADF) throw no_stream(number, errno);
  throw std::logic_error(std::string("evparallel: Options::") + names_of_streams[number] +
                         " names descriptor " + std::to_string(fd) + ", which is not open");
}

}  // namespace

ChildEnvironment::ChildEnvironment(const Options& options)
    : text_(text_of(options)), streams_{options.in, options.out, options.err} {
  if (options.in.kind() == Stdio::Kind::captured)
    throw std::logic_error("evparallel: Options::in cannot be captured: a child reads it");
  for (int number = 0; number < StdioPlan::count; ++number) {
    const Stdio& stream = streams_[number];
    const bool lost = stream.kind() == Stdio::Kind::inherited && number == STDIN_FILENO;
    if (stream.kind() == Stdio::Kind::descriptor || lost)
      given_[number] = copy_of(lost ? STDIN_FILENO : stream.descriptor(), number);
  }
}

bool ChildEnvironment::captures() const noexcept {
  return streams_[STDOUT_FILENO].kind() == Stdio::Kind::captured ||
         streams_[STDERR_FILENO].kind() == Stdio::Kind::captured;
}

StdioPlan ChildEnvironment::open_streams(CapturedOutput* output) const {
  StdioPlan streams;
  for (int number = 0; number < StdioPlan::count; ++number) {
    const Stdio::Kind kind = streams_[number].kind();
    if (given_[number]) streams.give(number, copy_of(given_[number].get(), number));
    if (kind == Stdio::Kind::null) streams.plan |= stream_null(number);
    if (kind != Stdio::Kind::captured) continue;
    DupFd theirs;
    if (const int error = output->open(number, theirs)) throw no_stream(number, error);
    streams.give(number, std::move(theirs));
    streams.plan |= stream_by_lines(number);
  }
  return streams;
}

}  // namespace evparallel::detail
