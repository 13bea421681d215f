// json_text.cpp - JSON text: plain characters, escapes and numbers.
// Runs in: parent, child.  Licence: see COPYING.
#include <evparallel/detail/json_document.hpp>

#include <array>
#include <charconv>
#include <cstring>

namespace evparallel::detail {

namespace {

bool is_digit(char c) noexcept {
  return '0' <= c && c <= '9';
}

// ---- runs of text ----

using Octets = std::uint64_t;
constexpr Octets ones = 0x0101010101010101;
constexpr Octets highs = 0x8080808080808080;

// Whether one of eight bytes is a control character, a quote, a backslash or not ASCII.
bool has_special(Octets eight) noexcept {
  const auto has_zero = [](Octets x) { return (x - ones) & ~x & highs; };
  const Octets control = (eight - ones * 0x20) & ~eight & highs;
  return ((eight & highs) | control | has_zero(eight ^ ones * '"') |
          has_zero(eight ^ ones * '\\')) != 0;
}

bool is_plain(char c) noexcept {
  const auto octet = static_cast<unsigned char>(c);
  return 0x20 <= octet && octet < 0x80 && c != '"' && c != '\\';
}

// Skips the ASCII characters that need no escape in a string.
const char* skip_plain(const char* at, const char* end) noexcept {
  for (Octets eight; end - at >= 8; at += 8) {
    std::memcpy(&eight, at, sizeof eight);
    if (has_special(eight)) break;
  }
  while (at != end && is_plain(*at)) ++at;
  return at;
}

struct Range {
  unsigned char low, high;
};

// The range of the byte after a first byte of UTF-8: nothing overlong, no surrogate, nothing beyond
// U+10FFFF.
Range second_byte(unsigned char first) noexcept {
  switch (first) {
    case 0xe0: return {0xa0, 0xbf};
    case 0xed: return {0x80, 0x9f};
    case 0xf0: return {0x90, 0xbf};
    case 0xf4: return {0x80, 0x8f};
    default: return {0x80, 0xbf};
  }
}

// The length of the sequence of two to four bytes at `at`; 0 if there is none.
std::ptrdiff_t utf8_length(const char* at, const char* end) noexcept {
  const auto byte = [at](std::ptrdiff_t i) { return static_cast<unsigned char>(at[i]); };
  const unsigned char first = byte(0);
  if (first < 0xc2 || first > 0xf4) return 0;
  const std::ptrdiff_t length = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  const Range second = second_byte(first);
  if (end - at < length || byte(1) < second.low || byte(1) > second.high) return 0;
  for (std::ptrdiff_t i = 2; i < length; ++i)
    if ((byte(i) & 0xc0) != 0x80) return 0;
  return length;
}

// Skips all characters that need no escape, UTF-8 too.
const char* skip_text(const char* at, const char* end) noexcept {
  for (;;) {
    at = skip_plain(at, end);
    if (at == end || static_cast<unsigned char>(*at) < 0x80) return at;
    const std::ptrdiff_t length = utf8_length(at, end);
    if (length == 0) return at;
    at += length;
  }
}

// ---- escapes ----

struct Escape {
  char letter, meaning;
};
constexpr Escape escapes[] = {{'"', '"'},  {'\\', '\\'}, {'/', '/'},  {'b', '\b'},
                              {'f', '\f'}, {'n', '\n'},  {'r', '\r'}, {'t', '\t'}};

// Like nlohmann, does not escape a slash.
void write_escaped(Writer& out, char c) {
  for (const Escape& escape : escapes)
    if (escape.meaning == c) {
      const char two[] = {'\\', escape.letter};
      return out.write(two, sizeof two);
    }
  constexpr char digits[] = "0123456789abcdef";
  const char six[] = {'\\', 'u', '0', '0', digits[c >> 4 & 0xf], digits[c & 0xf]};
  out.write(six, sizeof six);
}

// Throws the error of a document.
[[noreturn]] void refuse_as_nlohmann(std::string_view text) {
  static_cast<void>(text_of_document(nlohmann::json(std::string(text))));
  throw Error(Errc::bad_message, "bad message: a string is not UTF-8");
}

}  // namespace

// ---- writing ----

void write_json(Writer& out, bool value) {
  out.write(std::string_view(value ? "true" : "false"));
}

namespace {

template <class Integer>
void write_integer(Writer& out, Integer value) {
  std::array<char, 20> text;
  const auto done = std::to_chars(text.data(), text.data() + text.size(), value);
  out.write(text.data(), static_cast<std::size_t>(done.ptr - text.data()));
}

}  // namespace

void write_json(Writer& out, std::int64_t value) {
  write_integer(out, value);
}

void write_json(Writer& out, std::uint64_t value) {
  write_integer(out, value);
}

// The shortest text that reads as the same double.  A fraction or an exponent is always there, by
// which a reader tells it from an integer.
void write_json(Writer& out, double value) {
  if (!(value - value == 0)) refuse_number();
#ifdef __cpp_lib_to_chars
  std::array<char, 32> text;
  const auto done = std::to_chars(text.data(), text.data() + text.size(), value);
  const std::string_view number(text.data(), static_cast<std::size_t>(done.ptr - text.data()));
  out.write(number);
  if (number.find_first_of(".e") == number.npos) out.write(".0");
#else
  out.write(nlohmann::json(value).dump());
#endif
}

void write_json(Writer& out, std::string_view value) {
  const char* at = value.data();
  const char* const end = at + value.size();
  out.write("\"", 1);
  for (;;) {
    const char* const stop = skip_text(at, end);
    out.write(at, static_cast<std::size_t>(stop - at));
    if (stop == end) break;
    if (static_cast<unsigned char>(*stop) >= 0x80) refuse_as_nlohmann(value);
    write_escaped(out, *stop);
    at = stop + 1;
  }
  out.write("\"", 1);
}

// ---- reading ----

bool JsonCursor::read(bool& value) noexcept {
  const std::string_view rest(at_, static_cast<std::size_t>(end_ - at_));
  const auto is = [rest](std::string_view word) { return rest.substr(0, word.size()) == word; };
  value = is("true");
  if (!value && !is("false")) return false;
  at_ += value ? 4 : 5;
  return true;
}

namespace {

// A number without a fraction and without leading zeros.  The caller refuses what stands behind it,
// for example a fraction.
template <class Integer>
const char* read_integer(const char* at, const char* end, Integer& value) noexcept {
  const char* const digits = at != end && *at == '-' ? at + 1 : at;
  const auto done = std::from_chars(at, end, value);
  if (done.ec != std::errc() || (*digits == '0' && done.ptr != digits + 1)) return nullptr;
  return done.ptr;
}

// Skips a number with a fraction or an exponent.  A number without either is an integer, and then
// -0 is 0.
const char* skip_float(const char* at, const char* end) noexcept {
  const auto skip_digits = [&] {
    const char* const first = at;
    while (at != end && is_digit(*at)) ++at;
    return at - first;
  };
  if (at != end && *at == '-') ++at;
  const char* const first = at;
  const std::ptrdiff_t digits = skip_digits();
  if (digits == 0 || (*first == '0' && digits > 1)) return nullptr;
  const char* const whole = at;
  if (at != end && *at == '.') {
    ++at;
    if (skip_digits() == 0) return nullptr;
  }
  if (at != end && (*at == 'e' || *at == 'E')) {
    ++at;
    if (at != end && (*at == '+' || *at == '-')) ++at;
    if (skip_digits() == 0) return nullptr;
  }
  return at == whole ? nullptr : at;
}

}  // namespace

bool JsonCursor::read(std::int64_t& value) noexcept {
  const char* const behind = read_integer(at_, end_, value);
  if (behind) at_ = behind;
  return behind != nullptr;
}

bool JsonCursor::read(std::uint64_t& value) noexcept {
  const char* const behind = read_integer(at_, end_, value);
  if (behind) at_ = behind;
  return behind != nullptr;
}

// Both this and strtod, which nlohmann uses, are exact: the nearest double.
bool JsonCursor::read(double& value) noexcept {
#ifdef __cpp_lib_to_chars
  const char* const behind = skip_float(at_, end_);
  if (!behind) return false;
  const auto done = std::from_chars(at_, behind, value);
  if (done.ec != std::errc() || done.ptr != behind) return false;
  at_ = behind;
  return true;
#else
  static_cast<void>(value);
  return false;
#endif
}

bool JsonCursor::read(std::string& value) {
  if (!skip('"')) return false;
  for (;;) {
    const char* const stop = skip_text(at_, end_);
    value.append(at_, stop);
    at_ = stop;
    if (skip('"')) return true;
    if (!skip('\\') || !read_escape(value)) return false;
  }
}

// Reads behind the backslash.  Of the numbered escapes only those below U+0020, which is how they
// are written.
bool JsonCursor::read_escape(std::string& value) {
  if (at_ == end_) return false;
  const char letter = *at_++;
  for (const Escape& escape : escapes)
    if (escape.letter == letter) {
      value += escape.meaning;
      return true;
    }
  unsigned char code = 0;
  if (letter != 'u' || end_ - at_ < 4 || at_[0] != '0' || at_[1] != '0') return false;
  const auto done = std::from_chars(at_ + 2, at_ + 4, code, 16);
  if (done.ec != std::errc() || done.ptr != at_ + 4 || code >= 0x20) return false;
  at_ = done.ptr;
  value += static_cast<char>(code);
  return true;
}

// ---- UTF-8 ----

std::size_t find_bad_utf8(std::string_view text) noexcept {
  const char* at = text.data();
  const char* const end = at + text.size();
  while (at != end) {
    at = skip_text(at, end);
    if (at == end) break;
    if (static_cast<unsigned char>(*at) >= 0x80) return static_cast<std::size_t>(at - text.data());
    ++at;
  }
  return text.size();
}

}  // namespace evparallel::detail
