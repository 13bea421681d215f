// text_file.cpp - read(2) until there is no more.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#include "system/text_file.hpp"

#include "base/retry_eintr.hpp"
#include "system/descriptor.hpp"
#include "system/new_descriptor.hpp"

#include <fcntl.h>
#include <unistd.h>

namespace evparallel::detail {

bool read_text_file(const std::string& path, std::string& text) {
  const DupFd file(open_file(path.c_str(), O_RDONLY));
  text.clear();
  if (!file) return false;
  char piece[4096];
  for (ssize_t size;
       (size = retry_on_eintr([&] { return ::read(file.get(), piece, sizeof piece); })) > 0;)
    text.append(piece, static_cast<std::size_t>(size));
  return true;
}

}  // namespace evparallel::detail
