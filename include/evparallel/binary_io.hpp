// binary_io.hpp - CBOR and MessagePack by nlohmann/json, for every type that JsonIo takes.
// Licence: see COPYING.  Manual: evparallel_io(3).
#pragma once

#include <evparallel/json_value.hpp>

namespace evparallel {

namespace detail {

// nlohmann reads nested items recursively, and strings in pieces, too; a SAX handler would not be
// called for the pieces.  These functions check only the structure, and that a document of it takes
// at most `most` bytes of memory, and leave other errors to nlohmann.
// Fail: Errc::bad_message.
EVPARALLEL_API void check_cbor(std::string_view bytes, std::size_t most);
EVPARALLEL_API void check_msgpack(std::string_view bytes, std::size_t most);

struct Cbor {
  static void write(const nlohmann::json& document, std::string& bytes) {
    nlohmann::json::to_cbor(document, bytes);
  }
  static nlohmann::json read(std::string_view bytes, std::size_t most) {
    check_cbor(bytes, most);
    return nlohmann::json::from_cbor(bytes);
  }
};

struct Msgpack {
  static void write(const nlohmann::json& document, std::string& bytes) {
    nlohmann::json::to_msgpack(document, bytes);
  }
  static nlohmann::json read(std::string_view bytes, std::size_t most) {
    check_msgpack(bytes, most);
    return nlohmann::json::from_msgpack(bytes);
  }
};

template <class T, class Format>
struct BinaryIo : DocumentIo {
  static_assert(JsonConvertible<T>::value);

  static void put(Writer& out, const T& value) {
    const CodecScope scope(out);
    const auto& document = document_of(value);
    refuse_bad_text(document);
    std::string bytes;
    Format::write(document, bytes);
    out.write(bytes);
  }
  static T get(Reader& in) {
    const CodecScope scope(in);
    nlohmann::json document = Format::read(in.rest(), in.max_decoded());
    refuse_bad_text(document);
    refuse_wide_numbers<T>(document);
    return value_of_document<T>(std::move(document));
  }
};

}  // namespace detail

// A message is one data item (RFC 8949) without anything behind it.  Strings must be UTF-8, in both
// directions.  NaN and the infinities can be sent; CBOR has only one NaN.
template <class T>
struct CborIo : detail::BinaryIo<T, detail::Cbor> {};

// The same in MessagePack.
template <class T>
struct MsgpackIo : detail::BinaryIo<T, detail::Msgpack> {};

}  // namespace evparallel
