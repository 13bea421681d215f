// callable.hpp - which callables can be sent to a child, and how.
// Licence: see COPYING.  Manual: evparallel_run(3).
//
// A callable is sent as its bytes if it can be copied byte by byte; bind() sends other values
// through their codecs.  For each kind of callable that cannot be sent, one message says what to do
// instead.
#pragma once

#include <evparallel/io.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <new>
#include <tuple>
#include <type_traits>
#include <utility>

namespace evparallel {

template <class Inc>
class Reply;
template <class T>
class Task;  // a coroutine: see coroutine.hpp

namespace detail {

template <class... T>
struct Types {
  static constexpr std::size_t size = sizeof...(T);
};

// ---- the signature of a callable ----

template <class F>
struct FunctionType {};
template <class R, class... A>
struct FunctionType<R (*)(A...)> {
  using result = R;
  using parameters = Types<A...>;
};
template <class R, class... A>
struct FunctionType<R (*)(A...) noexcept> : FunctionType<R (*)(A...)> {};
template <class C, class R, class... A>
struct FunctionType<R (C::*)(A...)> : FunctionType<R (*)(A...)> {};
template <class C, class R, class... A>
struct FunctionType<R (C::*)(A...) const> : FunctionType<R (*)(A...)> {};
template <class C, class R, class... A>
struct FunctionType<R (C::*)(A...) noexcept> : FunctionType<R (*)(A...)> {};
template <class C, class R, class... A>
struct FunctionType<R (C::*)(A...) const noexcept> : FunctionType<R (*)(A...)> {};

template <class F, class = void>
constexpr bool has_one_call_operator = false;
template <class F>
constexpr bool has_one_call_operator<F, std::void_t<decltype(&F::operator())>> = true;

template <class F>
constexpr bool is_function_pointer =
    std::is_pointer_v<F>&& std::is_function_v<std::remove_pointer_t<F>>;

template <class F>
struct Signature {
  static_assert(
      !std::is_member_pointer_v<F>,
      "evparallel: a member function has no object in the child; pass a lambda that creates one");
  static_assert(is_function_pointer<F> || std::is_class_v<F> || std::is_member_pointer_v<F>,
                "evparallel: this is not a function");
  static_assert(!std::is_class_v<F> || has_one_call_operator<F>,
                "evparallel: a generic lambda or an overloaded call operator has many signatures; "
                "name one with "
                "fn<Inc(Args...)>(f)");
  template <class G, class = void>
  struct Of : FunctionType<G> {};
  template <class G>
  struct Of<G, std::enable_if_t<has_one_call_operator<G>>>
      : FunctionType<decltype(&G::operator())> {};
  using result = typename Of<F>::result;
  using parameters = typename Of<F>::parameters;
};

// ---- callables that carry more than their type ----

template <class Sig, class F>
struct Fn;
template <class F, class R, class... A>
struct Fn<R(A...), F> {
  F f;
  R operator()(A... arguments) { return f(std::forward<A>(arguments)...); }
};

template <class F>
struct AsIs {
  F f;
  template <class... A>
  decltype(auto) operator()(A&&... arguments) {
    return f(std::forward<A>(arguments)...);
  }
};
template <class F>
struct Signature<AsIs<F>> : Signature<F> {};

template <class F, class... Bound>
struct Bind {
  F f;
  std::tuple<Bound...> bound;
  template <class... A>
  decltype(auto) operator()(A&&... arguments) {
    return std::apply(
        [&](Bound&... b) -> decltype(auto) { return f(b..., std::forward<A>(arguments)...); },
        bound);
  }
};

template <std::size_t n, class T>
struct Drop {
  using type = T;
};
template <std::size_t n, class First, class... Rest>
struct Drop<n, Types<First, Rest...>> {
  using type = std::conditional_t<n == 0, Types<First, Rest...>,
                                  typename Drop<(n == 0 ? 0 : n - 1), Types<Rest...>>::type>;
};

template <class F, class... Bound>
struct Signature<Bind<F, Bound...>> {
  using result = typename Signature<F>::result;
  using parameters = typename Drop<sizeof...(Bound), typename Signature<F>::parameters>::type;
};

// ---- valid arguments and answers ----

template <class T>
constexpr bool is_reply = false;
template <class Inc>
constexpr bool is_reply<Reply<Inc>> = true;

template <class P>
struct Parameter {
  static_assert(!std::is_lvalue_reference_v<P> || std::is_const_v<std::remove_reference_t<P>>,
                "evparallel: a task cannot write into its caller's variable; take the argument by "
                "value or by const&, "
                "and return the new value");
  static_assert(!is_reply<std::decay_t<P>>,
                "evparallel: a task takes one Reply<Inc>, as its last parameter");
  using type = std::decay_t<P>;
};

// ---- the shape of a remote function ----

// Parameters, divided into the arguments and a Reply that may follow them.
template <class Arguments, class Parameters>
struct SplitReply;
template <class... Args>
struct SplitReply<Types<Args...>, Types<>> {
  using arguments = Types<Args...>;
  using reply = void;
};
template <class... Args, class P, class... Rest>
struct SplitReply<Types<Args...>, Types<P, Rest...>>
    : SplitReply<Types<Args..., typename Parameter<P>::type>, Types<Rest...>> {};
template <class... Args, class Inc>
struct SplitReply<Types<Args...>, Types<Reply<Inc>>> {
  using arguments = Types<Args...>;
  using reply = Reply<Inc>;
};
template <class... Args, class Inc>
struct SplitReply<Types<Args...>, Types<const Reply<Inc>&>>
    : SplitReply<Types<Args...>, Types<Reply<Inc>>> {};

template <class R, class Reply>
struct Answered {
  static_assert(!std::is_same_v<Reply, Reply>,
                "evparallel: a task that takes a Reply<Inc> returns void");
};
template <class R>
struct Answered<R, void> {
  using Inc = std::decay_t<R>;
};
template <class I>
struct Answered<void, Reply<I>> {
  using Inc = I;
};

// A coroutine answers when it ends.
template <class I>
struct Answered<evparallel::Task<I>, void> {
  using Inc = I;
};

template <class R>
constexpr bool is_coroutine = false;
template <class T>
constexpr bool is_coroutine<evparallel::Task<T>> = true;

// The entries of a task that is a coroutine; coroutine.hpp has the specialisation.
template <class Result>
struct CoroutineEntry {
  static_assert(always_false<Result>,
                "evparallel: a function that returns a Task needs #include "
                "<evparallel/coroutine.hpp>");
};

template <class Inc, class Arguments>
struct SignatureOf;
template <class Inc, class... Args>
struct SignatureOf<Inc, Types<Args...>> {
  using type = Inc(Args...);
};

template <class F>
struct Shape {
  using Split = SplitReply<Types<>, typename Signature<F>::parameters>;
  using Args = typename Split::arguments;
  using Inc = typename Answered<typename Signature<F>::result, typename Split::reply>::Inc;
  using signature = typename SignatureOf<Inc, Args>::type;
  using Result = typename Signature<F>::result;
  static constexpr bool replies_later =
      !std::is_void_v<typename Split::reply> || is_coroutine<Result>;
};

// ---- how a callable is sent ----

// What the bytes between the members of an object hold.
enum class Padding : bool { zeros, stale };

// Fails: std::logic_error if one of the words in these bytes points into the stack of this thread.
// Where padding is stale, half of a word may be left from an address, and the other half a number:
// only addresses in the frames that are active count then.
EVPARALLEL_API void check_captures(const void* bytes, std::size_t size, Padding padding);

using AnyFunction = void (*)();

// The functions that a task calls by their addresses.  with_state() has two, and Options::on_start
// adds three; there is no allocation, because each run() makes one list.
class FunctionList {
public:
  // Fails: std::out_of_range if it is full.
  void add(AnyFunction function) { all_.at(size_++) = function; }
  const AnyFunction* begin() const noexcept { return all_.data(); }
  const AnyFunction* end() const noexcept { return all_.data() + size_; }
  friend bool operator==(const FunctionList& one, const FunctionList& other) noexcept {
    return one.size_ == other.size_ && one.all_ == other.all_;
  }

private:
  std::array<AnyFunction, 5> all_{};
  std::size_t size_ = 0;
};

// Padding must not be taken for an address.  Not all compilers can clear it (clang 14 cannot).
template <class F>
Padding clear_padding(F* f) {
  static_cast<void>(f);
#if defined __has_builtin
#if __has_builtin(__builtin_clear_padding)
  if constexpr (std::is_trivially_copyable_v<F>) {
    __builtin_clear_padding(f);
    return Padding::zeros;
  }
#endif
#endif
  return std::has_unique_object_representations_v<F> ? Padding::zeros : Padding::stale;
}

template <class F>
struct CallableCodec {
  static_assert(std::is_trivially_copy_constructible_v<F> && std::is_trivially_destructible_v<F>,
                "evparallel: this callable captures something that cannot be copied byte by byte "
                "(a string, a vector, "
                "a std::function, ...); pass it with bind(f, args...), which sends the arguments "
                "through their codecs");
  static constexpr std::size_t size = std::is_empty_v<F> ? 0 : sizeof(F);

