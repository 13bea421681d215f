// map_results.cpp - delivers the results of a map to the caller: in order, each once, and its end.
// Runs in: parent.  Licence: see COPYING.
#include "base/no_memory.hpp"
#include "codec/remote_error.hpp"
#include "shared/cancel_table.hpp"
#include "pool/pool_core.hpp"
#include "pool/pool_format.hpp"

#include <algorithm>
#include <new>

namespace evparallel::detail {

// Copies the bytes, because those of a message are gone after its callback.
void MapCore::keep(Ready&& ready) noexcept {
  try {
    if (ready.own.empty()) ready.own.assign(ready.bytes);
  } catch (const std::bad_alloc&) {
    ready.error = no_memory(Delivery::started);
  }
  ReadyResults::node_type place = std::move(room_.back());
  room_.pop_back();
  place.key() = ready.first;
  place.mapped() = std::move(ready);
  Ready& kept = ready_.insert(std::move(place)).position->second;
  kept.bytes = kept.own;
  ready_bytes_ += kept.own.size();
}

void MapCore::deliver_later() noexcept {
  if (!loop_->alive() || !pool_ || std::exchange(deliver_deferred_, true)) return;
  loop_->defer_or_retry(*pool_, [self = shared_from_this()] { self->retry(); });
}

void MapCore::retry() {
  if (pushed_ && pool_ && !over_) check_drained();
  if (std::exchange(deliver_deferred_, false)) deliver();
}

void MapCore::deliver() {
  if (delivering_ || paused_) return;
  const auto keep_this = shared_from_this();
  delivering_ = true;
  const bool was_held_back = pool_ && !may_pull();
  while (!output_held_ && !ready_.empty() &&
         (!options_.ordered || ready_.begin()->first == next_)) {
    ReadyResults::node_type place = ready_.extract(ready_.begin());
    Ready ready = std::move(place.mapped());
    ready.bytes = ready.own;
    ready_bytes_ -= ready.own.size();
    room_.push_back(std::move(place));  // it has held this one before
    if (deliver_ready(ready)) continue;
    keep(std::move(ready));
    break;
  }
  delivering_ = false;
  if (over_) return;
  if (was_held_back && pool_) pool_->pump_later();
  report(false);
  check_finished();
}

// False: the loop has to stop, or the map is paused, and the rest is left.
bool MapCore::deliver_ready(Ready& ready) {
  Reader in(ready.bytes, ready.single ? &ready.own : nullptr);
  in.set_max_decoded(max_decoded_);
  while (ready.count > 0 && !output_held_) {
    if (loop_->interrupted()) {
      deliver_later();
      break;
    }
    if (ready.error) {
      deliver_item(ready.first, nullptr, &*ready.error);
    } else if (ready.single) {
      deliver_item(ready.first, &in, nullptr);
    } else {
      ItemHead head;
      in.read(&head, sizeof head);
      Reader body = in.take_part(head.length());
      if (head.failed()) {
        Error error = error_or_no_memory(Delivery::started, [&body] { return error_in(body); });
        if (pool_) error = pool_->explained(error);
        deliver_item(ready.first, nullptr, &error);
      } else {
        deliver_item(ready.first, &body, nullptr);
      }
    }
    --ready.count;
    next_ = ++ready.first;
  }
  if (ready.count == 0 || over_) return true;
  const std::string_view rest = in.rest();
  if (!ready.own.empty()) ready.own.erase(0, ready.own.size() - rest.size());
  ready.bytes = rest;
  return false;
}

void MapCore::deliver_item(std::uint64_t index, Reader* in, const Error* error) {
  const bool right = in != nullptr;
  if (in) {
    ++summary_.done;
  } else {
    ++summary_.failed;
    if (!summary_.error) summary_.error = *error;
  }
  meter_.add(1, right ? 0 : 1);
  if (pool_) ++(right ? pool_->counts().done : pool_->counts().failed);
  if (error && options_.stop_on_error) {
    summary_.stopped = true;
    end();
  }
  loop_->call([&] { task_.on_result(static_cast<std::size_t>(index), in, error); });
}

// ---- progress ----

Progress MapCore::progress() const {
  loop_->check_thread();
  return meter_.sample();
}

void MapCore::end_bar() {
  if (!bar_) return;
  bar_->show(progress());
  bar_.reset();
}

void MapCore::report(bool last) {
  if (!options_.on_progress && !bar_) return;
  const std::int64_t now = now_ns();
  if (!last && now < deadline_from(reported_at_, options_.progress_every)) return;
  reported_at_ = now;
  const Progress current = progress();
  if (bar_) bar_->show(current);
  if (options_.on_progress) loop_->call([&] { options_.on_progress(current); });
}

// ---- the end ----

void MapCore::check_finished() {
  if (over_ || paused_ || delivering_ || under_way_ > 0 || !again_.empty()) return;
  if (!input_over_) {
    if (pushed_) set_idle(input_held_ && ready_.empty());
    return;
  }
  // The result for which the ready ones wait will not come any more.
  if (ready_.empty() || (stopping_ && options_.ordered && ready_.begin()->first != next_)) end();
}

// From now on no result is delivered.  Gives up what children still run, and calls on_done later.
void MapCore::end() noexcept {
  if (std::exchange(over_, true)) return;
  end_bar();  // not later: an exception may be on its way out of the loop
  input_over_ = true;
  set_brakes();
  again_.clear();
  ready_.clear();
  if (pushed_) drop_pushed();
  PoolCore* const pool = std::exchange(pool_, nullptr);
  loop_->hold();
  if (pool) pool->forget_map(*this);
  try {
    loop_->defer([self = shared_from_this()] { self->finish(); });
  } catch (const std::bad_alloc&) {
    pool->finish_later(shared_from_this());
  }
}

void MapCore::finish() {
  loop_->release();  // first: a callback may throw
  summary_.time = std::chrono::nanoseconds(now_ns() - began_at_);
  report(true);
  MapTask task = std::move(task_);
  options_.on_progress = nullptr;
  if (loop_->alive()) task.on_done(summary_);
}

// ---- brakes and ends ----

void MapCore::pause() {
  loop_->check_thread();
  paused_ = true;
  set_brakes();
}

void MapCore::resume() {
  loop_->check_thread();
  if (!std::exchange(paused_, false)) return;
  set_brakes();
  if (over_ || !loop_->alive()) return;
  deliver_later();
  pool_->pump_later();
  if (pushed_) check_drained();
}

void MapCore::cancel() {
  loop_->check_thread();
  if (over_ || !loop_->alive()) return;
  summary_.stopped = true;
  end();
}

void MapCore::stop(const std::optional<Error>& error) {
  if (over_) return;
  summary_.stopped = true;
  if (error) summary_.error = error;
  input_over_ = true;
  set_brakes();
  again_.clear();
  if (pushed_) drop_pushed();
  stopping_ = true;
  if (error) return end();
  check_finished();
}

void MapCore::pool_gone() noexcept {
  cancel();
  pool_ = nullptr;
}

void MapCore::on_loop_destroyed() noexcept {
  over_ = true;
  set_brakes();
  pool_ = nullptr;
  again_.clear();
  ready_.clear();
  const MapTask task = std::move(task_);
  if (!pushed_) return;
  pushed_->queue.clear();
  pushed_->drain.release();
}

}  // namespace evparallel::detail
