// packed.cpp - PackedIo and EVPARALLEL_FIELDS: round trips, large blocks, and every way to be bad input.
#include "errors.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <deque>
#include <filesystem>
#include <limits>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <variant>
#include <vector>

using namespace evparallel;
using testing::bad_message;
using testing::has;

// ---- types ----

namespace shapes {

enum class Colour : std::uint8_t { red, green };
enum class Switch : bool { off, on };

struct Pixel {
  std::uint8_t r, g, b;
  bool operator==(const Pixel& o) const { return r == o.r && g == o.g && b == o.b; }
};
EVPARALLEL_FIELDS(Pixel, r, g, b)

// Its padding does not travel.
struct Padded {
  char letter;
  double number;
  bool operator==(const Padded& o) const { return letter == o.letter && number == o.number; }
};
EVPARALLEL_FIELDS(Padded, letter, number);

struct Nothing {
  bool operator==(const Nothing&) const { return true; }
};
EVPARALLEL_FIELDS(Nothing)

struct Node {
  int value = 0;
  std::vector<Node> children;
  bool operator==(const Node& o) const { return value == o.value && children == o.children; }
};
EVPARALLEL_FIELDS(Node, value, children)

// Private members, and no default constructor.
class Range {
public:
  Range(int first, std::string name) : first_(first), name_(std::move(name)) {}
  bool operator==(const Range& o) const { return first_ == o.first_ && name_ == o.name_; }

private:
  int first_;
  std::string name_;
  EVPARALLEL_FIELDS_IN(Range, first_, name_)
};

template <class T>
class Box {
public:
  Box() = default;
  explicit Box(T content) : content_(std::move(content)) {}
  bool operator==(const Box& o) const { return content_ == o.content_; }

private:
  T content_{};
  EVPARALLEL_FIELDS_IN(Box, content_);
};

// An aggregate without a default constructor, with a member that cannot be assigned.
struct Fixed {
  const int number;
  Range range;
  bool operator==(const Fixed& o) const { return number == o.number && range == o.range; }
};
EVPARALLEL_FIELDS(Fixed, number, range)

struct Swapped {
  const std::string x;
  const std::string y;
};
EVPARALLEL_FIELDS(Swapped, y, x)

struct Base {
  int id = 0;
};
struct Derived : Base {
  std::string text;
  bool operator==(const Derived& o) const { return id == o.id && text == o.text; }
};
EVPARALLEL_FIELDS(Derived, id, text)

struct All {
  bool flag = false;
  int grid[2][2] = {};
  std::string words[2];
  Colour colour = Colour::red;
  Switch state = Switch::off;
  Pixel pixel{};
  std::vector<Pixel> pixels;
  std::vector<Padded> padded;
  Node tree;
  Box<double> box;
  std::map<std::string, std::vector<int>> map;
  std::multimap<int, Range> many;
  std::unordered_map<int, std::string> table;
  std::set<std::string> names;
  std::unordered_set<int> numbers;
  std::list<Range> ranges;
  std::deque<bool> queue;
  std::vector<bool> bits;
  std::vector<Nothing> nothings;
  std::optional<Range> maybe;
  std::variant<std::monostate, int, Range> one_of;
  std::chrono::milliseconds patience{};
  std::chrono::duration<double> seconds{};
  std::chrono::steady_clock::time_point when;
  std::filesystem::path path;
  std::tuple<int, std::string, Nothing> tuple;
  std::pair<Range, bool> pair{Range(0, ""), false};
  std::array<std::string, 2> strings;
  std::array<double, 3> doubles{};
  std::array<Range, 1> fixed{{Range(0, "")}};
  std::u16string wide;
  long double precise = 0;

