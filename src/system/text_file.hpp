// text_file.hpp - reads small files of the kernel as a whole.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#pragma once

#include <string>

namespace evparallel::detail {

// Reads as much as can be read.  Returns false if the file cannot be opened.
bool read_text_file(const std::string& path, std::string& text);

}  // namespace evparallel::detail
