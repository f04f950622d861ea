// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/unwind/table_builder.h"

#include <elf.h>

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "base/status.h"
#include "symbolizer/unwind/cfi_sections.h"
#include "symbolizer/unwind/code_rows.h"

namespace firewatch::symbolizer {
namespace {

constexpr uint64_t kCodeWindowBytes = 16 << 10;
constexpr uint64_t kMaxFileOffset = uint64_t{1} << FW_FRAME_FILE_OFFSET_BITS;
constexpr uint32_t kNoFde = UINT32_MAX;
constexpr uint64_t kPltSlotBytes = 16;
constexpr uint64_t kFirstPushBytes = 6;  // push GOT+8(%rip), the first slot's first instruction
constexpr uint64_t kFunctionAlignment = 16;
constexpr uint64_t kSmallestStub = 9;

// Addresses to file offsets. A segment that begins inside another is asked first.
class CodeMap {
 public:
  explicit CodeMap(std::span<const CodeSegment> segments)
      : segments_(segments.begin(), segments.end()) {
    std::sort(segments_.begin(), segments_.end(),
              [](const CodeSegment& a, const CodeSegment& b) { return a.vaddr < b.vaddr; });
  }
  // The segment with the byte at `vaddr`, or nullptr.
  const CodeSegment* Find(uint64_t vaddr) const {
    auto behind = std::upper_bound(
        segments_.begin(), segments_.end(), vaddr,
        [](uint64_t value, const CodeSegment& segment) { return value < segment.vaddr; });
    if (behind == segments_.begin()) return nullptr;
    --behind;
    const bool covers = vaddr - behind->vaddr < behind->size &&
                        behind->file_offset < kMaxFileOffset - (vaddr - behind->vaddr);
    return covers ? &*behind : nullptr;
  }

 private:
  std::vector<CodeSegment> segments_;
};

// A range of the file with one FDE, or a root of ours.
struct Function {
  uint64_t offset = 0;
  uint64_t end = 0;
  uint32_t section = 0;
  uint32_t fde = kNoFde;
};

// An object, not a function: std::sort then calls nothing.
struct ComesBefore {
  bool operator()(const Function& a, const Function& b) const {
    if (a.offset != b.offset) return a.offset < b.offset;
    return a.section != b.section ? a.section < b.section : a.fde < b.fde;
  }
};

class RowBuilder {
 public:
  RowBuilder(std::span<const CfiSection> sections, std::span<const CodeSegment> code, BareCode bare)
      : sections_(sections), code_(code), bare_(std::move(bare)) {
    build_.source.rules.emplace_back();  // NONE
  }

  UnwindBuild Run(uint64_t entry) {
    std::vector<Function> functions;
    for (size_t i = 0; i < sections_.size(); ++i) AddSection(static_cast<uint32_t>(i), &functions);
    ResolveOverlaps(&functions);
    if (entry != 0) AddEntry(entry, &functions);
    build_.source.rows.reserve(functions.size() * 4);
    for (const Function& function : functions) AddRows(function);
    if (!functions.empty()) AddGap(functions.back().end, kMaxFileOffset);
    Count();
    return std::move(build_);
  }

 private:
  void AddSection(uint32_t number, std::vector<Function>* functions) {
    const CfiSection& section = sections_[number];
    build_.source.counts.cfi_bytes += section.bytes.size();
    CfiEntries& entries = entries_.emplace_back(ReadCfiEntries(section));
    build_.source.counts.fdes += entries.fde_count;
    for (size_t i = 0; i < kCfiReasonCount; ++i) build_.reasons[i] += entries.reasons[i];
    RunCies(section, entries.cies);
    const size_t known = functions->size();
    for (size_t i = 0; i < entries.fdes.size(); ++i) {
      AddFunction(entries.fdes[i], number, static_cast<uint32_t>(i), known, functions);
    }
    if (!std::is_sorted(functions->begin(), functions->end(), ComesBefore())) {
      std::sort(functions->begin(), functions->end(), ComesBefore());
    }
  }

  void RunCies(const CfiSection& section, std::vector<Cie>& cies) {
    std::vector<CfiState>& states = initial_.emplace_back(cies.size());
    for (size_t i = 0; i < cies.size(); ++i) {
      if (cies[i].reason == CfiReason::kNone) {
        cies[i].reason = RunCie(section, cies[i], &states[i]);
      }
    }
  }

