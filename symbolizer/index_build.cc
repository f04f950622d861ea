// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/index_build.h"

#include <utility>

#include "base/status.h"
#include "symbolizer/elf/function_symbols.h"
#include "symbolizer/index/index_writer.h"

namespace firewatch::symbolizer {

absl::StatusOr<IndexBuildReport> BuildIndex(ObjectFiles& files, const IndexBuildOptions& options,
                                            int out_fd) {
  IndexBuildReport report;
  if (options.lines) report.lines = LinesState::kNoDebugInfo;
  const ElfFile& first = files.elf() != nullptr ? *files.elf() : *files.debug();
  ASSIGN_OR_RETURN(auto functions, ReadFunctionSymbols(first.reader()));
  IndexSource source;
  source.id = files.facts().id;
  source.pseudo_id = files.facts().has_pseudo_id;
  source.has_table = functions.has_table;
  source.file_bytes = files.facts().file_bytes;
  source.symbols = std::move(functions.symbols);
  auto count = WriteSymbolIndex(source, out_fd);
  if (!count.ok()) return base::Internal("{}", base::Message(count.status()));
  report.symbols = *count;
  return report;
}

}  // namespace firewatch::symbolizer
