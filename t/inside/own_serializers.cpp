// own_serializers.cpp - serializers of the user for the types that the library serializes: those of the user are used,
// in whatever form they are written.
#include "testing.hpp"

// Before the library's serializers are seen: for every variant.
#include <nlohmann/json.hpp>

#include <variant>

template <class... T>
struct nlohmann::adl_serializer<std::variant<T...>> {
  static void to_json(json& to, const std::variant<T...>& value) {
    std::visit([&](const auto& alternative) { to = json::array({alternative}); }, value);
  }
  static void from_json(const json& from, std::variant<T...>& value) {
    value = from.at(0).get<std::variant_alternative_t<0, std::variant<T...>>>();
  }
};

#include <evparallel/binary_io.hpp>
#include <evparallel/json_io.hpp>

// After them: for every optional, for one duration, for path.
template <class T>
struct nlohmann::adl_serializer<std::optional<T>> {
  static void to_json(json& to, const std::optional<T>& value) {
    to = json::array();
    if (value) to.push_back(*value);
  }
  static void from_json(const json& from, std::optional<T>& value) {
    value.reset();
    if (!from.empty()) value = from.at(0).get<T>();
  }
};
template <>
struct nlohmann::adl_serializer<std::chrono::milliseconds> {
  static void to_json(json& to, std::chrono::milliseconds value) {
    to = std::to_string(value.count()) + " ms";
  }
  static void from_json(const json& from, std::chrono::milliseconds& value) {
    value = std::chrono::milliseconds(std::stoi(from.get<std::string>()));
  }
};
template <>
struct nlohmann::adl_serializer<std::filesystem::path> {
  static void to_json(json& to, const std::filesystem::path& value) {
    to = "file:" + value.string();
  }
  static void from_json(const json& from, std::filesystem::path& value) {
    value = from.get<std::string>().substr(5);
  }
};
template <>
struct nlohmann::adl_serializer<std::monostate> {
  static void to_json(json& to, std::monostate) { to = "nothing"; }
  static void from_json(const json&, std::monostate&) {}
};

// Types that are otherwise written without a document.
template <>
struct nlohmann::adl_serializer<float> {
  static void to_json(json& to, float value) {
    to = value == value ? json(static_cast<double>(value)) : json("NaN");
  }
  static void from_json(const json& from, float& value) {
    value = from.is_string() ? std::numeric_limits<float>::quiet_NaN()
                             : static_cast<float>(from.get<double>());
  }
};
template <>
struct nlohmann::adl_serializer<std::vector<short>> {
  static void to_json(json& to, const std::vector<short>& value) { to = value.size(); }
  static void from_json(const json& from, std::vector<short>& value) {
    value.resize(from.get<std::size_t>());
  }
};

// By lookup: functions of a type itself, for composite types that contain it.
namespace shapes {

struct Clock {
  using duration = std::chrono::nanoseconds;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<Clock>;
  static constexpr bool is_steady = true;
};
void to_json(nlohmann::json& to, const Clock::time_point& value) {
  to = {{"clock", value.time_since_epoch().count()}};
}
void from_json(const nlohmann::json& from, Clock::time_point& value) {
  value = Clock::time_point(Clock::duration(from.at("clock").get<std::int64_t>()));
}

}  // namespace shapes

using namespace evparallel;
namespace chrono = std::chrono;

namespace {

template <class T>
void check(const T& value, const std::string& text) {
  Writer out;
  detail::encode<Io<T>>(out, value);
  BOOST_TEST(out.bytes() == text);
  Reader in(text);
  const T back = detail::decode<Io<T>, T>(in);
  BOOST_TEST((back == value), text);
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_serializer_that_is_declared_first_is_used) {
  check(std::variant<int, bool>(5), "[5]");
}

BOOST_AUTO_TEST_CASE(a_serializer_that_is_declared_later_is_used) {
  check(std::optional<int>(), "[]");
  check(std::optional<int>(5), "[5]");
  check(std::vector<std::optional<std::string>>{"a", {}}, R"([["a"],[]])");
  check(std::optional<std::optional<int>>(std::optional<int>()), "[[]]");
}

BOOST_AUTO_TEST_CASE(a_serializer_of_one_type_is_used) {
  check(chrono::milliseconds(5), "\"5 ms\"");
  check(std::vector<chrono::milliseconds>{chrono::milliseconds(1)}, "[\"1 ms\"]");
  check(std::filesystem::path("/a"), "\"file:/a\"");
  check(std::monostate{}, "\"nothing\"");
}

BOOST_AUTO_TEST_CASE(functions_found_by_argument_dependent_look_up_are_used) {
  check(shapes::Clock::time_point(chrono::nanoseconds(7)), R"({"clock":7})");
}

BOOST_AUTO_TEST_CASE(serializers_of_the_library_apply_to_other_types) {
  check(chrono::seconds(5), "5");
  check(chrono::steady_clock::time_point(chrono::nanoseconds(3)), "3");
}

BOOST_AUTO_TEST_CASE(own_serializers_apply_to_types_without_a_document) {
  static_assert(!JsonIo<float>::is_direct && !JsonIo<std::vector<float>>::is_direct);
  static_assert(!JsonIo<std::vector<short>>::is_direct && JsonIo<short>::is_direct);
  check(1.5F, "1.5");
  check(std::vector<short>(3), "3");
  Writer out;
  detail::encode<Io<std::vector<float>>>(
      out, std::vector<float>{std::numeric_limits<float>::quiet_NaN()});
  BOOST_TEST(out.bytes() == "[\"NaN\"]");
}

// The binary formats are made from the same documents.
BOOST_AUTO_TEST_CASE(own_serializers_apply_to_binary_codecs) {
  Writer out;
  detail::encode<CborIo<std::optional<int>>>(out, std::optional<int>(5));
  BOOST_TEST(out.bytes() == "\x81\x05");
  detail::encode<MsgpackIo<chrono::milliseconds>>(out, chrono::milliseconds(5));
  BOOST_TEST(out.bytes() ==
             "\x81\x05\xa4"
             "5 ms");
}