  // `checked`: looks for captured references to the stack.
  static void serialize(Writer& out, const F& f, bool checked = true) {
    if constexpr (size > 0) {
      alignas(F) unsigned char bytes[sizeof(F)];
      F* copy = new (bytes) F(f);
      const Padding padding = clear_padding(copy);
      if (checked) check_captures(bytes, size, padding);
      out.write(bytes, size);
    }
  }

  static F deserialize(Reader& in) {
    alignas(F) unsigned char bytes[sizeof(F)] = {};
    if constexpr (size > 0) in.read(bytes, size);
    return *std::launder(reinterpret_cast<F*>(bytes));
  }

  // Appends the functions that f points to, if f is, or wraps, a pointer to a function.
  static void functions(const F& f, FunctionList& all) {
    if constexpr (is_function_pointer<F>) all.add(reinterpret_cast<AnyFunction>(f));
    static_cast<void>(f);
    static_cast<void>(all);
  }
};

template <class F>
struct CallableCodec<AsIs<F>> {
  static void serialize(Writer& out, const AsIs<F>& f, bool = false) {
    CallableCodec<F>::serialize(out, f.f, false);
  }
  static AsIs<F> deserialize(Reader& in) { return {CallableCodec<F>::deserialize(in)}; }
  static void functions(const AsIs<F>& f, FunctionList& all) {
    CallableCodec<F>::functions(f.f, all);
  }
};

template <class R, class... A, class F>
struct CallableCodec<Fn<R(A...), F>> {
  static void serialize(Writer& out, const Fn<R(A...), F>& f, bool checked = true) {
    CallableCodec<F>::serialize(out, f.f, checked);
  }
  static Fn<R(A...), F> deserialize(Reader& in) { return {CallableCodec<F>::deserialize(in)}; }
  static void functions(const Fn<R(A...), F>& f, FunctionList& all) {
    CallableCodec<F>::functions(f.f, all);
  }
};

// Each bound argument is a message of its own: its length, then the output of its codec.
template <class F, class... Bound>
struct CallableCodec<Bind<F, Bound...>> {
  static void serialize(Writer& out, const Bind<F, Bound...>& task, bool checked = true) {
    CallableCodec<F>::serialize(out, task.f, checked);
    std::apply([&](const Bound&... bound) { (freeze_one(out, bound), ...); }, task.bound);
  }
  static Bind<F, Bound...> deserialize(Reader& in) {
    F f = CallableCodec<F>::deserialize(in);
    // Braces: evaluated from left to right.
    return Bind<F, Bound...>{std::move(f), std::tuple<Bound...>{deserialize_one<Bound>(in)...}};
  }
  static void functions(const Bind<F, Bound...>& task, FunctionList& all) {
    CallableCodec<F>::functions(task.f, all);
  }

private:
  template <class T>
  static void freeze_one(Writer& out, const T& value) {
    Writer one;
    encode<checked_codec_t<DefaultIo, T>>(one, value);
    if (one.attached())
      throw std::logic_error("evparallel: bind() cannot take a descriptor; send it as an argument");
    const std::uint64_t size = one.size();
    out.write(&size, sizeof size);
    out.write(one.written());
    out.write(one.adopted());
  }
  template <class T>
  static T deserialize_one(Reader& in) {
    std::uint64_t size;
    in.read(&size, sizeof size);
    Reader one(in.read(detail::size_in_message(size)));
    return decode<checked_codec_t<DefaultIo, T>, T>(one);
  }
};

}  // namespace detail

// Selects an overload, or the signature of a generic lambda: fn<double(double)>(std::sin).
template <class Sig>
detail::Fn<Sig, Sig*> fn(Sig* f) {
  return {f};
}
template <class Sig, class F>
detail::Fn<Sig, F> fn(F f) {
  return {std::move(f)};
}

// Sends f without a check for captured references to the stack.
template <class F>
detail::AsIs<F> as_is(F f) {
  return {std::move(f)};
}

namespace detail {

// The decayed types of the first n parameters.
template <std::size_t n, class Taken, class Parameters>
struct Take {
  static_assert(always_false<Parameters>,
                "evparallel: bind() has more arguments than the function takes");
};
template <class... Taken, class... Rest>
struct Take<0, Types<Taken...>, Types<Rest...>> {
  using type = Types<Taken...>;
};
template <std::size_t n, class... Taken, class First, class... Rest>
struct Take<n, Types<Taken...>, Types<First, Rest...>>
    : Take<n - 1, Types<Taken..., typename Parameter<First>::type>, Types<Rest...>> {};
template <class... Taken, class First, class... Rest>
struct Take<0, Types<Taken...>, Types<First, Rest...>> {
  using type = Types<Taken...>;
};

template <class F, class T>
struct BindWith;
template <class F, class... Bound>
struct BindWith<F, Types<Bound...>> {
  using type = Bind<F, checked_value_t<Bound>...>;
  template <class... Given>
  static void look_at(const Given&... given) {
    (refuse_deep<checked_codec_t<DefaultIo, Bound>>(given), ...);
  }
};

}  // namespace detail

// f with its first arguments, which are sent through the codecs (Io) of f's own, decayed parameter
// types.  f itself must be copyable byte by byte.
// Fails: Error{bad_message} for an argument that is too deep for its codec.
template <class F, class... Given>
auto bind(F f, Given&&... given) {
  using Parameters = typename detail::Signature<F>::parameters;
  using With =
      detail::BindWith<F,
                       typename detail::Take<sizeof...(Given), detail::Types<>, Parameters>::type>;
  With::look_at(given...);
  return typename With::type{std::move(f), {std::forward<Given>(given)...}};
}

}  // namespace evparallel
