// socket.cpp - socket pairs, streams, packets with descriptors, and the register of descriptors.
#include "private_names.hpp"
#include "process.hpp"
#include "tcp_pair.hpp"
#include "testing.hpp"

#include "system/descriptor.hpp"
#include "system/socket.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ostream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace evparallel::detail {

// For BOOST_TEST.
static std::ostream& operator<<(std::ostream& out, IoResult flow) {
  return out << (flow == IoResult::done ? "done" : flow == IoResult::would_block ? "again" : "end");
}

}  // namespace evparallel::detail

using namespace evparallel;

namespace {

struct Pair {
  OwnedFd one;
  OwnedFd other;
};

Pair pair_of(PairKind kind) {
  Pair pair;
  if (make_pair(kind, pair.one, pair.other) != 0) throw std::runtime_error("no socket pair");
  return pair;
}

Transfer send_text(int fd, const std::string& text) {
  const ByteSpan piece{text.data(), text.size()};
  return send(fd, &piece, 1, Wait::no);
}

struct Got {
  IoResult flow;
  std::string text;
};

Got receive_text(int fd, std::size_t size = 4096) {
  std::string text(size, '\0');
  const Transfer got = receive(fd, text.data(), size, Wait::no);
  text.resize(got.size);
  return {got.flow, text};
}

bool is_open(int fd) {
  return ::fcntl(fd, F_GETFD) >= 0;
}

// Runs f in a plain fork of the test; the result of f is the exit status, 99 if it threw.
template <class F>
pid_t start_copy(F f) {
  const pid_t pid = ::fork();
  if (pid != 0) return pid;
  int status = 99;
  try {
    status = f();
  } catch (...) {
    status = 99;
  }
  ::_exit(status);
}

// 1000 and more: a signal.
int end_of(pid_t pid) {
  int status = 0;
  if (::waitpid(pid, &status, 0) != pid) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

template <class F>
int in_copy(F f) {
  return end_of(start_copy(f));
}

}  // namespace

// ---- pairs ----

BOOST_AUTO_TEST_SUITE(pairs)

BOOST_AUTO_TEST_CASE(pairs_are_close_on_exec_and_registered) {
  for (const PairKind kind : {PairKind::stream, PairKind::packets, PairKind::datagrams}) {
    const Pair pair = pair_of(kind);
    for (const OwnedFd* end : {&pair.one, &pair.other}) {
      BOOST_TEST(static_cast<bool>(*end));
      BOOST_TEST((::fcntl(end->get(), F_GETFD) & FD_CLOEXEC) != 0);
      BOOST_TEST(is_registered(end->get()));
    }
    BOOST_TEST(send_packet(pair.one.get(), "x", 1, -1) == IoResult::done);
    char byte = 0;
    BOOST_TEST(::recv(pair.other.get(), &byte, 1, MSG_DONTWAIT) == 1);
  }
}

BOOST_AUTO_TEST_CASE(pairs_have_their_socket_types) {
  const struct {
    PairKind kind;
    int type;
  } table[] = {{PairKind::stream, SOCK_STREAM},
               {PairKind::packets, SOCK_SEQPACKET},
               {PairKind::datagrams, SOCK_DGRAM}};
  for (const auto& row : table) {
    const Pair pair = pair_of(row.kind);
    int type = 0;
    socklen_t size = sizeof type;
    BOOST_TEST(::getsockopt(pair.one.get(), SOL_SOCKET, SO_TYPE, &type, &size) == 0);
    BOOST_TEST(type == row.type);
  }
}

BOOST_AUTO_TEST_CASE(a_lack_of_descriptors_is_an_errno) {
  const int status = in_copy([] {
    const rlimit none{3, 3};
    ::setrlimit(RLIMIT_NOFILE, &none);
    OwnedFd one;
    OwnedFd other;
    if (make_pair(PairKind::stream, one, other) != EMFILE) return 1;
    return one || other ? 2 : 0;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_SUITE_END()

// ---- streams ----

BOOST_AUTO_TEST_SUITE(streams)

BOOST_AUTO_TEST_CASE(an_empty_socket_would_block) {
  const Pair pair = pair_of(PairKind::stream);
  const Got got = receive_text(pair.one.get());
  BOOST_TEST(got.flow == IoResult::would_block);
  BOOST_TEST(got.text == "");
}

BOOST_AUTO_TEST_CASE(pieces_arrive_as_one_stream) {
  const Pair pair = pair_of(PairKind::stream);
  const std::string texts[] = {"one", "", "two", "three"};
  std::vector<ByteSpan> pieces;
  for (const std::string& text : texts) pieces.push_back({text.data(), text.size()});
  const Transfer sent = send(pair.one.get(), pieces.data(), 4, Wait::no);
  BOOST_TEST(sent.flow == IoResult::done);
  BOOST_TEST(sent.size == 11U);
  BOOST_TEST(receive_text(pair.other.get(), 4).text == "onet");
  BOOST_TEST(receive_text(pair.other.get()).text == "wothree");
}

BOOST_AUTO_TEST_CASE(more_pieces_than_fit_into_one_call_are_written) {
  const Pair pair = pair_of(PairKind::stream);
  const std::string text = "0123456789";
  std::vector<ByteSpan> pieces;
  for (int i = 0; i < 40; ++i) pieces.push_back({text.data() + i % 10, 1});
  const Transfer sent = send(pair.one.get(), pieces.data(), 40, Wait::no);
  BOOST_TEST(sent.flow == IoResult::done);
  BOOST_TEST(sent.size >= 1U);
  BOOST_TEST(sent.size <= 40U);
  BOOST_TEST(receive_text(pair.other.get()).text ==
             (text + text + text + text).substr(0, sent.size));
}

BOOST_AUTO_TEST_CASE(a_full_stream_writes_in_part_and_then_would_block) {
  const Pair pair = pair_of(PairKind::stream);
  const std::string text(8 << 20, 'f');
  std::size_t sent = 0;
  bool partial = false;
  Transfer last{IoResult::done, 0};
  while (sent < text.size()) {
    const ByteSpan piece{text.data() + sent, text.size() - sent};
    last = send(pair.one.get(), &piece, 1, Wait::no);
    if (last.flow != IoResult::done) break;
    partial = partial || last.size < piece.size;
    sent += last.size;
  }
  BOOST_TEST(last.flow == IoResult::would_block);
  BOOST_TEST(last.size == 0U);
  BOOST_TEST(partial);
  BOOST_TEST(sent > 0U);
  // Nothing was lost, and the stream works again.
  std::size_t received = 0;
  for (;;) {
    const Got got = receive_text(pair.other.get(), 65536);
    if (got.flow != IoResult::done) break;
    received += got.text.size();
  }
  BOOST_TEST(received == sent);
  BOOST_TEST(send_text(pair.one.get(), "on").flow == IoResult::done);
}

BOOST_AUTO_TEST_CASE(a_half_close_is_an_end_of_file_after_the_data) {
  const Pair pair = pair_of(PairKind::stream);
  send_text(pair.one.get(), "last words");
  half_close(pair.one.get());
  BOOST_TEST(receive_text(pair.other.get(), 4).text == "last");
  BOOST_TEST(receive_text(pair.other.get()).text == " words");
  for (int i = 0; i < 3; ++i) BOOST_TEST(receive_text(pair.other.get()).flow == IoResult::closed);
  BOOST_TEST(send_text(pair.other.get(), "back").flow == IoResult::done);
  BOOST_TEST(receive_text(pair.one.get()).text == "back");
  BOOST_TEST(send_text(pair.one.get(), "x").flow == IoResult::closed);  // and this direction
}

BOOST_AUTO_TEST_CASE(the_end_of_a_reset_comes_after_the_data) {
  Pair pair = pair_of(PairKind::stream);
  send_text(pair.one.get(), "read me");
  send_text(pair.other.get(), "unread");
  pair.one.reset();  // with unread bytes: a reset
  BOOST_TEST(send_text(pair.other.get(), "unheard").flow == IoResult::closed);
  BOOST_TEST(receive_text(pair.other.get()).text == "read me");
  for (int i = 0; i < 3; ++i) BOOST_TEST(receive_text(pair.other.get()).flow == IoResult::closed);
}

BOOST_AUTO_TEST_CASE(no_signal_is_raised) {
  struct sigaction action = {};
  struct sigaction before = {};
  static volatile sig_atomic_t raised;
  raised = 0;
  action.sa_handler = [](int) { raised = 1; };
  ::sigaction(SIGPIPE, &action, &before);
  for (const PairKind kind : {PairKind::stream, PairKind::packets}) {
    Pair pair = pair_of(kind);
    pair.other.reset();
    BOOST_TEST(send_text(pair.one.get(), "x").flow == IoResult::closed);
    BOOST_TEST(send_packet(pair.one.get(), "x", 1, -1) == IoResult::closed);
  }
  ::sigaction(SIGPIPE, &before, nullptr);
  BOOST_TEST(raised == 0);
}

BOOST_AUTO_TEST_CASE(waiting_functions_wait_for_the_other_side) {
  const Pair pair = pair_of(PairKind::stream);
  const Pair done = pair_of(PairKind::stream);
  constexpr std::size_t size = 4 << 20;
  const pid_t pid = start_copy([&] {
    // More than a socket holds, in both directions: neither side can do it without waiting.
    const std::string all(size, 'w');
    std::size_t sent = 0;
    while (sent < all.size()) {
      const ByteSpan piece{all.data() + sent, all.size() - sent};
      const Transfer transfer = send(pair.other.get(), &piece, 1, Wait::yes);
      if (transfer.flow != IoResult::done) return 1;
      sent += transfer.size;
    }
    char byte = 0;
    return receive(pair.other.get(), &byte, 1, Wait::yes).flow == IoResult::done && byte == 'b' ? 0
                                                                                                : 2;
  });
  std::size_t received = 0;
  std::vector<char> buffer(65536);
  while (received < size) {
    const Transfer got = receive(pair.one.get(), buffer.data(), buffer.size(), Wait::yes);
    BOOST_REQUIRE((got.flow == IoResult::done));
    received += got.size;
  }
  BOOST_TEST(send_text(pair.one.get(), "b").flow == IoResult::done);
  BOOST_TEST(end_of(pid) == 0);
}

BOOST_AUTO_TEST_SUITE_END()

// ---- packets ----

BOOST_AUTO_TEST_SUITE(packets)

BOOST_AUTO_TEST_CASE(a_packet_carries_a_descriptor) {
  for (const PairKind kind : {PairKind::packets, PairKind::datagrams, PairKind::stream}) {
    const Pair pair = pair_of(kind);
    Pair data = pair_of(PairKind::stream);
    BOOST_TEST(send_packet(pair.one.get(), "hello", 5, data.other.get()) == IoResult::done);
    data.other.close();  // the packet in transit has a copy of it
    char bytes[16];
    Packet packet = receive_packet(pair.other.get(), bytes, sizeof bytes);
    BOOST_TEST(packet.flow == IoResult::done);
    BOOST_TEST(std::string(bytes, packet.size) == "hello");
    BOOST_TEST(!packet.lost_descriptor);
    BOOST_TEST(packet.sender == 0);
    BOOST_REQUIRE(static_cast<bool>(packet.along));
    BOOST_TEST((::fcntl(packet.along.get(), F_GETFD) & FD_CLOEXEC) != 0);
    BOOST_TEST(is_registered(packet.along.get()));
    send_text(packet.along.get(), "through it");
    BOOST_TEST(receive_text(data.one.get()).text == "through it");
  }
}

BOOST_AUTO_TEST_CASE(a_packet_without_a_descriptor_brings_none) {
  const Pair pair = pair_of(PairKind::packets);
  char byte = 0;
  BOOST_TEST(receive_packet(pair.other.get(), &byte, 1).flow == IoResult::would_block);
  send_packet(pair.one.get(), "x", 1, -1);
  const Packet packet = receive_packet(pair.other.get(), &byte, 1);
  BOOST_TEST(packet.flow == IoResult::done);
  BOOST_TEST(!packet.along);
  BOOST_TEST(!packet.lost_descriptor);
}

BOOST_AUTO_TEST_CASE(packets_stay_separate) {
  const Pair pair = pair_of(PairKind::packets);
  for (const char* text : {"one", "two", "three"})
    send_packet(pair.one.get(), text, std::strlen(text), -1);
  for (const char* text : {"one", "two", "three"}) {
    char bytes[16];
    const Packet packet = receive_packet(pair.other.get(), bytes, sizeof bytes);
    BOOST_TEST(std::string(bytes, packet.size) == text);
  }
}

BOOST_AUTO_TEST_CASE(no_descriptor_of_many_packets_leaks) {
  const Pair pair = pair_of(PairKind::packets);
  const Pair data = pair_of(PairKind::stream);
  for (const std::size_t count : {2U, 3U, 8U, 11U, 20U, 100U}) {
    const std::size_t before = testing::count_descriptors();
    BOOST_REQUIRE(testing::send_along(pair.one.get(), std::vector<int>(count, data.one.get())) ==
                  0);
    {
      char byte = 0;
      const Packet packet = receive_packet(pair.other.get(), &byte, 1);
      BOOST_TEST(packet.flow == IoResult::done);
      BOOST_TEST(byte == 'm');
      // Either all descriptors arrive, if there is room for them, and they are open; or none arrives.
      BOOST_TEST((packet.count == std::min(count, most_along) || packet.lost_descriptor));
      BOOST_TEST((packet.count == 0 || !packet.lost_descriptor));
      BOOST_TEST(testing::count_descriptors() == before + packet.count);
      BOOST_TEST((!packet.along || is_open(packet.along.get())));
      for (std::size_t i = 1; i < packet.count; ++i)
        BOOST_TEST(is_open(packet.others[i - 1].get()));
    }
    BOOST_TEST(testing::count_descriptors() == before);
  }
}

BOOST_AUTO_TEST_CASE(four_descriptors_arrive_in_order) {
  const Pair pair = pair_of(PairKind::packets);
  const Pair data[4] = {pair_of(PairKind::stream), pair_of(PairKind::stream),
                        pair_of(PairKind::stream), pair_of(PairKind::stream)};
  const int along[most_along] = {data[0].other.get(), data[1].other.get(), data[2].other.get(),
                                 data[3].other.get()};
  const std::size_t before = testing::count_descriptors();
  BOOST_TEST(send_packet(pair.one.get(), "4", 1, along, most_along) == IoResult::done);
  {
    char byte = 0;
    const Packet packet = receive_packet(pair.other.get(), &byte, 1);
    BOOST_REQUIRE(packet.count == most_along);
    send_text(packet.along.get(), "first");
    BOOST_TEST(receive_text(data[0].one.get()).text == "first");
    for (std::size_t i = 1; i < most_along; ++i) {
      const int fd = packet.others[i - 1].get();
      BOOST_TEST((::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
      BOOST_TEST(is_registered(fd));
      send_text(fd, std::to_string(i).c_str());
      BOOST_TEST(receive_text(data[i].one.get()).text == std::to_string(i));
    }
  }
  BOOST_TEST(testing::count_descriptors() == before);
  // The descriptors behind the first one are copies: their originals still work.
  send_text(data[1].other.get(), "still");
  BOOST_TEST(receive_text(data[1].one.get()).text == "still");
}

BOOST_AUTO_TEST_CASE(none_of_four_descriptors_is_taken_if_one_has_no_room) {
  const Pair pair = pair_of(PairKind::packets);
  const Pair data = pair_of(PairKind::stream);
  const int status = in_copy([&] {
    const int along[most_along] = {data.one.get(), data.one.get(), data.one.get(), data.one.get()};
    for (int i = 0; i < 2; ++i) send_packet(pair.one.get(), "4", 1, along, most_along);
    const auto highest = static_cast<rlim_t>(data.other.get());
    const rlimit tight{highest + 1, highest + 1};
    for (int fd = 0; fd <= data.other.get(); ++fd)
      if (!is_open(fd)) ::open("/dev/null", O_RDONLY);
    ::setrlimit(RLIMIT_NOFILE, &tight);
    for (int fd = 0; fd < 3; ++fd) ::close(fd);  // there is room for three
    char byte;
    const Packet lost = receive_packet(pair.other.get(), &byte, 1);
    if (lost.flow != IoResult::done || !lost.lost_descriptor) return 1;
    if (lost.count != 0 || lost.along) return 2;
    for (int fd = 0; fd < 3; ++fd)
      if (is_open(fd)) return 3;
    const rlimit wide{highest + 2, highest + 2};
    if (::setrlimit(RLIMIT_NOFILE, &wide) != 0) return 0;  // raising needs a privilege
    return receive_packet(pair.other.get(), &byte, 1).count == most_along ? 0 : 4;
  });
  BOOST_TEST(status == 0);
}

// A close would have stopped the loop of the receiver, or the snapshot, for as long as the sender has chosen.
BOOST_AUTO_TEST_CASE(a_socket_that_nobody_has_asked_for_does_not_linger,
                     *testing::guarantee("A.5")) {
  const testing::TcpPair tcp;
  {
    const Pair pair = pair_of(PairKind::stream);
    const std::vector<Attachment> along(1, Attachment{tcp.fds[0], nullptr});
    const ByteSpan piece{"x", 1};
    BOOST_REQUIRE((send(pair.one.get(), &piece, 1, Wait::no, &along).flow == IoResult::done));
    char byte;
    std::vector<ReceivedFds> batches;
    BOOST_REQUIRE((receive(pair.other.get(), &byte, 1, Wait::no, &batches).flow == IoResult::done));
    BOOST_REQUIRE(batches.size() == 1u);
    BOOST_TEST(tcp.lingers());
  }
  BOOST_TEST(!tcp.lingers());
}

BOOST_AUTO_TEST_CASE(a_socket_may_refuse_descriptors, *testing::guarantee("A.5")) {
  for (const PairKind kind : {PairKind::stream, PairKind::packets}) {
    const Pair pair = pair_of(kind);
    refuse_descriptors(pair.other.get());
    const IoResult sent = send_packet(pair.one.get(), "x", 1, STDERR_FILENO);
    if (sent == IoResult::done) return testing::skip("no SO_PASSRIGHTS before Linux 6.16");
    BOOST_TEST(errno == EPERM);
    BOOST_TEST((send_packet(pair.one.get(), "x", 1, -1) == IoResult::done));
    BOOST_TEST((send_packet(pair.other.get(), "x", 1, STDERR_FILENO) == IoResult::done));
  }
}

BOOST_AUTO_TEST_CASE(a_socket_in_a_packet_does_not_linger, *testing::guarantee("A.5")) {
  for (const std::size_t count : {1u, 2u, 5u}) {
    const testing::TcpPair tcp;
    {
      const Pair pair = pair_of(PairKind::packets);
      const std::vector<int> along(count, tcp.fds[0]);
      BOOST_REQUIRE(testing::send_along(pair.one.get(), along) == 0);
      char byte;
      const Packet packet = receive_packet(pair.other.get(), &byte, 1);
      BOOST_REQUIRE(packet.count > 0u);
    }
    BOOST_TEST(!tcp.lingers());
  }
}

// Its first bytes must not pass for a structure.
BOOST_AUTO_TEST_CASE(a_packet_that_is_longer_than_the_room_says_how_long_it_is) {
  for (const PairKind kind : {PairKind::packets, PairKind::datagrams}) {
    const Pair pair = pair_of(kind);
    const std::string sent("0123456789");
    BOOST_REQUIRE((send_packet(pair.one.get(), sent.data(), sent.size(), -1) == IoResult::done));
    char room[4 + 1] = "....";
    const Packet packet = receive_packet(pair.other.get(), room, 4);
    BOOST_TEST((packet.flow == IoResult::done));
    BOOST_TEST(packet.size == sent.size());
    BOOST_TEST(std::string(room) == "0123");
  }
}

BOOST_AUTO_TEST_CASE(only_one_end_of_a_pair_of_packet_sockets_is_one) {
  const Pair packets = pair_of(PairKind::packets);
  const Pair datagrams = pair_of(PairKind::datagrams);
  const Pair stream = pair_of(PairKind::stream);
  const testing::TcpPair tcp;
  BOOST_TEST(is_packet_socket(packets.one.get()));
  BOOST_TEST(!is_packet_socket(datagrams.one.get()));
  BOOST_TEST(!is_packet_socket(stream.one.get()));
  BOOST_TEST(!is_packet_socket(tcp.fds[0]));
  BOOST_TEST(!is_packet_socket(STDIN_FILENO));
}

BOOST_AUTO_TEST_CASE(a_descriptor_without_room_is_lost_and_reported) {
  const Pair pair = pair_of(PairKind::packets);
  const Pair data = pair_of(PairKind::stream);
  const int status = in_copy([&] {
    send_packet(pair.one.get(), "first", 5, data.one.get());
    send_packet(pair.one.get(), "second", 6, data.one.get());
    const std::size_t before = testing::count_descriptors();
    const int room = ::open("/dev/null", O_RDONLY);
    const auto highest = static_cast<rlim_t>(room);
    const rlimit tight{highest + 1, highest + 1};
    for (int fd = 0; fd <= room; ++fd)
      if (!is_open(fd)) ::open("/dev/null", O_RDONLY);
    const std::size_t filled = testing::count_descriptors();
    ::setrlimit(RLIMIT_NOFILE, &tight);
    char bytes[16];
    const Packet lost = receive_packet(pair.other.get(), bytes, sizeof bytes);
    if (lost.flow != IoResult::done || std::string(bytes, lost.size) != "first") return 1;
    if (!lost.lost_descriptor || lost.along) return 2;
    // There is room again: the next packet arrives.
    ::close(room);
    Packet taken = receive_packet(pair.other.get(), bytes, sizeof bytes);
    if (taken.lost_descriptor || taken.along.get() != room) return 3;
    taken.along.close();
    for (int fd = 0; fd < 3; ++fd) ::close(fd);  // room for the check
    return testing::count_descriptors() == filled - 4 && filled >= before ? 0 : 4;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(a_full_socket_would_block) {
  for (const PairKind kind : {PairKind::packets, PairKind::datagrams}) {
    const Pair pair = pair_of(kind);
    std::size_t sent = 0;
    IoResult flow = IoResult::done;
    while (sent < 100000 && flow == IoResult::done) {
      flow = send_packet(pair.one.get(), &sent, sizeof sent, -1);
      if (flow == IoResult::done) ++sent;
    }
    BOOST_TEST(flow == IoResult::would_block);
    BOOST_TEST(sent > 0U);
    std::size_t number = 0;
    for (std::size_t i = 0; i < sent; ++i) {
      BOOST_REQUIRE(
          (receive_packet(pair.other.get(), &number, sizeof number).flow == IoResult::done));
      BOOST_REQUIRE(number == i);
    }
    BOOST_TEST(receive_packet(pair.other.get(), &number, sizeof number).flow ==
               IoResult::would_block);
    BOOST_TEST(send_packet(pair.one.get(), &sent, sizeof sent, -1) == IoResult::done);
  }
}

// Not as root: there are more descriptors in flight than the limit for open ones.
BOOST_AUTO_TEST_CASE(too_many_descriptors_in_flight_are_to_be_sent_later,
                     *testing::guarantee("B.4")) {
  const Pair pair = pair_of(PairKind::packets);
  const Pair data = pair_of(PairKind::stream);
  const int status = in_copy([&] {
    const rlimit tight{20, 20};
    ::setrlimit(RLIMIT_NOFILE, &tight);
    if (::getuid() == 0 && ::setuid(65533) != 0) return 1;
    IoResult flow = IoResult::done;
    int sent = 0;
    while (sent < 100 && flow == IoResult::done) {
      flow = send_packet(pair.one.get(), "x", 1, data.one.get());
      if (flow == IoResult::done) ++sent;
    }
    if (flow != IoResult::retry_later || sent < 10) return 2;
    for (int i = 0; i < sent; ++i) {
      char byte = 0;
      Packet packet = receive_packet(pair.other.get(), &byte, 1);
      if (packet.flow != IoResult::done || !packet.along) return 3;
    }
    return send_packet(pair.one.get(), "x", 1, data.one.get()) == IoResult::done ? 0 : 4;
  });
  BOOST_TEST(status == 0);
}

BOOST_AUTO_TEST_CASE(the_end_of_a_close_comes_after_the_packets) {
  Pair pair = pair_of(PairKind::packets);
  for (const char* text : {"one", "two"}) send_packet(pair.one.get(), text, 3, -1);
  pair.one.reset();
  char bytes[16];
  for (const char* text : {"one", "two"}) {
    const Packet packet = receive_packet(pair.other.get(), bytes, sizeof bytes);
    BOOST_TEST(packet.flow == IoResult::done);
    BOOST_TEST(std::string(bytes, packet.size) == text);
  }
  for (int i = 0; i < 3; ++i)
    BOOST_TEST(receive_packet(pair.other.get(), bytes, sizeof bytes).flow == IoResult::closed);
}

// The reports of a snapshot that dies with unread requests must not be lost.
BOOST_AUTO_TEST_CASE(the_end_of_a_reset_comes_after_the_packets) {
  Pair pair = pair_of(PairKind::packets);
  for (const char* text : {"one", "two"}) send_packet(pair.one.get(), text, 3, -1);
  send_packet(pair.other.get(), "unread", 6, -1);
  pair.one.reset();
  char bytes[16];
  for (const char* text : {"one", "two"}) {
    const Packet packet = receive_packet(pair.other.get(), bytes, sizeof bytes);
    BOOST_TEST(packet.flow == IoResult::done);
    BOOST_TEST(std::string(bytes, packet.size) == text);
  }
  for (int i = 0; i < 3; ++i)
    BOOST_TEST(receive_packet(pair.other.get(), bytes, sizeof bytes).flow == IoResult::closed);
}

BOOST_AUTO_TEST_CASE(a_write_to_a_dead_process_discards_no_packet) {
  Pair pair = pair_of(PairKind::packets);
  send_packet(pair.one.get(), "one", 3, -1);
  send_packet(pair.other.get(), "unread", 6, -1);
  pair.one.reset();
  BOOST_TEST(send_packet(pair.other.get(), "unheard", 7, -1) == IoResult::closed);
  char bytes[16];
  const Packet packet = receive_packet(pair.other.get(), bytes, sizeof bytes);
  BOOST_TEST(packet.flow == IoResult::done);
  BOOST_TEST(std::string(bytes, packet.size) == "one");
  BOOST_TEST(receive_packet(pair.other.get(), bytes, sizeof bytes).flow == IoResult::closed);
}

BOOST_AUTO_TEST_CASE(the_kernel_names_the_sender) {
  for (const PairKind kind : {PairKind::datagrams, PairKind::packets}) {
    const Pair pair = pair_of(kind);
    const Pair data = pair_of(PairKind::stream);
    name_senders(pair.other.get());
    const pid_t pid = start_copy([&] {
      return send_packet(pair.one.get(), "x", 1, data.one.get()) == IoResult::done ? 0 : 1;
    });
    BOOST_TEST(end_of(pid) == 0);
    send_packet(pair.one.get(), "y", 1, -1);
    char byte = 0;
    const Packet theirs = receive_packet(pair.other.get(), &byte, 1);
    BOOST_TEST(byte == 'x');
    BOOST_TEST(theirs.sender == pid);
    BOOST_TEST(static_cast<bool>(theirs.along));  // there is room for both
    BOOST_TEST(!theirs.lost_descriptor);
    const Packet ours = receive_packet(pair.other.get(), &byte, 1);
    BOOST_TEST(byte == 'y');
    BOOST_TEST(ours.sender == ::getpid());
    BOOST_TEST(!ours.along);
  }
}

BOOST_AUTO_TEST_SUITE_END()

// ---- Descriptor ----

BOOST_AUTO_TEST_SUITE(descriptors)

BOOST_AUTO_TEST_CASE(an_object_owns_one_descriptor) {
  const int fd = ::dup(STDERR_FILENO);
  {
    OwnedFd first(fd);
    BOOST_TEST(is_registered(fd));
    OwnedFd second(std::move(first));
    BOOST_TEST(!first);
    BOOST_TEST(first.get() == -1);
    BOOST_TEST(second.get() == fd);
    OwnedFd third;
    third = std::move(second);
    BOOST_TEST(third.get() == fd);
    OwnedFd& same = third;
    third = std::move(same);
    BOOST_TEST(third.get() == fd);
    BOOST_TEST(is_open(fd));
  }
  BOOST_TEST(!is_open(fd));
  BOOST_TEST(!is_registered(fd));
}

BOOST_AUTO_TEST_CASE(assigning_closes_the_previous_descriptor) {
  Pair pair = pair_of(PairKind::stream);
  const int fd = pair.one.get();
  pair.one = OwnedFd(::dup(STDERR_FILENO));
  BOOST_TEST((!is_registered(fd) || pair.one.get() == fd));
  BOOST_TEST(receive_text(pair.other.get()).flow == IoResult::closed);
}

BOOST_AUTO_TEST_CASE(an_empty_object_holds_no_descriptor) {
  OwnedFd none(-1);
  BOOST_TEST(!none);
  none.reset();
  none.close();
  BOOST_TEST(!is_registered(-1));
  BOOST_TEST(!is_registered(1 << 30));
}

BOOST_AUTO_TEST_CASE(reset_is_noticed_even_if_another_process_holds_a_copy) {
  Pair pair = pair_of(PairKind::stream);
  const Pair life = pair_of(PairKind::stream);
  const pid_t stranger = start_copy([&] {
    ::close(life.one.get());
    char byte = 0;
    return ::read(life.other.get(), &byte, 1) == 0 ? 0 : 1;  // until the test closes it
  });
  send_text(pair.one.get(), "first");
  pair.one.reset();
  BOOST_TEST(testing::is_ready(pair.other.get()));
  BOOST_TEST(receive_text(pair.other.get()).text == "first");
  BOOST_TEST(testing::is_ready(pair.other.get()));
  BOOST_TEST(receive_text(pair.other.get()).flow == IoResult::closed);
  BOOST_TEST(testing::process_exists(stranger));
  half_close(life.one.get());
  BOOST_TEST(end_of(stranger) == 0);
}

BOOST_AUTO_TEST_CASE(dropping_is_unnoticed_while_another_holds_the_socket) {
  Pair pair = pair_of(PairKind::stream);
  const int copy = ::dup(pair.one.get());
  const int fd = pair.one.get();
  pair.one.close();
  BOOST_TEST(!pair.one);
  BOOST_TEST(!is_open(fd));
  BOOST_TEST(receive_text(pair.other.get()).flow == IoResult::would_block);
  send_text(copy, "alive");
  BOOST_TEST(receive_text(pair.other.get()).text == "alive");
  ::close(copy);
  BOOST_TEST(receive_text(pair.other.get()).flow == IoResult::closed);
}

BOOST_AUTO_TEST_CASE(a_fork_closes_registered_descriptors) {
  Pair pair = pair_of(PairKind::stream);
  Pair kept = pair_of(PairKind::packets);
  const int of_the_program = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  const int status = in_copy([&] {
    const int closed[] = {pair.one.get(), pair.other.get()};
    close_registered_except({kept.one.get(), kept.other.get()});
    for (const int fd : closed)
      if (is_open(fd) || is_registered(fd)) return 1;
    if (!is_open(of_the_program) || !is_open(STDERR_FILENO)) return 2;
    if (!is_open(kept.one.get()) || !is_open(kept.other.get())) return 3;
    if (!is_registered(kept.one.get()) || !is_registered(kept.other.get())) return 4;
    close_registered_except({kept.one.get()});
    if (!is_open(kept.one.get()) || is_open(kept.other.get())) return 5;
    close_registered_except({});
    return is_open(kept.one.get()) ? 6 : 0;
  });
  BOOST_TEST(status == 0);
  // Without a shutdown: the test's descriptors still work.
  send_text(pair.one.get(), "on");
  BOOST_TEST(receive_text(pair.other.get()).text == "on");
  ::close(of_the_program);
}

// After the copy has closed a descriptor, its number soon belongs to another one.
BOOST_AUTO_TEST_CASE(an_inherited_object_does_not_close_a_foreign_descriptor) {
  Pair pair = pair_of(PairKind::stream);
  Pair dropped = pair_of(PairKind::stream);
  Pair assigned = pair_of(PairKind::stream);
  const int status = in_copy([&] {
    close_registered_except({});
    const int numbers[] = {pair.one.get(), pair.other.get(), dropped.one.get(), assigned.one.get()};
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) return 1;
    const int strange = ::fcntl(ends[0], F_DUPFD, 100);
    if (strange < 0 || ::fcntl(ends[1], F_DUPFD, 100) < 0) return 1;
    for (const int number : numbers) ::dup2(strange, number);
    pair.one.reset();
    { const OwnedFd gone = std::move(pair.other); }
    dropped.one.close();
    assigned.one = OwnedFd();
    if (pair.one || pair.other || dropped.one || assigned.one) return 2;
    for (const int number : numbers) {
      if (!is_open(number)) return 3;
      if (::send(number, "x", 1, MSG_NOSIGNAL) != 1) return 4;  // it was not shut down either
    }
    return 0;
  });
  BOOST_TEST(status == 0);
}

// Nor a descriptor that the library itself has opened since: the number is registered again.
BOOST_AUTO_TEST_CASE(an_inherited_object_does_not_close_a_later_descriptor) {
  Pair pair = pair_of(PairKind::stream);
  Pair dropped = pair_of(PairKind::stream);
  const int status = in_copy([&] {
    const int numbers[] = {pair.one.get(), pair.other.get(), dropped.one.get()};
    close_registered_except({});
    std::vector<Pair> later;
    for (int i = 0; i < 3; ++i) later.push_back(pair_of(PairKind::stream));
    for (const int number : numbers)
      if (!is_registered(number)) return 1;  // the kernel reused the numbers
    pair.one.reset();
    pair.other = OwnedFd();
    dropped.one.close();
    for (const int number : numbers)
      if (!is_registered(number) || !is_open(number)) return 2;
    for (const Pair& one : later) {
      send_text(one.one.get(), "here");
      if (receive_text(one.other.get()).text != "here") return 3;
    }
    return 0;
  });
  BOOST_TEST(status == 0);
}

// A process that the program has forked by itself must not end the connection.
BOOST_AUTO_TEST_CASE(an_inherited_object_is_closed_and_not_shut_down) {
  Pair pair = pair_of(PairKind::stream);
  const int status = in_copy([&] {
    const int one = pair.one.get();
    const int other = pair.other.get();
    pair.one.reset();
    { const OwnedFd gone = std::move(pair.other); }
    if (is_open(one) || is_open(other) || is_registered(one)) return 1;
    Pair own = pair_of(PairKind::stream);  // it owns the descriptors that it opens itself
    const int copy = ::dup(own.one.get());
    own.one.reset();
    const bool received = receive_text(own.other.get()).flow == IoResult::closed;
    ::close(copy);
    return received ? 0 : 2;
  });
  BOOST_TEST(status == 0);
  send_text(pair.one.get(), "on");
  BOOST_TEST(receive_text(pair.other.get()).text == "on");
}

// A copy that the library makes owns the descriptors that it keeps.
BOOST_AUTO_TEST_CASE(a_fork_shuts_down_the_descriptor_it_keeps) {
  Pair pair = pair_of(PairKind::stream);
  const int status = in_copy([&] {
    close_registered_except({pair.one.get()});
    pair.one.reset();
    return 0;
  });
  BOOST_TEST(status == 0);
  BOOST_TEST(receive_text(pair.other.get()).flow == IoResult::closed);
}

BOOST_AUTO_TEST_SUITE_END()
