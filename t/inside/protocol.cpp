// protocol.cpp - compares the tables of evparallel_protocol(7), read from the page, with the code.
//
// In both directions: it finds a wrong number, an extra row, and a field or a kind without a row.
#include "private_names.hpp"
#include "testing.hpp"

#include "backtrace/crash_record.hpp"
#include "codec/frame.hpp"
#include "shared/cancel_table.hpp"
#include "codec/remote_error.hpp"
#include "shared/child_slots.hpp"
#include "codec/task_frame.hpp"
#include "codec/wire.hpp"
#include "system/stdio_plan.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <ostream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

// A new enumerator must not compile before it has a case here; then it needs its row.
#pragma GCC diagnostic error "-Wswitch"

using namespace evparallel;

namespace {

// ---- the page ----

using TableRow = std::vector<std::string>;

struct Table {
  std::string heads;  // the column heads: "Offset Size Field Meaning"
  std::vector<TableRow> rows;
};

struct Section {
  std::string text;  // on one line
  std::vector<Table> tables;
};

// "Sy Offset", "Vt Errc", "spawn": the displayed text, as far as these tables need it.
std::string shown(std::string cell) {
  for (const char* macro : {"Sy ", "Vt ", "Va ", "Li ", "Fn "})
    if (cell.rfind(macro, 0) == 0) cell.erase(0, std::strlen(macro));
  return cell;
}

TableRow row_of(const std::string& line) {
  TableRow cells(1);
  std::istringstream words(line);
  for (std::string word; words >> word;) {
    if (word == "Ta")
      cells.emplace_back();
    else
      cells.back() += (cells.back().empty() ? "" : " ") + word;
  }
  for (std::string& cell : cells) cell = shown(cell);
  return cells;
}

std::map<std::string, Section> read_page() {
  const char* srcdir = std::getenv("srcdir");
  const std::string path = std::string(srcdir ? srcdir : ".") + "/man/evparallel_protocol.7";
  std::ifstream file(path);
  if (!file) throw std::runtime_error(path + " cannot be read; srcdir says where it is");
  std::map<std::string, Section> sections;
  Section* section = nullptr;
  bool in_table = false;
  for (std::string line; std::getline(file, line);) {
    if (line.rfind(".Ss ", 0) == 0) section = &sections[line.substr(4)];
    if (!section) continue;
    if (line.rfind(".Bl -column", 0) == 0) {
      section->tables.emplace_back();
      in_table = true;
    } else if (line.rfind(".El", 0) == 0) {
      in_table = false;
    } else if (in_table && line.rfind(".It ", 0) == 0) {
      Table& table = section->tables.back();
      const TableRow row = row_of(line.substr(4));
      if (table.heads.empty())
        for (const auto& cell : row) table.heads += (table.heads.empty() ? "" : " ") + cell;
      else
        table.rows.push_back(row);
    } else {
      section->text += line + " ";
    }
  }
  return sections;
}

const Section& section(const std::string& name) {
  static const auto page = read_page();
  const auto found = page.find(name);
  if (found == page.end()) throw std::runtime_error("the page has no section " + name);
  return found->second;
}

const std::vector<TableRow>& rows_of(const std::string& name, const std::string& first_head) {
  for (const Table& table : section(name).tables)
    if (table.heads.rfind(first_head + " ", 0) == 0) return table.rows;
  throw std::runtime_error("section " + name + " has no table of " + first_head);
}

bool says(const std::string& name, const std::string& text) {
  return section(name).text.find(text) != std::string::npos;
}

// ---- structures ----

struct Field {
  std::string name;
  std::size_t offset;
  std::size_t size;
  bool operator==(const Field& other) const {
    return name == other.name && offset == other.offset && size == other.size;
  }
};

std::ostream& operator<<(std::ostream& out, const Field& field) {
  return out << field.name << " at " << field.offset << ", " << field.size << " bytes";
}

std::vector<Field> documented_fields(const std::string& name) {
  std::vector<Field> fields;
  for (const TableRow& row : rows_of(name, "Offset"))
    if (!row.at(1).empty()) fields.push_back({row.at(2), std::stoul(row[0]), std::stoul(row[1])});
  return fields;
}

#define FIELD(type, name)                           \
  Field {                                           \
#name, offsetof(type, name), sizeof(type::name) \
  }

// The fields in the code leave no gap: the size shows a missing field.
void compare(const std::string& name, std::size_t size, const std::vector<Field>& fields) {
  const std::vector<Field> reported = documented_fields(name);
  BOOST_TEST(reported == fields, boost::test_tools::per_element());
  std::size_t at = 0;
  for (const Field& field : reported) {
    BOOST_TEST(field.offset == at, field.name << " stands at " << at);
    at = field.offset + field.size;
  }
  BOOST_TEST(at == size, name << " has " << size << " bytes, and rows for " << at);
}

// Structures in shared memory end with unused bytes, which have a row without a name.
void compare_shared(const std::string& name, std::size_t size, const std::vector<Field>& fields) {
  std::vector<Field> reported = documented_fields(name);
  BOOST_REQUIRE(!reported.empty());
  BOOST_TEST(reported.back().name == "");
  BOOST_TEST(reported.back().offset + reported.back().size == size);
  reported.pop_back();
  BOOST_TEST(reported == fields, boost::test_tools::per_element());
  BOOST_TEST(says(name, " of " + std::to_string(size) + " bytes"));
}

// ---- enumerations ----

std::string name_of(RequestKind kind) {
  switch (kind) {
    case RequestKind::spawn: return "spawn";
    case RequestKind::kill: return "kill";
    case RequestKind::terminate: return "terminate";
    case RequestKind::kill_if_still_running: return "kill_if_still_running";
    case RequestKind::stop: return "stop";
    case RequestKind::stop_without_reports: return "stop_without_reports";
    case RequestKind::kill_if_not_started: return "kill_if_not_started";
    case RequestKind::fork_replica: return "fork_replica";
    case RequestKind::leave: return "leave";
  }
  return {};
}

std::string name_of(ReportKind kind) {
  switch (kind) {
    case ReportKind::spawned: return "spawned";
    case ReportKind::failed: return "failed";
    case ReportKind::exited: return "exited";
    case ReportKind::orphans: return "orphans";
    case ReportKind::refused_to_wait: return "refused_to_wait";
    case ReportKind::begun: return "begun";
    case ReportKind::replica_forked: return "replica_forked";
  }
  return {};
}

std::string name_of(FrameKind kind) {
  switch (kind) {
    case FrameKind::task: return "task";
    case FrameKind::call: return "call";
    case FrameKind::value: return "value";
    case FrameKind::error: return "error";
    case FrameKind::message: return "message";
    case FrameKind::end: return "end";
    case FrameKind::ping: return "ping";
  }
  return {};
}

// The causes that a snapshot can report; the client finds the others.
std::string name_of(Cause cause) {
  switch (cause) {
    case Cause::normal:
    case Cause::error:
    case Cause::crash:
    case Cause::killed:
    case Cause::terminated:
    case Cause::cancelled:
    case Cause::deadline:
    case Cause::cpu_limit:
    case Cause::start_timeout: return to_string(cause);
    case Cause::out_of_memory:
    case Cause::snapshot_lost:
    case Cause::not_started: return {};
  }
  return {};
}

template <class Enum>
std::map<std::string, std::string> numbers_of() {
  std::map<std::string, std::string> numbers;
  for (unsigned i = 0; i < 256; ++i) {
    const std::string name = name_of(static_cast<Enum>(i));
    if (!name.empty()) numbers[name] = std::to_string(i);
  }
  return numbers;
}

using Numbers = std::map<std::string, std::string>;

Numbers documented_numbers(const std::string& name) {
  Numbers numbers;
  for (const TableRow& row : rows_of(name, "Kind")) numbers[row.at(1)] = row.at(0);
  return numbers;
}

std::string text_of(const Numbers& numbers) {
  std::string text;
  for (const auto& item : numbers) text += item.second + " " + item.first + "; ";
  return text;
}

// ---- bytes ----

// The `size` bytes at `offset` as one number in host order.
std::uint64_t number_at(const std::string& bytes, std::size_t offset, std::size_t size) {
  std::uint64_t number = 0;
  BOOST_REQUIRE(offset + size <= bytes.size());
  BOOST_REQUIRE(size <= sizeof number);
  std::memcpy(&number, bytes.data() + offset, size);
  return number;
}

}  // namespace

