// frame.cpp - the stream: frames in pieces of every size, truncated and damaged at every place, and their queue.
#include "private_names.hpp"
#include "testing.hpp"

#include "pipe/channel.hpp"
#include "system/failpoint.hpp"
#include "codec/frame.hpp"
#include "codec/remote_error.hpp"
#include "backtrace/stack_walk.hpp"

#include <malloc.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <new>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

using namespace evparallel;

// ---- counting allocations: all of them come through here ----

namespace {

struct Memory {
  std::size_t largest = 0;  // the largest allocated block
  std::size_t total = 0;    // the sum of all allocations
  std::size_t live = 0;
  std::size_t peak = 0;
};
Memory memory;

void* allocate(std::size_t size) {
  void* block = std::malloc(size ? size : 1);
  if (!block) throw std::bad_alloc();
  memory.largest = std::max(memory.largest, size);
  memory.total += size;
  memory.live += ::malloc_usable_size(block);
  memory.peak = std::max(memory.peak, memory.live);
  return block;
}

void release(void* block) noexcept {
  if (block) memory.live -= ::malloc_usable_size(block);
  std::free(block);
}

// Counts the allocations during its lifetime.
class Watched {
public:
  Watched() : start_(memory.live) {
    memory.largest = 0;
    memory.total = 0;
    memory.peak = memory.live;
  }
  std::size_t largest() const { return memory.largest; }
  std::size_t total() const { return memory.total; }
  std::size_t peak() const { return memory.peak - start_; }

private:
  std::size_t start_;
};

}  // namespace

void* operator new(std::size_t size) {
  return allocate(size);
}
void* operator new[](std::size_t size) {
  return allocate(size);
}
void operator delete(void* block) noexcept {
  release(block);
}
void operator delete[](void* block) noexcept {
  release(block);
}
void operator delete(void* block, std::size_t) noexcept {
  release(block);
}
void operator delete[](void* block, std::size_t) noexcept {
  release(block);
}

namespace {

constexpr std::size_t kib = 1024;
constexpr std::size_t mib = 1024 * kib;

// ---- frames written by the test itself ----

std::string header_of(FrameKind kind, std::uint64_t id, std::uint64_t length) {
  std::string bytes;
  for (int i = 0; i < 6; ++i) bytes += static_cast<char>(length >> (8 * i) & 0xff);
  bytes += static_cast<char>(kind);
  bytes += '\0';
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(id >> (8 * i) & 0xff);
  return bytes;
}

std::string frame_of(FrameKind kind, std::uint64_t id, const std::string& body) {
  return header_of(kind, id, body.size()) + body;
}

// A body that differs from every other body, and from each shifted copy of itself.
std::string body_of(std::size_t size, unsigned seed = 1) {
  std::mt19937 random(seed + static_cast<unsigned>(size));
  std::string body(size, '\0');
  for (char& c : body) c = static_cast<char>(random());
  return body;
}

struct Seen {
  FrameKind kind;
  std::uint64_t id;
  std::string body;
  bool too_large;
  bool operator==(const Seen& other) const {
    return kind == other.kind && id == other.id && body == other.body &&
           too_large == other.too_large;
  }
};

Seen seen(const Frame& frame) {
  return {frame.kind, frame.id, std::string(frame.body),
          frame.skipped == Frame::Skipped::too_large};
}

void take_all(FrameReader& reader, std::vector<Seen>& to) {
  Frame frame;
  while (reader.next(frame)) to.push_back(seen(frame));
  reader.keep();
}

// Whether directly received bytes go into the offered room, as a channel does it.
enum class Direct : bool { no, yes };

// Feeds the stream in pieces.  Each piece is in memory of exactly its size, which is released afterwards.
class Feeder {
public:
  Feeder(FrameReader& reader, Direct direct) : reader_(reader), direct_(direct) {}

  std::vector<Seen> got;

  void feed(std::string_view piece) {
    while (direct_ == Direct::yes && !piece.empty()) {
      const FrameReader::Room room = reader_.room();
      if (room.size == 0) break;
      const std::size_t size = std::min(room.size, piece.size());
      std::memcpy(room.data, piece.data(), size);
      reader_.filled(size);
      piece.remove_prefix(size);
      take_all(reader_, got);
    }
    const std::unique_ptr<char[]> exact(new char[piece.size()]);
    if (!piece.empty()) std::memcpy(exact.get(), piece.data(), piece.size());
    reader_.feed(std::string_view(exact.get(), piece.size()));
    take_all(reader_, got);
  }

private:
  FrameReader& reader_;
  Direct direct_;
};

std::vector<Seen> read_in_pieces(const std::string& stream,
                                 const std::function<std::size_t()>& next, Direct direct,
                                 std::size_t limit = 64 * mib) {
  FrameReader reader(limit);
  Feeder feeder(reader, direct);
  for (std::size_t at = 0; at < stream.size();) {
    const std::size_t size = std::min(next(), stream.size() - at);
    feeder.feed(std::string_view(stream).substr(at, size));
    at += size;
  }
  BOOST_TEST(!reader.in_frame());
  return feeder.got;
}

struct Stream {
  std::string bytes;
  std::vector<Seen> frames;
  std::vector<std::size_t> ends;  // where each frame ends

  void add(FrameKind kind, std::uint64_t id, const std::string& body) {
    bytes += frame_of(kind, id, body);
    frames.push_back({kind, id, body, false});
    ends.push_back(bytes.size());
  }
};

Stream stream_of(const std::vector<std::size_t>& sizes) {
  Stream stream;
  constexpr FrameKind kinds[] = {FrameKind::task,  FrameKind::call,    FrameKind::value,
                                 FrameKind::error, FrameKind::message, FrameKind::end};
  std::uint64_t id = 0;
  for (const std::size_t size : sizes) {
    stream.add(kinds[id % 6], id == 3 ? UINT64_MAX : id, body_of(size));
    ++id;
  }
  return stream;
}

// Boost would print whole bodies.
bool same(const std::vector<Seen>& a, const std::vector<Seen>& b) {
  return a == b;
}

Writer message_of(const std::string& body) {
  Writer message;
  message.write(body);
  return message;
}

std::string drained(FrameQueue& queue) {
  std::string all;
  while (!queue.empty()) {
    ByteSpan piece;
    if (queue.front(&piece, 1) != 1) throw std::runtime_error("a queue that is not empty is empty");
    all.append(piece.data, piece.size);
    queue.written(piece.size);
  }
  return all;
}

}  // namespace

// ---- reading ----

BOOST_AUTO_TEST_SUITE(frames_in)

BOOST_AUTO_TEST_CASE(a_frame_consists_of_a_header_and_a_body) {
  FrameQueue queue;
  Writer message = message_of("body");
  queue.push(FrameKind::message, 0x0102030405060708U, message);
  BOOST_TEST(message.size() == 0U);
  BOOST_TEST((drained(queue) == std::string("\4\0\0\0\0\0\5\0\x08\7\6\5\4\3\2\1", 16) + "body"));
}

