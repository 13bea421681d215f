// http.cpp - evhttp of libevent on the base of a Reactor: requests are answered by the children of a pool, and clients
// come and go.
#include "calling.hpp"
#include "errors.hpp"
#include "testing.hpp"

#include <evparallel/evparallel.hpp>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>

#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace par = evparallel;
using testing::has;
using namespace std::chrono_literals;

void testing_main_init() {
  testing::take_default_snapshot();
}

namespace {

constexpr std::size_t megabyte = 1 << 20;

// ---- in the children ----

std::string make_page(const std::string& path) {
  const auto number = [&] { return std::stoul(path.substr(path.rfind('/') + 1)); };
  if (has(path, "/twice/")) return std::to_string(2 * number());
  if (has(path, "/large/")) return std::string(number() * megabyte, 'x');
  if (path == "/kill") ::raise(SIGKILL);
  if (path == "/wait")
    while (!par::this_call::cancelled()) ::usleep(1000);
  throw std::invalid_argument("no page " + path);
}

// ---- the server ----

struct HttpDeleter {
  void operator()(evhttp* http) const { ::evhttp_free(http); }
};

class Server {
public:
  explicit Server(par::Reactor& loop)
      : loop_(loop), pool_(par::pool(loop, make_page, four())), http_(::evhttp_new(loop.base())) {
    listener_ = ::evhttp_bind_socket_with_handle(http_.get(), "127.0.0.1", 0);
    BOOST_REQUIRE(listener_);
    ::evhttp_set_gencb(
        http_.get(), [](evhttp_request* r, void* self) { static_cast<Server*>(self)->take(r); },
        this);
    sockaddr_in at{};
    socklen_t size = sizeof at;
    ::getsockname(::evhttp_bound_socket_get_fd(listener_), reinterpret_cast<sockaddr*>(&at), &size);
    port = ntohs(at.sin_port);
  }
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  void drain() {
    draining_ = true;
    ::evhttp_del_accept_socket(http_.get(), listener_);
  }
  std::size_t under_way() const { return exchanges_.size(); }
  std::size_t pending_calls() const { return pool_.pending(); }

  in_port_t port = 0;
  int requests = 0;
  int lost = 0;      // clients that have disconnected before their answer
  int complete = 0;  // answers that were written

private:
  struct Exchange {
    evhttp_request* request;
    par::Call call{};
    par::Watch hang_up{};
    bool answered = false;
  };

  static par::PoolOptions four() {
    par::PoolOptions options;
    options.workers = 4;
    return options;
  }

  void take(evhttp_request* request) {
    ++requests;
    evhttp_connection* const connection = ::evhttp_request_get_connection(request);
    const auto exchange = std::make_shared<Exchange>(Exchange{request});
    exchanges_[connection] = exchange;
    ::evhttp_connection_set_closecb(
        connection,
        [](evhttp_connection* gone, void* self) { static_cast<Server*>(self)->lose(gone); }, this);
    ::evhttp_request_set_on_complete_cb(
        request, [](evhttp_request* r, void* self) { static_cast<Server*>(self)->end(r); }, this);
    const int fd = ::bufferevent_getfd(::evhttp_connection_get_bufferevent(connection));
    exchange->hang_up = loop_.on_readable(fd, [this, connection, fd] {
      char byte;
      const ssize_t got = ::recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
      if (got > 0)
        exchanges_[connection]->hang_up.cancel();  // the next request
      else if (got == 0 || errno != EAGAIN)
        ::evhttp_connection_free(connection);
    });
    exchange->call = pool_.submit(
        ::evhttp_request_get_uri(request),
        [this, weak = std::weak_ptr<Exchange>(exchange)](const par::Result<std::string>& page) {
          if (const auto living = weak.lock()) answer(*living, page);
        });
  }

  void answer(Exchange& exchange, const par::Result<std::string>& page) {
    exchange.answered = true;
    exchange.hang_up.cancel();
    if (draining_)
      ::evhttp_add_header(::evhttp_request_get_output_headers(exchange.request), "Connection",
                          "close");
    const std::string text = page ? *page : page.error().what();
    ::evbuffer_add(::evhttp_request_get_output_buffer(exchange.request), text.data(), text.size());
    ::evhttp_send_reply(exchange.request, page ? 200 : 500, nullptr, nullptr);
  }

  void lose(evhttp_connection* connection) {
    const auto found = exchanges_.find(connection);
    if (found == exchanges_.end()) return;
    if (!found->second->answered) ++lost;
    found->second->call.cancel();
    exchanges_.erase(found);
  }
  void end(evhttp_request* request) {
    ++complete;
    exchanges_.erase(::evhttp_request_get_connection(request));
  }

