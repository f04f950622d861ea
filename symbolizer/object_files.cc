// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/object_files.h"

#include <elf.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "base/hash.h"
#include "base/mutex.h"
#include "base/status.h"
#include "symbolizer/elf/inflate.h"

namespace firewatch::symbolizer {
namespace {

// Fedora's largest is 4 MB packed; unpacked it is a symbol table.
constexpr uint64_t kMaxMiniDebugPackedBytes = uint64_t{64} << 20;
constexpr uint64_t kMaxMiniDebugBytes = uint64_t{256} << 20;
// Each is one mapping; the kernel's limit is 65,530 of them.
constexpr size_t kMaxDwoFiles = 32768;

struct SectionName {
  std::string_view name;
  std::span<const std::byte> DwarfSections::* member;
};
constexpr SectionName kMainSections[] = {
    {".debug_info", &DwarfSections::info},
    {".debug_abbrev", &DwarfSections::abbrev},
    {".debug_str", &DwarfSections::str},
    {".debug_line", &DwarfSections::line},
    {".debug_line_str", &DwarfSections::line_str},
    {".debug_ranges", &DwarfSections::ranges},
    {".debug_rnglists", &DwarfSections::rnglists},
    {".debug_addr", &DwarfSections::addr},
    {".debug_str_offsets", &DwarfSections::str_offsets},
    {".debug_aranges", &DwarfSections::aranges},
};
// Of dwz's file only names are asked for; units of it are imported whole.
constexpr SectionName kAltSections[] = {
    {".debug_info", &DwarfSections::info},         {".debug_abbrev", &DwarfSections::abbrev},
    {".debug_str", &DwarfSections::str},           {".debug_line", &DwarfSections::line},
    {".debug_line_str", &DwarfSections::line_str},
};
constexpr SectionName kDwoSections[] = {
    {".debug_info.dwo", &DwarfSections::info},
    {".debug_abbrev.dwo", &DwarfSections::abbrev},
    {".debug_str.dwo", &DwarfSections::str},
    {".debug_line.dwo", &DwarfSections::line},
    {".debug_line_str.dwo", &DwarfSections::line_str},
    {".debug_rnglists.dwo", &DwarfSections::rnglists},
    {".debug_str_offsets.dwo", &DwarfSections::str_offsets},
    {".debug_cu_index", &DwarfSections::cu_index},
};

absl::StatusOr<DwarfSections> LoadSections(ElfFile& file, std::span<const SectionName> names,
                                           const ObjectOptions& options, uint64_t* bytes) {
  DwarfSections sections;
  sections.relative_paths = options.relative_paths;
  for (const SectionName& name : names) {
    ASSIGN_OR_RETURN(sections.*name.member, file.Section(name.name));
    *bytes += (sections.*name.member).size();
  }
  return sections;
}

std::vector<AddressRange> ExecutableRanges(const ElfReader& elf,
                                           const std::vector<ElfSegment>& segments) {
  std::vector<AddressRange> ranges;
  const auto add = [&](uint64_t start, uint64_t size) {
    if (size > 0 && start <= UINT64_MAX - size) {
      ranges.push_back({.start = start, .end = start + size});
    }
  };
  for (const ElfSegment& segment : segments) add(segment.vaddr, segment.file_size);
  // A debug file alone: its segments have no bytes, its sections still have addresses.
  if (ranges.empty()) {
    for (const ElfSection& section : elf.sections()) {
      const uint64_t code = SHF_ALLOC | SHF_EXECINSTR;
      if ((section.flags & code) == code) add(section.vaddr, section.size);
    }
  }
  std::sort(ranges.begin(), ranges.end(), [](const AddressRange& a, const AddressRange& b) {
    return std::pair(a.start, a.end) < std::pair(b.start, b.end);
  });
  return ranges;
}

absl::Status Mismatch(std::string_view what, std::string_view found, std::string_view wanted) {
  return base::FailedPrecondition("{} mismatch: {}, {} was expected", what, found, wanted);
}

std::string IdText(const BuildId& id) {
  return id.empty() ? "no build id" : "build id " + id.ToHex();
}

}  // namespace

// .dwo files that were opened, by name; they stay mapped.
class ObjectFiles::DwoFiles {
 public:
  DwoFiles(const ObjectOptions& options, ScratchFile& scratch)
      : options_(options), scratch_(scratch) {}

