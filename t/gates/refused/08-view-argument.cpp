// expect: a pointer, string_view or reference_wrapper means nothing in another process
#include <evparallel/run.hpp>
#include <cstddef>
#include <string>
#include <string_view>
namespace par = evparallel;

#ifdef EVPARALLEL_TEST_ACCEPTED
std::size_t length(const std::string& text) {
  return text.size();
}
#else
std::size_t length(std::string_view text) {
  return text.size();
}
#endif

void measure(par::Reactor& loop) {
  auto remote_length = par::run<par::RawIo, par::RawIo>(loop, length);
}
