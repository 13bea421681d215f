// frame.cpp - the stream of frames: cut out of any bytes in pieces of any size, and written again.
//
// The frames, the end and the error are those that a plain reading of the format in evparallel_protocol(7) gives.
#include "fuzzing.hpp"

#include "codec/frame.hpp"

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

using namespace evparallel;
using namespace evparallel::detail;

namespace {

// ---- the format, read in one piece ----

struct Expected {
  FrameKind kind;
  std::uint64_t id;
  std::string_view body;
  bool skipped;
  unsigned attached;
};

struct Reading {
  std::vector<Expected> frames;
  bool bad = false;                        // the stream makes no sense behind them
  std::size_t end = 0;                     // of the last frame
  std::optional<std::uint64_t> under_way;  // the header of a further frame is complete
};

Reading reading_of(std::string_view stream, std::uint64_t max_body) {
  Reading reading;
  while (stream.size() - reading.end >= frame_header_size) {
    const char* const at = stream.data() + reading.end;
    std::uint64_t word;
    std::uint64_t id;
    std::memcpy(&word, at, sizeof word);
    std::memcpy(&id, at + sizeof word, sizeof id);
    const std::uint64_t length = word & ((std::uint64_t{1} << 48) - 1);
    const unsigned kind = word >> 48 & 0xff;
    if (kind < 1 || kind > 7) {
      reading.bad = true;
      return reading;
    }
    if (length > stream.size() - reading.end - frame_header_size) {
      reading.under_way = id;
      return reading;
    }
    const bool is_error = static_cast<FrameKind>(kind) == FrameKind::error;
    const bool skipped =
        length > (is_error ? std::max<std::uint64_t>(max_body, error_body_limit) : max_body);
    reading.frames.push_back(
        {static_cast<FrameKind>(kind), id,
         skipped ? std::string_view() : std::string_view(at + frame_header_size, length), skipped,
         static_cast<unsigned>(word >> 56)});
    reading.end += frame_header_size + length;
  }
  return reading;
}

// ---- the reader ----

class Pieces {
public:
  Pieces(unsigned seed, std::size_t total) noexcept : state_(seed), scale_(total / 4096 + 1) {}
  // Mostly small for that total, and sometimes all that is left.
  std::size_t next(std::size_t left) noexcept {
    state_ = state_ * 1103515245 + 12345;
    const unsigned some = state_ >> 16 & 0x7fff;
    const std::size_t size = some % 8 == 0 ? left : some % 4 == 0 ? some : some % 32 * scale_;
    return std::clamp<std::size_t>(size, 1, left);
  }

private:
  unsigned state_;
  std::size_t scale_;
};

void compare(const Frame& frame, const Expected& expected) {
  REQUIRE(frame.kind == expected.kind);
  REQUIRE(frame.id == expected.id);
  REQUIRE(frame.attached == expected.attached);
  REQUIRE(frame.skipped == (expected.skipped ? Frame::Skipped::too_large : Frame::Skipped::no));
  REQUIRE(frame.body == expected.body);
  REQUIRE(!frame.whole || *frame.whole == expected.body);
}

// Some users take the string of a large frame.
void take(Frame& frame, std::size_t number) {
  if (!frame.whole || number % 2 == 0) return;
  const std::size_t size = frame.body.size();
  const std::string taken = std::move(*frame.whole);
  REQUIRE(taken.size() == size);
}

void read_in_pieces(std::string_view stream, std::size_t max_body, Pieces pieces,
                    const Reading& reading) {
  const fuzzing::MemoryPeak memory;
  FrameReader reader(max_body);
  std::size_t found = 0;
  std::size_t at = 0;
  std::string scratch;
  while (at < stream.size()) {
    const FrameReader::Room room = reader.room();
    std::size_t size = pieces.next(stream.size() - at);
    if (room.size > 0) {
      size = std::min(size, room.size);
      std::memcpy(room.data, stream.data() + at, size);
      reader.filled(size);
    } else {
      scratch.assign(stream.data() + at, size);
      reader.feed(scratch);
    }
    at += size;
    try {
      Frame frame;
      while (reader.next(frame)) {
        REQUIRE(found < reading.frames.size());
        compare(frame, reading.frames[found]);
        take(frame, found++);
      }
    } catch (const Error& error) {
      REQUIRE(error.code() == Errc::bad_message);
      REQUIRE(reading.bad);
      REQUIRE(found == reading.frames.size());
      return;
    }
    reader.keep();
    // A length is never trusted.  While memory grows, both the old and the new one are there.
    REQUIRE(memory.bytes() <= 6 * at + (std::size_t{1} << 20));
  }
  REQUIRE(found == reading.frames.size());
  REQUIRE(!reading.bad);
  REQUIRE(reader.in_frame() == (reading.end < stream.size()));
  REQUIRE(reader.id_under_way() == reading.under_way.value_or(0));
}

// ---- the queue ----

void fill(Writer& out, std::string_view body, unsigned way) {
  const std::size_t copied = way % 3 == 0 ? body.size() : way % 3 == 1 ? 0 : body.size() / 2;
  out.write(body.substr(0, copied));
  if (copied == body.size()) return;
  auto kept = std::make_shared<std::string>(body.substr(copied));
  const void* const data = kept->data();
  const std::size_t size = kept->size();
  out.adopt(std::move(kept), data, size);
}

std::string written(FrameQueue& queue, Pieces pieces) {
  std::string all;
  while (!queue.empty()) {
    ByteSpan spans[4];
    const int count = queue.front(spans, 4);
    REQUIRE(count > 0 && count <= 4);
    REQUIRE(!queue.along());
    std::string some;
    for (int i = 0; i < count; ++i) some.append(spans[i].data, spans[i].size);
    REQUIRE(!some.empty() && some.size() <= queue.size());
    some.resize(pieces.next(some.size()));
    queue.written(some.size());
    all += some;
  }
  return all;
}

void write_again(const Reading& reading, Pieces pieces, unsigned way) {
  FrameQueue queue;
  std::string expected;
  for (const Expected& frame : reading.frames) {
    const std::uint64_t word =
        frame.body.size() | std::uint64_t{static_cast<std::uint8_t>(frame.kind)} << 48;
    expected.append(reinterpret_cast<const char*>(&word), sizeof word);
    expected.append(reinterpret_cast<const char*>(&frame.id), sizeof frame.id);
    expected.append(frame.body);
    Writer message;
    fill(message, frame.body, way++);
    if (way % 2 == 0) {
      queue.push(frame.kind, frame.id, message);
      REQUIRE(message.size() == 0);
    } else {
      queue.push_kept(frame.kind, frame.id, message);
      REQUIRE(message.size() == frame.body.size());
    }
  }
  REQUIRE(queue.size() == expected.size());
  REQUIRE(written(queue, pieces) == expected);
}

// From this value of a byte on the stream is long; few are, since they are slow.
constexpr unsigned first_long = 250;

}  // namespace

// The limit of a body, the sizes of the pieces, how long the stream becomes, and the stream.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzzing::Script script(data, size);
  const unsigned limit = script.byte();
  const unsigned seed = script.number<std::uint16_t>();
  const unsigned length = script.byte();
  std::string stream(script.rest());
  // An input is short, and a body gets memory of its own only if it is long.
  if (length >= first_long && stream.size() >= 4 * frame_header_size) {
    const std::string tail = stream.substr(stream.size() - 3 * frame_header_size);
    while (stream.size() < (length - first_long + 1) * (std::size_t{64} << 10)) stream += tail;
  }
  const std::size_t max_body = limit == 255 ? longest_body : std::size_t{limit} * limit * limit;
  const Reading reading = reading_of(stream, max_body);
  read_in_pieces(stream, max_body, Pieces(seed, stream.size()), reading);
  write_again(reading, Pieces(seed + 1, stream.size()), seed);
  return 0;
}
