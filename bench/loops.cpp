// loops.cpp - calls in the loops of Asio, GLib and libuv, compared with the library's own loop.
#include <evparallel/evparallel.hpp>

#include "measure.hpp"

#include <array>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>

#if __has_include(<asio/bind_allocator.hpp>)
#define BENCH_WITH_ASIO
#include <evparallel/asio.hpp>

#include <asio/io_context.hpp>
#endif
#if __has_include(<glib.h>)
#define BENCH_WITH_GLIB
#include <evparallel/glib.hpp>
#endif
#if __has_include(<uv.h>)
#define BENCH_WITH_UV
#include <evparallel/uv.hpp>
#endif

namespace par = evparallel;
using bench::Cpus;
using bench::now;

namespace {

using Message = std::array<char, 64>;
constexpr int blocks = 5;

Message same(const Message& message) {
  return message;
}

// ---- the loops: run() returns after stop() ----

class OwnLoop {
public:
  par::Reactor& reactor() { return loop_; }
  void run() { loop_.run(); }
  void stop() { loop_.stop(); }

private:
  par::Reactor loop_;
};

#ifdef BENCH_WITH_ASIO
class AsioLoop {
public:
  static constexpr const char* name = "Asio";
  par::Reactor& reactor() { return *inner_; }
  void run() {
    context_.restart();
    context_.run();
  }
  void stop() { context_.stop(); }

private:
  asio::io_context context_;
  par::AsioReactor<asio::io_context::executor_type> inner_{context_.get_executor()};
};
#endif

#ifdef BENCH_WITH_GLIB
class GlibLoop {
public:
  static constexpr const char* name = "GLib";
  GlibLoop() : loop_(::g_main_loop_new(nullptr, FALSE)) {}
  GlibLoop(const GlibLoop&) = delete;
  GlibLoop& operator=(const GlibLoop&) = delete;
  ~GlibLoop() { ::g_main_loop_unref(loop_); }
  par::Reactor& reactor() { return *inner_; }
  void run() { ::g_main_loop_run(loop_); }
  void stop() { ::g_main_loop_quit(loop_); }

private:
  GMainLoop* loop_;
  par::GlibReactor inner_;
};
#endif

#ifdef BENCH_WITH_UV
class UvLoop {
public:
  static constexpr const char* name = "libuv";
  UvLoop() {
    ::uv_loop_init(&loop_);
    inner_.emplace(&loop_);
  }
  UvLoop(const UvLoop&) = delete;
  UvLoop& operator=(const UvLoop&) = delete;
  ~UvLoop() {
    inner_.reset();
    ::uv_run(&loop_, UV_RUN_DEFAULT);
    ::uv_loop_close(&loop_);
  }
  par::Reactor& reactor() { return **inner_; }
  void run() { ::uv_run(&loop_, UV_RUN_DEFAULT); }
  void stop() { ::uv_stop(&loop_); }

private:
  uv_loop_t loop_;
  std::optional<par::UvReactor> inner_;
};
#endif

// ---- calls ----

// A remote function in one of the loops, with a snapshot of its own.
template <class Loop>
class Caller {
public:
  explicit Caller(std::unique_ptr<par::Snapshot> snapshot)
      : snapshot_(std::move(snapshot)), remote_(begin()) {}

  // Makes `count` calls, `under_way` of them at once.  Returns the seconds of one.
  double call(long count, long under_way) {
    to_send_ = to_get_ = count;
    const double start = now();
    // Inside the loop, so that the first ones are gathered as the others are.
    loop_.reactor().post([this, under_way] {
      for (long i = 0; i < under_way; ++i) send();
    });
    loop_.run();
    return (now() - start) / static_cast<double>(count);
  }

private:
  auto begin() {
    par::Options options;
    options.snapshot = snapshot_.get();
    return par::run<par::RawIo, par::RawIo>(loop_.reactor(), same, options);
  }
  void send() {
    if (to_send_-- <= 0) return;
    remote_(Message{}, [this](par::Result<Message> r) {
      r.value();
      if (--to_get_ == 0) return loop_.stop();
      send();
    });
  }

  std::unique_ptr<par::Snapshot> snapshot_;
  Loop loop_;
  par::Remote<Message(Message)> remote_;
  long to_send_ = 0;
  long to_get_ = 0;
};

[[maybe_unused]] std::unique_ptr<par::Snapshot> snapshot_at(Cpus where) {
  return bench::place(where, [] { return std::make_unique<par::Snapshot>(); });
}

template <class Loop>
void rows(Cpus where) {
  auto first = snapshot_at(where);
  auto second = snapshot_at(where);
  Caller<OwnLoop> own(std::move(first));
  Caller<Loop> other(std::move(second));
  const auto row = [&](const std::string& how, long count, long under_way, int units) {
    const bench::Pair times =
        bench::compare([&] { return other.call(count, under_way); },
                       [&] { return own.call(count, under_way); }, blocks, units);
    bench::row(std::string("64 B calls a second in ") + Loop::name + ", " + how,
               bench::name_of(where), bench::rate(1 / times.ours),
               "own loop " + bench::rate(1 / times.floor), 1 / times.ratio, bench::at_least(0.9));
  };
  row("one at a time", 2000, 1, 10);
  row("64 in flight", 50000, 64, 4);
}

template <class Loop>
[[maybe_unused]] void compare_loop() {
  for (const Cpus where : {Cpus::one, Cpus::two}) bench::apart([where] { rows<Loop>(where); });
}

}  // namespace

int main() {
#ifdef BENCH_WITH_ASIO
  compare_loop<AsioLoop>();
#endif
#ifdef BENCH_WITH_GLIB
  compare_loop<GlibLoop>();
#endif
#ifdef BENCH_WITH_UV
  compare_loop<UvLoop>();
#endif
}
