/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The walk of a user stack by tables made from .eh_frame, by frame pointers where there is none.
 * Pure: everything outside comes through hooks, so the same text compiles into the BPF program and
 * into host programs (tests under sanitizers, the comparison with libunwind).
 *
 * One step per frame: mapping of the address -> frame (file id, offset) -> rule -> caller's
 * registers. Most rules are "CFA = rsp or rbp + n, return address below the CFA, rbp and rbx saved
 * or not": that is fw_walk_step itself. The rest is in three functions that BPF keeps apart, so
 * that the verifier sees each once: fw_find_mapping, fw_search_rule, fw_rare_step.
 *
 * HOOKS. This header declares them, static; whoever includes it defines them behind (in C++ at
 * global scope, outside any namespace):
 *
 *   long fw_read_user(void *to, fw_u32 size, fw_u64 address)
 *       Copies memory of the walked process. 0, or an error when a byte of it is not readable.
 *   long fw_look_up_mapping(struct fw_walk *walk, fw_u64 address, struct fw_mapping *to)
 *       The mapping of a user address: all of `to`, as described at the struct, and 0. An error
 *       when it could not be found out: the walk then trusts the address and asks again next time.
 *   const struct fw_table *fw_table_at(fw_u32 index)     entry of `tables`, or NULL
 *   const fw_u8 *fw_slab_at(fw_u32 number)               FW_SLAB_BYTES bytes, or NULL
 *       Called once for a mapping; what a walk meets again it takes from walk.mappings.
 *   struct fw_rule_cache *fw_rule_cache_here(void)       zeroed at first, kept between walks; used
 *       by one walk at a time. NULL: no cache.
 *
 * and may define, before the include, FW_USE_TABLES (an expression; 0: frame pointers only),
 * FW_FIND_MAPPING, FW_SEARCH_RULE, FW_RARE_STEP (how those three are called) and
 * FW_MEET_AGAIN(walk, mapping), a statement for each mapping that comes out of walk.mappings.
 *
 * A walk:  fill walk.ip and walk.registers; fw_walk_begin(); fw_walk_step() until it returns 1;
 * frames[first .. walk.next) are the frames, leaf first, walk.end says how it ended. The walk ends
 * by itself, at the latest at `limit` frames. After begin, `walk.mapping_count` is 0: nothing of an
 * earlier walk is kept but the rule cache. Whoever knows that the mappings of the walk before are
 * still true sets it back to what it was then.
 *
 * Memory is not read word by word: each read is a helper call and, in a sample that comes 99 times
 * a second, a chain of cache misses where each address is known only after the miss before. The
 * stack is copied by the kilobyte (the misses overlap, the prefetcher helps), and several frames
 * are followed inside one copy.
 */
#pragma once

#include "bpf/include/frame.h"
#include "bpf/include/unwind_table.h"

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif
#ifndef NULL
#define NULL ((void*)0)
#endif
#ifndef FW_USE_TABLES
#define FW_USE_TABLES 1
#endif
#ifndef FW_FIND_MAPPING
#define FW_FIND_MAPPING(walk) fw_find_mapping(walk)
#endif
#ifndef FW_SEARCH_RULE
#define FW_SEARCH_RULE(walk) fw_search_rule(walk)
#endif
#ifndef FW_MEET_AGAIN
#define FW_MEET_AGAIN(walk, mapping) (void)(mapping)
#endif
#ifndef FW_RARE_STEP
#define FW_RARE_STEP(walk) fw_rare_step(walk)
#endif

/* ---- state ------------------------------------------------------------------------------------
 */

/* A power of two. 256 and 512 were slower, see bpf/README.md. */
#define FW_CHUNK_BYTES 1024
#define FW_READ_PAGE_BYTES 4096
/* Below: the zero page that no process maps. Above: never user memory, with 5-level paging, too. */
#define FW_USER_ADDRESS_MIN 4096ull
#define FW_USER_ADDRESS_END (1ull << 56)