  const DwarfSections* Find(std::string_view name, std::string_view directory)
      ABSL_LOCKS_EXCLUDED(mutex_) {
    std::string key = std::string(directory).append(1, '\0').append(name);
    base::MutexLock lock(mutex_);
    if (const auto known = files_.find(key); known != files_.end()) {
      return known->second == nullptr ? nullptr : &known->second->sections;
    }
    if (files_.size() >= kMaxDwoFiles) return nullptr;
    const std::unique_ptr<Dwo>& file = files_[std::move(key)] = Open(name, directory);
    return file == nullptr ? nullptr : &file->sections;
  }

 private:
  struct Dwo {
    base::UniqueFd fd;
    std::unique_ptr<ElfFile> elf;
    DwarfSections sections;
  };

  std::unique_ptr<Dwo> Open(std::string_view name, std::string_view directory)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    auto dwo = std::make_unique<Dwo>();
    dwo->fd = options_.open_dwo(name, directory);
    if (!dwo->fd.valid()) return nullptr;
    ElfLimits limits = options_.limits;
    limits.allow_relocatable = true;
    auto elf = ElfFile::Open(dwo->fd.get(), limits, scratch_);
    if (!elf.ok()) return nullptr;
    dwo->elf = *std::move(elf);
    uint64_t bytes = 0;
    auto sections = LoadSections(*dwo->elf, kDwoSections, options_, &bytes);
    if (!sections.ok() || sections->empty()) return nullptr;
    dwo->sections = *sections;
    dwo->fd.Reset();  // all that is needed is mapped; the helper may have 16 descriptors
    return dwo;
  }

  const ObjectOptions& options_;
  base::Mutex mutex_;
  ScratchFile& scratch_ ABSL_GUARDED_BY(mutex_);
  base::StringMap<std::unique_ptr<Dwo>> files_ ABSL_GUARDED_BY(mutex_);
};

ObjectFiles::ObjectFiles(int scratch_fd, ObjectOptions options)
    : options_(std::move(options)), scratch_(scratch_fd, options_.max_inflated_bytes) {}

ObjectFiles::~ObjectFiles() = default;

absl::StatusOr<std::unique_ptr<ObjectFiles>> ObjectFiles::Open(const ObjectFds& fds,
                                                               ObjectOptions options) {
  std::unique_ptr<ObjectFiles> files(new ObjectFiles(fds.scratch, std::move(options)));
  RETURN_IF_ERROR(files->OpenFirst(fds));
  if (fds.elf >= 0 && fds.debug >= 0) files->Note(files->AddDebug(fds.debug));
  RETURN_IF_ERROR(files->ChooseDwarf());
  if (fds.alt >= 0) files->Note(files->AddAlt(fds.alt));
  if (fds.dwp >= 0) files->Note(files->AddDwp(fds.dwp));
  return files;
}

absl::StatusOr<std::unique_ptr<ObjectFiles>> ObjectFiles::OfSource(const ByteSource& elf,
                                                                   ObjectOptions options) {
  std::unique_ptr<ObjectFiles> files(new ObjectFiles(-1, std::move(options)));
  ASSIGN_OR_RETURN(files->elf_, ElfFile::FromSource(elf, files->options_.limits, files->scratch_));
  ASSIGN_OR_RETURN(files->facts_, ReadObjectFacts(*files->elf_));
  RETURN_IF_ERROR(files->ChooseDwarf());
  return files;
}

absl::Status ObjectFiles::OpenFirst(const ObjectFds& fds) {
  if (fds.elf < 0 && fds.debug < 0) return base::InvalidArgument("no file");
  std::unique_ptr<ElfFile>& first = fds.elf >= 0 ? elf_ : debug_;
  ASSIGN_OR_RETURN(first,
                   ElfFile::Open(fds.elf >= 0 ? fds.elf : fds.debug, options_.limits, scratch_));
  ASSIGN_OR_RETURN(facts_, ReadObjectFacts(*first));
  return absl::OkStatus();
}

void ObjectFiles::Note(const absl::Status& status) {
  if (companion_status_.ok()) companion_status_ = status;
}

