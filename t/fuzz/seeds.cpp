// seeds.cpp - writes the seeds of all targets: messages as the library encodes them, and scripts that reach far.
//
// Usage: seeds FOLDER.  Writes FOLDER/TARGET/NAME; the same bytes each time.  The formats of the inputs are those of the
// targets.
#include <evparallel/evparallel.hpp>

#include "base/clock.hpp"
#include "codec/frame.hpp"
#include "codec/remote_error.hpp"
#include "codec/task_frame.hpp"
#include "codec/wire.hpp"

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

using namespace evparallel;
using detail::FrameKind;

namespace {

std::filesystem::path folder;
int failed = 0;

void write(const char* target, const char* name, const std::string& bytes) {
  std::filesystem::create_directories(folder / target);
  std::ofstream file(folder / target / name, std::ios::binary);
  file << bytes;
  if (file.flush()) return;
  std::fprintf(stderr, "%s/%s cannot be written\n", target, name);
  failed = 1;
}

// ---- pieces ----

std::string bytes(std::initializer_list<int> all) {
  std::string text;
  for (const int one : all) text += static_cast<char>(one);
  return text;
}

template <class T>
std::string raw(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof value);
}

std::string counted(const std::string& text) {
  return bytes({static_cast<int>(text.size())}) + text;
}

std::string frame(FrameKind kind, std::uint64_t id, const std::string& body,
                  unsigned attached = 0) {
  return raw(body.size() | std::uint64_t{static_cast<std::uint8_t>(kind)} << 48 |
             std::uint64_t{attached} << 56) +
         raw(id) + body;
}

template <class Codec, class T>
std::string encoded(const T& value) {
  Writer out;
  detail::encode<Codec>(out, value);
  return std::string(out.written()).append(out.adopted());
}

std::string error_body(const Error& error) {
  Writer out;
  detail::write_error(out, error);
  return std::string(out.written());
}

// ---- frames and errors ----

void write_frames() {
  const std::string call = frame(FrameKind::call, 1, "argument");
  const std::string calls = call + frame(FrameKind::call, 2, "") + frame(FrameKind::ping, 3, "");
  const std::string end = frame(FrameKind::end, 0, "");
  const std::string any_size = bytes({255, 7, 0, 0});
  write("frame", "calls",
        any_size + frame(FrameKind::task, 0, std::string(104, '\0')) + calls + end);
  write("frame", "answers",
        any_size + frame(FrameKind::value, 1, "7") +
            frame(FrameKind::error, 2, error_body(Error(Errc::remote_exception, "no"))) + end);
  write("frame", "descriptors", any_size + frame(FrameKind::message, 0, "files", 2) + end);
  write("frame", "body_above_the_limit", bytes({2, 7, 0, 0}) + calls + end);
  write("frame", "error_above_the_limit",
        bytes({2, 7, 0, 0}) + frame(FrameKind::error, 1, std::string(200, 'e')) + end);
  write(
      "frame", "long_body",
      bytes({255, 7, 0, 255}) + frame(FrameKind::value, 1, std::string(300000, 'x')).substr(0, 80));
  write("frame", "long_body_above_the_limit",
        bytes({20, 7, 0, 254}) + frame(FrameKind::value, 1, std::string(90000, 'x')).substr(0, 80));
  write("frame", "unknown_kind", any_size + call + frame(static_cast<FrameKind>(99), 1, "?"));
  write("frame", "torn", any_size + calls + call.substr(0, 20));
}

Error with_all_details() {
  std::vector<StackFrame> frames(3);
  for (std::size_t i = 0; i < frames.size(); ++i)
    frames[i].address = reinterpret_cast<const void*>(0x1000 * (i + 1));
  return Error(Errc::remote_exception, "std::runtime_error: disk full")
      .with_remote_type("std::runtime_error")
      .with_delivery(Delivery::started)
      .with_os_error(28)
      .with_backtrace(frames);
}

void write_errors() {
  write("remote_error", "plain", error_body(Error(Errc::bad_message, "bad message")));
  write("remote_error", "all_details", error_body(with_all_details()));
  write("remote_error", "no_text", error_body(Error(Errc::cancelled, "")));
  write("remote_error", "unknown_code", error_body(Error(static_cast<Errc>(1000), "?")));
}