enum fw_mapping_state {
  FW_MAPPING_NONE = 0,      /* nothing there, or nothing executable */
  FW_MAPPING_FILE = 1,      /* a file that has an id: FILE frames, and maybe a table */
  FW_MAPPING_NEW_FILE = 2,  /* a file that is not known yet: USER frames */
  FW_MAPPING_ANONYMOUS = 3, /* executable, without a file: JIT code */
  FW_MAPPING_UNREADABLE = 4 /* could not be found out */
};

struct fw_mapping {
  fw_u64 start;
  fw_u64 end;
  fw_u64 file_offset; /* of start */
  fw_u32 file_id;     /* state FILE: below 2^20 */
  fw_u32 table;       /* state FILE: index for fw_table_at, or FW_NO_TABLE */
  fw_u32 state;       /* enum fw_mapping_state */
  fw_u32 stamp;       /* the includer's */
  fw_u64 bias;        /* set by the walk: address + bias is the FILE frame */
};

/* Slot 0 stands for "no mapping" and never matches; the others are those that were met. */
#define FW_WALK_MAPPINGS 16

/* rt_sigframe of x86-64: ucontext with the sigcontext at 40, in this order (asm/sigcontext.h):
 * r8..r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip. */
#define FW_UCONTEXT_REGISTERS 40
#define FW_SIGCONTEXT_WORDS 17

/* Direct-mapped: FILE frame -> its rule. Only rules of one slot, never the absence of a rule. Never
 * stale, because a file id never changes its content. 32 KiB, the most that a per-CPU value may
 * have. */
#define FW_RULE_CACHE_BITS 11
struct fw_cached_rule {
  fw_u64 frame; /* 0: empty */
  fw_u64 rule;
};
struct fw_rule_cache {
  struct fw_cached_rule entries[1 << FW_RULE_CACHE_BITS];
};

/* State of one walk. In BPF it lives in a map value: parts of the walk are functions of their own,
 * without arguments, and the chunk is larger than a BPF stack. */
struct fw_walk {
  fw_u64 ip;
  fw_u64 registers[FW_REGISTER_COUNT]; /* by DWARF number */
  /* 1: ip is the instruction that runs next (the leaf, or what a signal interrupted). 0: ip is a
   * return address, so its call is at ip - 1. */
  fw_u64 interrupted;
  fw_u64 chunk_start;
  fw_u32 chunk_words_end;  /* offsets below this begin a word that is in the chunk; 0: no chunk */
  fw_u32 next;             /* index of the next frame in the output */
  fw_u32 limit;            /* index that must not be written */
  fw_u32 end;              /* enum fw_stack_end; NONE while walking */
  fw_u32 current;          /* slot of the mapping that was last looked up */
  fw_u32 mapping_count;    /* slots used: 1 .. mapping_count */
  fw_u32 by_frame_pointer; /* how the present frame was found */
  fw_u32 missing;          /* enum fw_stack_end: why there is no rule */
  fw_u64 address;          /* in: what fw_find_mapping and fw_search_rule look for */
  fw_u64 rule;             /* out of fw_search_rule, in of fw_rare_step; 0: none */
  fw_u64 slot;             /* its second slot */
  fw_u64 lowest;           /* of all stack pointers so far */
  fw_u64 context[FW_SIGCONTEXT_WORDS];
  struct fw_mapping mappings[FW_WALK_MAPPINGS];
  /* The tail lets the verifier see that a word that begins at any masked offset fits. */
  fw_u8 chunk[FW_CHUNK_BYTES + 8];
};

/* Output of up to FW_WALK_FRAMES frames; `next` and `limit` are indices into it. */
#define FW_WALK_FRAMES (FW_MAX_KERNEL_FRAMES + FW_MAX_USER_FRAMES)

static long fw_read_user(void* to, fw_u32 size, fw_u64 address);
static long fw_look_up_mapping(struct fw_walk* walk, fw_u64 address, struct fw_mapping* to);
static const struct fw_table* fw_table_at(fw_u32 index);
static const fw_u8* fw_slab_at(fw_u32 number);
static struct fw_rule_cache* fw_rule_cache_here(void);

