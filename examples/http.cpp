// http.cpp - an HTTP server by evhttp of libevent, whose pages are made by child processes.
//
// /factors/NUMBER is a page with the prime factors.  A page whose child crashes is a 500 with the
// reason, and a client that disconnects cancels its call.  SIGINT and SIGTERM end the server when
// the requests under way are answered.  With a port (0: any) it serves until then: try
// curl localhost:PORT/factors/99999999999990.  Without one it has clients of its own.
#include <evparallel/evparallel.hpp>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/http.h>

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>

namespace par = evparallel;

// ---- in the children ----

static pid_t stoppable = 0;  // a server that a page may stop

static std::string make_page(const std::string& path) {
  const std::string factors = "/factors/";
  if (path.compare(0, factors.size(), factors) == 0) {
    unsigned long long rest = std::stoull(path.substr(factors.size()));
    std::string text = std::to_string(rest) + ":";
    for (unsigned long long p = 2; rest > 1; ++p) {
      if (p * p > rest) p = rest;
      for (; rest % p == 0; rest /= p) text += ' ' + std::to_string(p);
    }
    return text + '\n';
  }
  if (path == "/crash") std::abort();
  if (path == "/wait")  // for a client that does not
    while (!par::this_call::cancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  if (path == "/stop" && stoppable != 0) {
    ::kill(stoppable, SIGTERM);
    return "it answers, and then it ends\n";
  }
  throw std::invalid_argument("there is no page " + path);
}

// ---- the server ----

class Server {
public:
  Server(par::Reactor& loop, int port)
      : loop_(loop), pages_(par::pool(loop, make_page)), http_(::evhttp_new(loop.base())) {
    listener_ =
        ::evhttp_bind_socket_with_handle(http_.get(), "127.0.0.1", static_cast<ev_uint16_t>(port));
    if (!listener_) throw std::runtime_error("no socket for port " + std::to_string(port));
    ::evhttp_set_gencb(
        http_.get(),
        [](evhttp_request* request, void* self) { static_cast<Server*>(self)->take(request); },
        this);
  }

  int port() const {
    sockaddr_in at{};
    socklen_t size = sizeof at;
    ::getsockname(::evhttp_bound_socket_get_fd(listener_), reinterpret_cast<sockaddr*>(&at), &size);
    return ntohs(at.sin_port);
  }
  int disconnected() const { return disconnected_; }

  // Answers the requests under way, and takes no more connections.
  void drain() {
    draining_ = true;
    ::evhttp_del_accept_socket(http_.get(), listener_);
    // Idle connections would keep run() from returning until they time out.
    if (!exchanges_.empty()) loop_.run();
  }

private:
  // A request that is not answered, or whose answer is not written.
  struct Exchange {
    evhttp_request* request;
    par::Call call{};
    par::Watch hang_up{};
    bool answered = false;
  };

  // libevent calls it, so no exception may leave it.
  void take(evhttp_request* request) noexcept {
    evhttp_connection* const connection = ::evhttp_request_get_connection(request);
    const auto exchange = std::make_shared<Exchange>(Exchange{request});
    exchanges_[connection] = exchange;
    ::evhttp_connection_set_closecb(
        connection,
        [](evhttp_connection* closed, void* self) { static_cast<Server*>(self)->lose(closed); },
        this);
    ::evhttp_request_set_on_complete_cb(
        request,
        [](evhttp_request* done, void* self) {
          static_cast<Server*>(self)->end(::evhttp_request_get_connection(done));
        },
        this);
    // evhttp does not read while a request waits for its answer, and would miss the end of the
    // connection.
    const int fd = ::bufferevent_getfd(::evhttp_connection_get_bufferevent(connection));
    exchange->hang_up = loop_.on_readable(fd, [this, connection, fd] {
      char byte;
      const ssize_t got = ::recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
      if (got > 0)
        exchanges_[connection]->hang_up.cancel();  // the next request, which evhttp reads later
      else if (got == 0 || errno != EAGAIN)
        ::evhttp_connection_free(connection);
    });
    exchange->call = pages_.submit(
        ::evhttp_request_get_uri(request),
        [this, weak = std::weak_ptr<Exchange>(exchange)](const par::Result<std::string>& page) {
          if (const std::shared_ptr<Exchange> living = weak.lock()) answer(*living, page);
        });
  }

  void answer(Exchange& exchange, const par::Result<std::string>& page) {
    exchange.answered = true;
    exchange.hang_up.cancel();  // evhttp notices it itself when it writes
    evkeyvalq* const headers = ::evhttp_request_get_output_headers(exchange.request);
    ::evhttp_add_header(headers, "Content-Type", "text/plain");
    if (draining_) ::evhttp_add_header(headers, "Connection", "close");
    const std::string text = page ? *page : page.error().what() + std::string("\n");
    ::evbuffer_add(::evhttp_request_get_output_buffer(exchange.request), text.data(), text.size());
    const bool refused = !page && page.error().code() == par::Errc::remote_exception;
    ::evhttp_send_reply(exchange.request, page ? 200 : refused ? 404 : 500, nullptr, nullptr);
  }

  void lose(evhttp_connection* connection) {
    const auto found = exchanges_.find(connection);
    if (found == exchanges_.end()) return;  // between two requests
    if (!found->second->answered) ++disconnected_;
    found->second->call.cancel();
    end(connection);
  }
  void end(evhttp_connection* connection) {
    exchanges_.erase(connection);
    if (draining_ && exchanges_.empty()) loop_.stop();
  }

  par::Reactor& loop_;
  par::Pool<std::string(std::string)> pages_;
  std::map<evhttp_connection*, std::shared_ptr<Exchange>> exchanges_;
  bool draining_ = false;
  int disconnected_ = 0;
  struct Deleter {
    void operator()(evhttp* http) const { ::evhttp_free(http); }
  };
  std::unique_ptr<evhttp, Deleter> http_;  // closes its connections before the rest is gone
  evhttp_bound_socket* listener_ = nullptr;
};

// ---- clients, which run in children, too ----

// Returns the status and the text of a page; if it does not wait for that, nothing.
static std::string get(int port, const std::string& path, bool wait) {
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  at.sin_port = htons(static_cast<in_port_t>(port));
  const par::Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&at), sizeof at) != 0)
    throw std::runtime_error("the server does not listen");
  const std::string request = "GET " + path + " HTTP/1.1\r\nConnection: close\r\n\r\n";
  ::send(fd.get(), request.data(), request.size(), MSG_NOSIGNAL);
  std::string all;
  char block[4096];
  for (ssize_t got; wait && (got = ::recv(fd.get(), block, sizeof block, 0)) > 0;)
    all.append(block, static_cast<std::size_t>(got));
  if (all.empty()) return all;
  return all.substr(9, 4) + all.substr(all.find("\r\n\r\n") + 4);
}

