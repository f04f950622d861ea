/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Pids as the agent's pid namespace numbers them. bpf_get_ns_current_pid_tgid is no help: it fails
 * for a process in a namespace below the agent's, that is for every container. */
#pragma once

#include "bpf/kernel.h"

/* The inode number of the agent's pid namespace; 0: the initial one, where every pid is itself. */
const volatile __u32 pid_namespace = 0;

#define MAX_PID_NAMESPACE_LEVEL 32 /* MAX_PID_NS_LEVEL, linux/pid_namespace.h */

/* 0 when the agent's namespace does not see the task. */
static __always_inline fw_u32 number_in_agent_namespace(struct pid* pid) {
  const fw_u32 level = BPF_CORE_READ(pid, level);
  const void* numbers = (const void*)pid + bpf_core_field_offset(struct pid, numbers);
  for (fw_u32 i = 0; i < MAX_PID_NAMESPACE_LEVEL; i++) {
    if (i > level) break;
    const struct upid* upid = numbers + i * bpf_core_type_size(struct upid);
    if (BPF_CORE_READ(upid, ns, ns.inum) == pid_namespace) return (fw_u32)BPF_CORE_READ(upid, nr);
  }
  return 0;
}

struct task_ids {
  fw_u32 pid;
  fw_u32 tid;
};

static __always_inline struct task_ids ids_of(struct task_struct* task) {
  if (pid_namespace == 0) {
    return (struct task_ids){.pid = (fw_u32)BPF_CORE_READ(task, tgid),
                             .tid = (fw_u32)BPF_CORE_READ(task, pid)};
  }
  return (struct task_ids){
      .pid = number_in_agent_namespace(BPF_CORE_READ(task, group_leader, thread_pid)),
      .tid = number_in_agent_namespace(BPF_CORE_READ(task, thread_pid))};
}

static __always_inline struct task_ids current_ids(void) {
  const fw_u64 both = bpf_get_current_pid_tgid();
  if (pid_namespace == 0) return (struct task_ids){.pid = both >> 32, .tid = (fw_u32)both};
  return ids_of((struct task_struct*)bpf_get_current_task());
}
