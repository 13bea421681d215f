// backtrace.cpp - crash reports and their frames as text.
// Runs in: parent, child.  Licence: see COPYING.
#include <evparallel/backtrace.hpp>

#include "backtrace/throw_site.hpp"

#include <evparallel/error.hpp>

#include <signal.h>

#include <cstdint>
#include <cstdio>
#include <cstring>

namespace evparallel {

using namespace detail;

namespace {

std::string hexadecimal(std::uintptr_t number) {
  char text[2 + 2 * sizeof number + 1];
  std::snprintf(text, sizeof text, "0x%zx", static_cast<std::size_t>(number));
  return text;
}

std::string hexadecimal(const void* address) {
  return hexadecimal(reinterpret_cast<std::uintptr_t>(address));
}

// The codes that only the kernel sets, and only with this signal.
struct Reason {
  int signal;
  int code;
  const char* text;
};
constexpr Reason reasons[] = {
    {SIGSEGV, SEGV_MAPERR, "address not mapped"},
    {SIGSEGV, SEGV_ACCERR, "no permission for the address"},
    {SIGSEGV, SI_KERNEL, "not an address"},
    {SIGBUS, BUS_ADRALN, "address not aligned"},
    {SIGBUS, BUS_ADRERR, "no memory behind the address"},
    {SIGFPE, FPE_INTDIV, "integer divided by zero"},
    {SIGFPE, FPE_INTOVF, "integer overflow"},
    {SIGFPE, FPE_FLTDIV, "floating-point number divided by zero"},
    {SIGFPE, FPE_FLTINV, "invalid floating-point operation"},
    {SIGILL, ILL_ILLOPC, "illegal opcode"},
    {SIGILL, ILL_ILLOPN, "illegal operand"},
    {SIGILL, ILL_PRVOPC, "privileged opcode"},
    {SIGTRAP, TRAP_BRKPT, "breakpoint"},
    {SIGTRAP, SI_KERNEL, "breakpoint"},
};

std::string reason_of(int signal, int code) {
  for (const Reason& reason : reasons)
    if (reason.signal == signal && reason.code == code) return reason.text;
  if (code <= 0) return "sent by a process";
  return "code " + std::to_string(code);
}

}  // namespace

std::string StackFrame::describe() const {
  std::string text = hexadecimal(address) + " in ";
  text += function.empty() ? "an unknown function" : function;
  if (inlined)
    text += " (inlined)";
  else if (!function.empty())
    text += "+" + hexadecimal(offset);
  if (!file.empty()) return text + " at " + file + ":" + std::to_string(line);
  if (module.empty()) return text;
  return text + " of " + module + (function.empty() ? "+" + hexadecimal(offset) : "");
}

std::string describe(const std::vector<StackFrame>& frames) {
  std::string text;
  for (std::size_t i = 0; i < frames.size(); ++i)
    text += "#" + std::to_string(i) + " " + frames[i].describe() + "\n";
  return text;
}

std::string Error::describe_backtrace() const {
  if (!backtrace().empty()) return evparallel::describe(backtrace());
  if (exit() && exit()->signalled())
    return "no backtrace: the child left no crash report; set Options::backtrace to get one\n";
  if (code() != Errc::remote_exception) return "no backtrace: no exception left a task\n";
  if (!has_throw_library())
    return "no backtrace: the program is not linked with -levparallel-throw, which records where "
           "exceptions are thrown\n";
  return "no backtrace: Options::backtrace is not set, or the exception was never thrown\n";
}

std::string CrashReport::describe() const {
  const char* abbreviation = sigabbrev_np(signal);
  std::string text =
      abbreviation ? std::string("SIG") + abbreviation : "signal " + std::to_string(signal);
  text += " (" + reason_of(signal, code) + ")";
  if (code > 0 && code != SI_KERNEL) text += " at " + hexadecimal(fault_address);
  return text + "\n" + evparallel::describe(frames);
}

}  // namespace evparallel
