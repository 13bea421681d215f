// exception_text.hpp - the part of an exception's text that goes into an error.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#pragma once

#include <cstddef>
#include <exception>
#include <string_view>

#include <string.h>

namespace evparallel::detail {

// Two texts of this length fit into the frame of an error.
constexpr std::size_t longest_text = 16 * 1024;

// Reads at most longest_text bytes.  Empty if what() is null.
inline std::string_view text_of(const std::exception& exception) noexcept {
  const char* const what = exception.what();
  return what ? std::string_view(what, ::strnlen(what, longest_text)) : std::string_view();
}

}  // namespace evparallel::detail
