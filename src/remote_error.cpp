// remote_error.cpp - exceptions to bytes and back.
// Licence: see COPYING.
#include "remote_error.hpp"

#include "names.hpp"

#include <cxxabi.h>

#include <cstdint>
#include <exception>
#include <typeinfo>

namespace evparallel {

namespace {

std::string current_type() {
  const std::type_info* type = abi::__cxa_current_exception_type();
  std::string name = type ? demangled(type->name()) : std::string("unknown");
  // What std::throw_with_nested throws is the library's own class around the user's.
  constexpr std::string_view wrapper = "std::_Nested_exception<";
  if (name.compare(0, wrapper.size(), wrapper) == 0)
    name = name.substr(wrapper.size(), name.size() - wrapper.size() - 1);
  return name;
}

// "; because of std::runtime_error: disk full" for each exception nested in this one.
std::string nested_text(const std::exception& outer) {
  try {
    std::rethrow_if_nested(outer);
  } catch (const std::exception& inner) {
    return "; because of " + current_type() + ": " + inner.what() + nested_text(inner);
  } catch (...) {
    return "; because of " + current_type();
  }
  return {};
}

// Two of them fit into an error's frame.
constexpr std::size_t longest_text = 16 * 1024;

void put_text(Writer& out, const std::string& text) {
  const std::string_view part = std::string_view(text).substr(0, longest_text);
  const std::uint64_t size = part.size();
  out.write(&size, sizeof size);
  out.write(part);
}

std::string get_text(Reader& in) {
  std::uint64_t size;
  in.read(&size, sizeof size);
  return std::string(in.read(static_cast<std::size_t>(size)));
}

}  // namespace

Error current_exception_as_remote() {
  try {
    throw;
  } catch (const std::exception& error) {
    const std::string type = current_type();
    return Error(Errc::remote_exception, type + ": " + error.what() + nested_text(error))
        .with_remote_type(type);
  } catch (...) {
    const std::string type = current_type();
    return Error(Errc::remote_exception, type).with_remote_type(type);
  }
}

void write_error(Writer& out, const Error& error) {
  const std::int32_t numbers[] = {static_cast<std::int32_t>(error.code()), error.os_error(),
                                  static_cast<std::int32_t>(error.delivery()), 0};
  out.write(numbers, sizeof numbers);
  put_text(out, error.what());
  put_text(out, error.remote_type());
}

Error read_error(Reader in) {
  std::int32_t numbers[4];
  in.read(numbers, sizeof numbers);
  const std::string text = get_text(in);
  const std::string type = get_text(in);
  return Error(static_cast<Errc>(numbers[0]), text)
      .with_os_error(numbers[1])
      .with_delivery(static_cast<Delivery>(numbers[2]))
      .with_remote_type(type);
}

}  // namespace evparallel
