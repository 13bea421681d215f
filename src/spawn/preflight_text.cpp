// preflight_text.cpp - a preflight report as text and as JSON.
// Runs in: parent.  Licence: see COPYING.
#include <evparallel/detail/json_text.hpp>
#include <evparallel/preflight.hpp>

#include <algorithm>
#include <string_view>

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

std::string named(const PreflightReport::Thread& thread) {
  return "thread " + std::to_string(thread.tid) + " (" + thread.name + ")";
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

std::string line_of(const PreflightReport::Descriptor& descriptor) {
  return "descriptor " + std::to_string(descriptor.fd) + " (" + descriptor.kind + ") " +
         descriptor.target + (descriptor.refused ? ": in the way" : "");
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
  return "stream " + stream.name + ": " + std::to_string(stream.pending) + " bytes to be flushed";
}

template <class Things>
void add_lines(std::string& text, const Things& things) {
  for (const auto& thing : things) text += clean(line_of(thing)) + "\n";
}

// ---- JSON ----

class Json {
public:
  Json& open(char bracket) {
    separate();
    out_.write(std::string_view(&bracket, 1));
    first_ = true;
    return *this;
  }
  Json& close(char bracket) {
    out_.write(std::string_view(&bracket, 1));
    first_ = false;
    return *this;
  }
  Json& key(std::string_view name) {
    separate();
    detail::write_json(out_, name);
    out_.write(":");
    first_ = true;  // of the value that follows
    return *this;
  }
  template <class T>
  Json& member(std::string_view name, const T& value) {
    key(name);
    if constexpr (std::is_same_v<T, std::string>)
      detail::write_json(out_, std::string_view(clean(value)));
    else
      detail::JsonForm<T>::put(out_, value);
    first_ = false;
    return *this;
  }
  template <class Things, class Put>
  Json& array(std::string_view name, const Things& things, Put put) {
    key(name).open('[');
    for (const auto& thing : things) {
      open('{');
      put(thing);
      close('}');
    }
    return close(']');
  }
  std::string text() { return std::move(out_.bytes()); }

private:
  void separate() {
    if (!std::exchange(first_, false)) out_.write(",");
  }
  Writer out_;
  bool first_ = true;
};

}  // namespace

bool PreflightReport::in_the_way() const noexcept {
  return !threads.empty() || std::any_of(descriptors.begin(), descriptors.end(),
                                         [](const Descriptor& d) { return d.refused; });
}

std::string PreflightReport::describe() const {
  std::string text;
  const auto add = [&text](const std::string& what) {
    text += (text.empty() ? "" : ", ") + clean(what);
  };
  for (const Thread& thread : threads) add(named(thread));
  for (const Descriptor& descriptor : descriptors)
    if (descriptor.refused)
      add("descriptor " + std::to_string(descriptor.fd) + " (" + descriptor.kind + ")");
  return text;
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
  Json json;
  json.open('{').member("in_the_way", in_the_way());
  json.array("threads", threads, [&](const Thread& thread) {
    json.member("tid", thread.tid).member("name", thread.name);
  });
  json.array("descriptors", descriptors, [&](const Descriptor& descriptor) {
    json.member("fd", descriptor.fd).member("kind", descriptor.kind);
    json.member("target", descriptor.target).member("refused", descriptor.refused);
  });
  json.member("descriptors_known", descriptors_known);
  json.array("handlers", handlers, [&](const Handler& handler) {
    json.member("signum", handler.signum).member("signal", handler.signal);
    json.member("ignored", handler.ignored).member("module", handler.module);
    json.member("symbol", handler.symbol);
  });
  json.array("timers", timers, [&](const Timer& timer) {
    json.member("kind", timer.kind).member("id", timer.id);
    json.member("left_us", static_cast<std::int64_t>(timer.left.count()));
    json.member("interval_us", static_cast<std::int64_t>(timer.interval.count()));
  });
  json.member("timers_known", timers_known);
  json.array("streams", streams, [&](const Stream& stream) {
    json.member("name", stream.name).member("pending", stream.pending);
  });
  return json.close('}').text();
}

}  // namespace evparallel
