/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Where a sample is put together, and how it leaves. */
#pragma once

#include "bpf/counters.h"
#include "bpf/kernel.h"
#include "bpf/settings.h"
#include "bpf/unwind.h"

/* Files that notes of this CPU asked for, by hash of the inode's address. */
#define NOTED_FILES 64

/* Of the record, behind its header. What a per-CPU value may have, 32 KiB, is nearly used up: with
 * a thousand frames the copy of the stack is shorter. */
#define RECORD_TAIL_BYTES (28 * 1024)

/* Whose mappings scratch.walk has: nothing of it changed as long as all of this is the same. */
struct mappings_owner {
  fw_u64 mm; /* 0: of nobody */
  fw_u64 exec_id;
  fw_u32 process; /* in the initial pid namespace: an mm is used again, its changes counted alike */
  fw_u32 sequence;   /* of changes of the mappings */
  fw_u32 generation; /* of known files */
  fw_u32 padding;
};

struct scratch {
  fw_u32 busy;
  fw_u32 now_s; /* CLOCK_MONOTONIC seconds of this sample */
  struct fw_walk walk;
  struct mappings_owner owner;
  fw_u32 stamp; /* of this sample: mappings that it met have it, too */
  fw_u32 padding0;
  fw_u64 noted_files[NOTED_FILES];
  fw_u32 new_note; /* a note of this sample asks for the first time */
  fw_u32 padding;
  struct fw_file_note notes[FW_MAX_FILE_NOTES];
  fw_u32 wants_table; /* the walk met a file that has no table yet */
  fw_u32 wants_copy; /* walk holds the registers that it began with: a copy of the stack goes too */
  /* The record, contiguous: the header, the frames, behind them the notes and the stack. */
  struct fw_sample sample;
  fw_u64 frames[FW_WALK_FRAMES];
  fw_u8 room[RECORD_TAIL_BYTES - FW_WALK_FRAMES * sizeof(fw_u64)];
};
_Static_assert(__builtin_offsetof(struct scratch, frames) ==
                   __builtin_offsetof(struct scratch, sample) + sizeof(struct fw_sample),
               "the record is contiguous");
_Static_assert(sizeof(struct scratch) <= 32 * 1024, "the most that a per-CPU value may have");

/* Key 0, value: about 31 KiB per CPU, because a BPF stack has 512 bytes. Written and read by one
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

/* When a reader was last woken. Shared by all CPUs, written about every other second. */
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

/* Behind the first `at` bytes of the tail: registers, and the stack from below the stack pointer
 * on, page by page, up to what is not there. Returns the size of the tail with it. */
static __always_inline fw_u64 append_stack(struct scratch* scratch, fw_u64 at) {
  fw_u8* const tail = (fw_u8*)scratch->frames;
  const struct fw_walk* walk = &scratch->walk;
  /* One register: clang compares the 32-bit argument and adds a copy of it that was made before,
   * which the verifiers of 5.10 and 6.1 do not connect. */
  __asm__ volatile("" : "+r"(at));
  if (at > RECORD_TAIL_BYTES / 2) return at; /* never: 1,151 frames and 8 notes are less */
  struct fw_stack_copy* copy = (void*)(tail + at);
  copy->ip = walk->ip;
  for (int i = 0; i < FW_REGISTER_COUNT; i++) copy->registers[i] = walk->registers[i];
  const fw_u64 sp = walk->registers[FW_REGISTER_RSP];
  fw_u64 address = sp - FW_RED_ZONE_BYTES;
  fw_u64 start = address;
  fw_u64 to = at + sizeof(*copy);
  for (int i = 0; i < FW_STACK_COPY_PAGES; i++) {
    fw_u64 size = FW_READ_PAGE_BYTES - (address & (FW_READ_PAGE_BYTES - 1));
    const fw_u64 next = address + size;
    /* The verifier of 5.10 forgets what it knew of a number that was on the stack meanwhile. */
    __asm__ volatile("" : "+r"(to), "+r"(size));
    if (to > RECORD_TAIL_BYTES - FW_READ_PAGE_BYTES || size > FW_READ_PAGE_BYTES) break;
    if (bpf_probe_read_user(tail + to, (fw_u32)size, (const void*)address) == 0) {
      to += size;
    } else if (i == 0 && next <= sp) {
      start = next; /* the red zone begins on a page that was never touched */
    } else {
      break;
    }
    address = next;
  }
  copy->start = start;
  const fw_u64 bytes = to - at - sizeof(*copy);
  if (bytes == 0) return at;
  scratch->sample.stack_bytes = (fw_u32)bytes;
  return to;
}

/* Not inlined: the verifier sees it once by itself. */
__noinline fw_u64 append_stack_at(fw_u32 at) {
  struct scratch* scratch = held_scratch();
  return scratch ? append_stack(scratch, at) : at;
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
  /* Copies have the ring as long as ordinary samples have enough of it. */
  if (scratch->wants_copy && bpf_ringbuf_query(&samples, BPF_RB_AVAIL_DATA) < copy_backlog_bytes) {
    size = append_stack_at((fw_u32)(size - sizeof(struct fw_sample))) + sizeof(struct fw_sample);
    if (size > sizeof(struct fw_sample) + RECORD_TAIL_BYTES) return; /* for the verifier */
  }
  if (bpf_ringbuf_output(&samples, &scratch->sample, size, wake_flags(scratch))) {
    count_loss(FW_LOSS_RING_FULL);
  }
}
