// SPDX-License-Identifier: Apache-2.0
#include "cli/debug_file.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "base/status.h"
#include "symbolizer/elf/byte_source.h"
#include "symbolizer/elf/elf_file.h"
#include "symbolizer/elf/elf_reader.h"
#include "symbolizer/process/debug_files.h"

namespace firewatch::cli {
namespace {

using symbolizer::ElfReader;
using symbolizer::ElfSection;

constexpr uint32_t kSymtab = 2;   // SHT_SYMTAB
constexpr uint32_t kNoBits = 8;   // SHT_NOBITS
constexpr uint32_t kDynsym = 11;  // SHT_DYNSYM
constexpr size_t kMaxDebugLinkBytes = 4096;
constexpr int kMaxPlaces = 32;

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
  file.blank = symbolizer::BlankRangesOf(*elf);
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

}  // namespace firewatch::cli