  bool operator==(const All& o) const {
    return flag == o.flag && std::memcmp(grid, o.grid, sizeof grid) == 0 &&
           words[0] == o.words[0] && words[1] == o.words[1] && colour == o.colour &&
           state == o.state && pixel == o.pixel && pixels == o.pixels && padded == o.padded &&
           tree == o.tree && box == o.box && map == o.map && many == o.many && table == o.table &&
           names == o.names && numbers == o.numbers && ranges == o.ranges && queue == o.queue &&
           bits == o.bits && nothings == o.nothings && maybe == o.maybe &&
           one_of.index() == o.one_of.index() && patience == o.patience && seconds == o.seconds &&
           when == o.when && path == o.path && tuple == o.tuple && pair == o.pair &&
           strings == o.strings && doubles == o.doubles && fixed == o.fixed && wide == o.wide &&
           precise == o.precise;
  }
};
EVPARALLEL_FIELDS(All, flag, grid, words, colour, state, pixel, pixels, padded, tree, box, map,
                  many, table, names, numbers, ranges, queue, bits, nothings, maybe, one_of,
                  patience, seconds, when, path, tuple, pair, strings, doubles, fixed, wide,
                  precise)

struct Many {
  int a0 = 0, a1 = 1, a2 = 2, a3 = 3, a4 = 4, a5 = 5, a6 = 6, a7 = 7, a8 = 8, a9 = 9;
  int b0 = 0, b1 = 1, b2 = 2, b3 = 3, b4 = 4, b5 = 5, b6 = 6, b7 = 7, b8 = 8, b9 = 9;
  int c0 = 0, c1 = 1, c2 = 2, c3 = 3, c4 = 4, c5 = 5, c6 = 6, c7 = 7, c8 = 8, c9 = 9;
  int d0 = 0, d1 = 1, d2 = 2, d3 = 3, d4 = 4, d5 = 5, d6 = 6, d7 = 7, d8 = 8, d9 = 9;
  int e0 = 0, e1 = 1, e2 = 2, e3 = 3, e4 = 4, e5 = 5, e6 = 6, e7 = 7, e8 = 8, e9 = 9;
  int f0 = 0, f1 = 1, f2 = 2, f3 = 3, f4 = 4, f5 = 5, f6 = 6, f7 = 7, f8 = 8, f9 = 9;
  int g0 = 0, g1 = 1, g2 = 2, g3 = 3;
};
EVPARALLEL_FIELDS(Many, a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, b0, b1, b2, b3, b4, b5, b6, b7, b8,
                  b9, c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, d0, d1, d2, d3, d4, d5, d6, d7, d8,
                  d9, e0, e1, e2, e3, e4, e5, e6, e7, e8, e9, f0, f1, f2, f3, f4, f5, f6, f7, f8,
                  f9, g0, g1, g2, g3)

struct Job {
  int width = 0;
  std::string name;
  std::string image;
  bool operator==(const Job& o) const {
    return width == o.width && name == o.name && image == o.image;
  }
};
EVPARALLEL_FIELDS(Job, width, name, image)

struct Scene {
  Job job;
  std::optional<std::vector<double>> depths;
  std::string note;
};
EVPARALLEL_FIELDS(Scene, job, depths, note)

struct Files {
  Fd first;
  std::vector<Fd> others;
  SharedBytes shared;
};
EVPARALLEL_FIELDS(Files, first, others, shared)

// Has a codec of its own, which is the default.
struct Token {
  int number = 0;
};
EVPARALLEL_FIELDS(Token, number)

// Cannot be compared with others by mistake: its base has fields, but it has not.
struct NoFields : Job {};

}  // namespace shapes

using namespace shapes;

template <>
struct evparallel::Io<Token> {
  static void put(Writer& out, const Token&) { out.write("token"); }
  static Token get(Reader& in) {
    in.rest();
    return {7};
  }
};