  // `known`: so many functions, sorted, are those of sections before.
  void AddFunction(const Fde& fde, uint32_t section, uint32_t number, size_t known,
                   std::vector<Function>* functions) {
    const CodeSegment* segment = code_.Find(fde.start);
    if (segment == nullptr) return Refuse(CfiReason::kNoCode);
    const uint64_t distance = fde.start - segment->vaddr;
    const Function function = {
        .offset = segment->file_offset + distance,
        .end = segment->file_offset + distance + std::min(fde.size, segment->size - distance),
        .section = section,
        .fde = number};
    const auto before = functions->begin() + static_cast<std::ptrdiff_t>(known);
    const auto next = std::lower_bound(functions->begin(), before, function, ComesBefore());
    const bool covered =
        (next != before && next->offset < function.end) ||
        (next != functions->begin() && known > 0 && std::prev(next)->end > function.offset);
    if (covered) return Refuse(CfiReason::kCovered);
    functions->push_back(function);
  }

  void ResolveOverlaps(std::vector<Function>* functions) {
    size_t kept = 0;
    for (const Function& function : *functions) {
      if (kept > 0) {
        Function& last = (*functions)[kept - 1];
        if (last.offset == function.offset) {
          Refuse(CfiReason::kCovered);
          continue;
        }
        last.end = std::min(last.end, function.offset);
      }
      (*functions)[kept++] = function;
    }
    functions->resize(kept);
  }

  void AddEntry(uint64_t entry, std::vector<Function>* functions) {
    const CodeSegment* segment = code_.Find(entry);
    if (segment == nullptr) return;
    const uint64_t distance = entry - segment->vaddr;
    Function root = {.offset = segment->file_offset + distance, .end = 0};
    root.end = root.offset + std::min(kEntryRootBytes, segment->size - distance);
    const auto next =
        std::upper_bound(functions->begin(), functions->end(), root,
                         [](const Function& a, const Function& b) { return a.offset < b.offset; });
    if (next != functions->begin() && std::prev(next)->end > root.offset) return;
    if (next != functions->end()) root.end = std::min(root.end, next->offset);
    functions->insert(next, root);
    build_.entry_is_root = true;
  }

  // Between functions: padding up to the next multiple of 16, too short for a stub without CFI that
  // matters (musl's __restore_rt has 9 bytes). A row of NONE per function would be 10 % of all.
  static bool IsPadding(uint64_t end, uint64_t next) {
    return next % kFunctionAlignment == 0 && next - end < kSmallestStub;
  }

  void AddRows(const Function& function) {
    std::vector<TableRow>& rows = build_.source.rows;
    if (last_end_ < function.offset && !IsPadding(last_end_, function.offset)) {
      AddGap(last_end_, function.offset);
    }
    last_end_ = function.end;
    if (function.fde == kNoFde) return Push(function.offset, NumberOf(RootRule()));
    const Fde& fde = entries_[function.section].fdes[function.fde];
    const Cie& cie = entries_[function.section].cies[fde.cie];
    rows_.clear();
    CfiReason reason = cie.reason;
    if (reason == CfiReason::kNone) {
      reason = RunFde(sections_[function.section], cie, initial_[function.section][fde.cie], fde,
                      &rows_);
    }
    if (reason == CfiReason::kNone && rows.size() + rows_.size() > kMaxTableRows) {
      reason = CfiReason::kLimit;
    }
    if (reason != CfiReason::kNone) {
      Refuse(reason);
      return Push(function.offset, 0);
    }
    uint32_t bases_met = 0;
    for (const CfiRow& row : rows_) {
      const uint64_t offset = function.offset + (row.vaddr - fde.start);
      if (offset >= function.end) break;
      ++build_.source.counts.rows_read;
      CountBase(row.state.cfa, &bases_met);
      UnsaidPart unsaid{};
      const RuleWords words = MakeRule(row.state, &unsaid);
      ++build_.unsaid[static_cast<size_t>(unsaid)];
      Push(offset, NumberOf(words));
    }
  }

  // Step 6, between two functions.
  void AddGap(uint64_t from, uint64_t to) {
    const bool continues = !build_.source.rows.empty() && IsAtEntry(build_.source.rows.back().rule);
    Push(from, 0);
    if (!bare_.read) return;
    // From the first section that ends behind `from` on: all of them for each gap would be
    // quadratic.
    auto first = std::partition_point(
        bare_.sections.begin(), bare_.sections.end(),
        [from](const BareCode::Section& one) { return one.offset + one.size <= from; });
    for (; first != bare_.sections.end() && first->offset < to; ++first) {
      const BareCode::Section& section = *first;
      const uint64_t begin = std::max(from, section.offset);
      const uint64_t end = std::min(to, section.offset + section.size);
      if (begin >= end || end - begin > kMaxBareCodeBytes - bare_bytes_) continue;
      bare_bytes_ += end - begin;
      const bool begins = begin == section.offset || (continues && begin == from);
      AddBareCode(section, begin, bare_.read(begin, end - begin), begins);
      Push(end, 0);
    }
  }

