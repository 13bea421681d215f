// packed_io.hpp - a binary codec for structs with EVPARALLEL_FIELDS and for the standard library.
// Licence: see COPYING.  Manual: evparallel_io(3).
//
// Numbers are as they are in memory, containers have their count in front of them, and a struct is
// its members one after the other.  One block of bytes, a string or a vector of numbers, may stand
// at the end of the message: the longest one, so that it is sent and received without a copy.
#pragma once

#include <evparallel/fd.hpp>
#include <evparallel/fields.hpp>
#include <evparallel/io.hpp>
#include <evparallel/shared_bytes.hpp>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <iterator>
#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace evparallel {

namespace detail {

// ---- messages ----

// The limit of structs and containers inside of one another: types may contain themselves.
constexpr std::size_t packed_depth_limit = 1000;

// All of these fail with Errc::bad_message.
[[noreturn]] EVPARALLEL_API void refuse_packed(const char* what);
[[noreturn]] EVPARALLEL_API void refuse_packed(const char* what, std::size_t offset);

// One level of the value that is being written or read.
class EVPARALLEL_API PackedLevel {
public:
  explicit PackedLevel(std::size_t& depth);
  ~PackedLevel() { --depth_; }
  PackedLevel(const PackedLevel&) = delete;
  PackedLevel& operator=(const PackedLevel&) = delete;

private:
  std::size_t& depth_;
};

// The longest block of a value.
struct PackedBlock {
  const void* object = nullptr;  // the string or vector; null: no block is long
  std::size_t size = adopt_threshold - 1;
};

class EVPARALLEL_API PackedWriter {
public:
  PackedWriter(Writer& out, const PackedBlock& longest) noexcept : out_(out), longest_(longest) {}
  PackedWriter(const PackedWriter&) = delete;
  PackedWriter& operator=(const PackedWriter&) = delete;

  Writer& message() noexcept { return out_; }
  std::size_t& depth() noexcept { return depth_; }
  void write(const void* data, std::size_t size) { out_.write(data, size); }
  void count(std::size_t count);

  // A string, or a vector whose elements are copied as memory.
  template <class Block>
  void block(Block&& block) {
    using Value = std::remove_cv_t<std::remove_reference_t<Block>>;
    const std::size_t size = block.size() * sizeof(typename Value::value_type);
    if (&block != longest_.object) {
      count(size);
      return write(block.data(), size);
    }
    last_block(size);
    if constexpr (std::is_lvalue_reference_v<Block>) {
      last_ = {bytes_of(block), size};
    } else {
      auto kept = std::make_shared<Value>(std::move(block));
      last_ = {bytes_of(*kept), size};
      owner_ = std::move(kept);
    }
  }
  // Writes the block that stands at the end.
  void finish();

private:
  template <class Block>
  static const char* bytes_of(const Block& block) noexcept {
    return static_cast<const char*>(static_cast<const void*>(block.data()));
  }
  void last_block(std::size_t size);

  Writer& out_;
  const PackedBlock longest_;
  std::size_t depth_ = 0;
  std::string_view last_;
  std::shared_ptr<const void> owner_;
};

class EVPARALLEL_API PackedReader {
public:
  explicit PackedReader(Reader& in) noexcept : in_(in) {}
  PackedReader(const PackedReader&) = delete;
  PackedReader& operator=(const PackedReader&) = delete;

  Reader& message() noexcept { return in_; }
  std::size_t& depth() noexcept { return depth_; }
  std::size_t remaining() const noexcept { return in_.remaining(); }
  void read(void* to, std::size_t size) { in_.read(to, size); }
  // The number of elements that have `least` bytes or more: the message is long enough for them.
  std::size_t count(std::size_t least);
  std::string string();
  // The bytes of a block; valid until the next call.
  std::string_view block();
  [[noreturn]] void refuse(const char* what) const { refuse_packed(what, in_.offset()); }

private:
  struct Size {
    std::size_t bytes;
    bool is_last;
  };
  Size block_size();