/* ---- small parts ------------------------------------------------------------------------------
 */

static __always_inline long fw_end(struct fw_walk* walk, fw_u32 end) {
  walk->end = end;
  return 1;
}

static __always_inline int fw_is_user_address(fw_u64 address) {
  return address - FW_USER_ADDRESS_MIN < FW_USER_ADDRESS_END - FW_USER_ADDRESS_MIN;
}

/* The fields of a rule (unwind_table.h) out of its word. */
static __always_inline fw_u32 fw_rule_base(fw_u64 rule) { return rule & 15; }
static __always_inline fw_u32 fw_rule_cfa(fw_u64 rule) { return (rule >> 4) & 15; }
static __always_inline fw_u32 fw_rule_ra_register(fw_u64 rule) { return (rule >> 8) & 15; }
static __always_inline fw_u32 fw_rule_ra(fw_u64 rule) { return (rule >> 12) & 3; }
static __always_inline int fw_rule_saved_from_rbp(fw_u64 rule) { return (rule >> 14) & 1; }
static __always_inline int fw_rule_two_slots(fw_u64 rule) { return (rule >> 15) & 1; }
static __always_inline fw_u64 fw_rule_cfa_offset(fw_u64 rule) {
  return (fw_u64)((long long)(rule << 32) >> 48);
}
static __always_inline fw_u64 fw_rule_rbp_offset(fw_u64 rule) {
  return (fw_u64)((long long)(rule << 16) >> 48);
}
static __always_inline fw_u64 fw_rule_rbx_offset(fw_u64 rule) {
  return (fw_u64)((long long)rule >> 48);
}
#define FW_OFFSET_UNCHANGED ((fw_u64)(long long)FW_REGISTER_UNCHANGED)
/* base + n, return address at the CFA, no second slot, saved from the CFA. */
#define FW_PLAIN_RULE_MASK 0xf0f0ull
#define FW_PLAIN_RULE ((fw_u64)FW_CFA_OFFSET << 4)

/* Copies from `address` up to the chunk size or to the end of the page: a page is there or is not,
 * so a read never fails because of what lies behind the stack. */
static __always_inline long fw_fill_chunk(struct fw_walk* walk, fw_u64 address) {
  fw_u64 size = FW_READ_PAGE_BYTES - (address & (FW_READ_PAGE_BYTES - 1));
  if (size > FW_CHUNK_BYTES) size = FW_CHUNK_BYTES;
  if (size < 8) size = 8; /* the word straddles two pages */
  walk->chunk_start = address;
  walk->chunk_words_end = 0;
  const long error = fw_read_user(walk->chunk, (fw_u32)size, address);
  if (error == 0) walk->chunk_words_end = (fw_u32)size - 7;
  return error;
}

/* Words of one frame are read from the lowest upwards: then one copy has them all. */
static __always_inline long fw_read_word(struct fw_walk* walk, fw_u64 address, fw_u64* to) {
  fw_u64 offset = address - walk->chunk_start;
  /* Unsigned: an address below the chunk is far above its end. */
  if (offset >= walk->chunk_words_end) {
    if (fw_fill_chunk(walk, address) != 0) return 1;
    offset = 0;
  }
  *to = *(const fw_u64*)(const void*)(walk->chunk + (offset & (FW_CHUNK_BYTES - 1)));
  return 0;
}

/* ---- mapping ----------------------------------------------------------------------------------
 */

