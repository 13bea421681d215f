// prefork.cpp - a TCP server of several processes that accept connections at one socket.
//
// Each line that a client sends is answered with the place and the process id of a child.  SIGHUP
// replaces all children, one by one, and SIGTERM stops the server; no request is lost.  With a port
// (0: any) it serves until SIGTERM: try nc localhost PORT.  Without one it has a client of its own,
// which makes requests while it replaces, kills and stops the children.
#include <evparallel/evparallel.hpp>

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <system_error>

namespace par = evparallel;

static par::Fd listener;  // opened before the snapshot: all children inherit it
static sockaddr_in address{};

static void must(int result, const char* what) {
  if (result < 0) throw std::system_error(errno, std::generic_category(), what);
}

static void listen_at(int port) {
  socklen_t size = sizeof address;
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<in_port_t>(port));
  listener = par::Fd(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  must(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), size), "bind");
  must(::listen(listener.get(), 128), "listen");
  must(::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size), "getsockname");
}

// What each child runs, until SIGTERM.  It serves one connection after the other.
static void serve(unsigned place) {
  const std::string answer =
      "place " + std::to_string(place) + ", process " + std::to_string(::getpid()) + '\n';
  par::Reactor& loop = par::this_reactor();
  par::Watch accepting = loop.on_readable(listener.get(), [&] {
    const par::Fd client(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    char block[1024];  // a failed accept4(): another child was faster
    for (ssize_t got; client && (got = ::recv(client.get(), block, sizeof block, 0)) > 0;)
      for (ssize_t i = 0; i < got; ++i)
        if (block[i] == '\n') ::send(client.get(), answer.data(), answer.size(), MSG_NOSIGNAL);
  });
  par::Watch term = loop.on_signal(SIGTERM, [&] {
    accepting.cancel();
    term.cancel();  // nothing holds run() any more
  });
  loop.run();
}

// A client: one request.  Returns the answer, which is empty if the request was lost.
static std::string ask() {
  const par::Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  must(::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), "connect");
  must(static_cast<int>(::send(fd.get(), "hello\n", 6, MSG_NOSIGNAL)), "send");
  char block[1024];
  const ssize_t got = ::recv(fd.get(), block, sizeof block, 0);
  return std::string(block, got > 0 ? static_cast<std::size_t>(got) : 0);
}

// Makes one request after the other.  When none is under way, it replaces, kills and stops children.
class Trial {
public:
  Trial(par::Reactor& loop, par::Supervisor& children)
      : children_(children), client_(par::run(loop, ask)) {}

  void begin() { request(); }
  void child_started() { ++started_; }
  int answered() const { return answered_; }
  int lost() const { return lost_; }

private:
  void request() {
    client_([this](const par::Result<std::string>& answer) {
      ++(answer && !answer->empty() ? answered_ : lost_);
      if (lost_ > 0) return children_.close();
      take_step();
      if (step_ < 3) request();
    }).set_deadline(std::chrono::seconds(30));
  }

  void take_step() {
    const pid_t first = children_.pids()[0];
    if (step_ == 0 && started_ == 3) {
      ++step_;
      std::raise(SIGHUP);
    } else if (step_ == 1 && started_ == 6 && first > 0) {
      ++step_;
      ::kill(first, SIGKILL);
    } else if (step_ == 2 && started_ == 7) {
      ++step_;
      std::raise(SIGTERM);
    }
  }

  par::Supervisor& children_;
  par::Remote<std::string()> client_;
  int started_ = 0;
  int answered_ = 0;
  int lost_ = 0;
  int step_ = 0;
};

static int run_server(bool with_client) {
  par::Reactor loop;
  par::SuperviseOptions options;
  options.child.name = "serve";              // for ps
  options.grace = std::chrono::seconds(10);  // for the connection that a child still serves
  par::Supervisor children = par::supervise(loop, serve, 3, options);
  par::Watch hangup = loop.on_signal(SIGHUP, [&] { children.restart(); });
  par::Watch term = loop.on_signal(SIGTERM, [&] { children.close(); });

  Trial trial(loop, children);
  bool failed = false;
  children.on_start([&](unsigned place, pid_t pid) {
    std::printf("place %u: process %d runs\n", place, static_cast<int>(pid));
    trial.child_started();
  });
  children.on_exit([](unsigned place, const par::ExitStatus& status) {
    std::printf("place %u: %s\n", place, status.describe().c_str());
  });
  children.on_failed([&](const par::Error& error) {
    std::fprintf(stderr, "prefork: %s\n", error.what());
    failed = true;
  });
  children.on_closed([&] {
    hangup.cancel();
    term.cancel();
  });

  if (with_client) trial.begin();
  loop.run();
  if (with_client) std::printf("requests answered: %d, lost: %d\n", trial.answered(), trial.lost());
  return failed || trial.lost() > 0 ? 1 : 0;
}

int main(int argc, char** argv) {
  try {
    listen_at(argc > 1 ? std::atoi(argv[1]) : 0);
    std::printf("listening at port %d\n", ntohs(address.sin_port));
    par::init();
    return run_server(argc == 1);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "prefork: %s\n", error.what());
    return 1;
  }
}
