// json_io.hpp - the default codec: JSON by nlohmann/json.  The only file that includes it.
// Licence: see COPYING.  Manual: evparallel_io(3).
//
// Takes every type that nlohmann can convert: its own, those with to_json/from_json found by
// argument-dependent look-up, those with NLOHMANN_DEFINE_TYPE_*, and specialisations of
// nlohmann::adl_serializer. No json type appears in an exported symbol: its inline namespace
// changes with the user's macros.
#pragma once

#include <evparallel/io.hpp>

#include <nlohmann/json.hpp>

namespace evparallel {

namespace detail {

template <class T, class = void>
constexpr bool json_can_get = false;
template <class T>
constexpr bool
    json_can_get<T, std::void_t<decltype(std::declval<const nlohmann::json&>().get<T>())>> = true;

}  // namespace detail

// A message is one JSON text without anything behind it.  Strings must be UTF-8, and NaN and the
// infinities, for which JSON has no words, are refused when they are written rather than turned
// into null.
template <class T>
struct JsonIo {
  static_assert(std::is_constructible_v<nlohmann::json, const T&>,
                "evparallel: nlohmann/json cannot write this type: give it a to_json, or "
                "NLOHMANN_DEFINE_TYPE_..., "
                "or name another codec");
  static_assert(detail::json_can_get<T>,
                "evparallel: nlohmann/json cannot read this type: give it a default constructor "
                "and a from_json, or "
                "NLOHMANN_DEFINE_TYPE_..., or name another codec");

  static void put(Writer& out, const T& value) {
    const nlohmann::json json = value;
    refuse_not_finite(json);
    out.write(json.dump());
  }
  static T get(Reader& in) { return nlohmann::json::parse(in.rest()).get<T>(); }

private:
  static void refuse_not_finite(const nlohmann::json& json) {
    if (json.is_number_float()) {
      const double number = json.get<double>();
      if (!(number - number == 0))
        throw Error(Errc::bad_message, "bad message: JSON has no word for NaN or an infinity");
    } else if (json.is_structured()) {
      for (const auto& element : json) refuse_not_finite(element);
    }
  }
};

}  // namespace evparallel
