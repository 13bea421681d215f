// codecs.cpp - use of codecs with the public interface: default codecs, codecs of the program, faulty codecs.
#include "calling.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <unistd.h>

#include <array>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <limits>
#include <list>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <variant>

namespace par = evparallel;

void testing_main_init() {
  testing::take_default_snapshot();
}

namespace user {

struct Point {
  int x = 0;
  int y = 0;
  bool operator==(const Point& o) const { return x == o.x && y == o.y; }
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Point, x, y)

struct Celsius {
  double degrees = 0;
  bool operator==(const Celsius& o) const { return degrees == o.degrees; }
};
void to_json(nlohmann::json& j, const Celsius& c) {
  j = {{"celsius", c.degrees}};
}
void from_json(const nlohmann::json& j, Celsius& c) {
  j.at("celsius").get_to(c.degrees);
}

// Types that nlohmann/json cannot convert by itself.
struct Job {
  std::optional<int> priority;
  std::variant<std::monostate, std::string, std::vector<int>> input;
  std::chrono::milliseconds patience{0};
  std::chrono::system_clock::time_point made;
  std::filesystem::path output;
  bool operator==(const Job& o) const {
    return priority == o.priority && input == o.input && patience == o.patience && made == o.made &&
           output == o.output;
  }
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Job, priority, input, patience, made, output)

// Without a word of JSON.
struct Mark {
  int x = 0;
  int y = 0;
  bool operator==(const Mark& o) const { return x == o.x && y == o.y; }
};
EVPARALLEL_FIELDS(Mark, x, y)

struct Picture {
  int width = 0;
  std::optional<double> scale;
  std::vector<Mark> marks;
  std::string image;
  bool operator==(const Picture& o) const {
    return width == o.width && scale == o.scale && marks == o.marks && image == o.image;
  }
};
EVPARALLEL_FIELDS(Picture, width, scale, marks, image)

// Has an Io of its own.
struct Token {
  std::string text;
  bool operator==(const Token& o) const { return text == o.text; }
};

}  // namespace user

namespace evparallel {

template <>
struct Io<user::Token> {
  static void put(Writer& out, const user::Token& token) {
    out.write("token ");
    out.write(token.text);
  }
  static user::Token get(Reader& in) {
    if (in.read(6) != "token ") throw std::runtime_error("no token");
    return {std::string(in.rest())};
  }
};

}  // namespace evparallel

namespace {

// Sends a value there and back and compares.
template <class Codec, class T>
bool comes_back(const T& value) {
  par::Reactor loop;
  auto f = par::run<Codec, Codec>(loop, [](T x) { return x; });
  bool same = false;
  f(value, [&](par::Result<T> r) { same = r.value() == value; });
  loop.run();
  return same;
}

template <class T>
bool comes_back(const T& value) {
  return comes_back<par::DefaultIo>(value);
}

// The error of a call of f with x; the next call must succeed.
template <class Inc, class Out>
std::optional<par::Error> error_of(par::Reactor& loop, par::Remote<Inc(Out)>& f, const Out& x) {
  std::optional<par::Error> error;
  f(x, [&](par::Result<Inc> r) {
    if (!r) error = r.error();
  });
  loop.run();
  return error;
}

}  // namespace

