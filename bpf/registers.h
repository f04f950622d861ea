/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The one place that knows the architecture: where a walk of the user stack starts. */
#pragma once

#include "bpf/kernel.h"

#if !defined(__TARGET_ARCH_x86)
#error "add the registers of this architecture here"
#endif

struct user_registers {
  fw_u64 ip;
  fw_u64 sp;
  fw_u64 fp;
  fw_u64 valid;  /* saved by an entry from user mode */
  fw_u64 compat; /* 32-bit code */
};

/* Selectors: arch/x86/include/asm/segment.h. Privilege level in the low two bits. */
#define USER_CODE_32 0x23
#define USER_PRIVILEGE 3
/* x86-64 stacks are 16 KiB (32 under KASAN, which nobody profiles). Only used before 5.15; the 16
 * bytes that FRED kernels leave on top came later. */
#define KERNEL_STACK_SIZE 16384

static __always_inline bool registers_are_user(const struct pt_regs* regs) {
  return (regs->cs & 3) == USER_PRIVILEGE;
}

static __always_inline void take_registers(struct user_registers* out, const struct pt_regs* regs) {
  out->ip = regs->rip;
  out->sp = regs->rsp;
  out->fp = regs->rbp;
  out->valid = registers_are_user(regs);
  out->compat = (regs->cs & 0xffff) == USER_CODE_32;
}

/* The registers that current left user mode with. */
static __always_inline long take_saved_registers(struct user_registers* out,
                                                 struct task_struct* task) {
  struct pt_regs saved;
  const void* address;
  if (HAS_HELPER(task_pt_regs)) { /* 5.15 */
    address = (const void*)bpf_task_pt_regs((void*)bpf_get_current_task_btf());
  } else {
    address = BPF_CORE_READ(task, stack) + KERNEL_STACK_SIZE - sizeof(struct pt_regs);
  }
  const long error = bpf_probe_read_kernel(&saved, sizeof(saved), address);
  if (error) return error;
  take_registers(out, &saved);
  return 0;
}
