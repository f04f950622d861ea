/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the probe could not keep, by name (bpf/include/network.h). */
#pragma once

#include "bpf/include/network.h"
#include "bpf/kernel.h"

struct net_loss_counts {
  fw_u64 lost[FW_NET_LOSS_COUNT];
};

/* Key 0, value: counts of one CPU. The programs add, user space sums over CPUs; nobody deletes. */
struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, 1);
  __type(key, fw_u32);
  __type(value, struct net_loss_counts);
} net_losses SEC(".maps");

static __always_inline void count_net_loss(enum fw_net_loss loss) {
  fw_u32 zero = 0;
  struct net_loss_counts* counts = bpf_map_lookup_elem(&net_losses, &zero);
  /* Atomic: a hook in a process can be interrupted by one in a softirq of that CPU. */
  if (counts) __sync_fetch_and_add(&counts->lost[loss], 1);
}
