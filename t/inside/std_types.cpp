// std_types.cpp - JSON of optional, variant, chrono and path: their forms, their places, and invalid ones.
#include "errors.hpp"
#include "testing.hpp"

#include <evparallel/json_io.hpp>

#include <array>
#include <cmath>
#include <list>
#include <map>
#include <set>
#include <tuple>

using namespace evparallel;
using nlohmann::json;
using testing::bad_message;
using testing::has;
namespace chrono = std::chrono;
namespace fs = std::filesystem;

namespace {

template <class T>
std::string text_of(const T& value) {
  Writer out;
  detail::encode<Io<T>>(out, value);
  return out.bytes();
}

template <class T>
T value_of(const std::string& text) {
  Reader in(text);
  return detail::decode<Io<T>, T>(in);
}

template <class T>
std::string not_read(const std::string& text) {
  return bad_message([&] { value_of<T>(text); });
}
template <class T>
std::string not_written(const T& value) {
  return bad_message([&] { text_of(value); });
}

// The form is part of the interface, and the value comes back.
template <class T>
void check(const T& value, const std::string& text) {
  BOOST_TEST(text_of(value) == text);
  BOOST_TEST((value_of<T>(text) == value), text);
}

}  // namespace

namespace shapes {

struct Address {
  std::string street;
  std::optional<int> number;
  bool operator==(const Address& o) const { return street == o.street && number == o.number; }
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Address, street, number)

class Person {
public:
  std::optional<std::string> name;
  std::optional<Address> home;
  std::variant<std::monostate, int, std::string> id;
  chrono::seconds age{0};
  chrono::system_clock::time_point born;
  fs::path photo;
  bool operator==(const Person& o) const {
    return std::tie(name, home, id, age, born, photo) ==
           std::tie(o.name, o.home, o.id, o.age, o.born, o.photo);
  }
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(Person, name, home, id, age, born, photo)
};

// A missing member keeps its value.
struct Settings {
  std::optional<int> depth;
  chrono::milliseconds patience{250};
  bool operator==(const Settings& o) const { return depth == o.depth && patience == o.patience; }
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(Settings, depth, patience)

// A type that contains itself.
struct Tree {
  int value = 0;
  std::vector<Tree> branches;
  std::optional<std::vector<Tree>> grafts;
  bool operator==(const Tree& o) const {
    return value == o.value && branches == o.branches && grafts == o.grafts;
  }
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Tree, value, branches, grafts)

// It has no default constructor.
struct Sealed {
  explicit Sealed(int v) : value(v) {}
  int value;
  bool operator==(const Sealed& o) const { return value == o.value; }
};

// The old alternative is destroyed before the new one fails to convert.
struct Fragile {
  Fragile() = default;
  explicit Fragile(int what) { throw what; }
  std::string text;
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Fragile, text)

struct Opaque {};  // no conversion exists

}  // namespace shapes

template <>
struct nlohmann::adl_serializer<shapes::Sealed> {
  static void to_json(json& to, const shapes::Sealed& value) { to = value.value; }
  static shapes::Sealed from_json(const json& from) { return shapes::Sealed(from.get<int>()); }
};

// ---- optional ----

BOOST_AUTO_TEST_SUITE(optional)

BOOST_AUTO_TEST_CASE(an_optional_is_encoded_as_null_or_the_value) {
  check(std::optional<int>(), "null");
  check(std::optional<int>(0), "0");
  check(std::optional<bool>(false), "false");
  check(std::optional<double>(1.5), "1.5");
  check(std::optional<std::string>(), "null");
  check(std::optional<std::string>(""), "\"\"");
  check(std::optional<std::string>("null"), "\"null\"");
  check(std::optional<std::vector<int>>(std::vector<int>{}), "[]");
  check(std::optional<std::vector<int>>(std::vector<int>{1}), "[1]");
  check(std::optional<std::map<std::string, int>>(std::map<std::string, int>{}), "{}");
  check(std::optional<shapes::Sealed>(shapes::Sealed(7)), "7");
  check(std::optional<shapes::Sealed>(), "null");
}

BOOST_AUTO_TEST_CASE(optionals_are_preserved_inside_other_types) {
  check(std::vector<std::optional<int>>{1, std::nullopt, 3}, "[1,null,3]");
  check(std::list<std::optional<std::string>>{std::nullopt, "a"}, "[null,\"a\"]");
  check(std::map<std::string, std::optional<int>>{{"a", 1}, {"b", {}}}, R"({"a":1,"b":null})");
  check(std::map<int, std::optional<int>>{{1, {}}}, "[[1,null]]");
  check(std::pair<std::optional<int>, std::string>({}, "x"), "[null,\"x\"]");
  check(std::tuple<std::optional<int>, std::optional<bool>>(1, {}), "[1,null]");
  check(std::array<std::optional<int>, 2>{{{}, 2}}, "[null,2]");
  check(std::optional<std::vector<std::optional<std::vector<int>>>>(
            std::vector<std::optional<std::vector<int>>>{std::vector<int>{1}, std::nullopt}),
        "[[1],null]");
}

BOOST_AUTO_TEST_CASE(optionals_are_preserved_in_structs) {
  using shapes::Address;
  check(Address{"Main", 5}, R"({"number":5,"street":"Main"})");
  check(Address{"Main", {}}, R"({"number":null,"street":"Main"})");
  BOOST_TEST(has(not_read<Address>(R"({"street":"Main"})"), "'number' not found"));
  BOOST_TEST(has(not_read<Address>(R"({"number":"5","street":"Main"})"), "must be number"));
  check(shapes::Settings{3, chrono::milliseconds(1)}, R"({"depth":3,"patience":1})");
  BOOST_TEST((value_of<shapes::Settings>("{}") == shapes::Settings{}));
  check(shapes::Tree{1, {{2, {}, {}}}, std::vector<shapes::Tree>{{3, {}, {}}}},
        R"({"branches":[{"branches":[],"grafts":null,"value":2}],)"
        R"("grafts":[{"branches":[],"grafts":null,"value":3}],"value":1})");
}

// Null could mean either value: the writer reports it, so that the reader does not have to guess.
BOOST_AUTO_TEST_CASE(an_optional_of_a_null_value_is_refused) {
  using Twice = std::optional<std::optional<int>>;
  check(Twice(), "null");
  check(Twice(5), "5");
  BOOST_TEST(has(not_written(Twice(std::optional<int>())), "would be read as an empty optional"));
  check(std::optional<json>(json(5)), "5");
  BOOST_TEST(has(not_written(std::optional<json>(json())), "would be read as an empty optional"));
  BOOST_TEST(has(not_written(std::optional<std::monostate>(std::monostate())),
                 "would be read as an empty optional"));
}

BOOST_AUTO_TEST_CASE(an_optional_of_a_malformed_value_is_refused) {
  BOOST_TEST(has(not_read<std::optional<int>>("\"5\""), "must be number, but is string"));
  BOOST_TEST(has(not_read<std::optional<int>>("nul"), "column"));
  BOOST_TEST(has(not_read<std::vector<std::optional<std::string>>>("[null,1]"), "must be string"));
  BOOST_TEST(has(not_written(std::optional<double>(std::nan(""))), "NaN"));
  BOOST_TEST(has(not_written(std::optional<std::string>("\xff")), "UTF-8"));
}

BOOST_AUTO_TEST_SUITE_END()

// ---- variant ----

BOOST_AUTO_TEST_SUITE(variant)

using Value = std::variant<int, std::string, std::vector<int>>;

BOOST_AUTO_TEST_CASE(a_variant_is_encoded_as_an_index_and_a_value) {
  check(Value(5), R"({"index":0,"value":5})");
  check(Value("five"), R"({"index":1,"value":"five"})");
  check(Value(std::vector<int>{1, 2}), R"({"index":2,"value":[1,2]})");
  using Same = std::variant<int, int, double>;
  check(Same(std::in_place_index<0>, 1), R"({"index":0,"value":1})");
  check(Same(std::in_place_index<1>, 1), R"({"index":1,"value":1})");
  check(Same(1.0), R"({"index":2,"value":1.0})");
  check(std::variant<shapes::Sealed, int>(shapes::Sealed(3)), R"({"index":0,"value":3})");
}

BOOST_AUTO_TEST_CASE(a_monostate_is_encoded_as_null) {
  check(std::variant<std::monostate, int>(), R"({"index":0,"value":null})");
  check(std::variant<std::monostate, int>(7), R"({"index":1,"value":7})");
  check(std::monostate{}, "null");
  BOOST_TEST(has(not_read<std::monostate>("0"), "monostate is not null"));
}

BOOST_AUTO_TEST_CASE(variants_are_preserved_inside_other_types) {
  check(std::vector<Value>{1, "a"}, R"([{"index":0,"value":1},{"index":1,"value":"a"}])");
  check(std::map<std::string, Value>{{"k", 1}}, R"({"k":{"index":0,"value":1}})");
  check(std::optional<Value>(std::in_place, 1), R"({"index":0,"value":1})");
  check(std::optional<Value>(), "null");
  using Deep = std::variant<std::optional<int>, Value>;
  check(Deep(std::optional<int>()), R"({"index":0,"value":null})");
  check(Deep(Value("x")), R"({"index":1,"value":{"index":1,"value":"x"}})");
}

BOOST_AUTO_TEST_CASE(malformed_variants_are_refused) {
  for (const char* text :
       {R"({"index":3,"value":1})", R"({"index":-1,"value":1})", R"({"index":0.0,"value":1})",
        R"({"index":"0","value":1})", R"({"index":true,"value":1})", R"({"index":null,"value":1})",
        R"({"index":18446744073709551615,"value":1})", R"({"index":4294967296,"value":1})"})
    BOOST_TEST(has(not_read<Value>(text), "names none of its alternatives"), text);
  BOOST_TEST(has(not_read<Value>(R"({"value":1})"), "'index' not found"));
  BOOST_TEST(has(not_read<Value>(R"({"index":0})"), "'value' not found"));
  BOOST_TEST(has(not_read<Value>(R"({"index":0,"value":"a"})"), "must be number"));
  for (const char* text : {"1", "null", "[0,1]", "\"a\"", "{}"}) not_read<Value>(text);
}

BOOST_AUTO_TEST_CASE(a_variant_without_a_value_is_refused) {
  std::variant<std::string, shapes::Fragile> broken("x");
  BOOST_CHECK_THROW(broken.emplace<1>(1), int);
  BOOST_REQUIRE(broken.valueless_by_exception());
  BOOST_TEST(has(not_written(broken), "variant has no value"));
}

BOOST_AUTO_TEST_SUITE_END()

// ---- chrono ----

BOOST_AUTO_TEST_SUITE(chrono_types)

BOOST_AUTO_TEST_CASE(a_duration_is_encoded_as_its_count) {
  check(chrono::nanoseconds(std::numeric_limits<std::int64_t>::min()), "-9223372036854775808");
  check(chrono::nanoseconds(std::numeric_limits<std::int64_t>::max()), "9223372036854775807");
  check(chrono::milliseconds(-5), "-5");
  check(chrono::hours(24), "24");
  check(chrono::duration<double>(0.25), "0.25");
  check(chrono::duration<std::uint8_t, std::ratio<7, 3>>(200), "200");
}

BOOST_AUTO_TEST_CASE(a_time_point_is_encoded_as_its_count_since_the_epoch) {
  const chrono::system_clock::time_point epoch;
  check(epoch, "0");
  check(epoch + chrono::system_clock::duration(-1), "-1");
  check(chrono::steady_clock::time_point::max(), "9223372036854775807");
  check(chrono::time_point<chrono::system_clock, chrono::seconds>(chrono::seconds(1700000000)),
        "1700000000");
  const auto now = chrono::steady_clock::now();
  BOOST_TEST((value_of<chrono::steady_clock::time_point>(text_of(now)) == now));
}

BOOST_AUTO_TEST_CASE(times_are_preserved_inside_other_types) {
  check(std::vector<chrono::seconds>{chrono::seconds(1), chrono::seconds(2)}, "[1,2]");
  check(std::map<std::string, chrono::milliseconds>{{"a", chrono::milliseconds(1)}}, R"({"a":1})");
  check(std::optional<chrono::seconds>(chrono::seconds(0)), "0");
  check(std::variant<int, chrono::seconds>(chrono::seconds(9)), R"({"index":1,"value":9})");
}

BOOST_AUTO_TEST_CASE(malformed_times_are_refused) {
  BOOST_TEST(has(not_read<chrono::seconds>("\"5\""), "must be number"));
  BOOST_TEST(has(not_read<chrono::system_clock::time_point>("null"), "must be number"));
  BOOST_TEST(has(not_written(chrono::duration<double>(std::nan(""))), "NaN"));
}

BOOST_AUTO_TEST_SUITE_END()

// ---- path ----

BOOST_AUTO_TEST_SUITE(path)

BOOST_AUTO_TEST_CASE(a_path_is_encoded_as_its_string) {
  check(fs::path(), "\"\"");
  check(fs::path("/a/b c.txt"), "\"/a/b c.txt\"");
  check(fs::path("../\xc3\xa4/"), "\"../\xc3\xa4/\"");
  check(std::vector<fs::path>{"/a", "b"}, R"(["/a","b"])");
  check(std::map<std::string, fs::path>{{"k", "/v"}}, R"({"k":"/v"})");
  check(std::optional<fs::path>(), "null");
  check(std::optional<fs::path>("x"), "\"x\"");
}

BOOST_AUTO_TEST_CASE(malformed_paths_are_refused) {
  BOOST_TEST(has(not_read<fs::path>("1"), "must be string"));
  BOOST_TEST(has(not_read<fs::path>("[\"a\"]"), "must be string"));
  BOOST_TEST(has(not_written(fs::path("/a\xff")), "UTF-8"));
}

BOOST_AUTO_TEST_SUITE_END()

// ---- all types together ----

BOOST_AUTO_TEST_CASE(a_struct_of_all_types_is_preserved) {
  shapes::Person person;
  BOOST_TEST((value_of<shapes::Person>(text_of(person)) == person));
  person.name = "Ada";
  person.home = shapes::Address{"Main", 5};
  person.id = "x1";
  person.age = chrono::hours(1);
  person.born += chrono::hours(3);
  person.photo = "/ada.png";
  BOOST_TEST((value_of<shapes::Person>(text_of(person)) == person));
  BOOST_TEST(
      (value_of<std::vector<shapes::Person>>(text_of(std::vector<shapes::Person>{person, person}))
           .size() == 2U));
}

// Code that makes documents by hand has the forms, too, and so has ordered_json.
BOOST_AUTO_TEST_CASE(documents_convert_standard_types) {
  json document;
  document["o"] = std::optional<int>(3);
  document["v"] = std::variant<int, bool>(true);
  document["d"] = chrono::seconds(3);
  document["p"] = fs::path("x");
  BOOST_TEST(document.dump() == R"({"d":3,"o":3,"p":"x","v":{"index":1,"value":true}})");
  std::optional<int> number;
  document.at("o").get_to(number);
  BOOST_TEST((number == 3));
  BOOST_TEST((document.value("none", std::optional<int>(4)) == 4));
  BOOST_TEST(nlohmann::ordered_json(std::variant<int, bool>(true)).dump() ==
             R"({"index":1,"value":true})");
  BOOST_TEST((nlohmann::ordered_json::parse("null").get<std::optional<int>>() == std::nullopt));
}

BOOST_AUTO_TEST_CASE(contained_types_must_be_convertible) {
  using shapes::Opaque;
  static_assert(!std::is_constructible_v<json, const Opaque&>);
  static_assert(!std::is_constructible_v<json, const std::optional<Opaque>&>);
  static_assert(!std::is_constructible_v<json, const std::variant<int, Opaque>&>);
  static_assert(!detail::json_can_get<json, std::optional<Opaque>>);
  static_assert(!detail::json_can_get<json, std::variant<int, Opaque>>);
  BOOST_TEST(true);  // the check is that it compiles
}
