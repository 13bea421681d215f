// wordcount.cpp - counts the words of all files below directories, with one child per CPU.
//
// Shows: a pool and its map, which gives each child its next batch; a progress bar; codecs of a
// program's own; the error of a batch whose child dies.
#include <evparallel/evparallel.hpp>

#include <fcntl.h>
#include <getopt.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <clocale>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cwctype>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>
#include <unordered_map>
#include <utility>
#include <vector>

namespace fs = std::filesystem;
namespace par = evparallel;

// ---- counting: code of the children, and of the parent for --check ------------------------------

// Letters, digits and all non-ASCII bytes are parts of a word, letters in lower case: 0 is none of
// these.
struct Alphabet {
  unsigned char folded[256] = {};
  constexpr Alphabet() {
    for (unsigned c = 0x80; c < 0x100; ++c) folded[c] = static_cast<unsigned char>(c);
    for (unsigned c = '0'; c <= '9'; ++c) folded[c] = static_cast<unsigned char>(c);
    for (unsigned c = 'a'; c <= 'z'; ++c)
      folded[c] = folded[c - 'a' + 'A'] = static_cast<unsigned char>(c);
  }
};
constexpr Alphabet alphabet;

// Calls sink(word) for each word; a word may begin in one part of the bytes and end in another.
template <class Sink>
class Splitter {
public:
  explicit Splitter(Sink sink) : sink_(std::move(sink)) {}

  void put(const char* data, std::size_t size) {
    for (std::size_t i = 0; i < size; ++i) {
      if (const unsigned char c = alphabet.folded[static_cast<unsigned char>(data[i])])
        word_.push_back(static_cast<char>(c));
      else
        end();
    }
  }
  void end() {
    if (!word_.empty()) sink_(word_);
    word_.clear();
  }

private:
  Sink sink_;
  std::string word_;
};

// Calls sink(data, size) for each block of the file until it returns false.  Returns 0, or errno.
template <class Sink>
int read_blocks(int fd, Sink sink) {
  static char block[256 * 1024];
  ssize_t got;
  for (off_t at = 0; (got = ::pread(fd, block, sizeof block, at)) > 0; at += got)
    if (!sink(block, static_cast<std::size_t>(got))) return 0;
  return got < 0 ? errno : 0;
}

struct Outcome {
  int error = 0;  // errno: the words before it count
  bool binary = false;
};

