// text_file.hpp - small files that the kernel writes, read whole.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#pragma once

#include <string>

namespace evparallel {

// What can be read of it.  False: it cannot be opened.
bool read_text_file(const std::string& path, std::string& text);

}  // namespace evparallel