BOOST_AUTO_TEST_CASE(frames_may_arrive_in_pieces_of_any_size) {
  const Stream stream =
      stream_of({0, 1, 0, 0, 15, 16, 17, 100, 2, 32 * kib - 1, 3, 32 * kib, 0, 32 * kib + 1, 1, 5});
  for (const Direct direct : {Direct::no, Direct::yes})
    for (std::size_t size = 1; size <= 40; ++size)
      BOOST_TEST(same(read_in_pieces(
                          stream.bytes, [&] { return size; }, direct),
                      stream.frames));
}

BOOST_AUTO_TEST_CASE(large_frames_may_arrive_in_pieces) {
  const Stream stream =
      stream_of({256 * kib - 1, 3, 256 * kib, 0, 256 * kib + 1, mib, 1, mib + 1, 7});
  for (const Direct direct : {Direct::no, Direct::yes})
    for (const std::size_t size : {13 * std::size_t{1}, 40 * std::size_t{1}, 4 * kib, 64 * kib,
                                   128 * kib, 256 * kib + 16, 3 * mib})
      BOOST_TEST(same(read_in_pieces(
                          stream.bytes, [&] { return size; }, direct),
                      stream.frames));
}

BOOST_AUTO_TEST_CASE(frames_may_arrive_in_pieces_of_random_sizes) {
  for (unsigned seed = 1; seed <= 40; ++seed) {
    std::mt19937 random(testing::seed(seed));
    std::vector<std::size_t> sizes;
    for (int i = 0; i < 30; ++i)
      sizes.push_back(random() % 4 == 0 ? random() % (300 * kib) : random() % 60);
    const Stream stream = stream_of(sizes);
    const auto next = [&] {
      return std::size_t{1} + (random() % 3 == 0 ? random() % (200 * kib) : random() % 50);
    };
    BOOST_TEST(same(read_in_pieces(stream.bytes, next, Direct::no), stream.frames));
    BOOST_TEST(same(read_in_pieces(stream.bytes, next, Direct::yes), stream.frames));
  }
}

BOOST_AUTO_TEST_CASE(a_frame_may_be_cut_at_any_byte) {
  const Stream stream = stream_of({0, 1, 20, 0, 3, 33});
  for (std::size_t cut = 0; cut <= stream.bytes.size(); ++cut) {
    FrameReader reader(mib);
    Feeder feeder(reader, Direct::yes);
    feeder.feed(std::string_view(stream.bytes).substr(0, cut));
    const auto whole = std::count_if(stream.ends.begin(), stream.ends.end(),
                                     [&](std::size_t end) { return end <= cut; });
    BOOST_TEST(static_cast<std::ptrdiff_t>(feeder.got.size()) == whole);
    const bool between = cut == 0 || std::count(stream.ends.begin(), stream.ends.end(), cut) > 0;
    BOOST_TEST(reader.in_frame() == !between);
    feeder.feed(std::string_view(stream.bytes).substr(cut));
    BOOST_TEST(same(feeder.got, stream.frames));
    BOOST_TEST(!reader.in_frame());
  }
}

BOOST_AUTO_TEST_CASE(a_frame_may_be_cut_at_any_two_bytes) {
  const Stream stream = stream_of({2, 0, 19, 1});
  for (std::size_t first = 0; first <= stream.bytes.size(); ++first) {
    for (std::size_t second = first; second <= stream.bytes.size(); ++second) {
      FrameReader reader(mib);
      Feeder feeder(reader, Direct::no);
      feeder.feed(std::string_view(stream.bytes).substr(0, first));
      feeder.feed(std::string_view(stream.bytes).substr(first, second - first));
      feeder.feed(std::string_view(stream.bytes).substr(second));
      if (!same(feeder.got, stream.frames))
        BOOST_ERROR("cut at " + std::to_string(first) + " and " + std::to_string(second));
    }
  }
  BOOST_TEST(true);
}

BOOST_AUTO_TEST_CASE(a_large_frame_may_be_cut_at_any_byte) {
  const Stream stream = stream_of({5, 32 * kib, 5});
  for (std::size_t cut = 0; cut <= stream.bytes.size(); ++cut) {
    FrameReader reader(mib);
    Feeder feeder(reader, cut % 2 ? Direct::yes : Direct::no);
    feeder.feed(std::string_view(stream.bytes).substr(0, cut));
    const bool between = cut == 0 || std::count(stream.ends.begin(), stream.ends.end(), cut) > 0;
    const bool right = reader.in_frame() == !between;
    feeder.feed(std::string_view(stream.bytes).substr(cut));
    if (!right || !same(feeder.got, stream.frames)) BOOST_ERROR("cut at " + std::to_string(cut));
  }
  BOOST_TEST(true);
}

BOOST_AUTO_TEST_CASE(a_body_is_found_at_its_offset) {
  const std::string stream =
      frame_of(FrameKind::value, 1, body_of(64 * kib)) + frame_of(FrameKind::value, 2, "small");
  FrameReader reader(mib);
  reader.feed(stream);
  Frame frame;
  BOOST_REQUIRE(reader.next(frame));
  BOOST_REQUIRE(frame.whole != nullptr);
  BOOST_TEST((*frame.whole == body_of(64 * kib)));
  const void* const data = frame.whole->data();
  Reader in = frame.reader();
  const std::string taken = in.take_rest();  // the body may be moved out
  BOOST_TEST(static_cast<const void*>(taken.data()) == data);
  BOOST_REQUIRE(reader.next(frame));
  BOOST_TEST(frame.whole == nullptr);
  BOOST_TEST(frame.reader().take_rest() == "small");
  BOOST_TEST(!reader.next(frame));
}

// A large frame follows one whose memory was taken.
BOOST_AUTO_TEST_CASE(memory_that_was_taken_is_not_reused) {
  FrameReader reader(mib);
  std::vector<std::string> taken;
  for (unsigned i = 0; i < 3; ++i) {
    const std::string bytes = frame_of(FrameKind::value, i, body_of(100 * kib, i));
    reader.feed(bytes);
    Frame frame;
    BOOST_REQUIRE(reader.next(frame));
    taken.push_back(frame.reader().take_rest());
    BOOST_TEST(!reader.next(frame));
    reader.keep();
  }
  for (unsigned i = 0; i < 3; ++i) BOOST_TEST((taken[i] == body_of(100 * kib, i)));
}

BOOST_AUTO_TEST_CASE(kept_frames_wait_to_be_taken) {
  const Stream stream = stream_of({3, 10, 0, 40 * kib, 7, 25});
  // The test stops reading after each number of frames, and again after each number of the remaining ones.
  for (std::size_t first = 0; first <= stream.frames.size(); ++first) {
    for (std::size_t fed = 0; fed <= stream.bytes.size();
         fed += fed < 100 || fed > 40 * kib ? 1 : 997) {
      FrameReader reader(mib);
      std::string buffer = stream.bytes.substr(0, fed);
      reader.feed(buffer);
      std::vector<Seen> got;
      Frame frame;
      for (std::size_t i = 0; i < first && reader.next(frame); ++i) got.push_back(seen(frame));
      reader.keep();
      std::fill(buffer.begin(), buffer.end(), '\xee');  // the caller may reuse the buffer
      reader.keep();                                    // a second keep() has no effect
      if (!reader.next(frame)) {
        reader.keep();
      } else {
        got.push_back(seen(frame));
        reader.keep();
      }
      take_all(reader, got);
      buffer = stream.bytes.substr(fed);
      reader.feed(buffer);
      take_all(reader, got);
      if (!same(got, stream.frames))
        BOOST_ERROR("left after " + std::to_string(first) + " frames of " + std::to_string(fed) +
                    " bytes");
    }
  }
  BOOST_TEST(true);
}

