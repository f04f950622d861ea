// SPDX-License-Identifier: Apache-2.0
// dwarf_scan [options] FILE
// Builds the lines of one ELF file (debug sections uncompressed) and says what it cost.
//   --exe F       take executable segments and .text from F (FILE is a separate debug file)
//   --alt F       the supplementary file of dwz; --dwp F  a package of split units; --dwo  find
//   .dwo
//   --threads N   threads of the build
//   --write F     write the section to F
//   --lookups N   time N lookups of addresses drawn from .text
//   --cold N      time the naming of N addresses without an index; then compare with one
//   --answer      answer addresses on standard input as llvm-symbolizer --inlines does
#include <sys/resource.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/status.h"
#include "symbolizer/dwarf/elf_input_for_test.h"
#include "symbolizer/dwarf/lookup.h"
#include "symbolizer/dwarf/names_for_test.h"
#include "symbolizer/index/line_build.h"
#include "symbolizer/index/line_table.h"

namespace firewatch::symbolizer {
namespace {

constexpr double kMega = 1e6;

// The section in an unlinked file: not in private memory, as when an index is written.
class FileSink final : public SectionSink {
 public:
  FileSink() : file_(std::tmpfile()) {}
  ~FileSink() override { std::fclose(file_); }
  absl::Status Append(std::span<const std::byte> bytes) override {
    if (std::fwrite(bytes.data(), 1, bytes.size(), file_) != bytes.size()) {
      return base::Unavailable("write");
    }
    return absl::OkStatus();
  }
  std::vector<std::byte> Read() {
    std::vector<std::byte> bytes(static_cast<size_t>(std::ftell(file_)));
    std::rewind(file_);
    if (std::fread(bytes.data(), 1, bytes.size(), file_) != bytes.size()) bytes.clear();
    return bytes;
  }

