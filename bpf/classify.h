/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* From the fields of a packet to the rules that match it, by the image of bpf/include/firewall.h.
 * Pure: compiles into the BPF program and into host programs.
 *
 * HOOK, defined by whoever includes this (in C++ at global scope):
 *   const fw_u8 *fw_slab_at(const struct fw_view *view, fw_u32 slab)   FW_IMAGE_SLAB_BYTES bytes
 *                                       of slab 1, 2, …, or NULL
 *
 * Every place that comes out of the image is masked to its slab before it is read: a broken image
 * gives a wrong answer, or FW_BROKEN, and never a wrong read.
 */
#pragma once

#include "bpf/include/firewall.h"

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif
#ifndef NULL
#define NULL ((void*)0)
#endif

/* An image: its first slab, which is looked up once, and what else the hook needs. */
struct fw_view {
  void* image;
  const fw_u8* slab0;
};

static __always_inline const fw_u8* fw_slab_at(const struct fw_view* view, fw_u32 slab);

/* The state of one classification. In memory that the verifier does not follow (a map's value), and
 * volatile where it is read back: the verifier then looks once at what comes behind a search, not
 * once for each way through it (in registers: 440,000 instructions instead of 75,000). */
struct fw_rules {
  fw_u64 word[FW_RULE_WORDS_MAX]; /* may still match: bit r % 64 of word r / 64 for rule r */
  volatile fw_u64 begin, end;     /* of a search in progress */
  volatile fw_u32 vector;
  fw_u32 unused;
};

/* Enough for any tail: 2^24 starts. */
#define FW_LOW_STEPS 24
/* Instead of a vector: the image has no such slab. */
#define FW_BROKEN 0xffffffffu

/* The compiler may not compute with a pointer before it is known not to be NULL: the verifier
 * refuses. */
#ifdef __bpf__
#define FW_KEEP_ORDER(pointer) asm volatile("" : "+r"(pointer))
#else
#define FW_KEEP_ORDER(pointer) (void)0
#endif

static __always_inline const fw_u8* fw_view_slab(const struct fw_view* view, fw_u64 byte) {
  fw_u32 slab = (fw_u32)(byte >> FW_IMAGE_SLAB_SHIFT);
  return slab ? fw_slab_at(view, slab) : view->slab0;
}

/* `size` bytes at `byte`, which is a multiple of it; a power of two. */
static __always_inline const fw_u8* fw_image_at(const struct fw_view* view, fw_u64 byte,
                                                fw_u32 size) {
  const fw_u8* slab = fw_view_slab(view, byte);
  if (!slab) return NULL;
  FW_KEEP_ORDER(slab);
  return slab + (byte & (FW_IMAGE_SLAB_BYTES - size));
}

static __always_inline fw_u32 fw_image_u32(const struct fw_view* view, fw_image_place place,
                                           fw_u64 index) {
  const fw_u8* at = fw_image_at(view, (fw_u64)place * 8 + index * 4, 4);
  return at ? *(const fw_u32*)at : FW_BROKEN;
}

/* BPF has no instruction for it. */
static __always_inline fw_u32 fw_count_bits(fw_u32 word) {
  word -= (word >> 1) & 0x55555555u;
  word = (word & 0x33333333u) + ((word >> 2) & 0x33333333u);
  return (((word + (word >> 4)) & 0x0f0f0f0fu) * 0x01010101u) >> 24;
}

/* 1 when a < b: the borrow of a - b. Without a branch: the verifier would follow both sides of each
 * comparison in a node. */
static __always_inline fw_u32 fw_less(fw_u64 a, fw_u64 b) {
  return (fw_u32)(((~a & b) | (~(a ^ b) & (a - b))) >> 63);
}

/* The run of a tail that `low` (the last byte of an address) is in. */
static __always_inline fw_u32 fw_search_tail(const struct fw_view* view, fw_image_place place,
                                             fw_u32 low, struct fw_rules* rules) {
  fw_u64 byte = (fw_u64)place * 8;
  const fw_u8* slab = fw_view_slab(view, byte);
  if (!slab) return FW_BROKEN;
  FW_KEEP_ORDER(slab);
  fw_u32 start = (fw_u32)byte & (FW_IMAGE_SLAB_BYTES - 8);
  fw_u32 count = *(const fw_u16*)(slab + start);
  rules->begin = 0;
  for (fw_u32 step = FW_TAIL_MAX / 2; step; step /= 2) {
    fw_u32 next = (fw_u32)rules->begin + step;
    if (next < count && slab[(start + 2 + next) & (FW_IMAGE_SLAB_BYTES - 1)] <= low) {
      rules->begin = next;
    }
  }
  fw_u32 found = (fw_u32)rules->begin;
  fw_u32 vectors = start + ((2 + count + 3) & ~3u);
  return *(const fw_u32*)(slab + ((vectors + found * 4) & (FW_IMAGE_SLAB_BYTES - 4)));
}

