// stdio_redirect.hpp - where a standard stream of a child leads, and the lines of a captured one.
// Licence: see COPYING.  Manual: evparallel_child(3).
#pragma once

#include <evparallel/detail/export.hpp>

#include <sys/types.h>

#include <string_view>

namespace evparallel {

class Stdio {
public:
  enum class Kind { inherited, null, descriptor, captured };

  // Output: that of the snapshot.  Input: that of the program when it asks for the child, because
  // the snapshot has detached from its own.
  static constexpr Stdio inherit() noexcept { return {Kind::inherited, -1}; }
  // /dev/null.
  static constexpr Stdio null() noexcept { return {Kind::null, -1}; }
  // A descriptor of the program, which run() or process() duplicates: the caller still owns it, and
  // may close it afterwards.
  static constexpr Stdio fd(int number) noexcept { return {Kind::descriptor, number}; }
  // Output only: a pipe that the program's loop reads, line by line; see Options::on_line.
  static constexpr Stdio capture() noexcept { return {Kind::captured, -1}; }

  constexpr Kind kind() const noexcept { return kind_; }
  constexpr int descriptor() const noexcept { return descriptor_; }  // -1: none was given

private:
  constexpr Stdio(Kind kind, int descriptor) noexcept : kind_(kind), descriptor_(descriptor) {}
  Kind kind_;
  int descriptor_;
};

// One line of a captured stream.  The views are valid during the callback.
struct OutputLine {
  pid_t pid = 0;
  std::string_view name{};  // Options::name
  int stream = 0;           // 1: standard output, 2: standard error
  std::string_view text{};  // without the newline; the bytes as they were written
  bool goes_on = false;     // the line was too long: it goes on in the next one of this stream
};

}  // namespace evparallel