// A file with a NUL byte is binary: sink is not called for it.
template <class Sink>
Outcome split_file(const std::string& name, Sink sink) {
  // Does not block: a regular file may have been replaced since it was listed.
  const int fd = ::open(name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return {errno};
  Outcome outcome;
  outcome.error = read_blocks(fd, [&](const char* data, std::size_t size) {
    outcome.binary = std::memchr(data, '\0', size) != nullptr;
    return !outcome.binary;
  });
  if (outcome.error == 0 && !outcome.binary) {
    Splitter<Sink> splitter(std::move(sink));
    outcome.error = read_blocks(fd, [&](const char* data, std::size_t size) {
      splitter.put(data, size);
      return true;
    });
    splitter.end();
  }
  ::close(fd);
  return outcome;
}

using Words = std::unordered_map<std::string, std::uint64_t>;

struct Unreadable {
  std::string name{};
  int error = 0;
};

struct Batch {
  std::vector<std::string> files{};
  std::uint64_t bytes = 0;  // for the parent's progress line: it does not travel
};

// The words of a child: each word once, without order.  A vector, since nobody looks words up in
// it.
struct Counts {
  std::vector<std::pair<std::string, std::uint64_t>> words{};
  std::vector<Unreadable> unreadable{};
  std::uint64_t binary = 0;  // files that were skipped
};

Counts count_words(const Batch& batch) {
  Counts counts;
  Words words;
  for (const std::string& file : batch.files) {
    const Outcome outcome = split_file(file, [&](const std::string& word) { ++words[word]; });
    if (outcome.error != 0) counts.unreadable.push_back({file, outcome.error});
    if (outcome.binary) ++counts.binary;
  }
  counts.words.assign(words.begin(), words.end());
  return counts;
}

// ---- the codecs ---------------------------------------------------------------------------------

// JSON strings are UTF-8; names of files and words may contain any bytes.  And most numbers here
// are small: seven bits in each byte, with values below 128 in the last one.
void put_number(par::Writer& out, std::uint64_t number) {
  char bytes[10];
  std::size_t size = 0;
  for (; number >= 0x80; number >>= 7) bytes[size++] = static_cast<char>(number | 0x80);
  bytes[size++] = static_cast<char>(number);
  out.write(bytes, size);
}

std::uint64_t get_number(par::Reader& in) {
  std::uint64_t number = 0;
  for (unsigned shift = 0; shift < 64; shift += 7) {
    const auto byte = static_cast<unsigned char>(in.read(1)[0]);
    number |= std::uint64_t{byte & 0x7fu} << shift;
    if (byte < 0x80) return number;
  }
  throw std::range_error("a number has no end");
}

void put_text(par::Writer& out, std::string_view text) {
  put_number(out, text.size());
  out.write(text);
}

std::string get_text(par::Reader& in) {
  const std::uint64_t size = get_number(in);
  return std::string(in.read(static_cast<std::size_t>(size)));
}

template <>
struct par::Io<Batch> {
  static void put(par::Writer& out, const Batch& batch) {
    for (const std::string& name : batch.files) put_text(out, name);
  }
  static Batch get(par::Reader& in) {
    Batch batch;
    while (in.remaining() > 0) batch.files.push_back(get_text(in));
    return batch;
  }
};

template <>
struct par::Io<Counts> {
  static void put(par::Writer& out, const Counts& counts) {
    put_number(out, counts.binary);
    put_number(out, counts.unreadable.size());
    for (const Unreadable& file : counts.unreadable) {
      put_text(out, file.name);
      put_number(out, static_cast<std::uint64_t>(file.error));
    }
    for (const auto& [word, count] : counts.words) {
      put_text(out, word);
      put_number(out, count);
    }
  }
  static Counts get(par::Reader& in) {
    Counts counts;
    counts.binary = get_number(in);
    for (std::uint64_t left = get_number(in); left > 0; --left) {
      std::string name = get_text(in);
      counts.unreadable.push_back({std::move(name), static_cast<int>(get_number(in))});
    }
    while (in.remaining() > 0) {
      std::string word = get_text(in);
      const std::uint64_t count = get_number(in);
      counts.words.emplace_back(std::move(word), count);
    }
    return counts;
  }
};

// ---- listing the files --------------------------------------------------------------------------

// The regular files below the directories, in batches: large enough that the cost of a call does
// not matter, small enough that all children are busy until the end.
class Listing {
public:
  void add(const std::string& directory) {
    std::vector<fs::path> left{directory};
    while (!left.empty()) {
      const fs::path here = std::move(left.back());
      left.pop_back();
      std::error_code error;
      for (fs::directory_iterator at(here, error), end; !error && at != end; at.increment(error)) {
        struct stat status {};
        if (::lstat(at->path().c_str(), &status) != 0)
          unreadable.push_back({at->path().string(), errno});
        else if (S_ISDIR(status.st_mode))
          left.push_back(at->path());
        else if (S_ISREG(status.st_mode))
          add_file(at->path().string(), static_cast<std::uint64_t>(status.st_size));
      }
      if (error) unreadable.push_back({here.string(), error.value()});
    }
  }

  std::vector<Batch> batches{};
  std::vector<Unreadable> unreadable{};
  std::uint64_t files = 0;
  std::uint64_t bytes = 0;

private:
  static constexpr std::uint64_t batch_size = std::uint64_t{2} << 20;
  static constexpr std::uint64_t open_cost = 8192;  // the time of one open(2), in bytes read

  void add_file(std::string&& name, std::uint64_t size) {
    const std::uint64_t weight = size + open_cost;
    if (batches.empty() || weight_ + weight > batch_size) {
      batches.emplace_back();
      weight_ = 0;
    }
    batches.back().files.push_back(std::move(name));
    batches.back().bytes += size;
    weight_ += weight;
    ++files;
    bytes += size;
  }

  std::uint64_t weight_ = 0;  // of the last batch
};

// ---- the work -----------------------------------------------------------------------------------

// In bytes: batches differ in size.
class Progress {
public:
  Progress(bool quiet, const char* what, std::uint64_t total)
      : meter_(total), bar_(look_of(quiet, what)) {}

  void add(std::uint64_t bytes) {
    meter_.add(bytes);
    bar_.show(meter_.sample());
  }

private:
  static par::ProgressOptions look_of(bool quiet, const char* what) {
    par::ProgressOptions look;
    look.label = what;
    look.bytes = true;
    // No lines into a log: the log may be a counted file.
    look.form = quiet || ::isatty(2) != 1 ? par::ProgressForm::quiet : par::ProgressForm::automatic;
    return look;
  }

  par::ProgressMeter meter_;
  par::ProgressBar bar_;
};

struct Count {
  Words words{};
  std::vector<Unreadable> unreadable{};
  std::uint64_t binary = 0;
  std::vector<std::string> failures{};
};

Count count_all(par::Reactor& loop, const std::vector<Batch>& batches, unsigned children,
                Progress& progress) {
  par::PoolOptions options;
  options.workers = children;
  auto pool = par::pool(loop, count_words, options);
  Count count;
  par::MapOptions how;
  how.ordered = false;
  how.chunk = 1;  // a batch is large enough
  pool.map(
      batches,
      [&](std::size_t index, par::Result<Counts> counts) {
        if (!counts) {
          count.failures.push_back("batch " + std::to_string(index + 1) + " (from " +
                                   batches[index].files.front() + " on): " + counts.error().what());
        } else {
          for (auto& [word, number] : counts->words) count.words[std::move(word)] += number;
          for (Unreadable& file : counts->unreadable) count.unreadable.push_back(std::move(file));
          count.binary += counts->binary;
        }
        progress.add(batches[index].bytes);
      },
      [](const par::MapSummary&) {}, std::move(how));
  loop.run();
  return count;
}

// Subtracts the counts of a single process: no word may be missing, and none may remain.  (A second
// map beside the first could need too much memory.)
bool equals_single_process(Words words, const std::vector<Batch>& batches, Progress& progress) {
  bool missing = false;
  const auto take_away = [&](const std::string& word) {
    const auto found = words.find(word);
    if (found == words.end())
      missing = true;
    else if (--found->second == 0)
      words.erase(found);
  };
  for (const Batch& batch : batches) {
    for (const std::string& file : batch.files) split_file(file, take_away);
    progress.add(batch.bytes);
  }
  return !missing && words.empty();
}

// ---- output -------------------------------------------------------------------------------------

// A word may contain any bytes: bytes without a meaning in the user's locale are shown as numbers.
std::string printable(const std::string& word) {
  std::vector<wchar_t> wide(word.size() + 1);
  const std::size_t size = std::mbstowcs(wide.data(), word.c_str(), wide.size());
  const auto is_printable = [](wchar_t c) { return std::iswprint(static_cast<wint_t>(c)) != 0; };
  if (size != static_cast<std::size_t>(-1) &&
      std::all_of(wide.begin(), wide.begin() + static_cast<std::ptrdiff_t>(size), is_printable))
    return word;
  std::string shown;
  for (const char c : word) {
    char number[8];
    std::snprintf(number, sizeof number, "\\x%02x", static_cast<unsigned char>(c));
    shown += static_cast<unsigned char>(c) < 0x80 ? std::string(1, c) : std::string(number);
  }
  return shown;
}

using Frequency = std::pair<std::uint64_t, std::string>;

std::vector<Frequency> most_frequent(const Words& words, std::size_t wanted) {
  const auto more = [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  };
  std::vector<std::pair<std::uint64_t, std::string_view>> all;
  all.reserve(words.size());
  for (const auto& [word, count] : words) all.emplace_back(count, word);
  const auto end = all.begin() + static_cast<std::ptrdiff_t>(std::min(wanted, all.size()));
  std::partial_sort(all.begin(), end, all.end(), more);
  return {all.begin(), end};
}

// In one line, for any number of files.
void complain(const std::vector<Unreadable>& files) {
  if (files.empty()) return;
  constexpr std::size_t most = 10;
  std::fprintf(stderr, "wordcount: %zu could not be read:", files.size());
  for (std::size_t i = 0; i < std::min(files.size(), most); ++i)
    std::fprintf(stderr, "%s %s (%s)", i > 0 ? "," : "", files[i].name.c_str(),
                 std::strerror(files[i].error));
  if (files.size() > most) std::fprintf(stderr, " and %zu more", files.size() - most);
  std::fputc('\n', stderr);
}

const char usage[] =
    "usage: wordcount [-q] [--check] [directory ...]\n"
    "Counts the words of all regular files below the directories with one child process per\n"
    "CPU, and prints the 20 most frequent.  A word is a run of letters, digits and bytes from\n"
    "0x80 on, ASCII letters in lower case.  Symbolic links are not followed, and files with a\n"
    "NUL byte are skipped.  Without a directory: the files that this program comes with, and\n"
    "/usr/share/doc.\n"
    "\n"
    "  -q, --quiet  no list, no progress line: only errors, and the result of --check\n"
    "      --check  count again in a single process; exit 1 if the result is not the same\n"
    "  -h, --help   this text\n"
    "\n"
    "Exit status: 0 success, 1 a batch or the check failed, 2 wrong usage.\n";

struct Wishes {
  bool quiet = false;
  bool check = false;
  std::vector<std::string> directories{};
};

// Ends the program on --help and wrong usage.
Wishes wishes_of(int argc, char** argv) {
  static const option options[] = {{"quiet", no_argument, nullptr, 'q'},
                                   {"check", no_argument, nullptr, 'c'},
                                   {"help", no_argument, nullptr, 'h'},
                                   {nullptr, 0, nullptr, 0}};
  Wishes wishes;
  int c;
  while ((c = ::getopt_long(argc, argv, "qh", options, nullptr)) != -1) {
    switch (c) {
      case 'q': wishes.quiet = true; break;
      case 'c': wishes.check = true; break;
      case 'h': std::fputs(usage, stdout); std::exit(0);
      default: std::fputs(usage, stderr); std::exit(2);
    }
  }
  wishes.directories.assign(argv + optind, argv + argc);
  for (const std::string& directory : wishes.directories) {
    std::error_code error;
    if (fs::is_directory(directory, error)) continue;
    std::fprintf(stderr, "wordcount: %s: %s\n%s", directory.c_str(),
                 error ? error.message().c_str() : "is not a directory", usage);
    std::exit(2);
  }
  return wishes;
}

std::vector<std::string> default_directories(const char* program) {
  const bool here = fs::exists("configure.ac");
  std::vector<std::string> directories{here ? "."
                                            : (fs::path(program).parent_path() / "..").string()};
  const std::string documents = "/usr/share/doc";
  if (fs::is_directory(documents))
    directories.push_back(documents);
  else
    std::fprintf(stderr, "wordcount: %s does not exist; it is skipped\n", documents.c_str());
  return directories;
}

// At least two children, for the demonstration.
unsigned number_of_children(std::size_t batches) {
  cpu_set_t cpus;
  // A machine with more CPUs than the set has bits is an error here: then 8 are enough.
  const int count = ::sched_getaffinity(0, sizeof cpus, &cpus) == 0 ? CPU_COUNT(&cpus) : 8;
  const auto wanted = static_cast<unsigned>(std::max(count, 2));
  return static_cast<unsigned>(std::clamp<std::size_t>(batches, 1, wanted));
}

int wordcount(int argc, char** argv) {
  const Wishes wishes = wishes_of(argc, argv);
  par::init();  // early, while there is little to copy: no child needs the list of files
  std::setlocale(LC_CTYPE, "");

  Listing listing;
  for (const std::string& directory :
       wishes.directories.empty() ? default_directories(argv[0]) : wishes.directories)
    listing.add(directory);

  par::Reactor loop;
  const unsigned children = number_of_children(listing.batches.size());
  Count count;
  {
    Progress progress(wishes.quiet, "counted", listing.bytes);
    count = count_all(loop, listing.batches, children, progress);
  }
  for (Unreadable& file : count.unreadable) listing.unreadable.push_back(std::move(file));

  // Nothing is printed before the check: the output may be a counted file.
  const std::size_t different = count.words.size();
  const std::vector<Frequency> top = most_frequent(count.words, 20);
  const bool checked = wishes.check && count.failures.empty();
  bool equal = true;
  if (checked) {
    Progress progress(wishes.quiet, "checked", listing.bytes);
    equal = equals_single_process(std::move(count.words), listing.batches, progress);
  }

  for (const std::string& failure : count.failures)
    std::fprintf(stderr, "wordcount: %s\n", failure.c_str());
  complain(listing.unreadable);
  if (!wishes.quiet) {
    std::printf("%llu files, %.1f MB, %zu different words, counted by %u children\n",
                static_cast<unsigned long long>(listing.files),
                static_cast<double>(listing.bytes) / 1e6, different, children);
    std::printf("%llu binary files skipped\n", static_cast<unsigned long long>(count.binary));
    for (const auto& [number, word] : top)
      std::printf("%10llu  %s\n", static_cast<unsigned long long>(number), printable(word).c_str());
  }
  if (checked)
    std::puts(equal ? "equal to a single process"
                    : "NOT equal to a single process, unless files changed in the meantime");
  if (std::fflush(stdout) != 0) throw std::system_error(errno, std::generic_category(), "stdout");
  return count.failures.empty() && equal ? 0 : 1;
}

int main(int argc, char** argv) {
  try {
    return wordcount(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "wordcount: %s\n", error.what());
    return 1;
  }
}
