// pool_wire.cpp - calls and chunks of a pool, on both sides.
//
// A child of a pool answers any frames: each call once and in order, a chunk by answers to its first items.  The parent
// maps items over children that answer anything: it reports each item once, and then the end.
#include "processes.hpp"
#include "world.hpp"

#include "child/birth.hpp"
#include "child/child.hpp"
#include "child/child_main.hpp"
#include "codec/remote_error.hpp"
#include "pool/pool_format.hpp"
#include "system/socket.hpp"

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

using namespace evparallel;
using namespace evparallel::detail;
using fuzzing::Script;
using fuzzing::World;

namespace {

std::string reversed(const std::string& text) {
  if (text.empty()) throw std::invalid_argument("no text");
  if (text.size() > 100) return text + text;  // an answer may be too large, too
  return {text.rbegin(), text.rend()};
}

// ---- the child ----

using Function = std::string (*)(const std::string&);
constexpr std::size_t max_message = 1024;

void append_frame(std::string& stream, FrameKind kind, std::uint64_t id, std::string_view body) {
  const std::uint64_t word = body.size() | std::uint64_t{static_cast<std::uint8_t>(kind)} << 48;
  stream.append(reinterpret_cast<const char*>(&word), sizeof word);
  stream.append(reinterpret_cast<const char*>(&id), sizeof id);
  stream.append(body);
}

std::string task_body() {
  using Shape = PoolFunction<Function, TemplateIo<RawIo>, TemplateIo<RawIo>>;
  const detail::Task task = Shape::task(reversed);
  PoolLimits limits;
  limits.max_message = max_message;
  TaskFrame head;
  head.entry = task.entry;
  head.max_message = 4 * max_message;
  head.max_decoded = 64 * 1024;
  head.deadline = no_deadline;
  Writer out;
  write_task_frame(
      out, head, "",
      task.callable + std::string(reinterpret_cast<const char*>(&limits), sizeof limits));
  return std::string(out.written());
}

std::string chunk(Script& script) {
  std::string argument(1, chunk_of_calls);
  ChunkHead head;
  head.yield_after_ns = script.byte() % 4 == 0 ? 1 : 0;
  argument.append(reinterpret_cast<const char*>(&head), sizeof head);
  for (std::size_t count = script.byte() % 8; count > 0; --count) {
    const std::string_view item = script.counted_bytes();
    ItemLength length = static_cast<ItemLength>(item.size());
    if (script.byte() == 255) length = script.number<ItemLength>();
    argument.append(reinterpret_cast<const char*>(&length), sizeof length);
    argument.append(item);
  }
  return argument;
}

// What the parent writes.  Less than a socket keeps.
std::string stream_of(Script& script) {
  constexpr std::size_t most = 32 * 1024;
  std::string stream;
  append_frame(stream, FrameKind::task, 0, task_body());
  while (!script.empty() && stream.size() < most) {
    const unsigned order = script.byte();
    const std::uint64_t id = script.byte();
    switch (order % 8) {
      case 0: stream += script.counted_bytes(); break;
      case 1:
        append_frame(stream, static_cast<FrameKind>(id % 9), id, script.counted_bytes());
        break;
      case 2:
      case 3:
        append_frame(stream, FrameKind::call, id,
                     std::string(1, single_call).append(script.counted_bytes()));
        break;
      case 4: append_frame(stream, FrameKind::call, id, std::string(5000, 'x')); break;
      default: append_frame(stream, FrameKind::call, id, chunk(script));
    }
  }
  return stream;
}

struct Received {
  FrameKind kind;
  std::uint64_t id;
  std::string body;
};

struct Stream {
  std::vector<Received> frames;
  bool is_bad = false;
};

// The frames of a complete stream.
Stream cut(std::string_view bytes) {
  Stream stream;
  FrameReader reader;
  reader.feed(bytes);
  try {
    Frame frame;
    while (reader.next(frame))
      stream.frames.push_back({frame.kind, frame.id, std::string(frame.body)});
  } catch (const Error&) {
    stream.is_bad = true;
  }
  return stream;
}

void check_item(std::string_view argument, std::string_view answer, bool failed) {
  if (!failed) {
    REQUIRE(answer == reversed(std::string(argument)));
    return;
  }
  const Error error = read_error(Reader(answer));
  REQUIRE(error.delivery() == Delivery::started);
  REQUIRE(argument.empty() || 2 * argument.size() > max_message);
}

void check_chunk(std::string_view argument, std::string_view answer) {
  Reader items(argument);
  items.take(1 + sizeof(ChunkHead));
  Reader in(answer);
  ChunkAnswerHead head;
  in.read(&head, sizeof head);
  REQUIRE(head.spent_ns >= 0);
  std::size_t count = 0;
  for (; in.remaining() > 0; ++count) {
    ItemHead item;
    in.read(&item, sizeof item);
    const std::string_view body = in.read(item.length());
    ItemLength length;
    items.read(&length, sizeof length);
    check_item(items.read(length), body, item.failed());
  }
  REQUIRE(count > 0);
}

void check_answer(const Received& call, const Received& answer) {
  REQUIRE(answer.id == call.id);
  if (answer.kind == FrameKind::error) {
    const Error error = read_error(Reader(answer.body));
    REQUIRE(error.code() == Errc::too_large || error.code() == Errc::bad_message ||
            error.code() == Errc::remote_exception);
    return;
  }
  REQUIRE(answer.kind == FrameKind::value);
  REQUIRE(!call.body.empty() && call.body.size() <= 4 * max_message);
  const std::string_view argument = std::string_view(call.body).substr(1);
  if (call.body[0] == chunk_of_calls)
    check_chunk(call.body, answer.body);
  else
    check_item(argument, answer.body, false);
}

void check_answers(const Stream& sent, const Stream& received) {
  REQUIRE(!received.is_bad);
  auto next = received.frames.begin();
  const auto end = received.frames.end();
  REQUIRE(next != end && next->kind == FrameKind::value && next->id == 0);  // it is ready
  ++next;
  bool over = false;
  for (std::size_t i = 1; i < sent.frames.size() && !over; ++i) {
    over = sent.frames[i].kind == FrameKind::end;
    if (sent.frames[i].kind != FrameKind::call) continue;
    REQUIRE(next != end);
    check_answer(sent.frames[i], *next++);
  }
  if (sent.is_bad && !over) {
    REQUIRE(next != end && next->kind == FrameKind::error && next->id == 0);
    REQUIRE(read_error(Reader(next->body)).code() == Errc::bad_message);
    ++next;
  }
  REQUIRE(next == end);
}

std::string read_all(int fd) {
  std::string all;
  char bytes[16 * 1024];
  for (;;) {
    const Transfer got = receive(fd, bytes, sizeof bytes, Wait::no);
    if (got.flow != IoResult::done) return all;
    all.append(bytes, got.size);
  }
}

void play_child(Script script) {
  static Slot* const slots = map_slots();
  static CancelTable* const cancel_table = CancelTable::map();
  static const std::shared_ptr<const Modules> modules;
  fuzzing::reset_processes();
  slots[0].clear();
  const std::string stream = stream_of(script);
  OwnedFd parent;
  ChildArgs args;
  REQUIRE(make_pair(PairKind::stream, parent, args.socket) == 0);
  args.id = 1;
  args.slot = args.slots = slots;
  args.cancel_table = cancel_table;
  args.modules = &modules;
  const ByteSpan piece{stream.data(), stream.size()};
  const Transfer sent = send(parent.get(), &piece, 1, Wait::no);
  REQUIRE(sent.flow == IoResult::done && sent.size == stream.size());
  half_close(parent.get());
  traffic_of_child = std::make_unique<ChannelBuffers>();
  set_role(Role::child);
  fuzzing::run_as_process([&] { child_main(std::move(args)); });
  set_role(Role::parent);
  take_inheritance();
  std::destroy_at(std::exchange(detail::this_child, nullptr));
  check_answers(cut(stream), cut(read_all(parent.get())));
  REQUIRE(CallState::of(slots[0].call.load()).running == false);
}

// ---- the parent ----

struct Results {
  std::vector<int> answers;
  std::size_t count = 0;
  int ends = 0;
  bool ordered;
  bool stops_on_error;
  bool failed = false;

