// descriptors.cpp - open descriptors and shared bytes as arguments, answers and messages.
#include "calling.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include "errors.hpp"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <memory>
#include <numeric>

namespace par = evparallel;
using testing::count_descriptors;

void testing_main_init() {
  testing::take_default_snapshot();
}

namespace {

struct Ends {
  par::Fd reading;
  par::Fd writing;
};

Ends pipe_ends() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
  return {par::Fd(ends[0]), par::Fd(ends[1])};
}

std::string read_to_end(const par::Fd& fd) {
  std::string text;
  char bytes[100];
  ssize_t got;
  while ((got = ::read(fd.get(), bytes, sizeof bytes)) > 0)
    text.append(bytes, static_cast<std::size_t>(got));
  return text;
}

void write_text(const par::Fd& fd, const std::string& text) {
  BOOST_REQUIRE(::write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()));
}

struct Copy {
  par::Fd from{};
  par::Fd to{};
  std::string title{};
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(Copy, from, to, title)
};

}  // namespace

BOOST_AUTO_TEST_CASE(a_child_reads_from_a_descriptor_of_the_parent) {
  par::Reactor loop;
  auto read = par::run(loop, [](par::Fd fd) { return read_to_end(fd); });
  Ends ends = pipe_ends();
  write_text(ends.writing, "through a pipe");
  ends.writing.reset();
  std::string text;
  read(ends.reading, [&](par::Result<std::string> r) { text = r.value(); });
  BOOST_TEST(ends.reading.get() >= 0);  // sent by reference: a copy was sent
  ends.reading.reset();
  loop.run();
  BOOST_TEST(text == "through a pipe");
}

BOOST_AUTO_TEST_CASE(a_child_answers_with_a_descriptor_it_has_opened) {
  par::Reactor loop;
  auto open = par::run(loop, [](const std::string& name) {
    return par::Fd(::open(name.c_str(), O_RDONLY | O_CLOEXEC));
  });
  const std::size_t before = count_descriptors();
  par::Fd file;
  open("/proc/self/comm", [&](par::Result<par::Fd> r) { file = std::move(r.value()); });
  loop.run();
  BOOST_TEST(count_descriptors() == before + 1);
  BOOST_TEST(!read_to_end(file).empty());
  // A file that it cannot open is an error of that call alone.
  bool refused = false;
  open("/no/such/file",
       [&](par::Result<par::Fd> r) { refused = !r && r.error().code() == par::Errc::bad_message; });
  loop.run();
  BOOST_TEST(refused);
}

BOOST_AUTO_TEST_CASE(structures_of_descriptors_travel_with_the_default_codec) {
  par::Reactor loop;
  auto copy = par::run(loop, [](const Copy& job) {
    const std::string text = job.title + read_to_end(job.from);
    return ::write(job.to.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
  });
  Ends in = pipe_ends();
  Ends out = pipe_ends();
  write_text(in.writing, "work");
  in.writing.reset();
  bool written = false;
  copy(Copy{std::move(in.reading), std::move(out.writing), "title: "},
       [&](par::Result<bool> r) { written = r.value(); });
  loop.run();
  BOOST_TEST(written);
  copy.close();
  BOOST_TEST(read_to_end(out.reading) == "title: work");  // no process holds the other end any more
}

BOOST_AUTO_TEST_CASE(descriptors_travel_through_pipes_and_later_replies) {
  par::Reactor loop;
  auto process = par::process(loop, [](par::Pipe<par::Fd, par::Fd> pipe) {
    pipe.on_message([pipe](par::Fd fd) mutable { pipe.send(std::move(fd)); });
  });
  const Ends ends = pipe_ends();
  std::vector<par::Fd> back;
  process.on_message([&](par::Fd fd) {
    back.push_back(std::move(fd));
    if (back.size() == 50) process.close();
  });
  for (int i = 0; i < 50; ++i) process.send(ends.writing);
  loop.run();
  BOOST_REQUIRE(back.size() == 50U);
  write_text(back.back(), "same pipe");
  char bytes[9];
  BOOST_TEST(::read(ends.reading.get(), bytes, sizeof bytes) == 9);

  auto later = par::run(loop, [](par::Fd fd, par::Reply<par::Fd> reply) { reply(std::move(fd)); });
  bool got = false;
  later(ends.reading, [&](par::Result<par::Fd> r) { got = static_cast<bool>(r.value()); });
  loop.run();
  BOOST_TEST(got);
}

// The first message waits, with its descriptors, until a callback is set.
BOOST_AUTO_TEST_CASE(a_message_that_waits_keeps_its_descriptors) {
  par::Reactor loop;
  auto process = par::process(loop, [](par::Pipe<int, par::Fd> pipe) {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) ::abort();
    pipe.send(par::Fd(ends[0]));
    pipe.send(par::Fd(ends[1]));
    pipe.close();
  });
  std::vector<par::Fd> got;
  par::Timer late = loop.after(std::chrono::milliseconds(20), [&] {
    process.on_message([&](par::Fd fd) { got.push_back(std::move(fd)); });
    process.close();
  });
  loop.run();
  BOOST_REQUIRE(got.size() == 2U);
  write_text(got[1], "x");
  got[1].reset();
  BOOST_TEST(read_to_end(got[0]) == "x");
}

