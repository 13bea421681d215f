// json_io.hpp - the default codec: JSON by nlohmann/json.
// Licence: see COPYING.  Manual: evparallel_io(3).
//
// Takes every type that nlohmann can convert: its own, those with to_json/from_json found by
// argument-dependent look-up, those with NLOHMANN_DEFINE_TYPE_*, and specialisations of
// nlohmann::adl_serializer; and those of json_std.hpp.
#pragma once

#include <evparallel/json_value.hpp>

namespace evparallel {

// A message is one JSON text without anything behind it.  Strings must be UTF-8.  NaN and the
// infinities, which JSON cannot express, are refused when they are written, and not turned into
// null.  Numbers, booleans, strings and vectors of them are converted directly by json_text.hpp.
template <class T>
struct JsonIo : detail::DocumentIo {
  static constexpr bool is_direct = detail::json_is_direct<T>;
  static_assert(std::conditional_t<is_direct, std::true_type, detail::JsonConvertible<T>>::value);

  static void put(Writer& out, const T& value) {
    if constexpr (is_direct) {
      const std::size_t before = out.written().size();
      try {
        detail::JsonForm<T>::put(out, value);
      } catch (...) {
        out.bytes().resize(before);  // all or nothing, as with a document
        throw;
      }
    } else {
      const CodecScope scope(out);
      const auto& document = detail::document_of(value);
      detail::refuse_not_finite(document);
      out.write(detail::text_of_document(document));
    }
  }

  static T get(Reader& in) {
    const std::string_view text = in.rest();
    if constexpr (is_direct) {
      detail::JsonCursor cursor(text);
      T value{};
      if (detail::JsonForm<T>::get(cursor, value) && cursor.at_end()) return value;
    }
    if constexpr (is_direct && detail::json_has_overload<T>) {
      T value{};
      detail::parse_json(text, value);
      return value;
    } else if constexpr (is_direct && std::is_arithmetic_v<T>) {
      detail::JsonNumber number;
      detail::parse_json(text, number);
      return number.to<T>();
    } else {
      const CodecScope scope(in);
      return detail::value_of_json<T>(text, in.max_decoded());
    }
  }
};

}  // namespace evparallel
