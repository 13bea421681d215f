// modules.cpp - loaded modules, and whether a function is still at its address.
#include "private_names.hpp"
#include "testing.hpp"

#include "backtrace/loaded_modules.hpp"

#include <dlfcn.h>
#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <set>
#include <stdexcept>

using namespace evparallel;

namespace {

void here() {}

template <class F>
std::uintptr_t address(F* function) {
  return reinterpret_cast<std::uintptr_t>(function);
}

const Module* module_with(const Modules& modules, std::uintptr_t at) {
  for (const Module& module : modules.all)
    for (const Module::Segment& segment : module.segments)
      if (at >= segment.from && at < segment.to) return &module;
  return nullptr;
}

// A library that the tests load.
struct Loaded {
  explicit Loaded(const std::string& name) {
    path = testing::library_path(name);
    handle = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) throw std::runtime_error(::dlerror());
    function = reinterpret_cast<std::uintptr_t>(::dlsym(handle, "twin"));
  }
  Loaded(const Loaded&) = delete;
  Loaded& operator=(const Loaded&) = delete;
  ~Loaded() { ::dlclose(handle); }

  std::string path;
  void* handle;
  std::uintptr_t function;
};

// The modules that are loaded now, except that one: the state before it was loaded.
Modules without(const Module* gone) {
  Modules modules = *modules_now();
  const auto is_gone = [&](const Module& module) { return module.base == gone->base; };
  modules.all.erase(std::remove_if(modules.all.begin(), modules.all.end(), is_gone),
                    modules.all.end());
  return modules;
}

// The list that would exist if another module had been loaded since.
Modules outdated(Modules modules) {
  if (modules.counts) --modules.counts->loads;
  return modules;
}

std::string text_of(const std::optional<Error>& error) {
  if (!error) return "known";
  BOOST_TEST((error->code() == Errc::unknown_function));
  BOOST_TEST((error->delivery() == Delivery::not_sent));
  return error->what();
}

