// codecs.cpp - get() of every codec of the library: any bytes are a value, or bad_message, in bounded memory.
//
// A value that was read is written and read again as the same bytes.  JSON that is read without a document gives what
// its document gives.
#include "fuzzing.hpp"

#include <evparallel/evparallel.hpp>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

using namespace evparallel;
using nlohmann::json;

namespace {

// ---- types ----

struct Job {
  int width = 0;
  std::string name;
  std::vector<double> values;
  bool done = false;
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Job, width, name, values, done)
EVPARALLEL_FIELDS(Job, width, name, values, done)

// A type that contains itself.
struct Tree {
  std::uint16_t number = 0;
  std::vector<Tree> branches;
};
EVPARALLEL_FIELDS(Tree, number, branches)

enum class Colour : std::uint8_t { red, green };

struct Point {
  std::int32_t x, y;
};

// ---- one message ----

// What this takes besides the message: nothing, or a document, whose size is limited.
enum class Through { values, document };

struct Message {
  std::string bytes;
  std::size_t max_decoded;
  std::vector<int> descriptors{};
};

constexpr std::size_t slack = 32 * 1024;  // an error with its text, and first blocks

std::size_t most_memory(const Message& message, Through through) {
  const std::size_t values = 64 * message.bytes.size() + slack;
  return through == Through::values ? values : values + 2 * message.max_decoded;
}

template <class Codec, class T>
std::optional<T> read(Message& message, Through through) {
  std::string whole = message.bytes;
  const fuzzing::MemoryPeak memory;
  Reader in(whole, &whole, &message.descriptors);
  in.set_max_decoded(message.max_decoded);
  std::optional<T> value;
  try {
    value = detail::decode<Codec, T>(in);
    REQUIRE(in.remaining() == 0);
  } catch (const Error& error) {
    REQUIRE(error.code() == Errc::bad_message);
  }
  REQUIRE(memory.bytes() <= most_memory(message, through));
  return value;
}

template <class Codec, class T>
std::string written(const T& value) {
  Writer out;
  detail::encode<Codec>(out, value);
  REQUIRE(!out.attached());
  return std::string(out.written()).append(out.adopted());
}

template <class Codec, class T>
std::optional<T> read_and_write(Message& message, Through through) {
  const std::optional<T> value = read<Codec, T>(message, through);
  if (!value) return value;
  const std::string bytes = written<Codec>(*value);
  Message again{bytes, std::size_t{1} << 30};
  const std::optional<T> same = read<Codec, T>(again, Through::document);
  REQUIRE(same.has_value());
  REQUIRE(written<Codec>(*same) == bytes);
  // A value that is moved in is sent as the same bytes.
  Writer out;
  detail::encode<Codec>(out, T(*same));
  REQUIRE(std::string(out.written()).append(out.adopted()) == bytes);
  return value;
}

// ---- JSON with and without a document ----

template <class T>
std::optional<T> through_document(const std::string& text) {
  try {
    return detail::value_of_json<T>(text, SIZE_MAX);
  } catch (const Error&) {
  } catch (const json::exception&) {}
  return std::nullopt;
}

template <class T>
void check_range(const std::string& text, const std::optional<T>& value) {
  if (text.find('\0') != std::string::npos) return;  // nlohmann takes it for the end
  const json document = json::parse(text, nullptr, false);
  if (document.is_number_float()) {
    const double number = document.get<double>();
    if (!(number > -1e19 && number < 2e19)) REQUIRE(!value);
  } else if (document.is_number_unsigned()) {
    const auto number = document.get<std::uint64_t>();
    REQUIRE(value.has_value() ==
            (number <= static_cast<std::uint64_t>(std::numeric_limits<T>::max())));
    if (value) REQUIRE(static_cast<std::uint64_t>(*value) == number);
  } else if (document.is_number_integer()) {
    const auto number = document.get<std::int64_t>();
    const bool minus_zero = number == 0;  // also of an unsigned type
    REQUIRE(value.has_value() ==
            (minus_zero || (std::is_signed_v<T> &&
                            number >= static_cast<std::int64_t>(std::numeric_limits<T>::min()))));
    if (value) REQUIRE(static_cast<std::int64_t>(*value) == number);
  }
}

template <class T>
void read_json(Message& message) {
  const std::optional<T> value = read_and_write<JsonIo<T>, T>(
      message, JsonIo<T>::is_direct ? Through::values : Through::document);
  if constexpr (JsonIo<T>::is_direct) {
    const std::optional<T> other = through_document<T>(message.bytes);
    REQUIRE(value.has_value() == other.has_value());
    REQUIRE(value == other);
  }
  if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>)
    check_range(message.bytes, value);
}

