// draft_memory.cpp - how the memory of large messages is reused.
// Runs in: parent, child.  Licence: see COPYING.
#include "loop/draft_memory.hpp"

namespace evparallel::detail {

namespace {

constexpr std::size_t most_lent = std::size_t{16} << 20;
// If no large message has come for this number of drafts, the memory is released.
constexpr int drafts_a_block = 64;

}  // namespace

void DraftMemory::lend_large(Writer& message) {
  std::shared_ptr<std::string> block = message.share(large_message);
  if (!block || block->capacity() > most_lent) return;
  block_ = std::move(block);
  drafts_with_block_ = drafts_a_block;
}

void DraftMemory::take_block() noexcept {
  if (block_.use_count() > 1) return;
  draft_.bytes().swap(*block_);
  draft_.bytes().clear();
  block_.reset();
}

void DraftMemory::end_large_draft() noexcept {
  if (--drafts_with_block_ > 0 && draft_.bytes().capacity() <= most_lent) return;
  drafts_with_block_ = 0;
  block_.reset();
  // Assigning an empty string would keep the memory.
  if (draft_.bytes().capacity() > most_kept) std::string().swap(draft_.bytes());
}

}  // namespace evparallel::detail
