// loaded_modules.hpp - the program and its libraries: which are loaded, and where.
// Runs in: parent, child.  Licence: see COPYING.
//
// A task travels as addresses.  A child finds the same there as long as what is loaded there now was
// loaded when its snapshot was taken; this is where the two are compared.  Asked of the loader
// itself (dl_iterate_phdr): dladdr knows nothing in a static program.
#pragma once

#include <evparallel/error.hpp>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace evparallel {

// The program itself, or one library.
struct Module {
  struct Segment {
    std::uintptr_t from;
    std::uintptr_t to;  // behind its last byte
  };
  std::uintptr_t base = 0;  // what the loader has added to the addresses in its file
  std::string path;         // empty: the program
  std::string identity;     // its build id; its program headers where it has none
  std::vector<Segment> segments;
};

// How often the loader has loaded and unloaded something in this process: both only rise.  Empty
// where it does not count.
struct LoaderCounts {
  std::uint64_t loads;
  std::uint64_t unloads;
};

// What was loaded at one moment, in the order of the loader.  Inherited by a fork; shared, since it
// outlives the one who has taken it.
struct Modules {
  std::vector<Module> all;
  std::optional<LoaderCounts> counts;
};
std::shared_ptr<const Modules> modules_now();
// The one that has this address.  nullptr: none.
const Module* module_at(const Modules&, std::uintptr_t address) noexcept;

// Why the function at this address is not the one that a process has there which was forked when
// `then` was loaded: Errc::unknown_function, with the library's path and what to do.  Empty: it is.
// Cheap as long as nothing was loaded or unloaded since.
std::optional<Error> why_unknown(const Modules& then, std::uintptr_t function);

}  // namespace evparallel
