// task.cpp - callables that travel, their signatures, and captures that must not travel.
#include "errors.hpp"
#include "private_names.hpp"
#include "testing.hpp"

#include "codec/task_frame.hpp"
#include "spawn/known_functions.hpp"

#include <evparallel/json_io.hpp>
#include <evparallel/run.hpp>

#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

using namespace evparallel;
namespace par = evparallel;  // lookup also finds std::bind if an argument has a type of std

namespace {

template <class F, class R, class... P>
constexpr bool has_signature = std::is_same_v<typename detail::Signature<F>::result, R>&&
    std::is_same_v<typename detail::Signature<F>::parameters, detail::Types<P...>>;

template <class R, class... P, class F>
constexpr bool signature_of(const F&) {
  return has_signature<F, R, P...>;
}

template <class F>
std::string frozen(const F& f) {
  Writer out;
  detail::CallableCodec<F>::serialize(out, f);
  return out.bytes();
}

template <class F>
F deserialized(const std::string& bytes) {
  Reader in(bytes);
  F f = detail::CallableCodec<F>::deserialize(in);
  in.expect_end();
  return f;
}

template <class F>
F travelled(const F& f) {
  return deserialized<F>(frozen(f));
}

// ---- one callable of each kind ----

int twice(int x) {
  return 2 * x;
}
double half(double x) noexcept {
  return x / 2;
}
int plus_state(int& state, int x) {
  return state + x;
}
int none() {
  return 7;
}
void nothing(const std::string&) {}
std::string join(const std::string& a, int b, const std::vector<int>& c) {
  return a + std::to_string(b) + ":" + std::to_string(c.size());
}

int overloaded(int x) {
  return x + 1;
}
std::string overloaded(const std::string& x) {
  return x + "!";
}

struct Plus {
  int n;
  int operator()(int x) { return x + n; }
};
struct PlusConst {
  int n;
  int operator()(int x) const { return x + n; }
};
struct PlusNoexcept {
  int n;
  int operator()(int x) noexcept { return x + n; }
};
struct PlusConstNoexcept {
  int n;
  int operator()(int x) const noexcept { return x + n; }
};

struct NoDefault {
  explicit NoDefault(int v) : value(v) {}
  int value;
};

}  // namespace

// ---- signatures ----

BOOST_AUTO_TEST_SUITE(signatures)

BOOST_AUTO_TEST_CASE(functions_have_a_signature) {
  static_assert(signature_of<int, int>(&twice));
  static_assert(signature_of<double, double>(&half));
  static_assert(signature_of<int>(&none));
  static_assert(signature_of<void, const std::string&>(&nothing));
  static_assert(signature_of<std::string, const std::string&, int, const std::vector<int>&>(&join));
  BOOST_TEST(true);  // the check is that it compiles
}

BOOST_AUTO_TEST_CASE(lambdas_have_a_signature) {
  int captured = 3;
  const auto plain = [](int x) { return x; };
  auto with_capture = [captured](long x) { return x + captured; };
  auto is_mutable = [captured](int x) mutable { return captured += x; };
  auto is_noexcept = [](std::string s) noexcept { return s; };
  auto is_both = [captured]() mutable noexcept { return ++captured; };
  BOOST_TEST((signature_of<int, int>(plain)));
  BOOST_TEST((signature_of<long, long>(with_capture)));
  BOOST_TEST((signature_of<int, int>(is_mutable)));
  BOOST_TEST((signature_of<std::string, std::string>(is_noexcept)));
  BOOST_TEST((signature_of<int>(is_both)));
}

BOOST_AUTO_TEST_CASE(functors_have_a_signature) {
  static_assert(has_signature<Plus, int, int>);
  static_assert(has_signature<PlusConst, int, int>);
  static_assert(has_signature<PlusNoexcept, int, int>);
  static_assert(has_signature<PlusConstNoexcept, int, int>);
  BOOST_TEST(true);
}

BOOST_AUTO_TEST_CASE(fn_names_a_signature) {
  const auto overload = fn<std::string(const std::string&)>(overloaded);
  BOOST_TEST((signature_of<std::string, const std::string&>(overload)));
  const auto sine = fn<double(double)>(std::sin);
  BOOST_TEST((signature_of<double, double>(sine)));
  const auto generic = fn<int(int, int)>([](auto a, auto b) { return a + b; });
  BOOST_TEST((signature_of<int, int, int>(generic)));
}

