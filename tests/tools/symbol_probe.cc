// SPDX-License-Identifier: Apache-2.0
// Measures symbol indexes in one process, for tests/bench/symbols.py: prints "key value" lines.
//
//   symbol_probe build --elf FILE [--debug FILE] [--alt FILE] [--no-lines] [--threads N]
//       [--memory] --out INDEX
//       dwarf_bytes, index_bytes, cpu_s, wall_s, reason; with --memory, which takes time of its
//       own, private_mb (most RssAnon above the beginning)
//   symbol_probe lookup --index INDEX --addresses FILE [--rounds N]
//       addresses, named, frames, per_cpu_s (median round, all inlined frames, as ids; one by one),
//       per_cpu_s_many (all in one call; a round of each in turns)
//   symbol_probe first --elf FILE [--debug FILE] --address N
//       name, wall_ms, cpu_ms: from opening the files to the demangled name, as `firewatch
//       symbolize --no-lines` asks
//   symbol_probe saved --elf FILE --cache DIRECTORY --address N
//       frames, lines (frames that have one), wall_ms, cpu_ms: from opening the file to the names,
//       files and lines of all frames, by an index that the directory has: what the agent does, and
//       `firewatch symbolize --cache` behind its start
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <fstream>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "base/mapped_file.h"
#include "base/status.h"
#include "base/unique_fd.h"
#include "symbolizer/index/index_cache.h"
#include "symbolizer/index/name_table.h"
#include "symbolizer/index/symbol_index.h"
#include "symbolizer/index_build.h"
#include "symbolizer/object_files.h"
#include "symbolizer/object_symbols.h"
#include "symbolizer/symbolizer.h"

