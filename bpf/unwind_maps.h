/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The maps that unwind tables live in, and the hooks of unwind.h that read them. Formats:
 * bpf/include/unwind_table.h. */
#pragma once

#include "bpf/include/unwind_table.h"
#include "bpf/kernel.h"
#include "bpf/unwind.h"

/* Key: a file as the kernel sees it, value: its id and table. User space adds (in answer to a note)
 * and deletes; the programs read. Preallocated, because a hash that perf programs use must be
 * before 6.1. When full, the file stays unknown: raw addresses, frame pointers, a note each time.
 */
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, FW_KNOWN_FILES_MAX);
  __type(key, struct fw_file_key);
  __type(value, struct fw_known_file);
} known_files SEC(".maps");

/* User space adds one after each change of known_files: programs keep what they learned from it. */
__u32 known_files_generation;

/* Key: fw_known_file.table. User space writes through its mapping; the programs read, and write
 * last_used_s and uses (two CPUs may lose a count to each other). */
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(map_flags, BPF_F_MMAPABLE);
  __uint(max_entries, FW_TABLES_MAX);
  __type(key, fw_u32);
  __type(value, struct fw_table);
} tables SEC(".maps");

/* Key: number of a slab in fw_location, value: an array map of one value. User space creates slabs
 * when it needs them, fills them through a mapping, and takes out what it does not need any more;
 * the programs read. */
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
  __uint(max_entries, FW_SLABS_MAX);
  __type(key, fw_u32);
  __array(
      values, struct {
        __uint(type, BPF_MAP_TYPE_ARRAY);
        __uint(map_flags, BPF_F_MMAPABLE);
        __uint(max_entries, 1);
        __uint(key_size, sizeof(fw_u32));
        __uint(value_size, FW_SLAB_BYTES);
      });
} slabs SEC(".maps");

/* Key 0, value: the rules of frames that this CPU met last. One value and not an entry per rule:
 * array elements of a per-CPU map are found through a table of pointers, one more cache line each.
 * Written and read by one tick at a time; nobody deletes. */
struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, 1);
  __type(key, fw_u32);
  __type(value, struct fw_rule_cache);
} rule_cache SEC(".maps");

static __always_inline const struct fw_table* fw_table_at(fw_u32 index) {
  return bpf_map_lookup_elem(&tables, &index);
}

static __always_inline const fw_u8* fw_slab_at(fw_u32 number) {
  fw_u32 zero = 0;
  void* map = bpf_map_lookup_elem(&slabs, &number);
  if (!map) return NULL;
  return bpf_map_lookup_elem(map, &zero);
}

static __always_inline struct fw_rule_cache* fw_rule_cache_here(void) {
  fw_u32 zero = 0;
  return bpf_map_lookup_elem(&rule_cache, &zero);
}
