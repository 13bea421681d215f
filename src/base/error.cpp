// error.cpp - texts of errors and of exit statuses.
// Runs in: parent, snapshot, child.  Licence: see COPYING.
#include <evparallel/result.hpp>

#include "base/names.hpp"
#include "base/no_memory.hpp"

#include <signal.h>
#include <sys/wait.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <new>

namespace evparallel {

using namespace detail;

struct Error::Details {
  Errc code;
  Delivery delivery = Delivery::not_sent;
  int os_error = 0;
  std::optional<ExitStatus> exit{};
  std::string remote_type{};
  std::vector<StackFrame> backtrace{};
};

namespace {

Error without_memory(const std::string& for_what) {
  return Error(Errc::overloaded, "overloaded: there is no memory" + for_what).with_os_error(ENOMEM);
}

// One for each Delivery.  Never destroyed: destructors of static objects may still use them.
using PreparedErrors = std::array<Error, 3>;
std::atomic<const PreparedErrors*> prepared{nullptr};

}  // namespace

void detail::prepare_for_no_memory() {
  static const auto* const errors =
      new PreparedErrors{without_memory({}), without_memory({}).with_delivery(Delivery::sent),
                         without_memory({}).with_delivery(Delivery::started)};
  prepared.store(errors, std::memory_order_release);
}

Error detail::no_memory(Delivery delivery) noexcept {
  if (!prepared.load(std::memory_order_acquire)) prepare_for_no_memory();
  return (*prepared.load(std::memory_order_acquire))[static_cast<std::size_t>(delivery)];
}

Error detail::no_memory(const char* purpose) noexcept {
  return error_or_no_memory(Delivery::not_sent,
                            [purpose] { return without_memory(std::string(" ") + purpose); });
}

ExitStatus detail::copy_of(const ExitStatus& status) noexcept try {
  return status;
} catch (const std::bad_alloc&) {
  ExitStatus copy;
  copy.pid = status.pid;
  copy.wait_status = status.wait_status;
  copy.cause = status.cause;
  copy.usage = status.usage;
  copy.crash = status.crash;
  copy.of_snapshot = status.of_snapshot;
  return copy;
}

Error::Error(Errc code, const std::string& text)
    : std::runtime_error(text), details_(std::make_shared<Details>(Details{code})) {}
Error::Error(const Error&) noexcept = default;
Error& Error::operator=(const Error&) noexcept = default;
Error::~Error() = default;

Errc Error::code() const noexcept {
  return details_->code;
}
Delivery Error::delivery() const noexcept {
  return details_->delivery;
}
int Error::os_error() const noexcept {
  return details_->os_error;
}
const std::optional<ExitStatus>& Error::exit() const noexcept {
  return details_->exit;
}
const std::string& Error::last_words() const noexcept {
  static const std::string none;
  return details_->exit ? details_->exit->last_words : none;
}
const std::string& Error::remote_type() const noexcept {
  return details_->remote_type;
}
const std::vector<StackFrame>& Error::backtrace() const noexcept {
  const std::optional<ExitStatus>& exit = details_->exit;
  return exit && exit->crash ? exit->crash->frames : details_->backtrace;
}

// Fails: std::bad_alloc.
template <class Change>
Error Error::changed(Change change) const {
  auto details = std::make_shared<Details>(*details_);
  change(*details);
  Error copy(*this);
  copy.details_ = std::move(details);
  return copy;
}

// Without memory it is the error that says so, because it is the end of a call.
// Fails: std::bad_alloc, before there is such an error.
Error Error::with_delivery(Delivery delivery) const {
  try {
    return changed([&](Details& details) { details.delivery = delivery; });
  } catch (const std::bad_alloc&) {
    if (!prepared.load(std::memory_order_acquire)) throw;
    return no_memory(delivery);
  }
}
Error Error::with_os_error(int number) const {
  return changed([&](Details& details) { details.os_error = number; });
}
Error Error::with_exit(const ExitStatus& status) const {
  return changed([&](Details& details) { details.exit = status; });
}
Error Error::with_remote_type(const std::string& type) const {
  return changed([&](Details& details) { details.remote_type = type; });
}
Error Error::with_backtrace(const std::vector<StackFrame>& frames) const {
  return changed([&](Details& details) { details.backtrace = frames; });
}

const char* to_string(Errc code) noexcept {
  switch (code) {
    case Errc::no_snapshot: return "no_snapshot";
    case Errc::refused: return "refused";
    case Errc::unknown_function: return "unknown_function";
    case Errc::spawn_failed: return "spawn_failed";
    case Errc::overloaded: return "overloaded";
    case Errc::remote_exception: return "remote_exception";
    case Errc::bad_message: return "bad_message";
    case Errc::too_large: return "too_large";
    case Errc::child_exited: return "child_exited";
    case Errc::child_killed: return "child_killed";
    case Errc::snapshot_lost: return "snapshot_lost";
    case Errc::closed: return "closed";
    case Errc::cancelled: return "cancelled";
    case Errc::deadline: return "deadline";
    case Errc::unhealthy: return "unhealthy";
  }
  return "unknown";
}

namespace {

const char* message_of(Errc code) noexcept {
  switch (code) {
    case Errc::no_snapshot: return "there is no snapshot";
    case Errc::refused: return "the set-up was refused";
    case Errc::unknown_function: return "the children do not have the function";
    case Errc::spawn_failed: return "the child could not be forked";
    case Errc::overloaded: return "a limit was reached";
    case Errc::remote_exception: return "the task threw an exception";
    case Errc::bad_message: return "a value could not be encoded or decoded";
    case Errc::too_large: return "the message is too large";
    case Errc::child_exited: return "the child exited before it answered";
    case Errc::child_killed: return "a signal ended the child";
    case Errc::snapshot_lost: return "the snapshot is dead";
    case Errc::closed: return "the other side has ended";
    case Errc::cancelled: return "the call was cancelled";
    case Errc::deadline: return "the deadline has passed";
    case Errc::unhealthy: return "the children cannot start, or do not stay alive";
  }
  return "unknown error";
}

class Category final : public std::error_category {
public:
  const char* name() const noexcept override { return "evparallel"; }
  std::string message(int value) const override { return message_of(static_cast<Errc>(value)); }

