/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Where a sample is put together, and how it leaves. */
#pragma once

#include "bpf/counters.h"
#include "bpf/kernel.h"
#include "bpf/settings.h"
#include "bpf/user_stack.h"

struct scratch {
  fw_u32 busy;
  fw_u32 padding;
  struct fw_walk walk;
  /* The record, contiguous: the header, then the frames. */
  struct fw_sample sample;
  fw_u64 frames[FW_WALK_FRAMES];
};
_Static_assert(__builtin_offsetof(struct scratch, frames) ==
                   __builtin_offsetof(struct scratch, sample) + sizeof(struct fw_sample),
               "the record is contiguous");

/* Key 0, value: about 10 KiB per CPU, because a BPF stack has 512 bytes. Written and read by one
 * tick at a time. */
struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, 1);
  __type(key, fw_u32);
  __type(value, struct scratch);
} scratches SEC(".maps");

/* To user space. The programs write, user space consumes; the size is set at load by rate and
 * number of CPUs. When full, the sample is dropped and counted. */
struct {
  __uint(type, BPF_MAP_TYPE_RINGBUF);
  __uint(max_entries, 256 * 1024);
} samples SEC(".maps");

/* When a reader was last woken. Shared by all CPUs, written about once a second. */
__u64 last_wake_ns;

static __always_inline struct scratch* take_scratch(void) {
  fw_u32 zero = 0;
  struct scratch* scratch = bpf_map_lookup_elem(&scratches, &zero);
  if (!scratch) return NULL;
  /* The kernel runs no perf_event program inside another BPF program of that CPU; the raw_tp test
   * entry has no such guard. */
  if (scratch->busy) {
    count_loss(FW_LOSS_SCRATCH_BUSY);
    return NULL;
  }
  scratch->busy = 1;
  return scratch;
}

static __always_inline void release_scratch(struct scratch* scratch) { scratch->busy = 0; }

/* A wake-up costs 5 to 10 us, more than the sample. So most samples wake nobody; one does when a
 * part of the ring has filled up, or when the last wake-up is old enough. */
static __always_inline fw_u64 wake_flags(fw_u64 now_ns) {
  if (now_ns - last_wake_ns < wake_interval_ns &&
      bpf_ringbuf_query(&samples, BPF_RB_AVAIL_DATA) < wake_backlog_bytes) {
    return BPF_RB_NO_WAKEUP;
  }
  last_wake_ns = now_ns;
  return BPF_RB_FORCE_WAKEUP;
}

static __always_inline void send_sample(struct scratch* scratch, fw_u32 frame_count) {
  if (frame_count > FW_WALK_FRAMES) frame_count = FW_WALK_FRAMES;
  const fw_u64 size = sizeof(struct fw_sample) + frame_count * sizeof(fw_u64);
  if (bpf_ringbuf_output(&samples, &scratch->sample, size, wake_flags(scratch->sample.time_ns))) {
    count_loss(FW_LOSS_RING_FULL);
  }
}
