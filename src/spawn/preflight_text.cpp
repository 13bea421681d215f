// preflight_text.cpp - a preflight report as text and as JSON.
// Runs in: parent.  Licence: see COPYING.
#include <evparallel/detail/json_document.hpp>
#include <evparallel/detail/json_text.hpp>
#include <evparallel/preflight.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace evparallel {

namespace {

bool is_control(char c) noexcept {
  return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
}

// Names of threads and files are arbitrary bytes; the result is text of one line.
std::string clean(std::string text) {
  std::replace_if(text.begin(), text.end(), is_control, '?');
  for (std::size_t bad; (bad = detail::find_bad_utf8(text)) < text.size();)
    text.replace(bad, 1, "\xEF\xBF\xBD");
  return text;
}

template <class Texts>
std::string joined(const Texts& texts, const char* separator) {
  std::string all;
  for (const std::string& text : texts)
    if (!text.empty()) all += (all.empty() ? "" : separator) + text;
  return all;
}

// Without /proc only the existence of threads is known.
std::string named(const PreflightReport::Thread& thread) {
  return (thread.tid > 0 ? "thread " + std::to_string(thread.tid) : "a thread") + " (" +
         thread.name + ")";
}

std::string named(const PreflightReport::Descriptor& descriptor) {
  return "descriptor " + std::to_string(descriptor.fd) + " (" + descriptor.kind + ")";
}

// ---- what prevents a snapshot, and what to do ----

std::string reason_of(const std::vector<PreflightReport::Thread>& threads) {
  std::vector<std::string> names;
  for (const auto& thread : threads) names.push_back(named(thread));
  return joined(names, ", ") + " would be missing in the snapshot: take the snapshot before the " +
         (threads.size() == 1 ? "thread starts" : "threads start");
}

const char* beginning_of(const std::string& kind) {
  if (kind == "eventpoll") return "the event loop is created";
  if (kind == "inotify") return "files are watched";
  if (kind == "io_uring") return "the ring is set up";
  return "the descriptor is opened";
}

std::string reason_of(const PreflightReport::Descriptor& descriptor) {
  return named(descriptor) + " would be shared with the snapshot: take the snapshot before " +
         beginning_of(descriptor.kind) + ", or close the descriptor";
}

// ---- text ----

std::string seconds_of(std::chrono::microseconds time) {
  std::string digits = std::to_string(time.count() % 1000000);
  digits.insert(0, 6 - digits.size(), '0');
  digits.erase(digits.find_last_not_of('0') + 1);
  return std::to_string(time.count() / 1000000) + (digits.empty() ? "" : "." + digits) + " s";
}

std::string line_of(const PreflightReport::Thread& thread) {
  return named(thread) + ": in the way";
}

std::string access_of(const PreflightReport::File& file) {
  const std::array<std::string, 3> modes = {file.read ? "read" : "", file.write ? "write" : "",
                                            file.append ? "append" : ""};
  return joined(modes, ", ");
}

// Only locks of POSIX belong to a process; all others belong to the open file.
std::string lock_text(const std::string& kind) {
  return kind + " lock, which children " +
         (kind == "POSIX" ? "do not have" : "share and can release");
}

std::string text_of(const PreflightReport::File& file) {
  std::vector<std::string> texts = {access_of(file)};
  for (const std::string& kind : file.locks) texts.push_back(lock_text(kind));
  if (file.database == "SQLite")
    texts.push_back("SQLite database: a child must open it anew and not use this connection");
  else if (!file.database.empty())
    texts.push_back("with a journal beside it: a child must open a database anew");
  return joined(texts, "; ");
}

std::string line_of(const PreflightReport::Descriptor& descriptor) {
  const std::string text = named(descriptor) + " " + descriptor.target;
  if (descriptor.refused) return text + ": in the way";
  const std::string details = descriptor.file ? text_of(*descriptor.file) : std::string();
  return details.empty() ? text : text + ": " + details;
}

std::string line_of(const PreflightReport::Handler& handler) {
  const std::string text = "signal " + handler.signal + ": ";
  if (handler.ignored) return text + "ignored";
  if (handler.module.empty()) return text + "handled";
  return text + "handled by " + handler.symbol + " in " + handler.module;
}

std::string line_of(const PreflightReport::Timer& timer) {
  return "timer " + timer.kind + (timer.id >= 0 ? " " + std::to_string(timer.id) : "") + ": " +
         seconds_of(timer.left) + " left" +
         (timer.interval.count() > 0 ? ", then every " + seconds_of(timer.interval) : "");
}

std::string line_of(const PreflightReport::Stream& stream) {
  return "stream " + stream.name + ": " + std::to_string(stream.pending) + " bytes are not flushed";
}

template <class Things>
void add_lines(std::string& text, const Things& things) {
  for (const auto& thing : things) text += clean(line_of(thing)) + "\n";
}

// ---- JSON ----

using Json = nlohmann::ordered_json;

Json json_of(const PreflightReport::Thread& thread) {
  return {{"tid", thread.tid}, {"name", clean(thread.name)}};
}

Json json_of(const PreflightReport::File& file) {
  Json locks = Json::array();
  for (const std::string& kind : file.locks) locks.push_back(clean(kind));
  return {{"read", file.read},
          {"write", file.write},
          {"append", file.append},
          {"locks", locks},
          {"database", clean(file.database)}};
}

Json json_of(const PreflightReport::Descriptor& descriptor) {
  return {{"fd", descriptor.fd},
          {"kind", clean(descriptor.kind)},
          {"target", clean(descriptor.target)},
          {"refused", descriptor.refused},
          {"file", descriptor.file ? json_of(*descriptor.file) : Json(nullptr)}};
}

Json json_of(const PreflightReport::Handler& handler) {
  return {{"signum", handler.signum},
          {"signal", clean(handler.signal)},
          {"ignored", handler.ignored},
          {"module", clean(handler.module)},
          {"symbol", clean(handler.symbol)}};
}

Json json_of(const PreflightReport::Timer& timer) {
  return {{"kind", clean(timer.kind)},
          {"id", timer.id},
          {"left_us", timer.left.count()},
          {"interval_us", timer.interval.count()}};
}

Json json_of(const PreflightReport::Stream& stream) {
  return {{"name", clean(stream.name)}, {"pending", stream.pending}};
}

template <class Things>
Json list_of(const Things& things) {
  Json list = Json::array();
  for (const auto& thing : things) list.push_back(json_of(thing));
  return list;
}

}  // namespace

bool PreflightReport::in_the_way() const noexcept {
  return !threads.empty() || std::any_of(descriptors.begin(), descriptors.end(),
                                         [](const Descriptor& d) { return d.refused; });
}

std::string PreflightReport::describe() const {
  std::vector<std::string> reasons;
  if (!threads.empty()) reasons.push_back(reason_of(threads));
  for (const Descriptor& descriptor : descriptors)
    if (descriptor.refused) reasons.push_back(reason_of(descriptor));
  return clean(joined(reasons, "; "));
}

std::string PreflightReport::text() const {
  std::string text;
  add_lines(text, threads);
  add_lines(text, descriptors);
  add_lines(text, handlers);
  add_lines(text, timers);
  add_lines(text, streams);
  return text;
}

std::string PreflightReport::json() const {
  return Json{{"in_the_way", in_the_way()},          {"threads", list_of(threads)},
              {"descriptors", list_of(descriptors)}, {"descriptors_known", descriptors_known},
              {"handlers", list_of(handlers)},       {"timers", list_of(timers)},
              {"timers_known", timers_known},        {"streams", list_of(streams)}}
      .dump();
}

}  // namespace evparallel
