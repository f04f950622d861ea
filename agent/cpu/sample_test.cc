// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/sample.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "base/status.h"

namespace firewatch::agent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

fw_sample Header(uint16_t kernel_frames, uint16_t user_frames) {
  fw_sample header{};
  header.version = FW_SAMPLE_VERSION;
  header.header_size = sizeof(fw_sample);
  header.kernel_frames = kernel_frames;
  header.user_frames = user_frames;
  header.pid = 42;
  return header;
}

// 8-byte words, so the bytes are aligned as those of the ring.
std::vector<fw_u64> Record(const fw_sample& header, std::vector<fw_u64> frames) {
  std::vector<fw_u64> words(sizeof(fw_sample) / sizeof(fw_u64));
  std::memcpy(words.data(), &header, sizeof(header));
  words.insert(words.end(), frames.begin(), frames.end());
  return words;
}

std::string Refusal(const fw_sample& header, size_t frames) {
  const auto words = Record(header, std::vector<fw_u64>(frames));
  return std::string(base::Message(ParseSample(std::as_bytes(std::span(words))).status()));
}

TEST(SampleTest, ReadsEveryField) {
  fw_sample header = Header(1, 2);
  header.time_ns = 7;
  header.cgroup_id = 8;
  header.tid = 43;
  header.cpu = 5;
  header.stack_end = FW_STACK_END_TRUNCATED;
  header.flags = FW_SAMPLE_IN_KERNEL | FW_SAMPLE_KERNEL_TRUNCATED;
  std::memcpy(header.comm, "exactly16letters", FW_COMM_SIZE);  // no NUL is needed
  const auto words = Record(header, {0xffffffff81000000, 0x1000, 0x2000});
  const auto sample = ParseSample(std::as_bytes(std::span(words)));
  ASSERT_TRUE(sample.ok()) << base::ToString(sample.status());
  EXPECT_EQ(sample->time_ns, 7u);
  EXPECT_EQ(sample->cgroup_id, 8u);
  EXPECT_EQ(sample->pid, Pid{42});
  EXPECT_EQ(sample->tid, 43u);
  EXPECT_EQ(sample->cpu, 5u);
  EXPECT_EQ(sample->stack_end, FW_STACK_END_TRUNCATED);
  EXPECT_TRUE(sample->in_kernel);
  EXPECT_TRUE(sample->kernel_truncated);
  EXPECT_FALSE(sample->kernel_thread);
  EXPECT_EQ(sample->comm, "exactly16letters");
  EXPECT_THAT(sample->kernel_frames, ElementsAre(0xffffffff81000000));
  EXPECT_THAT(sample->user_frames, ElementsAre(0x1000, 0x2000));
  EXPECT_EQ(sample->bytes.size(), sizeof(fw_sample) + 3 * sizeof(fw_u64));
}

TEST(SampleTest, KernelAddressIsAFrameAsItIs) {
  EXPECT_EQ(0xffffffff81000000ull >> FW_FRAME_KIND_SHIFT, FW_FRAME_KERNEL);
  EXPECT_EQ(0x00007fffdeadbeefull >> FW_FRAME_KIND_SHIFT, FW_FRAME_USER);
}

TEST(SampleTest, SkipsHeaderFieldsOfANewerWriter) {
  fw_sample header = Header(0, 1);
  header.header_size = sizeof(fw_sample) + 8;
  const auto words = Record(header, {0xabcd, 0x1000});
  const auto sample = ParseSample(std::as_bytes(std::span(words)));
  ASSERT_TRUE(sample.ok());
  EXPECT_THAT(sample->user_frames, ElementsAre(0x1000));
}

TEST(SampleTest, ReadsRecordsFromBeforeStacksWereCopied) {
  fw_sample header = Header(0, 1);
  header.header_size = FW_SAMPLE_HEADER_MIN;
  std::vector<fw_u64> words = Record(header, {0x1000});
  words.erase(words.begin() + FW_SAMPLE_HEADER_MIN / 8);  // what is now stack_bytes
  const auto sample = ParseSample(std::as_bytes(std::span(words)));
  ASSERT_TRUE(sample.ok());
  EXPECT_THAT(sample->user_frames, ElementsAre(0x1000));
  EXPECT_TRUE(sample->stack.empty());
  EXPECT_EQ(sample->registers, nullptr);
}