BOOST_AUTO_TEST_CASE(types_that_nlohmann_converts_come_back) {
  BOOST_TEST(comes_back(0));
  BOOST_TEST(comes_back(std::numeric_limits<std::int64_t>::min()));
  BOOST_TEST(comes_back(std::numeric_limits<std::uint64_t>::max()));
  for (const double x : {0.0, -0.0, 0.1, 1e308, 5e-324, -1.5}) BOOST_TEST(comes_back(x));
  BOOST_TEST(comes_back(true));
  for (const char* text : {"", "plain", "quote\" backslash\\ \n\t", "\u00e4\u20ac\U0001F600"})
    BOOST_TEST(comes_back(std::string(text)));
  BOOST_TEST(comes_back(std::string("nul\0inside", 10)));
  BOOST_TEST(comes_back(std::vector<int>{}));
  BOOST_TEST(comes_back(std::vector<std::string>{"a", "", "b"}));
  BOOST_TEST(comes_back(std::list<double>{1, 2.5}));
  BOOST_TEST(comes_back(std::map<std::string, std::vector<int>>{{"a", {1}}, {"b", {}}}));
  BOOST_TEST(comes_back(std::set<int>{3, 1, 2}));
  BOOST_TEST(comes_back(std::pair<int, std::string>(1, "x")));
  BOOST_TEST(comes_back(std::make_tuple(1, 2.5, std::string("x"))));
  BOOST_TEST(comes_back(user::Point{1, -2}));
  BOOST_TEST(comes_back(std::vector<user::Point>{{1, 2}, {3, 4}}));
  BOOST_TEST(comes_back(user::Celsius{36.6}));
  BOOST_TEST(comes_back(nlohmann::json({{"any", {1, "two", nullptr}}})));
}

BOOST_AUTO_TEST_CASE(raw_bytes_come_back) {
  BOOST_TEST((comes_back<par::RawIo<int>>(-5)));
  BOOST_TEST((comes_back<par::RawIo<double>>(0.1)));
  BOOST_TEST((comes_back<par::RawIo<bool>>(true)));
  BOOST_TEST((comes_back<par::RawIo<user::Point>>(user::Point{7, 8})));
  BOOST_TEST((comes_back<par::RawIo<std::string>>(std::string("nul\0 and \xff", 10))));
  BOOST_TEST((comes_back<par::RawIo<std::string>>(std::string())));
  BOOST_TEST((comes_back<par::RawIo<std::vector<double>>>(std::vector<double>(100000, 0.5))));
}

BOOST_AUTO_TEST_CASE(raw_tuples_come_back) {
  using Row = std::tuple<int, std::string, std::vector<std::string>>;
  BOOST_TEST((comes_back<par::RawIo<Row>>(Row(1, "\xff", {"a", ""}))));
}

BOOST_AUTO_TEST_CASE(types_with_fields_come_back) {
  const user::Picture small{3, 0.5, {{1, 2}, {3, 4}}, "\xff any bytes"};
  BOOST_TEST(comes_back(small));
  BOOST_TEST(comes_back(user::Picture{4, {}, {}, std::string(8 << 20, '\xfe')}));
  BOOST_TEST(comes_back(std::map<std::string, std::vector<user::Picture>>{{"all", {small, {}}}}));

  par::Reactor loop;
  auto widen = par::run(loop, [](user::Picture picture) {
    ++picture.width;
    return picture;
  });
  user::Picture large{7, {}, {}, std::string(8 << 20, 'i')};
  int width = 0;
  std::size_t size = 0;
  widen(std::move(large), [&](par::Result<user::Picture> r) {
    width = r.value().width;
    size = r.value().image.size();
  });
  loop.run();
  BOOST_TEST(width == 8);
  BOOST_TEST(size == std::size_t{8} << 20);
}

BOOST_AUTO_TEST_CASE(types_that_nlohmann_does_not_convert_come_back) {
  BOOST_TEST(comes_back(std::optional<int>()));
  BOOST_TEST(comes_back(std::optional<int>(5)));
  BOOST_TEST(comes_back(std::variant<int, std::string>("x")));
  BOOST_TEST(comes_back(std::chrono::steady_clock::now()));
  BOOST_TEST(comes_back(std::filesystem::path("/a/b")));
  user::Job job;
  BOOST_TEST(comes_back(job));
  job.priority = 3;
  job.input = std::vector<int>{1, 2};
  job.patience = std::chrono::minutes(1);
  job.output = "/tmp/out";
  BOOST_TEST(comes_back(std::map<std::string, std::vector<user::Job>>{{"jobs", {job, {}}}}));
}

