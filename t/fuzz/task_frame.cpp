// task_frame.cpp - the body of a task frame: its head, the environment, and a callable with bound arguments.
#include "fuzzing.hpp"

#include "codec/task_frame.hpp"

#include <evparallel/evparallel.hpp>

#include <string>
#include <vector>

using namespace evparallel;
using namespace evparallel::detail;

namespace {

struct Reading {
  TaskFrame head;
  std::string environment;
  std::string callable;
};

// As a child does it.
Reading reading_of(Reader& in) {
  Reading reading;
  reading.head = read_task_frame(in);
  reading.environment = in.read(size_in_message(reading.head.environment));
  reading.callable = in.rest();
  return reading;
}

struct Join {
  std::string operator()(const std::string& text, const std::vector<int>& numbers,
                         bool flag) const {
    return text + std::to_string(numbers.size()) + (flag ? "+" : "-");
  }
};
using Bound = decltype(evparallel::bind(Join{}, std::string(), std::vector<int>()));

// A callable of a program: its arguments travel with it.
void read_callable(std::string_view bytes) {
  Reader in(bytes);
  Bound task = CallableCodec<Bound>::deserialize(in);
  REQUIRE(std::get<0>(task.bound).size() <= bytes.size());
  REQUIRE(std::get<1>(task.bound).size() <= bytes.size());
  REQUIRE(!task(true).empty());
  const std::size_t read = in.offset();
  Writer out;
  CallableCodec<Bound>::serialize(out, task);
  const std::string written(out.written());
  Reader again_in(written);
  const Bound again = CallableCodec<Bound>::deserialize(again_in);
  REQUIRE(again_in.remaining() == 0);
  REQUIRE(again.bound == task.bound);
  REQUIRE(read <= bytes.size());
}

// The two callables of Options::on_start: only their sizes are read here, since the head has addresses.
void read_start(std::string_view bytes) {
  Reader in(bytes);
  StartHead head;
  in.read(&head, sizeof head);
  Reader start(in.read(size_in_message(head.start_size)));
  REQUIRE(start.remaining() == head.start_size);
  read_callable(start.rest());
  read_callable(in.rest());
}

template <class F>
void expect_bad_message(F f) {
  try {
    f();
  } catch (const Error& error) {
    REQUIRE(error.code() == Errc::bad_message);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const fuzzing::MemoryPeak memory;
  expect_bad_message([&] {
    Reader in(bytes);
    const Reading reading = reading_of(in);
    Writer out;
    write_task_frame(out, reading.head, reading.environment, reading.callable);
    REQUIRE(out.written() == bytes);
    expect_bad_message([&] { read_callable(reading.callable); });
    expect_bad_message([&] { read_start(reading.callable); });
  });
  REQUIRE(memory.bytes() <= 64 * size + 64 * 1024);
  return 0;
}
