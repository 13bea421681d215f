// json_document.hpp - values to documents of nlohmann/json and back.
// Licence: see COPYING.  Manual: evparallel_io(3).
//
// This is the only file that includes nlohmann/json.  No json type appears in an exported symbol,
// because its inline namespace changes with the user's macros.  Everything here is a template, so
// that a program that needs no document does not compile the document's code.
#pragma once

#include <evparallel/detail/json_text.hpp>

#include <nlohmann/json.hpp>

namespace evparallel {

namespace detail {

// ---- refused documents ----

// The limit of nested arrays and objects, in any form of message: a deeper message is refused,
// because most code that walks through a document uses the stack.
constexpr std::size_t json_depth_limit = 1000;

// What an element of a document takes in memory, roughly, and an array or an object beside that: a
// text of two bytes for each element takes sixteen times as much.
constexpr std::size_t json_element_size = 32;
constexpr std::size_t json_nest_size = 64;

// All of these fail with Errc::bad_message.
[[noreturn]] EVPARALLEL_API void refuse_value(const char* what);
[[noreturn]] EVPARALLEL_API void refuse_number();
[[noreturn]] EVPARALLEL_API void refuse_depth();
// `pointer`: the position of the text in the document, as a JSON pointer.
[[noreturn]] EVPARALLEL_API void refuse_text(std::string_view text, std::size_t bad,
                                             const std::string& pointer);
// `why`: the text of nlohmann's error.
[[noreturn]] EVPARALLEL_API void refuse_json_text(const char* why);
// Fails also if a document of this text could take more memory than `most` bytes.
EVPARALLEL_API void check_json(std::string_view text, std::size_t most);
[[noreturn]] EVPARALLEL_API void refuse_document(std::size_t most);
// nlohmann takes a null byte outside of strings for the end of its input.
EVPARALLEL_API void check_json_end(std::string_view text);

// ---- walking through a document ----

// One level of the document: the array or object, and the current element of the walk.
template <class Json>
struct JsonLevel {
  const Json* outer;
  typename Json::const_iterator at;
};
template <class Json>
using JsonPath = std::vector<JsonLevel<Json>>;

// Calls visit(element, path) for the document and for each element, an array before its elements.
// Not recursive: a document may be deeper than any stack.
// Fails: Errc::bad_message for a document that is too deep.
template <class Json, class Visit>
void walk_document(const Json& document, Visit visit) {
  JsonPath<Json> path;
  const Json* here = &document;
  for (;;) {
    visit(*here, path);
    if (here->is_structured()) {
      if (path.size() == json_depth_limit) refuse_depth();
      path.push_back({here, here->cbegin()});
    } else if (!path.empty()) {
      ++path.back().at;
    }
    while (!path.empty() && path.back().at == path.back().outer->cend()) {
      path.pop_back();
      if (!path.empty()) ++path.back().at;
    }
    if (path.empty()) return;
    here = &*path.back().at;
  }
}

// Appends one step to a JSON pointer (RFC 6901).
EVPARALLEL_API void append_step(std::string& pointer, std::string_view key);

// The JSON pointer to the element `depth` levels deep on the path.
template <class Json>
std::string pointer_of(const JsonPath<Json>& path, std::size_t depth) {
  std::string pointer;
  for (std::size_t i = 0; i < depth; ++i) {
    const auto& [outer, at] = path[i];
    append_step(pointer, outer->is_object() ? at.key() : std::to_string(at - outer->cbegin()));
  }
  return pointer;
}

// ---- values and documents ----

template <class Json, class T, class = void>
constexpr bool json_can_get = false;
template <class Json, class T>
constexpr bool
    json_can_get<Json, T, std::void_t<decltype(std::declval<const Json&>().template get<T>())>> =
        true;

// Fails: nlohmann's exception if it is no number.
template <class Json>
JsonNumber number_in(const Json& document) {
  JsonNumber number;
  if (document.is_number_unsigned()) {
    number.kind = JsonNumber::Kind::natural;
    number.natural = document.template get<std::uint64_t>();
  } else if (document.is_number_float()) {
    number.kind = JsonNumber::Kind::real;
    number.real = document.template get<double>();
  } else {
    number.integer = document.template get<std::int64_t>();
  }
  return number;
}

template <class T, class Json>
T value_of_document(Json&& document) {
  if constexpr (std::is_same_v<T, Json>)
    return std::move(document);
  else
    return document.template get<T>();
}

template <class T, class Json>
void refuse_wide_numbers(const Json& document);  // json_value.hpp

// The value of one JSON text and nothing else.  Fails: nlohmann's exceptions, Errc::bad_message.
template <class T, class Json = nlohmann::json>
T value_of_json(std::string_view text, std::size_t most) {
  check_json(text, most);
  Json document = Json::parse(text);
  refuse_wide_numbers<T>(document);
  T value = value_of_document<T>(std::move(document));
  check_json_end(text);
  return value;
}

// The text of a document.  Fails: Errc::bad_message if a string is not UTF-8.
template <class Json>
std::string text_of_document(const Json& document) {
  try {
    return document.dump();
  } catch (const nlohmann::json::type_error& error) {
    refuse_json_text(error.what());
  }
}

// Refuses numbers that JSON cannot express when they are written: nlohmann would make null of them.
template <class Json>
void refuse_not_finite(const Json& document) {
  walk_document(document, [](const Json& element, const JsonPath<Json>&) {
    if (!element.is_number_float()) return;
    const auto number = element.template get<double>();
    if (!(number - number == 0)) refuse_number();
  });
}

// Refuses strings and keys that are not UTF-8: a binary form could carry them, but they could not
// be converted to JSON later.
template <class Json>
void refuse_bad_text(const Json& document) {
  walk_document(document, [](const Json& element, const JsonPath<Json>& path) {
    const auto check = [&path](std::string_view text, std::size_t depth) {
      if (const std::size_t bad = find_bad_utf8(text); bad != text.size())
        refuse_text(text, bad, pointer_of<Json>(path, depth));
    };
    if (!path.empty() && path.back().outer->is_object())
      check(path.back().at.key(), path.size() - 1);
    if (element.is_string())
      check(element.template get_ref<const typename Json::string_t&>(), path.size());
  });
}

// Whether nlohmann's own adl_serializer converts T: a specialisation of the user means that the
// JSON looks different.  The signature of its to_json has been the same in all releases since 3.0;
// with another one no type would be plain, which is correct, but slow.
template <class T, class = void>
constexpr bool is_plain_json = false;
template <class T>
constexpr bool is_plain_json<T, std::void_t<decltype(&nlohmann::adl_serializer<T>::template to_json<
                                                     nlohmann::json, const T&>)>> = true;

// Whether T is converted without a document.
template <class T>
constexpr bool json_is_direct = JsonForm<T>::direct&& is_plain_json<T>;
template <class T>
constexpr bool json_is_direct<std::vector<T>> = json_is_direct<T>&& is_plain_json<std::vector<T>>;

}  // namespace detail

}  // namespace evparallel