  void AddBareCode(const BareCode::Section& section, uint64_t offset,
                   std::span<const std::byte> code, bool begins_function) {
    if (code.empty()) return;
    switch (section.kind) {
      case BareCode::Kind::kStubs:
        return PushState(offset, AtEntry(0));
      case BareCode::Kind::kIplt:
        return PushState(offset, PltSlot(code));
      case BareCode::Kind::kPlt:
        if (offset != section.offset || code.size() <= kPltSlotBytes) return;
        PushState(offset, AtEntry(8));  // a slot has pushed its number
        PushState(offset + kFirstPushBytes, AtEntry(16));
        return PushState(offset + kPltSlotBytes, PltSlot(code.subspan(kPltSlotBytes)));
      case BareCode::Kind::kFunctions:
        for (const CodeFunction& function : RowsFromCode(code, offset, begins_function)) {
          for (const CfiRow& row : function.rows) PushState(row.vaddr, row.state);
          Push(function.end, 0);
          ++build_.bare_functions;
        }
    }
  }

  // So many bytes below the state in which a function is entered.
  static CfiState AtEntry(int64_t depth) {
    return {.cfa = {.kind = CfaRule::Kind::kOffset, .reg = FW_REGISTER_RSP, .offset = 8 + depth},
            .return_address = {.kind = CfiRule::Kind::kAtCfa, .offset = -8}};
  }
  // Of a slot "jmp *GOT; push number; jmp first", or with endbr64 "endbr64; push number; jmp
  // first".
  static CfiState PltSlot(std::span<const std::byte> slot) {
    CfiState state = AtEntry(0);
    const bool endbr = slot[0] == std::byte{0xf3};
    state.cfa = {.kind = CfaRule::Kind::kPlt, .reg = FW_REGISTER_RSP, .offset = endbr ? 9 : 11};
    return state;
  }
  void PushState(uint64_t offset, const CfiState& state) {
    UnsaidPart unsaid{};
    Push(offset, NumberOf(MakeRule(state, &unsaid)));
  }
  bool IsAtEntry(uint64_t rule) {
    UnsaidPart unsaid{};
    return rule == NumberOf(MakeRule(AtEntry(0), &unsaid));
  }

  void CountBase(const CfaRule& cfa, uint32_t* met) {
    if (cfa.kind != CfaRule::Kind::kOffset) return;
    CfaBaseUse& use = build_.bases[cfa.reg & 0xf];
    ++use.rows;
    if ((*met >> cfa.reg & 1) == 0) ++use.functions;
    *met |= 1U << cfa.reg;
  }

  // Rows come in ascending order; a second one at an offset replaces the first.
  void Push(uint64_t offset, uint16_t rule) {
    std::vector<TableRow>& rows = build_.source.rows;
    if (!rows.empty() && rows.back().offset == offset) rows.pop_back();
    const uint16_t last = rows.empty() ? uint16_t{0} : static_cast<uint16_t>(rows.back().rule);
    if (last == rule) return;
    rows.push_back({.offset = offset & (kMaxFileOffset - 1), .rule = rule});
  }

  // Most rows use one of few rules: a small table in front of the hash map.
  uint16_t NumberOf(const RuleWords& words) {
    if (words.none()) return 0;
    const uint64_t mixed = (words.rule ^ words.slot) * 0x9e3779b97f4a7c15;
    auto& [key, number] = recent_[mixed >> 56];
    if (key == words) return number;
    auto& rules = build_.source.rules;
    const auto [found, is_new] = numbers_.try_emplace(words, static_cast<uint16_t>(rules.size()));
    if (is_new) {
      if (rules.size() == kMaxDistinctRules) {
        numbers_.erase(found);
        ++build_.source.counts.rows_no_rule;
        return 0;
      }
      rules.push_back(words);
    }
    key = words;
    number = found->second;
    return number;
  }

  void Refuse(CfiReason reason) { ++build_.reasons[static_cast<size_t>(reason)]; }

