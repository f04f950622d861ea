// SPDX-License-Identifier: Apache-2.0
// Any bytes as an ELF file with debug information, all the way to an index: what was written must
// be an index that its own reader takes, whatever the file said. And its copy without code, whose
// size is the file's wherever sections claim to lie.
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/check.h"
#include "base/mapped_file.h"
#include "base/unique_fd.h"
#include "symbolizer/debug_copy.h"
#include "symbolizer/elf/byte_source.h"
#include "symbolizer/index/symbol_index.h"
#include "symbolizer/index_build.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace firewatch::symbolizer;
  const SpanByteSource source(std::as_bytes(std::span<const uint8_t>(data, size)));
  ObjectOptions options;
  options.max_inflated_bytes = 1 << 20;
  auto files = ObjectFiles::OfSource(source, std::move(options));
  if (!files.ok()) return 0;
  const firewatch::base::UniqueFd copy(::memfd_create("copy", MFD_CLOEXEC));
  const auto copied = WriteDebugCopy((*files)->elf()->reader(), copy.get());
  CHECK(copied.ok() && *copied == size);
  CHECK(FdByteSource(copy.get()).size() == size);
  const firewatch::base::UniqueFd out(::memfd_create("index", MFD_CLOEXEC));
  const auto report = BuildIndex(**files, {.lines = true}, out.get());
  if (!report.ok()) return 0;
  const auto mapped = firewatch::base::MappedFile::FromFd(out.get(), "index");
  CHECK(mapped.ok());
  const auto index = SymbolIndex::Parse(mapped->bytes());
  CHECK(index.ok());
  CHECK(index->lines_state() == report->lines);
  CHECK(report->index_bytes == mapped->bytes().size());
  for (uint32_t i = 0; i < index->symbol_count() && i < 64; ++i) {
    std::array<IndexFrame, kMaxIndexFrames> frames;
    CHECK(index->FindAddress(index->SymbolNumber(i).start, frames) > 0);
  }
  return 0;
}