// More bytes are received while whole frames wait.
BOOST_AUTO_TEST_CASE(kept_frames_do_not_block_later_frames) {
  const Stream stream = stream_of({3, 10, 0, 4, 7, 25, 33 * kib, 1, 2});
  FrameReader reader(mib);
  std::vector<Seen> got;
  for (std::size_t at = 0; at < stream.bytes.size(); at += 20) {
    const std::string piece = stream.bytes.substr(at, 20);
    reader.feed(piece);
    Frame frame;
    if (at % 60 == 0 && reader.next(frame)) got.push_back(seen(frame));
    reader.keep();
  }
  take_all(reader, got);
  BOOST_TEST(same(got, stream.frames));
}

BOOST_AUTO_TEST_CASE(only_a_large_frame_offers_room_for_direct_reads) {
  const std::string body = body_of(700 * kib);
  FrameReader reader(mib);
  BOOST_TEST(reader.room().size == 0U);
  const std::string start = frame_of(FrameKind::message, 9, "small") +
                            header_of(FrameKind::message, 10, body.size()) + body.substr(0, 10);
  reader.feed(std::string_view(start).substr(0, start.size() - 20));
  std::vector<Seen> got;
  take_all(reader, got);
  BOOST_TEST(got.size() == 1U);
  BOOST_TEST(reader.room().size == 0U);  // inside a header
  reader.feed(std::string_view(start).substr(start.size() - 20));
  take_all(reader, got);
  std::size_t at = 10;
  while (at < body.size()) {
    const FrameReader::Room room = reader.room();
    BOOST_REQUIRE(room.size > 0U);
    BOOST_REQUIRE(room.size <= body.size() - at);  // never reaches into the next frame
    const std::size_t size = std::min<std::size_t>(room.size, 100 * kib);
    std::memcpy(room.data, body.data() + at, size);
    reader.filled(size);
    at += size;
    BOOST_TEST(reader.in_frame());
    if (at < body.size()) {
      Frame frame;
      BOOST_TEST(!reader.next(frame));
    }
  }
  BOOST_TEST(reader.room().size == 0U);  // full: the frame waits to be taken
  take_all(reader, got);
  BOOST_REQUIRE(got.size() == 2U);
  BOOST_TEST((got[1].body == body));
  BOOST_TEST(!reader.in_frame());
}

BOOST_AUTO_TEST_SUITE_END()

// ---- bad input ----

BOOST_AUTO_TEST_SUITE(bad_input)

BOOST_AUTO_TEST_CASE(unknown_kinds_are_refused) {
  for (unsigned kind = 0; kind < 0x100; ++kind) {
    if (kind >= 1 && kind <= 7) continue;
    std::string bytes = header_of(FrameKind::end, 1, 0);
    bytes[6] = static_cast<char>(kind);
    FrameReader reader(mib);
    reader.feed(bytes);
    Frame frame;
    try {
      reader.next(frame);
      BOOST_ERROR("kind " + std::to_string(kind) + " was taken");
    } catch (const Error& error) {
      if (error.code() != Errc::bad_message ||
          std::string(error.what()).find(std::to_string(kind)) == std::string::npos)
        BOOST_ERROR(error.what());
    }
  }
  BOOST_TEST(true);
}

BOOST_AUTO_TEST_CASE(the_header_gives_the_number_of_descriptors) {
  for (unsigned attached = 0; attached < 0x100; ++attached) {
    std::string bytes = header_of(FrameKind::message, 1, 0);
    bytes[7] = static_cast<char>(attached);
    FrameReader reader(mib);
    reader.feed(bytes);
    Frame frame;
    BOOST_TEST(reader.next(frame));
    BOOST_TEST(frame.attached == attached);
  }
}

BOOST_AUTO_TEST_CASE(a_flipped_bit_does_no_harm) {
  const Stream stream = stream_of({0, 1, 20, 3, 33, 0});
  constexpr std::size_t limit = 4 * kib;
  unsigned thrown = 0;
  for (std::size_t bit = 0; bit < 8 * stream.bytes.size(); ++bit) {
    std::string flipped = stream.bytes;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    for (const std::size_t piece : {std::size_t{1}, std::size_t{7}, flipped.size()}) {
      const Watched watched;
      FrameReader reader(limit);
      Feeder feeder(reader, Direct::yes);
      try {
        for (std::size_t at = 0; at < flipped.size(); at += piece)
          feeder.feed(std::string_view(flipped).substr(at, piece));
      } catch (const Error& error) {
        if (error.code() != Errc::bad_message) BOOST_ERROR(error.what());
        ++thrown;
      }
      if (feeder.got.size() > stream.bytes.size() / frame_header_size)
        BOOST_ERROR("frames out of nothing");
      if (watched.largest() > error_body_limit)
        BOOST_ERROR("bit " + std::to_string(bit) + ": allocated " +
                    std::to_string(watched.largest()));
    }
  }
  BOOST_TEST(thrown > 0U);
}

BOOST_AUTO_TEST_CASE(random_bytes_do_no_harm) {
  for (unsigned seed = 0; seed < 3000; ++seed) {
    std::mt19937 random(testing::seed(seed));
    std::string bytes(random() % 300, '\0');
    for (char& c : bytes) c = static_cast<char>(random() % 3 ? random() % 8 : random());
    FrameReader reader(64 * kib);
    Feeder feeder(reader, Direct::yes);
    const Watched watched;
    try {
      while (!bytes.empty()) {
        const std::size_t size = std::min<std::size_t>(bytes.size(), 1 + random() % 50);
        feeder.feed(std::string_view(bytes).substr(0, size));
        bytes.erase(0, size);
      }
    } catch (const Error& error) {
      if (error.code() != Errc::bad_message) BOOST_ERROR(error.what());
    }
    if (watched.largest() > 64 * kib) BOOST_ERROR("allocated " + std::to_string(watched.largest()));
  }
  BOOST_TEST(true);
}

// The limit of the reader permits this length: allocation must follow the received bytes.
BOOST_AUTO_TEST_CASE(a_false_length_does_not_allocate_memory, *testing::guarantee("7.2")) {
  for (const std::uint64_t length : {std::uint64_t{1} << 47, frame_length_limit,
                                     std::uint64_t{1} << 32, std::uint64_t{1} << 28}) {
    const std::string header = header_of(FrameKind::message, 1, length);
    const Watched watched;
    FrameReader reader(longest_body);
    reader.feed(header);
    Frame frame;
    BOOST_TEST(!reader.next(frame));
    reader.keep();
    BOOST_TEST(watched.peak() <= 4 * kib);  // a header alone allocates nothing for the body
    const FrameReader::Room room = reader.room();
    const bool can_be_had = length <= std::string().max_size();
    BOOST_TEST((room.size > 0U) == can_be_had);
    BOOST_TEST(watched.peak() <= 300 * kib);
  }
}

