// codec.cpp - values deeper than the stack ended the process that wrote them, numbers changed on the way, and a document
// took many times the memory of its message.
#include "errors.hpp"

#include <evparallel/evparallel.hpp>

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

namespace par = evparallel;
using nlohmann::json;
using testing::bad_message;
using testing::has;

void testing_main_init() {
  par::init();
  testing::expect_child(par::default_snapshot().pid());
}

namespace {

const std::string too_deep = "arrays and objects are nested more than 1000 levels deep";
constexpr std::size_t most = 1000;
constexpr std::size_t deep = 100000;
constexpr std::size_t small_stack = 64 * 1024;
constexpr std::size_t fair_stack = 256 * 1024;

// `inner` inside nested arrays, or objects, made without a copy.
template <class Json = json>
Json in_arrays(std::size_t levels, Json inner = nullptr) {
  while (levels-- > 0) {
    Json outer = Json::array();
    outer.push_back(std::move(inner));
    inner = std::move(outer);
  }
  return inner;
}
json in_objects(std::size_t levels, json inner = nullptr) {
  while (levels-- > 0) {
    json outer = json::object();
    outer["k"] = std::move(inner);
    inner = std::move(outer);
  }
  return inner;
}

// The result of f, called in a thread with a stack of this size.
template <class F>
std::string on_stack_of(std::size_t size, F f) {
  struct Job {
    F& f;
    std::string said;
  } job{f, "nothing"};
  pthread_attr_t attributes;
  BOOST_REQUIRE(::pthread_attr_init(&attributes) == 0);
  // Some processors need larger stacks than others.
  const std::size_t least = static_cast<std::size_t>(::sysconf(_SC_THREAD_STACK_MIN));
  BOOST_REQUIRE(::pthread_attr_setstacksize(&attributes, std::max(size, least)) == 0);
  pthread_t thread;
  const auto work = [](void* p) -> void* {
    static_cast<Job*>(p)->said = static_cast<Job*>(p)->f();
    return nullptr;
  };
  BOOST_REQUIRE(::pthread_create(&thread, &attributes, work, &job) == 0);
  ::pthread_join(thread, nullptr);
  ::pthread_attr_destroy(&attributes);
  return job.said;
}

// The error of a codec for a value, or a message, on a small stack.
template <class C, class T>
std::string not_written(const T& value) {
  return on_stack_of(small_stack, [&] {
    par::Writer out;
    const auto error = testing::error_of([&] { par::detail::encode<C>(out, value); });
    return error ? error->what() : std::string("written");
  });
}
template <class C, class T>
std::string not_read(const std::string& bytes) {
  return on_stack_of(small_stack, [&] {
    par::Reader in(bytes);
    const auto error = testing::error_of([&] { par::detail::decode<C, T>(in); });
    return error ? error->what() : std::string("read");
  });
}

// The same for all three codecs.
template <class T>
void refused_when_written(const T& value, const std::string& why) {
  BOOST_TEST(has((not_written<par::JsonIo<T>>(value)), why));
  BOOST_TEST(has((not_written<par::CborIo<T>>(value)), why));
  BOOST_TEST(has((not_written<par::MsgpackIo<T>>(value)), why));
}

// Encodes and decodes on a stack of 256 kB, and compares.
template <template <class> class C, class T>
bool comes_back(const T& value) {
  std::optional<T> back;
  on_stack_of(fair_stack, [&] {
    par::Writer out;
    par::detail::encode<C<T>>(out, value);
    par::Reader in(out.written());
    back.emplace(par::detail::decode<C<T>, T>(in));
    return std::string();
  });
  return back == value;
}
template <class T>
void comes_back_in_each(const T& value) {
  BOOST_TEST((comes_back<par::JsonIo>(value)));
  BOOST_TEST((comes_back<par::CborIo>(value)));
  BOOST_TEST((comes_back<par::MsgpackIo>(value)));
}

// A sanitizer needs more stack.
bool skipped() {
  if (testing::sanitized) testing::skip("frames of a sanitizer are larger");
  return testing::sanitized;
}

}  // namespace

// ---- documents deeper than the stack ----

BOOST_AUTO_TEST_CASE(a_deep_document_is_refused_on_a_small_stack) {
  if (skipped()) return;
  for (const std::size_t levels : {most + 1, deep}) {
    refused_when_written(in_arrays(levels), too_deep);
    refused_when_written(in_objects(levels), too_deep);
    refused_when_written(in_arrays<nlohmann::ordered_json>(levels), too_deep);
  }
}

