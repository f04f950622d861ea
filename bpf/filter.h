/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Whose ticks are kept, decided before any stack is collected. A process in the filter brings its
 * children in: the fork tracepoint runs before the child's first instruction. */
#pragma once

#include "bpf/counters.h"
#include "bpf/kernel.h"
#include "bpf/pid_namespace.h"
#include "bpf/settings.h"

/* Key: process id in the agent's pid namespace. Value: start time of the process's main thread, so
 * that the end of one process never removes the next owner of its number; 0 when user space put it
 * there. User space and the fork program add, the free program deletes. The size is set at load: 1
 * without the filter (a hash that perf programs use must be preallocated before 6.1). When full, a
 * child is not followed and counted. */
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 8192);
  __type(key, fw_u32);
  __type(value, fw_u64);
} wanted_pids SEC(".maps");

#define MAX_WANTED_CGROUPS 64

/* Key: 0 .. wanted_cgroup_count - 1, value: a cgroup v2. User space fills it before the start;
 * nobody deletes. (Comparing bpf_get_current_ancestor_cgroup_id would be quicker with many cgroups,
 * but perf programs do not have that helper on 5.10, and it needs levels that a cgroup namespace
 * hides.) */
struct {
  __uint(type, BPF_MAP_TYPE_CGROUP_ARRAY);
  __uint(max_entries, 1);
  __uint(key_size, sizeof(fw_u32));
  __uint(value_size, sizeof(fw_u32));
} wanted_cgroups SEC(".maps");

/* In one of them, or anywhere below. */
static __always_inline bool current_cgroup_is_wanted(void) {
  for (fw_u32 i = 0; i < MAX_WANTED_CGROUPS; i++) {
    if (i >= wanted_cgroup_count) break;
    if (bpf_current_task_under_cgroup(&wanted_cgroups, i) == 1) return true;
  }
  return false;
}

/* No loss is counted: what the user did not ask for is not lost. */
static __always_inline bool tick_is_wanted(fw_u32 pid) {
  if (excluded_pid != 0 && pid == excluded_pid) return false;
  if (filter_by_pid && !bpf_map_lookup_elem(&wanted_pids, &pid)) return false;
  if (wanted_cgroup_count != 0 && !current_cgroup_is_wanted()) return false;
  return true;
}

static __always_inline void follow_fork(struct task_struct* parent, struct task_struct* child) {
  fw_u32 parent_pid = ids_of(parent).pid;
  if (!bpf_map_lookup_elem(&wanted_pids, &parent_pid)) return;
  fw_u32 child_pid = ids_of(child).pid;
  if (child_pid == parent_pid) return; /* a thread */
  fw_u64 start_time = BPF_CORE_READ(child, start_time);
  if (bpf_map_update_elem(&wanted_pids, &child_pid, &start_time, BPF_ANY) != 0) {
    count_loss(FW_LOSS_FILTER_FULL);
  }
}

/* Called when the task is freed, not when it exits: the teardown of its memory is its own CPU time,
 * and since 6.16 the exit tracepoint comes before that. */
static __always_inline void forget_freed(struct task_struct* task) {
  /* Another thread; or a main thread whose place an exec in another thread has taken. */
  if (BPF_CORE_READ(task, group_leader) != task) return;
  fw_u32 pid = ids_of(task).pid;
  fw_u64* start_time = bpf_map_lookup_elem(&wanted_pids, &pid);
  if (!start_time) return;
  if (*start_time == 0 || *start_time == BPF_CORE_READ(task, start_time)) {
    bpf_map_delete_elem(&wanted_pids, &pid);
  }
}
