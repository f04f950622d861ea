// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/sideband_record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "agent/cpu/thread_counts.h"
#include "base/status.h"

namespace firewatch::agent {
namespace {

using ::testing::HasSubstr;

// Puts a record together field by field, as the kernel writes it.
class RecordBuilder {
 public:
  RecordBuilder(uint32_t type, uint16_t misc) : header_{.type = type, .misc = misc} {}

  RecordBuilder& U8(std::initializer_list<int> values) {
    for (const int value : values) bytes_.push_back(static_cast<std::byte>(value));
    return *this;
  }
  RecordBuilder& U32(std::initializer_list<uint32_t> values) { return Append(values); }
  RecordBuilder& U64(std::initializer_list<uint64_t> values) { return Append(values); }
  RecordBuilder& Text(std::string_view text) {  // NUL-terminated, padded to 8 bytes
    const auto* begin = reinterpret_cast<const std::byte*>(text.data());
    bytes_.insert(bytes_.end(), begin, begin + text.size());
    bytes_.resize((bytes_.size() + 8) & ~size_t{7});
    return *this;
  }
  std::vector<std::byte> Finish(uint64_t time_ns) {
    U32({1, 1}).U64({time_ns}).U32({0, 0});
    std::vector<std::byte> record(sizeof(header_));
    header_.size = static_cast<uint16_t>(record.size() + bytes_.size());
    std::memcpy(record.data(), &header_, sizeof(header_));
    record.insert(record.end(), bytes_.begin(), bytes_.end());
    return record;
  }

