// loop_address.cpp - posts to a loop that may have ended.
// Runs in: parent, child.  Licence: see COPYING.
#include <evparallel/detail/loop_address.hpp>
#include <evparallel/reactor.hpp>

#include "loop/event_loop.hpp"

namespace evparallel::detail {

WaitingCallback::~WaitingCallback() = default;

LoopAddress::LoopAddress(Reactor& reactor) noexcept : loop_(reactor.loop()) {}
LoopAddress::LoopAddress(const LoopAddress&) = default;
LoopAddress::~LoopAddress() = default;

bool LoopAddress::at_home() const noexcept {
  return loop_->at_home();
}

void LoopAddress::check_at_home() const {
  loop_->check_at_home();
}

bool LoopAddress::post(Callback<void()>& callback) const {
  return at_home() && loop_->posted().post(callback);
}

std::optional<LoopAddress::Place> LoopAddress::keep(
    std::unique_ptr<WaitingCallback> waiting) const {
  if (!at_home()) return std::nullopt;
  return loop_->posted().keep(std::move(waiting));
}

void LoopAddress::pass(Place place, Callback<void(WaitingCallback&)> value) const {
  if (at_home()) loop_->posted().pass(place, std::move(value));
}

void LoopAddress::refuse_posts() const noexcept {
  loop_->refuse_posts();
}

}  // namespace evparallel::detail
