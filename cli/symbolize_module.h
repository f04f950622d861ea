// SPDX-License-Identifier: Apache-2.0
// One ELF file that `firewatch symbolize` answers for, with its debug files. Parsed in this
// process: it is the user's own choice of a file, with the user's own rights.
//
// Few addresses are answered from those symbols and those units of the debug information that they
// lie in; many, from a symbol index that is built and saved; if there is a saved one, all from
// that. The frames are the same.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "base/mapped_file.h"
#include "base/unique_fd.h"
#include "cli/symbolize_arguments.h"
#include "symbolizer/dwarf/lookup.h"
#include "symbolizer/index/index_cache.h"
#include "symbolizer/index/name_cache.h"
#include "symbolizer/index/symbol_index.h"
#include "symbolizer/object_files.h"
#include "symbolizer/object_symbols.h"

namespace firewatch::cli {

// Views are valid until the next call of the module.
struct ModuleFrame {
  std::string_view linkage;  // as in the file
  std::string_view display;  // demangled, without the compiler's suffixes
  std::string_view file;
  uint32_t line = 0;
  uint32_t start_line = 0;
  std::optional<uint64_t> start_address;  // of the physical function
  uint8_t flags = 0;                      // symbolizer::SymbolFlag
};

// One home thread (that building an index uses more is not visible).
class SymbolizeModule {
 public:
  // `cache` may be null and must outlive the module. Errors: the file cannot be opened (NotFound,
  // PermissionDenied, InvalidArgument for what is no regular file) or is no ELF file for us.
  static absl::StatusOr<std::unique_ptr<SymbolizeModule>> Open(const std::string& path,
                                                               const SymbolizeOptions& options,
                                                               symbolizer::IndexCache* cache);
  // By build id: a saved index, or a file in the debug directories. NotFound.
  static absl::StatusOr<std::unique_ptr<SymbolizeModule>> OpenBuildId(
      const std::string& build_id, const SymbolizeOptions& options, symbolizer::IndexCache* cache);
  ~SymbolizeModule();

  // Tells which addresses Find is going to be asked for, in any order: looking several up at once
  // costs little more than one.
  void Prepare(std::vector<uint64_t> addresses);
  // Innermost first; empty: unknown. An address that was not prepared is prepared now.
  std::span<const ModuleFrame> Find(uint64_t vaddr);
  // Nothing when the offset is in no executable segment.
  std::optional<uint64_t> VaddrOf(uint64_t file_offset);
  // Where functions of that linkage or plain name begin.
  std::vector<uint64_t> AddressesOf(std::string_view symbol);
  // The other linkage or shown names of the code at `vaddr`.
  std::vector<std::string> AliasesOf(uint64_t vaddr, bool demangled);

  // Builds the whole index now, unless there is one. OK when it has lines or there are none to
  // have.
  absl::Status BuildIndex();
  // Why there are no lines or not all of them: for the user to read; "" when all is well.
  const std::string& note() const { return note_; }

 private:
  SymbolizeModule(const SymbolizeOptions& options, symbolizer::IndexCache* cache);
  absl::Status OpenFiles(const std::string& path, base::UniqueFd elf);
  // Tries debug files until one belongs to the file.
  void FindCompanions();
  absl::Status Reopen();
  bool MayShare() const;
  bool UseSaved();
  // An index of all symbols, also of the debug files; no lines yet.
  void OpenSymbols();
  // The symbols at these addresses alone, if that is enough of an answer.
  void ReadSymbols(std::span<const uint64_t> addresses);
  void LookUp(std::span<const uint64_t> addresses);
  void AddIndexFrames(uint64_t vaddr);
  void AddSymbolFrame(uint64_t vaddr);
  void AddColdFrames(uint64_t vaddr, const symbolizer::LookupAnswer& answer);
  std::string_view Printable(std::string_view name);
  std::string_view DisplayOf(std::string_view linkage, bool keep_suffixes);
  absl::Status WriteIndex(bool lines);
  absl::Status Use(base::MappedFile file);
  std::string CacheKey() const;

  const SymbolizeOptions options_;
  symbolizer::IndexCache* const cache_;
  std::string path_;
  std::string debug_path_;
  base::UniqueFd elf_fd_;
  base::UniqueFd debug_fd_;
  base::UniqueFd alt_fd_;
  base::UniqueFd dwp_fd_;
  std::unique_ptr<symbolizer::ObjectFiles> files_;  // null: answered by a saved index alone
  bool companions_tried_ = false;

  base::MappedFile index_file_;
  symbolizer::SymbolIndex index_;
  bool symbols_opened_ = false;  // index_ has all symbols, at the least
  bool whole_ = false;           // the index has lines, or it is known that there are none
  uint64_t asked_ = 0;
  int near_reads_ = 0;
  double cold_seconds_ = 0;  // that lookups without an index took
  // Of the last Prepare without an index, and shown names for it. `near_`: where there is not even
  // one of symbols.
  std::optional<symbolizer::ObjectSymbols> near_;
  absl::flat_hash_map<uint64_t, symbolizer::LookupAnswer> cold_;
  absl::flat_hash_map<std::string, std::unique_ptr<const std::string>> shown_;

  symbolizer::NameCache names_;
  symbolizer::NameReader reader_;
  std::vector<symbolizer::IndexFrame> found_;
  std::vector<ModuleFrame> frames_;
  std::deque<std::string> texts_;  // of frames_
  std::string note_;
};

}  // namespace firewatch::cli