  Reader& in_;
  std::size_t depth_ = 0;
  bool has_last_ = false;
  std::string kept_;
};

// ---- which types ----

template <class T>
using field_types_t = decltype(evparallel_field_types(FieldsOf<T>{}));

template <class T, class = void>
constexpr bool has_fields = false;
template <class T>
constexpr bool has_fields<T, std::void_t<field_types_t<T>>> = true;

// A container of the standard library, or one like it.  A json value is an element of itself.
template <class T, class = void>
constexpr bool is_container = false;
template <class T>
constexpr bool is_container<T, std::void_t<typename T::allocator_type, typename T::value_type>> =
    !std::is_same_v<T, typename T::value_type>;

// Whether T has fields, or is a type of the standard library around one that has.
template <class T, class = void>
constexpr bool holds_fields = has_fields<T>;
template <class T>
constexpr bool
    holds_fields<T, std::enable_if_t<!std::is_const_v<T> && !has_fields<T> && is_container<T>>> =
        holds_fields<typename T::value_type>;
template <class T>
constexpr bool holds_fields<const T, void> = holds_fields<T>;
template <class T, std::size_t n>
constexpr bool holds_fields<std::array<T, n>, void> = holds_fields<T>;
template <class A, class B>
constexpr bool holds_fields<std::pair<A, B>, void> = holds_fields<A> || holds_fields<B>;
template <class... T>
constexpr bool holds_fields<std::tuple<T...>, void> = (holds_fields<T> || ...);
template <class T>
constexpr bool holds_fields<std::optional<T>, void> = holds_fields<T>;
template <class... T>
constexpr bool holds_fields<std::variant<T...>, void> = (holds_fields<T> || ...);

// Types whose bytes in memory are all of the value, and for which any bytes are a value: vectors of
// them are copied as a whole.
template <class T>
struct IsFlat : std::bool_constant<std::is_arithmetic_v<T> && !std::is_same_v<T, bool>> {};
template <class T>
constexpr bool is_flat() noexcept;

template <class T, class... Field>
constexpr bool has_flat_fields(FieldTypes<Field...>) noexcept {
  return (is_flat<Field>() && ...) && (sizeof(Field) + ... + 0) == sizeof(T);
}
template <class T>
constexpr bool is_flat() noexcept {
  if constexpr (std::is_enum_v<T>)
    return !std::is_same_v<std::underlying_type_t<T>, bool>;
  else if constexpr (std::is_array_v<T>)
    return is_flat<std::remove_all_extents_t<T>>();
  else if constexpr (!std::is_trivially_copyable_v<T> || std::is_const_v<T>)
    return false;
  else if constexpr (has_fields<T>)
    return has_flat_fields<T>(field_types_t<T>{});
  else
    return IsFlat<T>::value;
}
template <class T, std::size_t n>
struct IsFlat<std::array<T, n>> : std::bool_constant<n != 0 && is_flat<T>()> {};
template <class Rep, class Period>
struct IsFlat<std::chrono::duration<Rep, Period>> : std::bool_constant<is_flat<Rep>()> {};
template <class Clock, class Duration>
struct IsFlat<std::chrono::time_point<Clock, Duration>> : std::bool_constant<is_flat<Duration>()> {
};

template <class T>
constexpr bool is_block = false;
template <class C, class Traits, class A>
constexpr bool is_block<std::basic_string<C, Traits, A>> = is_flat<C>();
template <class T, class A>
constexpr bool is_block<std::vector<T, A>> = is_flat<T>();

template <class T, class = void>
constexpr bool is_path = false;
template <class T>
constexpr bool is_path<T, std::void_t<typename T::string_type, decltype(T::preferred_separator)>> =
    std::is_convertible_v<decltype(std::declval<const T&>().native()),
                          const typename T::string_type&>;

// ---- forms: how a type is written and read ----

// least(): the bytes that any value has.  put(out, value): moves from an rvalue.  get(in).
// each(value, f), if there is one: calls f for each part, for which the longest block may be looked
// for.
template <class T, class = void>
struct PackedForm {
  static_assert(!std::is_pointer_v<T> && !std::is_member_pointer_v<T> && !std::is_reference_v<T>,
                "evparallel: a pointer or reference means nothing in another process; send the "
                "value");
  static_assert(std::is_pointer_v<T> || std::is_member_pointer_v<T> || std::is_reference_v<T>,
                "evparallel: PackedIo does not take this type: give it EVPARALLEL_FIELDS(Type, "
                "member, ...) in its namespace, or name another codec");
  // After that error, no others.
  static constexpr std::size_t least() noexcept { return 1; }
  template <class Value>
  static void put(PackedWriter&, Value&&);
  static T get(PackedReader&);
};

template <class T>
using PackedFormOf = PackedForm<std::remove_cv_t<T>>;

// A part of a value that is moved in is moved, too.
template <class Whole, class Part>
decltype(auto) part_of(Part& part) noexcept {
  if constexpr (std::is_lvalue_reference_v<Whole>)
    return part;
  else
    return std::move(part);
}

// Writes a part of a value.
struct PutPackedPart {
  PackedWriter& out;
  template <class Part>
  void operator()(Part&& part) const {
    PackedFormOf<std::remove_reference_t<Part>>::put(out, std::forward<Part>(part));
  }
};

// Reads a member or an element, which may be a C array.
template <class T>
void get_packed_to(PackedReader& in, T& value) {
  if constexpr (std::is_array_v<T>)
    PackedForm<T>::get_to(in, value);
  else
    value = PackedFormOf<T>::get(in);
}

template <class T>
struct PackedMemory {
  static constexpr std::size_t least() noexcept { return sizeof(T); }
  static void put(PackedWriter& out, const T& value) { RawMemory<T>::put(out.message(), value); }
  static T get(PackedReader& in) { return RawMemory<T>::get(in.message()); }
};

template <class T>
struct PackedForm<T, std::enable_if_t<is_flat<T>() && !std::is_array_v<T>>> : PackedMemory<T> {};

template <>
struct PackedForm<bool> {
  static constexpr std::size_t least() noexcept { return 1; }
  static void put(PackedWriter& out, bool value) { out.write(value ? "\1" : "\0", 1); }
  static bool get(PackedReader& in) {
    char byte;
    in.read(&byte, 1);
    if (byte != 0 && byte != 1) in.refuse("a bool is neither 0 nor 1");
    return byte == 1;
  }
};

template <class T>
struct PackedForm<T, std::enable_if_t<std::is_enum_v<T> && !is_flat<T>()>> : PackedForm<bool> {
  static void put(PackedWriter& out, T value) {
    PackedForm<bool>::put(out, static_cast<bool>(value));
  }
  static T get(PackedReader& in) { return static_cast<T>(PackedForm<bool>::get(in)); }
};

// Reads elements from bytes that are not aligned for them.
template <class T>
class UnalignedIterator {
public:
  using iterator_category = std::forward_iterator_tag;
  using value_type = T;
  using difference_type = std::ptrdiff_t;
  using pointer = const T*;
  using reference = T;

