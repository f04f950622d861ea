// SPDX-License-Identifier: Apache-2.0
// One ELF file with its sections as bytes in memory: mapped from the file as they are, or inflated
// (SHF_COMPRESSED with zlib or zstd, the older .zdebug_*) into a scratch file and mapped from
// there. A section that nobody asks for is neither mapped nor inflated.
//
// A mapped file that its owner truncates raises SIGBUS when the bytes are touched. So this belongs
// into the sandboxed helper (its death is an answer) and into the command line, not into the agent
// or the server. Sizes are compared with the file's before anything is mapped.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/hash.h"
#include "symbolizer/elf/elf_reader.h"
#include "symbolizer/elf/scratch_file.h"

namespace firewatch::symbolizer {

struct DebugLink {
  std::string name;  // a file name without directory
  uint32_t crc = 0;
};
// .gnu_debuglink: a name, zeros up to a multiple of four, CRC-32 of the file. Nothing when it is
// malformed or the name is no plain file name.
std::optional<DebugLink> ParseDebugLink(std::span<const std::byte> section);

struct AltLink {
  std::string path;  // absolute, or relative to the directory of the file with the section
  BuildId id;        // its first 20 bytes
};
// .gnu_debugaltlink: a path, a zero byte, a build id. Nothing when malformed or without an id.
std::optional<AltLink> ParseAltLink(std::span<const std::byte> section);

// One home thread; the spans that it gives live as long as it (and `scratch`) does.
class ElfFile {
 public:
  // Borrowed: `fd` and `scratch` must outlive the object. Errors are ElfReader::Open's.
  static absl::StatusOr<std::unique_ptr<ElfFile>> Open(int fd, const ElfLimits& limits,
                                                       ScratchFile& scratch);
  // Of anything that can be read (must outlive the object): sections that the source does not let
  // view are copied.
  static absl::StatusOr<std::unique_ptr<ElfFile>> FromSource(const ByteSource& source,
                                                             const ElfLimits& limits,
                                                             ScratchFile& scratch);
  // Of bytes in memory.
  static absl::StatusOr<std::unique_ptr<ElfFile>> FromBytes(std::vector<std::byte> bytes,
                                                            const ElfLimits& limits,
                                                            ScratchFile& scratch);
  ElfFile(const ElfFile&) = delete;
  ElfFile& operator=(const ElfFile&) = delete;

  const ElfReader& reader() const { return *reader_; }

  // There is such a section with bytes, compressed or not; `name` as in ".debug_info".
  bool Has(std::string_view name) const;
  // Its bytes, inflated; empty when there is none (or only one without bytes). The same span for
  // the same name. InvalidArgument: reaches past the end of the file, or a strange kind of
  // compression; DataLoss: does not inflate to what it claims; ResourceExhausted.
  absl::StatusOr<std::span<const std::byte>> Section(std::string_view name);

  // The section as it lies in the file, read and not mapped, for small ones; empty when there is
  // none. ResourceExhausted above `max_bytes`.
  absl::StatusOr<std::vector<std::byte>> ReadRaw(std::string_view name, uint64_t max_bytes) const;

  // CRC-32 of the whole file (zlib's, which .gnu_debuglink uses): reads all of it.
  absl::StatusOr<uint32_t> Crc() const;

 private:
  explicit ElfFile(ScratchFile& scratch) : scratch_(scratch) {}
  absl::Status ReadHeaders(const ByteSource& source, const ElfLimits& limits);
  const ElfSection* Find(std::string_view name) const;
  absl::Status CheckInside(const ElfSection& section) const;
  // As they lie in the file.
  absl::StatusOr<std::span<const std::byte>> RawBytes(const ElfSection& section);
  absl::StatusOr<std::span<const std::byte>> Load(std::string_view name);

  std::vector<std::byte> memory_;                 // FromBytes
  std::unique_ptr<const ByteSource> own_source_;  // Open, FromBytes
  ScratchFile& scratch_;
  std::optional<ElfReader> reader_;
  StringTable section_names_;
  base::StringMap<std::span<const std::byte>> loaded_;
  std::deque<std::vector<std::byte>> copies_;
};

}  // namespace firewatch::symbolizer