BOOST_AUTO_TEST_CASE(bind_removes_the_first_parameters) {
  BOOST_TEST((signature_of<std::string, const std::string&, int, const std::vector<int>&>(
      par::bind(&join))));
  BOOST_TEST((signature_of<std::string, int, const std::vector<int>&>(par::bind(&join, "a"))));
  BOOST_TEST((signature_of<std::string, const std::vector<int>&>(par::bind(&join, "a", 1))));
  BOOST_TEST((signature_of<std::string>(par::bind(&join, "a", 1, std::vector<int>{}))));
  // A bound argument is stored as the decayed type of the parameter, whatever type was given.
  static_assert(std::is_same_v<decltype(par::bind(&join, "a", short{1})),
                               detail::Bind<decltype(&join), std::string, int>>);
}

BOOST_AUTO_TEST_CASE(wrappers_can_be_nested) {
  BOOST_TEST((signature_of<int, int>(as_is(&twice))));
  BOOST_TEST((signature_of<double, double>(as_is(fn<double(double)>(std::cos)))));
  BOOST_TEST((signature_of<int, int>(
      par::bind(fn<int(int, int)>([](auto a, auto b) { return a + b; }), 1))));
  BOOST_TEST(
      (signature_of<std::string, const std::vector<int>&>(par::bind(par::bind(&join, "a"), 2))));
  BOOST_TEST(
      (signature_of<std::string, int, const std::vector<int>&>(par::bind(as_is(&join), "a"))));
  BOOST_TEST(
      (signature_of<std::string, int, const std::vector<int>&>(as_is(par::bind(&join, "a")))));
}

BOOST_AUTO_TEST_CASE(remote_functions_have_a_shape) {
  const auto sync = [](const std::string&) -> const int& {
    static const int number = 1;
    return number;
  };
  using Sync = detail::Shape<decltype(sync)>;
  static_assert(std::is_same_v<Sync::signature, int(std::string)>);
  static_assert(!Sync::replies_later);
  static_assert(std::is_same_v<detail::Shape<decltype(&none)>::signature, int()>);
  static_assert(std::is_same_v<detail::Shape<decltype(&nothing)>::signature, void(std::string)>);
  static_assert(std::is_same_v<detail::Shape<decltype(&join)>::signature,
                               std::string(std::string, int, std::vector<int>)>);
  const auto later = [](int, Reply<std::string>) {};
  using Later = detail::Shape<decltype(later)>;
  static_assert(std::is_same_v<Later::signature, std::string(int)>);
  static_assert(Later::replies_later);
  const auto later_by_reference = [](int, const std::string&, const Reply<int>&) {};
  using ByReference = detail::Shape<decltype(later_by_reference)>;
  static_assert(std::is_same_v<ByReference::signature, int(int, std::string)>);
  static_assert(ByReference::replies_later);
  const auto later_none = [](Reply<void>) {};
  using LaterNone = detail::Shape<decltype(later_none)>;
  static_assert(std::is_same_v<LaterNone::signature, void()>);
  static_assert(LaterNone::replies_later);
  static_cast<void>(sync);
  static_cast<void>(later);
  static_cast<void>(later_none);
  static_cast<void>(later_by_reference);
  BOOST_TEST(true);
}

BOOST_AUTO_TEST_SUITE_END()

// ---- encode and decode ----

BOOST_AUTO_TEST_SUITE(travel)

BOOST_AUTO_TEST_CASE(functions_travel_as_their_address) {
  const std::string bytes = frozen(&twice);
  BOOST_TEST(bytes.size() == sizeof(&twice));
  BOOST_TEST((deserialized<decltype(&twice)>(bytes) == &twice));
  BOOST_TEST(travelled(&half)(3) == 1.5);
  BOOST_TEST(travelled(&none)() == 7);
}

