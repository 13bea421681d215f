// binary.cpp - CBOR and MessagePack: round trips, encoded bytes, and every kind of bad input.
#include "errors.hpp"
#include "testing.hpp"

#include <evparallel/binary_io.hpp>

#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <tuple>

using namespace evparallel;
using nlohmann::json;
using testing::bad_message;
using testing::has;

namespace {

template <class C, class T>
std::string bytes_of(const T& value) {
  Writer out;
  detail::encode<C>(out, value);
  return out.bytes();
}

// The bytes are in memory of exactly that size, so that a sanitizer sees a read beyond the end.
template <class C, class T>
T value_of(const std::string& bytes) {
  const std::unique_ptr<char[]> exact(new char[bytes.size()]);
  std::memcpy(exact.get(), bytes.data(), bytes.size());
  Reader in(std::string_view(exact.get(), bytes.size()));
  return detail::decode<C, T>(in);
}

std::string string_of(const std::vector<std::uint8_t>& bytes) {
  return std::string(bytes.begin(), bytes.end());
}

// The two formats, for cases that are the same for both.
struct Cbor {
  template <class T>
  using Io = CborIo<T>;
  static std::string written(const json& document) { return string_of(json::to_cbor(document)); }
  static json read(const std::string& bytes) { return json::from_cbor(bytes); }
  static constexpr const char* name = "CBOR";
};
struct Msgpack {
  template <class T>
  using Io = MsgpackIo<T>;
  static std::string written(const json& document) { return string_of(json::to_msgpack(document)); }
  static json read(const std::string& bytes) { return json::from_msgpack(bytes); }
  static constexpr const char* name = "MessagePack";
};

template <class Form, class T>
std::string not_written(const T& value) {
  return bad_message([&] { bytes_of<typename Form::template Io<T>>(value); });
}
template <class Form, class T>
std::string not_read(const std::string& bytes) {
  return bad_message([&] { value_of<typename Form::template Io<T>, T>(bytes); });
}

template <class Form, class T>
void comes_back(const T& value) {
  using C = typename Form::template Io<T>;
  const std::string bytes = bytes_of<C>(value);
  BOOST_TEST(bytes == Form::written(json(value)));
  BOOST_TEST((value_of<C, T>(bytes) == value));
}

// ---- deep documents ----

std::string repeated(const std::string& piece, std::size_t count) {
  std::string all;
  while (count-- > 0) all += piece;
  return all;
}

json nested_array(std::size_t depth) {
  json document = json::array();
  while (--depth > 0) document = json::array({document});
  return document;
}
json nested_object(std::size_t depth) {
  json document = json::object();
  while (--depth > 0) document = json{{"k", document}};
  return document;
}

constexpr std::size_t limit = detail::json_depth_limit;
const std::string too_deep = "arrays and objects are nested more than 1000 levels deep";

}  // namespace

namespace shapes {

struct Person {
  std::string name;
  std::optional<int> age;
  std::vector<double> readings;
  bool operator==(const Person& o) const {
    return name == o.name && age == o.age && readings == o.readings;
  }
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Person, name, age, readings)

}  // namespace shapes

using shapes::Person;

// ---- decoded values ----

