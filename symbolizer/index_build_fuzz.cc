// SPDX-License-Identifier: Apache-2.0
// Any bytes as an ELF file with debug information, all the way to an index: what was written must
// be an index that its own reader takes, whatever the file said. And its copy without code, whose
// size is the file's wherever sections claim to lie.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/mapped_file.h"
#include "base/unique_fd.h"
#include "symbolizer/debug_copy.h"
#include "symbolizer/elf/byte_source.h"
#include "symbolizer/index/symbol_index.h"
#include "symbolizer/index_build.h"
#include "symbolizer/object_symbols.h"

namespace firewatch::symbolizer {
namespace {

// Who reads the symbols of a few addresses says what who reads all of them says: where each of the
// first symbols begins, and beside that.
void CompareNames(ObjectFiles& files, const SymbolIndex& index) {
  const auto all = ObjectSymbols::Read(files);
  CHECK(all.ok());
  std::vector<uint64_t> addresses;
  for (uint32_t i = 0; i < index.symbol_count() && i < 8; ++i) {
    for (const uint64_t distance : {uint64_t{0}, uint64_t{1}, uint64_t{16}}) {
      addresses.push_back(index.SymbolNumber(i).start + distance);
      addresses.push_back(index.SymbolNumber(i).start - distance);
    }
  }
  std::sort(addresses.begin(), addresses.end());
  const auto few = ObjectSymbols::ReadAt(files, addresses);
  CHECK(few.ok());
  for (const uint64_t address : addresses) {
    const auto expected = all->At(address);
    const auto found = few->At(address);
    CHECK(found.has_value() == expected.has_value());
    if (!found) continue;
    CHECK(found->name == expected->name && found->start == expected->start);
    CHECK(found->continued == expected->continued);
  }
}

}  // namespace
}  // namespace firewatch::symbolizer

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
  CompareNames(**files, *index);
  return 0;
}
