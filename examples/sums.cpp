// sums.cpp - the checksum of each file that is named, computed by all CPUs.
#include <evparallel/evparallel.hpp>

#include <cstdio>
#include <fstream>
#include <iterator>
#include <numeric>
#include <stdexcept>

static unsigned sum_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path);
  const std::istreambuf_iterator<char> begin(file), end;
  return std::accumulate(begin, end, 0U, [](unsigned sum, char c) {
    return (sum >> 1) + ((sum & 1) << 15) + static_cast<unsigned char>(c);
  });
}

int main(int argc, char** argv) {
  const std::vector<std::string> files(argv + 1, argv + argc);
  const auto sums = evparallel::map(files, sum_of);
  for (std::size_t i = 0; i < files.size(); ++i)
    std::printf("%s  %s\n", sums[i] ? std::to_string(*sums[i]).c_str() : sums[i].error().what(),
                files[i].c_str());
}