/* Makes walk->current the mapping of walk->address: of the cache, else of the hook. */
static __always_inline long fw_find_mapping(struct fw_walk* walk) {
  const fw_u64 address = walk->address;
  for (fw_u32 i = 1; i < FW_WALK_MAPPINGS; i++) {
    if (i > walk->mapping_count) break;
    struct fw_mapping* cached = &walk->mappings[i];
    if (address - cached->start < cached->end - cached->start) {
      walk->current = i;
      FW_MEET_AGAIN(walk, cached);
      return 0;
    }
  }
  struct fw_mapping* none = &walk->mappings[0];
  walk->current = 0;
  none->start = none->end = 0;
  if (!fw_is_user_address(address)) {
    none->state = FW_MAPPING_NONE;
    return 0;
  }
  /* When all are used, the second half goes: what a stack begins in is most often met again.
   * (Volatile and without a branch: out of the loop the verifier comes with 15 different counts,
   * and would check all that follows for each.) */
  fw_u32 slot = *(const volatile fw_u32*)&walk->mapping_count + 1;
  slot = (slot - slot / FW_WALK_MAPPINGS * (FW_WALK_MAPPINGS / 2)) & (FW_WALK_MAPPINGS - 1);
  struct fw_mapping* found = &walk->mappings[slot];
  walk->mapping_count = slot - 1; /* until it is whole */
  if (fw_look_up_mapping(walk, address, found) != 0) {
    none->state = FW_MAPPING_UNREADABLE;
    return 0;
  }
  if (found->state == FW_MAPPING_NONE) {
    none->state = FW_MAPPING_NONE;
    return 0;
  }
  if (found->file_offset + (found->end - found->start) > 1ull << FW_FRAME_FILE_OFFSET_BITS &&
      found->state == FW_MAPPING_FILE) {
    found->state = FW_MAPPING_NEW_FILE; /* the offset does not fit into a frame */
  }
  found->bias = (FW_FRAME_FILE << FW_FRAME_KIND_SHIFT) +
                ((fw_u64)found->file_id << FW_FRAME_FILE_OFFSET_BITS) + found->file_offset -
                found->start;
  walk->mapping_count = slot;
  walk->current = slot;
  return 0;
}

static __always_inline struct fw_mapping* fw_current_mapping(struct fw_walk* walk) {
  return &walk->mappings[walk->current & (FW_WALK_MAPPINGS - 1)];
}

/* ---- rule -------------------------------------------------------------------------------------
 */

static __always_inline fw_u32 fw_location_slab(fw_location location) {
  return location >> FW_LOCATION_UNITS_SHIFT;
}
static __always_inline fw_u32 fw_location_byte(fw_location location) {
  return (location & ((1u << FW_LOCATION_UNITS_SHIFT) - 1)) * 8;
}

/* Reads from a slab never leave it, whatever the offset: user space has checked the table, the mask
 * is for the verifier. */
static __always_inline fw_u64 fw_slab_u64(const fw_u8* slab, fw_u32 byte) {
  return *(const fw_u64*)(const void*)(slab + (byte & (FW_SLAB_BYTES - 8)));
}
static __always_inline fw_u32 fw_slab_u16(const fw_u8* slab, fw_u32 byte) {
  return *(const fw_u16*)(const void*)(slab + (byte & (FW_SLAB_BYTES - 2)));
}
static __always_inline fw_u32 fw_slab_u8(const fw_u8* slab, fw_u32 byte) {
  return slab[byte & (FW_SLAB_BYTES - 1)];
}

/* The last row whose place is not above `place`; rows > 0. A step has no branch that depends on the
 * data: neither the processor nor the verifier has to guess. */
static __always_inline fw_u32 fw_search_page(const fw_u8* slab, fw_u32 places, fw_u32 rows,
                                             fw_u32 place) {
  fw_u64 first = 0;
  fw_u64 count = rows;
  for (int step = 0; step < FW_PAGE_SHIFT; step++) {
    if (count <= 1) break;
    const fw_u64 half = count >> 1;
    const fw_u64 middle = fw_slab_u16(slab, (fw_u32)(places + (first + half) * 2));
    fw_u64 difference = middle - place - 1; /* negative: not above */
#ifdef __bpf__
    __asm__ volatile("" : "+r"(difference)); /* clang would make a branch of it */
#endif
    const fw_u64 not_above = (fw_u64)((long long)difference >> 63);
    first += half & not_above;
    count -= half;
  }
  return (fw_u32)first;
}

