/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which mapping an address of current lies in, read out of the kernel's own tree of mappings: no
 * copy of it to keep, and a process that has just mapped a library is seen with it. No lock is
 * held: the tree may change meanwhile. Every read is a checked one (a stale pointer gives stale
 * bytes, never a fault), and a result that does not contain the address is "could not be found
 * out". bpf_find_vma (5.17) does the same under a lock, once per sample. */
#pragma once

#include "bpf/counters.h"
#include "bpf/include/unwind_table.h"
#include "bpf/kernel.h"
#include "bpf/output.h"
#include "bpf/unwind.h"
#include "bpf/unwind_maps.h"

/* ---- the tree ---------------------------------------------------------------------------------
 */

/* A node of ten to sixteen children: 10^6 mappings; the kernel's own limit is 65,530 by default. */
#define MAPLE_LEVELS_MAX 6
/* include/linux/maple_tree.h. The root has 2 in its low bits when it is a node (xa_is_node); a node
 * is aligned to 256 bytes and has its type from bit 3 on. */
#define MAPLE_NODE_MASK 0xffull
#define MAPLE_TYPE(entry) (((entry) >> 3) & 15)
#define MAPLE_LEAF_64 1
#define MAPLE_RANGE_64 2
#define MAPLE_ARANGE_64 3
#define MAPLE_RANGE_PIVOTS 15
#define MAPLE_ARANGE_PIVOTS 9

/* i when pivot >= address, else chosen; both are page numbers, so their difference has a sign. No
 * branch: the verifier would follow fifteen of them in each level. */
static __always_inline fw_u64 choose_slot(fw_u64 chosen, fw_u64 i, fw_u64 pivot, fw_u64 address) {
  fw_u64 difference = (pivot >> 12) - (address >> 12);
  __asm__ volatile("" : "+r"(difference)); /* clang would make a branch of it */
  const fw_u64 below = (fw_u64)((long long)difference >> 63);
  return (chosen & below) | (i & ~below);
}

/* Descends one level: the entry of the slot that holds the address. 0 when nothing is there. */
static __always_inline fw_u64 maple_child(fw_u64 entry, fw_u64 address) {
  const fw_u64 node = entry & ~MAPLE_NODE_MASK;
  const bool arange = MAPLE_TYPE(entry) == MAPLE_ARANGE_64;
  fw_u64 pivots_at = node + bpf_core_field_offset(struct maple_range_64, pivot);
  fw_u64 slots_at = node + bpf_core_field_offset(struct maple_range_64, slot);
  if (arange) {
    pivots_at = node + bpf_core_field_offset(struct maple_arange_64, pivot);
    slots_at = node + bpf_core_field_offset(struct maple_arange_64, slot);
  }
  /* A node has 256 bytes: fifteen words from the pivots on are inside, of either type. */
  fw_u64 pivots[MAPLE_RANGE_PIVOTS];
  if (bpf_probe_read_kernel(pivots, sizeof(pivots), (const void*)pivots_at)) return 0;
  /* The first pivot that is not below the address; from the last to the first, so that the unused
   * ones (0) at the end change nothing. */
  fw_u64 slot = MAPLE_RANGE_PIVOTS;
#pragma unroll
  for (int i = MAPLE_RANGE_PIVOTS - 1; i >= MAPLE_ARANGE_PIVOTS; i--) {
    slot = choose_slot(slot, (fw_u64)i, pivots[i], address);
  }
  if (arange) slot = MAPLE_ARANGE_PIVOTS;
#pragma unroll
  for (int i = MAPLE_ARANGE_PIVOTS - 1; i >= 0; i--) {
    slot = choose_slot(slot, (fw_u64)i, pivots[i], address);
  }
  fw_u64 child = 0;
  bpf_probe_read_kernel(&child, sizeof(child), (const void*)(slots_at + slot * sizeof(child)));
  return child;
}

static __always_inline fw_u64 find_in_maple_tree(struct mm_struct* mm, fw_u64 address) {
  fw_u64 entry = (fw_u64)BPF_CORE_READ(mm, mm_mt.ma_root);
  if ((entry & 3) != 2) return 0;
  for (int level = 0; level < MAPLE_LEVELS_MAX; level++) {
    const fw_u64 type = MAPLE_TYPE(entry);
    if (type < MAPLE_LEAF_64 || type > MAPLE_ARANGE_64) return 0;
    entry = maple_child(entry, address);
    if (type == MAPLE_LEAF_64) return entry;
  }
  return 0;
}

/* A red-black tree of 65,530 has at most 2 * 16 levels. */
#define RB_LEVELS_MAX 32

