// asio_server.cpp - a TCP server of Asio: each connection is a coroutine that has its requests computed in child
// processes.  A request that crashes its child is answered with the reason, and the server goes on.
//
// asio_server [CLIENTS [REQUESTS]] runs the clients, too, and checks the answers.
#include <evparallel/asio.hpp>
#include <evparallel/evparallel.hpp>

#include <asio/awaitable.hpp>
#include <asio/buffer.hpp>
#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/read_until.hpp>
#include <asio/use_awaitable.hpp>
#include <asio/write.hpp>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <sstream>
#include <string>
#include <utility>

namespace par = evparallel;
using asio::ip::tcp;

// Runs in a child.
static std::string factors(std::uint64_t number) {
  if (number == 0) std::abort();  // a bug that nobody has found yet
  std::string found;
  for (std::uint64_t factor = 2; number > 1; ++factor) {
    if (factor * factor > number) factor = number;
    for (; number % factor == 0; number /= factor) found += " " + std::to_string(factor);
  }
  return found;
}

using Factors = par::Pool<std::string(std::uint64_t)>;

// ---- the server: a number in a line, and its factors in another one ----

static asio::awaitable<std::string> answer_to(const std::string& line, Factors& pool) {
  try {
    co_return "factors" + co_await par::async_call(pool, std::stoull(line), asio::use_awaitable);
  } catch (const std::exception& error) {
    co_return std::string("error ") + error.what();
  }
}

static asio::awaitable<std::string> read_line(tcp::socket& socket, std::string& received) {
  const std::size_t size = co_await asio::async_read_until(socket, asio::dynamic_buffer(received),
                                                           '\n', asio::use_awaitable);
  std::string line = received.substr(0, size - 1);
  received.erase(0, size);
  co_return line;
}

static asio::awaitable<void> write_line(tcp::socket& socket, std::string line) {
  line += '\n';
  co_await asio::async_write(socket, asio::buffer(line), asio::use_awaitable);
}

static asio::awaitable<void> serve_client(tcp::socket socket, Factors& pool) {
  try {
    for (std::string received;;) {
      const std::string line = co_await read_line(socket, received);
      co_await write_line(socket, co_await answer_to(line, pool));
    }
  } catch (const asio::system_error&) {
    // The client is gone.
  }
}

static asio::awaitable<void> serve(tcp::acceptor& acceptor, Factors& pool) {
  for (;;) {
    tcp::socket socket = co_await acceptor.async_accept(asio::use_awaitable);
    asio::co_spawn(acceptor.get_executor(), serve_client(std::move(socket), pool), asio::detached);
  }
}

// ---- the clients ----

struct Counts {
  int clients = 0;  // that are connected
  int right = 0;
  int wrong = 0;
  int crashed = 0;
};

static bool are_factors(const std::string& answer, std::uint64_t number) {
  std::istringstream words(answer);
  std::string kind;
  words >> kind;
  std::uint64_t product = 1;
  for (std::uint64_t factor; words >> factor;) product *= factor;
  return kind == "factors" && product == number;
}

// The request in the middle crashes its child.
static asio::awaitable<void> ask(tcp::endpoint server, std::uint64_t first, int requests,
                                 Counts& counts) {
  tcp::socket socket(co_await asio::this_coro::executor);
  co_await socket.async_connect(server, asio::use_awaitable);
  std::string received;
  for (int i = 0; i < requests; ++i) {
    const bool crash = i == requests / 2;
    const std::uint64_t number = crash ? 0 : first + static_cast<std::uint64_t>(i);
    co_await write_line(socket, std::to_string(number));
    const std::string answer = co_await read_line(socket, received);
    if (crash && answer.find("SIGABRT") != std::string::npos) {
      if (++counts.crashed == 1) std::printf("0: %s\n", answer.c_str());
    } else if (!crash && are_factors(answer, number)) {
      if (++counts.right == 1)
        std::printf("%llu: %s\n", static_cast<unsigned long long>(number), answer.c_str());
    } else {
      ++counts.wrong;
    }
  }
}

int main(int argc, char** argv) {
  par::init();
  const int clients = argc > 1 ? std::atoi(argv[1]) : 10;
  const int requests = argc > 2 ? std::atoi(argv[2]) : 100;

  asio::io_context context;
  auto loop = par::asio_reactor(context.get_executor());
  Factors pool = par::pool(*loop, factors);
  tcp::acceptor acceptor(context, tcp::endpoint(asio::ip::address_v4::loopback(), 0));
  asio::co_spawn(context, serve(acceptor, pool), asio::detached);

  Counts counts;
  const auto leave = [&](std::exception_ptr failure) {
    if (failure) ++counts.wrong;
    if (--counts.clients == 0) context.stop();
  };
  for (int i = 0; i < clients; ++i) {
    ++counts.clients;
    const std::uint64_t first = 1000000007ull * 97 + static_cast<std::uint64_t>(i) * 1000;
    asio::co_spawn(context, ask(acceptor.local_endpoint(), first, requests, counts), leave);
  }
  context.run();
  std::printf("%d clients: %d right answers, %d crashes reported, %d wrong answers\n", clients,
              counts.right, counts.crashed, counts.wrong);
  return counts.wrong == 0 && counts.right + counts.crashed == clients * requests ? 0 : 1;
}