namespace {

// All bytes of a message, the adopted ones, too.
std::string all_of(const Writer& out) {
  return std::string(out.written()) + std::string(out.adopted());
}

template <class T>
std::string bytes_of(const T& value) {
  Writer out;
  detail::encode<PackedIo<T>>(out, value);
  return all_of(out);
}

// From memory of exactly that size, so that a sanitizer sees a byte too far.
template <class T>
T value_of(const std::string& bytes) {
  const std::unique_ptr<char[]> exact(new char[bytes.size()]);
  std::copy(bytes.begin(), bytes.end(), exact.get());
  Reader in(std::string_view(exact.get(), bytes.size()));
  return detail::decode<PackedIo<T>, T>(in);
}

template <class T>
void comes_back(const T& value) {
  const std::string bytes = bytes_of(value);
  BOOST_TEST((value_of<T>(bytes) == value));
  Writer out;
  detail::encode<PackedIo<T>>(out, T(value));
  BOOST_TEST((value_of<T>(all_of(out)) == value));
  // As a message with memory of its own.
  std::string whole = bytes;
  Reader in(whole, &whole);
  BOOST_TEST((detail::decode<PackedIo<T>, T>(in) == value));
}

template <class T>
std::string not_read(const std::string& bytes) {
  return bad_message([&] { value_of<T>(bytes); });
}

std::string number(std::uint64_t value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof value);
}

All filled() {
  All all;
  all.flag = true;
  all.grid[1][0] = 5;
  all.words[1] = "\xff any \0 bytes";
  all.colour = Colour::green;
  all.state = Switch::on;
  all.pixel = {1, 2, 3};
  all.pixels = {{4, 5, 6}, {7, 8, 9}};
  all.padded = {{'a', 0.5}};
  all.tree = {1, {{2, {}}, {3, {{4, {}}}}}};
  all.box = Box<double>(-0.5);
  all.map = {{"", {}}, {"a", {1, 2}}};
  all.many = {{1, Range(1, "x")}, {1, Range(2, "y")}};
  all.table = {{1, "one"}, {2, "two"}};
  all.names = {"a", "b"};
  all.numbers = {3, 1};
  all.ranges = {Range(1, "r")};
  all.queue = {true, false};
  all.bits = {true, false, true};
  all.nothings.resize(3);
  all.maybe = Range(5, "five");
  all.one_of = Range(6, "six");
  all.patience = std::chrono::milliseconds(-3);
  all.seconds = std::chrono::duration<double>(0.25);
  all.when += std::chrono::seconds(8);
  all.path = "/tmp/\xff";
  all.tuple = {1, "t", {}};
  all.pair = {Range(7, "seven"), true};
  all.strings = {"s0", "s1"};
  all.doubles = {1, 2, std::numeric_limits<double>::infinity()};
  all.wide = u"wide";
  all.precise = 1.5L;
  return all;
}

template <class T>
constexpr bool is_packed = std::is_base_of_v<PackedIo<T>, Io<T>>;

constexpr std::size_t large = std::size_t{8} << 20;

Node chain(std::size_t nodes) {
  Node node;
  while (--nodes > 0) {
    Node outer;
    outer.children.push_back(std::move(node));
    node = std::move(outer);
  }
  return node;
}

}  // namespace

// ---- which codec ----

BOOST_AUTO_TEST_CASE(a_type_with_fields_is_packed_by_default) {
  static_assert(is_packed<Job> && is_packed<Range> && is_packed<Box<int>>);
  static_assert(is_packed<std::vector<Job>> && is_packed<std::map<int, std::optional<Job>>>);
  static_assert(is_packed<std::map<std::string, Job>>);
  static_assert(is_packed<std::tuple<int, Job>> && is_packed<std::pair<Job, int>>);
  static_assert(is_packed<std::variant<int, std::array<Job, 2>>>);
  static_assert(!is_packed<int> && !is_packed<std::vector<std::string>> && !is_packed<Token>);
  static_assert(!detail::has_fields<NoFields>);
  Writer out;
  detail::encode<Io<Token>>(out, Token{3});
  BOOST_TEST(out.bytes() == "token");
  Reader in("anything");
  BOOST_TEST((detail::decode<Io<Token>, Token>(in).number == 7));
}

// ---- round trips ----

