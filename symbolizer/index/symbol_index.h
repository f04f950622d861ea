// SPDX-License-Identifier: Apache-2.0
// A symbol index in memory: address -> chain of frames as 32-bit ids, by binary search, nothing
// allocated and nothing unpacked; names are resolved by id afterwards, once each. The file was
// written by the sandboxed helper, which a hostile ELF file may have taken over: Parse checks all
// of it once (sums, order, ids), and every access is checked again.
//
// Addresses are virtual addresses of the ELF file. What samples carry are offsets in the file; the
// index has the executable segments to turn one into the other, unless it was made from a separate
// debug file alone (those have lost their offsets) or from the kernel's list.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "symbolizer/file_identity.h"
#include "symbolizer/index/index_format.h"
#include "symbolizer/index/line_table.h"
#include "symbolizer/index/name_table.h"

namespace firewatch::symbolizer {

// Bits of IndexFrame::flags and IndexSymbol::flags.
enum SymbolFlag : uint8_t {
  kInlined = 1,      // frames only: inlined into the next one
  kPlt = 2,          // a slot of the procedure linkage table, named NAME@plt
  kColdPart = 4,     // code that the compiler split off; the shown name is the function's
  kVariant = 8,      // a specialised copy (.isra, .constprop, .part, .llvm.N): the same
  kAliased = 16,     // the code has several names: AliasesOf
  kFolded = 32,      // several functions share the code (identical code folding): any may be meant
  kUnsized = 64,     // the end was not told: it is the next symbol or the end of the section
  kContinued = 128,  // symbols only: not the first range of its function
};

// Innermost first; the last one is the physical function. Its name is the symbol table's linkage
// name, because that is what the linker kept (suffixes, variants of constructors, the name chosen
// among aliases); the debug information's where no symbol covers it, and for inlined frames.
struct IndexFrame {
  uint32_t name = 0;        // id; 0 when the debug information has lost it
  uint32_t file = 0;        // id of the path; 0: unknown
  uint32_t line = 0;        // 0: unknown
  uint32_t start_line = 0;  // where the function is declared; 0: unknown
  uint8_t flags = 0;        // SymbolFlag

  friend bool operator==(const IndexFrame&, const IndexFrame&) = default;
};

// One physical function, or a piece of it where another symbol lies inside.
struct IndexSymbol {
  uint64_t start = 0;
  uint64_t size_bytes = 0;
  uint32_t name = 0;
  uint32_t group = 0;  // name id of the kernel module; 0 for none
  uint8_t flags = 0;
};

// Frames of one address. Deeper chains lose frames between the innermost ones and the physical one.
inline constexpr size_t kMaxIndexFrames = 128;

// A view: copies are cheap. Immutable, any thread.
class SymbolIndex {
 public:
  SymbolIndex() = default;

  // DataLoss, saying what is wrong. `bytes` must outlive the index. Costs a pass over the bytes:
  // about 1 ms per 10 MB.
  static absl::StatusOr<SymbolIndex> Parse(std::span<const std::byte> bytes);

  // The chain at `vaddr`, as many frames as `out` holds (a longer one keeps the innermost frames
  // and the physical one); 0: no name. Gaps are gaps, also where the debug information has a line
  // for the padding between functions: lines() knows that. For a return address ask for the byte
  // before it.
  size_t FindAddress(uint64_t vaddr, std::span<IndexFrame> out) const;
  // The same for many addresses: take(number of the address, its frames), in order, with an empty
  // span where FindAddress says 0. The frames are valid during the call. About twice the speed
  // of one by one where the index is larger than the processor's caches: the memory of several
  // addresses is waited for at once. No allocation.
  void FindAddresses(
      std::span<const uint64_t> vaddrs,
      absl::FunctionRef<void(size_t number, std::span<const IndexFrame> frames)> take) const;
  // FindAddress by file offset, through VaddrOf.
  size_t FindOffset(uint64_t file_offset, std::span<IndexFrame> out) const;
  // Nothing when no executable segment has that byte.
  std::optional<uint64_t> VaddrOf(uint64_t file_offset) const;

