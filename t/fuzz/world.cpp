// world.cpp - how the scripted snapshot and its children act.
#include "world.hpp"

#include "processes.hpp"

#include "backtrace/crash_record.hpp"
#include "codec/remote_error.hpp"
#include "codec/task_frame.hpp"
#include "pool/pool_format.hpp"
#include "snapshot/server.hpp"
#include "spawn/snapshot_process.hpp"
#include "system/socket.hpp"

#include <signal.h>
#include <unistd.h>

#include <algorithm>

namespace fuzzing {

using namespace evparallel;
using namespace evparallel::detail;

World::World() {
  ::signal(SIGPIPE, SIG_IGN);  // of captured output that nobody reads
  reset_processes();
  processes().on_fork_of_snapshot = [this](void* argument) {
    // The first member of the argument: see fork_server().
    ServerStart& start = *static_cast<ServerStart*>(argument);
    control_ = std::move(start.control);
    slots_ = start.slots;
    Report begun{};
    begun.kind = ReportKind::begun;
    begun.pid = Processes::snapshot;
    report(begun);
    return Processes::snapshot;
  };
  SnapshotOptions options;
  options.preflight = Preflight::off;
  options.seed = 1;
  snapshot_.emplace(options);
}

World::~World() {
  lose_snapshot();
  snapshot_.reset();
  SnapshotProcess::reap_abandoned();
}

World::Child* World::child(unsigned number) noexcept {
  return children_.empty() ? nullptr : children_[number % children_.size()].get();
}

// ---- what the parent sends ----

void World::look() {
  while (control_) {
    Request request{};
    Packet packet = receive_packet(control_.get(), &request, sizeof request);
    if (packet.flow == IoResult::would_block) break;
    if (packet.flow == IoResult::closed) {
      control_.reset();
      break;
    }
    REQUIRE(packet.size == sizeof request);
    if (request.kind != RequestKind::spawn) continue;
    REQUIRE(static_cast<bool>(packet.along));
    std::vector<OwnedFd> streams;
    for (std::size_t i = 1; i < packet.count; ++i) streams.push_back(packet.others[i - 1].take());
    take(request, std::move(packet.along), std::move(streams));
  }
  for (const auto& one : children_) read_frames(*one);
}

void World::take(const Request& request, OwnedFd socket, std::vector<OwnedFd> streams) {
  auto made = std::make_unique<Child>();
  made->id = request.id;
  made->socket = std::move(socket);
  made->streams = std::move(streams);
  children_.push_back(std::move(made));
}

void World::read_frames(Child& child) {
  char bytes[16 * 1024];
  while (child.socket) {
    const Transfer got = receive(child.socket.get(), bytes, sizeof bytes, Wait::no);
    child.end_received = child.end_received || got.flow == IoResult::closed;
    if (got.flow != IoResult::done) return;
    child.reader.feed({bytes, got.size});
    Frame frame;
    while (child.reader.next(frame)) {
      if (frame.kind == FrameKind::task) {
        Reader in = frame.reader();
        child.owner_id = read_task_frame(in).owner_id;
      } else if (frame.kind == FrameKind::call) {
        child.calls.push_back({frame.id, std::string(frame.body)});
      }
    }
    child.reader.keep();
  }
}

// ---- what the snapshot reports ----

void World::report(const Report& report) {
  if (control_) send_packet(control_.get(), &report, sizeof report, -1);
}

void World::spawn(Child& child, std::uint32_t slot) {
  Report spawned{};
  spawned.kind = ReportKind::spawned;
  spawned.id = child.id;
  spawned.slot = child.slot = slot;
  spawned.pid = child.pid = processes().next_child++;
  report(spawned);
}

void World::end(Child& child, int wait_status, int cause) {
  if (std::exchange(child.has_ended, true)) return;
  child.socket.reset();
  child.streams.clear();
  Report exited{};
  exited.kind = ReportKind::exited;
  exited.id = child.id;
  exited.slot = child.slot;
  exited.pid = child.pid;
  exited.code = wait_status;
  exited.cause = cause;
  report(exited);
}

void World::calm_down() {
  look();
  strange_ = children_.size();
  for (const auto& one : children_) {
    if (one->has_ended) continue;
    if (one->pid == 0) spawn(*one, no_slot - 1);
    end(*one, 0, 0);
  }
}

void World::go_on() {
  look();
  for (std::size_t i = strange_; i < children_.size(); ++i) {
    Child& child = *children_[i];
    if (child.has_ended) continue;
    if (child.pid == 0) {
      spawn(child, static_cast<std::uint32_t>(256 + i));
      send_frame(child, static_cast<unsigned>(FrameKind::value), 0, {});
    }
    for (; !child.calls.empty(); child.calls.pop_front()) {
      Writer out;
      write_error(out, Error(Errc::remote_exception, "nothing is done here"));
      send_frame(child, static_cast<unsigned>(FrameKind::error), child.calls.front().id,
                 out.written());
    }
    if (child.end_received) end(child, 0, 0);
  }
}

void World::lose_snapshot() {
  processes().snapshot_has_ended = true;
  control_.reset();
  for (const auto& one : children_) {
    one->socket.reset();
    one->streams.clear();
    one->has_ended = true;
  }
}

// ---- what children send ----

void World::send(Child& child, std::string_view bytes, std::size_t descriptors) {
  if (!child.socket || bytes.empty()) return;
  std::vector<Attachment> along;
  std::vector<OwnedFd> kept;
  for (; descriptors > 0; --descriptors) {
    kept.emplace_back(::dup(STDERR_FILENO));
    along.push_back({kept.back().get(), nullptr});
  }
  const ByteSpan piece{bytes.data(), bytes.size()};
  detail::send(child.socket.get(), &piece, 1, Wait::no, along.empty() ? nullptr : &along);
  for (OwnedFd& one : kept) one.close();
}

void World::send_frame(Child& child, unsigned kind, std::uint64_t id, std::string_view body,
                       unsigned attached, std::size_t descriptors) {
  const std::uint64_t word =
      body.size() | std::uint64_t{kind} << 48 | std::uint64_t{attached} << 56;
  std::string frame(reinterpret_cast<const char*>(&word), sizeof word);
  frame.append(reinterpret_cast<const char*>(&id), sizeof id);
  send(child, frame.append(body), descriptors);
}

void World::send_error(Child& child, std::uint64_t id, Script& script) {
  const Error error =
      Error(static_cast<Errc>(script.byte() % 17), std::string(script.counted_bytes()))
          .with_delivery(static_cast<Delivery>(script.byte() % 4))
          .with_os_error(script.byte());
  Writer out;
  write_error(out, error);
  send_frame(child, static_cast<unsigned>(FrameKind::error), id, out.written());
}

namespace {

void append(std::string& to, const void* bytes, std::size_t size) {
  to.append(static_cast<const char*>(bytes), size);
}

// Answers to the first items of a chunk, or to more than all of them.
std::string chunk_answer(const std::string& argument, Script& script) {
  Reader in(argument);
  in.take(1 + sizeof(ChunkHead));
  std::string answer;
  ChunkAnswerHead head;
  head.spent_ns = script.byte() < 250 ? 1000 : script.number<std::int64_t>();
  append(answer, &head, sizeof head);
  for (std::size_t count = 1 + script.byte() % 12; count > 0; --count) {
    std::string item("more");
    if (in.remaining() > 0) {
      ItemLength length;
      in.read(&length, sizeof length);
      item = in.read(length);
    }
    const unsigned how = script.byte();
    if (how % 8 == 0) item = script.counted_bytes();
    if (how % 8 == 1) {
      Writer out;
      write_error(out, Error(Errc::remote_exception, item));
      item = out.written();
    }
    ItemHead one;
    one.word = std::uint64_t{item.size()} << 1 | (how % 8 <= 1 ? 1 : 0);
    if (how == 255) one.word = script.number<std::uint64_t>();
    append(answer, &one, sizeof one);
    answer += item;
  }
  return answer;
}

}  // namespace

// As a child does that has begun the first of its calls, or a later one.
void World::answer(Child& child, Script& script) {
  if (child.calls.empty()) return;
  const std::size_t which = script.byte() % child.calls.size();
  const std::uint64_t id = child.calls[which].id;
  if (Slot* const slot = child.slot < slot_count && slots_ ? slots_ + child.slot : nullptr)
    slot->call.store(CallState{id, false}.word());
  const unsigned how = script.byte();
  const std::string& argument = child.calls[which].argument;
  if (how % 4 == 0)
    send_error(child, id, script);
  else if (how % 4 == 1 && !argument.empty() && argument[0] == chunk_of_calls)
    send_frame(child, static_cast<unsigned>(FrameKind::value), id, chunk_answer(argument, script));
  else
    send_frame(child, static_cast<unsigned>(FrameKind::value), id, script.counted_bytes());
  child.calls.erase(child.calls.begin() + static_cast<std::ptrdiff_t>(which));
}

void World::write_slot(Child& child, Script& script) {
  if (child.slot >= slot_count || !slots_) return;
  Slot& slot = slots_[child.slot];
  slot.call.store(script.byte());
  slot.answered_ping.store(script.byte());
  slot.task_at.store(script.number<std::int64_t>());
  slot.stop_request.store(static_cast<StopRequest>(script.byte() % 4));
  slot.started.store(script.byte() % 2 != 0);
}

void World::write_crash(Child& child, Script& script) {
  if (child.slot >= slot_count || !slots_) return;
  CrashRecord& record = crash_record(slots_, child.slot);
  record.signal = script.byte();
  record.code = script.number<std::int8_t>();
  record.fault_address = script.number<std::uint64_t>();
  const unsigned count = script.byte();
  record.count.store(count < 250 ? count : script.number<std::uint64_t>());
  for (std::size_t i = 0; i < std::min<std::size_t>(count, 8); ++i) {
    // A place in this program, or anywhere.
    const auto near = reinterpret_cast<std::uintptr_t>(&read_crash);
    record.frames[i] =
        script.byte() % 2 ? near + script.number<std::uint16_t>() : script.number<std::uint64_t>();
  }
  record.owner.store(script.byte() % 4 ? child.owner_id : script.byte());
}

// ---- the script ----

void World::obey(Script& script) {
  const unsigned order = script.byte();
  if (order % 16 == 0 && control_) {  // any bytes as a report
    Report any{};
    const std::string_view some = script.bytes(sizeof any);
    std::memcpy(static_cast<void*>(&any), some.data(), some.size());
    if (any.kind == ReportKind::exited || any.kind == ReportKind::failed)
      for (const auto& one : children_)
        if (one->id == any.id) one->has_ended = true;
    if (any.kind != ReportKind::refused_to_wait) report(any);  // that is printed
    return;
  }
  Child* const child = this->child(script.byte());
  if (!child || child->has_ended) return;
  switch (order % 16) {
    case 1:
    case 2: return spawn(*child, script.byte());
    case 3: {
      const unsigned how = script.byte();
      const int status = how < 128 ? how << 8 : static_cast<int>(how % 31 + 1);
      return end(*child, status, static_cast<int>(script.byte() % 12));
    }
    case 4: return send(*child, script.counted_bytes(), script.byte() % 8 == 0 ? 1 : 0);
    case 5:
    case 6: {
      const unsigned kind = script.byte() % 9;
      const unsigned which = script.byte();
      const std::uint64_t id = which < 128 && !child->calls.empty()
                                   ? child->calls[which % child->calls.size()].id
                                   : which % 4;
      const unsigned attached = order % 16 == 6 ? script.byte() % 5 : 0;
      const unsigned descriptors = order % 16 == 6 ? script.byte() % 5 : 0;
      return send_frame(*child, kind, id, script.counted_bytes(), attached, descriptors);
    }
    case 7:
    case 8: return answer(*child, script);
    case 9: return send_error(*child, script.byte() % 3, script);
    case 10:
      if (child->socket) half_close(child->socket.get());
      return;
    case 11: return child->socket.reset();
    case 12: return write_slot(*child, script);
    case 13: return write_crash(*child, script);
    case 14: {  // captured output
      if (child->streams.empty()) return;
      const OwnedFd& stream = child->streams[script.byte() % child->streams.size()];
      const std::string_view text = script.counted_bytes();
      if (!text.empty() && stream) REQUIRE(::write(stream.get(), text.data(), text.size()) != 0);
      return;
    }
    default:
      if (script.byte() % 8 == 0) lose_snapshot();
  }
}

// ---- the loop ----

void turn(Reactor& loop) {
  try {
    loop.run_for(std::chrono::nanoseconds(0));
  } catch (const Error&) {
    // A message that no handler takes ends the run.
  }
}

void run_to_the_end(World& world, Reactor& loop, bool in_order) {
  constexpr int most_rounds = 2000;
  if (in_order)
    world.calm_down();
  else
    world.lose_snapshot();
  for (int i = 0; i < most_rounds; ++i) {
    if (in_order) world.go_on();
    try {
      // Without a wait at first: mostly something is left to do at once.
      const std::chrono::milliseconds limit(i < 100 ? 0 : 10);
      if (!loop.run_for(limit)) return;
    } catch (const Error&) {}
  }
  fail(__FILE__, __LINE__, "the loop has work left for ever");
}

}  // namespace fuzzing
