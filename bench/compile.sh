#!/bin/sh
# The time to compile a program that uses the library, at -O2, compared with one that uses nlohmann/json directly, and
# with that header alone.  CXX and compile_flags come from the makefile.
set -eu
export CCACHE_DISABLE=1 # where the compiler is a cache
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

cat >"$tmp/hello.cpp" <<'CPP'
#include <evparallel/evparallel.hpp>
#include <cstdio>
#include <string>
namespace par = evparallel;

int main() {
  par::init();
  par::Reactor loop;
  auto puts = par::run(loop, [](const std::string& s) { return std::puts(s.c_str()); });
  puts("hello", [](par::Result<int> r) { r.value(); });
  loop.run();
}
CPP
cat >"$tmp/by_hand.cpp" <<'CPP'
#include <nlohmann/json.hpp>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cstdio>
#include <functional>
#include <string>

int main() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) return 1;
  if (fork() == 0) {
    char bytes[1000];
    const ssize_t size = read(ends[1], bytes, sizeof bytes);
    const auto s = nlohmann::json::parse(bytes, bytes + size).get<std::string>();
    const std::string answer = nlohmann::json(std::puts(s.c_str())).dump();
    std::fflush(stdout);
    _exit(write(ends[1], answer.data(), answer.size()) < 0);
  }
  const std::string message = nlohmann::json("hello").dump();
  if (write(ends[0], message.data(), message.size()) < 0) return 1;
  char bytes[1000];
  const ssize_t size = read(ends[0], bytes, sizeof bytes);
  std::function<void(int)> callback = [](int) {};
  callback(nlohmann::json::parse(bytes, bytes + size).get<int>());
  wait(nullptr);
}
CPP
cat >"$tmp/raw.cpp" <<'CPP'
#include <evparallel/run.hpp>
#include <evparallel/reactor.hpp>
namespace par = evparallel;

int main() {
  par::init();
  par::Reactor loop;
  auto twice = par::run<par::RawIo, par::RawIo>(loop, [](int x) { return 2 * x; });
  twice(21, [](par::Result<int> r) { r.value(); });
  loop.run();
}
CPP
cat >"$tmp/json.cpp" <<'CPP'
#include <nlohmann/json.hpp>
CPP

# Milliseconds.
time_of() {
	start=$(date +%s%N)
	$CXX $compile_flags -O2 -c "$tmp/$1.cpp" -o "$tmp/$1.o"
	end=$(date +%s%N)
	echo $(((end - start) / 1000000))
}

# compare QUESTION OURS OTHER BAR: the median of the ratios of five turns, after one turn to warm up.
compare() {
	time_of "$2" >/dev/null; time_of "$3" >/dev/null
	for turn in 1 2 3 4 5; do echo "$(time_of "$2") $(time_of "$3")"; done |
		awk '{ print $1 / $2, $1, $2 }' | sort -n | sed -n 3p |
		awk -v question="$1" -v other="$3" -v bar="$4" '{
			printf "row\t%s\t-\t%d ms\t%s %d ms\t%.3g\t<= %s\t%s\n", question, $2, other, $3, $1, bar, ($1 <= bar ? "yes" : "NO") }'
}

compare 'compile hello, -O2' hello by_hand 1.15
compare 'compile a program of RawIo alone, -O2' raw json 0.6