  explicit UnalignedIterator(const char* at) noexcept : at_(at) {}
  T operator*() const noexcept {
    std::aligned_storage_t<sizeof(T), alignof(T)> storage;
    std::memcpy(&storage, at_, sizeof storage);
    return *std::launder(reinterpret_cast<T*>(&storage));
  }
  UnalignedIterator& operator++() noexcept {
    at_ += sizeof(T);
    return *this;
  }
  UnalignedIterator operator++(int) noexcept {
    const UnalignedIterator before = *this;
    ++*this;
    return before;
  }
  bool operator==(const UnalignedIterator& other) const noexcept { return at_ == other.at_; }
  bool operator!=(const UnalignedIterator& other) const noexcept { return at_ != other.at_; }

private:
  const char* at_;
};

// Without a default construction of the elements.
template <class Block>
Block block_of(std::string_view bytes) {
  using T = typename Block::value_type;
  if (bytes.empty()) return Block();
  if (reinterpret_cast<std::uintptr_t>(bytes.data()) % alignof(T) != 0)
    return Block(UnalignedIterator<T>(bytes.data()),
                 UnalignedIterator<T>(bytes.data() + bytes.size()));
  const T* const first = static_cast<const T*>(static_cast<const void*>(bytes.data()));
  return Block(first, first + bytes.size() / sizeof(T));
}

template <class T>
struct PackedForm<T, std::enable_if_t<is_block<T>>> {
  static constexpr std::size_t least() noexcept { return sizeof(std::uint64_t); }
  template <class Value>
  static void put(PackedWriter& out, Value&& value) {
    out.block(std::forward<Value>(value));
  }
  static T get(PackedReader& in) {
    if constexpr (std::is_same_v<T, std::string>) {
      return in.string();
    } else {
      const std::string_view bytes = in.block();
      if (bytes.size() % sizeof(typename T::value_type) != 0)
        in.refuse("a block is not a whole number of elements");
      return block_of<T>(bytes);
    }
  }
};

template <class T>
struct PackedForm<T, std::enable_if_t<is_path<T>>> {
  using String = std::remove_cv_t<typename T::string_type>;
  static constexpr std::size_t least() noexcept { return PackedForm<String>::least(); }
  static void put(PackedWriter& out, const T& value) {
    PackedForm<String>::put(out, value.native());
  }
  static T get(PackedReader& in) { return T(PackedForm<String>::get(in)); }
};

// An element has at least one byte, so that a message is as long as the count says.
template <class T>
struct PackedElement {
  using Form = PackedFormOf<T>;
  static constexpr bool is_empty() noexcept { return Form::least() == 0; }
  static constexpr std::size_t least() noexcept { return is_empty() ? 1 : Form::least(); }
  template <class Value>
  static void put(PackedWriter& out, Value&& value) {
    if (is_empty()) out.write("\0", 1);
    Form::put(out, std::forward<Value>(value));
  }
  static std::remove_cv_t<T> get(PackedReader& in) {
    if (is_empty() && in.message().take_byte() != 0) in.refuse("an empty element is not 0");
    return Form::get(in);
  }
};

// The element of a map has a constant key.
template <class T>
struct PackedMutable {
  using type = T;
};
template <class A, class B>
struct PackedMutable<std::pair<const A, B>> {
  using type = std::pair<A, B>;
};

template <class T, class = void>
constexpr bool has_push_back = false;
template <class T>
constexpr bool has_push_back<T, std::void_t<decltype(std::declval<T&>().push_back(
                                    std::declval<typename T::value_type>()))>> = true;
template <class T, class = void>
constexpr bool has_reserve = false;
template <class T>
constexpr bool has_reserve<T, std::void_t<decltype(std::declval<T&>().reserve(std::size_t{}))>> =
    true;

template <class T>
struct PackedForm<T, std::enable_if_t<is_container<T> && !is_block<T> && !has_fields<T>>> {
  using Element = typename PackedMutable<typename T::value_type>::type;

