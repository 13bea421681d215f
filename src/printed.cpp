// printed.cpp - buffers of stdio and of the C++ streams.
// Licence: see COPYING.
#include "printed.hpp"

#include "early.hpp"

#include <stdio_ext.h>
#include <sys/single_threaded.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <typeinfo>

#if __has_include(<ext/stdio_sync_filebuf.h>)
#include <ext/stdio_sync_filebuf.h>
#endif

#ifdef __GLIBC__
// All streams of stdio: the name is public, its declaration is not.
extern "C" __attribute__((weak, visibility("default"))) std::FILE* _IO_list_all;
#endif

namespace evparallel {

namespace {

std::ostream* const streams[] = {&std::cout, &std::cerr, &std::clog};
// Where their buffers are asked for: to find that in a stream is to read a page more.
const std::ios* const insides[] = {&std::cout, &std::cerr, &std::clog};

// Whether fflush(nullptr) would find anything: it locks each stream, and each lock is a write, of
// which a child's first one in each page is a copy of that page.
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

EVPARALLEL_EARLY void flush_stdio() noexcept {
  // With other threads about, fflush(nullptr) would wait for one that sits in fgets(stdin).
  if (!__libc_single_threaded) {
    std::fflush(stdout);
    std::fflush(stderr);
  } else if (stdio_holds_something()) {
    std::fflush(nullptr);
  }
}

// A stream that is in step with stdio has no buffer of its own.
EVPARALLEL_EARLY bool is_in_step([[maybe_unused]] const std::streambuf* buffer) noexcept {
#if __has_include(<ext/stdio_sync_filebuf.h>)
  return buffer && typeid(*buffer) == typeid(__gnu_cxx::stdio_sync_filebuf<char>);
#else
  return false;
#endif
}

void flush(std::ostream& stream) noexcept {
  try {
    stream.flush();
  } catch (...) {
    // The program asked this stream to throw; what could not be written is lost either way.
  }
}

// What a buffer keeps for those who derive from it.  Of one that is no file's nothing is waiting.
struct Inside : std::filebuf {
  static std::size_t waiting(const std::streambuf* buffer) {
    const auto* file = dynamic_cast<const std::filebuf*>(buffer);
    const char* const from = file ? (file->*&Inside::pbase)() : nullptr;
    return from ? static_cast<std::size_t>((file->*&Inside::pptr)() - from) : 0;
  }
};

}  // namespace

EVPARALLEL_EARLY void flush_streams() noexcept {
  flush_stdio();
  // The buffers that were found to be in step: to ask each time is to read what is far apart.
  static const std::streambuf* in_step[std::size(streams)];
  for (std::size_t i = 0; i < std::size(streams); ++i) {
    const std::streambuf* const buffer = insides[i]->rdbuf();
    if (buffer && buffer == in_step[i]) continue;
    if (is_in_step(buffer))
      in_step[i] = buffer;
    else
      flush(*streams[i]);
  }
}

std::vector<Unflushed> unflushed_streams() {
  std::vector<Unflushed> found{{"stdout", ::__fpending(stdout)},
                               {"stderr", ::__fpending(stderr)},
                               {"std::cout", Inside::waiting(std::cout.rdbuf())},
                               {"std::cerr", Inside::waiting(std::cerr.rdbuf())},
                               {"std::clog", Inside::waiting(std::clog.rdbuf())}};
  found.erase(std::remove_if(found.begin(), found.end(),
                             [](const Unflushed& stream) { return stream.bytes == 0; }),
              found.end());
  return found;
}

}  // namespace evparallel
