// json_document.hpp - values to documents of nlohmann/json and back.  The only file that includes it.
// Licence: see COPYING.  Manual: evparallel_io(3).
//
// No json type appears in an exported symbol: its inline namespace changes with the user's macros.
// What is here are templates, so that who needs no document does not compile its parts.
#pragma once

#include <evparallel/json_text.hpp>

#include <nlohmann/json.hpp>

namespace evparallel {

namespace detail {

// ---- what a document is refused for ----

// Arrays and objects in one another, in any form of message: above it a message is refused, since
// most of what walks through a document uses the stack.
constexpr std::size_t json_depth_limit = 1000;

// Where in a document one is, as a JSON pointer: a chain through the frames of the walk.
struct JsonPath {
  const JsonPath* outer = nullptr;
  std::string_view key{};
  std::size_t index = 0;
  std::size_t depth = 0;
  bool of_object = false;

  JsonPath at(std::string_view name) const noexcept { return {this, name, 0, depth + 1, true}; }
  JsonPath at(std::size_t position) const noexcept {
    return {this, {}, position, depth + 1, false};
  }
};

// All of these fail with Errc::bad_message.
[[noreturn]] EVPARALLEL_API void refuse_value(const char* what);
[[noreturn]] EVPARALLEL_API void refuse_number();
[[noreturn]] EVPARALLEL_API void refuse_depth();
[[noreturn]] EVPARALLEL_API void refuse_text(std::string_view text, std::size_t bad,
                                             const JsonPath& path);
EVPARALLEL_API void check_json_depth(std::string_view text);
// nlohmann takes a null byte outside of strings for the end of its input.
EVPARALLEL_API void check_json_end(std::string_view text);

// ---- values and documents ----

template <class Json, class T, class = void>
constexpr bool json_can_get = false;
template <class Json, class T>
constexpr bool
    json_can_get<Json, T, std::void_t<decltype(std::declval<const Json&>().template get<T>())>> =
        true;

// Says what is wrong with a type that nlohmann cannot convert.
template <class T>
struct JsonConvertible : std::true_type {
  static_assert(std::is_constructible_v<nlohmann::json, const T&>,
                "evparallel: nlohmann/json cannot write this type: give it a to_json, or "
                "NLOHMANN_DEFINE_TYPE_..., "
                "or name another codec");
  static_assert(json_can_get<nlohmann::json, T>,
                "evparallel: nlohmann/json cannot read this type: give it a default constructor "
                "and a from_json, or "
                "NLOHMANN_DEFINE_TYPE_..., or name another codec");
};

template <class T>
nlohmann::json document_of(const T& value) {
  return value;
}

// The value of one JSON text and nothing else.  Fails: nlohmann's exceptions, Errc::bad_message.
template <class T, class Json = nlohmann::json>
T value_of_json(std::string_view text) {
  check_json_depth(text);
  T value = Json::parse(text).template get<T>();
  check_json_end(text);
  return value;
}

// What JSON has no words for, refused as it is written: nlohmann would make null of it.
template <class Json>
void refuse_not_finite(const Json& document, std::size_t depth = 1) {
  if (document.is_number_float()) {
    const auto number = document.template get<double>();
    if (!(number - number == 0)) refuse_number();
  } else if (document.is_structured()) {
    if (depth > json_depth_limit) refuse_depth();
    for (const auto& element : document) refuse_not_finite(element, depth + 1);
  }
}

// Strings and keys that are no UTF-8: a binary form would carry them, and who makes JSON of the
// document later could not.
template <class Json>
void refuse_bad_text(const Json& document, const JsonPath& path = {}) {
  const auto check = [](std::string_view text, const JsonPath& place) {
    if (const std::size_t bad = find_bad_utf8(text); bad != text.size())
      refuse_text(text, bad, place);
  };
  if (document.is_string())
    return check(document.template get_ref<const typename Json::string_t&>(), path);
  if (document.is_structured() && path.depth >= json_depth_limit) refuse_depth();
  if (document.is_object())
    for (const auto& member : document.items()) {
      check(member.key(), path);
      refuse_bad_text(member.value(), path.at(member.key()));
    }
  else if (document.is_array())
    for (std::size_t i = 0; i < document.size(); ++i) refuse_bad_text(document[i], path.at(i));
}

// Whether nlohmann's own adl_serializer converts T: a specialisation of the user's means that JSON
// is to look different.  The form of its to_json has been the same in all releases since 3.0; with
// another one no type would be plain, which is right, if slow.
template <class T, class = void>
constexpr bool is_plain_json = false;
template <class T>
constexpr bool is_plain_json<T, std::void_t<decltype(&nlohmann::adl_serializer<T>::template to_json<
                                                     nlohmann::json, const T&>)>> = true;

// Whether T goes without a document.
template <class T>
constexpr bool json_is_direct = JsonForm<T>::direct&& is_plain_json<T>;
template <class T>
constexpr bool json_is_direct<std::vector<T>> = json_is_direct<T>&& is_plain_json<std::vector<T>>;

}  // namespace detail

}  // namespace evparallel
