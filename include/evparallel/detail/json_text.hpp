// json_text.hpp - numbers, booleans, strings and vectors of them as JSON, without a document.
// Licence: see COPYING.  Manual: evparallel_io(3).
//
// The output is that of nlohmann/json, byte for byte.  The input is read only in that form: a
// cursor refuses any other text, and nlohmann decides (parse_json).  So a text always means what it
// means to nlohmann, and a program that sends nothing else does not compile the code of a document.
#pragma once

#include <evparallel/io.hpp>

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace evparallel {

namespace detail {

// ---- writing ----

EVPARALLEL_API void write_json(Writer&, bool);
EVPARALLEL_API void write_json(Writer&, std::int64_t);
EVPARALLEL_API void write_json(Writer&, std::uint64_t);
// Fails: Errc::bad_message for NaN and the infinities.
EVPARALLEL_API void write_json(Writer&, double);
// Fails: as nlohmann, with the position of the byte that is not UTF-8.
EVPARALLEL_API void write_json(Writer&, std::string_view);

// ---- reading ----

// Reads a text from left to right.  A function returns false if the text is not in the form that
// nlohmann writes; then the cursor must not be used any more.
class EVPARALLEL_API JsonCursor {
public:
  explicit JsonCursor(std::string_view text) noexcept
      : at_(text.data()), end_(text.data() + text.size()) {}

  bool at_end() const noexcept { return at_ == end_; }
  bool skip(char c) noexcept {
    if (at_ == end_ || *at_ != c) return false;
    ++at_;
    return true;
  }

  bool read(bool&) noexcept;
  bool read(std::int64_t&) noexcept;
  bool read(std::uint64_t&) noexcept;
  bool read(double&) noexcept;
  bool read(std::string&);

private:
  bool read_escape(std::string&);

  const char* at_;
  const char* end_;
};

[[noreturn]] EVPARALLEL_API void refuse_range();

// A number of nlohmann's document, in the type that it has there.
struct JsonNumber {
  enum class Kind : std::uint8_t { integer, natural, real };
  Kind kind = Kind::integer;
  union {
    std::int64_t integer = 0;
    std::uint64_t natural;
    double real;
  };
  // Fails: Errc::bad_message if T is an integer whose range does not contain the number.
  template <class T>
  T to() const {
    if constexpr (std::is_integral_v<T>)
      if (!fits<T>()) refuse_range();
    if (kind == Kind::real) return static_cast<T>(real);
    return kind == Kind::natural ? static_cast<T>(natural) : static_cast<T>(integer);
  }

private:
  // A fraction is cut off, as nlohmann does.  The bounds are exact as doubles.
  template <class T>
  bool fits() const noexcept {
    using Range = std::numeric_limits<T>;
    constexpr double beyond = (static_cast<double>(Range::max() / 2) + 1) * 2;
    if (kind == Kind::real)
      return real < beyond && (std::is_signed_v<T> ? real >= -beyond : real > -1);
    if (kind == Kind::natural) return natural <= static_cast<std::uint64_t>(Range::max());
    if constexpr (std::is_signed_v<T>)
      return Range::min() <= integer && integer <= Range::max();
    else
      return integer >= 0 && static_cast<std::uint64_t>(integer) <= Range::max();
  }
};

// Any text that nlohmann takes for such a value, without a document: an array or an object is
// refused at its first character.
// Fail: as value_of_json.
EVPARALLEL_API void parse_json(std::string_view text, bool&);
EVPARALLEL_API void parse_json(std::string_view text, std::int64_t&);
EVPARALLEL_API void parse_json(std::string_view text, std::uint64_t&);
EVPARALLEL_API void parse_json(std::string_view text, double&);
EVPARALLEL_API void parse_json(std::string_view text, std::string&);
// A number or a boolean, for all other arithmetic types.
EVPARALLEL_API void parse_json(std::string_view text, JsonNumber&);

// ---- which types ----

template <class T, class = void>
struct JsonForm {
  static constexpr bool direct = false;
};

template <class T>
struct JsonDirect {
  static constexpr bool direct = true;
  static void put(Writer& out, const T& value) { write_json(out, value); }
  static bool get(JsonCursor& in, T& value) { return in.read(value); }
};

template <>
struct JsonForm<bool> : JsonDirect<bool> {};
template <>
struct JsonForm<double> : JsonDirect<double> {};
template <>
struct JsonForm<std::string> : JsonDirect<std::string> {};

template <class T>
struct JsonForm<T, std::enable_if_t<std::is_integral_v<T> && sizeof(T) <= sizeof(std::int64_t)>> {
  static constexpr bool direct = true;
  using Wide = std::conditional_t<std::is_signed_v<T>, std::int64_t, std::uint64_t>;
  static void put(Writer& out, T value) { write_json(out, static_cast<Wide>(value)); }
  static bool get(JsonCursor& in, T& value) {
    Wide wide = 0;
    if (!in.read(wide)) return false;
    value = static_cast<T>(wide);
    return value == wide;
  }
};

// Converted by way of a double, as nlohmann does.
template <>
struct JsonForm<float> {
  static constexpr bool direct = true;
  static void put(Writer& out, float value) { write_json(out, static_cast<double>(value)); }
  static bool get(JsonCursor& in, float& value) {
    constexpr double most = std::numeric_limits<float>::max();
    double wide = 0;
    if (!in.read(wide) || !(-most <= wide && wide <= most)) return false;
    value = static_cast<float>(wide);
    return true;
  }
};

template <class T>
struct JsonForm<std::vector<T>, std::enable_if_t<JsonForm<T>::direct>> {
  static constexpr bool direct = true;
  static void put(Writer& out, const std::vector<T>& value) {
    std::string_view before = "[";
    for (const auto& element : value) {
      out.write(std::exchange(before, ","));
      JsonForm<T>::put(out, element);
    }
    out.write(value.empty() ? "[]" : "]");
  }
  static bool get(JsonCursor& in, std::vector<T>& value) {
    if (!in.skip('[')) return false;
    if (in.skip(']')) return true;
    do {
      T element{};
      if (!JsonForm<T>::get(in, element)) return false;
      value.push_back(std::move(element));
    } while (in.skip(','));
    return in.skip(']');
  }
};

// The overload of parse_json for one of these types.
template <class T>
constexpr bool json_has_overload =
    std::is_same_v<T, bool> || std::is_same_v<T, std::int64_t> ||
    std::is_same_v<T, std::uint64_t> || std::is_same_v<T, double> || std::is_same_v<T, std::string>;

// The index of the first byte that belongs to no UTF-8 sequence; text.size() if there is none.
EVPARALLEL_API std::size_t find_bad_utf8(std::string_view text) noexcept;

}  // namespace detail

}  // namespace evparallel
