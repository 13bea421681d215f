// 18-bare.cpp - EVPARALLEL_NO_STD_JSON: nothing of ours stands beside serializers that the program has.
#define EVPARALLEL_NO_STD_JSON
#include "testing.hpp"

#include <evparallel/binary_io.hpp>
#include <evparallel/json_io.hpp>

#include <chrono>
#include <filesystem>
#include <optional>
#include <variant>

namespace {

template <class T, class = void>
constexpr bool is_like_optional = false;
template <class T>
constexpr bool is_like_optional<T, std::void_t<decltype(std::declval<T&>().has_value())>> = true;

}  // namespace

// One for all that is like an optional: the compiler could not choose between this one and ours.
template <class T>
struct nlohmann::adl_serializer<T, std::enable_if_t<is_like_optional<T>>> {
  static void to_json(json& to, const T& value) {
    to = json::object();
    if (value) to["some"] = *value;
  }
  static void from_json(const json& from, T& value) {
    value.reset();
    if (from.contains("some")) value = from["some"].template get<typename T::value_type>();
  }
};

using namespace evparallel;

namespace {

template <class Codec, class T>
void check(const T& value, const std::string& bytes) {
  Writer out;
  detail::encode<Codec>(out, value);
  BOOST_TEST(out.bytes() == bytes);
  Reader in(bytes);
  BOOST_TEST((detail::decode<Codec, T>(in) == value));
}

}  // namespace

BOOST_AUTO_TEST_CASE(the_programs_own_is_used) {
  check<Io<std::optional<int>>>(std::optional<int>(), "{}");
  check<Io<std::optional<int>>>(std::optional<int>(5), R"({"some":5})");
  check<Io<std::vector<std::optional<int>>>>(std::vector<std::optional<int>>{1, {}},
                                             R"([{"some":1},{}])");
  check<CborIo<std::optional<int>>>(std::optional<int>(5), "\xa1\x64some\x05");
  check<MsgpackIo<std::optional<int>>>(std::optional<int>(5), "\x81\xa4some\x05");
}

BOOST_AUTO_TEST_CASE(what_has_none_cannot_be_converted) {
  using nlohmann::json;
  static_assert(!std::is_constructible_v<json, const std::variant<int, bool>&>);
  static_assert(!std::is_constructible_v<json, const std::monostate&>);
  static_assert(!std::is_constructible_v<json, const std::chrono::seconds&>);
  static_assert(!std::is_constructible_v<json, const std::chrono::steady_clock::time_point&>);
  BOOST_TEST(true);  // the compiler has said it
}

BOOST_AUTO_TEST_CASE(all_else_is_as_ever) {
  check<Io<int>>(5, "5");
  check<Io<std::vector<std::string>>>(std::vector<std::string>{"a"}, "[\"a\"]");
  check<Io<std::pair<int, bool>>>(std::pair<int, bool>(1, true), "[1,true]");
}
