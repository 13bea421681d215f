// captures.cpp - step 3: captures of a lambda, and bind().
#include <evparallel/evparallel.hpp>

#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

namespace par = evparallel;

struct Scale {
  double factor = 1;
  double offset = 0;
};

// An object in static storage: each child has it as it was when the snapshot was taken.
static std::vector<std::string> units = {"m", "kg"};

static std::string label(const std::string& prefix, const std::vector<std::string>& names,
                         int index) {
  return prefix + names.at(static_cast<std::size_t>(index));
}

int main() {
  par::init();
  units.emplace_back("s");  // too late for the children
  par::Reactor loop;

  // Numbers, enumerators and structs of them travel as their bytes.
  const Scale scale{2.5, 1};
  auto convert = par::run(loop, [scale](double x) { return scale.factor * x + scale.offset; });
  convert(4, [](par::Result<double> y) { std::printf("converted: %.1f\n", y.value()); });

  // Strings, vectors and other owners of memory travel by bind(), through their codecs.  bind()
  // fixes the first parameters, and the last one stays for the call.
  const std::vector<std::string> names = {"length", "mass", "time"};
  auto name_of = par::run(loop, par::bind(label, "SI ", names));
  for (int i = 1; i <= 2; ++i)
    name_of(i, [](par::Result<std::string> s) { std::printf("label: %s\n", s.value().c_str()); });

  // A child keeps the state of its task from one call to the next; the parent does not see it.
  auto count = par::run(loop, [calls = 0]() mutable { return ++calls; });
  for (int i = 0; i < 2; ++i)
    count([](par::Result<int> n) { std::printf("call number %d\n", n.value()); });

  // A state that cannot travel is made in the child.
  auto longest = par::run(loop, par::with_state([] { return std::string(); },
                                                [](std::string& best, const std::string& word) {
                                                  if (word.size() > best.size()) best = word;
                                                  return best;
                                                }));
  for (const char* word : {"a", "metre", "km"})
    longest(word,
            [](par::Result<std::string> s) { std::printf("longest: %s\n", s.value().c_str()); });

  auto known = par::run(loop, [] { return units.size(); });
  known([](par::Result<std::size_t> n) {
    std::printf("units: %zu in the child, %zu in the parent\n", n.value(), units.size());
  });
  loop.run();

  // A reference to a local variable is refused, since the child has no such variable.
  double local = 1;
  try {
    auto wrong = par::run(loop, [&local](double x) { return local * x; });
  } catch (const std::logic_error& error) {
    std::printf("refused: %s\n", error.what());
  }
}
