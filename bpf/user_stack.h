/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The walk of a user stack by frame pointers. Pure: memory is read through one hook, so the same
 * text compiles into the BPF program and into a host unit test under sanitizers. Whoever includes
 * this defines, before:
 *
 *   static long fw_read_user(void *to, fw_u32 size, fw_u64 address);   0, or an error
 *
 * A frame record is two words: [fp] is the caller's fp, [fp + 8] the return address. The obvious
 * walk reads 16 bytes per frame; each read is a helper call and, in a sample that comes 99 times a
 * second, a chain of cache misses where each address is known only after the miss before. So the
 * stack is copied by the kilobyte (the misses overlap, the prefetcher helps) and several frames are
 * followed inside one copy.
 */
#pragma once

#include "bpf/include/frame.h"

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

/* A power of two. 256 and 512 were slower, see bpf/README.md. */
#define FW_CHUNK_BYTES 1024
#define FW_FRAME_RECORD_BYTES 16
#define FW_PAGE_BYTES 4096
/* Below: the zero page that no process maps. Above: never user memory, with 5-level paging, too. */
#define FW_USER_ADDRESS_MIN 4096ull
#define FW_USER_ADDRESS_END (1ull << 56)

/* State of one walk. It lives in a map value: the walk is a function of its own in BPF, and the
 * chunk is larger than a BPF stack. */
struct fw_walk {
  fw_u64 fp;     /* the next frame record */
  fw_u64 lowest; /* of all records so far */
  fw_u64 chunk_start;
  fw_u32 chunk_size; /* 0: no chunk yet */
  fw_u32 next;       /* index of the next frame in the output */
  fw_u32 limit;      /* index that must not be written */
  fw_u32 end;        /* enum fw_stack_end; NONE while walking */
  /* The tail lets the verifier see that a record that begins at any masked offset fits. */
  fw_u8 chunk[FW_CHUNK_BYTES + FW_FRAME_RECORD_BYTES];
};

/* Output of up to FW_WALK_FRAMES frames; `next` and `limit` are indices into it. */
#define FW_WALK_FRAMES (FW_MAX_KERNEL_FRAMES + FW_MAX_USER_FRAMES)

/* Copies from fp up to the chunk size or to the end of the page: a page is there or is not, so a
 * read never fails because of what lies behind the stack. */
static __always_inline long fw_fill_chunk(struct fw_walk* walk, fw_u64 fp) {
  fw_u64 size = FW_PAGE_BYTES - (fp & (FW_PAGE_BYTES - 1));
  if (size > FW_CHUNK_BYTES) size = FW_CHUNK_BYTES;
  /* The record straddles two pages. */
  if (size < FW_FRAME_RECORD_BYTES) size = FW_FRAME_RECORD_BYTES;
  walk->chunk_start = fp;
  walk->chunk_size = (fw_u32)size;
  return fw_read_user(walk->chunk, (fw_u32)size, fp);
}

/* Follows one record. 1 ends the walk. */
static __always_inline long fw_walk_step(struct fw_walk* walk, fw_u64* frames) {
  const fw_u64 fp = walk->fp;
  fw_u64 offset = fp - walk->chunk_start;
  /* Unsigned: a record below the chunk is far above its end. */
  if (offset + FW_FRAME_RECORD_BYTES > walk->chunk_size || offset > walk->chunk_size) {
    if (fw_fill_chunk(walk, fp) != 0) {
      walk->end = FW_STACK_END_BAD_READ;
      return 1;
    }
    offset = 0;
  }
  offset &= FW_CHUNK_BYTES - 1;
  const fw_u64 next_fp = *(const fw_u64*)(walk->chunk + offset);
  const fw_u64 return_address = *(const fw_u64*)(walk->chunk + offset + 8);

  if (return_address - FW_USER_ADDRESS_MIN >= FW_USER_ADDRESS_END - FW_USER_ADDRESS_MIN) {
    walk->end = FW_STACK_END_FRAME_POINTER;
    return 1;
  }
  const fw_u32 next = walk->next;
  if (next >= walk->limit || next >= FW_WALK_FRAMES) {
    walk->end = FW_STACK_END_TRUNCATED;
    return 1;
  }
  frames[next] = return_address - 1; /* inside the call: frame.h */
  walk->next = next + 1;

  /* A caller's record stands above its callee's on one stack. Another stack (a signal handler's, a
   * coroutine's) may lie lower, but then below everything seen: what leads back into walked memory
   * is a circle. */
  if (next_fp <= fp) {
    if (next_fp >= walk->lowest) {
      walk->end = FW_STACK_END_FRAME_POINTER;
      return 1;
    }
    walk->lowest = next_fp;
  }
  if ((next_fp & 7) != 0 ||
      next_fp - FW_USER_ADDRESS_MIN >= FW_USER_ADDRESS_END - FW_USER_ADDRESS_MIN) {
    walk->end = FW_STACK_END_FRAME_POINTER;
    return 1;
  }
  walk->fp = next_fp;
  return 0;
}

/* Writes the leaf and gets ready. 1 when there is nothing to follow: `fp` is no frame pointer. */
static __always_inline long fw_walk_begin(struct fw_walk* walk, fw_u64* frames, fw_u32 first,
                                          fw_u32 limit, fw_u64 ip, fw_u64 sp, fw_u64 fp) {
  walk->fp = fp;
  walk->lowest = fp;
  walk->chunk_size = 0;
  walk->chunk_start = 0;
  walk->limit = first + limit;
  walk->next = first;
  walk->end = FW_STACK_END_NONE;
  if (first >= FW_WALK_FRAMES) return 1;
  frames[first] = ip;
  walk->next = first + 1;
  /* Code built without frame pointers keeps anything in that register, most often a small number or
   * a heap address below the stack. */
  if (fp < sp || (fp & 7) != 0 ||
      fp - FW_USER_ADDRESS_MIN >= FW_USER_ADDRESS_END - FW_USER_ADDRESS_MIN) {
    walk->end = FW_STACK_END_FRAME_POINTER;
    return 1;
  }
  return 0;
}
