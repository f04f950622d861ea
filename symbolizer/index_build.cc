// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/index_build.h"

#include <algorithm>
#include <deque>
#include <utility>

#include "base/status.h"
#include "symbolizer/elf/function_symbols.h"
#include "symbolizer/index/index_writer.h"

namespace firewatch::symbolizer {
namespace {

// A deque: names point into its elements.
using SymbolTables = std::deque<FunctionSymbols>;

// What cannot be read of a further file is missing, no more.
void AddFurther(const ElfFile* file, SymbolTables* tables) {
  if (file == nullptr) return;
  auto functions = ReadFunctionSymbols(file->reader(), {.debug_file = true});
  if (functions.ok()) tables->push_back(*std::move(functions));
}

absl::StatusOr<SymbolTables> ReadTables(ObjectFiles& files) {
  SymbolTables tables;
  const bool alone = files.elf() == nullptr;
  const ElfFile& first = alone ? *files.debug() : *files.elf();
  // A file that is called a debug file may be a whole program all the same.
  const bool no_code = alone && files.facts().executable_segments.empty();
  ASSIGN_OR_RETURN(auto functions, ReadFunctionSymbols(first.reader(), {.debug_file = no_code}));
  tables.push_back(std::move(functions));
  // .gnu_debugdata is a part of the debug file's table, and both are parts of a whole one.
  if (alone || files.facts().has_symtab) return tables;
  AddFurther(files.debug(), &tables);
  if (tables.size() == 1) AddFurther(files.mini_debug(), &tables);
  return tables;
}

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
  for (FunctionSymbols& table : tables) {
    source.has_table |= table.has_table;
    source.keep_suffixes |= table.is_go;
    if (source.symbols.empty()) {
      source.symbols = std::move(table.symbols);
    } else {
      source.symbols.insert(source.symbols.end(), table.symbols.begin(), table.symbols.end());
    }
  }
  return source;
}

}  // namespace

absl::StatusOr<IndexBuildReport> BuildIndex(ObjectFiles& files, const IndexBuildOptions& options,
                                            int out_fd) {
  IndexBuildReport report;
  ASSIGN_OR_RETURN(SymbolTables tables, ReadTables(files));
  IndexWriter writer(SourceOf(files, tables));
  const auto written = writer.Write(out_fd, static_cast<unsigned>(std::max(options.threads, 1)));
  if (!written.ok()) return base::Internal("{}", base::Message(written.status()));
  report.symbols = written->symbols;
  report.index_bytes = written->file_bytes;
  return report;
}

}  // namespace firewatch::symbolizer