/* Slot of the rule of that row. */
static __always_inline fw_u32 fw_rule_of_row(const fw_u8* slab, fw_u32 page, fw_u32 rows,
                                             fw_u32 flags, fw_u32 row) {
  const fw_u32 rules = page + rows * 2;
  if (flags & FW_PAGE_WIDE) return fw_slab_u16(slab, rules + row * 2);
  const fw_u32 number = fw_slab_u8(slab, rules + row);
  if (number < FW_DIRECT_RULES) return number;
  const fw_u32 local = rules + rows + (rows & 1);
  return fw_slab_u16(slab, local + (number - FW_DIRECT_RULES) * 2);
}

static __always_inline long fw_no_rule(struct fw_walk* walk, fw_u32 why) {
  walk->rule = 0;
  walk->missing = why;
  return 0;
}

/* The rule of walk->address, which lies in walk->current: walk->rule and walk->slot. */
static __always_inline long fw_search_rule(struct fw_walk* walk) {
  const struct fw_mapping* mapping = fw_current_mapping(walk);
  const fw_u64 address = walk->address;
  const struct fw_table* table = fw_table_at(mapping->table);
  if (!table || table->state != FW_TABLE_READY) return fw_no_rule(walk, FW_STACK_END_NO_TABLE);

  const fw_u64 offset = address - mapping->start + mapping->file_offset;
  const fw_u64 page_number = (offset >> FW_PAGE_SHIFT) - table->first_page;
  if (page_number >= table->page_count) return fw_no_rule(walk, FW_STACK_END_NO_RULE);
  const fw_location rules = table->rules;
  const fw_u8* slab = fw_slab_at(fw_location_slab(table->directory));
  if (!slab) return fw_no_rule(walk, FW_STACK_END_NO_TABLE);
  /* struct fw_page_entry: location, rows, local_rules, flags. */
  const fw_u64 entry =
      fw_slab_u64(slab, fw_location_byte(table->directory) + (fw_u32)page_number * 8);
  const fw_u32 rows = (entry >> 32) & 0xffff;
  if (rows == 0) return fw_no_rule(walk, FW_STACK_END_NO_RULE);

  slab = fw_slab_at(fw_location_slab((fw_location)entry));
  if (!slab) return fw_no_rule(walk, FW_STACK_END_NO_TABLE);
  const fw_u32 page = fw_location_byte((fw_location)entry);
  const fw_u32 place = (fw_u32)offset & ((1u << FW_PAGE_SHIFT) - 1);
  const fw_u32 row = fw_search_page(slab, page, rows, place);
  const fw_u32 number = fw_rule_of_row(slab, page, rows, (fw_u32)(entry >> 56), row);

  slab = fw_slab_at(fw_location_slab(rules));
  if (!slab) return fw_no_rule(walk, FW_STACK_END_NO_TABLE);
  const fw_u32 at = fw_location_byte(rules) + number * 8;
  const fw_u64 rule = fw_slab_u64(slab, at);
  if (fw_rule_cfa(rule) == FW_CFA_NONE) return fw_no_rule(walk, FW_STACK_END_NO_RULE);
  walk->rule = rule;
  if (fw_rule_two_slots(rule)) {
    walk->slot = fw_slab_u64(slab, at + 8);
    return 0;
  }
  walk->slot = 0;
  struct fw_rule_cache* cache = fw_rule_cache_here();
  if (cache) {
    const fw_u64 frame = address + mapping->bias;
    struct fw_cached_rule* cached =
        &cache->entries[(frame * 0x9e3779b97f4a7c15ull) >> (64 - FW_RULE_CACHE_BITS)];
    cached->frame = frame;
    cached->rule = rule;
  }
  return 0;
}

/* ---- to the caller ----------------------------------------------------------------------------
 */

/* rbx and rbp of the caller. rbx first: compilers save it below rbp. */
static __always_inline long fw_restore_saved(struct fw_walk* walk, fw_u64 rule, fw_u64 from) {
  const fw_u64 rbx_offset = fw_rule_rbx_offset(rule);
  const fw_u64 rbp_offset = fw_rule_rbp_offset(rule);
  fw_u64 value;
  if (rbx_offset != FW_OFFSET_UNCHANGED) {
    if (fw_read_word(walk, from + rbx_offset, &value) != 0) return 1;
    walk->registers[FW_REGISTER_RBX] = value;
  }
  if (rbp_offset != FW_OFFSET_UNCHANGED) {
    if (fw_read_word(walk, from + rbp_offset, &value) != 0) return 1;
    walk->registers[FW_REGISTER_RBP] = value;
  }
  return 0;
}

