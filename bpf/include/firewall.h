/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The packet firewall's data, shared by the kernel side (bpf/classify.h, bpf/enforce_xdp.bpf.c) and
 * by the agent, which writes it (agent/enforce/image.h). Compiles as BPF C, C and C++.
 * Explained in docs/firewall.md.
 *
 * A whole generation of rules is one image, in slabs of FW_IMAGE_SLAB_BYTES. The program finds the
 * first by one look-up in a map of maps, and all others from there, so a packet sees one generation
 * from its first byte to its verdict.
 *
 * Classification is by bit vectors: each field of a packet (source, destination, protocol, ports,
 * flags, fragment) has a vector of 256 bits, one per rule in order of priority, which says which
 * rules that field allows; the AND of them are the rules that match, the lowest bit is the first.
 * What costs is the address. IPv4:
 *
 *   top 12 bits --> page --(8 bits)--> block: a bit for each of 16 /24s
 *                     |                 |  bit clear: nothing there; set: the page's vector
 *                     |                 `--> block 0: a detail, with an entry per /24: vector, tail
 *                     `--> bit clear: nothing there, and one cache line was touched
 *   tail: the runs inside one /24 (prefixes longer than /24), binary search by the last byte
 *
 * IPv6: the starts of runs of equal vectors, of the upper 64 bits, in a tree of 8 keys per cache
 * line; prefixes longer than /64 in sorted arrays below. Memory is bounded by the number of
 * prefixes, whatever they are.
 */
#pragma once

#include "bpf/include/frame.h"

#define FW_IMAGE_LAYOUT 2
/* Large: nearly all sets of rules are one slab, which a packet looks up once and without a call.
 * Calls of helpers are what a look-up in the cache costs (3 to 5 ns each where returns are guarded
 * against speculation). */
#define FW_IMAGE_SLAB_SHIFT 20
#define FW_IMAGE_SLAB_BYTES (1u << FW_IMAGE_SLAB_SHIFT)
#define FW_RULES_MAX 256
#define FW_RULE_WORDS_MAX 4

/* A place in the image, in units of 8 bytes from its start. */
typedef fw_u32 fw_image_place;

/* ---- what a packet says -------------------------------------------------------------------------
 */

enum fw_fragment {
  FW_FRAGMENT_NONE = 0,
  FW_FRAGMENT_FIRST = 1, /* offset 0 and more to come: has the transport header */
  FW_FRAGMENT_LATER = 2,
};

#define FW_FAMILY_IPV4 0
#define FW_FAMILY_IPV6 1

/* Index of the table that joins TCP flags, ICMP type and ICMPv6 type. */
#define FW_DETAIL_TCP \
  0 /* + the flags: FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32, ECE 64, CWR 128 */
#define FW_DETAIL_ICMP 256
#define FW_DETAIL_ICMPV6 512
#define FW_DETAIL_NONE 768
#define FW_DETAIL_COUNT 769
#define FW_PROTOCOL_UNKNOWN 256 /* behind a chain of IPv6 headers that was not followed */
#define FW_PROTOCOL_COUNT 257

/* Made by bpf/packet.h. Ports are unknown in later fragments and where the packet ends too early.
 */
struct fw_packet {
  fw_u64 source_high, source_low; /* host order; IPv4: the low 32 bits of source_low */
  fw_u64 destination_high, destination_low;
  fw_u32 frame_bytes; /* from the first byte of the Ethernet header */
  fw_u32 offset;      /* of the header that is being read: where the transport header is, at last */
  fw_u16 protocol;    /* or FW_PROTOCOL_UNKNOWN */
  fw_u16 detail;      /* FW_DETAIL_… */
  fw_u16 source_port, destination_port; /* host order */
  fw_u8 has_ports;
  fw_u8 family;   /* FW_FAMILY_… */
  fw_u8 fragment; /* enum fw_fragment */
  fw_u8 cut;      /* the transport header should be there and is not, or not whole */
  fw_u32 unused;
};

/* ---- the image ----------------------------------------------------------------------------------
 */

enum fw_action {
  FW_ACTION_DROP = 0,
  FW_ACTION_PASS = 1,
  FW_ACTION_RATE = 2, /* passes what its buckets allow, drops the rest */
  /* These two look and go on to the next rule that matches. */
  FW_ACTION_COUNT = 3,
  FW_ACTION_SAMPLE = 4, /* an event for one of N packets per CPU */
};