  // The physical function alone.
  std::optional<IndexSymbol> SymbolAt(uint64_t vaddr) const;
  // The other names of the code at `vaddr`, best first; returns how many were put into `out`.
  size_t AliasesOf(uint64_t vaddr, std::span<uint32_t> out) const;

  // What the debug information alone says; empty without lines.
  const LineTable& lines() const { return lines_; }

  // Names by id, for NameReader or NameCache. Id 0 is "".
  const NameTable& names() const { return names_; }
  // One name without a reader of one's own: for tests and single questions, some 50 us each.
  std::string LinkageName(uint32_t id) const;
  std::string DisplayName(uint32_t id) const;

  bool has_lines() const { return lines_state_ == LinesState::kPresent; }
  LinesState lines_state() const { return lines_state_; }
  bool has_segments() const { return !segments_.empty(); }
  size_t segment_count() const { return segments_.size() / sizeof(IndexSegment); }
  IndexSegment SegmentNumber(size_t number) const;        // below segment_count()
  uint32_t symbol_count() const { return range_count_; }  // ranges
  uint64_t file_bytes() const { return file_bytes_; }     // size of the ELF file
  bool has_table() const { return has_table_; }           // .symtab or .dynsym
  bool has_pseudo_id() const { return has_pseudo_id_; }
  const BuildId& id() const { return id_; }
  // The first address after the last symbol; 0 when there is none.
  uint64_t end() const;
  // The range with that number, below symbol_count(), in order of address.
  IndexSymbol SymbolNumber(uint32_t number) const;

 private:
  absl::Status ParseSegments(std::span<const std::byte> section);
  absl::Status ParseSymbols(std::span<const std::byte> section);
  absl::Status CheckChunks() const;
  absl::Status CheckRanges() const;
  absl::Status CheckLists() const;
  // The range that covers `vaddr`; range_count_ when none does.
  uint32_t RangeOf(uint64_t vaddr) const;
  // RangeOf in steps, of an index with ranges: a chunk, then its half as long as `count` is above
  // 1 (and no harm after that), then what is left.
  struct RangeSearch {
    uint64_t base;
    uint32_t distance;  // of the address from there
    uint32_t low, count;
  };
  RangeSearch BeginSearch(uint64_t vaddr) const;
  void Halve(RangeSearch& search) const;
  uint32_t EndSearch(uint64_t vaddr, const RangeSearch& search) const;
  void RangesOf(std::span<const uint64_t> vaddrs, std::span<uint32_t> ranges) const;
  // The answer of FindAddress: a range (range_count_ for none) and what the lines say, of which
  // there are not more than `out` holds.
  size_t Join(uint32_t range, std::span<const LineFrame> lines, std::span<IndexFrame> out) const;
  uint32_t ChunkOf(uint32_t range) const;
  uint64_t SizeOf(uint32_t range) const;
  uint64_t StartOf(uint32_t range) const;
  uint32_t NameOf(uint32_t range) const;

  std::span<const std::byte> segments_;
  NameTable names_;
  LineTable lines_;

  // Columns of the symbols section.
  uint32_t range_count_ = 0;
  uint32_t chunk_count_ = 0;
  uint32_t large_count_ = 0;
  uint32_t alias_count_ = 0;
  uint16_t group_count_ = 0;
  uint8_t name_width_ = 0;
  const std::byte* chunks_ = nullptr;
  const std::byte* starts_ = nullptr;
  const std::byte* sizes_ = nullptr;
  const std::byte* name_ids_ = nullptr;
  const std::byte* flags_ = nullptr;
  const std::byte* group_numbers_ = nullptr;
  const std::byte* group_names_ = nullptr;
  const std::byte* large_ = nullptr;
  const std::byte* aliases_ = nullptr;

  uint64_t file_bytes_ = 0;
  LinesState lines_state_ = LinesState::kNotTried;
  bool has_table_ = false;
  bool has_pseudo_id_ = false;
  BuildId id_;
};

}  // namespace firewatch::symbolizer
