// SPDX-License-Identifier: Apache-2.0
// Builds the index of one program and says what it cost:
//   index_scan [--symbols] [--threads N] [--scratch FILE] OUTPUT ELF|- [DEBUG|- [ALT|- [DWP]]]
// or, with --first ADDRESS (hexadecimal), names that one address from the symbol tables alone.
// "-" stands for no file. Without --scratch inflated sections go into memory. .dwo files are opened
// by their name, relative to the compilation directory.
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "base/unique_fd.h"
#include "symbolizer/index_build.h"
#include "symbolizer/object_symbols.h"

namespace firewatch::symbolizer {
namespace {

double CpuSeconds() {
  struct rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// Of /proc/self/status, in KiB: "RssAnon".
long Status(std::string_view name) {
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with(name)) return std::strtol(line.c_str() + name.size() + 1, nullptr, 10);
  }
  return 0;
}

struct Arguments {
  bool lines = true;
  uint64_t first = 0;  // an address; 0: build the index
  int threads = 1;
  std::string scratch;
  std::vector<std::string> files;
};

int Run(const Arguments& arguments) {
  const auto open = [&](size_t i) {
    if (i >= arguments.files.size() || arguments.files[i] == "-") return base::UniqueFd();
    return base::UniqueFd(::open(arguments.files[i].c_str(), O_RDONLY | O_CLOEXEC));
  };
  const base::UniqueFd output(
      ::open(arguments.files[0].c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  const base::UniqueFd elf = open(1);
  const base::UniqueFd debug = open(2);
  const base::UniqueFd alt = open(3);
  const base::UniqueFd dwp = open(4);
  base::UniqueFd scratch;
  if (!arguments.scratch.empty()) {
    scratch.Reset(::open(arguments.scratch.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    ::unlink(arguments.scratch.c_str());
  }
  ObjectOptions options;
  options.open_dwo = [](std::string_view name, std::string_view directory) {
    const std::string path =
        name.starts_with('/') ? std::string(name) : fmt::format("{}/{}", directory, name);
    return base::UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  };
  const base::SystemClock clock;
  const uint64_t start = clock.MonotonicNs();
  const double cpu = CpuSeconds();
  auto files = ObjectFiles::Open({.elf = elf.get(),
                                  .debug = debug.get(),
                                  .alt = alt.get(),
                                  .dwp = dwp.get(),
                                  .scratch = scratch.get()},
                                 std::move(options));
  if (!files.ok()) {
    std::fprintf(stderr, "%s\n", base::ToString(files.status()).c_str());
    return 1;
  }
  if (arguments.first != 0) {
    const auto symbols = ObjectSymbols::ReadAt(**files, std::span(&arguments.first, 1));
    if (!symbols.ok()) return 1;
    const auto symbol = symbols->At(arguments.first);
    std::printf("wall %.1f ms, CPU %.1f ms, inflated %lu: %s\n",
                static_cast<double>(clock.MonotonicNs() - start) / 1e6, (CpuSeconds() - cpu) * 1e3,
                (*files)->inflated_bytes(), symbol ? std::string(symbol->name).c_str() : "no name");
    return 0;
  }
  const auto report =
      BuildIndex(**files, {.lines = arguments.lines, .threads = arguments.threads}, output.get());
  if (!report.ok()) {
    std::fprintf(stderr, "%s\n", base::ToString(report.status()).c_str());
    return 1;
  }
  const double cpu_used = CpuSeconds() - cpu;
  std::printf(
      "wall %.1f ms, CPU %.1f ms, %.0f MB of DWARF per CPU second, RssAnon %ld MB at the end\n",
      static_cast<double>(clock.MonotonicNs() - start) / 1e6, cpu_used * 1e3,
      static_cast<double>(report->dwarf_bytes) / 1e6 / cpu_used, Status("RssAnon:") / 1024);
  std::printf("symbols %lu, index %lu bytes, DWARF %lu bytes, inflated %lu, rows %lu\n",
              report->symbols, report->index_bytes, report->dwarf_bytes, (*files)->inflated_bytes(),
              report->rows);
  std::printf("lines: state %d %s\n", static_cast<int>(report->lines),
              report->lines_reason.c_str());
  return 0;
}

}  // namespace
}  // namespace firewatch::symbolizer

int main(int argc, char** argv) {
  firewatch::symbolizer::Arguments arguments;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--symbols") {
      arguments.lines = false;
    } else if (argument == "--first" && i + 1 < argc) {
      arguments.first = std::strtoull(argv[++i], nullptr, 16);
    } else if (argument == "--threads" && i + 1 < argc) {
      arguments.threads = std::atoi(argv[++i]);
    } else if (argument == "--scratch" && i + 1 < argc) {
      arguments.scratch = argv[++i];
    } else {
      arguments.files.emplace_back(argument);
    }
  }
  if (arguments.files.size() < 2) {
    std::fputs(
        "usage: index_scan [--symbols] [--threads N] [--scratch FILE] OUTPUT ELF "
        "[DEBUG [ALT [DWP]]]\n",
        stderr);
    return 2;
  }
  return firewatch::symbolizer::Run(arguments);
}
