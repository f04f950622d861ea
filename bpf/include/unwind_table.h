/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Unwind tables: from a file offset of code to the rule that finds the caller. Written by
 * symbolizer/unwind from .eh_frame, read by bpf/unwind.h in the kernel and on the host. Compiles as
 * BPF C, C and C++. Drawn in docs/formats.md, explained in docs/unwinding.md.
 *
 *   table --(offset >> 14)--> page --(binary search of 14 bits)--> row --> rule
 *
 * A page covers 16 KiB of the file, so that a row needs two bytes for its place and, because few
 * rules make up most of a table, one byte for its rule: three bytes per row, where an 8-byte row
 * costs 8 and an array map with 4-byte values costs 8, too (the kernel rounds elements up). A page
 * of ordinary code has about 170 rows: 8 steps within 6 cache lines.
 *
 * Everything lives in slabs: single values of FW_SLAB_BYTES of array maps, which stand in one
 * array of maps. Whole slabs are added when needed, so that the kernel charges about what is used,
 * and reused when tables are evicted.
 */
#pragma once

#include "bpf/include/frame.h"

/* ---- rules ------------------------------------------------------------------------------------
 */

/* Registers by their DWARF numbers (x86-64 psABI, figure 3.36): rax 0, rdx 1, rcx 2, rbx 3, rsi 4,
 * rdi 5, rbp 6, rsp 7, r8 to r15 8 to 15. The return address is column 16. */
#define FW_REGISTER_RAX 0
#define FW_REGISTER_RDX 1
#define FW_REGISTER_RCX 2
#define FW_REGISTER_RBX 3
#define FW_REGISTER_RSI 4
#define FW_REGISTER_RDI 5
#define FW_REGISTER_RBP 6
#define FW_REGISTER_RSP 7
#define FW_REGISTER_COUNT 16

/* How the canonical frame address (CFA: the stack pointer of the caller after the return) is found.
 * `base` is a register, `n` is cfa_offset, in bytes. */
enum fw_cfa_kind {
  FW_CFA_NONE = 0,   /* no rule here: between functions, or CFI that the builder refused */
  FW_CFA_ROOT = 1,   /* the return address is undefined: the proven end of the stack */
  FW_CFA_OFFSET = 2, /* base + n */
  FW_CFA_DEREF = 3,  /* *(base + n) + slot.addend of the next rule slot */
  FW_CFA_PLT = 4,    /* base + 8 + ((ip & 15) >= n ? 8 : 0): a slot of .plt, n is 10, 11 or so */
  FW_CFA_SIGNAL = 5, /* a signal frame: all registers are in the sigcontext at rsp + n (40) */
  FW_CFA_FAR = 6,    /* base + slot.offset of the next rule slot: offsets beyond 16 bits */
};

/* Where the return address is. */
enum fw_ra_kind {
  FW_RA_AT_CFA = 0,      /* *(CFA - 8), as a call leaves it */
  FW_RA_IN_REGISTER = 1, /* in register ra_register (vfork pops its own) */
  FW_RA_AT_SLOT = 2,     /* *(CFA + slot.ra_offset) of the next rule slot */
};

/* One rule, one 64-bit word; equal rules are the same bytes. Callee-saved registers: rbp and rbx,
 * the ones that callers' rules are found to need (rbx: _dl_runtime_resolve). Others keep the value
 * of the frame below.
 *   bits  0..3   base register of the CFA
 *         4..7   enum fw_cfa_kind
 *         8..11  ra_register
 *        12..13  enum fw_ra_kind
 *        14      rbp and rbx are saved relative to rbp, not to the CFA (realigned stacks)
 *        15      the rule takes two slots: the next one is a struct fw_rule_slot
 *        16..31  cfa_offset: signed bytes
 *        32..47  rbp_offset: signed bytes from CFA (or rbp, bit 14) to the saved rbp; UNCHANGED
 *        48..63  rbx_offset: the same of rbx
 */
struct fw_unwind_rule {
  fw_u8 base : 4;
  fw_u8 cfa : 4;
  fw_u8 ra_register : 4;
  fw_u8 ra : 2;
  fw_u8 saved_from_rbp : 1;
  fw_u8 two_slots : 1;
  short cfa_offset;
  short rbp_offset;
  short rbx_offset;
};
/* No register is saved that far from its CFA. */
#define FW_REGISTER_UNCHANGED ((short)-32768)

/* The second slot of a rule. */
union fw_rule_slot {
  struct {
    int addend;    /* FW_CFA_DEREF */
    int ra_offset; /* FW_RA_AT_SLOT */
  };
  struct {
    int offset; /* FW_CFA_FAR */
    int far_ra_offset;
  };
};

#ifdef __cplusplus
static_assert(sizeof(fw_unwind_rule) == 8 && sizeof(fw_rule_slot) == 8);
#else
_Static_assert(sizeof(struct fw_unwind_rule) == 8, "a rule is one word");
_Static_assert(sizeof(union fw_rule_slot) == 8, "a second slot is one word");
#endif