BOOST_AUTO_TEST_CASE(memory_grows_with_the_bytes_that_have_arrived, *testing::guarantee("7.2")) {
  const std::string piece(100 * kib, 'p');
  for (const Direct direct : {Direct::no, Direct::yes}) {
    FrameReader reader(longest_body);
    Feeder feeder(reader, direct);
    feeder.feed(header_of(FrameKind::message, 1, std::uint64_t{1} << 47));
    std::size_t arrived = 0;
    for (int i = 0; i < 40; ++i) {
      const Watched watched;
      feeder.feed(piece);
      arrived += piece.size();
      BOOST_TEST(watched.largest() <= std::max<std::size_t>(4 * arrived, 300 * kib));
    }
    BOOST_TEST(feeder.got.empty());
    BOOST_TEST(reader.in_frame());
  }
}

BOOST_AUTO_TEST_CASE(a_large_message_uses_no_more_memory_than_it_needs) {
  const std::string stream = frame_of(FrameKind::message, 1, body_of(mib));
  const Watched watched;
  const auto got = read_in_pieces(
      stream, [] { return 64 * kib; }, Direct::yes);
  BOOST_TEST(got.size() == 1U);
  BOOST_TEST(watched.largest() <= mib + 64);
}

// The received part is moved each time it gets more memory.
BOOST_AUTO_TEST_CASE(receiving_a_large_message_moves_at_most_a_third_of_it) {
  constexpr std::size_t pieces[] = {4 * kib, 100 * kib, 208 * kib, mib};
  for (const std::size_t size : {mib, 8 * mib, 8 * mib + 1, 13 * mib + 57}) {
    const std::string frame = frame_of(FrameKind::value, 1, std::string(size, 'x'));
    for (const std::size_t piece : pieces) {
      FrameReader reader(64 * mib);
      const Watched watched;
      for (std::size_t at = 0; at < frame.size(); at += piece) {
        FrameReader::Room room = reader.room();
        if (room.size == 0) {
          reader.feed(std::string_view(frame).substr(at, piece));
        } else {
          std::string_view left = std::string_view(frame).substr(at, piece);
          while (!left.empty()) {
            room = reader.room();
            const std::size_t now = std::min(room.size, left.size());
            std::memcpy(room.data, left.data(), now);
            reader.filled(now);
            left.remove_prefix(now);
          }
        }
        Frame got;
        if (reader.next(got)) BOOST_TEST((got.body == std::string_view(frame).substr(16)));
        reader.keep();
      }
      BOOST_TEST(watched.total() <= size / 3 * 4 + 2 * kib);
    }
  }
}

BOOST_AUTO_TEST_CASE(a_message_that_is_too_large_is_skipped, *testing::guarantee("7.2")) {
  constexpr std::size_t limit = 1000;
  std::string stream;
  std::vector<Seen> frames;
  for (const std::size_t size :
       {limit - 1, limit, limit + 1, std::size_t{0}, 100 * kib, 3 * std::size_t{1}, mib, limit}) {
    const std::string body = body_of(size);
    stream += frame_of(FrameKind::call, size, body);
    if (size <= limit)
      frames.push_back({FrameKind::call, size, body, false});
    else
      frames.push_back({FrameKind::call, size, "", true});
  }
  for (const Direct direct : {Direct::no, Direct::yes}) {
    for (const std::size_t piece :
         {std::size_t{7}, std::size_t{40}, limit, 64 * kib, stream.size()}) {
      const Watched watched;
      BOOST_TEST(same(read_in_pieces(
                          stream, [&] { return piece; }, direct, limit),
                      frames));
      // The test allocated the pieces that wait.
      BOOST_TEST(watched.largest() <= std::max<std::size_t>(piece, 4 * limit));
    }
  }
}

BOOST_AUTO_TEST_CASE(a_skipped_frame_may_be_cut_at_any_byte) {
  const std::string stream =
      frame_of(FrameKind::call, 1, body_of(50)) + frame_of(FrameKind::call, 2, "in");
  for (std::size_t cut = 1; cut < stream.size(); ++cut) {
    FrameReader reader(10);
    Feeder feeder(reader, Direct::yes);
    feeder.feed(std::string_view(stream).substr(0, cut));
    BOOST_TEST(reader.in_frame() == (cut != 66));
    feeder.feed(std::string_view(stream).substr(cut));
    BOOST_REQUIRE(feeder.got.size() == 2U);
    BOOST_TEST((feeder.got[0] == Seen{FrameKind::call, 1, "", true}));
    BOOST_TEST((feeder.got[1] == Seen{FrameKind::call, 2, "in", false}));
  }
}

// Errors are reported for any limit of the user, however small.
BOOST_AUTO_TEST_CASE(errors_have_a_limit_of_their_own) {
  const std::string stream = frame_of(FrameKind::error, 1, body_of(error_body_limit)) +
                             frame_of(FrameKind::error, 2, body_of(error_body_limit + 1)) +
                             frame_of(FrameKind::value, 3, body_of(11));
  FrameReader reader(10);
  Feeder feeder(reader, Direct::no);
  feeder.feed(stream);
  BOOST_REQUIRE(feeder.got.size() == 3U);
  BOOST_TEST(!feeder.got[0].too_large);
  BOOST_TEST(feeder.got[0].body.size() == error_body_limit);
  BOOST_TEST(feeder.got[1].too_large);
  BOOST_TEST(feeder.got[2].too_large);
}

BOOST_AUTO_TEST_CASE(the_limit_may_be_raised) {
  FrameReader reader(2);
  Feeder feeder(reader, Direct::no);
  feeder.feed(frame_of(FrameKind::call, 1, "abc"));
  reader.set_max_body(3);
  feeder.feed(frame_of(FrameKind::call, 2, "abc"));
  BOOST_REQUIRE(feeder.got.size() == 2U);
  BOOST_TEST(feeder.got[0].too_large);
  BOOST_TEST(feeder.got[1].body == "abc");
}

BOOST_AUTO_TEST_SUITE_END()

// ---- writing ----

BOOST_AUTO_TEST_SUITE(frames_out)

BOOST_AUTO_TEST_CASE(an_empty_queue_has_no_front) {
  FrameQueue queue;
  ByteSpan pieces[4];
  BOOST_TEST(queue.empty());
  BOOST_TEST(queue.size() == 0U);
  BOOST_TEST(queue.front(pieces, 4) == 0);
  queue.clear();
  queue.truncate(0);
  BOOST_TEST(queue.front(pieces, 4) == 0);
}

