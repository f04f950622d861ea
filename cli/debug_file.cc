// SPDX-License-Identifier: Apache-2.0
#include "cli/debug_file.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/status.h"
#include "symbolizer/elf/byte_source.h"
#include "symbolizer/elf/elf_file.h"
#include "symbolizer/elf/elf_reader.h"
#include "symbolizer/process/debug_files.h"

namespace firewatch::cli {
namespace {

using symbolizer::ElfReader;
using symbolizer::ElfSection;

constexpr size_t kPieceBytes = size_t{256} << 10;
constexpr int kZstdLevel = 3;
constexpr uint32_t kSymtab = 2;   // SHT_SYMTAB
constexpr uint32_t kNoBits = 8;   // SHT_NOBITS
constexpr uint32_t kDynsym = 11;  // SHT_DYNSYM
constexpr size_t kMaxDebugLinkBytes = 4096;
constexpr int kMaxPlaces = 32;

// Names are made of symbols, DWARF, relocations of the PLT and the PLT itself: not of these.
constexpr std::array<std::string_view, 6> kBlankSections = {
    ".text", ".rodata", ".eh_frame", ".gcc_except_table", ".data", ".data.rel.ro"};
// Go's own tables of functions and inlining point into .rodata and .data.
constexpr std::array<std::string_view, 3> kGoSections = {".gopclntab", ".data.rel.ro.gopclntab",
                                                         ".go.buildinfo"};

bool HasBytes(const ElfSection* section) {
  return section != nullptr && section->type != kNoBits && section->size > 0;
}

bool HasType(const ElfReader& elf, uint32_t type) {
  return std::ranges::any_of(elf.sections(), [&](const ElfSection& section) {
    return section.type == type && section.size > 0;
  });
}

std::string DebugLinkOf(const ElfReader& elf) {
  const ElfSection* section = elf.SectionNamed(".gnu_debuglink");
  if (!HasBytes(section) || section->size > kMaxDebugLinkBytes) return "";
  std::vector<std::byte> bytes(section->size);
  if (!elf.source().Read(section->file_offset, bytes).ok()) return "";
  const auto link = symbolizer::ParseDebugLink(bytes);
  return link ? link->name : "";
}

std::vector<std::pair<uint64_t, uint64_t>> BlankRanges(const ElfReader& elf) {
  const bool is_go = std::ranges::any_of(
      kGoSections, [&](std::string_view name) { return elf.SectionNamed(name) != nullptr; });
  std::vector<std::pair<uint64_t, uint64_t>> ranges;
  if (is_go) return ranges;
  for (const std::string_view name : kBlankSections) {
    const ElfSection* section = elf.SectionNamed(name);
    if (!HasBytes(section)) continue;
    ranges.emplace_back(section->file_offset, section->file_offset + section->size);
  }
  std::ranges::sort(ranges);
  return ranges;
}

}  // namespace

absl::StatusOr<DebugFile> InspectDebugFile(std::string path, base::UniqueFd fd) {
  const symbolizer::FdByteSource source(fd.get());
  const auto elf = ElfReader::Open(source);
  if (!elf.ok()) return elf.status();
  DebugFile file;
  file.id = elf->build_id();
  if (file.id.empty()) {
    return base::FailedPrecondition(
        "it has no build id, so nothing can be found by it; link with -Wl,--build-id");
  }
  file.has_code = HasBytes(elf->SectionNamed(".text")) ||
                  (elf->SectionNamed(".text") == nullptr &&
                   std::ranges::any_of(elf->segments(), [](const symbolizer::ElfSegment& segment) {
                     return segment.executable && segment.file_size > 0;
                   }));
  file.has_symbols = HasType(*elf, kSymtab);
  file.has_dynamic_symbols = HasType(*elf, kDynsym);
  file.has_lines =
      HasBytes(elf->SectionNamed(".debug_info")) || HasBytes(elf->SectionNamed(".zdebug_info"));
  file.debuglink = DebugLinkOf(*elf);
  file.bytes = source.size();
  file.blank = BlankRanges(*elf);
  file.path = std::move(path);
  file.fd = std::move(fd);
  return file;
}

absl::StatusOr<DebugFile> OpenDebugFileAt(const std::string& path) {
  // O_NONBLOCK: a FIFO would wait for a writer.
  base::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid()) return base::ErrnoStatus(errno, "open");
  struct stat info{};
  if (::fstat(fd.get(), &info) != 0) return base::ErrnoStatus(errno, "stat");
  if (!S_ISREG(info.st_mode)) return base::InvalidArgument("not a regular file");
  return InspectDebugFile(path, std::move(fd));
}

absl::StatusOr<DebugFile> FindSeparateDebugFile(const DebugFile& file) {
  char resolved[PATH_MAX];
  const symbolizer::DebugFileQuery query{
      .kind = symbolizer::DebugFileKind::kDebug,
      .path = ::realpath(file.path.c_str(), resolved) != nullptr ? resolved : file.path,
      .id = file.id,
      .name = file.debuglink};
  for (int place = 0, tries = 0; tries < kMaxPlaces; ++tries) {
    auto opened = symbolizer::OpenDebugFile(query, {}, file.fd.get(), place);
    if (!opened.ok()) break;
    place = opened->place + 1;
    auto found = InspectDebugFile(opened->path, std::move(opened->fd));
    if (found.ok() && found->id == file.id && (found->has_lines || found->has_symbols)) {
      return found;
    }
  }
  std::string tried;
  for (const std::string& path : symbolizer::DebugFileCandidates(query)) {
    tried += (tried.empty() ? "" : ", ") + path;
  }
  return base::NotFound("it is stripped, and no debug file of build id {} is there; looked for {}",
                        file.id.ToHex(), tried);
}

struct DebugFileReader::Compressor {
  Compressor() : context(::ZSTD_createCCtx(), &::ZSTD_freeCCtx) {
    ::ZSTD_CCtx_setParameter(context.get(), ZSTD_c_compressionLevel, kZstdLevel);
    ::ZSTD_CCtx_setParameter(context.get(), ZSTD_c_checksumFlag, 1);
  }
  std::unique_ptr<ZSTD_CCtx, decltype(&::ZSTD_freeCCtx)> context;
};

DebugFileReader::DebugFileReader(const DebugFile& file)
    : file_(file), compressor_(std::make_unique<Compressor>()), piece_(kPieceBytes) {}

DebugFileReader::~DebugFileReader() = default;

// The next piece of the file, blank where it is not needed.
absl::Status DebugFileReader::Fill() {
  const ssize_t got =
      ::pread(file_.fd.get(), piece_.data(), piece_.size(), static_cast<off_t>(file_at_));
  if (got < 0) return base::ErrnoStatus(errno, "read " + file_.path);
  piece_bytes_ = static_cast<size_t>(got);
  piece_at_ = 0;
  for (const auto& [begin, end] : file_.blank) {
    const uint64_t from = std::max(begin, file_at_);
    const uint64_t to = std::min(end, file_at_ + piece_bytes_);
    if (from < to) std::memset(piece_.data() + (from - file_at_), 0, to - from);
  }
  file_at_ += piece_bytes_;
  return absl::OkStatus();
}

absl::StatusOr<size_t> DebugFileReader::Read(char* buffer, size_t capacity) {
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

}  // namespace firewatch::cli
