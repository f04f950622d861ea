// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/replay.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <vector>

#include "base/status.h"

namespace firewatch::agent {
namespace {

class ReplayTest : public testing::Test {
 protected:
  ReplayTest() {
    event_.kind = ProcessEventKind::kMmap;
    event_.time_ns = 5;
    event_.pid = Pid{42};
    event_.tid = 42;
    event_.comm = "app";
    event_.start = 0x1000;
    event_.end = 0x2000;
    event_.file_offset = 0x3000;
    event_.file = {.path = "/bin/app", .device_major = 8, .inode = 99, .inode_generation = 7};
    event_.file.build_id.size = 20;
    event_.file.build_id.bytes.fill(0xab);
  }
  ~ReplayTest() override { ::unlink(path_.c_str()); }

  // A record of one kernel and two user frames.
  void WriteSample(ReplayWriter& writer) {
    fw_sample header{};
    header.version = FW_SAMPLE_VERSION;
    header.header_size = sizeof(header);
    header.kernel_frames = 1;
    header.user_frames = 2;
    header.time_ns = 6;
    header.pid = 42;
    header.stack_end = FW_STACK_END_FRAME_POINTER;
    std::strcpy(header.comm, "app");
    const std::array<fw_u64, 3> frames = {0xffffffff81000000, 0x1004, 0x1008};
    std::vector<std::byte> bytes(sizeof(header) + sizeof(frames));
    std::memcpy(bytes.data(), &header, sizeof(header));
    std::memcpy(bytes.data() + sizeof(header), frames.data(), sizeof(frames));
    const auto sample = ParseSample(bytes);
    ASSERT_TRUE(sample.ok());
    writer.Write(*sample, MappingSet());
  }

  std::string WriteFile() {
    auto writer = ReplayWriter::Create(path_, {.hz = 99, .unix_minus_monotonic_ns = 123});
    EXPECT_TRUE(writer.ok());
    (*writer)->Write(event_);
    WriteSample(**writer);
    EXPECT_TRUE((*writer)->Close().ok());
    std::ifstream in(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  }

  static std::span<const std::byte> Bytes(const std::string& text) {
    return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
  }

  const std::string path_ = testing::TempDir() + "/replay_test";
  ProcessEvent event_;
};

TEST_F(ReplayTest, ReadsBackWhatWasWritten) {
  WriteFile();
  auto reader = ReplayReader::Open(path_);
  ASSERT_TRUE(reader.ok()) << base::ToString(reader.status());
  EXPECT_EQ((*reader)->header().hz, 99u);
  EXPECT_EQ((*reader)->header().unix_minus_monotonic_ns, 123);
  auto first = (*reader)->Next();
  ASSERT_TRUE(first.ok());
  const auto& event = std::get<ProcessEvent>(*first);
  EXPECT_EQ(event.pid, Pid{42});
  EXPECT_EQ(event.comm, "app");
  EXPECT_EQ(event.file, event_.file);
  EXPECT_EQ(event.file_offset, 0x3000u);
  auto second = (*reader)->Next();
  ASSERT_TRUE(second.ok()) << base::ToString(second.status());
  const auto& sample = std::get<SampleRecord>(*second);
  EXPECT_EQ(sample.comm, "app");
  ASSERT_EQ(sample.user_frames.size(), 2u);
  EXPECT_EQ(sample.user_frames[1], 0x1008u);
  EXPECT_TRUE(std::holds_alternative<std::monostate>(*(*reader)->Next()));
}

TEST_F(ReplayTest, EveryTruncationIsAnErrorOrAnEarlierEnd) {
  const std::string whole = WriteFile();
  size_t ends = 0;
  for (size_t size = 0; size < whole.size(); ++size) {
    const std::string cut = whole.substr(0, size);
    auto reader = ReplayReader::FromBytes(Bytes(cut));
    if (!reader.ok()) continue;
    bool failed = false;
    for (int i = 0; i < 3 && !failed; ++i) {
      const auto item = (*reader)->Next();
      failed = !item.ok();
      if (item.ok() && std::holds_alternative<std::monostate>(*item)) break;
    }
    if (!failed) ++ends;
  }
  EXPECT_EQ(ends, 2u);  // after the header and after the first record, nowhere else
}

TEST_F(ReplayTest, RefusesOtherFilesAndVersions) {
  std::string text = WriteFile();
  EXPECT_EQ(base::Message(ReplayReader::FromBytes(Bytes("hello")).status()),
            "not a Firewatch event file");
  text[8] = 9;
  EXPECT_EQ(base::Message(ReplayReader::FromBytes(Bytes(text)).status()),
            "event file of version 9; this program reads version 1");
}

TEST_F(ReplayTest, RefusesARecordThatClaimsToBeHuge) {
  std::string text = WriteFile();
  text[24 + 4 + 3] = '\x7f';
  auto reader = ReplayReader::FromBytes(Bytes(text));
  ASSERT_TRUE(reader.ok());
  EXPECT_EQ((*reader)->Next().status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(std::holds_alternative<std::monostate>(*(*reader)->Next()));
}

}  // namespace
}  // namespace firewatch::agent
