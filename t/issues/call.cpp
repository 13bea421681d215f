// call.cpp - what there was no memory for left the loop as std::bad_alloc, and neither that call nor the next was
// answered; and exceptions whose text is null, or very long, ended the child that told of them.  The processor time of
// a child could be limited for its whole life only.
#include "elsewhere.hpp"
#include "errors.hpp"
#include "process.hpp"

#include <evparallel/evparallel.hpp>

#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <exception>
#include <fstream>
#include <initializer_list>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace par = evparallel;
using namespace std::chrono_literals;
using testing::has;

void testing_main_init() {
  par::init();
  testing::expect_child(par::default_snapshot().pid());
}

namespace {

constexpr std::size_t megabyte = 1 << 20;
// A message of `much` does not fit into `room`; a message of `some` fits once.
constexpr std::size_t room = 8 * megabyte;
constexpr std::size_t much = 24 * megabyte;
constexpr std::size_t some = 5 * megabyte;

// Limits this process to `room` bytes beyond its present size.
void leave_little_memory() {
  std::size_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  const rlim_t most = pages * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)) + room;
  const rlimit limit{most, most};
  BOOST_REQUIRE(::setrlimit(RLIMIT_AS, &limit) == 0);
}

// Calls f(loop) in a process of its own that has little memory left.  Its snapshot and its children have enough.
template <class F>
int with_little_memory(F f) {
  return testing::elsewhere([&] {
    par::Snapshot snapshot;
    par::Reactor loop;
    par::Options options;
    options.snapshot = &snapshot;
    return f(loop, options);
  });
}

bool skipped() {
  testing::limit(600);  // large messages are slow on a busy machine
  if (testing::sanitized) testing::skip("a sanitizer's memory cannot be limited");
  return testing::sanitized;
}

// The number of the first false condition; 0: all are true.
int first_wrong(std::initializer_list<bool> conditions) {
  int number = 0;
  for (const bool holds : conditions) {
    ++number;
    if (!holds) return number;
  }
  return 0;
}

bool says_no_memory(const par::Error& error) {
  return error.code() == par::Errc::overloaded && error.os_error() == ENOMEM;
}

std::string text_of_size(std::size_t size) {
  return std::string(size, 'x');
}

// A text, and a descriptor with it.
struct Parcel {
  par::Fd fd{};
  std::string text{};
};
struct ParcelIo {
  static void put(par::Writer& out, const Parcel& parcel) {
    const auto kept = std::make_shared<par::Fd>(::dup(parcel.fd.get()));
    out.attach(kept->get(), kept);
    out.write(parcel.text);
  }
  static Parcel get(par::Reader& in) {
    Parcel parcel;
    parcel.fd = par::Fd(in.take_descriptor(0));
    parcel.text = in.take_rest();
    return parcel;
  }
};

}  // namespace

// ---- no memory ----

