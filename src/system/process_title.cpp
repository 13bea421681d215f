// process_title.cpp - titles of processes.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#include "system/process_title.hpp"

#include "base/startup_path.hpp"
#include "system/process_stat.hpp"

#include <errno.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstring>

namespace evparallel::detail {

namespace {

constexpr std::size_t name_size = 64;

// Written in the snapshot, inherited by its children.
struct Titles {
  ProcessTitle* title;  // nullptr: the kernel does not permit a title
  char short_name[16];  // of the program, as the kernel has it
  char snapshot[name_size];
  ProcessTitle of_child;  // of a child without a name of its own
};
Titles titles;

char* name_at_start = nullptr;
char copy_of_name[name_size];

// Runs before main(): a program may overwrite its arguments with a title of its own, and the C
// library's name of the program is a part of them.
[[gnu::constructor]] void keep_name_of_program() noexcept {
  name_at_start = program_invocation_short_name;
  std::snprintf(copy_of_name, sizeof copy_of_name, "%s", name_at_start);
}

// The saved name, or the one that the program has set instead.
const char* name_of_program() noexcept {
  return program_invocation_short_name == name_at_start ? copy_of_name
                                                        : program_invocation_short_name;
}

void copy(char* to, std::size_t size, std::string_view text) noexcept {
  const std::size_t length = text.copy(to, size - 1);
  to[length] = '\0';
}

void set_short_name(std::string_view name) noexcept {
  char text[16];
  copy(text, sizeof text, name);
  ::prctl(PR_SET_NAME, text);
}

// The usual case, prepared in the snapshot: to build it in the child would enter much of the C
// library.
EVPARALLEL_EARLY void take_usual_name() noexcept {
  ::prctl(PR_SET_NAME, titles.short_name);
  if (titles.title) *titles.title = titles.of_child;
}

ProcessTitle title_of(std::string_view what) noexcept {
  char text[name_size];
  copy(text, sizeof text, what);
  const bool named = titles.snapshot[0] != '\0';
  ProcessTitle title{};
  std::snprintf(title.text, sizeof title, "%.64s: %s%s%s%s", name_of_program(), text,
                named ? " [" : "", titles.snapshot, named ? "]" : "");
  return title;
}

// Makes the kernel show the arguments of this process from memory of the library, and leaves the
// rest of its memory map as it is.  Needs no privilege.
bool show_arguments_at(const char* from, std::size_t size) noexcept {
  constexpr std::size_t first = 3;  // fields are counted from 1, and two precede the numbers
  std::uint64_t fields[64] = {};
  if (read_stat("/proc/self/stat", fields + first, 49) < 49) return false;
  prctl_mm_map map{};
  map.start_code = fields[26];
  map.end_code = fields[27];
  map.start_stack = fields[28];
  map.start_data = fields[45];
  map.end_data = fields[46];
  map.start_brk = fields[47];
  map.brk = reinterpret_cast<std::uintptr_t>(::sbrk(0));
  map.arg_start = reinterpret_cast<std::uintptr_t>(from);
  map.arg_end = map.arg_start + size;
  map.env_start = fields[50];
  map.env_end = fields[51];
  map.exe_fd = static_cast<std::uint32_t>(-1);
  return ::prctl(PR_SET_MM, PR_SET_MM_MAP, &map, sizeof map, 0) == 0;
}

}  // namespace

void set_snapshot_title(ProcessTitle& storage, std::string_view name) noexcept {
  ::prctl(PR_GET_NAME, titles.short_name);
  titles.title = &storage;
  rename_snapshot_title(name);
  if (!show_arguments_at(storage.text, sizeof storage)) titles.title = nullptr;
}

void rename_snapshot_title(std::string_view name) noexcept {
  copy(titles.snapshot, sizeof titles.snapshot, name);
  set_short_name(name.empty() ? "snapshot" : name);
  if (titles.title) *titles.title = title_of("snapshot");
  titles.of_child = title_of("child");
}

EVPARALLEL_EARLY void set_child_title(std::string_view task) noexcept {
  if (task.empty()) return take_usual_name();
  set_short_name(task);
  if (titles.title) *titles.title = title_of(task);
}

}  // namespace evparallel::detail
