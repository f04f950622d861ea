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

#include "base/check.h"
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

// Where the first of so many sections begins.
uint64_t HeadBytes(size_t sections) {
  return sizeof(IndexHeader) + sections * sizeof(IndexSectionEntry) + sizeof(uint64_t);
}

absl::Status WriteZeros(int fd, uint64_t offset, uint64_t end) {
  static constexpr std::byte kZeros[kAlignment] = {};
  return WriteAt(fd, offset, std::span(kZeros).first(end - offset));
}

// Sections behind those of `entries`, which are in the file already, then what leads to all.
absl::StatusOr<uint64_t> WriteContainer(IndexHeader header, std::vector<IndexSectionEntry> entries,
                                        std::span<const Section> sections, int fd) {
  uint64_t offset = HeadBytes(entries.size() + sections.size());
  if (!entries.empty()) {
    const uint64_t end = entries.back().offset + entries.back().size;
    offset = AlignUp(end);
    RETURN_IF_ERROR(WriteZeros(fd, end, offset));
  }
  for (const Section& section : sections) {
    entries.push_back({.kind = static_cast<uint32_t>(section.kind),
                       .version = section.version,
                       .offset = offset,
                       .size = section.bytes.size(),
                       .xxh3 = XXH3_64bits(section.bytes.data(), section.bytes.size())});
    RETURN_IF_ERROR(WriteAt(fd, offset, section.bytes));
    const uint64_t end = offset + section.bytes.size();
    offset = AlignUp(end);
    RETURN_IF_ERROR(WriteZeros(fd, end, offset));
  }
  header.index_bytes = offset;
  header.section_count = static_cast<uint16_t>(entries.size());

  const auto directory = std::as_bytes(std::span<const IndexSectionEntry>(entries));
  std::vector<std::byte> head(HeadBytes(entries.size()));
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

// The lines section as the first of the file: its size is not known before it is there, but it is
// known where it begins.
class IndexWriter::LinesFile final : public SectionSink {
 public:
  explicit LinesFile(int fd) : fd_(fd) { XXH3_64bits_reset(&hash_); }

  absl::Status Append(std::span<const std::byte> bytes) override {
    XXH3_64bits_update(&hash_, bytes.data(), bytes.size());
    RETURN_IF_ERROR(WriteAt(fd_, kOffset + size_, bytes));
    size_ += bytes.size();
    return absl::OkStatus();
  }
  IndexSectionEntry Entry(uint32_t version) const {
    return {.kind = static_cast<uint32_t>(IndexSectionKind::kLines),
            .version = version,
            .offset = kOffset,
            .size = size_,
            .xxh3 = XXH3_64bits_digest(&hash_)};
  }

 private:
  static constexpr size_t kSections = 4;  // lines, segments, names, symbols
  static constexpr uint64_t kOffset =
      sizeof(IndexHeader) + kSections * sizeof(IndexSectionEntry) + sizeof(uint64_t);
  static_assert(kOffset % kAlignment == 0);
  const int fd_;
  uint64_t size_ = 0;
  XXH3_state_t hash_;
};

IndexWriter::IndexWriter(IndexSource source, const PutAside& put_aside)
    : source_(std::move(source)) {
  // What is done is given back at once: lines are next, which take all the memory that there is.
  SymbolColumns columns = CollectSymbols(source_, Flatten(source_.symbols), names_);
  std::vector<InputSymbol>().swap(source_.symbols);
  symbol_count_ = columns.ranges.size();
  kept_symbols_ = WriteSymbols(columns);
  symbols_ = kept_symbols_;
  if (!put_aside) return;
  if (const auto put = put_aside(kept_symbols_); put.ok()) {
    symbols_ = *put;
    std::vector<std::byte>().swap(kept_symbols_);
  }
}

IndexWriter::~IndexWriter() = default;

SectionSink& IndexWriter::LinesInto(int fd) {
  CHECK(lines_file_ == nullptr);
  lines_file_ = std::make_unique<LinesFile>(fd);
  return *lines_file_;
}

void IndexWriter::SetLinesWritten(uint32_t version) {
  CHECK(lines_file_ != nullptr);
  lines_state_ = LinesState::kPresent;
  lines_version_ = version;
}

void IndexWriter::SetLines(uint32_t version, std::span<const std::byte> section) {
  lines_state_ = LinesState::kPresent;
  lines_version_ = version;
  lines_ = section;
}

void IndexWriter::StartNames(unsigned threads) {
  names_.Close();
  if (threads < 2) return;
  names_writer_.emplace(
      names_, NameTableOptions{.threads = threads, .keep_suffixes = source_.keep_suffixes});
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
  if (!names_writer_) {
    names_.Close();
    names_writer_.emplace(
        names_, NameTableOptions{.threads = threads, .keep_suffixes = source_.keep_suffixes});
  }
  ASSIGN_OR_RETURN(const std::vector<std::byte> names, names_writer_->Finish());

  std::vector<IndexSectionEntry> written;
  std::vector<Section> sections;
  if (lines_state_ == LinesState::kPresent && lines_file_ != nullptr) {
    written.push_back(lines_file_->Entry(lines_version_));
  } else if (lines_state_ == LinesState::kPresent) {
    sections.push_back({IndexSectionKind::kLines, lines_version_, lines_});
  } else if (lines_file_ != nullptr && ::ftruncate(fd, 0) != 0) {
    return base::ErrnoStatus(errno, "drop lines that are not whole");
  }
  const uint64_t lines_bytes = written.empty() ? lines_.size() : written.front().size;
  sections.push_back({IndexSectionKind::kSegments, kSegmentsVersion,
                      std::as_bytes(std::span<const IndexSegment>(segments))});
  sections.push_back({IndexSectionKind::kNames, kNamesVersion, names});
  sections.push_back({IndexSectionKind::kSymbols, kSymbolsVersion, symbols_});
  ASSIGN_OR_RETURN(const uint64_t file_bytes,
                   WriteContainer(header, std::move(written), sections, fd));
  return IndexWriteReport{.symbols = symbol_count_,
                          .names = names_.size(),
                          .file_bytes = file_bytes,
                          .names_bytes = names.size(),
                          .symbols_bytes = symbols_.size(),
                          .lines_bytes = lines_bytes};
}

absl::StatusOr<uint64_t> WriteSymbolIndex(IndexSource source, int fd) {
  IndexWriter writer(std::move(source));
  ASSIGN_OR_RETURN(const IndexWriteReport report, writer.Write(fd));
  return report.symbols;
}

}  // namespace firewatch::symbolizer
