// asio.cpp - a Reactor inside of an io_context of Asio, and calls with completion tokens.
#include "calling.hpp"
#include "testing.hpp"

#include <evparallel/asio.hpp>
#include <evparallel/evparallel.hpp>

#include <asio/bind_allocator.hpp>
#include <asio/bind_cancellation_slot.hpp>
#include <asio/bind_executor.hpp>
#include <asio/cancellation_signal.hpp>
#include <asio/detached.hpp>
#include <asio/experimental/deferred.hpp>
#include <asio/io_context.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>
#include <asio/strand.hpp>
#include <asio/use_future.hpp>

#include <atomic>
#include <cstddef>
#include <exception>
#include <future>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace par = evparallel;
using namespace std::chrono_literals;

void testing_main_init() {
  testing::take_default_snapshot();
}

namespace {

using Context = asio::io_context;
using ContextReactor = par::AsioReactor<Context::executor_type>;

int plus_one(int x) {
  return x + 1;
}

int refuse(int) {
  throw std::runtime_error("no");
}

// Its child answers the calls with an odd number, and no other.
void odd_only(int x, par::Reply<int> reply) {
  static std::vector<par::Reply<int>> kept;
  if (x % 2 != 0)
    reply(x);
  else
    kept.push_back(std::move(reply));
}

// Can neither be copied nor made without a value.
class Ticket {
public:
  explicit Ticket(int number) : number_(std::make_unique<int>(number)) {}
  int number() const { return *number_; }

private:
  std::unique_ptr<int> number_;
};

}  // namespace

template <>
struct par::Io<Ticket> {
  static void put(par::Writer& out, const Ticket& ticket) {
    const int number = ticket.number();
    out.write(&number, sizeof number);
  }
  static Ticket get(par::Reader& in) {
    int number = 0;
    in.read(&number, sizeof number);
    return Ticket(number);
  }
};

namespace {

Ticket next_ticket(Ticket ticket) {
  return Ticket(ticket.number() + 1);
}

// Counts the memory that it has given, and how often.
template <class T>
class CountingAllocator {
public:
  using value_type = T;
  CountingAllocator(int& living, int& all) noexcept : living_(&living), all_(&all) {}
  template <class U>
  CountingAllocator(const CountingAllocator<U>& other) noexcept
      : living_(other.living_), all_(other.all_) {}
  T* allocate(std::size_t n) {
    ++*living_;
    ++*all_;
    return std::allocator<T>().allocate(n);
  }
  void deallocate(T* p, std::size_t n) {
    --*living_;
    std::allocator<T>().deallocate(p, n);
  }
  template <class U>
  bool operator==(const CountingAllocator<U>& other) const noexcept {
    return living_ == other.living_;
  }
  template <class U>
  bool operator!=(const CountingAllocator<U>& other) const noexcept {
    return living_ != other.living_;
  }

private:
  template <class>
  friend class CountingAllocator;
  int* living_;
  int* all_;
};

// The text of an exception, and the code of an Error.
std::string text_of(const std::exception_ptr& thrown) {
  if (!thrown) return "none";
  try {
    std::rethrow_exception(thrown);
  } catch (const par::Error& error) {
    return par::to_string(error.code());
  } catch (const std::logic_error&) {
    return "logic_error";
  }
}

// Turns the context until `done()`.
template <class F>
bool run_until(Context& context, F done) {
  return testing::wait_until(done, [&] { context.run_one_for(1s); });
}

// Fails the case if the context does not come to its end.
class Watchdog {
public:
  explicit Watchdog(Context& context) : timer_(context, testing::patience()) {
    timer_.async_wait([&](const asio::error_code& error) {
      if (error) return;
      testing::ran_out(__FILE__, __LINE__);
      context.stop();
    });
  }
  void cancel() { timer_.cancel(); }

private:
  asio::steady_timer timer_;
};

}  // namespace

