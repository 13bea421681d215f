// io.cpp - values to bytes and back: bounds, tables of round trips, and every kind of bad input.
#include "errors.hpp"
#include "testing.hpp"

#include <evparallel/io.hpp>
#include <evparallel/json_io.hpp>

#include <array>
#include <cerrno>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <deque>
#include <forward_list>
#include <limits>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

using namespace evparallel;
using testing::bad_message;
using testing::has;

namespace {

std::string name(Errc code) {
  return to_string(code);
}

// All bytes of a message, including adopted ones.
std::string bytes_of(Writer& out) {
  std::string bytes = out.bytes();
  bytes.append(out.adopted());
  return bytes;
}

template <class C, class T>
std::string encoded(T&& value) {
  Writer out;
  detail::encode<C>(out, std::forward<T>(value));
  std::string bytes = bytes_of(out);
  BOOST_TEST(out.size() == bytes.size());
  return bytes;
}

// The bytes are in memory of exactly that size, so that a sanitizer sees a read beyond the end.
template <class C, class T>
T decoded(const std::string& bytes) {
  const std::unique_ptr<char[]> exact(new char[bytes.size()]);
  std::memcpy(exact.get(), bytes.data(), bytes.size());
  Reader in(std::string_view(exact.get(), bytes.size()));
  return detail::decode<C, T>(in);
}

// Decodes as the channel passes a large message: from a string that may be moved out.
template <class C, class T>
T decoded_whole(std::string bytes) {
  Reader in(bytes, &bytes);
  return detail::decode<C, T>(in);
}

template <class C, class T>
void round_trip(const T& value) {
  const std::string bytes = encoded<C>(value);
  BOOST_TEST((decoded<C, T>(bytes) == value));
  BOOST_TEST((decoded_whole<C, T>(bytes) == value));
  T copy = value;
  BOOST_TEST((decoded<C, T>(encoded<C>(std::move(copy))) == value));
}

template <class T>
bool same_bits(const T& a, const T& b) {
  return std::memcmp(&a, &b, sizeof a) == 0;
}

}  // namespace

// ---- Writer ----

BOOST_AUTO_TEST_SUITE(writer)

BOOST_AUTO_TEST_CASE(a_writer_appends_in_order) {
  Writer out;
  BOOST_TEST(out.size() == 0U);
  out.write("ab");
  out.write("c\0d", 3);
  out.write(std::string_view());
  BOOST_TEST(out.size() == 5U);
  BOOST_TEST(out.bytes() == std::string("abc\0d", 5));
  BOOST_TEST(out.adopted().empty());
}

// Up to 32 bytes are stored in the writer itself, and move to the other storage when more are
// written.
BOOST_AUTO_TEST_CASE(a_short_writer_that_becomes_long_keeps_its_order) {
  for (std::size_t first = 0; first <= 40; ++first)
    for (std::size_t second = 0; second <= 40; ++second) {
      std::string expected;
      for (std::size_t i = 0; i < first + second; ++i) expected += static_cast<char>('0' + i);
      Writer out;
      out.write(expected.data(), first);
      out.write(expected.data() + first, second);
      BOOST_REQUIRE(out.size() == expected.size());
      BOOST_REQUIRE(out.written() == expected);
      BOOST_REQUIRE(out.bytes() == expected);
      out.write("and more");
      BOOST_REQUIRE(out.written() == expected + "and more");
    }
}

BOOST_AUTO_TEST_CASE(a_short_writer_can_be_copied_moved_and_shared) {
  Writer out;
  out.write("short");
  Writer copy = out;
  Writer moved = std::move(out);
  BOOST_TEST(out.size() == 0U);
  BOOST_TEST(moved.written() == "short");
  out = std::move(moved);
  BOOST_TEST(moved.size() == 0U);
  BOOST_TEST(out.written() == "short");
  moved = out;
  BOOST_TEST(moved.written() == "short");
  moved.write(" no more");
  BOOST_TEST(out.written() == "short");
  BOOST_TEST(copy.share(6) == nullptr);
  const std::shared_ptr<std::string> kept = copy.share(5);
  BOOST_REQUIRE(kept);
  BOOST_TEST(*kept == "short");
  BOOST_TEST(copy.adopted() == "short");
  BOOST_TEST(copy.written().empty());
  BOOST_TEST(copy.size() == 5U);
  out.clear();
  BOOST_TEST(out.size() == 0U);
  BOOST_TEST(out.bytes().empty());
}

BOOST_AUTO_TEST_CASE(a_writer_adopts_without_a_copy) {
  const auto owner = std::make_shared<const std::string>("adopted");
  Writer out;
  out.write("head");
  out.adopt(owner, owner->data(), owner->size());
  BOOST_TEST(out.size() == 11U);
  BOOST_TEST(static_cast<const void*>(out.adopted().data()) ==
             static_cast<const void*>(owner->data()));
  BOOST_TEST(owner.use_count() == 2);
  out.clear();
  BOOST_TEST(out.size() == 0U);
  BOOST_TEST(out.adopted().empty());
  BOOST_TEST(owner.use_count() == 1);
}

