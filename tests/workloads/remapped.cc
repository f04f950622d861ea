// SPDX-License-Identifier: Apache-2.0
// Puts its own code on anonymous memory at the same addresses, as programs do that want it on huge
// pages: two whole pages inside the text are copied away, mapped over, and copied back. They hold
// one function and nothing else; what copies lies outside of them.
//   --how inner   by mmap and mprotect
//   --how moved   by mremap, of which the kernel tells nobody
#include <sys/mman.h>

#include "tests/workloads/common.h"

namespace {
constexpr uintptr_t kPage = 4096;
}

extern "C" [[gnu::noinline, gnu::noipa, gnu::aligned(4096)]] uint64_t burn_remapped(uint64_t x,
                                                                                    long turns) {
  for (long i = 0; i < turns; ++i) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    asm volatile("" : "+r"(x));
  }
  asm volatile(".fill 8192, 1, 0x90");
  return x;
}

extern "C" [[gnu::noinline, gnu::noipa, gnu::aligned(4096)]] int remap(bool by_mremap) {
  const auto begin = reinterpret_cast<uintptr_t>(&burn_remapped) & ~(kPage - 1);
  const size_t size = 2 * kPage;
  void* away = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (away == MAP_FAILED) return 2;
  std::memcpy(away, reinterpret_cast<void*>(begin), size);
  if (by_mremap) {
    if (mprotect(away, size, PROT_READ | PROT_EXEC) != 0) return 2;
    void* back =
        mremap(away, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, reinterpret_cast<void*>(begin));
    return back == MAP_FAILED ? 2 : 0;
  }
  void* over = mmap(reinterpret_cast<void*>(begin), size, PROT_READ | PROT_WRITE | PROT_EXEC,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  if (over == MAP_FAILED) return 2;
  std::memcpy(over, away, size);
  if (mprotect(over, size, PROT_READ | PROT_EXEC) != 0) return 2;
  return munmap(away, size) == 0 ? 0 : 2;
}

int main(int argc, char** argv) {
  const double seconds = workload::Number(argc, argv, "--seconds", 10);
  const bool moved = std::strcmp(workload::Option(argc, argv, "--how", "inner"), "moved") == 0;
  if (const int failed = remap(moved); failed != 0) return failed;
  const uint64_t end = workload::ClockNs(CLOCK_MONOTONIC) + static_cast<uint64_t>(seconds * 1e9);
  uint64_t x = 1;
  while (workload::ClockNs(CLOCK_MONOTONIC) < end) {
    x = burn_remapped(x, 100'000);
    asm volatile("" : "+r"(x));
  }
  std::fprintf(stderr, "checksum=%llx\n", static_cast<unsigned long long>(x));
  workload::PrintOwnCpu();
  return 0;
}
