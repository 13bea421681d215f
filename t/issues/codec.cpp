// codec.cpp - values deeper than the stack ended the process that wrote them, and numbers changed on the way.
#include "errors.hpp"

#include <evparallel/evparallel.hpp>

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
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