namespace {

template <class Form, class T>
void limits_come_back() {
  using Limits = std::numeric_limits<T>;
  for (const T value : {Limits::min(), Limits::max(), Limits::lowest(), T(0), T(1), T(23), T(24)})
    comes_back<Form>(value);
}

template <class Form>
void values_come_back() {
  limits_come_back<Form, signed char>();
  limits_come_back<Form, unsigned char>();
  limits_come_back<Form, short>();
  limits_come_back<Form, int>();
  limits_come_back<Form, unsigned>();
  limits_come_back<Form, std::int64_t>();
  limits_come_back<Form, std::uint64_t>();
  limits_come_back<Form, float>();
  limits_come_back<Form, double>();
  comes_back<Form>(true);
  comes_back<Form>(0.1);
  comes_back<Form>(5e-324);
  for (const std::size_t size : {0U, 1U, 23U, 24U, 31U, 32U, 255U, 256U, 65535U, 65536U, 100000U}) {
    comes_back<Form>(std::string(size, 'x'));
    comes_back<Form>(std::vector<bool>(size, true));
  }
  comes_back<Form>(std::string("\0\"\n\xc3\xa4\xf0\x9f\x98\x80", 9));
  comes_back<Form>(std::vector<std::vector<std::string>>{{}, {"a"}, {"b", "c"}});
  comes_back<Form>(std::map<std::string, std::vector<int>>{{"", {}}, {"a", {1, -1}}});
  comes_back<Form>(std::map<int, std::string>{{-1, "minus"}});
  comes_back<Form>(std::tuple<int, std::string, double>(1, "one", 1.5));
  comes_back<Form>(Person{"Ada", 36, {1.5, -2}});
  comes_back<Form>(std::vector<Person>{{"A", {}, {}}, {"B", 1, {3}}});
  comes_back<Form>(std::variant<int, std::string>("x"));
  comes_back<Form>(std::chrono::milliseconds(-5));
  comes_back<Form>(std::filesystem::path("/a/b"));
  comes_back<Form>(json());
  comes_back<Form>(json::parse(R"({"a":[1,2.5,"x",null,true],"b":{}})"));
  comes_back<Form>(json::binary({0, 255, 7}));
}

}  // namespace

BOOST_AUTO_TEST_CASE(cbor_preserves_values) {
  values_come_back<Cbor>();
}

BOOST_AUTO_TEST_CASE(msgpack_preserves_values) {
  values_come_back<Msgpack>();
}

BOOST_AUTO_TEST_CASE(the_encoded_bytes_follow_the_standards) {
  const auto cbor = [](const json& document) { return bytes_of<CborIo<json>>(document); };
  BOOST_TEST(cbor(10) == "\x0a");
  BOOST_TEST(cbor(-500) == "\x39\x01\xf3");
  BOOST_TEST(cbor("IETF") == "\x64IETF");
  BOOST_TEST(cbor({1, {2, 3}}) == "\x82\x01\x82\x02\x03");
  BOOST_TEST(cbor({{"a", true}}) == "\xa1\x61\x61\xf5");
  const auto msgpack = [](const json& document) { return bytes_of<MsgpackIo<json>>(document); };
  BOOST_TEST(msgpack(10) == "\x0a");
  BOOST_TEST(msgpack(-500) == "\xd1\xfe\x0c");
  BOOST_TEST(msgpack("IETF") == "\xa4IETF");
  BOOST_TEST(msgpack({1, {2, 3}}) == "\x92\x01\x92\x02\x03");
  BOOST_TEST(msgpack({{"a", true}}) == "\x81\xa1\x61\xc3");
}

// Unlike JSON, both formats can represent these values.
BOOST_AUTO_TEST_CASE(nan_and_infinities_are_sent_unchanged) {
  const auto there_and_back = [](auto codec, double value) {
    using C = decltype(codec);
    return value_of<C, double>(bytes_of<C>(value));
  };
  const double infinity = std::numeric_limits<double>::infinity();
  for (const double sign : {1.0, -1.0}) {
    BOOST_TEST(there_and_back(CborIo<double>{}, sign * infinity) == sign * infinity);
    BOOST_TEST(there_and_back(MsgpackIo<double>{}, sign * infinity) == sign * infinity);
  }
  BOOST_TEST(std::isnan(there_and_back(CborIo<double>{}, std::nan(""))));
  BOOST_TEST(std::isnan(there_and_back(MsgpackIo<double>{}, std::nan(""))));
  BOOST_TEST(std::signbit(there_and_back(CborIo<double>{}, -0.0)));
  BOOST_TEST(std::signbit(there_and_back(MsgpackIo<double>{}, -0.0)));
  const Person person{"Eve", {}, {infinity}};
  comes_back<Cbor>(person);
  comes_back<Msgpack>(person);
}

