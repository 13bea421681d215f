// tsan_thread.cpp - a preloaded library: as ThreadSanitizer does, it defines a name and starts a thread that blocks all
// signals, before main() and again in each forked copy.
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

extern "C" __attribute__((visibility("default"))) void __tsan_init() {}

namespace {

void* wait_for_ever(void*) {
  for (;;) ::pause();
}

void start() {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  ::pthread_create(&thread, nullptr, wait_for_ever, nullptr);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

__attribute__((constructor)) void load() {
  start();
  ::pthread_atfork(nullptr, nullptr, start);
}

}  // namespace
