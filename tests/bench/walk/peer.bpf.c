/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What our walk is compared with: the kernel's own walk, counted per stack in the kernel. */
#include <linux/bpf.h>
#include <linux/bpf_perf_event.h>

#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Key: stack id, value: addresses. 127 frames is the most that the helper takes. */
struct {
  __uint(type, BPF_MAP_TYPE_STACK_TRACE);
  __uint(max_entries, 4096);
  __uint(key_size, sizeof(__u32));
  __uint(value_size, 127 * sizeof(__u64));
} stacks SEC(".maps");

/* Key: stack id, value: ticks. */
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 4096);
  __type(key, __u32);
  __type(value, __u64);
} counts SEC(".maps");

SEC("perf_event")
int peer_tick(struct bpf_perf_event_data* ctx) {
  const long id = bpf_get_stackid(ctx, &stacks, BPF_F_USER_STACK);
  if (id < 0) return 0;
  __u32 key = (__u32)id;
  __u64* count = bpf_map_lookup_elem(&counts, &key);
  if (count) {
    __sync_fetch_and_add(count, 1);
    return 0;
  }
  __u64 one = 1;
  bpf_map_update_elem(&counts, &key, &one, BPF_NOEXIST);
  return 0;
}
