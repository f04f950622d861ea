// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/dwarf/abbreviations.h"

#include <algorithm>
#include <array>
#include <bit>
#include <utility>

#include "absl/cleanup/cleanup.h"

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
constexpr Action ActionOf(uint64_t form, UnitShape shape) {
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
constexpr uint8_t kFixedSizes[kPass16 + 1] = {1, 2, 3, 4, 8, 16};
constexpr uint32_t FixedSize(Action action) { return action <= kPass16 ? kFixedSizes[action] : 0; }

// Tables of abbreviations are a tenth of what is read of C libraries (a table per unit), and two
// jumps per attribute, that no processor foresees, are most of reading them: so small numbers,
// which are nearly all, are looked up.
constexpr size_t kSmallForms = 0x40;
constexpr size_t kSmallAttributes = 0xc0;
constexpr uint8_t kNoSize = 0xff;  // or one that is in the entry

struct SmallForms {
  constexpr SmallForms() = default;
  constexpr explicit SmallForms(UnitShape shape) {
    for (size_t form = 0; form < kSmallForms; ++form) {
      actions[form] = ActionOf(form, shape);
      const auto size = static_cast<uint8_t>(FixedSize(actions[form]));
      sizes[form] = size != 0 || form == kFormFlagPresent ? size : kNoSize;
    }
  }
  std::array<Action, kSmallForms> actions{};
  std::array<uint8_t, kSmallForms> sizes{};
};

// Of every shape that differs for ActionOf and that units have (unit.cc): sizes of addresses and of
// offsets, 4 or 8, and whether it is DWARF 2.
constexpr auto kSmallFormsOf = [] {
  std::array<std::array<std::array<SmallForms, 2>, 2>, 2> all{};
  for (size_t address = 0; address < 2; ++address) {
    for (size_t offset = 0; offset < 2; ++offset) {
      for (size_t old = 0; old < 2; ++old) {
        all[address][offset][old] =
            SmallForms({.version = static_cast<uint8_t>(old != 0 ? 2 : 5),
                        .address_size = static_cast<uint8_t>(address != 0 ? 8 : 4),
                        .offset_size = static_cast<uint8_t>(offset != 0 ? 8 : 4)});
      }
    }
  }
  return all;
}();

const SmallForms& SmallFormsFor(UnitShape shape) {
  return kSmallFormsOf[shape.address_size == 4 ? 0 : 1][shape.offset_size == 4 ? 0 : 1]
                      [shape.version <= 2 ? 1 : 0];
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

// What an entry is by its tag alone: kData and kDataTree, three quarters of all abbreviations, or
// kPlain: its attributes have a say.
constexpr EntryKind KindOfTag(uint64_t tag) {
  switch (tag) {
    case kTagArrayType:
    case kTagEnumerationType:
    case kTagSubroutineType:
    case kTagCallSite:
    case kTagGnuCallSite:
      return EntryKind::kDataTree;
    case kTagClassType:
    case kTagFormalParameter:
    case kTagImportedDeclaration:
    case kTagLabel:
    case kTagLexicalBlock:
    case kTagMember:
    case kTagPointerType:
    case kTagReferenceType:
    case kTagStructureType:
    case kTagTypedef:
    case kTagUnionType:
    case kTagUnspecifiedParameters:
    case kTagInheritance:
    case kTagSubrangeType:
    case kTagBaseType:
    case kTagConstType:
    case kTagEnumerator:
    case kTagTemplateTypeParameter:
    case kTagTemplateValueParameter:
    case kTagVariable:
    case kTagVolatileType:
    case kTagRestrictType:
    case kTagImportedModule:
    case kTagUnspecifiedType:
    case kTagRvalueReferenceType:
    case kTagCallSiteParameter:
    case kTagGnuCallSiteParameter:
      return EntryKind::kData;
    default:
      return EntryKind::kPlain;
  }
}

constexpr size_t kSmallTags = 0x80;
constexpr std::array<EntryKind, kSmallTags> kSmallTagKinds = [] {
  std::array<EntryKind, kSmallTags> kinds{};
  for (size_t tag = 0; tag < kinds.size(); ++tag) kinds[tag] = KindOfTag(tag);
  return kinds;
}();

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

class AbbreviationCompiler {
 public:
  AbbreviationCompiler(std::span<const std::byte> section, uint64_t offset, UnitShape shape)
      : cursor_(section, offset), start_(offset), small_forms_(SmallFormsFor(shape)) {
    table_.shape_ = shape;
    // A small unit of C.
    table_.dense_.reserve(64);
    table_.steps_.reserve(128);
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
  // Adds up steps, behind those that are there already: a value of fixed size that nobody wants
  // becomes part of the skip before it.
  class Program {
   public:
    explicit Program(std::vector<AttributeStep>* steps) : steps_(*steps), first_(steps->size()) {}

    void Skip(uint32_t size) { (empty() ? lead_ : steps_[last_].skip) += size; }
    void Add(Slot slot, Action action, uint16_t form, int64_t constant) {
      last_ = steps_.size();
      steps_.push_back({static_cast<uint8_t>(slot), action, form, 0});
      if (action == kConstant) steps_.push_back(std::bit_cast<AttributeStep>(constant));
    }
    bool empty() const { return count() == 0; }
    size_t count() const { return steps_.size() - first_; }
    uint32_t lead() const { return lead_; }
    // The sibling is so many bytes further on, if that can be told beforehand.
    void SetSibling(Abbreviation* entry, uint32_t bytes) const {
      if (empty() && lead_ + bytes < Abbreviation::kNoSibling) {
        entry->sibling_at = static_cast<uint16_t>(lead_ + bytes);
      }
    }
    bool IsSmall() const { return count() <= UINT8_MAX && lead_ <= UINT16_MAX; }

   private:
    std::vector<AttributeStep>& steps_;
    size_t first_;
    size_t last_ = 0;  // the last step that is none's value
    uint32_t lead_ = 0;
  };
  struct Attribute {
    uint64_t name;
    uint64_t form;
    int64_t constant;
  };

  bool CompileEntry(uint64_t code) {
    const uint64_t tag = cursor_.Uleb();
    const EntryKind tag_kind =
        tag < kSmallTags ? kSmallTagKinds[static_cast<size_t>(tag)] : KindOfTag(tag);
    Abbreviation entry;
    entry.tag = tag > UINT16_MAX ? uint16_t{0} : static_cast<uint16_t>(tag);
    entry.has_children = cursor_.U8() != 0;
    entry.first_step = static_cast<uint32_t>(table_.steps_.size());
    const bool compiled =
        tag_kind == EntryKind::kPlain ? CompileAttributes(tag, &entry) : CompileData(&entry);
    if (!compiled || table_.steps_.size() > kMaxSteps) return false;
    if (tag_kind != EntryKind::kPlain) entry.kind = tag_kind;
    Store(code, entry);
    return true;
  }

  // The steps to skip the entry; behind them those to take its attributes.
  bool CompileAttributes(uint64_t tag, Abbreviation* entry) {
    Program skip(&table_.steps_);
    taken_.clear();
    Program take(&taken_);
    uint32_t marks = 0;
    for (;;) {
      Attribute attribute = {.name = cursor_.Uleb(), .form = cursor_.Uleb(), .constant = 0};
      if (attribute.form == kFormImplicitConst) attribute.constant = cursor_.Sleb();
      if (attribute.form == kFormFlagPresent) attribute.constant = 1;
      if (!cursor_.ok()) return false;
      if (attribute.name == 0 && attribute.form == 0) break;
      const Action action = ActionFor(attribute.form);
      if (IsSibling(attribute.name, attribute.form)) skip.SetSibling(entry, 0);
      Compile(kSlotNone, action, attribute, &skip);
      const Slot slot = attribute.name < kSmallAttributes
                            ? static_cast<Slot>(kSmallSlots[attribute.name])
                            : SlotOf(attribute.name);
      Compile(slot, action, attribute, &take);
      marks |= Mark(attribute.name);
    }
    // No compiler comes near.
    if (!skip.IsSmall() || !take.IsSmall()) return false;
    entry->kind = KindOf(tag, marks);
    entry->skip_count = static_cast<uint8_t>(skip.count());
    entry->take_count = static_cast<uint8_t>(take.count());
    entry->skip_lead = static_cast<uint16_t>(skip.lead());
    entry->take_lead = static_cast<uint16_t>(take.lead());
    table_.steps_.insert(table_.steps_.end(), taken_.begin(), taken_.end());
    return true;
  }

  // The steps to skip the entry alone.
  bool CompileData(Abbreviation* entry) {
    ByteCursor cursor = cursor_;
    // What was read counts also when it led nowhere (bytes_read).
    const absl::Cleanup put_back = [&] { cursor_ = cursor; };
    Program skip(&table_.steps_);
    uint32_t bytes = 0;  // since the last step
    for (;;) {
      uint64_t name;
      uint64_t form;
      if (!cursor.ShortUlebs(&name, &form)) {
        name = cursor.Uleb();
        form = cursor.Uleb();
      }
      if (form < kSmallForms && small_forms_.sizes[form] != kNoSize) {
        if (IsSibling(name, form)) skip.SetSibling(entry, bytes);
        bytes += small_forms_.sizes[form];
        continue;
      }
      if (form == kFormImplicitConst) cursor.SkipLeb();
      if (!cursor.ok()) return false;
      if (form == kFormImplicitConst) continue;
      if (name == 0 && form == 0) break;
      skip.Skip(bytes);
      bytes = 0;
      Compile(kSlotNone, ActionFor(form), {.name = name, .form = form, .constant = 0}, &skip);
    }
    skip.Skip(bytes);
    if (!skip.IsSmall()) return false;
    entry->skip_count = static_cast<uint8_t>(skip.count());
    entry->skip_lead = static_cast<uint16_t>(skip.lead());
    return true;
  }

  static bool IsSibling(uint64_t name, uint64_t form) {
    return name == kAtSibling && form == kFormRef4;
  }
  Action ActionFor(uint64_t form) const {
    return form < kSmallForms ? small_forms_.actions[form] : ActionOf(form, table_.shape_);
  }
  static void Compile(Slot slot, Action action, const Attribute& attribute, Program* program) {
    const uint32_t size = FixedSize(action);
    if (slot == kSlotNone && size != 0) {
      program->Skip(size);
    } else if (slot != kSlotNone || action != kConstant) {
      program->Add(slot, action, static_cast<uint16_t>(attribute.form), attribute.constant);
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
    return EntryKind::kPlain;
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
  const SmallForms& small_forms_;
  std::vector<AttributeStep> taken_;
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
  if (entry.kind >= EntryKind::kData) return SkipEntry(entry, cursor);
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
