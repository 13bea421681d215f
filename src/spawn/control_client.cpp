// control_client.cpp - sends requests and receives reports.
// Runs in: parent.  Licence: see COPYING.
#include "spawn/control_client.hpp"

#include "system/failpoint.hpp"

#include <new>

namespace evparallel::detail {

namespace {

// Each holds a descriptor, and a process usually has about a thousand of them.
constexpr std::size_t queue_limit = 65536;

}  // namespace

Request request_of(RequestKind kind, std::uint64_t id, std::uint32_t slot) noexcept {
  Request request{};
  request.kind = kind;
  request.slot = slot;
  request.id = id;
  return request;
}

bool ControlClient::send(Queued& item) noexcept {
  fault_at(Failpoint::send);
  item.request.seen = seen_;
  int along[most_along] = {item.along.get()};
  const std::size_t count = item.along ? 1 + item.streams.list(along + 1) : 0;
  flow_ = send_packet(control_.get(), &item.request, sizeof item.request, along, count);
  if (flow_ == IoResult::done) {
    item.along.close();
    item.streams = {};
  }
  if (flow_ == IoResult::closed) ended_ = true;
  fault_at(Failpoint::sent);
  return flow_ == IoResult::done || flow_ == IoResult::closed;
}

bool ControlClient::ask(Request request, OwnedFd along, StdioPlan streams) noexcept {
  fault_at(Failpoint::ask);
  request.streams = streams.plan;
  Queued item{request, std::move(along), std::move(streams)};
  // take() reports the end of the socket, so a request that cannot be sent because of it needs no
  // error of its own.
  if (queue_.empty() && send(item)) return true;
  if (queue_.size() == queue_limit) return false;
  try {
    queue_.emplace_back() = std::move(item);
  } catch (const std::bad_alloc&) {
    return false;
  }
  return true;
}

bool ControlClient::flush() {
  while (!queue_.empty()) {
    if (!send(queue_.front())) return false;
    queue_.pop_front();
  }
  return true;
}

IoResult ControlClient::take(Report& report) {
  Packet packet = receive_packet(control_.get(), &report, sizeof report);
  packet.along.close();
  if (packet.flow != IoResult::done) return packet.flow;
  fault_at(Failpoint::take);
  if (packet.size != sizeof report) return IoResult::closed;
  if (report.kind == ReportKind::exited) ++seen_;
  if (translated_ && report.kind == ReportKind::spawned) report.pid = packet.sender;
  return IoResult::done;
}

void ControlClient::translate_numbers() noexcept {
  translated_ = true;
  name_senders(control_.get());
}

void ControlClient::close() noexcept {
  queue_.clear();
  control_.reset();
}

}  // namespace evparallel::detail