BOOST_AUTO_TEST_CASE(cbor_and_msgpack_values_come_back_by_template_and_by_type) {
  const std::vector<double> numbers{1, 0.1, -std::numeric_limits<double>::infinity()};
  BOOST_TEST((comes_back<par::CborIo<std::vector<double>>>(numbers)));
  BOOST_TEST((comes_back<par::MsgpackIo<std::vector<double>>>(numbers)));
  BOOST_TEST((comes_back<par::CborIo<user::Job>>(user::Job{})));
  BOOST_TEST((comes_back<par::MsgpackIo<user::Job>>(user::Job{})));
  BOOST_TEST((comes_back<par::CborIo<int>>(5)));

  par::Reactor loop;
  const auto text = [](int x) { return std::to_string(x); };
  auto a = par::run<par::CborIo>(loop, text);
  auto b = par::run<par::CborIo, par::CborIo>(loop, text);
  auto c = par::run<par::MsgpackIo, par::CborIo<int>>(loop, text);
  auto d = par::run<par::DefaultIo, par::MsgpackIo>(loop, text);
  int right = 0;
  const auto check = [&](par::Result<std::string> r) { right += r.value() == "12"; };
  a(12, check);
  b(12, check);
  c(12, check);
  d(12, check);
  loop.run();
  BOOST_TEST(right == 4);

  auto p =
      par::process<par::CborIo, par::MsgpackIo>(loop, [](par::Pipe<user::Point, user::Point> pipe) {
        pipe.on_message([pipe](user::Point x) mutable { pipe.send({x.y, x.x}); });
      });
  std::vector<user::Point> received;
  p.on_message([&](user::Point x) { received.push_back(x); });
  p.send({1, 2});
  p.close();
  loop.run();
  BOOST_TEST((received == std::vector<user::Point>{{2, 1}}));
}

BOOST_AUTO_TEST_CASE(bad_cbor_and_msgpack_fail_their_own_call) {
  struct Bytes {  // writes them unchanged; the child reads a document
    static void put(par::Writer& out, const std::string& bytes) { out.write(bytes); }
  };
  struct Cbor : Bytes {
    static std::string get(par::Reader& in) { return par::CborIo<std::string>::get(in); }
  };
  struct Msgpack : Bytes {
    static std::string get(par::Reader& in) { return par::MsgpackIo<std::string>::get(in); }
  };
  par::Reactor loop;
  const auto same = [](const std::string& s) { return s; };
  auto cbor = par::run<par::RawIo, Cbor>(loop, same);
  auto msgpack = par::run<par::RawIo, Msgpack>(loop, same);
  const auto says = [&](auto& f, const std::string& bytes, const char* text) {
    const auto error = error_of(loop, f, bytes);
    BOOST_REQUIRE(error.has_value());
    BOOST_TEST((error->code() == par::Errc::bad_message));
    BOOST_TEST(std::string(error->what()).find(text) != std::string::npos, error->what());
  };
  says(cbor, "\x62x", "parse error at byte 3");
  says(msgpack, "\xa2x", "parse error at byte 3");
  says(cbor, "\x61xx", "expected end of input");
  says(msgpack, "\xa1xx", "expected end of input");
  says(cbor, "\x62x\xff", "invalid UTF-8 byte at index 1: 0xFF");
  says(msgpack, "\xa2x\xff", "invalid UTF-8 byte at index 1: 0xFF");
  says(cbor, std::string(500000, '\x7f'), "nested more than");  // it would overflow its stack
  says(msgpack, std::string(500000, '\x91'), "nested more than");
  BOOST_TEST(!error_of(loop, cbor, std::string("\x61x")).has_value());
  BOOST_TEST(!error_of(loop, msgpack, std::string("\xa1x")).has_value());
}

BOOST_AUTO_TEST_CASE(a_specialised_io_is_the_default_of_its_type) {
  BOOST_TEST(comes_back(user::Token{"anything \xff"}));
}

