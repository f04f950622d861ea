# SPDX-License-Identifier: Apache-2.0
# What runs in a guest, each with an answer that judge.py knows. Emulation is ten times slower than
# the machine, and a sample costs as much more: no rates above 299 Hz.

# Each by itself below `firewatch record`: names and shares. The first one leaves the tables of libc
# and of the next one in the cache, so that the next one has them from its first samples on.
recorded() {
  record warm_up 99 workload_depth_nofp --depth 10 --seconds 4
  record depth_nofp 99 workload_depth_nofp --depth 900 --seconds 6
  record shares 299 workload_shares --seconds 3
  record syscalls 99 workload_syscalls --seconds 2
}

# While the agent runs: how each stack ended. First every program until its stacks are whole, so that
# the agent has met it and has built its tables.
watched() {
  warm gcc workload_stacks_gcc plt 1
  warm exception workload_stacks_gcc exception 1
  warm syscalls workload_syscalls --seconds 1
  warm deep workload_depth_nofp --depth 10 --seconds 1
  warm clang workload_stacks_clang coroutine 1
  warm static workload_stacks_static recursion 1
  watch syscalls workload_syscalls --seconds 1.5
  watch deep workload_depth_nofp --depth 900 --seconds 1.5
  for mode in recursion qsort signal altstack exception plt; do
    watch "gcc_$mode" workload_stacks_gcc "$mode" 1.5
  done
  watch clang workload_stacks_clang coroutine 1.5
  watch static workload_stacks_static recursion 1.5
}