BOOST_AUTO_TEST_CASE(values_of_each_type_come_back) {
  comes_back(All());
  comes_back(filled());
  comes_back(std::vector<All>{filled(), All()});
  comes_back(Fixed{3, Range(4, "four")});
  comes_back(std::array<Fixed, 2>{{{1, Range(1, "")}, {2, Range(2, "x")}}});
  comes_back(Derived{});
  comes_back(std::string("\xff\0z", 3));
  comes_back(std::vector<std::vector<std::string>>{{}, {"a", ""}});
  comes_back(std::tuple<>());
  comes_back(5);
  const double nan = value_of<double>(bytes_of(std::nan("")));
  BOOST_TEST(std::isnan(nan));
  Many many;
  many.a0 = -1;
  many.g3 = -64;
  const Many back = value_of<Many>(bytes_of(many));
  BOOST_TEST(back.a0 == -1);
  BOOST_TEST(back.b9 == 9);
  BOOST_TEST(back.g3 == -64);
}

// A vector of structs without padding is one block; with padding only the members travel.
BOOST_AUTO_TEST_CASE(the_bytes_are_the_members_in_their_order) {
  BOOST_TEST(bytes_of(Pixel{1, 2, 3}) == "\1\2\3");
  BOOST_TEST(bytes_of(std::vector<Pixel>{{1, 2, 3}, {4, 5, 6}}) == number(6) + "\1\2\3\4\5\6");
  BOOST_TEST(bytes_of(std::vector<Padded>(2)).size() == 8 + 2 * (1 + 8U));
  BOOST_TEST(bytes_of(Job{7, "n", "image"}) ==
             std::string("\7\0\0\0", 4) + number(1) + "n" + number(5) + "image");
  BOOST_TEST(bytes_of(Nothing()) == "");
}

BOOST_AUTO_TEST_CASE(fields_of_an_aggregate_out_of_order_are_refused) {
  BOOST_TEST(
      has(not_read<Swapped>(bytes_of(Swapped{"x", "y"})), "in the order of their declaration"));
}

// ---- a large block ----

BOOST_AUTO_TEST_CASE(the_longest_block_is_sent_and_received_without_a_copy) {
  Job job{3, "name", std::string(large, 'i')};
  const void* const image = job.image.data();
  Writer out;
  detail::encode<PackedIo<Job>>(out, std::move(job));
  BOOST_TEST((out.adopted().data() == image));
  BOOST_TEST(out.adopted().size() == large);
  BOOST_TEST(out.written().size() == 4 + (8 + 4) + 8U);

  std::string whole = all_of(out);
  const void* const memory = whole.data();
  Reader in(whole, &whole);
  const Job back = detail::decode<PackedIo<Job>, Job>(in);
  BOOST_TEST((back.image.data() == memory));
  BOOST_TEST((back == Job{3, "name", std::string(large, 'i')}));
}

BOOST_AUTO_TEST_CASE(a_value_that_is_not_moved_in_is_received_without_a_copy) {
  const Job job{3, "name", std::string(large, 'i')};
  Writer out;
  detail::encode<PackedIo<Job>>(out, job);
  BOOST_TEST(out.adopted().empty());
  std::string whole = out.bytes();
  const void* const memory = whole.data();
  Reader in(whole, &whole);
  const Job back = detail::decode<PackedIo<Job>, Job>(in);
  BOOST_TEST((back.image.data() == memory));
  BOOST_TEST((back == job));
}

// Wherever it is in a struct, and whatever else is long.
BOOST_AUTO_TEST_CASE(only_the_longest_block_is_at_the_end) {
  for (const std::size_t doubles : {10U, 100000U}) {
    Scene scene{{1, std::string(100000, 'n'), std::string(300000, 'i')},
                std::vector<double>(doubles, 0.5),
                std::string(200000, 't')};
    const void* const image = scene.job.image.data();
    const void* const depths = scene.depths->data();
    Writer out;
    detail::encode<PackedIo<Scene>>(out, std::move(scene));
    BOOST_TEST((out.adopted().data() == (doubles == 10 ? image : depths)));
    for (const bool owned : {false, true}) {
      std::string whole = all_of(out);
      Reader in(whole, owned ? &whole : nullptr);
      const Scene back = detail::decode<PackedIo<Scene>, Scene>(in);
      BOOST_TEST((back.job == Job{1, std::string(100000, 'n'), std::string(300000, 'i')}));
      BOOST_TEST((*back.depths == std::vector<double>(doubles, 0.5)));
      BOOST_TEST((back.note == std::string(200000, 't')));
    }
  }
  Writer out;
  detail::encode<PackedIo<Job>>(out, Job{1, "n", std::string(60000, 'i')});
  BOOST_TEST(out.adopted().empty());
}