static __always_inline fw_u32 fw_count_bits64(fw_u64 word) {
  word -= (word >> 1) & 0x5555555555555555ull;
  word = (word & 0x3333333333333333ull) + ((word >> 2) & 0x3333333333333333ull);
  return (fw_u32)((((word + (word >> 4)) & 0x0f0f0f0f0f0f0f0full) * 0x0101010101010101ull) >> 56);
}

/* A block that does not only say which /24s have the vector of its quarter. */
static __always_inline fw_u32 fw_find_detail(const struct fw_view* view,
                                             const struct fw_addresses* addresses,
                                             fw_u64 first_detail, fw_u64 block, fw_u32 address,
                                             struct fw_rules* rules) {
  const fw_u8* ordinal = fw_image_at(view, (fw_u64)addresses->ordinals * 8 + block, 1);
  if (!ordinal) return FW_BROKEN;
  const struct fw_detail* detail = (const struct fw_detail*)fw_image_at(
      view, ((fw_u64)addresses->details + first_detail + *ordinal) * 8, sizeof(struct fw_detail));
  if (!detail) return FW_BROKEN;
  fw_u32 present = detail->present, base = detail->base;
  if (!present) return base;
  fw_u32 bit = 1u << ((address >> 8) & 15);
  if (!(present & bit)) return 0;
  fw_u32 entry =
      fw_image_u32(view, addresses->entries, (fw_u64)base + fw_count_bits(present & (bit - 1)));
  if (!(entry & FW_ENTRY_TAIL) || entry == FW_BROKEN) return entry;
  return fw_search_tail(view, entry & ~FW_ENTRY_TAIL, address & 255, rules);
}

/* The vector of an IPv4 address, or FW_ENTRY_RULE and the rule. Two cache lines decide nearly
 * always, and what is done with them is short: look-ups of packets after each other overlap in the
 * CPU as far as its window of instructions goes. */
static __always_inline fw_u32 fw_find_ipv4(const struct fw_view* view,
                                           const struct fw_addresses* addresses, fw_u32 address,
                                           struct fw_rules* rules) {
  fw_u64 byte = (fw_u64)addresses->pages * 8 + (fw_u64)(address >> 20) * sizeof(struct fw_page);
  const struct fw_page* page =
      (const struct fw_page*)(view->slab0 +
                              (byte & (FW_IMAGE_SLAB_BYTES - sizeof(struct fw_page))));
  fw_u32 quarter = (address >> 18) & 3;
  fw_u64 occupied = page->occupied[quarter];
  fw_u64 block_bit = 1ull << ((address >> 12) & 63);
  if (!(occupied & block_bit)) return 0;
  fw_u64 number =
      (fw_u64)page->blocks + page->before[quarter] + fw_count_bits64(occupied & (block_bit - 1));
  const fw_block* block =
      (const fw_block*)fw_image_at(view, (fw_u64)addresses->blocks * 8 + number * 2, 2);
  if (!block) return FW_BROKEN;
  fw_u32 present = *block;
  if (!present) return fw_find_detail(view, addresses, page->details, number, address, rules);
  return present >> ((address >> 8) & 15) & 1 ? page->vector[quarter] : 0;
}

/* Below one /64: the last start that is not above `low`. */
static __always_inline fw_u32 fw_search_lows(const struct fw_view* view,
                                             const struct fw_addresses* addresses, fw_u32 index,
                                             fw_u64 low, struct fw_rules* rules) {
  const fw_u8* at = fw_image_at(view, (fw_u64)addresses->low_tails * 8 + (fw_u64)index * 8, 8);
  if (!at) return FW_BROKEN;
  fw_u64 first = ((const struct fw_low_tail*)at)->first;
  rules->begin = first;
  rules->end = first + ((const struct fw_low_tail*)at)->count;
  for (int i = 0; i < FW_LOW_STEPS; i++) {
    fw_u64 begin = rules->begin, end = rules->end;
    if (end <= begin + 1) break;
    fw_u64 middle = (begin + end) / 2;
    at = fw_image_at(view, ((fw_u64)addresses->lows + middle) * 8, 8);
    if (!at) return FW_BROKEN;
    if (*(const fw_u64*)at <= low) {
      rules->begin = middle;
    } else {
      rules->end = middle;
    }
  }
  return fw_image_u32(view, addresses->low_vectors, rules->begin);
}