  void Count() {
    UnwindTableCounts& counts = build_.source.counts;
    for (size_t i = 0; i < kCfiReasonCount; ++i) {
      if (IsRefusal(static_cast<CfiReason>(i))) counts.fdes_refused += build_.reasons[i];
    }
    counts.rows_merged = build_.source.rows.size();
    for (size_t part = 1; part < std::size(build_.unsaid); ++part) {
      counts.rows_no_rule += build_.unsaid[part];
    }
  }

  const std::span<const CfiSection> sections_;
  const CodeMap code_;
  const BareCode bare_;
  uint64_t bare_bytes_ = 0;
  std::vector<CfiEntries> entries_;             // by section
  std::vector<std::vector<CfiState>> initial_;  // by section and CIE
  UnwindBuild build_;
  std::vector<CfiRow> rows_;  // of one FDE
  uint64_t last_end_ = 0;
  std::array<std::pair<RuleWords, uint16_t>, 256> recent_{};
  absl::flat_hash_map<RuleWords, uint16_t> numbers_;
};

}  // namespace

UnwindBuild BuildRows(std::span<const CfiSection> sections, std::span<const CodeSegment> code,
                      uint64_t entry, BareCode bare) {
  return RowBuilder(sections, code, std::move(bare)).Run(entry);
}

namespace {

BareCode BareCodeOf(const ElfReader& elf) {
  BareCode bare;
  // Once each: finding a section by its name reads the names of all that stand before it.
  const std::pair<const ElfSection*, BareCode::Kind> named[] = {
      {elf.SectionNamed(".plt"), BareCode::Kind::kPlt},
      {elf.SectionNamed(".iplt"), BareCode::Kind::kIplt},
      {elf.SectionNamed(".plt.sec"), BareCode::Kind::kStubs},
      {elf.SectionNamed(".plt.got"), BareCode::Kind::kStubs}};
  const auto kind_of = [&named](const ElfSection& section) {
    for (const auto& [found, kind] : named) {
      if (found == &section) return kind;
    }
    return BareCode::Kind::kFunctions;
  };
  for (const ElfSection& section : elf.sections()) {
    const bool is_code = section.type == SHT_PROGBITS && (section.flags & SHF_EXECINSTR) != 0;
    if (!is_code || section.size > elf.source().size()) continue;
    bare.sections.push_back(
        {.offset = section.file_offset, .size = section.size, .kind = kind_of(section)});
  }
  std::sort(bare.sections.begin(), bare.sections.end(),
            [](const auto& a, const auto& b) { return a.offset < b.offset; });
  uint64_t end = 0;
  std::erase_if(bare.sections, [&](const BareCode::Section& section) {
    const bool bad = section.offset < end || section.offset > elf.source().size() - section.size;
    if (!bad) end = section.offset + section.size;
    return bad;
  });
  // Gaps are a few bytes every kilobyte: one read per gap took half of the time for node and
  // libLLVM (54,000 reads), one per 16 KiB is a copy of the text.
  bare.read = [&elf, window = std::vector<std::byte>(), begin = uint64_t{0}](
                  uint64_t offset, uint64_t size) mutable -> std::span<const std::byte> {
    if (offset < begin || offset - begin > window.size() ||
        size > window.size() - (offset - begin)) {
      begin = offset;
      const uint64_t left = elf.source().size() - std::min(offset, elf.source().size());
      window.resize(std::min(std::max(size, kCodeWindowBytes), left));
      if (size > left || !elf.source().Read(offset, window).ok()) window.clear();
      if (window.empty()) return {};
    }
    return std::span(window).subspan(offset - begin, size);
  };
  return bare;
}

}  // namespace

absl::StatusOr<UnwindBuild> BuildUnwindTable(const ElfReader& elf) {
  ASSIGN_OR_RETURN(const CfiSections cfi, ReadCfiSections(elf, kMaxCfiBytes));
  std::vector<CodeSegment> code;
  for (const ElfSegment& segment : elf.segments()) {
    if (!segment.executable) continue;
    code.push_back(
        {.vaddr = segment.vaddr, .size = segment.file_size, .file_offset = segment.file_offset});
  }
  UnwindBuild build = BuildRows(cfi.sections, code, elf.entry(), BareCodeOf(elf));
  build.source.file_bytes = elf.source().size();
  if (build.source.counts.fdes == 0) return base::NotFound("no function in .eh_frame");
  return build;
}

}  // namespace firewatch::symbolizer
