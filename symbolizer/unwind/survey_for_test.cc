// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/unwind/survey_for_test.h"

#include <elf.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <memory>
#include <random>
#include <system_error>

#include "base/status.h"
#include "base/unique_fd.h"
#include "symbolizer/unwind/cfi_sections.h"
#include "symbolizer/unwind/libdw_oracle_for_test.h"

namespace firewatch::symbolizer {
namespace {

namespace fs = std::filesystem;

double CpuSeconds() {
  struct timespec used{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  return static_cast<double>(used.tv_sec) + static_cast<double>(used.tv_nsec) / 1e9;
}

bool IsElf(const fs::path& path) {
  const base::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  Elf64_Ehdr header;
  return fd.valid() && ::pread(fd.get(), &header, sizeof(header), 0) == sizeof(header) &&
         std::memcmp(header.e_ident, ELFMAG, SELFMAG) == 0 &&
         header.e_ident[EI_CLASS] == ELFCLASS64 && header.e_machine == EM_X86_64 &&
         (header.e_type == ET_EXEC || header.e_type == ET_DYN);
}

// Functions that the table has, by what the section says.
absl::StatusOr<std::vector<Fde>> FunctionsOf(const ElfReader& elf) {
  ASSIGN_OR_RETURN(const CfiSections cfi, ReadCfiSections(elf, kMaxCfiBytes));
  std::vector<Fde> functions;
  for (const CfiSection& section : cfi.sections) {
    for (const Fde& fde : ReadCfiEntries(section).fdes) {
      const bool is_code = std::any_of(elf.segments().begin(), elf.segments().end(),
                                       [&fde](const ElfSegment& segment) {
                                         return segment.executable && fde.start >= segment.vaddr &&
                                                fde.start - segment.vaddr < segment.file_size;
                                       });
      if (is_code) functions.push_back({.start = fde.start, .size = fde.size});
    }
  }
  return functions;
}

class FileCheck {
 public:
  FileCheck(const std::string& path, const ElfReader& elf, const UnwindTable& table,
            LibdwOracle& oracle, OracleCheck& check)
      : path_(path), elf_(elf), table_(table), oracle_(oracle), check_(check) {}

  void Function(const Fde& fde) {
    ++check_.functions;
    for (uint64_t at = fde.start; at < fde.start + fde.size;) {
      const auto row = oracle_.At(at);
      if (!row || row->end <= at) return Disagree(at, "libdw has no row");
      ++check_.rows;
      const uint64_t last = std::min(row->end, fde.start + fde.size) - 1;
      Compare(at);
      if (last != at) Compare(last);
      if (last - at > 1) Compare(at + (last - at) / 2);
      at = last + 1;
    }
  }

 private:
  void Compare(uint64_t vaddr) {
    const auto row = oracle_.At(vaddr);
    const auto offset = elf_.FileOffsetOf(vaddr);
    if (!row || !offset) return Disagree(vaddr, "no row, or no file offset");
    const UnwindTable::Rule rule = table_.Find(*offset);
    const auto ours = EvaluateRule(rule, vaddr);
    if (!row->caller) {
      ++check_.rows_unknown;
      if (ours) Disagree(vaddr, "libdw's form is unknown, we have " + Describe(rule));
    } else if (!ours) {
      ++check_.rows_unsaid;
    } else if (!Agree(*row->caller, *ours)) {
      Disagree(vaddr, fmt::format("libdw {}; we {} ({})", Describe(*row->caller), Describe(*ours),
                                  Describe(rule)));
    }
  }
  void Disagree(uint64_t vaddr, const std::string& why) {
    check_.disagreements.push_back(fmt::format("{} {:#x}: {}", path_, vaddr, why));
  }

  const std::string& path_;
  const ElfReader& elf_;
  const UnwindTable& table_;
  LibdwOracle& oracle_;
  OracleCheck& check_;
};

}  // namespace

std::vector<std::string> ListElfFiles(const std::vector<std::string>& directories) {
  std::vector<std::string> files;
  for (const std::string& directory : directories) {
    if (fs::is_regular_file(directory)) {
      files.push_back(directory);
      continue;
    }
    std::error_code error;
    const auto options = fs::directory_options::skip_permission_denied;
    for (auto entry = fs::recursive_directory_iterator(directory, options, error);
         entry != fs::recursive_directory_iterator(); entry.increment(error)) {
      std::error_code ignored;
      if (entry->is_symlink(ignored) || !entry->is_regular_file(ignored)) continue;
      if (IsElf(entry->path())) files.push_back(entry->path().string());
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

absl::StatusOr<BuiltTable> BuildTableOf(const std::string& path) {
  const double start = CpuSeconds();
  const base::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return base::ErrnoStatus(errno, path);
  const FdByteSource source(fd.get());
  ASSIGN_OR_RETURN(const ElfReader elf, ElfReader::Open(source));
  BuiltTable built;
  ASSIGN_OR_RETURN(built.build, BuildUnwindTable(elf));
  built.bytes = EncodeUnwindTable(built.build.source);
  built.cpu_seconds = CpuSeconds() - start;
  ASSIGN_OR_RETURN(built.table, UnwindTable::Parse(std::as_bytes(std::span<const char>(
                                    built.bytes.data(), built.bytes.size()))));
  return built;
}

OracleCheck CompareWithLibdw(const std::vector<std::string>& files, uint64_t functions,
                             uint64_t per_file, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::string> order = files;
  std::shuffle(order.begin(), order.end(), random);
  OracleCheck check;
  for (const std::string& path : order) {
    if (check.functions >= functions) break;
    const base::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    const FdByteSource source(fd.get());
    const auto elf = ElfReader::Open(source);
    if (!elf.ok()) continue;
    const auto built = BuildTableOf(path);
    auto fdes = FunctionsOf(*elf);
    auto oracle = LibdwOracle::Open(path);
    if (!built.ok() || !fdes.ok() || !oracle.ok()) continue;
    ++check.files;
    std::shuffle(fdes->begin(), fdes->end(), random);
    fdes->resize(std::min<size_t>(fdes->size(), per_file));
    FileCheck file(path, *elf, built->table, **oracle, check);
    for (const Fde& fde : *fdes) file.Function(fde);
  }
  return check;
}

}  // namespace firewatch::symbolizer