void write_tasks() {
  detail::TaskFrame head;
  head.max_message = 4096;
  head.deadline = detail::no_deadline;
  const std::string bound = raw(std::uint64_t{6}) + "\"text\"" + raw(std::uint64_t{5}) + "[1,2]";
  const auto body = [&](const std::string& environment, const std::string& callable) {
    Writer out;
    detail::write_task_frame(out, head, environment, callable);
    return std::string(out.written());
  };
  write("task_frame", "bound_arguments", body("", bound));
  write("task_frame", "environment",
        body(std::string("name\0/tmp\0"
                         "0,1\0A=b\0",
                         18),
             bound));
  detail::StartHead start;
  start.start_size = bound.size();
  write("task_frame", "start", body("", raw(start) + bound + bound));
}

// ---- codecs ----

struct Job {
  int width = 640;
  std::string name = "job";
  std::vector<double> values{1.5, -2};
  bool done = true;
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Job, width, name, values, done)
EVPARALLEL_FIELDS(Job, width, name, values, done)

using Numbers = std::vector<int>;
using Texts = std::vector<std::string>;
using Indices = std::vector<std::uint32_t>;  // of descriptors, as a codec writes them
using Table = std::map<std::string, std::vector<std::uint16_t>>;
using Mixed = std::tuple<int, std::string, std::optional<double>, std::pair<bool, std::int8_t>>;
using Either = std::variant<std::monostate, int, std::string, std::vector<int>>;

const Table table{{"one", {1}}, {"two", {2, 65535}}};
const Mixed mixed{-1, "text", 0.5, {true, -128}};

// A codec, a type, the limit of a document, descriptors.
std::string head(int codec, int type, int descriptors = 0) {
  return bytes({codec, type, 4, descriptors});
}

void write_texts() {
  write("codecs", "json_number", head(0, 0) + "-17");
  write("codecs", "json_number_of_a_byte", head(0, 1) + "200");
  write("codecs", "json_number_out_of_range", head(0, 3) + "2e22");
  write("codecs", "json_largest_number", head(0, 4) + "18446744073709551615");
  write("codecs", "json_fraction", head(0, 6) + "-0.1e-7");
  write("codecs", "json_text",
        head(0, 8) + encoded<JsonIo<std::string>>(std::string("a\n\"\u00e4\"")));
  write("codecs", "json_numbers", head(0, 9) + encoded<JsonIo<Numbers>>(Numbers{1, -2, 3}));
  write("codecs", "json_rows", head(0, 10) + "[[1,2.5],[],[1e300]]");
  write("codecs", "json_texts", head(0, 11) + R"(["a","\u00e4\ud83d\ude00",""])");
  write("codecs", "json_table", head(0, 12) + encoded<JsonIo<Table>>(table));
  write("codecs", "json_mixed", head(0, 13) + encoded<JsonIo<Mixed>>(mixed));
  write("codecs", "json_struct", head(0, 14) + encoded<JsonIo<Job>>(Job{}));
  write("codecs", "json_document", head(0, 15) + R"({"a":[null,true,{"b":1e5}],"":-1})");
  write("codecs", "json_nested", head(0, 15) + std::string(300, '[') + std::string(300, ']'));
  write("codecs", "json_either", head(0, 16) + encoded<JsonIo<Either>>(Either(Numbers{1})));
}

template <template <class> class Codec>
void write_documents(int codec, const std::string& name) {
  const auto put = [&](const char* what, int type, const std::string& message) {
    write("codecs", (name + what).c_str(), head(codec, type) + message);
  };
  put("_number", 0, encoded<Codec<int>>(70000));
  put("_table", 4, encoded<Codec<Table>>(table));
  put("_mixed", 5, encoded<Codec<Mixed>>(mixed));
  put("_struct", 6, encoded<Codec<Job>>(Job{}));
  put("_either", 8, encoded<Codec<Either>>(Either(std::string("text"))));
}

