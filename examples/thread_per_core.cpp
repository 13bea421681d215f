// thread_per_core.cpp - a TCP server with one event loop for each CPU, and one snapshot for all.
//
// Each thread has a Reactor and a pool of its own, and a socket of its own at the same port
// (SO_REUSEPORT), so that the kernel divides the connections.  The answer to each line that a client
// sends is computed in a child; a line "crash" ends that child, and costs only its own answer.  With
// a port (0: any) it serves until SIGINT: try nc localhost PORT.  With "for SECONDS" a client of its
// own hammers the server for that time; without an argument for half a second.
#include <evparallel/evparallel.hpp>

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <future>
#include <list>
#include <memory>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

namespace par = evparallel;
using namespace std::chrono_literals;

// ---- what the children do ----

static std::string answer_to(const std::string& line) {
  if (line == "crash") std::abort();
  return std::string(line.rbegin(), line.rend());
}

// ---- the server ----

static void must(int result, const char* what) {
  if (result < 0) throw std::system_error(errno, std::generic_category(), what);
}

// One of several sockets at the same port.
static par::Fd listener_at(sockaddr_in& address) {
  const int on = 1;
  socklen_t size = sizeof address;
  par::Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  must(::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof on), "SO_REUSEPORT");
  must(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), size), "bind");
  must(::listen(fd.get(), 128), "listen");
  must(::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size), "getsockname");
  return fd;
}

// The loop of one thread, and everything that it owns.
class Core {
public:
  // Made in the main thread: nothing here binds the Reactor to it.
  explicit Core(par::Fd listener) : listener_(std::move(listener)) {}

  // Runs in the thread of this core, until stop().
  void run() {
    pool_ = par::pool(loop_, answer_to, options());
    accepting_ = loop_.on_readable(listener_.get(), [this] { accept(); });
    loop_.run();
  }

  // Any thread: clients that are connected are served to their end.
  void stop() {
    loop_.post([this] { accepting_.cancel(); });
  }

private:
  struct Client {
    par::Fd fd;
    par::Watch readable{};
    std::string line{};
  };
  using Position = std::list<Client>::iterator;

  static par::PoolOptions options() {
    par::PoolOptions options;
    options.workers = 1;
    options.min_workers = 1;
    options.child.name = "answer";
    options.child.backtrace = false;
    return options;
  }

  void accept() {
    par::Fd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!fd) return;
    const Position client = clients_.insert(clients_.end(), Client{std::move(fd)});
    client->readable = loop_.on_readable(client->fd.get(), [this, client] { read(client); });
  }

  // One request of a client at a time: it is read on when its answer is sent.
  void read(Position client) {
    char block[1024];
    const ssize_t got = ::recv(client->fd.get(), block, sizeof block, MSG_DONTWAIT);
    if (got <= 0) return static_cast<void>(clients_.erase(client));
    client->line.append(block, static_cast<std::size_t>(got));
    serve(client);
  }

  void serve(Position client) {
    const std::size_t end = client->line.find('\n');
    if (end == std::string::npos) {
      client->readable = loop_.on_readable(client->fd.get(), [this, client] { read(client); });
      return;
    }
    const std::string line = client->line.substr(0, end);
    client->line.erase(0, end + 1);
    client->readable.cancel();
    pool_.submit(line, [this, client](const par::Result<std::string>& answer) {
      const std::string text = (answer ? *answer : "failed: the child crashed") + '\n';
      if (::send(client->fd.get(), text.data(), text.size(), MSG_NOSIGNAL) < 0)
        clients_.erase(client);
      else
        serve(client);
    });
  }

  par::Fd listener_;
  par::Reactor loop_;
  par::Pool<std::string(std::string)> pool_;
  par::Watch accepting_;
  std::list<Client> clients_;
};

// ---- the client ----

struct Count {
  long answered = 0;
  long failed = 0;  // because their child crashed, as was asked
  long lost = 0;    // no answer, or a wrong one
};

static std::string ask(int fd, const std::string& line) {
  if (::send(fd, (line + '\n').data(), line.size() + 1, MSG_NOSIGNAL) < 0) return {};
  std::string answer;
  char block[1024];
  while (answer.empty() || answer.back() != '\n') {
    const ssize_t got = ::recv(fd, block, sizeof block, 0);
    if (got <= 0) return {};
    answer.append(block, static_cast<std::size_t>(got));
  }
  return answer.substr(0, answer.size() - 1);
}

// One request after the other, over a new connection after each hundred.
static Count hammer(sockaddr_in address, std::chrono::milliseconds time, int number) {
  Count count;
  const auto end = std::chrono::steady_clock::now() + time;
  while (std::chrono::steady_clock::now() < end) {
    const par::Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    must(::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), "connect");
    for (int i = 0; i < 100; ++i) {
      const bool crash = number == 0 && i == 50;
      const std::string line =
          crash ? "crash" : "request " + std::to_string(number) + "." + std::to_string(i);
      const std::string answer = ask(fd.get(), line);
      if (crash && answer == "failed: the child crashed")
        ++count.failed;
      else if (answer == std::string(line.rbegin(), line.rend()))
        ++count.answered;
      else
        ++count.lost;
    }
  }
  return count;
}

static Count hammer_from_four_threads(const sockaddr_in& address, std::chrono::milliseconds time) {
  std::vector<std::future<Count>> clients;
  for (int i = 0; i < 4; ++i)
    clients.push_back(std::async(std::launch::async, hammer, address, time, i));
  Count all;
  for (std::future<Count>& client : clients) {
    const Count count = client.get();
    all.answered += count.answered;
    all.failed += count.failed;
    all.lost += count.lost;
  }
  return all;
}

// ---- the program ----

static int serve(int port, std::chrono::milliseconds time) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<in_port_t>(port));

  std::vector<std::unique_ptr<Core>> cores;
  std::vector<std::thread> threads;
  const unsigned cpus = std::clamp(std::thread::hardware_concurrency(), 2U, 64U);
  for (unsigned i = 0; i < cpus; ++i) cores.push_back(std::make_unique<Core>(listener_at(address)));
  for (const auto& core : cores) threads.emplace_back([&core] { core->run(); });
  std::printf("%u loops listen at port %d\n", cpus, ntohs(address.sin_port));

  Count count;
  if (time > 0ms) {
    count = hammer_from_four_threads(address, time);
  } else {
    par::Reactor loop;  // of the main thread: it waits for the signal
    par::Watch interrupt = loop.on_signal(SIGINT, [&] { interrupt.cancel(); });
    loop.run();
  }
  for (const auto& core : cores) core->stop();
  for (std::thread& thread : threads) thread.join();
  if (time == 0ms) return 0;
  std::printf("answered: some, failed with a crashed child: %s, lost: %ld\n",
              count.failed > 0 ? "some" : "none", count.lost);
  std::fprintf(stderr, "%ld answers, %ld crashes\n", count.answered, count.failed);
  return count.lost == 0 && count.answered > 0 && count.failed > 0 ? 0 : 1;
}

int main(int argc, char** argv) {
  try {
    par::init();  // before any thread
    const bool timed = argc > 2 && std::strcmp(argv[1], "for") == 0;
    if (argc == 1) return serve(0, 500ms);
    return timed ? serve(0, std::chrono::seconds(std::atoi(argv[2])))
                 : serve(std::atoi(argv[1]), 0ms);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "thread_per_core: %s\n", error.what());
    return 1;
  }
}