// ---- bad input ----

namespace {

template <class Form>
void cut_anywhere() {
  using C = typename Form::template Io<Person>;
  const std::string bytes = bytes_of<C>(Person{"\xc3\xa4", 300, {1.1, 2, 1e300}});
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    const std::string text = not_read<Form, Person>(bytes.substr(0, size));
    BOOST_TEST(has(text, "could not decode"));
    BOOST_TEST(has(text, Form::name));
    BOOST_TEST(has(text, "parse error at byte " + std::to_string(size + 1)), text);
    BOOST_TEST(has(text, "unexpected end of input"));
  }
}

template <class Form>
void leftover_is_reported() {
  const std::string bytes = bytes_of<typename Form::template Io<int>>(5);
  for (const char* behind : {"x", "\x05", "\xff"}) {
    const std::string text = not_read<Form, int>(bytes + behind);
    BOOST_TEST(has(text, "parse error at byte 2"), text);
    BOOST_TEST(has(text, "expected end of input"), text);
  }
  BOOST_TEST(has(not_read<Form, int>(bytes + '\0'), "parse error at byte 2"));
}

// Replaces each byte by each other value: the result is the same value as nlohmann's, or the same error.
template <class Form>
void changed_anywhere() {
  using C = typename Form::template Io<json>;
  const json document = {{"name", "Ada"}, {"list", {1, -300, 1.5, 0.1, nullptr, true, "x"}}};
  const std::string bytes = Form::written(document);
  unsigned long values = 0, errors = 0;
  for (std::size_t at = 0; at < bytes.size(); ++at)
    for (int byte = 0; byte < 256; ++byte) {
      std::string other = bytes;
      other[at] = static_cast<char>(byte);
      std::string theirs;
      try {
        const json read = Form::read(other);
        detail::refuse_bad_text(read);
        theirs = Form::written(read);
        ++values;
      } catch (const Error& error) {
        theirs = error.what();
        ++errors;
      } catch (const json::exception& error) {
        theirs = std::string("bad message: could not decode: ") + error.what();
        ++errors;
      }
      std::string ours;
      try {
        ours = bytes_of<C>(value_of<C, json>(other));
      } catch (const Error& error) {
        ours = error.what();
      }
      if (ours != theirs) BOOST_ERROR("byte " << byte << " at " << at << ": " << ours);
    }
  BOOST_TEST(values > 0U);
  BOOST_TEST(errors > 0U);
}

template <class Form>
void wrong_shapes_are_named() {
  BOOST_TEST(has(not_read<Form, Person>(Form::written({{"name", "Ada"}, {"age", 5}})),
                 "key 'readings' not found"));
  BOOST_TEST(has(not_read<Form, int>(Form::written("5")), "must be number, but is string"));
  BOOST_TEST(has(not_read<Form, std::vector<int>>(Form::written({1, "2"})), "must be number"));
  BOOST_TEST(has(not_read<Form, Person>(Form::written(json::array())), "array"));
}

template <class Form>
void utf_8_is_checked_both_ways() {
  using Words = std::vector<std::map<std::string, std::string>>;
  const Words value{{{"a", "fine"}}, {{"b/c~d", "ab\xff"}}};
  const Words key{{{"a\xc3", "fine"}}};
  const std::string in_value = "invalid UTF-8 byte at index 2: 0xFF of \"/1/b~1c~0d\"";
  const std::string in_key = "invalid UTF-8 byte at index 1: 0xC3 of \"/0\"";
  BOOST_TEST(has((not_written<Form>(value)), in_value));
  BOOST_TEST(has((not_written<Form>(key)), in_key));
  BOOST_TEST(has((not_read<Form, Words>(Form::written(value))), in_value));
  BOOST_TEST(has((not_read<Form, Words>(Form::written(key))), in_key));
  for (const char* bad : {"\xff", "a\x80z", "\xc3", "\xe2\x82", "\xed\xa0\x80", "\xc0\x80"}) {
    const std::string text = bad;
    BOOST_TEST(has(not_written<Form>(text), "of \"\""));
    BOOST_TEST(has((not_read<Form, std::string>(Form::written(text))), "invalid UTF-8"));
  }
}

}  // namespace