// ---- descriptors ----

int memory_file(bool sealed) {
  const int fd = ::memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  REQUIRE(fd >= 0);
  REQUIRE(::write(fd, "shared", 6) == 6);
  if (sealed)
    REQUIRE(::fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) ==
            0);
  return fd;
}

// Takes what a codec has left, as the channel does.
template <class Codec, class T>
void read_with_descriptors(Message& message, unsigned kinds) {
  const std::size_t before = fuzzing::open_descriptors();
  for (; kinds > 0; kinds /= 4) {
    if (kinds % 4 == 1) message.descriptors.push_back(::dup(STDERR_FILENO));
    if (kinds % 4 == 2) message.descriptors.push_back(memory_file(true));
    if (kinds % 4 == 3) message.descriptors.push_back(memory_file(false));
  }
  {
    const std::optional<T> value = read<Codec, T>(message, Through::document);
    if (value) {
      Writer out;
      detail::encode<Codec>(out, *value);
    }
  }
  for (const int fd : message.descriptors)
    if (fd >= 0) REQUIRE(::close(fd) == 0);
  REQUIRE(fuzzing::open_descriptors() == before);
}

// ---- all of them ----

using Numbers = std::vector<int>;
using Table = std::map<std::string, std::vector<std::uint16_t>>;
using Mixed = std::tuple<int, std::string, std::optional<double>, std::pair<bool, std::int8_t>>;
using Either = std::variant<std::monostate, int, std::string, std::vector<int>>;

template <template <class> class Codec>
void read_binary_document(unsigned type, Message& message) {
  switch (type % 10) {
    case 0: return void(read_and_write<Codec<int>, int>(message, Through::document));
    case 1: return void(read_and_write<Codec<double>, double>(message, Through::document));
    case 2:
      return void(read_and_write<Codec<std::string>, std::string>(message, Through::document));
    case 3: return void(read_and_write<Codec<Numbers>, Numbers>(message, Through::document));
    case 4: return void(read_and_write<Codec<Table>, Table>(message, Through::document));
    case 5: return void(read_and_write<Codec<Mixed>, Mixed>(message, Through::document));
    case 6: return void(read_and_write<Codec<Job>, Job>(message, Through::document));
    case 7: return void(read_and_write<Codec<json>, json>(message, Through::document));
    case 8: return void(read_and_write<Codec<Either>, Either>(message, Through::document));
    case 9:
      return void(read_and_write<Codec<std::uint64_t>, std::uint64_t>(message, Through::document));
  }
}

void read_text(unsigned type, Message& message) {
  switch (type % 18) {
    case 0: return read_json<int>(message);
    case 1: return read_json<std::int8_t>(message);
    case 2: return read_json<std::uint16_t>(message);
    case 3: return read_json<std::int64_t>(message);
    case 4: return read_json<std::uint64_t>(message);
    case 5: return read_json<bool>(message);
    case 6: return read_json<double>(message);
    case 7: return read_json<float>(message);
    case 8: return read_json<std::string>(message);
    case 9: return read_json<Numbers>(message);
    case 10: return read_json<std::vector<std::vector<double>>>(message);
    case 11: return read_json<std::vector<std::string>>(message);
    case 12: return read_json<Table>(message);
    case 13: return read_json<Mixed>(message);
    case 14: return read_json<Job>(message);
    case 15: return read_json<json>(message);
    case 16: return read_json<Either>(message);
    case 17: return read_json<std::chrono::milliseconds>(message);
  }
}