/* Makes the caller the present frame. */
static __always_inline long fw_return_to(struct fw_walk* walk, fw_u64 ip, fw_u64 sp) {
  if (!fw_is_user_address(ip)) return fw_end(walk, FW_STACK_END_NO_MAPPING);
  walk->ip = ip;
  walk->registers[FW_REGISTER_RSP] = sp;
  walk->interrupted = 0;
  walk->by_frame_pointer = 0;
  return 0;
}

/* All registers from the sigcontext. The interrupted code may run on any stack, but what leads back
 * into walked memory is a circle. */
static __always_inline long fw_signal_step(struct fw_walk* walk, fw_u64 sigcontext) {
  if (fw_read_user(walk->context, sizeof(walk->context), sigcontext) != 0) {
    return fw_end(walk, FW_STACK_END_BAD_READ);
  }
  const fw_u64* context = walk->context;
  fw_u64* registers = walk->registers;
  const fw_u64 sp = context[15];
  if (sp <= registers[FW_REGISTER_RSP]) {
    if (sp >= walk->lowest) return fw_end(walk, FW_STACK_END_NOT_ADVANCING);
    walk->lowest = sp;
  }
  for (int i = 0; i < 8; i++) registers[8 + i] = context[i];
  registers[FW_REGISTER_RDI] = context[8];
  registers[FW_REGISTER_RSI] = context[9];
  registers[FW_REGISTER_RBP] = context[10];
  registers[FW_REGISTER_RBX] = context[11];
  registers[FW_REGISTER_RDX] = context[12];
  registers[FW_REGISTER_RAX] = context[13];
  registers[FW_REGISTER_RCX] = context[14];
  if (fw_return_to(walk, context[16], sp)) return 1;
  walk->interrupted = 1;
  return 0;
}

/* mov $15, %rax (7 bytes) or %eax (5); syscall: libcs whose restorer has no CFI. */
static __always_inline int fw_is_sigreturn(struct fw_walk* walk) {
  fw_u64 code[2] = {0, 0};
  if (fw_read_user(code, 9, walk->ip) != 0) return 0;
  return (code[0] == 0x0f0000000fc0c748ull && (code[1] & 0xff) == 0x05) ||
         (code[0] & 0x00ffffffffffffffull) == 0x00050f0000000fb8ull;
}

/* How a walk ends that finds no frame pointer to follow: a chain of them has come to its end, or
 * there was none, and then the missing rule is the reason. */
static __always_inline long fw_end_of_chain(struct fw_walk* walk, fw_u32 end) {
  return fw_end(walk, walk->by_frame_pointer || !(FW_USE_TABLES) ? end : walk->missing);
}

/* A frame record is two words: [rbp] is the caller's rbp, [rbp + 8] the return address. */
static __always_inline long fw_frame_pointer_step(struct fw_walk* walk) {
  const fw_u64 fp = walk->registers[FW_REGISTER_RBP];
  const fw_u64 sp = walk->registers[FW_REGISTER_RSP];
  /* Code built without frame pointers keeps anything in that register, most often a small number or
   * a heap address below the stack. A caller's record stands above its callee's on one stack. The
   * chain may lead to another stack (a signal handler's, a coroutine's) that lies lower, but then
   * below everything seen: what leads back into walked memory is a circle. */
  const int switches = walk->by_frame_pointer && fp < walk->lowest;
  if ((fp & 7) != 0 || !fw_is_user_address(fp) || (fp < sp && !switches)) {
    return fw_end_of_chain(walk, FW_STACK_END_FRAME_POINTER);
  }
  fw_u64 next_fp, ip;
  if (fw_read_word(walk, fp, &next_fp) != 0 || fw_read_word(walk, fp + 8, &ip) != 0) {
    return fw_end_of_chain(walk, FW_STACK_END_BAD_READ);
  }
  if (!fw_is_user_address(ip)) return fw_end_of_chain(walk, FW_STACK_END_FRAME_POINTER);
  walk->address = ip - 1;
  FW_FIND_MAPPING(walk);
  if (fw_current_mapping(walk)->state == FW_MAPPING_NONE) {
    return fw_end_of_chain(walk, FW_STACK_END_FRAME_POINTER);
  }
  if (fp < walk->lowest) walk->lowest = fp;
  walk->ip = ip;
  walk->registers[FW_REGISTER_RSP] = fp + 16;
  walk->registers[FW_REGISTER_RBP] = next_fp;
  walk->interrupted = 0;
  walk->by_frame_pointer = 1;
  return 0;
}

