// library.hpp - the interface of t/lib/early and t/lib/late: the same library, loaded before and after a snapshot.
#pragma once

#include <evparallel/process.hpp>
#include <evparallel/run.hpp>

namespace testing {

struct Library {
  int (*twice)(int);
  int (*product)(int, int);
  std::size_t (*size)(const std::string&);
  void (*echo)(evparallel::Pipe<int, int>);
  // With a lambda of its own: the entry belongs to the library, too.
  evparallel::Remote<int(int)> (*run_thrice)(evparallel::Reactor&);
  evparallel::Process<int, int> (*process_echo)(evparallel::Reactor&);
};

}  // namespace testing

// The only name that both export.
extern "C" [[gnu::visibility("default")]] const testing::Library* library();
