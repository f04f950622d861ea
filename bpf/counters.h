/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Nothing is lost without a name: every early exit adds to a slot of bpf/include/losses.h. */
#pragma once

#include "bpf/include/losses.h"
#include "bpf/kernel.h"

struct loss_counts {
  fw_u64 lost[FW_LOSS_COUNT];
};

/* Key 0, value: counts of one CPU. The programs add, user space sums over CPUs; nobody deletes. One
 * entry, so that user space reads all names by one system call. Cannot be full. */
struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, 1);
  __type(key, fw_u32);
  __type(value, struct loss_counts);
} losses SEC(".maps");

static __always_inline void count_loss(enum fw_loss loss) {
  fw_u32 zero = 0;
  struct loss_counts* counts = bpf_map_lookup_elem(&losses, &zero);
  /* No atomic: the slot belongs to this CPU, and ticks do not nest (see output.h). */
  if (counts) counts->lost[loss]++;
}