/* ---- pages ------------------------------------------------------------------------------------
 */

#define FW_PAGE_SHIFT 14
#define FW_PAGE_ROWS_MAX (1u << FW_PAGE_SHIFT) /* a row per byte: more cannot be */

/* A page's entry in its table's directory. rows == 0: no rule anywhere on the page.
 *
 * The page itself, at `location`, 8-byte aligned:
 *   u16 place[rows]   offset within the page, ascending; place[0] == 0: a page stands by itself
 *   u8  rule[rows]    < FW_DIRECT_RULES: number of the rule's slot in the table
 *                     else: index + FW_DIRECT_RULES into local[]
 *   (one byte of padding when rows is odd)
 *   u16 local[local_rules]   slots of rules that are rare in the table
 * With FW_PAGE_WIDE there are more than 64 rare rules: u16 rule[rows], the slot itself, no local[].
 * A row holds from its place to the next row's, the last one to the end of the page.
 */
struct fw_page_entry {
  fw_u32 location; /* in the kernel: fw_location; in a table file: 8-byte units from the pages */
  fw_u16 rows;
  fw_u8 local_rules;
  fw_u8 flags; /* FW_PAGE_* */
};
#define FW_PAGE_WIDE 1
#define FW_DIRECT_RULES 192
#define FW_LOCAL_RULES 64
/* Slots of a table's rules; slot 0 is always FW_CFA_NONE. More than fits makes rows without rule.
 */
#define FW_RULE_SLOTS_MAX 32768

/* ---- slabs and tables in the kernel ------------------------------------------------------------
 */

#define FW_SLAB_BYTES (256u << 10)
#define FW_SLABS_MAX 256 /* 64 MiB */
#define FW_TABLES_MAX 8192
#define FW_KNOWN_FILES_MAX 8192

/* Where in the slabs: slab number << 15 | offset in 8-byte units. */
typedef fw_u32 fw_location;
#define FW_LOCATION_UNITS_SHIFT 15

/* Key of the map known_files: a file as the kernel sees it. All of it must agree, so that a number
 * that is given away again (device of a tmpfs, inode) never names another file, nor a file its own
 * content of yesterday. The vdso, which has no file, is {0, FW_VDSO_INODE, 0, 0}. */
struct fw_file_key {
  fw_u64 inode_address;
  fw_u64 inode;
  fw_u32 device;     /* as struct super_block has it: major << 20 | minor */
  fw_u32 generation; /* fw_file_generation() */
};
#define FW_VDSO_INODE 0x6f736476ull

/* The inode's generation mixed with its ctime (seconds, nanoseconds). */
static inline fw_u32 fw_file_generation(fw_u32 generation, fw_u64 seconds, fw_u64 nanoseconds) {
  return generation ^ (fw_u32)(seconds * 0x9e3779b1ull) ^ (fw_u32)nanoseconds;
}

/* Value of known_files. User space adds an entry once it has learned which file the key is (from a
 * note in a sample), and deletes the least used ones when the map is full. */
struct fw_known_file {
  fw_u32 file_id; /* goes into FILE frames */
  fw_u32 table;   /* index into the map tables; FW_NO_TABLE: the file will never have one */
};
#define FW_NO_TABLE 0xffffffffu

/* Entry of the map tables (one array, mapped by user space). User space fills in the rest, then
 * stores `state`; evicting, it clears `state`, waits until no program can be reading (an update of
 * an array of maps waits for that), then reuses the slabs. The programs write last_used and uses
 * also while the table is not loaded: that is how user space learns that it is wanted back. */
struct fw_table {
  fw_u32 state; /* FW_TABLE_* */
  fw_u32 first_page;
  fw_u32 page_count;
  fw_u32 rule_slots;
  fw_location directory; /* struct fw_page_entry[page_count], in one slab */
  fw_location rules;     /* struct fw_unwind_rule[rule_slots], in one slab */
  fw_u32 last_used_s;    /* CLOCK_MONOTONIC seconds */
  fw_u32 uses;           /* samples that touched the file; wraps */
};
#define FW_TABLE_ABSENT 0
#define FW_TABLE_READY 1

#ifdef __cplusplus
static_assert(sizeof(fw_page_entry) == 8 && sizeof(fw_file_key) == 24 &&
              sizeof(fw_known_file) == 8 && sizeof(fw_table) == 32);
#else
_Static_assert(sizeof(struct fw_page_entry) == 8, "shared with user space");
_Static_assert(sizeof(struct fw_file_key) == 24, "no padding in a hash key");
_Static_assert(sizeof(struct fw_known_file) == 8, "shared with user space");
_Static_assert(sizeof(struct fw_table) == 32, "shared with user space");
#endif