enum fw_rate_per {
  FW_PER_RULE = 0,
  FW_PER_SOURCE = 1,
  FW_PER_SOURCE_24 = 2, /* IPv6: /64 */
};

/* Buckets count in units that need no division: tokens grow by rate × nanoseconds, a packet costs
 * 10^9 packet tokens, a bit 10^9 bit tokens. */
#define FW_TOKENS_EACH 1000000000ull

struct fw_rule {
  fw_u8 action;       /* enum fw_action */
  fw_u8 per;          /* enum fw_rate_per */
  fw_u16 slot;        /* of its counters; the same as long as the rule has the same name */
  fw_u32 parameter;   /* sample: one of so many; rate: the key of its buckets, never 0 */
  fw_u64 deadline_ns; /* CLOCK_MONOTONIC; from then on the rule matches nothing. 0: never */
  fw_u64 packets_per_s, packet_depth, packet_fill_ns; /* 0: no limit; depth in tokens */
  fw_u64 bits_per_s, bit_depth, bit_fill_ns;          /* fill: after so long the bucket is full */
};

/* A /12, in four quarters of 64 blocks; one cache line. Blocks in which no rule names anything are
 * not stored: bit clear, vector 0. The n-th block of a quarter whose bit is set is number blocks +
 * before[quarter] + n. All 4,096 pages are 256 KiB; with 100,000 scattered prefixes, nine of ten
 * misses end here, and pages and blocks together (440 KiB) stay in a CPU's second-level cache. */
struct fw_page {
  fw_u64 occupied[4]; /* bit (address >> 12) % 64 of word (address >> 18) % 4 */
  fw_u32 blocks;
  fw_u32 details;
  fw_u8 before[4];
  fw_u32 unused;
  fw_u32 vector[4]; /* what most blocks of the quarter name */
};
#define FW_PAGE_COUNT 4096 /* by the upper 12 bits of an address */

/* 16 /24s (a /20): those whose bit is set have the vector of the quarter, others vector 0. A block
 * that says anything else is 0, and detail number fw_page.details + ordinals[block] says it. */
typedef fw_u16 fw_block;
/* present == 0: all 16 /24s have the vector `base`. Otherwise /24s whose bit is clear have vector
 * 0, and that of the others is entry `base` + set bits below. */
struct fw_detail {
  fw_u32 present;
  fw_u32 base;
};
#define FW_ENTRY_TAIL (1u << 31) /* not a vector: the place of a tail */
/* Not a vector: the rule that decides, in the lower bits. For sets whose first rule decides at once
 * and asks for nothing but the address that was looked up: no other field can change it. */
#define FW_ENTRY_RULE (1u << 30)

/* A tail: fw_u16 count (1..256); fw_u8 starts[count], the first is 0; padding to 4 bytes;
 * fw_u32 vectors[count]. Never crosses a slab. */
#define FW_TAIL_MAX 256

/* Images in use, being made, and left by an agent that died between. */
#define FW_IMAGE_RESTS 4

#define FW_TREE_LEVELS_MAX 8
#define FW_TREE_KEYS 8

/* The addresses of one direction. An address that no rule names has vector 0, for which `none` (the
 * rules that take any address) stands. */
struct fw_addresses {
  fw_u32 none;
  fw_image_place pages;    /* struct fw_page [FW_PAGE_COUNT], in slab 0 */
  fw_image_place blocks;   /* fw_block */
  fw_image_place ordinals; /* fw_u8, beside blocks */
  fw_image_place details;  /* struct fw_detail */
  fw_image_place entries;  /* fw_u32 */
  /* IPv6: level 0 is the root; each node is 8 keys; node n's children are 9 n … 9 n + 8 of the next
   * level. Keys are where runs of the upper 64 bits start; the last level holds all of them. */
  fw_u32 levels; /* 0: every address has vector 0 */
  fw_image_place level[FW_TREE_LEVELS_MAX];
  fw_u32 nodes[FW_TREE_LEVELS_MAX];
  fw_u32 runs;
  fw_image_place run_entries; /* fw_u32: a vector, or FW_ENTRY_TAIL | index of low_tails */
  fw_image_place low_tails;   /* struct fw_low_tail */
  fw_image_place lows; /* fw_u64: starts of runs of the lower 64 bits, the first of a tail 0 */
  fw_image_place low_vectors; /* fw_u32, beside lows */
};