  par::Reactor& loop_;
  par::Pool<std::string(std::string)> pool_;
  std::map<evhttp_connection*, std::shared_ptr<Exchange>> exchanges_;
  bool draining_ = false;
  std::unique_ptr<evhttp, HttpDeleter> http_;
  evhttp_bound_socket* listener_ = nullptr;
};

// ---- the loop, run by the Reactor or dispatched by the program ----

struct BaseDeleter {
  void operator()(event_base* base) const { ::event_base_free(base); }
};

class DrivenLoop {
public:
  explicit DrivenLoop(bool borrowed) : base_(borrowed ? ::event_base_new() : nullptr) {
    if (borrowed)
      loop_.emplace(base_.get());
    else
      loop_.emplace();
  }
  par::Reactor& operator*() { return *loop_; }

  template <class F>
  bool until(F condition, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    const auto turn = [&] {
      const par::Timer moment = loop_->after(1ms, [] {});
      if (base_)
        ::event_base_loop(base_.get(), EVLOOP_ONCE);
      else
        loop_->run_for(1ms);
    };
    return testing::wait_until(condition, turn, file, line);
  }

private:
  std::unique_ptr<event_base, BaseDeleter> base_;
  std::optional<par::Reactor> loop_;
};

constexpr bool bases[] = {false, true};  // whether it is a borrowed one

// ---- a client, with a blocking socket ----

class Client {
public:
  explicit Client(in_port_t port, int receive_buffer = 0)
      : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    if (receive_buffer > 0)
      ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    at.sin_port = htons(port);
    connected = ::connect(fd_, reinterpret_cast<sockaddr*>(&at), sizeof at) == 0;
  }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;
  ~Client() { close(); }

  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  void close_with_reset() {
    const linger at_once{1, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close();
  }
  void send(const std::string& text) const {
    for (std::size_t sent = 0; sent < text.size();) {
      const ssize_t now = ::send(fd_, text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
      if (now <= 0) return;
      sent += static_cast<std::size_t>(now);
    }
  }
  void ask(const std::string& path) const {
    send("GET " + path + " HTTP/1.1\r\nHost: localhost\r\n\r\n");
  }

  struct Answer {
    int status = 0;  // 0: the connection has ended
    std::string headers{};
    std::string body{};
  };
  Answer read_answer() {
    Answer answer;
    while (received_.find("\r\n\r\n") == std::string::npos)
      if (!receive()) return answer;
    const std::size_t end = received_.find("\r\n\r\n") + 4;
    answer.headers = received_.substr(0, end);
    const std::string length = "Content-Length: ";
    const std::size_t at = answer.headers.find(length);
    if (at == std::string::npos) return answer;
    const std::size_t size = std::stoul(answer.headers.substr(at + length.size()));
    while (received_.size() < end + size)
      if (!receive()) return answer;
    answer.status = std::stoi(answer.headers.substr(9, 3));
    answer.body = received_.substr(end, size);
    received_.erase(0, end + size);
    return answer;
  }
  Answer get(const std::string& path) {
    ask(path);
    return read_answer();
  }
  bool readable() const {
    pollfd one{fd_, POLLIN, 0};
    return ::poll(&one, 1, 0) > 0;
  }
  bool receive() {
    char block[65536];
    const ssize_t got = ::recv(fd_, block, sizeof block, 0);
    if (got > 0) received_.append(block, static_cast<std::size_t>(got));
    return got > 0;
  }

  bool connected = false;

private:
  int fd_;
  std::string received_;
};

// Clients that work in threads while the loop of the case runs.  A thread makes no assertion.
class Clients {
public:
  Clients() = default;
  Clients(const Clients&) = delete;
  Clients& operator=(const Clients&) = delete;
  ~Clients() {
    for (std::thread& thread : threads_) thread.join();
  }
  template <class F>
  void add(F f) {
    ++running_;
    threads_.emplace_back([this, f]() mutable {
      f();
      --running_;
    });
  }
  bool done() const { return running_ == 0; }

private:
  std::atomic<int> running_{0};
  std::vector<std::thread> threads_;
};

bool is_right(const Client::Answer& answer, unsigned long number) {
  return answer.status == 200 && answer.body == std::to_string(2 * number);
}

}  // namespace

// ---- requests ----

BOOST_AUTO_TEST_CASE(many_clients_with_lasting_connections_get_their_own_answers) {
  for (const bool borrowed : bases) {
    DrivenLoop loop(borrowed);
    Server server(*loop);
    constexpr unsigned long clients = 16;
    constexpr unsigned long each = 25;
    std::atomic<unsigned long> right{0};
    Clients threads;
    for (unsigned long i = 0; i < clients; ++i)
      threads.add([&, i] {
        Client client(server.port);
        for (unsigned long k = 0; k < each; ++k) {
          const unsigned long number = 1000 * i + k;
          right += is_right(client.get("/twice/" + std::to_string(number)), number);
        }
      });
    BOOST_TEST(loop.until([&] { return threads.done(); }));
    BOOST_TEST(right == clients * each);
    BOOST_TEST(server.complete == static_cast<int>(clients * each));
    BOOST_TEST(server.lost == 0);
    BOOST_TEST(server.pending_calls() == 0u);
  }
}

BOOST_AUTO_TEST_CASE(requests_that_come_at_once_on_one_connection_are_answered_in_order) {
  for (const bool borrowed : bases) {
    DrivenLoop loop(borrowed);
    Server server(*loop);
    int right = 0;
    Clients threads;
    threads.add([&] {
      Client client(server.port);
      for (unsigned long i = 0; i < 10; ++i) client.ask("/twice/" + std::to_string(i));
      for (unsigned long i = 0; i < 10; ++i) right += is_right(client.read_answer(), i);
    });
    BOOST_TEST(loop.until([&] { return threads.done(); }));
    BOOST_TEST(right == 10);
    BOOST_TEST(server.lost == 0);
  }
}

// ---- clients that leave ----

BOOST_AUTO_TEST_CASE(a_client_may_leave_in_the_middle_of_its_request) {
  for (const bool borrowed : bases) {
    DrivenLoop loop(borrowed);
    Server server(*loop);
    for (const bool reset : {false, true}) {
      Client leaving(server.port);
      leaving.send("GET /twice/1 HTTP/1.1\r\nHost: lo");
      testing::turn(*loop, 3);
      if (reset)
        leaving.close_with_reset();
      else
        leaving.close();
    }
    bool right = false;
    Clients threads;
    threads.add([&] { right = is_right(Client(server.port).get("/twice/2"), 2); });
    BOOST_TEST(loop.until([&] { return threads.done(); }));
    BOOST_TEST(right);
    BOOST_TEST(server.requests == 1);
  }
}

BOOST_AUTO_TEST_CASE(a_client_that_leaves_cancels_its_call) {
  for (const bool borrowed : bases) {
    DrivenLoop loop(borrowed);
    Server server(*loop);
    for (const bool reset : {false, true}) {
      std::vector<std::unique_ptr<Client>> leaving;  // more than there are children
      for (int i = 0; i < 10; ++i) {
        leaving.push_back(std::make_unique<Client>(server.port));
        leaving.back()->ask("/wait");
      }
      BOOST_TEST(loop.until([&] { return server.under_way() == leaving.size(); }));
      server.lost = 0;
      for (auto& client : leaving) {
        if (reset)
          client->close_with_reset();
        else
          client->close();
      }
      BOOST_TEST(loop.until([&] { return server.under_way() == 0; }));
      BOOST_TEST(server.lost == 10);
      BOOST_TEST(loop.until([&] { return server.pending_calls() == 0; }));
    }
    // The children are free again.
    bool right = false;
    Clients threads;
    threads.add([&] { right = is_right(Client(server.port).get("/twice/3"), 3); });
    BOOST_TEST(loop.until([&] { return threads.done(); }));
    BOOST_TEST(right);
    BOOST_TEST(server.complete == 1);
  }
}

BOOST_AUTO_TEST_CASE(a_client_may_leave_while_its_answer_is_on_its_way) {
  for (const bool borrowed : bases) {
    DrivenLoop loop(borrowed);
    Server server(*loop);
    Client leaving(server.port, 4096);
    leaving.ask("/large/16");
    // The call is over; the answer does not fit into the buffers of the sockets.
    BOOST_TEST(loop.until([&] { return server.under_way() == 1 && server.pending_calls() == 0; }));
    BOOST_TEST(loop.until([&] { return leaving.readable(); }));
    BOOST_TEST(leaving.receive());
    testing::turn(*loop, 3);
    BOOST_TEST(server.under_way() == 1u);
    leaving.close_with_reset();
    BOOST_TEST(loop.until([&] { return server.under_way() == 0; }));
    BOOST_TEST(server.complete == 0);
    BOOST_TEST(server.lost == 0);
  }
}

BOOST_AUTO_TEST_CASE(a_slow_reader_holds_up_nobody_and_gets_all) {
  for (const bool borrowed : bases) {
    DrivenLoop loop(borrowed);
    Server server(*loop);
    std::atomic<bool> begun{false};
    std::atomic<bool> may_go_on{false};
    Client::Answer slow;
    int right = 0;
    Clients threads;
    threads.add([&] {
      Client client(server.port, 4096);
      client.ask("/large/8");
      client.receive();
      begun = true;
      while (!may_go_on) ::usleep(1000);
      slow = client.read_answer();
    });
    BOOST_TEST(loop.until([&] { return begun.load(); }));
    threads.add([&] {
      Client client(server.port);
      for (unsigned long i = 0; i < 20; ++i)
        right += is_right(client.get("/twice/" + std::to_string(i)), i);
      may_go_on = true;
    });
    BOOST_TEST(loop.until([&] { return may_go_on || threads.done(); }));
    BOOST_TEST(right == 20);
    BOOST_TEST(server.complete == 20);
    BOOST_TEST(loop.until([&] { return threads.done(); }));
    BOOST_TEST(slow.status == 200);
    BOOST_TEST((slow.body == std::string(8 * megabyte, 'x')));
    BOOST_TEST(server.complete == 21);
  }
}

// ---- children that die ----

BOOST_AUTO_TEST_CASE(a_child_that_is_killed_is_an_error_of_its_request_alone) {
  for (const bool borrowed : bases) {
    DrivenLoop loop(borrowed);
    Server server(*loop);
    std::atomic<int> right{0};
    std::atomic<int> told{0};
    Clients threads;
    for (unsigned long i = 0; i < 4; ++i)
      threads.add([&, i] {
        Client client(server.port);
        for (unsigned long k = 0; k < 3; ++k) {
          right += is_right(client.get("/twice/" + std::to_string(i)), i);
          const Client::Answer killed = client.get("/kill");
          told += killed.status == 500 && has(killed.body, "SIGKILL");
        }
      });
    BOOST_TEST(loop.until([&] { return threads.done(); }));
    BOOST_TEST(right == 12);
    BOOST_TEST(told == 12);
  }
}

// ---- the end of the server ----

BOOST_AUTO_TEST_CASE(a_signal_lets_the_server_answer_the_requests_under_way) {
  for (const bool borrowed : bases) {
    DrivenLoop loop(borrowed);
    Server server(*loop);
    bool interrupted = false;
    const auto drain = [&] {
      interrupted = true;
      server.drain();
    };
    const par::Interrupts guard = par::interruptible(*loop);
    (*loop).on_exception([&](std::exception_ptr thrown) {
      try {
        std::rethrow_exception(thrown);
      } catch (const par::Interrupted&) {
        drain();
      }
    });
    Client::Answer answer;
    std::atomic<bool> asked{false};
    Clients threads;
    threads.add([&] {
      Client client(server.port);
      client.ask("/large/8");
      client.receive();
      asked = true;
      answer = client.read_answer();
    });
    Client waiting(server.port);
    waiting.ask("/wait");
    BOOST_TEST(loop.until([&] { return asked && server.under_way() == 2; }));
    ::raise(SIGTERM);
    const auto drained = [&] {
      if (interrupted) waiting.close();  // its page would never be made
      return interrupted && threads.done() && server.under_way() == 0;
    };
    try {
      BOOST_TEST(loop.until(drained));
    } catch (const par::Interrupted& signal) {
      BOOST_TEST(!borrowed);
      BOOST_TEST(signal.signal() == SIGTERM);
      drain();
      BOOST_TEST(loop.until(drained));
    }
    BOOST_TEST(interrupted);
    BOOST_TEST(answer.status == 200);
    BOOST_TEST(answer.body.size() == 8 * megabyte);
    BOOST_TEST(!Client(server.port).connected);
  }
}

BOOST_AUTO_TEST_CASE(the_end_of_the_server_closes_its_connections_and_cancels_its_calls) {
  for (const bool borrowed : bases) {
    DrivenLoop loop(borrowed);
    std::optional<Server> server;
    server.emplace(*loop);
    Client idle(server->port);
    Client waiting(server->port);
    Client reading(server->port, 4096);
    waiting.ask("/wait");
    reading.ask("/large/16");
    idle.ask("/twice/1");
    BOOST_TEST(loop.until([&] { return server->requests == 3 && server->pending_calls() == 1; }));
    BOOST_TEST(loop.until([&] { return idle.readable(); }));
    BOOST_TEST(is_right(idle.read_answer(), 1));
    server.reset();
    BOOST_TEST(idle.read_answer().status == 0);
    BOOST_TEST(waiting.read_answer().status == 0);
    BOOST_TEST(reading.read_answer().status == 0);
  }
}