template <class T>
void read_packed(Message& message) {
  read_and_write<PackedIo<T>, T>(message, Through::values);
}

void read_packed_type(unsigned type, Message& message) {
  switch (type % 12) {
    case 0: return read_packed<std::uint64_t>(message);
    case 1: return read_packed<std::string>(message);
    case 2: return read_packed<Numbers>(message);
    case 3: return read_packed<Table>(message);
    case 4: return read_packed<Mixed>(message);
    case 5: return read_packed<Either>(message);
    case 6: return read_packed<Job>(message);
    case 7: return read_packed<Tree>(message);
    case 8: return read_packed<std::vector<std::string>>(message);
    case 9: return read_packed<std::set<std::pair<Colour, std::string>>>(message);
    case 10: return read_packed<std::array<std::optional<std::chrono::seconds>, 3>>(message);
    case 11: return read_packed<std::filesystem::path>(message);
  }
}

template <class T>
void read_raw(Message& message) {
  read_and_write<RawIo<T>, T>(message, Through::values);
}

void read_raw_type(unsigned type, Message& message) {
  switch (type % 8) {
    case 0: return read_raw<Point>(message);
    case 1: return read_raw<bool>(message);
    case 2: return read_raw<std::string>(message);
    case 3: return read_raw<std::vector<double>>(message);
    case 4: return read_raw<std::vector<std::string>>(message);
    case 5: return read_raw<std::tuple<int, std::string, std::vector<Point>>>(message);
    case 6: return read_raw<std::vector<std::pair<std::string, bool>>>(message);
    case 7: return read_raw<std::array<std::string, 3>>(message);
  }
}

void read_with_files(unsigned type, unsigned kinds, Message& message) {
  switch (type % 5) {
    case 0:
      return read_with_descriptors<PackedIo<std::vector<Fd>>, std::vector<Fd>>(message, kinds);
    case 1: return read_with_descriptors<PackedIo<SharedBytes>, SharedBytes>(message, kinds);
    case 2: return read_with_descriptors<JsonIo<std::vector<Fd>>, std::vector<Fd>>(message, kinds);
    case 3: return read_with_descriptors<CborIo<SharedBytes>, SharedBytes>(message, kinds);
    case 4: {
      using Pair = std::pair<Fd, std::optional<SharedBytes>>;
      return read_with_descriptors<PackedIo<Pair>, Pair>(message, kinds);
    }
  }
}

// Several arguments in one message.
void read_arguments(Message& message) {
  using Three = detail::Arguments<DefaultIo, int, std::string, Numbers>;
  const fuzzing::MemoryPeak memory;
  Reader in(message.bytes);
  in.set_max_decoded(message.max_decoded);
  try {
    bool called = false;
    Three::apply(in, [&](int number, std::string text, Numbers numbers) {
      called = true;
      Writer out;
      Three::put_copy(out, number, text, numbers);
      const std::string bytes(out.written());
      Reader again(bytes);
      Three::apply(again, [&](int same, const std::string& same_text, const Numbers& same_numbers) {
        REQUIRE(number == same && text == same_text && numbers == same_numbers);
      });
    });
    REQUIRE(called);
  } catch (const Error& error) {
    REQUIRE(error.code() == Errc::bad_message);
  }
  REQUIRE(memory.bytes() <= most_memory(message, Through::document));
}

}  // namespace

// A codec, a type, the limit of a document, descriptors, and the message.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzzing::Script script(data, size);
  const unsigned codec = script.byte();
  const unsigned type = script.byte();
  const std::size_t max_decoded = std::size_t{1024} << script.byte() % 8;
  const unsigned kinds = script.byte();
  Message message{std::string(script.rest()), max_decoded};
  switch (codec % 7) {
    case 0: read_text(type, message); break;
    case 1: read_binary_document<CborIo>(type, message); break;
    case 2: read_binary_document<MsgpackIo>(type, message); break;
    case 3: read_packed_type(type, message); break;
    case 4: read_raw_type(type, message); break;
    case 5: read_with_files(type, kinds, message); break;
    case 6: read_arguments(message); break;
  }
  return 0;
}