TEST(SampleTest, ReadsTheCopyOfTheStack) {
  fw_sample header = Header(0, 1);
  header.stack_bytes = 12;
  std::vector<fw_u64> words = Record(header, {0x1000});
  words.resize(words.size() + sizeof(fw_stack_copy) / 8, 7);
  words.insert(words.end(), {8, 9});
  const auto sample = ParseSample(std::as_bytes(std::span(words)));
  ASSERT_TRUE(sample.ok()) << base::ToString(sample.status());
  EXPECT_EQ(sample->registers->start, 7u);
  ASSERT_EQ(sample->stack.size(), 12u);
  EXPECT_EQ(sample->stack[0], std::byte{8});
  EXPECT_EQ(sample->bytes.size(), sizeof(fw_sample) + 8 + sizeof(fw_stack_copy) + 12);
}

TEST(SampleTest, RefusesStacksThatDoNotFit) {
  fw_sample header = Header(0, 0);
  header.stack_bytes = 8;
  EXPECT_THAT(Refusal(header, sizeof(fw_stack_copy) / 8), HasSubstr("8 bytes of stack"));
  header.stack_bytes = FW_STACK_COPY_BYTES_MAX + 1;
  EXPECT_THAT(Refusal(header, 4096), HasSubstr("stack of 20481"));
}

TEST(SampleTest, IgnoresWhatFollowsTheFrames) {
  const auto words = Record(Header(0, 1), {0x1000, 0x2000});
  const auto sample = ParseSample(std::as_bytes(std::span(words)));
  ASSERT_TRUE(sample.ok());
  EXPECT_EQ(sample->bytes.size(), sizeof(fw_sample) + sizeof(fw_u64));
}

TEST(SampleTest, RefusesFramesThatDoNotFit) {
  EXPECT_THAT(Refusal(Header(1, 1), 1), HasSubstr("do not fit"));
}

TEST(SampleTest, RefusesMoreFramesThanTheKernelSideWrites) {
  EXPECT_THAT(Refusal(Header(FW_MAX_KERNEL_FRAMES + 1, 0), 4096), HasSubstr("kernel and"));
  EXPECT_THAT(Refusal(Header(0, FW_MAX_USER_FRAMES + 1), 4096), HasSubstr("user frames"));
}

TEST(SampleTest, RefusesUnknownVersion) {
  fw_sample header = Header(0, 0);
  header.version = FW_SAMPLE_VERSION + 1;
  EXPECT_THAT(Refusal(header, 0), HasSubstr("version 3"));
}

TEST(SampleTest, RefusesHeaderThatWouldMisalignFrames) {
  fw_sample header = Header(0, 1);
  header.header_size = sizeof(fw_sample) + 4;
  EXPECT_THAT(Refusal(header, 4), HasSubstr("header of 68"));
  header.header_size = 8;
  EXPECT_THAT(Refusal(header, 4), HasSubstr("header of 8"));
}

TEST(SampleTest, RefusesUnknownStackEndAndFlags) {
  fw_sample header = Header(0, 0);
  header.stack_end = FW_STACK_END_COUNT;
  EXPECT_THAT(Refusal(header, 0), HasSubstr("stack end"));
  header.stack_end = 0;
  header.flags = 0x80;
  EXPECT_THAT(Refusal(header, 0), HasSubstr("flags 128"));
}

TEST(SampleTest, RefusesShortAndMisalignedBytes) {
  const auto words = Record(Header(0, 0), {0});
  const auto bytes = std::as_bytes(std::span(words));
  EXPECT_FALSE(ParseSample(bytes.first(sizeof(fw_sample) - 1)).ok());
  EXPECT_FALSE(ParseSample(bytes.subspan(1)).ok());
  EXPECT_FALSE(ParseSample({}).ok());
}

}  // namespace
}  // namespace firewatch::agent
