// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/unwind/cfi_reader.h"

#include <iterator>

#include "absl/container/flat_hash_map.h"
#include "symbolizer/byte_cursor.h"

namespace firewatch::symbolizer {
namespace {

constexpr const char* kLabels[] = {
#define FIREWATCH_CFI_REASON_LABEL(constant, label) label,
    FIREWATCH_CFI_REASONS(FIREWATCH_CFI_REASON_LABEL)
#undef FIREWATCH_CFI_REASON_LABEL
};
static_assert(std::size(kLabels) == kCfiReasonCount);

constexpr uint8_t kReturnColumn = 16;

// DW_EH_PE_*: format in the low 4 bits, what it counts from in the next 3, then "indirect".
constexpr uint8_t kEncodingOmit = 0xff;
constexpr uint8_t kFormatMask = 0x0f;
constexpr uint8_t kBaseMask = 0x70;
constexpr uint8_t kBasePc = 0x10;
constexpr uint8_t kBaseText = 0x20;
constexpr uint8_t kBaseData = 0x30;
constexpr uint8_t kBaseAligned = 0x50;
constexpr uint8_t kIndirect = 0x80;

// One entry of the section, its length read.
struct Entry {
  uint64_t offset = 0;     // of the length
  uint64_t id_offset = 0;  // of the CIE id or pointer
  uint64_t id = 0;
  bool is_cie = false;
  std::span<const std::byte> body;  // behind the id
  uint64_t body_offset = 0;
};

class EntryWalk {
 public:
  explicit EntryWalk(const CfiSection& section) : section_(section), cursor_(section.bytes) {}

  // False at the end; `broken` then says whether the end was reached.
  bool Next(Entry* entry) {
    while (cursor_.left() >= sizeof(uint32_t)) {
      entry->offset = cursor_.position();
      uint64_t length = cursor_.Fixed<uint32_t>();
      if (length == 0) {
        if (section_.ends_at_zero) return false;
        continue;  // crtend.o's terminator; more may follow when it was not linked last
      }
      const bool is_64_bit = length == 0xffffffff;
      if (is_64_bit) length = cursor_.Fixed<uint64_t>();
      if (!is_64_bit && length >= 0xfffffff0) return Break();  // reserved
      if (!cursor_.ok() || length > cursor_.left()) return Break();
      entry->id_offset = cursor_.position();
      // .eh_frame keeps 4 bytes here also behind a 64-bit length (LSB).
      const bool wide_id = is_64_bit && section_.is_debug_frame;
      const size_t id_size = wide_id ? sizeof(uint64_t) : sizeof(uint32_t);
      const auto bytes = cursor_.Take(length);
      if (bytes.size() < id_size) return Break();
      ByteCursor id(bytes);
      entry->id = wide_id ? id.Fixed<uint64_t>() : id.Fixed<uint32_t>();
      const uint64_t cie_id =
          !section_.is_debug_frame ? 0 : (wide_id ? UINT64_MAX : uint64_t{UINT32_MAX});
      entry->is_cie = entry->id == cie_id;
      entry->body = id.rest();
      entry->body_offset = entry->id_offset + id_size;
      return true;
    }
    return false;
  }
  bool broken() const { return broken_; }