  static constexpr std::size_t least() noexcept { return sizeof(std::uint64_t); }

  template <class Value>
  static void put(PackedWriter& out, Value&& value) {
    const PackedLevel level(out.depth());
    out.count(value.size());
    for (auto&& element : value) {
      if constexpr (std::is_same_v<Element, bool>)
        PackedForm<bool>::put(out, element);
      else if constexpr (std::is_same_v<Element, typename T::value_type>)
        PackedElement<Element>::put(out, part_of<Value>(element));
      else
        PackedElement<typename T::value_type>::put(out, element);
    }
  }

  static T get(PackedReader& in) {
    const PackedLevel level(in.depth());
    const std::size_t count = in.count(PackedElement<Element>::least());
    T value;
    // An element may be much larger than its bytes.
    if constexpr (has_reserve<T>) {
      const std::size_t most = in.remaining() / sizeof(Element);
      value.reserve(count < most ? count : most);
    }
    for (std::size_t i = 0; i < count; ++i) {
      if constexpr (has_push_back<T>)
        value.push_back(PackedElement<Element>::get(in));
      else
        value.insert(PackedElement<Element>::get(in));
    }
    if (value.size() != count) in.refuse("a set or map has a key twice");
    return value;
  }
};

template <class T, std::size_t n>
struct PackedForm<std::array<T, n>, std::enable_if_t<!is_flat<std::array<T, n>>()>> {
  static constexpr std::size_t least() noexcept { return n * PackedFormOf<T>::least(); }
  template <class Value, class Visit>
  static void each(Value&& value, const Visit& visit) {
    for (auto& element : value) visit(part_of<Value>(element));
  }
  template <class Value>
  static void put(PackedWriter& out, Value&& value) {
    each(std::forward<Value>(value), PutPackedPart{out});
  }
  static std::array<T, n> get(PackedReader& in) {
    if constexpr (std::is_default_constructible_v<T> && std::is_move_assignable_v<T>) {
      std::array<T, n> value{};
      for (auto& element : value) element = PackedFormOf<T>::get(in);
      return value;
    } else {
      return get_each(in, std::make_index_sequence<n>{});
    }
  }

private:
  template <std::size_t... i>
  static std::array<T, n> get_each(PackedReader& in, std::index_sequence<i...>) {
    return {{(static_cast<void>(i), PackedFormOf<T>::get(in))...}};
  }
};

// A member that is a C array.
template <class T, std::size_t n>
struct PackedForm<T[n]> {
  static constexpr std::size_t least() noexcept { return n * PackedFormOf<T>::least(); }
  template <class Value>
  static void put(PackedWriter& out, Value&& value) {
    for (auto& element : value) PackedFormOf<T>::put(out, part_of<Value>(element));
  }
  static void get_to(PackedReader& in, T (&value)[n]) {
    for (T& element : value) get_packed_to(in, element);
  }
};

template <class T, class... Part>
struct PackedTuple {
  static constexpr std::size_t least() noexcept { return (PackedFormOf<Part>::least() + ... + 0); }
  template <class Value, class Visit>
  static void each(Value&& value, const Visit& visit) {
    std::apply([&visit](auto&... part) { (visit(part_of<Value>(part)), ...); }, value);
  }
  template <class Value>
  static void put(PackedWriter& out, Value&& value) {
    each(std::forward<Value>(value), PutPackedPart{out});
  }
  // Braces: evaluated from left to right.
  static T get([[maybe_unused]] PackedReader& in) { return T{PackedFormOf<Part>::get(in)...}; }
};
template <class A, class B>
struct PackedForm<std::pair<A, B>> : PackedTuple<std::pair<A, B>, A, B> {};
template <class... T>
struct PackedForm<std::tuple<T...>> : PackedTuple<std::tuple<T...>, T...> {};

template <class T>
struct PackedForm<std::optional<T>> {
  static constexpr std::size_t least() noexcept { return 1; }
  template <class Value, class Visit>
  static void each(Value&& value, const Visit& visit) {
    if (value) visit(part_of<Value>(*value));
  }
  template <class Value>
  static void put(PackedWriter& out, Value&& value) {
    PackedForm<bool>::put(out, value.has_value());
    each(std::forward<Value>(value), PutPackedPart{out});
  }
  static std::optional<T> get(PackedReader& in) {
    if (!PackedForm<bool>::get(in)) return std::nullopt;
    return std::optional<T>(std::in_place, PackedFormOf<T>::get(in));
  }
};

template <>
struct PackedForm<std::monostate> {
  static constexpr std::size_t least() noexcept { return 0; }
  static void put(PackedWriter&, std::monostate) {}
  static std::monostate get(PackedReader&) { return {}; }
};

template <class... T>
struct PackedForm<std::variant<T...>> {
  using Variant = std::variant<T...>;
  using Index = std::uint16_t;
  static_assert(sizeof...(T) <= std::numeric_limits<Index>::max());

