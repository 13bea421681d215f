// runtime_threads.cpp - finds them by their blocked signals, if the process has such a runtime.
// Runs in: parent.  Licence: see COPYING.
#include "spawn/runtime_threads.hpp"

#include "system/emulation.hpp"
#include "system/process_stat.hpp"
#include "system/text_file.hpp"

#include <signal.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>

// Weak: it is defined if the program was built with ThreadSanitizer, whether or not this library was.
extern "C" __attribute__((weak, visibility("default"))) void __tsan_init();

namespace evparallel::detail {

namespace {

bool blocks_signals_from_outside(int tid) {
  constexpr int from_outside[] = {SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGTERM};
  constexpr std::string_view label = "\nSigBlk:";
  std::string text;
  read_text_file("/proc/self/task/" + std::to_string(tid) + "/status", text);
  const std::size_t at = text.find(label);
  if (at == std::string::npos) return false;
  const std::uint64_t blocked = std::strtoull(text.c_str() + at + label.size(), nullptr, 16);
  return std::all_of(std::begin(from_outside), std::end(from_outside),
                     [blocked](int signum) { return (blocked >> (signum - 1) & 1) != 0; });
}

// In ticks of the kernel's clock since it was booted.
std::uint64_t start_time_of(int tid) {
  constexpr std::size_t start_time = 22 - 3;  // fields are counted from 1
  std::uint64_t numbers[start_time + 1] = {};
  read_stat(("/proc/self/task/" + std::to_string(tid) + "/stat").c_str(), numbers, start_time + 1);
  return numbers[start_time];
}

}  // namespace

void leave_out_runtime_threads(std::vector<int>& tids) {
  int left = (__tsan_init ? 1 : 0) + (is_emulated() ? 1 : 0);
  if (left == 0) return;
  // By number alone the order would be wrong where the kernel has begun to count from 1 again.
  std::vector<std::pair<std::uint64_t, int>> by_age;
  for (const int tid : tids) by_age.emplace_back(start_time_of(tid), tid);
  std::sort(by_age.begin(), by_age.end());
  std::transform(by_age.begin(), by_age.end(), tids.begin(),
                 [](const auto& thread) { return thread.second; });
  tids.erase(std::remove_if(tids.begin(), tids.end(),
                            [&left](int tid) {
                              return left > 0 && blocks_signals_from_outside(tid) && left-- > 0;
                            }),
             tids.end());
}

}  // namespace evparallel::detail
