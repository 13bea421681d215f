// run.cpp - calls of a remote function, matched to their answers by id.
// Licence: see COPYING.
#include <evparallel/run.hpp>

#include "child_handle.hpp"
#include "remote_error.hpp"

#include <algorithm>
#include <deque>
#include <stdexcept>
#include <unordered_map>
#include <vector>

namespace evparallel {

namespace detail {

namespace {

struct Pending {
  Answer answer;             // empty: answered
  std::uint64_t offset = 0;  // of its frame, in the bytes of the pipe
};

// Calls by id.  Ids rise and answers mostly come in order, so the calls stand in a row from
// `first_id` on; a few that are answered late move out of the way.
class Calls {
public:
  void add(std::uint64_t id, Pending pending) {
    if (row_.empty()) first_id_ = id;
    while (first_id_ + row_.size() < id) row_.emplace_back();  // ids that another child was asked
    row_.push_back(std::move(pending));
    ++count_;
    if (row_.size() >= long_row && row_.size() / 4 > count_ - late_.size()) move_late_calls();
  }

  // Takes the call out; an empty Pending if there is none: an id that was answered, or never was.
  Pending take(std::uint64_t id) {
    Pending found;
    const auto late = late_.find(id);
    if (late != late_.end()) {
      found = std::move(late->second);
      late_.erase(late);
    } else if (id >= first_id_ && id - first_id_ < row_.size()) {
      std::swap(found, row_[static_cast<std::size_t>(id - first_id_)]);
    }
    if (found.answer) --count_;
    while (!row_.empty() && !row_.front().answer) {
      row_.pop_front();
      ++first_id_;
    }
    return found;
  }

  std::size_t count() const noexcept { return count_; }

  std::vector<std::uint64_t> ids() const {
    std::vector<std::uint64_t> all;
    for (const auto& item : late_) all.push_back(item.first);
    for (std::size_t i = 0; i < row_.size(); ++i)
      if (row_[i].answer) all.push_back(first_id_ + i);
    std::sort(all.begin(), all.end());
    return all;
  }

private:
  static constexpr std::size_t long_row = 1024;

  void move_late_calls() {
    for (std::size_t i = 0; i < row_.size(); ++i)
      if (row_[i].answer) late_.emplace(first_id_ + i, std::move(row_[i]));
    first_id_ += row_.size();
    row_.clear();
  }

  std::deque<Pending> row_;
  std::unordered_map<std::uint64_t, Pending> late_;
  std::uint64_t first_id_ = 0;
  std::size_t count_ = 0;
};

}  // namespace

// One child of a Remote with the calls that were sent to it.  A Remote may have one that is dying
// beside one that works.
class RemoteChild final : public ChildOwner {
public:
  explicit RemoteChild(RemoteCore& remote) noexcept : remote_(remote) {}
  // What the task itself threw reaches all calls, rather than the exit status that follows.
  void on_task_error(const Error& error) override { task_error = error; }
  void on_frame(Frame&) override;
  void on_ended(const ExitStatus&, const Error&) override;

  std::shared_ptr<ChildHandle> handle;
  Calls calls;
  std::optional<Error> task_error;  // the task itself failed

private:
  RemoteCore& remote_;
};

class RemoteCore : public Attached, public std::enable_shared_from_this<RemoteCore> {
public:
  RemoteCore(const std::shared_ptr<Loop>& loop, std::shared_ptr<SnapshotEntry> entry,
             const Task& task, const Options& options)
      : loop_(loop), entry_(std::move(entry)), task_(task), options_(options) {
    options_.snapshot = nullptr;  // it need not live longer than the call
    attach(*loop_);
  }
  ~RemoteCore() override { drop(); }

  void spawn() {
    auto child = std::make_unique<RemoteChild>(*this);
    child->handle = ChildHandle::spawn(entry_, loop_, task_, options_, child.get());
    if (current_) dying_.push_back(std::move(current_));
    current_ = std::move(child);
  }

  std::uint64_t call(Writer& argument, Answer answer) {
    check_open();
    const std::uint64_t id = next_id_++;
    try {
      if (!current_ || !current_->handle->pipe()->usable()) spawn();
      PipeCore& pipe = *current_->handle->pipe();
      const std::uint64_t offset = pipe.bytes_put();
      pipe.put(FrameKind::call, id, argument, PipeCore::Leave::with_the_turn);
      current_->calls.add(id, {std::move(answer), offset});
      began();
    } catch (const Error& error) {
      fail_later(error, std::move(answer));
    }
    return id;
  }

  std::uint64_t refuse(const Error& error, Answer answer) {
    check_open();
    fail_later(error, std::move(answer));
    return next_id_++;
  }

  pid_t pid() const noexcept { return current_ ? current_->handle->pid() : 0; }
  std::size_t pending() const noexcept { return pending_; }

  void close() {
    closed_ = true;
    if (current_) current_->handle->pipe()->close();
  }

  // Calls under way hear `cancelled`, from the loop.
  void drop() noexcept {
    if (std::exchange(dropped_, true)) return;
    closed_ = true;
    const std::unique_ptr<RemoteChild> current = std::move(current_);
    std::vector<std::unique_ptr<RemoteChild>> children = std::move(dying_);
    for (const auto& child : children) drop_child(*child);
    if (current) drop_child(*current);
  }

