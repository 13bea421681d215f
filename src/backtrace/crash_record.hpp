// crash_record.hpp - what a child records about the signal that ends it.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
//
// No other process can record it: the snapshot only sees a signal number, and a core may not be
// written.  But in a process that has crashed little works any more.  So its handler only writes
// numbers, into memory that the parent shares.  The parent can interpret them, because it has the
// same image at the same addresses.
#pragma once

#include "backtrace/stack_walk.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace evparallel::detail {

// One for each slot; costs memory only once it is written.  Untrusted input to the parent.
struct alignas(1024) CrashRecord {
  // The id, in the cancel table, of the child that has crashed, so that a record of an earlier
  // child in this slot is ignored.  Written last, when the rest is valid.
  std::atomic<std::uint64_t> owner;
  std::int32_t signal;
  std::int32_t code;            // si_code
  std::uint64_t fault_address;  // si_addr, if there is one
  std::atomic<std::uint64_t> count;
  std::uint64_t frames[longest_trace];  // first: where the signal came; others: return addresses
};

// ---- in the child ----

// From now on a signal that means a crash is recorded before it ends this process as it would
// without: same wait status, same core.  `outermost` is in the last frame that is recorded.  A
// disposition that is set later overrides this.
void report_crashes(CrashRecord&, std::uint64_t owner, const void* outermost) noexcept;

// ---- in the parent ----

struct Crash {
  int signal;
  int code;
  std::uintptr_t fault_address;
  std::vector<std::uintptr_t> frames;
};
// The record of this child, which was ended by this signal.  Empty: there is none, or it is not
// plausible.
std::optional<Crash> read_crash(const CrashRecord&, std::uint64_t owner, int signal);

}  // namespace evparallel::detail
