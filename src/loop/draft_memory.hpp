// draft_memory.hpp - the memory of the messages that one loop sends.
// Runs in: parent, child.  Licence: see COPYING.
#pragma once

#include <evparallel/detail/draft.hpp>

#include <cstddef>
#include <memory>
#include <string>
#include <utility>

namespace evparallel::detail {

class DraftMemory final : public DraftBuffer {
public:
  Writer* begin_draft() noexcept override {
    if (std::exchange(drafting_, true)) return nullptr;
    if (block_) take_block();
    return &draft_;
  }
  void end_draft() noexcept override {
    drafting_ = false;
    draft_.clear();
    if (block_ || draft_.bytes().capacity() > most_kept) end_large_draft();
  }
  // Call this before a message is sent: if it is large, the next one can reuse its memory once it
  // has left.  Filling new pages each time costs more than copying.
  void lend(Writer& message) {
    if (message.written().size() >= large_message) lend_large(message);
  }

private:
  static constexpr std::size_t most_kept = 4096;
  static constexpr std::size_t large_message = std::size_t{256} << 10;
  void lend_large(Writer&);
  void take_block() noexcept;
  void end_large_draft() noexcept;

  Writer draft_;
  bool drafting_ = false;
  std::shared_ptr<std::string> block_;  // of a large message that may not have left yet
  int drafts_with_block_ = 0;           // it is kept for this number of further drafts
};

}  // namespace evparallel::detail