struct fw_low_tail {
  fw_u32 first, count;
};

/* The ports of one direction: fw_u16 pages[256] by the upper byte, then pages of fw_u32
 * vectors[256]. */
struct fw_ports {
  fw_image_place pages;
  fw_image_place vectors;
  fw_u32 none; /* the vector of a packet without ports */
  fw_u32 unused;
};

enum fw_image_flags {
  FW_IMAGE_DRY_RUN = 1,        /* counts what would be dropped */
  FW_IMAGE_DROP_MALFORMED = 2, /* what cannot be judged is dropped, not passed */
  FW_IMAGE_SOURCE_DECIDES = 4, /* source vector 0 is empty: no other field can matter */
  FW_IMAGE_DESTINATION_DECIDES = 8,
  FW_IMAGE_EXPIRES = 16, /* a rule has a deadline */
};

/* Fields that any rule looks at; the others are not looked up. */
enum fw_image_fields {
  FW_FIELD_SOURCE = 1,
  FW_FIELD_DESTINATION = 2,
  FW_FIELD_PROTOCOL = 4,
  FW_FIELD_SOURCE_PORT = 8,
  FW_FIELD_DESTINATION_PORT = 16,
  FW_FIELD_DETAIL = 32,
  FW_FIELD_FRAGMENT = 64, /* or family */
};

/* The start of slab 0. All counts and places are written by the agent, which is trusted; the kernel
 * side is safe, not right, with any others. */
struct fw_image {
  fw_u32 layout;     /* FW_IMAGE_LAYOUT */
  fw_u32 slab_count; /* one: `rest` is not used */
  fw_u64 generation;
  /* While it is not 0: from this CLOCK_MONOTONIC time on the previous generation judges instead.
   * Set to 0 by a confirmation; the agent need not live for the return. */
  fw_u64 confirm_deadline_ns;
  fw_u64 bucket_seed;            /* secret: where in the table of buckets a source is */
  fw_u64 all[FW_RULE_WORDS_MAX]; /* the vector of all rules */
  fw_u32 rule_count;
  fw_u32 word_shift; /* 1 << word_shift 64-bit words per vector: 1, 2 or 4 */
  fw_u32 flags;
  fw_u32 fields;
  fw_image_place vectors; /* fw_u64 [vector][words] */
  fw_u32 vector_count;
  fw_image_place metadata; /* JSON: names and texts of the rules, for whoever takes over */
  fw_u32 metadata_bytes;
  fw_u32 rest; /* where slabs 1, 2, … are in the map image_rests, plus one; 0: nowhere yet */
  fw_u32 unused;
  struct fw_addresses source;
  struct fw_addresses destination;
  struct fw_ports source_ports;
  struct fw_ports destination_ports;
  fw_u32 fragment[2][4]; /* [family][enum fw_fragment]: vectors */
};

/* Fixed places in slab 0. */
#define FW_IMAGE_RULES 1024u                                     /* struct fw_rule [FW_RULES_MAX] */
#define FW_IMAGE_PROTOCOLS (FW_IMAGE_RULES + FW_RULES_MAX * 64u) /* fw_u32 vectors */
#define FW_IMAGE_DETAILS (FW_IMAGE_PROTOCOLS + 2048u)            /* fw_u32 vectors */
#define FW_IMAGE_FREE (FW_IMAGE_DETAILS + 4096u)                 /* the rest is as needed */

/* ---- counters -----------------------------------------------------------------------------------
 */

/* Two generations are in use for a moment, each with up to FW_RULES_MAX names of its own. */
#define FW_RULE_SLOTS (2 * FW_RULES_MAX)

/* Per CPU and slot: a cache line. Bytes are those of the frame with its Ethernet header. */
struct fw_rule_counts {
  fw_u64 packets, bytes;                       /* that matched, where the rule was reached */
  fw_u64 dropped_packets, dropped_bytes;       /* rate: beyond the limit */
  fw_u64 would_drop_packets, would_drop_bytes; /* in a dry run */
  fw_u64 sampled;                              /* one of N */
  fw_u64 unused;
};

