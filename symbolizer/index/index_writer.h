// SPDX-License-Identifier: Apache-2.0
// Writes a symbol index. Runs in the sandboxed helper for ELF files and in the agent for the
// kernel's own list. Equal input gives equal bytes, for any number of threads.
//
// Names are demangled here, once each, and not at lookup: a demangler is a parser of strangers'
// bytes that recurses and whose output can explode (both have crashed programs), so it belongs
// behind the sandbox.
//
//   IndexWriter writer(std::move(source));
//   BuildLines(dwarf, options, writer.names(), writer.LinesInto(fd));  // optional
//   writer.SetLinesWritten(kLinesVersion);                             // or SetNoLines(why)
//   writer.Write(fd);
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "symbolizer/file_identity.h"
#include "symbolizer/index/flatten.h"
#include "symbolizer/index/index_format.h"
#include "symbolizer/index/name_table.h"
#include "symbolizer/index/put_aside.h"
#include "symbolizer/index/section_sink.h"

namespace firewatch::symbolizer {

struct IndexSource {
  BuildId id;
  bool pseudo_id = false;
  bool has_table = true;
  // Names are a Go program's: dots in them do not begin a compiler's suffix.
  bool keep_suffixes = false;
  uint64_t file_bytes = 0;
  std::vector<IndexSegment> segments;      // executable ones, in any order
  std::vector<InputSymbol> symbols;        // by virtual address, in any order
  std::vector<std::string> groups = {""};  // InputSymbol::group counts in these
};

struct IndexWriteReport {
  uint64_t symbols = 0;  // ranges
  uint64_t names = 0;
  uint64_t file_bytes = 0;
  uint64_t names_bytes = 0;
  uint64_t symbols_bytes = 0;
  uint64_t lines_bytes = 0;
};

class IndexWriter {
 public:
  // Sorts the symbols and gives their names the first ids, in order of address. The strings of
  // `source.symbols` must outlive the writer. `put_aside`: for what waits until Write.
  explicit IndexWriter(IndexSource source, const PutAside& put_aside = nullptr);
  ~IndexWriter();

  // For what refers to names by id: the lines.
  NameTableBuilder& names() { return names_; }

  // Lines (their encoding is line_table_format.h's) go into the file while they are made, so that
  // the section is not in memory: `fd` is the one that Write gets. Call once; valid as long as the
  // writer. SetLinesWritten says that all of them are there.
  SectionSink& LinesInto(int fd);
  void SetLinesWritten(uint32_t version);
  // The same for a section in memory, which must outlive Write.
  void SetLines(uint32_t version, std::span<const std::byte> section);
  // Why there are none; not kPresent. What was written is dropped. Without any of these calls the
  // index says that lines were not tried.
  void SetNoLines(LinesState state) { lines_state_ = state; }

  // Threads but one begin with the names section, beside what is left of the lines: names() must
  // give out no more, also with one thread, which begins nothing. Call at most once.
  void StartNames(unsigned threads);

  // Writes from offset 0 of `fd` (seekable, empty but for lines), once. The caller publishes the
  // file by rename; until the header is written (last) it is not an index. `threads` demangle and
  // compress, unless StartNames has begun with that.
  absl::StatusOr<IndexWriteReport> Write(int fd, unsigned threads = 1);

 private:
  class LinesFile;

  IndexSource source_;
  NameTableBuilder names_;
  std::optional<NameTableWriter> names_writer_;  // behind what it reads
  size_t symbol_count_ = 0;
  std::span<const std::byte> symbols_;  // the section; put aside, or
  std::vector<std::byte> kept_symbols_;
  LinesState lines_state_ = LinesState::kNotTried;
  uint32_t lines_version_ = 0;
  std::span<const std::byte> lines_;
  std::unique_ptr<LinesFile> lines_file_;
};

// The whole of it without lines. Returns the number of ranges.
absl::StatusOr<uint64_t> WriteSymbolIndex(IndexSource source, int fd);

}  // namespace firewatch::symbolizer