 private:
  bool Break() {
    broken_ = true;
    return false;
  }
  const CfiSection& section_;
  ByteCursor cursor_;
  bool broken_ = false;
};

std::string_view TakeString(ByteCursor& cursor) {
  const auto rest = cursor.rest();
  const char* text = reinterpret_cast<const char*>(rest.data());
  const void* end = rest.empty() ? nullptr : std::memchr(text, 0, rest.size());
  const size_t size =
      end == nullptr ? rest.size() : static_cast<size_t>(static_cast<const char*>(end) - text);
  cursor.Skip(size + 1);
  return {text, size};
}

// The letters behind 'z', with their data. A letter that is not known ends it: what follows is
// skipped by its length.
CfiReason ReadAugmentation(const CfiSection& section, std::string_view letters,
                           std::span<const std::byte> data, uint64_t data_offset, Cie* cie) {
  ByteCursor cursor(data);
  for (const char letter : letters) {
    switch (letter) {
      case 'R':
        cie->pointer_encoding = cursor.U8();
        break;
      case 'L':
        cursor.U8();
        break;
      case 'P': {
        const auto encoding = static_cast<uint8_t>(cursor.U8() & ~kIndirect);
        const uint64_t vaddr = section.vaddr + data_offset + cursor.position();
        CfiSection any_base = section;  // only the size matters
        any_base.text_vaddr = any_base.data_vaddr = 0;
        if (!ReadEncodedPointer(any_base, encoding, vaddr, cursor)) return CfiReason::kPointer;
        break;
      }
      case 'S':
        cie->signal_frame = true;
        break;
      case 'B':  // AArch64's pointer authentication key; harmless
        break;
      default:
        return cursor.ok() ? CfiReason::kNone : CfiReason::kCieTruncated;
    }
  }
  return cursor.ok() ? CfiReason::kNone : CfiReason::kCieTruncated;
}

CfiReason ReadCie(const CfiSection& section, const Entry& entry, Cie* cie) {
  ByteCursor cursor(entry.body);
  const uint8_t version = cursor.U8();
  if (version != 1 && version != 3 && version != 4) return CfiReason::kCieVersion;
  std::string_view augmentation = TakeString(cursor);
  if (version == 4) {
    const uint8_t address_size = cursor.U8();
    const uint8_t segment_size = cursor.U8();
    if (address_size != 8 || segment_size != 0) return CfiReason::kCieAddressSize;
  }
  if (augmentation.starts_with("eh")) {  // GCC 2: the address of its exception table
    cursor.Fixed<uint64_t>();
    augmentation.remove_prefix(2);
  }
  cie->code_alignment = cursor.Uleb();
  cie->data_alignment = cursor.Sleb();
  const uint64_t return_column = version == 1 ? cursor.U8() : cursor.Uleb();
  if (!cursor.ok()) return CfiReason::kCieTruncated;
  if (return_column != kReturnColumn) return CfiReason::kCieReturnColumn;
  if (augmentation.starts_with('z')) {
    cie->has_augmentation_data = true;
    const uint64_t size = cursor.Uleb();
    const uint64_t offset = entry.body_offset + cursor.position();
    const auto data = cursor.Take(size);
    if (!cursor.ok()) return CfiReason::kCieTruncated;
    const CfiReason reason = ReadAugmentation(section, augmentation.substr(1), data, offset, cie);
    if (reason != CfiReason::kNone) return reason;
  } else if (!augmentation.empty()) {
    return CfiReason::kCieAugmentation;
  }
  cie->instructions = cursor.rest();
  return CfiReason::kNone;
}

CfiReason ReadFde(const CfiSection& section, const Entry& entry, const Cie& cie, Fde* fde) {
  if (cie.reason != CfiReason::kNone) return cie.reason;
  ByteCursor cursor(entry.body);
  const auto start =
      ReadEncodedPointer(section, cie.pointer_encoding, section.vaddr + entry.body_offset, cursor);
  if (!start) return cursor.ok() ? CfiReason::kPointer : CfiReason::kFdeTruncated;
  // A length: the format of the pointer, relative to nothing.
  const auto size = ReadEncodedPointer(
      section, static_cast<uint8_t>(cie.pointer_encoding & kFormatMask), 0, cursor);
  if (!size) return CfiReason::kFdeTruncated;
  if (cie.has_augmentation_data) cursor.Skip(cursor.Uleb());
  if (!cursor.ok()) return CfiReason::kFdeTruncated;
  if (*size == 0) return CfiReason::kEmpty;
  if (*start > UINT64_MAX - *size) return CfiReason::kRange;
  fde->start = *start;
  fde->size = *size;
  fde->instructions = cursor.rest();
  return CfiReason::kNone;
}

using CieMap = absl::flat_hash_map<uint64_t, uint32_t>;

CieMap ReadCies(const CfiSection& section, std::vector<Cie>* cies) {
  CieMap by_offset;
  EntryWalk walk(section);
  for (Entry entry; walk.Next(&entry);) {
    if (!entry.is_cie) continue;
    by_offset.emplace(entry.offset, static_cast<uint32_t>(cies->size()));
    Cie& cie = cies->emplace_back();
    cie.reason = ReadCie(section, entry, &cie);
  }
  return by_offset;
}

}  // namespace

std::string_view CfiReasonLabel(CfiReason reason) { return kLabels[static_cast<size_t>(reason)]; }

std::optional<uint64_t> ReadEncodedPointer(const CfiSection& section, uint8_t encoding,
                                           uint64_t vaddr, ByteCursor& cursor) {
  if (encoding == kEncodingOmit) return std::nullopt;
  if ((encoding & kBaseMask) == kBaseAligned) {  // absolute, at the next multiple of 8
    const uint64_t aligned = (vaddr + 7) & ~uint64_t{7};
    cursor.Skip(aligned - vaddr);
    const auto value = cursor.Fixed<uint64_t>();
    if (!cursor.ok()) return std::nullopt;
    return value;
  }
  uint64_t value = 0;
  switch (encoding & kFormatMask) {
    case 0x00:  // absptr
    case 0x04:  // udata8
    case 0x0c:  // sdata8
      value = cursor.Fixed<uint64_t>();
      break;
    case 0x01:
      value = cursor.Uleb();
      break;
    case 0x02:
      value = cursor.Fixed<uint16_t>();
      break;
    case 0x03:
      value = cursor.Fixed<uint32_t>();
      break;
    case 0x08:  // signed: the format of a native word
      value = cursor.Fixed<uint64_t>();
      break;
    case 0x09:
      value = static_cast<uint64_t>(cursor.Sleb());
      break;
    case 0x0a:
      value = static_cast<uint64_t>(int64_t{cursor.Fixed<int16_t>()});
      break;
    case 0x0b:
      value = static_cast<uint64_t>(int64_t{cursor.Fixed<int32_t>()});
      break;
    default:
      return std::nullopt;
  }
  if (!cursor.ok()) return std::nullopt;
  switch (encoding & kBaseMask) {
    case 0:
      break;
    case kBasePc:
      value += vaddr;
      break;
    case kBaseText:
      if (!section.text_vaddr) return std::nullopt;
      value += *section.text_vaddr;
      break;
    case kBaseData:
      if (!section.data_vaddr) return std::nullopt;
      value += *section.data_vaddr;
      break;
    default:  // relative to the function: not for the function itself
      return std::nullopt;
  }
  if ((encoding & kIndirect) == 0) return value;
  return section.read_pointer ? section.read_pointer(value) : std::nullopt;
}

CfiEntries ReadCfiEntries(const CfiSection& section) {
  CfiEntries entries;
  const CieMap by_offset = ReadCies(section, &entries.cies);
  const auto refuse = [&entries](CfiReason reason) {
    ++entries.reasons[static_cast<size_t>(reason)];
  };
  std::optional<uint64_t> last_cie_offset;
  uint32_t last_cie = 0;
  EntryWalk walk(section);
  for (Entry entry; walk.Next(&entry);) {
    if (entry.is_cie) continue;
    ++entries.fde_count;
    // .eh_frame: a distance back from the field. Wrapping gives no entry's place.
    const uint64_t cie_offset = section.is_debug_frame ? entry.id : entry.id_offset - entry.id;
    if (cie_offset != last_cie_offset) {
      const auto found = by_offset.find(cie_offset);
      if (found == by_offset.end()) {
        refuse(CfiReason::kCiePointer);
        continue;
      }
      last_cie_offset = cie_offset;
      last_cie = found->second;
    }
    Fde fde{.cie = last_cie};
    const CfiReason reason = ReadFde(section, entry, entries.cies[last_cie], &fde);
    if (reason == CfiReason::kNone) {
      entries.fdes.push_back(fde);
    } else {
      refuse(reason);
    }
  }
  if (walk.broken()) {
    ++entries.fde_count;
    refuse(CfiReason::kLength);
  }
  return entries;
}

}  // namespace firewatch::symbolizer