  // Only where the words of the system mean the same.
  std::error_condition default_error_condition(int value) const noexcept override {
    switch (static_cast<Errc>(value)) {
      case Errc::overloaded: return std::errc::resource_unavailable_try_again;
      case Errc::bad_message: return std::errc::bad_message;
      case Errc::too_large: return std::errc::message_size;
      case Errc::closed: return std::errc::broken_pipe;
      case Errc::cancelled: return std::errc::operation_canceled;
      case Errc::deadline: return std::errc::timed_out;
      default: return {value, *this};
    }
  }
};

}  // namespace

// Never destroyed: destructors of static objects may still use it.
const std::error_category& error_category() noexcept {
  alignas(Category) static unsigned char memory[sizeof(Category)];
  static const Category* const category = new (memory) Category;
  return *category;
}

std::error_code make_error_code(Errc code) noexcept {
  return {static_cast<int>(code), error_category()};
}

void detail::throw_no_error() {
  throw std::logic_error("evparallel: error() was called on a Result that holds a value");
}

const char* to_string(Delivery delivery) noexcept {
  switch (delivery) {
    case Delivery::not_sent: return "not_sent";
    case Delivery::sent: return "sent";
    case Delivery::started: return "started";
  }
  return "unknown";
}

const char* to_string(Cause cause) noexcept {
  switch (cause) {
    case Cause::normal: return "normal";
    case Cause::error: return "error";
    case Cause::crash: return "crash";
    case Cause::killed: return "killed";
    case Cause::terminated: return "terminated";
    case Cause::cancelled: return "cancelled";
    case Cause::deadline: return "deadline";
    case Cause::cpu_limit: return "cpu_limit";
    case Cause::out_of_memory: return "out_of_memory";
    case Cause::snapshot_lost: return "snapshot_lost";
    case Cause::not_started: return "not_started";
    case Cause::start_timeout: return "start_timeout";
  }
  return "unknown";
}

namespace {

bool has_wait_status(Cause cause) noexcept {
  return cause != Cause::snapshot_lost && cause != Cause::not_started;
}

}  // namespace

bool ExitStatus::exited() const noexcept {
  return has_wait_status(cause) && WIFEXITED(wait_status);
}
int ExitStatus::code() const noexcept {
  return WEXITSTATUS(wait_status);
}
bool ExitStatus::signalled() const noexcept {
  return has_wait_status(cause) && WIFSIGNALED(wait_status);
}
int ExitStatus::signal() const noexcept {
  return WTERMSIG(wait_status);
}
bool ExitStatus::core_dumped() const noexcept {
  return signalled() && WCOREDUMP(wait_status);
}

namespace {

// The part that the status alone does not say.
const char* reason(const ExitStatus& status) {
  switch (status.cause) {
    case Cause::killed: return ", sent by its handle";
    case Cause::terminated: return ", because it did not end in time";
    case Cause::cancelled: return ", because it did not leave a cancelled call";
    case Cause::deadline: return ", because its deadline had passed";
    case Cause::start_timeout: return ", because its start took longer than Options::start_timeout";
    case Cause::cpu_limit: return ": it reached its limit of processor time";
    case Cause::out_of_memory: return ": out of memory";
    case Cause::crash:
      if (status.of_snapshot) return ", not by this library";
      return status.signal() == SIGKILL ? ", sent from outside, perhaps because memory ran out"
                                        : "";
    default: return "";
  }
}

// The last line of its output, in a form that fits into a log.
std::string last_line(const std::string& words) {
  constexpr std::size_t longest = 200;
  if (words.empty()) return {};
  std::string line = words.substr(words.rfind('\n') + 1);
  if (line.size() > longest) line.replace(longest, line.npos, "...");
  for (char& c : line)
    if (static_cast<unsigned char>(c) < ' ' || c == '\x7f') c = '?';
  return "; its last words: " + line;
}

}  // namespace

std::string detail::end_in_words(const ExitStatus& status) {
  if (status.cause == Cause::snapshot_lost) return "was lost with its snapshot";
  if (status.exited() && status.code() == 0) return "ended normally" + std::string(reason(status));
  std::string text;
  if (status.exited()) {
    text = "exited with status " + std::to_string(status.code());
  } else {
    text = "was killed by " + signal_name(status.signal());
    if (status.core_dumped()) text += " (core dumped)";
  }
  return text + reason(status) + last_line(status.last_words);
}

std::string ExitStatus::describe() const {
  if (cause == Cause::not_started) return "the child could not be forked";
  return (of_snapshot ? "snapshot process " : "child ") + std::to_string(pid) + " " +
         end_in_words(*this);
}

}  // namespace evparallel
