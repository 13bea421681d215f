// process.hpp - queries about processes for tests: their state, their descriptors, their cores; and memory shared with
// them.
#pragma once

#include "testing.hpp"

#include <sys/mman.h>
#include <sys/socket.h>

#include <chrono>
#include <map>
#include <new>
#include <string>
#include <utility>
#include <vector>

namespace testing {

// The present children of `parent`, zombies too.
std::vector<pid_t> children_of(pid_t parent);

// The state in /proc: R, S, T, Z, ...; '-': there is no such process.
char state_of(pid_t pid);

// Whether `pid` runs.  A zombie does not: this process does not control who reaps an orphan, and when.
bool process_exists(pid_t pid);

// Uses processor time, which is not the time that passes on a busy machine.
void burn(std::chrono::milliseconds);

// Waits until `pid` does not run.
inline bool gone(pid_t pid, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  return eventually([pid] { return !process_exists(pid); }, file, line);
}

// The open descriptors of a process by their numbers, and their targets.  Empty for a process that has ended.
std::map<int, std::string> descriptors_of(pid_t pid);

// Sends a byte with these descriptors, past the library; `sender`: the credentials to name, which root may choose.
// Returns 0 or an errno.
int send_along(int socket, const std::vector<int>& descriptors, const ucred* sender = nullptr);

// A folder for files of the case, which is removed with all its files.
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

// For cases in which a process writes a core into its working directory.  True: no core would be written there, and the
// case is shown as skipped; the caller returns then.
bool skipped_without_cores();
// This process, and the processes that it forks, write cores from now on.
void write_cores();

// A T that this process shares with the processes that it forks from now on, until it ends.
template <class T>
T& shared() {
  void* const memory =
      ::mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  return *new (memory) T{};
}

}  // namespace testing
