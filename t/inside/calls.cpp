// calls.cpp - the memory of many calls: rows, arguments that are kept, and no allocation for each call.
#include "base/byte_queue.hpp"
#include "calling.hpp"
#include "private_names.hpp"
#include "call/pending_calls.hpp"
#include "base/ring_buffer.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <malloc.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <new>
#include <random>
#include <string>

using namespace evparallel;
using detail::KeptCall;
using detail::PendingCall;
using detail::PendingCalls;

// ---- counting allocations ----

namespace {

struct Memory {
  long allocations = 0;
  std::size_t live = 0;
  std::size_t peak = 0;
};
Memory memory;

void* allocate(std::size_t size) {
  void* block = std::malloc(size ? size : 1);
  if (!block) throw std::bad_alloc();
  ++memory.allocations;
  memory.live += ::malloc_usable_size(block);
  memory.peak = std::max(memory.peak, memory.live);
  return block;
}

void release(void* block) noexcept {
  if (block) memory.live -= ::malloc_usable_size(block);
  std::free(block);
}

}  // namespace

void* operator new(std::size_t size) {
  return allocate(size);
}
void* operator new[](std::size_t size) {
  return allocate(size);
}
void operator delete(void* block) noexcept {
  release(block);
}
void operator delete[](void* block) noexcept {
  release(block);
}
void operator delete(void* block, std::size_t) noexcept {
  release(block);
}
void operator delete[](void* block, std::size_t) noexcept {
  release(block);
}

void testing_main_init() {
  testing::take_default_snapshot();
}

// ---- rows ----

BOOST_AUTO_TEST_SUITE(rows)

BOOST_AUTO_TEST_CASE(a_ring_buffer_is_a_queue) {
  std::mt19937 random(testing::seed(1));
  RingBuffer<std::string> row;
  std::vector<std::string> expected;
  for (int i = 0; i < 20000; ++i) {
    if (random() % 5 < 3) {
      row.push_back(std::to_string(i));
      expected.push_back(std::to_string(i));
    } else if (!expected.empty() && random() % 7 == 0) {
      row.pop_back();
      expected.pop_back();
    } else if (!expected.empty()) {
      BOOST_REQUIRE(row.front() == expected.front());
      row.pop_front();
      expected.erase(expected.begin());
    }
    BOOST_REQUIRE(row.size() == expected.size());
    if (!expected.empty()) BOOST_REQUIRE(row.back() == expected.back());
    if (i % 4000 == 3999) {
      for (std::size_t k = 0; k < expected.size(); ++k) BOOST_REQUIRE(row[k] == expected[k]);
      row.clear();
      expected.clear();
    }
  }
}

std::string all_of(const ByteQueue& row) {
  std::string all;
  while (all.size() < row.size()) all += row.from(all.size());
  BOOST_TEST(row.from(all.size()).empty());
  return all;
}

// Sizes around that of a piece, and many small ones.
BOOST_AUTO_TEST_CASE(a_byte_queue_appends_at_the_end_and_removes_at_the_front) {
  std::mt19937 random(testing::seed(2));
  ByteQueue row;
  std::string expected;
  char next = 0;
  for (int i = 0; i < 3000; ++i) {
    const std::size_t most = i % 100 < 90 ? 200 : 3 * ByteQueue::piece_size;
    std::string bytes(random() % most, ++next);
    row.append(bytes);
    expected += bytes;
    if (i % 3 == 0) {
      const std::size_t gone = std::min(expected.size(), random() % (2 * most));
      row.drop_front(gone);
      expected.erase(0, gone);
    }
    if (i % 50 == 49) {
      const std::size_t gone = std::min(expected.size(), random() % most);
      row.drop_back(gone);
      expected.resize(expected.size() - gone);
    }
    BOOST_REQUIRE(row.size() == expected.size());
    if (i % 20 == 0) BOOST_REQUIRE((all_of(row) == expected));
    if (i % 500 == 499) {
      ByteQueue moved(std::move(row));
      BOOST_REQUIRE((all_of(moved) == expected));
      BOOST_REQUIRE(row.empty());
      moved.clear();
      BOOST_REQUIRE(moved.empty());
      expected.clear();
    }
  }
}

// A queue that is never empty uses memory for its contents, and none for bytes that have left it.
BOOST_AUTO_TEST_CASE(bytes_that_have_left_the_queue_use_no_memory) {
  ByteQueue row;
  const std::string bytes(1000, 'b');
  for (int i = 0; i < 1000; ++i) row.append(bytes);
  const Memory before = memory;
  memory.peak = memory.live;
  for (int i = 0; i < 100000; ++i) {
    row.append(bytes);
    row.drop_front(bytes.size());
  }
  BOOST_TEST(memory.peak - before.live <= 4 * ByteQueue::piece_size);
  BOOST_TEST(memory.allocations - before.allocations <= 16);
  row.drop_front(row.size());
  BOOST_TEST(before.live - memory.live >= 1000 * bytes.size() - 4 * ByteQueue::piece_size);
}

BOOST_AUTO_TEST_SUITE_END()

// ---- waiting calls ----

BOOST_AUTO_TEST_SUITE(waiting)

std::string argument_of(std::uint64_t id) {
  return std::string(id % 17 == 0 ? 5000 : id % 90, static_cast<char>('a' + id % 26));
}

void add(PendingCalls& calls, std::uint64_t id) {
  PendingCall call;
  call.answer = [](Reader*, const Error*) {};
  call.offset = id;
  Writer argument;
  argument.write(argument_of(id));
  PendingCall& added = calls.add(id, std::move(call), &argument);
  BOOST_REQUIRE(&added == calls.find(id));
}