BOOST_AUTO_TEST_CASE(an_answer_without_memory_fails_only_its_own_call) {
  if (skipped()) return;
  const int status = with_little_memory([](par::Reactor& loop, const par::Options& options) {
    auto make = par::run<par::RawIo>(loop, &text_of_size, options);
    leave_little_memory();
    std::optional<par::Error> refused;
    std::size_t size = 0;
    make(much, [&](par::Result<std::string> r) { refused = r.error(); });
    make(3, [&](par::Result<std::string> r) { size = r.value().size(); });
    loop.run();
    return first_wrong({refused && says_no_memory(*refused),
                        refused && refused->delivery() == par::Delivery::started, size == 3,
                        make.pending() == 0});
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(descriptors_of_an_answer_without_memory_are_closed) {
  if (skipped()) return;
  const int status = with_little_memory([](par::Reactor& loop, const par::Options& options) {
    auto make = par::run<ParcelIo>(
        loop,
        [](std::size_t size) {
          return Parcel{par::Fd(::dup(0)), text_of_size(size)};
        },
        options);
    std::size_t sizes = 0;
    const auto take = [&](par::Result<Parcel> r) { sizes += r ? r->text.size() : 0; };
    make(5, take);
    loop.run();
    const std::size_t before = testing::count_descriptors();
    leave_little_memory();
    make(much, take);
    make(7, take);
    loop.run();
    return first_wrong({sizes == 12, testing::count_descriptors() == before});
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(an_answer_decoded_without_memory_fails_only_its_own_call) {
  if (skipped()) return;
  const int status = with_little_memory([](par::Reactor& loop, const par::Options& options) {
    auto make = par::run(loop, &text_of_size, options);
    leave_little_memory();
    std::optional<par::Error> refused;
    std::size_t size = 0;
    make(some, [&](par::Result<std::string> r) { refused = r.error(); });
    make(3, [&](par::Result<std::string> r) { size = r.value().size(); });
    loop.run();
    return first_wrong({refused && says_no_memory(*refused), size == 3});
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(an_argument_without_memory_in_the_child_fails_only_its_own_call) {
  if (skipped()) return;
  par::Reactor loop;
  par::Options options;
  options.limits.memory = room;
  const auto size_of = [](const std::string& text) { return text.size(); };
  auto raw = par::run<par::RawIo, par::RawIo>(loop, size_of, options);
  auto json = par::run(loop, size_of, options);
  std::vector<par::Error> refused;
  std::size_t sizes = 0;
  const auto take = [&](par::Result<std::size_t> r) {
    if (r)
      sizes += *r;
    else
      refused.push_back(r.error());
  };
  raw(text_of_size(much), take);
  raw("four", take);
  json(text_of_size(some), take);
  json("seven..", take);
  loop.run();
  BOOST_REQUIRE(refused.size() == 2U);
  BOOST_TEST(says_no_memory(refused[0]));
  BOOST_TEST(says_no_memory(refused[1]));
  BOOST_TEST(sizes == 11U);
}

BOOST_AUTO_TEST_CASE(a_bound_argument_without_memory_in_the_child_is_reported) {
  if (skipped()) return;
  par::Reactor loop;
  par::Options options;
  options.limits.memory = room;
  std::optional<par::Error> refused;
  auto bound = par::run(loop,
                        par::bind([](const std::string& text,
                                     int n) { return text.size() + static_cast<std::size_t>(n); },
                                  text_of_size(much)),
                        options);
  bound(1, [&](par::Result<std::size_t> r) { refused = r.error(); });
  loop.run();
  BOOST_REQUIRE(refused.has_value());
  BOOST_TEST((refused->code() == par::Errc::overloaded));
}

BOOST_AUTO_TEST_CASE(a_message_without_memory_is_an_error_and_the_pipe_continues) {
  if (skipped()) return;
  const int status = with_little_memory([](par::Reactor& loop, const par::Options& options) {
    auto child = par::process<par::RawIo>(
        loop,
        [](par::Pipe<int, std::string> pipe) {
          pipe.on_message([pipe](int) {
            pipe.send(text_of_size(much));
            pipe.send(text_of_size(3));
            pipe.close();
          });
        },
        options);
    leave_little_memory();
    std::vector<par::Error> errors;
    std::size_t sizes = 0;
    child.on_message([&](const std::string& text) { sizes += text.size(); });
    child.on_error([&](const par::Error& error) { errors.push_back(error); });
    child.send(1);
    child.close();
    loop.run();
    return first_wrong({errors.size() == 1, says_no_memory(errors.at(0)), sizes == 3});
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(a_map_item_whose_answer_has_no_memory_fails_alone) {
  if (skipped()) return;
  const int status = with_little_memory([](par::Reactor& loop, const par::Options& options) {
    par::PoolOptions pool_options;
    pool_options.workers = 1;
    pool_options.child = options;
    auto pool = par::pool<par::RawIo>(loop, &text_of_size, pool_options);
    leave_little_memory();
    const std::vector<std::size_t> items{1, much, 2};
    std::vector<par::Error> refused;
    std::size_t sizes = 0;
    pool.map(
        items,
        [&](std::size_t index, par::Result<std::string> r) {
          if (r)
            sizes += r->size();
          else if (index == 1)
            refused.push_back(r.error());
        },
        [](const par::MapSummary&) {});
    loop.run();
    return first_wrong({refused.size() == 1, says_no_memory(refused.at(0)), sizes == 3});
  });
  BOOST_TEST(status == 0);
}

// ---- the text of an exception ----

namespace {

struct Mute : std::exception {
  const char* what() const noexcept override { return nullptr; }
};
struct MuteError : par::Error {
  MuteError() : par::Error(par::Errc::closed, "not this") {}
  const char* what() const noexcept override { return nullptr; }
};
// Its text has `size` bytes.
struct Long : std::exception {
  explicit Long(std::size_t size) : text(std::make_shared<const std::string>(size, 'x')) {}
  const char* what() const noexcept override { return text->c_str(); }
  std::shared_ptr<const std::string> text;
};

template <class E>
struct ThrowingIo {
  static void put(par::Writer&, int) { throw E(); }
  static int get(par::Reader&) { throw E(); }
};

// The error of the call with `n`, whose child then answers the call with 0.
template <class Remote>
par::Error error_of_call(par::Reactor& loop, Remote& remote, int n) {
  std::optional<par::Error> error;
  bool answered = false;
  remote(n, [&](par::Result<int> r) { error = r.error(); });
  remote(0, [&](par::Result<int> r) { answered = r.has_value(); });
  loop.run();
  BOOST_REQUIRE(error.has_value());
  BOOST_TEST(answered);
  return *error;
}

}  // namespace

BOOST_AUTO_TEST_CASE(an_exception_without_a_text_is_described_by_its_type) {
  par::Reactor loop;
  auto fail = par::run(loop, [](int n) {
    if (n == 1) throw Mute();
    if (n == 2) throw MuteError();
    try {
      if (n == 3) throw Mute();
    } catch (...) {
      std::throw_with_nested(std::runtime_error("outer"));
    }
    return n;
  });
  for (const int n : {1, 2}) {
    const par::Error error = error_of_call(loop, fail, n);
    BOOST_TEST((error.code() == par::Errc::remote_exception));
    BOOST_TEST(has(error.remote_type(), "Mute"));
    BOOST_TEST(has(error.what(), "Mute"));
  }
  BOOST_TEST(
      has(error_of_call(loop, fail, 3).what(), "outer; caused by (anonymous namespace)::Mute"));
}

BOOST_AUTO_TEST_CASE(a_reply_may_fail_with_an_exception_without_a_text) {
  par::Reactor loop;
  auto fail = par::run(loop, [](int n, par::Reply<int> reply) {
    if (n == 0)
      reply(0);
    else
      reply.fail(std::make_exception_ptr(Mute()));
  });
  BOOST_TEST(has(error_of_call(loop, fail, 1).what(), "Mute"));
}

BOOST_AUTO_TEST_CASE(a_codec_may_throw_an_exception_without_a_text) {
  for (const auto act :
       {+[] { ThrowingIo<Mute>::put(*std::make_unique<par::Writer>(), 1); },
        +[] { ThrowingIo<MuteError>::put(*std::make_unique<par::Writer>(), 1); }}) {
    const std::string said = testing::bad_message([&] {
      try {
        act();
      } catch (...) {
        par::detail::rethrow_as_bad_message("encode");
      }
    });
    BOOST_TEST(has(said, "could not encode: the codec threw an exception without a text"));
  }
  par::Reactor loop;
  auto back = par::run<ThrowingIo<Mute>>(loop, [](int n) { return n; });
  std::optional<par::Error> error;
  back(1, [&](par::Result<int> r) { error = r.error(); });
  loop.run();
  BOOST_REQUIRE(error.has_value());
  BOOST_TEST((error->code() == par::Errc::bad_message));
}

BOOST_AUTO_TEST_CASE(a_long_text_is_cut_before_it_is_copied) {
  if (skipped()) return;
  par::Reactor loop;
  par::Options options;
  options.limits.memory = much + room;  // no room for a copy
  auto fail = par::run(
      loop,
      [](int n) {
        if (n > 0) throw Long(much);
        return n;
      },
      options);
  const par::Error error = error_of_call(loop, fail, 1);
  BOOST_TEST(has(error.remote_type(), "Long"));
  BOOST_TEST(std::string(error.what()).size() == 16U * 1024);
}

BOOST_AUTO_TEST_CASE(a_long_chain_of_nested_exceptions_is_cut) {
  testing::limit(600);
  par::Reactor loop;
  auto fail = par::run(loop, [](int n) {
    std::exception_ptr chain = std::make_exception_ptr(std::runtime_error("innermost"));
    for (int i = 0; i < n; ++i) {
      try {
        std::rethrow_exception(std::exchange(chain, nullptr));
      } catch (...) {
        try {
          std::throw_with_nested(std::runtime_error(""));
        } catch (...) {
          chain = std::current_exception();
        }
      }
    }
    if (n > 0) std::rethrow_exception(chain);
    return n;
  });
  BOOST_TEST(has(error_of_call(loop, fail, 2).what(), "; caused by std::runtime_error: innermost"));
  BOOST_TEST(std::string(error_of_call(loop, fail, 20000).what()).size() == 16U * 1024);
}

// ---- processor time ----

namespace {

int burn_and_return(int ms) {
  testing::burn(std::chrono::milliseconds(ms));
  return ms;
}

par::Options one_second_per_call() {
  par::Options options;
  options.limits.cpu_per_call = 1s;
  return options;
}

// How the child of a call ends that would burn much more than its second.
template <class F>
par::ExitStatus end_of_long_call(F f) {
  par::Reactor loop;
  auto remote = par::run(loop, f, one_second_per_call());
  std::optional<par::Error> error;
  remote(60000, [&](par::Result<int> r) {
    if (!r) error = r.error();
  });
  loop.run();
  if (!error || !error->exit()) return {};
  BOOST_TEST((error->code() == par::Errc::child_killed));
  BOOST_TEST((error->delivery() == par::Delivery::started));
  return *error->exit();
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_call_above_its_processor_time_ends_its_child) {
  const par::ExitStatus end = end_of_long_call(burn_and_return);
  BOOST_TEST((end.cause == par::Cause::cpu_limit));
  BOOST_TEST(end.signal() == SIGXCPU);
  const par::ExitStatus later =
      end_of_long_call([](int ms, par::Reply<int> reply) { reply(burn_and_return(ms)); });
  BOOST_TEST((later.cause == par::Cause::cpu_limit));
}

BOOST_AUTO_TEST_CASE(a_call_that_ignores_sigxcpu_is_killed_a_second_later) {
  const par::ExitStatus end = end_of_long_call([](int ms) {
    ::signal(SIGXCPU, SIG_IGN);
    return burn_and_return(ms);
  });
  BOOST_TEST(end.signal() == SIGKILL);
}

BOOST_AUTO_TEST_CASE(the_processor_time_of_calls_does_not_add_up) {
  par::Reactor loop;
  auto remote = par::run(
      loop,
      [](int ms) {
        burn_and_return(ms);
        return ::getpid();
      },
      one_second_per_call());
  std::vector<pid_t> children;
  for (int i = 0; i < 4; ++i)
    remote(400, [&](par::Result<pid_t> r) { children.push_back(r.value_or(0)); });
  loop.run();
  BOOST_REQUIRE(children.size() == 4u);
  for (const pid_t child : children) BOOST_TEST(child == children.front());
  BOOST_TEST(children.front() != 0);
}
