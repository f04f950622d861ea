// SPDX-License-Identifier: Apache-2.0
#include "agent/stacks/eh_frame_header.h"

#include <elf.h>
#include <gtest/gtest.h>
#include <link.h>
#include <sys/auxv.h>
#include <unistd.h>

#include <string>

namespace firewatch::agent {
namespace {

struct Expected {
  uint64_t base = 0;
  uint64_t address = 0;
};

// libc as the dynamic linker sees it.
int TakeLibc(dl_phdr_info* info, size_t, void* to) {
  if (std::string(info->dlpi_name).find("libc.so") == std::string::npos) return 0;
  auto* expected = static_cast<Expected*>(to);
  expected->base = info->dlpi_addr;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    if (info->dlpi_phdr[i].p_type == PT_GNU_EH_FRAME) {
      expected->address = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
    }
  }
  return 1;
}

TEST(EhFrameHeaderTest, FindsThatOfAMappedLibrary) {
  Expected expected;
  ASSERT_EQ(::dl_iterate_phdr(TakeLibc, &expected), 1);
  RemoteMemory memory(::getpid());
  const auto header = FindEhFrameHeader(memory, expected.base);
  ASSERT_TRUE(header);
  EXPECT_EQ(header->address, expected.address);
  EXPECT_EQ(header->table, expected.address + 12);
  EXPECT_GT(header->entries, 1000u);
}

TEST(EhFrameHeaderTest, FindsThatOfTheVdso) {
  const uint64_t vdso = ::getauxval(AT_SYSINFO_EHDR);
  if (vdso == 0) GTEST_SKIP() << "this kernel maps no vdso";
  RemoteMemory memory(::getpid());
  const auto header = FindEhFrameHeader(memory, vdso);
  ASSERT_TRUE(header);
  EXPECT_GT(header->entries, 0u);
}

TEST(EhFrameHeaderTest, WhatIsNoObjectHasNone) {
  RemoteMemory memory(::getpid());
  const std::string text(4096, 'x');
  EXPECT_FALSE(FindEhFrameHeader(memory, reinterpret_cast<uint64_t>(text.data())));
  EXPECT_FALSE(FindEhFrameHeader(memory, 0));
}

}  // namespace
}  // namespace firewatch::agent
