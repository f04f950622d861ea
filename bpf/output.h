/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Where a sample is put together, and how it leaves. */
#pragma once

#include "bpf/counters.h"
#include "bpf/kernel.h"
#include "bpf/settings.h"
#include "bpf/unwind.h"

/* Files that notes of this CPU asked for, by hash of the inode's address. */
#define NOTED_FILES 64

struct scratch {
  fw_u32 busy;
  fw_u32 now_s; /* CLOCK_MONOTONIC seconds of this sample */
  struct fw_walk walk;
  fw_u64 noted_files[NOTED_FILES];
  fw_u32 new_note; /* a note of this sample asks for the first time */
  fw_u32 padding;
  struct fw_file_note notes[FW_MAX_FILE_NOTES];
  /* The record, contiguous: the header, the frames, behind them the notes. */
  struct fw_sample sample;
  fw_u64 frames[FW_WALK_FRAMES];
  struct fw_file_note notes_room[FW_MAX_FILE_NOTES];
};
_Static_assert(__builtin_offsetof(struct scratch, frames) ==
                   __builtin_offsetof(struct scratch, sample) + sizeof(struct fw_sample),
               "the record is contiguous");

/* Key 0, value: about 12 KiB per CPU, because a BPF stack has 512 bytes. Written and read by one
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
__u64 last_note_wake_ns;

/* For the functions inside one tick. */
static __always_inline struct scratch* held_scratch(void) {
  fw_u32 zero = 0;
  return bpf_map_lookup_elem(&scratches, &zero);
}

static __always_inline struct scratch* take_scratch(void) {
  struct scratch* scratch = held_scratch();
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
 * part of the ring has filled up, when the last wake-up is old enough, or when it brings the first
 * note on a file: the table that this asks for is wanted for the next sample. */
static __always_inline fw_u64 wake_flags(const struct scratch* scratch) {
  const fw_u64 now_ns = scratch->sample.time_ns;
  if (scratch->new_note && now_ns - last_note_wake_ns >= note_wake_interval_ns) {
    last_note_wake_ns = now_ns;
  } else if (now_ns - last_wake_ns < wake_interval_ns &&
             bpf_ringbuf_query(&samples, BPF_RB_AVAIL_DATA) < wake_backlog_bytes) {
    return BPF_RB_NO_WAKEUP;
  }
  last_wake_ns = now_ns;
  return BPF_RB_FORCE_WAKEUP;
}

static __always_inline void send_sample(struct scratch* scratch) {
  const struct fw_sample* sample = &scratch->sample;
  fw_u32 frames = (fw_u32)sample->kernel_frames + sample->user_frames;
  if (frames > FW_WALK_FRAMES) frames = FW_WALK_FRAMES;
  fw_u64 size = sizeof(struct fw_sample) + frames * sizeof(fw_u64);
  fw_u32 notes = sample->file_notes;
  if (notes != 0) {
    if (notes > FW_MAX_FILE_NOTES) notes = FW_MAX_FILE_NOTES;
    const fw_u32 note_bytes = notes * sizeof(struct fw_file_note);
    bpf_probe_read_kernel(&scratch->frames[frames], note_bytes, scratch->notes);
    size += note_bytes;
  }
  if (bpf_ringbuf_output(&samples, &scratch->sample, size, wake_flags(scratch))) {
    count_loss(FW_LOSS_RING_FULL);
  }
}
