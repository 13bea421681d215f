// io.hpp - codecs: they convert a value to the bytes of a message and back.
// Licence: see COPYING.  Manual: evparallel_io(3).
//
// A codec is a class with
//   static void put(Writer&, const T&);   // and, if keeping the value pays, put(Writer&, T&&)
//   static T get(Reader&);
// Both may throw anything: an exception fails that one message with Errc::bad_message,
// std::bad_alloc with Errc::overloaded, and the pipe goes on.
#pragma once

#include <evparallel/error.hpp>
#include <evparallel/message.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace evparallel {

// JSON by nlohmann/json; defined in json_io.hpp.
template <class T>
struct JsonIo;

// Binary, for types with EVPARALLEL_FIELDS; defined in packed_io.hpp.
template <class T>
struct PackedIo;

// Binary JSON; defined in binary_io.hpp.
template <class T>
struct CborIo;
template <class T>
struct MsgpackIo;

namespace detail {

template <class T, class = void>
constexpr bool is_complete = false;
template <class T>
constexpr bool is_complete<T, std::void_t<decltype(sizeof(T))>> = true;

template <class T>
constexpr bool always_false = false;

// Types that refer to memory of one process: themselves, or as an element of a container, a
// std::array, an optional, a pair or a tuple.
template <class T, class = void>
constexpr bool has_view_inside = false;

template <class T>
constexpr bool is_view = std::is_pointer_v<T> || std::is_member_pointer_v<T> ||
                         std::is_null_pointer_v<T> || has_view_inside<T>;
template <class T>
constexpr bool is_view<const T> = is_view<T>;
template <class C, class Tr>
constexpr bool is_view<std::basic_string_view<C, Tr>> = true;
template <class T>
constexpr bool is_view<std::reference_wrapper<T>> = true;
template <class A, class B>
constexpr bool is_view<std::pair<A, B>> = is_view<A> || is_view<B>;
template <class... A>
constexpr bool is_view<std::tuple<A...>> = (is_view<A> || ...);

// A json value is an element of itself.
template <class T>
constexpr bool has_view_inside<T, std::enable_if_t<!std::is_same_v<T, typename T::value_type>>> =
    is_view<typename T::value_type>;

// Replaces a codec that was refused already, so that the compiler reports no further errors.
template <class T>
struct RefusedIo {
  static void put(Writer&, const T&);
  static T get(Reader&);
};

template <class T, bool = is_complete<JsonIo<T>>>
struct DefaultJson : JsonIo<T> {};
template <class T>
struct DefaultJson<T, false> : RefusedIo<T> {
  static_assert(always_false<T>,
                "evparallel: the default codec is JSON: include <evparallel/json_io.hpp> or "
                "<evparallel/evparallel.hpp>, or name another codec");
};

// packed_io.hpp has another one for types with EVPARALLEL_FIELDS.
template <class T, class = void>
struct DefaultCodec : DefaultJson<T> {};

}  // namespace detail

// The codec that is used if no other is named: JSON, or PackedIo for types with EVPARALLEL_FIELDS.
// Specialise it for your own types.
template <class T>
struct Io : detail::DefaultCodec<T> {};

// Stands for Io<T> in template arguments.
struct DefaultIo {};

namespace detail {

// From this size on, a value that is moved in is sent without a copy; below, a copy is cheaper than
// keeping the value.
constexpr std::size_t adopt_threshold = 64 * 1024;

template <class T>
void adopt_or_copy(Writer& out, T&& value, std::size_t size) {
  if (size < adopt_threshold) return out.write(value.data(), size);
  auto kept = std::make_shared<T>(std::move(value));
  const void* data = kept->data();
  out.adopt(std::move(kept), data, size);
}

template <class T>
struct RawMemory {
  static void put(Writer& out, const T& value) { out.write(&value, sizeof value); }
  static T get(Reader& in) {
    std::aligned_storage_t<sizeof(T), alignof(T)> storage;
    in.read(&storage, sizeof storage);
    return *std::launder(reinterpret_cast<T*>(&storage));
  }
};

}  // namespace detail

