// glib_timer.cpp - a main loop of GLib, as in a program with a window: its timer ticks while a child computes, and the
// answers and the timers of the library come in the same loop.
#include <evparallel/evparallel.hpp>
#include <evparallel/glib.hpp>

#include <chrono>
#include <cstdio>
#include <vector>

namespace par = evparallel;

// Runs in a child; in the loop itself it would stop the clock.
static int count_primes(int from, int to) {
  int found = 0;
  for (int n = from < 2 ? 2 : from; n < to; ++n) {
    bool is_prime = true;
    for (int divisor = 2; divisor <= n / divisor && is_prime; ++divisor)
      is_prime = n % divisor != 0;
    found += is_prime ? 1 : 0;
  }
  return found;
}

struct Program {
  GMainLoop* main_loop = g_main_loop_new(nullptr, FALSE);
  int ticks = 0;
  int answers = 0;
  int primes = 0;
  bool failed = false;

  Program() = default;
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;
  ~Program() { g_main_loop_unref(main_loop); }
};

static gboolean tick(gpointer data) {
  ++static_cast<Program*>(data)->ticks;
  return TRUE;
}

int main() {
  par::init();
  Program program;
  constexpr int parts = 20;
  constexpr int size = 50000;
  {
    par::GlibReactor loop;
    auto primes = par::pool(*loop, count_primes);
    const guint clock = g_timeout_add(10, tick, &program);
    const par::Timer report = loop->every(std::chrono::milliseconds(100), [&] {
      std::printf("%d ticks of GLib, %d of %d answers\n", program.ticks, program.answers, parts);
    });
    for (int i = 0; i < parts; ++i)
      primes.submit(i * size, (i + 1) * size, [&](par::Result<int> found) {
        program.failed = program.failed || !found;
        program.primes += found.value_or(0);
        if (++program.answers == parts) g_main_loop_quit(program.main_loop);
      });
    g_main_loop_run(program.main_loop);
    g_source_remove(clock);
  }
  std::printf("%d primes below %d\n", program.primes, parts * size);
  return program.failed || program.primes != 78498 ? 1 : 0;
}
