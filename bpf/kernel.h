/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The list of kernel fields that Firewatch relies on. Offsets are filled in at load time from the
 * running kernel's BTF (CO-RE), so a page of partial structs does what a 134,000-line vmlinux.h
 * would do, in a tenth of the compile time. */
#pragma once

#include <linux/bpf.h>
#include <linux/bpf_perf_event.h>
#include <stdbool.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "bpf/include/frame.h"

#ifndef NULL
#define NULL ((void*)0)
#endif

#define CORE __attribute__((preserve_access_index))

struct ns_common {
  unsigned int inum;
} CORE;

struct pid_namespace {
  struct ns_common ns;
} CORE;

struct upid {
  int nr;
  struct pid_namespace* ns;
} CORE;

struct pid {
  unsigned int level;
  struct upid numbers[1]; /* level + 1 of them: use bpf_core_field_offset */
} CORE;

struct task_struct {
  unsigned int flags;
  int pid;
  int tgid;
  void* stack;
  unsigned long long start_time;
  struct task_struct* group_leader;
  struct pid* thread_pid;
} CORE;

/* include/linux/sched.h; both values have been the same since 2.6. */
#define PF_KTHREAD 0x00200000

/* Helpers that newer kernels have: the number exists in the kernel's own BTF. The verifier drops
 * the branch where it does not. */
#define HAS_HELPER(name) bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_##name)
