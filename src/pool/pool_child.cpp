// pool_child.cpp - the child of a pool: its start, then calls, alone or in chunks.
// Runs in: child.  Licence: see COPYING.
#include <evparallel/pool.hpp>
#include <evparallel/this_call.hpp>

#include "codec/remote_error.hpp"
#include "child/child.hpp"
#include "pool/pool_format.hpp"

namespace evparallel::detail {

namespace {

// Copies adopted bytes, because several answers share one message.
void settle(Writer& out) {
  if (!out.adopted_owner()) return;
  std::string all = std::move(out.bytes());
  all.append(out.adopted());
  out.clear();
  out.bytes() = std::move(all);
}

void check_answer(std::size_t size, std::uint64_t limit) {
  if (size > limit)
    throw Error(Errc::too_large, "too large: the answer has " + std::to_string(size) +
                                     " bytes, and the limit is " + std::to_string(limit));
}

class PoolAnswer {
public:
  PoolAnswer(Child& child, Callback<void(Reader&, Writer&)> call, std::uint64_t max_message)
      : child_(child), call_(std::move(call)), max_message_(max_message) {}

  void operator()(Reader& in, Writer& out) {
    if (in.take_byte() == chunk_of_calls) return answer_chunk(in, out);
    call_(in, out);
    check_answer(out.size(), max_message_);
  }

private:
  void answer_chunk(Reader& in, Writer& out) {
    const std::int64_t began = now_ns();
    ChunkHead head;
    in.read(&head, sizeof head);
    ChunkAnswerHead answer;
    out.write(&answer, sizeof answer);
    for (;;) {
      ItemLength length;
      in.read(&length, sizeof length);
      Reader item = in.take_part(length);
      child_.begin_part_of_call();
      answer_item(item, out);
      answer.spent_ns = now_ns() - began;
      if (in.remaining() == 0 || out.size() > chunk_bytes || this_call::cancelled()) break;
      if (head.yield_after_ns > 0 && answer.spent_ns >= head.yield_after_ns) break;
    }
    out.bytes().replace(0, sizeof answer, reinterpret_cast<const char*>(&answer), sizeof answer);
  }

  void answer_item(Reader& item, Writer& out) {
    const std::size_t at = out.size();
    ItemHead head;
    out.write(&head, sizeof head);
    const std::size_t body = out.size();
    try {
      call_(item, out);
      if (out.attached()) throw no_descriptors_in_results();
      settle(out);
      check_answer(out.size() - body, max_message_);
    } catch (const Error& error) {
      put_error(out, body, error);
      head.word = 1;
    } catch (...) {
      if (thread_is_leaving()) throw;
      put_error(out, body, current_exception_as_remote());
      head.word = 1;
    }
    head.word |= std::uint64_t{out.size() - body} << 1;
    std::memcpy(out.bytes().data() + at, &head, sizeof head);
  }

  static void put_error(Writer& out, std::size_t body, const Error& error) {
    settle(out);
    out.drop_attached();
    out.bytes().resize(body);
    write_error(out, error.with_delivery(Delivery::started));
  }

  Child& child_;
  Callback<void(Reader&, Writer&)> call_;
  std::uint64_t max_message_;
};

}  // namespace

void serve_pool(ChildInterface& interface, Reader& rest, Callback<void(Reader&, Writer&)> call) {
  Child& child = static_cast<Child&>(interface);
  PoolLimits limits;
  rest.read(&limits, sizeof limits);
  // Answers are not gathered: if a call ends the child, no other answer may be lost with it.
  child.never_gather();
  child.report_ready();
  child.answer(PoolAnswer(child, std::move(call), limits.max_message));
}

}  // namespace evparallel::detail