void write_binaries() {
  write_documents<CborIo>(1, "cbor");
  write_documents<MsgpackIo>(2, "msgpack");
  write("codecs", "cbor_endless_items", head(1, 7) + bytes({0x9f, 1, 0x7f, 0x61, 'a', 0xff, 0xff}));
  write("codecs", "packed_table", head(3, 3) + encoded<PackedIo<Table>>(table));
  write("codecs", "packed_mixed", head(3, 4) + encoded<PackedIo<Mixed>>(mixed));
  write("codecs", "packed_either", head(3, 5) + encoded<PackedIo<Either>>(Either(Numbers{1})));
  write("codecs", "packed_struct", head(3, 6) + encoded<PackedIo<Job>>(Job{}));
  write("codecs", "packed_texts", head(3, 8) + encoded<PackedIo<Texts>>(Texts{"one", "", "three"}));
  using RawTuple = std::tuple<int, std::string, std::vector<std::int64_t>>;
  write("codecs", "raw_tuple", head(4, 5) + encoded<RawIo<RawTuple>>(RawTuple{1, "text", {2}}));
  write("codecs", "raw_texts", head(4, 4) + encoded<RawIo<Texts>>(Texts{"one", "", "three"}));
  // A count, and the index of each descriptor.
  write("codecs", "two_files", head(5, 0, 5) + encoded<PackedIo<Indices>>(Indices{0, 1}));
  write("codecs", "shared_bytes", head(5, 1, 2) + raw(std::uint32_t{0}));
  write("codecs", "shared_bytes_without_seals", head(5, 1, 3) + raw(std::uint32_t{0}));
  write("codecs", "files_in_json", head(5, 2, 5) + "[1,0]");
  Writer out;
  detail::Arguments<DefaultIo, int, std::string, Numbers>::put_copy(out, 7, "text", {1, 2});
  write("codecs", "arguments", head(6, 0) + std::string(out.written()));
}

// ---- scripts ----

std::string spawn(int client = 0) {
  return bytes({1, client}) + raw(std::uint32_t{0}) + bytes({0});
}

std::string about_child(detail::RequestKind kind, int id, int signum) {
  return bytes({3, 0, static_cast<int>(kind), id, 0, 0, signum, 5}) + raw(std::int16_t{5}) +
         raw(std::int16_t{5}) + bytes({1, 0, 0, 0});
}

void write_requests() {
  using detail::RequestKind;
  const std::string read = bytes({8, 0});
  const std::string time_passes = bytes({9, 10});
  const std::string child_ends = bytes({6, 0, 0});
  write("control", "children_that_end",
        spawn() + spawn() + read + child_ends + child_ends + read + spawn() + read);
  write("control", "signals",
        spawn() + about_child(RequestKind::kill, 1, 15) + about_child(RequestKind::kill, 1, 9) +
            read);
  write("control", "clocks",
        spawn() + about_child(RequestKind::terminate, 1, 0) + time_passes + time_passes + read);
  write("control", "call_that_hangs",
        spawn() + bytes({7, 0, 3, 0}) + raw(std::int64_t{1}) + bytes({0, 1}) +
            about_child(RequestKind::kill_if_still_running, 1, 0) + time_passes + time_passes +
            read);
  write("control", "start_that_hangs",
        spawn() + about_child(RequestKind::kill_if_not_started, 1, 0) + time_passes + time_passes +
            read);
  write("control", "streams",
        bytes({1, 0}) + raw(std::uint32_t{7}) + bytes({0}) + read + child_ends + read);
  write("control", "lost_streams", bytes({2, 0}) + raw(std::uint32_t{7}) + bytes({0, 1}) + read);
  write("control", "no_fork", bytes({10, 1}) + spawn() + read);
  write("control", "further_reactor",
        bytes({12, 2}) + spawn(1) + bytes({8, 1}) + child_ends + bytes({8, 1}) +
            about_child(RequestKind::leave, 1, 0) + bytes({11, 1}));
  write("control", "strange_socket", bytes({12, 0, 12, 1, 14, 2, 255, 1, 0}) + spawn() + read);
  write("control", "short_packet", spawn() + bytes({5, 0, 0, 0}) + counted("short") + read);
  write("control", "long_packet",
        spawn() + bytes({5, 0, 0, 0}) + counted(std::string(81, 1)) + read);
  write("control", "stop", spawn() + about_child(RequestKind::stop, 0, 0) + child_ends + read);
  write("control", "replica",
        bytes({3, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1}) + spawn() + read);
}

// An order of the world of a parent, behind the byte that says whose turn it is.
std::string world(const std::string& order) {
  return bytes({2}) + order;
}
const std::string child_runs = world(bytes({1, 0, 0}));
const std::string child_exits = world(bytes({3, 0, 0, 0}));
const std::string child_crashes = world(bytes({3, 0, 134, 2}));

std::string answer(const std::string& body) {
  return world(bytes({7, 0, 0, 2}) + counted(body));
}