// The bytes as they are in memory, padding included: for trivially copyable values without
// pointers, strings, and vectors, pairs, tuples and arrays of such values.  A string or vector at
// the end takes the rest of the message.
// Parent and child are the same image on the same machine, so the byte order is the same.
template <class T>
struct RawIo : detail::RawMemory<T> {
  static_assert(std::is_trivially_copyable_v<T>,
                "evparallel: RawIo takes trivially copyable values, std::string, and std::vector, "
                "std::array, std::pair and std::tuple of such values; use PackedIo or JsonIo, or "
                "write a codec");
  static_assert(!detail::is_view<T>,
                "evparallel: a pointer means nothing in another process; send the value");
};

namespace detail {

template <class T>
constexpr bool is_plain_value = std::is_arithmetic_v<T> || std::is_same_v<T, std::string>;
template <class T, class A>
constexpr bool is_plain_value<std::vector<T, A>> = is_plain_value<T>;

// Whether a message of this codec may come with descriptors.  A codec of the program may take some
// for any type, and so may the conversion to and from JSON of its own types.
template <class T, class Codec>
constexpr bool takes_descriptors =
    !std::is_base_of_v<RawIo<T>, Codec> &&
    !(is_plain_value<T> &&
      (std::is_base_of_v<JsonIo<T>, Codec> || std::is_base_of_v<CborIo<T>, Codec> ||
       std::is_base_of_v<MsgpackIo<T>, Codec> || std::is_base_of_v<PackedIo<T>, Codec>));
template <class Codec>
constexpr bool takes_descriptors<void, Codec> = false;

}  // namespace detail

template <>
struct RawIo<bool> {
  static void put(Writer& out, bool value) { out.write(value ? "\1" : "\0", 1); }
  static bool get(Reader& in) {
    const char byte = in.read(1)[0];
    if (byte != 0 && byte != 1)
      throw Error(Errc::bad_message, "bad message: a bool is neither 0 nor 1");
    return byte == 1;
  }
};

template <>
struct RawIo<std::string> {
  static void put(Writer& out, const std::string& value) { out.write(value); }
  static void put(Writer& out, std::string&& value) {
    const std::size_t size = value.size();
    detail::adopt_or_copy(out, std::move(value), size);
  }
  static std::string get(Reader& in) { return in.take_rest(); }
};

namespace detail {

// Whether RawIo writes the same number of bytes for all values, and at least one.
template <class T>
constexpr bool raw_is_fixed = std::is_trivially_copyable_v<T>;
template <class A, class B>
constexpr bool raw_is_fixed<std::pair<A, B>> = raw_is_fixed<A>&& raw_is_fixed<B>;
template <class... T>
constexpr bool raw_is_fixed<std::tuple<T...>> = (raw_is_fixed<T> && ...);
template <class T, std::size_t n>
constexpr bool raw_is_fixed<std::array<T, n>> = raw_is_fixed<T>;

template <class T>
using RawPart = RawIo<std::remove_cv_t<T>>;

// A part that is not the last one.
template <class T>
void put_raw_part(Writer& out, const T& value) {
  if constexpr (raw_is_fixed<T>) {
    RawPart<T>::put(out, value);
  } else {
    const std::size_t at = out.size();
    std::uint64_t size = 0;
    out.write(&size, sizeof size);
    RawPart<T>::put(out, value);
    size = out.size() - at - sizeof size;
    std::memcpy(out.bytes().data() + at, &size, sizeof size);
  }
}

template <class T>
std::remove_cv_t<T> get_raw_part(Reader& in) {
  if constexpr (raw_is_fixed<T>) {
    return RawPart<T>::get(in);
  } else {
    std::uint64_t size;
    in.read(&size, sizeof size);
    Reader part(in.take(size_in_message(size)));
    std::remove_cv_t<T> value = RawPart<T>::get(part);
    part.expect_end();
    return value;
  }
}

// A pair, tuple or array.
template <class T, std::size_t... i>
struct RawParts {
  template <std::size_t k>
  using Part = std::tuple_element_t<k, T>;
  static constexpr std::size_t last = sizeof...(i) - 1;

