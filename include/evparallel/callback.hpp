// callback.hpp - the only type of callback: move-only, called from the loop.
// Licence: see COPYING.  Manual: evparallel_reactor(3).
#pragma once

#include <evparallel/detail/export.hpp>

#include <cstddef>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

namespace evparallel {

template <class Signature>
class Callback;

// Like std::function, but it accepts functions that cannot be copied (a lambda that owns a
// Process), and it stores closures of up to 48 bytes in place, so that a call in the steady state
// allocates nothing.  An empty callback must not be called.
template <class R, class... Args>
class Callback<R(Args...)> {
public:
  Callback() noexcept = default;
  Callback(std::nullptr_t) noexcept {}

  template <class F, class D = std::decay_t<F>,
            class = std::enable_if_t<!std::is_same_v<D, Callback> &&
                                     std::is_invocable_r_v<R, D&, Args...>>>
  Callback(F&& f) {
    if constexpr (fits<D>) {
      new (&storage_) D(std::forward<F>(f));
      // Without this, take() would copy bytes that were never written, and compilers warn of it.
      if constexpr (std::is_empty_v<D>) storage_[0] = 0;
      ops_ = &in_place<D>;
    } else {
      new (&storage_) D*(new D(std::forward<F>(f)));
      ops_ = &on_heap<D>;
    }
  }

  Callback(Callback&& other) noexcept { take(other); }
  Callback& operator=(Callback&& other) noexcept {
    if (this != &other) {
      reset();
      take(other);
    }
    return *this;
  }
  Callback(const Callback&) = delete;
  Callback& operator=(const Callback&) = delete;
  ~Callback() { reset(); }

  explicit operator bool() const noexcept { return ops_ != nullptr; }
  R operator()(Args... args) { return ops_->call(&storage_, std::forward<Args>(args)...); }

private:
  static constexpr std::size_t capacity = 48;
  struct Ops {
    R (*call)(void*, Args&&...);
    void (*move)(void* from, void* to) noexcept;  // null: a copy of its bytes is enough
    void (*destroy)(void*) noexcept;              // null: nothing to do
  };

  template <class D>
  static constexpr bool fits =
      sizeof(D) <= capacity &&
      alignof(D) <= alignof(std::max_align_t) && std::is_nothrow_move_constructible_v<D>;

  template <class D>
  static R invoke(D& f, Args&&... args) {
    if constexpr (std::is_void_v<R>)
      f(std::forward<Args>(args)...);
    else
      return f(std::forward<Args>(args)...);
  }

  template <class D>
  static void move_in_place(void* from, void* to) noexcept {
    new (to) D(std::move(*static_cast<D*>(from)));
    static_cast<D*>(from)->~D();
  }
  template <class D>
  static void destroy_in_place(void* p) noexcept {
    static_cast<D*>(p)->~D();
  }

  template <class D>
  static constexpr Ops in_place{
      [](void* p, Args&&... args) -> R {
        return invoke(*static_cast<D*>(p), std::forward<Args>(args)...);
      },
      std::is_trivially_copyable_v<D> ? nullptr : &move_in_place<D>,
      std::is_trivially_destructible_v<D> ? nullptr : &destroy_in_place<D>};

  template <class D>
  static constexpr Ops on_heap{[](void* p, Args&&... args) -> R {
                                 return invoke(**static_cast<D**>(p), std::forward<Args>(args)...);
                               },
                               nullptr, [](void* p) noexcept { delete *static_cast<D**>(p); }};

  void take(Callback& other) noexcept {
    if (!other.ops_) return;
    if (other.ops_->move)
      other.ops_->move(&other.storage_, &storage_);
    else
      std::memcpy(&storage_, &other.storage_, capacity);
    ops_ = std::exchange(other.ops_, nullptr);
  }

  void reset() noexcept {
    const Ops* const ops = std::exchange(ops_, nullptr);
    if (ops && ops->destroy) ops->destroy(&storage_);
  }

  alignas(std::max_align_t) unsigned char storage_[capacity];
  const Ops* ops_ = nullptr;
};

}  // namespace evparallel
