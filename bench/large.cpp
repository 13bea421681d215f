// large.cpp - large messages, and memory that does not travel at all.
#include <evparallel/evparallel.hpp>

#include "floor.hpp"
#include "measure.hpp"

#include <memory>

namespace par = evparallel;
using bench::Cpus;
using bench::now;

namespace {

constexpr std::size_t large = std::size_t{8} << 20;
constexpr int blocks = 5;

void echoes(Cpus where) {
  const int fd = bench::echo_child(where, large);
  const auto snapshot = bench::place(where, [] { return std::make_unique<par::Snapshot>(); });
  par::Reactor loop;
  par::Options options;
  options.snapshot = snapshot.get();
  auto strings = par::run<par::RawIo, par::RawIo>(
      loop, [](std::string bytes) { return bytes; }, options);
  auto numbers = par::run<par::RawIo, par::RawIo>(
      loop, [](std::vector<double> all) { return all; }, options);

  std::string bytes(large, 'x');
  const auto floor = [&] {
    const double start = now();
    bench::write_all(fd, bytes.data(), bytes.size());
    bench::read_all(fd, bytes.data(), bytes.size());
    return now() - start;
  };
  const auto moved = [&loop](auto& remote, auto& value) {
    return [&loop, &remote, &value] {
      const double start = now();
      remote(std::move(value), [&](auto r) { value = std::move(r.value()); });
      loop.run();
      return now() - start;
    };
  };
  const auto copied = [&loop](auto& remote, const auto& value) {
    return [&loop, &remote, &value] {
      const double start = now();
      remote(value, [](auto r) { r.value(); });
      loop.run();
      return now() - start;
    };
  };
  const auto say = [&](const std::string& question, const bench::Pair& pair, double bar) {
    bench::row(question, bench::name_of(where), bench::microseconds(pair.ours),
               "read/write " + bench::microseconds(pair.floor), 1 / pair.ratio,
               bench::at_least(bar));
  };
  std::string text(large, 'y');
  std::vector<double> values(large / sizeof(double), 1.5);
  say("8 MB string there and back, moved in",
      bench::compare(moved(strings, text), floor, blocks, 7), 0.75);
  say("8 MB vector<double> there and back, moved in",
      bench::compare(moved(numbers, values), floor, blocks, 7), 0.75);
  say("8 MB string there and back, by reference",
      bench::compare(copied(strings, text), floor, blocks, 7), 0.3);
}

// The time from the call to the answer of a child that has read one page of it.
void shared() {
  const auto snapshot = bench::place(Cpus::one, [] { return std::make_unique<par::Snapshot>(); });
  par::Reactor loop;
  par::Options options;
  options.snapshot = snapshot.get();
  auto first = par::run(
      loop, [](const par::SharedBytes& bytes) { return static_cast<int>(bytes.view().front()); },
      options);
  const auto made = [](std::size_t size) {
    return par::SharedBytes::create(size, [size](void* data) { std::memset(data, 'x', size); });
  };
  const par::SharedBytes small = made(std::size_t{1} << 20);
  const par::SharedBytes large_one = made(std::size_t{1} << 30);
  const auto sent = [&](const par::SharedBytes& bytes) {
    const double start = now();
    first(bytes, [](par::Result<int> r) { r.value(); });
    loop.run();
    return now() - start;
  };
  const bench::Pair pair =
      bench::compare([&] { return sent(large_one); }, [&] { return sent(small); }, blocks, 100);
  bench::row("SharedBytes of 1 GB, to the answer", "one CPU", bench::microseconds(pair.ours),
             "1 MB " + bench::microseconds(pair.floor), pair.ratio, bench::at_most(1.2));
  bench::row("the same, in milliseconds", "one CPU", bench::microseconds(pair.ours), "-",
             pair.ours * 1e3, bench::at_most(1));
}

}  // namespace

int main() {
  for (const Cpus where : {Cpus::one, Cpus::two}) bench::apart([where] { echoes(where); });
  bench::apart(shared);
}
