// no_memfd.cpp - preloaded into a program, it simulates a kernel without memfd_create.
#include <cerrno>

extern "C" [[gnu::visibility("default")]] int memfd_create(const char*, unsigned) {
  errno = ENOSYS;
  return -1;
}
