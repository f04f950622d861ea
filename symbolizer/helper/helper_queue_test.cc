// SPDX-License-Identifier: Apache-2.0
// The queue with a real helper in its sandbox: several files for one question, and the helper's own
// question amid the work.
#include "symbolizer/helper/helper_queue.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/mapped_file.h"
#include "base/status.h"
#include "symbolizer/index/symbol_index.h"
#include "symbolizer/testing/tools_for_test.h"

namespace firewatch::symbolizer {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr char kSource[] =
    "__attribute__((noinline)) int Function(int x) { return x + 1; }\n"
    "int main(int argc, char** argv) { (void)argv; return Function(argc); }\n";

class HelperQueueTest : public testing::Test {
 protected:
  void SetUp() override {
    SKIP_WITHOUT_TOOL("gcc");
    SKIP_WITHOUT_TOOL("objcopy");
    folder_.Write("a.c", kSource);
    queue_.emplace(HelperQueueOptions{}, clock_, metrics_);
  }
  // The one result; a test without one fails.
  HelperResult Do(HelperJob job) {
    queue_->Submit(std::move(job));
    for (int tries = 0; tries < 600; ++tries) {
      auto results = queue_->Poll(100);
      if (!results.empty()) return std::move(results.front());
    }
    ADD_FAILURE() << "no answer";
    return {};
  }
  HelperJob LinesJob(const char* elf, const char* debug = nullptr) {
    HelperJob job;
    job.operation = HelperOperation::kBuildLines;
    job.elf = folder_.Open(elf);
    if (debug != nullptr) job.debug = folder_.Open(debug);
    job.output = EmptyFile();
    job.scratch = EmptyFile();
    return job;
  }
  static off_t BytesOf(const base::UniqueFd& fd) {
    struct stat info{};
    EXPECT_EQ(::fstat(fd.get(), &info), 0);
    return info.st_blocks * 512;
  }

