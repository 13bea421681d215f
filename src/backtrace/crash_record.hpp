// crash_record.hpp - what a child tells of a signal that ends it, while it ends.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
//
// Nobody else can tell: the snapshot sees a number, and a core may not be written.  But a process
// that has crashed has little left that works.  So its handler only writes numbers, into memory that
// the parent shares; the parent knows what they mean, since it has the same image at the same
// addresses.
#pragma once

#include "backtrace/stack_walk.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace evparallel {

// One for each slot; costs memory once it was written.  Untrusted input to the parent.
struct alignas(1024) CrashRecord {
  // The note owner of the child whose crash this is: of whoever had the slot before it is ignored.
  // Written when the rest makes sense.
  std::atomic<std::uint64_t> owner;
  std::int32_t signal;
  std::int32_t code;            // si_code
  std::uint64_t fault_address;  // si_addr, where there is one
  std::atomic<std::uint64_t> count;
  std::uint64_t frames[longest_trace];  // the first is where the signal came, the others returns
};

// ---- in the child ----

// From now on a signal that means a crash is written down before it ends this process as it would
// without: same wait status, same core.  `outermost` is in the last frame that is of interest.
// A disposition that is set later wins.
void report_crashes(CrashRecord&, std::uint64_t owner, const void* outermost) noexcept;

// ---- in the parent ----

struct Crash {
  int signal;
  int code;
  std::uintptr_t fault_address;
  std::vector<std::uintptr_t> frames;
};
// What this child, which was ended by this signal, has written.  Empty: nothing, or what cannot be
// true.
std::optional<Crash> read_crash(const CrashRecord&, std::uint64_t owner, int signal);

}  // namespace evparallel
