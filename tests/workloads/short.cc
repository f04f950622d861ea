// SPDX-License-Identifier: Apache-2.0
// Lives for about 50 ms of CPU time, says how much it really was, and is gone.
#include "tests/workloads/common.h"

int main(int argc, char** argv) {
  const uint64_t x = workload::BurnMs(workload::Number(argc, argv, "--ms", 50), 7);
  if (x == 0) return 1;  // xorshift never reaches zero; keeps the result alive
  workload::PrintOwnCpu();
  return 0;
}
