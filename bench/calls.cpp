// calls.cpp - the cost of a call to a living child: alone, and with others under way.
#include <evparallel/evparallel.hpp>

#include "floor.hpp"
#include "measure.hpp"

#include <event2/event.h>

#include <array>
#include <cstdint>
#include <memory>

namespace par = evparallel;
using bench::Cpus;
using bench::now;

namespace {

constexpr std::size_t message_size = 64;
using Message = std::array<char, message_size>;
constexpr int blocks = 5;

Message same(const Message& message) {
  return message;
}
int same_number(int number) {
  return number;
}

// ---- floors: an echo by read and write, and by an event of libevent on either side ----

void event_echo(int fd, short, void*) {
  static char bytes[128 * 1024];
  const ssize_t got = ::read(fd, bytes, sizeof bytes);
  if (got <= 0) ::_exit(0);
  bench::write_all(fd, bytes, static_cast<std::size_t>(got));
}

int event_child(Cpus where) {
  return bench::place(where, [] {
    const bench::Sockets data = bench::socket_pair(SOCK_STREAM);
    if (::fork() == 0) {
      ::close(data.near);
      event_base* base = event_base_new();
      event* reading = event_new(base, data.far, EV_READ | EV_PERSIST, event_echo, nullptr);
      event_add(reading, nullptr);
      event_base_dispatch(base);
      ::_exit(0);
    }
    ::close(data.far);
    return data.near;
  });
}

double floor_round_trips(int fd, int count) {
  Message message{};
  const double start = now();
  for (int i = 0; i < count; ++i) {
    bench::write_all(fd, message.data(), message.size());
    bench::read_all(fd, message.data(), message.size());
  }
  return (now() - start) / count;
}

// The near side of the bare echo: it sends `under_way` messages at first, then one for each that comes back.
struct EventFlood {
  int fd;
  event_base* base;
  long to_send;
  long to_get;
  std::string out{};
  event* writing = nullptr;

  void send(long count) {
    out.append(static_cast<std::size_t>(std::min(count, to_send)) * message_size, 'x');
    to_send -= std::min(count, to_send);
    flush();
  }
  void flush() {
    const ssize_t put = out.empty() ? 0 : ::send(fd, out.data(), out.size(), MSG_DONTWAIT);
    if (put > 0) out.erase(0, static_cast<std::size_t>(put));
    if (out.empty())
      event_del(writing);
    else
      event_add(writing, nullptr);
  }
};

double event_flood(int fd, long count, long under_way) {
  event_base* base = event_base_new();
  EventFlood flood{fd, base, count, count * static_cast<long>(message_size)};
  event* reading = event_new(
      base, fd, EV_READ | EV_PERSIST,
      [](int from, short, void* self) {
        static char bytes[128 * 1024];
        static std::size_t part = 0;
        auto& mine = *static_cast<EventFlood*>(self);
        const ssize_t got = ::recv(from, bytes, sizeof bytes, MSG_DONTWAIT);
        if (got <= 0) return;
        mine.to_get -= got;
        part += static_cast<std::size_t>(got);
        mine.send(static_cast<long>(part / message_size));
        part %= message_size;
        if (mine.to_get == 0) event_base_loopbreak(mine.base);
      },
      &flood);
  flood.writing = event_new(
      base, fd, EV_WRITE | EV_PERSIST,
      [](int, short, void* self) { static_cast<EventFlood*>(self)->flush(); }, &flood);
  event_add(reading, nullptr);
  const double start = now();
  flood.send(under_way);
  event_base_dispatch(base);
  const double time = now() - start;
  event_free(reading);
  event_free(flood.writing);
  event_base_free(base);
  return time / static_cast<double>(count);
}

// ---- the library ----

template <class Remote, class Value>
struct Calls {
  Remote& remote;
  const Value& value;
  long to_send;