BOOST_AUTO_TEST_CASE(calls_are_answered_in_an_io_context) {
  Context context;
  Watchdog watchdog(context);
  std::optional<ContextReactor> loop = par::asio_reactor(context.get_executor());
  auto f = par::run(**loop, plus_one);
  auto pool = par::pool(**loop, plus_one);
  constexpr int many = 1000;
  long sum = 0;
  int answers = 0;
  const auto count = [&](par::Result<int> r) {
    sum += r.value();
    if (++answers < 2 * many) return;
    loop.reset();  // in its own callback
    watchdog.cancel();
  };
  for (int i = 0; i < many; ++i) {
    f(i, count);
    pool.submit(i, count);
  }
  context.run();
  BOOST_TEST(answers == 2 * many);
  BOOST_TEST(sum == long{many} * (many + 1));
}

BOOST_AUTO_TEST_CASE(timers_and_posts_of_both_take_turns_in_an_io_context) {
  Context context;
  Watchdog watchdog(context);
  auto loop = par::asio_reactor(context.get_executor());
  std::string order;
  const auto start = std::chrono::steady_clock::now();
  asio::steady_timer first(context, 1ms);
  const par::Timer second = loop->after(10ms, [&] { order += "b"; });
  asio::steady_timer third(context, 40ms);
  bool early = false;
  const par::Timer fourth = loop->after(60ms, [&] {
    order += "d";
    early = std::chrono::steady_clock::now() - start < 60ms;
    std::thread([&] { loop->post([&] { context.stop(); }); }).join();
  });
  first.async_wait([&](const asio::error_code&) { order += "a"; });
  third.async_wait([&](const asio::error_code&) { order += "c"; });
  context.run();
  for (const char expected : {'a', 'b', 'c', 'd'})
    BOOST_TEST(order.find(expected) != std::string::npos);
  BOOST_TEST(!early);
}

BOOST_AUTO_TEST_CASE(an_exception_of_a_callback_leaves_the_run_of_an_io_context) {
  Context context;
  Watchdog watchdog(context);
  auto loop = par::asio_reactor(context.get_executor());
  bool reached = false;
  const par::Timer first = loop->after(0ns, [] { throw std::runtime_error("first"); });
  const par::Timer second = loop->after(0ns, [&] {
    reached = true;
    context.stop();
  });
  std::string text;
  try {
    context.run();
  } catch (const std::runtime_error& error) {
    text = error.what();
  }
  BOOST_TEST(text == "first");
  BOOST_TEST(!reached);
  context.run();
  BOOST_TEST(reached);
}

BOOST_AUTO_TEST_CASE(threads_run_an_io_context_with_a_reactor_in_a_strand) {
  Context context;
  Watchdog watchdog(context);
  const auto strand = asio::make_strand(context);
  auto loop = std::make_optional<par::AsioReactor<asio::strand<Context::executor_type>>>(strand);
  auto f = std::make_optional(par::run(**loop, plus_one));
  constexpr int many = 500;
  std::atomic<int> inside{0};
  bool together = false;
  int answers = 0;
  for (int i = 0; i < many; ++i)
    asio::post(context, [&, i] {  // any thread
      asio::post(strand, [&, i] {
        together = together || ++inside > 1;
        (*f)(i, [&, i](par::Result<int> r) {
          together = together || ++inside > 1;
          answers += r.value() == i + 1;
          --inside;
          if (answers < many) return;
          f.reset();
          loop.reset();
          watchdog.cancel();
        });
        --inside;
      });
    });
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) threads.emplace_back([&] { context.run(); });
  for (std::thread& thread : threads) thread.join();
  BOOST_TEST(answers == many);
  BOOST_TEST(!together);
}

BOOST_AUTO_TEST_CASE(an_idle_reactor_lets_an_io_context_sleep) {
  Context context;
  auto loop = par::asio_reactor(context.get_executor());
  auto f = par::run(*loop, plus_one);
  bool answered = false;
  f(1, [&](par::Result<int>) { answered = true; });
  BOOST_TEST(testing::wait_until([&] { return answered; }, [&] { context.run_one_for(1s); }));
  BOOST_TEST(testing::eventually([&] { return context.poll() == 0; }));
  BOOST_TEST(!context.stopped());  // it holds the context
}

