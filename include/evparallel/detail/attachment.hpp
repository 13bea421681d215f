// attachment.hpp - an open descriptor that is sent with the bytes of a message.
// Licence: see COPYING.
#pragma once

#include <evparallel/detail/export.hpp>

#include <memory>

namespace evparallel {

struct Attachment {
  int fd = -1;
  std::shared_ptr<const void> owner{};  // keeps it open until it is sent
};

}  // namespace evparallel
