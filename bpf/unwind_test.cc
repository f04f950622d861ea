// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The walk of bpf/unwind.h as a host program: the same text that runs in the kernel, on stacks,
// mappings and tables made by hand, under sanitizers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <vector>

#include "bpf/include/frame.h"
#include "bpf/include/unwind_table.h"
#include "bpf/unwind.h"

namespace {

// What the hooks answer from: one walked process and the tables of its files.
struct Process {
  std::map<fw_u64, std::vector<fw_u8>> pages;  // by address
  std::vector<fw_mapping> mappings;
  bool mappings_unreadable = false;
  std::vector<fw_table> tables;
  std::vector<std::vector<fw_u64>> slabs;  // words: aligned like the kernel's
  std::unique_ptr<fw_rule_cache> rule_cache = std::make_unique<fw_rule_cache>();
  size_t reads = 0;
  size_t mapping_look_ups = 0;
  size_t table_look_ups = 0;
};
Process* process = nullptr;

}  // namespace

// Declared static by unwind.h.
static long fw_read_user(void* to, fw_u32 size, fw_u64 address) {
  ++process->reads;
  auto* out = static_cast<fw_u8*>(to);
  for (fw_u32 i = 0; i < size; ++i) {
    const auto page = process->pages.find((address + i) & ~fw_u64{4095});
    if (page == process->pages.end()) return -14;
    out[i] = page->second[(address + i) & 4095];
  }
  return 0;
}

static long fw_look_up_mapping(fw_walk*, fw_u64 address, fw_mapping* to) {
  ++process->mapping_look_ups;
  if (process->mappings_unreadable) return -1;
  to->state = FW_MAPPING_NONE;
  for (const fw_mapping& mapping : process->mappings) {
    if (address >= mapping.start && address < mapping.end) *to = mapping;
  }
  return 0;
}

static const fw_table* fw_table_at(fw_u32 index) {
  ++process->table_look_ups;
  return index < process->tables.size() ? &process->tables[index] : nullptr;
}

static const fw_u8* fw_slab_at(fw_u32 number) {
  if (number >= process->slabs.size() || process->slabs[number].empty()) return nullptr;
  return reinterpret_cast<const fw_u8*>(process->slabs[number].data());
}

static fw_rule_cache* fw_rule_cache_here() { return process->rule_cache.get(); }

namespace firewatch::bpf {
namespace {

using ::testing::ElementsAre;

constexpr fw_u64 kStack = 0x7ffc00000000;
constexpr fw_u64 kCode = 0x400000;
constexpr fw_u64 kCodeEnd = 0x500000;

class UnwindTest : public ::testing::Test {
 protected:
  UnwindTest() {
    process = &process_;
    walk_ = std::make_unique<fw_walk>();
  }

  void Write(fw_u64 address, fw_u64 value) {
    for (size_t i = 0; i < sizeof(value); ++i) WriteByte(address + i, value >> (8 * i) & 0xff);
  }
  void WriteByte(fw_u64 address, fw_u64 value) {
    auto& page = process_.pages[address & ~fw_u64{4095}];
    page.resize(4096);
    page[address & 4095] = static_cast<fw_u8>(value);
  }

  fw_mapping& AddMapping(fw_u64 start, fw_u64 end, fw_u32 state) {
    fw_mapping mapping{};
    mapping.start = start;
    mapping.end = end;
    mapping.state = state;
    return process_.mappings.emplace_back(mapping);
  }

  std::vector<fw_u64> Walk(fw_u64 ip = kCode) {
    frames_.assign(FW_WALK_FRAMES, 0xdead);
    walk_->ip = ip;
    fw_walk_begin(walk_.get(), first_, FW_MAX_USER_FRAMES);
    size_t steps = 0;
    while (!fw_walk_step(walk_.get(), frames_.data(), process_.rule_cache.get())) {
      if (++steps > 2000) {
        ADD_FAILURE() << "the walk does not end";
        break;
      }
    }
    EXPECT_LE(walk_->next, FW_WALK_FRAMES);
    return {frames_.begin() + first_, frames_.begin() + walk_->next};
  }
  fw_stack_end end() const { return static_cast<fw_stack_end>(walk_->end); }
  fw_u64& rsp() { return walk_->registers[FW_REGISTER_RSP]; }
  fw_u64& rbp() { return walk_->registers[FW_REGISTER_RBP]; }

  Process process_;
  std::vector<fw_u64> frames_;
  std::unique_ptr<fw_walk> walk_;
  fw_u32 first_ = 0;
};

// ---- frame pointers: code without tables
// ---------------------------------------------------------

class FramePointerTest : public UnwindTest {
 protected:
  FramePointerTest() { AddMapping(kCode, kCodeEnd, FW_MAPPING_ANONYMOUS); }

  void WriteRecord(fw_u64 fp, fw_u64 next_fp, fw_u64 return_address) {
    Write(fp, next_fp);
    Write(fp + 8, return_address);
  }
  // Frames hold an address inside the call: one less than where it returns to.
  static fw_u64 Return(fw_u64 frame) { return frame + 1; }
  // `count` records from `fp` upwards, `stride` bytes apart; the last one ends the chain.
  void WriteChain(fw_u64 fp, size_t count, fw_u64 stride) {
    for (size_t i = 0; i < count; ++i) {
      WriteRecord(fp + i * stride, i + 1 == count ? 0 : fp + (i + 1) * stride,
                  Return(kCode + 16 * (i + 1)));
    }
  }
  std::vector<fw_u64> WalkFrom(fw_u64 fp, fw_u64 sp = kStack) {
    rbp() = fp;
    rsp() = sp;
    return Walk();
  }
};

TEST_F(FramePointerTest, FollowsAChainToItsEnd) {
  WriteChain(kStack + 64, 3, 48);
  EXPECT_THAT(WalkFrom(kStack + 64), ElementsAre(kCode, kCode + 16, kCode + 32, kCode + 48));
  EXPECT_EQ(end(), FW_STACK_END_FRAME_POINTER);
}

TEST_F(FramePointerTest, ReadsByTheChunkNotByTheFrame) {
  WriteChain(kStack, 64, 48);  // 3,072 bytes, in one page
  EXPECT_EQ(WalkFrom(kStack).size(), 65u);
  EXPECT_LE(process_.reads, 4u);
  EXPECT_EQ(process_.mapping_look_ups, 1u);
}

}  // namespace
}  // namespace firewatch::bpf