BOOST_AUTO_TEST_CASE(input_truncated_at_any_byte_is_refused) {
  cut_anywhere<Cbor>();
  cut_anywhere<Msgpack>();
}

BOOST_AUTO_TEST_CASE(leftover_bytes_are_bad_input) {
  leftover_is_reported<Cbor>();
  leftover_is_reported<Msgpack>();
}

BOOST_AUTO_TEST_CASE(a_changed_byte_does_no_harm) {
  changed_anywhere<Cbor>();
  changed_anywhere<Msgpack>();
}

BOOST_AUTO_TEST_CASE(missing_fields_and_wrong_types_are_named) {
  wrong_shapes_are_named<Cbor>();
  wrong_shapes_are_named<Msgpack>();
}

BOOST_AUTO_TEST_CASE(strings_that_are_not_utf_8_are_refused) {
  utf_8_is_checked_both_ways<Cbor>();
  utf_8_is_checked_both_ways<Msgpack>();
}

BOOST_AUTO_TEST_CASE(input_that_json_cannot_represent_is_refused) {
  BOOST_TEST(has((not_read<Cbor, json>("\xc0\x61x")), "0xC0"));     // a tag
  BOOST_TEST(has((not_read<Cbor, json>("\xa1\x01\x01")), "0x01"));  // a key that is a number
  BOOST_TEST(has((not_read<Cbor, json>("\xf7")), "0xF7"));          // undefined
  BOOST_TEST(has((not_read<Cbor, json>("\x1f")), "0x1F"));          // an undefined length
  BOOST_TEST(has((not_read<Msgpack, json>("\xc1")), "0xC1"));       // never used
  BOOST_TEST(has((not_read<Msgpack, json>("\x81\x01\x01")), "0x01"));
}

// A tag gives the subtype of binary data.  A tag anywhere else is refused.
BOOST_AUTO_TEST_CASE(a_binary_value_keeps_its_subtype) {
  const json document = json::binary({1, 2}, 42);
  comes_back<Msgpack>(document);
  BOOST_TEST(has((not_read<Cbor, json>(bytes_of<CborIo<json>>(document))), "0xD8"));
}

BOOST_AUTO_TEST_CASE(a_false_length_does_not_allocate_memory) {
  for (const char* bytes :
       {"\x7b\x7f\xff\xff\xff\xff\xff\xff\xff", "\x5b\xff\xff\xff\xff\xff\xff\xff\xfe",
        "\x7a\xff\xff\xff\xff", "\x9a\xff\xff\xff\xff", "\xba\xff\xff\xff\xff"})
    BOOST_TEST(has((not_read<Cbor, json>(bytes)), "unexpected end of input"));
  // A length beyond that of any array, and the one length that nlohmann takes for "up to the break".
  not_read<Cbor, json>("\x9b\x7f\xff\xff\xff\xff\xff\xff\xff");
  not_read<Cbor, json>("\x9b\xff\xff\xff\xff\xff\xff\xff\xff");
  not_read<Cbor, json>("\xbb\xff\xff\xff\xff\xff\xff\xff\xff");
  for (const char* bytes :
       {"\xdb\xff\xff\xff\xff", "\xc6\xff\xff\xff\xff", "\xc9\xff\xff\xff\xff\x01",
        "\xdd\xff\xff\xff\xff", "\xdf\xff\xff\xff\xff", "\xdc\xff\xff"})
    BOOST_TEST(has((not_read<Msgpack, json>(bytes)), "unexpected end of input"));
}

