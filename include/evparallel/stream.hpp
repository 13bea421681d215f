// stream.hpp - a map whose items the program pushes as they come.
// Licence: see COPYING.  Manual: evparallel_stream(3).
#pragma once

#include <evparallel/map.hpp>

#include <memory>
#include <optional>
#include <stdexcept>
#include <type_traits>
#include <utility>

namespace evparallel {

namespace detail {

// A stream that runs.
class StreamInterface : public MapInterface {
public:
  // Takes the item, or the error of its codec.
  virtual bool push(Writer& item, std::optional<Error>& refused) = 0;
  virtual void set_on_drain(Callback<void()>) = 0;
  virtual void close() = 0;  // any thread

protected:
  ~StreamInterface() = default;
};

template <class Inc, class OnResult, class OnDone>
MapTask stream_task(Inc (*get)(Reader&), OnResult&& on_result, OnDone&& on_done) {
  static_assert(std::is_invocable_v<std::decay_t<OnResult>&, std::size_t, Result<Inc>>,
                "evparallel: on_result of a stream must be void(std::size_t index, Result<Inc>)");
  static_assert(std::is_invocable_v<std::decay_t<OnDone>&, const MapSummary&>,
                "evparallel: on_done of a stream must be void(const MapSummary&)");
  MapTask task;
  task.on_result = item_result<Inc>(get, std::forward<OnResult>(on_result));
  task.on_done = std::forward<OnDone>(on_done);
  return task;
}

}  // namespace detail

// The items of a stream go to the children of its pool, and their results come as those of a map:
// each item gets one result, with its index in the order of push(), and on_done comes at the end.
// Move-only; dropping it is close().  May outlive its pool and its Reactor and does nothing then.
//
// Only items without a result keep Reactor::run() from returning, and the end after close().  An
// open stream counts in Pool::pending(), and may be used after Pool::close().
//
// All functions may be called in the callbacks of the stream, and outside of the loop.
template <class... Args>
class Stream {
  static_assert(sizeof...(Args) > 0, "evparallel: the function of a stream must take an argument");

public:
  // What is pushed: the argument of the function, or the std::tuple of its arguments.
  using Item = typename detail::ItemOf<Args...>::type;

  Stream() noexcept = default;
  Stream(Stream&& other) noexcept
      : core_(std::move(other.core_)), codecs_(other.codecs_), state_(other.take_state()) {}
  Stream& operator=(Stream&& other) noexcept {
    if (this == &other) return *this;
    close();
    core_ = std::move(other.core_);
    codecs_ = other.codecs_;
    state_ = other.take_state();
    return *this;
  }
  ~Stream() { close(); }

  // Always accepts the item, which is converted as for a call: implicitly.  An item that is moved
  // in is sent without a copy if its codec can do that.  An item that its codec refuses fails, in
  // its turn.
  //
  // Returns false while the stream is paused, or if it has enough items that no child has yet: more
  // than Options::high_water bytes (a descriptor counts as 16 KiB), or 2048 for each child that the
  // pool may have.  on_drain says when to go on.  If the stream is over before its close(), because
  // it was cancelled, its pool has ended, or stop_on_error, the item is dropped, and the return
  // value is true; on_done says it.
  // Fails: std::logic_error after close().
  template <class Given = Item>
  bool push(Given&& item) {
    static_assert(
        detail::converts_to<Given&&, Item>,
        "evparallel: the items of a stream must convert implicitly to the argument of the "
        "pool's function; cast the item explicitly: stream.push(T(item))");
    if (state_ != State::open)
      throw std::logic_error(state_ == State::closed
                                 ? "evparallel: push() was called on a stream after close()"
                                 : "evparallel: push() was called on an empty Stream");
    const auto core = core_.lock();
    if (!core) return true;
    Writer message;
    std::optional<Error> refused;
    if constexpr (detail::converts_to<Given&&, Item>)
      detail::convert_item<Item>(codecs_, message, std::forward<Given>(item), refused);
    return core->push(message, refused);
  }

  // Called when, after push() has returned false, the stream is not paused and at most half of
  // these limits is left.  Not after close().
  void on_drain(Callback<void()> callback) const {
    if (const auto core = core_.lock()) core->set_on_drain(std::move(callback));
  }

  // No more items; on_done comes after the last result.
  void close() {
    if (state_ != State::open) return;
    state_ = State::closed;
    if (const auto core = core_.lock()) core->close();
  }

  // Until resume() no result comes and no further item is sent; results of items that children have
  // already are kept.  on_done waits, too, unless the stream is cancelled.  Inside on_result, no
  // further result follows the current one.
  void pause() const {
    if (const auto core = core_.lock()) core->pause();
  }
  void resume() const {
    if (const auto core = core_.lock()) core->resume();
  }

  // As MapHandle: no result comes any more, and on_done is called soon, from the loop.
  void cancel() const {
    if (const auto core = core_.lock()) core->cancel();
  }
  // Returns an empty Progress if the stream is over.  The total is known after close().
  Progress progress() const {
    const auto core = core_.lock();
    return core ? core->progress() : Progress{};
  }

  // False for a stream that was made by the default constructor or moved from.
  explicit operator bool() const noexcept { return state_ != State::empty; }

  Stream(const std::shared_ptr<detail::StreamInterface>& core,
         const detail::ArgumentCodecs<Args...>& codecs) noexcept
      : core_(core), codecs_(codecs), state_(State::open) {}

private:
  enum class State : unsigned char { empty, open, closed };
  State take_state() noexcept { return std::exchange(state_, State::empty); }

  std::weak_ptr<detail::StreamInterface> core_;  // the pool owns it
  detail::ArgumentCodecs<Args...> codecs_{};
  State state_ = State::empty;
};

}  // namespace evparallel
