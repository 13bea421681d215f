// binary_io.hpp - CBOR and MessagePack by nlohmann/json, for every type that JsonIo takes.
// Licence: see COPYING.  Manual: evparallel_io(3).
#pragma once

#include <evparallel/json_std.hpp>

namespace evparallel {

namespace detail {

// nlohmann reads what stands in one another with a call in a call, strings in pieces too: these
// look at the structure alone, and leave it to nlohmann to say what else is wrong.
// Fail: Errc::bad_message.
EVPARALLEL_API void check_cbor_depth(std::string_view bytes);
EVPARALLEL_API void check_msgpack_depth(std::string_view bytes);

template <class T>
nlohmann::json checked_document_of(const T& value) {
  nlohmann::json document = document_of(value);
  refuse_bad_text(document);
  return document;
}

template <class T>
T value_of_checked(const nlohmann::json& document) {
  refuse_bad_text(document);
  return document.template get<T>();
}

}  // namespace detail

// A message is one data item (RFC 8949) without anything behind it.  Strings must be UTF-8, both
// ways.  NaN and the infinities travel; CBOR is written with
// one NaN for all.
template <class T>
struct CborIo {
  static_assert(detail::JsonConvertible<T>::value);

  static void put(Writer& out, const T& value) {
    const CodecScope scope(out);
    std::string bytes;
    nlohmann::json::to_cbor(detail::checked_document_of(value), bytes);
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
struct MsgpackIo {
  static_assert(detail::JsonConvertible<T>::value);

  static void put(Writer& out, const T& value) {
    const CodecScope scope(out);
    std::string bytes;
    nlohmann::json::to_msgpack(detail::checked_document_of(value), bytes);
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