BOOST_AUTO_TEST_CASE(too_many_descriptors_fail_only_their_own_call) {
  par::Reactor loop;
  auto count = par::run(loop, [](const std::vector<par::Fd>& all) { return all.size(); });
  const Ends ends = pipe_ends();
  const auto copies = [&](std::size_t number) {
    std::vector<par::Fd> all;
    while (all.size() < number) all.push_back(par::Fd::dup(ends.reading.get()));
    return all;
  };
  std::size_t counted = 0;
  bool refused = false;
  count(copies(253), [&](par::Result<std::size_t> r) { counted = r.value(); });
  count(copies(254), [&](par::Result<std::size_t> r) {
    refused = !r && r.error().code() == par::Errc::too_large &&
              r.error().delivery() == par::Delivery::not_sent;
  });
  std::size_t after = 0;
  count(copies(1), [&](par::Result<std::size_t> r) { after = r.value(); });
  loop.run();
  BOOST_TEST(counted == 253U);
  BOOST_TEST(refused);
  BOOST_TEST(after == 1U);
}

BOOST_AUTO_TEST_CASE(a_call_fails_if_its_child_has_no_room_for_descriptors) {
  par::Reactor loop;
  auto count = par::run(loop, [](const std::vector<par::Fd>& all) {
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    // After this call no further descriptor can be opened.
    limit.rlim_cur = all.empty() ? limit.rlim_max : 0;
    ::setrlimit(RLIMIT_NOFILE, &limit);
    return all.size();
  });
  const Ends ends = pipe_ends();
  std::vector<par::Fd> one;
  one.push_back(par::Fd::dup(ends.reading.get()));
  const std::vector<par::Fd>& with = one;
  std::vector<std::string> received;
  const std::vector<par::Fd> none;
  // The calls are made one by one: otherwise the descriptors of a later call may arrive with an
  // earlier one.
  for (const std::vector<par::Fd>* descriptors : {&with, &with, &none, &with, &none}) {
    count(*descriptors, [&](par::Result<std::size_t> r) {
      received.push_back(r ? std::to_string(*r) : r.error().what());
    });
    loop.run();
  }
  BOOST_REQUIRE(received.size() == 5U);  // the last one frees descriptors
  BOOST_TEST(received[0] == "1");
  BOOST_TEST(testing::has(received[1], "too many open files"));
  BOOST_TEST(received[2] == "0");
  BOOST_TEST(received[3] == "1");
}

BOOST_AUTO_TEST_CASE(a_repeated_call_sends_its_descriptors_again) {
  par::Reactor loop;
  par::Options options;
  options.retries = 1;
  options.idempotent = true;
  auto read = par::run(
      loop,
      [](const Copy& job) {
        char byte = 0;
        // The first child dies of it; the bytes that it has read are lost.
        if (::read(job.from.get(), &byte, 1) != 1) return std::string("nothing");
        if (byte == '!') ::_exit(9);
        return std::string(1, byte);
      },
      options);
  Ends ends = pipe_ends();
  write_text(ends.writing, "!ok");
  std::string text;
  read(Copy{std::move(ends.reading), std::move(ends.writing), ""},
       [&](par::Result<std::string> r) { text = r.value(); });
  loop.run();
  BOOST_TEST(text == "o");
}

