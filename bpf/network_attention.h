/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* How many connections are looked at: a bound that holds at once, whatever comes. */
#pragma once

#include "bpf/network_counters.h"
#include "bpf/network_settings.h"

/* What is left of a rate of connections: some to follow, some to sum up whole at their end. */
struct attention {
  fw_u64 jiffies; /* when it was last asked: a clock that costs nothing */
  fw_u64 since_ns;
  fw_u64 begins;
  fw_u64 ends;
  fw_u64 not_followed; /* so far */
};

/* Key 0: of this CPU. */
struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, 1);
  __type(key, fw_u32);
  __type(value, struct attention);
} attentions SEC(".maps");

#define REFILL_NS 10000000
#define FOLLOW_BURST_SECONDS 20
#define NOT_FOLLOWED_PER_WAKE 8192 /* a power of two */

/* A connection costs some 3 us from its SYN to its sums, of both ends. So many per second are
 * followed, with a burst of 20 s' worth; more are counted when they end, which costs a third of it:
 * most is that the kernel calls on_state ten times. User space learns of a storm and takes that
 * away. (The hooks of one CPU may interrupt each other: a count may be lost, no harm done.) */
static __always_inline struct attention* pay_attention(void) {
  fw_u32 zero = 0;
  struct attention* left = bpf_map_lookup_elem(&attentions, &zero);
  if (!left) return NULL;
  const fw_u64 jiffies = bpf_jiffies64();
  if (jiffies == left->jiffies) return left;
  left->jiffies = jiffies;
  const fw_u64 now_ns = bpf_ktime_get_ns();
  const fw_u64 elapsed_ns = now_ns - left->since_ns;
  if (elapsed_ns < REFILL_NS) return left;
  left->since_ns = now_ns;
  const fw_u64 rate = follow_per_second;
  const fw_u64 most = rate * FOLLOW_BURST_SECONDS;
  /* The first time, elapsed_ns is the age of the machine. */
  const fw_u64 more = elapsed_ns >= 1000000000ull * FOLLOW_BURST_SECONDS
                          ? most
                          : elapsed_ns / 1000 * rate / 1000000;
  left->begins = left->begins + more < most ? left->begins + more : most;
  left->ends = left->ends + more < most ? left->ends + more : most;
  return left;
}

enum attention_paid { FOLLOW, DO_NOT_FOLLOW, DO_NOT_FOLLOW_AND_WAKE };

static __always_inline enum attention_paid follow_or_not(void) {
  struct attention* left = pay_attention();
  if (left && left->begins > 0) {
    left->begins--;
    return FOLLOW;
  }
  count_net_loss(FW_NET_LOSS_NOT_FOLLOWED);
  if (!left || ++left->not_followed & (NOT_FOLLOWED_PER_WAKE - 1)) return DO_NOT_FOLLOW;
  return DO_NOT_FOLLOW_AND_WAKE;
}

static __always_inline bool may_sum_up_whole(void) {
  struct attention* left = pay_attention();
  if (!left || left->ends == 0) return false;
  left->ends--;
  return true;
}
