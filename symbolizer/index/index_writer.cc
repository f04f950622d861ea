// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/index/index_writer.h"

#define XXH_INLINE_ALL
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "base/status.h"
#include "symbolizer/demangle.h"
#include "symbolizer/index/index_format.h"
#include "symbolizer/index/text.h"

namespace firewatch::symbolizer {
namespace {

constexpr size_t kBufferBytes = size_t{256} << 10;

absl::Status WriteAt(int fd, uint64_t offset, const void* data, size_t size) {
  const char* bytes = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t written = ::pwrite(fd, bytes, size, static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return base::ErrnoStatus(errno, "write the symbol index");
    bytes += written;
    offset += static_cast<uint64_t>(written);
    size -= static_cast<size_t>(written);
  }
  return absl::OkStatus();
}

// Appends to the file in large pieces and hashes what it appends.
class HashedOutput {
 public:
  HashedOutput(int fd, uint64_t offset) : fd_(fd), offset_(offset) {
    XXH3_64bits_reset(&hash_);
    buffer_.reserve(kBufferBytes);
  }
  void Append(const void* data, size_t size) {
    buffer_.append(static_cast<const char*>(data), size);
    if (buffer_.size() >= kBufferBytes) Flush();
  }
  absl::Status Finish(uint64_t* hash) {
    Flush();
    *hash = XXH3_64bits_digest(&hash_);
    return status_;
  }

 private:
  void Flush() {
    XXH3_64bits_update(&hash_, buffer_.data(), buffer_.size());
    if (status_.ok()) status_ = WriteAt(fd_, offset_, buffer_.data(), buffer_.size());
    offset_ += buffer_.size();
    buffer_.clear();
  }
  const int fd_;
  uint64_t offset_;
  std::string buffer_;
  XXH3_state_t hash_;
  absl::Status status_;
};

class Pool {
 public:
  Pool(int fd, uint64_t offset) : output_(fd, offset) { output_.Append("", 1); }

  // The offset of `text`, which is put at the end.
  uint32_t Add(std::string_view text) {
    if (text.empty()) return 0;
    const uint64_t offset = bytes_;
    bytes_ += text.size() + 1;
    if (bytes_ > kMaxPoolBytes) return 0;
    output_.Append(text.data(), text.size());
    output_.Append("", 1);
    return static_cast<uint32_t>(offset);
  }
  uint64_t bytes() const { return bytes_; }
  absl::Status Finish(uint64_t* hash) {
    if (bytes_ > kMaxPoolBytes) {
      return base::ResourceExhausted("{} bytes of names, {} are allowed", bytes_, kMaxPoolBytes);
    }
    return output_.Finish(hash);
  }

 private:
  HashedOutput output_;
  uint64_t bytes_ = 1;
};

struct NameOffsets {
  uint32_t name = 0;
  uint32_t system_name = 0;  // 0: not in the pool yet
};

NameOffsets AddNames(std::string_view raw, Pool& pool) {
  NameOffsets offsets;
  const bool clean = IsPrintableUtf8(raw);
  offsets.system_name = pool.Add(clean ? raw : std::string_view(MakePrintable(raw)));
  offsets.name = offsets.system_name;
  if (!clean || !LooksMangled(raw)) return offsets;
  const std::string demangled = Demangle(raw);
  if (demangled != raw) {
    offsets.name = pool.Add(IsPrintableUtf8(demangled) ? demangled : MakePrintable(demangled));
  }
  return offsets;
}

// Details in the order of `ranges`; a symbol that was cut in two has its names in the pool once.
std::vector<IndexDetail> WritePool(const IndexSource& source,
                                   const std::vector<SymbolRange>& ranges, Pool& pool) {
  std::vector<uint32_t> groups;
  for (const std::string& group : source.groups) groups.push_back(pool.Add(MakePrintable(group)));
  std::vector<NameOffsets> names(source.symbols.size());
  std::vector<IndexDetail> details;
  details.reserve(ranges.size());
  for (const SymbolRange& range : ranges) {
    const InputSymbol& symbol = source.symbols[range.symbol];
    NameOffsets& offsets = names[range.symbol];
    if (offsets.system_name == 0) offsets = AddNames(symbol.name, pool);
    const uint64_t size = std::min<uint64_t>(range.end - range.start, UINT32_MAX);
    details.push_back({.size_bytes = static_cast<uint32_t>(size),
                       .name = offsets.name,
                       .system_name = offsets.system_name,
                       .group = symbol.group < groups.size() ? groups[symbol.group] : 0});
  }
  return details;
}

absl::Status WriteTables(const std::vector<SymbolRange>& ranges,
                         const std::vector<IndexDetail>& details, int fd, uint64_t* hash) {
  HashedOutput output(fd, sizeof(IndexHeader));
  for (const SymbolRange& range : ranges) output.Append(&range.start, sizeof(range.start));
  for (const IndexDetail& detail : details) output.Append(&detail, sizeof(detail));
  return output.Finish(hash);
}

}  // namespace

absl::StatusOr<uint64_t> WriteSymbolIndex(IndexSource& source, int fd) {
  const std::vector<SymbolRange> ranges = Flatten(source.symbols);
  IndexHeader header{};
  std::memcpy(header.magic, kIndexMagic, sizeof(header.magic));
  header.version = kIndexVersion;
  header.flags = (source.has_table ? kIndexHasTable : 0) | (source.pseudo_id ? kIndexPseudoId : 0);
  header.file_bytes = source.file_bytes;
  header.symbol_count = ranges.size();
  header.id_size = source.id.size;
  std::memcpy(header.id, source.id.bytes.data(), sizeof(header.id));

  auto pool =
      std::make_unique<Pool>(fd, sizeof(IndexHeader) + ranges.size() * kIndexBytesPerSymbol);
  const std::vector<IndexDetail> details = WritePool(source, ranges, *pool);
  RETURN_IF_ERROR(pool->Finish(&header.pool_xxh3));
  header.pool_bytes = pool->bytes();
  RETURN_IF_ERROR(WriteTables(ranges, details, fd, &header.tables_xxh3));
  header.header_xxh3 = XXH3_64bits(&header, offsetof(IndexHeader, header_xxh3));
  RETURN_IF_ERROR(WriteAt(fd, 0, &header, sizeof(header)));
  return ranges.size();
}

}  // namespace firewatch::symbolizer