static __always_inline fw_u64 find_in_rb_tree(struct mm_struct* mm, fw_u64 address) {
  struct rb_node* node = BPF_CORE_READ(mm, mm_rb.rb_node);
  for (int level = 0; level < RB_LEVELS_MAX; level++) {
    if (!node) return 0;
    struct vm_area_struct* vma = (void*)node - bpf_core_field_offset(struct vm_area_struct, vm_rb);
    fw_u64 range[2];
    if (bpf_probe_read_kernel(range, sizeof(range), &vma->vm_start)) return 0;
    if (address >= range[1]) {
      node = BPF_CORE_READ(node, rb_right);
    } else if (address < range[0]) {
      node = BPF_CORE_READ(node, rb_left);
    } else {
      return (fw_u64)vma;
    }
  }
  return 0;
}

/* ---- mappings that are kept -------------------------------------------------------------------
 */

/* Finding a mapping and its file is a chain of some twenty reads that depend on each other, each a
 * cache miss in a sample that comes seldom. Kernels that count changes of the mappings (6.4) spare
 * us that while the same process is sampled again on a CPU. False: nothing is known. */
static __always_inline bool find_owner(struct mappings_owner* owner) {
  struct task_struct* task = (struct task_struct*)bpf_get_current_task();
  struct mm_struct* mm = BPF_CORE_READ(task, mm);
  struct mm_struct___number* older = (void*)mm;
  if (bpf_core_field_exists(mm->mm_lock_seq.sequence)) {
    owner->sequence = BPF_CORE_READ(mm, mm_lock_seq.sequence);
    if (owner->sequence & 1) return false; /* being changed */
  } else if (bpf_core_field_exists(older->mm_lock_seq)) {
    owner->sequence = (fw_u32)BPF_CORE_READ(older, mm_lock_seq);
  } else {
    return false;
  }
  owner->mm = (fw_u64)mm;
  owner->exec_id = BPF_CORE_READ(task, self_exec_id);
  owner->process = (fw_u32)(bpf_get_current_pid_tgid() >> 32);
  owner->generation = *(const volatile __u32*)&known_files_generation;
  return mm != NULL;
}

/* How many mappings of the walk before are still true. */
static __always_inline fw_u32 kept_mappings(struct scratch* scratch) {
  struct mappings_owner now = {};
  const bool known = find_owner(&now);
  struct mappings_owner* before = &scratch->owner;
  const bool same = known && before->mm == now.mm && before->exec_id == now.exec_id &&
                    before->process == now.process && before->sequence == now.sequence &&
                    before->generation == now.generation;
  if (!known) now.mm = 0;
  *before = now;
  return same ? scratch->walk.mapping_count : 0;
}

/* A file that user space has not answered for, or a look-up that failed: asked again. */
static __always_inline void forget_mappings(struct scratch* scratch) { scratch->owner.mm = 0; }

/* Counts the sample as a use of the file's table, once. */
static __always_inline void use_table(struct scratch* scratch, struct fw_mapping* mapping) {
  if (mapping->state != FW_MAPPING_FILE || mapping->stamp == scratch->stamp) return;
  mapping->stamp = scratch->stamp;
  fw_u32 index = mapping->table;
  struct fw_table* table = bpf_map_lookup_elem(&tables, &index);
  if (!table) return;
  table->last_used_s = scratch->now_s;
  table->uses++;
  if (table->state != FW_TABLE_READY) scratch->wants_table = 1;
}

/* ---- the mapping ------------------------------------------------------------------------------
 */

static __always_inline void note_file(struct scratch* scratch, const struct fw_mapping* mapping,
                                      const struct fw_file_key* key) {
  for (fw_u32 i = 0; i < FW_MAX_FILE_NOTES; i++) {
    if (i >= scratch->sample.file_notes) break;
    const struct fw_file_note* known = &scratch->notes[i];
    if (known->inode_address == key->inode_address && known->inode == key->inode &&
        known->start == mapping->start) {
      return;
    }
  }
  /* Volatile for the verifier, as in fw_find_mapping. */
  const fw_u32 count = *(const volatile fw_u8*)&scratch->sample.file_notes;
  if (count >= FW_MAX_FILE_NOTES) return;
  struct fw_file_note* note = &scratch->notes[count];
  note->start = mapping->start;
  note->end = mapping->end;
  note->file_offset = mapping->file_offset;
  note->inode_address = key->inode_address;
  note->inode = key->inode;
  note->device = key->device;
  note->generation = key->generation;
  scratch->sample.file_notes = (fw_u8)(count + 1);
  /* Inodes are 8-byte aligned slab objects of some 600 bytes. A file that nobody answers for wakes
   * once, not with every sample. */
  fw_u64* noted = &scratch->noted_files[(key->inode_address >> 9) % NOTED_FILES];
  const fw_u64 version = key->inode_address ^ key->generation;
  if (*noted == version) return;
  *noted = version;
  scratch->new_note = 1;
}