BOOST_AUTO_TEST_CASE(a_deep_document_inside_a_value_is_refused_on_a_small_stack) {
  if (skipped()) return;
  const auto in_a_vector = [](json document) {
    std::vector<json> value(2);
    value.back() = std::move(document);
    return value;
  };
  for (const std::size_t levels : {most + 1, deep}) {
    refused_when_written(in_a_vector(in_arrays(levels)), too_deep);
    std::map<std::string, std::vector<json>> by_name;
    by_name["a"];
    by_name["b"] = in_a_vector(in_objects(levels));
    refused_when_written(by_name, too_deep);
    std::tuple<int, std::pair<json, bool>> several;
    std::get<1>(several).first = in_arrays(levels);
    refused_when_written(several, too_deep);
    refused_when_written(std::optional<json>(in_arrays(levels)), too_deep);
    std::variant<int, json> one_of{std::in_place_index<1>, in_objects(levels)};
    refused_when_written(one_of, too_deep);
    std::array<json, 2> array;
    array[1] = in_objects(levels);
    refused_when_written(array, too_deep);
  }
}

BOOST_AUTO_TEST_CASE(a_deep_message_is_refused_on_a_small_stack) {
  if (skipped()) return;
  const auto read = [](auto kind, const std::string& text, const std::string& cbor,
                       const std::string& msgpack) {
    using T = decltype(kind);
    BOOST_TEST(has((not_read<par::JsonIo<T>, T>(text)), too_deep));
    BOOST_TEST(has((not_read<par::CborIo<T>, T>(cbor)), too_deep));
    BOOST_TEST(has((not_read<par::MsgpackIo<T>, T>(msgpack)), too_deep));
  };
  const std::string texts[] = {std::string(deep, '['), std::string(deep, '\x81'),
                               std::string(deep, '\x91')};
  read(json(), texts[0], texts[1], texts[2]);
  read(std::vector<json>(), texts[0], texts[1], texts[2]);
  read(std::vector<int>(), texts[0], texts[1], texts[2]);
}

BOOST_AUTO_TEST_CASE(an_error_deep_in_a_document_is_named_on_a_small_stack) {
  if (skipped()) return;
  BOOST_TEST(has(not_written<par::JsonIo<json>>(in_arrays(most, json(std::nan("")))), "NaN"));
  std::string place;
  for (std::size_t i = 0; i < most; ++i) place += "/k";
  const json text = in_objects(most, json("\xff"));
  BOOST_TEST(has(not_written<par::CborIo<json>>(text), "0xFF of \"" + place + '"'));
  BOOST_TEST(has(not_written<par::MsgpackIo<json>>(text), "0xFF of \"" + place + '"'));
}

BOOST_AUTO_TEST_CASE(the_deepest_accepted_document_fits_a_stack_of_256_kilobytes) {
  if (skipped()) return;
  comes_back_in_each(in_arrays(most));
  comes_back_in_each(in_objects(most));
  const std::vector<json> inside{in_arrays(most - 1), in_objects(most - 1)};
  comes_back_in_each(inside);
}

BOOST_AUTO_TEST_CASE(a_deep_argument_fails_only_its_own_call) {
  par::Reactor loop;
  auto length = par::run(loop, [](const json& document) { return document.size(); });
  std::string refused;
  std::size_t taken = 0;
  length(in_arrays(deep), [&](par::Result<std::size_t> r) { refused = r.error().what(); });
  length(in_arrays(2), [&](par::Result<std::size_t> r) { taken = r.value(); });
  loop.run();
  BOOST_TEST(has(refused, too_deep));
  BOOST_TEST(taken == 1U);
}

