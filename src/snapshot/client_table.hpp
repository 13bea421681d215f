// client_table.hpp - the clients of a snapshot, and the reports that each still has to receive.
// Runs in: snapshot.  Licence: see COPYING.
//
// The clients are the parent, each further Reactor of it that uses the snapshot, and children that
// ask for children of their own.  The table lives in the snapshot alone.  It never waits for room
// in a socket: a report that cannot be sent yet is kept.
#pragma once

#include "system/socket.hpp"
#include "snapshot/child_table.hpp"

namespace evparallel::detail {

using ClientIndex = std::uint32_t;
constexpr ClientIndex no_client = UINT32_MAX;
constexpr std::size_t clients_of_one_child = 64;  // each Reactor of a child is a client
constexpr std::size_t clients_of_children = 1024;
// The parent, at least 64 further Reactors of it, and children.
constexpr std::size_t client_limit = 1 + 64 + clients_of_children;
// The owner of a client that is a further Reactor of the program.
constexpr ChildIndex the_program = no_child - 1;

struct ClientEntry {
  OwnedFd control;
  ChildIndex owner = no_child;  // the child that is this client; no_child: the parent
  bool leaving = false;         // it reads no reports, and ends with its last child
  bool open = false;
  bool gone = false;   // a write has shown that its socket has ended
  bool stuck = false;  // `answer` could not be sent yet; no request is read until it is
  Report answer{};
  std::uint64_t exits = 0;  // reported up to now
  ChildList to_report;
  ChildList reported;  // until the client acknowledges them

  // Reports are left to send; no request of this client is read until they are sent.
  bool behind() const noexcept { return stuck || !to_report.empty(); }
  // It belongs to the program and not to a child.
  bool of_program() const noexcept { return owner == no_child || owner == the_program; }
};

class ClientTable {
public:
  // Requires: the object stands in zeroed memory.
  // `parent_is_elsewhere`: in another pid namespace, where children have other numbers.
  void set_up(ChildTable&, OwnedFd control_of_parent, bool parent_is_elsewhere) noexcept;

  ClientEntry& operator[](ClientIndex index) noexcept { return clients_[index]; }
  const ClientEntry& operator[](ClientIndex index) const noexcept { return clients_[index]; }
  ClientIndex used() const noexcept { return used_; }  // no index from here on was ever used

  // Returns no_client, and leaves the descriptor alone, if all entries for this owner are in use.
  ClientIndex accept_client(OwnedFd& control, ChildIndex owner) noexcept;
  // Sends nothing to this client any more.  Does not end its children.
  void close(ClientIndex) noexcept;
  // The same, and its socket stays open.
  void stop_reports(ClientIndex) noexcept;

  void answer(ClientIndex, const Report&) noexcept;
  // Reports the number of orphans to the parent if that number has changed.
  void report_orphans(std::uint64_t count) noexcept;
  // Reports to the parent, once, the errno with which the kernel refuses to let this process wait.
  // 0: the kernel does not refuse.
  void report_refusal(int error) noexcept;
  void report_ends(ClientIndex) noexcept;
  void free_seen(ClientIndex, std::uint64_t seen) noexcept;
  // Frees the slot of a child that has ended.
  void free_slot(ChildIndex) noexcept;

private:
  bool has_room_for(ChildIndex owner) const noexcept;
  bool parent_takes_reports() const noexcept;
  bool send(ClientIndex, const Report&) noexcept;

  ChildTable* children_;
  ClientIndex used_;
  std::uint64_t orphans_reported_;
  bool refusal_reported_;
  bool parent_is_elsewhere_;
  ClientEntry clients_[client_limit];
};

}  // namespace evparallel::detail
