// SPDX-License-Identifier: Apache-2.0
// unwind_scan [--check N] [--seed S] [--bench] [--bases] [--write FILE] PATH...
// Builds the unwind table of every ELF file below the paths and says how they come out.
//   --check N  compare N functions with libdw's reading; disagreements fail
//   --bench    one line per file: what ./dev bench unwind shows
//   --write F  write the table of the one file PATH to F
//   --bases    which files base a CFA on other registers than rsp and rbp
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "symbolizer/unwind/survey_for_test.h"

namespace firewatch::symbolizer {
namespace {

constexpr double kMega = 1e6;
constexpr size_t kLargest = 12;
constexpr uint64_t kPerFile = 25;
constexpr const char* kRegisters[] = {"rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp",
                                      "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
constexpr const char* kUnsaid[] = {"", "CFA", "return address", "saved register"};

struct FileLine {
  std::string path;
  UnwindTableCounts counts;
  uint64_t bytes = 0;
  uint64_t rules = 0;
  uint64_t rows_in_pages = 0;
  uint64_t wide_pages = 0;
  double cpu_seconds = 0;
};

double BytesPerRow(const FileLine& line) {
  return line.counts.rows_merged == 0
             ? 0
             : static_cast<double>(line.bytes) / static_cast<double>(line.counts.rows_merged);
}

void Print(const FileLine& line) {
  std::printf(
      "%-60s eh_frame %8.3f MB  fdes %7lu  rows %8lu of %8lu  table %7.3f MB  %.2f B/row  "
      "rules %5lu  wide pages %lu  %7.1f ms  %6.1f MB/s\n",
      line.path.c_str(), static_cast<double>(line.counts.cfi_bytes) / kMega, line.counts.fdes,
      line.counts.rows_merged, line.counts.rows_read, static_cast<double>(line.bytes) / kMega,
      BytesPerRow(line), line.rules, line.wide_pages, line.cpu_seconds * 1e3,
      static_cast<double>(line.counts.cfi_bytes) / kMega / line.cpu_seconds);
}

class Scan {
 public:
  void Add(const std::string& path, bool bases) {
    auto built = BuildTableOf(path);
    if (!built.ok()) {
      ++without_;
      return;
    }
    const UnwindBuild& build = built->build;
    FileLine line = {.path = path,
                     .counts = built->table.counts(),
                     .bytes = built->bytes.size(),
                     .rules = build.source.rules.size() - 1,
                     .rows_in_pages = built->table.row_count(),
                     .cpu_seconds = built->cpu_seconds};
    for (const fw_page_entry& entry : built->table.directory()) {
      line.wide_pages += (entry.flags & FW_PAGE_WIDE) != 0 ? 1 : 0;
    }
    for (size_t i = 0; i < kCfiReasonCount; ++i) {
      reasons_[i] += build.reasons[i];
      if (build.reasons[i] > 0 && IsRefusal(static_cast<CfiReason>(i))) {
        std::printf("refused: %s: %lu %s\n", path.c_str(), build.reasons[i],
                    std::string(CfiReasonLabel(static_cast<CfiReason>(i))).c_str());
      }
    }
    for (size_t i = 1; i < std::size(build.unsaid); ++i) {
      unsaid_[i] += build.unsaid[i];
      if (build.unsaid[i] > 0) {
        std::printf("no rule: %s: %lu rows, %s\n", path.c_str(), build.unsaid[i], kUnsaid[i]);
      }
    }
    for (size_t i = 0; i < FW_REGISTER_COUNT; ++i) {
      bases_[i].rows += build.bases[i].rows;
      bases_[i].functions += build.bases[i].functions;
      if (bases && build.bases[i].rows > 0 && i != FW_REGISTER_RSP && i != FW_REGISTER_RBP) {
        std::printf("base: %s: %s in %lu rows of %lu functions\n", path.c_str(), kRegisters[i],
                    build.bases[i].rows, build.bases[i].functions);
      }
    }
    entry_roots_ += build.entry_is_root ? 1 : 0;
    lines_.push_back(std::move(line));
  }

  void Summary() {
    FileLine sum;
    for (const FileLine& line : lines_) {
      sum.counts.fdes += line.counts.fdes;
      sum.counts.fdes_refused += line.counts.fdes_refused;
      sum.counts.rows_read += line.counts.rows_read;
      sum.counts.rows_merged += line.counts.rows_merged;
      sum.counts.rows_no_rule += line.counts.rows_no_rule;
      sum.counts.cfi_bytes += line.counts.cfi_bytes;
      sum.bytes += line.bytes;
      sum.cpu_seconds += line.cpu_seconds;
    }
    std::printf("\n%zu files with a table, %lu without, %lu whose entry point is made a root\n",
                lines_.size(), without_, entry_roots_);
    std::printf("%lu FDEs, %lu refused (%.5f %%)\n", sum.counts.fdes, sum.counts.fdes_refused,
                100.0 * static_cast<double>(sum.counts.fdes_refused) /
                    static_cast<double>(sum.counts.fdes));
    for (size_t i = 1; i < kCfiReasonCount; ++i) {
      if (reasons_[i] == 0) continue;
      std::printf("  %s %lu\n", std::string(CfiReasonLabel(static_cast<CfiReason>(i))).c_str(),
                  reasons_[i]);
    }
    std::printf("%lu rows read, %lu merged, %lu without rule; %.1f MB of tables, %.2f bytes/row\n",
                sum.counts.rows_read, sum.counts.rows_merged, sum.counts.rows_no_rule,
                static_cast<double>(sum.bytes) / kMega, BytesPerRow(sum));
    std::printf("%.1f MB of CFI in %.2f CPU s: %.1f MB/s\n",
                static_cast<double>(sum.counts.cfi_bytes) / kMega, sum.cpu_seconds,
                static_cast<double>(sum.counts.cfi_bytes) / kMega / sum.cpu_seconds);
    for (size_t i = 0; i < FW_REGISTER_COUNT; ++i) {
      if (bases_[i].rows == 0) continue;
      std::printf("  CFA from %s: %lu rows, %lu functions\n", kRegisters[i], bases_[i].rows,
                  bases_[i].functions);
    }
    std::sort(lines_.begin(), lines_.end(),
              [](const FileLine& a, const FileLine& b) { return a.bytes > b.bytes; });
    std::printf("largest:\n");
    for (size_t i = 0; i < lines_.size() && i < kLargest; ++i) Print(lines_[i]);
  }
  void Lines() const {
    for (const FileLine& line : lines_) Print(line);
  }

 private:
  std::vector<FileLine> lines_;
  uint64_t without_ = 0;
  uint64_t entry_roots_ = 0;
  uint64_t reasons_[kCfiReasonCount] = {};
  uint64_t unsaid_[4] = {};
  CfaBaseUse bases_[FW_REGISTER_COUNT];
};

int Check(const std::vector<std::string>& files, uint64_t functions, uint64_t seed) {
  const OracleCheck check = CompareWithLibdw(files, functions, kPerFile, seed);
  for (const std::string& text : check.disagreements) std::printf("%s\n", text.c_str());
  std::printf(
      "compared with libdw: %lu functions of %lu files, %lu rows, %zu disagree; "
      "%lu points without a rule of ours, %lu that the evaluation does not know\n",
      check.functions, check.files, check.rows, check.disagreements.size(), check.rows_unsaid,
      check.rows_unknown);
  return check.disagreements.empty() ? 0 : 1;
}

int Write(const std::string& path, const std::string& output) {
  const auto built = BuildTableOf(path);
  if (!built.ok()) {
    std::fprintf(stderr, "%s\n", base::ToString(built.status()).c_str());
    return 1;
  }
  std::ofstream(output, std::ios::binary) << built->bytes;
  return 0;
}

int Run(int argc, char** argv) {
  uint64_t functions = 0;
  uint64_t seed = 20261122;
  bool bench = false;
  bool bases = false;
  std::string output;
  std::vector<std::string> paths;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--bench") {
      bench = true;
    } else if (argument == "--bases") {
      bases = true;
    } else if ((argument == "--check" || argument == "--seed") && i + 1 < argc) {
      (argument == "--check" ? functions : seed) = std::strtoull(argv[++i], nullptr, 10);
    } else if (argument == "--write" && i + 1 < argc) {
      output = argv[++i];
    } else if (argument.starts_with("-")) {
      std::fprintf(stderr,
                   "usage: unwind_scan [--check N] [--seed S] [--bench] [--bases] PATH...\n");
      return 2;
    } else {
      paths.push_back(argument);
    }
  }
  if (!output.empty() && paths.size() == 1) return Write(paths[0], output);
  if (paths.empty()) paths.emplace_back("/usr");
  const std::vector<std::string> files = ListElfFiles(paths);
  if (functions > 0) return Check(files, functions, seed);
  Scan scan;
  for (const std::string& file : files) scan.Add(file, bases);
  if (bench) {
    scan.Lines();
  } else {
    scan.Summary();
  }
  return 0;
}

}  // namespace
}  // namespace firewatch::symbolizer

int main(int argc, char** argv) { return firewatch::symbolizer::Run(argc, argv); }
