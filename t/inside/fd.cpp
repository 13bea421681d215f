// fd.cpp - descriptors beside messages: owned, attached, sent with their frame, lost and closed;
// and immutable memory.
#include "private_names.hpp"
#include "testing.hpp"

#include "pipe/channel.hpp"

#include <evparallel/evparallel.hpp>

#include "elsewhere.hpp"
#include "errors.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <numeric>

using namespace evparallel;
using testing::bad_message;
using testing::count_descriptors;
using testing::error_of;
using testing::has;

namespace {

bool is_open(int fd) {
  return ::fcntl(fd, F_GETFD) >= 0;
}
bool is_close_on_exec(int fd) {
  return (::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0;
}

// A descriptor that a test can identify: a file of `size` bytes.
Fd file_of(std::size_t size) {
  char name[] = "/tmp/evparallel-XXXXXX";
  Fd file(::mkostemp(name, O_CLOEXEC));
  if (!file) throw std::runtime_error("no file");
  ::unlink(name);
  if (::ftruncate(file.get(), static_cast<off_t>(size)) != 0) throw std::runtime_error("no size");
  return file;
}
long size_of(const Fd& file) {
  return static_cast<long>(::lseek(file.get(), 0, SEEK_END));
}

struct Ends {
  Channel left;
  Channel right;
};

Ends channels() {
  OwnedFd one;
  OwnedFd other;
  if (make_pair(PairKind::stream, one, other) != 0) throw std::runtime_error("no socket pair");
  return {Channel(std::move(one), 64 << 20), Channel(std::move(other), 64 << 20)};
}

// A message of descriptors, each a file of the given size, followed by a body.
Writer message_with(const std::vector<std::size_t>& sizes, const std::string& body = "") {
  Writer out;
  for (const std::size_t size : sizes) Io<Fd>::put(out, file_of(size));
  out.write(body);
  return out;
}

void put(Channel& channel, Writer message, std::uint64_t id = 0) {
  channel.put(FrameKind::message, id, message);
}

// The sizes of the files that a frame contains.
std::vector<long> sizes_in(const Frame& frame) {
  std::vector<long> sizes;
  Reader in = frame.reader();
  for (unsigned i = 0; i < frame.attached; ++i) sizes.push_back(size_of(Io<Fd>::get(in)));
  return sizes;
}

// Reads once.
IoResult receive_once(Channel& channel, std::size_t most = 64 * 1024) {
  static char scratch[64 * 1024];
  return channel.receive(scratch, std::min(most, sizeof scratch), Wait::no);
}

// Calls `f` for each received frame; returns true at the end of the stream, or if there is no more
// input.
template <class F>
void receive_all(Channel& channel, F f, std::size_t most = 64 * 1024) {
  for (;;) {
    const IoResult flow = receive_once(channel, most);
    Frame frame;
    while (channel.next(frame)) f(frame);
    channel.keep();
    if (flow != IoResult::done) return;
  }
}

}  // namespace

// ---- Fd ----

BOOST_AUTO_TEST_SUITE(owner)

BOOST_AUTO_TEST_CASE(an_fd_closes_the_descriptor_it_owns) {
  const std::size_t before = count_descriptors();
  Fd one = file_of(1);
  const int number = one.get();
  BOOST_TEST(is_open(number));
  Fd other = std::move(one);
  BOOST_TEST(!one);
  BOOST_TEST(other.get() == number);
  other = file_of(2);
  BOOST_TEST(count_descriptors() == before + 1);
  other.reset();
  BOOST_TEST(count_descriptors() == before);
  BOOST_TEST(!other);
}

BOOST_AUTO_TEST_CASE(an_fd_releases_the_descriptor_it_owns) {
  Fd file = file_of(1);
  const int number = file.release();
  BOOST_TEST(!file);
  BOOST_TEST(is_open(number));
  Fd again(number);
  again.reset(number);  // its own descriptor
  BOOST_TEST(is_open(number));
}

BOOST_AUTO_TEST_CASE(copies_refer_to_the_same_file_and_are_close_on_exec) {
  const Fd file = file_of(77);
  const Fd copy = Fd::dup(file.get());
  BOOST_TEST(copy.get() != file.get());
  BOOST_TEST(size_of(copy) == 77);
  BOOST_TEST(is_close_on_exec(copy.get()));
}

BOOST_AUTO_TEST_CASE(a_closed_descriptor_cannot_be_copied) {
  BOOST_CHECK_THROW(Fd::dup(-1), std::logic_error);
}

BOOST_AUTO_TEST_CASE(a_lack_of_descriptors_for_a_copy_is_a_temporary_error) {
  const int status = testing::elsewhere([] {
    const Fd file = file_of(1);
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    const rlimit none{static_cast<rlim_t>(file.get()) + 1, limit.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &none);
    const auto error = error_of([&] { Fd::dup(file.get()); });
    if (!error || error->code() != Errc::overloaded || error->os_error() != EMFILE) return 1;
    ::setrlimit(RLIMIT_NOFILE, &limit);
    return Fd::dup(file.get()) ? 0 : 2;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_SUITE_END()

// ---- sent beside the bytes ----

BOOST_AUTO_TEST_SUITE(along)

BOOST_AUTO_TEST_CASE(a_descriptor_arrives_with_its_message) {
  const std::size_t before = count_descriptors();
  {
    Ends ends = channels();
    put(ends.left, message_with({42}, "and a body"));
    BOOST_TEST((ends.left.flush(Wait::no) == IoResult::done));
    BOOST_TEST(count_descriptors() == before + 2);  // descriptors that were sent are not kept here
    int frames = 0;
    receive_all(ends.right, [&](const Frame& frame) {
      ++frames;
      BOOST_TEST(frame.attached == 1U);
      Reader in = frame.reader();
      const Fd fd = Io<Fd>::get(in);
      BOOST_TEST(size_of(fd) == 42);
      BOOST_TEST(is_close_on_exec(fd.get()));
      BOOST_TEST(in.take_rest() == "and a body");
    });
    BOOST_TEST(frames == 1);
  }
  BOOST_TEST(count_descriptors() == before);
}

BOOST_AUTO_TEST_CASE(each_message_gets_its_own_descriptors) {
  const std::string large(200 * 1024, 'x');
  for (const std::size_t most :
       {std::size_t{1}, std::size_t{7}, std::size_t{16}, std::size_t{65536}}) {
    Ends ends = channels();
    std::vector<std::vector<long>> sent;
    std::vector<std::vector<long>> got;
    std::uint64_t size = 1;
    for (int i = 0; i < 30; ++i) {
      std::vector<std::size_t> sizes(static_cast<std::size_t>(i % 4));
      for (std::size_t& one : sizes) one = static_cast<std::size_t>(size++);
      sent.emplace_back(sizes.begin(), sizes.end());
      put(ends.left, message_with(sizes, i % 5 == 3 && most > 16 ? large : "small"));
    }
    while (got.size() < sent.size()) {
      const IoResult flow = ends.left.flush(Wait::no);
      BOOST_REQUIRE((flow == IoResult::done || flow == IoResult::would_block));
      receive_all(
          ends.right, [&](const Frame& frame) { got.push_back(sizes_in(frame)); }, most);
    }
    BOOST_TEST((got == sent));
  }
}

BOOST_AUTO_TEST_CASE(descriptors_are_sent_once_if_a_write_is_cut_short) {
  Ends ends = channels();
  put(ends.left, message_with({5}, std::string(4 << 20, 'x')));  // more than a socket holds
  put(ends.left, message_with({6}));
  BOOST_TEST((ends.left.flush(Wait::no) == IoResult::would_block));
  std::vector<std::vector<long>> got;
  while (got.size() < 2) {
    receive_all(ends.right, [&](const Frame& frame) { got.push_back(sizes_in(frame)); });
    ends.left.flush(Wait::no);
  }
  BOOST_TEST((got == std::vector<std::vector<long>>{{5}, {6}}));
}

BOOST_AUTO_TEST_CASE(a_message_that_is_kept_can_be_sent_twice) {
  Ends ends = channels();
  Writer message = message_with({9});
  ends.left.put(FrameKind::call, 1, message, Channel::Message::kept);
  ends.left.put(FrameKind::call, 2, message, Channel::Message::kept);
  ends.left.flush(Wait::no);
  int frames = 0;
  receive_all(ends.right, [&](const Frame& frame) {
    ++frames;
    BOOST_TEST((sizes_in(frame) == std::vector<long>{9}));
  });
  BOOST_TEST(frames == 2);
}

BOOST_AUTO_TEST_CASE(descriptors_that_nobody_takes_are_closed, *testing::guarantee("A.5")) {
  const std::size_t before = count_descriptors();
  Ends ends = channels();
  put(ends.left, message_with({1, 2, 3}));
  put(ends.left, Writer());
  ends.left.flush(Wait::no);
  int frames = 0;
  receive_all(ends.right, [&](const Frame& frame) {
    BOOST_TEST(count_descriptors() == before + 2 + frame.attached);
    ++frames;
  });
  BOOST_TEST(frames == 2);
  BOOST_TEST(count_descriptors() == before + 2);
}

BOOST_AUTO_TEST_CASE(a_closed_channel_holds_no_descriptors) {
  const std::size_t before = count_descriptors();
  {
    Ends ends = channels();
    put(ends.left, message_with({1}));
    put(ends.left, message_with({2}));
    ends.left.flush(Wait::no);
    BOOST_TEST(
        (receive_once(ends.right, 3) == IoResult::done));  // the first one has come, but no frame
    put(ends.left, message_with({3}));                     // remains in the queue
  }
  BOOST_TEST(count_descriptors() == before);
}

BOOST_AUTO_TEST_CASE(a_message_above_the_limit_leaves_no_descriptors_open) {
  const std::size_t before = count_descriptors();
  Ends ends = channels();
  ends.right.set_max_message(10);
  put(ends.left, message_with({1}, "more than ten bytes"));
  put(ends.left, message_with({2}, "few"));
  ends.left.flush(Wait::no);
  std::vector<bool> too_large;
  receive_all(ends.right, [&](const Frame& frame) {
    too_large.push_back(frame.skipped == Frame::Skipped::too_large);
    if (frame.skipped != Frame::Skipped::too_large)
      BOOST_TEST((sizes_in(frame) == std::vector<long>{2}));
  });
  BOOST_TEST((too_large == std::vector<bool>{true, false}));
  BOOST_TEST(count_descriptors() == before + 2);
}

BOOST_AUTO_TEST_CASE(a_message_has_at_most_as_many_descriptors_as_the_kernel_takes) {
  Ends ends = channels();
  std::vector<std::size_t> sizes(most_descriptors);
  std::iota(sizes.begin(), sizes.end(), std::size_t{1});
  put(ends.left, message_with(sizes));
  sizes.push_back(999);
  Writer more = message_with(sizes);
  const auto error = error_of([&] { ends.left.put(FrameKind::message, 0, more); });
  BOOST_REQUIRE(error.has_value());
  BOOST_TEST((error->code() == Errc::too_large));
  BOOST_TEST(has(error->what(), "254 descriptors, and the limit is 253"));
  BOOST_TEST((ends.left.flush(Wait::no) == IoResult::done));
  std::size_t got = 0;
  receive_all(ends.right, [&](const Frame& frame) { got += sizes_in(frame).size(); });
  BOOST_TEST(got == most_descriptors);
}

BOOST_AUTO_TEST_CASE(a_descriptor_that_was_closed_meanwhile_is_refused) {
  Ends ends = channels();
  Fd file = file_of(1);
  const int number = file.get();
  Writer message;
  message.attach(number, std::make_shared<int>(0));  // an owner that keeps nothing open
  file.reset();
  const std::string text = bad_message([&] { ends.left.put(FrameKind::message, 0, message); });
  BOOST_TEST(has(text, "descriptor " + std::to_string(number)));
  put(ends.left, message_with({4}));
  ends.left.flush(Wait::no);
  int frames = 0;
  receive_all(ends.right, [&](const Frame& frame) {
    ++frames;
    BOOST_TEST((sizes_in(frame) == std::vector<long>{4}));
  });
  BOOST_TEST(frames == 1);
}

BOOST_AUTO_TEST_CASE(a_missing_or_repeated_index_is_bad_input) {
  Ends ends = channels();
  Writer message;
  Io<Fd>::put(message, file_of(1));
  detail::put_index(message, 0);
  detail::put_index(message, 1);
  put(ends.left, std::move(message));
  ends.left.flush(Wait::no);
  int frames = 0;
  receive_all(ends.right, [&](const Frame& frame) {
    ++frames;
    Reader in = frame.reader();
    const Fd first = Io<Fd>::get(in);
    BOOST_TEST(has(bad_message([&] { Io<Fd>::get(in); }), "used twice"));
    BOOST_TEST(has(bad_message([&] { Io<Fd>::get(in); }), "descriptor 1 is missing: 1 arrived"));
  });
  BOOST_TEST(frames == 1);
  Reader none(std::string_view("\0\0\0\0", 4));
  BOOST_TEST(has(bad_message([&] { Io<Fd>::get(none); }), "is missing: 0 arrived"));
}

BOOST_AUTO_TEST_CASE(an_empty_fd_is_not_sent) {
  Writer out;
  BOOST_CHECK_THROW(Io<Fd>::put(out, Fd()), std::logic_error);
  const Fd none;
  BOOST_CHECK_THROW(Io<Fd>::put(out, none), std::logic_error);
}

// Raw sending: a peer that breaks the rules.
void send_raw(int fd, const std::string& bytes, const std::vector<int>& along) {
  std::vector<Attachment> attached;
  for (const int one : along) attached.push_back({one, nullptr});
  const ByteSpan piece{bytes.data(), bytes.size()};
  const Transfer sent =
      evparallel::send(fd, &piece, 1, Wait::no, along.empty() ? nullptr : &attached);
  BOOST_REQUIRE((sent.flow == IoResult::done));
  BOOST_REQUIRE(sent.size == bytes.size());
}

std::string frame_of(std::uint8_t attached, const std::string& body) {
  std::string bytes(frame_header_size, '\0');
  bytes[0] = static_cast<char>(body.size());
  bytes[6] = static_cast<char>(FrameKind::message);
  bytes[7] = static_cast<char>(attached);
  return bytes + body;
}

BOOST_AUTO_TEST_CASE(a_false_count_of_descriptors_gives_none) {
  const std::size_t before = count_descriptors();
  {
    Ends ends = channels();
    const Fd file = file_of(3);
    send_raw(ends.left.fd(), frame_of(2, "two are said"), {file.get()});
    send_raw(ends.left.fd(), frame_of(1, "none is there"), {});
    int frames = 0;
    receive_all(ends.right, [&](const Frame& frame) {
      ++frames;
      Reader in = frame.reader();
      bad_message([&] { in.take_descriptor(0); });
    });
    BOOST_TEST(frames == 2);
  }
  BOOST_TEST(count_descriptors() == before);
}

BOOST_AUTO_TEST_CASE(descriptors_without_a_frame_end_the_stream) {
  const std::size_t before = count_descriptors();
  {
    Ends ends = channels();
    const Fd file = file_of(3);
    for (int i = 0; i < 20; ++i) send_raw(ends.left.fd(), frame_of(0, "x"), {file.get()});
    const std::string text = bad_message([&] { receive_all(ends.right, [](const Frame&) {}); });
    BOOST_TEST(has(text, "belong to no frame"));
    BOOST_TEST(count_descriptors() <= before + 2 + 1 + 2);
  }
  BOOST_TEST(count_descriptors() == before);
}

// If the receiver has no room the kernel drops the descriptors; the message arrives, and so does
// the next one.
BOOST_AUTO_TEST_CASE(lost_descriptors_fail_only_their_own_message) {
  const int status = testing::elsewhere([] {
    Ends ends = channels();
    put(ends.left, message_with({1, 2, 3}));
    put(ends.left, message_with({7}));
    if (ends.left.flush(Wait::no) != IoResult::done) return 1;
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    const rlimit few{static_cast<rlim_t>(ends.right.fd()) + 2, limit.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &few);
    const std::size_t before = count_descriptors();
    int frames = 0;
    int wrong = 0;
    Frame frame;
    // The first read ends behind the first frame, since the second frame has a batch of its own.
    if (receive_once(ends.right) != IoResult::done) return 2;
    while (ends.right.next(frame)) {
      ++frames;
      Reader in = frame.reader();
      const auto error = error_of([&] { Io<Fd>::get(in); });
      wrong += !error || !has(error->what(), "too many open files");
    }
    ends.right.keep();
    ::setrlimit(RLIMIT_NOFILE, &limit);
    if (count_descriptors() != before) return 3;
    receive_all(ends.right, [&](const Frame& next) {
      ++frames;
      wrong += sizes_in(next) != std::vector<long>{7};
    });
    return frames == 2 && wrong == 0 ? 0 : 10 + frames;
  });
  BOOST_TEST(status == 0);
}

// An ordinary user may have as many descriptors in flight as it may have open.
BOOST_AUTO_TEST_CASE(too_many_descriptors_in_flight_wait_until_some_are_received) {
  if (::geteuid() != 0) return testing::skip("needs root, to become a user without other files");
  const int status = testing::elsewhere([] {
    Ends ends = channels();
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    const rlimit few{50, limit.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &few);
    if (::setresuid(54321, 54321, 54321) != 0) return 1;
    const auto file = std::make_shared<const Fd>(file_of(1));
    constexpr int queued = 100;
    for (int i = 0; i < queued; ++i) {
      Writer message;
      detail::put_index(message, message.attach(file->get(), file));
      put(ends.left, std::move(message));
    }
    int got = 0;
    int crowded = 0;
    for (int round = 0; round < 1000 && got < queued; ++round) {
      const IoResult flow = ends.left.flush(Wait::no);
      if (flow == IoResult::closed) return 2;
      crowded += flow == IoResult::retry_later;
      receive_all(ends.right,
                  [&](const Frame& frame) { got += sizes_in(frame) == std::vector<long>{1}; });
    }
    if (crowded == 0) return 3;
    return got == queued ? 0 : 4;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_SUITE_END()

// ---- in documents ----

BOOST_AUTO_TEST_SUITE(documents)

struct Job {
  std::string name{};
  Fd input{};
  std::vector<Fd> outputs{};
  NLOHMANN_DEFINE_TYPE_INTRUSIVE(Job, name, input, outputs)
};

template <class Codec>
void there_and_back() {
  Job job{"sort", file_of(10), {}};
  for (const std::size_t size : {std::size_t{11}, std::size_t{12}})
    job.outputs.push_back(file_of(size));
  Ends ends = channels();
  Writer message;
  Codec::put(message, job);
  BOOST_TEST(message.attached()->size() == 3U);
  put(ends.left, std::move(message));
  ends.left.flush(Wait::no);
  int frames = 0;
  receive_all(ends.right, [&](const Frame& frame) {
    ++frames;
    Reader in = frame.reader();
    const Job got = Codec::get(in);
    BOOST_TEST(got.name == "sort");
    BOOST_TEST(size_of(got.input) == 10);
    BOOST_REQUIRE(got.outputs.size() == 2U);
    BOOST_TEST(size_of(got.outputs[1]) == 12);
  });
  BOOST_TEST(frames == 1);
  BOOST_TEST(size_of(job.input) == 10);  // the sender still owns it
}

BOOST_AUTO_TEST_CASE(descriptors_travel_inside_structures_of_every_form) {
  there_and_back<JsonIo<Job>>();
  there_and_back<CborIo<Job>>();
  there_and_back<MsgpackIo<Job>>();
}

BOOST_AUTO_TEST_CASE(a_descriptor_cannot_be_written_outside_of_a_message) {
  const Fd file = file_of(1);
  BOOST_CHECK_THROW(nlohmann::json{file}, std::logic_error);
  const nlohmann::json number = 0;
  BOOST_CHECK_THROW(number.get<Fd>(), std::logic_error);
}

BOOST_AUTO_TEST_SUITE_END()

// ---- shared bytes ----

BOOST_AUTO_TEST_SUITE(shared)

Fd memory(const std::string& text, unsigned flags, int seals) {
  Fd fd(::memfd_create("test", MFD_CLOEXEC | flags));
  BOOST_REQUIRE(fd);
  BOOST_REQUIRE(::write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  if (seals != 0) BOOST_REQUIRE(::fcntl(fd.get(), F_ADD_SEALS, seals) == 0);
  return fd;
}

BOOST_AUTO_TEST_CASE(copies_contain_the_same_bytes) {
  if (testing::no_memfd()) return testing::skip("no memfd");
  const std::string text = "some bytes\0and more";
  const SharedBytes bytes = SharedBytes::copy_of(text);
  BOOST_TEST(bytes.view() == text);
  BOOST_TEST(bytes.size() == text.size());
  BOOST_TEST(!bytes.empty());
  const SharedBytes same = bytes;
  BOOST_TEST(same.data() == bytes.data());
}

BOOST_AUTO_TEST_CASE(created_bytes_are_the_ones_that_were_filled_in) {
  if (testing::no_memfd()) return testing::skip("no memfd");
  const SharedBytes bytes =
      SharedBytes::create(100000, [](void* data) { static_cast<char*>(data)[99999] = 'z'; });
  BOOST_TEST(bytes.size() == 100000U);
  BOOST_TEST(bytes.view().front() == '\0');
  BOOST_TEST(bytes.view().back() == 'z');
}

BOOST_AUTO_TEST_CASE(an_exception_during_creation_leaves_nothing_open) {
  if (testing::no_memfd()) return testing::skip("no memfd");
  const std::size_t before = count_descriptors();
  BOOST_CHECK_THROW(SharedBytes::create(10, [](void*) { throw std::range_error("no"); }),
                    std::range_error);
  BOOST_TEST(count_descriptors() == before);
}

BOOST_AUTO_TEST_CASE(shared_bytes_cannot_be_changed) {
  if (testing::no_memfd()) return testing::skip("no memfd");
  const SharedBytes bytes = SharedBytes::copy_of("abc");
  BOOST_TEST(::write(bytes.fd(), "x", 1) == -1);
  BOOST_TEST(::ftruncate(bytes.fd(), 0) == -1);
  BOOST_TEST(::ftruncate(bytes.fd(), 10) == -1);
  BOOST_CHECK(::mmap(nullptr, 3, PROT_WRITE, MAP_SHARED, bytes.fd(), 0) == MAP_FAILED);
  const int seals = ::fcntl(bytes.fd(), F_GET_SEALS);
  constexpr int no_program = 0x20;  // F_SEAL_EXEC, if the kernel has it
  BOOST_TEST((seals & ~no_program) == (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE));
}

BOOST_AUTO_TEST_CASE(shared_bytes_are_not_executable) {
  if (testing::no_memfd()) return testing::skip("no memfd");
  const auto status = testing::elsewhere_without_programs_in_memory(
      [] { return SharedBytes::copy_of("abc").view() == "abc" ? 0 : 1; });
  if (!status) return testing::skip("a system that allows no programs in memory cannot be had");
  BOOST_TEST(*status == 0);
}

BOOST_AUTO_TEST_CASE(empty_shared_bytes_can_be_sent) {
  if (testing::no_memfd()) return testing::skip("no memfd");
  BOOST_TEST(SharedBytes().empty());
  BOOST_TEST(SharedBytes().fd() == -1);
  BOOST_TEST(SharedBytes::create(0, [](void*) {}).empty());
  Ends ends = channels();
  Writer message;
  Io<SharedBytes>::put(message, SharedBytes());
  put(ends.left, std::move(message));
  ends.left.flush(Wait::no);
  int frames = 0;
  receive_all(ends.right, [&](const Frame& frame) {
    ++frames;
    Reader in = frame.reader();
    BOOST_TEST(Io<SharedBytes>::get(in).empty());
  });
  BOOST_TEST(frames == 1);
}

BOOST_AUTO_TEST_CASE(shared_bytes_travel_as_one_descriptor_and_outlive_their_sender) {
  if (testing::no_memfd()) return testing::skip("no memfd");
  const std::size_t before = count_descriptors();
  {
    Ends ends = channels();
    Writer message;
    {
      const SharedBytes bytes = SharedBytes::copy_of(std::string(1 << 20, 'q'));
      Io<SharedBytes>::put(message, bytes);
    }
    BOOST_TEST(message.size() == sizeof(std::uint32_t));
    put(ends.left, std::move(message));
    ends.left.flush(Wait::no);
    BOOST_TEST(count_descriptors() == before + 2);
    SharedBytes got;
    receive_all(ends.right, [&](const Frame& frame) {
      Reader in = frame.reader();
      got = Io<SharedBytes>::get(in);
    });
    BOOST_TEST(got.view() == std::string(1 << 20, 'q'));
  }
  BOOST_TEST(count_descriptors() == before);
}

BOOST_AUTO_TEST_CASE(memory_that_can_still_be_changed_is_refused) {
  if (testing::no_memfd()) return testing::skip("no memfd");
  constexpr int enough = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
  BOOST_TEST(SharedBytes::from_memfd(memory("ok", MFD_ALLOW_SEALING, enough)).view() == "ok");
  for (const int missing : {F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE}) {
    const std::string text = bad_message(
        [&] { SharedBytes::from_memfd(memory("no", MFD_ALLOW_SEALING, enough & ~missing)); });
    BOOST_TEST(has(text, "could still be changed"));
  }
  BOOST_TEST(has(bad_message([] { SharedBytes::from_memfd(memory("no", 0, 0)); }),
                 "could still be changed"));
  BOOST_TEST(has(
      bad_message([] { SharedBytes::from_memfd(Fd(::open("/dev/null", O_RDONLY | O_CLOEXEC))); }),
      "is not sealed memory"));
  BOOST_TEST(has(bad_message([] { SharedBytes::from_memfd(Fd()); }), "is not sealed memory"));
}

BOOST_AUTO_TEST_CASE(exceeding_the_file_size_limit_is_an_error_without_a_signal) {
  if (testing::no_memfd()) return testing::skip("no memfd");
  const int status = testing::elsewhere([] {
    const rlimit small{4096, 4096};
    ::setrlimit(RLIMIT_FSIZE, &small);
    for (const bool filled : {false, true}) {
      const auto error = error_of([&] {
        if (filled)
          SharedBytes::create(4097, [](void*) {});
        else
          SharedBytes::copy_of(std::string(4097, 'x'));
      });
      if (!error || error->code() != Errc::overloaded || error->os_error() != EFBIG) return 1;
    }
    return SharedBytes::copy_of(std::string(4096, 'x')).size() == 4096 ? 0 : 2;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(shared_bytes_are_refused_by_name_without_memfd_create) {
  for (const bool filled : {false, true}) {
    const auto error = error_of([&] {
      if (filled)
        SharedBytes::create(1, [](void*) {});
      else
        SharedBytes::copy_of("abc");
    });
    BOOST_TEST(error.has_value() == testing::no_memfd());
    if (!error) continue;
    BOOST_TEST((error->code() == Errc::refused));
    BOOST_TEST(has(error->what(), "memfd_create"));
  }
}

BOOST_AUTO_TEST_SUITE_END()