  void answered(RemoteChild& child, Frame& frame) {
    const auto keep = shared_from_this();
    Pending pending = child.calls.take(frame.id);
    if (!pending.answer) return;
    ended();  // first: a callback may throw
    finish(frame, pending.answer);
  }

  // The last word about a child: each of its calls hears it.
  void child_ended(RemoteChild& child, const Error& error) {
    const auto keep = shared_from_this();
    const std::unique_ptr<RemoteChild> gone = take(child);
    const Error& told = child.task_error ? *child.task_error : error;
    for (const std::uint64_t id : child.calls.ids()) {
      Pending pending = child.calls.take(id);
      Error one = told.with_delivery(child.handle->delivery(id, pending.offset));
      if (!one.exit() && error.exit()) one = one.with_exit(*error.exit());
      loop_->call([&] { pending.answer(nullptr, &one); });
      ended();
    }
  }

private:
  void check_open() const {
    if (closed_)
      throw std::logic_error("evparallel: a call on a remote function after its close()");
    if (!loop_->alive())
      throw std::logic_error("evparallel: a call on a remote function whose Reactor is destroyed");
  }

  void began() {
    if (pending_++ == 0) loop_->hold();
  }
  void ended() {
    if (--pending_ == 0 && loop_->alive()) loop_->release();
  }

  static void finish(Frame& frame, Answer& answer) {
    if (frame.too_large) {
      const Error error =
          Error(Errc::too_large, "too large: the answer is above the limit of the parent");
      return answer_error(answer, error);
    }
    Reader in = frame.reader();
    if (frame.kind == FrameKind::value) return answer(&in, nullptr);
    answer_error(answer, error_in(in));
  }

  static Error error_in(Reader in) {
    try {
      return read_error(in);
    } catch (const Error& malformed) {
      return malformed;
    }
  }

  static void answer_error(Answer& answer, const Error& error) {
    const Error told = error.with_delivery(Delivery::started);
    answer(nullptr, &told);
  }

  // Never from inside the call.
  void fail_later(const Error& error, Answer answer) {
    began();
    loop_->defer([self = shared_from_this(), error, answer = std::move(answer)]() mutable {
      self->ended();
      answer(nullptr, &error);
    });
  }

  void drop_child(RemoteChild& child) noexcept {
    if (loop_->alive()) {
      for (const std::uint64_t id : child.calls.ids()) {
        Pending pending = child.calls.take(id);
        loop_->defer(
            [loop = loop_, answer = std::move(pending.answer),
             error = Error(Errc::cancelled, "cancelled: the remote function was dropped")
                         .with_delivery(child.handle->delivery(id, pending.offset))]() mutable {
              loop->release();  // first: a callback may throw
              answer(nullptr, &error);
            });
        loop_->hold();
        ended();
      }
    }
    child.handle->cut();
  }

  std::unique_ptr<RemoteChild> take(RemoteChild& child) noexcept {
    if (current_.get() == &child) return std::move(current_);
    for (auto& one : dying_) {
      if (one.get() != &child) continue;
      std::unique_ptr<RemoteChild> found = std::move(one);
      dying_.erase(dying_.begin() + (&one - dying_.data()));
      return found;
    }
    return nullptr;
  }

  void loop_gone() noexcept override {
    // Callbacks go unheard: they may own handles that come back here.
    const std::unique_ptr<RemoteChild> current = std::move(current_);
    const std::vector<std::unique_ptr<RemoteChild>> dying = std::move(dying_);
    for (const auto& child : dying) child->handle->cut();
    if (current) current->handle->cut();
    pending_ = 0;
  }

  std::shared_ptr<Loop> loop_;
  std::shared_ptr<SnapshotEntry> entry_;
  Task task_;
  Options options_;
  std::unique_ptr<RemoteChild> current_;
  std::vector<std::unique_ptr<RemoteChild>> dying_;
  std::uint64_t next_id_ = 1;
  std::size_t pending_ = 0;
  bool closed_ = false;
  bool dropped_ = false;
};

void RemoteChild::on_frame(Frame& frame) {
  if (frame.kind == FrameKind::value || frame.kind == FrameKind::error)
    remote_.answered(*this, frame);
}

void RemoteChild::on_ended(const ExitStatus&, const Error& error) {
  remote_.child_ended(*this, error);
}

std::shared_ptr<RemoteCore> remote_start(Reactor& reactor, const Task& task,
                                         const Options& options) {
  auto core = std::make_shared<RemoteCore>(reactor.loop(), SnapshotEntry::choose(options.snapshot),
                                           task, options);
  core->spawn();
  return core;
}

std::uint64_t remote_call(RemoteCore& core, Writer& argument, Answer answer) {
  return core.call(argument, std::move(answer));
}
std::uint64_t remote_refuse(RemoteCore& core, const Error& error, Answer answer) {
  return core.refuse(error, std::move(answer));
}
pid_t remote_pid(const RemoteCore& core) noexcept {
  return core.pid();
}
std::size_t remote_pending(const RemoteCore& core) noexcept {
  return core.pending();
}
void remote_close(RemoteCore& core) {
  core.close();
}
void remote_drop(RemoteCore& core) noexcept {
  core.drop();
}

}  // namespace detail

}  // namespace evparallel
