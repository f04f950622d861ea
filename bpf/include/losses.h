/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Everything that can be lost between a timer's tick and a stored profile, by name. One list for
 * the kernel and for user space: the BPF program adds to the slot, the agent shows the name in
 * /metrics and in every upload. A new early exit anywhere gets a new line here. Order is the wire
 * order of the per-CPU counter array: append, never reorder.
 *
 * X(constant, metric label, what a user reads)
 */
#pragma once

#define FW_LOSSES(X)                                                                              \
  X(RING_FULL, "ring_full", "samples dropped: the ring buffer to user space was full")            \
  X(SCRATCH_BUSY, "scratch_busy", "samples dropped: a sample interrupted another on one CPU")     \
  X(KERNEL_STACK_FAILED, "kernel_stack_failed", "samples without kernel frames: the walk failed") \
  X(USER_READ_FAILED, "user_read_failed", "user stacks cut short: a stack page was not readable") \
  X(USER_TRUNCATED, "user_truncated", "user stacks cut at the frame limit")                       \
  X(NO_USER_REGISTERS, "no_user_registers", "samples without user frames: registers not found")   \
  X(SIDEBAND_LOST, "sideband_lost", "process events that the kernel dropped")                     \
  X(RECORD_MALFORMED, "record_malformed", "samples dropped: the record did not parse")            \
  X(PROCESS_UNKNOWN, "process_unknown", "samples of a process that was gone before it was met")   \
  X(PROCESS_TABLE_FULL, "process_table_full", "processes not followed: the table was full")       \
  X(WINDOW_STACKS_FULL, "window_stacks_full", "samples kept without their stack: window full")    \
  X(FILE_UNREADABLE, "file_unreadable", "files not symbolized: could not be opened")              \
  X(FILE_REFUSED, "file_refused", "files not symbolized: not a usable ELF file")                  \
  X(SPOOL_DROPPED, "spool_dropped", "windows dropped: the spool on disk was full")                \
  X(UPLOAD_REFUSED, "upload_refused", "windows that the server refused for good")                 \
  X(FILTER_FULL, "filter_full", "children not followed: the filter by process was full")          \
  X(PID_NOT_VISIBLE, "pid_not_visible", "samples without a pid: outside the agent's namespace")   \
  X(SPOOL_DAMAGED, "spool_damaged", "windows dropped: their file in the spool was damaged")       \
  X(MAPPINGS_FULL, "mappings_full", "mappings not followed: the process had too many")            \
  X(TABLE_REFUSED, "table_refused", "files without unwind table: their CFI could not be read")    \
  X(TABLE_EVICTED, "table_evicted", "unwind tables put out of the kernel: over the memory limit") \
  X(TABLE_NO_ROOM, "table_no_room", "unwind tables not loaded: over the memory limit")            \
  X(FILES_FULL, "files_full", "files not known to the kernel side: its map was full")

enum fw_loss {
#define FW_LOSS_ENUM(constant, name, text) FW_LOSS_##constant,
  FW_LOSSES(FW_LOSS_ENUM)
#undef FW_LOSS_ENUM
      FW_LOSS_COUNT
};
