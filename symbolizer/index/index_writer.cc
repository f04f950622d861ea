// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/index/index_writer.h"

#define XXH_INLINE_ALL
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <tuple>
#include <utility>

#include "base/status.h"
#include "symbolizer/index/symbols_writer.h"

namespace firewatch::symbolizer {
namespace {

constexpr size_t kAlignment = 8;

absl::Status WriteAt(int fd, uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return base::ErrnoStatus(errno, "write the symbol index");
    offset += static_cast<uint64_t>(written);
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

struct Section {
  IndexSectionKind kind;
  uint32_t version;
  std::span<const std::byte> bytes;
};

uint64_t AlignUp(uint64_t value) { return (value + kAlignment - 1) / kAlignment * kAlignment; }

// Sections first, then what leads to them.
absl::StatusOr<uint64_t> WriteContainer(IndexHeader header, std::span<const Section> sections,
                                        int fd) {
  std::vector<IndexSectionEntry> entries;
  uint64_t offset = sizeof(header) + sections.size() * sizeof(IndexSectionEntry) + sizeof(uint64_t);
  for (const Section& section : sections) {
    entries.push_back({.kind = static_cast<uint32_t>(section.kind),
                       .version = section.version,
                       .offset = offset,
                       .size = section.bytes.size(),
                       .xxh3 = XXH3_64bits(section.bytes.data(), section.bytes.size())});
    RETURN_IF_ERROR(WriteAt(fd, offset, section.bytes));
    const uint64_t end = offset + section.bytes.size();
    offset = AlignUp(end);
    static constexpr std::byte kZeros[kAlignment] = {};
    RETURN_IF_ERROR(WriteAt(fd, end, std::span(kZeros).first(offset - end)));
  }
  header.index_bytes = offset;
  header.section_count = static_cast<uint16_t>(sections.size());

  const auto directory = std::as_bytes(std::span<const IndexSectionEntry>(entries));
  std::vector<std::byte> head(sizeof(header) + directory.size() + sizeof(uint64_t));
  std::memcpy(head.data(), &header, sizeof(header));
  std::copy(directory.begin(), directory.end(), head.begin() + sizeof(header));
  const size_t sum_at = head.size() - sizeof(uint64_t);
  const uint64_t sum = XXH3_64bits(head.data(), sum_at);
  std::memcpy(head.data() + sum_at, &sum, sizeof(sum));
  RETURN_IF_ERROR(WriteAt(fd, 0, head));
  return offset;
}

std::vector<IndexSegment> Sorted(std::vector<IndexSegment> segments) {
  std::sort(segments.begin(), segments.end(), [](const IndexSegment& a, const IndexSegment& b) {
    return std::tie(a.file_offset, a.vaddr, a.file_size) <
           std::tie(b.file_offset, b.vaddr, b.file_size);
  });
  if (segments.size() > kMaxIndexSegments) segments.resize(kMaxIndexSegments);
  return segments;
}

}  // namespace

IndexWriter::IndexWriter(IndexSource source)
    : source_(std::move(source)),
      ranges_(Flatten(source_.symbols)),
      symbols_(CollectSymbols(source_, ranges_, names_)) {}

void IndexWriter::SetLines(uint32_t version, std::span<const std::byte> section) {
  lines_state_ = LinesState::kPresent;
  lines_version_ = version;
  lines_ = section;
}

absl::StatusOr<IndexWriteReport> IndexWriter::Write(int fd, unsigned threads) {
  IndexHeader header{};
  std::memcpy(header.magic, kIndexMagic, sizeof(header.magic));
  header.version = kIndexVersion;
  header.flags =
      (source_.has_table ? kIndexHasTable : 0) | (source_.pseudo_id ? kIndexPseudoId : 0);
  header.elf_bytes = source_.file_bytes;
  header.id_size = source_.id.size;
  std::memcpy(header.id, source_.id.bytes.data(), sizeof(header.id));
  header.lines_state = static_cast<uint8_t>(lines_state_);

  const std::vector<IndexSegment> segments = Sorted(source_.segments);
  ASSIGN_OR_RETURN(
      const std::vector<std::byte> names,
      WriteNames(names_, {.threads = threads, .keep_suffixes = source_.keep_suffixes}));
  const std::vector<std::byte> symbols = WriteSymbols(symbols_);

  std::vector<Section> sections = {{IndexSectionKind::kSegments, kSegmentsVersion,
                                    std::as_bytes(std::span<const IndexSegment>(segments))},
                                   {IndexSectionKind::kNames, kNamesVersion, names},
                                   {IndexSectionKind::kSymbols, kSymbolsVersion, symbols}};
  if (lines_state_ == LinesState::kPresent) {
    sections.push_back({IndexSectionKind::kLines, lines_version_, lines_});
  }
  ASSIGN_OR_RETURN(const uint64_t file_bytes, WriteContainer(header, sections, fd));
  return IndexWriteReport{.symbols = symbols_.ranges.size(),
                          .names = names_.size(),
                          .file_bytes = file_bytes,
                          .names_bytes = names.size(),
                          .symbols_bytes = symbols.size(),
                          .lines_bytes = lines_.size()};
}

absl::StatusOr<uint64_t> WriteSymbolIndex(IndexSource source, int fd) {
  IndexWriter writer(std::move(source));
  ASSIGN_OR_RETURN(const IndexWriteReport report, writer.Write(fd));
  return report.symbols;
}

}  // namespace firewatch::symbolizer