BOOST_AUTO_TEST_CASE(template_arguments_name_the_codecs_of_inc_and_out) {
  par::Reactor loop;
  const auto text = [](int x) { return std::to_string(x); };
  auto a = par::run<par::RawIo>(loop, text);
  auto b = par::run<par::RawIo, par::RawIo>(loop, text);
  auto c = par::run<par::RawIo<std::string>, par::JsonIo<int>>(loop, text);
  auto d = par::run<par::DefaultIo, par::RawIo<int>>(loop, text);
  auto e = par::run<par::DefaultIo, par::RawIo>(loop, text);
  auto g = par::run<par::RawIo, par::JsonIo<int>>(loop, text);
  int right = 0;
  const auto check = [&](par::Result<std::string> r) { right += r.value() == "12"; };
  a(12, check);
  b(12, check);
  c(12, check);
  d(12, check);
  e(12, check);
  g(12, check);
  loop.run();
  BOOST_TEST(right == 6);
}

BOOST_AUTO_TEST_CASE(nan_and_infinity_are_refused_by_json) {
  par::Reactor loop;
  auto f = par::run(loop, [](double x) { return std::vector<double>{1, x, std::sqrt(x)}; });
  for (const double x : {std::nan(""), std::numeric_limits<double>::infinity()}) {
    const auto error = error_of(loop, f, x);
    BOOST_REQUIRE(error.has_value());
    BOOST_TEST((error->code() == par::Errc::bad_message));
    BOOST_TEST((error->delivery() == par::Delivery::not_sent));
  }
  const auto there = error_of(loop, f, -1.0);  // sqrt gives NaN in the child
  BOOST_REQUIRE(there.has_value());
  BOOST_TEST((there->code() == par::Errc::bad_message));
  BOOST_TEST(!error_of(loop, f, 4.0).has_value());
}

