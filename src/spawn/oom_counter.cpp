// oom_counter.cpp - the control group's count of kills.
// Runs in: parent.  Licence: see COPYING.
#include "spawn/oom_counter.hpp"

#include "system/text_file.hpp"

#include <unistd.h>

#include <sstream>

namespace evparallel::detail {

namespace {

// False: there is no counter.
bool read_kills(const std::string& path, std::uint64_t& kills) {
  std::string text;
  read_text_file(path, text);
  std::istringstream file(text);
  std::string word;
  while (file >> word)
    if (word == "oom_kill") return static_cast<bool>(file >> kills);
  return false;
}

// In a container the path may be that of the host, and the group may be the root of the mount.
std::string existing(const std::string& folder, const std::string& group, const char* name) {
  for (const std::string& path : {folder + group + "/" + name, folder + "/" + name})
    if (::access(path.c_str(), R_OK) == 0) return path;
  return {};
}

bool has_controller(const std::string& list, const char* wanted) {
  std::istringstream names(list);
  std::string name;
  while (std::getline(names, name, ','))
    if (name == wanted) return true;
  return false;
}

}  // namespace

// The lines are "number:controllers:group"; that of v2 has number 0 and no controllers.
std::string oom_counter_path(const std::string& cgroups, const std::string& mount) {
  std::istringstream lines(cgroups);
  std::string line;
  std::string of_v2;
  while (std::getline(lines, line)) {
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first == std::string::npos ? first : first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string group = line.substr(second + 1);
    if (has_controller(controllers, "memory")) {
      const std::string of_v1 = existing(mount + "/memory", group, "memory.oom_control");
      if (!of_v1.empty()) return of_v1;
    } else if (controllers.empty()) {
      of_v2 = existing(mount, group, "memory.events");
      if (of_v2.empty()) of_v2 = existing(mount + "/unified", group, "memory.events");
    }
  }
  return of_v2;
}

void OomCounter::watch() {
  std::string cgroups;
  read_text_file("/proc/self/cgroup", cgroups);
  counter_ = oom_counter_path(cgroups, "/sys/fs/cgroup");
  if (!read_kills(counter_, known_)) counter_.clear();
}

bool OomCounter::consume_kill() {
  std::uint64_t kills = 0;
  if (counter_.empty() || !read_kills(counter_, kills) || kills <= known_) return false;
  ++known_;
  return true;
}

}  // namespace evparallel::detail
