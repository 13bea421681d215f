// expect: RawIo takes trivially copyable values, std::string, and std::vector, std::array, std::pair and std::tuple of such values; use PackedIo or JsonIo, or write a codec
#include <evparallel/evparallel.hpp>
#include <map>
#include <string>
namespace par = evparallel;

void count(par::Reactor& loop) {
  auto task = [](const std::string& text) { return std::map<std::string, int>{{text, 1}}; };
#ifdef EVPARALLEL_TEST_ACCEPTED
  auto counts = par::run<par::JsonIo, par::RawIo>(loop, task);
#else
  auto counts = par::run<par::RawIo, par::RawIo>(loop, task);
#endif
}