BOOST_AUTO_TEST_CASE(an_empty_callable_sends_nothing) {
  const auto lambda = [](int x) { return x + 1; };
  BOOST_TEST(frozen(lambda).empty());
  BOOST_TEST(travelled(lambda)(1) == 2);
  const auto generic = fn<int(int)>([](auto x) { return x + 2; });
  BOOST_TEST(travelled(generic)(1) == 3);
  const auto unchecked = as_is(lambda);
  BOOST_TEST(frozen(unchecked).empty());
  BOOST_TEST(travelled(unchecked)(1) == 2);
}

BOOST_AUTO_TEST_CASE(captures_travel_by_value) {
  int n = 5;
  double d = 0.5;
  const std::array<char, 3> letters{{'a', 'b', 'c'}};
  const auto lambda = [n, d, letters](int x) { return x + n + d + letters[2]; };
  BOOST_TEST(frozen(lambda).size() == sizeof lambda);
  BOOST_TEST(travelled(lambda)(1) == lambda(1));
  // They are not trivially copyable, but they can be copied byte by byte.
  const std::pair<int, double> pair{1, 2.5};
  const std::tuple<int, char> tuple{3, 'x'};
  const auto holds = [pair, tuple]() { return pair.second + std::get<0>(tuple); };
  BOOST_TEST(travelled(holds)() == 5.5);
}

BOOST_AUTO_TEST_CASE(functors_travel) {
  BOOST_TEST(travelled(Plus{1})(2) == 3);
  BOOST_TEST(travelled(PlusConst{2})(2) == 4);
  BOOST_TEST(travelled(PlusNoexcept{3})(2) == 5);
  BOOST_TEST(travelled(PlusConstNoexcept{4})(2) == 6);
}

BOOST_AUTO_TEST_CASE(a_mutable_callable_travels_with_its_state) {
  int calls = 10;
  auto counting = [calls]() mutable { return ++calls; };
  counting();
  auto copy = travelled(counting);
  BOOST_TEST(copy() == 12);
  BOOST_TEST(copy() == 13);
  BOOST_TEST(counting() == 12);
}

BOOST_AUTO_TEST_CASE(a_callable_without_a_default_constructor_travels) {
  const NoDefault value(9);
  BOOST_TEST(travelled([value]() { return value.value; })() == 9);
}

BOOST_AUTO_TEST_CASE(overloads_travel) {
  BOOST_TEST((travelled(fn<std::string(const std::string&)>(overloaded))("hi") == "hi!"));
  BOOST_TEST(travelled(fn<int(int)>(overloaded))(1) == 2);
  BOOST_TEST(travelled(fn<double(double)>(std::sqrt))(16) == 4);
}

BOOST_AUTO_TEST_CASE(bound_arguments_travel_through_their_codecs) {
  auto zero = travelled(par::bind(&join));
  BOOST_TEST(zero("z", 0, std::vector<int>{}) == "z0:0");
  auto one = travelled(par::bind(&join, "one"));
  BOOST_TEST(one(1, std::vector<int>{1}) == "one1:1");
  auto two = travelled(par::bind(&join, std::string(100000, 't'), 2));
  BOOST_TEST((two(std::vector<int>{1, 2}) == std::string(100000, 't') + "2:2"));
  auto three = travelled(par::bind(&join, "three", 3, std::vector<int>{1, 2, 3}));
  BOOST_TEST(three() == "three3:3");
}

BOOST_AUTO_TEST_CASE(bound_arguments_of_lambdas_travel) {
  int n = 4;
  auto lambda = travelled(
      par::bind([n](const std::string& a, std::vector<double> b,
                    int c) { return a + std::to_string(b.size() + static_cast<unsigned>(n + c)); },
                "x", std::vector<double>{1.5, 2.5}));
  BOOST_TEST(lambda(1) == "x7");
  auto moved =
      travelled(par::bind([](std::vector<int> v) { return v.size(); }, std::vector<int>(1000, 1)));
  BOOST_TEST(moved() == 1000U);
  BOOST_TEST(moved() == 1000U);  // the value is still there for the next call
}