  template <class Value>
  static void put(Writer& out, Value&& value) {
    (put_part<i>(out, std::get<i>(std::forward<Value>(value))), ...);
  }
  // Braces: evaluated from left to right.
  static T get(Reader& in) { return T{get_part<i>(in)...}; }

private:
  template <std::size_t k, class Value>
  static void put_part(Writer& out, Value&& value) {
    if constexpr (k == last)
      RawPart<Part<k>>::put(out, std::forward<Value>(value));
    else
      put_raw_part<Part<k>>(out, value);
  }
  template <std::size_t k>
  static std::remove_cv_t<Part<k>> get_part(Reader& in) {
    if constexpr (k == last)
      return RawPart<Part<k>>::get(in);
    else
      return get_raw_part<Part<k>>(in);
  }
};
template <class T, std::size_t... i>
RawParts<T, i...> raw_parts_of(std::index_sequence<i...>);

// The last part takes the rest of the message; a string or vector before it has its size in front.
template <class T>
struct RawTuple {
  using Parts = decltype(raw_parts_of<T>(std::make_index_sequence<std::tuple_size_v<T>>{}));
  static void put(Writer& out, const T& value) { Parts::put(out, value); }
  static void put(Writer& out, T&& value) { Parts::put(out, std::move(value)); }
  static T get(Reader& in) { return Parts::get(in); }
};

// Elements that are copied as memory.
template <class Vector>
struct RawBlock {
  using T = typename Vector::value_type;

  static void put(Writer& out, const Vector& value) {
    out.write(value.data(), value.size() * sizeof(T));
  }
  static void put(Writer& out, Vector&& value) {
    const std::size_t size = value.size() * sizeof(T);
    adopt_or_copy(out, std::move(value), size);
  }
  static Vector get(Reader& in) {
    const std::string_view bytes = in.rest();
    if (bytes.size() % sizeof(T) != 0)
      throw Error(Errc::bad_message, "bad message: " + std::to_string(bytes.size()) +
                                         " bytes are not a whole number of elements of " +
                                         std::to_string(sizeof(T)));
    const std::size_t count = bytes.size() / sizeof(T);
    // Aligned elements are copied without a default construction.
    if (count > 0 && reinterpret_cast<std::uintptr_t>(bytes.data()) % alignof(T) == 0) {
      const T* const first = static_cast<const T*>(static_cast<const void*>(bytes.data()));
      return Vector(first, first + count);
    }
    Vector value(count);
    if (count > 0) std::memcpy(value.data(), bytes.data(), bytes.size());
    return value;
  }
};

// Elements one after the other up to the end of the message.
template <class Vector>
struct RawElements {
  using T = typename Vector::value_type;

  static void put(Writer& out, const Vector& value) {
    for (const T& element : value) put_raw_part<T>(out, element);
  }
  static Vector get(Reader& in) {
    Vector value;
    while (in.remaining() > 0) value.push_back(get_raw_part<T>(in));
    return value;
  }
};

}  // namespace detail

template <class T, class A>
struct RawIo<std::vector<T, A>>
    : std::conditional_t<std::is_trivially_copyable_v<T>, detail::RawBlock<std::vector<T, A>>,
                         detail::RawElements<std::vector<T, A>>> {
  static_assert(!detail::is_view<T> && !std::is_same_v<T, bool>,
                "evparallel: RawIo takes no vector<bool>, and no vectors of pointers");
};

template <class A, class B>
struct RawIo<std::pair<A, B>> : detail::RawTuple<std::pair<A, B>> {};

template <class First, class... Rest>
struct RawIo<std::tuple<First, Rest...>> : detail::RawTuple<std::tuple<First, Rest...>> {};