/* The generation, changed with every change of the file: an executable that is written over in
 * place (cp, strip) keeps inode and generation, and its old table and id must not be used for the
 * new content. ctime and not mtime, which archives and cp -p set back. */
static __always_inline fw_u32 generation_of(struct inode* inode) {
  fw_u64 seconds = 0;
  fw_u64 nanoseconds = 0;
  if (bpf_core_field_exists(inode->i_ctime_sec)) {
    seconds = (fw_u64)BPF_CORE_READ(inode, i_ctime_sec);
    nanoseconds = BPF_CORE_READ(inode, i_ctime_nsec);
  } else if (bpf_core_field_exists(inode->__i_ctime)) {
    seconds = (fw_u64)BPF_CORE_READ(inode, __i_ctime.tv_sec);
    nanoseconds = (fw_u64)BPF_CORE_READ(inode, __i_ctime.tv_nsec);
  } else if (bpf_core_field_exists(inode->i_ctime)) {
    seconds = (fw_u64)BPF_CORE_READ(inode, i_ctime.tv_sec);
    nanoseconds = (fw_u64)BPF_CORE_READ(inode, i_ctime.tv_nsec);
  }
  /* Bit 31 of the nanoseconds says since 6.13 that somebody has asked for them. */
  return fw_file_generation(BPF_CORE_READ(inode, i_generation), seconds, nanoseconds & 0x7fffffff);
}

/* The file that the kernel side knows by this key, or a note that asks for it. */
static __always_inline void identify_file(struct scratch* scratch, struct fw_mapping* mapping,
                                          const struct fw_file_key* key) {
  const struct fw_known_file* known = bpf_map_lookup_elem(&known_files, key);
  if (!known) {
    mapping->state = FW_MAPPING_NEW_FILE;
    scratch->wants_table = 1;
    forget_mappings(scratch);
    note_file(scratch, mapping, key);
    return;
  }
  mapping->state = FW_MAPPING_FILE;
  mapping->file_id = known->file_id & ((1u << 20) - 1);
  mapping->table = known->table;
  mapping->stamp = scratch->stamp - 1;
  use_table(scratch, mapping);
}

static __always_inline long describe_mapping(struct scratch* scratch, struct mm_struct* mm,
                                             struct vm_area_struct* vma, fw_u64 address,
                                             struct fw_mapping* to) {
  fw_u64 range[2];
  if (bpf_probe_read_kernel(range, sizeof(range), &vma->vm_start)) return 1;
  if (address < range[0] || address >= range[1]) return 1; /* changed meanwhile */
  to->start = range[0];
  to->end = range[1];
  if (bpf_core_field_exists(vma->vm_flags) && !(BPF_CORE_READ(vma, vm_flags) & VM_EXEC)) {
    to->state = FW_MAPPING_NONE;
    return 0;
  }
  struct fw_file_key key = {};
  to->file_offset = 0;
  struct file* file = BPF_CORE_READ(vma, vm_file);
  if (!file) {
    to->state = FW_MAPPING_ANONYMOUS;
    if (range[0] != (fw_u64)BPF_CORE_READ(mm, context.vdso)) return 0;
    key.inode = FW_VDSO_INODE;
    identify_file(scratch, to, &key);
    return 0;
  }
  to->file_offset = BPF_CORE_READ(vma, vm_pgoff) << 12;
  struct inode* inode = BPF_CORE_READ(file, f_inode);
  if (!inode) return 1;
  key.inode_address = (fw_u64)inode;
  key.inode = BPF_CORE_READ(inode, i_ino);
  key.generation = generation_of(inode);
  key.device = BPF_CORE_READ(inode, i_sb, s_dev);
  identify_file(scratch, to, &key);
  return 0;
}

static __always_inline struct scratch* scratch_of(struct fw_walk* walk) {
  return (void*)walk - __builtin_offsetof(struct scratch, walk);
}

static __always_inline long fw_look_up_mapping(struct fw_walk* walk, fw_u64 address,
                                               struct fw_mapping* to) {
  struct task_struct* task = (struct task_struct*)bpf_get_current_task();
  struct mm_struct* mm = BPF_CORE_READ(task, mm);
  if (!mm) return 1;
  fw_u64 vma;
  if (bpf_core_field_exists(mm->mm_mt)) {
    vma = find_in_maple_tree(mm, address);
  } else if (bpf_core_field_exists(mm->mm_rb)) {
    vma = find_in_rb_tree(mm, address);
  } else {
    return 1;
  }
  if (vma == 0) {
    to->state = FW_MAPPING_NONE;
    return 0;
  }
  return describe_mapping(scratch_of(walk), mm, (struct vm_area_struct*)vma, address, to);
}

static __always_inline void meet_again(struct fw_walk* walk, struct fw_mapping* mapping) {
  use_table(scratch_of(walk), mapping);
}
