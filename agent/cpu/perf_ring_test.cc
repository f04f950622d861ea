// SPDX-License-Identifier: Apache-2.0
// A ring in ordinary shared memory, written the way the kernel does.
#include "agent/cpu/perf_ring.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "base/status.h"
#include "base/unique_fd.h"

namespace firewatch::agent {
namespace {

class PerfRingTest : public ::testing::Test {
 protected:
  PerfRingTest()
      : page_bytes_(static_cast<size_t>(::getpagesize())), fd_(::memfd_create("ring", 0)) {
    EXPECT_EQ(::ftruncate(fd_.get(), static_cast<off_t>(2 * page_bytes_)), 0);
    writer_ = static_cast<std::byte*>(
        ::mmap(nullptr, 2 * page_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(), 0));
  }
  ~PerfRingTest() override { ::munmap(writer_, 2 * page_bytes_); }

  perf_event_mmap_page* page() { return reinterpret_cast<perf_event_mmap_page*>(writer_); }

  void Write(uint16_t size, std::byte fill) {
    std::vector<std::byte> record(size, fill);
    const perf_event_header header{.type = 1, .misc = 0, .size = size};
    std::memcpy(record.data(), &header, sizeof(header));
    for (const std::byte byte : record) {
      writer_[page_bytes_ + (page()->data_head++ & (page_bytes_ - 1))] = byte;
    }
  }

  const size_t page_bytes_;
  base::UniqueFd fd_;
  std::byte* writer_;
};

TEST_F(PerfRingTest, EmptyRingHasNoFront) {
  auto ring = PerfRing::Map(fd_.get(), page_bytes_);
  ASSERT_TRUE(ring.ok()) << base::ToString(ring.status());
  EXPECT_TRUE(ring->Front().empty());
}

TEST_F(PerfRingTest, RecordsComeInOrderAndOverTheEnd) {
  auto ring = PerfRing::Map(fd_.get(), page_bytes_);
  ASSERT_TRUE(ring.ok());
  // 1,000 records of 40 bytes go over the end of a page 9 times, in the middle of a record.
  for (int i = 0; i < 1000; ++i) {
    Write(40, static_cast<std::byte>(i));
    const auto record = ring->Front();
    ASSERT_EQ(record.size(), 40u);
    EXPECT_EQ(record[8], static_cast<std::byte>(i));
    EXPECT_EQ(record[39], static_cast<std::byte>(i));
    ring->Pop();
    EXPECT_EQ(page()->data_tail, page()->data_head);
  }
  EXPECT_TRUE(ring->Front().empty());
}

TEST_F(PerfRingTest, FrontStaysUntilPop) {
  auto ring = PerfRing::Map(fd_.get(), page_bytes_);
  ASSERT_TRUE(ring.ok());
  Write(16, std::byte{1});
  Write(16, std::byte{2});
  EXPECT_EQ(ring->Front()[8], std::byte{1});
  EXPECT_EQ(ring->Front()[8], std::byte{1});
  ring->Pop();
  EXPECT_EQ(ring->Front()[8], std::byte{2});
}

TEST_F(PerfRingTest, RecordOfNoSizeEmptiesTheRing) {
  auto ring = PerfRing::Map(fd_.get(), page_bytes_);
  ASSERT_TRUE(ring.ok());
  page()->data_head = 64;  // zeros: a header with size 0
  EXPECT_FALSE(ring->Front().empty());
  ring->Pop();
  EXPECT_TRUE(ring->Front().empty());
}

}  // namespace
}  // namespace firewatch::agent