void write_parents() {
  const auto put = [](const char* name, int kind, int bits, const std::string& script) {
    write("parent", name, bytes({kind, bits}) + script);
  };
  const std::string call = bytes({0, 0});
  const std::string number = raw(8);
  put("answers", 0, 64, child_runs + answer(number) + call + answer(number) + child_exits);
  put("text", 1, 64, child_runs + answer("\"so!\""));
  put("error", 1, 64, child_runs + world(bytes({7, 0, 0, 0, 6}) + counted("text") + bytes({2, 0})));
  put("crash", 0, 64 + 4,
      child_runs + world(bytes({12, 0, 3, 0}) + raw(std::int64_t{1}) + bytes({0, 1})) +
          world(bytes({13, 0, 11, 1}) + raw(std::uint64_t{0}) +
                bytes({3, 1, 16, 0, 1, 32, 0, 1, 48, 0, 1})) +
          child_crashes);
  put("crash_before_the_call", 0, 64 + 3, child_runs + child_crashes + child_runs + answer(number));
  put("captured", 0, 64 + 8,
      child_runs + world(bytes({14, 0, 0}) + counted("line\nand a half")) + answer(number) +
          child_exits);
  put("deadline", 0, 64 + 16, child_runs + call + answer(number));
  put("cancelled", 0, 64, child_runs + bytes({0, 2, 0}) + answer(number));
  put("files", 2, 64,
      child_runs +
          world(bytes({6, 0, 3, 0, 2, 2}) + counted(encoded<PackedIo<Indices>>(Indices{0, 1}))));
  put("descriptors_nobody_wants", 0, 64,
      child_runs + world(bytes({6, 0, 3, 0, 0, 3}) + counted(number)));
  put("later", 3, 64, child_runs + call + answer(number) + answer(number));
  put("pool", 4, 64,
      child_runs + call + call + world(bytes({1, 1, 1})) + answer(number) + answer(number) +
          child_crashes);
  put("pool_that_cannot_start", 5, 64, child_runs + child_crashes + child_crashes);
  put("end_frame", 0, 64, child_runs + world(bytes({5, 0, 6, 128, 0})));
  put("torn_answer", 0, 64,
      child_runs +
          world(bytes({4, 0}) + counted(frame(FrameKind::value, 1, number).substr(0, 18)) +
                bytes({1})) +
          child_exits);
  put("conversation", 6, 64,
      child_runs + bytes({0, 5, 3}) + world(bytes({5, 0, 5, 128}) + counted("text")) +
          world(bytes({5, 0, 6, 128, 0})) + child_exits);
  put("snapshot_lost", 4, 0, child_runs + call + world(bytes({15, 0, 0})));
  put("dropped", 4, 64 + 32, child_runs + call);
}

void write_pools() {
  const std::string chunk = bytes({5, 1, 1, 3}) + counted("one") + bytes({0}) + counted("two") +
                            bytes({0}) + counted("") + bytes({0});
  const std::string call = bytes({2, 2}) + counted("text");
  write("pool_wire", "calls", bytes({0}) + call + call);
  write("pool_wire", "chunks", bytes({0}) + chunk + call + chunk);
  write("pool_wire", "long_arguments",
        bytes({0, 4, 1}) + bytes({2, 2}) + counted(std::string(120, 'x')) + call);
  write("pool_wire", "torn_chunk",
        bytes({0, 5, 1, 1, 1}) + counted("one") + bytes({255}) + raw(std::uint32_t{900}) + call);
  write("pool_wire", "end", bytes({0}) + call + bytes({1, 6}) + counted("") + call);
  write("pool_wire", "unknown_frame",
        bytes({0}) + call + bytes({0, 0}) + counted(frame(static_cast<FrameKind>(99), 0, "")));
  const std::string answers = world(bytes({7, 0, 0, 1, 0, 3, 7, 7, 7, 7}));
  const auto put = [&](const char* name, int bits, const std::string& script) {
    write("pool_wire", name, bytes({1, bits, 4, 11}) + script);
  };
  put("map", 128, child_runs + answers + answers + answers);
  put("map_in_order", 128 + 8 + 1, child_runs + world(bytes({1, 1, 1})) + answers + answers);
  put("map_that_repeats", 128 + 16 + 4 + 2, child_runs + answers + child_crashes);
  put("map_that_stops", 128 + 32, child_runs + world(bytes({7, 0, 0, 1, 0, 1, 1, 1})));
  put("map_paused", 128, child_runs + bytes({1}) + answers + bytes({1}) + answers);
  put("too_many_answers", 128,
      child_runs + world(bytes({7, 0, 0, 1, 0, 9, 7, 7, 7, 7, 7, 7, 7, 7, 7})));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
    return 2;
  }
  folder = argv[1];
  write_frames();
  write_errors();
  write_tasks();
  write_texts();
  write_binaries();
  write_requests();
  write_parents();
  write_pools();
  return failed;
}
