/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The CPU sampler. A tick of a timer or of the cycle counter comes in, one record goes out:
 *
 *   skip idle -> filter (filter.h) -> kernel stack -> user registers (registers.h)
 *   -> user stack (unwind.h; mapping.h: which file; unwind_maps.h: its table) -> record (output.h)
 *
 * Features are chosen when the object is loaded: user space sets read-only data (settings.h) and
 * loads one of the two ticks.
 */
#include "bpf/counters.h"
#include "bpf/filter.h"
#include "bpf/kernel.h"
#include "bpf/pid_namespace.h"
#include "bpf/settings.h"

/* Parts of the walk that are functions of their own. Not static: the verifier then checks each once
 * by itself, and not again at each call. No arguments, because before 5.13 those of a global
 * function cannot be pointers. No bpf_loop (5.17) is needed. */
long find_mapping(void);
long search_rule(void);
long rare_step(void);
#define FW_USE_TABLES use_tables
#define FW_FIND_MAPPING(walk) find_mapping()
#define FW_SEARCH_RULE(walk) search_rule()
#define FW_RARE_STEP(walk) rare_step()
struct fw_walk;
struct fw_mapping;
static __always_inline void meet_again(struct fw_walk* walk, struct fw_mapping* mapping);
#define FW_MEET_AGAIN(walk, mapping) meet_again(walk, mapping)
#include "bpf/mapping.h"
#include "bpf/output.h"
#include "bpf/registers.h"
#include "bpf/unwind.h"
#include "bpf/unwind_maps.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static __always_inline long fw_read_user(void* to, fw_u32 size, fw_u64 address) {
  return bpf_probe_read_user(to, size, (const void*)address);
}

__noinline long find_mapping(void) {
  struct scratch* scratch = held_scratch();
  return scratch ? fw_find_mapping(&scratch->walk) : 1;
}

__noinline long search_rule(void) {
  struct scratch* scratch = held_scratch();
  return scratch ? fw_search_rule(&scratch->walk) : 1;
}

__noinline long rare_step(void) {
  struct scratch* scratch = held_scratch();
  return scratch ? fw_rare_step(&scratch->walk) : 1;
}

#define STEPS_PER_CALL 8

__noinline long walk_some_steps(void) {
  struct scratch* scratch = held_scratch();
  if (!scratch) return 1;
  struct fw_rule_cache* cache = fw_rule_cache_here();
  for (int i = 0; i < STEPS_PER_CALL; i++) {
    if (fw_walk_step(&scratch->walk, scratch->frames, cache)) return 1;
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
    *out = take_registers(&scratch->walk, tick);
    return true;
  }
  struct task_struct* task = (struct task_struct*)bpf_get_current_task();
  if (BPF_CORE_READ(task, flags) & PF_KTHREAD) {
    sample->flags |= FW_SAMPLE_KERNEL_THREAD;
    return false;
  }
  if (take_saved_registers(&scratch->walk, task, out)) {
    sample->stack_end = FW_STACK_END_NO_REGISTERS;
    count_loss(FW_LOSS_NO_USER_REGISTERS);
    return false;
  }
  /* A worker thread of io_uring or vhost has a process but never was in user mode. */
  return out->valid;
}

/* Exit has let go of the memory, or exec has replaced it and the registers are still those of the
 * program before: only its kernel frames say where such a task is. */
static __always_inline bool user_memory_is_gone(void) {
  struct task_struct* task = (struct task_struct*)bpf_get_current_task();
  struct mm_struct* mm = BPF_CORE_READ(task, mm);
  return !mm || BPF_CORE_READ(mm, start_code) == 0;
}

/* For a moment exec has put a new memory in place and the registers are those of before: the system
 * call instruction, where the program still seems to be, lies nowhere. */
static __always_inline bool exec_has_replaced_memory(const struct fw_walk* walk, fw_u32 first,
                                                     const struct user_registers* registers) {
  return registers->in_exec && walk->end == FW_STACK_END_NO_MAPPING && walk->next <= first + 1;
}

static __always_inline void collect_user_stack(struct scratch* scratch,
                                               const struct user_registers* registers) {
  struct fw_sample* sample = &scratch->sample;
  struct fw_walk* walk = &scratch->walk;
  const fw_u32 first = sample->kernel_frames;
  if (registers->compat) {
    if (first < FW_WALK_FRAMES) scratch->frames[first] = walk->ip;
    sample->user_frames = 1;
    sample->stack_end = FW_STACK_END_COMPAT;
    return;
  }
  const fw_u32 kept = kept_mappings(scratch);
  fw_walk_begin(walk, first, FW_MAX_USER_FRAMES);
  walk->mapping_count = kept;
  walk_user_stack();
  if (walk->end != FW_STACK_END_ROOT &&
      (exec_has_replaced_memory(walk, first, registers) || user_memory_is_gone())) {
    sample->stack_end = FW_STACK_END_NO_MEMORY;
    sample->file_notes = 0;
    return;
  }
  sample->stack_end = (fw_u8)walk->end;
  sample->user_frames = (fw_u16)(walk->next - first);
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
  sample->file_notes = 0;
  sample->padding = 0;
  sample->stack_bytes = 0;
  sample->padding2 = 0;
  scratch->new_note = 0;
  scratch->wants_table = 0;
  scratch->wants_copy = 0;
  scratch->stamp++;
  scratch->now_s = (fw_u32)(sample->time_ns / 1000000000);
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
    /* The walk has changed its registers, so they are taken again: ordinary samples pay nothing. A
     * proven root, too: without the table a frame pointer may have passed over a frame. */
    if (use_tables && scratch->wants_table && scratch->sample.user_frames != 0 &&
        !registers.compat) {
      scratch->wants_copy = find_user_registers(regs, scratch, &registers);
    }
  }
  send_sample(scratch);
  release_scratch(scratch);
  return 0;
}

SEC("perf_event")
int tick(struct bpf_perf_event_data* ctx) { return take_sample(ctx, &ctx->regs); }

/* perf_event programs cannot be test-run (-524): the same body for BPF_PROG_TEST_RUN, which finds
 * the caller in the kernel, inside its bpf system call. */
SEC("raw_tp")
int test_tick(void* ctx) { return take_sample(ctx, NULL); }

/* For tests: a record with one frame, the state of the mapping of args[0] in current, and its note.
 */
SEC("?raw_tp")
int test_look_up(struct bpf_raw_tracepoint_args* ctx) {
  struct scratch* scratch = take_scratch();
  if (!scratch) return 0;
  begin_sample(scratch, current_ids(), true);
  const fw_u32 kept = kept_mappings(scratch);
  fw_walk_begin(&scratch->walk, 0, FW_MAX_USER_FRAMES);
  scratch->walk.mapping_count = kept;
  scratch->walk.address = ctx->args[0];
  find_mapping();
  scratch->frames[0] = fw_current_mapping(&scratch->walk)->state;
  scratch->sample.user_frames = 1;
  send_sample(scratch);
  release_scratch(scratch);
  return 0;
}

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
