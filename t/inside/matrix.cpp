// matrix.cpp - the fault matrix: every target x action x moment x use, with one replica and with two, each in a
// program of its own.
//
// The axes are multiplied, not typed.  If the target is the parent and it dies, no process is left to report: the test
// checks processes and descriptors.  In all other cells every accepted call completes exactly once, with one of the
// outcomes that allowed() derives, the callbacks of a process are called in their order, and at the end no process and
// no descriptor is left.
//
// Each shard runs a part of the cells of each case.  An audit build runs a fixed sample of them, and all cells with
// EVPARALLEL_ALL_CELLS=1 in the environment: each process costs much more there.
//
// There are two more modes: --run_test=sample_of_cells runs some cells for valgrind; --run_test=soak runs random cells
// for MINUTES, from SEED.
#include "cell.hpp"
#include "shard.hpp"
#include "testing.hpp"

#include <algorithm>
#include <cstdlib>
#include <random>

namespace {

namespace par = evparallel;
using namespace cell;

constexpr Use uses[] = {Use::run, Use::process, Use::nested};
constexpr Target targets[] = {Target::parent, Target::snapshot, Target::child, Target::grandchild};
constexpr Action actions[] = {Action::kill,   Action::stop_then_kill, Action::exit_0,
                              Action::exit_3, Action::crash,          Action::close};
constexpr Moment moments[] = {Moment::before_request,       Moment::after_request,
                              Moment::before_first_message, Moment::mid_message,
                              Moment::between_messages,     Moment::one_pending,
                              Moment::hundred_pending,      Moment::draining};
constexpr unsigned replicas[] = {1, 2};

// ---- the cells ------------------------------------------------------------------------------------

// The reason why a cell is impossible; nullptr: it is possible.
const char* impossible(const Cell& cell) {
  if (cell.target == Target::grandchild && cell.use != Use::nested)
    return "only a nested use has a grandchild";
  const Target asked_for = cell.use == Use::nested ? Target::grandchild : Target::child;
  if (cell.target == asked_for && cell.moment == Moment::before_request)
    return "before the request there is no such process";
  return nullptr;
}

std::vector<Cell> all_combinations() {
  std::vector<Cell> all;
  for (const Use use : uses)
    for (const Target target : targets)
      for (const Action action : actions)
        for (const Moment moment : moments)
          for (const unsigned count : replicas) {
            all.push_back({use, target, action, moment});
            all.back().replicas = count;
          }
  return all;
}

std::vector<Cell> cells() {
  std::vector<Cell> all = all_combinations();
  all.erase(std::remove_if(all.begin(), all.end(), [](const Cell& c) { return impossible(c); }),
            all.end());
  return all;
}

// ---- allowed outcomes -----------------------------------------------------------------------------

constexpr Set lost = set_of(par::Errc::snapshot_lost);
constexpr Set killed = set_of(par::Errc::child_killed);
constexpr Set exited = set_of(par::Errc::child_exited);
constexpr Set overloaded = set_of(par::Errc::overloaded);
constexpr Set not_sent = set_of(par::Delivery::not_sent);
constexpr Set sent = set_of(par::Delivery::sent);
constexpr Set started = set_of(par::Delivery::started);
constexpr Allowed well{answered, 0};

// The process that executes the calls dies.
Allowed when_worker_ends(const Cell& cell, int index) {
  Allowed allowed;
  switch (cell.action) {
    case Action::kill:
    case Action::stop_then_kill:
    case Action::crash: allowed.outcomes = killed; break;
    case Action::exit_0:
    case Action::exit_3: allowed.outcomes = exited; break;
    // It may notice that its socket is closed and end, or be ended after `linger`.
    case Action::close: allowed.outcomes = exited | killed; break;
  }
  switch (cell.moment) {
    // The message is sent after the end.  If the caller has seen the end, another child answers the call.
    case Moment::before_request:
    case Moment::after_request:
    case Moment::before_first_message:
    case Moment::between_messages:
      if (cell.use != Use::process) allowed.outcomes |= answered;
      allowed.deliveries = not_sent | sent;
      break;
    // A part was sent, so the call counts as sent; no task begins before its whole message has arrived.
    case Moment::mid_message: allowed.deliveries = sent; break;
    // One call is in the task, and the others are in the socket.
    case Moment::one_pending:
    case Moment::hundred_pending: allowed.deliveries = index == 1 ? started : sent; break;
    // The action comes with the second answer, and bytes written before it are read before the end.  A process answers
    // without waiting for its socket: its action comes in the middle of the first answer.
    case Moment::draining:
      if (cell.use != Use::process && index == 1) return well;
      allowed.deliveries = index == 3 ? sent : started;
      break;
    case Moment::at_failpoint: break;
  }
  // Without its socket, the child still executes the calls that it has already read.
  if (cell.action == Action::close && index > 1) allowed.deliveries |= started;
  return allowed;
}

// The snapshot dies, and its children with it.
Allowed when_snapshot_ends(const Cell& cell, int index) {
  Allowed allowed{lost, not_sent | sent};
  // The message is sent after the end.  If the caller has seen the end, it gets a child of the other snapshot.
  const bool follows =
      cell.moment == Moment::before_request || cell.moment == Moment::after_request ||
      cell.moment == Moment::before_first_message || cell.moment == Moment::between_messages;
  const bool before = cell.moment == Moment::before_request;
  if (cell.replicas > 1 && follows && (before || cell.use != Use::process))
    allowed.outcomes |= answered;
  // A spare exists without a request, and may finish its work before it is ended.
  if (cell.spares > 0 && cell.moment <= Moment::after_request)
    return {lost | answered, not_sent | sent | started};
  if (before) return allowed;
  // One call is in the task, and the others, or a part of one, are in the socket.
  const bool at_work = cell.moment == Moment::mid_message || cell.moment == Moment::one_pending ||
                       cell.moment == Moment::hundred_pending || cell.moment == Moment::draining;
  if (at_work) allowed.deliveries = index == 1 ? started : sent;
  // While the snapshot is stopped, or ends slowly after the loss of its socket, its children continue to work.
  if (cell.action == Action::stop_then_kill || cell.action == Action::close) {
    // A snapshot that is stopped before it forks never forks.
    const bool forks = cell.moment != Moment::after_request || cell.action == Action::close;
    if (forks) allowed.outcomes |= answered;
    allowed.deliveries |= not_sent | sent | started;
  }
  return allowed;
}

// The parent's control socket is closed: for the snapshot that is the end of the parent.  A child that is executing a
// call may still answer.
Allowed when_parent_closes(const Cell& cell, int index) {
  if (cell.moment == Moment::before_request || index == last_call)
    return {lost | answered, not_sent | sent | started};
  return {answered | lost, anything};
}

Allowed allowed_for_program(const Cell& cell, int index) {
  if (index == spare_call) return well;
  const bool is_first = index == first_call;
  const bool nested = cell.use == Use::nested;
  // In a nested use everything happens while the first call is in its task.
  const bool untouched = is_first && !nested && cell.moment > Moment::before_first_message;
  if (untouched) return well;
  switch (cell.target) {
    case Target::parent: return when_parent_closes(cell, index);
    case Target::snapshot:
      // The end of the process has reported the loss.
      if (index == last_call && cell.replicas > 1 && cell.use == Use::process) return well;
      // If the calls succeeded before the end was noticed, the last one may succeed, too.
      if (index == last_call) return {lost | answered, not_sent | sent | started};
      if (!nested) return when_snapshot_ends(cell, index);
      // The sockets of a dying process are closed a little before its children end.
      return {lost | answered, started};
    case Target::child:
      if (index == last_call) return well;  // a child that is dead is replaced
      if (!nested) return when_worker_ends(cell, index);
      return {cell.action == Action::exit_0 || cell.action == Action::exit_3 ? exited
              : cell.action == Action::close                                 ? exited | killed
                                                                             : killed,
              started};
    default: return well;
  }
}

Allowed allowed_for_child(const Cell& cell, int index) {
  if (index == first_call && cell.moment > Moment::before_first_message) return well;
  switch (cell.target) {
    // The child gets an error that its snapshot has ended, or that the snapshot refuses new requests.
    case Target::parent:
    case Target::snapshot: return {answered | lost | overloaded, anything};
    // It dies, or continues without its socket to the parent.
    case Target::child: return well;
    default: return index == last_call ? well : when_worker_ends(cell, index);
  }
}

Allowed allowed(const Cell& cell, Who who, int index) {
  return who == Who::program ? allowed_for_program(cell, index) : allowed_for_child(cell, index);
}

// ---- running the cells ----------------------------------------------------------------------------

void check(const Cell& cell) {
  testing::limit();  // the limit of this cell
  const Verdict verdict = play(cell, allowed);
  BOOST_TEST(verdict.complaints.empty(), name_of(cell) << verdict.text());
  BOOST_TEST(verdict.done, name_of(cell) << ": it did not happen");
}

// The cells of a case that this program runs.  Neighbours differ in the replicas, then in the moment, then in the
// action; a step that is coprime to the numbers of these meets all of them.
bool is_played(std::size_t index) {
  static const testing::Shard shard = testing::own_shard();
  static const bool all = !testing::sanitized || std::getenv("EVPARALLEL_ALL_CELLS");
  const std::size_t step = all ? 1 : 11;
  return index % step == 0 && shard.has(index / step);
}

void check_all(const std::vector<Cell>& all) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (!is_played(i)) continue;
    check(all[i]);
    ++count;
  }
  remark(std::to_string(count) + " of " + std::to_string(all.size()) + " cells");
  BOOST_TEST(count > 0);
}

