// loaded_modules.hpp - the program and its libraries: which are loaded, and where.
// Runs in: parent, child.  Licence: see COPYING.
//
// A task is sent as addresses.  They mean the same in a child if the module at each address was
// already loaded when the snapshot was taken; this file compares the two.  It uses the loader
// itself (dl_iterate_phdr), because dladdr knows nothing in a static program.
#pragma once

#include <evparallel/error.hpp>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace evparallel::detail {

// The program itself, or one library.
struct Module {
  struct Segment {
    std::uintptr_t from;
    std::uintptr_t to;  // behind its last byte
  };
  std::uintptr_t base = 0;  // what the loader has added to the addresses in its file
  std::string path;         // empty: the program
  std::string identity;     // its build id, or its program headers if it has none
  std::vector<Segment> segments;
};

// How often the loader has loaded and unloaded something in this process: both only increase.
// Empty if the loader does not count.
struct LoaderCounts {
  std::uint64_t loads;
  std::uint64_t unloads;
};

// The modules at one point in time, in the order of the loader.  Inherited by a fork; shared,
// because it may outlive its first user.
struct Modules {
  std::vector<Module> all;
  std::optional<LoaderCounts> counts;
};
std::shared_ptr<const Modules> modules_now();
// The module that contains this address.  nullptr: none.
const Module* module_at(const Modules&, std::uintptr_t address) noexcept;

// Why the function at this address is not the one that a process has there which was forked when
// `then` was loaded: Errc::unknown_function, with the path of the library and advice.  Empty: it is
// the same.  Cheap if nothing was loaded or unloaded since.
std::optional<Error> why_unknown(const Modules& then, std::uintptr_t function);

}  // namespace evparallel::detail
