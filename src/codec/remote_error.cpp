// remote_error.cpp - exceptions to bytes and back.
// Runs in: parent, child.  Licence: see COPYING.
#include "codec/remote_error.hpp"

#include "base/exception_text.hpp"
#include "base/names.hpp"
#include "backtrace/stack_walk.hpp"
#include "backtrace/throw_site.hpp"

#include <cxxabi.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <typeinfo>
#include <vector>

namespace evparallel::detail {

namespace {

std::string current_type() {
  const std::type_info* type = abi::__cxa_current_exception_type();
  std::string name = type ? demangled(type->name()) : std::string("unknown");
  // std::throw_with_nested throws a class of libstdc++ or of libc++ around the user's.
  for (const std::string_view wrapper : {"std::_Nested_exception<", "std::__nested<"})
    if (name.compare(0, wrapper.size(), wrapper) == 0)
      return name.substr(wrapper.size(), name.size() - wrapper.size() - 1);
  return name;
}

void append(std::string& text, std::string_view more) {
  text += more.substr(0, longest_text - text.size());
}

// Appends, for example, "std::runtime_error: disk full", for the exception that is being handled.
void append_what(std::string& text, const std::string& type, const std::exception& exception) {
  append(text, type);
  if (!exception.what()) return;
  append(text, ": ");
  append(text, text_of(exception));
}

// The exception that is nested in the one that is being handled.  A handler finds it by the type
// that was thrown; std::rethrow_if_nested() would ask the object, and crash if its class was compiled
// with -fno-rtti.
std::exception_ptr nested_exception() {
  try {
    throw;
  } catch (const std::nested_exception& outer) {
    return outer.nested_ptr();
  } catch (...) {
    return nullptr;
  }
}

// Appends "; caused by std::runtime_error: disk full" for each exception that is nested in the one
// that is being handled, while there is room.
void append_nested(std::string& text) {
  if (text.size() == longest_text) return;
  const std::exception_ptr nested = nested_exception();
  if (!nested) return;
  try {
    std::rethrow_exception(nested);
  } catch (const std::exception& inner) {
    append(text, "; caused by ");
    append_what(text, current_type(), inner);
    append_nested(text);
  } catch (...) {
    append(text, "; caused by ");
    append(text, current_type());
  }
}

void put_text(Writer& out, std::string_view text) {
  const std::string_view part = text.substr(0, longest_text);
  const std::uint64_t size = part.size();
  out.write(&size, sizeof size);
  out.write(part);
}

std::string get_text(Reader& in) {
  std::uint64_t size;
  in.read(&size, sizeof size);
  return std::string(in.read(size_in_message(size)));
}

// Only the parent knows more about them than their addresses.
std::vector<StackFrame> frames_of(const std::vector<std::uintptr_t>& addresses) {
  std::vector<StackFrame> frames(addresses.size());
  std::transform(addresses.begin(), addresses.end(), frames.begin(), [](std::uintptr_t address) {
    StackFrame frame;
    frame.address = reinterpret_cast<const void*>(address);
    return frame;
  });
  return frames;
}

void put_addresses(Writer& out, const std::vector<StackFrame>& frames) {
  std::vector<std::uint64_t> addresses;
  for (const StackFrame& frame : frames)
    if (!frame.inlined && addresses.size() < longest_trace)
      addresses.push_back(reinterpret_cast<std::uintptr_t>(frame.address));
  const std::uint64_t count = addresses.size();
  out.write(&count, sizeof count);
  out.write(addresses.data(), addresses.size() * sizeof(std::uint64_t));
}

std::vector<StackFrame> get_addresses(Reader& in) {
  std::uint64_t count;
  in.read(&count, sizeof count);
  if (count > longest_trace)
    throw Error(Errc::bad_message, "bad message: the backtrace of an error is too long");
  std::vector<std::uintptr_t> addresses;
  for (std::uint64_t i = 0; i < count; ++i) {
    std::uint64_t address;
    in.read(&address, sizeof address);
    addresses.push_back(static_cast<std::uintptr_t>(address));
  }
  return frames_of(addresses);
}

void check_known(std::int32_t number, std::int32_t first, std::int32_t last) {
  if (number < first || number > last)
    throw Error(Errc::bad_message,
                "bad message: an error has the unknown number " + std::to_string(number));
}

Error as_remote(const std::string& type, const std::string& text) {
  const Error error = Error(Errc::remote_exception, text).with_remote_type(type);
  const std::vector<std::uintptr_t> site = throw_site_of(std::current_exception());
  return site.empty() ? error : error.with_backtrace(frames_of(site));
}

}  // namespace

Error current_exception_as_remote() {
  try {
    throw;
  } catch (const std::exception& error) {
    const std::string type = current_type();
    std::string text;
    append_what(text, type, error);
    append_nested(text);
    return as_remote(type, text);
  } catch (...) {
    const std::string type = current_type();
    return as_remote(type, type);
  }
}

bool thread_is_leaving() noexcept {
  return abi::__cxa_current_exception_type() == nullptr;
}

void end_if_thread_leaves() noexcept {
  if (thread_is_leaving()) std::exit(0);
}

void write_error(Writer& out, const Error& error) {
  const std::int32_t numbers[] = {static_cast<std::int32_t>(error.code()), error.os_error(),
                                  static_cast<std::int32_t>(error.delivery()), 0};
  out.write(numbers, sizeof numbers);
  put_text(out, text_of(error));
  put_text(out, error.remote_type());
  put_addresses(out, error.backtrace());
}

Error read_error(Reader in) {
  std::int32_t numbers[4];
  in.read(numbers, sizeof numbers);
  check_known(numbers[0], static_cast<std::int32_t>(Errc::no_snapshot),
              static_cast<std::int32_t>(Errc::unhealthy));
  check_known(numbers[2], static_cast<std::int32_t>(Delivery::not_sent),
              static_cast<std::int32_t>(Delivery::started));
  const std::string text = get_text(in);
  const std::string type = get_text(in);
  const std::vector<StackFrame> frames = get_addresses(in);
  return Error(static_cast<Errc>(numbers[0]), text)
      .with_os_error(numbers[1])
      .with_delivery(static_cast<Delivery>(numbers[2]))
      .with_remote_type(type)
      .with_backtrace(frames);
}

Error error_in(Reader in) {
  try {
    return read_error(in);
  } catch (const Error& malformed) {
    return malformed;
  }
}

}  // namespace evparallel::detail
