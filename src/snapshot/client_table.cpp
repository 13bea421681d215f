// client_table.cpp - the table of clients, and reports to them.
// Runs in: snapshot.  Licence: see COPYING.
#include "snapshot/client_table.hpp"

#include "system/failpoint.hpp"

#include <new>

namespace evparallel::detail {

namespace {

Report about_no_child(ReportKind kind) noexcept {
  Report report{};
  report.kind = kind;
  report.slot = no_slot;
  return report;
}

}  // namespace

void ClientTable::set_up(ChildTable& children, OwnedFd control_of_parent,
                         bool parent_is_elsewhere) noexcept {
  children_ = &children;
  parent_is_elsewhere_ = parent_is_elsewhere;
  accept_client(control_of_parent, no_child);
}

bool ClientTable::has_room_for(ChildIndex owner) const noexcept {
  std::size_t of_children = 0;
  std::size_t of_owner = 0;
  for (ClientIndex i = 0; i < used_; ++i) {
    if (!clients_[i].open || clients_[i].of_program()) continue;
    ++of_children;
    of_owner += clients_[i].owner == owner;
  }
  return of_children < clients_of_children && of_owner < clients_of_one_child;
}

ClientIndex ClientTable::accept_client(OwnedFd& control, ChildIndex owner) noexcept {
  if (owner < the_program && !has_room_for(owner)) return no_client;
  // The first entry always belongs to the parent.
  ClientIndex index = used_ > 0 ? 1 : 0;
  while (index < used_ && clients_[index].open) ++index;
  if (index == client_limit) return no_client;
  if (index == used_) new (&clients_[used_++]) ClientEntry;
  ClientEntry& client = clients_[index];
  client = ClientEntry{};
  client.control = std::move(control);
  client.owner = owner;
  client.open = true;
  return index;
}

void ClientTable::close(ClientIndex index) noexcept {
  clients_[index].open = false;
  clients_[index].control.reset();
  stop_reports(index);
}

void ClientTable::stop_reports(ClientIndex index) noexcept {
  ClientEntry& client = clients_[index];
  client.stuck = false;
  for (ChildList* list : {&client.to_report, &client.reported})
    for (ChildIndex i = children_->pop(*list); i != no_child; i = children_->pop(*list))
      free_slot(i);
}

// False: the socket is full, or the client is gone.
bool ClientTable::send(ClientIndex index, const Report& report) noexcept {
  fault_at(Failpoint::report);
  const int control = clients_[index].control.get();
  const bool translated =
      clients_[index].of_program() && parent_is_elsewhere_ && report.kind == ReportKind::spawned;
  const IoResult flow = translated ? send_packet_from(report.pid, control, &report, sizeof report)
                                   : send_packet(control, &report, sizeof report, -1);
  if (flow == IoResult::closed) clients_[index].gone = true;
  return flow == IoResult::done;
}

void ClientTable::answer(ClientIndex index, const Report& report) noexcept {
  ClientEntry& to = clients_[index];
  to.answer = report;
  to.stuck = !send(index, report);
}

// For a report about no child; a parent that does not take it now gets it later.
bool ClientTable::parent_takes_reports() const noexcept {
  return !clients_[0].stuck && !clients_[0].gone;
}

void ClientTable::report_orphans(std::uint64_t count) noexcept {
  if (count == orphans_reported_ || !parent_takes_reports()) return;
  orphans_reported_ = count;
  Report report = about_no_child(ReportKind::orphans);
  report.id = count;
  answer(0, report);
}

void ClientTable::report_refusal(int error) noexcept {
  if (error == 0 || refusal_reported_ || !parent_takes_reports()) return;
  refusal_reported_ = true;
  Report report = about_no_child(ReportKind::refused_to_wait);
  report.code = error;
  answer(0, report);
}

void ClientTable::report_ends(ClientIndex index) noexcept {
  ClientEntry& client = clients_[index];
  if (client.open && client.stuck) client.stuck = !send(index, client.answer);
  while (client.open && !client.stuck && !client.to_report.empty()) {
    ChildEntry& child = (*children_)[client.to_report.first];
    if (!send(index, child.exit_report)) return;
    child.number = ++client.exits;
    children_->push(client.reported, children_->pop(client.to_report));
  }
}

void ClientTable::free_seen(ClientIndex index, std::uint64_t seen) noexcept {
  ClientEntry& client = clients_[index];
  while (!client.reported.empty() && (*children_)[client.reported.first].number <= seen)
    free_slot(children_->pop(client.reported));
}

// A child without a client was of one that is gone, whose owner may have been followed by another
// child in its slot.
void ClientTable::free_slot(ChildIndex index) noexcept {
  const ClientIndex client = (*children_)[index].client;
  if (client != no_client && !clients_[client].of_program())
    --(*children_)[clients_[client].owner].slots;
  children_->free(index);
}

}  // namespace evparallel::detail
