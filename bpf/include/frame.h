/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What crosses from kernel to user space: the 64-bit frame and the sample record.
 * Compiles as BPF C, C and C++. Fixed-width types and explicit padding only. Drawn in
 * docs/formats.md. */
#pragma once

#ifdef __cplusplus
#include <cstddef>
#include <cstdint>
typedef uint64_t fw_u64;
typedef uint32_t fw_u32;
typedef uint16_t fw_u16;
typedef uint8_t fw_u8;
#else
typedef unsigned long long fw_u64;
typedef unsigned int fw_u32;
typedef unsigned short fw_u16;
typedef unsigned char fw_u8;
#endif

/* A frame: kind in the top 4 bits, chosen so that an address as the kernel gives it is already a
 * frame and the hot path converts nothing.
 *   USER    the user address (top bits are zeros); the mapping is looked up in user space
 *   FILE    20 bits file id, 40 bits file offset (where the kernel side knows the mapped file)
 * In both, a return address is one less, so that it lies inside its call; the interrupted
 * instruction (the leaf, and the frame that a signal interrupted) is as it is.
 *   KERNEL  the kernel address (top bits are ones); the payload is its low 60 bits
 */
#define FW_FRAME_KIND_SHIFT 60
#define FW_FRAME_USER 0ull
#define FW_FRAME_FILE 3ull
#define FW_FRAME_KERNEL 15ull
#define FW_FRAME_PAYLOAD_MASK ((1ull << FW_FRAME_KIND_SHIFT) - 1)
#define FW_FRAME_FILE_OFFSET_BITS 40

/* Limits that both sides rely on. 127 is the kernel's own default (perf_event_max_stack). */
#define FW_MAX_KERNEL_FRAMES 127
#define FW_MAX_USER_FRAMES 1024
#define FW_COMM_SIZE 16

/* How a user stack ended. X(constant, metric label). */
#define FW_STACK_ENDS(X)                                                                           \
  X(NONE, "no_user_stack") /* kernel thread, or nothing to walk */                                 \
  X(ROOT, "root")          /* a proven root */                                                     \
  X(FRAME_POINTER,                                                                                 \
    "frame_pointer_end")            /* frame pointer 0 or not a stack address: end of the chain */ \
  X(TRUNCATED, "truncated")         /* frame limit reached */                                      \
  X(BAD_READ, "bad_read")           /* stack memory was not readable */                            \
  X(NO_TABLE, "no_table")           /* the file's unwind table is not loaded (yet) */              \
  X(NO_REGISTERS, "no_registers")   /* the user registers were not to be had */                    \
  X(COMPAT, "compat_32bit")         /* a 32-bit process: the leaf only */                          \
  X(NO_RULE, "no_rule")             /* the file's table has no row for an address */               \
  X(NO_MAPPING, "no_mapping")       /* an address in no file: JIT code, or nothing at all */       \
  X(NOT_ADVANCING, "not_advancing") /* the caller's frame is not above: broken CFI or stack */     \
  X(NO_MEMORY, "memory_gone")       /* in exec or exit: the user stack no longer exists */

enum fw_stack_end {
#define FW_STACK_END_ENUM(constant, name) FW_STACK_END_##constant,
  FW_STACK_ENDS(FW_STACK_END_ENUM)
#undef FW_STACK_END_ENUM
      FW_STACK_END_COUNT
};

#define FW_SAMPLE_VERSION 2

/* One ring-buffer record: this header, then kernel_frames and user_frames 64-bit frames, each leaf
 * first, kernel before user, then file_notes notes, then, with stack_bytes, a struct fw_stack_copy
 * and so many bytes of stack. header_size lets an older reader skip fields it does not know. */
struct fw_sample {
  fw_u16 version;
  fw_u16 header_size;
  fw_u16 kernel_frames;
  fw_u16 user_frames;
  fw_u64 time_ns;   /* CLOCK_MONOTONIC */
  fw_u64 cgroup_id; /* cgroup v2 id; 0 when unknown */
  fw_u32 pid;       /* process (thread group), in the agent's pid namespace; 0: not visible there */
  fw_u32 tid;
  fw_u32 cpu;
  fw_u8 stack_end;  /* enum fw_stack_end of the user part */
  fw_u8 flags;      /* FW_SAMPLE_* */
  fw_u8 file_notes; /* number of struct fw_file_note */
  fw_u8 padding;
  char comm[FW_COMM_SIZE]; /* of the thread, NUL-padded */
  fw_u32 stack_bytes;      /* 0: no copy of the stack. Not there when header_size is 56 */
  fw_u32 padding2;
};
/* As written before there were copies of stacks. */
#define FW_SAMPLE_HEADER_MIN 56

#define FW_SAMPLE_KERNEL_TRUNCATED 1
#define FW_SAMPLE_IN_KERNEL 2     /* the tick hit kernel mode */
#define FW_SAMPLE_KERNEL_THREAD 4 /* no user memory at all */

/* A mapping met in this sample whose file the kernel side does not know: its frames are USER
 * frames. User space finds the file in its process table and answers with an entry in known_files.
 */
struct fw_file_note {
  fw_u64 start; /* of the mapping, user address */
  fw_u64 end;
  fw_u64 file_offset;   /* of start */
  fw_u64 inode_address; /* these four: struct fw_file_key of unwind_table.h */
  fw_u64 inode;
  fw_u32 device;
  fw_u32 generation;
};
#define FW_MAX_FILE_NOTES 8

/* What user space needs to walk the user stack of this moment itself, because a file that the walk
 * met had no table yet. */
struct fw_stack_copy {
  fw_u64 ip;
  fw_u64 registers[16]; /* by DWARF number: unwind_table.h */
  fw_u64 start;         /* address of the first byte that follows; its end is a page's end */
};
/* Whole pages, the first one cut: 16 KiB at least, where the stack has them. */
#define FW_STACK_COPY_PAGES 5
#define FW_STACK_COPY_BYTES_MAX (FW_STACK_COPY_PAGES * 4096)
/* Below the stack pointer is the red zone, and what an epilogue has just popped: its rule may still
 * refer to it. */
#define FW_RED_ZONE_BYTES 128

#ifdef __cplusplus
static_assert(sizeof(fw_sample) == 64 && sizeof(fw_file_note) == 48 &&
              offsetof(fw_sample, stack_bytes) == FW_SAMPLE_HEADER_MIN &&
              sizeof(fw_stack_copy) == 144 && offsetof(fw_sample, comm) == 40);
#else
_Static_assert(sizeof(struct fw_sample) == 64, "fw_sample is shared with user space");
_Static_assert(sizeof(struct fw_file_note) == 48, "shared with user space");
#endif