static __always_inline fw_u32 fw_find_ipv6(const struct fw_view* view,
                                           const struct fw_addresses* addresses, fw_u64 high,
                                           fw_u64 low, struct fw_rules* rules) {
  fw_u32 levels = addresses->levels;
  if (!levels) return 0;
  rules->begin = 0;
#pragma unroll
  for (fw_u32 i = 0; i < FW_TREE_LEVELS_MAX; i++) {
    fw_u64 node = rules->begin;
    const fw_u64* keys = (const fw_u64*)fw_image_at(
        view, (fw_u64)addresses->level[i] * 8 + node * (FW_TREE_KEYS * 8), FW_TREE_KEYS * 8);
    if (!keys) return FW_BROKEN;
    fw_u32 above = 0;
#pragma unroll
    for (int k = 0; k < FW_TREE_KEYS; k++) above += fw_less(high, keys[k]);
    fw_u32 below = FW_TREE_KEYS - above;
    if (i + 1 >= levels) {
      rules->begin = node * FW_TREE_KEYS + below; /* the run, plus one */
      break;
    }
    node = node * (FW_TREE_KEYS + 1) + below;
    /* Nodes are filled up with the greatest key, which an address may have. */
    if (node >= addresses->nodes[i + 1]) node = addresses->nodes[i + 1] - 1;
    rules->begin = node;
  }
  fw_u64 run = rules->begin > addresses->runs ? addresses->runs : rules->begin;
  fw_u32 entry = fw_image_u32(view, addresses->run_entries, run ? run - 1 : 0);
  if (!(entry & FW_ENTRY_TAIL) || entry == FW_BROKEN) return entry;
  return fw_search_lows(view, addresses, entry & ~FW_ENTRY_TAIL, low, rules);
}

static __always_inline fw_u32 fw_find_port(const struct fw_view* view, const struct fw_ports* ports,
                                           fw_u32 port, fw_u32 has_ports) {
  if (!has_ports) return ports->none;
  const fw_u8* at = fw_image_at(view, (fw_u64)ports->pages * 8 + (port >> 8) * 2, 2);
  if (!at) return FW_BROKEN;
  return fw_image_u32(view, ports->vectors, (fw_u64) * (const fw_u16*)at * 256 + (port & 255));
}

/* rules &= vector. 0 when the image has none of that number. */
static __always_inline int fw_and(const struct fw_view* view, const struct fw_image* header,
                                  fw_u32 vector, struct fw_rules* rules) {
  fw_u32 shift = header->word_shift & 3;
  const fw_u8* slab;
  fw_u64 byte = (fw_u64)header->vectors * 8 + ((fw_u64)vector << (shift + 3));
  if (vector == FW_BROKEN) return 0;
  slab = fw_view_slab(view, byte);
  if (!slab) return 0;
  FW_KEEP_ORDER(slab);
  /* A vector does not cross a slab: `vectors` is a multiple of 4 words. */
  const fw_u64* words;
  if (shift == 0) {
    words = (const fw_u64*)(slab + (byte & (FW_IMAGE_SLAB_BYTES - 8)));
    rules->word[0] &= words[0];
    return 1;
  }
  if (shift == 1) {
    words = (const fw_u64*)(slab + (byte & (FW_IMAGE_SLAB_BYTES - 16)));
    rules->word[0] &= words[0];
    rules->word[1] &= words[1];
    return 1;
  }
  words = (const fw_u64*)(slab + (byte & (FW_IMAGE_SLAB_BYTES - 32)));
  rules->word[0] &= words[0];
  rules->word[1] &= words[1];
  rules->word[2] &= words[2];
  rules->word[3] &= words[3];
  return 1;
}

static __always_inline int fw_any(const struct fw_rules* rules) {
  return (rules->word[0] | rules->word[1] | rules->word[2] | rules->word[3]) != 0;
}

