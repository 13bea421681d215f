// loaded_modules.cpp - reads the loader's list of modules, and compares it with an earlier one.
// Runs in: parent, child.  Licence: see COPYING.
#include "backtrace/loaded_modules.hpp"

#include <elf.h>
#include <link.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string_view>

namespace evparallel::detail {

namespace {

// ---- one module ----

std::uintptr_t start_of(const dl_phdr_info& info, const ElfW(Phdr) & header) noexcept {
  return info.dlpi_addr + header.p_vaddr;
}

bool has_address(const dl_phdr_info& info, std::uintptr_t address) noexcept {
  for (ElfW(Half) i = 0; i < info.dlpi_phnum; ++i) {
    const ElfW(Phdr)& header = info.dlpi_phdr[i];
    if (header.p_type == PT_LOAD && address - start_of(info, header) < header.p_memsz) return true;
  }
  return false;
}

// Whether these notes are in memory: the headers of some files are wrong about that.
bool is_readable(const dl_phdr_info& info, const ElfW(Phdr) & notes) noexcept {
  for (ElfW(Half) i = 0; i < info.dlpi_phnum; ++i) {
    const ElfW(Phdr)& header = info.dlpi_phdr[i];
    const ElfW(Addr) offset = notes.p_vaddr - header.p_vaddr;
    if (header.p_type == PT_LOAD && (header.p_flags & PF_R) && offset <= header.p_filesz &&
        notes.p_memsz <= header.p_filesz - offset)
      return true;
  }
  return false;
}

std::size_t rounded(std::size_t size, std::size_t alignment) noexcept {
  return (size + alignment - 1) / alignment * alignment;
}

// Empty: the build id is not among these notes.
std::string_view build_id_in(std::string_view notes, std::size_t alignment) noexcept {
  ElfW(Nhdr) note;
  while (notes.size() >= sizeof note) {
    std::memcpy(&note, notes.data(), sizeof note);
    const std::string_view name = notes.substr(sizeof note, note.n_namesz);
    const std::size_t content = rounded(sizeof note + name.size(), alignment);
    if (content > notes.size() || note.n_descsz > notes.size() - content) return {};
    if (note.n_type == NT_GNU_BUILD_ID && name == std::string_view("GNU", 4))
      return notes.substr(content, note.n_descsz);
    notes.remove_prefix(std::min(notes.size(), rounded(content + note.n_descsz, alignment)));
  }
  return {};
}

std::string identity_of(const dl_phdr_info& info) {
  for (ElfW(Half) i = 0; i < info.dlpi_phnum; ++i) {
    const ElfW(Phdr)& header = info.dlpi_phdr[i];
    if (header.p_type != PT_NOTE || !is_readable(info, header)) continue;
    const char* notes = reinterpret_cast<const char*>(start_of(info, header));
    const std::string_view id =
        build_id_in({notes, static_cast<std::size_t>(header.p_memsz)}, header.p_align == 8 ? 8 : 4);
    if (!id.empty()) return std::string(id);
  }
  return std::string(reinterpret_cast<const char*>(info.dlpi_phdr),
                     info.dlpi_phnum * sizeof *info.dlpi_phdr);
}

Module module_of(const dl_phdr_info& info) {
  Module module;
  module.base = info.dlpi_addr;
  module.path = info.dlpi_name ? info.dlpi_name : "";
  module.identity = identity_of(info);
  for (ElfW(Half) i = 0; i < info.dlpi_phnum; ++i) {
    const ElfW(Phdr)& header = info.dlpi_phdr[i];
    const std::uintptr_t from = start_of(info, header);
    if (header.p_type == PT_LOAD) module.segments.push_back({from, from + header.p_memsz});
  }
  return module;
}

// An older loader passes a shorter structure.
std::optional<LoaderCounts> counts_of(const dl_phdr_info& info, std::size_t size) noexcept {
  if (size < offsetof(dl_phdr_info, dlpi_subs) + sizeof info.dlpi_subs) return std::nullopt;
  return LoaderCounts{info.dlpi_adds, info.dlpi_subs};
}

// ---- all modules ----

// Calls `visit` with each module, until it returns false.
template <class F>
void visit_modules(F visit) {
  ::dl_iterate_phdr([](dl_phdr_info* info, std::size_t size,
                       void* f) { return (*static_cast<F*>(f))(*info, size) ? 0 : 1; },
                    &visit);
}

bool unchanged_since(const Modules& then) {
  if (!then.counts) return false;
  std::optional<LoaderCounts> now;
  visit_modules([&](const dl_phdr_info& info, std::size_t size) {
    now = counts_of(info, size);
    return false;
  });
  return now && now->loads == then.counts->loads && now->unloads == then.counts->unloads;
}

std::optional<Module> find_now(std::uintptr_t address) {
  std::optional<Module> found;
  visit_modules([&](const dl_phdr_info& info, std::size_t) {
    if (has_address(info, address)) found = module_of(info);
    return !found;
  });
  return found;
}

bool is_same(const Module& a, const Module& b) noexcept {
  return a.base == b.base && a.path == b.path && a.identity == b.identity;
}

// ---- errors ----

Error unknown(const std::string& text) {
  return Error(Errc::unknown_function, "unknown function: " + text);
}

std::string name_of(const Module& module) {
  return module.path.empty() ? "the program" : module.path;
}

Error nowhere(const Module* before) {
  if (before)
    return unknown("it was in " + name_of(*before) +
                   ", which was unloaded after the snapshot was taken; keep it loaded");
  return unknown(
      "its address is in no loaded library; if it was made at run time, before the snapshot was "
      "taken, pass a lambda that calls it");
}

Error late(const Module& now, const Module* before) {
  if (before)
    return unknown(
        "it is in " + name_of(now) + ", and the snapshot has " + name_of(*before) +
        " at that address; load libraries before the snapshot is taken, and keep them loaded");
  return unknown("it is in " + name_of(now) +
                 ", which was loaded after the snapshot was taken; load it before");
}

}  // namespace

std::shared_ptr<const Modules> modules_now() {
  auto modules = std::make_shared<Modules>();
  visit_modules([&](const dl_phdr_info& info, std::size_t size) {
    modules->all.push_back(module_of(info));
    modules->counts = counts_of(info, size);
    return true;
  });
  return modules;
}

const Module* module_at(const Modules& modules, std::uintptr_t address) noexcept {
  for (const Module& module : modules.all)
    for (const Module::Segment& segment : module.segments)
      if (address >= segment.from && address < segment.to) return &module;
  return nullptr;
}

std::optional<Error> why_unknown(const Modules& then, std::uintptr_t function) {
  if (function == 0) return unknown("the pointer to it is null");
  const Module* before = module_at(then, function);
  if (before && unchanged_since(then)) return std::nullopt;
  const std::optional<Module> now = find_now(function);
  if (!now) return nowhere(before);
  if (before && is_same(*now, *before)) return std::nullopt;
  return late(*now, before);
}

}  // namespace evparallel::detail
