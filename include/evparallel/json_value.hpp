// json_value.hpp - checks of a value before nlohmann/json makes a document of it.
// Licence: see COPYING.  Manual: evparallel_io(3).
#pragma once

#include <evparallel/json_std.hpp>

#include <array>
#include <chrono>
#include <optional>
#include <tuple>
#include <utility>
#include <variant>

namespace evparallel {

namespace detail {

// ---- the parts of a value ----

template <class T>
struct StdSerializer;

template <class T>
constexpr bool is_document = nlohmann::detail::is_basic_json<T>::value;

// Whether the conversion of T is nlohmann's or the library's: the output of a user's specialisation
// is not known.
template <class T>
constexpr bool has_known_json = is_document<T> || is_plain_json<T> ||
                                std::is_base_of_v<StdSerializer<T>, nlohmann::adl_serializer<T>>;

template <class... T>
struct PartTypes {};

// The parts of a T: their types, and each() calls f for each of them.
template <class T, class = void>
struct JsonParts {
  using types = PartTypes<>;
};

template <class T>
struct JsonParts<T, std::enable_if_t<is_document<T>>> {
  using types = PartTypes<typename T::number_float_t, typename T::number_integer_t,
                          typename T::number_unsigned_t>;
};

template <class T, class Element>
struct PartsOfRange {
  using types = PartTypes<std::remove_cv_t<Element>>;
  template <class F>
  static void each(const T& value, const F& f) {
    for (const auto& element : value) f(element);
  }
};
// A container of the standard library, or one like it.
template <class T>
struct JsonParts<T, std::enable_if_t<!is_document<T>, std::void_t<typename T::allocator_type>>>
    : PartsOfRange<T, typename T::value_type> {};
template <class T, std::size_t n>
struct JsonParts<std::array<T, n>> : PartsOfRange<std::array<T, n>, T> {};

template <class T, class... Part>
struct PartsOfTuple {
  using types = PartTypes<std::remove_cv_t<Part>...>;
  template <class F>
  static void each(const T& value, const F& f) {
    std::apply([&f](const Part&... part) { (f(part), ...); }, value);
  }
};
template <class A, class B>
struct JsonParts<std::pair<A, B>> : PartsOfTuple<std::pair<A, B>, A, B> {};
template <class... T>
struct JsonParts<std::tuple<T...>> : PartsOfTuple<std::tuple<T...>, T...> {};

template <class T>
struct JsonParts<std::optional<T>> {
  using types = PartTypes<T>;
  template <class F>
  static void each(const std::optional<T>& value, const F& f) {
    if (value) f(*value);
  }
};
template <class... T>
struct JsonParts<std::variant<T...>> {
  using types = PartTypes<T...>;
  template <class F>
  static void each(const std::variant<T...>& value, const F& f) {
    if (!value.valueless_by_exception()) std::visit(f, value);
  }
};

template <class Rep, class Period>
struct JsonParts<std::chrono::duration<Rep, Period>> {
  using types = PartTypes<Rep>;
};
template <class Clock, class Duration>
struct JsonParts<std::chrono::time_point<Clock, Duration>> {
  using types = PartTypes<Duration>;
};

// Whether Test holds for T, or for a part of it, as far as these are known; `Around` are the types
// that contain this one.
template <template <class> class Test, class T, class... Around>
constexpr bool json_holds() noexcept;

template <template <class> class Test, class... Around, class... Part>
constexpr bool json_part_holds(PartTypes<Part...>) noexcept {
  return (json_holds<Test, Part, Around...>() || ...);
}

template <template <class> class Test, class T, class... Around>
constexpr bool json_holds() noexcept {
  if constexpr ((std::is_same_v<T, Around> || ...) || !has_known_json<T>)
    return false;
  else if constexpr (Test<T>::value)
    return true;
  else
    return json_part_holds<Test, T, Around...>(typename JsonParts<T>::types{});
}

// ---- refused values ----

// A number that nlohmann would change.
template <class T>
struct IsWideNumber : std::bool_constant<std::is_arithmetic_v<T> && (sizeof(T) > sizeof(double))> {
};

// Reports why a type cannot be sent as a document.
template <class T>
struct JsonConvertible : std::true_type {
  static_assert(std::is_constructible_v<nlohmann::json, const T&>,
                "evparallel: nlohmann/json cannot write this type: give it a to_json, or "
                "NLOHMANN_DEFINE_TYPE_..., or EVPARALLEL_FIELDS, or name another codec");
  static_assert(json_can_get<nlohmann::json, T>,
                "evparallel: nlohmann/json cannot read this type: give it a default constructor "
                "and a from_json, or "
                "NLOHMANN_DEFINE_TYPE_..., or EVPARALLEL_FIELDS, or name another codec");
  static_assert(!json_holds<IsWideNumber, T>(),
                "evparallel: nlohmann/json has no number type as wide as long double; send a "
                "double, or name another codec, such as RawIo");
};

// nlohmann casts a number to the type of its value, which is undefined if it is out of range.
template <class T>
struct IsInteger : std::bool_constant<std::is_integral_v<T> && !std::is_same_v<T, bool>> {};

template <class T, class Json>
void refuse_wide_numbers(const Json& document);

template <class Json, class... Part, std::size_t... i>
void refuse_wide_parts(const Json& document, PartTypes<Part...>, std::index_sequence<i...>) {
  ((i < document.size() ? refuse_wide_numbers<Part>(document[i]) : void()), ...);
}

template <class T>
constexpr bool is_json_tuple = false;
template <class A, class B>
constexpr bool is_json_tuple<std::pair<A, B>> = true;
template <class... T>
constexpr bool is_json_tuple<std::tuple<T...>> = true;

template <class T>
constexpr bool is_json_variant = false;
template <class... T>
constexpr bool is_json_variant<std::variant<T...>> = true;

template <class T, class = void>
constexpr bool is_json_range = false;
template <class T>
constexpr bool is_json_range<T, std::void_t<typename T::allocator_type>> = true;
template <class T, std::size_t n>
constexpr bool is_json_range<std::array<T, n>> = true;

// The only part of T, and the value in a pair of a map.
template <class Part>
struct OnlyPart {
  using type = Part;
  using mapped = void;
};
template <class K, class V>
struct OnlyPart<std::pair<K, V>> {
  using type = std::pair<K, V>;
  using mapped = V;
};
template <class T>
struct OnlyPart<PartTypes<T>> : OnlyPart<T> {};

// Fails: Errc::bad_message if the document has a number for an integer in T, as far as its parts are
// known, that this integer cannot hold.  What is in a variant is checked where it is read.
template <class T, class Json>
void refuse_wide_numbers(const Json& document) {
  if constexpr (!json_holds<IsInteger, T>() || is_json_variant<T> || is_document<T>) {
    return;
  } else if constexpr (IsInteger<T>::value) {
    if (document.is_number()) static_cast<void>(number_in(document).template to<T>());
  } else if constexpr (is_json_tuple<T>) {
    using Parts = typename JsonParts<T>::types;
    if (document.is_array())
      refuse_wide_parts(document, Parts{}, std::make_index_sequence<std::tuple_size_v<T>>{});
  } else {
    using Only = OnlyPart<typename JsonParts<T>::types>;
    if (document.is_array()) {
      for (const Json& element : document) refuse_wide_numbers<typename Only::type>(element);
    } else if (document.is_object()) {
      if constexpr (!std::is_void_v<typename Only::mapped>)
        for (const Json& element : document) refuse_wide_numbers<typename Only::mapped>(element);
    } else if constexpr (!is_json_range<T>) {
      refuse_wide_numbers<typename Only::type>(document);  // an optional, or a time
    }
  }
}

template <class T>
struct IsDocument : std::bool_constant<is_document<T>> {};

// Fails: Errc::bad_message if a copy of the value, or a document of it, would be too deep.
template <class T>
void refuse_deep_value(const T& value) {
  if constexpr (is_document<T>)
    walk_document(value, [](const T&, const JsonPath<T>&) {});
  else if constexpr (json_holds<IsDocument, T>())
    JsonParts<T>::each(value, [](const auto& part) { refuse_deep_value(part); });
}

// A value that is a document already is not copied: nlohmann copies recursively.
template <class T>
std::conditional_t<std::is_same_v<T, nlohmann::json>, const T&, nlohmann::json> document_of(
    const T& value) {
  if constexpr (!std::is_same_v<T, nlohmann::json>) refuse_deep_value(value);
  return value;
}

// The common base of the codecs that use a document.
struct DocumentIo {
  template <class T>
  static void refuse_deep(const T& value) {
    refuse_deep_value(value);
  }
};

}  // namespace detail

}  // namespace evparallel
