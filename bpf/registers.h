/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The one place that knows the architecture: where a walk of the user stack starts. */
#pragma once

#include "bpf/kernel.h"
#include "bpf/unwind.h"

#if !defined(__TARGET_ARCH_x86)
#error "add the registers of this architecture here"
#endif

struct user_registers {
  bool valid;   /* saved by an entry from user mode */
  bool compat;  /* 32-bit code */
  bool in_exec; /* user mode was left with execve or execveat */
};

/* Selectors: arch/x86/include/asm/segment.h. Privilege level in the low two bits. */
#define USER_CODE_32 0x23
/* orig_rax in a system call (arch/x86/entry/syscalls/syscall_64.tbl). After an exception it is an
 * error code; these two are none of a page fault: the user bit is not in them. */
#define SYSCALL_EXECVE 59
#define SYSCALL_EXECVEAT 322
#define USER_PRIVILEGE 3
/* x86-64 stacks are 16 KiB (32 under KASAN, which nobody profiles). Only used before 5.15; the 16
 * bytes that FRED kernels leave on top came later. */
#define KERNEL_STACK_SIZE 16384

static __always_inline bool registers_are_user(const struct pt_regs* regs) {
  return (regs->cs & 3) == USER_PRIVILEGE;
}

/* All of them go into the walk: a rule may begin with any. After a system call entry rcx and r11
 * are the ones that it overwrote, for the program, too. */
static __always_inline struct user_registers take_registers(struct fw_walk* walk,
                                                            const struct pt_regs* regs) {
  fw_u64* to = walk->registers;
  walk->ip = regs->rip;
  to[FW_REGISTER_RAX] = regs->rax;
  to[FW_REGISTER_RDX] = regs->rdx;
  to[FW_REGISTER_RCX] = regs->rcx;
  to[FW_REGISTER_RBX] = regs->rbx;
  to[FW_REGISTER_RSI] = regs->rsi;
  to[FW_REGISTER_RDI] = regs->rdi;
  to[FW_REGISTER_RBP] = regs->rbp;
  to[FW_REGISTER_RSP] = regs->rsp;
  to[8] = regs->r8;
  to[9] = regs->r9;
  to[10] = regs->r10;
  to[11] = regs->r11;
  to[12] = regs->r12;
  to[13] = regs->r13;
  to[14] = regs->r14;
  to[15] = regs->r15;
  return (struct user_registers){.valid = registers_are_user(regs),
                                 .compat = (regs->cs & 0xffff) == USER_CODE_32,
                                 .in_exec = false};
}

/* The registers that current left user mode with. */
static __always_inline long take_saved_registers(struct fw_walk* walk, struct task_struct* task,
                                                 struct user_registers* out) {
  /* In the walk's buffer, which is not used yet: the 168 bytes would bring the stacks of tick, step
   * and look-up to 576, and kernels up to 6.1 allow 512 together. */
  struct pt_regs* saved = (void*)walk->chunk;
  _Static_assert(sizeof(*saved) <= sizeof(walk->chunk), "the buffer holds them");
  const void* address;
  if (HAS_HELPER(task_pt_regs)) { /* 5.15 */
    address = (const void*)bpf_task_pt_regs((void*)bpf_get_current_task_btf());
  } else {
    address = BPF_CORE_READ(task, stack) + KERNEL_STACK_SIZE - sizeof(struct pt_regs);
  }
  const long error = bpf_probe_read_kernel(saved, sizeof(*saved), address);
  if (error) return error;
  const fw_u64 call = saved->orig_rax;
  *out = take_registers(walk, saved);
  out->in_exec = call == SYSCALL_EXECVE || call == SYSCALL_EXECVEAT;
  return 0;
}
