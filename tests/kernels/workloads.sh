# SPDX-License-Identifier: Apache-2.0
# Read by init.sh while the agent runs. Each answer is known to judge.py. Emulation is ten times
# slower than the machine, and a sample costs as much more: no rates above 299 Hz.
record depth 99 workload_depth --depth 900 --seconds 2
record shares 299 workload_shares --seconds 4
record syscalls 99 workload_syscalls --seconds 3
record threads 99 workload_threads --threads 3 --seconds 2
