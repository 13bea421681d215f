// crash_record.cpp - the handlers of fatal signals, and reading their records.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#include "backtrace/crash_record.hpp"

#include "system/emulation.hpp"

#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace evparallel::detail {

static_assert(sizeof(CrashRecord) == 1024, "the page evparallel_protocol(7) says so");

namespace {

constexpr int crash_signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS};

// For the unwinder, and for the frame of the signal: 11 KiB with the widest registers.
constexpr std::size_t handler_stack_size = std::size_t{128} << 10;

// Set before any crash, so that the handlers need nothing else.
struct {
  CrashRecord* record;
  std::uint64_t owner;
  const void* outermost;
  pid_t process;  // the process itself, not the copies that the task forks
  bool under_valgrind;
  std::atomic<bool> taken;
} armed;

// ---- the processor ----

// The register with the address of the next instruction, and the stack pointer.
#if defined __x86_64__
auto& pc_in(ucontext_t& context) noexcept {
  return context.uc_mcontext.gregs[REG_RIP];
}
auto& sp_in(ucontext_t& context) noexcept {
  return context.uc_mcontext.gregs[REG_RSP];
}
#elif defined __i386__
auto& pc_in(ucontext_t& context) noexcept {
  return context.uc_mcontext.gregs[REG_EIP];
}
auto& sp_in(ucontext_t& context) noexcept {
  return context.uc_mcontext.gregs[REG_ESP];
}
#elif defined __aarch64__
auto& pc_in(ucontext_t& context) noexcept {
  return context.uc_mcontext.pc;
}
auto& sp_in(ucontext_t& context) noexcept {
  return context.uc_mcontext.sp;
}
#elif defined __riscv
auto& pc_in(ucontext_t& context) noexcept {
  return context.uc_mcontext.__gregs[REG_PC];
}
auto& sp_in(ucontext_t& context) noexcept {
  return context.uc_mcontext.__gregs[REG_SP];
}
#else
// Unknown processor: the addresses begin with those of the handler.
std::uintptr_t no_register = 0;
auto& pc_in(ucontext_t&) noexcept {
  return no_register;
}
auto& sp_in(ucontext_t&) noexcept {
  return no_register;
}
#endif

// After a jump to an address without code there is nothing to unwind from.  But the called function
// has not begun, so the return address is where the call has put it: on top of the stack, or in a
// register.
__attribute__((no_sanitize("address"))) void step_back(ucontext_t& context) noexcept {
#if defined __x86_64__ || defined __i386__
  pc_in(context) = *reinterpret_cast<const greg_t*>(sp_in(context));
  sp_in(context) += static_cast<greg_t>(sizeof(greg_t));
#elif defined __aarch64__
  pc_in(context) = context.uc_mcontext.regs[30];
#elif defined __riscv
  pc_in(context) = context.uc_mcontext.__gregs[REG_RA];
#else
  static_cast<void>(context);
#endif
}

// ---- in the handler ----

// The count is kept here, because other processes can write the one in the record.
struct Writing {
  CrashRecord& record;
  std::uint64_t count;
};

// Each frame counts as soon as it is written: on a damaged stack the next step may be the last.
bool take_frame(void* argument, std::uintptr_t address) {
  Writing& writing = *static_cast<Writing*>(argument);
  writing.record.frames[writing.count] = address;
  writing.record.count.store(++writing.count, std::memory_order_release);
  return writing.count < longest_trace;
}

// The kernel gives an address only with a code of this signal.
bool has_address(const siginfo_t& info) noexcept {
  return info.si_code > 0 && info.si_code != SI_KERNEL;
}

void write_record(CrashRecord& record, const siginfo_t& info, ucontext_t& context) noexcept {
  const auto pc = static_cast<std::uintptr_t>(pc_in(context));
  record.signal = info.si_signo;
  record.code = info.si_code;
  record.fault_address = has_address(info) ? reinterpret_cast<std::uintptr_t>(info.si_addr) : 0;
  Writing writing{record, 0};
  take_frame(&writing, pc);
  record.owner.store(armed.owner, std::memory_order_release);
  const bool is_jump = has_address(info) && info.si_signo == SIGSEGV && record.fault_address == pc;
  // Not all of it is copied: qemu-user stores less than the C library declares.
  const auto pc_before = pc_in(context);
  const auto sp_before = sp_in(context);
  if (is_jump)
    step_back(context);
  else
    writing.count = 0;
  walk_stack(static_cast<std::uintptr_t>(pc_in(context)), armed.outermost, take_frame, &writing);
  pc_in(context) = pc_before;
  sp_in(context) = sp_before;
}

// The disposition is the default one again (SA_RESETHAND), and the signal is blocked.  So it is
// delivered when the handler returns, with all registers as they were, and a core shows that state.
// valgrind and qemu-user take a fault that is sent again for one of their own.
void send_again(int signal, siginfo_t& info) noexcept {
  if (armed.under_valgrind || is_emulated() ||
      ::syscall(SYS_rt_tgsigqueueinfo, ::getpid(), ::syscall(SYS_gettid), signal, &info) != 0)
    ::raise(signal);
}

void on_crash(int signal, siginfo_t* info, void* context) {
  const int error = errno;
  if (::getpid() == armed.process) {
    // Another thread writes the record, and then ends the process.
    while (armed.taken.exchange(true)) ::pause();
    write_record(*armed.record, *info, *static_cast<ucontext_t*>(context));
  }
  send_again(signal, *info);
  errno = error;
}

bool is_under_valgrind() noexcept {
  const char* preloaded = std::getenv("LD_PRELOAD");
  return preloaded && std::strstr(preloaded, "/vgpreload_");
}

// Below it is a page that cannot be accessed.
void use_stack_of_its_own() noexcept {
  const auto page = static_cast<std::size_t>(::getpagesize());
  void* memory = ::mmap(nullptr, page + handler_stack_size, PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return;
  stack_t stack{};
  stack.ss_sp = static_cast<char*>(memory) + page;
  stack.ss_size = handler_stack_size;
  if (::mprotect(stack.ss_sp, stack.ss_size, PROT_READ | PROT_WRITE) == 0)
    ::sigaltstack(&stack, nullptr);
}

}  // namespace

void report_crashes(CrashRecord& record, std::uint64_t owner, const void* outermost) noexcept {
  armed.record = &record;
  armed.owner = owner;
  armed.outermost = outermost;
  armed.process = ::getpid();
  armed.under_valgrind = is_under_valgrind();
  warm_up_walks();
  use_stack_of_its_own();
  struct sigaction action {};
  action.sa_sigaction = on_crash;
  action.sa_flags = static_cast<int>(SA_SIGINFO | SA_ONSTACK | SA_RESETHAND);
  sigemptyset(&action.sa_mask);
  // A fault in the handler itself ends the process at once.
  for (const int signal : crash_signals) sigaddset(&action.sa_mask, signal);
  for (const int signal : crash_signals) ::sigaction(signal, &action, nullptr);
}

std::optional<Crash> read_crash(const CrashRecord& record, std::uint64_t owner, int signal) {
  if (record.owner.load(std::memory_order_acquire) != owner || record.signal != signal)
    return std::nullopt;
  const std::uint64_t count = record.count.load(std::memory_order_acquire);
  if (count == 0 || count > longest_trace) return std::nullopt;
  Crash crash{signal, record.code, static_cast<std::uintptr_t>(record.fault_address), {}};
  for (std::uint64_t i = 0; i < count; ++i)
    crash.frames.push_back(static_cast<std::uintptr_t>(record.frames[i]));
  return crash;
}

}  // namespace evparallel::detail
