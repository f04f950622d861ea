// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/dwarf/abbreviations.h"

#include <algorithm>
#include <array>
#include <bit>
#include <utility>

namespace firewatch::symbolizer::dwarf {
namespace {

enum Action : uint8_t {
  kRead1,
  kRead2,
  kRead3,
  kRead4,
  kRead8,
  kPass16,
  kReadUleb,
  kReadSleb,
  kReadString,
  kBlock1,
  kBlock2,
  kBlock4,
  kBlockUleb,
  kConstant,  // the value is in the abbreviation
  kIndirect,  // the form is in the entry
  kBadForm,
};

constexpr size_t kMaxSteps = size_t{1} << 24;

// How the value of a form is read; what is always as long is one of the fixed actions.
Action ActionOf(uint64_t form, UnitShape shape) {
  const auto fixed = [](unsigned size) {
    switch (size) {
      case 1:
        return kRead1;
      case 2:
        return kRead2;
      case 4:
        return kRead4;
      default:
        return kRead8;
    }
  };
  switch (form) {
    case kFormAddr:
      return fixed(shape.address_size);
    case kFormData1:
    case kFormRef1:
    case kFormFlag:
    case kFormStrx1:
    case kFormAddrx1:
      return kRead1;
    case kFormData2:
    case kFormRef2:
    case kFormStrx2:
    case kFormAddrx2:
      return kRead2;
    case kFormStrx3:
    case kFormAddrx3:
      return kRead3;
    case kFormData4:
    case kFormRef4:
    case kFormStrx4:
    case kFormAddrx4:
    case kFormRefSup4:
      return kRead4;
    case kFormData8:
    case kFormRef8:
    case kFormRefSig8:
    case kFormRefSup8:
      return kRead8;
    case kFormStrp:
    case kFormSecOffset:
    case kFormStrpSup:
    case kFormLineStrp:
    case kFormGnuRefAlt:
    case kFormGnuStrpAlt:
      return fixed(shape.offset_size);
    case kFormRefAddr:  // an address in DWARF 2
      return fixed(shape.version <= 2 ? shape.address_size : shape.offset_size);
    case kFormData16:
      return kPass16;
    case kFormUdata:
    case kFormRefUdata:
    case kFormStrx:
    case kFormAddrx:
    case kFormLoclistx:
    case kFormRnglistx:
    case kFormGnuAddrIndex:
    case kFormGnuStrIndex:
      return kReadUleb;
    case kFormSdata:
      return kReadSleb;
    case kFormString:
      return kReadString;
    case kFormBlock1:
      return kBlock1;
    case kFormBlock2:
      return kBlock2;
    case kFormBlock4:
      return kBlock4;
    case kFormBlock:
    case kFormExprloc:
      return kBlockUleb;
    case kFormFlagPresent:
    case kFormImplicitConst:
      return kConstant;
    case kFormIndirect:
      return kIndirect;
    default:
      return kBadForm;
  }
}

// Bytes of a fixed action; 0 for others.
uint32_t FixedSize(Action action) {
  static constexpr uint8_t kSizes[kPass16 + 1] = {1, 2, 3, 4, 8, 16};
  return action <= kPass16 ? kSizes[action] : 0;
}

// Tables of abbreviations are a tenth of what is read of C libraries (a table per unit), and two
// jumps per attribute, that no processor foresees, are most of reading them: so small numbers,
// which are nearly all, are looked up.
constexpr size_t kSmallForms = 0x40;
constexpr size_t kSmallAttributes = 0xc0;
using FormActions = std::array<uint8_t, kSmallForms>;

FormActions ActionsFor(UnitShape shape) {
  FormActions actions;
  for (size_t form = 0; form < actions.size(); ++form) actions[form] = ActionOf(form, shape);
  return actions;
}

constexpr Slot SlotOf(uint64_t attribute) {
  switch (attribute) {
    case kAtName:
      return kSlotName;
    case kAtLinkageName:
    case kAtMipsLinkageName:
      return kSlotLinkageName;
    case kAtLowPc:
      return kSlotLowPc;
    case kAtHighPc:
      return kSlotHighPc;
    case kAtRanges:
      return kSlotRanges;
    case kAtAbstractOrigin:
      return kSlotAbstractOrigin;
    case kAtSpecification:
      return kSlotSpecification;
    case kAtDeclFile:
      return kSlotDeclFile;
    case kAtDeclLine:
      return kSlotDeclLine;
    case kAtCallFile:
      return kSlotCallFile;
    case kAtCallLine:
      return kSlotCallLine;
    case kAtStmtList:
      return kSlotStmtList;
    case kAtCompDir:
      return kSlotCompDir;
    case kAtStrOffsetsBase:
      return kSlotStrOffsetsBase;
    case kAtAddrBase:
    case kAtGnuAddrBase:
      return kSlotAddrBase;
    case kAtRnglistsBase:
      return kSlotRnglistsBase;
    case kAtDwoName:
    case kAtGnuDwoName:
      return kSlotDwoName;
    case kAtGnuDwoId:
      return kSlotDwoId;
    case kAtGnuRangesBase:
      return kSlotGnuRangesBase;
    default:
      return kSlotNone;
  }
}

constexpr std::array<uint8_t, kSmallAttributes> kSmallSlots = [] {
  std::array<uint8_t, kSmallAttributes> slots{};
  for (size_t attribute = 0; attribute < slots.size(); ++attribute) {
    slots[attribute] = SlotOf(attribute);
  }
  return slots;
}();

bool HoldsNoCode(uint64_t tag) {
  switch (tag) {
    case kTagArrayType:
    case kTagEnumerationType:
    case kTagSubroutineType:
    case kTagCallSite:
    case kTagGnuCallSite:
      return true;
    default:
      return false;
  }
}

uint64_t ReadValue(Action action, ByteCursor& cursor) {
  switch (action) {
    case kRead1:
      return cursor.U8();
    case kRead2:
      return cursor.U16();
    case kRead3:
      return cursor.U24();
    case kRead4:
      return cursor.U32();
    case kRead8:
      return cursor.U64();
    case kPass16:
      cursor.Skip(16);
      return 0;
    case kReadUleb:
      return cursor.Uleb();
    case kReadSleb:
      return static_cast<uint64_t>(cursor.Sleb());
    case kReadString: {
      const uint64_t offset = cursor.position();
      cursor.String();
      return offset;
    }
    case kBlock1:
      cursor.Skip(cursor.U8());
      return 0;
    case kBlock2:
      cursor.Skip(cursor.U16());
      return 0;
    case kBlock4:
      cursor.Skip(cursor.U32());
      return 0;
    case kBlockUleb:
      cursor.Skip(cursor.Uleb());
      return 0;
    default:
      cursor.Fail();
      return 0;
  }
}

}  // namespace

// Adds up steps: a value of fixed size that nobody wants becomes part of the skip before it.
class AbbreviationCompiler {
 public:
  AbbreviationCompiler(std::span<const std::byte> section, uint64_t offset, UnitShape shape)
      : cursor_(section, offset), start_(offset), actions_(ActionsFor(shape)) {
    table_.shape_ = shape;
    // A small unit of C.
    table_.dense_.reserve(64);
    table_.steps_.reserve(256);
  }

