// SPDX-License-Identifier: Apache-2.0
// Runs code out of files that are no honest ELF: maps each FILE argument executable, where its
// bytes from offset 4096 on are a small loop, and spends its time there. The profiler must sample
// the process, ask for the file's symbols, get a refusal, and live.
//
// Without --seconds it burns 5 s, shared by the files in turn.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <vector>

#include "tests/workloads/common.h"

int main(int argc, char** argv) {
  const double seconds = workload::Number(argc, argv, "--seconds", 5);
  using Loop = uint64_t (*)(uint64_t turns);
  std::vector<Loop> loops;
  for (int i = 1; i < argc; ++i) {
    if (std::strncmp(argv[i], "--", 2) == 0) {
      ++i;  // an option and its value
      continue;
    }
    const int file = open(argv[i], O_RDONLY | O_CLOEXEC);
    struct stat info{};
    if (file < 0 || fstat(file, &info) != 0 || info.st_size < 8192) {
      std::fprintf(stderr, "%s: not readable, or shorter than 8192 bytes\n", argv[i]);
      return 2;
    }
    void* code = mmap(nullptr, static_cast<size_t>(info.st_size), PROT_READ | PROT_EXEC,
                      MAP_PRIVATE, file, 0);
    close(file);
    if (code == MAP_FAILED) {
      std::perror("mmap");
      return 2;
    }
    loops.push_back(reinterpret_cast<Loop>(static_cast<char*>(code) + 4096));
  }
  if (loops.empty()) return 2;
  const uint64_t end = workload::ClockNs(CLOCK_MONOTONIC) + static_cast<uint64_t>(seconds * 1e9);
  while (workload::ClockNs(CLOCK_MONOTONIC) < end) {
    for (const Loop loop : loops) loop(1'000'000);
  }
  workload::PrintOwnCpu();
  return 0;
}