BOOST_AUTO_TEST_CASE(combinations_travel) {
  BOOST_TEST(travelled(par::bind(par::bind(&join, "a"), 2))(std::vector<int>{1}) == "a2:1");
  auto generic = travelled(par::bind(
      fn<std::string(std::string, int)>([](auto s, auto i) { return s + std::to_string(i); }),
      "n"));
  BOOST_TEST(generic(5) == "n5");
  BOOST_TEST(travelled(as_is(fn<int(int)>([](auto x) { return -x; })))(3) == -3);
  BOOST_TEST(travelled(par::bind(as_is(&twice), 21))() == 42);
  BOOST_TEST(travelled(fn<int(int)>(as_is([](auto x) { return x * 3; })))(3) == 9);
  auto bound_fn = travelled(fn<int(int)>(par::bind([](int a, int b) { return a - b; }, 10)));
  BOOST_TEST(bound_fn(3) == 7);
}

BOOST_AUTO_TEST_CASE(as_is_takes_everything) {
  int local = 1;
  BOOST_TEST(travelled(as_is(par::bind(&twice, 21)))() == 42);
  BOOST_TEST(travelled(as_is(as_is([&local](int x) { return x + local; })))(1) == 2);
  BOOST_TEST(travelled(as_is(par::bind([&local](int x) { return x + local; }, 2)))() == 3);
}

BOOST_AUTO_TEST_CASE(a_task_frame_truncated_at_any_byte_is_refused) {
  const auto task =
      par::bind([n = 3L](std::string s, int i) { return s + std::to_string(i + n); }, "x", 1);
  const std::string bytes = frozen(task);
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    try {
      deserialized<std::decay_t<decltype(task)>>(bytes.substr(0, size));
      BOOST_ERROR("deserialized from " + std::to_string(size) + " bytes");
    } catch (const Error& error) {
      BOOST_TEST((error.code() == Errc::bad_message));
    }
  }
}

BOOST_AUTO_TEST_CASE(a_bound_argument_that_cannot_be_encoded_is_an_error) {
  try {
    frozen(par::bind(&nothing, "\xff"));
    BOOST_ERROR("nothing was thrown");
  } catch (const Error& error) {
    BOOST_TEST((error.code() == Errc::bad_message));
  }
}

BOOST_AUTO_TEST_CASE(the_function_that_a_callable_points_to_must_be_known) {
  using Functions = std::vector<detail::AnyFunction>;
  const auto function_of = [](const auto& f) {
    const detail::Task task = detail::make_task(f, [](detail::ChildInterface&, Reader&) {});
    return Functions(task.functions.begin(), task.functions.end());
  };
  const Functions address{reinterpret_cast<detail::AnyFunction>(&twice)};
  BOOST_TEST((function_of(&twice) == address));
  BOOST_TEST((function_of(&half) == Functions{reinterpret_cast<detail::AnyFunction>(&half)}));
  BOOST_TEST((function_of(fn<int(int)>(&twice)) == address));
  BOOST_TEST((function_of(as_is(&twice)) == address));
  BOOST_TEST((function_of(par::bind(&twice)) == address));
  BOOST_TEST((function_of(par::bind(&twice, 1)) == address));
  BOOST_TEST((function_of(as_is(par::bind(fn<int(int)>(as_is(&twice)), 1))) == address));
  BOOST_TEST((function_of(static_cast<int (*)(int)>(nullptr)) == Functions{nullptr}));
  // A captured function pointer is not taken for the function of the lambda; nor is a class looked
  // into.
  const auto pointer = &twice;
  BOOST_TEST(function_of([pointer](int x) { return pointer(x); }).empty());
  BOOST_TEST(function_of(par::bind([](int x) { return x; }, 1)).empty());
  BOOST_TEST(function_of(Plus{1}).empty());
  const auto add = [](int& state, int x) { return state + x; };
  BOOST_TEST((function_of(par::with_state(&none, add)) ==
              Functions{reinterpret_cast<detail::AnyFunction>(&none)}));
  BOOST_TEST((function_of(par::with_state([] { return 1; }, &plus_state)) ==
              Functions{reinterpret_cast<detail::AnyFunction>(&plus_state)}));
}