template <class T, std::size_t n>
struct RawIo<std::array<T, n>>
    : std::conditional_t<std::is_trivially_copyable_v<std::array<T, n>>,
                         detail::RawMemory<std::array<T, n>>, detail::RawTuple<std::array<T, n>>> {
  static_assert(!detail::is_view<T>,
                "evparallel: a pointer means nothing in another process; send the value");
};

namespace detail {

// Template argument -> codec of T.
template <class Choice, class T>
struct Codec {
  using type = Choice;
};
template <class T>
struct Codec<DefaultIo, T> {
  using type = Io<T>;
};
template <class Choice, class T>
using codec_t = typename Codec<Choice, T>::type;

// `run<RawIo>`: a template named as codec.
template <template <class> class Choice>
struct TemplateIo {};
template <template <class> class Choice, class T>
struct Codec<TemplateIo<Choice>, T> {
  using type = Choice<T>;
};

template <class C, class T, class = void>
constexpr bool can_put = false;
template <class C, class T>
constexpr bool can_put<
    C, T, std::void_t<decltype(C::put(std::declval<Writer&>(), std::declval<const T&>()))>> = true;

template <class C, class T, class = void>
constexpr bool can_get = false;
template <class C, class T>
constexpr bool
    can_get<C, T, std::void_t<decltype(static_cast<T>(C::get(std::declval<Reader&>())))>> = true;

template <class T>
struct CheckedValue {
  static_assert(!is_view<T>,
                "evparallel: a pointer, string_view or reference_wrapper means nothing in another "
                "process; take or return the value itself, such as a std::string");
  using type = T;
};
template <class T>
using checked_value_t = typename CheckedValue<T>::type;

// The codec that a template argument chooses for T, if it is one.  Only the first error is
// reported.
template <class Choice, class T>
struct CheckedCodec {
  static constexpr bool is_named = !std::is_function_v<Choice>;
  static_assert(
      is_named,
      "evparallel: the template arguments of run and process are codecs; fn<Inc(Args...)>(f) "
      "names a signature");
  static constexpr bool fits() {
    if constexpr (is_named && !is_view<checked_value_t<T>>)
      return can_put<codec_t<Choice, T>, T> && can_get<codec_t<Choice, T>, T>;
    return true;
  }
  static_assert(fits(),
                "evparallel: this codec does not fit the type: it needs static void put(Writer&, "
                "const T&) and static T get(Reader&)");
  static constexpr bool usable = is_named && !is_view<T> && fits();
  using type = typename std::conditional_t<usable, Codec<Choice, T>, Codec<RefusedIo<T>, T>>::type;
};
template <class Choice>
struct CheckedCodec<Choice, void> {
  using type = void;
};
template <class Choice, class T>
using checked_codec_t = typename CheckedCodec<Choice, T>::type;

// A codec may throw anything; the result is always an Error{bad_message}, or Error{overloaded} if
// there was no memory.
[[noreturn]] EVPARALLEL_API void rethrow_as_bad_message(const char* verb);

template <class C, class T>
void encode(Writer& out, T&& value) {
  try {
    C::put(out, std::forward<T>(value));
  } catch (...) {
    rethrow_as_bad_message("encode");
  }
}

template <class C, class T, class = void>
constexpr bool can_refuse_deep = false;
template <class C, class T>
constexpr bool
    can_refuse_deep<C, T, std::void_t<decltype(C::refuse_deep(std::declval<const T&>()))>> = true;

// Called before a value is copied that may be deeper than the stack.
// Fails: Errc::bad_message if the codec sees that it will refuse the value.
template <class C, class T>
void refuse_deep(const T& value) {
  if constexpr (can_refuse_deep<C, T>)
    C::refuse_deep(value);
  else
    static_cast<void>(value);
}

template <class C, class T>
T decode(Reader& in) {
  try {
    T value = C::get(in);
    in.expect_end();
    return value;
  } catch (...) {
    rethrow_as_bad_message("decode");
  }
}

}  // namespace detail

}  // namespace evparallel