void check_all(Use use, Target target) {
  std::vector<Cell> some = cells();
  const auto is_another = [&](const Cell& c) { return c.use != use || c.target != target; };
  some.erase(std::remove_if(some.begin(), some.end(), is_another), some.end());
  check_all(some);
}

}  // namespace

BOOST_AUTO_TEST_CASE(impossible_cells_are_excluded) {
  std::vector<std::string> reasons;
  std::size_t left_out = 0;
  const std::vector<Cell> all = all_combinations();
  for (const Cell& cell : all) {
    const char* reason = impossible(cell);
    if (!reason) continue;
    ++left_out;
    remark("left out: " + name_of(cell) + ": " + reason);
  }
  remark(std::to_string(cells().size()) + " cells are run, " + std::to_string(left_out) +
         " cannot exist");
  BOOST_TEST(cells().size() + left_out == all.size());
  BOOST_TEST(cells().size() >= 400u);
}

BOOST_AUTO_TEST_CASE(run_parent, *testing::guarantee("1.2 5.1")) {
  check_all(Use::run, Target::parent);
}
BOOST_AUTO_TEST_CASE(run_snapshot, *testing::guarantee("1.2 5.3")) {
  check_all(Use::run, Target::snapshot);
}
BOOST_AUTO_TEST_CASE(run_child, *testing::guarantee("1.1 1.2 2.3")) {
  check_all(Use::run, Target::child);
}
BOOST_AUTO_TEST_CASE(process_parent, *testing::guarantee("5.1")) {
  check_all(Use::process, Target::parent);
}
BOOST_AUTO_TEST_CASE(process_snapshot, *testing::guarantee("1.3 2.2")) {
  check_all(Use::process, Target::snapshot);
}
BOOST_AUTO_TEST_CASE(process_child, *testing::guarantee("1.3 2.2")) {
  check_all(Use::process, Target::child);
}