  bool Compile() {
    for (;;) {
      const uint64_t code = cursor_.Uleb();
      if (!cursor_.ok()) return false;
      if (code == 0) return true;
      if (!CompileEntry(code)) return false;
    }
  }
  uint64_t bytes_read() const { return cursor_.position() - start_; }
  AbbreviationTable&& table() { return std::move(table_); }

 private:
  struct Program {
    uint32_t lead = 0;
    std::vector<AttributeStep> steps;
    size_t last = 0;  // the last step that is none's value

    void Clear() {
      lead = 0;
      steps.clear();
    }
    void Skip(uint32_t size) { (steps.empty() ? lead : steps[last].skip) += size; }
    void Add(Slot slot, Action action, uint16_t form, int64_t constant) {
      last = steps.size();
      steps.push_back({static_cast<uint8_t>(slot), action, form, 0});
      if (action == kConstant) steps.push_back(std::bit_cast<AttributeStep>(constant));
    }
    bool IsSmall() const { return steps.size() <= UINT8_MAX && lead <= UINT16_MAX; }
  };

  bool CompileEntry(uint64_t code) {
    const uint64_t tag = cursor_.Uleb();
    Abbreviation entry;
    entry.tag = tag > UINT16_MAX ? uint16_t{0} : static_cast<uint16_t>(tag);
    entry.has_children = cursor_.U8() != 0;
    skip_.Clear();
    take_.Clear();
    uint32_t attributes = 0;
    for (;;) {
      const uint64_t attribute = cursor_.Uleb();
      const uint64_t form = cursor_.Uleb();
      int64_t constant = 0;
      if (form == kFormImplicitConst) constant = cursor_.Sleb();
      if (form == kFormFlagPresent) constant = 1;
      if (!cursor_.ok()) return false;
      if (attribute == 0 && form == 0) break;
      Compile(attribute, form, constant, entry);
      attributes |= Mark(attribute);
    }
    entry.kind = KindOf(tag, attributes);
    // No compiler comes near.
    if (!skip_.IsSmall() || !take_.IsSmall()) return false;
    if (table_.steps_.size() > kMaxSteps) return false;
    entry.first_step = static_cast<uint32_t>(table_.steps_.size());
    entry.skip_count = static_cast<uint8_t>(skip_.steps.size());
    entry.take_count = static_cast<uint8_t>(take_.steps.size());
    entry.skip_lead = static_cast<uint16_t>(skip_.lead);
    entry.take_lead = static_cast<uint16_t>(take_.lead);
    table_.steps_.insert(table_.steps_.end(), skip_.steps.begin(), skip_.steps.end());
    table_.steps_.insert(table_.steps_.end(), take_.steps.begin(), take_.steps.end());
    Store(code, entry);
    return true;
  }