  void take(std::size_t index, const Result<std::string>& result) {
    REQUIRE(ends == 0);
    REQUIRE(index < answers.size());
    REQUIRE(++answers[index] == 1);
    REQUIRE(!ordered || index == count);
    REQUIRE(!(stops_on_error && failed));
    ++count;
    failed = failed || !result;
    if (!result) REQUIRE(result.error().code() <= Errc::unhealthy);
  }
  void finish(const MapSummary& summary) {
    REQUIRE(++ends == 1);
    REQUIRE(summary.done + summary.failed == count);
    REQUIRE(summary.stopped || count == answers.size());
    if (failed) REQUIRE(summary.error.has_value());
  }
};

void play_parent(Script script) {
  World world;
  Reactor loop;
  PoolOptions options;
  const unsigned bits = script.byte();
  options.workers = 1 + (bits & 1);
  options.max_failed_starts = 2;
  options.child.snapshot = &world.snapshot();
  options.child.linger = options.child.grace = std::chrono::milliseconds(0);
  options.child.max_message = 4096;
  options.child.retries = bits >> 1 & 1;
  options.child.idempotent = (bits & 4) != 0;
  MapOptions map_options;
  map_options.ordered = (bits & 8) != 0;
  map_options.repeatable = (bits & 16) != 0;
  map_options.stop_on_error = (bits & 32) != 0;
  map_options.chunk = script.byte() % 8;
  const std::size_t count = 1 + script.byte() % 40;
  Results results{std::vector<int>(count), 0, 0, map_options.ordered, map_options.stop_on_error};
  std::optional pool = evparallel::pool<RawIo>(loop, reversed, options);
  MapHandle handle = pool->map(
      std::vector<std::string>(count, "item"),
      [&](std::size_t index, Result<std::string> result) { results.take(index, result); },
      [&](const MapSummary& summary) { results.finish(summary); }, std::move(map_options));
  const std::size_t steps = script.remaining();
  bool paused = false;
  while (!script.empty()) {
    world.look();
    const unsigned order = script.byte();
    if (order == 0) {
      handle.cancel();
    } else if (order == 1) {
      if ((paused = !paused))
        handle.pause();
      else
        handle.resume();
    } else {
      world.obey(script);
    }
    if (order % 4 != 3) fuzzing::turn(loop);
  }
  if (paused) handle.resume();
  world.look();
  REQUIRE(world.children() <= 64 + 2 * steps + 8 * count);
  if (bits & 64) pool.reset();
  fuzzing::run_to_the_end(world, loop, (bits & 128) != 0);
  REQUIRE(results.ends == 1);
}

void play(Script script) {
  if (script.byte() % 2 == 0)
    play_child(script);
  else
    play_parent(script);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  // The first run of each side opens what stays open.
  static const bool prepared = (play_child({nullptr, 0}), play_parent({nullptr, 0}), true);
  REQUIRE(prepared);
  const std::size_t before = fuzzing::open_descriptors();
  play({data, size});
  REQUIRE(fuzzing::open_descriptors() == before);
  return 0;
}