BOOST_AUTO_TEST_CASE(the_entry_and_the_function_must_be_known) {
  const auto now = modules_now();
  const auto entry = [](detail::ChildInterface&, Reader&) {};
  const auto nowhere = reinterpret_cast<void (*)()>(const_cast<Modules*>(now.get()));
  BOOST_TEST(!why_unknown(*now, detail::make_task(&twice, entry)).has_value());
  BOOST_TEST(!why_unknown(*now, detail::make_task(Plus{1}, entry)).has_value());
  detail::Task task = detail::make_task(&twice, entry);
  task.functions = {};
  task.functions.add(nowhere);
  BOOST_TEST(why_unknown(*now, task).has_value());
  task = detail::make_task(&twice, entry);
  task.entry = reinterpret_cast<void (*)(detail::ChildInterface&, Reader&)>(nowhere);
  BOOST_TEST(why_unknown(*now, task).has_value());
}

BOOST_AUTO_TEST_CASE(a_task_frame_is_decoded_as_it_was_encoded) {
  detail::Task task = detail::make_task(Plus{5}, [](detail::ChildInterface&, Reader&) {});
  BOOST_TEST(task.callable.size() == sizeof(Plus));
  Writer out;
  write_task_frame(out, {task.entry, 1234, 99, 56, 78, 90, 1, 5, 2, 3, 1, 4, 0}, "the text",
                   task.callable);
  Reader in(out.bytes());
  const TaskFrame frame = read_task_frame(in);
  BOOST_TEST((frame.entry == task.entry));
  BOOST_TEST(frame.max_message == 1234U);
  BOOST_TEST(frame.max_decoded == 99U);
  BOOST_TEST(frame.high_water == 56U);
  BOOST_TEST(frame.owner_id == 78U);
  BOOST_TEST(frame.deadline == 90);
  BOOST_TEST(frame.cpu_seconds == 1);
  BOOST_TEST(frame.cpu_per_call == 5);
  BOOST_TEST(frame.memory == 2U);
  BOOST_TEST(frame.nice == 3);
  BOOST_TEST(frame.backtrace == 1U);
  BOOST_TEST(frame.seed == 4U);
  BOOST_TEST(in.read(frame.environment) == "the text");
  BOOST_TEST(detail::CallableCodec<Plus>::deserialize(in)(1) == 6);
  in.expect_end();
  for (std::size_t size = 0; size < sizeof(TaskFrame); ++size) {
    Reader cut(std::string_view(out.bytes()).substr(0, size));
    BOOST_CHECK_THROW(read_task_frame(cut), Error);
  }
}

BOOST_AUTO_TEST_SUITE_END()

// ---- captures of the stack ----