  void Compile(uint64_t attribute, uint64_t form, int64_t constant, Abbreviation& entry) {
    const Action action =
        form < kSmallForms ? static_cast<Action>(actions_[form]) : ActionOf(form, table_.shape_);
    const uint32_t size = FixedSize(action);
    const auto form16 = static_cast<uint16_t>(form);
    if (attribute == kAtSibling && form == kFormRef4 && skip_.steps.empty() &&
        skip_.lead < Abbreviation::kNoSibling) {
      entry.sibling_at = static_cast<uint16_t>(skip_.lead);
    }
    if (size != 0) {
      skip_.Skip(size);
    } else if (action != kConstant) {
      skip_.Add(kSlotNone, action, form16, 0);
    }
    const Slot slot = attribute < kSmallAttributes ? static_cast<Slot>(kSmallSlots[attribute])
                                                   : SlotOf(attribute);
    if (slot != kSlotNone) {
      take_.Add(slot, action, form16, constant);
    } else if (size != 0) {
      take_.Skip(size);
    } else if (action != kConstant) {
      take_.Add(kSlotNone, action, form16, 0);
    }
  }

  static constexpr uint32_t kHasCode = 1;
  static constexpr uint32_t kDeclares = 2;
  static uint32_t Mark(uint64_t attribute) {
    if (attribute == kAtLowPc || attribute == kAtRanges) return kHasCode;
    return attribute == kAtDeclaration ? kDeclares : 0;
  }
  static EntryKind KindOf(uint64_t tag, uint32_t attributes) {
    const bool has_code = (attributes & kHasCode) != 0;
    if (tag == kTagSubprogram) {
      if (has_code) return EntryKind::kFunction;
      return (attributes & kDeclares) != 0 ? EntryKind::kPlainTree : EntryKind::kPlain;
    }
    if (tag == kTagInlinedSubroutine) {
      return has_code ? EntryKind::kInlined : EntryKind::kInlinedAbstract;
    }
    return HoldsNoCode(tag) ? EntryKind::kPlainTree : EntryKind::kPlain;
  }

  // Codes are counted up from 1 by every known producer, but need not be. The first of two wins.
  void Store(uint64_t code, const Abbreviation& entry) {
    constexpr uint64_t kMaxGap = 16;
    auto& dense = table_.dense_;
    if (dense.empty()) dense.resize(1);
    if (code < dense.size()) {
      Abbreviation& place = dense[static_cast<size_t>(code)];
      if (place.kind == EntryKind::kMissing) place = entry;
    } else if (code < dense.size() + kMaxGap) {
      dense.resize(static_cast<size_t>(code) + 1);
      dense.back() = entry;
    } else {
      table_.sparse_.emplace(code, entry);
    }
  }

