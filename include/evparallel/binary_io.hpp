// binary_io.hpp - CBOR and MessagePack by nlohmann/json, for every type that JsonIo takes.
// Licence: see COPYING.  Manual: evparallel_io(3).
#pragma once

#include <evparallel/json_value.hpp>

namespace evparallel {

namespace detail {

// nlohmann reads nested items recursively, and strings in pieces, too.  These functions check only
// the structure, and leave other errors to nlohmann.
// Fail: Errc::bad_message.
EVPARALLEL_API void check_cbor_depth(std::string_view bytes);
EVPARALLEL_API void check_msgpack_depth(std::string_view bytes);

template <class T>
T value_of_checked(nlohmann::json document) {
  refuse_bad_text(document);
  return value_of_document<T>(std::move(document));
}

}  // namespace detail

// A message is one data item (RFC 8949) without anything behind it.  Strings must be UTF-8, in both
// directions.  NaN and the infinities can be sent; CBOR has only one NaN.
template <class T>
struct CborIo : detail::DocumentIo {
  static_assert(detail::JsonConvertible<T>::value);

  static void put(Writer& out, const T& value) {
    const CodecScope scope(out);
    const auto& document = detail::document_of(value);
    detail::refuse_bad_text(document);
    std::string bytes;
    nlohmann::json::to_cbor(document, bytes);
    out.write(bytes);
  }
  static T get(Reader& in) {
    const CodecScope scope(in);
    const std::string_view bytes = in.rest();
    detail::check_cbor_depth(bytes);
    return detail::value_of_checked<T>(nlohmann::json::from_cbor(bytes));
  }
};

// The same in MessagePack.
template <class T>
struct MsgpackIo : detail::DocumentIo {
  static_assert(detail::JsonConvertible<T>::value);

  static void put(Writer& out, const T& value) {
    const CodecScope scope(out);
    const auto& document = detail::document_of(value);
    detail::refuse_bad_text(document);
    std::string bytes;
    nlohmann::json::to_msgpack(document, bytes);
    out.write(bytes);
  }
  static T get(Reader& in) {
    const CodecScope scope(in);
    const std::string_view bytes = in.rest();
    detail::check_msgpack_depth(bytes);
    return detail::value_of_checked<T>(nlohmann::json::from_msgpack(bytes));
  }
};

}  // namespace evparallel