// ---- descriptors ----

BOOST_AUTO_TEST_CASE(descriptors_travel_in_fields) {
  if (testing::no_memfd()) return testing::skip("no memfd");
  int ends[2];
  BOOST_REQUIRE(::pipe(ends) == 0);
  Files files;
  files.first = Fd(ends[0]);
  files.others.push_back(Fd(ends[1]));
  files.shared = SharedBytes::copy_of("shared");
  Writer out;
  detail::encode<PackedIo<Files>>(out, std::move(files));
  BOOST_REQUIRE(out.attached()->size() == 3U);
  BOOST_TEST((*out.attached())[0].fd == ends[0]);  // it was moved, and not duplicated

  std::vector<int> received;
  for (const Attachment& attached : *out.attached()) received.push_back(::dup(attached.fd));
  Reader in(out.written(), nullptr, &received);
  const Files back = detail::decode<PackedIo<Files>, Files>(in);
  BOOST_TEST(::write(back.others.at(0).get(), "x", 1) == 1);
  char byte = 0;
  BOOST_TEST(::read(back.first.get(), &byte, 1) == 1);
  BOOST_TEST(byte == 'x');
  BOOST_TEST(back.shared.view() == "shared");
}

// ---- bad input ----

BOOST_AUTO_TEST_CASE(an_exception_leaves_nothing_half_written) {
  using Value = std::tuple<std::string, Node>;
  const Value value("text", chain(detail::packed_depth_limit));
  Writer out;
  out.write("before");
  BOOST_TEST(has(bad_message([&] { detail::encode<PackedIo<Value>>(out, value); }), "nested"));
  BOOST_TEST(out.bytes() == "before");
  BOOST_TEST(has(bad_message([&] { bytes_of(Files{}); }), "is not open"));
}

BOOST_AUTO_TEST_CASE(input_truncated_at_any_byte_is_refused_with_an_offset) {
  const std::string bytes = bytes_of(filled());
  for (std::size_t size = 0; size < bytes.size(); ++size)
    BOOST_TEST(has(not_read<All>(bytes.substr(0, size)), "at offset "));
  const std::string large_job = bytes_of(Job{1, "n", std::string(70000, 'i')});
  for (const std::size_t size :
       {std::size_t{3}, std::size_t{20}, std::size_t{25}, large_job.size() - 1})
    BOOST_TEST(has(not_read<Job>(large_job.substr(0, size)), "at offset "));
  BOOST_TEST(has(not_read<int>(std::string("\1\0\0", 3)), "reads 4 bytes at offset 0"));
}

BOOST_AUTO_TEST_CASE(leftover_bytes_are_bad_input) {
  BOOST_TEST(has(not_read<All>(bytes_of(filled()) + 'x'), "1 bytes are left over"));
  std::string job = bytes_of(Job{1, "n", std::string(70000, 'i')});
  job.insert(4 + 9 + 8, "x");
  BOOST_TEST(has(not_read<Job>(job), "1 bytes are left over"));
  Reader in(job, &job);
  BOOST_TEST(
      has(bad_message([&] { detail::decode<PackedIo<Job>, Job>(in); }), "1 bytes are left over"));
}

