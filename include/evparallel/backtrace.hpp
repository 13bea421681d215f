// backtrace.hpp - stack frames and crash reports of children.
// Licence: see COPYING.  Manual: evparallel_backtrace(3).
//
// Plain values, filled in by the parent, for children with Options::backtrace.
#pragma once

#include <evparallel/detail/export.hpp>

#include <cstddef>
#include <string>
#include <vector>

namespace evparallel {

// One active function.  Members that are not known are empty or 0: `file` and `line` need debug
// information, `function` needs a symbol.
struct EVPARALLEL_API StackFrame {
  const void* address = nullptr;  // of the instruction that faulted, or the return address
  std::string function{};         // demangled
  std::size_t offset = 0;         // of `address` in the function, or in the module if unknown
  std::string module{};           // path of the program or library that contains it
  std::string file{};
  int line = 0;
  // The compiler has inlined the function into that of the next frame, and the address belongs to
  // that one.
  bool inlined = false;

  std::string describe() const;  // "0x55d0c0de1234 in crash_here(int)+0x12 at crash.cpp:17"
};

// "#0 0x... in ..." and so on, one line for each frame, the innermost first.
EVPARALLEL_API std::string describe(const std::vector<StackFrame>&);

// What a child has recorded about the signal that ended it.
struct EVPARALLEL_API CrashReport {
  int signal = 0;
  int code = 0;  // si_code of sigaction(2): the reason of the signal
  // What could not be accessed or executed; null if the kernel does not say.
  const void* fault_address = nullptr;
  std::vector<StackFrame> frames{};  // of the thread that received the signal

  std::string describe() const;  // "SIGSEGV (address not mapped) at 0x10", and the frames below it
};

}  // namespace evparallel
