// SPDX-License-Identifier: Apache-2.0
// One ELF file and what belongs to it, opened and compared: which of them fit together, and their
// DWARF as bytes for dwarf/. Runs where foreign files may be mapped: in the sandboxed helper, in
// `firewatch symbolize`, in tests.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/unique_fd.h"
#include "symbolizer/dwarf/input.h"
#include "symbolizer/elf/elf_file.h"
#include "symbolizer/elf/object_facts.h"
#include "symbolizer/elf/scratch_file.h"

namespace firewatch::symbolizer {

// Descriptors, opened O_RDONLY, borrowed: they must outlive the ObjectFiles. -1: not there. At
// least one of `elf` and `debug`.
struct ObjectFds {
  int elf = -1;      // the file that runs
  int debug = -1;    // its separate debug file
  int alt = -1;      // dwz's common file
  int dwp = -1;      // package of split DWARF
  int scratch = -1;  // O_RDWR, empty, unlinked: room for inflated sections, which else go into a
                     // memfd, and for what a build puts aside
};

// A .dwo by the names in a skeleton unit; an invalid descriptor when it cannot be had. One call at
// a time. The reader compares its dwo id.
using DwoOpener =
    std::function<base::UniqueFd(std::string_view name, std::string_view compilation_directory)>;

struct ObjectOptions {
  ElfLimits limits;
  // Of all inflated sections together: more is over budget. The sandbox lets no file grow to 4 GiB.
  uint64_t max_inflated_bytes = uint64_t{3} << 30;
  // May read the whole debug file for its CRC (1 GB/s) when build ids cannot tell.
  bool check_crc = true;
  DwoOpener open_dwo;           // may be empty
  bool relative_paths = false;  // DwarfSections::relative_paths, of every file
};

// What it hands out lives as long as it does. One home thread, but for DwarfInput, which any number
// of threads may read (open_dwo locks). Files that are truncated meanwhile raise SIGBUS.
class ObjectFiles {
 public:
  // A debug file belongs to the executable when both have the same build id, or, where one of both
  // has none, when its CRC is that of the .gnu_debuglink; a dwz file when it has the build id of
  // the .gnu_debugaltlink. One that does not, or is malformed, is left out: companion_status().
  // Errors of the first file (elf; debug when there is none) are returned, as ElfReader::Open's.
  static absl::StatusOr<std::unique_ptr<ObjectFiles>> Open(const ObjectFds& fds,
                                                           ObjectOptions options);
  // The file that runs alone, read and never mapped; `elf` must outlive the object.
  static absl::StatusOr<std::unique_ptr<ObjectFiles>> OfSource(const ByteSource& elf,
                                                               ObjectOptions options);
  ~ObjectFiles();
  ObjectFiles(const ObjectFiles&) = delete;
  ObjectFiles& operator=(const ObjectFiles&) = delete;

  // Of the file that runs, else of the debug file.
  const ObjectFacts& facts() const { return facts_; }
  // Why a file that was given is not used (the first of them): FailedPrecondition "debug file
  // mismatch: ...", or what is wrong with it. OK when every one is used.
  const absl::Status& companion_status() const { return companion_status_; }

  // nullptr when not there, or left out.
  ElfFile* elf() const { return elf_.get(); }
  ElfFile* debug() const { return debug_.get(); }
  // The one whose DWARF counts: the debug file when it has any, else the executable; nullptr.
  ElfFile* dwarf_file() const { return dwarf_file_; }
  // The DWARF refers to a dwz file that is not there (or left out).
  bool wants_alt() const { return wants_alt_ && alt_ == nullptr; }
  const BuildId& alt_id() const { return alt_id_; }  // of that file
  // The ELF file inside .gnu_debugdata, unpacked at the first call; nullptr when there is none or
  // it is damaged.
  ElfFile* mini_debug();

  // Maps and inflates what lines need, and only that. NotFound: no DWARF; else as
  // ElfFile::Section.
  absl::StatusOr<const DwarfInput*> Dwarf();

  uint64_t dwarf_bytes() const { return dwarf_bytes_; }  // of the sections that Dwarf() gave
  uint64_t inflated_bytes() const { return scratch_.used_bytes(); }
  // For what a build puts aside.
  ScratchFile& scratch() { return scratch_; }

 private:
  class DwoFiles;
  ObjectFiles(int scratch_fd, ObjectOptions options);
  absl::Status OpenFirst(const ObjectFds& fds);
  absl::Status AddDebug(int fd);
  absl::Status AddAlt(int fd);
  absl::Status AddDwp(int fd);
  void Note(const absl::Status& status);
  absl::Status ChooseDwarf();

  const ObjectOptions options_;
  ScratchFile scratch_;
  ObjectFacts facts_;
  absl::Status companion_status_;
  std::unique_ptr<ElfFile> elf_;
  std::unique_ptr<ElfFile> debug_;
  std::unique_ptr<ElfFile> alt_;
  std::unique_ptr<ElfFile> dwp_;
  std::unique_ptr<ElfFile> mini_debug_;
  bool mini_debug_tried_ = false;
  ElfFile* dwarf_file_ = nullptr;
  BuildId alt_id_;  // of the .gnu_debugaltlink
  bool wants_alt_ = false;
  std::unique_ptr<DwarfInput> dwarf_;
  uint64_t dwarf_bytes_ = 0;
  std::unique_ptr<DwoFiles> dwo_files_;
};

}  // namespace firewatch::symbolizer
