// SPDX-License-Identifier: Apache-2.0
// Entries of .eh_frame and .debug_frame: which function, which instructions. (LSB core 5.0, part
// 10.6; DWARF 5, section 6.4.) Foreign bytes: every length is compared with what is there, and the
// work is linear in the section, whatever it says.
//
// 1. One walk over the entries reads the CIEs. Only what stands at an entry's place is a CIE: an
//    FDE that points elsewhere, at another FDE or at itself is refused. So overlapping "CIEs"
//    cannot multiply the work, and nothing is cyclic.
// 2. A second walk reads the FDEs: in .debug_frame a CIE may stand behind its FDEs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace firewatch::symbolizer {

// Why an FDE has no rows. X(constant, metric label). Those up to kLimit count as refused; the
// functions of the others need none.
#define FIREWATCH_CFI_REASONS(X)                                                                 \
  X(kNone, "")                                                                                   \
  X(kLength, "entry_past_section") /* the rest of the section cannot be walked: counts as one */ \
  X(kCiePointer, "no_such_cie")                                                                  \
  X(kCieVersion, "cie_version")                                                                  \
  X(kCieAugmentation, "cie_augmentation")                                                        \
  X(kCieAddressSize, "cie_address_size")                                                         \
  X(kCieReturnColumn, "cie_return_column") /* not 16 */                                          \
  X(kCieTruncated, "cie_truncated")                                                              \
  X(kPointer, "pointer_encoding")                                                                \
  X(kFdeTruncated, "fde_truncated")                                                              \
  X(kRange, "address_range") /* wraps around */                                                  \
  X(kInstruction, "unknown_instruction")                                                         \
  X(kOperand, "instruction_truncated")                                                           \
  X(kStateStack, "state_stack") /* restore without remember, or more than 256 deep */            \
  X(kLocation, "location_backwards")                                                             \
  X(kExpressionOnly,                                                                             \
    "offset_without_register") /* def_cfa_offset while the CFA is an expression */               \
  X(kLimit, "limit")           /* more rows than we keep */                                      \
  X(kEmpty, "empty")           /* covers no byte */                                              \
  X(kNoCode, "no_code")        /* not in an executable segment: dropped by the linker */         \
  X(kCovered, "covered")       /* another FDE is there */

enum class CfiReason : uint8_t {
#define FIREWATCH_CFI_REASON_ENUM(constant, label) constant,
  FIREWATCH_CFI_REASONS(FIREWATCH_CFI_REASON_ENUM)
#undef FIREWATCH_CFI_REASON_ENUM
      kCount
};
inline constexpr size_t kCfiReasonCount = static_cast<size_t>(CfiReason::kCount);
std::string_view CfiReasonLabel(CfiReason reason);
inline bool IsRefusal(CfiReason reason) {
  return reason != CfiReason::kNone && reason <= CfiReason::kLimit;
}

struct CfiSection {
  std::span<const std::byte> bytes;
  uint64_t vaddr = 0;
  bool is_debug_frame = false;  // .debug_frame: other CIE ids and pointers, absolute addresses
  bool ends_at_zero = false;    // the size is a guess: a zero length ends it
  // Where DW_EH_PE_textrel and datarel count from; absent: such pointers are refused.
  std::optional<uint64_t> text_vaddr;
  std::optional<uint64_t> data_vaddr;
  // The 8 bytes at an address of the file, for DW_EH_PE_indirect. Null: refused.
  std::function<std::optional<uint64_t>(uint64_t vaddr)> read_pointer;
};

struct Cie {
  CfiReason reason = CfiReason::kNone;  // kNone: sound
  bool signal_frame = false;            // augmentation S
  bool has_augmentation_data = false;   // z
  uint8_t pointer_encoding = 0;         // DW_EH_PE_absptr
  uint64_t code_alignment = 1;
  int64_t data_alignment = 1;
  std::span<const std::byte> instructions;
};

struct Fde {
  uint64_t start = 0;  // virtual address of the function's first byte
  uint64_t size = 0;   // not 0; start + size does not wrap
  uint32_t cie = 0;    // in CfiEntries::cies
  std::span<const std::byte> instructions;
};

// Points into the section's bytes.
struct CfiEntries {
  std::vector<Cie> cies;
  std::vector<Fde> fdes;   // in the order of the section
  uint64_t fde_count = 0;  // with those that are not in `fdes`
  uint64_t reasons[kCfiReasonCount] = {};
};

// More than 4 GiB: the rest is refused as kLength.
CfiEntries ReadCfiEntries(const CfiSection& section);

class ByteCursor;
// A pointer as DW_EH_PE_* `encoding` says, `cursor` standing at `vaddr` of the section. Nothing
// when the encoding is unknown, has no base, or the bytes end.
std::optional<uint64_t> ReadEncodedPointer(const CfiSection& section, uint8_t encoding,
                                           uint64_t vaddr, ByteCursor& cursor);

}  // namespace firewatch::symbolizer
