// cell.cpp - runs a cell: forks its program, collects its reports until it ends, and checks them.
#include "cell.hpp"

#include "process.hpp"
#include "stage.hpp"
#include "testing.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <map>
#include <new>
#include <sstream>
#include <stdexcept>

namespace cell {

namespace {

using Clock = std::chrono::steady_clock;
// A program may time out in up to this many waits and report each.
constexpr int waits_in_a_program = 3;

// ---- collecting reports ---------------------------------------------------------------------------

struct Story {
  std::vector<Record> records;
  int status = 0;        // of the program
  bool hung = false;     // the program had to be killed
  bool orphans = false;  // a process outlived the program
  std::string left;      // the names of these processes
  bool done = false;
};

Page& fresh_page() {
  static Page& page = testing::shared<Page>();
  return *new (&page) Page;
}

class Listener {
public:
  Listener(const Cell& cell, Page& page) : cell_(cell), page_(page) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("pipe");
    program_ = ::fork();
    if (program_ == 0) {
      ::close(ends[0]);
      perform(cell, page, ends[1]);
    }
    ::close(ends[1]);
    from_ = ends[0];
  }
  ~Listener() {
    ::close(from_);
    while (::waitpid(-1, nullptr, WNOHANG) > 0) {}
  }

  Story receive() {
    const auto begun = Clock::now();
    auto ended_at = begun;
    while (!silent_ || !ended_) {
      read_some();
      look_after_target();
      const bool was_running = !ended_;
      if (!ended_ && ::waitpid(program_, &story_.status, WNOHANG) == program_) ended_ = true;
      if (was_running) ended_at = Clock::now();
      if (ended_) page_.go = true;  // no other process will set it
      const auto now = Clock::now();
      if (ended_ && now - ended_at > testing::patience()) story_.orphans = true;
      if (!ended_ && now - begun > waits_in_a_program * testing::patience()) story_.hung = true;
      if (story_.orphans || story_.hung) return end_by_force();
    }
    story_.done = page_.trigger.done_by != 0;
    return story_;
  }

private:
  void read_some() {
    pollfd wait{from_, POLLIN, 0};
    if (silent_) {
      ::poll(nullptr, 0, 1);
      return;
    }
    if (::poll(&wait, 1, 1) <= 0) return;
    Record records[64];
    const ssize_t size = ::read(from_, records, sizeof records);
    if (size <= 0) {
      silent_ = true;
      return;
    }
    story_.records.insert(story_.records.end(), records,
                          records + static_cast<std::size_t>(size) / sizeof(Record));
  }

  void look_after_target() {
    const pid_t target = page_.trigger.done_by;
    if (target == 0 || let_go_) return;
    if (!has_happened(cell_, page_)) return;
    let_go_ = true;
    page_.go = true;
    if (cell_.action == Action::stop_then_kill) ::kill(target, SIGKILL);
  }

  Story end_by_force() {
    story_.done = page_.trigger.done_by != 0;
    testing::eventually([&] {
      for (const pid_t pid : testing::children_of(::getpid())) {
        const std::string whom = std::to_string(pid) + " " + testing::state_of(pid);
        if (story_.left.find(whom) == std::string::npos) story_.left += " " + whom;
        ::kill(pid, SIGKILL);
      }
      while (::waitpid(-1, nullptr, WNOHANG) > 0) {}
      return testing::children_of(::getpid()).empty();
    });
    return story_;
  }

  const Cell& cell_;
  Page& page_;
  pid_t program_ = 0;
  int from_ = -1;
  bool silent_ = false;
  bool ended_ = false;
  bool let_go_ = false;
  Story story_;
};

// ---- checks ---------------------------------------------------------------------------------------

struct Received {
  int accepted = 0;
  int answers = 0;
};

class Court {
public:
  Court(const Cell& cell, Judge judge, const Story& story, const Page& page)
      : cell_(cell), judge_(judge), story_(story), page_(page) {}

  Verdict verdict() {
    for (const Record& record : story_.records) take(record);
    if (cell_.use == Use::process) judge_process();
    for (const auto& item : calls_) judge_count(item.first.first, item.first.second, item.second);
    judge_program();
    verdict_.done = story_.done;
    if (!verdict_.complaints.empty()) verdict_.complaints.push_back("received: " + reported());
    return std::move(verdict_);
  }

private:
  template <class... Parts>
  void complain(const Parts&... parts) {
    std::ostringstream text;
    (text << ... << parts);
    verdict_.complaints.push_back(text.str());
  }

  void take(const Record& record) {
    const auto key = std::make_pair(record.who, record.index);
    switch (record.what) {
      case Said::accepted: ++calls_[key].accepted; break;
      case Said::answer:
      case Said::message: take_answer(record, calls_[key]); break;
      case Said::error:
      case Said::end:
      case Said::exit: break;
      case Said::descriptors:
        complain("the program had ", record.a, " descriptors, and has ", record.b);
        break;
      case Said::snapshot_descriptors:
        complain("the snapshot should have ", record.a, " descriptors, and has ", record.b);
        break;
      case Said::waited_in_vain: complain("waited in vain in line ", record.index); break;
      case Said::thrown: complain("an exception left the script"); break;
      case Said::finished: finished_[record.who] = true; break;
      case Said::losses: take_losses(record.a); break;
    }
  }

