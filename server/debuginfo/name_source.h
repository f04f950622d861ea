// SPDX-License-Identifier: Apache-2.0
// Where names by (build id, file offset) come from, as queries see it. One implementation stands on
// the symbolizer's indexes (index_names.h); tests have their own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/unique_fd.h"
#include "symbolizer/elf/elf_reader.h"
#include "symbolizer/file_identity.h"

namespace firewatch::server {

enum class NamesState : uint8_t {
  kUnknown,     // nobody offered its files
  kBuilding,    // an index is being built
  kReady,       // has names
  kNoSymbols,   // the files have neither symbols nor lines
  kMismatch,    // the files are of another build
  kRefused,     // not an ELF file for us, or malformed
  kOverBudget,  // took more time or memory than allowed
  kFailed,      // not built for reasons of this machine: may be offered again
};
// "building", "ready", …: in answers of the API.
std::string_view NamesStateText(NamesState state);

// One function at an offset. Texts are ids of their BinaryNames; 0 is "".
struct NameFrame {
  uint32_t name = 0;
  uint32_t file = 0;
  uint32_t line = 0;        // 0: unknown
  uint32_t start_line = 0;  // of the function's declaration; 0: unknown
  friend bool operator==(const NameFrame&, const NameFrame&) = default;
};
inline constexpr size_t kMaxNameFrames = 128;

// The names of one build id. Immutable: any thread, no locks.
class BinaryNames {
 public:
  virtual ~BinaryNames() = default;
  // Frames of each file offset, innermost inlined function first, the function that is in the
  // symbol table last; none: no name. One call of `take` for each, in order; the frames are valid
  // during the call. `known`: executable segments as the agent told them, used when the names were
  // made of a debug file alone. Many at once are faster than one by one.
  virtual void Find(
      std::span<const uint64_t> file_offsets, std::span<const symbolizer::ElfSegment> known,
      absl::FunctionRef<void(size_t number, std::span<const NameFrame> frames)> take) const = 0;
  // `display` as people read it, `linkage` as in the file. Costs a block of decompression: keep it.
  virtual void Text(uint32_t id, std::string* display, std::string* linkage) const = 0;
  virtual bool has_lines() const = 0;
};

// Opened O_RDONLY; at least one.
struct NameFiles {
  base::UniqueFd executable;
  base::UniqueFd debug;
};

struct IdentifiedFile {
  symbolizer::BuildId id;
  bool is_common = false;  // dwz's: of use to the files that refer to it (common_files.h)
};

// Any thread.
class NameSource {
 public:
  virtual ~NameSource() = default;

  // nullptr unless kReady. `state` and `reason` may be nullptr. Never waits for a build.
  virtual std::shared_ptr<const BinaryNames> Find(const symbolizer::BuildId& id, NamesState* state,
                                                  std::string* reason) = 0;
  // Has names made of the files, in the background. `replace`: also when there are some.
  virtual absl::Status Offer(const symbolizer::BuildId& id, NameFiles files, bool replace) = 0;
  // What a file of a stranger is; InvalidArgument: not an ELF file for us, or it has no build id.
  // Waits for the helper.
  virtual absl::StatusOr<IdentifiedFile> Identify(const base::UniqueFd& file) = 0;
};

}  // namespace firewatch::server