namespace {

// Pushes and writes at random from the seed, and compares the result with one long string.
void push_and_write_at_random(unsigned seed) {
  std::mt19937 random(testing::seed(seed));
  FrameQueue queue;
  std::string expected;
  std::string written;
  for (int step = 0; step < 200; ++step) {
    if (random() % 2) {
      Writer message;
      std::string body = body_of(random() % 8 == 0 ? random() % (80 * kib) : random() % 100, seed);
      if (random() % 5 == 0) body.clear();
      message.write(body);
      if (random() % 3 == 0) {
        const auto owner = std::make_shared<const std::string>(
            body_of(1 + (random() % 2 ? random() % 50 : random() % (90 * kib)), seed + 1));
        message.adopt(owner, owner->data(), owner->size());
        body += *owner;
      }
      const auto id = static_cast<std::uint64_t>(step);
      expected += frame_of(FrameKind::message, id, body);
      queue.push(FrameKind::message, id, message);
      BOOST_REQUIRE(message.size() == 0U);
    } else if (!queue.empty()) {
      ByteSpan pieces[16];
      const int room = 1 + static_cast<int>(random() % 16);
      const int count = queue.front(pieces, room);
      BOOST_REQUIRE(count >= 1);
      BOOST_REQUIRE(count <= room);
      std::string front;
      for (int i = 0; i < count; ++i) {
        BOOST_REQUIRE(pieces[i].size > 0U);
        front.append(pieces[i].data, pieces[i].size);
      }
      const std::size_t size = random() % 3 == 0 ? front.size() : 1 + random() % front.size();
      written.append(front, 0, size);
      queue.written(size);
    }
    BOOST_REQUIRE(queue.size() == expected.size() - written.size());
    BOOST_REQUIRE(queue.empty() == (queue.size() == 0));
  }
  written += drained(queue);
  BOOST_TEST((written == expected));
  BOOST_TEST(queue.empty());
}

}  // namespace

BOOST_AUTO_TEST_CASE(random_pushes_and_partial_writes_keep_the_order) {
  for (unsigned seed = 0; seed < 300; ++seed) push_and_write_at_random(seed);
}

BOOST_AUTO_TEST_CASE(a_queue_may_be_written_byte_by_byte) {
  FrameQueue queue;
  const auto owner = std::make_shared<const std::string>(body_of(200));
  std::string expected;
  for (int i = 0; i < 3; ++i) {
    Writer message;
    message.write("head");
    message.adopt(owner, owner->data(), owner->size());
    queue.push(FrameKind::message, 1, message);
    expected += frame_of(FrameKind::message, 1, "head" + *owner);
    Writer large = message_of(body_of(33 * kib));
    queue.push(FrameKind::message, 2, large);
    expected += frame_of(FrameKind::message, 2, body_of(33 * kib));
  }
  std::string all;
  while (!queue.empty()) {
    ByteSpan piece;
    BOOST_REQUIRE(queue.front(&piece, 1) == 1);
    all += piece.data[0];
    queue.written(1);
  }
  BOOST_TEST((all == expected));
}

BOOST_AUTO_TEST_CASE(an_adopted_value_is_sent_in_place_and_released) {
  auto owner = std::make_shared<const std::string>(body_of(100 * kib));
  const std::weak_ptr<const std::string> alive = owner;
  const char* const data = owner->data();
  Writer message;
  message.adopt(owner, data, owner->size());
  owner.reset();
  FrameQueue queue;
  queue.push(FrameKind::message, 1, message);
  ByteSpan pieces[3];
  BOOST_REQUIRE(queue.front(pieces, 3) == 2);
  BOOST_TEST(static_cast<const void*>(pieces[1].data) == static_cast<const void*>(data));
  queue.written(frame_header_size + 100 * kib - 1);
  BOOST_TEST(!alive.expired());
  queue.written(1);
  BOOST_TEST(alive.expired());
  BOOST_TEST(queue.empty());
}

BOOST_AUTO_TEST_CASE(a_large_message_is_not_copied) {
  Writer message = message_of(body_of(100 * kib));
  const void* const data = message.bytes().data();
  FrameQueue queue;
  queue.push(FrameKind::message, 1, message);
  ByteSpan pieces[3];
  BOOST_REQUIRE(queue.front(pieces, 3) == 2);
  BOOST_TEST(static_cast<const void*>(pieces[1].data) == data);
}

// A part that may be sent again is kept; its large parts are shared, not copied.
BOOST_AUTO_TEST_CASE(a_message_can_be_kept_and_sent_again) {
  FrameQueue queue;
  std::string expected;
  std::vector<Writer> kept(3);
  kept[0] = message_of("short");
  kept[1] = message_of(body_of(100 * kib));
  const auto owner = std::make_shared<const std::string>("adopted");
  kept[2] = message_of("head ");
  kept[2].adopt(owner, owner->data(), owner->size());
  for (int round = 0; round < 2; ++round) {
    queue.push_kept(FrameKind::call, 1, kept[0]);
    queue.push_kept(FrameKind::call, 2, kept[1]);
    queue.push_kept(FrameKind::call, 3, kept[2]);
    expected += frame_of(FrameKind::call, 1, "short") +
                frame_of(FrameKind::call, 2, body_of(100 * kib)) +
                frame_of(FrameKind::call, 3, "head adopted");
  }
  BOOST_TEST(kept[0].bytes() == "short");
  BOOST_TEST(kept[1].size() == 100 * kib);
  BOOST_TEST(kept[2].size() == 12u);
  const void* const large = kept[1].adopted().data();
  int times = 0;
  std::string all;
  while (!queue.empty()) {
    ByteSpan piece;
    BOOST_REQUIRE(queue.front(&piece, 1) == 1);
    times += piece.data == large;
    all.append(piece.data, piece.size);
    queue.written(piece.size);
  }
  BOOST_TEST((all == expected));
  BOOST_TEST(times == 2);
}

BOOST_AUTO_TEST_CASE(clearing_a_queue_releases_its_messages) {
  auto owner = std::make_shared<const std::string>("owned");
  FrameQueue queue;
  Writer message;
  message.adopt(owner, owner->data(), owner->size());
  queue.push(FrameKind::message, 1, message);
  Writer large = message_of(body_of(40 * kib));
  queue.push(FrameKind::message, 1, large);
  queue.written(3);
  queue.clear();
  BOOST_TEST(queue.empty());
  BOOST_TEST(owner.use_count() == 1);
  Writer again = message_of("again");
  queue.push(FrameKind::message, 2, again);
  BOOST_TEST((drained(queue) == frame_of(FrameKind::message, 2, "again")));
}

// An adopted value of no bytes is an ordinary message.
BOOST_AUTO_TEST_CASE(an_adopted_value_may_be_empty) {
  auto owner = std::make_shared<const std::string>();
  std::string expected;
  FrameQueue queue;
  for (std::uint64_t id = 0; id < 3; ++id) {
    Writer message;
    message.adopt(owner, owner->data(), 0);
    queue.push(FrameKind::message, id, message);
    expected += frame_of(FrameKind::message, id, "");
  }
  BOOST_TEST((drained(queue) == expected));
  BOOST_TEST(queue.empty());
  Writer last = message_of("last");
  queue.push(FrameKind::message, 9, last);
  BOOST_TEST((drained(queue) == frame_of(FrameKind::message, 9, "last")));
}