BOOST_AUTO_TEST_CASE(
    a_reactor_of_an_io_context_may_be_moved_and_destroyed_and_closes_its_descriptors) {
  const std::size_t before = testing::count_descriptors();
  {
    Context context;
    static_cast<void>(par::asio_reactor(context.get_executor()));  // the context opens its own
    const std::size_t with_context = testing::count_descriptors();
    {
      auto first = par::asio_reactor(context.get_executor());
      auto second = par::asio_reactor(context.get_executor());
      bool called = false;
      second->post([&] { called = true; });
      first = std::move(second);
      auto moved = std::move(first);
      BOOST_TEST(testing::wait_until([&] { return called; }, [&] { context.run_one_for(1s); }));
    }
    BOOST_TEST(testing::count_descriptors() == with_context);
    context.run();  // returns: nothing holds it
  }
  BOOST_TEST(testing::count_descriptors() == before);
}

BOOST_AUTO_TEST_CASE(ten_thousand_calls_are_answered_through_completion_tokens) {
  Context context;
  auto loop = par::asio_reactor(context.get_executor());
  auto f = par::run(*loop, plus_one);
  auto pool = par::pool(*loop, plus_one);
  constexpr int each = 2500;
  long sum = 0;
  int answers = 0;
  const auto count = [&](std::exception_ptr thrown, int x) {
    sum += x;
    answers += thrown ? 0 : 1;
  };
  std::vector<std::future<int>> futures;
  for (int i = 0; i < each; ++i) {
    par::async_call(f, i, count);
    par::async_call(pool, i, count);
    futures.push_back(par::async_call(f, i, asio::use_future));
    futures.push_back(par::async_call(pool, i, asio::use_future));
  }
  const auto done = [&] { return answers == 2 * each && f.pending() == 0 && pool.pending() == 0; };
  BOOST_TEST(run_until(context, done));
  for (std::future<int>& future : futures) sum += future.get();
  BOOST_TEST(sum == long{each} * (each + 1) * 2);
}