// ---- depth: nlohmann reads nested values by nested calls ----

namespace {

template <class Form>
void so_deep_and_no_deeper() {
  using C = typename Form::template Io<json>;
  for (const json& document : {nested_array(limit), nested_object(limit)})
    BOOST_TEST((value_of<C, json>(bytes_of<C>(document)) == document));
  for (const json& document : {nested_array(limit + 1), nested_object(limit + 1)}) {
    BOOST_TEST(has(not_written<Form>(document), too_deep));
    BOOST_TEST(has((not_read<Form, json>(Form::written(document))), too_deep));
  }
  // Many values side by side are no depth.  The deep ones are at the end of others.
  json flat = json::array();
  for (int i = 0; i < 3000; ++i) flat.push_back({{"a", {1, {2}}}});
  BOOST_TEST((value_of<C, json>(bytes_of<C>(flat)) == flat));
  flat = json::array({1, "text", json::array(), json::object(), nested_array(limit - 1), 2});
  BOOST_TEST((value_of<C, json>(bytes_of<C>(flat)) == flat));
  flat.push_back(nested_object(limit));
  BOOST_TEST(has((not_read<Form, json>(Form::written(flat))), too_deep));
}

}  // namespace

BOOST_AUTO_TEST_CASE(values_that_are_too_deep_are_not_written) {
  so_deep_and_no_deeper<Cbor>();
  so_deep_and_no_deeper<Msgpack>();
}

// Valid CBOR that the library never writes: byte strings in pieces, nested too.
BOOST_AUTO_TEST_CASE(cbor_that_others_wrote_too_deep_is_refused) {
  const auto deep = [](const std::string& open, std::size_t count) {
    return has(not_read<Cbor, json>(repeated(open, count)), too_deep);
  };
  using namespace std::string_literals;
  for (const std::string& open :
       {"\x81"s, "\x98\x02"s, "\x9a\x7f\xff\xff\xff"s, "\x9f"s, "\xa1\x61k"s, "\xbf\x61k"s, "\x7f"s,
        "\x5f"s, "\xb8\x01\x61k"s, "\xa2\x61k\x01\x61l"s,
        // Each of these prefixes stands before the next level.
        "\x82\x01"s, "\x82\x18\xff"s, "\x82\x39\0\0"s, "\x82\x1b\0\0\0\0\0\0\0\0"s, "\x82\x61x"s,
        "\x82\x59\0\x01x"s, "\x82\xf6"s, "\x82\xf9\0\0"s, "\x82\xfa\0\0\0\0"s,
        "\x82\xfb\0\0\0\0\0\0\0\0"s, "\x83\x5f\x41x\xff\x80"s, "\x9f\x7f\x61x\xff\xa0"s,
        "\x82\x9b\0\0\0\0\0\0\0\0"s, "\x82\xbf\xff"s}) {
    BOOST_TEST(deep(open, limit + 1), open);
    BOOST_TEST(deep(open, 200000), open);
    BOOST_TEST(!deep(open, limit - 1), open);  // the error is the early end
  }
  const std::string many(limit, '\x9f');
  const std::string stops(limit, '\xff');
  BOOST_TEST((value_of<CborIo<json>, json>(many + stops).dump().size()) == 2 * limit);
  BOOST_TEST(has((not_read<Cbor, json>('\x9f' + many + stops + '\xff')), too_deep));
  const std::string pieces = "\x9f" + repeated("\x7f\x61x\x60\xff\x5f\x41y\xff", 3000) + "\xff";
  BOOST_TEST((value_of<CborIo<json>, json>(pieces).size()) == 6000U);
}

