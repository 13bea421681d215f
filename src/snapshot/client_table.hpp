// client_table.hpp - who asks a snapshot for children: the parent, and children that have children; and
// what is still to be told to each.
// Runs in: snapshot.  Licence: see COPYING.
//
// Lives in the snapshot alone.  It never waits for room in a socket: what cannot be told is kept.
#pragma once

#include "system/socket.hpp"
#include "snapshot/child_table.hpp"

namespace evparallel {

using ClientIndex = std::uint32_t;
constexpr ClientIndex no_client = UINT32_MAX;
constexpr std::size_t client_limit = 1025;  // the first client, and children that ask

struct ClientEntry {
  OwnedFd control;
  ChildIndex owner = no_child;  // the child that it is; no_child: the parent
  bool open = false;
  bool gone = false;   // its socket has ended, as we found when we wrote
  bool stuck = false;  // `answer` could not be sent yet; no request is read before it is
  Report answer{};
  std::uint64_t exits = 0;  // reported so far
  ChildList to_report;
  ChildList reported;  // until the client says that it has seen them

  // There is something left to tell it; no request of its is read before that.
  bool behind() const noexcept { return stuck || !to_report.empty(); }
};

class ClientTable {
public:
  // Requires: the object stands in zeroed memory.
  // `parent_is_elsewhere`: in another pid namespace, where children have other numbers.
  void set_up(ChildTable&, OwnedFd control_of_parent, bool parent_is_elsewhere) noexcept;

  ClientEntry& operator[](ClientIndex index) noexcept { return clients_[index]; }
  const ClientEntry& operator[](ClientIndex index) const noexcept { return clients_[index]; }
  ClientIndex used() const noexcept { return used_; }  // no index from here on was ever used

  // no_client: all places are taken, and the descriptor is as it was.
  ClientIndex accept_client(OwnedFd& control, ChildIndex owner) noexcept;
  // Nothing is told to it any more.  Its children are another matter.
  void close(ClientIndex) noexcept;

  void answer(ClientIndex, const Report&) noexcept;
  // How many strays there were, to the parent, if it does not know.
  void report_orphans(std::uint64_t count) noexcept;
  // The errno by which the kernel refuses to let this process wait, to the parent, once; 0: it does not.
  void report_refusal(int error) noexcept;
  void report_ends(ClientIndex) noexcept;
  void free_seen(ClientIndex, std::uint64_t seen) noexcept;

private:
  bool send(ClientIndex, const Report&) noexcept;

  ChildTable* children_;
  ClientIndex used_;
  std::uint64_t orphans_told_;
  bool refusal_told_;
  bool parent_is_elsewhere_;
  ClientEntry clients_[client_limit];
};

}  // namespace evparallel