bool says(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

BOOST_AUTO_TEST_CASE(the_program_and_its_libraries_are_listed) {
  const auto now = modules_now();
  const Module* program = module_with(*now, address(&here));
  BOOST_REQUIRE(program != nullptr);
  BOOST_TEST(program->path == "");
  const Module* c_library = module_with(*now, address(&::getenv));
  BOOST_REQUIRE(c_library != nullptr);
  std::set<std::uintptr_t> starts;
  for (const Module& module : now->all) {
    BOOST_TEST(!module.identity.empty());
    BOOST_REQUIRE(!module.segments.empty());
    for (const Module::Segment& segment : module.segments) {
      BOOST_TEST(segment.from < segment.to);
      BOOST_TEST(starts.insert(segment.from).second);
    }
  }
}

BOOST_AUTO_TEST_CASE(the_identity_is_the_build_id) {
  const Loaded library("with_id.so");
  const auto now = modules_now();
  const Module* module = module_with(*now, library.function);
  BOOST_REQUIRE(module != nullptr);
  BOOST_TEST(module->path == library.path);
  BOOST_TEST(module->identity == "\x5e\xed\x5e\xed\x5e\xed");
}

BOOST_AUTO_TEST_CASE(the_identity_without_a_build_id_is_the_program_headers) {
  const Loaded library("without_id.so");
  const auto now = modules_now();
  const Module* module = module_with(*now, library.function);
  BOOST_REQUIRE(module != nullptr);
  BOOST_TEST(module->identity.size() > sizeof(ElfW(Phdr)));
  BOOST_TEST(module->identity.size() % sizeof(ElfW(Phdr)) == 0U);
}

BOOST_AUTO_TEST_CASE(functions_of_loaded_modules_are_known) {
  const auto now = modules_now();
  BOOST_TEST(text_of(why_unknown(*now, address(&here))) == "known");
  BOOST_TEST(text_of(why_unknown(*now, address(&::getenv))) == "known");
  BOOST_TEST(text_of(why_unknown(*now, address(&modules_now))) == "known");
  Modules uncounted = *now;
  uncounted.counts.reset();
  BOOST_TEST(text_of(why_unknown(uncounted, address(&here))) == "known");
  BOOST_TEST(text_of(why_unknown(outdated(*now), address(&here))) == "known");
}

BOOST_AUTO_TEST_CASE(modules_are_scanned_only_if_the_loader_counts_a_change) {
  Modules then = *modules_now();
  BOOST_REQUIRE(then.counts.has_value());
  {
    const Loaded library("with_id.so");
    const auto now = modules_now();
    BOOST_TEST(now->counts->loads == then.counts->loads + 1);
    BOOST_TEST(now->counts->unloads == then.counts->unloads);
  }
  BOOST_TEST(modules_now()->counts->unloads == then.counts->unloads + 1);
  // With equal counts the list must be right, so it is not compared.
  then = *modules_now();
  for (Module& module : then.all) module.identity = "another";
  BOOST_TEST(text_of(why_unknown(then, address(&here))) == "known");
  BOOST_TEST(text_of(why_unknown(outdated(then), address(&here))) != "known");
}

BOOST_AUTO_TEST_CASE(a_library_that_was_loaded_later_is_named) {
  const auto then = modules_now();
  const Loaded library("with_id.so");
  const std::string text = text_of(why_unknown(*then, library.function));
  BOOST_TEST(says(text, "it is in " + library.path + ","));
  BOOST_TEST(says(text, "loaded after the snapshot"));
  BOOST_TEST(says(text, "load it before"));
  BOOST_TEST(text_of(why_unknown(*then, address(&here))) == "known");
  BOOST_TEST(text_of(why_unknown(*modules_now(), library.function)) == "known");
}

BOOST_AUTO_TEST_CASE(a_library_that_was_unloaded_later_is_named) {
  std::optional<Loaded> library(std::in_place, "with_id.so");
  const auto then = modules_now();
  const std::uintptr_t function = library->function;
  const std::string path = library->path;
  library.reset();
  const std::string text = text_of(why_unknown(*then, function));
  BOOST_TEST(says(text, "it was in " + path));
  BOOST_TEST(says(text, "unloaded after the snapshot"));
}

BOOST_AUTO_TEST_CASE(another_library_at_the_same_address_is_recognised) {
  const Loaded library("with_id.so");
  const Modules now = *modules_now();
  const auto is_it = [&](const Module& module) { return module.path == library.path; };
  const auto changed = [&](auto change) {
    Modules then = now;
    change(*std::find_if(then.all.begin(), then.all.end(), is_it));
    return text_of(why_unknown(outdated(then), library.function));
  };
  BOOST_TEST(changed([](Module&) {}) == "known");
  const std::string text = changed([](Module& module) { module.path = "/before.so"; });
  BOOST_TEST(says(text, "it is in " + library.path + ","));
  BOOST_TEST(says(text, "the snapshot has /before.so at that address"));
  BOOST_TEST(changed([](Module& module) { module.identity += "x"; }) != "known");
  BOOST_TEST(changed([](Module& module) { module.identity.clear(); }) != "known");
  BOOST_TEST(changed([](Module& module) { module.base += 4096; }) != "known");
}

BOOST_AUTO_TEST_CASE(an_address_outside_of_all_libraries_is_unknown) {
  const auto now = modules_now();
  BOOST_TEST(says(text_of(why_unknown(*now, 0)), "null"));
  int on_the_stack = 0;
  BOOST_TEST(says(text_of(why_unknown(*now, address(&on_the_stack))), "in no loaded library"));
  void* page = ::mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  BOOST_REQUIRE(page != MAP_FAILED);
  const auto made = reinterpret_cast<std::uintptr_t>(page);
  BOOST_TEST(says(text_of(why_unknown(*now, made)), "in no loaded library"));
  BOOST_TEST(says(text_of(why_unknown(outdated(*now), made)), "in no loaded library"));
  ::munmap(page, 4096);
  const Module* program = module_with(*now, address(&here));
  BOOST_TEST(says(text_of(why_unknown(without(program), address(&here))), "it is in the program"));
}

BOOST_AUTO_TEST_CASE(the_edges_of_a_segment_are_exact) {
  const Loaded library("with_id.so");
  const auto now = modules_now();
  const Module* module = module_with(*now, library.function);
  BOOST_REQUIRE(module != nullptr);
  const Modules then = outdated(without(module));
  for (const Module::Segment& segment : module->segments) {
    BOOST_TEST(says(text_of(why_unknown(then, segment.from)), library.path));
    BOOST_TEST(says(text_of(why_unknown(then, segment.to - 1)), library.path));
    BOOST_TEST(text_of(why_unknown(*now, segment.from)) == "known");
    BOOST_TEST(text_of(why_unknown(*now, segment.to - 1)) == "known");
  }
}
