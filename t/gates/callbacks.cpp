// callbacks.cpp - callbacks of each kind, without captures and with few: compilers analyse the memory that holds them.
// t/gates/warnings.sh compiles it.
#include <evparallel/evparallel.hpp>

#include <chrono>
#include <cstddef>
#include <cstdio>
#include <vector>

namespace par = evparallel;

namespace {

template <std::size_t size>
struct Bytes {
  char all[size];
};

template <std::size_t size>
void post(par::Reactor& loop, const Bytes<size>& bytes) {
  loop.post([bytes] { std::fwrite(bytes.all, 1, sizeof bytes.all, stdout); });
}

void talk(par::Pipe<int, int> pipe) {
  pipe.on_message([](int n) { std::printf("%d\n", n); });
  pipe.on_end([] { std::puts("end"); });
  pipe.on_error([](const par::Error& error) { std::puts(error.what()); });
  pipe.on_drain([] { std::puts("drained"); });
}

}  // namespace

int main() {
  par::init();
  par::at_child_exit([] { std::puts("child"); });
  par::Reactor loop;

  auto child = par::process(loop, &talk);
  child.on_message([](int n) { std::printf("%d\n", n); });
  child.on_end([] { std::puts("end"); });
  child.on_error([](const par::Error& error) { std::puts(error.what()); });
  child.on_drain([] { std::puts("drained"); });
  child.on_start([](pid_t pid) { std::printf("%d\n", static_cast<int>(pid)); });
  child.on_exit([](const par::ExitStatus& status) { std::puts(status.describe().c_str()); });

  auto same = par::run(loop, [](int n) { return n; });
  same(1, [](par::Result<int> r) { std::printf("%d\n", r.value()); });
  auto later = par::run(loop, [](int n, par::Reply<int> reply) { reply(n); });
  later(1, [](par::Result<int> r) { std::printf("%d\n", r.value()); });

  auto pool = par::pool(loop, [](int n) { return n; });
  const std::vector<int> numbers{1, 2};
  par::MapOptions options;
  options.on_progress = [](const par::Progress&) { std::puts("progress"); };
  pool.map(
      numbers, [](std::size_t, par::Result<int>) { std::puts("item"); },
      [](const par::MapSummary&) { std::puts("over"); }, std::move(options));

  const par::Timer once = loop.after(std::chrono::milliseconds(1), [] { std::puts("once"); });
  const par::Timer often = loop.every(std::chrono::milliseconds(1), [] { std::puts("often"); });
  const par::Watch input = loop.on_readable(0, [] { std::puts("input"); });
  const par::Watch output = loop.on_writable(1, [] { std::puts("output"); });
  post(loop, Bytes<1>{});
  post(loop, Bytes<7>{});
  post(loop, Bytes<16>{});
  post(loop, Bytes<33>{});
  post(loop, Bytes<47>{});
  post(loop, Bytes<48>{});
  post(loop, Bytes<100>{});
  loop.run_for(std::chrono::milliseconds(10));
}
