/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The maps of the firewall; one set per interface. All but the read-only data are pinned, so that
 * an agent that comes back finds rules, counters and buckets as they are. */
#pragma once

#include "bpf/classify.h"
#include "bpf/include/firewall.h"
#include "bpf/kernel.h"

/* Where the last use of a tick's allowance of events is kept. */
struct fw_event_allowance {
  fw_u64 window; /* number of 128 jiffies */
  fw_u32 used;
  fw_u32 unused;
};

/* The way through the rules that match. */
struct fw_search {
  fw_u64 now_ns;
  fw_u32 place;
  fw_u32 sampled; /* the last rule of the packet that wants an event; FW_RULES_MAX: none */
};

struct fw_cpu {
  fw_u64 counts[FW_FIREWALL_COUNT]; /* first: the agent reads these and nothing behind */
  struct fw_packet packet;          /* scratch: the program does not nest on a CPU */
  struct fw_rules rules;            /* scratch, with the place of the search in it */
  struct fw_search search;
  struct fw_event_allowance allowance;
  fw_u64 bench_next;
};

/* Key 0: the generation of rules that judges. Key 1: the one before it, while key 0 is not
 * confirmed. Value: the first slab of an image (bpf/include/firewall.h). The agent writes an image
 * whole, then puts it here by one update: the kernel waits until no packet uses the old.
 * All of one size, and so without BPF_F_INNER_MAP: with it, look-ups in them are calls. */
struct image_map {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __uint(map_flags, BPF_F_MMAPABLE);
  __uint(key_size, sizeof(fw_u32));
  __uint(value_size, FW_IMAGE_SLAB_BYTES);
};
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
  __uint(max_entries, 2);
  __uint(key_size, sizeof(fw_u32));
  __array(values, struct image_map);
} generations SEC(".maps");

/* Key: fw_image.rest - 1. Value: slabs 1, 2, … of that image, as many as its rules need. The agent
 * writes them before the first slab is put in force, and deletes them once it is in force no more.
 */
struct image_rest {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __uint(map_flags, BPF_F_INNER_MAP | BPF_F_MMAPABLE);
  __uint(key_size, sizeof(fw_u32));
  __uint(value_size, FW_IMAGE_SLAB_BYTES);
};
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
  __uint(max_entries, FW_IMAGE_RESTS);
  __uint(key_size, sizeof(fw_u32));
  __array(values, struct image_rest);
} image_rests SEC(".maps");

/* Key: a rule's slot. The program adds; the agent sums over CPUs, and zeroes a slot before it gives
 * it to another rule. Cannot be full. */
struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, FW_RULE_SLOTS);
  __type(key, fw_u32);
  __type(value, struct fw_rule_counts);
} rule_counts SEC(".maps");

/* Key 0: what one CPU counts, and its scratch. One look-up per packet for both. */
struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, 1);
  __type(key, fw_u32);
  __type(value, struct fw_cpu);
} cpus SEC(".maps");

/* A lock, because CPUs share a rate: five CPUs that each let through 1,000 packets per second are
 * not a limit of 1,000. (An atomic compare-and-swap would need Linux 5.12.) */
struct fw_rule_bucket {
  struct bpf_spin_lock lock;
  fw_u32 unused;
  struct fw_bucket bucket;
};
struct fw_bucket_set {
  struct bpf_spin_lock lock;
  fw_u32 unused;
  struct fw_bucket ways[FW_BUCKET_WAYS];
};

/* Key: a rule's slot. Buckets of `per: rule`. */
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, FW_RULE_SLOTS);
  __type(key, fw_u32);
  __type(value, struct fw_rule_bucket);
} rule_buckets SEC(".maps");

/* Key: hash of rule and source. A table of 4-way sets of our own: LRU hashes take no spin lock, and
 * plain ones do not forget. Full set: the way that was used longest ago goes, counted when that was
 * within a second. 8,192 sets: 32,768 sources, 1.6 MB. A power of two. */
#define SOURCE_BUCKET_SETS 8192
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, SOURCE_BUCKET_SETS);
  __type(key, fw_u32);
  __type(value, struct fw_bucket_set);
} source_buckets SEC(".maps");

/* struct fw_drop_event. Bounded at the source (see report()); full: counted. */
struct {
  __uint(type, BPF_MAP_TYPE_RINGBUF);
  __uint(max_entries, 64 * 1024);
} drop_events SEC(".maps");

/* Only benchmarks: sources that replace that of the packet, one after another. */
#define BENCH_SOURCES 65536
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, BENCH_SOURCES);
  __uint(map_flags, BPF_F_MMAPABLE);
  __type(key, fw_u32);
  __type(value, fw_u32);
} bench_sources SEC(".maps");
