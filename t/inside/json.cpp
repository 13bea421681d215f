// json.cpp - JSON without a document: written text, decoded values and refused input are those of nlohmann.
#include "testing.hpp"

#include <evparallel/json_io.hpp>

#include <cmath>
#include <cstdint>
#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

using namespace evparallel;
using nlohmann::json;

namespace {

// ---- results of nlohmann and of the library: the text, the value as text, or the error ----

template <class T>
std::string outcome(const char* verb, T what) {
  try {
    return what();
  } catch (const Error& error) {
    return error.what();
  } catch (const std::exception& error) {
    std::string text = std::string("bad message: could not ") + verb + ": " + error.what();
    if (text.find("type_error.316") != text.npos) text += "; PackedIo and RawIo take any bytes";
    return text;
  }
}

template <class T>
std::string their_put(const T& value) {
  return outcome("encode", [&] { return json(value).dump(); });
}

template <class T>
std::string our_put(const T& value) {
  return outcome("encode", [&] {
    Writer out;
    detail::encode<JsonIo<T>>(out, value);
    return out.bytes();
  });
}

// Bytes behind a null byte are the only input that the library refuses and nlohmann accepts.
template <class T>
std::string their_get(const std::string& text) {
  return outcome("decode", [&] {
    const T value = json::parse(text).get<T>();
    detail::check_json_end(text);
    return "value " + json(value).dump();
  });
}

// The text is in memory of exactly that size, so that a sanitizer sees a read beyond the end.
template <class T>
std::string our_get(const std::string& text) {
  return outcome("decode", [&] {
    const std::unique_ptr<char[]> exact(new char[text.size()]);
    std::memcpy(exact.get(), text.data(), text.size());
    Reader in(std::string_view(exact.get(), text.size()));
    return "value " + json(detail::decode<JsonIo<T>, T>(in)).dump();
  });
}

template <class T>
bool goes_the_short_way(const std::string& text) {
  detail::JsonCursor cursor(text);
  T value{};
  return detail::JsonForm<T>::get(cursor, value) && cursor.at_end();
}

// A case makes thousands of comparisons: only failed ones are reported.
class Same {
public:
  ~Same() { BOOST_TEST(failed_ == 0U, failed_ << " of " << count_ << " differ"); }
  void operator()(const std::string& ours, const std::string& theirs, const std::string& of) {
    ++count_;
    if (ours != theirs && ++failed_ <= 10) BOOST_ERROR(of << ": " << ours << " and not " << theirs);
  }

private:
  unsigned long count_ = 0;
  unsigned long failed_ = 0;
};

// A number out of the range of T: nlohmann casts it, and the result of the cast is another number, or undefined.
template <class T>
bool is_out_of_range(const std::string& text) {
  if constexpr (std::is_arithmetic_v<T> && !std::is_same_v<T, double> && !std::is_same_v<T, bool>) {
    const json number = json::parse(text, nullptr, false);
    if (!number.is_number()) return false;
    long double value = number.get<double>();
    if (number.is_number_unsigned())
      value = number.get<std::uint64_t>();
    else if (number.is_number_integer())
      value = number.get<std::int64_t>();
    using Limits = std::numeric_limits<T>;
    return !(value > static_cast<long double>(Limits::lowest()) - 1 &&
             value < static_cast<long double>(Limits::max()) + 1);
  }
  return false;
}

// The same for an element.
template <class T>
bool has_out_of_range(const std::string&, const T*) {
  return false;
}
template <class T>
bool has_out_of_range(const std::string& text, const std::vector<T>*) {
  const json document = json::parse(text, nullptr, false);
  return document.is_array() && std::any_of(document.begin(), document.end(), [](const json& one) {
           return is_out_of_range<T>(one.dump());
         });
}

// An array or an object in place of a value without parts is refused before the rest of the text is looked at.
template <class T>
bool is_refused_at_once(const std::string& text) {
  const std::size_t first = text.find_first_not_of(" \t\n\r");
  return (std::is_arithmetic_v<T> || std::is_same_v<T, std::string>)&&first != text.npos &&
         (text[first] == '[' || text[first] == '{');
}

template <class T>
void same_get(Same& same, const std::string& text) {
  if (is_refused_at_once<T>(text)) {
    const std::string ours = our_get<T>(text);
    const char* const part = text.find('[') < text.find('{') ? "but is array" : "but is object";
    same(ours, ours.find(part) != ours.npos ? ours : part, text);
  } else if (has_out_of_range(text, static_cast<const T*>(nullptr))) {
    same(our_get<T>(text).substr(0, 11), "bad message", text);
  } else if (!is_out_of_range<T>(text))
    same(our_get<T>(text), their_get<T>(text), text);
  else if (std::is_integral_v<T>)
    same(our_get<T>(text), "bad message: a number is out of the range of its type", text);
}

// Written text is that of nlohmann, except for fractions, whose text has the same value; the fast path reads both texts
// as the same value.
template <class T>
void same_both_ways(Same& same, const T& value) {
  const std::string theirs = their_put(value);
  const std::string ours = our_put(value);
  const bool is_refused = theirs.rfind("bad message", 0) == 0;
  const bool has_fraction = theirs.find_first_of(".e") != theirs.npos;
  if (is_refused || !has_fraction) same(ours, theirs, theirs);
  if (is_refused) return;
  same(json::parse(ours, nullptr, false).dump(), theirs, ours);
  for (const std::string& text : {ours, theirs}) {
    same(our_get<T>(text), "value " + theirs, text);
    if (!goes_the_short_way<T>(text)) same("the long way", "the short way", text);
  }
}

// Replaces every byte by every other value, removes it, doubles it; and truncates the text at every byte.
template <class T>
void same_when_mutated(Same& same, const std::string& text) {
  for (std::size_t at = 0; at < text.size(); ++at) {
    std::string other = text;
    for (int byte = 0; byte < 256; ++byte) {
      other[at] = static_cast<char>(byte);
      same_get<T>(same, other);
    }
    same_get<T>(same, text.substr(0, at));
    same_get<T>(same, text.substr(at));
    same_get<T>(same, text.substr(0, at) + text.substr(at + 1));
    same_get<T>(same, text.substr(0, at) + text[at] + text.substr(at));
  }
  for (int byte = 0; byte < 256; ++byte) same_get<T>(same, text + static_cast<char>(byte));
}

// Texts that every type must refuse or convert as nlohmann does.
const std::vector<std::string> strange_texts = {"",
                                                " ",
                                                "1 ",
                                                " 1",
                                                "\n1",
                                                "1\t",
                                                "+1",
                                                "-",
                                                "--1",
                                                "-0",
                                                "-0.0",
                                                "0",
                                                "00",
                                                "01",
                                                "-01",
                                                "0x1",
                                                "1.",
                                                ".5",
                                                "-.5",
                                                "1.e2",
                                                "1e",
                                                "1e+",
                                                "1e2",
                                                "1E2",
                                                "1e-2",
                                                "1E+2",
                                                "3.7",
                                                "-3.7",
                                                "3.70",
                                                "0e0",
                                                "0.0e-0",
                                                "00.5",
                                                "1e5",
                                                "1_000",
                                                "1,2",
                                                "1 2",
                                                "127",
                                                "128",
                                                "-128",
                                                "-129",
                                                "255",
                                                "256",
                                                "32767",
                                                "32768",
                                                "-32768",
                                                "-32769",
                                                "65535",
                                                "65536",
                                                "2147483647",
                                                "2147483648",
                                                "-2147483648",
                                                "-2147483649",
                                                "4294967295",
                                                "4294967296",
                                                "9223372036854775807",
                                                "9223372036854775808",
                                                "-9223372036854775808",
                                                "-9223372036854775809",
                                                "18446744073709551615",
                                                "18446744073709551616",
                                                "1e999",
                                                "-1e999",
                                                "1e-999",
                                                "4.9e-324",
                                                "1e-324",
                                                "2e-324",
                                                "2.4703282292062327e-324",
                                                "2.4703282292062328e-324",
                                                "1.7976931348623157e308",
                                                "1.7976931348623159e308",
                                                "179769313486231570000000000000000000000.0",
                                                "3.5e38",
                                                "-3.5e38",
                                                "0.1e1",
                                                "inf",
                                                "nan",
                                                "NaN",
                                                "Infinity",
                                                "-Infinity",
                                                "true",
                                                "false",
                                                "True",
                                                "tru",
                                                "truex",
                                                "true ",
                                                "falsefalse",
                                                "null",
                                                "nul",
                                                "\"\"",
                                                "\"1\"",
                                                "'1'",
                                                "[]",
                                                "[1]",
                                                "[ ]",
                                                "[1,]",
                                                "[,1]",
                                                "[1 ,2]",
                                                "[1,2",
                                                "[1,2]]",
                                                "[1;2]",
                                                "[null]",
                                                "[true]",
                                                "[false,true]",
                                                "[1.5]",
                                                "[\"a\"]",
                                                "[[]]",
                                                "[[1],[2,3]]",
                                                "[[1],2]",
                                                "{}",
                                                "{\"a\":1}",
                                                "\xef\xbb\xbf"
                                                "1",
                                                "\xef\xbb"
                                                "1",
                                                "1//x",
                                                "/**/1"};

template <class T>
void same_strange_texts(Same& same) {
  for (const std::string& text : strange_texts) same_get<T>(same, text);
}

}  // namespace