/* Whether an entry of an address names the rule that decides. */
static __always_inline int fw_is_rule(fw_u32 entry) { return entry >> 30 == 1; }

#define FW_MATCHED_NONE 0u
#define FW_MATCHED 1u
#define FW_MATCHED_BROKEN 2u

/* All rules that match `packet`: FW_MATCHED, and they are in `rules`. Or FW_ENTRY_RULE | the only
 * rule that needs to be looked at, which decides and has no deadline. */
static __always_inline fw_u32 fw_match(const struct fw_view* view, const struct fw_packet* packet,
                                       struct fw_rules* rules) {
  const fw_u8* slab0 = view->slab0;
  const struct fw_image* header = (const struct fw_image*)slab0;
  fw_u32 fields = header->fields, flags = header->flags;
  fw_u32 is_ipv4 = packet->family == FW_FAMILY_IPV4;
  fw_u32 source = 0, vector;

  if (fields & FW_FIELD_SOURCE) {
    source = is_ipv4 ? fw_find_ipv4(view, &header->source, (fw_u32)packet->source_low, rules)
                     : fw_find_ipv6(view, &header->source, packet->source_high, packet->source_low,
                                    rules);
    if (!source) {
      if (flags & FW_IMAGE_SOURCE_DECIDES) return FW_MATCHED_NONE;
      source = header->source.none;
    }
    if (fw_is_rule(source)) return source;
  }
  rules->word[0] = header->all[0];
  rules->word[1] = header->all[1];
  rules->word[2] = header->all[2];
  rules->word[3] = header->all[3];
  if (fields & FW_FIELD_SOURCE) {
    rules->vector = source;
    if (!fw_and(view, header, rules->vector, rules)) return FW_MATCHED_BROKEN;
  }
  if (fields & FW_FIELD_DESTINATION) {
    vector = is_ipv4
                 ? fw_find_ipv4(view, &header->destination, (fw_u32)packet->destination_low, rules)
                 : fw_find_ipv6(view, &header->destination, packet->destination_high,
                                packet->destination_low, rules);
    if (!vector) {
      if (flags & FW_IMAGE_DESTINATION_DECIDES) return FW_MATCHED_NONE;
      vector = header->destination.none;
    }
    if (fw_is_rule(vector)) return vector;
    rules->vector = vector;
    if (!fw_and(view, header, rules->vector, rules)) return FW_MATCHED_BROKEN;
  }
  if (fields & FW_FIELD_PROTOCOL) {
    fw_u32 protocol = packet->protocol;
    if (protocol >= FW_PROTOCOL_COUNT) protocol = FW_PROTOCOL_UNKNOWN;
    vector = *(const fw_u32*)(slab0 + FW_IMAGE_PROTOCOLS + protocol * 4);
    if (!fw_and(view, header, vector, rules)) return FW_MATCHED_BROKEN;
  }
  if (!fw_any(rules)) return FW_MATCHED_NONE;
  if (fields & FW_FIELD_SOURCE_PORT) {
    vector = fw_find_port(view, &header->source_ports, packet->source_port, packet->has_ports);
    if (!fw_and(view, header, vector, rules)) return FW_MATCHED_BROKEN;
  }
  if (fields & FW_FIELD_DESTINATION_PORT) {
    vector =
        fw_find_port(view, &header->destination_ports, packet->destination_port, packet->has_ports);
    if (!fw_and(view, header, vector, rules)) return FW_MATCHED_BROKEN;
  }
  if (fields & FW_FIELD_DETAIL) {
    fw_u32 detail = packet->detail;
    if (detail >= FW_DETAIL_COUNT) detail = FW_DETAIL_NONE;
    vector = *(const fw_u32*)(slab0 + FW_IMAGE_DETAILS + detail * 4);
    if (!fw_and(view, header, vector, rules)) return FW_MATCHED_BROKEN;
  }
  if (fields & FW_FIELD_FRAGMENT) {
    vector = header->fragment[packet->family & 1][packet->fragment & 3];
    if (!fw_and(view, header, vector, rules)) return FW_MATCHED_BROKEN;
  }
  return fw_any(rules) ? FW_MATCHED : FW_MATCHED_NONE;
}

/* The place of the lowest set bit of a word that is not 0: how many are below it. */
static __always_inline fw_u32 fw_lowest_bit(fw_u64 word) {
  return fw_count_bits64((word & (0 - word)) - 1);
}
