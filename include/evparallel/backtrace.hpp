// backtrace.hpp - where in the code something happened: in a child that has crashed, or that threw.
// Licence: see COPYING.  Manual: evparallel_backtrace(3).
//
// Plain values, filled in by the parent, of children with Options::backtrace.
#pragma once

#include <evparallel/detail/export.hpp>

#include <cstddef>
#include <string>
#include <vector>

namespace evparallel {

// One function that was at work.  What is not known is empty or 0: `file` and `line` need debug
// information, `function` a symbol.
struct EVPARALLEL_API StackFrame {
  const void* address = nullptr;  // of the instruction that faulted, or of the one to return to
  std::string function{};         // demangled
  std::size_t offset = 0;         // of `address` in the function; in the module, if that is unknown
  std::string module{};           // path of the program or library that it is in
  std::string file{};
  int line = 0;
  // The function has no code of its own here: the compiler has made it a part of the next frame's,
  // and the address is that one's.
  bool inlined = false;

  std::string describe() const;  // "0x55d0c0de1234 in crash_here(int)+0x12 at crash.cpp:17"
};

// "#0 0x... in ..." and so on, a line for each; the innermost is the first.
EVPARALLEL_API std::string describe(const std::vector<StackFrame>&);

// What a child told of the signal that has ended it.
struct EVPARALLEL_API CrashReport {
  int signal = 0;
  int code = 0;                         // si_code of sigaction(2): why the signal came
  const void* fault_address = nullptr;  // what could not be accessed or executed; null where the
                                        // kernel tells none
  std::vector<StackFrame> frames{};     // of the thread that it has hit

  std::string describe() const;  // "SIGSEGV (address not mapped) at 0x10", and the frames below it
};

}  // namespace evparallel