BOOST_AUTO_TEST_CASE(adopting_twice_is_misuse) {
  const auto owner = std::make_shared<const std::string>("adopted");
  Writer out;
  out.adopt(owner, owner->data(), 3);
  BOOST_CHECK_THROW(out.adopt(owner, owner->data(), 3), std::logic_error);
  out.clear();
  out.adopt(owner, owner->data(), 3);  // a separate message
  BOOST_TEST(out.size() == 3U);
}

BOOST_AUTO_TEST_CASE(writing_after_an_adopted_value_is_misuse) {
  const auto owner = std::make_shared<const std::string>("adopted");
  Writer out;
  out.adopt(owner, owner->data(), owner->size());
  BOOST_CHECK_THROW(out.write("tail"), std::logic_error);
  BOOST_CHECK_THROW(out.write("tail", 4), std::logic_error);
}

// Bytes with static lifetime need no owner; without that, a missing owner is misuse.
BOOST_AUTO_TEST_CASE(adopting_without_an_owner_is_misuse_or_works) {
  Writer out;
  out.write("head");
  try {
    out.adopt(nullptr, "static", 6);
  } catch (const std::logic_error&) {
    BOOST_TEST(out.size() == 4U);
    return;
  }
  BOOST_TEST(static_cast<bool>(out.adopted_owner()));  // the channel checks this
}

BOOST_AUTO_TEST_SUITE_END()

// ---- Reader ----

BOOST_AUTO_TEST_SUITE(reader)

BOOST_AUTO_TEST_CASE(a_reader_reads_in_order) {
  Reader in("abcdef");
  BOOST_TEST(in.remaining() == 6U);
  BOOST_TEST(in.read(2) == "ab");
  BOOST_TEST(in.read(0) == "");
  char place[3] = {};
  in.read(place, 2);
  BOOST_TEST(std::string(place) == "cd");
  BOOST_TEST(in.remaining() == 2U);
  BOOST_TEST(in.rest() == "ef");
  BOOST_TEST(in.remaining() == 0U);
  BOOST_TEST(in.rest() == "");
  BOOST_TEST(in.take_rest() == "");
  in.expect_end();
}

BOOST_AUTO_TEST_CASE(reading_beyond_the_end_names_the_position) {
  for (std::size_t size = 0; size < 8; ++size) {
    const std::string bytes(size, 'x');
    Reader in(bytes);
    const std::size_t first = size / 2;
    in.read(first);
    const std::string text = bad_message([&] { in.read(8); });
    BOOST_TEST(has(text, "8 bytes"));
    BOOST_TEST(
        has(text, "offset " + std::to_string(first) + " of a message of " + std::to_string(size)));
    BOOST_TEST(in.remaining() == size - first);  // nothing was consumed
  }
}

BOOST_AUTO_TEST_CASE(a_huge_size_is_beyond_the_end) {
  Reader in("abc");
  in.read(1);
  for (const std::size_t size : {SIZE_MAX, SIZE_MAX - 1, SIZE_MAX / 2, std::size_t{3}}) {
    bad_message([&] { in.read(size); });
    char place = 0;
    bad_message([&] { in.read(&place, size); });
  }
  BOOST_TEST(in.read(2) == "bc");
}

BOOST_AUTO_TEST_CASE(an_empty_message_has_nothing_to_read) {
  for (Reader in : {Reader(""), Reader(std::string_view())}) {
    in.expect_end();
    BOOST_TEST(in.read(0) == "");
    char place = 'x';
    in.read(&place, 0);
    BOOST_TEST(place == 'x');
    bad_message([&] { in.read(1); });
  }
}

BOOST_AUTO_TEST_CASE(leftover_bytes_are_bad_input) {
  Reader in("abcde");
  in.read(3);
  const std::string text = bad_message([&] { in.expect_end(); });
  BOOST_TEST(has(text, "2 bytes are left over"));
  BOOST_TEST(has(text, "offset 3"));
}

BOOST_AUTO_TEST_CASE(a_whole_message_may_be_moved_from) {
  std::string whole(100000, 'x');
  const void* const data = whole.data();
  Reader in(whole, &whole);
  const std::string taken = in.take_rest();
  BOOST_TEST(static_cast<const void*>(taken.data()) == data);
  BOOST_TEST(taken.size() == 100000U);
  BOOST_TEST(in.remaining() == 0U);
}

BOOST_AUTO_TEST_CASE(the_rest_of_a_message_is_a_copy) {
  std::string whole = "head" + std::string(100000, 'x');
  Reader in(whole, &whole);
  BOOST_TEST(in.read(4) == "head");
  const std::string taken = in.take_rest();
  BOOST_TEST(taken == std::string(100000, 'x'));
  BOOST_TEST(whole.size() == 100004U);  // still the owner's memory
}

BOOST_AUTO_TEST_CASE(bytes_taken_as_a_view_are_not_moved) {
  std::string whole = "some bytes";
  Reader in(whole, &whole);
  const std::string_view view = in.rest();
  BOOST_TEST(in.take_rest() == "");
  BOOST_TEST((view == "some bytes"));
}

BOOST_AUTO_TEST_SUITE_END()

// ---- RawIo ----

