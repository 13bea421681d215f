// spare_children.cpp - the parent's side of spare children: their warm-up, and taking them for a
// spawn.
// Runs in: parent.  Licence: see COPYING.
#include "spawn/spare_children.hpp"

#include "codec/frame.hpp"
#include "codec/task_frame.hpp"
#include "child/child_main.hpp"
#include "spawn/child_environment.hpp"
#include "spawn/snapshot_process.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace evparallel::detail {

namespace {

// Shown by ps(1).
std::string only_name(const char* name) {
  Options options;
  options.name = name;
  return ChildEnvironment(options).text();
}

// A spawn checks at most this number of spares that have not answered yet: one that hangs does not
// block the others, and a hundred new ones do not cost a hundred checks.
constexpr int looks = 4;

// Forks right after a spawn would take the processor from it, so they wait this long.
constexpr std::chrono::milliseconds refill_after{1};

// As in Request::streams: the streams of Options{}, which most children have.
constexpr std::uint32_t streams_of_spare = stream_null(STDIN_FILENO);

std::string bytes_of(const FrameQueue& queue) {
  ByteSpan piece{};
  return queue.front(&piece, 1) == 1 ? std::string(piece.data, piece.size) : std::string();
}

// The first two frames to a spare.
std::string warm_up_frames(const std::vector<const void*>& code) {
  TaskFrame task;
  task.entry = &warm_up;
  task.max_message = longest_body;
  task.max_decoded = SIZE_MAX;
  task.high_water = std::size_t{1} << 20;
  task.deadline = no_deadline;
  static const std::string environment = only_name("spare");
  FrameQueue queue;
  Writer body;
  write_task_frame(body, task, environment,
                   {reinterpret_cast<const char*>(code.data()), code.size() * sizeof(void*)});
  queue.push(FrameKind::task, 0, body);
  body.write(warm_up_text);
  queue.push(FrameKind::call, warm_up_call, body);
  return bytes_of(queue);
}

// The only frame from a spare before it has a task.
std::string warm_up_answer() {
  FrameQueue queue;
  Writer body;
  body.write(warm_up_text);
  queue.push(FrameKind::value, warm_up_call, body);
  return bytes_of(queue);
}

bool has_answered(int fd) {
  static const std::string expected = warm_up_answer();
  char bytes[64];
  const Transfer got = receive(fd, bytes, sizeof bytes, Wait::no);
  return got.flow == IoResult::done && std::string_view(bytes, got.size) == expected;
}

}  // namespace

// ---- the spares of one snapshot process ----

bool Spares::wants_more() const noexcept {
  return all_.size() < wanted_ && lost_ <= std::size_t{2} * wanted_;
}

int Spares::add(std::uint64_t id, OwnedFd& theirs) {
  const std::string bytes = warm_up_frames(code_);
  Spare spare{id, {}, false};
  if (const int error = make_pair(PairKind::stream, spare.socket, theirs)) return error;
  const ByteSpan piece{bytes.data(), bytes.size()};
  // A new socket has room for these bytes.
  send(spare.socket.get(), &piece, 1, Wait::no);
  all_.push_back(std::move(spare));
  return 0;
}

void Spares::expect(const Task& task) {
  code_.assign(1, reinterpret_cast<const void*>(task.entry));
  for (const AnyFunction function : task.functions)
    code_.push_back(reinterpret_cast<const void*>(function));
}

std::optional<Spare> Spares::take() {
  int left = looks;
  for (std::size_t i = all_.size(); i > 0 && left > 0; --i) {
    Spare spare = std::move(all_.front());
    all_.pop_front();
    if (!spare.ready) {
      --left;
      spare.ready = has_answered(spare.socket.get());
    }
    if (spare.ready && !has_hung_up(spare.socket.get())) return spare;
    all_.push_back(std::move(spare));
  }
  return std::nullopt;
}

void Spares::look() {
  for (Spare& spare : all_) spare.ready = spare.ready || has_answered(spare.socket.get());
}

void Spares::lose(std::uint64_t id) noexcept {
  const auto found =
      std::find_if(all_.begin(), all_.end(), [id](const Spare& spare) { return spare.id == id; });
  if (found == all_.end()) return;
  all_.erase(found);
  ++lost_;
}

// ---- SnapshotProcess: keeping and taking spares ----

void SnapshotProcess::keep_spares(unsigned count) {
  spares_.emplace(count);
  if (const int error = fill_spares())
    throw system_error(Errc::spawn_failed,
                       "spawn failed: the socket pairs for " + std::to_string(count) +
                           " spares could not be created",
                       error);
}

void SnapshotProcess::keep_spares_if_possible(unsigned count) {
  spares_.emplace(count);
  refill_soon();
}

// An error is not reported here: the next spawn finds no spare, asks for a fork, and reports it.
void SnapshotProcess::refill() {
  spares_->look();
  fill_spares();
}

int SnapshotProcess::fill_spares() {
  while (alive() && spares_->wants_more()) {
    const std::uint64_t id = Spares::first_id + shared_->next_spare++;
    OwnedFd theirs;
    if (const int error = spares_->add(id, theirs)) return error;
    living_.add(id).spare = true;
    StdioPlan streams;
    streams.plan = streams_of_spare;
    if (ask(request_of(RequestKind::spawn, id), std::move(theirs), std::move(streams))) continue;
    living_.erase(id);
    spares_->lose(id);
    return EAGAIN;
  }
  return 0;
}

void SnapshotProcess::refill_soon() {
  if (!loop_ || !loop_->alive() || refill_event_.added() || !spares_->wants_more()) return;
  refill_event_.add_in(refill_after);
}

// The streams and the process group of a spare were fixed at its fork; everything else comes with
// the task.
std::optional<Spare> SnapshotProcess::take_spare(const Task& task, const StdioPlan& streams,
                                                 Group group) {
  if (!spares_) return std::nullopt;
  spares_->forgive();
  spares_->expect(task);
  std::optional<Spare> spare;
  if (group == Group::own && streams.plan == streams_of_spare) spare = spares_->take();
  refill_soon();
  return spare;
}

// What was reported of it before is passed to its observer from the loop, as for any child.
void SnapshotProcess::hand_over(std::uint64_t id, SpawnObserver* listener) {
  SpawnRecord& living = *living_.find(id);
  living.listener = listener;
  living.asked = true;
  living.spare = false;
  living.start_unreported = living.pid != 0;
  if (living.start_unreported)
    loop_->defer([self = shared_from_this(), id] { self->report_spawned(id); });
}

void SnapshotProcess::report_spawned(std::uint64_t id) {
  SpawnRecord* const found = living_.find(id);
  if (!found || !std::exchange(found->start_unreported, false)) return;
  const SpawnRecord child = *found;
  if (child.listener) loop_->call([&] { child.listener->on_spawned(child.pid, child.slot); });
}

void SnapshotProcess::lose_spare(std::uint64_t id) {
  spares_->lose(id);
  refill_soon();
}

void SnapshotProcess::drop_spares() noexcept {
  if (spares_) spares_->clear();
}

}  // namespace evparallel::detail