BOOST_AUTO_TEST_CASE(a_handler_gets_the_value_or_the_error_and_runs_in_the_loop_only) {
  Context context;
  auto loop = par::asio_reactor(context.get_executor());
  auto f = par::run(*loop, plus_one);
  auto bad = par::run(*loop, refuse);
  auto none = par::run(*loop, [](int) {});
  auto closed = par::run(*loop, plus_one);
  closed.close();
  std::vector<std::string> said;
  const auto hear = [&](std::exception_ptr thrown, int x) {
    said.push_back(text_of(thrown) + " " + std::to_string(x));
  };
  par::async_call(f, 1, hear);
  BOOST_TEST(run_until(context, [&] { return said.size() == 1; }));
  par::async_call(bad, 1, hear);
  BOOST_TEST(run_until(context, [&] { return said.size() == 2; }));
  par::async_call(none, 1, [&](std::exception_ptr thrown) { said.push_back(text_of(thrown)); });
  BOOST_TEST(run_until(context, [&] { return said.size() == 3; }));
  par::async_call(closed, 1, hear);
  BOOST_TEST(said.size() == 3);
  BOOST_TEST(run_until(context, [&] { return said.size() == 4; }));
  par::CallOptions options;
  options.deadline = 1ms;
  auto never = par::run(*loop, odd_only);
  par::async_call(never, options, 2, hear);
  BOOST_TEST(run_until(context, [&] { return said.size() == 5; }));
  const std::vector<std::string> expected{"none 2", "remote_exception 0", "none", "logic_error 0",
                                          "deadline 0"};
  BOOST_TEST(said == expected, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(arguments_are_converted_and_kept_when_the_call_is_made) {
  Context context;
  auto loop = par::asio_reactor(context.get_executor());
  auto length = par::run(*loop, [](const std::string& text) { return text.size(); });
  std::string text = "four";
  auto later = par::async_call(length, text.c_str(), asio::experimental::deferred);
  text = "changed";
  std::size_t got = 0;
  std::move(later)([&](std::exception_ptr, std::size_t size) { got = size; });
  BOOST_TEST(run_until(context, [&] { return got != 0; }));
  BOOST_TEST(got == 4);
}

BOOST_AUTO_TEST_CASE(arguments_answers_and_handlers_may_be_move_only) {
  Context context;
  auto loop = par::asio_reactor(context.get_executor());
  auto f = par::run(*loop, next_ticket);
  int sum = 0;
  par::async_call(
      f, Ticket(1),
      [&, owned = std::make_unique<int>(10)](std::exception_ptr, std::optional<Ticket> ticket) {
        sum = *owned + ticket->number();
      });
  BOOST_TEST(run_until(context, [&] { return sum != 0; }));
  BOOST_TEST(sum == 12);
  f.close();
  bool empty = false;
  par::async_call(f, Ticket(1), [&](std::exception_ptr thrown, std::optional<Ticket> ticket) {
    empty = thrown && !ticket;
  });
  BOOST_TEST(run_until(context, [&] { return empty; }));
}

BOOST_AUTO_TEST_CASE(a_handler_runs_by_its_executor_whose_work_is_counted) {
  Context context;
  Context other;
  auto loop = par::asio_reactor(context.get_executor());
  auto f = par::run(*loop, plus_one);
  std::atomic<int> got{0};
  std::thread::id ran_in;
  par::async_call(f, 1, asio::bind_executor(other, [&](std::exception_ptr, int x) {
                    ran_in = std::this_thread::get_id();
                    got = x;
                  }));
  std::thread thread([&] { other.run(); });  // does not return before the handler has run
  const std::thread::id expected = thread.get_id();
  BOOST_TEST(run_until(context, [&] { return f.pending() == 0; }));
  thread.join();
  BOOST_TEST(got == 2);
  BOOST_TEST((ran_in == expected));
}

BOOST_AUTO_TEST_CASE(an_exception_of_a_handler_leaves_the_run_of_its_context) {
  Context context;
  Watchdog watchdog(context);
  auto loop = par::asio_reactor(context.get_executor());
  auto f = par::run(*loop, plus_one);
  const auto fail = [](std::exception_ptr, int) { throw std::runtime_error("thrown"); };
  const auto said = [&] {
    try {
      context.run();
    } catch (const std::runtime_error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  par::async_call(f, 1, fail);
  BOOST_TEST(said() == "thrown");
  par::async_call(f, 1, asio::bind_executor(context, fail));
  BOOST_TEST(said() == "thrown");
}

BOOST_AUTO_TEST_CASE(a_cancellation_slot_cancels_its_call) {
  Context context;
  auto loop = par::asio_reactor(context.get_executor());
  auto f = par::run(*loop, odd_only);
  std::vector<std::string> said;
  asio::cancellation_signal signal;
  auto hear = asio::bind_cancellation_slot(
      signal.slot(), [&](std::exception_ptr thrown, int) { said.push_back(text_of(thrown)); });
  par::async_call(f, 2, hear);
  signal.emit(asio::cancellation_type::terminal);
  BOOST_TEST(said.empty());
  BOOST_TEST(run_until(context, [&] { return said.size() == 1; }));
  par::async_call(f, 2, hear);
  std::thread([&] { signal.emit(asio::cancellation_type::partial); }).join();
  BOOST_TEST(run_until(context, [&] { return said.size() == 2; }));
  par::async_call(f, 1, hear);
  signal.emit(asio::cancellation_type::total);  // it cannot promise that nothing has happened
  BOOST_TEST(run_until(context, [&] { return said.size() == 3; }));
  signal.emit(asio::cancellation_type::all);  // it is answered
  const std::vector<std::string> expected{"cancelled", "cancelled", "none"};
  BOOST_TEST(said == expected, boost::test_tools::per_element());
  par::async_call(f, 2, hear);
  { const auto ended = std::move(loop); }
  signal.emit(asio::cancellation_type::all);  // its loop has ended
  BOOST_TEST(said.size() == 3);
}

BOOST_AUTO_TEST_CASE(a_handler_is_called_once_or_destroyed_with_the_reactor) {
  auto owned = std::make_shared<int>(0);
  const std::weak_ptr<int> left = owned;
  int called = 0;
  std::string said;
  const auto handler = [&](std::shared_ptr<int> token) {
    return [&, token](std::exception_ptr thrown, int) {
      ++called;
      said = text_of(thrown);
    };
  };
  {
    Context context;
    auto loop = par::asio_reactor(context.get_executor());
    {
      auto f = par::run(*loop, odd_only);
      par::async_call(f, 2, handler(std::move(owned)));
    }
    BOOST_TEST(run_until(context, [&] { return called > 0; }));
    BOOST_TEST(called == 1);
    BOOST_TEST(said == "cancelled");
    BOOST_TEST(left.expired());
  }
  for (const bool context_first : {false, true}) {
    owned = std::make_shared<int>(0);
    const std::weak_ptr<int> now = owned;
    auto context = std::make_unique<Context>();
    auto other = std::make_unique<Context>();
    {
      auto loop = par::asio_reactor(context->get_executor());
      auto f = par::run(*loop, odd_only);
      par::async_call(f, 2, handler(owned));
      par::async_call(f, 4, asio::bind_executor(*other, handler(std::move(owned))));
      auto future = par::async_call(f, 6, asio::use_future);
      if (context_first) context.reset();
      if (!context_first) {
        const auto ended = std::move(loop);
      }
      BOOST_TEST(now.expired());
      BOOST_CHECK_THROW(future.get(), std::future_error);
    }
    if (context) context->run();  // returns: nothing holds it
    other->run();
  }
  BOOST_TEST(called == 1);
}

BOOST_AUTO_TEST_CASE(the_allocator_of_a_handler_gives_its_memory_which_is_free_when_it_runs) {
  Context context;
  auto loop = par::asio_reactor(context.get_executor());
  auto f = par::run(*loop, plus_one);
  int living = 0;
  int all = 0;
  int living_in_handler = -1;
  auto handler = asio::bind_allocator(CountingAllocator<char>(living, all),
                                      [&](std::exception_ptr, int) { living_in_handler = living; });
  par::async_call(f, 1, handler);
  BOOST_TEST(living > 0);
  BOOST_TEST(run_until(context, [&] { return living_in_handler >= 0; }));
  BOOST_TEST(living_in_handler == 0);
  // In a strand the answer needs memory, too.
  const int before = all;
  living_in_handler = -1;
  par::async_call(f, 1, asio::bind_executor(asio::make_strand(context), handler));
  BOOST_TEST(run_until(context, [&] { return living_in_handler >= 0; }));
  BOOST_TEST(living_in_handler == 0);
  BOOST_TEST(all > before);
}

BOOST_AUTO_TEST_CASE(calls_of_a_strand_are_answered_in_another_one_by_two_threads) {
  Context context;
  Watchdog watchdog(context);
  const auto strand = asio::make_strand(context);
  const auto answers_strand = asio::make_strand(context);
  auto loop = std::make_optional<par::AsioReactor<asio::strand<Context::executor_type>>>(strand);
  auto f = std::make_optional(par::run(**loop, plus_one));
  constexpr int many = 1000;
  std::atomic<int> inside{0};
  std::atomic<bool> together{false};
  int answers = 0;
  for (int i = 0; i < many; ++i)
    asio::post(strand, [&, i] {
      par::async_call(*f, i, asio::bind_executor(answers_strand, [&, i](std::exception_ptr, int x) {
        if (++inside > 1) together = true;
        answers += x == i + 1;
        --inside;
        if (answers < many) return;
        asio::post(strand, [&] {
          f.reset();
          loop.reset();
          watchdog.cancel();
        });
      }));
    });
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) threads.emplace_back([&] { context.run(); });
  for (std::thread& thread : threads) thread.join();
  BOOST_TEST(answers == many);
  BOOST_TEST(!together);
}

BOOST_AUTO_TEST_CASE(calls_with_tokens_work_in_a_reactor_that_is_no_part_of_asio) {
  par::Reactor loop;
  auto f = par::run(loop, plus_one);
  int got = 0;
  par::async_call(f, 1, [&](std::exception_ptr, int x) { got = x; });
  par::async_call(f, 2, asio::detached);
  loop.run();
  BOOST_TEST(got == 2);
}
