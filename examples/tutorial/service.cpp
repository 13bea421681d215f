// service.cpp - step 7: a service with a pool, limits, and a clean shutdown.
//
// It listens on a Unix socket.  Each line that a client sends is a number, and the answer is a line
// with its prime factors.  SIGTERM and SIGINT stop it: it accepts no more requests and answers the
// pending ones.  Without an argument it has a client of its own, which stops it.  With the path of
// a socket it serves until it gets a signal: socat - UNIX-CONNECT:PATH is a client.
#include <evparallel/evparallel.hpp>

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

namespace par = evparallel;
using namespace std::chrono_literals;

// ---- in the children ----------------------------------------------------------------------------

static std::string factors_of(std::uint64_t n) {
  if (n < 2) throw std::domain_error("a number above 1 is needed");
  if (n == 4711) std::abort();  // stands for a fault of the function
  std::string text;
  for (std::uint64_t p = 2; n > 1; ++p) {
    if (p * p > n) p = n;
    for (; n % p == 0; n /= p) text += (text.empty() ? "" : " * ") + std::to_string(p);
  }
  return text;
}

// ---- sockets ------------------------------------------------------------------------------------

[[noreturn]] static void fail(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

static par::Fd unix_socket(const std::string& path, sockaddr_un& address) {
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) throw std::invalid_argument("the path is too long");
  path.copy(address.sun_path, path.size());
  par::Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) fail("socket");
  return fd;
}

static par::Fd listen_at(const std::string& path) {
  sockaddr_un address{};
  par::Fd fd = unix_socket(path, address);
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    fail("bind");
  if (::listen(fd.get(), 16) != 0) fail("listen");
  return fd;
}

// ---- the service --------------------------------------------------------------------------------

using Pool = par::Pool<std::string(std::uint64_t)>;

// One client.  The callbacks of its requests hold it.
class Connection : public std::enable_shared_from_this<Connection> {
public:
  Connection(par::Reactor& loop, par::Fd fd, Pool& pool)
      : loop_(loop), fd_(std::move(fd)), pool_(pool) {}

  void start() {
    readable_ = loop_.on_readable(fd_.get(), [self = shared_from_this()] { self->read(); });
  }
  // Ends reading.  The socket is closed after the last answer.
  void stop_reading() { readable_.cancel(); }

private:
  void read() {
    char block[4096];
    const ssize_t got = ::recv(fd_.get(), block, sizeof block, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) return stop_reading();
    in_.append(block, static_cast<std::size_t>(got));
    for (std::size_t end; (end = in_.find('\n')) != in_.npos; in_.erase(0, end + 1))
      request(in_.substr(0, end));
    if (in_.size() > 100) stop_reading();  // too long for a number
  }

  void request(const std::string& line) {
    const std::uint64_t n = std::strtoull(line.c_str(), nullptr, 10);
    pool_.submit(n, [self = shared_from_this(), line](const par::Result<std::string>& answer) {
      self->write(line + ": " + (answer ? *answer : answer.error().what()) + '\n');
    });
  }

  void write(const std::string& line) {
    out_ += line;
    flush();
  }
  void flush() {
    const ssize_t put = ::send(fd_.get(), out_.data(), out_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (put < 0 && errno != EAGAIN && errno != EINTR) out_.clear();  // the client is gone
    if (put > 0) out_.erase(0, static_cast<std::size_t>(put));
    if (out_.empty())
      writable_.cancel();
    else if (!writable_.active())
      writable_ = loop_.on_writable(fd_.get(), [self = shared_from_this()] { self->flush(); });
  }

  par::Reactor& loop_;
  par::Fd fd_;
  Pool& pool_;
  std::string in_{};
  std::string out_{};
  par::Watch readable_{};
  par::Watch writable_{};
};

class Service {
public:
  Service(par::Reactor& loop, const std::string& path) : loop_(loop), listener_(listen_at(path)) {
    par::PoolOptions options;
    options.workers = 2;
    options.max_queue = 1000;        // beyond it a request is refused: overloaded
    options.max_calls = 10000;       // then a child is replaced
    options.child.deadline = 2s;     // of each request
    options.child.name = "factors";  // for ps
    pool_ = par::pool(loop, factors_of, options);

    accepting_ = loop.on_readable(listener_.get(), [this] { accept(); });
    for (const int signum : {SIGTERM, SIGINT})
      signals_[signum] = loop.on_signal(signum, [this] { stop(); });
  }

  // Drops everything that waits for new work.  Then only the requests under way hold the loop, each
  // at most until its deadline, and the answers that the clients have not read.
  void stop() {
    std::printf("service: stopping, requests are under way: %s\n",
                pool_.pending() > 0 ? "yes" : "no");
    accepting_.cancel();
    listener_.reset();
    signals_.clear();  // a second signal ends the program at once
    for (const auto& [number, connection] : connections_)
      if (const auto living = connection.lock()) living->stop_reading();
    pool_.close();
  }

  par::PoolStats stats() const { return pool_.stats(); }

private:
  void accept() {
    par::Fd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!fd) return;  // the client is gone, or there are no descriptors
    const int number = fd.get();
    auto connection = std::make_shared<Connection>(loop_, std::move(fd), pool_);
    connection->start();
    connections_[number] = connection;  // replaces a closed one with the same descriptor
  }

  par::Reactor& loop_;
  par::Fd listener_;
  Pool pool_{};
  std::map<int, std::weak_ptr<Connection>> connections_{};
  par::Watch accepting_{};
  std::map<int, par::Watch> signals_{};
};

// ---- a client, in a child of its own ------------------------------------------------------------

// Sends all numbers at once, stops the service after the first answer, and reads until the service
// closes the connection.
static std::string ask(const std::string& path, pid_t service) {
  sockaddr_un address{};
  const par::Fd fd = unix_socket(path, address);
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    fail("connect");
  std::string requests = "4711\n1\n";
  for (std::uint64_t n = 100000000000000; n < 100000000000020; ++n)
    requests += std::to_string(n) + '\n';
  if (::send(fd.get(), requests.data(), requests.size(), MSG_NOSIGNAL) < 0) fail("send");
  std::string answers;
  char block[4096];
  for (ssize_t got; (got = ::read(fd.get(), block, sizeof block)) > 0;) {
    if (answers.empty()) ::kill(service, SIGTERM);
    answers.append(block, static_cast<std::size_t>(got));
  }
  return answers;
}

static void serve(const std::string& path, bool with_client) {
  par::Reactor loop;
  Service service(loop, path);
  std::printf("service: listening\n");

  par::Remote<std::string()> client;
  if (with_client) {
    client = par::run(loop, par::bind(ask, path, ::getpid()));
    client([](par::Result<std::string> answers) {
      std::printf("%s", answers ? answers->c_str() : answers.error().what());
    });
  }
  loop.run();

  const par::PoolStats stats = service.stats();
  std::printf("service: %llu requests answered, %llu failed\n",
              static_cast<unsigned long long>(stats.done),
              static_cast<unsigned long long>(stats.failed));
}

int main(int argc, char** argv) {
  par::init();  // before the sockets: a child would inherit them and keep them open
  try {
    if (argc > 1) {
      serve(argv[1], false);
      ::unlink(argv[1]);
    } else {
      char folder[] = "/tmp/evparallel-service-XXXXXX";
      if (!::mkdtemp(folder)) fail("mkdtemp");
      const std::string path = folder + std::string("/socket");
      serve(path, true);
      ::unlink(path.c_str());
      ::rmdir(folder);
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "service: %s\n", error.what());
    return 1;
  }
}