BOOST_AUTO_TEST_CASE(msgpack_that_others_wrote_too_deep_is_refused) {
  const auto deep = [](const std::string& open, std::size_t count) {
    return has(not_read<Msgpack, json>(repeated(open, count)), too_deep);
  };
  using namespace std::string_literals;
  for (const std::string& open :
       {"\x91"s, "\x81\xa1k"s, "\xdc\0\x01"s, "\xdd\0\0\0\x02"s, "\xde\0\x01\xa1k"s,
        "\xdf\0\0\0\x01\xa1k"s,
        // Each of these prefixes stands before the next level.
        "\x92\x7f"s, "\x92\xe0"s, "\x92\xa2xx"s, "\x93\xc0\xc2"s, "\x92\xc3"s, "\x92\xc4\x01x"s,
        "\x92\xc5\0\x01x"s, "\x92\xc6\0\0\0\x01x"s, "\x92\xc7\x01\x05x"s, "\x92\xc8\0\x01\x05x"s,
        "\x92\xc9\0\0\0\x01\x05x"s, "\x92\xca\0\0\0\0"s, "\x92\xcb\0\0\0\0\0\0\0\0"s, "\x92\xcc\0"s,
        "\x92\xcd\0\0"s, "\x92\xce\0\0\0\0"s, "\x92\xcf\0\0\0\0\0\0\0\0"s, "\x92\xd0\0"s,
        "\x92\xd1\0\0"s, "\x92\xd2\0\0\0\0"s, "\x92\xd3\0\0\0\0\0\0\0\0"s, "\x92\xd4\x05x"s,
        "\x92\xd5\x05xx"s, "\x92\xd6\x05xxxx"s, "\x92\xd7\x05xxxxxxxx"s,
        "\x92\xd8\x05xxxxxxxxxxxxxxxx"s, "\x92\xd9\x01x"s, "\x92\xda\0\x01x"s,
        "\x92\xdb\0\0\0\x01x"s, "\x92\x90"s, "\x92\x80"s, "\x92\x91\xc0"s}) {
    BOOST_TEST(deep(open, limit + 1), open);
    BOOST_TEST(deep(open, 200000), open);
    BOOST_TEST(!deep(open, limit - 1), open);
  }
}

// For any bytes the result is that of nlohmann, and the stack never overflows.
BOOST_AUTO_TEST_CASE(any_bytes_are_decoded_or_refused) {
  std::mt19937_64 random_bits(testing::seed(1));
  const auto check = [](auto form, const std::string& bytes) {
    using Form = decltype(form);
    std::string ours = "value", theirs = "value";
    try {
      detail::refuse_bad_text(Form::read(bytes));
    } catch (const std::exception& error) {
      theirs = error.what();
    }
    try {
      value_of<typename Form::template Io<json>, json>(bytes);
    } catch (const Error& error) {
      ours = error.what();
    }
    if (!has(ours, theirs)) BOOST_ERROR(Form::name << ": " << ours << " and not " << theirs);
  };
  for (int i = 0; i < 20000; ++i) {
    std::string bytes(static_cast<std::size_t>(random_bits() % 20), '\0');
    for (char& byte : bytes) byte = static_cast<char>(random_bits());
    check(Cbor{}, bytes);
    check(Msgpack{}, bytes);
  }
  BOOST_TEST(true);
}

// ---- use as a codec ----

BOOST_AUTO_TEST_CASE(codecs_are_named_by_template_or_by_type) {
  using detail::checked_codec_t;
  using detail::TemplateIo;
  static_assert(std::is_same_v<checked_codec_t<TemplateIo<CborIo>, int>, CborIo<int>>);
  static_assert(std::is_same_v<checked_codec_t<MsgpackIo<Person>, Person>, MsgpackIo<Person>>);
  Writer out;
  out.write("head");
  BOOST_CHECK_THROW(CborIo<std::string>::put(out, "\xff"), Error);
  BOOST_CHECK_THROW(MsgpackIo<std::string>::put(out, "\xff"), Error);
  BOOST_TEST(out.bytes() == "head");
}
