// with_state.hpp - a function with a state that each child makes once.
// Licence: see COPYING.  Manual: evparallel_run(3).
#pragma once

#include <evparallel/task.hpp>

#include <type_traits>
#include <utility>

namespace evparallel {

namespace detail {

template <class Make, class F>
struct WithState {
  Make make;
  F f;
};

// Such a function in a child, beside its state.
template <class State, class F>
struct Stateful {
  State state;
  F f;
  template <class... A>
  decltype(auto) operator()(A&&... arguments) {
    return f(state, std::forward<A>(arguments)...);
  }
};

// The type of the state, and the parameters of the function behind it.
template <class Make, class Parameters>
struct StateOf {
  static_assert(always_false<Parameters>,
                "evparallel: the function of with_state() takes the state first: Inc(State&, ...)");
};
template <class Make, class First, class... Rest>
struct StateOf<Make, Types<First, Rest...>> {
  static_assert(std::is_same_v<typename Signature<Make>::parameters, Types<>>,
                "evparallel: the maker of a state takes no arguments; bind them with "
                "with_state(bind(make, args...), f)");
  using type = std::decay_t<typename Signature<Make>::result>;
  static_assert(std::is_same_v<First, type&> || std::is_same_v<First, const type&>,
                "evparallel: the first parameter of the function of with_state() is a reference to "
                "the type that the maker returns: Inc(State&, ...)");
  using rest = Types<Rest...>;
};

template <class Make, class F>
struct Signature<WithState<Make, F>> {
  using result = typename Signature<F>::result;
  using state = StateOf<Make, typename Signature<F>::parameters>;
  using parameters = typename state::rest;
};

template <class Make, class F, class... Bound>
struct BindWith<WithState<Make, F>, Types<Bound...>> {
  static_assert(always_false<Make>,
                "evparallel: bind() goes into with_state(), not around it: "
                "with_state(bind(make, args...), f)");
};

template <class Make, class F>
struct CallableCodec<WithState<Make, F>> {
  static void serialize(Writer& out, const WithState<Make, F>& task, bool checked = true) {
    CallableCodec<Make>::serialize(out, task.make, checked);
    CallableCodec<F>::serialize(out, task.f, checked);
  }
  static WithState<Make, F> deserialize(Reader& in) {
    // Braces: evaluated from left to right.
    return {CallableCodec<Make>::deserialize(in), CallableCodec<F>::deserialize(in)};
  }
  static void functions(const WithState<Make, F>& task, FunctionList& all) {
    CallableCodec<Make>::functions(task.make, all);
    CallableCodec<F>::functions(task.f, all);
  }
};

// Makes the state; an exception fails the start of the child.
template <class Make, class F>
auto begin_task(WithState<Make, F>& task) {
  using State = typename Signature<WithState<Make, F>>::state::type;
  return Stateful<State, F>{call_task(task.make), task.f};
}

}  // namespace detail

// A function for run() and pool(): each child calls make() once, before its first call, and passes
// a reference to that object, State&, to each call f(State&, args...).  The object need not be
// movable, and is destroyed when the child ends by itself.  An exception from make() fails the
// start of the child.  Options::start_timeout limits its time.  bind() gives arguments to make.
template <class Make, class F>
detail::WithState<Make, F> with_state(Make make, F f) {
  return {std::move(make), std::move(f)};
}

}  // namespace evparallel