 private:
  std::FILE* file_;
};

double CpuSeconds() {
  timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

double WallSeconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

uint64_t AnonymousBytes() {
  std::ifstream status("/proc/self/status");
  std::string line;
  while (std::getline(status, line)) {
    if (line.starts_with("RssAnon:")) return std::strtoull(line.c_str() + 8, nullptr, 10) * 1024;
  }
  return 0;
}

// Looks at the private memory every few milliseconds.
class MemoryWatch {
 public:
  MemoryWatch() : before_(AnonymousBytes()), thread_([this] { Watch(); }) {}
  uint64_t Stop() {
    stop_ = true;
    thread_.join();
    peak_ = std::max(peak_, AnonymousBytes());
    return peak_ - before_;
  }

 private:
  void Watch() {
    while (!stop_) {
      peak_ = std::max(peak_, AnonymousBytes());
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }
  uint64_t before_;
  uint64_t peak_ = 0;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

struct Options {
  DwarfTestFiles files;
  std::string executable;
  std::string write;
  int threads = 1;
  uint64_t lookups = 0;
  uint64_t cold = 0;
  bool answer = false;
};

std::string Text(std::string_view name) { return name.empty() ? "??" : std::string(name); }

void Answer(const LineTable& table, const NamesForTest& names) {
  std::string line;
  LineFrame frames[256];
  while (std::getline(std::cin, line)) {
    const uint64_t address = std::strtoull(line.c_str(), nullptr, 16);
    const size_t count = table.Find(address, frames);
    if (count == 0) std::printf("??\n??:0\n");
    for (size_t i = 0; i < count; ++i) {
      const LineTable::Function function = table.FunctionAt(frames[i].function);
      std::printf("%s\n%s:%u\n", Text(names.NameOf(function.name)).c_str(),
                  Text(names.NameOf(frames[i].file)).c_str(), frames[i].line);
    }
    std::printf("\n");
  }
}

void TimeLookups(const LineTable& table, const ElfInputForTest& text, uint64_t count) {
  std::mt19937_64 random(20261122);
  std::vector<uint64_t> addresses(count);
  for (uint64_t& address : addresses) address = text.text_start() + random() % text.text_size();
  LineFrame frames[128];
  double best = 1e9;
  uint64_t found = 0;
  uint64_t total = 0;
  for (int round = 0; round < 5; ++round) {
    found = total = 0;
    const double start = CpuSeconds();
    for (const uint64_t address : addresses) {
      const size_t chain = table.Find(address, frames);
      found += chain > 0 ? 1 : 0;
      total += chain;
    }
    best = std::min(best, CpuSeconds() - start);
  }
  std::printf("lookups %lu: %.3f M/CPU s, %lu found, %.2f frames each\n", count,
              static_cast<double>(count) / best / kMega, found,
              static_cast<double>(total) / static_cast<double>(found));
}

// The same addresses as TimeLookups, without an index; compared with it when there is one.
int Cold(const DwarfInput& input, const ElfInputForTest& text, uint64_t count) {
  std::mt19937_64 random(20261122);
  std::vector<uint64_t> addresses(count);
  for (uint64_t& address : addresses) address = text.text_start() + random() % text.text_size();
  std::sort(addresses.begin(), addresses.end());
  std::vector<LookupAnswer> answers;
  dwarf::UnitCounts counts;
  MemoryWatch memory;
  const double start = CpuSeconds();
  const absl::Status status = LookupAddresses(input, addresses, &answers, &counts);
  const double used = CpuSeconds() - start;
  const uint64_t peak = memory.Stop();
  if (!status.ok()) {
    std::fprintf(stderr, "%s\n", base::ToString(status).c_str());
    return 1;
  }
  NamesForTest names;
  FileSink sink;
  if (!BuildLines(input, {}, names, sink).ok()) return 1;
  const std::vector<std::byte> section = sink.Read();
  const auto table = LineTable::Parse(section, static_cast<uint32_t>(names.size()));
  uint64_t different = 0;
  LineFrame frames[256];
  for (size_t i = 0; i < addresses.size(); ++i) {
    const std::vector<LookupFrame>& cold = answers[i].frames;
    const size_t length = table->Find(addresses[i], frames);
    bool same = length == cold.size();
    for (size_t k = 0; same && k < length; ++k) {
      same = cold[k].function == names.NameOf(table->FunctionAt(frames[k].function).name) &&
             cold[k].file == names.NameOf(frames[k].file) && cold[k].line == frames[k].line;
    }
    different += same ? 0 : 1;
  }
  std::printf("cold %lu: cpu %.3f s, %lu units read, private %.1f MB, %lu differ from the index\n",
              count, used, counts.units, static_cast<double>(peak) / kMega, different);
  return different == 0 ? 0 : 1;
}

int Run(const Options& options) {
  auto opened = ElfInputForTest::Open(options.files);
  if (!opened.ok()) {
    std::fprintf(stderr, "%s\n", base::ToString(opened.status()).c_str());
    return 1;
  }
  const ElfInputForTest* text = opened->get();
  DwarfInput input = text->input();
  std::unique_ptr<ElfInputForTest> executable;
  if (!options.executable.empty()) {
    auto other = ElfInputForTest::Open({.main = options.executable});
    if (!other.ok()) return 1;
    executable = std::move(*other);
    text = executable.get();
    input.executable = text->input().executable;
  }

  if (options.cold > 0) return Cold(input, *text, options.cold);
  NamesForTest names;
  FileSink sink;
  MemoryWatch memory;
  const double cpu = CpuSeconds();
  const double wall = WallSeconds();
  const auto stats = BuildLines(input, {.threads = options.threads}, names, sink);
  const double cpu_used = CpuSeconds() - cpu;
  const double wall_used = WallSeconds() - wall;
  const uint64_t peak = memory.Stop();
  if (!stats.ok()) {
    std::fprintf(stderr, "%s\n", base::ToString(stats.status()).c_str());
    return 1;
  }
  const std::vector<std::byte> section = sink.Read();
  const auto table = LineTable::Parse(section, static_cast<uint32_t>(names.size()));
  if (!table.ok()) {
    std::fprintf(stderr, "%s\n", base::ToString(table.status()).c_str());
    return 1;
  }
  if (options.answer) {
    Answer(*table, names);
    return 0;
  }
  const auto megabytes = [](uint64_t bytes) { return static_cast<double>(bytes) / kMega; };
  LinesFooter footer;
  std::memcpy(&footer, section.data() + section.size() - sizeof(footer), sizeof(footer));
  std::printf("units %lu (bad %lu, without dwo %lu)  functions %lu  inlined %lu  names %zu\n",
              stats->units, stats->units_bad, stats->units_without_dwo, stats->functions,
              stats->inlined, names.size());
  std::printf(
      "dropped: ranges %lu, sequences %lu  bad line programs %lu  nameless %lu  "
      "overlaps %lu\n",
      stats->ranges_dropped, stats->sequences_dropped, stats->line_programs_bad,
      stats->names_missing, stats->overlaps);
  std::printf("dwarf %.1f MB  cpu %.3f s (%.1f MB/s)  wall %.3f s  private %.1f MB\n",
              megabytes(stats->dwarf_bytes), cpu_used, megabytes(stats->dwarf_bytes) / cpu_used,
              wall_used, megabytes(peak));
  std::printf(
      "section %.3f MB (%.2f %%)  rows %lu  cells %u %.3f MB  pages %.3f  blocks %u %.3f MB  "
      "functions %u %.3f MB\n",
      megabytes(section.size()), 100 * megabytes(section.size()) / megabytes(stats->dwarf_bytes),
      stats->rows, footer.cell_count, megabytes(footer.cell_data_bytes + footer.cell_count * 8),
      megabytes(footer.page_count * 4), footer.block_count, megabytes(footer.block_data_bytes),
      footer.function_count, megabytes(footer.areas - footer.functions));
  if (!options.write.empty()) {
    std::ofstream(options.write, std::ios::binary)
        .write(reinterpret_cast<const char*>(section.data()),
               static_cast<std::streamsize>(section.size()));
  }
  if (options.lookups > 0) TimeLookups(*table, *text, options.lookups);
  return 0;
}

}  // namespace
}  // namespace firewatch::symbolizer

int main(int argc, char** argv) {
  firewatch::symbolizer::Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const bool has_value = i + 1 < argc;
    if (argument == "--answer") {
      options.answer = true;
    } else if (argument == "--dwo") {
      options.files.find_dwo = true;
    } else if (argument == "--exe" && has_value) {
      options.executable = argv[++i];
    } else if (argument == "--alt" && has_value) {
      options.files.alt = argv[++i];
    } else if (argument == "--dwp" && has_value) {
      options.files.dwp = argv[++i];
    } else if (argument == "--threads" && has_value) {
      options.threads = std::atoi(argv[++i]);
    } else if (argument == "--write" && has_value) {
      options.write = argv[++i];
    } else if (argument == "--lookups" && has_value) {
      options.lookups = std::strtoull(argv[++i], nullptr, 10);
    } else if (argument == "--cold" && has_value) {
      options.cold = std::strtoull(argv[++i], nullptr, 10);
    } else {
      options.files.main = argument;
    }
  }
  return firewatch::symbolizer::Run(options);
}
