/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Who a task is: captured in the kernel, at the moment of the call, because a process of one
 * millisecond is gone before user space could ask. */
#pragma once

#include "bpf/network_counters.h"
#include "bpf/network_kernel.h"
#include "bpf/pid_namespace.h"

/* Key: one life of a process; value: what it is called. The programs add at the first call that
 * opens or ends a connection; the least recently used goes when it is full. User space reads. */
struct {
  __uint(type, BPF_MAP_TYPE_LRU_HASH);
  __uint(max_entries, 8192);
  __type(key, struct fw_net_owner);
  __type(value, struct fw_net_process);
} processes SEC(".maps");

static __always_inline struct fw_net_owner owner_of(struct task_struct* task) {
  struct task_struct* leader = BPF_CORE_READ(task, group_leader);
  return (struct fw_net_owner){.tgid = (fw_u32)BPF_CORE_READ(task, tgid),
                               .exec_id = (fw_u32)BPF_CORE_READ(leader, self_exec_id),
                               .start_ns = BPF_CORE_READ(leader, start_time)};
}

/* A process closes its descriptors when it has given up its memory already. A child that has
 * executed nothing runs the program of its parent. */
static __always_inline struct file* exe_file_of(struct task_struct* leader) {
  struct file* file = BPF_CORE_READ(leader, mm, exe_file);
  if (file) return file;
  const fw_u64 exec_id = BPF_CORE_READ(leader, self_exec_id);
  struct task_struct* parent = BPF_CORE_READ(leader, real_parent, group_leader);
  if (BPF_CORE_READ(leader, parent_exec_id) != exec_id ||
      BPF_CORE_READ(parent, self_exec_id) != exec_id) {
    return NULL;
  }
  return BPF_CORE_READ(parent, mm, exe_file);
}

/* Returns the owner; all zero for kernel threads. */
static __always_inline struct fw_net_owner meet_process(struct task_struct* task) {
  struct fw_net_owner owner = {};
  if (BPF_CORE_READ(task, flags) & PF_KTHREAD) return owner;
  owner = owner_of(task);
  if (bpf_map_lookup_elem(&processes, &owner)) return owner;
  struct fw_net_process process = {};
  struct task_struct* leader = BPF_CORE_READ(task, group_leader);
  process.pid = ids_of(task).pid;
  process.cgroup_id = BPF_CORE_READ(task, cgroups, dfl_cgrp, kn, id);
  BPF_CORE_READ_INTO(&process.comm, leader, comm);
  struct file* file = exe_file_of(leader);
  if (file) {
    process.exe_inode = BPF_CORE_READ(file, f_inode, i_ino);
    process.exe_device = BPF_CORE_READ(file, f_inode, i_sb, s_dev);
    bpf_probe_read_kernel_str(process.exe_name, sizeof(process.exe_name),
                              BPF_CORE_READ(file, f_path.dentry, d_name.name));
  }
  if (bpf_map_update_elem(&processes, &owner, &process, BPF_ANY)) {
    count_net_loss(FW_NET_LOSS_PROCESSES_FULL);
  }
  return owner;
}

static __always_inline struct fw_net_owner meet_current(void) {
  return meet_process((struct task_struct*)bpf_get_current_task());
}
