// crash_report.cpp - the record that a crashing process writes, the checks of that record, and names for addresses.
#include "elsewhere.hpp"
#include "errors.hpp"
#include "private_names.hpp"
#include "testing.hpp"

#include "backtrace/crash_record.hpp"
#include "shared/child_slots.hpp"
#include "backtrace/symbolizer.hpp"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

using namespace evparallel;

namespace {

constexpr std::uint64_t owner = 0x1234567890;

// A record that this process shares with the processes that it forks.
class SharedRecord {
public:
  SharedRecord() {
    void* memory = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    BOOST_REQUIRE(memory != MAP_FAILED);
    record_ = static_cast<CrashRecord*>(memory);
  }
  ~SharedRecord() { ::munmap(record_, 4096); }
  SharedRecord(const SharedRecord&) = delete;
  SharedRecord& operator=(const SharedRecord&) = delete;
  CrashRecord& operator*() const { return *record_; }
  CrashRecord* operator->() const { return record_; }

private:
  CrashRecord* record_;
};

// A process that calls f while its crashes are reported.  Returns its signal + 100.
template <class F>
int crash(const SharedRecord& record, F f) {
  return testing::elsewhere([&] {
    ::signal(SIGABRT, SIG_DFL);  // Boost has a handler of its own
    report_crashes(*record, owner, __builtin_frame_address(0));
    f();
    return 0;
  });
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_written_record_is_read_back) {
  const SharedRecord record;
  BOOST_TEST(crash(record, [] { ::raise(SIGABRT); }) == 100 + SIGABRT);
  const std::optional<Crash> crash = read_crash(*record, owner, SIGABRT);
  BOOST_REQUIRE(crash.has_value());
  BOOST_TEST(crash->signal == SIGABRT);
  BOOST_TEST(crash->code == SI_TKILL);
  BOOST_TEST(crash->fault_address == 0U);
  BOOST_TEST(crash->frames.size() > 1U);
  for (const std::uintptr_t address : crash->frames) BOOST_TEST(address != 0U);
}

BOOST_AUTO_TEST_CASE(nothing_is_written_without_a_crash) {
  const SharedRecord record;
  BOOST_TEST(crash(record, [] {}) == 0);
  BOOST_TEST(record->owner.load() == 0U);
  BOOST_TEST(!read_crash(*record, owner, SIGABRT).has_value());
}

BOOST_AUTO_TEST_CASE(an_impossible_record_is_ignored) {
  const SharedRecord record;
  crash(record, [] { ::raise(SIGABRT); });
  const std::uint64_t count = record->count.load();
  BOOST_TEST(!read_crash(*record, owner + 1, SIGABRT).has_value());
  BOOST_TEST(!read_crash(*record, owner, SIGSEGV).has_value());
  for (const std::uint64_t lie : {std::uint64_t{0}, std::uint64_t{longest_trace} + 1, UINT64_MAX}) {
    record->count.store(lie);
    BOOST_TEST(!read_crash(*record, owner, SIGABRT).has_value());
  }
  record->count.store(count);
  BOOST_TEST(read_crash(*record, owner, SIGABRT).has_value());
  record->signal = SIGSEGV;
  BOOST_TEST(!read_crash(*record, owner, SIGABRT).has_value());
}

// Wrong values in the record do not make the handler write outside of the record.
BOOST_AUTO_TEST_CASE(the_handler_does_not_trust_the_record) {
  const SharedRecord record;
  record->count.store(UINT64_MAX / 2);
  record->owner.store(owner + 1);
  BOOST_TEST(crash(record, [] { ::raise(SIGABRT); }) == 100 + SIGABRT);
  const std::optional<Crash> crash = read_crash(*record, owner, SIGABRT);
  BOOST_REQUIRE(crash.has_value());
  BOOST_TEST(crash->frames.size() < longest_trace);
}

// The record is read-only, and the fault in the handler ends the child at once.
BOOST_AUTO_TEST_CASE(a_fault_in_the_handler_ends_the_child) {
  const SharedRecord record;
  BOOST_TEST(crash(record, [&] {
               ::mprotect(&*record, 4096, PROT_READ);
               ::raise(SIGABRT);
             }) == 100 + SIGSEGV);
  BOOST_TEST(!read_crash(*record, owner, SIGABRT).has_value());
}

BOOST_AUTO_TEST_CASE(each_slot_has_its_own_record) {
  Slot* const arena = map_slots();
  BOOST_REQUIRE(arena != nullptr);
  auto* const first = reinterpret_cast<char*>(&crash_record(arena, 0));
  auto* const last = reinterpret_cast<char*>(&crash_record(arena, slot_count - 1));
  BOOST_TEST((first == reinterpret_cast<char*>(arena + slot_count)));
  BOOST_TEST((last == first + (slot_count - 1) * sizeof(CrashRecord)));
  crash_record(arena, slot_count - 1).frames[longest_trace - 1] = 1;  // it is mapped
  BOOST_TEST(crash_record(arena, slot_count - 1).owner.load() == 0U);
  unmap_slots(arena);
}

// ---- names ----

BOOST_AUTO_TEST_CASE(addresses_outside_of_code_have_no_function) {
  const std::shared_ptr<const Modules> modules = modules_now();
  const auto heap = std::make_unique<char[]>(100);
  const std::vector<std::uintptr_t> addresses = {0,
                                                 1,
                                                 4096,
                                                 reinterpret_cast<std::uintptr_t>(heap.get()),
                                                 reinterpret_cast<std::uintptr_t>(&addresses),
                                                 UINTPTR_MAX / 2,
                                                 UINTPTR_MAX};
  for (const First first : {First::instruction, First::return_address}) {
    const std::vector<StackFrame> frames = symbolised(*modules, addresses, first);
    BOOST_REQUIRE(frames.size() == addresses.size());
    for (std::size_t i = 0; i < frames.size(); ++i) {
      BOOST_TEST(reinterpret_cast<std::uintptr_t>(frames[i].address) == addresses[i]);
      BOOST_TEST(frames[i].function == "");
      BOOST_TEST(frames[i].module == "");
      BOOST_TEST(frames[i].file == "");
      BOOST_TEST(frames[i].line == 0);
      BOOST_TEST(testing::has(frames[i].describe(), "in an unknown function"));
    }
  }
  BOOST_TEST(symbolised(*modules, std::vector<std::uintptr_t>(), First::instruction).empty());
}

// The child had other code there, or none: its libraries are those of the snapshot.
BOOST_AUTO_TEST_CASE(a_library_that_was_loaded_later_is_not_named) {
  const auto address = reinterpret_cast<std::uintptr_t>(&::getppid);
  const Modules none{};
  const Modules all = *modules_now();
  const StackFrame unknown = symbolised(none, {address}, First::instruction).at(0);
  BOOST_TEST(unknown.function == "");
  BOOST_TEST(unknown.module == "");
  const std::vector<StackFrame> known = symbolised(all, {address}, First::instruction);
  BOOST_TEST(testing::has(known.back().function, "getppid"), known.back().describe());
  BOOST_TEST(known.back().offset == 0U);
  BOOST_TEST(testing::has(known.back().module, "/"));
}

// The return address of a call that never returns is the start of the next function.
BOOST_AUTO_TEST_CASE(a_return_address_belongs_to_the_call_before_it) {
  const Modules all = *modules_now();
  const auto address = reinterpret_cast<std::uintptr_t>(&::getppid);
  const std::vector<StackFrame> frames = symbolised(all, {address}, First::return_address);
  BOOST_TEST(!testing::has(frames.back().function, "getppid"), frames.back().describe());
}

// ---- text ----

BOOST_AUTO_TEST_CASE(frames_are_described_as_text) {
  StackFrame frame;
  frame.address = reinterpret_cast<const void*>(std::uintptr_t{0x1234});
  BOOST_TEST(frame.describe() == "0x1234 in an unknown function");
  frame.module = "/lib/x.so";
  frame.offset = 0x234;
  BOOST_TEST(frame.describe() == "0x1234 in an unknown function of /lib/x.so+0x234");
  frame.function = "f(int)";
  frame.offset = 18;
  BOOST_TEST(frame.describe() == "0x1234 in f(int)+0x12 of /lib/x.so");
  frame.file = "x.cpp";
  frame.line = 7;
  BOOST_TEST(frame.describe() == "0x1234 in f(int)+0x12 at x.cpp:7");
  frame.inlined = true;
  BOOST_TEST(frame.describe() == "0x1234 in f(int) (inlined) at x.cpp:7");
  BOOST_TEST(
      describe(std::vector<StackFrame>{frame, frame}) ==
      "#0 0x1234 in f(int) (inlined) at x.cpp:7\n#1 0x1234 in f(int) (inlined) at x.cpp:7\n");
}

BOOST_AUTO_TEST_CASE(reports_are_described_as_text) {
  const auto words = [](int signal, int code) {
    CrashReport report;
    report.signal = signal;
    report.code = code;
    report.fault_address = code > 0 ? reinterpret_cast<const void*>(std::uintptr_t{0x10}) : nullptr;
    return report.describe();
  };
  BOOST_TEST(words(SIGSEGV, SEGV_MAPERR) == "SIGSEGV (address not mapped) at 0x10\n");
  BOOST_TEST(words(SIGSEGV, SI_KERNEL) == "SIGSEGV (not an address)\n");
  BOOST_TEST(words(SIGFPE, FPE_INTDIV) == "SIGFPE (integer divided by zero) at 0x10\n");
  BOOST_TEST(words(SIGABRT, SI_TKILL) == "SIGABRT (sent by a process)\n");
  BOOST_TEST(words(SIGBUS, 77) == "SIGBUS (code 77) at 0x10\n");
  BOOST_TEST(words(1000, SI_USER) == "signal 1000 (sent by a process)\n");
}
