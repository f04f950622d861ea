/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The CPU sampler. A tick of a timer or of the cycle counter comes in, one record goes out:
 *
 *   skip idle -> filter (filter.h) -> kernel stack -> user registers (registers.h)
 *   -> user stack (user_stack.h) -> record (output.h)
 *
 * Unwinding by tables made from .eh_frame will stand beside the frame-pointer walk: one more
 * header, and frames of kind FILE. Features are chosen when the object is loaded: user space sets
 * read-only data (settings.h) and loads one of the two ticks.
 */
#include "bpf/counters.h"
#include "bpf/filter.h"
#include "bpf/kernel.h"
#include "bpf/pid_namespace.h"
#include "bpf/registers.h"
#include "bpf/settings.h"

static __always_inline long fw_read_user(void* to, fw_u32 size, fw_u64 address) {
  return bpf_probe_read_user(to, size, (const void*)address);
}
#include "bpf/output.h"
#include "bpf/user_stack.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define STEPS_PER_CALL 8

/* Not static: the verifier then checks this function once, by itself, and not again at each of its
 * 129 calls. As one loop of 257 steps inside the tick, the walk took 203,203 verified instructions
 * on 6.18; so 1,024 steps take 7,264, and no kernel needs bpf_loop (5.17) for them. No arguments,
 * because before 5.13 those of a global function cannot be pointers. */
__noinline long walk_some_steps(void) {
  fw_u32 zero = 0;
  struct scratch* scratch = bpf_map_lookup_elem(&scratches, &zero);
  if (!scratch) return 1;
  for (int i = 0; i < STEPS_PER_CALL; i++) {
    if (fw_walk_step(&scratch->walk, scratch->frames)) return 1;
  }
  return 0;
}

/* The walk ends by itself, at the latest when a frame is over the limit; the number of steps only
 * has to be large enough for that. */
static __always_inline void walk_user_stack(void) {
  for (int i = 0; i <= FW_MAX_USER_FRAMES / STEPS_PER_CALL; i++) {
    if (walk_some_steps()) return;
  }
}

static __always_inline fw_u32 collect_kernel_stack(void* ctx, struct scratch* scratch) {
  const long bytes = bpf_get_stack(ctx, scratch->frames, FW_MAX_KERNEL_FRAMES * sizeof(fw_u64), 0);
  if (bytes < 0) {
    count_loss(FW_LOSS_KERNEL_STACK_FAILED);
    return 0;
  }
  const fw_u32 count = (fw_u32)bytes / sizeof(fw_u64);
  if (count >= FW_MAX_KERNEL_FRAMES) scratch->sample.flags |= FW_SAMPLE_KERNEL_TRUNCATED;
  return count;
}

/* The registers of user mode: those of the tick, or those that the kernel was entered with. False
 * when there are none; the sample then says why. */
static __always_inline bool find_user_registers(const struct pt_regs* tick, struct scratch* scratch,
                                                struct user_registers* out) {
  struct fw_sample* sample = &scratch->sample;
  if (tick && registers_are_user(tick)) {
    take_registers(out, tick);
    return true;
  }
  struct task_struct* task = (struct task_struct*)bpf_get_current_task();
  if (BPF_CORE_READ(task, flags) & PF_KTHREAD) {
    sample->flags |= FW_SAMPLE_KERNEL_THREAD;
    return false;
  }
  if (take_saved_registers(out, task)) {
    sample->stack_end = FW_STACK_END_NO_REGISTERS;
    count_loss(FW_LOSS_NO_USER_REGISTERS);
    return false;
  }
  /* A worker thread of io_uring or vhost has a process but never was in user mode. */
  return out->valid;
}

static __always_inline void collect_user_stack(struct scratch* scratch,
                                               const struct user_registers* registers) {
  struct fw_sample* sample = &scratch->sample;
  const fw_u32 first = sample->kernel_frames;
  const bool done = fw_walk_begin(&scratch->walk, scratch->frames, first, FW_MAX_USER_FRAMES,
                                  registers->ip, registers->sp, registers->fp);
  if (registers->compat) {
    sample->stack_end = FW_STACK_END_COMPAT;
  } else {
    if (!done) walk_user_stack();
    sample->stack_end = (fw_u8)scratch->walk.end;
  }
  sample->user_frames = (fw_u16)(scratch->walk.next - first);
  if (sample->stack_end == FW_STACK_END_TRUNCATED) count_loss(FW_LOSS_USER_TRUNCATED);
  if (sample->stack_end == FW_STACK_END_BAD_READ) count_loss(FW_LOSS_USER_READ_FAILED);
}

static __always_inline void begin_sample(struct scratch* scratch, struct task_ids ids,
                                         bool in_kernel) {
  struct fw_sample* sample = &scratch->sample;
  sample->version = FW_SAMPLE_VERSION;
  sample->header_size = sizeof(*sample);
  sample->kernel_frames = 0;
  sample->user_frames = 0;
  sample->time_ns = bpf_ktime_get_ns();
  sample->cgroup_id = bpf_get_current_cgroup_id();
  sample->pid = ids.pid;
  sample->tid = ids.tid;
  sample->cpu = bpf_get_smp_processor_id();
  sample->stack_end = FW_STACK_END_NONE;
  sample->flags = in_kernel ? FW_SAMPLE_IN_KERNEL : 0;
  bpf_get_current_comm(sample->comm, sizeof(sample->comm));
}

static __always_inline int take_sample(void* ctx, const struct pt_regs* regs) {
  if (bpf_get_current_pid_tgid() == 0) return 0; /* idle, on cycle counters that ignore the flag */
  const struct task_ids ids = current_ids();
  if (!tick_is_wanted(ids.pid)) return 0;
  if (ids.pid == 0) count_loss(FW_LOSS_PID_NOT_VISIBLE);

  struct scratch* scratch = take_scratch();
  if (!scratch) return 0;
  const bool in_kernel = !regs || !registers_are_user(regs);
  begin_sample(scratch, ids, in_kernel);
  if (in_kernel) scratch->sample.kernel_frames = (fw_u16)collect_kernel_stack(ctx, scratch);
  struct user_registers registers;
  if (find_user_registers(regs, scratch, &registers)) {
    collect_user_stack(scratch, &registers);
  }
  send_sample(scratch, (fw_u32)scratch->sample.kernel_frames + scratch->sample.user_frames);
  release_scratch(scratch);
  return 0;
}

SEC("perf_event")
int tick(struct bpf_perf_event_data* ctx) { return take_sample(ctx, &ctx->regs); }

/* perf_event programs cannot be test-run (-524): the same body for BPF_PROG_TEST_RUN, which finds
 * the caller in the kernel, inside its bpf system call. */
SEC("raw_tp")
int test_tick(void* ctx) { return take_sample(ctx, NULL); }

/* Loaded only while a filter by process is set. */
SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_fork, struct task_struct* parent, struct task_struct* child) {
  follow_fork(parent, child);
  return 0;
}

SEC("tp_btf/sched_process_free")
int BPF_PROG(on_free, struct task_struct* task) {
  forget_freed(task);
  return 0;
}