BOOST_AUTO_TEST_CASE(a_table_row_is_split_into_cells) {
  BOOST_TEST(row_of("8 Ta 8 Ta id Ta Li exited : No a wait status") ==
                 (TableRow{"8", "8", "id", "exited : No a wait status"}),
             boost::test_tools::per_element());
  BOOST_TEST(row_of("16 Ta Ta body Ta") == (TableRow{"16", "", "body", ""}),
             boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(a_request_has_its_documented_layout) {
  compare("Request", sizeof(Request),
          {FIELD(Request, kind), FIELD(Request, slot), FIELD(Request, id), FIELD(Request, seen),
           FIELD(Request, signum), FIELD(Request, cause), FIELD(Request, grace_ms),
           FIELD(Request, linger_ms), FIELD(Request, call), FIELD(Request, ping),
           FIELD(Request, seed), FIELD(Request, streams), FIELD(Request, group)});
  BOOST_TEST(stream_comes(2) == 4U);
  BOOST_TEST(stream_null(0) == 8U);
  BOOST_TEST(stream_by_lines(2) == 256U);
  BOOST_TEST(says("Request", "One packet of " + std::to_string(sizeof(Request)) + " bytes."));
}

BOOST_AUTO_TEST_CASE(a_report_has_its_documented_layout) {
  compare("Report", sizeof(Report),
          {FIELD(Report, kind), FIELD(Report, slot), FIELD(Report, id), FIELD(Report, pid),
           FIELD(Report, code), FIELD(Report, cause), FIELD(Report, reserved),
           FIELD(Report, user_us), FIELD(Report, system_us), FIELD(Report, max_rss),
           FIELD(Report, minor_faults), FIELD(Report, major_faults), FIELD(Report, born_before)});
  BOOST_TEST(says("Report", "One packet of " + std::to_string(sizeof(Report)) + " bytes."));
}

BOOST_AUTO_TEST_CASE(kinds_have_their_documented_numbers) {
  BOOST_TEST(text_of(documented_numbers("Request")) == text_of(numbers_of<RequestKind>()));
  BOOST_TEST(text_of(documented_numbers("Report")) == text_of(numbers_of<ReportKind>()));
  BOOST_TEST(text_of(documented_numbers("Frames")) == text_of(numbers_of<FrameKind>()));
}

// They are in the row of their field: "0 normal, 1 error, ...".
BOOST_AUTO_TEST_CASE(causes_have_their_documented_numbers) {
  std::string reported;
  for (const TableRow& row : rows_of("Report", "Offset"))
    if (row.at(2) == "cause") reported = row.at(3);
  std::string all;
  for (unsigned i = 0; i < 256; ++i) {
    const std::string name = name_of(static_cast<Cause>(i));
    if (!name.empty()) all += (all.empty() ? "" : ", ") + std::to_string(i) + " " + name;
  }
  BOOST_TEST(reported == "exited : No " + all);
}

BOOST_AUTO_TEST_CASE(the_header_of_a_frame_has_its_documented_layout) {
  const std::uint64_t id = 0x0102030405060708;
  const std::string body(300, 'x');
  Writer message;
  message.write(body);
  for (int i = 0; i < 3; ++i) message.attach(i, nullptr);
  FrameQueue queue;
  queue.push(FrameKind::value, id, message);
  BOOST_TEST(queue.along()->size() == 3U);
  std::string bytes;
  while (!queue.empty()) {
    ByteSpan piece;
    BOOST_REQUIRE(queue.front(&piece, 1) == 1);
    bytes.append(piece.data, piece.size);
    queue.written(piece.size);
  }

  std::size_t at = 0;
  std::vector<std::string> names;
  for (const TableRow& row : rows_of("Frames", "Offset")) {
    const std::string& name = row.at(2);
    const std::size_t offset = std::stoul(row.at(0));
    BOOST_TEST(offset == at);
    names.push_back(name);
    if (name == "body") {
      BOOST_TEST(row.at(1) == "");
      BOOST_TEST(bytes.substr(offset) == body);
      continue;
    }
    const std::size_t size = std::stoul(row.at(1));
    at = offset + size;
    const std::uint64_t number = number_at(bytes, offset, size);
    if (name == "length") BOOST_TEST(number == body.size());
    if (name == "kind") BOOST_TEST(number == static_cast<unsigned>(FrameKind::value));
    if (name == "attached") BOOST_TEST(number == 3U);
    if (name == "id") BOOST_TEST(number == id);
  }
  const std::vector<std::string> expected = {"length", "kind", "attached", "id", "body"};
  BOOST_TEST(names == expected, boost::test_tools::per_element());
  BOOST_TEST(at == frame_header_size);
  BOOST_TEST(says("Frames", "A header of " + std::to_string(frame_header_size) + " bytes"));
}

BOOST_AUTO_TEST_CASE(the_body_of_a_task_has_its_documented_layout) {
  compare("Body of a task", sizeof(TaskFrame),
          {FIELD(TaskFrame, entry), FIELD(TaskFrame, max_message), FIELD(TaskFrame, max_decoded),
           FIELD(TaskFrame, high_water), FIELD(TaskFrame, owner_id), FIELD(TaskFrame, deadline),
           FIELD(TaskFrame, cpu_seconds), FIELD(TaskFrame, cpu_per_call), FIELD(TaskFrame, memory),
           FIELD(TaskFrame, nice), FIELD(TaskFrame, backtrace), FIELD(TaskFrame, seed),
           FIELD(TaskFrame, environment)});
  const std::vector<TableRow>& rows = rows_of("Body of a task", "Offset");
  const TableRow& text = rows.at(rows.size() - 2);
  BOOST_TEST(text.at(2) == "text");
  BOOST_TEST(text.at(0) == std::to_string(sizeof(TaskFrame)));
  BOOST_TEST(rows.back().at(2) == "callable");
  BOOST_TEST(rows.back().at(0) == text.at(0) + "+environment");

  Writer out;
  write_task_frame(out, TaskFrame{nullptr, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0}, "text 12.....",
                   "the callable");
  std::uint64_t expected = 0;
  for (const Field& field : documented_fields("Body of a task"))
    BOOST_TEST(number_at(out.bytes(), field.offset, field.size) == expected++, field.name);
  BOOST_TEST(out.bytes().substr(sizeof(TaskFrame)) == "text 12.....the callable");
}

BOOST_AUTO_TEST_CASE(the_body_of_an_error_has_its_documented_layout) {
  std::vector<StackFrame> frames(3);
  frames[0].address = reinterpret_cast<const void*>(std::uintptr_t{0x1234});
  frames[1].address = frames[2].address = reinterpret_cast<const void*>(std::uintptr_t{0x5678});
  frames[1].inlined = true;  // the parent finds this value itself
  Writer out;
  write_error(out, Error(Errc::remote_exception, "the text")
                       .with_os_error(11)
                       .with_delivery(Delivery::sent)
                       .with_remote_type("T")
                       .with_backtrace(frames));
  const std::string& bytes = out.bytes();
  std::map<std::string, std::size_t> lengths;  // n, m and k, once they are read
  // "16", "n", "24+n"
  const auto value = [&](const std::string& words) {
    std::size_t sum = 0;
    for (std::size_t at = 0; at <= words.size();) {
      const std::size_t end = std::min(words.find('+', at), words.size());
      const std::string word = words.substr(at, end - at);
      const std::size_t length = word.find_first_of("nmk");
      if (length == std::string::npos)
        sum += std::stoul(word);
      else
        sum += (length == 0 ? 1 : std::stoul(word)) * lengths.at(word.substr(length));
      at = end + 1;
    }
    return sum;
  };
  std::size_t at = 0;
  std::string names;
  for (const TableRow& row : rows_of("Body of an error", "Offset")) {
    const std::string& name = row.at(2);
    const std::size_t offset = value(row.at(0));
    const std::size_t size = value(row.at(1));
    BOOST_TEST(offset == at, name << " stands at " << at);
    at = offset + size;
    names += name + " ";
    if (name == "code")
      BOOST_TEST(number_at(bytes, offset, size) == static_cast<unsigned>(Errc::remote_exception));
    if (name == "os_error") BOOST_TEST(number_at(bytes, offset, size) == 11U);
    if (name == "delivery")
      BOOST_TEST(number_at(bytes, offset, size) == static_cast<unsigned>(Delivery::sent));
    if (name == "") BOOST_TEST(number_at(bytes, offset, size) == 0U);
    if (name == "n" || name == "m" || name == "k") lengths[name] = number_at(bytes, offset, size);
    if (name == "text") BOOST_TEST(bytes.substr(offset, size) == "the text");
    if (name == "type") BOOST_TEST(bytes.substr(offset, size) == "T");
    if (name == "backtrace") {
      BOOST_TEST(number_at(bytes, offset, 8) == 0x1234U);
      BOOST_TEST(number_at(bytes, offset + 8, 8) == 0x5678U);
    }
  }
  BOOST_TEST(lengths["k"] == 2U);
  BOOST_TEST(names == "code os_error delivery  n text m type k backtrace ");
  BOOST_TEST(at == bytes.size());
}

BOOST_AUTO_TEST_CASE(a_slot_has_its_documented_layout) {
  compare_shared("Child slots", sizeof(Slot),
                 {FIELD(Slot, call), FIELD(Slot, answered_ping), FIELD(Slot, task_at),
                  FIELD(Slot, stop_request), FIELD(Slot, started)});
  BOOST_TEST(says("Child slots", "an arena of " + std::to_string(slot_count) + " slots"));
  // The page says it in words: twice the id, and 1 more; and the meaning of each stop request.
  BOOST_TEST((CallState{21, false}.word()) == 42U);
  BOOST_TEST((CallState{21, true}.word()) == 43U);
  BOOST_TEST(static_cast<unsigned>(StopRequest::none) == 0U);
  BOOST_TEST(static_cast<unsigned>(StopRequest::requested) == 1U);
  BOOST_TEST(static_cast<unsigned>(StopRequest::acknowledged) == 2U);
}

BOOST_AUTO_TEST_CASE(a_crash_record_has_its_documented_layout) {
  compare(
      "Crash records", sizeof(CrashRecord),
      {FIELD(CrashRecord, owner), FIELD(CrashRecord, signal), FIELD(CrashRecord, code),
       FIELD(CrashRecord, fault_address), FIELD(CrashRecord, count), FIELD(CrashRecord, frames)});
  BOOST_TEST(says("Crash records", " of " + std::to_string(sizeof(CrashRecord)) + " bytes"));
  BOOST_TEST(says("Crash records", " the " + std::to_string(longest_trace) + " innermost"));
}

BOOST_AUTO_TEST_CASE(a_cancel_entry_has_its_documented_layout) {
  compare_shared(
      "Cancel table", sizeof(CancelEntry),
      {FIELD(CancelEntry, owner), FIELD(CancelEntry, call), FIELD(CancelEntry, deadline)});
  BOOST_TEST(revoked == INT64_MIN);
}
