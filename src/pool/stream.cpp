// stream.cpp - the items of a stream, from push() to the chunk that a child gets.
// Runs in: parent.  Licence: see COPYING.
#include "pool/pool_core.hpp"

namespace evparallel::detail {

namespace {

constexpr std::size_t items_per_child = 2048;
// A process may have few descriptors.
constexpr std::size_t bytes_of_descriptor = std::size_t{16} << 10;

std::size_t weight_of(const Writer& item) noexcept {
  return item.size() + (item.attached() ? item.attached()->size() * bytes_of_descriptor : 0);
}

}  // namespace

bool MapCore::above_mark() const noexcept {
  return pushed_->queue.size() >= items_per_child * pool_->worker_limit() ||
         pushed_->bytes > pool_->call_options().high_water;
}

bool MapCore::push(Writer& item, std::optional<Error>& refused) {
  loop_->check_thread();
  if (over_ || stopping_ || !loop_->alive()) return true;
  PushedItems& items = *pushed_;
  items.queue.reserve(1);
  items.bytes += weight_of(item);
  items.queue.push_back({std::move(item), std::move(refused)});
  set_brakes();
  set_idle(false);
  pool_->pump_later();
  if (!paused_ && !above_mark()) return true;
  items.drained = false;
  return false;
}

// The range of a stream.  Requires: the queue is not empty.
bool MapCore::take_pushed(Writer& item, std::optional<Error>& refused) {
  PushedItems& items = *pushed_;
  PushedItems::Item& next = items.queue.front();
  items.bytes -= weight_of(next.argument);
  item = std::move(next.argument);
  refused = std::move(next.refused);
  items.queue.pop_front();
  check_drained();
  if (!items.queue.empty()) return true;
  input_over_ = items.closed;
  set_brakes();
  return true;
}

void MapCore::set_on_drain(Callback<void()> callback) {
  loop_->check_thread();
  if (!over_ && loop_->alive()) pushed_->drain.set(std::move(callback));
}

void MapCore::check_drained() {
  PushedItems& items = *pushed_;
  if (items.drained || items.closed || paused_ ||
      items.queue.size() > items_per_child * pool_->worker_limit() / 2 ||
      items.bytes > pool_->call_options().high_water / 2)
    return;
  try {
    loop_->reserve_deferred(1);
  } catch (const std::bad_alloc&) {
    return loop_->retry_later();
  }
  items.drained = true;
  loop_->defer([self = shared_from_this()] {
    if (self->over_ || self->pushed_->closed) return;
    if (self->paused_)
      self->pushed_->drained = false;
    else
      self->pushed_->drain();
  });
}

void MapCore::close() {
  if (loop_->in_its_thread()) return close_here();
  loop_->call_in_its_thread([self = shared_from_this()] { self->close_here(); });
}

void MapCore::close_here() {
  if (std::exchange(pushed_->closed, true) || over_ || !loop_->alive()) return;
  const auto keep_this = shared_from_this();
  options_.total = static_cast<std::size_t>(pulled_) + pushed_->queue.size();
  meter_.set_total(*options_.total);
  input_over_ = pushed_->queue.empty();
  set_brakes();
  set_idle(false);
  check_finished();
}

// They get no result.
void MapCore::drop_pushed() {
  set_idle(false);
  pushed_->queue.clear();
  pushed_->bytes = 0;
}

// An open stream with nothing to do does not keep the loop running: without a push() it would run
// for ever.
void MapCore::set_idle(bool idle) {
  if (!pool_ || std::exchange(pushed_->idle, idle) == idle) return;
  pool_->stream_idle(idle);
}

}  // namespace evparallel::detail
