// flush_streams.cpp - buffers of stdio and of the C++ streams.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#include "system/flush_streams.hpp"

#include "base/startup_path.hpp"

#include <signal.h>
#include <stdio_ext.h>
#include <sys/single_threaded.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <typeinfo>
#include <utility>

#if __has_include(<ext/stdio_sync_filebuf.h>)
#include <ext/stdio_sync_filebuf.h>
#endif

#ifdef __GLIBC__
// All streams of stdio: the symbol is public, its declaration is not.
extern "C" __attribute__((weak, visibility("default"))) std::FILE* _IO_list_all;
#endif

namespace evparallel::detail {

namespace {

std::ostream* const streams[] = {&std::cout, &std::cerr, &std::clog};
// The streams as `std::ios`: to find that base through a stream object reads one more page.
const std::ios* const insides[] = {&std::cout, &std::cerr, &std::clog};

// Whether fflush(nullptr) would find anything.  fflush(nullptr) locks each stream, and a lock is a
// write: the first write of a child to a page copies that page.
EVPARALLEL_EARLY bool stdio_holds_something() noexcept {
#ifdef __GLIBC__
  if (&_IO_list_all) {
    for (const std::FILE* file = _IO_list_all; file; file = file->_chain)
      if (file->_mode > 0 || file->_IO_write_ptr > file->_IO_write_base) return true;
    return false;
  }
#endif
  return true;
}

// Returns whether all of it was written.
bool flush_stdio() noexcept {
  // If there are other threads, fflush(nullptr) would wait for one that is blocked in fgets(stdin).
  if (__libc_single_threaded) return std::fflush(nullptr) == 0;
  const bool out = std::fflush(stdout) == 0;
  return std::fflush(stderr) == 0 && out;
}

EVPARALLEL_EARLY bool stdio_is_to_be_flushed() noexcept {
  if (__libc_single_threaded) return stdio_holds_something();
  return ::__fpending(stdout) > 0 || ::__fpending(stderr) > 0;
}

// Whether the class of a buffer has a type: one of a program that is compiled with -fno-rtti has none,
// and typeid and dynamic_cast would crash.  The type is in front of the virtual functions.
template <class Char>
EVPARALLEL_EARLY bool has_type(const std::basic_streambuf<Char>* buffer) noexcept {
  const void* const* functions;
  std::memcpy(&functions, static_cast<const void*>(buffer), sizeof functions);
  return functions[-1] != nullptr;
}

// A stream that is synchronised with stdio has no buffer of its own.
template <class Char>
EVPARALLEL_EARLY bool is_in_step(
    [[maybe_unused]] const std::basic_streambuf<Char>* buffer) noexcept {
#if __has_include(<ext/stdio_sync_filebuf.h>)
  return buffer && has_type(buffer) &&
         typeid(*buffer) == typeid(__gnu_cxx::stdio_sync_filebuf<Char>);
#else
  return false;
#endif
}

// Gives access to the protected members of a buffer.
template <class Char>
struct Inside : std::basic_filebuf<Char> {
  using File = std::basic_filebuf<Char>;
  static const File* file_of(const std::basic_streambuf<Char>* buffer) {
    return has_type(buffer) ? dynamic_cast<const File*>(buffer) : nullptr;
  }
  static bool is_file(const std::basic_streambuf<Char>* buffer) {
    return file_of(buffer) != nullptr;
  }
  // A buffer that belongs to no file counts as empty, because its content is not known.
  static std::size_t waiting(const std::basic_streambuf<Char>* buffer) {
    const auto* file = file_of(buffer);
    const Char* const from = file ? (file->*&Inside::pbase)() : nullptr;
    return from ? static_cast<std::size_t>((file->*&Inside::pptr)() - from) : 0;
  }
};

// Returns whether all of it was written.
template <class Char>
bool flush(std::basic_ostream<Char>& stream) noexcept {
  try {
    const bool was_good = stream.good();
    stream.flush();
    return !was_good || stream.good();
  } catch (...) {
    // The program has set this stream to throw.
    return false;
  }
}

// True also for a buffer that belongs to no file, because its content is not known.
template <class Char>
bool may_hold_something(const std::basic_ostream<Char>& stream) {
  const std::basic_streambuf<Char>* const buffer = stream.rdbuf();
  if (!buffer || is_in_step(buffer)) return false;
  return Inside<Char>::waiting(buffer) > 0 || !Inside<Char>::is_file(buffer);
}

template <class Char>
bool flush_if_apart(std::basic_ostream<Char>& stream) noexcept {
  return !may_hold_something(stream) || flush(stream);
}

// The wide streams stop being synchronised with stdio when the others do.
std::wostream* const wide_streams[] = {&std::wcout, &std::wcerr, &std::wclog};

bool apart_may_hold_something() {
  return std::any_of(std::begin(streams), std::end(streams),
                     [](const auto* stream) { return may_hold_something(*stream); }) ||
         std::any_of(std::begin(wide_streams), std::end(wide_streams),
                     [](const auto* stream) { return may_hold_something(*stream); });
}

// A flush by the library must not kill the process because a reader is gone.
class PipeSignalBlocked {
public:
  PipeSignalBlocked() noexcept {
    sigemptyset(&signal_);
    sigaddset(&signal_, SIGPIPE);
    sigset_t pending;
    sigpending(&pending);
    was_pending_ = sigismember(&pending, SIGPIPE) == 1;
    ::pthread_sigmask(SIG_BLOCK, &signal_, &before_);
  }
  ~PipeSignalBlocked() {
    constexpr timespec no_time{};
    if (!was_pending_) ::sigtimedwait(&signal_, nullptr, &no_time);
    ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  PipeSignalBlocked(const PipeSignalBlocked&) = delete;
  PipeSignalBlocked& operator=(const PipeSignalBlocked&) = delete;

private:
  sigset_t signal_;
  sigset_t before_;
  bool was_pending_ = false;
};

// Once in a process, because each flush tries the write again.
void report_lost_output(int error) noexcept {
  static pid_t reported = 0;
  if (std::exchange(reported, ::getpid()) == ::getpid()) return;
  char text[128];
  const int size =
      std::snprintf(text, sizeof text, "evparallel: process %d: its output is lost: %s\n",
                    static_cast<int>(::getpid()), std::strerror(error));
  if (::write(STDERR_FILENO, text, static_cast<std::size_t>(size)) < 0) return;  // it has no reader
}

// Tries all streams, even if some of them fail.
void write_out(bool stdio, bool apart) noexcept {
  const PipeSignalBlocked blocked;
  errno = 0;
  bool all = !stdio || flush_stdio();
  if (apart) {
    for (std::ostream* const stream : streams) all = flush_if_apart(*stream) && all;
    for (std::wostream* const stream : wide_streams) all = flush_if_apart(*stream) && all;
  }
  if (!all) report_lost_output(errno != 0 ? errno : EIO);
}

}  // namespace

EVPARALLEL_EARLY void flush_streams() noexcept {
  const bool stdio = stdio_is_to_be_flushed();
  bool apart = false;
  // The buffers that were found to be synchronised.  They are remembered, because each check reads
  // memory that is far apart.
  static const std::streambuf* in_step[std::size(streams)];
  for (std::size_t i = 0; i < std::size(streams); ++i) {
    const std::streambuf* const buffer = insides[i]->rdbuf();
    if (buffer && buffer == in_step[i]) continue;
    if (is_in_step(buffer))
      in_step[i] = buffer;
    else
      apart = true;
  }
  if (apart) apart = apart_may_hold_something();
  if (stdio || apart) write_out(stdio, apart);
}

void write_each_piece(int number) noexcept {
  const auto each = [](auto& stream) {
    if (!is_in_step(stream.rdbuf())) stream.setf(std::ios_base::unitbuf);
  };
  if (number == STDOUT_FILENO) {
    each(std::cout);
    each(std::wcout);
  } else {
    each(std::clog);
    each(std::wclog);
    each(std::wcerr);
  }
}

std::vector<PendingOutput> unflushed_streams() {
  std::vector<PendingOutput> found{{"stdout", ::__fpending(stdout)},
                                   {"stderr", ::__fpending(stderr)},
                                   {"std::cout", Inside<char>::waiting(std::cout.rdbuf())},
                                   {"std::cerr", Inside<char>::waiting(std::cerr.rdbuf())},
                                   {"std::clog", Inside<char>::waiting(std::clog.rdbuf())},
                                   {"std::wcout", Inside<wchar_t>::waiting(std::wcout.rdbuf())},
                                   {"std::wcerr", Inside<wchar_t>::waiting(std::wcerr.rdbuf())},
                                   {"std::wclog", Inside<wchar_t>::waiting(std::wclog.rdbuf())}};
  found.erase(std::remove_if(found.begin(), found.end(),
                             [](const PendingOutput& stream) { return stream.bytes == 0; }),
              found.end());
  return found;
}

}  // namespace evparallel::detail