BOOST_AUTO_TEST_CASE(a_queue_may_be_cut_to_any_size) {
  const auto owner = std::make_shared<const std::string>(body_of(60));
  std::string expected;
  std::size_t total = 1;
  for (std::size_t size = 0; size <= total; size += size < 300 || size > 32 * kib ? 1 : 509) {
    FrameQueue queue;
    expected.clear();
    Writer small = message_of("small");
    queue.push(FrameKind::message, 1, small);
    expected += frame_of(FrameKind::message, 1, "small");
    Writer adopting;
    adopting.adopt(owner, owner->data(), owner->size());
    queue.push(FrameKind::message, 2, adopting);
    expected += frame_of(FrameKind::message, 2, *owner);
    Writer large = message_of(body_of(32 * kib));
    queue.push(FrameKind::message, 3, large);
    expected += frame_of(FrameKind::message, 3, body_of(32 * kib));
    queue.written(7);
    expected.erase(0, 7);
    total = expected.size() + 2;
    queue.truncate(size);
    const std::size_t left = std::min(size, expected.size());
    if (queue.size() != left) {
      BOOST_ERROR("cut to " + std::to_string(left) + ", left " + std::to_string(queue.size()));
      break;
    }
    if (drained(queue) != expected.substr(0, left)) BOOST_ERROR("cut to " + std::to_string(left));
  }
  BOOST_TEST(total > 32 * kib);
}

// Small messages behind a waiting large message must not move it.
BOOST_AUTO_TEST_CASE(a_waiting_large_message_is_not_moved) {
  FrameQueue queue;
  Writer large = message_of(body_of(4 * mib));
  queue.push(FrameKind::message, 1, large);
  std::string expected = frame_of(FrameKind::message, 1, body_of(4 * mib));
  const Watched pushing;
  for (std::uint64_t id = 0; id < 50; ++id) {
    Writer small = message_of("x");
    queue.push(FrameKind::message, id, small);
  }
  BOOST_TEST(pushing.largest() < mib);
  for (std::uint64_t id = 0; id < 50; ++id) expected += frame_of(FrameKind::message, id, "x");
  BOOST_TEST((drained(queue) == expected));
}

BOOST_AUTO_TEST_CASE(memory_of_sent_messages_is_released) {
  FrameQueue queue;
  const Watched watched;
  const std::size_t before = memory.live;
  for (std::uint64_t id = 0; id < 10000; ++id) {
    Writer message = message_of(std::string(1000, 'm'));
    queue.push(FrameKind::message, id, message);
  }
  drained(queue);
  BOOST_TEST(memory.live - before <= 128 * kib);
}

BOOST_AUTO_TEST_SUITE_END()

// ---- through a socket ----

namespace {

struct Ends {
  Channel left;
  Channel right;
};

Ends channels(std::size_t max_message = 64 * mib) {
  OwnedFd one;
  OwnedFd other;
  if (make_pair(PairKind::stream, one, other) != 0) throw std::runtime_error("no socket pair");
  return {Channel(std::move(one), max_message), Channel(std::move(other), max_message)};
}

void put(Channel& channel, FrameKind kind, std::uint64_t id, const std::string& body) {
  Writer message = message_of(body);
  channel.put(kind, id, message);
}

// One turn of the reading side: reads until there is no more input, or the end of the stream.
void receive_into(Channel& channel, std::vector<Seen>& got, std::size_t scratch_size = 8 * kib) {
  std::vector<char> scratch(scratch_size);
  for (;;) {
    const IoResult flow = channel.receive(scratch.data(), scratch.size(), Wait::no);
    Frame frame;
    while (channel.next(frame)) got.push_back(seen(frame));
    channel.keep();
    if (flow != IoResult::done) return;
  }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(channel)

// Of a thousand sockets only a few have traffic at a time.
BOOST_AUTO_TEST_CASE(buffers_are_returned_when_there_is_no_traffic) {
  ObjectPool<ChannelBuffers> object_pool;
  OwnedFd one;
  OwnedFd other;
  BOOST_REQUIRE(make_pair(PairKind::stream, one, other) == 0);
  Channel writer(std::move(one), mib);
  Channel channel(std::move(other), mib, Pooled<ChannelBuffers>(object_pool));
  auto item = std::make_unique<ChannelBuffers>();
  const ChannelBuffers* const place = item.get();
  object_pool.put(std::move(item));
  // Whether the pool has the buffers.
  const auto is_back = [&] {
    std::unique_ptr<ChannelBuffers> taken = object_pool.take();
    const bool back = taken.get() == place;
    if (back) object_pool.put(std::move(taken));
    return back;
  };
  std::vector<char> scratch(8 * kib);
  BOOST_TEST((channel.receive(scratch.data(), scratch.size(), Wait::no) == IoResult::would_block));
  BOOST_TEST(is_back());

  put(channel, FrameKind::value, 1, "answer");
  BOOST_TEST(!is_back());
  BOOST_TEST((channel.flush(Wait::no) == IoResult::done));
  BOOST_TEST(is_back());
  BOOST_TEST(channel.bytes_put() == 16u + 6u);
  BOOST_TEST(channel.bytes_written() == channel.bytes_put());

  // A frame and a half.
  put(writer, FrameKind::call, 2, std::string(100, 'a'));
  put(writer, FrameKind::call, 3, std::string(40 * kib, 'b'));
  writer.flush(Wait::no);
  std::vector<Seen> got;
  BOOST_TEST((channel.receive(scratch.data(), 1000, Wait::no) == IoResult::done));
  Frame frame;
  while (channel.next(frame)) got.push_back(seen(frame));
  channel.keep();
  BOOST_TEST(got.size() == 1u);
  BOOST_TEST(channel.more_is_here());
  BOOST_TEST(!is_back());

  // The memory of a frame remains valid while the frame is in use, even after all queued bytes were sent.
  BOOST_TEST((channel.receive(scratch.data(), scratch.size(), Wait::no) == IoResult::done));
  BOOST_REQUIRE((channel.receive(scratch.data(), scratch.size(), Wait::no) == IoResult::done ||
                 channel.more_is_here()));
  while (!channel.next(frame))
    BOOST_REQUIRE((channel.receive(scratch.data(), scratch.size(), Wait::no) == IoResult::done));
  put(channel, FrameKind::value, 3, "answer");
  BOOST_TEST((channel.flush(Wait::no) == IoResult::done));
  BOOST_TEST(!is_back());
  BOOST_TEST((frame.body == std::string(40 * kib, 'b')));
  channel.keep();
  BOOST_TEST(is_back());
  BOOST_TEST(!channel.more_is_here());

  // The rest of a frame is not given to another channel.
  put(writer, FrameKind::call, 4, std::string(500, 'c'));
  writer.flush(Wait::no);
  {
    Channel torn(std::move(channel));
    BOOST_TEST((torn.receive(scratch.data(), 100, Wait::no) == IoResult::done));
    BOOST_TEST(!torn.next(frame));
    torn.keep();
    BOOST_TEST(!is_back());
  }
  BOOST_TEST(object_pool.take()->none());
}

BOOST_AUTO_TEST_CASE(frames_of_many_sizes_arrive_both_ways) {
  Ends ends = channels();
  std::vector<Seen> sent;
  std::vector<Seen> to_right;
  std::vector<Seen> to_left;
  std::uint64_t id = 0;
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{1}, std::size_t{100}, 32 * kib - 1, 32 * kib, 32 * kib + 1,
        256 * kib - 1, 256 * kib, 256 * kib + 1, mib, std::size_t{2}}) {
    const Seen frame{FrameKind::message, id++, body_of(size), false};
    sent.push_back(frame);
    put(ends.left, frame.kind, frame.id, frame.body);
    put(ends.right, frame.kind, frame.id, frame.body);
  }
  const std::uint64_t all = ends.left.bytes_put();
  BOOST_TEST(all == ends.left.queued());
  BOOST_TEST(ends.left.bytes_written() == 0U);
  bool again = false;
  while (to_right.size() < sent.size() || to_left.size() < sent.size()) {
    again = ends.left.flush(Wait::no) == IoResult::would_block || again;
    BOOST_REQUIRE(ends.left.bytes_put() == all);
    BOOST_REQUIRE(ends.left.bytes_written() == all - ends.left.queued());
    receive_into(ends.right, to_right);
    ends.right.flush(Wait::no);
    receive_into(ends.left, to_left, 100);
  }
  BOOST_TEST(again);  // a socket holds less than 3 MB
  BOOST_TEST(same(to_right, sent));
  BOOST_TEST(same(to_left, sent));
  BOOST_TEST(ends.left.bytes_written() == all);
  BOOST_TEST((ends.left.flush(Wait::no) == IoResult::done));
}

