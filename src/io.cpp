// io.cpp - the bounds of reading and writing a message.
// Licence: see COPYING.
#include <evparallel/io.hpp>

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
  throw std::logic_error("evparallel: a message can adopt one value only, and ends with it");
}

void Writer::share(std::size_t large) {
  if (bytes_.size() < large || owner_) return;
  auto kept = std::make_shared<std::string>(std::move(bytes_));
  bytes_.clear();
  adopted_ = kept->data();
  adopted_size_ = kept->size();
  owner_ = std::move(kept);
}

void Writer::clear() noexcept {
  bytes_.clear();
  owner_.reset();
  adopted_ = nullptr;
  adopted_size_ = 0;
}

std::string_view Reader::read(std::size_t size) {
  if (size > bytes_.size())
    throw Error(Errc::bad_message,
                "bad message: " + std::to_string(size) + " bytes wanted at offset " +
                    std::to_string(total_ - bytes_.size()) + " of " + std::to_string(total_));
  const std::string_view part = bytes_.substr(0, size);
  bytes_.remove_prefix(size);
  whole_ = nullptr;  // the rest is no longer the whole
  return part;
}

char Reader::take_byte() {
  std::string* const whole = whole_;
  const char byte = read(1)[0];
  if (whole) {
    whole->erase(0, 1);
    bytes_ = *whole;
    whole_ = whole;
  }
  return byte;
}

std::string Reader::take_rest() {
  std::string* const whole = whole_;
  const std::string_view bytes = rest();
  return whole ? std::move(*whole) : std::string(bytes);
}

void Reader::expect_end() const {
  if (!bytes_.empty())
    throw Error(Errc::bad_message, "bad message: " + std::to_string(bytes_.size()) +
                                       " bytes left over at offset " +
                                       std::to_string(total_ - bytes_.size()));
}

namespace detail {

void rethrow_as_bad_message(const char* verb) {
  try {
    throw;
  } catch (const Error& error) {
    if (error.code() == Errc::bad_message) throw;
    throw Error(Errc::bad_message,
                std::string("bad message: could not ") + verb + ": " + error.what());
  } catch (const std::exception& error) {
    throw Error(Errc::bad_message,
                std::string("bad message: could not ") + verb + ": " + error.what());
  } catch (...) {
    throw Error(Errc::bad_message,
                std::string("bad message: could not ") + verb + ": the codec threw");
  }
}

}  // namespace detail

}  // namespace evparallel