  void take_losses(int losses) {
    const bool lost = cell_.target == Target::snapshot;
    const bool may_be_lost = lost || cell_.target == Target::parent;
    const bool certain = lost && cell_.moment != Moment::at_failpoint;
    if (losses > (may_be_lost ? 1 : 0) || (certain && losses != 1))
      complain("on_lost was told ", losses, " times");
  }

  void take_answer(const Record& record, Received& received) {
    ++received.answers;
    if (received.accepted == 0) complain("an answer to nothing: ", record.index);
    if (record.wrong) complain("a wrong value: ", record.index);
    const Allowed allowed = judge_(cell_, record.who, record.index);
    const Set outcome = record.a == 0 ? answered : set_of(static_cast<par::Errc>(record.a));
    if (!(allowed.outcomes & outcome))
      complain("call ", record.index, " may not end with ",
               record.a ? par::to_string(static_cast<par::Errc>(record.a)) : "a value");
    const auto delivery = static_cast<par::Delivery>(record.b);
    if (record.a != 0 && !(allowed.deliveries & set_of(delivery)))
      complain("call ", record.index, " may not be ", par::to_string(delivery));
    // A call that may safely be repeated must not have been executed, and no call is executed twice.
    const int times = page_.worked[static_cast<int>(record.who)][record.index];
    const bool undone =
        record.a != 0 && delivery == par::Delivery::not_sent && record.what == Said::answer;
    if (undone ? times != 0 : times > 1)
      complain("call ", record.index, " was worked on ", times, " times");
  }

  // A caller that was ended may have left calls without an answer; no call may have two answers.
  void judge_count(Who who, int index, const Received& received) {
    if (received.answers > 1) complain("call ", index, " heard ", received.answers, " times");
    if (!finished_[who] || received.answers == 1) return;
    // In a process, the end reports the loss of the messages.
    if (cell_.use == Use::process && index < spare_call &&
        judge_(cell_, who, index).outcomes != answered)
      return;
    complain("call ", index, " was never answered");
  }

  // The order is: any number of messages, at most one error, end, exit; and the exit status is right.
  void judge_process() {
    int stage = 0;
    int last = -1;
    for (const Record& record : story_.records) {
      if (record.what == Said::message) {
        if (stage > 0) complain("a message after the end");
        if (record.index <= last) complain("messages out of order");
        last = record.index;
      } else if (record.what == Said::error) {
        if (stage > 0) complain("on_error late or twice");
        stage = 1;
        judge_error(static_cast<par::Errc>(record.a));
      } else if (record.what == Said::end) {
        if (stage > 1) complain("on_end late or twice");
        stage = 2;
      } else if (record.what == Said::exit) {
        if (stage != 2) complain("on_exit without on_end, or twice");
        stage = 3;
        judge_exit(static_cast<par::Cause>(record.a), record.b);
      }
    }
    if (finished_[Who::program] && stage != 3) complain("no on_exit");
  }

  // The error covers all messages that were not answered; a message may also be torn.
  void judge_error(par::Errc code) {
    Set allowed = code == par::Errc::bad_message ? anything : Set{0};
    for (const auto& item : calls_)
      if (item.first.second < spare_call)
        allowed |= judge_(cell_, item.first.first, item.first.second).outcomes;
    if (!(allowed & set_of(code))) complain("on_error may not tell ", par::to_string(code));
  }

  void judge_exit(par::Cause cause, int status) {
    // A child that is requested when a replica is known to be dead comes from another replica.
    const bool spared = (cell_.replicas > 1 && cell_.moment == Moment::before_request) ||
                        (cell_.spares > 0 && cell_.moment <= Moment::after_request);
    const bool may_end_well =
        cell_.target != Target::snapshot || cell_.moment == Moment::at_failpoint || spared;
    if (cause == par::Cause::normal && status == 0 && may_end_well) return;
    bool fits = false;
    if (cell_.target == Target::child) {
      switch (cell_.action) {
        case Action::kill:
        case Action::stop_then_kill:
          fits = cause == par::Cause::crash && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
          break;
        case Action::crash:
          fits = cause == par::Cause::crash && WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV;
          break;
        case Action::exit_0: break;
        case Action::exit_3: fits = cause == par::Cause::error && WEXITSTATUS(status) == 3; break;
        // The process is ended after `linger`, or its loop refuses the descriptor (an exception, status 70).
        case Action::close:
          fits = cause == par::Cause::terminated ||
                 (cause == par::Cause::error && WEXITSTATUS(status) == 70);
          break;
      }
    } else {
      fits = cause == par::Cause::snapshot_lost || cause == par::Cause::not_started;
    }
    if (!fits) complain("on_exit may not tell ", par::to_string(cause), ", status ", status);
  }

