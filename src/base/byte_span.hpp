// byte_span.hpp - bytes that somebody else keeps.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#pragma once

#include <cstddef>

namespace evparallel::detail {

// An array of these is not cleared before it is filled, as one of std::string_view would be on each write.
struct ByteSpan {
  const char* data;
  std::size_t size;
};

}  // namespace evparallel::detail
