// exception_text.hpp - what an exception of the program's says, as far as an error tells it.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#pragma once

#include <cstddef>
#include <exception>
#include <string_view>

#include <string.h>

namespace evparallel {

// Two of them fit into an error's frame.
constexpr std::size_t longest_text = 16 * 1024;

// No more than that is looked at.  Empty where what() is null.
inline std::string_view text_of(const std::exception& exception) noexcept {
  const char* const what = exception.what();
  return what ? std::string_view(what, ::strnlen(what, longest_text)) : std::string_view();
}

}  // namespace evparallel