void expect_all(std::vector<KeptCall> all, const std::vector<std::uint64_t>& expected) {
  BOOST_REQUIRE(all.size() == expected.size());
  for (std::size_t i = 0; i < all.size(); ++i) {
    BOOST_REQUIRE(all[i].id == expected[i]);
    BOOST_REQUIRE(all[i].call.offset == expected[i]);
    BOOST_REQUIRE((all[i].argument.bytes() == argument_of(expected[i])));
  }
}

// After any sequence of answers, a call that remains can be made again unchanged.
BOOST_AUTO_TEST_CASE(arguments_are_kept_until_the_answer) {
  std::mt19937 random(testing::seed(3));
  PendingCalls calls;
  std::vector<std::uint64_t> left;
  for (std::uint64_t id = 1; id <= 30000; ++id) {
    if (id % 1000 == 500) continue;  // another child's
    add(calls, id);
    left.push_back(id);
    if (left.size() < 20) continue;
    // Mostly in order; a few calls remain for ever.
    const std::size_t which = random() % 10 == 0 ? random() % left.size() : left.size() / 2;
    BOOST_REQUIRE(calls.take(left[which]).offset == left[which]);
    BOOST_REQUIRE(!calls.take(left[which]).answer);
    left.erase(left.begin() + static_cast<std::ptrdiff_t>(which));
    BOOST_REQUIRE(calls.count() == left.size());
  }
  expect_all(calls.take_all(), left);
  BOOST_TEST(calls.count() == 0u);
  add(calls, 40000);
  expect_all(calls.take_all(), {40000});
}

BOOST_AUTO_TEST_CASE(a_call_without_retries_keeps_no_argument) {
  PendingCalls calls;
  PendingCall call;
  call.answer = [](Reader*, const Error*) {};
  calls.add(1, std::move(call), nullptr);
  const std::vector<KeptCall> all = calls.take_all();
  BOOST_REQUIRE(all.size() == 1u);
  BOOST_TEST(all.front().argument.size() == 0u);
}

BOOST_AUTO_TEST_SUITE_END()

// ---- calls in a child ----

BOOST_AUTO_TEST_SUITE(living)

using Message = std::array<char, 64>;

// The answer begins with the number of allocations in the child so far.
Message counted(const Message& message) {
  Message answer = message;
  std::memcpy(answer.data(), &memory.allocations, sizeof memory.allocations);
  return answer;
}

struct Flood {
  Remote<Message(Message)>& remote;
  long to_send;
  long there = 0;  // allocations in the child, from its last answer
  Message message{};

  void send() {
    if (to_send-- <= 0) return;
    remote(message, [this](Result<Message> r) {
      std::memcpy(&there, r.value().data(), sizeof there);
      send();
    });
  }
};

struct Counts {
  long here;
  long there;
};

Counts flood(Reactor& loop, Remote<Message(Message)>& remote, long calls, long under_way) {
  Flood flood{remote, calls};
  const long before = memory.allocations;
  for (long i = 0; i < under_way; ++i) flood.send();
  loop.run();
  return {memory.allocations - before, flood.there};
}

BOOST_AUTO_TEST_CASE(calls_in_the_steady_state_allocate_nothing) {
  Reactor loop;
  auto remote = run<RawIo, RawIo>(loop, counted);
  const Counts first = flood(loop, remote, 3000, 1);
  const Counts second = flood(loop, remote, 3000, 1);
  BOOST_TEST(second.here == 0);
  BOOST_TEST(second.there - first.there == 0);
}

// The scheduler decides how many frames one read receives and one write sends.  So a buffer may grow at any time, up to
// the size that 64 calls need: a row of 64 places, and about 6 kB each for arguments, sent frames and received frames.
// The buffers are never given back, and they grow by doubling.
BOOST_AUTO_TEST_CASE(many_calls_in_the_steady_state_allocate_only_wider_buffers) {
  Reactor loop;
  auto remote = run<RawIo, RawIo>(loop, counted);
  const Counts first = flood(loop, remote, 3000, 64);
  const Counts second = flood(loop, remote, 30000, 64);
  constexpr long most = 4 * 13;  // four buffers of less than 2^13
  BOOST_TEST(second.here <= most);
  BOOST_TEST(second.there - first.there <= most);
}

// Messages in both directions, without a call.
BOOST_AUTO_TEST_CASE(messages_in_the_steady_state_allocate_nothing) {
  Reactor loop;
  auto echo = process<RawIo, RawIo>(loop, [](Pipe<Message, Message> pipe) {
    pipe.on_message([pipe](Message message) { pipe.send(counted(message)); });
  });
  long got = 0;
  Counts at[3]{};
  echo.on_message([&](Message message) {
    Counts now{memory.allocations, 0};
    std::memcpy(&now.there, message.data(), sizeof now.there);
    if (++got % 1000 == 0) at[got / 1000 - 1] = now;
    if (got == 3000) return echo.close();
    echo.send(message);
  });
  echo.send(Message{});
  loop.run();
  BOOST_TEST(got == 3000);
  BOOST_TEST(at[2].here - at[1].here == 0);
  BOOST_TEST(at[2].there - at[1].there == 0);
}

// Each argument has 80 bytes; the rest is the cost of a waiting call.
BOOST_AUTO_TEST_CASE(many_pending_calls_need_little_memory_and_release_it) {
  Reactor loop;
  auto remote = run<RawIo, RawIo>(loop, counted);
  flood(loop, remote, 1000, 64);
  constexpr long many = 100000;
  const std::size_t before = memory.live;
  memory.peak = memory.live;
  const Counts counts = flood(loop, remote, many, many);
  BOOST_TEST(memory.peak - before <= many * 640u);
  BOOST_TEST(memory.live - before <= 256u * 1024);
  BOOST_TEST(counts.here <= many / 50);
}

BOOST_AUTO_TEST_SUITE_END()
