// shared_bytes.cpp - makes, checks and maps sealed memory.
// Runs in: parent, child.  Licence: see COPYING.
#include <evparallel/shared_bytes.hpp>

#include "base/retry_eintr.hpp"
#include "base/system_error.hpp"
#include "system/new_descriptor.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace evparallel {

using namespace detail;

namespace {

constexpr int all_seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL;

Error no_room(const char* what, int number) {
  return system_error(Errc::overloaded, std::string("overloaded: ") + what, number);
}

Fd open_memory() {
  Fd memory(open_memory_file("evparallel"));
  if (memory) return memory;
  if (errno != ENOSYS) throw no_room("shared bytes need a descriptor", errno);
  throw Error(Errc::refused, "refused: shared bytes need memfd_create, which is not available");
}

// Above the limit the kernel does not only refuse: it sends SIGXFSZ.
void check_file_size(std::size_t size) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_FSIZE, &limit) == 0 && size > limit.rlim_cur)
    throw no_room("shared bytes exceed the file size limit (RLIMIT_FSIZE)", EFBIG);
}

// Allocates the memory: a shortage fails here, and not by SIGBUS in the middle of a write.
Fd memory_of(std::size_t size) {
  Fd memory = open_memory();
  check_file_size(size);
  int failed;
  do failed = ::posix_fallocate(memory.get(), 0, static_cast<off_t>(size));
  while (failed == EINTR);
  if (failed != 0) throw no_room("there is no memory for shared bytes", failed);
  return memory;
}

void write_all(int fd, const char* data, std::size_t size) {
  while (size > 0) {
    const ssize_t put = retry_on_eintr([&] { return ::write(fd, data, size); });
    if (put <= 0) throw no_room("there is no memory for shared bytes", put < 0 ? errno : ENOSPC);
    data += put;
    size -= static_cast<std::size_t>(put);
  }
}

}  // namespace

// A mapping, and the descriptor by which it is sent.
class SharedBytes::Mapping {
public:
  Mapping(Fd memory, std::size_t size) : memory_(std::move(memory)), size_(size) {
    if (size == 0) return;
    // Private, because before Linux 6.7 a shared mapping of a sealed file is refused even for
    // reading.
    data_ = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, memory_.get(), 0);
    if (data_ == MAP_FAILED) throw no_room("shared bytes could not be mapped", errno);
  }
  ~Mapping() {
    if (size_ > 0) ::munmap(data_, size_);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  const void* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }
  int fd() const noexcept { return memory_.get(); }

private:
  Fd memory_;
  std::size_t size_;
  void* data_ = nullptr;
};

namespace {

Fd sealed(Fd memory) {
  if (::fcntl(memory.get(), F_ADD_SEALS, all_seals) != 0)
    throw no_room("shared bytes could not be sealed", errno);
  return memory;
}

// While there is a writable mapping, the kernel refuses a seal.
class Writable {
public:
  Writable(const Fd& memory, std::size_t size)
      : data_(::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(), 0)),
        size_(size) {
    if (data_ == MAP_FAILED) throw no_room("shared bytes could not be mapped", errno);
  }
  ~Writable() { ::munmap(data_, size_); }
  Writable(const Writable&) = delete;
  Writable& operator=(const Writable&) = delete;

  void* data() const noexcept { return data_; }

private:
  void* data_;
  std::size_t size_;
};

}  // namespace

SharedBytes SharedBytes::copy_of(const void* data, std::size_t size) {
  Fd memory = open_memory();
  check_file_size(size);
  write_all(memory.get(), static_cast<const char*>(data), size);
  return SharedBytes(std::make_shared<const Mapping>(sealed(std::move(memory)), size));
}

SharedBytes SharedBytes::create(std::size_t size, const std::function<void(void*)>& fill) {
  if (size == 0) return copy_of(nullptr, 0);
  Fd memory = memory_of(size);
  {
    const Writable writable(memory, size);
    fill(writable.data());
  }
  return SharedBytes(std::make_shared<const Mapping>(sealed(std::move(memory)), size));
}

SharedBytes SharedBytes::from_memfd(Fd memfd) {
  const int seals = ::fcntl(memfd.get(), F_GET_SEALS);
  if (seals < 0)
    throw Error(Errc::bad_message,
                "bad message: the descriptor of shared bytes is not sealed memory");
  constexpr int wanted = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
  if ((seals & wanted) != wanted)
    throw Error(Errc::bad_message,
                "bad message: the memory of shared bytes is not sealed and could still be changed");
  struct stat status {};
  if (::fstat(memfd.get(), &status) != 0)
    throw no_room("the size of shared bytes could not be read", errno);
  const std::size_t size = detail::size_in_message(static_cast<std::uint64_t>(status.st_size));
  return SharedBytes(std::make_shared<const Mapping>(std::move(memfd), size));
}

const void* SharedBytes::data() const noexcept {
  return mapping_ ? mapping_->data() : nullptr;
}
std::size_t SharedBytes::size() const noexcept {
  return mapping_ ? mapping_->size() : 0;
}
int SharedBytes::fd() const noexcept {
  return mapping_ ? mapping_->fd() : -1;
}

// The descriptor still belongs to this handle: the message keeps the mapping alive until it is
// sent.
std::size_t SharedBytes::attach_to(Writer& out) const {
  const std::shared_ptr<const Mapping> kept = mapping_ ? mapping_ : copy_of(nullptr, 0).mapping_;
  const int number = kept->fd();
  return out.attach(number, kept);
}

}  // namespace evparallel