namespace {

enum class Plain { zero, one };
enum class Signed : std::int8_t { low = -128, high = 127 };
enum class Wide : std::uint64_t { all = UINT64_MAX };
enum Old { old_value = 7 };

struct Point {
  std::int32_t x;
  std::int32_t y;
  bool operator==(const Point& other) const { return x == other.x && y == other.y; }
};

struct Mixed {
  char c;
  double d;
  std::array<std::int16_t, 3> a;
  Point p;
  bool operator==(const Mixed& other) const {
    return c == other.c && d == other.d && a == other.a && p == other.p;
  }
};

// Without a default constructor: a codec must not need one.
struct NoDefault {
  explicit NoDefault(int v) : value(v) {}
  int value;
  bool operator==(const NoDefault& other) const { return value == other.value; }
};

struct alignas(64) Aligned {
  int value;
  bool operator==(const Aligned& other) const { return value == other.value; }
};

struct Empty {
  bool operator==(const Empty&) const { return true; }
};

template <class T>
void integer_limits() {
  using Limits = std::numeric_limits<T>;
  for (const T value : {Limits::min(), Limits::max(), T(0), T(1), T(Limits::max() - 1)}) {
    round_trip<RawIo<T>>(value);
    BOOST_TEST(encoded<RawIo<T>>(value).size() == sizeof(T));
  }
}

template <class T>
void floating_bits() {
  using Limits = std::numeric_limits<T>;
  for (const T value : {T(0), -T(0), T(1), Limits::min(), Limits::max(), Limits::lowest(),
                        Limits::denorm_min(), Limits::epsilon(), Limits::infinity(),
                        -Limits::infinity(), Limits::quiet_NaN(), -Limits::quiet_NaN()}) {
    const T back = decoded<RawIo<T>, T>(encoded<RawIo<T>>(value));
    BOOST_TEST(same_bits(back, value));
  }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(raw)

BOOST_AUTO_TEST_CASE(integers_are_preserved) {
  integer_limits<char>();
  integer_limits<signed char>();
  integer_limits<unsigned char>();
  integer_limits<short>();
  integer_limits<unsigned short>();
  integer_limits<int>();
  integer_limits<unsigned>();
  integer_limits<long>();
  integer_limits<unsigned long>();
  integer_limits<long long>();
  integer_limits<unsigned long long>();
  integer_limits<wchar_t>();
  integer_limits<char16_t>();
  integer_limits<char32_t>();
}

BOOST_AUTO_TEST_CASE(floating_point_numbers_are_preserved) {
  floating_bits<float>();
  floating_bits<double>();
  // A signalling NaN with a payload: only the exact bytes are right.
  for (const std::uint64_t bits :
       {0x7ff0000000000001U, 0x7ff8dead00beef00U, 0xfff0000000000001U, 0xffffffffffffffffU}) {
    double value;
    std::memcpy(&value, &bits, sizeof value);
    const std::string bytes = encoded<RawIo<double>>(value);
    BOOST_TEST(bytes == std::string(reinterpret_cast<const char*>(&bits), sizeof bits));
    const double back = decoded<RawIo<double>, double>(bytes);
    BOOST_TEST(same_bits(back, value));
  }
}

BOOST_AUTO_TEST_CASE(bools_are_preserved) {
  round_trip<RawIo<bool>>(true);
  round_trip<RawIo<bool>>(false);
  BOOST_TEST(encoded<RawIo<bool>>(true) == std::string("\1", 1));
  BOOST_TEST(encoded<RawIo<bool>>(false) == std::string("\0", 1));
  for (int byte = 2; byte < 256; ++byte) {
    const std::string text =
        bad_message([&] { decoded<RawIo<bool>, bool>(std::string(1, static_cast<char>(byte))); });
    BOOST_TEST(has(text, "bool"));
  }
}

BOOST_AUTO_TEST_CASE(enums_are_preserved) {
  round_trip<RawIo<Plain>>(Plain::one);
  round_trip<RawIo<Signed>>(Signed::low);
  round_trip<RawIo<Signed>>(Signed::high);
  round_trip<RawIo<Wide>>(Wide::all);
  round_trip<RawIo<Old>>(old_value);
}

BOOST_AUTO_TEST_CASE(structs_are_preserved) {
  round_trip<RawIo<Point>>(Point{INT32_MIN, INT32_MAX});
  round_trip<RawIo<Mixed>>(Mixed{'m', -0.5, {{-1, 0, 1}}, {3, 4}});
  round_trip<RawIo<NoDefault>>(NoDefault(42));
  round_trip<RawIo<Aligned>>(Aligned{17});
  round_trip<RawIo<Empty>>(Empty{});
  round_trip<RawIo<std::array<int, 3>>>(std::array<int, 3>{{1, 2, 3}});
}

BOOST_AUTO_TEST_CASE(raw_strings_are_preserved) {
  for (const std::string& value :
       {std::string(), std::string("x"), std::string("with\0nul\0s", 10), std::string(1, '\0'),
        std::string("\xff\xfe\x80"), std::string(70000, 'y'), std::string(1 << 20, '\0')}) {
    round_trip<RawIo<std::string>>(value);
    BOOST_TEST((encoded<RawIo<std::string>>(value) == value));
  }
}

BOOST_AUTO_TEST_CASE(vectors_are_preserved) {
  round_trip<RawIo<std::vector<int>>>(std::vector<int>{});
  round_trip<RawIo<std::vector<int>>>(std::vector<int>{INT32_MIN, -1, 0, 1, INT32_MAX});
  round_trip<RawIo<std::vector<char>>>(std::vector<char>{'\0', 'a', '\xff'});
  round_trip<RawIo<std::vector<Point>>>(std::vector<Point>{{1, 2}, {3, 4}});
  round_trip<RawIo<std::vector<double>>>(std::vector<double>(300000, 1.5));
  round_trip<RawIo<std::vector<Aligned>>>(std::vector<Aligned>{Aligned{1}, Aligned{2}});
}

BOOST_AUTO_TEST_CASE(a_vector_takes_only_whole_elements) {
  for (std::size_t size = 0; size <= 24; ++size) {
    const std::string bytes(size, 'z');
    if (size % 8 == 0) {
      BOOST_TEST((decoded<RawIo<std::vector<double>>, std::vector<double>>(bytes).size()) ==
                 size / 8);
    } else {
      const std::string text =
          bad_message([&] { decoded<RawIo<std::vector<double>>, std::vector<double>>(bytes); });
      BOOST_TEST(has(text, std::to_string(size) + " bytes"));
      BOOST_TEST(has(text, "of 8"));
    }
  }
}

// The low half of the size is right: a size of 32 bits must not be made of it alone.
BOOST_AUTO_TEST_CASE(a_size_in_a_message_has_all_its_bits) {
  using Two = std::pair<std::string, std::string>;
  const Two value("abcd", "efgh");
  std::string bytes = encoded<RawIo<Two>>(value);
  const std::uint64_t size = value.first.size();
  const std::size_t at = bytes.find(std::string(reinterpret_cast<const char*>(&size), sizeof size));
  BOOST_REQUIRE(at != std::string::npos);
  const std::uint64_t larger = size | std::uint64_t{1} << 32;
  std::memcpy(&bytes[at], &larger, sizeof larger);
  BOOST_TEST(bad_message([&] { decoded<RawIo<Two>, Two>(bytes); }) != "");
}

BOOST_AUTO_TEST_CASE(raw_input_truncated_at_any_byte_is_refused) {
  const std::string bytes = encoded<RawIo<Mixed>>(Mixed{'m', 2.0, {{1, 2, 3}}, {4, 5}});
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    const std::string text =
        bad_message([&] { decoded<RawIo<Mixed>, Mixed>(bytes.substr(0, size)); });
    BOOST_TEST(has(text, "offset 0 of a message of " + std::to_string(size)));
  }
}

BOOST_AUTO_TEST_CASE(trailing_bytes_are_refused) {
  const std::string text =
      bad_message([] { decoded<RawIo<int>, int>(std::string(sizeof(int) + 3, '\0')); });
  BOOST_TEST(has(text, "3 bytes are left over"));
  BOOST_TEST(has(text, "offset 4"));
}

BOOST_AUTO_TEST_CASE(a_large_moved_value_is_adopted) {
  std::string text(detail::adopt_threshold, 't');
  const void* const text_data = text.data();
  Writer out;
  detail::encode<RawIo<std::string>>(out, std::move(text));
  BOOST_TEST(static_cast<const void*>(out.adopted().data()) == text_data);
  BOOST_TEST(out.adopted().size() == detail::adopt_threshold);
  BOOST_TEST(out.bytes().empty());

  std::vector<double> numbers(detail::adopt_threshold / sizeof(double), 0.25);
  const void* const numbers_data = numbers.data();
  out.clear();
  detail::encode<RawIo<std::vector<double>>>(out, std::move(numbers));
  BOOST_TEST(static_cast<const void*>(out.adopted().data()) == numbers_data);
}

BOOST_AUTO_TEST_CASE(kept_or_small_values_are_copied) {
  const std::string kept(2 * detail::adopt_threshold, 'k');
  Writer out;
  detail::encode<RawIo<std::string>>(out, kept);
  BOOST_TEST(out.adopted().empty());
  BOOST_TEST((out.bytes() == kept));

  std::string small(detail::adopt_threshold - 1, 's');
  out.clear();
  detail::encode<RawIo<std::string>>(out, std::move(small));
  BOOST_TEST(out.adopted().empty());
  BOOST_TEST(out.size() == detail::adopt_threshold - 1);
}

BOOST_AUTO_TEST_CASE(a_large_string_is_received_in_place) {
  std::string whole(1 << 20, 'w');
  const void* const data = whole.data();
  Reader in(whole, &whole);
  const auto value = detail::decode<RawIo<std::string>, std::string>(in);
  BOOST_TEST(static_cast<const void*>(value.data()) == data);
}

// Numbers without padding; what is not at the end has its size in front.
BOOST_AUTO_TEST_CASE(parts_of_raw_tuples_follow_one_another) {
  using Strings = std::vector<std::string>;
  round_trip<RawIo<std::pair<char, int>>>(std::pair<char, int>('a', -1));
  BOOST_TEST(
      (encoded<RawIo<std::pair<char, int>>>(std::pair<char, int>('a', -1)) == "a\xff\xff\xff\xff"));
  using Mixture = std::tuple<int, std::string, Strings, std::vector<double>>;
  round_trip<RawIo<Mixture>>(Mixture(1, "\xff", {"a", "", "b"}, {0.5, 1.5}));
  round_trip<RawIo<Mixture>>(Mixture());
  round_trip<RawIo<std::array<std::string, 3>>>(std::array<std::string, 3>{{"a", "", "last"}});
  round_trip<RawIo<Strings>>(Strings{});
  round_trip<RawIo<Strings>>(Strings{"", "one", ""});
  using Pairs = std::vector<std::pair<int, std::string>>;
  round_trip<RawIo<Pairs>>(Pairs{{1, "one"}, {2, ""}});
  using Numbers = std::vector<std::pair<char, int>>;
  round_trip<RawIo<Numbers>>(Numbers{{'a', 1}, {'b', 2}});
  BOOST_TEST((encoded<RawIo<Numbers>>(Numbers(3)).size() == 3 * 5U));
  using Moved = std::tuple<std::string, Strings>;
  const std::string size_3("\3\0\0\0\0\0\0\0", 8);
  BOOST_TEST((encoded<RawIo<Moved>>(Moved("abc", {"xyz"})) == size_3 + "abc" + size_3 + "xyz"));
}

BOOST_AUTO_TEST_CASE(a_raw_tuple_that_ends_with_a_large_string_is_not_copied) {
  using Named = std::tuple<int, std::string, std::string>;
  Named value(1, "name", std::string(detail::adopt_threshold, 'i'));
  const Named expected = value;
  const void* const data = std::get<2>(value).data();
  Writer out;
  detail::encode<RawIo<Named>>(out, std::move(value));
  BOOST_TEST(static_cast<const void*>(out.adopted().data()) == data);
  std::string whole = bytes_of(out);
  const void* const received = whole.data();
  Reader in(whole, &whole);
  const auto back = detail::decode<RawIo<Named>, Named>(in);
  BOOST_TEST(static_cast<const void*>(std::get<2>(back).data()) == received);
  BOOST_TEST((back == expected));
}

BOOST_AUTO_TEST_CASE(raw_tuples_truncated_at_any_byte_are_refused) {
  using Part = std::tuple<std::string, std::vector<int>, std::array<std::string, 2>, int>;
  const std::string bytes = encoded<RawIo<Part>>(Part("text", {1, 2}, {{"a", "b"}}, 5));
  for (std::size_t size = 0; size < bytes.size(); ++size)
    BOOST_TEST(
        has(bad_message([&] { decoded<RawIo<Part>, Part>(bytes.substr(0, size)); }), "offset"));
  using Strings = std::vector<std::string>;
  BOOST_TEST(has(bad_message([] { decoded<RawIo<Strings>, Strings>(std::string(9, '\x7f')); }),
                 "at offset 8"));
  using Inner = std::tuple<std::pair<int, std::string>, int>;
  BOOST_TEST(has(
      bad_message([] { decoded<RawIo<Inner>, Inner>(std::string("\2\0\0\0\0\0\0\0zz1234", 14)); }),
      "reads 4 bytes at offset 0 of a message of 2 bytes"));
}

BOOST_AUTO_TEST_CASE(the_last_bytes_of_a_message_are_taken_first) {
  std::string whole(1 << 20, 'w');
  whole.replace(0, 4, "head");
  const void* const data = whole.data();
  Reader in(whole, &whole);
  BOOST_TEST(in.take(2) == "he");
  BOOST_TEST(in.offset() == 2U);
  std::string kept;
  const std::string last = in.take_last((1 << 20) - 4, kept);
  BOOST_TEST(static_cast<const void*>(last.data()) == data);
  BOOST_TEST((last == std::string((1 << 20) - 4, 'w')));
  BOOST_TEST(in.offset() == 2U);
  BOOST_TEST(in.remaining() == 2U);
  BOOST_TEST(in.read_last(1) == "d");
  BOOST_TEST(has(bad_message([&] { in.read_last(2); }), "at offset 2"));
  BOOST_TEST(has(bad_message([&] { in.take_last(2, kept); }), "at offset 2"));
  BOOST_TEST(in.take_rest() == "a");
  in.expect_end();
}

BOOST_AUTO_TEST_SUITE_END()

// ---- JsonIo ----

namespace shapes {

// Argument-dependent lookup finds the functions for this struct.
struct Celsius {
  double degrees = 0;
  bool operator==(const Celsius& other) const { return degrees == other.degrees; }
};
void to_json(nlohmann::json& json, const Celsius& value) {
  json = nlohmann::json{{"degrees", value.degrees}};
}
void from_json(const nlohmann::json& json, Celsius& value) {
  json.at("degrees").get_to(value.degrees);
}

struct Person {
  std::string name;
  int age = 0;
  std::vector<Celsius> readings;
  bool operator==(const Person& other) const {
    return name == other.name && age == other.age && readings == other.readings;
  }
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Person, name, age, readings)

class Account {
public:
  Account() = default;
  Account(std::string owner, long cents) : owner_(std::move(owner)), cents_(cents) {}
  bool operator==(const Account& other) const {
    return owner_ == other.owner_ && cents_ == other.cents_;
  }
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(Account, owner_, cents_)

private:
  std::string owner_;
  long cents_ = 0;
};

enum class Colour { red, green };
NLOHMANN_JSON_SERIALIZE_ENUM(Colour, {{Colour::red, "red"}, {Colour::green, "green"}})

// It has neither a default constructor nor from_json; the way of nlohmann to read such a type is
// below.
class Sealed {
public:
  explicit Sealed(int v) : value(v) {}
  int value;
  bool operator==(const Sealed& other) const { return value == other.value; }
};

}  // namespace shapes

namespace nlohmann {
template <>
struct adl_serializer<shapes::Sealed> {
  static void to_json(json& to, const shapes::Sealed& value) { to = value.value; }
  static shapes::Sealed from_json(const json& from) { return shapes::Sealed(from.get<int>()); }
};
}  // namespace nlohmann

namespace {

template <class T>
void json_round_trip(const T& value) {
  round_trip<JsonIo<T>>(value);
}

template <class T>
void json_integer_limits() {
  using Limits = std::numeric_limits<T>;
  for (const T value : {Limits::min(), Limits::max(), T(0), T(1)}) json_round_trip(value);
}

template <class T>
std::string json_refused(const std::string& text) {
  return bad_message([&] { decoded<JsonIo<T>, T>(text); });
}

}  // namespace

BOOST_AUTO_TEST_SUITE(json)

BOOST_AUTO_TEST_CASE(numbers_and_words_are_decoded) {
  json_integer_limits<signed char>();
  json_integer_limits<unsigned char>();
  json_integer_limits<short>();
  json_integer_limits<unsigned short>();
  json_integer_limits<int>();
  json_integer_limits<unsigned>();
  json_integer_limits<long>();
  json_integer_limits<unsigned long>();
  json_integer_limits<long long>();
  json_integer_limits<unsigned long long>();
  json_round_trip(true);
  json_round_trip(false);
  using Limits = std::numeric_limits<double>;
  for (const double value : {0.0, -0.0, 0.1, 1.0 / 3, -1e-300, Limits::max(), Limits::lowest(),
                             Limits::min(), Limits::denorm_min(), 1e15, 123456789.123456789}) {
    const double back = decoded<JsonIo<double>, double>(encoded<JsonIo<double>>(value));
    BOOST_TEST(same_bits(back, value));
  }
  for (const float value : {0.1F, std::numeric_limits<float>::max(), -1.5F}) json_round_trip(value);
}

BOOST_AUTO_TEST_CASE(json_strings_are_preserved) {
  for (const std::string& value :
       {std::string(), std::string("plain"), std::string("with\0nul", 8),
        std::string("\"quoted\" \\ / \b\f\n\r\t \x01 \x1f"),
        std::string("\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80"), std::string(200000, 'x')})
    json_round_trip(value);
}

BOOST_AUTO_TEST_CASE(containers_are_preserved) {
  json_round_trip(std::vector<int>{});
  json_round_trip(std::vector<int>{1, -2, 3});
  json_round_trip(std::vector<bool>{true, false, true});
  json_round_trip(std::vector<std::vector<std::string>>{{}, {"a"}, {"b", "c"}});
  json_round_trip(std::vector<int>(100000, 7));
  json_round_trip(std::list<int>{1, 2});
  json_round_trip(std::deque<std::string>{"x", "y"});
  json_round_trip(std::forward_list<int>{4, 5, 6});
  json_round_trip(std::set<int>{3, 1, 2});
  json_round_trip(std::array<int, 3>{{1, 2, 3}});
  json_round_trip(std::pair<int, std::string>{1, "one"});
  json_round_trip(std::tuple<int, std::string, double>{1, "one", 1.5});
  json_round_trip(std::map<std::string, int>{});
  json_round_trip(std::map<std::string, int>{{"", 0}, {"a", 1}});
  json_round_trip(std::map<int, std::string>{{-1, "minus"}, {1, "plus"}});
  json_round_trip(std::unordered_map<std::string, std::vector<int>>{{"a", {1}}, {"b", {}}});
  json_round_trip(
      std::map<std::string, std::map<std::string, std::pair<int, int>>>{{"x", {{"y", {1, 2}}}}});
}

BOOST_AUTO_TEST_CASE(types_of_the_user_are_preserved) {
  json_round_trip(shapes::Celsius{36.6});
  json_round_trip(shapes::Person{"Ada", 36, {{1.5}, {-2}}});
  json_round_trip(shapes::Account("Bob", -5));
  json_round_trip(shapes::Colour::green);
  json_round_trip(shapes::Sealed(9));
  json_round_trip(std::vector<shapes::Person>{{"A", 1, {}}, {"B", 2, {{3}}}});
  json_round_trip(std::map<std::string, shapes::Account>{{"a", {"A", 1}}});
}

BOOST_AUTO_TEST_CASE(json_documents_are_preserved) {
  json_round_trip(nlohmann::json());
  json_round_trip(nlohmann::json::parse(R"({"a":[1,2.5,"x",null,true],"b":{}})"));
}

BOOST_AUTO_TEST_CASE(the_default_codec_is_json) {
  BOOST_TEST(encoded<Io<std::vector<int>>>(std::vector<int>{1, 2}) == "[1,2]");
  static_assert(std::is_same_v<detail::codec_t<DefaultIo, int>, Io<int>>);
  static_assert(std::is_same_v<detail::checked_codec_t<DefaultIo, std::string>, Io<std::string>>);
}

BOOST_AUTO_TEST_CASE(surrounding_white_space_is_accepted) {
  BOOST_TEST((decoded<JsonIo<int>, int>(" \n\t 12 \r\n ")) == 12);
}

BOOST_AUTO_TEST_CASE(strings_that_are_not_utf_8_cannot_be_written) {
  for (const char* bad : {"\xff", "a\x80z", "\xc3", "\xe2\x82", "\xed\xa0\x80", "\xc0\x80"}) {
    const std::string value = bad;
    std::string text = bad_message([&] { encoded<JsonIo<std::string>>(value); });
    BOOST_TEST(has(text, "encode"));
    BOOST_TEST(has(text, "UTF-8"));
    const std::map<std::string, int> keys{{value, 1}};
    bad_message([&] { encoded<JsonIo<std::map<std::string, int>>>(keys); });
    text = bad_message([&] { decoded<JsonIo<std::string>, std::string>('"' + value + '"'); });
    BOOST_TEST(has(text, "column"));
  }
}

BOOST_AUTO_TEST_CASE(numbers_that_json_cannot_represent_are_refused) {
  const double infinity = std::numeric_limits<double>::infinity();
  for (const double value : {infinity, -infinity, std::nan("")}) {
    BOOST_TEST(has(bad_message([&] { encoded<JsonIo<double>>(value); }), "NaN"));
    const float narrow = static_cast<float>(value);
    bad_message([&] { encoded<JsonIo<float>>(narrow); });
    const std::vector<double> list{1.0, value};
    bad_message([&] { encoded<JsonIo<std::vector<double>>>(list); });
    const std::map<std::string, std::vector<double>> deep{{"a", {}}, {"b", {0.0, value}}};
    bad_message([&] { encoded<JsonIo<std::map<std::string, std::vector<double>>>>(deep); });
    const shapes::Person person{"Eve", 1, {{value}}};
    bad_message([&] { encoded<JsonIo<shapes::Person>>(person); });
  }
  for (const char* text : {"NaN", "nan", "Infinity", "-Infinity", "inf", "1e999", "null"})
    json_refused<double>(text);
}

BOOST_AUTO_TEST_CASE(a_missing_field_is_named) {
  const std::string text = json_refused<shapes::Person>(R"({"name":"Ada","readings":[]})");
  BOOST_TEST(has(text, "decode"));
  BOOST_TEST(has(text, "age"));
  BOOST_TEST(has(json_refused<shapes::Account>(R"({"owner_":"Bob"})"), "cents_"));
  BOOST_TEST(has(json_refused<shapes::Celsius>("{}"), "degrees"));
}

BOOST_AUTO_TEST_CASE(a_wrong_type_is_named) {
  BOOST_TEST(has(json_refused<int>("\"12\""), "string"));
  BOOST_TEST(has(json_refused<std::string>("12"), "number"));
  BOOST_TEST(has(json_refused<std::vector<int>>("{\"a\":1}"), "object"));
  BOOST_TEST(has(json_refused<bool>("1"), "number"));
  BOOST_TEST(has(json_refused<int>("null"), "null"));
  json_refused<std::vector<int>>("[1,\"2\",3]");
  json_refused<std::map<std::string, int>>("[1]");
  json_refused<shapes::Person>(R"({"name":1,"age":2,"readings":[]})");
  json_refused<shapes::Person>("[]");
  json_refused<std::tuple<int, int>>("[1]");
  json_refused<std::array<int, 3>>("[1,2]");
}

BOOST_AUTO_TEST_CASE(a_syntax_error_names_its_position) {
  for (const char* text : {"", " ", "x", "12 x", "1 2", "[1,2", "[1,2]]", "{\"a\"}", "{\"a\":}",
                           "[1,]", "\"open", "'single'", "tru", "01", "+1", "// comment\n1"}) {
    const std::string why = json_refused<nlohmann::json>(text);
    BOOST_TEST(has(why, "decode"));
    BOOST_TEST(has(why, "line"));
    BOOST_TEST(has(why, "column"));
  }
  BOOST_TEST(has(json_refused<std::vector<int>>("[1,2,,3]"), "column 6"));
}

BOOST_AUTO_TEST_CASE(json_truncated_at_any_byte_is_refused) {
  const std::string bytes = encoded<JsonIo<shapes::Person>>(shapes::Person{"\xc3\xa4", 3, {{1}}});
  for (std::size_t size = 0; size < bytes.size(); ++size)
    BOOST_TEST(has(json_refused<shapes::Person>(bytes.substr(0, size)), "column"));
  BOOST_TEST((decoded<JsonIo<shapes::Person>, shapes::Person>(bytes).age) == 3);
}

BOOST_AUTO_TEST_CASE(a_flipped_bit_gives_a_value_or_bad_message) {
  const std::string bytes =
      encoded<JsonIo<shapes::Person>>(shapes::Person{"Ada", 36, {{1.5}, {-2}}});
  unsigned refused = 0;
  for (std::size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
    std::string flipped = bytes;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    try {
      decoded<JsonIo<shapes::Person>, shapes::Person>(flipped);
    } catch (const Error& error) {
      BOOST_TEST(name(error.code()) == "bad_message");
      ++refused;
    }
  }
  BOOST_TEST(refused > 0U);
}

// The peer may send any wrong input: it must not be able to exhaust the stack of this process.
BOOST_AUTO_TEST_CASE(deeply_nested_brackets_are_refused) {
  const std::string open(200000, '[');
  const std::string close(200000, ']');
  json_refused<std::vector<int>>(open);
  json_refused<std::vector<int>>(open + close);
}

BOOST_AUTO_TEST_SUITE_END()

// ---- codecs of the user ----

namespace {

struct Coin {
  bool heads = false;
};

// The case chooses the exception.
struct Throwing {
  static inline int what = 0;
  static void act() {
    switch (what) {
      case 1: throw std::runtime_error("no such coin");
      case 2: throw 42;
      case 3: throw Error(Errc::too_large, "odd choice");
      case 4: throw Error(Errc::bad_message, "edge up").with_os_error(5);
      case 5: throw std::bad_alloc();
      default: break;
    }
  }
  static void put(Writer& out, const Coin& coin) {
    out.write("before");
    act();
    out.write(coin.heads ? "h" : "t");
  }
  static Coin get(Reader& in) {
    in.rest();
    act();
    return {};
  }
};

struct OneByte {
  static void put(Writer& out, const Coin& coin) { out.write(coin.heads ? "h" : "t"); }
  static Coin get(Reader& in) { return {in.read(1) == "h"}; }
};

struct WriteOnly {
  static void put(Writer&, const Coin&) {}
};
struct ReadOnly {
  static Coin get(Reader&) { return {}; }
};
struct WrongType {
  static void put(Writer&, const std::string&) {}
  static std::string get(Reader&) { return {}; }
};

template <class T>
struct Shouting : RawIo<T> {};

}  // namespace

namespace evparallel {
template <>
struct Io<Coin> : OneByte {};
}  // namespace evparallel

BOOST_AUTO_TEST_SUITE(user_codecs)

BOOST_AUTO_TEST_CASE(io_can_be_specialised) {
  Coin coin;
  coin.heads = true;
  BOOST_TEST((encoded<detail::codec_t<DefaultIo, Coin>>(coin) == "h"));
  BOOST_TEST((decoded<Io<Coin>, Coin>("h").heads));
  BOOST_TEST((!decoded<Io<Coin>, Coin>("t").heads));
  BOOST_TEST(has(bad_message([] { decoded<Io<Coin>, Coin>("hh"); }), "1 bytes are left over"));
  BOOST_TEST(has(bad_message([] { decoded<Io<Coin>, Coin>(""); }), "offset 0 of a message of 0"));
}

BOOST_AUTO_TEST_CASE(a_codec_template_can_be_named) {
  static_assert(std::is_same_v<detail::codec_t<detail::TemplateIo<Shouting>, int>, Shouting<int>>);
  static_assert(std::is_same_v<detail::codec_t<OneByte, Coin>, OneByte>);
  static_assert(std::is_void_v<detail::checked_codec_t<OneByte, void>>);
  round_trip<detail::codec_t<detail::TemplateIo<Shouting>, int>>(12);
}

BOOST_AUTO_TEST_CASE(types_that_are_not_codecs_are_recognised) {
  static_assert(detail::can_put<OneByte, Coin> && detail::can_get<OneByte, Coin>);
  static_assert(detail::can_put<WriteOnly, Coin> && !detail::can_get<WriteOnly, Coin>);
  static_assert(!detail::can_put<ReadOnly, Coin> && detail::can_get<ReadOnly, Coin>);
  static_assert(!detail::can_put<WrongType, Coin> && !detail::can_get<WrongType, Coin>);
  static_assert(!detail::can_put<Coin, Coin>);
  BOOST_TEST(true);  // the check is that it compiles
}

BOOST_AUTO_TEST_CASE(any_exception_of_a_codec_is_bad_message) {
  struct {
    int what;
    const char* text;
  } const table[] = {{1, "no such coin"},
                     {2, "the codec threw an exception without a text"},
                     {3, "odd choice"},
                     {4, "edge up"}};
  for (const auto& row : table) {
    Throwing::what = row.what;
    const std::string out = bad_message([] { encoded<Throwing>(Coin{}); });
    BOOST_TEST(has(out, row.text));
    const std::string in = bad_message([] { decoded<Throwing, Coin>("x"); });
    BOOST_TEST(has(in, row.text));
    if (row.what == 4) continue;  // this row is valid
    BOOST_TEST(has(out, "could not encode"));
    BOOST_TEST(has(in, "could not decode"));
  }
  Throwing::what = 0;
  BOOST_TEST(encoded<Throwing>(Coin{}) == "beforet");
}

BOOST_AUTO_TEST_CASE(a_codec_without_memory_gives_overloaded) {
  Throwing::what = 5;
  for (const auto act : {+[] { encoded<Throwing>(Coin{}); },
                         +[] { static_cast<void>(decoded<Throwing, Coin>("x")); }}) {
    const auto error = testing::error_of(act);
    BOOST_REQUIRE(error.has_value());
    BOOST_TEST((error->code() == Errc::overloaded));
    BOOST_TEST(error->os_error() == ENOMEM);
  }
  Throwing::what = 0;
}

BOOST_AUTO_TEST_CASE(a_bad_message_keeps_its_details) {
  Throwing::what = 4;
  try {
    decoded<Throwing, Coin>("x");
    BOOST_ERROR("nothing was thrown");
  } catch (const Error& error) {
    BOOST_TEST(std::string(error.what()) == "edge up");
    BOOST_TEST(error.os_error() == 5);
  }
}

BOOST_AUTO_TEST_SUITE_END()