// ---- integers and booleans ----

namespace {

template <class T>
void integer_is_the_same() {
  static_assert(JsonIo<T>::is_direct);
  Same same;
  std::mt19937_64 random_bits(testing::seed(1));
  using Limits = std::numeric_limits<T>;
  for (const T value : {Limits::min(), Limits::max(), T(Limits::min() + 1), T(Limits::max() - 1),
                        T(0), T(1), T(-1), T(9), T(10), T(99), T(100)})
    same_both_ways(same, value);
  for (int i = 0; i < 3000; ++i)  // of every length
    same_both_ways(same, static_cast<T>(random_bits() >> random_bits() % 64));
  same_strange_texts<T>(same);
  same_when_mutated<T>(same, json(Limits::min()).dump());
  same_when_mutated<T>(same, json(Limits::max()).dump());
  same_when_mutated<T>(same, "[10]");
}

}  // namespace

BOOST_AUTO_TEST_SUITE(numbers)

BOOST_AUTO_TEST_CASE(integers_of_8_bits_match_nlohmann) {
  integer_is_the_same<char>();
  integer_is_the_same<signed char>();
  integer_is_the_same<unsigned char>();
}

BOOST_AUTO_TEST_CASE(integers_of_16_bits_match_nlohmann) {
  integer_is_the_same<short>();
  integer_is_the_same<unsigned short>();
  integer_is_the_same<char16_t>();
}

