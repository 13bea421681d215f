// no_std_json.cpp - EVPARALLEL_NO_STD_JSON: no serializer of the library competes with serializers of the program.  And
// JSON_DIAGNOSTICS: the types of nlohmann have other names then, and its errors contain the place.
#define EVPARALLEL_NO_STD_JSON
#define JSON_DIAGNOSTICS 1
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

// One serializer for all types like optional: the compiler could not choose between this one and that of the library.
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

BOOST_AUTO_TEST_CASE(the_serializer_of_the_program_is_used) {
  check<Io<std::optional<int>>>(std::optional<int>(), "{}");
  check<Io<std::optional<int>>>(std::optional<int>(5), R"({"some":5})");
  check<Io<std::vector<std::optional<int>>>>(std::vector<std::optional<int>>{1, {}},
                                             R"([{"some":1},{}])");
  check<CborIo<std::optional<int>>>(std::optional<int>(5), "\xa1\x64some\x05");
  check<MsgpackIo<std::optional<int>>>(std::optional<int>(5), "\x81\xa4some\x05");
}

BOOST_AUTO_TEST_CASE(types_without_a_serializer_cannot_be_converted) {
  using nlohmann::json;
  static_assert(!std::is_constructible_v<json, const std::variant<int, bool>&>);
  static_assert(!std::is_constructible_v<json, const std::monostate&>);
  static_assert(!std::is_constructible_v<json, const std::chrono::seconds&>);
  static_assert(!std::is_constructible_v<json, const std::chrono::steady_clock::time_point&>);
  BOOST_TEST(true);  // the check is that it compiles
}

BOOST_AUTO_TEST_CASE(other_types_are_encoded_as_usual) {
  check<Io<int>>(5, "5");
  check<Io<std::vector<std::string>>>(std::vector<std::string>{"a"}, "[\"a\"]");
  check<Io<std::pair<int, bool>>>(std::pair<int, bool>(1, true), "[1,true]");
}

BOOST_AUTO_TEST_CASE(errors_have_a_path_with_diagnostics) {
  const auto says = [](auto get, const std::string& bytes) -> std::string {
    Reader in(bytes);
    try {
      get(in);
    } catch (const Error& error) {
      return error.what();
    }
    return "nothing";
  };
  using Numbers = std::vector<std::vector<int>>;
  using Optionals = std::vector<std::optional<int>>;
  const auto has = [](const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
  };
  const std::string wrong = "must be number, but is string";
  for (const std::string& text :
       {says(detail::decode<JsonIo<Numbers>, Numbers>, "[[1],[2,\"3\"]]"),
        says(detail::decode<CborIo<Numbers>, Numbers>, "\x82\x81\x01\x82\x02\x61\x33"),
        says(detail::decode<MsgpackIo<Numbers>, Numbers>, "\x92\x91\x01\x92\x02\xa1\x33")})
    BOOST_TEST((has(text, "(/1/1)") && has(text, wrong)), text);
  const std::string text =
      says(detail::decode<JsonIo<Optionals>, Optionals>, R"([{},{"some":"a"}])");
  BOOST_TEST((has(text, "(/1/some)") && has(text, wrong)), text);
}