static __always_inline long fw_step_without_rule(struct fw_walk* walk) {
  const fw_u32 state = fw_current_mapping(walk)->state;
  /* Anonymous code is not looked at: in a stack of JIT frames that would be a miss each. */
  if (FW_USE_TABLES && (state == FW_MAPPING_FILE || state == FW_MAPPING_NEW_FILE) &&
      fw_is_sigreturn(walk)) {
    return fw_signal_step(walk, walk->registers[FW_REGISTER_RSP] + FW_UCONTEXT_REGISTERS);
  }
  return fw_frame_pointer_step(walk);
}

static __always_inline long fw_cfa_of(struct fw_walk* walk, fw_u64 rule, fw_u64* cfa) {
  const fw_u64 base = walk->registers[fw_rule_base(rule)];
  const fw_u64 offset = fw_rule_cfa_offset(rule);
  const fw_u64 slot_low = (fw_u64)(long long)(int)walk->slot; /* addend or offset */
  switch (fw_rule_cfa(rule)) {
    case FW_CFA_DEREF: {
      fw_u64 word;
      if (fw_read_word(walk, base + offset, &word) != 0) return fw_end(walk, FW_STACK_END_BAD_READ);
      *cfa = word + slot_low;
      return 0;
    }
    case FW_CFA_PLT:
      *cfa = base + 8 + ((walk->ip & 15) >= offset ? 8 : 0);
      return 0;
    case FW_CFA_FAR:
      *cfa = base + slot_low;
      return 0;
    default:
      *cfa = base + offset;
      return 0;
  }
}

/* Every rule that is not plain, and no rule (walk->rule 0, walk->missing says why). */
static __always_inline long fw_rare_step(struct fw_walk* walk) {
  const fw_u64 rule = walk->rule;
  const fw_u32 kind = fw_rule_cfa(rule);
  if (kind == FW_CFA_NONE || kind > FW_CFA_FAR) return fw_step_without_rule(walk);
  if (kind == FW_CFA_ROOT) return fw_end(walk, FW_STACK_END_ROOT);
  if (kind == FW_CFA_SIGNAL) {
    return fw_signal_step(walk, walk->registers[fw_rule_base(rule)] + fw_rule_cfa_offset(rule));
  }
  fw_u64 cfa;
  if (fw_cfa_of(walk, rule, &cfa)) return 1;
  const fw_u64 sp = walk->registers[FW_REGISTER_RSP];
  const fw_u32 ra_kind = fw_rule_ra(rule);
  /* A leaf that has popped its return address stands where its caller will. Only a leaf: elsewhere
   * that register is not the callee's, and a walk could stay in place. */
  const int popped = ra_kind == FW_RA_IN_REGISTER && walk->interrupted;
  if (cfa < sp || (cfa == sp && !popped)) return fw_end(walk, FW_STACK_END_NOT_ADVANCING);
  fw_u64 ip = walk->registers[fw_rule_ra_register(rule)];
  const fw_u64 from = fw_rule_saved_from_rbp(rule) ? walk->registers[FW_REGISTER_RBP] : cfa;
  if (fw_restore_saved(walk, rule, from) != 0) return fw_end(walk, FW_STACK_END_BAD_READ);
  if (ra_kind != FW_RA_IN_REGISTER) {
    const fw_u64 ra_offset =
        ra_kind == FW_RA_AT_SLOT ? (fw_u64)((long long)walk->slot >> 32) : (fw_u64)-8;
    if (fw_read_word(walk, cfa + ra_offset, &ip) != 0) return fw_end(walk, FW_STACK_END_BAD_READ);
  }
  return fw_return_to(walk, ip, cfa);
}

