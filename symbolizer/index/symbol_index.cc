// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/index/symbol_index.h"

#include <algorithm>
#include <cstring>

#include "base/hash.h"
#include "base/status.h"
#include "symbolizer/index/index_format.h"
#include "symbolizer/index/text.h"

namespace firewatch::symbolizer {
namespace {

std::string_view AsText(const std::byte* data, uint64_t size) {
  return {reinterpret_cast<const char*>(data), static_cast<size_t>(size)};
}

// True when the block is printable ASCII and NULs. Names nearly always are; without branches the
// compiler checks 16 bytes at once.
constexpr size_t kBlockBytes = 64;
bool IsPlainBlock(const char* block) {
  unsigned char bad = 0;
  for (size_t i = 0; i < kBlockBytes; ++i) {
    const auto c = static_cast<unsigned char>(block[i]);
    bad |= static_cast<unsigned char>((c != 0) & (static_cast<unsigned char>(c - 0x20) > 0x5e));
  }
  return bad == 0;
}

absl::Status CheckHeader(const IndexHeader& header, uint64_t file_bytes) {
  if (std::memcmp(header.magic, kIndexMagic, sizeof(header.magic)) != 0) {
    return base::DataLoss("symbol index: wrong magic");
  }
  if (header.version != kIndexVersion) {
    return base::DataLoss("symbol index: version {}, expected {}", header.version, kIndexVersion);
  }
  const auto* bytes = reinterpret_cast<const std::byte*>(&header);
  if (base::Hash64(AsText(bytes, offsetof(IndexHeader, header_xxh3))) != header.header_xxh3) {
    return base::DataLoss("symbol index: header checksum");
  }
  const uint64_t body = file_bytes - sizeof(IndexHeader);
  if (header.symbol_count > body / kIndexBytesPerSymbol ||
      header.pool_bytes != body - header.symbol_count * kIndexBytesPerSymbol ||
      header.pool_bytes == 0 || header.pool_bytes > kMaxPoolBytes) {
    return base::DataLoss("symbol index: sizes do not add up");
  }
  if (header.id_size > sizeof(header.id)) return base::DataLoss("symbol index: size of the id");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SymbolIndex> SymbolIndex::Parse(std::span<const std::byte> bytes) {
  IndexHeader header;
  if (bytes.size() < sizeof(header)) return base::DataLoss("symbol index: too short");
  std::memcpy(&header, bytes.data(), sizeof(header));
  RETURN_IF_ERROR(CheckHeader(header, bytes.size()));

  SymbolIndex index;
  index.count_ = header.symbol_count;
  index.starts_ = bytes.data() + sizeof(header);
  index.details_ = index.starts_ + header.symbol_count * sizeof(uint64_t);
  const uint64_t table_bytes = header.symbol_count * kIndexBytesPerSymbol;
  index.pool_ = AsText(index.starts_ + table_bytes, header.pool_bytes);
  index.file_bytes_ = header.file_bytes;
  index.has_table_ = (header.flags & kIndexHasTable) != 0;
  index.has_pseudo_id_ = (header.flags & kIndexPseudoId) != 0;
  index.id_.size = header.id_size;
  std::memcpy(index.id_.bytes.data(), header.id, header.id_size);

  if (base::Hash64(AsText(index.starts_, table_bytes)) != header.tables_xxh3) {
    return base::DataLoss("symbol index: table checksum");
  }
  if (base::Hash64(index.pool_) != header.pool_xxh3) {
    return base::DataLoss("symbol index: name checksum");
  }
  RETURN_IF_ERROR(index.CheckPool());
  RETURN_IF_ERROR(index.CheckRanges());
  return index;
}

absl::Status SymbolIndex::CheckPool() const {
  if (pool_.front() != '\0' || pool_.back() != '\0') {
    return base::DataLoss("symbol index: names are not terminated");
  }
  for (std::string_view rest = pool_; !rest.empty();) {
    if (rest.size() >= kBlockBytes && IsPlainBlock(rest.data())) {
      rest.remove_prefix(kBlockBytes);
      continue;
    }
    const size_t step = rest.front() == '\0' ? 1 : PrintableSequence(rest);
    if (step == 0) return base::DataLoss("symbol index: a name is not printable UTF-8");
    rest.remove_prefix(step);
  }
  return absl::OkStatus();
}

absl::Status SymbolIndex::CheckRanges() const {
  uint64_t free_from = 0;
  for (uint64_t i = 0; i < count_; ++i) {
    IndexDetail detail;
    std::memcpy(&detail, details_ + i * sizeof(detail), sizeof(detail));
    const uint64_t start = StartAt(i);
    if (start < free_from || detail.size_bytes == 0 || start > UINT64_MAX - detail.size_bytes) {
      return base::DataLoss("symbol index: range {} overlaps or is empty", i);
    }
    free_from = start + detail.size_bytes;
    for (uint32_t offset : {detail.name, detail.system_name, detail.group}) {
      // Offsets lead to the start of a string, so that none begins inside a UTF-8 sequence.
      if (offset >= pool_.size() || (offset > 0 && pool_[offset - 1] != '\0')) {
        return base::DataLoss("symbol index: range {} has a name outside the pool", i);
      }
    }
  }
  return absl::OkStatus();
}

uint64_t SymbolIndex::StartAt(uint64_t i) const {
  uint64_t start;
  std::memcpy(&start, starts_ + i * sizeof(start), sizeof(start));
  return start;
}

std::string_view SymbolIndex::NameAt(uint32_t offset) const {
  if (offset >= pool_.size()) return "";
  const size_t end = pool_.find('\0', offset);
  return pool_.substr(offset, end == std::string_view::npos ? 0 : end - offset);
}

SymbolIndex::Entry SymbolIndex::EntryAt(uint64_t i) const {
  IndexDetail detail;
  std::memcpy(&detail, details_ + i * sizeof(detail), sizeof(detail));
  return {.start = StartAt(i),
          .size_bytes = detail.size_bytes,
          .name = NameAt(detail.name),
          .system_name = NameAt(detail.system_name),
          .group = NameAt(detail.group)};
}

std::optional<SymbolIndex::Entry> SymbolIndex::Find(uint64_t offset) const {
  uint64_t low = 0;  // starts before `low` are <= offset, those from `high` on are > offset
  uint64_t high = count_;
  while (low < high) {
    const uint64_t middle = low + (high - low) / 2;
    if (StartAt(middle) <= offset) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  if (low == 0) return std::nullopt;
  const Entry entry = EntryAt(low - 1);
  if (offset - entry.start >= entry.size_bytes) return std::nullopt;
  return entry;
}

uint64_t SymbolIndex::end() const {
  if (count_ == 0) return 0;
  const Entry last = EntryAt(count_ - 1);
  return last.start + last.size_bytes;
}

}  // namespace firewatch::symbolizer