BOOST_AUTO_TEST_CASE(input_that_does_not_fit_the_type_names_its_position) {
  par::Reactor loop;
  struct Text {  // writes a string unchanged, so that it can be any JSON
    static void put(par::Writer& out, const std::string& s) { out.write(s); }
    static std::string get(par::Reader& in) { return std::string(in.rest()); }
  };
  struct Parsed {  // and reads it as a Point
    static void put(par::Writer& out, const user::Point& p) {
      par::JsonIo<user::Point>::put(out, p);
    }
    static user::Point get(par::Reader& in) { return par::JsonIo<user::Point>::get(in); }
  };
  struct Both {
    static void put(par::Writer& out, const std::string& s) { Text::put(out, s); }
    static std::string get(par::Reader& in) {
      const user::Point p = Parsed::get(in);
      return std::to_string(p.x) + "," + std::to_string(p.y);
    }
  };
  auto f = par::run<par::DefaultIo, Both>(loop, [](const std::string& s) { return s; });
  const auto answer = [&](const std::string& json) {
    std::string received;
    f(json, [&](par::Result<std::string> r) { received = r ? *r : r.error().what(); });
    loop.run();
    return received;
  };
  BOOST_TEST(answer(R"({"x":1,"y":2})") == "1,2");
  BOOST_TEST(answer(R"({"x":1})").find("'y' not found") != std::string::npos);
  BOOST_TEST(answer(R"({"x":1,"y":"2"})").find("must be number") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(bad_input_of_each_kind_fails_its_own_call) {
  // The codec of the argument writes any bytes and reads strictly.
  struct Strict {
    static void put(par::Writer& out, const std::vector<int>& bytes) {
      for (const int byte : bytes) out.write(std::string(1, static_cast<char>(byte)));
    }
    static std::vector<int> get(par::Reader& in) {
      return nlohmann::json::parse(in.rest()).get<std::vector<int>>();
    }
  };
  struct Row {
    std::string text;
    const char* says;
  };
  const Row rows[] = {{"[1,2", "column 5"},    {"[1,2]x", "column 6"},
                      {"{}", "must be array"}, {"[\"a\"]", "must be number"},
                      {"", "column 1"},        {"[\xff]", "column 2"},
                      {"[1] [2]", "column 5"}};
  par::Reactor loop;
  auto f =
      par::run<par::DefaultIo, Strict>(loop, [](const std::vector<int>& v) { return v.size(); });
  const auto bytes = [](const std::string& s) { return std::vector<int>(s.begin(), s.end()); };
  for (const Row& row : rows) {
    const auto error = error_of(loop, f, bytes(row.text));
    BOOST_REQUIRE_MESSAGE(error.has_value(), row.text);
    BOOST_TEST((error->code() == par::Errc::bad_message));
    BOOST_TEST(std::string(error->what()).find(row.says) != std::string::npos,
               row.text << " -> " << error->what());
    BOOST_TEST(!error_of(loop, f, bytes("[1,2,3]")).has_value());
  }
}

BOOST_AUTO_TEST_CASE(leftover_bytes_are_bad_input) {
  struct Short {
    static void put(par::Writer& out, int x) {
      par::RawIo<int>::put(out, x);
      if (x > 0) out.write("rest");
    }
    static int get(par::Reader& in) { return par::RawIo<int>::get(in); }
  };
  par::Reactor loop;
  auto f = par::run<par::DefaultIo, Short>(loop, [](int x) { return x; });
  const auto error = error_of(loop, f, 1);
  BOOST_REQUIRE(error.has_value());
  BOOST_TEST(std::string(error->what()).find("4 bytes are left over at offset 4") !=
             std::string::npos);
  BOOST_TEST(!error_of(loop, f, 0).has_value());
}

BOOST_AUTO_TEST_CASE(codecs_that_throw_fail_one_message_in_either_direction) {
  struct Moody {
    static void put(par::Writer& out, int x) {
      if (x == 1) throw std::runtime_error("put: no ones");
      if (x == 2) throw 2;
      par::RawIo<int>::put(out, x);
    }
    static int get(par::Reader& in) {
      const int x = par::RawIo<int>::get(in);
      if (x == 3) throw std::runtime_error("get: no threes");
      if (x == 4) throw "four";
      return x;
    }
  };
  par::Reactor loop;
  auto there = par::run<par::RawIo<int>, Moody>(loop, [](int x) { return x; });
  auto back = par::run<Moody, par::RawIo<int>>(loop, [](int x) { return x; });
  for (auto* f : {&there, &back})
    for (int x = 0; x <= 5; ++x) {
      const auto error = error_of(loop, *f, x);
      BOOST_TEST(error.has_value() == (x >= 1 && x <= 4), x);
      if (error) BOOST_TEST((error->code() == par::Errc::bad_message), error->what());
      if (x == 1) BOOST_TEST(std::string(error->what()).find("put: no ones") != std::string::npos);
      if (x == 3)
        BOOST_TEST(std::string(error->what()).find("get: no threes") != std::string::npos);
    }
}

BOOST_AUTO_TEST_CASE(pipes_take_codecs_and_survive_bad_messages) {
  struct Digits {  // reads numbers, and "x" is not a number
    static void put(par::Writer& out, int x) {
      out.write(x == 7 ? std::string("x") : std::to_string(x));
    }
    static int get(par::Reader& in) { return std::stoi(std::string(in.rest())); }
  };
  par::Reactor loop;
  auto p = par::process<Digits, par::RawIo<int>>(loop, [](par::Pipe<int, int> pipe) {
    pipe.on_message([pipe](int x) mutable { pipe.send(x); });
  });
  std::vector<int> received;
  std::vector<std::string> errors;
  p.on_message([&](int x) { received.push_back(x); });
  p.on_error([&](const par::Error& e) { errors.push_back(par::to_string(e.code())); });
  for (const int x : {5, 7, 9}) p.send(x);
  p.close();
  loop.run();
  BOOST_TEST((received == std::vector<int>{5, 9}));
  BOOST_TEST((errors == std::vector<std::string>{"bad_message"}));
}

BOOST_AUTO_TEST_CASE(a_bad_message_without_a_callback_ends_run) {
  struct Never {
    static void put(par::Writer& out, int x) { par::RawIo<int>::put(out, x); }
    static int get(par::Reader&) { throw std::runtime_error("never"); }
  };
  par::Reactor loop;
  auto p = par::process<Never, par::RawIo<int>>(loop, [](par::Pipe<int, int> pipe) {
    pipe.send(1);
    pipe.close();
  });
  bool exited = false;
  p.on_message([](int) {});
  p.on_exit([&](const par::ExitStatus&) { exited = true; });
  p.close();
  BOOST_CHECK_EXCEPTION(loop.run(), par::Error,
                        [](const par::Error& e) { return e.code() == par::Errc::bad_message; });
  loop.run();
  BOOST_TEST(exited);
}

// ---- one direction only ----

namespace {

// A codec of one type with one function, as far as the direction needs it.  The output shows its work.
struct Doubling {
  static void put(par::Writer& out, int x) { out.write(std::to_string(2 * x)); }
  static int get(par::Reader& in) { return std::stoi(in.take_rest()); }
};
struct Shouting {
  static void put(par::Writer& out, const std::string& s) { out.write(s + '!'); }
  static std::string get(par::Reader& in) { return in.take_rest(); }
};

// The answer to x as text.
std::string answer_of(par::Reactor& loop, par::Remote<std::string(int)> f, int x) {
  std::string received;
  f(x, [&](par::Result<std::string> r) { received = r ? *r : r.error().what(); });
  loop.run();
  return received;
}

// The message of a process in reply to x.
std::string word_of(par::Reactor& loop, par::Process<std::string, int> p, int x) {
  std::string received;
  p.on_message([&](const std::string& s) { received += s; });
  p.send(x);
  p.close();
  loop.run();
  return received;
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_call_may_have_a_codec_for_one_direction) {
  par::Reactor loop;
  const auto text = [](int x) { return std::to_string(x); };
  BOOST_TEST(answer_of(loop, par::run(loop, text), 21) == "21");
  BOOST_TEST(answer_of(loop, par::run<Shouting>(loop, text), 21) == "21!");
  BOOST_TEST((answer_of(loop, par::run<par::DefaultIo, Doubling>(loop, text), 21)) == "42");
  BOOST_TEST((answer_of(loop, par::run<Shouting, Doubling>(loop, text), 21)) == "42!");
  // The default is still JSON, and refuses invalid JSON; the direction with the codec does not.
  const auto bytes = [](int) { return std::string("\xff"); };
  BOOST_TEST(answer_of(loop, par::run<Shouting>(loop, bytes), 1) == "\xff!");
  BOOST_TEST((answer_of(loop, par::run<par::DefaultIo, Doubling>(loop, bytes), 1).find("UTF-8")) !=
             std::string::npos);
}

BOOST_AUTO_TEST_CASE(a_call_with_a_reply_may_have_a_codec_for_one_direction) {
  par::Reactor loop;
  const auto text = [](int x, par::Reply<std::string> reply) { reply(std::to_string(x)); };
  BOOST_TEST(answer_of(loop, par::run<Shouting>(loop, text), 21) == "21!");
  BOOST_TEST((answer_of(loop, par::run<par::DefaultIo, Doubling>(loop, text), 21)) == "42");
}

BOOST_AUTO_TEST_CASE(a_process_may_have_a_codec_for_one_direction) {
  par::Reactor loop;
  const auto text = [](par::Pipe<int, std::string> pipe) {
    pipe.on_message([pipe](int x) mutable { pipe.send(std::to_string(x)); });
  };
  BOOST_TEST(word_of(loop, par::process(loop, text), 21) == "21");
  BOOST_TEST(word_of(loop, par::process<Shouting>(loop, text), 21) == "21!");
  BOOST_TEST((word_of(loop, par::process<par::DefaultIo, Doubling>(loop, text), 21)) == "42");
  BOOST_TEST((word_of(loop, par::process<Shouting, Doubling>(loop, text), 21)) == "42!");
  BOOST_TEST((word_of(loop, par::process<par::CborIo, Doubling>(loop, text), 21)) == "42");
}

// ---- codecs that throw at any byte ----

namespace {

constexpr int last_byte = 12;  // the length of a message

// A message of twelve bytes, written and read byte by byte, possibly not to the end.  The value decides which byte is
// the last one written, and the message decides which one is the last one read.
struct Bomb {
  int id = 0;
  int put_at = -1;
  int get_at = -1;
};

struct BombIo {
  static void put(par::Writer& out, const Bomb& bomb) {
    const char bytes[last_byte] = {static_cast<char>(bomb.id), static_cast<char>(bomb.put_at),
                                   static_cast<char>(bomb.get_at)};
    for (int i = 0; i <= last_byte; ++i) {
      if (i == bomb.put_at) throw std::runtime_error("put " + std::to_string(i));
      if (i < last_byte) out.write(bytes + i, 1);
    }
    // The length tells the reader when to fail, since a codec may fail before its first byte.
    out.write(std::string(static_cast<std::size_t>(bomb.get_at + 1), '.'));
  }
  static Bomb get(par::Reader& in) {
    const int get_at = static_cast<int>(in.remaining()) - last_byte - 1;
    char bytes[last_byte] = {};
    for (int i = 0; i <= last_byte; ++i) {
      if (i == get_at) throw std::runtime_error("get " + std::to_string(i));
      if (i < last_byte) in.read(bytes + i, 1);
    }
    return {bytes[0], bytes[1], bytes[2]};
  }
};

// Every way to fail, each followed by a valid message.
std::vector<Bomb> bombs() {
  std::vector<Bomb> all;
  for (int at = 0; at <= last_byte; ++at) {
    all.push_back({static_cast<int>(all.size()), at, -1});
    all.push_back({static_cast<int>(all.size()), -1, -1});
    all.push_back({static_cast<int>(all.size()), -1, at});
    all.push_back({static_cast<int>(all.size()), -1, -1});
  }
  return all;
}

// "put 3" or "get 0", or nothing.
std::string failure_of(const Bomb& bomb) {
  if (bomb.put_at >= 0) return "put " + std::to_string(bomb.put_at);
  return bomb.get_at >= 0 ? "get " + std::to_string(bomb.get_at) : "";
}

bool is_bad_message(const par::Error& error, const Bomb& bomb) {
  const std::string failure = failure_of(bomb);
  const std::string text = error.what();
  return error.code() == par::Errc::bad_message && !failure.empty() &&
         text.size() >= failure.size() &&
         text.compare(text.size() - failure.size(), failure.size(), failure) == 0;
}

// Makes all the calls at once; each gets its own failure, or the result in `expected`.  `same_child` is called with
// every right answer: none was lost on the way.
template <class Inc, class Out, class MakeOut, class Check>
void every_call_gets_its_own_answer(par::Reactor& loop, par::Remote<Inc(Out)> f, MakeOut make,
                                    Check check) {
  unsigned received = 0;
  for (const Bomb& bomb : bombs())
    f(make(bomb), [&received, &check, bomb](par::Result<Inc> r) {
      ++received;
      if (failure_of(bomb).empty())
        BOOST_TEST(check(r.value(), bomb), "call " << bomb.id);
      else
        BOOST_TEST(is_bad_message(r.error(), bomb), failure_of(bomb) << ": " << r.error().what());
    });
  loop.run();
  BOOST_TEST(received == bombs().size());
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_codec_of_an_argument_may_throw_at_any_byte) {
  par::Reactor loop;
  // Counts the calls that were decoded completely.
  auto f = par::run<par::RawIo, BombIo>(loop, [](const Bomb& bomb) {
    static int calls = 0;
    return std::array<int, 3>{{bomb.id, ++calls, ::getpid()}};
  });
  int calls = 0, pid = 0;
  every_call_gets_its_own_answer(
      loop, std::move(f), [](const Bomb& bomb) { return bomb; },
      [&](const std::array<int, 3>& answer, const Bomb& bomb) {
        if (pid == 0) pid = answer[2];
        return answer[0] == bomb.id && answer[1] == ++calls && answer[2] == pid;
      });
  BOOST_TEST(calls == 2 * (last_byte + 1));
}

BOOST_AUTO_TEST_CASE(a_codec_of_an_answer_may_throw_at_any_byte) {
  par::Reactor loop;
  auto f = par::run<BombIo, par::RawIo>(loop, [](const Bomb& bomb) { return bomb; });
  every_call_gets_its_own_answer(
      loop, std::move(f), [](const Bomb& bomb) { return bomb; },
      [](const Bomb& answer, const Bomb& bomb) { return answer.id == bomb.id; });
}

BOOST_AUTO_TEST_CASE(a_codec_of_a_later_answer_may_throw_at_any_byte) {
  par::Reactor loop;
  auto f = par::run<BombIo, par::RawIo>(
      loop, [](const Bomb& bomb, par::Reply<Bomb> reply) { reply(bomb); });
  every_call_gets_its_own_answer(
      loop, std::move(f), [](const Bomb& bomb) { return bomb; },
      [](const Bomb& answer, const Bomb& bomb) { return answer.id == bomb.id; });
}

// The child reports its events in order: ids, and the texts of errors.
BOOST_AUTO_TEST_CASE(a_codec_of_a_message_to_a_process_may_throw_at_any_byte) {
  par::Reactor loop;
  auto p = par::process<par::DefaultIo, BombIo>(loop, [](par::Pipe<Bomb, std::string> pipe) {
    pipe.on_message([pipe](const Bomb& bomb) { pipe.send(std::to_string(bomb.id)); });
    pipe.on_error([pipe](const par::Error& error) { pipe.send(error.what()); });
  });
  std::vector<std::string> received, expected;
  p.on_message([&](const std::string& s) { received.push_back(s); });
  for (const Bomb& bomb : bombs()) {
    if (bomb.put_at >= 0) {
      BOOST_CHECK_EXCEPTION(p.send(bomb), par::Error,
                            [&](const par::Error& e) { return is_bad_message(e, bomb); });
      continue;
    }
    p.send(bomb);
    expected.push_back(bomb.get_at < 0 ? std::to_string(bomb.id)
                                       : "bad message: could not decode: " + failure_of(bomb));
  }
  p.close();
  loop.run();
  BOOST_TEST(received == expected, boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(a_codec_of_a_message_from_a_process_may_throw_at_any_byte) {
  par::Reactor loop;
  auto p = par::process<BombIo>(loop, [](par::Pipe<int, Bomb> pipe) {
    int failed = 0;
    for (const Bomb& bomb : bombs()) {
      try {
        pipe.send(bomb);
      } catch (const par::Error& error) {
        failed += is_bad_message(error, bomb);
      }
    }
    pipe.send({failed, -1, -1});
    pipe.close();
  });
  std::vector<std::string> received, expected;
  p.on_message([&](const Bomb& bomb) { received.push_back(std::to_string(bomb.id)); });
  p.on_error([&](const par::Error& error) { received.push_back(error.what()); });
  p.close();
  loop.run();
  for (const Bomb& bomb : bombs())
    if (bomb.put_at < 0)
      expected.push_back(bomb.get_at < 0 ? std::to_string(bomb.id)
                                         : "bad message: could not decode: " + failure_of(bomb));
  expected.push_back(std::to_string(last_byte + 1));  // messages that are not written
  BOOST_TEST(received == expected, boost::test_tools::per_element());
}

// A bound argument is written when the function is made.
BOOST_AUTO_TEST_CASE(a_bound_argument_whose_codec_throws_is_reported_at_once) {
  par::Reactor loop;
  const auto size = [](const std::string& text, int) { return text.size(); };
  BOOST_CHECK_EXCEPTION(static_cast<void>(par::run(loop, par::bind(size, "\xff"))), par::Error,
                        [](const par::Error& e) { return e.code() == par::Errc::bad_message; });
  auto f = par::run(loop, par::bind(size, "fine"));
  BOOST_TEST(!error_of(loop, f, 1).has_value());
}