// Each byte by some others: a value, or an error; never a byte too far, and no endless loop.
BOOST_AUTO_TEST_CASE(a_changed_byte_does_no_harm) {
  const std::string bytes = bytes_of(filled());
  unsigned long decoded = 0, errors = 0;
  const auto attempt = [&](const std::string& changed) {
    try {
      const All value = value_of<All>(changed);
      static_cast<void>(bytes_of(value));
      ++decoded;
    } catch (const Error& error) {
      BOOST_TEST((error.code() == Errc::bad_message), error.what());
      ++errors;
    }
  };
  for (std::size_t at = 0; at < bytes.size(); ++at)
    for (const int flip : {1, 2, 4, 8, 16, 32, 64, 128, 255}) {
      std::string changed = bytes;
      changed[at] = static_cast<char>(changed[at] ^ flip);
      attempt(changed);
    }
  std::mt19937 random(testing::seed(11));
  for (int i = 0; i < 5000; ++i) {
    std::string changed = bytes;
    for (int n = 0; n < 8; ++n) changed[random() % changed.size()] = static_cast<char>(random());
    changed.resize(changed.size() - random() % 2 * (random() % changed.size()));
    attempt(changed);
  }
  BOOST_TEST(decoded > 0U);
  BOOST_TEST(errors > 0U);
}

// The vectors would not fit into the memory of any machine.
BOOST_AUTO_TEST_CASE(a_false_count_does_not_allocate_memory) {
  for (const std::uint64_t count :
       {std::uint64_t{2}, std::uint64_t{1} << 40, std::uint64_t{1} << 61,
        std::numeric_limits<std::uint64_t>::max() >> 1}) {
    const std::string bytes = number(count) + "x";
    BOOST_TEST(has(not_read<std::string>(bytes), "at offset 8"));
    BOOST_TEST(has(not_read<std::vector<int>>(bytes), "at offset 8"));
    BOOST_TEST(has(not_read<std::vector<Nothing>>(bytes), "at offset 8"));
    BOOST_TEST(has(not_read<std::vector<std::string>>(bytes), "at offset 8"));
    BOOST_TEST(has((not_read<std::map<int, int>>(bytes)), "at offset 8"));
  }
  BOOST_TEST(
      has(not_read<std::vector<std::string>>(number(~std::uint64_t{0}) + "x"), "at offset 8"));
  // Each element takes a byte of the message and much memory: what is there is found to be wrong
  // before there is memory for all.
  not_read<std::vector<std::optional<std::array<double, 1 << 13>>>>(number(1 << 20) +
                                                                    std::string(1 << 20, '\2'));
}

BOOST_AUTO_TEST_CASE(values_that_no_writer_makes_are_refused) {
  BOOST_TEST(has(not_read<bool>("\2"), "a bool is neither 0 nor 1"));
  BOOST_TEST(has(not_read<Switch>("\2"), "a bool is neither 0 nor 1"));
  BOOST_TEST(has(not_read<std::vector<Nothing>>(number(1) + "\1"), "an empty element"));
  BOOST_TEST(has((not_read<std::variant<int, bool>>(std::string("\2\0\1\1\1\1", 6))),
                 "names none of its alternatives"));
  BOOST_TEST(has(not_read<std::set<char>>(number(2) + "aa"), "a key twice"));
  BOOST_TEST(has(not_read<std::vector<int>>(number(5) + "12345"), "whole number of elements"));
  const std::string last = number(std::uint64_t{1} << 63);
  BOOST_TEST(has((not_read<std::pair<std::string, std::string>>(last + last)), "two blocks"));
}

// ---- depth ----

BOOST_AUTO_TEST_CASE(values_that_are_too_deep_are_refused_both_ways) {
  const std::size_t most = detail::packed_depth_limit / 2;  // a node and its vector
  comes_back(chain(most));
  const std::string too_deep = "structs and containers are nested more than 1000 levels deep";
  const Node deeper = chain(most + 1);
  BOOST_TEST(has(bad_message([&] { bytes_of(deeper); }), too_deep));
  std::string bytes;
  for (int i = 0; i < 200000; ++i) bytes += std::string(4, '\0') + number(1);
  BOOST_TEST(has(not_read<Node>(bytes), too_deep));
}
