// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/elf/elf_file.h"

#include <elf.h>
#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/status.h"
#include "symbolizer/elf/inflate.h"

namespace firewatch::symbolizer {
namespace {

constexpr size_t kCrcPieceBytes = size_t{256} << 10;
// glibc 2.36's <elf.h> knows zlib only.
constexpr uint32_t kCompressZlib = 1;
constexpr uint32_t kCompressZstd = 2;
constexpr std::string_view kDebugPrefix = ".debug_";
constexpr std::string_view kOldPrefix = ".zdebug_";
constexpr size_t kMaxLinkBytes = 4096;

std::string_view AsText(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// "ZLIB" and the size as eight bytes, the highest first: before SHF_COMPRESSED (2015).
absl::StatusOr<std::span<const std::byte>> InflateOld(std::span<const std::byte> raw,
                                                      ScratchFile& scratch) {
  constexpr size_t kHeader = 12;
  if (raw.size() < kHeader || AsText(raw.first(4)) != "ZLIB") {
    return base::InvalidArgument(".zdebug section without its mark");
  }
  uint64_t size = 0;
  for (const std::byte byte : raw.subspan(4, 8)) size = size << 8 | std::to_integer<uint64_t>(byte);
  return Inflate(Compression::kZlib, raw.subspan(kHeader), size, scratch);
}

absl::StatusOr<std::span<const std::byte>> InflateSection(std::span<const std::byte> raw,
                                                          ScratchFile& scratch) {
  Elf64_Chdr header;
  if (raw.size() < sizeof(header)) return base::InvalidArgument("compressed section too short");
  std::memcpy(&header, raw.data(), sizeof(header));
  if (header.ch_type != kCompressZlib && header.ch_type != kCompressZstd) {
    return base::InvalidArgument("section compressed in way {}", header.ch_type);
  }
  const auto compression =
      header.ch_type == kCompressZlib ? Compression::kZlib : Compression::kZstd;
  return Inflate(compression, raw.subspan(sizeof(header)), header.ch_size, scratch);
}

std::string OldName(std::string_view name) {
  if (!name.starts_with(kDebugPrefix)) return "";
  return std::string(kOldPrefix).append(name.substr(kDebugPrefix.size()));
}

}  // namespace

std::optional<DebugLink> ParseDebugLink(std::span<const std::byte> section) {
  const std::string_view text = AsText(section.first(std::min(section.size(), kMaxLinkBytes)));
  const size_t end = text.find('\0');
  if (end == std::string_view::npos) return std::nullopt;
  const std::string_view name = text.substr(0, end);
  const size_t crc_at = (end + 4) & ~size_t{3};
  DebugLink link;
  if (name.empty() || name == "." || name == ".." || name.find('/') != std::string_view::npos ||
      text.size() < crc_at + sizeof(link.crc)) {
    return std::nullopt;
  }
  link.name = name;
  std::memcpy(&link.crc, text.data() + crc_at, sizeof(link.crc));
  return link;
}

std::optional<AltLink> ParseAltLink(std::span<const std::byte> section) {
  const std::string_view text = AsText(section.first(std::min(section.size(), kMaxLinkBytes)));
  const size_t end = text.find('\0');
  if (end == std::string_view::npos || end == 0 || end + 1 == text.size()) return std::nullopt;
  AltLink link;
  link.path = text.substr(0, end);
  const std::string_view id = text.substr(end + 1);
  link.id.size = static_cast<uint8_t>(std::min(id.size(), link.id.bytes.size()));
  std::memcpy(link.id.bytes.data(), id.data(), link.id.size);
  return link;
}

absl::StatusOr<std::unique_ptr<ElfFile>> ElfFile::Open(int fd, const ElfLimits& limits,
                                                       ScratchFile& scratch) {
  std::unique_ptr<ElfFile> file(new ElfFile(scratch));
  file->own_source_ = std::make_unique<MappingByteSource>(fd);
  RETURN_IF_ERROR(file->ReadHeaders(*file->own_source_, limits));
  return file;
}

absl::StatusOr<std::unique_ptr<ElfFile>> ElfFile::FromSource(const ByteSource& source,
                                                             const ElfLimits& limits,
                                                             ScratchFile& scratch) {
  std::unique_ptr<ElfFile> file(new ElfFile(scratch));
  RETURN_IF_ERROR(file->ReadHeaders(source, limits));
  return file;
}

absl::StatusOr<std::unique_ptr<ElfFile>> ElfFile::FromBytes(std::vector<std::byte> bytes,
                                                            const ElfLimits& limits,
                                                            ScratchFile& scratch) {
  std::unique_ptr<ElfFile> file(new ElfFile(scratch));
  file->memory_ = std::move(bytes);
  file->own_source_ = std::make_unique<SpanByteSource>(file->memory_);
  RETURN_IF_ERROR(file->ReadHeaders(*file->own_source_, limits));
  return file;
}

absl::Status ElfFile::ReadHeaders(const ByteSource& source, const ElfLimits& limits) {
  ASSIGN_OR_RETURN(reader_, ElfReader::Open(source, limits));
  // Names that cannot be read are no names: the file may still have symbols.
  auto names = reader_->ReadSectionNames();
  if (names.ok()) section_names_ = *std::move(names);
  return absl::OkStatus();
}

const ElfSection* ElfFile::Find(std::string_view name) const {
  for (const ElfSection& section : reader_->sections()) {
    if (section.type != SHT_NOBITS && section.size > 0 && section_names_.At(section.name) == name) {
      return &section;
    }
  }
  return nullptr;
}

bool ElfFile::Has(std::string_view name) const {
  if (Find(name) != nullptr) return true;
  const std::string old = OldName(name);
  return !old.empty() && Find(old) != nullptr;
}

absl::Status ElfFile::CheckInside(const ElfSection& section) const {
  const uint64_t file_bytes = reader_->source().size();
  if (section.file_offset <= file_bytes && section.size <= file_bytes - section.file_offset) {
    return absl::OkStatus();
  }
  return base::InvalidArgument("section of {} bytes at {} reaches past the end of the file",
                               section.size, section.file_offset);
}

absl::StatusOr<std::span<const std::byte>> ElfFile::RawBytes(const ElfSection& section) {
  RETURN_IF_ERROR(CheckInside(section));
  const ByteSource& source = reader_->source();
  if (const auto view = source.View(section.file_offset, section.size); !view.empty()) return view;
  std::vector<std::byte> copy(section.size);
  RETURN_IF_ERROR(source.Read(section.file_offset, copy));
  return copies_.emplace_back(std::move(copy));
}

absl::StatusOr<std::vector<std::byte>> ElfFile::ReadRaw(std::string_view name,
                                                        uint64_t max_bytes) const {
  const ElfSection* section = Find(name);
  if (section == nullptr) return std::vector<std::byte>();
  RETURN_IF_ERROR(CheckInside(*section));
  if (section->size > max_bytes) {
    return base::ResourceExhausted("{} of {} bytes, {} are allowed", name, section->size,
                                   max_bytes);
  }
  std::vector<std::byte> bytes(section->size);
  RETURN_IF_ERROR(reader_->source().Read(section->file_offset, bytes));
  return bytes;
}

absl::StatusOr<std::span<const std::byte>> ElfFile::Load(std::string_view name) {
  if (const ElfSection* section = Find(name)) {
    ASSIGN_OR_RETURN(const auto raw, RawBytes(*section));
    if ((section->flags & SHF_COMPRESSED) == 0) return raw;
    return InflateSection(raw, scratch_);
  }
  const std::string old = OldName(name);
  const ElfSection* section = old.empty() ? nullptr : Find(old);
  if (section == nullptr) return std::span<const std::byte>();
  ASSIGN_OR_RETURN(const auto raw, RawBytes(*section));
  return InflateOld(raw, scratch_);
}

absl::StatusOr<std::span<const std::byte>> ElfFile::Section(std::string_view name) {
  if (const auto known = loaded_.find(name); known != loaded_.end()) return known->second;
  auto bytes = Load(name);
  if (!bytes.ok()) return base::Annotate(bytes.status(), name);
  loaded_.emplace(std::string(name), *bytes);
  return bytes;
}

absl::StatusOr<uint32_t> ElfFile::Crc() const {
  std::vector<std::byte> piece(kCrcPieceBytes);
  uLong crc = ::crc32(0, nullptr, 0);
  const ByteSource& source = reader_->source();
  for (uint64_t done = 0; done < source.size();) {
    const auto part = std::span(piece).first(
        static_cast<size_t>(std::min<uint64_t>(piece.size(), source.size() - done)));
    RETURN_IF_ERROR(source.Read(done, part));
    crc = ::crc32(crc, reinterpret_cast<const Bytef*>(part.data()), static_cast<uInt>(part.size()));
    done += part.size();
  }
  return static_cast<uint32_t>(crc);
}

}  // namespace firewatch::symbolizer