namespace {

template <class Remote>
void answers_but_not_so_deep(par::Reactor& loop, Remote remote) {
  std::optional<par::Error> refused;
  std::optional<json> answer;
  remote(deep, [&](par::Result<json> r) { refused = r.error(); });
  loop.run();
  const pid_t child = remote.pid();
  remote(2, [&](par::Result<json> r) { answer = r.value(); });
  loop.run();
  BOOST_REQUIRE(refused.has_value());
  BOOST_TEST((refused->code() == par::Errc::bad_message));
  BOOST_TEST(has(refused->what(), too_deep));
  BOOST_TEST((answer == in_arrays(2)));
  BOOST_TEST(remote.pid() == child);
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_deep_answer_fails_its_call_but_not_the_child) {
  par::Reactor loop;
  const auto make = [](std::size_t levels) { return in_arrays(levels); };
  answers_but_not_so_deep(loop, par::run(loop, make));
  answers_but_not_so_deep(loop, par::run<par::CborIo>(loop, make));
  answers_but_not_so_deep(loop, par::run<par::MsgpackIo>(loop, make));
  answers_but_not_so_deep(loop, par::run(loop, [](std::size_t levels) -> const json& {
                            static json kept;
                            return kept = in_arrays(levels);
                          }));
  answers_but_not_so_deep(loop, par::run(loop, [](std::size_t levels, par::Reply<json> reply) {
                            reply(in_arrays(levels));
                          }));
}

BOOST_AUTO_TEST_CASE(bind_refuses_a_deep_argument_before_it_copies_it) {
  const auto length = [](const json& document) { return document.size(); };
  const json document = in_arrays(deep);
  BOOST_TEST(has(bad_message([&] { static_cast<void>(par::bind(length, document)); }), too_deep));
  BOOST_TEST(
      has(bad_message([&] { static_cast<void>(par::bind(length, in_arrays(deep))); }), too_deep));
  const auto first = [](const std::vector<json>& all) { return all.size(); };
  std::vector<json> inside(1);
  inside[0] = in_objects(deep);
  BOOST_TEST(has(bad_message([&] { static_cast<void>(par::bind(first, inside)); }), too_deep));
}

BOOST_AUTO_TEST_CASE(a_deep_item_of_a_map_fails_alone) {
  par::Reactor loop;
  auto pool = par::pool(loop, [](const json& document) { return document.size(); });
  std::vector<json> items(3);
  items[0] = in_arrays(1);
  items[1] = in_objects(deep);
  items[2] = in_arrays(2);
  std::vector<std::string> received;
  pool.map(
      items,
      [&](std::size_t, par::Result<std::size_t> r) {
        received.push_back(r ? std::to_string(*r) : r.error().what());
      },
      [](const par::MapSummary&) {});
  loop.run();
  BOOST_REQUIRE(received.size() == 3U);
  BOOST_TEST(received[0] == "1");
  BOOST_TEST(has(received[1], too_deep));
  BOOST_TEST(received[2] == "1");
}

BOOST_AUTO_TEST_CASE(send_refuses_a_deep_message_on_both_sides) {
  par::Reactor loop;
  auto child = par::process(loop, [](par::Pipe<json, json> pipe) {
    pipe.on_message([pipe](const json&) {
      const auto error = testing::error_of([&] { pipe.send(in_arrays(deep)); });
      pipe.send(error ? json(error->what()) : json(nullptr));
      pipe.close();
    });
  });
  std::vector<json> received;
  child.on_message([&](json message) { received.push_back(std::move(message)); });
  BOOST_TEST(has(bad_message([&] { child.send(in_arrays(deep)); }), too_deep));
  child.send(in_arrays(1));
  child.close();
  loop.run();
  BOOST_REQUIRE(received.size() == 1U);
  BOOST_TEST(has(received[0].dump(), too_deep));
}

// ---- conversions of the program ----

namespace theirs {

// As text: nlohmann would convert it to a double.
struct Wide {
  long double value = 0;
};
void to_json(json& to, const Wide& wide) {
  to = std::to_string(wide.value);
}
void from_json(const json& from, Wide& wide) {
  wide.value = std::stold(from.get<std::string>());
}

}  // namespace theirs

template <>
struct nlohmann::adl_serializer<std::vector<long double>> {
  static void to_json(json& to, const std::vector<long double>& all) { to = all.size(); }
  static void from_json(const json& from, std::vector<long double>& all) {
    all.assign(from.get<std::size_t>(), 1.0L);
  }
};

BOOST_AUTO_TEST_CASE(a_long_double_travels_with_a_codec_of_the_program) {
  const auto back = [](auto codec, auto value) {
    using T = decltype(value);
    par::Writer out;
    decltype(codec)::put(out, value);
    par::Reader in(out.written());
    return par::detail::decode<decltype(codec), T>(in);
  };
  const long double third = 1.0L / 3;
  BOOST_TEST((back(par::RawIo<long double>(), third) == third));
  BOOST_TEST((back(par::JsonIo<theirs::Wide>(), theirs::Wide{0.25L}).value == 0.25L));
  BOOST_TEST(
      (back(par::CborIo<std::vector<long double>>(), std::vector<long double>(3)).size() == 3U));
}

// ---- numbers out of range ----

namespace {

// What a codec says of these bytes; empty: it takes them.
template <class Codec>
std::string refusal(const std::string& bytes) {
  par::Reader in(bytes);
  try {
    static_cast<void>(Codec::get(in));
    return {};
  } catch (const std::exception& error) {
    return error.what();
  }
}

template <class T>
void check_numbers(const std::vector<std::string>& good, const std::vector<std::string>& bad) {
  for (const bool fits : {true, false})
    for (const std::string& text : fits ? good : bad) {
      const json document = json::parse(text);
      std::string cbor;
      std::string msgpack;
      json::to_cbor(document, cbor);
      json::to_msgpack(document, msgpack);
      for (const std::string& said : {refusal<par::JsonIo<T>>(text), refusal<par::CborIo<T>>(cbor),
                                      refusal<par::MsgpackIo<T>>(msgpack)}) {
        if (fits)
          BOOST_TEST(said == "", text);
        else
          BOOST_TEST(has(said, "a number is out of the range of its type"), text + ": " + said);
      }
    }
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_number_that_an_integer_cannot_hold_is_bad_message,
                     *testing::guarantee("A.4")) {
  check_numbers<int>({"2147483647", "-2147483648", "2147483647.5", "1.5"},
                     {"2147483648", "-2147483649", "2e22", "-2e22", "2147483648.0"});
  check_numbers<unsigned>({"4294967295", "0", "-0.5"}, {"4294967296", "-1", "-1.0"});
  check_numbers<signed char>({"127", "-128"}, {"128", "-129"});
  check_numbers<std::int64_t>({"9223372036854775807", "-9223372036854775808", "-9.3e17"},
                              {"9223372036854775808", "9.3e18", "-9.3e18"});
  check_numbers<std::uint64_t>({"18446744073709551615", "1.8e19"}, {"1.9e19", "-1"});
  check_numbers<double>({"2e22", "18446744073709551615"}, {});
  check_numbers<std::vector<int>>({"[1,2.0]"}, {"[1,2e22]"});
  check_numbers<std::vector<std::vector<short>>>({"[[1],[]]"}, {"[[1],[70000]]"});
  check_numbers<std::map<std::string, int>>({R"({"a":1})"}, {R"({"a":1,"b":2e22})"});
  check_numbers<std::map<int, int>>({"[[1,2]]"}, {"[[1,2e22]]", "[[2e22,1]]"});
  check_numbers<std::pair<double, int>>({"[2e22,1]"}, {"[1,2e22]"});
  check_numbers<std::tuple<int, std::string, unsigned>>({R"([1,"a",2])"}, {R"([1,"a",-2])"});
  check_numbers<std::array<short, 2>>({"[1,2]"}, {"[1,70000]"});
  check_numbers<std::optional<int>>({"null", "1"}, {"2e22"});
  check_numbers<std::variant<int, double>>(
      {R"({"index":0,"value":1})", R"({"index":1,"value":2e22})"}, {R"({"index":0,"value":2e22})"});
  check_numbers<std::chrono::milliseconds>({"1"}, {"2e22"});
}

// ---- documents that are larger than their message ----

BOOST_AUTO_TEST_CASE(an_array_in_place_of_a_value_is_refused_before_it_is_read) {
  const std::string rest(1000, '[');  // no document can be made of it
  for (const std::string& said :
       {refusal<par::JsonIo<int>>("[" + rest), refusal<par::JsonIo<double>>("[" + rest),
        refusal<par::JsonIo<std::int64_t>>("[" + rest), refusal<par::JsonIo<bool>>("[" + rest),
        refusal<par::JsonIo<std::string>>("[" + rest)})
    BOOST_TEST(has(said, "but is array"), said);
  BOOST_TEST(has(refusal<par::JsonIo<int>>("{"), "but is object"));
}

namespace {

// A document takes at least the memory of so many elements.
constexpr int many = 10000;
constexpr std::size_t too_little = 102400;
using Numbers = std::map<std::string, std::vector<int>>;

Numbers make_numbers(int count) {
  return {{"all", std::vector<int>(static_cast<std::size_t>(count), 7)}};
}
int count_numbers(const Numbers& numbers) {
  return static_cast<int>(numbers.at("all").size());
}

par::Options limited() {
  par::Options options;
  options.max_decoded = too_little;
  return options;
}

template <template <class> class Io>
void check_limit() {
  par::Reactor loop;
  par::PoolOptions pool_options;
  pool_options.child = limited();
  const auto check = [](auto result, bool fits) {
    BOOST_TEST(result.has_value() == fits);
    if (result) return;
    BOOST_TEST((result.error().code() == par::Errc::bad_message));
    BOOST_TEST(has(result.error().what(), "Options::max_decoded, 102400 bytes"),
               result.error().what());
  };
  auto answers = par::run<Io, Io>(loop, make_numbers, limited());
  auto arguments = par::run<Io, Io>(loop, count_numbers, limited());
  auto pool = par::pool<Io, Io>(loop, make_numbers, pool_options);
  auto items = par::pool<Io, Io>(loop, count_numbers, pool_options);
  int checks = 0;
  for (const bool fits : {true, false, true}) {
    const int count = fits ? 10 : many;
    answers(count, [&, fits](par::Result<Numbers> r) { check(r, fits), ++checks; });
    arguments(make_numbers(count), [&, fits](par::Result<int> r) { check(r, fits), ++checks; });
    pool.submit(count, [&, fits](par::Result<Numbers> r) { check(r, fits), ++checks; });
    pool.map(std::vector<int>{count},
             [&, fits](std::size_t, par::Result<Numbers> r) { check(r, fits), ++checks; });
    items.map(std::vector<Numbers>{make_numbers(count)},
              [&, fits](std::size_t, par::Result<int> r) { check(r, fits), ++checks; });
  }
  loop.run();
  BOOST_TEST(checks == 15);
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_document_that_takes_more_memory_than_its_limit_is_refused_on_either_side,
                     *testing::guarantee("7.5 A.4")) {
  check_limit<par::JsonIo>();
  check_limit<par::CborIo>();
  check_limit<par::MsgpackIo>();
}

BOOST_AUTO_TEST_CASE(a_message_whose_document_is_too_large_leaves_its_process_running) {
  par::Reactor loop;
  auto p = par::process(
      loop,
      [](par::Pipe<Numbers, int> pipe) {
        pipe.on_message([pipe](const Numbers& numbers) { pipe.send(count_numbers(numbers)); });
        pipe.on_error([pipe](const par::Error&) { pipe.send(-1); });
      },
      limited());
  std::vector<int> counts;
  p.on_message([&](int count) {
    counts.push_back(count);
    if (counts.size() == 3) p.close();
  });
  for (const int count : {10, many, 20}) p.send(make_numbers(count));
  loop.run();
  BOOST_TEST((counts == std::vector<int>{10, -1, 20}));
}

BOOST_AUTO_TEST_CASE(many_empty_parts_are_refused_before_a_document_is_made,
                     *testing::guarantee("A.4")) {
  constexpr std::size_t parts = 100000;
  std::string text = "[[]";
  for (std::size_t i = 1; i < parts; ++i) text += ",[]";
  text += ']';
  std::string cbor("\x9f");
  cbor.append(parts, '\x80');
  cbor += '\xff';
  std::string msgpack("\xdd\x00\x01\x86\xa0", 5);
  msgpack.append(parts, '\x90');
  const auto said = [](auto codec, const std::string& bytes, std::size_t most_decoded) {
    par::Reader in(bytes);
    in.set_max_decoded(most_decoded);
    try {
      return decltype(codec)::get(in).size() == parts ? std::string() : std::string("other");
    } catch (const par::Error& error) {
      return std::string(error.what());
    }
  };
  for (const bool fits : {true, false}) {
    const std::size_t limit = fits ? parts * 200 : parts * 50;
    const std::string wanted = fits ? "" : "Options::max_decoded";
    for (const std::string& words :
         {said(par::JsonIo<json>(), text, limit), said(par::CborIo<json>(), cbor, limit),
          said(par::MsgpackIo<json>(), msgpack, limit)})
      BOOST_TEST((fits ? words.empty() : has(words, wanted)), words);
  }
}