  ByteCursor cursor_;
  uint64_t start_;
  FormActions actions_;
  Program skip_, take_;
  AbbreviationTable table_;
};

std::shared_ptr<const AbbreviationTable> AbbreviationTable::Compile(
    std::span<const std::byte> section, uint64_t offset, UnitShape shape, bool keep,
    uint64_t* cost) {
  AbbreviationCompiler compiler(section, offset, shape);
  const bool whole = compiler.Compile();
  *cost += compiler.bytes_read();
  if (!whole) return nullptr;
  auto table = std::make_shared<AbbreviationTable>(compiler.table());
  if (keep) {
    table->dense_.shrink_to_fit();
    table->steps_.shrink_to_fit();
  }
  return table;
}

// A code may be both: far from those before it, then reached by counting on. The far one came
// first.
const Abbreviation* AbbreviationTable::FindSparse(uint64_t code) const {
  const auto found = sparse_.find(code);
  return found == sparse_.end() ? nullptr : &found->second;
}

size_t AbbreviationTable::size_bytes() const {
  return dense_.size() * sizeof(Abbreviation) + steps_.size() * sizeof(AttributeStep) +
         sparse_.size() * (sizeof(Abbreviation) + 32);
}

void AbbreviationTable::SkipSteps(const Abbreviation& entry, ByteCursor& cursor) const {
  const AttributeStep* step = steps_.data() + entry.first_step;
  for (const AttributeStep* end = step + entry.skip_count; step != end; ++step) {
    switch (step->action) {
      case kBlockUleb:
        cursor.Skip(cursor.Uleb());
        break;
      case kReadUleb:
      case kReadSleb:
        cursor.SkipLeb();
        break;
      case kReadString:
        cursor.String();
        break;
      case kIndirect: {
        const Action action = ActionOf(cursor.Uleb(), shape_);
        ReadValue(action, cursor);
        break;
      }
      default:
        ReadValue(static_cast<Action>(step->action), cursor);
    }
    cursor.Skip(step->skip);
  }
}

void AbbreviationTable::TakeEntry(const Abbreviation& entry, ByteCursor& cursor,
                                  Attributes* out) const {
  out->present = 0;
  cursor.Skip(entry.take_lead);
  // Counted in places: a value is the place behind its step.
  const AttributeStep* place = steps_.data() + entry.first_step + entry.skip_count;
  for (const AttributeStep* end = place + entry.take_count; place != end; ++place) {
    const AttributeStep step = *place;
    uint64_t value;
    uint16_t form = step.form;
    switch (step.action) {
      case kRead1:
        value = cursor.U8();
        break;
      case kRead2:
        value = cursor.U16();
        break;
      case kRead4:
        value = cursor.U32();
        break;
      case kRead8:
        value = cursor.U64();
        break;
      case kConstant:
        value = std::bit_cast<uint64_t>(*++place);
        break;
      case kIndirect: {
        const uint64_t actual = cursor.Uleb();
        form = actual > UINT16_MAX ? uint16_t{0} : static_cast<uint16_t>(actual);
        value = form == uint16_t{kFormFlagPresent} ? uint64_t{1}
                                                   : ReadValue(ActionOf(form, shape_), cursor);
        break;
      }
      default:
        value = ReadValue(static_cast<Action>(step.action), cursor);
    }
    if (step.slot != kSlotNone) {
      out->value[step.slot] = value;
      out->form[step.slot] = form;
      out->present |= uint32_t{1} << step.slot;
    }
    cursor.Skip(step.skip);
  }
  if (!cursor.ok()) out->present = 0;
}

std::shared_ptr<const AbbreviationTable> AbbreviationCache::Get(uint64_t offset, UnitShape shape,
                                                                bool keep) {
  // Most files have a table per unit, and nobody asks for it again: no need to meet at the lock.
  if (!keep && !keeps_ && uses_.Find(offset) == nullptr) return Compile(offset, shape, false);
  std::unique_lock<std::mutex> lock(mutex_);
  uint32_t* const uses = uses_.Find(offset);
  const bool used_again = uses != nullptr && *uses > 1;
  if (!keep && uses != nullptr && *uses > 0) --*uses;
  const auto kept = kept_.find(offset);
  if (kept != kept_.end()) {
    for (const Kept& entry : kept->second) {
      if (!(entry.shape == shape)) continue;
      std::shared_ptr<const AbbreviationTable> table = entry.table;
      if (!keep && !used_again) {
        for (const Kept& gone : kept->second) kept_bytes_ -= gone.table->size_bytes();
        kept_.erase(kept);
      }
      return table;
    }
  }
  // Others need not wait. Two may compile the same one.
  lock.unlock();
  std::shared_ptr<const AbbreviationTable> table = Compile(offset, shape, keep || used_again);
  lock.lock();
  if (table == nullptr || !(keep || used_again)) return table;
  if (kept_bytes_ > kMaxKeptBytes) {
    kept_.clear();
    kept_bytes_ = 0;
  }
  keeps_ = true;
  kept_bytes_ += table->size_bytes();
  kept_[offset].push_back({shape, table});
  return table;
}

std::shared_ptr<const AbbreviationTable> AbbreviationCache::Compile(uint64_t offset,
                                                                    UnitShape shape, bool keep) {
  if (cost_ / kMaxCostPerByte > section_.size()) return nullptr;
  uint64_t cost = 0;
  std::shared_ptr<const AbbreviationTable> table =
      AbbreviationTable::Compile(section_, offset, shape, keep, &cost);
  cost_ += cost;
  return table;
}

}  // namespace firewatch::symbolizer::dwarf
