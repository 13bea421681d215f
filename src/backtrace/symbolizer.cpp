// symbolizer.cpp - names for addresses, from the loader's tables and from debug information.
// Runs in: parent, child.  Licence: see COPYING.
#include "backtrace/symbolizer.hpp"

#include "base/names.hpp"
#include "system/new_descriptor.hpp"

#include <dlfcn.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <string_view>
#include <utility>

#ifdef EVPARALLEL_LIBBACKTRACE
#include <backtrace.h>
#endif

namespace evparallel::detail {

namespace {

// A C name may look like a mangled type: "i".
std::string as_written(const char* symbol) {
  return std::strncmp(symbol, "_Z", 2) == 0 ? demangled(symbol) : std::string(symbol);
}

// ---- the functions at one address ----

// The functions at an address, the innermost first: the inlined ones, and the one that contains
// them.
class Lookup {
public:
  explicit Lookup(std::uintptr_t address) : address_(address) {}
  // `at` is in an instruction; it may be the byte before the address.
  std::vector<StackFrame> functions(std::uintptr_t at);

private:
  StackFrame& add();
  void look_in_debug_information(std::uintptr_t at);
  void look_in_symbols(std::uintptr_t at);
  void look_in_exports(std::uintptr_t at);
  void name(const char* symbol, std::uintptr_t start);

  std::uintptr_t address_;
  bool named_ = false;
  std::vector<StackFrame> found_;
};

std::vector<StackFrame> Lookup::functions(std::uintptr_t at) {
  look_in_debug_information(at);
  if (found_.empty()) add();
  for (std::size_t i = 0; i + 1 < found_.size(); ++i) found_[i].inlined = true;
  look_in_symbols(at);
  if (!named_) look_in_exports(at);
  return std::move(found_);
}

StackFrame& Lookup::add() {
  found_.emplace_back();
  found_.back().address = reinterpret_cast<const void*>(address_);
  return found_.back();
}

void Lookup::name(const char* symbol, std::uintptr_t start) {
  found_.back().function = as_written(symbol);
  found_.back().offset = address_ - start;
  named_ = true;
}

void Lookup::look_in_exports(std::uintptr_t at) {
  Dl_info info{};
  if (::dladdr(reinterpret_cast<const void*>(at), &info) != 0 && info.dli_sname)
    name(info.dli_sname, reinterpret_cast<std::uintptr_t>(info.dli_saddr));
}

#ifdef EVPARALLEL_LIBBACKTRACE

void ignore_error(void*, const char*, int) {}

// Made once and never freed, because libbacktrace has no function for that.  It knows the modules
// that were loaded at its first use.
backtrace_state* state() {
  static backtrace_state* const all = ::backtrace_create_state(nullptr, 1, ignore_error, nullptr);
  return all;
}

void Lookup::look_in_debug_information(std::uintptr_t at) {
  if (state() == nullptr) return;
  ::backtrace_pcinfo(
      state(), at,
      [](void* self, std::uintptr_t, const char* file, int line, const char* function) {
        if (!file && !function) return 0;
        StackFrame& frame = static_cast<Lookup*>(self)->add();
        if (function) frame.function = as_written(function);
        if (file) frame.file = file;
        frame.line = line;
        return 0;
      },
      ignore_error, this);
}

void Lookup::look_in_symbols(std::uintptr_t at) {
  if (state() == nullptr) return;
  ::backtrace_syminfo(
      state(), at,
      [](void* self, std::uintptr_t, const char* symbol, std::uintptr_t start, std::uintptr_t) {
        if (symbol) static_cast<Lookup*>(self)->name(symbol, start);
      },
      ignore_error, this);
}

#else

void Lookup::look_in_debug_information(std::uintptr_t) {}
void Lookup::look_in_symbols(std::uintptr_t) {}

#endif

// ---- the module ----

std::string path_of_program() {
  char path[4096];
  const ssize_t size = ::readlink("/proc/self/exe", path, sizeof path);
  return size > 0 ? std::string(path, static_cast<std::size_t>(size)) : std::string();
}

std::string path_of(const Module& module) {
  return module.path.empty() ? path_of_program() : module.path;
}

}  // namespace

std::vector<StackFrame> symbolised(const Modules& then,
                                   const std::vector<std::uintptr_t>& addresses, First first) {
  const HeldNumbers held;  // libbacktrace opens files
  std::vector<StackFrame> frames;
  for (std::size_t i = 0; i < addresses.size(); ++i) {
    // A return address may be on another line or, after a call that never returns, in another
    // function.
    const bool exact = i == 0 && first == First::instruction;
    const std::uintptr_t at = exact ? addresses[i] : addresses[i] - 1;
    if (why_unknown(then, at)) {
      frames.emplace_back();
      frames.back().address = reinterpret_cast<const void*>(addresses[i]);
      continue;
    }
    const Module& module = *module_at(then, at);
    const std::string path = path_of(module);
    for (StackFrame& frame : Lookup(addresses[i]).functions(at)) {
      frame.module = path;
      if (frame.function.empty()) frame.offset = addresses[i] - module.base;
      frames.push_back(std::move(frame));
    }
  }
  return frames;
}

namespace {

// A sanitizer may come before __cxa_throw, and is not part of the program's stack.
bool is_throw_itself(const StackFrame& frame) {
  const std::string_view name = frame.function;
  const std::string_view ending = "__cxa_throw";
  return name.size() >= ending.size() && name.substr(name.size() - ending.size()) == ending;
}

}  // namespace

std::vector<StackFrame> symbolised(const Modules& then, const std::vector<StackFrame>& bare) {
  std::vector<std::uintptr_t> addresses;
  for (const StackFrame& frame : bare)
    if (!frame.inlined) addresses.push_back(reinterpret_cast<std::uintptr_t>(frame.address));
  std::vector<StackFrame> frames = symbolised(then, addresses, First::return_address);
  while (!frames.empty() && is_throw_itself(frames.front())) frames.erase(frames.begin());
  return frames;
}

Error symbolised(const Modules& then, const Error& error) {
  if (error.backtrace().empty()) return error;
  return error.with_backtrace(symbolised(then, error.backtrace()));
}

}  // namespace evparallel::detail