  ToolFolder folder_;
  base::SystemClock clock_;
  base::MetricsRegistry metrics_;
  std::optional<HelperQueue> queue_;
};

TEST_F(HelperQueueTest, FactsOfAFileComeWithItsIdentity) {
  folder_.Run("gcc -O1 -g -Wl,--build-id=0xabcdef -o whole a.c");
  folder_.Run(
      "objcopy --only-keep-debug whole x.debug && "
      "objcopy --strip-all --add-gnu-debuglink=x.debug whole stripped");
  HelperJob job;
  job.elf = folder_.Open("stripped");
  const HelperAnswer answer = Do(std::move(job)).answer;
  ASSERT_EQ(answer.status, HelperStatus::kOk) << answer.reason;
  EXPECT_STREQ(answer.debuglink, "x.debug");
  EXPECT_NE(answer.debuglink_crc, 0U);
  EXPECT_STREQ(answer.altlink, "");
  EXPECT_EQ(answer.flags, uint32_t{kHelperDynsym});
  ASSERT_EQ(answer.segment_count, 1U);
  EXPECT_EQ(answer.segments[0].vaddr % 4096, answer.segments[0].file_offset % 4096);
  EXPECT_GT(answer.segments[0].file_size, 0U);

  HelperJob debug;
  debug.debug = folder_.Open("x.debug");
  const HelperAnswer other = Do(std::move(debug)).answer;
  EXPECT_EQ(other.flags & (kHelperDwarf | kHelperSymtab), uint32_t{kHelperDwarf | kHelperSymtab});
  EXPECT_EQ(other.segment_count, 0U);
  EXPECT_EQ(other.id[0], 0xab);
}

TEST_F(HelperQueueTest, DwzLinkIsTold) {
  SKIP_WITHOUT_TOOL("dwz");
  folder_.Run("gcc -O2 -g -o one a.c && gcc -O2 -g -o two a.c && dwz -m common.dwz one two");
  HelperJob job;
  job.elf = folder_.Open("one");
  const HelperAnswer answer = Do(std::move(job)).answer;
  EXPECT_STREQ(answer.altlink, "common.dwz");
  EXPECT_EQ(answer.altlink_id_size, 20);
}

TEST_F(HelperQueueTest, CompressedDebugFileIsInflatedIntoTheScratchFile) {
  folder_.Run("gcc -O1 -gz=zlib -g -Wl,--build-id=0xabcdef -o whole a.c");
  folder_.Run("objcopy --only-keep-debug whole x.debug && objcopy --strip-all whole stripped");
  const HelperResult result = Do(LinesJob("stripped", "x.debug"));
  ASSERT_EQ(result.failure, "");
  ASSERT_EQ(result.answer.status, HelperStatus::kOk) << result.answer.reason;
  EXPECT_EQ(result.answer.lines_state, static_cast<uint8_t>(LinesState::kPresent));
  EXPECT_GT(result.answer.inflated_bytes, 0U);
  EXPECT_GT(result.answer.line_rows, 0U);
  EXPECT_GT(BytesOf(result.job.scratch), 0);
  const auto mapped = base::MappedFile::FromFd(result.job.output.get(), "index");
  ASSERT_TRUE(mapped.ok());
  const auto index = SymbolIndex::Parse(mapped->bytes());
  ASSERT_TRUE(index.ok()) << base::ToString(index.status());
  EXPECT_TRUE(index->has_lines());
}

TEST_F(HelperQueueTest, WithoutAScratchFileMemoryDoes) {
  folder_.Run("gcc -O1 -gz=zlib -g -o whole a.c");
  HelperJob job = LinesJob("whole");
  job.scratch.Reset();
  const HelperResult result = Do(std::move(job));
  EXPECT_EQ(result.failure, "");
  EXPECT_EQ(result.answer.lines_state, static_cast<uint8_t>(LinesState::kPresent));
}

TEST_F(HelperQueueTest, SymbolsOnlyInflateNothing) {
  folder_.Run("gcc -O1 -gz=zlib -g -o whole a.c");
  HelperJob job = LinesJob("whole");
  job.operation = HelperOperation::kBuild;
  const HelperResult result = Do(std::move(job));
  EXPECT_EQ(result.answer.status, HelperStatus::kOk) << result.answer.reason;
  EXPECT_EQ(result.answer.lines_state, static_cast<uint8_t>(LinesState::kNotTried));
  EXPECT_GT(result.answer.symbol_count, 0U);
  EXPECT_EQ(BytesOf(result.job.scratch), 0);
}

TEST_F(HelperQueueTest, MismatchIsToldWithItsReason) {
  folder_.Run(
      "gcc -O1 -g -Wl,--build-id=0xabcdef -o whole a.c && "
      "gcc -O1 -g -Wl,--build-id=0x123456 -o other a.c && "
      "objcopy --only-keep-debug other x.debug && objcopy --strip-all whole stripped");
  const HelperResult result = Do(LinesJob("stripped", "x.debug"));
  EXPECT_EQ(result.answer.status, HelperStatus::kOk);
  EXPECT_EQ(result.answer.lines_state, static_cast<uint8_t>(LinesState::kMismatch));
  EXPECT_THAT(result.answer.reason, HasSubstr("debug file mismatch: build id 123456"));
}

TEST_F(HelperQueueTest, HelperAsksForDwoFilesAndTheNextJobWaitsForItsTurn) {
  folder_.Write("b.c", "int Other(int x) { return x * 3; }\n");
  folder_.Run(
      "gcc -O1 -g -gsplit-dwarf -c a.c -o a.o && gcc -O1 -g -gsplit-dwarf -c b.c -o b.o && "
      "gcc a.o b.o -o whole");
  std::vector<std::string> asked;
  HelperJob job = LinesJob("whole");
  job.open_dwo = [&](std::string_view name, std::string_view directory) {
    EXPECT_EQ(directory, folder_.path());
    asked.emplace_back(name);
    // The second one is missing.
    if (asked.size() > 1) return base::UniqueFd();
    return base::UniqueFd(::open(folder_.At(name).c_str(), O_RDONLY | O_CLOEXEC));
  };
  HelperJob next;
  next.ticket = 2;
  next.elf = folder_.Open("whole");
  queue_->Submit(std::move(job));
  queue_->Submit(std::move(next));
  std::vector<HelperResult> results;
  for (int tries = 0; tries < 600 && results.size() < 2; ++tries) {
    for (HelperResult& result : queue_->Poll(100)) results.push_back(std::move(result));
  }
  ASSERT_EQ(results.size(), 2U);
  EXPECT_EQ(results[0].failure, "");
  EXPECT_THAT(asked, ElementsAre("a.dwo", "b.dwo"));
  EXPECT_EQ(results[0].answer.units_without_dwo, 1U);
  EXPECT_EQ(results[0].answer.lines_state, static_cast<uint8_t>(LinesState::kPresent));
  EXPECT_EQ(results[1].job.ticket, 2U);
  EXPECT_EQ(results[1].answer.status, HelperStatus::kOk);
}

TEST_F(HelperQueueTest, WithoutAnOpenerNothingIsAsked) {
  folder_.Run("gcc -O1 -g -gsplit-dwarf -c a.c -o a.o && gcc a.o -o whole");
  const HelperResult result = Do(LinesJob("whole"));
  EXPECT_EQ(result.failure, "");
  EXPECT_EQ(result.answer.units_without_dwo, 1U);
}

// A helper that was taken over: the test speaks its part over a socket of its own.
TEST(HelperProtocolTest, RequestWhoseDescriptorsDoNotFitEndsTheHelper) {
  for (const uint32_t claimed : {0U, uint32_t{kHelperOutput}, uint32_t{kHelperElf | kHelperDebug},
                                 1U << kMaxHelperFds, ~0U}) {
    auto helper = HelperProcess::Start("", {.max_cpu_seconds = 5});
    ASSERT_TRUE(helper.ok());
    const base::UniqueFd file = EmptyFile();
    const int fd = file.get();
    const auto wait = [&] {
      pollfd readable{.fd = (*helper)->socket(), .events = POLLIN, .revents = 0};
      return ::poll(&readable, 1, 60'000) == 1;
    };
    HelperHello hello;
    ASSERT_TRUE(wait());
    ASSERT_EQ((*helper)->Receive(&hello), HelperProcess::Transfer::kDone);
    const HelperRequest request = {.operation = HelperOperation::kIdentify, .fds = claimed};
    ASSERT_EQ((*helper)->Send(request, std::span(&fd, 1)), HelperProcess::Transfer::kDone);
    // It ends by itself, without an answer.
    HelperAnswer answer;
    HelperDwoQuestion question;
    bool is_question = false;
    ASSERT_TRUE(wait()) << claimed;
    EXPECT_EQ((*helper)->Receive(&answer, &question, &is_question), HelperProcess::Transfer::kDead)
        << claimed;
    EXPECT_THAT((*helper)->End(), testing::AnyOf("exit code 0", "killed by SIGKILL"));
  }
}

}  // namespace
}  // namespace firewatch::symbolizer