BOOST_AUTO_TEST_CASE(a_message_above_the_limit_is_refused_entirely) {
  Ends ends = channels(100);
  Writer message = message_of(body_of(101));
  try {
    ends.left.put(FrameKind::message, 1, message);
    BOOST_ERROR("it was taken");
  } catch (const Error& error) {
    BOOST_TEST((error.code() == Errc::too_large));
    const std::string text = error.what();
    BOOST_TEST(text.find("101") != std::string::npos);
    BOOST_TEST(text.find("100") != std::string::npos);
  }
  BOOST_TEST(message.size() == 0U);
  BOOST_TEST(ends.left.queued() == 0U);
  // Adopted bytes count.
  const auto owner = std::make_shared<const std::string>(body_of(60));
  Writer adopting = message_of(body_of(60));
  adopting.adopt(owner, owner->data(), owner->size());
  BOOST_CHECK_THROW(ends.left.put(FrameKind::value, 1, adopting), Error);
  BOOST_TEST(owner.use_count() == 1);
  // The limit applies to messages of users.
  put(ends.left, FrameKind::message, 1, body_of(100));
  put(ends.left, FrameKind::task, 2, body_of(101));
  put(ends.left, FrameKind::error, 3, body_of(101));
  ends.left.flush(Wait::no);
  ends.right.set_max_message(101);
  std::vector<Seen> got;
  receive_into(ends.right, got);
  BOOST_TEST(got.size() == 3U);
  ends.left.set_max_message(101);
  put(ends.left, FrameKind::message, 4, body_of(101));
  BOOST_TEST(ends.left.queued() > 0U);
}

BOOST_AUTO_TEST_CASE(a_finished_channel_is_read_to_the_end) {
  Ends ends = channels();
  put(ends.left, FrameKind::message, 1, "last");
  ends.left.finish();
  ends.left.finish();
  BOOST_TEST(ends.left.finished());
  BOOST_TEST(!ends.left.out_over());
  BOOST_TEST((ends.left.flush(Wait::no) == IoResult::done));
  BOOST_TEST(ends.left.out_over());
  BOOST_TEST(!ends.left.out_dead());
  std::vector<Seen> got;
  receive_into(ends.right, got);
  BOOST_REQUIRE(got.size() == 2U);
  BOOST_TEST(got[0].body == "last");
  BOOST_TEST((got[1].kind == FrameKind::end));
  BOOST_TEST(ends.right.in_over());
  BOOST_TEST(!ends.right.torn());
  // The other direction still works.
  put(ends.right, FrameKind::message, 2, "answer");
  ends.right.flush(Wait::no);
  got.clear();
  receive_into(ends.left, got);
  BOOST_REQUIRE(got.size() == 1U);
  BOOST_TEST(got[0].body == "answer");
  BOOST_TEST(!ends.left.in_over());
}

BOOST_AUTO_TEST_CASE(an_end_inside_a_frame_tears_it) {
  const std::string stream = frame_of(FrameKind::message, 1, body_of(40)) +
                             frame_of(FrameKind::message, 2, body_of(40 * kib));
  for (std::size_t cut = 0; cut < stream.size(); cut += cut < 150 ? 1 : 1013) {
    OwnedFd raw;
    OwnedFd other;
    BOOST_REQUIRE(make_pair(PairKind::stream, raw, other) == 0);
    Channel channel(std::move(other), mib);
    const ByteSpan piece{stream.data(), cut};
    BOOST_REQUIRE(send(raw.get(), &piece, 1, Wait::no).size == cut);
    raw.reset();
    std::vector<Seen> got;
    receive_into(channel, got);
    BOOST_TEST(channel.in_over());
    BOOST_TEST(channel.torn() == (cut != 0 && cut != 56));
    BOOST_TEST(got.size() == (cut >= 56 ? 1U : 0U));
  }
}

BOOST_AUTO_TEST_CASE(bytes_from_a_dead_process_are_read) {
  Ends ends = channels();
  put(ends.left, FrameKind::message, 1, body_of(1000));
  put(ends.left, FrameKind::message, 2, body_of(40 * kib));
  ends.left.flush(Wait::no);
  put(ends.right, FrameKind::message, 3, "unread");  // makes the end a reset
  ends.right.flush(Wait::no);
  ends.left.close();
  BOOST_TEST(!ends.left.is_open());
  // A failed write does not discard bytes that can still be read.
  put(ends.right, FrameKind::message, 4, "unheard");
  BOOST_TEST((ends.right.flush(Wait::no) == IoResult::closed));
  BOOST_TEST(ends.right.out_dead());
  BOOST_TEST(ends.right.out_over());
  BOOST_TEST(ends.right.queued() == 0U);
  put(ends.right, FrameKind::message, 5, "dropped");
  BOOST_TEST(ends.right.queued() == 0U);
  std::vector<Seen> got;
  receive_into(ends.right, got);
  BOOST_REQUIRE(got.size() == 2U);
  BOOST_TEST((got[1].body == body_of(40 * kib)));
  BOOST_TEST(ends.right.in_over());
  BOOST_TEST(!ends.right.torn());
}

BOOST_AUTO_TEST_CASE(a_large_frame_is_received_in_place) {
  Ends ends = channels();
  const std::string body = body_of(150 * kib);
  put(ends.left, FrameKind::message, 1, body);
  char scratch[64];
  bool done = false;
  Frame frame;
  while (!done) {
    ends.left.flush(Wait::no);
    const IoResult flow = ends.right.receive(scratch, sizeof scratch, Wait::no);
    BOOST_REQUIRE((flow == IoResult::done));
    done = ends.right.next(frame);
    if (!done) ends.right.keep();
  }
  BOOST_TEST((frame.body == body));
  BOOST_TEST(frame.whole != nullptr);
  ends.right.keep();
}

