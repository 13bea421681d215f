// json_std.hpp - JSON for types that nlohmann/json does not know: optional, variant, chrono, path.
// Licence: see COPYING.  Manual: evparallel_io(3).
//
//   std::optional<T>        null, or the value
//   std::variant<T...>      {"index": 1, "value": ...}
//   std::monostate          null
//   std::chrono::duration   its count
//   std::chrono::time_point the count since its clock's epoch
//   std::filesystem::path   its bytes as a string, which must be UTF-8
//
// Conversions of the user take precedence: specialisations of nlohmann::adl_serializer for these
// types, and to_json or from_json found by argument-dependent look-up, including those of a newer
// nlohmann.  EVPARALLEL_NO_STD_JSON, defined for the whole program, disables these conversions.
#pragma once

#include <evparallel/detail/json_document.hpp>

#ifndef EVPARALLEL_NO_STD_JSON

#include <chrono>
#include <cstddef>
#include <filesystem>
#include <optional>
#include <utility>
#include <variant>

namespace evparallel {

namespace detail {

template <class Json, class... T>
using if_json_can_put = std::enable_if_t<(std::is_constructible_v<Json, const T&> && ...), int>;
template <class Json, class... T>
using if_json_can_get = std::enable_if_t<(json_can_get<Json, T> && ...), int>;

// to_json(json&, const T&) and T from_json(const json&) of a type.
template <class T>
struct StdJson;

template <class T>
struct StdJson<std::optional<T>> {
  template <class Json, if_json_can_put<Json, T> = 0>
  static void to_json(Json& json, const std::optional<T>& value) {
    if (!value) {
      json = nullptr;
      return;
    }
    json = Json(*value);
    if (json.is_null())
      refuse_value(
          "an optional holds a value that is null in JSON and would be read as an empty optional");
  }
  template <class Json, if_json_can_get<Json, T> = 0>
  static std::optional<T> from_json(const Json& json) {
    if (json.is_null()) return std::nullopt;
    return std::optional<T>(std::in_place, json.template get<T>());
  }
};

template <class... T>
struct StdJson<std::variant<T...>> {
  using Variant = std::variant<T...>;

  template <class Json, if_json_can_put<Json, T...> = 0>
  static void to_json(Json& json, const Variant& value) {
    if (value.valueless_by_exception()) refuse_value("a variant has no value");
    json = Json::object();
    json["index"] = value.index();
    std::visit([&](const auto& alternative) { json["value"] = Json(alternative); }, value);
  }
  template <class Json, if_json_can_get<Json, T...> = 0>
  static Variant from_json(const Json& json) {
    return pick(json, std::index_sequence_for<T...>{});
  }

private:
  template <class Json, std::size_t... i>
  static Variant pick(const Json& json, std::index_sequence<i...>) {
    using Make = Variant (*)(const Json&);
    static constexpr Make make[] = {&alternative<i, Json>...};
    const Json& index = json.at("index");
    if (!index.is_number_unsigned() || index.template get<std::uint64_t>() >= sizeof...(T))
      refuse_value("the index of a variant names none of its alternatives");
    return make[index.template get<std::size_t>()](json.at("value"));
  }
  template <std::size_t i, class Json>
  static Variant alternative(const Json& json) {
    using Alternative = std::variant_alternative_t<i, Variant>;
    refuse_wide_numbers<Alternative>(json);
    return Variant(std::in_place_index<i>, json.template get<Alternative>());
  }
};

template <>
struct StdJson<std::monostate> {
  template <class Json>
  static void to_json(Json& json, std::monostate) {
    json = nullptr;
  }
  template <class Json>
  static std::monostate from_json(const Json& json) {
    if (!json.is_null()) refuse_value("the JSON value of a monostate is not null");
    return {};
  }
};

template <class Rep, class Period>
struct StdJson<std::chrono::duration<Rep, Period>> {
  using Duration = std::chrono::duration<Rep, Period>;

  template <class Json, if_json_can_put<Json, Rep> = 0>
  static void to_json(Json& json, const Duration& value) {
    json = Json(value.count());
  }
  template <class Json, if_json_can_get<Json, Rep> = 0>
  static Duration from_json(const Json& json) {
    return Duration(json.template get<Rep>());
  }
};

template <class Clock, class Duration>
struct StdJson<std::chrono::time_point<Clock, Duration>> {
  using TimePoint = std::chrono::time_point<Clock, Duration>;

  template <class Json, if_json_can_put<Json, typename Duration::rep> = 0>
  static void to_json(Json& json, const TimePoint& value) {
    json = Json(value.time_since_epoch().count());
  }
  template <class Json, if_json_can_get<Json, typename Duration::rep> = 0>
  static TimePoint from_json(const Json& json) {
    return TimePoint(Duration(json.template get<typename Duration::rep>()));
  }
};

// Newer releases of nlohmann/json have it, too, in this form.
template <>
struct StdJson<std::filesystem::path> {
  template <class Json>
  static void to_json(Json& json, const std::filesystem::path& value) {
    json = Json(value.native());
  }
  template <class Json>
  static std::filesystem::path from_json(const Json& json) {
    return json.template get<std::string>();
  }
};

// In the form that nlohmann needs: both overloads of from_json.
template <class T>
struct StdSerializer : StdJson<T> {
  using StdJson<T>::from_json;
  template <class Json>
  static auto from_json(const Json& json, T& value)
      -> decltype(static_cast<void>(StdJson<T>::from_json(json))) {
    value = StdJson<T>::from_json(json);
  }
};

// Whether to_json or from_json of T exists without this file.
template <class T, class = void>
constexpr bool has_to_json = false;
template <class T>
constexpr bool has_to_json<T, std::void_t<decltype(nlohmann::to_json(
                                  std::declval<nlohmann::json&>(), std::declval<const T&>()))>> =
    true;
template <class T, class = void>
constexpr bool has_from_json = false;
template <class T>
constexpr bool has_from_json<T, std::void_t<decltype(nlohmann::from_json(
                                    std::declval<const nlohmann::json&>(), std::declval<T&>()))>> =
    true;

template <class T>
constexpr bool is_std_json = false;
template <class T>
constexpr bool is_std_json<std::optional<T>> = true;
template <class... T>
constexpr bool is_std_json<std::variant<T...>> = true;
template <class Rep, class Period>
constexpr bool is_std_json<std::chrono::duration<Rep, Period>> = true;
template <class Clock, class Duration>
constexpr bool is_std_json<std::chrono::time_point<Clock, Duration>> = true;

template <class T, bool = is_std_json<T>>
constexpr bool is_our_json = false;
template <class T>
constexpr bool is_our_json<T, true> = !has_to_json<T> && !has_from_json<T>;

}  // namespace detail

}  // namespace evparallel

// This is less specialised than any form that a user would write: adl_serializer<std::optional<T>>
// is chosen before C<A...>, whichever the compiler sees first.  This needs void_t; with the bare
// enable_if_t the user's specialisation would be ambiguous.
template <template <class...> class C, class... A>
struct nlohmann::adl_serializer<
    C<A...>, std::void_t<std::enable_if_t<evparallel::detail::is_our_json<C<A...>>>>>
    : evparallel::detail::StdSerializer<C<A...>> {};

// Specialisations of the user are for the one type, and so take precedence anyway.
template <class T>
struct nlohmann::adl_serializer<T, std::enable_if_t<std::is_same_v<T, std::monostate> ||
                                                    std::is_same_v<T, std::filesystem::path>>>
    : evparallel::detail::StdSerializer<T> {};

#endif  // EVPARALLEL_NO_STD_JSON