  static constexpr std::size_t least() noexcept { return sizeof(Index); }
  template <class Value, class Visit>
  static void each(Value&& value, const Visit& visit) {
    if (!value.valueless_by_exception())
      std::visit([&visit](auto& part) { visit(part_of<Value>(part)); }, value);
  }
  template <class Value>
  static void put(PackedWriter& out, Value&& value) {
    if (value.valueless_by_exception()) refuse_packed("a variant has no value");
    PackedForm<Index>::put(out, static_cast<Index>(value.index()));
    each(std::forward<Value>(value), PutPackedPart{out});
  }
  static Variant get(PackedReader& in) {
    const Index index = PackedForm<Index>::get(in);
    if (index >= sizeof...(T)) in.refuse("the index of a variant names none of its alternatives");
    return pick(in, index, std::index_sequence_for<T...>{});
  }

private:
  template <std::size_t... i>
  static Variant pick(PackedReader& in, std::size_t index, std::index_sequence<i...>) {
    using Make = Variant (*)(PackedReader&);
    static constexpr Make make[] = {&alternative<i>...};
    return make[index](in);
  }
  template <std::size_t i>
  static Variant alternative(PackedReader& in) {
    return Variant(std::in_place_index<i>,
                   PackedFormOf<std::variant_alternative_t<i, Variant>>::get(in));
  }
};

// A count that is no plain number.
template <class Rep, class Period>
struct PackedForm<std::chrono::duration<Rep, Period>,
                  std::enable_if_t<!is_flat<std::chrono::duration<Rep, Period>>()>> {
  using Duration = std::chrono::duration<Rep, Period>;
  static constexpr std::size_t least() noexcept { return PackedFormOf<Rep>::least(); }
  static void put(PackedWriter& out, const Duration& value) {
    PackedFormOf<Rep>::put(out, value.count());
  }
  static Duration get(PackedReader& in) { return Duration(PackedFormOf<Rep>::get(in)); }
};
template <class Clock, class Duration>
struct PackedForm<std::chrono::time_point<Clock, Duration>,
                  std::enable_if_t<!is_flat<std::chrono::time_point<Clock, Duration>>()>> {
  using TimePoint = std::chrono::time_point<Clock, Duration>;
  static constexpr std::size_t least() noexcept { return PackedForm<Duration>::least(); }
  static void put(PackedWriter& out, const TimePoint& value) {
    PackedForm<Duration>::put(out, value.time_since_epoch());
  }
  static TimePoint get(PackedReader& in) { return TimePoint(PackedForm<Duration>::get(in)); }
};

// The index of a descriptor.
template <>
struct PackedForm<Fd> : PackedForm<std::uint32_t> {
  using Index = PackedForm<std::uint32_t>;
  template <class Value>
  static void put(PackedWriter& out, Value&& fd) {
    Index::put(out, static_cast<std::uint32_t>(attach(out.message(), std::forward<Value>(fd))));
  }
  static Fd get(PackedReader& in) { return Fd(in.message().take_descriptor(Index::get(in))); }
};
template <>
struct PackedForm<SharedBytes> : PackedForm<std::uint32_t> {
  static void put(PackedWriter& out, const SharedBytes& bytes) {
    PackedForm<std::uint32_t>::put(out, static_cast<std::uint32_t>(bytes.attach_to(out.message())));
  }
  static SharedBytes get(PackedReader& in) {
    return SharedBytes::from_memfd(PackedForm<Fd>::get(in));
  }
};

// ---- structs with EVPARALLEL_FIELDS ----

template <class T>
constexpr bool can_assign_field =
    !std::is_const_v<T> && std::is_move_assignable_v<std::remove_all_extents_t<T>>;

// Whether T{fields...} has a further member.
template <class Void, class T, class... Field>
constexpr bool takes_fields = false;
template <class T, class... Field>
constexpr bool takes_fields<std::void_t<decltype(T{std::declval<Field>()...})>, T, Field...> = true;
template <class Void, class T, class... Field>
constexpr bool takes_one_more = false;
template <class T, class... Field>
constexpr bool takes_one_more<std::void_t<decltype(T{std::declval<Field>()..., {}})>, T, Field...> =
    true;

// Members that are given out of order would get the values of others.
template <class T>
void check_field_order(T& value) {
  const void* last = nullptr;
  bool ascends = true;
  const auto compare = [&](const void* field) {
    ascends = ascends && (!last || std::less<const void*>()(last, field));
    last = field;
  };
  evparallel_visit_fields(FieldsOf<T>{}, value,
                          [&](auto&... field) { (compare(std::addressof(field)), ...); });
  if (!ascends)
    throw std::logic_error(
        "evparallel: EVPARALLEL_FIELDS of a type without a default constructor must list the "
        "members in the order of their declaration");
}

template <class T, class Types = field_types_t<T>>
struct PackedStruct;
template <class T, class... Field>
struct PackedStruct<T, FieldTypes<Field...>> {
  static_assert(!(std::is_reference_v<Field> || ...),
                "evparallel: a pointer or reference means nothing in another process; send the "
                "value");
  static constexpr bool is_assigned =
      std::is_default_constructible_v<T> && (can_assign_field<Field> && ...);
  static constexpr bool is_braced =
      !is_assigned && std::is_aggregate_v<T> && takes_fields<void, T, Field...>;
  static constexpr bool is_constructed =
      !is_assigned && !is_braced && std::is_constructible_v<T, Field...>;
  static_assert(is_assigned || is_braced || is_constructed,
                "evparallel: this type cannot be made of its EVPARALLEL_FIELDS: it needs a public "
                "default constructor and members that can be assigned, or a public constructor "
                "that takes the fields in this order");
  static_assert(!is_braced || !takes_one_more<void, T, Field...>,
                "evparallel: EVPARALLEL_FIELDS of a type without a default constructor must list "
                "all members");

