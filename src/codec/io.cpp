// io.cpp - bounds checks of reading and writing a message.
// Runs in: parent, child.  Licence: see COPYING.
#include <evparallel/io.hpp>

#include "base/exception_text.hpp"
#include "base/no_memory.hpp"
#include "base/startup_path.hpp"
#include "codec/remote_error.hpp"

#include <new>

namespace evparallel {

void Writer::adopt(std::shared_ptr<const void> owner, const void* data, std::size_t size) {
  if (owner_) refuse_more();
  if (!owner)
    throw std::logic_error("evparallel: adopted bytes need an owner that keeps them alive");
  owner_ = std::move(owner);
  adopted_ = static_cast<const char*>(data);
  adopted_size_ = size;
}

void Writer::refuse_more() {
  throw std::logic_error(
      "evparallel: a message can adopt only one value, and that value must be its last");
}

std::size_t Writer::attach(int fd, std::shared_ptr<const void> owner) {
  if (!attached_) attached_ = std::make_shared<std::vector<Attachment>>();
  attached_->push_back({fd, std::move(owner)});
  return attached_->size() - 1;
}

// Moves the inline bytes to the string, for the case that more are written.
void Writer::join() {
  bytes_.assign(short_.view());
  short_.clear();
}

std::shared_ptr<std::string> Writer::share(std::size_t large) {
  if (written().size() < large || owner_) return nullptr;
  auto kept = std::make_shared<std::string>(std::move(bytes()));
  bytes_.clear();
  adopted_ = kept->data();
  adopted_size_ = kept->size();
  owner_ = kept;
  return kept;
}

EVPARALLEL_EARLY void Writer::clear() noexcept {
  short_.clear();
  bytes_.clear();
  owner_.reset();
  adopted_ = nullptr;
  adopted_size_ = 0;
  attached_.reset();  // a queue may share it
}

void Reader::refuse(std::size_t wanted) const {
  throw Error(Errc::bad_message, "bad message: the codec reads " + std::to_string(wanted) +
                                     " bytes at offset " + std::to_string(total_ - bytes_.size()) +
                                     " of a message of " + std::to_string(total_) + " bytes");
}

std::string Reader::take_rest() {
  std::string* const whole = whole_;
  const std::string_view bytes = rest();
  if (!whole) return std::string(bytes);
  whole->erase(0, whole->size() - bytes.size());
  return std::move(*whole);
}

std::string_view Reader::read_last(std::size_t size) {
  if (size > bytes_.size()) refuse(size);
  whole_ = nullptr;  // there is a view of it now
  const std::string_view last = bytes_.substr(bytes_.size() - size);
  bytes_.remove_suffix(size);
  total_ -= size;
  return last;
}

// The larger part stays where it is.
std::string Reader::take_last(std::size_t size, std::string& kept) {
  if (size > bytes_.size()) refuse(size);
  const std::size_t before = bytes_.size() - size;
  if (!whole_ || before > size) return std::string(read_last(size));
  kept.assign(bytes_.data(), before);
  bytes_.remove_prefix(before);
  std::string last = take_rest();
  bytes_ = kept;
  total_ -= size;
  return last;
}

int Reader::take_descriptor(std::size_t index) {
  const std::size_t count = descriptors_ ? descriptors_->size() : 0;
  if (index >= count)
    throw Error(
        Errc::bad_message,
        "bad message: descriptor " + std::to_string(index) +
            " is missing: " + std::to_string(count) +
            " arrived with the message; if some were lost, this process has too many open files");
  const int fd = std::exchange((*descriptors_)[index], -1);
  if (fd < 0)
    throw Error(Errc::bad_message,
                "bad message: descriptor " + std::to_string(index) + " is used twice");
  return fd;
}

EVPARALLEL_EARLY void Reader::expect_end() const {
  if (!bytes_.empty())
    throw Error(Errc::bad_message, "bad message: " + std::to_string(bytes_.size()) +
                                       " bytes are left over at offset " +
                                       std::to_string(total_ - bytes_.size()));
}

namespace {

thread_local Writer* writer_under_way = nullptr;
thread_local Reader* reader_under_way = nullptr;

}  // namespace

CodecScope::CodecScope(Writer* writer, Reader* reader) noexcept
    : outer_writer_(std::exchange(writer_under_way, writer)),
      outer_reader_(std::exchange(reader_under_way, reader)) {}

CodecScope::~CodecScope() {
  writer_under_way = outer_writer_;
  reader_under_way = outer_reader_;
}

Writer& CodecScope::writer() {
  if (!writer_under_way)
    throw std::logic_error("evparallel: this value can be written only to a message");
  return *writer_under_way;
}

Reader& CodecScope::reader() {
  if (!reader_under_way)
    throw std::logic_error("evparallel: this value can be read only from a message");
  return *reader_under_way;
}

namespace detail {

namespace {

[[noreturn]] void refuse_message(const char* verb, std::string_view why) {
  if (why.empty()) why = "the codec threw an exception without a text";
  throw Error(Errc::bad_message,
              std::string("bad message: could not ") + verb + ": " + std::string(why));
}

}  // namespace

namespace {

[[noreturn]] void rethrow_described(const char* verb) {
  try {
    throw;
  } catch (const Error& error) {
    if (error.code() == Errc::bad_message) throw;
    refuse_message(verb, text_of(error));
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    refuse_message(verb, text_of(error));
  } catch (...) {
    if (thread_is_leaving()) throw;
    refuse_message(verb, {});
  }
}

}  // namespace

void rethrow_as_bad_message(const char* verb) {
  try {
    rethrow_described(verb);
  } catch (const std::bad_alloc&) {
    throw no_memory(std::string_view(verb) == "decode" ? "to decode a message"
                                                       : "to encode a message");
  }
}

}  // namespace detail

}  // namespace evparallel