BOOST_AUTO_TEST_CASE(a_pool_receives_and_returns_descriptors) {
  const std::size_t before = count_descriptors();
  {
    par::Reactor loop;
    auto pool = par::pool(loop, [](par::Fd fd) { return fd; });
    const Ends ends = pipe_ends();
    int back = 0;
    for (int i = 0; i < 20; ++i)
      pool.submit(ends.reading, [&](par::Result<par::Fd> r) { back += r && r->get() >= 0; });
    loop.run();
    BOOST_TEST(back == 20);

    std::vector<par::Fd> all;
    for (int i = 0; i < 20; ++i) all.push_back(par::Fd::dup(ends.reading.get()));
    int refused = 0;
    pool.map(
        all,
        [&](std::size_t, par::Result<par::Fd> r) {
          refused += !r && testing::has(r.error().what(), "use submit() for such calls");
        },
        [](const par::MapSummary&) {});
    loop.run();
    BOOST_TEST(refused == 20);

    auto taking = par::pool(loop, [](const par::Fd& fd) { return fd.get() >= 0; });
    int right = 0;
    taking.map(
        all, [&](std::size_t, par::Result<bool> r) { right += r && *r; },
        [](const par::MapSummary&) {});
    loop.run();
    BOOST_TEST(right == 20);

    // Made in the child, for items that travel together.
    auto making = par::pool(loop, [](int) { return par::Fd::dup(STDERR_FILENO); });
    std::vector<int> numbers(100);
    refused = 0;
    making.map(
        numbers,
        [&](std::size_t, par::Result<par::Fd> r) {
          refused += !r && testing::has(r.error().what(), "use submit() for such calls");
        },
        [](const par::MapSummary&) {});
    loop.run();
    BOOST_TEST(refused == 100);
  }
  BOOST_TEST(count_descriptors() == before);
}

BOOST_AUTO_TEST_CASE(no_descriptor_stays_open_after_abandoned_calls) {
  const std::size_t before = count_descriptors();
  {
    par::Reactor loop;
    auto read = par::run(loop, [](par::Fd fd) { return fd.get(); });
    const Ends ends = pipe_ends();
    for (int i = 0; i < 20; ++i) read(ends.reading, [](par::Result<int>) {});
    read = {};
    loop.run();
  }
  BOOST_TEST(count_descriptors() == before);
}

BOOST_AUTO_TEST_CASE(a_bound_descriptor_is_refused_at_once) {
  par::Reactor loop;
  const auto number_of = [](const par::Fd& fd, int) { return fd.get(); };
  BOOST_CHECK_EXCEPTION(
      static_cast<void>(par::run(loop, par::bind(number_of, par::Fd::dup(STDERR_FILENO)))),
      std::logic_error, [](const std::logic_error& error) {
        return testing::has(error.what(), "send it as an argument");
      });
}

// ---- shared bytes ----

BOOST_AUTO_TEST_CASE(shared_bytes_are_the_same_memory_on_both_sides) {
  par::SharedBytes bytes;
  try {
    bytes = par::SharedBytes::copy_of(std::string(3 << 20, 'b'));
  } catch (const par::Error& error) {
    BOOST_TEST((error.code() == par::Errc::refused));
    return testing::skip("no memfd");
  }
  par::Reactor loop;
  auto count = par::run(loop, [](const par::SharedBytes& all) {
    const std::string_view view = all.view();
    return std::count(view.begin(), view.end(), 'b');
  });
  std::ptrdiff_t counted = 0;
  count(bytes, [&](par::Result<std::ptrdiff_t> r) { counted = r.value(); });
  loop.run();
  BOOST_TEST(counted == 3 << 20);

  auto make = par::run(loop, [](std::size_t size) {
    return par::SharedBytes::create(
        size, [&](void* data) { std::fill_n(static_cast<char*>(data), size, 'm'); });
  });
  par::SharedBytes made;
  make(100000, [&](par::Result<par::SharedBytes> r) { made = r.value(); });
  loop.run();
  BOOST_TEST(made.view() == std::string(100000, 'm'));
}

BOOST_AUTO_TEST_CASE(shared_bytes_that_are_not_sealed_fail_the_call) {
  par::Reactor loop;
  // A child that breaks the rules: it sends a file in place of shared bytes.
  auto cheat =
      par::run(loop, [](int) { return par::Fd(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC)); });
  std::string text;
  cheat(0, [&](par::Result<par::Fd> r) {
    const auto error =
        testing::error_of([&] { par::SharedBytes::from_memfd(std::move(r.value())); });
    if (error) text = error->what();
  });
  loop.run();
  BOOST_TEST(testing::has(text, "is not sealed memory"));
}