// Spares that nobody has taken end with all other children.
BOOST_AUTO_TEST_CASE(with_spares, *testing::guarantee("5.1 5.3")) {
  std::vector<Cell> some;
  for (Cell cell : cells()) {
    // A spare starts before it is requested.
    const bool too_early = cell.target == Target::child && cell.moment == Moment::after_request;
    if (cell.target == Target::grandchild || cell.replicas > 1 || too_early) continue;
    cell.spares = 2;
    some.push_back(cell);
  }
  check_all(some);
}

BOOST_AUTO_TEST_CASE(nested_parent) {
  check_all(Use::nested, Target::parent);
}
BOOST_AUTO_TEST_CASE(nested_snapshot) {
  check_all(Use::nested, Target::snapshot);
}
BOOST_AUTO_TEST_CASE(nested_child, *testing::guarantee("5.4")) {
  check_all(Use::nested, Target::child);
}
BOOST_AUTO_TEST_CASE(nested_grandchild, *testing::guarantee("1.2")) {
  check_all(Use::nested, Target::grandchild);
}

// ---- other modes ----------------------------------------------------------------------------------

namespace {

constexpr std::size_t sample_size = 60;

// The same cells each time, from the whole matrix.
std::vector<Cell> sample() {
  const std::vector<Cell> all = cells();
  constexpr std::size_t stride = 37;  // coprime to the number of cells
  std::vector<Cell> some;
  for (std::size_t i = 0; i < sample_size; ++i) some.push_back(all[i * stride % all.size()]);
  return some;
}

unsigned long number_from(const char* name, unsigned long otherwise) {
  const char* text = std::getenv(name);
  return text && *text ? std::strtoul(text, nullptr, 10) : otherwise;
}

template <class Random>
std::size_t below(Random& random, std::size_t limit) {
  return random() % limit;
}

// A cell of the matrix, or an end at any hit of any failpoint that is passed.
template <class Random>
Cell any_cell(Random& random, const std::vector<Cell>& matrix) {
  const Cell cell = matrix[below(random, matrix.size())];
  const auto failpoint = static_cast<Failpoint>(below(random, failpoints::count));
  const std::uint64_t hit = 1 + below(random, 30);
  if (below(random, 2) == 0) return cell;
  return {cell.use, cell.target, cell.action, Moment::at_failpoint, failpoint, hit, cell.replicas};
}

}  // namespace

BOOST_AUTO_TEST_CASE(sample_of_cells, *boost::unit_test::disabled()) {
  for (const Cell& cell : sample()) check(cell);
  remark(std::to_string(sample_size) + " cells");
}

BOOST_AUTO_TEST_CASE(soak, *boost::unit_test::disabled()) {
  const unsigned long minutes = number_from("MINUTES", 1);
  const unsigned long seed = number_from("SEED", std::random_device{}());
  testing::limit(static_cast<unsigned>(minutes) * 60 + 60);
  remark("SEED=" + std::to_string(seed) + ", " + std::to_string(minutes) + " minutes");
  std::mt19937 random(static_cast<std::mt19937::result_type>(seed));
  const std::vector<Cell> matrix = cells();
  const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(minutes);
  unsigned long count = 0;
  for (; std::chrono::steady_clock::now() < end; ++count) {
    const Cell cell = any_cell(random, matrix);
    const bool at_failpoint = cell.moment == Moment::at_failpoint;
    const Verdict verdict = play(cell, at_failpoint ? allowed_anywhere : allowed);
    BOOST_TEST(verdict.complaints.empty(),
               "SEED=" << seed << ", cell " << count << ": " << name_of(cell) << verdict.text());
    if (!at_failpoint) BOOST_TEST(verdict.done, name_of(cell) << ": it did not happen");
  }
  remark(std::to_string(count) + " cells");
  BOOST_TEST(count > 0);
}
