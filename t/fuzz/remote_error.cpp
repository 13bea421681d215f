// remote_error.cpp - the body of an error frame: any bytes are an error of the documented kinds, or refused.
#include "fuzzing.hpp"

#include "base/exception_text.hpp"
#include "codec/remote_error.hpp"

#include <optional>
#include <string>

using namespace evparallel;
using namespace evparallel::detail;

namespace {

std::string bytes_of(const Error& error) {
  Writer out;
  write_error(out, error);
  return std::string(out.written());
}

std::optional<Error> read(std::string_view bytes) {
  try {
    return read_error(Reader(bytes));
  } catch (const Error& error) {
    REQUIRE(error.code() == Errc::bad_message);
    return std::nullopt;
  }
}

bool same_frames(const Error& one, const Error& other) {
  if (one.backtrace().size() != other.backtrace().size()) return false;
  for (std::size_t i = 0; i < one.backtrace().size(); ++i)
    if (one.backtrace()[i].address != other.backtrace()[i].address) return false;
  return true;
}

void check(const Error& error, std::string_view bytes) {
  REQUIRE(error.code() >= Errc::no_snapshot && error.code() <= Errc::unhealthy);
  REQUIRE(error.delivery() >= Delivery::not_sent && error.delivery() <= Delivery::started);
  REQUIRE(!error.exit());
  REQUIRE(error.remote_type().size() <= bytes.size());
  REQUIRE(error.backtrace().size() * sizeof(std::uint64_t) <= bytes.size());
  // The texts that users print.
  REQUIRE(!error.describe_backtrace().empty());
  REQUIRE(std::string_view(to_string(error.code())) != "");
}

// What is written is read as the same error; only long texts are cut.
void write_again(const Error& error) {
  const std::string bytes = bytes_of(error);
  const std::optional<Error> again = read(bytes);
  REQUIRE(again.has_value());
  REQUIRE(again->code() == error.code());
  REQUIRE(again->delivery() == error.delivery());
  REQUIRE(again->os_error() == error.os_error());
  REQUIRE(again->remote_type() == error.remote_type().substr(0, longest_text));
  REQUIRE(again->what() == std::string(error.what()).substr(0, longest_text));
  REQUIRE(same_frames(*again, error));
  REQUIRE(bytes_of(*again) == bytes);
  // A shorter one is refused.
  if (!bytes.empty()) REQUIRE(!read(std::string_view(bytes).substr(0, bytes.size() - 1)));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const fuzzing::MemoryPeak memory;
  const std::optional<Error> error = read(bytes);
  const Error in_any_case = error_in(Reader(bytes));
  REQUIRE(error || in_any_case.code() == Errc::bad_message);
  // A frame of a backtrace takes more than its eight bytes, and is copied with each detail.
  REQUIRE(memory.bytes() <= 100 * size + 64 * 1024);
  if (error) {
    check(*error, bytes);
    write_again(*error);
  }
  return 0;
}
