// expect: nlohmann/json has no number type as wide as long double
#include <evparallel/evparallel.hpp>
#include <map>
#include <optional>
#include <string>
#include <vector>
namespace par = evparallel;

#ifdef EVPARALLEL_TEST_ACCEPTED
using Number = std::map<std::string, std::vector<std::optional<double>>>;
#else
using Number = std::map<std::string, std::vector<std::optional<long double>>>;
#endif

void make(par::Reactor& loop) {
  auto made = par::run<par::CborIo>(loop, [] { return Number(); });
}