/* ---- the walk ---------------------------------------------------------------------------------
 */

/* walk->ip and walk->registers are the caller's to fill. */
static __always_inline void fw_walk_begin(struct fw_walk* walk, fw_u32 first, fw_u32 limit) {
  walk->interrupted = 1;
  walk->chunk_words_end = 0;
  walk->chunk_start = 0;
  walk->next = first;
  walk->limit = first + limit;
  walk->end = FW_STACK_END_NONE;
  walk->current = 0;
  walk->mapping_count = 0;
  walk->by_frame_pointer = 0;
  walk->lowest = walk->registers[FW_REGISTER_RSP];
  walk->mappings[0].start = walk->mappings[0].end = 0;
}

/* Writes the present frame and finds its caller. 1 ends the walk. `cache` may be NULL. */
static __always_inline long fw_walk_step(struct fw_walk* walk, fw_u64* frames,
                                         struct fw_rule_cache* cache) {
  const fw_u64 address = walk->ip - 1 + walk->interrupted;
  const struct fw_mapping* mapping = fw_current_mapping(walk);
  walk->address = address;
  if (address - mapping->start >= mapping->end - mapping->start) {
    FW_FIND_MAPPING(walk);
    mapping = fw_current_mapping(walk);
    /* Not a frame: the walk went astray, or came to an end that no table proves. */
    if (mapping->state == FW_MAPPING_NONE && !walk->interrupted) {
      return fw_end(walk, FW_STACK_END_NO_MAPPING);
    }
  }
  const fw_u32 next = walk->next;
  if (next >= walk->limit || next >= FW_WALK_FRAMES) return fw_end(walk, FW_STACK_END_TRUNCATED);
  walk->next = next + 1;
  if (mapping->state != FW_MAPPING_FILE) {
    /* What was interrupted is what a register or a signal frame says: anything. The top bits are
     * the kind of a frame. */
    frames[next] = address & FW_FRAME_PAYLOAD_MASK;
    fw_no_rule(walk, mapping->state == FW_MAPPING_NEW_FILE ? FW_STACK_END_NO_TABLE
                                                           : FW_STACK_END_NO_MAPPING);
    return FW_RARE_STEP(walk);
  }
  const fw_u64 frame = address + mapping->bias;
  frames[next] = frame;
  if (!(FW_USE_TABLES)) {
    fw_no_rule(walk, FW_STACK_END_NO_TABLE);
    return FW_RARE_STEP(walk);
  }
  fw_u64 rule = 0;
  if (cache) {
    const struct fw_cached_rule* cached =
        &cache->entries[(frame * 0x9e3779b97f4a7c15ull) >> (64 - FW_RULE_CACHE_BITS)];
    if (cached->frame == frame) {
      rule = cached->rule;
      walk->rule = rule;
      walk->slot = 0;
    }
  }
  if (rule == 0) {
    FW_SEARCH_RULE(walk);
    rule = walk->rule;
  }
  if ((rule & FW_PLAIN_RULE_MASK) != FW_PLAIN_RULE) return FW_RARE_STEP(walk);

  const fw_u64 cfa = walk->registers[fw_rule_base(rule)] + fw_rule_cfa_offset(rule);
  if (cfa <= walk->registers[FW_REGISTER_RSP]) return fw_end(walk, FW_STACK_END_NOT_ADVANCING);
  fw_u64 ip;
  if (fw_restore_saved(walk, rule, cfa) != 0 || fw_read_word(walk, cfa - 8, &ip) != 0) {
    return fw_end(walk, FW_STACK_END_BAD_READ);
  }
  return fw_return_to(walk, ip, cfa);
}
