// fuzzing.cpp - failures, and what the process has allocated and opened.
#include "fuzzing.hpp"

#include <dirent.h>
#include <sanitizer/allocator_interface.h>

#include <cstdio>
#include <cstdlib>

namespace fuzzing {

void fail(const char* file, int line, const char* what) {
  std::fprintf(stderr, "%s:%d: REQUIRE(%s)\n", file, line, what);
  std::abort();
}

// ---- memory ----

namespace {

// Signed: a block that was allocated before may be released meanwhile.
thread_local bool counting = false;
thread_local std::ptrdiff_t live = 0;
thread_local std::ptrdiff_t peak = 0;

void on_malloc(const volatile void*, std::size_t size) {
  if (!counting) return;
  live += static_cast<std::ptrdiff_t>(size);
  if (live > peak) peak = live;
}

void on_free(const volatile void* block) {
  if (!counting || !block) return;
  live -=
      static_cast<std::ptrdiff_t>(__sanitizer_get_allocated_size(const_cast<const void*>(block)));
}

bool install_hooks() {
  return __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free) != 0;
}

}  // namespace

MemoryPeak::MemoryPeak() {
  static const bool installed = install_hooks();
  REQUIRE(installed);
  REQUIRE(!counting);
  live = peak = 0;
  counting = true;
}

MemoryPeak::~MemoryPeak() {
  counting = false;
}

std::size_t MemoryPeak::bytes() const noexcept {
  return static_cast<std::size_t>(peak);
}

// ---- descriptors ----

std::size_t open_descriptors() {
  DIR* const all = ::opendir("/proc/self/fd");
  REQUIRE(all != nullptr);
  std::size_t count = 0;
  while (::readdir(all)) ++count;
  ::closedir(all);
  return count - 3;  // ".", "..", and the folder itself
}

}  // namespace fuzzing