// A process that is killed in the middle of a frame.
BOOST_AUTO_TEST_CASE(a_fault_cuts_a_frame_and_kills) {
  for (const std::size_t cut_to : {std::size_t{0}, std::size_t{5}, std::size_t{16}, std::size_t{20},
                                   std::size_t{500}, 40 * kib}) {
    Ends ends = channels();
    const pid_t pid = ::fork();
    if (pid == 0) {
      fault::Plan plan;
      plan.victim = fault::Victim::parent;
      plan.cut_message = 2;
      plan.cut_to = cut_to;
      fault::arm(plan);
      put(ends.left, FrameKind::message, 1, "whole");
      put(ends.left, FrameKind::message, 2, body_of(64 * kib));
      ::_exit(1);  // not reached
    }
    int status = 0;
    BOOST_REQUIRE(::waitpid(pid, &status, 0) == pid);
    ends.left.close();
    BOOST_TEST((WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
    std::vector<Seen> got;
    receive_into(ends.right, got);
    BOOST_REQUIRE(got.size() == 1U);
    BOOST_TEST(got[0].body == "whole");
    BOOST_TEST(ends.right.in_over());
    BOOST_TEST(ends.right.torn() == (cut_to > 0));
  }
}

BOOST_AUTO_TEST_CASE(a_fault_kills_at_a_frame) {
  Ends ends = channels();
  const pid_t pid = ::fork();
  if (pid == 0) {
    fault::Plan plan;
    plan.victim = fault::Victim::parent;
    plan.die_at_message = 3;
    fault::arm(plan);
    for (std::uint64_t id = 1; id < 5; ++id) {
      put(ends.left, FrameKind::message, id, "x");
      ends.left.flush(Wait::yes);
    }
    ::_exit(1);
  }
  int status = 0;
  BOOST_REQUIRE(::waitpid(pid, &status, 0) == pid);
  ends.left.close();
  BOOST_TEST((WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
  std::vector<Seen> got;
  receive_into(ends.right, got);
  BOOST_TEST(got.size() == 2U);
  BOOST_TEST(!ends.right.torn());
}

BOOST_AUTO_TEST_SUITE_END()

// ---- errors in transit ----

namespace {

template <class F>
Error as_remote(F f) {
  try {
    f();
  } catch (...) {
    return current_exception_as_remote();
  }
  throw std::logic_error("nothing was thrown");
}

struct Odd {};

}  // namespace

BOOST_AUTO_TEST_SUITE(remote_errors)

BOOST_AUTO_TEST_CASE(an_error_is_decoded_as_it_was_encoded) {
  for (const Errc code : {Errc::no_snapshot, Errc::bad_message, Errc::too_large, Errc::deadline}) {
    const Error error = Error(code, std::string("text with\0nul", 13))
                            .with_os_error(-7)
                            .with_remote_type("some::Type<int>");
    Writer out;
    write_error(out, error);
    const Error back = read_error(Reader(out.bytes()));
    BOOST_TEST((back.code() == code));
    BOOST_TEST(std::string(back.what()) == error.what());
    BOOST_TEST(back.os_error() == -7);
    BOOST_TEST(back.remote_type() == "some::Type<int>");
  }
}

BOOST_AUTO_TEST_CASE(an_error_truncated_at_any_byte_is_refused) {
  Writer out;
  write_error(out, Error(Errc::closed, "some text").with_remote_type("Type"));
  for (std::size_t size = 0; size < out.size(); ++size) {
    try {
      read_error(Reader(std::string_view(out.bytes()).substr(0, size)));
      BOOST_ERROR("read " + std::to_string(size) + " bytes");
    } catch (const Error& error) {
      BOOST_TEST((error.code() == Errc::bad_message));
    }
  }
}

BOOST_AUTO_TEST_CASE(backtraces_are_sent_as_addresses) {
  std::vector<StackFrame> frames(1000);
  for (std::size_t i = 0; i < frames.size(); ++i) {
    frames[i].address = reinterpret_cast<const void*>(i);
    frames[i].inlined = i % 2 == 1;
  }
  const std::string text(mib, 'l');
  Writer out;
  write_error(out,
              Error(Errc::remote_exception, text).with_remote_type(text).with_backtrace(frames));
  BOOST_TEST(out.size() <= error_body_limit);
  const Error back = read_error(Reader(out.bytes()));
  BOOST_REQUIRE(back.backtrace().size() == longest_trace);
  for (std::size_t i = 0; i < longest_trace; ++i)
    BOOST_TEST(back.backtrace()[i].address == reinterpret_cast<const void*>(2 * i));
}

// A child may write any bytes.
BOOST_AUTO_TEST_CASE(malformed_backtraces_are_refused) {
  Writer out;
  write_error(out, Error(Errc::closed, "text"));
  std::string bytes = out.bytes();
  for (const std::uint64_t count :
       {std::uint64_t{1}, std::uint64_t{longest_trace + 1}, std::uint64_t{1} << 61, UINT64_MAX}) {
    std::memcpy(&bytes[bytes.size() - sizeof count], &count, sizeof count);
    BOOST_CHECK_EXCEPTION(read_error(Reader(bytes)), Error,
                          [](const Error& error) { return error.code() == Errc::bad_message; });
  }
}

BOOST_AUTO_TEST_CASE(long_texts_are_cut_to_fit_into_a_frame) {
  Writer out;
  write_error(
      out,
      Error(Errc::remote_exception, std::string(mib, 'l')).with_remote_type(std::string(mib, 't')));
  BOOST_TEST(out.size() <= error_body_limit);
  const Error back = read_error(Reader(out.bytes()));
  BOOST_TEST(std::string(back.what()).size() > 1000U);
}

BOOST_AUTO_TEST_CASE(exceptions_of_a_task_become_errors) {
  const Error plain = as_remote([] { throw std::out_of_range("too far"); });
  BOOST_TEST((plain.code() == Errc::remote_exception));
  BOOST_TEST(plain.remote_type() == "std::out_of_range");
  BOOST_TEST(std::string(plain.what()) == "std::out_of_range: too far");
  const Error number = as_remote([] { throw 42; });
  BOOST_TEST((number.code() == Errc::remote_exception));
  BOOST_TEST(number.remote_type() == "int");
  const Error odd = as_remote([] { throw Odd{}; });
  BOOST_TEST(odd.remote_type().find("Odd") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(nested_exceptions_are_all_named) {
  const Error error = as_remote([] {
    try {
      try {
        throw std::invalid_argument("innermost");
      } catch (...) {
        std::throw_with_nested(std::domain_error("middle"));
      }
    } catch (...) {
      std::throw_with_nested(std::runtime_error("outer"));
    }
  });
  BOOST_TEST(error.remote_type() == "std::runtime_error");
  BOOST_TEST(std::string(error.what()) ==
             "std::runtime_error: outer; caused by std::domain_error: middle; caused by "
             "std::invalid_argument: innermost");
}

BOOST_AUTO_TEST_SUITE_END()