namespace {

int global_number = 1;

struct Object {
  int value = 3;
  auto by_this() {
    return [this](int x) { return x + value; };
  }
  auto by_copy() {
    return [*this](int x) { return x + value; };
  }
};
Object global_object;

template <class F>
bool is_refused(const F& f) {
  try {
    frozen(f);
    return false;
  } catch (const std::logic_error& error) {
    const std::string text = error.what();
    BOOST_TEST(text.find("captures a local variable by reference") != std::string::npos);
    BOOST_TEST(text.find("by value") != std::string::npos);
    BOOST_TEST(text.find("bind") != std::string::npos);
    return true;
  }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(captures)

BOOST_AUTO_TEST_CASE(references_to_locals_are_refused) {
  int local = 1;
  char behind = 'b';
  BOOST_TEST(is_refused([&local](int x) { return x + local; }));
  BOOST_TEST(is_refused([&](int x) { return x + local; }));
  BOOST_TEST(is_refused([&local, &behind](int x) { return x + local + behind; }));
  long first = 1;
  char odd = 'o';
  BOOST_TEST(is_refused([first, odd, &local](long x) { return x + first + odd + local; }));
  const std::array<long, 20> many{};
  BOOST_TEST(is_refused([many, &behind](int x) { return x + behind + static_cast<int>(many[0]); }));
}

BOOST_AUTO_TEST_CASE(references_to_parameters_and_arrays_are_refused) {
  const auto with_parameter = [](int& parameter) {
    return is_refused([&parameter](int x) { return x + parameter; });
  };
  int local = 1;
  BOOST_TEST(with_parameter(local));
  char array[1000] = {};
  const char* const last = array + sizeof array - 1;
  BOOST_TEST(is_refused([last]() { return *last; }));
}

BOOST_AUTO_TEST_CASE(pointers_to_locals_are_refused) {
  int local = 1;
  int* const pointer = &local;
  BOOST_TEST(is_refused([pointer](int x) { return x + *pointer; }));
  const std::pair<int, const int*> pair{1, &local};
  BOOST_TEST(is_refused([pair]() { return *pair.second; }));
  const std::string_view view(reinterpret_cast<const char*>(&local), sizeof local);
  BOOST_TEST(is_refused([view]() { return view.size(); }));
  struct Holder {
    long n;
    const int* p;
    int operator()(int x) const { return x + *p; }
  };
  BOOST_TEST(is_refused(Holder{1, &local}));
}

BOOST_AUTO_TEST_CASE(this_of_a_local_is_refused) {
  Object local;
  BOOST_TEST(is_refused(local.by_this()));
  BOOST_TEST(!is_refused(local.by_copy()));
}

BOOST_AUTO_TEST_CASE(locals_deep_in_the_stack_are_refused) {
  int high = 1;
  struct Deep {
    static bool down(int* pointer, int levels) {
      volatile char room[4096];
      room[0] = 'r';
      if (levels > 0) return down(pointer, levels - 1) && room[0] == 'r';
      return is_refused([pointer]() { return *pointer; });
    }
  };
  BOOST_TEST(Deep::down(&high, 200));
}

BOOST_AUTO_TEST_CASE(captures_inside_bind_and_fn_are_checked) {
  int local = 1;
  BOOST_TEST(is_refused(par::bind([&local](int x) { return x + local; }, 1)));
  BOOST_TEST(is_refused(fn<int(int)>([&local](auto x) { return x + local; })));
  BOOST_TEST(
      is_refused(par::bind(par::bind([&local](int x, int y) { return x + y + local; }, 1), 2)));
}

BOOST_AUTO_TEST_CASE(captures_that_outlive_the_call_are_accepted) {
  static int static_number = 2;
  const auto heap = std::make_unique<int>(3);
  int* const to_heap = heap.get();
  int* const to_static = &static_number;
  int* const to_global = &global_number;
  int* const to_nothing = nullptr;
  const char* const literal = "literal";
  BOOST_TEST(travelled([to_heap](int x) { return x + *to_heap; })(1) == 4);
  BOOST_TEST(travelled([to_static](int x) { return x + *to_static; })(1) == 3);
  BOOST_TEST(travelled([to_global](int x) { return x + *to_global; })(1) == 2);
  BOOST_TEST(travelled([to_nothing](int x) { return to_nothing ? 0 : x; })(1) == 1);
  BOOST_TEST(travelled([literal]() { return literal[0]; })() == 'l');
  int& by_reference = *heap;
  BOOST_TEST(travelled([&by_reference](int x) { return x + by_reference; })(1) == 4);
  BOOST_TEST(travelled(global_object.by_this())(1) == 4);
  const auto object = std::make_unique<Object>();
  BOOST_TEST(travelled(object->by_this())(2) == 5);
  auto all_bits = static_cast<std::uintptr_t>(-1);
  BOOST_TEST(!is_refused([all_bits]() { return all_bits; }));
}

#if defined __clang__
constexpr bool clears_padding = __has_builtin(__builtin_clear_padding);
#else
constexpr bool clears_padding = true;
#endif

// Bytes that nobody has written may look like an address, and must not be taken for one.
BOOST_AUTO_TEST_CASE(padding_is_not_checked) {
  if (!clears_padding) return testing::skip("this compiler cannot clear padding");
  struct alignas(64) Padded {
    explicit Padded(int v) : value(v) {}
    int value;
    int operator()(int x) const { return x + value; }
  };
  using Word = std::uintptr_t;
  constexpr std::size_t words = sizeof(Padded) / sizeof(Word);
  alignas(Padded) unsigned char place[sizeof(Padded)];
  volatile Word* const dirty = reinterpret_cast<volatile Word*>(place);
  for (std::size_t i = 0; i < words; ++i) dirty[i] = reinterpret_cast<Word>(&place);
  Padded* const padded = new (place) Padded(1);
  BOOST_TEST(travelled(*padded)(1) == 2);
}

BOOST_AUTO_TEST_CASE(a_gap_between_captures_is_not_checked) {
  if (!clears_padding) return testing::skip("this compiler cannot clear padding");
  struct alignas(16) Gap {
    explicit Gap(char c) : first(c) {}
    char first;
    alignas(16) char second = 's';
    char operator()() const { return first; }
  };
  using Word = std::uintptr_t;
  alignas(Gap) unsigned char place[sizeof(Gap)];
  volatile Word* const dirty = reinterpret_cast<volatile Word*>(place);
  for (std::size_t i = 0; i < sizeof(Gap) / sizeof(Word); ++i)
    dirty[i] = reinterpret_cast<Word>(&place);
  Gap* const gap = new (place) Gap('g');
  BOOST_TEST(travelled(*gap)() == 'g');
}

BOOST_AUTO_TEST_CASE(references_to_the_stack_of_any_thread_are_refused) {
  bool refused = false;
  bool accepted = false;
  std::thread([&] {
    int local = 1;
    try {
      frozen([&local](int x) { return x + local; });
    } catch (const std::logic_error&) {
      refused = true;
    }
    static int number = 1;
    int* const pointer = &number;
    frozen([pointer](int x) { return x + *pointer; });
    accepted = true;
  }).join();
  BOOST_TEST(refused);
  BOOST_TEST(accepted);
}

BOOST_AUTO_TEST_CASE(as_is_disables_the_check) {
  int local = 1;
  auto by_reference = travelled(as_is([&local](int x) { return x + local; }));
  local = 41;
  BOOST_TEST(by_reference(1) == 42);
  int* const pointer = &local;
  BOOST_TEST(travelled(as_is([pointer]() { return *pointer; }))() == 41);
  BOOST_TEST(travelled(par::bind(as_is([&local](int x) { return x + local; }), 2))() == 43);
  BOOST_TEST(travelled(as_is(fn<int(int)>([&local](auto x) { return x + local; })))(3) == 44);
}

BOOST_AUTO_TEST_CASE(as_is_inside_fn_disables_the_check) {
  int local = 1;
  const auto task = fn<int(int)>(as_is([&local](auto x) { return x + local; }));
  BOOST_TEST(travelled(task)(3) == 4);
}

BOOST_AUTO_TEST_SUITE_END()

// ---- one call, as a child executes it ----

namespace {

template <class F>
std::string answer(F f, const std::string& argument) {
  Reader in(argument);
  Writer out;
  using S = detail::Shape<F>;
  using Type = detail::CallType<typename S::signature, DefaultIo, DefaultIo>;
  detail::answer_call<typename S::Inc, typename Type::IncCodec, typename Type::ArgumentsCodec>(
      f, in, out);
  return out.bytes();
}

}  // namespace

BOOST_AUTO_TEST_SUITE(calls)

// ---- several arguments ----

namespace {

constexpr std::uint64_t at_end = std::uint64_t{1} << 63;

// A message of arguments with these lengths, which may be wrong.
std::string arguments(std::initializer_list<std::uint64_t> lengths, const std::string& bytes) {
  std::string message;
  for (const std::uint64_t length : lengths)
    message.append(reinterpret_cast<const char*>(&length), sizeof length);
  return message + bytes;
}

std::string refusal_of(const std::string& message) {
  try {
    answer([](int a, const std::string& b) { return b + std::to_string(a); }, message);
  } catch (const Error& error) {
    return error.code() == Errc::bad_message ? error.what() : "another error";
  }
  return "";
}

}  // namespace

BOOST_AUTO_TEST_CASE(several_arguments_stand_in_order_except_the_one_at_the_end) {
  const auto join_two = [](int a, const std::string& b) { return b + std::to_string(a); };
  BOOST_TEST(answer(join_two, arguments({1, 3 | at_end}, "7\"b\"")) == "\"b7\"");
  BOOST_TEST(answer(join_two, arguments({1 | at_end, 3}, "\"b\"7")) == "\"b7\"");
  Writer out;
  detail::Arguments<DefaultIo, int, std::string>::put_copy(out, 7, "b");
  BOOST_TEST(out.written() == arguments({1, 3 | at_end}, "7\"b\""));
  Writer long_first;
  detail::Arguments<DefaultIo, std::string, int>::put_copy(long_first, "b", 7);
  BOOST_TEST(long_first.written() == arguments({3 | at_end, 1}, "7\"b\""));
}

BOOST_AUTO_TEST_CASE(adopted_bytes_are_at_the_end_of_several_arguments) {
  const std::string large(adopt_threshold, 'x'), larger(2 * adopt_threshold, 'y');
  using Bytes = detail::Arguments<TemplateIo<RawIo>, std::string, std::string, std::string>;
  Writer copied;
  Bytes::put_copy(copied, large, larger, "z");
  BOOST_TEST(copied.adopted() == larger);
  BOOST_TEST(copied.written() == arguments({large.size(), larger.size() | at_end, 1}, large + "z"));
  Writer moved;
  std::string first = large, second = larger;
  const char* const bytes = second.data();
  Bytes::put_moved(moved, std::move(first), std::move(second), "z");
  BOOST_TEST(moved.adopted().data() == bytes);
  BOOST_TEST(moved.size() == copied.size());
}

BOOST_AUTO_TEST_CASE(lengths_of_arguments_that_are_wrong_are_refused) {
  BOOST_TEST(testing::has(refusal_of(arguments({1, 4 | at_end}, "7\"b\"")), "longer than"));
  BOOST_TEST(testing::has(refusal_of(arguments({1, 2 | at_end}, "7\"b\"")), "shorter than"));
  BOOST_TEST(testing::has(refusal_of(arguments({1, 3}, "7\"b\"")), "no argument stands"));
  BOOST_TEST(
      testing::has(refusal_of(arguments({1 | at_end, 3 | at_end}, "7\"b\"")), "two arguments"));
  BOOST_TEST(testing::has(refusal_of(arguments({~at_end, 5 | at_end}, "7\"b\"")), "longer than"));
  BOOST_TEST(testing::has(refusal_of(arguments({~at_end, ~std::uint64_t{0}}, "")), "longer than"));
  BOOST_TEST(testing::has(refusal_of(arguments({0}, "7")), "the codec reads"));
  BOOST_TEST(testing::has(refusal_of(""), "the codec reads"));
  // Each argument ends where its length says so.
  BOOST_TEST(refusal_of(arguments({2, 2 | at_end}, "7\"b\"")) != "");
}

BOOST_AUTO_TEST_CASE(a_call_decodes_runs_and_encodes) {
  BOOST_TEST(answer(&twice, "21") == "42");
  BOOST_TEST(answer(&none, "") == "7");
  BOOST_TEST(answer(&nothing, "\"x\"") == "");
  BOOST_TEST(answer(par::bind(&join, "a", 2), "[1,2]") == "\"a2:2\"");
  BOOST_TEST(answer([](std::vector<int> v) { return v; }, "[1,2]") == "[1,2]");
  BOOST_TEST(answer([]() {}, "") == "");
}

BOOST_AUTO_TEST_CASE(a_bad_argument_does_not_reach_the_task) {
  static int calls = 0;
  const auto task = [](int x) { return calls += x; };
  for (const char* bad : {"", "x", "\"1\"", "1 2"}) {
    try {
      answer(task, bad);
      BOOST_ERROR("it was called");
    } catch (const Error& error) {
      BOOST_TEST((error.code() == Errc::bad_message));
    }
  }
  BOOST_CHECK_THROW(answer([]() { return ++calls; }, "1"), Error);
  BOOST_TEST(calls == 0);
}

BOOST_AUTO_TEST_CASE(exceptions_of_a_task_and_of_its_codec_differ) {
  try {
    answer([](int) -> int { throw std::range_error("task"); }, "1");
    BOOST_ERROR("nothing was thrown");
  } catch (const Error& error) {
    BOOST_TEST((error.code() == Errc::remote_exception));
    BOOST_TEST(error.remote_type() == "std::range_error");
  }
  try {
    answer([](int) -> int { throw Error(Errc::bad_message, "by the task"); }, "1");
    BOOST_ERROR("nothing was thrown");
  } catch (const Error& error) {
    BOOST_TEST((error.code() == Errc::remote_exception));
    BOOST_TEST(error.remote_type() == "evparallel::Error");
  }
  try {
    answer([](int) { return std::string("\xff"); }, "1");
    BOOST_ERROR("nothing was thrown");
  } catch (const Error& error) {
    BOOST_TEST((error.code() == Errc::bad_message));
  }
}

BOOST_AUTO_TEST_SUITE_END()
