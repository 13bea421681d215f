// arguments.hpp - the arguments of one call as one message.
// Licence: see COPYING.
//
// One argument is the message of its codec.  Of several, each is a message of its own: first come
// their lengths, then their bytes in order, except that one of them, mostly the longest, stands at
// the end.  So that one is sent from where it is, and received without a copy, if its codec can do
// that.
#pragma once

#include <evparallel/io.hpp>

#include <cstddef>
#include <optional>
#include <tuple>
#include <utility>

namespace evparallel {

namespace detail {

// Writes the messages of `count` arguments as one.  The descriptors of all are those of the last
// one: see Writer::take_attached().
EVPARALLEL_API void join_arguments(Writer& out, Writer* parts, std::size_t count);

// Reads the lengths of `count` arguments; returns the index of the one that stands at the end.
// Fails: Errc::bad_message if they are not those of this message.
EVPARALLEL_API std::size_t read_argument_lengths(Reader& in, std::size_t* lengths,
                                                 std::size_t count);

// The codec of arguments of these types: `Choice` is that of each.
template <class Choice, class... Args>
class Arguments {
  static constexpr std::size_t count = sizeof...(Args);
  using Values = std::tuple<std::optional<Args>...>;

public:
  static void put_copy(Writer& out, const Args&... values) { put(out, values...); }
  static void put_moved(Writer& out, Args&&... values) { put(out, std::move(values)...); }

  // Reads the arguments and passes them to `function`, which may move from them.
  template <class Function>
  static void apply(Reader& in, Function&& function) {
    if constexpr (count == 0) {
      in.expect_end();
      function();
    } else if constexpr (count == 1) {
      apply_one<Args...>(in, function);
    } else {
      Values values;
      get(in, values, std::index_sequence_for<Args...>{});
      std::apply([&](auto&... value) { function(std::move(*value)...); }, values);
    }
  }

private:
  template <class... Given>
  static void put(Writer& out, Given&&... values) {
    if constexpr (count == 1) {
      (encode<checked_codec_t<Choice, Args>>(out, std::forward<Given>(values)), ...);
    } else if constexpr (count > 1) {
      Writer parts[count];
      Writer* next = parts;
      (put_part<checked_codec_t<Choice, Args>>(next, next == parts, std::forward<Given>(values)),
       ...);
      join_arguments(out, parts, count);
    } else {
      static_cast<void>(out);
    }
  }
  template <class Codec, class Value>
  static void put_part(Writer*& next, bool is_first, Value&& value) {
    if (!is_first) next->take_attached(next[-1]);
    encode<Codec>(*next++, std::forward<Value>(value));
  }

  template <class Arg, class Function>
  static void apply_one(Reader& in, Function& function) {
    auto argument = decode<checked_codec_t<Choice, Arg>, Arg>(in);
    function(std::move(argument));
  }

  // The last one is read last: it may take the memory of the message.
  template <std::size_t... i>
  static void get(Reader& in, Values& values, std::index_sequence<i...>) {
    std::size_t lengths[count];
    const std::size_t last = read_argument_lengths(in, lengths, count);
    (get_part<i>(in, values, lengths[i], last == i), ...);
    (get_last<i>(in, values, last == i), ...);
  }
  template <std::size_t i>
  static void get_part(Reader& in, Values& values, std::size_t length, bool is_last) {
    if (is_last) return;
    Reader part = in.take_part(length);
    get_value<i>(part, values);
  }
  template <std::size_t i>
  static void get_last(Reader& in, Values& values, bool is_last) {
    if (is_last) get_value<i>(in, values);
  }
  template <std::size_t i>
  static void get_value(Reader& in, Values& values) {
    using Arg = std::tuple_element_t<i, std::tuple<Args...>>;
    std::get<i>(values).emplace(decode<checked_codec_t<Choice, Arg>, Arg>(in));
  }
};

}  // namespace detail

}  // namespace evparallel
