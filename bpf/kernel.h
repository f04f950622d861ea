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

struct super_block {
  unsigned int s_dev;
  unsigned long s_magic;
} CORE;

struct timespec64 {
  long long tv_sec;
  long tv_nsec;
} CORE;

struct inode {
  unsigned short i_mode;
  unsigned long i_ino;
  unsigned int i_generation;
  struct super_block* i_sb;
  long long i_ctime_sec; /* since 6.11, with the next one */
  unsigned int i_ctime_nsec;
  struct timespec64 __i_ctime; /* 6.6 to 6.10 */
  struct timespec64 i_ctime;   /* until 6.5 */
} CORE;

struct qstr {
  const unsigned char* name;
} CORE;

struct dentry {
  struct qstr d_name;
} CORE;

struct path {
  struct dentry* dentry;
} CORE;

struct file {
  struct inode* f_inode;
  struct path f_path;
  void* private_data;
} CORE;

struct rb_node {
  struct rb_node* rb_right;
  struct rb_node* rb_left;
} CORE;

struct rb_root {
  struct rb_node* rb_node;
} CORE;

/* vm_start and vm_end are neighbours on every kernel (the first two words). */
struct vm_area_struct {
  unsigned long vm_start;
  unsigned long vm_end;
  unsigned long vm_flags;
  unsigned long vm_pgoff;
  struct file* vm_file;
  struct rb_node vm_rb; /* until 6.0 */
} CORE;

/* include/linux/mm.h: the same since there is a git history. */
#define VM_EXEC 0x4

/* The tree of mappings since 6.1; bits of an entry: lib/maple_tree.c, include/linux/maple_tree.h.
 */
struct maple_tree {
  void* ma_root;
} CORE;

struct maple_range_64 {
  unsigned long pivot[15];
  void* slot[16];
} CORE;

struct maple_arange_64 {
  unsigned long pivot[9];
  void* slot[10];
} CORE;

typedef struct {
  void* vdso;
} CORE mm_context_t; /* x86 */

typedef struct seqcount {
  unsigned int sequence;
} CORE seqcount_t;

/* mm_lock_seq changes with every change of the mappings (CONFIG_PER_VMA_LOCK, include/linux/
 * mmap_lock.h): since 6.13 before it (odd) and behind it (even), from 6.4 to 6.12 behind it. */
struct mm_struct___number {
  int mm_lock_seq;
} CORE;

struct mm_struct {
  seqcount_t mm_lock_seq;  /* since 6.13 */
  struct maple_tree mm_mt; /* since 6.1 */
  struct rb_root mm_rb;    /* until 6.0 */
  mm_context_t context;
  unsigned long start_code; /* 0 until exec has loaded the program */
  struct file* exe_file;
} CORE;

struct kernfs_node {
  unsigned long long id;
} CORE;

struct cgroup {
  struct kernfs_node* kn;
} CORE;

struct css_set {
  struct cgroup* dfl_cgrp;
} CORE;

struct task_struct {
  unsigned int flags;
  int pid;
  int tgid;
  void* stack;
  struct mm_struct* mm;
  unsigned long long start_time;
  struct task_struct* group_leader;
  struct pid* thread_pid;
  unsigned long long self_exec_id;   /* counts what this process has executed */
  unsigned long long parent_exec_id; /* the parent's at the fork: u32 until 5.6, as the one above */
  struct task_struct* real_parent;
  struct css_set* cgroups;
  char comm[16];
} CORE;

/* include/linux/sched.h; both values have been the same since 2.6. */
#define PF_KTHREAD 0x00200000

struct xdp_buff {
  unsigned int flags; /* enum xdp_buff_flags, since 5.18 */
} CORE;
#define XDP_FLAGS_HAS_FRAGS 1u

/* Since 6.2: the context of a program as the kernel has it. */
extern void* bpf_cast_to_kern_ctx(void* context) __ksym __weak;

/* Helpers that newer kernels have: the number exists in the kernel's own BTF. The verifier drops
 * the branch where it does not. */
#define HAS_HELPER(name) bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_##name)
