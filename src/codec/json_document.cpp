// json_document.cpp - texts that nlohmann parses, and the errors of a refused document.
// Runs in: parent, child.  Licence: see COPYING.
#include <evparallel/detail/json_document.hpp>

namespace evparallel::detail {

namespace {

// Keeps one value that has no parts.  For the beginning of an array or an object it throws what
// nlohmann throws for a document of that type.
template <class Take>
class OneValue : public nlohmann::json::json_sax_t {
public:
  explicit OneValue(const Take& take) : take_(take) {}

  nlohmann::json value{};

  bool null() override { return keep(nullptr); }
  bool boolean(bool one) override { return keep(one); }
  bool number_integer(std::int64_t one) override { return keep(one); }
  bool number_unsigned(std::uint64_t one) override { return keep(one); }
  bool number_float(double one, const std::string&) override { return keep(one); }
  bool string(std::string& one) override { return keep(std::move(one)); }
  bool binary(nlohmann::json::binary_t&) override { return false; }  // not in a text
  bool start_object(std::size_t) override { return refuse(nlohmann::json::object()); }
  bool start_array(std::size_t) override { return refuse(nlohmann::json::array()); }
  bool key(std::string&) override { return false; }
  bool end_object() override { return false; }
  bool end_array() override { return false; }
  bool parse_error(std::size_t, const std::string&, const nlohmann::json::exception& e) override {
    if (const auto* range = dynamic_cast<const nlohmann::json::out_of_range*>(&e)) throw *range;
    throw dynamic_cast<const nlohmann::json::parse_error&>(e);
  }

private:
  template <class T>
  bool keep(T&& one) {
    value = std::forward<T>(one);
    return true;
  }
  bool refuse(nlohmann::json parts) {
    take_(std::move(parts));
    return false;
  }

  const Take& take_;
};

template <class Take>
void parse_one(std::string_view text, const Take& take) {
  OneValue<Take> one(take);
  nlohmann::json::sax_parse(text, &one);
  check_json_end(text);
  take(std::move(one.value));
}

}  // namespace

void parse_json(std::string_view text, bool& value) {
  parse_one(text, [&](const nlohmann::json& one) { value = one.get<bool>(); });
}
void parse_json(std::string_view text, std::int64_t& value) {
  parse_one(text, [&](const nlohmann::json& one) { value = number_in(one).to<std::int64_t>(); });
}
void parse_json(std::string_view text, std::uint64_t& value) {
  parse_one(text, [&](const nlohmann::json& one) { value = number_in(one).to<std::uint64_t>(); });
}
void parse_json(std::string_view text, double& value) {
  parse_one(text, [&](const nlohmann::json& one) { value = one.get<double>(); });
}
void parse_json(std::string_view text, std::string& value) {
  parse_one(text, [&](nlohmann::json one) {
    if (!one.is_string()) value = one.get<std::string>();  // throws
    value = std::move(one.get_ref<std::string&>());
  });
}

void parse_json(std::string_view text, JsonNumber& number) {
  parse_one(text, [&](const nlohmann::json& one) {
    number = JsonNumber();
    if (one.is_boolean())
      number.integer = one.get<bool>();
    else
      number = number_in(one);
  });
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

void refuse_range() {
  refuse_value("a number is out of the range of its type");
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

void refuse_document(std::size_t most) {
  throw Error(Errc::bad_message,
              "bad message: it would take more memory as a document than Options::max_decoded, " +
                  std::to_string(most) + " bytes");
}

// Each element but the first has a comma before it, and each value in an object a colon.
void check_json(std::string_view text, std::size_t most) {
  std::size_t depth = 0;
  std::size_t elements = 0;
  std::size_t nests = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == ',' || c == ':') {
      ++elements;
    } else if (c == '[' || c == '{') {
      ++nests;
      if (++depth > json_depth_limit) refuse_depth();
    } else if ((c == ']' || c == '}') && depth > 0) {
      --depth;
    }
  }
  if (elements > most / json_element_size ||
      nests > (most - elements * json_element_size) / json_nest_size)
    refuse_document(most);
}

void check_json_end(std::string_view text) {
  if (const std::size_t end = text.find('\0'); end != std::string_view::npos)
    throw Error(Errc::bad_message, "bad message: " + std::to_string(text.size() - end) +
                                       " bytes are left over at offset " + std::to_string(end));
}

}  // namespace evparallel::detail
