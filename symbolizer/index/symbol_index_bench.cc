// SPDX-License-Identifier: Apache-2.0
// Symbol indexes of real files: what they cost to build, how large they are, how fast they answer.
// usage: symbol_index_bench [--keep DIR] FILE...
// Per file: symbols and names; bytes of the sections; CPU time to build and to check; 100,000
// random addresses of its executable segments (seed 20261122), five rounds after one to warm up,
// median; and all their distinct names, unpacked in order of id with room for all blocks, and in
// the order of the addresses with the usual few. --keep leaves FILE.fwsym there.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "base/mapped_file.h"
#include "base/status.h"
#include "base/unique_fd.h"
#include "symbolizer/elf/elf_reader.h"
#include "symbolizer/elf/function_symbols.h"
#include "symbolizer/index/index_writer.h"
#include "symbolizer/index/name_cache.h"
#include "symbolizer/index/symbol_index.h"

namespace firewatch::symbolizer {
namespace {

constexpr size_t kAddresses = 100'000;
constexpr uint32_t kSeed = 20261122;

double CpuSeconds() {
  timespec now{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

template <typename Work>
double MedianSeconds(const Work& work) {
  work();
  std::vector<double> rounds;
  for (int i = 0; i < 5; ++i) {
    const double begin = CpuSeconds();
    work();
    rounds.push_back(CpuSeconds() - begin);
  }
  std::sort(rounds.begin(), rounds.end());
  return rounds[2];
}

absl::Status Build(const std::string& path, int fd) {
  const base::UniqueFd elf_fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!elf_fd.valid()) return base::ErrnoStatus(errno, path);
  const FdByteSource source(elf_fd.get());
  ASSIGN_OR_RETURN(const ElfReader elf, ElfReader::Open(source));
  const double begin = CpuSeconds();
  ASSIGN_OR_RETURN(FunctionSymbols functions, ReadFunctionSymbols(elf));
  IndexWriter writer({.id = elf.build_id(),
                      .has_table = functions.has_table,
                      .keep_suffixes = functions.is_go,
                      .file_bytes = source.size(),
                      .segments = ExecutableSegments(elf),
                      .symbols = std::move(functions.symbols)});
  ASSIGN_OR_RETURN(const IndexWriteReport report, writer.Write(fd));
  fmt::print("{}: {} symbols, {} names\n", path, report.symbols, report.names);
  fmt::print("  index {} bytes: names {}, symbols {} ({:.1f} per symbol); built in {:.3f} CPU s\n",
             report.file_bytes, report.names_bytes, report.symbols_bytes,
             static_cast<double>(report.symbols_bytes) /
                 static_cast<double>(std::max<uint64_t>(report.symbols, 1)),
             CpuSeconds() - begin);
  return absl::OkStatus();
}

void MeasureLookups(const SymbolIndex& index, const ElfReader& elf) {
  std::mt19937_64 random(kSeed);
  std::vector<uint64_t> addresses;
  const std::vector<IndexSegment> segments = ExecutableSegments(elf);
  for (size_t i = 0; !segments.empty() && i < kAddresses; ++i) {
    const IndexSegment& segment = segments[i % segments.size()];
    addresses.push_back(segment.vaddr + random() % segment.file_size);
  }
  size_t hits = 0;
  std::vector<uint32_t> names;
  const double seconds = MedianSeconds([&] {
    hits = 0;
    names.clear();
    IndexFrame frames[kMaxIndexFrames];
    for (const uint64_t address : addresses) {
      const size_t depth = index.FindAddress(address, frames);
      hits += depth > 0;
      if (depth > 0) names.push_back(frames[0].name);
    }
  });
  fmt::print("  {:.1f} M lookups per CPU s, {:.1f} % have a name\n",
             static_cast<double>(addresses.size()) / seconds / 1e6,
             100 * static_cast<double>(hits) / static_cast<double>(addresses.size()));

  std::vector<uint32_t> sorted = names;
  std::sort(sorted.begin(), sorted.end());
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  for (const bool in_order : {true, false}) {
    NameReader reader(in_order ? 4096 : 8);
    NameCache cache;
    const std::vector<uint32_t>& order = in_order ? sorted : names;
    const double begin = CpuSeconds();
    for (const uint32_t id : order) cache.Get(index.names(), id, reader);
    fmt::print("  {} names {}: {:.3f} CPU s, {} bytes kept\n", sorted.size(),
               in_order ? "in order, all blocks kept" : "at random, 8 blocks kept",
               CpuSeconds() - begin, cache.bytes());
  }
}

absl::Status Run(const std::string& path, const std::string& keep) {
  base::UniqueFd fd(::memfd_create("index", MFD_CLOEXEC));
  if (!keep.empty()) {
    const std::string name = std::filesystem::path(path).filename().string() + ".fwsym";
    fd.Reset(::open((keep + "/" + name).c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    if (!fd.valid()) return base::ErrnoStatus(errno, keep);
  }
  RETURN_IF_ERROR(Build(path, fd.get()));
  ASSIGN_OR_RETURN(const base::MappedFile file, base::MappedFile::FromFd(fd.get(), path));
  const double begin = CpuSeconds();
  ASSIGN_OR_RETURN(const SymbolIndex index, SymbolIndex::Parse(file.bytes()));
  fmt::print("  checked in {:.4f} CPU s\n", CpuSeconds() - begin);
  const base::UniqueFd elf_fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  const FdByteSource source(elf_fd.get());
  ASSIGN_OR_RETURN(const ElfReader elf, ElfReader::Open(source));
  MeasureLookups(index, elf);
  return absl::OkStatus();
}

}  // namespace
}  // namespace firewatch::symbolizer

int main(int argc, char** argv) {
  using namespace firewatch;
  std::string keep;
  int result = argc > 1 ? 0 : 2;
  for (int i = 1; i < argc; ++i) {
    if (std::string_view(argv[i]) == "--keep" && i + 1 < argc) {
      keep = argv[++i];
      continue;
    }
    if (const absl::Status status = symbolizer::Run(argv[i], keep); !status.ok()) {
      fmt::print(stderr, "{}: {}\n", argv[i], base::ToString(status));
      result = 1;
    }
  }
  return result;
}