BOOST_AUTO_TEST_CASE(integers_of_32_bits_match_nlohmann) {
  integer_is_the_same<int>();
  integer_is_the_same<unsigned>();
  integer_is_the_same<wchar_t>();
  integer_is_the_same<char32_t>();
}

BOOST_AUTO_TEST_CASE(integers_of_64_bits_match_nlohmann) {
  integer_is_the_same<long>();
  integer_is_the_same<unsigned long>();
  integer_is_the_same<long long>();
  integer_is_the_same<unsigned long long>();
}

BOOST_AUTO_TEST_CASE(booleans_match_nlohmann) {
  static_assert(JsonIo<bool>::is_direct);
  Same same;
  same_both_ways(same, true);
  same_both_ways(same, false);
  same_strange_texts<bool>(same);
  same_when_mutated<bool>(same, "true");
  same_when_mutated<bool>(same, "false");
}

// One int is sent per call: a small message fits into the string itself.
BOOST_AUTO_TEST_CASE(writing_an_int_allocates_no_memory) {
  Writer out;
  detail::encode<JsonIo<int>>(out, std::numeric_limits<int>::min());
  BOOST_TEST(out.bytes() == "-2147483648");
  BOOST_TEST(out.bytes().capacity() == std::string().capacity());
}

// ---- floating point ----

