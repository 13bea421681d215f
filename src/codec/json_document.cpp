// json_document.cpp - texts that nlohmann parses, and the errors of a refused document.
// Runs in: parent, child.  Licence: see COPYING.
#include <evparallel/detail/json_document.hpp>

namespace evparallel::detail {

void parse_json(std::string_view text, bool& value) {
  value = value_of_json<bool>(text);
}
void parse_json(std::string_view text, std::int64_t& value) {
  value = value_of_json<std::int64_t>(text);
}
void parse_json(std::string_view text, std::uint64_t& value) {
  value = value_of_json<std::uint64_t>(text);
}
void parse_json(std::string_view text, double& value) {
  value = value_of_json<double>(text);
}
void parse_json(std::string_view text, std::string& value) {
  value = value_of_json<std::string>(text);
}

void parse_json(std::string_view text, JsonNumber& number) {
  check_json_depth(text);
  const auto document = nlohmann::json::parse(text);
  if (document.is_number_unsigned()) {
    number.kind = JsonNumber::Kind::natural;
    number.natural = document.get<std::uint64_t>();
  } else if (document.is_number_float()) {
    number.kind = JsonNumber::Kind::real;
    number.real = document.get<double>();
  } else if (document.is_boolean()) {
    number.integer = document.get<bool>();
  } else {
    number.integer = document.get<std::int64_t>();  // throws for what is no number
  }
  check_json_end(text);
}

namespace {

constexpr char takes_any_bytes[] = "PackedIo and RawIo take any bytes";

}  // namespace

void refuse_value(const char* what) {
  throw Error(Errc::bad_message, std::string("bad message: ") + what);
}

void refuse_number() {
  refuse_value("JSON cannot represent NaN or infinity; CborIo and MsgpackIo can");
}

void refuse_depth() {
  throw Error(Errc::bad_message, "bad message: arrays and objects are nested more than " +
                                     std::to_string(json_depth_limit) + " levels deep");
}

void append_step(std::string& pointer, std::string_view key) {
  pointer += '/';
  for (const char c : key) {
    if (c == '~')
      pointer += "~0";
    else if (c == '/')
      pointer += "~1";
    else
      pointer += c;
  }
}

void refuse_text(std::string_view text, std::size_t bad, const std::string& pointer) {
  constexpr char digits[] = "0123456789ABCDEF";
  const auto byte = static_cast<unsigned char>(text[bad]);
  throw Error(Errc::bad_message, "bad message: invalid UTF-8 byte at index " + std::to_string(bad) +
                                     ": 0x" + digits[byte >> 4] + digits[byte & 0xf] + " of \"" +
                                     pointer + "\"; " + takes_any_bytes);
}

void refuse_json_text(const char* why) {
  throw Error(Errc::bad_message,
              std::string("bad message: could not encode: ") + why + "; " + takes_any_bytes);
}

void check_json_depth(std::string_view text) {
  std::size_t depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > json_depth_limit) refuse_depth();
    } else if ((c == ']' || c == '}') && depth > 0) {
      --depth;
    }
  }
}

void check_json_end(std::string_view text) {
  if (const std::size_t end = text.find('\0'); end != std::string_view::npos)
    throw Error(Errc::bad_message, "bad message: " + std::to_string(text.size() - end) +
                                       " bytes are left over at offset " + std::to_string(end));
}

}  // namespace evparallel::detail
