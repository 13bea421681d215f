// negative.cpp - the error for a negative time.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#include "base/negative.hpp"

#include <stdexcept>
#include <string>

namespace evparallel::detail {

void throw_negative(const char* name) {
  throw std::logic_error(std::string("evparallel: ") + name + " is negative");
}

}  // namespace evparallel::detail
