// supervised_child.cpp - one child of a supervisor: its start, and its end.
// Runs in: parent.  Licence: see COPYING.
#include "system/failpoint.hpp"
#include "call/supervisor.hpp"

namespace evparallel::detail {

void SupervisedChild::start(Replicas& replicas, const std::shared_ptr<Loop>& loop, Task task,
                            std::shared_ptr<const OwnedOptions> options) {
  task.callable.append(reinterpret_cast<const char*>(&index), sizeof index);
  handle_ = ChildHandle::spawn(replicas.next(loop), loop, task, std::move(options),
                               ChildHandle::Use::process, this);
}

void SupervisedChild::end(std::chrono::milliseconds grace) {
  stage = Stage::ending;
  if (handle_) handle_->terminate(grace);
}

void SupervisedChild::detach() noexcept {
  core_ = nullptr;
  if (handle_ && stage != Stage::ended) handle_->detach();
}

void SupervisedChild::abort() noexcept {
  core_ = nullptr;
  if (handle_ && stage != Stage::ended) handle_->abort();
}

// Its report may come before that of the fork, which has the pid.
void SupervisedChild::check_running() {
  const auto keep = shared_from_this();
  if (core_ && has_begun_ && pid() != 0 && stage == Stage::starting) core_->child_running(*this);
}

void SupervisedChild::on_frame(Frame& frame) {
  if (frame.kind != FrameKind::value || frame.id != 0) return;
  has_begun_ = true;
  check_running();
}

void SupervisedChild::on_ended(const ExitStatus& status, const Error& error) {
  fault_at(Failpoint::ended);
  const auto keep = shared_from_this();
  Error end = task_error_ ? *task_error_ : error;
  if (!end.exit() && error.exit()) end = end.with_exit(*error.exit());
  if (core_) core_->child_ended(*this, status, end);
}

}  // namespace evparallel::detail
