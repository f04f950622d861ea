// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/dwarf/line_program.h"

#include <algorithm>
#include <array>

#include "symbolizer/dwarf/constants.h"

namespace firewatch::symbolizer::dwarf {

bool LineProgram::Open(const DwarfSections& sections, uint64_t offset, uint8_t address_size) {
  *this = LineProgram();
  address_size_ = address_size;
  ByteCursor cursor(sections.line, offset);
  uint64_t length = cursor.U32();
  if (length == 0xffffffff) {
    length = cursor.U64();
    offset_size_ = 8;
  }
  if (!cursor.ok() || length > cursor.left()) return false;
  const uint64_t end = cursor.position() + length;
  size_bytes_ = end - offset;
  cursor.LimitTo(end);
  version_ = cursor.U16();
  if (version_ < 2 || version_ > 5) return false;
  if (version_ >= 5) {
    address_size_ = cursor.U8();
    cursor.U8();  // size of a segment selector
  }
  const uint64_t header_length = cursor.Sized(offset_size_);
  if (!cursor.ok() || header_length > cursor.left()) return false;
  const uint64_t program = cursor.position() + header_length;
  program_ =
      sections.line.subspan(static_cast<size_t>(program), static_cast<size_t>(end - program));
  cursor.LimitTo(program);
  minimum_instruction_ = cursor.U8();
  if (version_ >= 4) cursor.U8();  // operations per instruction: 1 but for VLIW
  cursor.U8();                     // default of is_stmt
  line_base_ = static_cast<int8_t>(cursor.U8());
  line_range_ = cursor.U8();
  opcode_base_ = cursor.U8();
  if (opcode_base_ == 0) return false;
  operand_counts_ = cursor.Take(opcode_base_ - uint64_t{1});
  return cursor.ok() && files_.Open(sections, version_, offset_size_, cursor);
}

LineProgram::Counts LineProgram::Run(const CodeFilter& filter, LineRows* out) {
  Counts counts;
  out->Clear();
  if (!Execute(filter, Order::kAsTheyCome, out, &counts)) {
    // Rows that go backwards. Once more, with each sequence in memory to be sorted.
    counts = Counts();
    out->Clear();
    files_.DropAdded();
    Execute(filter, Order::kSort, out, &counts);
  }
  out->Finish();
  return counts;
}

std::array<LineProgram::Effect, 256> LineProgram::Effects() const {
  std::array<Effect, 256> effects{};
  uint32_t advance = 0;
  unsigned in_range = 0;
  for (unsigned opcode = opcode_base_; opcode < 256; ++opcode) {
    effects[opcode].kind = Effect::kRow;
    if (line_range_ == 0) continue;
    effects[opcode].advance = advance;
    effects[opcode].step = static_cast<int16_t>(line_base_ + static_cast<int>(in_range));
    if (++in_range != line_range_) continue;
    in_range = 0;
    advance += minimum_instruction_;
  }
  // Those below the base that mean something, and are not special.
  const auto is = [&](uint8_t opcode, Effect effect) {
    if (opcode < opcode_base_) effects[opcode] = effect;
  };
  is(kLnsCopy, {.kind = Effect::kRow});
  is(kLnsSetColumn, {.kind = Effect::kColumn});
  is(kLnsConstAddPc, {.advance = effects[255].advance, .kind = Effect::kSilent});
  for (const uint8_t opcode :
       {kLnsNegateStmt, kLnsSetBasicBlock, kLnsSetPrologueEnd, kLnsSetEpilogueBegin}) {
    is(opcode, {.kind = Effect::kSilent});
  }
  return effects;
}

// The state machine. False when rows are to be taken as they come, and come in no order.
bool LineProgram::Execute(const CodeFilter& filter, Order order, LineRows* out, Counts* counts) {
  const std::array<Effect, 256> effects = Effects();

  uint64_t address = 0;
  uint64_t file = 1;
  uint32_t line = 1;
  bool sorted = true;
  // The first row tells whether the sequence is about code at all: what linkers make of code that
  // they left out starts at a tombstone and is in no order.
  enum : uint8_t { kStarts, kTaken, kNoCode } sequence = kStarts;
  unsorted_.clear();
  out->Begin();
  const auto emit = [&] {
    if (sequence != kTaken) {
      if (sequence == kNoCode) return;
      AddressRange first = {address, address + 1};
      sequence = filter.IsCode(&first) ? kTaken : kNoCode;
      if (sequence == kNoCode) {
        ++counts->dropped;
        return;
      }
    }
    const uint32_t file32 = file > UINT32_MAX ? UINT32_MAX : static_cast<uint32_t>(file);
    if (order == Order::kSort) {
      unsorted_.push_back({address, unsorted_.size(), file32, line});
    } else if (!out->Append(address, file32, line)) {
      sorted = false;
    }
  };

  ByteCursor cursor(program_);
  while (!cursor.at_end()) {
    const uint8_t opcode = cursor.U8();
    const Effect& effect = effects[opcode];
    // Nearly all are one of these, and a jump for each would be one that no processor foresees.
    if (effect.kind == Effect::kRow) {
      address += effect.advance;
      line = static_cast<uint32_t>(static_cast<int64_t>(line) + effect.step);
      emit();
      if (!sorted) return false;
      continue;
    }
    if (effect.kind == Effect::kColumn) {
      cursor.SkipLeb();
      continue;
    }
    if (effect.kind == Effect::kSilent) {
      address += effect.advance;
      continue;
    }
    switch (opcode) {
      case kLnsExtended: {
        const uint64_t length = cursor.Uleb();
        if (length == 0) break;
        if (length > cursor.left()) {
          cursor.Fail();
          break;
        }
        const uint64_t next = cursor.position() + length;
        switch (cursor.U8()) {
          case kLneEndSequence:
            if (!EndSequence(address, filter, order, out, counts)) return false;
            address = 0;
            file = 1;
            line = 1;
            sequence = kStarts;
            out->Begin();
            break;
          case kLneSetAddress:
            if (length == 9) {
              address = cursor.U64();
            } else if (length == 5) {
              address = cursor.U32();
            }
            break;
          case kLneDefineFile: {
            const std::string_view name = cursor.String();
            const uint64_t directory = cursor.Uleb();
            files_.Add(name, directory);
            break;
          }
          default:
            break;
        }
        cursor.JumpTo(next);
        break;
      }
      case kLnsAdvancePc:
        address += cursor.Uleb() * minimum_instruction_;
        break;
      case kLnsAdvanceLine:
        line = static_cast<uint32_t>(line + static_cast<uint64_t>(cursor.Sleb()));
        break;
      case kLnsSetFile:
        file = cursor.Uleb();
        break;
      case kLnsFixedAdvancePc:
        address += cursor.U16();
        break;
      default:  // set_isa, and what later versions may add
        for (unsigned left = OperandsOf(opcode); left > 0; --left) cursor.SkipLeb();
    }
  }
  out->Abandon();  // a sequence without end: nobody knows how far it goes
  counts->damaged = !cursor.ok();
  return true;
}

// False when not all rows are below the end; in Order::kSort those are left out instead.
bool LineProgram::EndSequence(uint64_t end, const CodeFilter& filter, Order order, LineRows* out,
                              Counts* counts) {
  std::sort(unsorted_.begin(), unsorted_.end(), [](const UnsortedRow& a, const UnsortedRow& b) {
    return a.address != b.address ? a.address < b.address : a.number < b.number;
  });
  for (const UnsortedRow& row : unsorted_) {
    if (row.address < end) out->Append(row.address, row.file, row.line);
  }
  unsorted_.clear();
  AddressRange range = {out->has_rows() ? out->first_address() : end, end};
  if (range.start >= range.end) {
    out->Abandon();
    return true;
  }
  ++counts->sequences;
  if (!filter.IsWanted(range.start, range.end)) {
    out->Abandon();
    return true;
  }
  return out->End(end) || order == Order::kSort;
}

}  // namespace firewatch::symbolizer::dwarf
