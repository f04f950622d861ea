// SPDX-License-Identifier: Apache-2.0
#include "cli/debug_file.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "symbolizer/elf/byte_source.h"
#include "symbolizer/elf/elf_file.h"
#include "symbolizer/elf/elf_reader.h"
#include "symbolizer/elf/object_facts.h"
#include "symbolizer/process/debug_files.h"

namespace firewatch::cli {
namespace {

using symbolizer::ElfReader;
using symbolizer::ElfSection;

constexpr uint32_t kSymtab = 2;   // SHT_SYMTAB
constexpr uint32_t kNoBits = 8;   // SHT_NOBITS
constexpr uint32_t kDynsym = 11;  // SHT_DYNSYM
constexpr size_t kMaxLinkBytes = 8192;
constexpr int kMaxPlaces = 32;

bool HasBytes(const ElfSection* section) {
  return section != nullptr && section->type != kNoBits && section->size > 0;
}

bool HasType(const ElfReader& elf, uint32_t type) {
  return std::ranges::any_of(elf.sections(), [&](const ElfSection& section) {
    return section.type == type && section.size > 0;
  });
}

// The bytes of a small section; none when it is not there.
std::vector<std::byte> LinkBytes(const ElfReader& elf, std::string_view name) {
  const ElfSection* section = elf.SectionNamed(name);
  if (!HasBytes(section) || section->size > kMaxLinkBytes) return {};
  std::vector<std::byte> bytes(section->size);
  if (!elf.source().Read(section->file_offset, bytes).ok()) return {};
  return bytes;
}

}  // namespace

absl::StatusOr<DebugFile> InspectDebugFile(std::string path, base::UniqueFd fd) {
  const symbolizer::FdByteSource source(fd.get());
  const auto elf = ElfReader::Open(source, {.allow_relocatable = true});
  if (!elf.ok()) return elf.status();
  DebugFile file;
  file.is_common = symbolizer::IsCommonFile(*elf);
  if (elf->relocatable() && !file.is_common) {
    return base::InvalidArgument("a relocatable file is neither executable nor shared object");
  }
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
  if (const auto link = symbolizer::ParseDebugLink(LinkBytes(*elf, ".gnu_debuglink"))) {
    file.debuglink = link->name;
  }
  if (const auto link = symbolizer::ParseAltLink(LinkBytes(*elf, ".gnu_debugaltlink"))) {
    file.altlink = link->path;
    file.altlink_id = link->id;
  }
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

namespace {

// The first file on this machine that is the right one.
template <typename IsRight>
std::optional<DebugFile> Find(const symbolizer::DebugFileQuery& query, int not_fd,
                              const IsRight& is_right) {
  for (int place = 0, tries = 0; tries < kMaxPlaces; ++tries) {
    auto opened = symbolizer::OpenDebugFile(query, {}, not_fd, place);
    if (!opened.ok()) break;
    place = opened->place + 1;
    auto found = InspectDebugFile(opened->path, std::move(opened->fd));
    if (found.ok() && is_right(*found)) return *std::move(found);
  }
  return std::nullopt;
}

std::string PlacesOf(const symbolizer::DebugFileQuery& query) {
  std::string places;
  for (const std::string& path : symbolizer::DebugFileCandidates(query)) {
    places += (places.empty() ? "" : ", ") + path;
  }
  return places;
}

std::string RealPath(const std::string& path) {
  char resolved[PATH_MAX];
  return ::realpath(path.c_str(), resolved) != nullptr ? resolved : path;
}

}  // namespace

absl::StatusOr<DebugFile> FindSeparateDebugFile(const DebugFile& file) {
  const symbolizer::DebugFileQuery query{.kind = symbolizer::DebugFileKind::kDebug,
                                         .path = RealPath(file.path),
                                         .id = file.id,
                                         .name = file.debuglink};
  auto found = Find(query, file.fd.get(), [&](const DebugFile& one) {
    return one.id == file.id && (one.has_lines || one.has_symbols);
  });
  if (found) return *std::move(found);
  return base::NotFound("it is stripped, and no debug file of build id {} is there; looked for {}",
                        file.id.ToHex(), PlacesOf(query));
}

absl::StatusOr<DebugFile> FindCommonFile(const DebugFile& file) {
  const symbolizer::DebugFileQuery query{.kind = symbolizer::DebugFileKind::kAlt,
                                         .path = RealPath(file.path),
                                         .id = file.altlink_id,
                                         .name = file.altlink};
  auto found = Find(query, file.fd.get(), [&](const DebugFile& one) {
    return one.is_common && one.id == file.altlink_id;
  });
  if (found) return *std::move(found);
  return base::NotFound("the common file {} of build id {} is not there; looked for {}",
                        file.altlink, file.altlink_id.ToHex(), PlacesOf(query));
}

}  // namespace firewatch::cli
