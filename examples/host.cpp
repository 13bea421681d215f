// host.cpp - a host of plugins: each function runs in a child of its own, which may crash or hang.
//
// host [LIBRARY:FUNCTION...] calls functions of the type double(double) of shared libraries.
#include <evparallel/evparallel.hpp>

#include <dlfcn.h>

#include <chrono>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

namespace par = evparallel;

using Function = double (*)(double);

// Runs in the child: the library is never loaded into the host.
static Function load(const std::string& name) {
  const std::size_t colon = name.find(':');
  if (colon == std::string::npos) throw std::invalid_argument("not LIBRARY:FUNCTION");
  void* const library = ::dlopen(name.substr(0, colon).c_str(), RTLD_NOW);
  if (!library) throw std::runtime_error(::dlerror());
  void* const function = ::dlsym(library, name.c_str() + colon + 1);
  if (!function) throw std::runtime_error(::dlerror());
  return reinterpret_cast<Function>(function);
}

static double call(const Function& function, double x) {
  return function(x);
}

int main(int argc, char** argv) {
  par::init();
  par::Reactor loop;
  std::vector<std::string> names(argv + 1, argv + argc);
  if (names.empty())
    names = {"libm.so.6:cos", "libm.so.6:no", "libc.so.6:abort", "libc.so.6:pause"};

  par::Options options;
  options.deadline = std::chrono::seconds(2);  // of each call
  options.grace = std::chrono::milliseconds(100);
  options.limits.memory = std::size_t{1} << 30;
  std::vector<par::Remote<double(double)>> plugins;
  for (const std::string& name : names) {
    plugins.push_back(par::run(loop, par::with_state(par::bind(load, name), call), options));
    plugins.back()(1, [name](par::Result<double> y) {
      std::printf("%s: %s\n", name.c_str(), y ? std::to_string(*y).c_str() : y.error().what());
    });
  }
  loop.run();
}