 private:
  template <typename T>
  RecordBuilder& Append(std::initializer_list<T> values) {
    for (const T value : values) {
      const size_t at = bytes_.size();
      bytes_.resize(at + sizeof(T));
      std::memcpy(bytes_.data() + at, &value, sizeof(T));
    }
    return *this;
  }
  perf_event_header header_;
  std::vector<std::byte> bytes_;
};

std::vector<std::byte> Task(uint32_t type, uint32_t pid, uint32_t parent, uint32_t tid,
                            uint64_t time_ns) {
  return RecordBuilder(type, 0).U32({pid, parent, tid, parent}).U64({time_ns}).Finish(time_ns);
}

SideBandRecord Parse(const std::vector<std::byte>& bytes) {
  auto record = ParseSideBandRecord(bytes);
  EXPECT_TRUE(record.ok()) << base::ToString(record.status());
  EXPECT_TRUE(record.ok() && record->has_value());
  return record.ok() && *record ? **record : SideBandRecord();
}

TEST(SideBandRecordTest, ForkOfAProcess) {
  const SideBandRecord record = Parse(Task(PERF_RECORD_FORK, 43, 42, 43, 7));
  EXPECT_EQ(record.event.kind, ProcessEventKind::kFork);
  EXPECT_EQ(record.event.pid, Pid{43});
  EXPECT_EQ(record.event.parent, Pid{42});
  EXPECT_EQ(record.event.time_ns, 7u);
  EXPECT_FALSE(record.thread);
}

TEST(SideBandRecordTest, ForkOfAThread) {
  EXPECT_TRUE(Parse(Task(PERF_RECORD_FORK, 42, 42, 44, 7)).thread);
}

TEST(SideBandRecordTest, ExitOfMainAndOfOtherThread) {
  EXPECT_FALSE(Parse(Task(PERF_RECORD_EXIT, 42, 1, 42, 7)).thread);
  EXPECT_TRUE(Parse(Task(PERF_RECORD_EXIT, 42, 1, 44, 7)).thread);
}

TEST(SideBandRecordTest, CommByExecIsAnExec) {
  const auto bytes = RecordBuilder(PERF_RECORD_COMM, PERF_RECORD_MISC_COMM_EXEC)
                         .U32({42, 42})
                         .Text("server")
                         .Finish(9);
  const SideBandRecord record = Parse(bytes);
  EXPECT_EQ(record.event.kind, ProcessEventKind::kExec);
  EXPECT_EQ(record.event.comm, "server");
  EXPECT_EQ(record.event.time_ns, 9u);
}

TEST(SideBandRecordTest, CommByRenameKeepsItsThread) {
  const SideBandRecord record =
      Parse(RecordBuilder(PERF_RECORD_COMM, 0).U32({42, 44}).Text("worker").Finish(9));
  EXPECT_EQ(record.event.kind, ProcessEventKind::kComm);
  EXPECT_EQ(record.event.tid, 44u);
}

RecordBuilder Mapping(uint16_t misc, uint64_t start, uint64_t length) {
  RecordBuilder builder(PERF_RECORD_MMAP2, misc);
  builder.U32({42, 42}).U64({start, length, 0x3000});
  return builder;
}

TEST(SideBandRecordTest, MappingWithInode) {
  const auto bytes = Mapping(0, 0x1000, 0x2000)
                         .U32({8, 1})
                         .U64({99, 7})
                         .U32({PROT_READ | PROT_EXEC, MAP_PRIVATE})
                         .Text("/usr/bin/app")
                         .Finish(9);
  const ProcessEvent event = Parse(bytes).event;
  EXPECT_EQ(event.kind, ProcessEventKind::kMmap);
  EXPECT_EQ(event.start, 0x1000u);
  EXPECT_EQ(event.end, 0x3000u);
  EXPECT_EQ(event.file_offset, 0x3000u);
  EXPECT_EQ(event.file.path, "/usr/bin/app");
  EXPECT_EQ(event.file.device_major, 8u);
  EXPECT_EQ(event.file.device_minor, 1u);
  EXPECT_EQ(event.file.inode, 99u);
  EXPECT_EQ(event.file.inode_generation, 7u);
  EXPECT_TRUE(event.file.build_id.empty());
}

TEST(SideBandRecordTest, MappingWithBuildId) {
  auto builder = Mapping(PERF_RECORD_MISC_MMAP_BUILD_ID, 0x1000, 0x2000);
  builder.U8({20, 0, 0, 0});
  for (int i = 0; i < 20; ++i) builder.U8({i});
  const auto bytes = builder.U32({PROT_EXEC, MAP_PRIVATE}).Text("/usr/bin/app").Finish(9);
  const ProcessEvent event = Parse(bytes).event;
  EXPECT_EQ(event.file.build_id.size, 20);
  EXPECT_EQ(event.file.build_id.bytes[19], 19);
  EXPECT_EQ(event.file.inode, 0u);
}

TEST(SideBandRecordTest, BuildIdLongerThanItsFieldIsCut) {
  auto builder = Mapping(PERF_RECORD_MISC_MMAP_BUILD_ID, 0x1000, 0x2000);
  builder.U8({255, 0, 0, 0}).U64({1, 2}).U32({3});
  EXPECT_EQ(Parse(builder.U32({PROT_EXEC, 0}).Text("/a").Finish(9)).event.file.build_id.size, 20);
}

TEST(SideBandRecordTest, DataMappingIsNoEvent) {
  const auto bytes = Mapping(0, 0x1000, 0x2000)
                         .U32({8, 1})
                         .U64({99, 7})
                         .U32({PROT_READ, MAP_PRIVATE})
                         .Text("/data")
                         .Finish(9);
  const auto record = ParseSideBandRecord(bytes);
  ASSERT_TRUE(record.ok());
  EXPECT_FALSE(record->has_value());
}

TEST(SideBandRecordTest, RefusesAMappingThatWrapsAround) {
  const auto bytes = Mapping(0, UINT64_MAX - 0xfff, 0x2000)
                         .U32({8, 1})
                         .U64({99, 7})
                         .U32({PROT_EXEC, 0})
                         .Text("/a")
                         .Finish(9);
  EXPECT_THAT(std::string(base::Message(ParseSideBandRecord(bytes).status())),
              HasSubstr("mapping of"));
}

TEST(SideBandRecordTest, LostCarriesItsCount) {
  const SideBandRecord record = Parse(RecordBuilder(PERF_RECORD_LOST, 0).U64({5, 123}).Finish(9));
  EXPECT_EQ(record.event.kind, ProcessEventKind::kLost);
  EXPECT_EQ(record.event.lost, 123u);
}

TEST(SideBandRecordTest, TasksOutsideOurPidNamespaceAreNoEvents) {
  for (const uint32_t pid : {0u, UINT32_MAX}) {
    const auto record = ParseSideBandRecord(Task(PERF_RECORD_EXIT, pid, 1, pid, 7));
    ASSERT_TRUE(record.ok());
    EXPECT_FALSE(record->has_value());
  }
}

TEST(SideBandRecordTest, UnknownTypeIsNoEvent) {
  const auto record = ParseSideBandRecord(RecordBuilder(PERF_RECORD_THROTTLE, 0).Finish(9));
  ASSERT_TRUE(record.ok());
  EXPECT_FALSE(record->has_value());
}

TEST(SideBandRecordTest, EveryTruncationIsRefused) {
  const auto whole = Task(PERF_RECORD_FORK, 43, 42, 43, 7);
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_FALSE(ParseSideBandRecord(std::span(whole).first(size)).ok()) << size;
  }
}

TEST(SideBandRecordTest, RefusesABodyThatIsTooShort) {
  for (const uint32_t type : {PERF_RECORD_FORK, PERF_RECORD_EXIT, PERF_RECORD_COMM,
                              PERF_RECORD_MMAP2, PERF_RECORD_LOST}) {
    EXPECT_FALSE(ParseSideBandRecord(RecordBuilder(type, 0).Finish(9)).ok()) << type;
  }
}

bool Apply(ThreadCounts& counts, const std::vector<std::byte>& bytes) {
  SideBandRecord record = Parse(bytes);
  return counts.Apply(record);
}

TEST(ThreadCountsTest, ProcessOfOneThreadEndsWithIt) {
  ThreadCounts counts;
  EXPECT_TRUE(Apply(counts, Task(PERF_RECORD_FORK, 43, 42, 43, 1)));
  EXPECT_TRUE(Apply(counts, Task(PERF_RECORD_EXIT, 43, 42, 43, 2)));
  EXPECT_EQ(counts.size(), 0u);
}

TEST(ThreadCountsTest, ProcessOutlivesItsMainThread) {
  ThreadCounts counts;
  EXPECT_FALSE(Apply(counts, Task(PERF_RECORD_FORK, 42, 42, 50, 1)));
  EXPECT_FALSE(Apply(counts, Task(PERF_RECORD_FORK, 42, 42, 51, 2)));
  EXPECT_FALSE(Apply(counts, Task(PERF_RECORD_EXIT, 42, 1, 42, 3)));
  EXPECT_FALSE(Apply(counts, Task(PERF_RECORD_EXIT, 42, 1, 50, 4)));
  EXPECT_TRUE(Apply(counts, Task(PERF_RECORD_EXIT, 42, 1, 51, 5)));
  EXPECT_EQ(counts.size(), 0u);
}

TEST(ThreadCountsTest, ThreadsThatEndFirstAreNoEvents) {
  ThreadCounts counts;
  EXPECT_FALSE(Apply(counts, Task(PERF_RECORD_FORK, 42, 42, 50, 1)));
  EXPECT_FALSE(Apply(counts, Task(PERF_RECORD_EXIT, 42, 1, 50, 2)));
  EXPECT_TRUE(Apply(counts, Task(PERF_RECORD_EXIT, 42, 1, 42, 3)));
}

TEST(ThreadCountsTest, ExecByAnotherThreadMakesItTheMainOne) {
  ThreadCounts counts;
  EXPECT_FALSE(Apply(counts, Task(PERF_RECORD_FORK, 42, 42, 50, 1)));
  EXPECT_FALSE(Apply(counts, Task(PERF_RECORD_EXIT, 42, 1, 42, 2)));
  EXPECT_TRUE(Apply(counts, RecordBuilder(PERF_RECORD_COMM, PERF_RECORD_MISC_COMM_EXEC)
                                .U32({42, 42})
                                .Text("next")
                                .Finish(3)));
  EXPECT_TRUE(Apply(counts, Task(PERF_RECORD_EXIT, 42, 1, 42, 4)));
}

TEST(ThreadCountsTest, LostRecordsForgetCounts) {
  ThreadCounts counts;
  EXPECT_FALSE(Apply(counts, Task(PERF_RECORD_FORK, 42, 42, 50, 1)));
  EXPECT_TRUE(Apply(counts, RecordBuilder(PERF_RECORD_LOST, 0).U64({5, 1}).Finish(2)));
  EXPECT_TRUE(Apply(counts, Task(PERF_RECORD_EXIT, 42, 1, 42, 3)));
}

TEST(ThreadCountsTest, StaysBounded) {
  ThreadCounts counts;
  for (uint32_t pid = 1; pid <= ThreadCounts::kMaxProcesses + 10; ++pid) {
    Apply(counts, Task(PERF_RECORD_FORK, pid, pid, pid + 1'000'000, pid));
  }
  EXPECT_EQ(counts.size(), ThreadCounts::kMaxProcesses);
  const uint32_t unknown = ThreadCounts::kMaxProcesses + 5;
  EXPECT_TRUE(Apply(counts, Task(PERF_RECORD_EXIT, unknown, 1, unknown, 9)));
}

}  // namespace
}  // namespace firewatch::agent
