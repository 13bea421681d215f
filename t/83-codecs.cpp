// 83-codecs.cpp - codecs in use, from outside: defaults, one's own, bad ones.
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <cmath>
#include <limits>
#include <list>
#include <map>
#include <set>
#include <stdexcept>

namespace par = evparallel;

void testing_main_init() {
  par::init();
  testing::expect_child(par::default_snapshot().pid());
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

// The error that a call of f with x hears; and the next call must work.
template <class Inc, class Out>
std::optional<par::Error> error_of(par::Reactor& loop, par::Remote<Inc, Out>& f, const Out& x) {
  std::optional<par::Error> error;
  f(x, [&](par::Result<Inc> r) {
    if (!r) error = r.error();
  });
  loop.run();
  return error;
}

}  // namespace

BOOST_AUTO_TEST_CASE(what_nlohmann_can_convert_comes_back) {
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

BOOST_AUTO_TEST_CASE(a_specialised_io_is_the_default_of_its_type) {
  BOOST_TEST(comes_back(user::Token{"anything \xff"}));
}

BOOST_AUTO_TEST_CASE(codecs_by_template_argument_inc_first_and_out_second) {
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

BOOST_AUTO_TEST_CASE(nan_and_infinity_are_no_json) {
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

BOOST_AUTO_TEST_CASE(what_does_not_fit_the_type_says_where) {
  par::Reactor loop;
  struct Text {  // writes a string as it is, so that it can be any JSON
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
    std::string heard;
    f(json, [&](par::Result<std::string> r) { heard = r ? *r : r.error().what(); });
    loop.run();
    return heard;
  };
  BOOST_TEST(answer(R"({"x":1,"y":2})") == "1,2");
  BOOST_TEST(answer(R"({"x":1})").find("'y' not found") != std::string::npos);
  BOOST_TEST(answer(R"({"x":1,"y":"2"})").find("must be number") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(bad_input_of_each_kind_fails_its_own_call) {
  // The argument's codec writes what it is told and reads strictly.
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
  BOOST_TEST(std::string(error->what()).find("4 bytes left over at offset 4") != std::string::npos);
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

BOOST_AUTO_TEST_CASE(pipes_take_codecs_too_and_survive_bad_messages) {
  struct Digits {  // reads numbers, and "x" is none
    static void put(par::Writer& out, int x) {
      out.write(x == 7 ? std::string("x") : std::to_string(x));
    }
    static int get(par::Reader& in) { return std::stoi(std::string(in.rest())); }
  };
  par::Reactor loop;
  auto p = par::process<Digits, par::RawIo<int>>(loop, [](par::Pipe<int, int> pipe) {
    pipe.on_message([pipe](int x) mutable { pipe.send(x); });
  });
  std::vector<int> heard;
  std::vector<std::string> errors;
  p.on_message([&](int x) { heard.push_back(x); });
  p.on_error([&](const par::Error& e) { errors.push_back(par::to_string(e.code())); });
  for (const int x : {5, 7, 9}) p.send(x);
  p.close();
  loop.run();
  BOOST_TEST((heard == std::vector<int>{5, 9}));
  BOOST_TEST((errors == std::vector<std::string>{"bad_message"}));
}

BOOST_AUTO_TEST_CASE(a_bad_message_that_nobody_listens_for_ends_run) {
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