namespace {

template <class T, class Bits>
T of_bits(Bits bits) {
  static_assert(sizeof(T) == sizeof(Bits));
  T value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// Neither NaN nor infinite: their text is null.
template <class T>
void same_number(Same& same, T value) {
  if (!std::isfinite(value)) return;
  same_both_ways(same, value);
  same_both_ways(same, -value);
}

template <class T>
void same_with_neighbours(Same& same, T value) {
  same_number(same, value);
  same_number(same, std::nextafter(value, T(0)));
  same_number(same, std::nextafter(value, std::numeric_limits<T>::infinity()));
}

template <class T>
void floats_are_the_same() {
  static_assert(JsonIo<T>::is_direct);
  Same same;
  using Limits = std::numeric_limits<T>;
  for (const T value : {T(0),
                        T(1),
                        T(10),
                        T(0.1),
                        T(1) / 3,
                        T(2) / 3,
                        T(1e15),
                        T(1e16),
                        T(1e17),
                        T(1e20),
                        T(1e21),
                        T(1e22),
                        T(1e23),
                        T(1e-4),
                        T(1e-5),
                        T(1e-6),
                        T(1e-7),
                        T(123456789),
                        T(0.000123456789),
                        T(9007199254740991.0),
                        T(9007199254740992.0),
                        T(9007199254740993.0),
                        T(18446744073709551616.0),
                        T(4503599627370495.5),
                        Limits::max(),
                        Limits::min(),
                        Limits::denorm_min(),
                        Limits::epsilon()})
    same_with_neighbours(same, value);
  for (int e = Limits::min_exponent - Limits::digits; e < Limits::max_exponent; ++e)
    same_with_neighbours(same, std::ldexp(T(1), e));
  for (int e = Limits::min_exponent10 - Limits::digits10; e <= Limits::max_exponent10; ++e)
    same_with_neighbours(same, static_cast<T>(std::pow(10.0, e)));
  same_strange_texts<T>(same);
  same_when_mutated<T>(same, "-0.0");
  same_when_mutated<T>(same, "-12.75");
  same_when_mutated<T>(same, "1.25e-7");
  same_when_mutated<T>(same, "1e+22");
}

}  // namespace

BOOST_AUTO_TEST_CASE(doubles_match_nlohmann) {
  floats_are_the_same<double>();
}

BOOST_AUTO_TEST_CASE(floats_match_nlohmann) {
  floats_are_the_same<float>();
}

BOOST_AUTO_TEST_CASE(floating_point_numbers_of_any_bits_match_nlohmann) {
  Same same;
  std::mt19937_64 random_bits(testing::seed(1));
  for (int i = 0; i < 100000; ++i) {
    same_number(same, of_bits<double>(random_bits()));
    same_number(same, of_bits<float>(static_cast<std::uint32_t>(random_bits())));
  }
}

// The most common numbers: few digits, small exponents.
BOOST_AUTO_TEST_CASE(short_decimals_match_nlohmann) {
  Same same;
  std::mt19937_64 random_bits(testing::seed(1));
  for (int i = 0; i < 100000; ++i) {
    const auto digits = static_cast<double>(random_bits() % 1000000);
    same_number(same, digits / std::pow(10, random_bits() % 7));
  }
}

// No writer emits so many digits, but a reader must find the nearest double, also for half-way cases.
BOOST_AUTO_TEST_CASE(long_decimals_are_read_as_the_nearest_number) {
  Same same;
  std::mt19937_64 random_bits(testing::seed(1));
  for (int i = 0; i < 50000; ++i) {
    std::string text(1, static_cast<char>('1' + random_bits() % 9));
    text += '.';
    for (auto digits = random_bits() % 40 + 1; digits > 0; --digits)
      text += static_cast<char>('0' + random_bits() % 10);
    if (i % 2 == 0) text += 'e' + std::to_string(static_cast<int>(random_bits() % 640) - 330);
    same_get<double>(same, text);
    same_get<float>(same, text);
  }
  for (const char* text :
       {"9007199254740993.0", "9007199254740992.99999999999999999999",
        "9007199254740993.00000000000000000000000001", "2.2250738585072011e-308",
        "2.2250738585072012e-308", "1.00000000000000011102230246251565404236316680908203125",
        "1.00000000000000011102230246251565404236316680908203124",
        "1.00000000000000011102230246251565404236316680908203126"})
    same_get<double>(same, text);
}

BOOST_AUTO_TEST_CASE(nan_and_infinities_are_refused) {
  using Limits = std::numeric_limits<double>;
  const std::string says =
      "bad message: JSON cannot represent NaN or infinity; CborIo and MsgpackIo can";
  for (const double value : {Limits::infinity(), -Limits::infinity(), Limits::quiet_NaN(),
                             -Limits::quiet_NaN(), of_bits<double>(0x7ff0000000000001U)}) {
    BOOST_TEST(our_put(value) == says);
    BOOST_TEST(our_put(static_cast<float>(value)) == says);
    BOOST_TEST(our_put(std::vector<double>{1, value}) == says);
    BOOST_TEST(our_put(std::vector<std::vector<double>>{{1}, {value}}) == says);
  }
}

BOOST_AUTO_TEST_SUITE_END()

// ---- strings ----

BOOST_AUTO_TEST_SUITE(strings)

namespace {

void same_string(Same& same, const std::string& value) {
  same_both_ways(same, value);
  same_get<std::string>(same, '"' + value + '"');  // unescaped
}

}  // namespace

BOOST_AUTO_TEST_CASE(all_bytes_and_pairs_of_bytes_match_nlohmann) {
  static_assert(JsonIo<std::string>::is_direct);
  Same same;
  same_string(same, "");
  for (int first = 0; first < 256; ++first) {
    same_string(same, {static_cast<char>(first)});
    for (int second = 0; second < 256; ++second)
      same_string(same, {static_cast<char>(first), static_cast<char>(second)});
  }
}

BOOST_AUTO_TEST_CASE(all_bytes_at_all_positions_match_nlohmann) {
  Same same;
  for (int byte = 0; byte < 256; ++byte)
    for (const std::size_t size : {1U, 7U, 8U, 9U, 16U, 17U})
      for (std::size_t at = 0; at < size; ++at) {
        std::string value(size, 'x');
        value[at] = static_cast<char>(byte);
        same_string(same, value);
      }
}

// All lengths, overlong forms, surrogates, beyond U+10FFFF, truncated and followed by more bytes.
BOOST_AUTO_TEST_CASE(boundaries_of_utf_8_match_nlohmann) {
  Same same;
  const std::string next = "\x41\x7f\x80\x8f\x90\x9f\xa0\xbf\xc0\xff";
  for (int lead = 0xbf; lead < 256; ++lead)
    for (const char second : next)
      for (const char third : next)
        for (const char fourth : {'\x22', '\x7f', '\x80', '\xbf', '\xc2'}) {
          const std::string value{static_cast<char>(lead), second, third, fourth};
          same_both_ways(same, value);
          same_both_ways(same, "1234567" + value + '5');
        }
  for (const char* value :
       {"\xed\x9f\xbf", "\xed\xa0\x80", "\xed\xbf\xbf", "\xee\x80\x80", "\xed\xa0\xbd\xed\xb8\x80",
        "\xf0\x8f\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xc1\xbf",
        "\xc2\x80", "\xe0\x9f\xbf", "\xe0\xa0\x80", "\xef\xbf\xbf", "\xef\xbb\xbf"}) {
    const std::string whole = value;
    for (std::size_t size = 0; size <= whole.size(); ++size)
      for (const char* behind : {"", "x", "\"", "\xc3\xa4", "\xff"})
        same_string(same, "ab" + whole.substr(0, size) + behind);
  }
}

BOOST_AUTO_TEST_CASE(escapes_match_nlohmann) {
  Same same;
  for (int byte = 0; byte < 256; ++byte) {
    const std::string escaped{'"', '\\', static_cast<char>(byte), '"'};
    same_get<std::string>(same, escaped);
    same_get<std::string>(same, escaped + '"');
  }
  for (const char* code :
       {"0000", "0001", "001f", "001F", "0020", "0022", "005c", "007f", "0080", "00ff",
        "0100", "07ff", "0800", "20ac", "d7ff", "d800", "dbff", "dc00", "dfff", "e000",
        "ffff", "000g", "00-1", "00+1", "00 1", " 001", "0x01", "001",  "00",   ""})
    for (const char* behind : {"", "0", "\\ude00", "\\u001f", "\\u", "\\", "\xc3\xa4"})
      same_get<std::string>(same, std::string("\"a\\u") + code + behind + '"');
  same_get<std::string>(same, "\"\\ud83d\\ude00\"");
  same_get<std::string>(same, "\"\\u001");
  same_get<std::string>(same, "\"\\u00");
  same_get<std::string>(same, "\"\\");
  same_get<std::string>(same, "\"");
}

BOOST_AUTO_TEST_CASE(mutated_strings_match_nlohmann) {
  Same same;
  same_strange_texts<std::string>(same);
  same_when_mutated<std::string>(same, "\"plain text that is longer than eight\"");
  same_when_mutated<std::string>(same, "\"\\n\\u001f\\\\\\\"\"");
  same_when_mutated<std::string>(same, "\"\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80\"");
}

BOOST_AUTO_TEST_CASE(strings_of_any_bytes_match_nlohmann) {
  Same same;
  std::mt19937_64 random_bits(testing::seed(1));
  const std::vector<std::string> pieces = {"a",
                                           "plain text",
                                           "\"",
                                           "\\",
                                           "/",
                                           "\n",
                                           std::string(1, '\0'),
                                           "\x1f",
                                           "\x7f",
                                           "\xc3\xa4",
                                           "\xe2\x82\xac",
                                           "\xf0\x9f\x98\x80",
                                           std::string(100, 'x')};
  for (int i = 0; i < 20000; ++i) {
    std::string value;
    for (auto count = random_bits() % 12; count > 0; --count)
      value += pieces[random_bits() % pieces.size()];
    if (i % 4 == 0 && !value.empty())
      value[random_bits() % value.size()] = static_cast<char>(random_bits());
    same_string(same, value);
  }
  same_string(same, std::string(1 << 20, 'x'));
}

BOOST_AUTO_TEST_CASE(an_error_in_utf_8_names_its_position) {
  BOOST_TEST(our_put(std::string("ab\xff")) ==
             "bad message: could not encode: [json.exception.type_error.316] invalid UTF-8 byte at "
             "index 2: 0xFF; PackedIo and RawIo take any bytes");
}

BOOST_AUTO_TEST_SUITE_END()

// ---- vectors ----

BOOST_AUTO_TEST_SUITE(vectors)

BOOST_AUTO_TEST_CASE(vectors_of_each_type_match_nlohmann) {
  Same same;
  const auto check = [&same](const auto& value) {
    static_assert(JsonIo<std::decay_t<decltype(value)>>::is_direct);
    same_both_ways(same, value);
  };
  check(std::vector<bool>{});
  check(std::vector<bool>{true, false, true});
  check(std::vector<char>{'a', '\0', '\xff'});
  check(std::vector<std::uint8_t>{0, 7, 255});
  check(std::vector<int>{});
  check(std::vector<int>{1});
  check(std::vector<int>{std::numeric_limits<int>::min(), 0, std::numeric_limits<int>::max()});
  check(std::vector<std::uint64_t>{0, std::numeric_limits<std::uint64_t>::max()});
  check(std::vector<double>{0.0, -0.0, 0.1, 1e300});
  check(std::vector<float>{0.1F, -1.5F});
  check(std::vector<std::string>{"", "a", "\"\n", "\xc3\xa4"});
  check(std::vector<std::string>{"fine", "\xff", "\xfe"});
  check(std::vector<std::vector<int>>{});
  check(std::vector<std::vector<int>>{{}, {1}, {2, 3}});
  check(std::vector<std::vector<std::vector<std::string>>>{{{"a"}, {}}, {}, {{"b", "c"}, {"d"}}});
  check(std::vector<std::vector<bool>>{{true}, {}});
}

BOOST_AUTO_TEST_CASE(mutated_vectors_match_nlohmann) {
  Same same;
  same_strange_texts<std::vector<int>>(same);
  same_strange_texts<std::vector<double>>(same);
  same_strange_texts<std::vector<bool>>(same);
  same_strange_texts<std::vector<std::string>>(same);
  same_strange_texts<std::vector<std::vector<int>>>(same);
  same_when_mutated<std::vector<int>>(same, "[1,-2,30]");
  same_when_mutated<std::vector<std::int64_t>>(same, "[]");
  same_when_mutated<std::vector<bool>>(same, "[true,false]");
  same_when_mutated<std::vector<double>>(same, "[1.5,-0.25]");
  same_when_mutated<std::vector<std::string>>(same, "[\"a\",\"\\n\",\"\"]");
  same_when_mutated<std::vector<std::vector<int>>>(same, "[[1],[],[2,3]]");
}

BOOST_AUTO_TEST_CASE(vectors_of_any_length_match_nlohmann) {
  Same same;
  std::mt19937_64 random_bits(testing::seed(1));
  for (std::size_t size = 0; size < 300; ++size) {
    std::vector<std::int64_t> numbers(size);
    for (auto& number : numbers)
      number = static_cast<std::int64_t>(random_bits() >> random_bits() % 64);
    same_both_ways(same, numbers);
  }
  same_both_ways(same, std::vector<std::uint8_t>(100000, 255));
}

// A codec that is built on this one may take another path after a failure.
BOOST_AUTO_TEST_CASE(a_value_that_cannot_be_written_leaves_no_bytes) {
  Writer out;
  out.write("head");
  const std::vector<std::string> words{"fine", "a\xff"};
  BOOST_CHECK_THROW(JsonIo<std::vector<std::string>>::put(out, words), std::exception);
  BOOST_TEST(out.bytes() == "head");
  BOOST_CHECK_THROW(JsonIo<std::vector<double>>::put(out, {1.5, std::nan("")}), Error);
  BOOST_TEST(out.bytes() == "head");
  JsonIo<int>::put(out, 12);
  BOOST_TEST(out.bytes() == "head12");
}

BOOST_AUTO_TEST_SUITE_END()

// ---- invalid texts ----

BOOST_AUTO_TEST_SUITE(texts)

namespace {

struct Named {
  std::string name;
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Named, name)

// Values nested to any depth.
struct Onion {
  std::vector<Onion> inside;
};
void to_json(json& to, const Onion& onion) {
  to = onion.inside;
}
void from_json(const json& from, Onion& onion) {
  from.get_to(onion.inside);
}

std::string nested(std::size_t depth) {
  return std::string(depth, '[') + std::string(depth, ']');
}

}  // namespace

// nlohmann stops reading at a null byte.
BOOST_AUTO_TEST_CASE(bytes_after_a_null_byte_are_left_over) {
  const std::string behind("\0rest", 5);
  const std::string says = "bad message: 5 bytes are left over at offset ";
  BOOST_TEST(our_get<int>("12" + behind) == says + "2");
  BOOST_TEST(our_get<std::string>("\"a\"" + behind) == says + "3");
  BOOST_TEST(our_get<std::vector<int>>("[1]" + behind) == says + "3");
  BOOST_TEST(our_get<Named>("{\"name\":\"\"} " + behind) == says + "12");
  BOOST_TEST(our_get<json>("null" + behind) == says + "4");
}

BOOST_AUTO_TEST_CASE(a_document_has_a_limit_of_depth) {
  const std::size_t limit = detail::json_depth_limit;
  const std::string says = "bad message: arrays and objects are nested more than 1000 levels deep";
  BOOST_TEST(our_get<json>(nested(limit)) == "value " + nested(limit));
  BOOST_TEST(our_get<json>(nested(limit + 1)) == says);
  BOOST_TEST(our_get<json>(nested(1000000)) == says);
  BOOST_TEST(our_get<json>(std::string(1000000, '[')) == says);
  BOOST_TEST(our_get<Onion>(nested(limit)) == "value " + nested(limit));
  BOOST_TEST(our_get<Onion>(nested(limit + 1)) == says);

  std::string objects;
  for (std::size_t i = 0; i < limit; ++i) objects += "{\"a\\\"[\":";
  BOOST_TEST(our_get<json>(objects + "{}" + std::string(limit, '}')) == says);
  BOOST_TEST(our_get<json>(objects + "1" + std::string(limit, '}')).rfind("value ", 0) == 0U);

  // Brackets in strings, and brackets side by side, are not nested.
  const std::string many = '"' + std::string(2 * limit, '[') + '"';
  BOOST_TEST(our_get<json>('[' + many + ']') == "value [" + many + ']');
  std::string flat = "[[]";
  for (std::size_t i = 0; i < 2 * limit; ++i) flat += ",[{}]";
  BOOST_TEST(our_get<json>(flat + ']') == "value " + flat + ']');
}

BOOST_AUTO_TEST_CASE(a_value_too_deep_to_be_read_is_not_written) {
  json document = json::array();
  for (std::size_t i = 1; i < detail::json_depth_limit; ++i) document = json::array({document});
  BOOST_TEST(our_put(document) == nested(detail::json_depth_limit));
  document = json{{"a", document}};
  BOOST_TEST(our_put(document) ==
             "bad message: arrays and objects are nested more than 1000 levels deep");
}

BOOST_AUTO_TEST_SUITE_END()