namespace firewatch::symbolizer {
namespace {

using Clock = std::chrono::steady_clock;

double CpuSeconds() {
  timespec now{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// Looks at this process's private memory every two milliseconds. Needs none for it but a stack.
class MemoryWatch {
 public:
  MemoryWatch()
      : status_(::open("/proc/self/status", O_RDONLY | O_CLOEXEC)),
        begin_(PrivateKilobytes()),
        most_(begin_),
        thread_([this] { Watch(); }) {}
  ~MemoryWatch() { Stop(); }
  MemoryWatch(const MemoryWatch&) = delete;
  MemoryWatch& operator=(const MemoryWatch&) = delete;
  uint64_t EndKilobytes() {
    Stop();
    return std::max(most_, PrivateKilobytes()) - begin_;
  }

 private:
  uint64_t PrivateKilobytes() const {
    constexpr std::string_view kWanted = "RssAnon:";
    char buffer[4096];
    const ssize_t size = ::pread(status_.get(), buffer, sizeof(buffer) - 1, 0);
    if (size <= 0) return 0;
    buffer[size] = 0;
    const char* const found = std::strstr(buffer, kWanted.data());
    return found == nullptr ? 0 : std::strtoull(found + kWanted.size(), nullptr, 10);
  }
  void Stop() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
  }
  void Watch() {
    while (!stop_) {
      most_ = std::max(most_, PrivateKilobytes());
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }
  const base::UniqueFd status_;
  const uint64_t begin_;
  uint64_t most_;
  std::atomic<bool> stop_ = false;
  std::thread thread_;  // last: it uses what stands above
};

struct Arguments {
  std::string elf;
  std::string debug;
  std::string alt;
  std::string out;
  std::string index;
  std::string addresses;
  std::string address;
  std::string cache;
  bool no_lines = false;
  bool memory = false;
  int threads = 1;
  int rounds = 5;
};

absl::StatusOr<base::UniqueFd> OpenFile(const std::string& path, int flags = O_RDONLY) {
  base::UniqueFd fd(path.empty() ? -1 : ::open(path.c_str(), flags | O_CLOEXEC, 0644));
  if (!path.empty() && !fd.valid()) return base::ErrnoStatus(errno, path);
  return fd;
}

struct Opened {
  base::UniqueFd scratch;
  base::UniqueFd elf;
  base::UniqueFd debug;
  base::UniqueFd alt;
  std::unique_ptr<ObjectFiles> files;
};

absl::StatusOr<Opened> OpenFiles(const Arguments& arguments) {
  Opened opened;
  if (!arguments.out.empty()) {  // beside the index, as the agent and the server do
    const std::string path = arguments.out + ".scratch";
    ASSIGN_OR_RETURN(opened.scratch, OpenFile(path, O_RDWR | O_CREAT | O_TRUNC));
    ::unlink(path.c_str());
  }
  ASSIGN_OR_RETURN(opened.elf, OpenFile(arguments.elf));
  ASSIGN_OR_RETURN(opened.debug, OpenFile(arguments.debug));
  ASSIGN_OR_RETURN(opened.alt, OpenFile(arguments.alt));
  ASSIGN_OR_RETURN(opened.files, ObjectFiles::Open({.elf = opened.elf.get(),
                                                    .debug = opened.debug.get(),
                                                    .alt = opened.alt.get(),
                                                    .scratch = opened.scratch.get()},
                                                   {}));
  RETURN_IF_ERROR(opened.files->companion_status());
  return opened;
}

absl::Status Build(const Arguments& arguments) {
  ASSIGN_OR_RETURN(const base::UniqueFd out, OpenFile(arguments.out, O_RDWR | O_CREAT | O_TRUNC));
  ReturnLargeBlocks();  // as all who build
  std::optional<MemoryWatch> memory;
  if (arguments.memory) memory.emplace();
  const double cpu = CpuSeconds();
  const auto begin = Clock::now();
  ASSIGN_OR_RETURN(Opened opened, OpenFiles(arguments));
  ASSIGN_OR_RETURN(
      const IndexBuildReport report,
      BuildIndex(*opened.files, {.lines = !arguments.no_lines, .threads = arguments.threads},
                 out.get()));
  const double cpu_spent = CpuSeconds() - cpu;
  const double wall = SecondsSince(begin);
  fmt::print("dwarf_bytes {}\nindex_bytes {}\ncpu_s {:.4f}\nwall_s {:.4f}\nreason {}\n",
             report.dwarf_bytes, report.index_bytes, cpu_spent, wall, report.lines_reason);
  if (memory) {
    fmt::print("private_mb {:.3f}\n", static_cast<double>(memory->EndKilobytes()) / 1024);
  }
  return absl::OkStatus();
}

struct Found {
  uint64_t named = 0;
  uint64_t frames = 0;
  void Add(size_t depth) {
    named += depth != 0 ? 1 : 0;
    frames += depth;
  }
  friend bool operator==(const Found&, const Found&) = default;
};

void Ask(const SymbolIndex& index, std::span<const uint64_t> addresses, bool many, Found* found) {
  if (many) {
    index.FindAddresses(addresses, [found](size_t, std::span<const IndexFrame> frames) {
      found->Add(frames.size());
    });
    return;
  }
  IndexFrame frames[kMaxIndexFrames];
  for (const uint64_t address : addresses) found->Add(index.FindAddress(address, frames));
}

absl::Status Lookup(const Arguments& arguments) {
  ASSIGN_OR_RETURN(const base::MappedFile file, base::MappedFile::Open(arguments.index));
  ASSIGN_OR_RETURN(const SymbolIndex index, SymbolIndex::Parse(file.bytes()));
  std::vector<uint64_t> addresses;
  std::ifstream in(arguments.addresses);
  for (std::string line; std::getline(in, line);) {
    addresses.push_back(std::stoull(line, nullptr, 16));
  }
  Found found[2];
  std::vector<double> rounds[2];
  for (int round = 0; round <= arguments.rounds; ++round) {  // the first one warms up
    for (const bool many : {false, true}) {
      found[many] = {};
      const double begin = CpuSeconds();
      Ask(index, addresses, many, &found[many]);
      if (round > 0) rounds[many].push_back(CpuSeconds() - begin);
    }
  }
  if (found[0] != found[1]) return base::Internal("other answers to many addresses at once");
  double per_second[2];
  for (const bool many : {false, true}) {
    std::sort(rounds[many].begin(), rounds[many].end());
    per_second[many] =
        static_cast<double>(addresses.size()) / rounds[many][rounds[many].size() / 2];
  }
  fmt::print("addresses {}\nnamed {}\nframes {}\nper_cpu_s {:.0f}\nper_cpu_s_many {:.0f}\n",
             addresses.size(), found[0].named, found[0].frames, per_second[0], per_second[1]);
  return absl::OkStatus();
}

absl::Status First(const Arguments& arguments) {
  const double cpu = CpuSeconds();
  const auto begin = Clock::now();
  ASSIGN_OR_RETURN(Opened opened, OpenFiles(arguments));
  const uint64_t address = std::stoull(arguments.address, nullptr, 16);
  ASSIGN_OR_RETURN(const ObjectSymbols symbols,
                   ObjectSymbols::ReadAt(*opened.files, std::span(&address, 1)));
  std::string name;
  if (const auto symbol = symbols.At(address)) name = Demangle(symbol->name);
  const double wall = SecondsSince(begin);
  fmt::print("name {}\nwall_ms {:.1f}\ncpu_ms {:.1f}\n", name, wall * 1e3,
             (CpuSeconds() - cpu) * 1e3);
  return absl::OkStatus();
}

absl::Status Saved(const Arguments& arguments) {
  ASSIGN_OR_RETURN(const auto cache, IndexCache::Open(arguments.cache, UINT64_MAX));
  const double cpu = CpuSeconds();
  const auto begin = Clock::now();
  ASSIGN_OR_RETURN(const Opened opened, OpenFiles(arguments));
  ASSIGN_OR_RETURN(const MappedIndex mapped, cache->Find(opened.files->facts().id.ToHex()));
  const SymbolIndex& index = mapped.index;
  IndexFrame frames[kMaxIndexFrames];
  const size_t depth = index.FindAddress(std::stoull(arguments.address, nullptr, 16), frames);
  NameReader names;
  size_t lines = 0;
  for (const IndexFrame& frame : std::span(frames, depth)) {
    std::string name, file;
    if (!names.Read(index.names(), frame.name, nullptr, &name) ||
        !names.Read(index.names(), frame.file, &file, nullptr)) {
      return base::DataLoss("a name that cannot be read");
    }
    lines += frame.line != 0 && !file.empty() ? 1 : 0;
  }
  const double wall = SecondsSince(begin);
  fmt::print("frames {}\nlines {}\nwall_ms {:.1f}\ncpu_ms {:.1f}\n", depth, lines, wall * 1e3,
             (CpuSeconds() - cpu) * 1e3);
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  CLI::App app{"Measures symbol indexes in one process."};
  app.require_subcommand(1);
  Arguments arguments;
  CLI::App* build = app.add_subcommand("build", "Build an index");
  CLI::App* lookup = app.add_subcommand("lookup", "Look addresses up in an index");
  CLI::App* first = app.add_subcommand("first", "The first name of a file");
  CLI::App* saved = app.add_subcommand("saved", "One address by an index of the cache");
  for (CLI::App* command : {build, first, saved}) {
    command->add_option("--elf", arguments.elf)->required();
  }
  for (CLI::App* command : {build, first}) {
    command->add_option("--debug", arguments.debug);
    command->add_option("--alt", arguments.alt);
  }
  build->add_option("--out", arguments.out)->required();
  build->add_option("--threads", arguments.threads);
  build->add_flag("--no-lines", arguments.no_lines);
  build->add_flag("--memory", arguments.memory);
  lookup->add_option("--index", arguments.index)->required();
  lookup->add_option("--addresses", arguments.addresses)->required();
  lookup->add_option("--rounds", arguments.rounds)->check(CLI::PositiveNumber);
  for (CLI::App* command : {first, saved}) {
    command->add_option("--address", arguments.address)->required();
  }
  saved->add_option("--cache", arguments.cache)->required();
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = build->parsed()    ? Build(arguments)
                              : lookup->parsed() ? Lookup(arguments)
                              : first->parsed()  ? First(arguments)
                                                 : Saved(arguments);
  if (status.ok()) return 0;
  fmt::print(stderr, "symbol_probe: {}\n", base::Message(status));
  return 1;
}

}  // namespace
}  // namespace firewatch::symbolizer

int main(int argc, char** argv) { return firewatch::symbolizer::Main(argc, argv); }
