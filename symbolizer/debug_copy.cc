// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/debug_copy.h"

#include <unistd.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <span>
#include <string_view>

#include "base/status.h"

namespace firewatch::symbolizer {
namespace {

constexpr size_t kPieceBytes = size_t{256} << 10;
constexpr int kZstdLevel = 3;
constexpr uint32_t kNoBits = 8;  // SHT_NOBITS

// Names are made of symbols, DWARF, relocations of the PLT and the PLT itself: not of these.
constexpr std::array<std::string_view, 6> kBlankSections = {
    ".text", ".rodata", ".eh_frame", ".gcc_except_table", ".data", ".data.rel.ro"};
constexpr std::array<std::string_view, 3> kGoSections = {".gopclntab", ".data.rel.ro.gopclntab",
                                                         ".go.buildinfo"};

void Blank(const BlankRanges& ranges, uint64_t file_at, std::span<char> piece) {
  for (const auto& [begin, end] : ranges) {
    const uint64_t from = std::max(begin, file_at);
    const uint64_t to = std::min(end, file_at + piece.size());
    if (from < to) std::memset(piece.data() + (from - file_at), 0, to - from);
  }
}

absl::Status WriteAll(int fd, std::span<const char> bytes, uint64_t offset) {
  while (!bytes.empty()) {
    const ssize_t put = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return base::Internal("write the copy: {}", std::strerror(errno));
    bytes = bytes.subspan(static_cast<size_t>(put));
    offset += static_cast<uint64_t>(put);
  }
  return absl::OkStatus();
}

}  // namespace

BlankRanges BlankRangesOf(const ElfReader& elf) {
  BlankRanges ranges;
  const bool is_go = std::ranges::any_of(
      kGoSections, [&](std::string_view name) { return elf.SectionNamed(name) != nullptr; });
  if (is_go) return ranges;
  for (const std::string_view name : kBlankSections) {
    const ElfSection* section = elf.SectionNamed(name);
    if (section == nullptr || section->type == kNoBits || section->size == 0) continue;
    if (section->file_offset > UINT64_MAX - section->size) continue;
    ranges.emplace_back(section->file_offset, section->file_offset + section->size);
  }
  std::ranges::sort(ranges);
  return ranges;
}

absl::StatusOr<uint64_t> WriteDebugCopy(const ElfReader& elf, int output_fd) {
  const BlankRanges ranges = BlankRangesOf(elf);
  const uint64_t size = elf.source().size();
  if (::ftruncate(output_fd, static_cast<off_t>(size)) != 0) {
    return base::Internal("size of the copy: {}", std::strerror(errno));
  }
  std::vector<char> piece(static_cast<size_t>(std::min<uint64_t>(kPieceBytes, size)));
  auto next = ranges.begin();
  for (uint64_t at = 0; at < size;) {
    while (next != ranges.end() && next->second <= at) ++next;
    if (next != ranges.end() && next->first <= at) {
      at = std::min(next->second, size);
      continue;
    }
    const uint64_t until = next == ranges.end() ? size : std::min(next->first, size);
    const std::span<char> part(piece.data(),
                               static_cast<size_t>(std::min<uint64_t>(until - at, piece.size())));
    RETURN_IF_ERROR(elf.source().Read(at, std::as_writable_bytes(part)));
    RETURN_IF_ERROR(WriteAll(output_fd, part, at));
    at += part.size();
  }
  return size;
}

struct CompressedFile::Compressor {
  Compressor() : context(::ZSTD_createCCtx(), &::ZSTD_freeCCtx) {
    ::ZSTD_CCtx_setParameter(context.get(), ZSTD_c_compressionLevel, kZstdLevel);
    ::ZSTD_CCtx_setParameter(context.get(), ZSTD_c_checksumFlag, 1);
  }
  std::unique_ptr<ZSTD_CCtx, decltype(&::ZSTD_freeCCtx)> context;
};

CompressedFile::CompressedFile(int fd, BlankRanges blank)
    : fd_(fd),
      blank_(std::move(blank)),
      compressor_(std::make_unique<Compressor>()),
      piece_(kPieceBytes) {}

CompressedFile::~CompressedFile() = default;

// The next piece of the file, blank where it is not needed.
absl::Status CompressedFile::Fill() {
  const ssize_t got = ::pread(fd_, piece_.data(), piece_.size(), static_cast<off_t>(file_at_));
  if (got < 0) return base::ErrnoStatus(errno, "read");
  piece_bytes_ = static_cast<size_t>(got);
  piece_at_ = 0;
  Blank(blank_, file_at_, std::span(piece_.data(), piece_bytes_));
  file_at_ += piece_bytes_;
  return absl::OkStatus();
}

absl::StatusOr<size_t> CompressedFile::Read(char* buffer, size_t capacity) {
  ZSTD_outBuffer out{.dst = buffer, .size = capacity, .pos = 0};
  while (out.pos == 0 && !ended_) {
    if (piece_at_ == piece_bytes_) RETURN_IF_ERROR(Fill());
    ZSTD_inBuffer in{.src = piece_.data(), .size = piece_bytes_, .pos = piece_at_};
    const bool last = piece_bytes_ == 0;
    const size_t left = ::ZSTD_compressStream2(compressor_->context.get(), &out, &in,
                                               last ? ZSTD_e_end : ZSTD_e_continue);
    if (::ZSTD_isError(left)) return base::Internal("zstd: {}", ::ZSTD_getErrorName(left));
    piece_at_ = in.pos;
    ended_ = last && left == 0;
  }
  sent_bytes_ += out.pos;
  return out.pos;
}

}  // namespace firewatch::symbolizer