// Asks for some pages at once, and for the end of the server after them.
class Trial {
public:
  Trial(par::Reactor& loop, const Server& server)
      : clients_(par::pool(loop, get)), server_(server) {
    for (const char* path : {"/factors/600851475143", "/crash", "/nothing", "/factors/97"})
      ask(path, true);
    ask("/wait", false);
  }
  bool good() const { return pages_ == 6 && right_ == 6 && server_.disconnected() == 1; }

private:
  void ask(const std::string& path, bool wait) {
    clients_.submit(server_.port(), path, wait, [this, path](const par::Result<std::string>& page) {
      const std::string text = page ? *page : page.error().what();
      std::printf("%s: %s", path.c_str(), text.empty() ? "a client has left\n" : text.c_str());
      right_ += text.compare(0, 4,
                             path == "/crash"     ? "500 "
                             : path == "/nothing" ? "404 "
                             : path == "/wait"    ? ""
                                                  : "200 ") == 0;
      if (++pages_ == 5) ask("/stop", true);
    });
  }

  par::Pool<std::string(int, std::string, bool)> clients_;
  const Server& server_;
  int pages_ = 0;
  int right_ = 0;
};

int main(int argc, char** argv) {
  const bool trial = argc == 1;
  if (trial) stoppable = ::getpid();
  par::init();
  par::Reactor loop;
  const par::Interrupts guard = par::interruptible();
  Server server(loop, trial ? 0 : std::atoi(argv[1]));
  std::printf("listening at port %d\n", server.port());
  std::unique_ptr<Trial> clients;
  if (trial) clients = std::make_unique<Trial>(loop, server);
  try {
    loop.run();
  } catch (const par::Interrupted& signal) {
    std::printf("%s\n", signal.what());
    server.drain();
    if (trial) loop.run();  // the last client reads its answer
  }
  return trial && !clients->good() ? 1 : 0;
}
