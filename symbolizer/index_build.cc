// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/index_build.h"

#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "base/status.h"
#include "symbolizer/index/index_writer.h"
#include "symbolizer/index/line_build.h"
#include "symbolizer/index/line_table_format.h"
#include "symbolizer/object_symbols.h"

namespace firewatch::symbolizer {
namespace {

IndexSource SourceOf(const ObjectFiles& files, SymbolTables& tables) {
  IndexSource source;
  source.id = files.facts().id;
  source.pseudo_id = files.facts().has_pseudo_id;
  source.has_table = false;
  source.file_bytes = files.facts().file_bytes;
  for (const ElfSegment& segment : files.facts().executable_segments) {
    source.segments.push_back({.file_offset = segment.file_offset,
                               .vaddr = segment.vaddr,
                               .file_size = segment.file_size});
  }
  for (const FunctionSymbols& table : tables) {
    source.has_table |= table.has_table;
    source.keep_suffixes |= table.is_go;
  }
  source.symbols = TakeSymbols(tables);
  return source;
}

LinesState StateFor(const absl::Status& error) {
  switch (error.code()) {
    case absl::StatusCode::kNotFound:
      return LinesState::kNoDebugInfo;
    case absl::StatusCode::kResourceExhausted:
      return LinesState::kOverBudget;
    case absl::StatusCode::kFailedPrecondition:
      return LinesState::kMismatch;
    default:
      return LinesState::kDamaged;
  }
}

void SetNoLines(const absl::Status& error, IndexBuildReport* report) {
  report->lines = StateFor(error);
  report->lines_reason = base::Message(error);
}

// What a user may do about names that are missing all the same.
std::string WhyIncomplete(const ObjectFiles& files, const LineBuildStats& stats) {
  if (!files.companion_status().ok()) return std::string(base::Message(files.companion_status()));
  if (stats.units_without_dwo > 0) {
    return fmt::format("{} units without their .dwo", stats.units_without_dwo);
  }
  if (stats.units_bad > 0) return fmt::format("{} units cannot be read", stats.units_bad);
  if (stats.names_missing > 0 && files.wants_alt()) {
    return fmt::format("names are in a dwz file that is missing, build id {}",
                       files.alt_id().ToHex());
  }
  return "";
}

unsigned ThreadsOf(const IndexBuildOptions& options) {
  return static_cast<unsigned>(std::max(options.threads, 1));
}

// What waits for the end of a build waits on disk, where there is a file for it.
PutAside PutAsideOf(ObjectFiles& files) {
  if (!files.scratch().on_disk()) return nullptr;
  return [&files](std::span<const std::byte> bytes) { return files.scratch().Put(bytes); };
}

// Several threads read units while symbols are read.
absl::StatusOr<std::unique_ptr<LineBuild>> StartLines(ObjectFiles& files,
                                                      const IndexBuildOptions& options) {
  ASSIGN_OR_RETURN(const DwarfInput* input, files.Dwarf());
  try {
    return std::make_unique<LineBuild>(
        *input, LineBuildOptions{.threads = options.threads, .put_aside = PutAsideOf(files)});
  } catch (const std::bad_alloc&) {
    return base::ResourceExhausted("lines need more memory than allowed");
  }
}

// Into the file while they are made: the section is never in memory as a whole.
absl::StatusOr<LineBuildStats> FinishLines(LineBuild& lines, const IndexBuildOptions& options,
                                           IndexWriter& writer, int out_fd) {
  try {
    return lines.Finish(writer.names(), writer.LinesInto(out_fd), [&] {
      ::malloc_trim(0);  // what the readers had
      writer.StartNames(ThreadsOf(options));
    });
  } catch (const std::bad_alloc&) {
    return base::ResourceExhausted("lines need more memory than allowed");
  }
}

// Without lines unless they were asked for and can be had: then the report says why, and whoever
// asked builds again without.
absl::StatusOr<IndexBuildReport> Build(ObjectFiles& files, const IndexBuildOptions& options,
                                       LinesState no_lines, int out_fd, bool* again) {
  IndexBuildReport report;
  report.lines = no_lines;
  absl::StatusOr<std::unique_ptr<LineBuild>> lines = nullptr;
  if (options.lines) lines = StartLines(files, options);
  ASSIGN_OR_RETURN(SymbolTables tables, ReadSymbolTables(files));
  // What reading and sorting symbols left behind. Beside other threads, which stand still while
  // memory is given back, it is left to them.
  const bool alone = options.lines && options.threads < 2;
  if (alone) ::malloc_trim(0);
  IndexWriter writer(SourceOf(files, tables), options.lines ? PutAsideOf(files) : nullptr);
  if (alone) ::malloc_trim(0);
  if (options.lines) {
    const absl::StatusOr<LineBuildStats> stats =
        lines.ok() ? FinishLines(**lines, options, writer, out_fd) : lines.status();
    if (!stats.ok()) {
      SetNoLines(stats.status(), &report);
      *again = true;
      return report;
    }
    lines->reset();  // with what it knows of the units
    writer.SetLinesWritten(kLinesVersion);
    report.lines = LinesState::kPresent;
    report.lines_reason = WhyIncomplete(files, *stats);
    report.dwarf_bytes = files.dwarf_bytes();
    report.functions = stats->functions;
    report.rows = stats->rows;
    report.units_bad = stats->units_bad;
    report.units_without_dwo = stats->units_without_dwo;
  } else if (no_lines != LinesState::kNotTried) {
    writer.SetNoLines(no_lines);
  }
  const auto written = writer.Write(out_fd, ThreadsOf(options));
  if (!written.ok()) return base::Internal("{}", base::Message(written.status()));
  report.symbols = written->symbols;
  report.index_bytes = written->file_bytes;
  return report;
}

}  // namespace

void ReturnLargeBlocks() {
  constexpr int kLargeBytes = 128 << 10;  // where glibc begins
  ::mallopt(M_MMAP_THRESHOLD, kLargeBytes);
  // The heap itself shrinks after the last unit, not after each: the next one wants the same.
  constexpr int kKeptBytes = 1 << 20;
  ::mallopt(M_TRIM_THRESHOLD, kKeptBytes);
}

absl::StatusOr<IndexBuildReport> BuildIndex(ObjectFiles& files, const IndexBuildOptions& options,
                                            int out_fd) {
  bool again = false;
  ASSIGN_OR_RETURN(IndexBuildReport first,
                   Build(files, options, LinesState::kNotTried, out_fd, &again));
  if (!again) return first;
  // No debug information is the usual case; another build's next to it is worth a word.
  if (first.lines == LinesState::kNoDebugInfo && !files.companion_status().ok()) {
    SetNoLines(files.companion_status(), &first);
  }
  // From the start, so that no name of the failed attempt stays in the table.
  if (::ftruncate(out_fd, 0) != 0) return base::Internal("empty the index: errno {}", errno);
  IndexBuildOptions symbols_only = options;
  symbols_only.lines = false;
  ASSIGN_OR_RETURN(IndexBuildReport second,
                   Build(files, symbols_only, first.lines, out_fd, &again));
  second.lines_reason = std::move(first.lines_reason);
  return second;
}

}  // namespace firewatch::symbolizer
