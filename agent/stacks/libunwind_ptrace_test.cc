// SPDX-License-Identifier: Apache-2.0
#include "agent/stacks/libunwind_ptrace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "agent/stacks/ptracer.h"
#include "agent/stacks/test_child.h"
#include "base/status.h"

namespace firewatch::agent {
namespace {

constexpr std::chrono::milliseconds kPatience{5000};

// Each says where it was called from: the frame of its caller must show exactly that address.
struct CallChain {
  std::atomic<uint64_t> returns_to[3];
  std::atomic<bool> ready;
};
CallChain* chain = nullptr;

void RememberCaller(int level, void* return_address) {
  chain->returns_to[level].store(reinterpret_cast<uint64_t>(return_address));
}

[[gnu::noinline]] void ChainLeaf() {
  RememberCaller(0, __builtin_return_address(0));
  chain->ready.store(true);
  for (;;) asm volatile("");
}
[[gnu::noinline]] void ChainMiddle() {
  RememberCaller(1, __builtin_return_address(0));
  ChainLeaf();
  asm volatile("");
}
[[gnu::noinline]] void ChainRoot() {
  RememberCaller(2, __builtin_return_address(0));
  ChainMiddle();
  asm volatile("");
}

[[gnu::noinline]] uint64_t Recurse(int depth) {
  if (depth == 0) {
    ChainRoot();
    return 0;
  }
  const uint64_t below = Recurse(depth - 1);
  asm volatile("");
  return below + 1;
}

template <typename Function>
std::vector<WalkedFrame> WalkChild(Function function, size_t limit, LibunwindEnd* end) {
  chain = static_cast<CallChain*>(::mmap(nullptr, sizeof(CallChain), PROT_READ | PROT_WRITE,
                                         MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  TestChild child(function);
  while (!chain->ready.load()) std::this_thread::yield();
  auto libunwind = LibunwindPtrace::Create(child.pid());
  EXPECT_TRUE(libunwind.ok());
  std::vector<WalkedFrame> frames;
  Ptracer ptracer;
  const auto stop =
      ptracer.WhileStopped(child.pid(), kPatience, [&](const user_regs_struct& registers) {
        *end = (*libunwind)->Walk(registers, &frames, limit);
      });
  EXPECT_TRUE(stop.ok()) << base::ToString(stop.status());
  return frames;
}

TEST(LibunwindPtraceTest, FollowsAKnownChainToItsRoot) {
  LibunwindEnd end{};
  const auto frames = WalkChild(ChainRoot, LibunwindPtrace::kMaxFrames, &end);
  EXPECT_EQ(end, LibunwindEnd::kRoot);
  ASSERT_GT(frames.size(), 4u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(frames[i + 1].ip, chain->returns_to[i].load()) << i;
    EXPECT_GT(frames[i + 1].sp, frames[i].sp) << i;
    EXPECT_EQ(frames[i].interrupted, i == 0);
  }
}

TEST(LibunwindPtraceTest, StopsAtTheLimitAndSaysSo) {
  LibunwindEnd end{};
  const auto frames = WalkChild([] { Recurse(100); }, 50, &end);
  EXPECT_EQ(end, LibunwindEnd::kTruncated);
  EXPECT_EQ(frames.size(), 50u);
}

void SpinInHandler(int) {
  ChainRoot();
  asm volatile("");  // no tail call
}

TEST(LibunwindPtraceTest, MarksWhatASignalInterrupted) {
  LibunwindEnd end{};
  const auto frames = WalkChild(
      [] {
        ::signal(SIGUSR1, SpinInHandler);
        ::raise(SIGUSR1);
      },
      LibunwindPtrace::kMaxFrames, &end);
  EXPECT_EQ(end, LibunwindEnd::kRoot);
  // Leaf, middle, root, handler, trampoline, what it interrupted.
  std::vector<size_t> interrupted;
  for (size_t i = 0; i < frames.size(); ++i) {
    if (frames[i].interrupted) interrupted.push_back(i);
  }
  EXPECT_THAT(interrupted, testing::ElementsAre(0, 5));
  EXPECT_EQ(frames[3].ip, chain->returns_to[2].load());
}

}  // namespace
}  // namespace firewatch::agent
