// late_modules.cpp - functions in libraries that were loaded before and after the snapshot, with the public interface.
#include "calling.hpp"
#include "library.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <dlfcn.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <stdexcept>

namespace par = evparallel;

namespace {
void* load(const std::string& name) {
  void* handle = ::dlopen(testing::library_path(name).c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) throw std::runtime_error(::dlerror());
  return handle;
}

// The handle is kept: a library that uses the standard library cannot be unloaded anyway.
const testing::Library& library_in(void* handle) {
  const auto get = reinterpret_cast<decltype(&library)>(::dlsym(handle, "library"));
  return *get();
}

using Twin = int (*)(int);
Twin twin_in(void* handle) {
  return reinterpret_cast<Twin>(::dlsym(handle, "twin"));
}

const testing::Library* early = nullptr;
const testing::Library* late = nullptr;
void* twin = nullptr;  // loaded before the snapshot

}  // namespace

void testing_main_init() {
  early = &library_in(load("early.so"));
  twin = load("with_id.so");
  testing::take_default_snapshot();
  late = &library_in(load("late.so"));
}

namespace {

template <class Inc, class Out>
std::optional<par::Result<Inc>> result_of(par::Reactor& loop, par::Remote<Inc(Out)>& remote,
                                          Out argument) {
  std::optional<par::Result<Inc>> received;
  bool inside = true;
  remote(argument, [&](par::Result<Inc> r) {
    BOOST_TEST(!inside);
    BOOST_TEST(!received.has_value());
    received = std::move(r);
  });
  inside = false;
  loop.run();
  return received;
}

template <class F>
int answer(F f, int argument) {
  par::Reactor loop;
  auto remote = par::run(loop, f);
  return result_of(loop, remote, argument).value().value();
}

bool is_about(const par::Error& error, const std::string& part) {
  BOOST_TEST((error.code() == par::Errc::unknown_function));
  BOOST_TEST((error.delivery() == par::Delivery::not_sent));
  BOOST_TEST(!error.exit().has_value());
  if (std::string(error.what()).find(part) != std::string::npos) return true;
  BOOST_TEST_MESSAGE(error.what());
  return false;
}

// Whether each call fails, including those after the first failure.
template <class F>
bool is_unknown(F f, const std::string& part) {
  par::Reactor loop;
  auto remote = par::run(loop, f);
  for (int i = 0; i < 2; ++i) {
    const auto received = result_of(loop, remote, 4);
    if (!received || received->has_value() || !is_about(received->error(), part)) return false;
  }
  return remote.pid() == 0 && remote.pending() == 0;
}

struct Received {
  bool started = false;
  std::string events;
  std::optional<par::Error> error;
};

Received conversation(par::Reactor& loop, par::Process<int, int> process, int messages = 1) {
  Received received;
  process.on_start([&](pid_t) { received.started = true; });  // before or after the messages
  process.on_message([&](int x) { received.events += std::to_string(x) + " "; });
  process.on_error([&](const par::Error& error) {
    received.events += "error ";
    received.error = error;
  });
  process.on_end([&] { received.events += "end "; });
  process.on_exit([&](const par::ExitStatus& status) {
    received.events += std::string("exit ") + to_string(status.cause);
  });
  for (int i = 0; i < messages; ++i) process.send(7);
  process.close();
  loop.run();
  return received;
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_library_that_was_loaded_before_works) {
  BOOST_TEST(answer(early->twice, 4) == 8);
  BOOST_TEST(answer(par::fn<int(int)>(early->twice), 4) == 8);
  BOOST_TEST(answer(par::as_is(early->twice), 4) == 8);
  BOOST_TEST(answer(par::bind(early->product, 3), 4) == 12);
  BOOST_TEST(answer([f = early->twice](int x) { return f(x); }, 4) == 8);
  par::Reactor loop;
  auto thrice = early->run_thrice(loop);
  BOOST_TEST(result_of(loop, thrice, 4).value().value() == 12);
  BOOST_TEST(conversation(loop, early->process_echo(loop)).events == "7 end exit normal");
  BOOST_TEST(conversation(loop, par::process(loop, early->echo)).events == "7 end exit normal");
}

BOOST_AUTO_TEST_CASE(an_entry_in_a_late_library_is_refused) {
  par::Reactor loop;
  auto thrice = late->run_thrice(loop);
  for (int i = 0; i < 3; ++i) {
    const auto received = result_of(loop, thrice, 4);
    BOOST_REQUIRE(received.has_value());
    BOOST_REQUIRE(!received->has_value());
    BOOST_TEST(
        is_about(received->error(), testing::library_path("late.so") + ", which was loaded after"));
  }
  BOOST_TEST(thrice.pid() == 0);
}

BOOST_AUTO_TEST_CASE(a_function_pointer_into_a_late_library_is_refused) {
  const std::string path = testing::library_path("late.so");
  BOOST_TEST(is_unknown(late->twice, path));
  BOOST_TEST(is_unknown(par::fn<int(int)>(late->twice), path));
  BOOST_TEST(is_unknown(par::as_is(late->twice), path));
  BOOST_TEST(is_unknown(par::bind(late->product, 3), path));
  BOOST_TEST(is_unknown(par::bind(par::bind(late->product, 3)), path));
  BOOST_TEST(is_unknown(par::bind(par::fn<int(int, int)>(late->product), 3), path));
  BOOST_TEST(is_unknown(par::bind(par::as_is(late->product), 3), path));
  BOOST_TEST(is_unknown(par::as_is(par::bind(late->product, 3)), path));
  BOOST_TEST(is_unknown(par::as_is(par::fn<int(int)>(late->twice)), path));
}

BOOST_AUTO_TEST_CASE(all_waiting_calls_get_the_error_of_an_unknown_function) {
  par::Reactor loop;
  auto twice = par::run(loop, late->twice);
  const std::size_t open = testing::count_descriptors();
  int received = 0;
  for (int i = 0; i < 100; ++i)
    twice(i, [&](par::Result<int> r) {
      received += is_about(r.error(), testing::library_path("late.so"));
    });
  BOOST_TEST(twice.pending() == 100U);
  BOOST_TEST(testing::count_descriptors() == open);  // no request for each of them
  loop.run();
  BOOST_TEST(received == 100);
  // The same holds for calls whose arguments fill any socket.
  auto size = par::run(loop, late->size);
  for (int i = 0; i < 3; ++i)
    size(std::string(1 << 22, 'x'), [&](par::Result<std::size_t> r) {
      received += is_about(r.error(), testing::library_path("late.so"));
    });
  loop.run();
  BOOST_TEST(received == 103);
}

BOOST_AUTO_TEST_CASE(the_on_start_function_of_a_pool_must_be_known) {
  par::Reactor loop;
  par::PoolOptions options;
  options.workers = 2;
  options.child.on_start = par::bind(early->twice, 1);
  auto known = par::pool(loop, early->twice, options);
  int right = 0;
  known.submit(4, [&](par::Result<int> r) { right += r.value() == 8; });
  loop.run();
  BOOST_TEST(right == 1);

  options.child.on_start = par::bind(late->twice, 1);
  auto unknown = par::pool(loop, early->twice, options);
  int received = 0;
  const auto receive = [&](par::Result<int> r) {
    received += !r && is_about(r.error(), testing::library_path("late.so"));
  };
  for (int i = 0; i < 10; ++i) unknown.submit(i, receive);
  loop.run();
  BOOST_TEST(received == 10);
  unknown.submit(1, receive);  // and once more
  loop.run();
  BOOST_TEST(received == 11);
  std::size_t failed = 0;
  std::size_t ends = 0;
  const std::vector<int> items(10, 1);
  unknown.map(
      items, [&](std::size_t, par::Result<int> r) { failed += !r; },
      [&](const par::MapSummary& summary) {
        ++ends;
        BOOST_REQUIRE(summary.error.has_value());
        BOOST_TEST(is_about(*summary.error, testing::library_path("late.so")));
      });
  loop.run();
  BOOST_TEST(ends == 1u);
  BOOST_TEST(failed == 0u);
}

BOOST_AUTO_TEST_CASE(a_process_with_an_unknown_function_gets_one_error_and_its_end) {
  par::Reactor loop;
  for (int messages : {0, 1, 100000}) {
    for (const bool own : {true, false}) {
      const Received received = conversation(
          loop, own ? late->process_echo(loop) : par::process(loop, late->echo), messages);
      BOOST_TEST(received.events == "error end exit not_started");
      BOOST_TEST(!received.started);
      BOOST_REQUIRE(received.error.has_value());
      BOOST_TEST(is_about(*received.error, testing::library_path("late.so")));
    }
  }
}

BOOST_AUTO_TEST_CASE(a_handle_dropped_early_leaves_nothing_behind) {
  par::Reactor loop;
  std::vector<par::Errc> received;
  {
    auto twice = par::run(loop, late->twice);
    twice(1, [&](par::Result<int> r) { received.push_back(r.error().code()); });
    auto echo = par::process(loop, late->echo);
    echo.on_exit([&](const par::ExitStatus&) { received.push_back(par::Errc::closed); });
    echo.kill(SIGKILL);
  }
  loop.run();
  BOOST_TEST((received == std::vector<par::Errc>{par::Errc::cancelled}));
}

BOOST_AUTO_TEST_CASE(an_unknown_function_does_not_affect_other_remotes) {
  // An unknown function does not affect the others.
  par::Reactor loop;
  auto known = par::run(loop, early->twice);
  auto unknown = par::run(loop, late->twice);
  int right = 0;
  for (int i = 0; i < 3; ++i) {
    known(i, [&, i](par::Result<int> r) { right += r.value() == 2 * i; });
    unknown(i, [&](par::Result<int> r) { right += !r.has_value(); });
  }
  loop.run();
  BOOST_TEST(right == 6);
}

BOOST_AUTO_TEST_CASE(retries_and_deadlines_do_not_change_the_error) {
  par::Options options;
  options.retries = 2;
  options.idempotent = true;
  options.deadline = std::chrono::minutes(1);
  par::Reactor loop;
  auto twice = par::run(loop, late->twice, options);
  int received = 0;
  for (int i = 0; i < 3; ++i)
    twice(i, [&](par::Result<int> r) {
      received += is_about(r.error(), testing::library_path("late.so"));
    });
  loop.run();
  BOOST_TEST(received == 3);
  auto echo = par::process(loop, late->echo, options);
  BOOST_TEST(conversation(loop, std::move(echo)).events == "error end exit not_started");
}

BOOST_AUTO_TEST_CASE(a_later_snapshot_knows_later_libraries) {
  testing::allow_descriptors(1);  // of a snapshot that ends later
  par::Snapshot second;
  par::Options options;
  options.snapshot = &second;
  par::Reactor loop;
  auto in_second = par::run(loop, late->twice, options);
  auto in_first = par::run(loop, late->twice);
  BOOST_TEST(result_of(loop, in_second, 4).value().value() == 8);
  BOOST_TEST(!result_of(loop, in_first, 4).value().has_value());
}

BOOST_AUTO_TEST_CASE(a_function_outside_of_all_libraries_is_refused) {
  void* page = ::mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  BOOST_REQUIRE(page != MAP_FAILED);
  BOOST_TEST(is_unknown(reinterpret_cast<Twin>(page), "in no loaded library"));
  ::munmap(page, 4096);
  BOOST_TEST(is_unknown(static_cast<Twin>(nullptr), "null"));
}

// A library that a child has loaded itself is late, too: its children are forked from the snapshot.
BOOST_AUTO_TEST_CASE(a_library_loaded_by_a_child_is_late_for_its_children) {
  par::Reactor loop;
  auto nested = par::run(loop, [](const std::string& name) {
    const testing::Library& loaded = library_in(load(name));
    std::string said;
    par::Reactor& here = par::this_reactor();
    auto thrice = loaded.run_thrice(here);
    auto twice = par::run(here, loaded.twice);
    for (auto* remote : {&thrice, &twice}) {
      (*remote)(5, [&](par::Result<int> r) {
        said += r ? std::to_string(*r) + " "
                  : to_string(r.error().code()) + (" " + testing::library_path(name));
      });
      here.run();
    }
    return said;
  });
  const auto said = [&](const char* name) {
    return result_of(loop, nested, std::string(name)).value().value();
  };
  BOOST_TEST(said("early.so") == "15 10 ");
  const std::string unknown = "unknown_function " + testing::library_path("late.so");
  BOOST_TEST(said("late.so") == unknown + unknown);
  BOOST_TEST(said("early.so") == "15 10 ");
}

// The last case: the library from before the snapshot is not there after it.
BOOST_AUTO_TEST_CASE(another_library_at_the_address_of_an_unloaded_one_is_refused) {
  const Twin before = twin_in(twin);
  BOOST_TEST(answer(before, 1) == 2);
  ::dlclose(twin);
  BOOST_TEST(is_unknown(before, "it was in " + testing::library_path("with_id.so")));

  void* other = load("without_id.so");
  const Twin after = twin_in(other);
  BOOST_TEST(is_unknown(after, "it is in " + testing::library_path("without_id.so")));
  if (after == before)
    BOOST_TEST(is_unknown(after, "the snapshot has " + testing::library_path("with_id.so")));
  else
    BOOST_TEST_MESSAGE("the other library is not in the same place");
  ::dlclose(other);
}