  static constexpr std::size_t least() noexcept {
    return (PackedFormOf<Field>::least() + ... + std::size_t{0});
  }

  template <class Value, class Visit>
  static void each(Value&& value, const Visit& visit) {
    evparallel_visit_fields(FieldsOf<T>{}, value, [&visit](auto&... field) {
      (static_cast<void>(visit), ..., visit(part_of<Value>(field)));
    });
  }

  template <class Value>
  static void put(PackedWriter& out, Value&& value) {
    const PackedLevel level(out.depth());
    each(std::forward<Value>(value), PutPackedPart{out});
  }

  static T get(PackedReader& in) {
    const PackedLevel level(in.depth());
    if constexpr (is_assigned) {
      T value{};
      evparallel_visit_fields(FieldsOf<T>{}, value,
                              [&in](auto&... field) { (get_packed_to(in, field), ...); });
      return value;
    } else if constexpr (is_braced) {
      T value{PackedFormOf<Field>::get(in)...};
      check_field_order(value);
      return value;
    } else {
      // Braces: evaluated from left to right.
      return std::make_from_tuple<T>(
          std::tuple<std::remove_cv_t<Field>...>{PackedFormOf<Field>::get(in)...});
    }
  }
};

template <class T>
struct PackedForm<T, std::enable_if_t<has_fields<T> && !is_flat<T>()>> : PackedStruct<T> {};

// ---- a whole value ----

struct AnyVisit {
  template <class Part>
  void operator()(const Part&) const noexcept {}
};
template <class T, class = void>
constexpr bool has_packed_parts = false;
template <class T>
constexpr bool has_packed_parts<
    T, std::void_t<decltype(PackedForm<T>::each(std::declval<const T&>(), AnyVisit{}))>> = true;

// Elements of containers are not looked at.
template <class T>
void find_longest(const T& value, PackedBlock& longest) {
  if constexpr (is_block<T>) {
    const std::size_t size = value.size() * sizeof(typename T::value_type);
    if (size > longest.size) longest = {&value, size};
  } else if constexpr (has_packed_parts<T>) {
    PackedForm<T>::each(value, [&longest](const auto& part) { find_longest(part, longest); });
  }
}

template <class T, class Value>
void put_packed(Writer& out, Value&& value) {
  PackedBlock longest;
  find_longest<T>(value, longest);
  const std::size_t before = out.written().size();
  try {
    PackedWriter packed(out, longest);
    PackedForm<T>::put(packed, std::forward<Value>(value));
    packed.finish();
  } catch (...) {
    out.bytes().resize(before);  // all or nothing
    throw;
  }
}

}  // namespace detail

// Any bytes and numbers, in the form that they have in memory, for types with EVPARALLEL_FIELDS,
// numbers, enumerations, strings, paths, durations, time points, Fd, SharedBytes, and containers,
// pairs, tuples, optionals and variants of what it takes.
template <class T>
struct PackedIo {
  static void put(Writer& out, const T& value) { detail::put_packed<T>(out, value); }
  static void put(Writer& out, T&& value) { detail::put_packed<T>(out, std::move(value)); }
  static T get(Reader& in) {
    detail::PackedReader packed(in);
    return detail::PackedForm<T>::get(packed);
  }
};

namespace detail {

template <class T>
struct DefaultCodec<T, std::enable_if_t<holds_fields<T>>> : PackedIo<T> {};

}  // namespace detail

}  // namespace evparallel