  void send() {
    if (to_send-- <= 0) return;
    remote(value, [this](typename Remote::result_type r) {
      r.value();
      send();
    });
  }
};

template <class Remote, class Value>
double our_calls(par::Reactor& loop, Remote& remote, const Value& value, long count,
                 long under_way) {
  Calls<Remote, Value> calls{remote, value, count};
  const double start = now();
  // The calls are made inside the loop, so that the first ones are gathered, as those of the echo are.
  loop.post([&] {
    for (long i = 0; i < under_way; ++i) calls.send();
  });
  loop.run();
  return (now() - start) / static_cast<double>(count);
}

std::unique_ptr<par::Snapshot> snapshot_at(Cpus where) {
  return bench::place(where, [] { return std::make_unique<par::Snapshot>(); });
}

// ---- the rows ----

void round_trips(Cpus where) {
  const int fd = bench::echo_child(where, message_size);
  const auto snapshot = snapshot_at(where);
  par::Reactor loop;
  par::Options options;
  options.snapshot = snapshot.get();
  auto raw = par::run<par::RawIo, par::RawIo>(loop, same, options);
  auto json = par::run(loop, same_number, options);
  const auto floor = [&] { return floor_round_trips(fd, 2000); };
  const bench::Pair raws =
      bench::compare([&] { return our_calls(loop, raw, Message{}, 2000, 1); }, floor, blocks, 5);
  bench::row("round trip of 64 B, RawIo", bench::name_of(where), bench::microseconds(raws.ours),
             "read/write " + bench::microseconds(raws.floor), raws.ratio,
             bench::at_most(where == Cpus::one ? 1.3 : 1.25));
  const bench::Pair jsons =
      bench::compare([&] { return our_calls(loop, json, 12345, 2000, 1); }, floor, blocks, 5);
  bench::row("round trip of an int, JSON", bench::name_of(where), bench::microseconds(jsons.ours),
             "read/write " + bench::microseconds(jsons.floor), jsons.ratio,
             bench::at_most(where == Cpus::one ? 1.4 : 1.25));
}

void in_flight(Cpus where) {
  const int fd = event_child(where);
  const auto snapshot = snapshot_at(where);
  par::Reactor loop;
  par::Options options;
  options.snapshot = snapshot.get();
  auto raw = par::run<par::RawIo, par::RawIo>(loop, same, options);
  auto json = par::run(loop, same_number, options);
  constexpr long count = 200000;
  const bench::Pair few = bench::compare([&] { return our_calls(loop, raw, Message{}, count, 64); },
                                         [&] { return event_flood(fd, count, 64); }, blocks, 1);
  bench::row("64 B calls a second, 64 in flight, RawIo", bench::name_of(where),
             bench::rate(1 / few.ours), "libevent echo " + bench::rate(1 / few.floor),
             1 / few.ratio, bench::at_least(where == Cpus::one ? 0.4 : 0.85));
  constexpr long many = 100000;
  const bench::Pair all =
      bench::compare([&] { return our_calls(loop, raw, Message{}, 5 * many, many); },
                     [&] { return event_flood(fd, 5 * many, many); }, blocks, 1);
  bench::row("the same, 100 000 in flight", bench::name_of(where), bench::rate(1 / all.ours),
             "libevent echo " + bench::rate(1 / all.floor), 1 / all.ratio,
             bench::at_least(2.0 / 6.0));
  const bench::Pair numbers =
      bench::compare([&] { return our_calls(loop, json, 12345, count, 64); },
                     [&] { return event_flood(fd, count, 64); }, blocks, 1);
  // A rate and not a ratio: in thousands a second.
  bench::row("JSON int calls, 64 in flight, k/s", bench::name_of(where),
             bench::rate(1 / numbers.ours), "libevent echo " + bench::rate(1 / numbers.floor),
             1 / numbers.ours / 1e3, bench::at_least(where == Cpus::one ? 1000 : 300));
}

// Message rate by size, for the picture.
void sizes() {
  const auto snapshot = snapshot_at(Cpus::one);
  par::Reactor loop;
  par::Options options;
  options.snapshot = snapshot.get();
  auto raw = par::run<par::RawIo, par::RawIo>(
      loop, [](const std::string& bytes) { return bytes; }, options);
  auto json = par::run(
      loop, [](const std::string& bytes) { return bytes; }, options);
  for (std::size_t size = 16; size <= std::size_t{1} << 20; size *= 4) {
    const std::string bytes(size, 'x');
    const long count = size < 4096 ? 100000 : static_cast<long>((std::size_t{1} << 28) / size);
    const double x = static_cast<double>(size);
    bench::point("rate-size", x, 1 / our_calls(loop, raw, bytes, count, 64), "RawIo");
    bench::point("rate-size", x, 1 / our_calls(loop, json, bytes, count, 64), "JSON");
  }
}

}  // namespace

int main() {
  for (const Cpus where : {Cpus::one, Cpus::two}) bench::apart([where] { round_trips(where); });
  for (const Cpus where : {Cpus::one, Cpus::two}) bench::apart([where] { in_flight(where); });
  bench::apart(sizes);
}