/* What became of packets, per CPU: append, never reorder. X(constant, label, what a user reads) */
#define FW_FIREWALL_COUNTS(X)                                                                      \
  X(SEEN, "seen", "packets that reached the program")                                              \
  X(SEEN_BYTES, "seen_bytes", "bytes of them")                                                     \
  X(NOT_IP, "not_ip", "passed: neither IPv4 nor IPv6, or behind more than two VLAN tags")          \
  X(NO_RULES, "no_rules", "passed: no generation of rules was loaded")                             \
  X(NO_MATCH, "no_match", "passed: no rule matched")                                               \
  X(PASSED, "passed", "passed by a rule")                                                          \
  X(DROPPED, "dropped", "dropped by a rule, or as malformed")                                      \
  X(WOULD_DROP, "would_drop", "passed in a dry run, dropped otherwise")                            \
  X(MALFORMED, "malformed", "packets whose IP header is cut short or contradicts itself")          \
  X(HEADER_CHAIN, "header_chain", "packets with more than eight IPv6 extension headers")           \
  X(TRANSPORT_CUT, "transport_cut", "packets that end within their transport header")              \
  X(REVERTED, "reverted", "packets judged by the generation before: the last was not confirmed")   \
  X(EVENTS_LIMITED, "events_limited", "drops and samples without an event: over the bounded rate") \
  X(EVENTS_LOST, "events_lost", "drops and samples without an event: the ring was full")           \
  X(BUCKETS_EVICTED, "buckets_evicted", "sources whose rate was forgotten: too many at a time")    \
  X(BROKEN, "broken", "passed: the image of the rules contradicts itself (a bug)")

enum fw_firewall_count {
#define FW_FIREWALL_ENUM(constant, name, text) FW_FIREWALL_##constant,
  FW_FIREWALL_COUNTS(FW_FIREWALL_ENUM)
#undef FW_FIREWALL_ENUM
      FW_FIREWALL_COUNT
};

/* ---- rates --------------------------------------------------------------------------------------
 */

#define FW_BUCKET_WAYS 4

struct fw_bucket {
  fw_u64 address_high, address_low; /* 0 per rule */
  fw_u32 key;                       /* slot and incarnation of the rule; 0: unused */
  fw_u32 unused;
  fw_u64 packet_tokens, bit_tokens;
  fw_u64 last_ns; /* when tokens were last added */
};

/* ---- events -------------------------------------------------------------------------------------
 */

enum fw_event_kind {
  FW_EVENT_DROPPED = 0,
  FW_EVENT_WOULD_DROP = 1,
  FW_EVENT_SAMPLED = 2,
};

#define FW_EVENT_NO_RULE 0xffff /* malformed */

struct fw_drop_event {
  fw_u64 time_ns; /* CLOCK_MONOTONIC */
  fw_u64 generation;
  fw_u64 source_high, source_low, destination_high, destination_low; /* as in fw_packet */
  fw_u32 frame_bytes;
  fw_u16 rule; /* place in its generation, or FW_EVENT_NO_RULE */
  fw_u16 protocol;
  fw_u16 source_port, destination_port;
  fw_u8 kind; /* enum fw_event_kind */
  fw_u8 family;
  fw_u8 fragment;
  fw_u8 has_ports;
};

#ifdef __cplusplus
#define FW_FIREWALL_ASSERT static_assert
#else
#define FW_FIREWALL_ASSERT _Static_assert
#endif
FW_FIREWALL_ASSERT(sizeof(struct fw_packet) == 56, "padding");
FW_FIREWALL_ASSERT(sizeof(struct fw_rule) == 64, "padding");
FW_FIREWALL_ASSERT(sizeof(struct fw_detail) == 8, "padding");
FW_FIREWALL_ASSERT(sizeof(struct fw_page) == 64, "a cache line");
FW_FIREWALL_ASSERT(sizeof(struct fw_addresses) == 112, "padding");
FW_FIREWALL_ASSERT(sizeof(struct fw_image) <= FW_IMAGE_RULES, "slab 0");
FW_FIREWALL_ASSERT(FW_IMAGE_FREE < 65536, "slab 0");
FW_FIREWALL_ASSERT(sizeof(struct fw_rule_counts) == 64, "a cache line");
FW_FIREWALL_ASSERT(sizeof(struct fw_bucket) == 48, "padding");
FW_FIREWALL_ASSERT(sizeof(struct fw_drop_event) == 64, "padding");