  void judge_program() {
    if (story_.hung) return complain("the program hangs;", story_.left);
    if (story_.orphans) complain("somebody outlives the program:", story_.left);
    const bool may_die =
        cell_.target == Target::parent && cell_.action != Action::close && story_.done;
    if (!may_die) {
      if (!finished_[Who::program] || story_.status != 0)
        complain("the program ended with wait status ", story_.status);
      return;
    }
    const int status = story_.status;
    const bool right =
        cell_.action == Action::exit_0   ? status == 0
        : cell_.action == Action::exit_3 ? WIFEXITED(status) && WEXITSTATUS(status) == 3
        : cell_.action == Action::crash  ? WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV
                                         : WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    if (!right) complain("the program died of something else: wait status ", status);
  }

  std::string reported() const;

  const Cell& cell_;
  Judge judge_;
  const Story& story_;
  const Page& page_;
  std::map<std::pair<Who, int>, Received> calls_;
  std::map<Who, bool> finished_;
  Verdict verdict_;
};

// Consecutive calls with the same outcome are reported as one.
std::string Court::reported() const {
  static const char* const words[] = {"accepted", "answered", "message",     "error",
                                      "end",      "exit",     "descriptors", "snapshot's",
                                      "waited",   "thrown",   "finished",    "losses"};
  std::ostringstream text;
  const std::vector<Record>& all = story_.records;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const Record& first = all[i];
    const auto goes_on = [&](const Record& next, const Record& last) {
      return next.what == first.what && next.who == first.who && next.a == first.a &&
             next.b == first.b && next.index == last.index + 1;
    };
    while (i + 1 < all.size() && goes_on(all[i + 1], all[i])) ++i;
    text << (first.who == Who::child ? "child " : "") << words[static_cast<int>(first.what)] << ' '
         << first.index;
    if (all[i].index != first.index) text << '-' << all[i].index;
    text << ' ' << first.a << ' ' << first.b << "; ";
  }
  return text.str();
}

}  // namespace

Allowed allowed_anywhere(const Cell& cell, Who who, int index) {
  const bool own_worker = cell.target == (who == Who::child ? Target::grandchild : Target::child);
  if (cell.target == Target::parent || cell.target == Target::snapshot) {
    const Set refused = who == Who::child ? set_of(par::Errc::overloaded) : 0;
    return {answered | set_of(par::Errc::snapshot_lost) | refused, anything};
  }
  // The last call has a child of its own, except in a nested use.
  const bool other_child = index >= spare_call && (cell.use != Use::nested || who == Who::child);
  if (!own_worker || other_child) return {answered, 0};
  switch (cell.action) {
    case Action::exit_0:
    case Action::exit_3: return {answered | set_of(par::Errc::child_exited), anything};
    case Action::close:
      return {answered | set_of(par::Errc::child_exited) | set_of(par::Errc::child_killed),
              anything};
    default: return {answered | set_of(par::Errc::child_killed), anything};
  }
}

Verdict play(const Cell& cell, Judge judge) {
  Page& page = fresh_page();
  Listener listener(cell, page);
  const Story story = listener.receive();
  return Court(cell, judge, story, page).verdict();
}

std::string Verdict::text() const {
  std::string all;
  for (const std::string& complaint : complaints) all += "\n  " + complaint;
  return all;
}

void remark(const std::string& text) {
  const std::string line = "# " + text + "\n";
  if (::write(STDOUT_FILENO, line.data(), line.size()) < 0) throw std::runtime_error("write");
}

// ---- names ----------------------------------------------------------------------------------------

std::string name_of(const Cell& cell) {
  static const char* const uses[] = {"run", "process", "nested"};
  static const char* const targets[] = {"parent", "snapshot", "child", "grandchild"};
  static const char* const actions[] = {
      "SIGKILL", "SIGSTOP, then SIGKILL", "exit 0", "exit 3", "segfault", "close"};
  static const char* const moments[] = {
      "before the request", "after the request", "before the first message", "mid message",
      "between messages",   "1 call pending",    "100 calls pending",        "draining"};
  std::string name = (cell.replicas > 1 ? std::to_string(cell.replicas) + " replicas, " : "") +
                     (cell.spares > 0 ? std::to_string(cell.spares) + " spares, " : "") +
                     std::string(uses[static_cast<int>(cell.use)]) + ", " +
                     targets[static_cast<int>(cell.target)] + ", " +
                     actions[static_cast<int>(cell.action)] + ", ";
  if (cell.moment != Moment::at_failpoint) return name + moments[static_cast<int>(cell.moment)];
  return name + "at " + name_of(cell.failpoint) + ", hit " + std::to_string(cell.hit);
}

const char* name_of(Failpoint failpoint) {
  static const char* const names[] = {"run",         "spawn",  "connect_to_snapshot",
                                      "ask",         "send",   "sent",
                                      "encode",      "put",    "write",
                                      "written",     "turn",   "rendezvous",
                                      "serve",       "fork",   "forked",
                                      "child_main",  "read",   "task",
                                      "decode",      "call",   "finish",
                                      "callback",    "drain",  "leave",
                                      "reap",        "report", "take",
                                      "exit_report", "ended"};
  static_assert(sizeof names / sizeof *names == failpoints::count, "each failpoint has a name");
  return names[static_cast<int>(failpoint)];
}

}  // namespace cell
