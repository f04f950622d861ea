/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What user space decides before the program is loaded. Read-only data: the verifier knows the
 * values and drops the branches that they rule out, so a switched-off filter costs nothing. (The
 * skeleton repeats these types in user space, hence __u8, __u32, __u64.) */
#pragma once

#include "bpf/kernel.h"

const volatile __u8 filter_by_pid = 0;
/* Slots of wanted_cgroups that are used; 0: every cgroup. */
const volatile __u32 wanted_cgroup_count = 0;
/* 0: none. In the agent's pid namespace. */
const volatile __u32 excluded_pid = 0;
/* 0: frame pointers only; files still get their ids. */
const volatile __u8 use_tables = 1;
/* A reader is woken when so many bytes wait for it, or when it was woken so long ago. */
const volatile __u64 wake_backlog_bytes = 64 * 1024;
const volatile __u64 wake_interval_ns = 2000000000;
/* While less than this waits, a sample that met a file without a table takes its stack along. */
const volatile __u64 copy_backlog_bytes = 128 * 1024;
/* A sample with the first note on a file wakes at once, but not more often than this. */
const volatile __u64 note_wake_interval_ns = 5000000;
