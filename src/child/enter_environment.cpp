// enter_environment.cpp - sets title, directory, CPUs and environment variables of this child.
// Runs in: child.  Licence: see COPYING.
#include "child/enter_environment.hpp"

#include "base/startup_path.hpp"
#include "base/system_error.hpp"
#include "system/process_title.hpp"
#include "system/usable_cpus.hpp"

#include <stdlib.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string>
#include <vector>

namespace evparallel::detail {

namespace {

std::string_view take_word(std::string_view& text) noexcept {
  const std::string_view word = text.substr(0, text.find('\0'));
  text.remove_prefix(word.size() + 1);
  return word;
}

void enter_affinity(const std::string& text) {
  std::vector<int> cpus;
  for (const char* at = text.c_str(); *at != '\0'; at += *at == ',') {
    char* end = nullptr;
    cpus.push_back(static_cast<int>(std::strtol(at, &end, 10)));
    at = end;
  }
  const int error = cpus.empty() ? 0 : use_cpus(cpus);
  if (error != 0)
    throw system_error(Errc::spawn_failed,
                       "spawn failed: Options::affinity cannot be set to " + text, error);
}

}  // namespace

EVPARALLEL_EARLY void apply_environment(std::string_view text) {
  if (text.empty()) return set_child_title({});
  set_child_title(take_word(text));
  const std::string directory(take_word(text));
  enter_affinity(std::string(take_word(text)));
  while (!text.empty()) {
    const std::string variable(take_word(text));
    const std::size_t end = variable.find('=');
    ::setenv(variable.substr(0, end).c_str(), variable.c_str() + end + 1, 1);
  }
  if (directory.empty() || ::chdir(directory.c_str()) == 0) return;
  const int error = errno;
  throw system_error(Errc::spawn_failed,
                     "spawn failed: the child cannot enter the directory " + directory, error);
}

}  // namespace evparallel::detail