absl::Status ObjectFiles::AddDebug(int fd) {
  auto opened = ElfFile::Open(fd, options_.limits, scratch_);
  if (!opened.ok()) return base::Annotate(opened.status(), "debug file");
  const BuildId own = facts_.has_pseudo_id ? BuildId() : facts_.id;
  const BuildId& other = (*opened)->reader().build_id();
  if (!own.empty() && !other.empty()) {
    if (own != other) return Mismatch("debug file", IdText(other), IdText(own));
  } else if (facts_.debuglink.empty()) {
    return Mismatch("debug file", IdText(other), IdText(own) + " and no .gnu_debuglink");
  } else if (options_.check_crc) {
    ASSIGN_OR_RETURN(const uint32_t crc, (*opened)->Crc());
    if (crc != facts_.debuglink_crc) {
      return Mismatch("debug file", fmt::format("CRC {:08x}", crc),
                      fmt::format("{:08x}", facts_.debuglink_crc));
    }
  }
  debug_ = *std::move(opened);
  return absl::OkStatus();
}

absl::Status ObjectFiles::ChooseDwarf() {
  for (ElfFile* file : {debug_.get(), elf_.get()}) {
    if (file == nullptr || !file->Has(".debug_info")) continue;
    dwarf_file_ = file;
    ASSIGN_OR_RETURN(const ObjectFacts facts, ReadObjectFacts(*file));
    wants_alt_ = !facts.altlink.empty();
    alt_id_ = facts.altlink_id;
    break;
  }
  return absl::OkStatus();
}

absl::Status ObjectFiles::AddAlt(int fd) {
  if (!wants_alt_) return absl::OkStatus();
  ElfLimits limits = options_.limits;
  limits.allow_relocatable = true;
  auto opened = ElfFile::Open(fd, limits, scratch_);
  if (!opened.ok()) return base::Annotate(opened.status(), "dwz file");
  const BuildId& id = (*opened)->reader().build_id();
  if (id != alt_id_) return Mismatch("dwz file", IdText(id), IdText(alt_id_));
  alt_ = *std::move(opened);
  return absl::OkStatus();
}

// No id of its own: its reader looks for the dwo ids of the skeleton units.
absl::Status ObjectFiles::AddDwp(int fd) {
  ElfLimits limits = options_.limits;
  limits.allow_relocatable = true;
  auto opened = ElfFile::Open(fd, limits, scratch_);
  if (!opened.ok()) return base::Annotate(opened.status(), "dwp file");
  if (!(*opened)->Has(".debug_cu_index")) return base::InvalidArgument("dwp file without an index");
  dwp_ = *std::move(opened);
  return absl::OkStatus();
}

ElfFile* ObjectFiles::mini_debug() {
  if (mini_debug_tried_ || elf_ == nullptr) return mini_debug_.get();
  mini_debug_tried_ = true;
  const auto packed = elf_->ReadRaw(".gnu_debugdata", kMaxMiniDebugPackedBytes);
  if (!packed.ok() || packed->empty()) return nullptr;
  auto bytes = InflateXz(*packed, kMaxMiniDebugBytes);
  if (!bytes.ok()) return nullptr;
  auto file = ElfFile::FromBytes(*std::move(bytes), options_.limits, scratch_);
  if (file.ok()) mini_debug_ = *std::move(file);
  return mini_debug_.get();
}

absl::StatusOr<const DwarfInput*> ObjectFiles::Dwarf() {
  if (dwarf_ != nullptr) return dwarf_.get();
  if (dwarf_file_ == nullptr) return base::NotFound("no debug information");
  auto input = std::make_unique<DwarfInput>();
  uint64_t bytes = 0;
  ASSIGN_OR_RETURN(input->main, LoadSections(*dwarf_file_, kMainSections, options_, &bytes));
  // What cannot be read of the others is missing: names, or functions, not all lines.
  if (alt_ != nullptr) {
    auto sections = LoadSections(*alt_, kAltSections, options_, &bytes);
    Note(sections.status());
    if (sections.ok()) input->alt = *sections;
  }
  if (dwp_ != nullptr) {
    auto sections = LoadSections(*dwp_, kDwoSections, options_, &bytes);
    Note(sections.status());
    if (sections.ok()) input->dwp = *sections;
  }
  if (options_.open_dwo != nullptr) {
    dwo_files_ = std::make_unique<DwoFiles>(options_, scratch_);
    input->open_dwo = [files = dwo_files_.get()](std::string_view name, std::string_view directory,
                                                 uint64_t) { return files->Find(name, directory); };
  }
  input->executable = ExecutableRanges(dwarf_file_->reader(), facts_.executable_segments);
  dwarf_bytes_ = bytes;
  dwarf_ = std::move(input);
  return dwarf_.get();
}

}  // namespace firewatch::symbolizer
