// process.hpp - what tests ask about processes: their state, their descriptors, their cores; and memory shared with them.
#pragma once

#include "testing.hpp"

#include <sys/mman.h>

#include <map>
#include <new>
#include <string>
#include <utility>
#include <vector>

namespace testing {

// The children that `parent` has now, zombies too.
std::vector<pid_t> children_of(pid_t parent);

// As /proc says it: R, S, T, Z, ...; '-': there is no such process.
char state_of(pid_t pid);

// Whether `pid` runs. A zombie does not: who reaps an orphan, and when, is not ours to say.
bool process_exists(pid_t pid);

// Waits until it does not.
inline bool gone(pid_t pid, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  return eventually([pid] { return !process_exists(pid); }, file, line);
}

// The open descriptors of a process by their numbers, and what each leads to.  Nothing of a process that has ended.
std::map<int, std::string> descriptors_of(pid_t pid);

// A folder for files of the case, which goes with it and with all that is in it.
class Folder {
public:
  Folder();
  ~Folder();
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  const std::string& path() const { return path_; }

private:
  std::string path_;
};

// For cases in which a core is written into the working directory of a process.  True: none would be, and the case is
// shown as skipped; return after it.
bool skipped_without_cores();
// This process, and those that it forks, write cores from now on.
void write_cores();

// A T that this process shares with those that it forks from now on, for as long as it runs.
template <class T>
T& shared() {
  void* const memory =
      ::mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  return *new (memory) T{};
}

}  // namespace testing
