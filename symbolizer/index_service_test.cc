// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/index_service.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/metrics.h"
#include "base/status.h"
#include "symbolizer/elf/elf_builder_for_test.h"
#include "symbolizer/elf/function_symbols.h"
#include "symbolizer/testing/tools_for_test.h"

namespace firewatch::symbolizer {
namespace {

using testing::HasSubstr;

constexpr int kWaitMs = 60'000;
constexpr char kSource[] =
    "__attribute__((noinline)) int Function(int x) { return x + 1; }\n"
    "int main(int argc, char** argv) { (void)argv; return Function(argc); }\n";

class IndexServiceTest : public testing::Test {
 protected:
  void SetUp() override { Restart(); }

  void Restart() {
    service_.reset();
    options_.cache_directory = folder_.At("cache");
    auto created = IndexService::Create(options_, metrics_);
    ASSERT_TRUE(created.ok()) << base::ToString(created.status());
    service_ = *std::move(created);
  }

  // One function "named" of 64 bytes at offset 0x200, address 0x1200.
  void WriteElf(std::string_view name, std::string_view build_id, bool symbols = true) {
    ElfBuilder builder;
    builder.Load(0, 0x1000, 0x1000, 0x1000).BuildIdNote(build_id);
    const uint16_t text = builder.Text(0x1200, 0x200, 0x100);
    if (symbols) builder.Symbol("named", 0x1200, 0x40, text);
    folder_.Write(name, builder.Build(0x1000));
  }
  absl::Status Offer(std::string_view id, std::string_view elf, std::string_view debug = "",
                     bool replace = false) {
    OfferedFiles files;
    if (!elf.empty()) files.elf = folder_.Open(elf);
    if (!debug.empty()) files.debug = folder_.Open(debug);
    return service_->Offer(BuildId::FromHex(id), std::move(files), replace);
  }
  IndexState StateOf(std::string_view id) {
    IndexState state = IndexState::kFailed;
    handle_ = service_->Find(BuildId::FromHex(id), &state, &reason_);
    EXPECT_EQ(handle_ != nullptr, state == IndexState::kReady);
    return state;
  }
  std::string NameAt(uint64_t file_offset, std::span<const ElfSegment> known = {}) {
    return NamesAt({&file_offset, 1}, known)[0];
  }
  std::vector<std::string> NamesAt(std::span<const uint64_t> file_offsets,
                                   std::span<const ElfSegment> known = {}) {
    std::vector<std::string> names;
    handle_->FindOffsets(
        file_offsets, known, [&](size_t number, std::span<const IndexFrame> frames) {
          EXPECT_EQ(number, names.size());
          names.push_back(frames.empty() ? "" : handle_->index().DisplayName(frames.back().name));
        });
    EXPECT_EQ(names.size(), file_offsets.size());
    return names;
  }
  // Value of a line of /metrics.
  std::string Metric(const std::string& name) {
    const std::string page = metrics_.Expose();
    const size_t at = page.find("\n" + name + " ");
    if (at == std::string::npos) return "absent";
    const size_t start = at + name.size() + 2;
    return page.substr(start, page.find('\n', start) - start);
  }

  ToolFolder folder_;
  base::MetricsRegistry metrics_;
  IndexServiceOptions options_;
  std::unique_ptr<IndexService> service_;
  std::shared_ptr<const ServedIndex> handle_;
  std::string reason_;
};

TEST_F(IndexServiceTest, UnknownUntilOfferedThenReady) {
  EXPECT_EQ(StateOf("abcd"), IndexState::kUnknown);
  WriteElf("elf", "\xab\xcd");
  ASSERT_TRUE(Offer("abcd", "elf").ok());
  ASSERT_TRUE(service_->WaitIdle(kWaitMs));
  ASSERT_EQ(StateOf("abcd"), IndexState::kReady) << reason_;
  EXPECT_EQ(NameAt(0x200), "named");
  EXPECT_EQ(NameAt(0x23f), "named");
  EXPECT_EQ(NameAt(0x240), "");
  EXPECT_EQ(handle_->index().lines_state(), LinesState::kNoDebugInfo);
  EXPECT_EQ(Metric("firewatch_index_builds_total{result=\"ready\"}"), "1");
}

TEST_F(IndexServiceTest, ManyOffsetsAreAnsweredInOrderAlsoThoseOutsideOfTheFile) {
  WriteElf("elf", "\xab\xcd");
  ASSERT_TRUE(Offer("abcd", "elf").ok());
  ASSERT_TRUE(service_->WaitIdle(kWaitMs));
  ASSERT_EQ(StateOf("abcd"), IndexState::kReady);
  EXPECT_TRUE(NamesAt({}).empty());
  std::vector<uint64_t> offsets;
  std::vector<std::string> expected;
  for (uint64_t i = 0; i < 500; ++i) {
    // Named, named by nobody, in no segment; the last ones in none.
    const uint64_t kind = i < 400 ? i * i % 7 % 3 : 2;
    offsets.push_back((kind == 0 ? 0x200 : kind == 1 ? 0x240 : 0x5000) + i % 64);
    expected.push_back(kind == 0 ? "named" : "");
  }
  EXPECT_EQ(NamesAt(offsets), expected);
  EXPECT_EQ(NamesAt(std::span(offsets).last(100)), std::vector<std::string>(100));
}

TEST_F(IndexServiceTest, IndexOutlivesTheServiceInItsDirectory) {
  WriteElf("elf", "\xab\xcd");
  ASSERT_TRUE(Offer("abcd", "elf").ok());
  ASSERT_TRUE(service_->WaitIdle(kWaitMs));
  Restart();
  ASSERT_EQ(StateOf("abcd"), IndexState::kReady);
  EXPECT_EQ(NameAt(0x200), "named");
}

TEST_F(IndexServiceTest, DamagedIndexFileIsUnknownAgain) {
  WriteElf("elf", "\xab\xcd");
  ASSERT_TRUE(Offer("abcd", "elf").ok());
  ASSERT_TRUE(service_->WaitIdle(kWaitMs));
  service_.reset();
  std::string bytes = folder_.Read("cache/abcd.fwsym");
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 0x20);
  folder_.Write("cache/abcd.fwsym", bytes);
  Restart();
  EXPECT_EQ(StateOf("abcd"), IndexState::kUnknown);
}

TEST_F(IndexServiceTest, FileOfAnotherBuildIsAMismatch) {
  WriteElf("elf", "\x11\x22");
  ASSERT_TRUE(Offer("abcd", "elf").ok());
  ASSERT_TRUE(service_->WaitIdle(kWaitMs));
  EXPECT_EQ(StateOf("abcd"), IndexState::kMismatch);
  EXPECT_EQ(reason_, "the file has 1122, abcd was expected");
}

TEST_F(IndexServiceTest, TextAndStrippedFilesHaveTheirReason) {
  folder_.Write("text", "#!/bin/sh\n");
  ASSERT_TRUE(Offer("aa01", "text").ok());
  WriteElf("stripped", "\xaa\x02", false);
  ASSERT_TRUE(Offer("aa02", "stripped").ok());
  ASSERT_TRUE(service_->WaitIdle(kWaitMs));
  EXPECT_EQ(StateOf("aa01"), IndexState::kRefused);
  EXPECT_THAT(reason_, HasSubstr("not an ELF file"));
  EXPECT_EQ(StateOf("aa02"), IndexState::kNoSymbols);
}

TEST_F(IndexServiceTest, BadOfferDoesNotTakeAGoodIndexAway) {
  WriteElf("elf", "\xab\xcd");
  ASSERT_TRUE(Offer("abcd", "elf").ok());
  ASSERT_TRUE(service_->WaitIdle(kWaitMs));
  folder_.Write("text", "no ELF");
  ASSERT_TRUE(Offer("abcd", "text").ok());
  ASSERT_TRUE(service_->WaitIdle(kWaitMs));
  ASSERT_EQ(StateOf("abcd"), IndexState::kReady);
  EXPECT_EQ(NameAt(0x200), "named");
}

TEST_F(IndexServiceTest, DebugFileLaterGivesLinesAndHandlesKeepWhatTheyHad) {
  SKIP_WITHOUT_TOOL("gcc");
  SKIP_WITHOUT_TOOL("objcopy");
  folder_.Write("a.c", kSource);
  folder_.Run("gcc -O1 -g -Wl,--build-id=0xabcdef -o whole a.c");
  folder_.Run("objcopy --only-keep-debug whole x.debug && objcopy --strip-debug whole plain");
  ASSERT_TRUE(Offer("abcdef", "plain").ok());
  ASSERT_TRUE(service_->WaitIdle(kWaitMs));
  ASSERT_EQ(StateOf("abcdef"), IndexState::kReady);
  const auto before = handle_;
  EXPECT_FALSE(before->index().has_lines());

  ASSERT_TRUE(Offer("abcdef", "plain", "x.debug").ok());
  ASSERT_TRUE(service_->WaitIdle(kWaitMs));
  ASSERT_EQ(StateOf("abcdef"), IndexState::kReady);
  EXPECT_TRUE(handle_->index().has_lines()) << reason_;
  EXPECT_FALSE(before->index().has_lines());
  EXPECT_EQ(Offer("abcdef", "plain", "x.debug").code(), absl::StatusCode::kAlreadyExists);
  EXPECT_TRUE(Offer("abcdef", "plain", "x.debug", true).ok());
}

// Names that dwz put into a file of its own.
TEST_F(IndexServiceTest, TheCommonFileIsAskedForByItsBuildId) {
  SKIP_WITHOUT_TOOL("gcc");
  SKIP_WITHOUT_TOOL("dwz");
  folder_.Write("a.c",
                "static inline __attribute__((always_inline)) int Inner(int x) {\n"
                "  volatile int y = x; return y + 1; }\n"
                "int main(int argc, char** argv) { (void)argv; return Inner(argc); }\n");
  folder_.Run(
      "gcc -O2 -g -Wl,--build-id=0xabcdef01 -o one a.c && gcc -O2 -g -DTWO -o two a.c && "
      "dwz -m common one two");
  bool there = false;
  std::vector<std::string> asked;
  options_.open_common = [&](const BuildId& common, const BuildId& needed_by) {
    asked.push_back(common.ToHex() + " for " + needed_by.ToHex());
    return there ? folder_.Open("common") : base::UniqueFd();
  };
  Restart();
  ASSERT_TRUE(Offer("abcdef01", "one").ok());
  ASSERT_TRUE(service_->WaitIdle(kWaitMs));
  EXPECT_EQ(StateOf("abcdef01"), IndexState::kReady);
  EXPECT_THAT(reason_, HasSubstr("dwz file that is missing, build id"));
  ASSERT_EQ(asked.size(), 1U);
  EXPECT_THAT(asked[0], HasSubstr(" for abcdef01"));
  // The reason names the same file.
  EXPECT_THAT(reason_, HasSubstr(asked[0].substr(0, 40)));
  there = true;
  ASSERT_TRUE(Offer("abcdef01", "one", "", /*replace=*/true).ok());
  ASSERT_TRUE(service_->WaitIdle(kWaitMs));
  EXPECT_EQ(StateOf("abcdef01"), IndexState::kReady);
  EXPECT_EQ(reason_, "");
}

// Symbols alone do not replace lines, in memory or on disk.
TEST_F(IndexServiceTest, WhatHasLinesIsKept) {
  SKIP_WITHOUT_TOOL("gcc");
  SKIP_WITHOUT_TOOL("objcopy");
  folder_.Write("a.c", kSource);
  folder_.Run(
      "gcc -O1 -g -Wl,--build-id=0xabcdef03 -o whole a.c && "
      "objcopy --strip-debug whole symbols");
  ASSERT_TRUE(Offer("abcdef03", "whole").ok());
  ASSERT_TRUE(service_->WaitIdle(kWaitMs));
  EXPECT_EQ(StateOf("abcdef03"), IndexState::kReady);
  ASSERT_TRUE(handle_->index().has_lines());
  ASSERT_TRUE(Offer("abcdef03", "symbols", "", /*replace=*/true).ok());
  ASSERT_TRUE(service_->WaitIdle(kWaitMs));
  EXPECT_EQ(StateOf("abcdef03"), IndexState::kReady);
  EXPECT_TRUE(handle_->index().has_lines());
  Restart();
  EXPECT_EQ(StateOf("abcdef03"), IndexState::kReady);
  EXPECT_TRUE(handle_->index().has_lines());
}

// A second file of a build id that is being built is not lost: it is built once more.
TEST_F(IndexServiceTest, WhatComesWhileItIsBuiltIsBuiltNext) {
  SKIP_WITHOUT_TOOL("gcc");
  SKIP_WITHOUT_TOOL("objcopy");
  folder_.Write("a.c", kSource);
  folder_.Run(
      "gcc -O1 -g -Wl,--build-id=0xabcdef02 -o whole a.c && "
      "objcopy --only-keep-debug whole x.debug && objcopy --strip-debug whole stripped");
  for (int round = 0; round < 5; ++round) {
    std::filesystem::remove_all(folder_.At("cache"));
    Restart();
    OfferedFiles both;
    both.elf = folder_.Open("stripped");
    both.debug = folder_.Open("x.debug");
    ASSERT_TRUE(Offer("abcdef02", "stripped").ok());
    EXPECT_EQ(Offer("abcdef02", "stripped").code(), absl::StatusCode::kAlreadyExists);
    ASSERT_TRUE(service_->Offer(BuildId::FromHex("abcdef02"), std::move(both), true).ok());
    ASSERT_TRUE(service_->WaitIdle(kWaitMs));
    EXPECT_EQ(StateOf("abcdef02"), IndexState::kReady);
    EXPECT_TRUE(handle_->index().has_lines()) << round;
  }
}

TEST_F(IndexServiceTest, DebugFileAloneNeedsTheSegmentsOfTheProgram) {
  SKIP_WITHOUT_TOOL("gcc");
  SKIP_WITHOUT_TOOL("objcopy");
  folder_.Write("a.c", kSource);
  folder_.Run("gcc -O1 -g -Wl,--build-id=0xabcdef -o whole a.c");
  folder_.Run("objcopy --only-keep-debug whole x.debug");
  ASSERT_TRUE(Offer("abcdef", "", "x.debug").ok());
  ASSERT_TRUE(service_->WaitIdle(kWaitMs));
  ASSERT_EQ(StateOf("abcdef"), IndexState::kReady) << reason_;

  const base::UniqueFd fd = folder_.Open("whole");
  const FdByteSource source(fd.get());
  const auto elf = ElfReader::Open(source);
  ASSERT_TRUE(elf.ok());
  const auto functions = ReadFunctionSymbols(*elf);
  ASSERT_TRUE(functions.ok());
  for (const InputSymbol& symbol : functions->symbols) {
    if (symbol.name != "Function") continue;
    const auto offset = elf->FileOffsetOf(symbol.start);
    ASSERT_TRUE(offset.has_value());
    EXPECT_EQ(NameAt(*offset), "") << "nobody knows where the file lies in memory";
    EXPECT_EQ(NameAt(*offset, elf->segments()), "Function");
    const uint64_t around[] = {UINT64_MAX, *offset, uint64_t{1} << 40, *offset, 1 << 30};
    EXPECT_THAT(NamesAt(around, elf->segments()),
                testing::ElementsAre("", "Function", "", "Function", ""));
  }
}

TEST_F(IndexServiceTest, FullQueueRefusesAndCounts) {
  options_.max_waiting = 1;
  options_.helper_path = "/bin/true";  // nothing is ever built; each try takes seconds
  Restart();
  WriteElf("elf", "\xab\xcd");
  int refused = 0;
  for (const char* id : {"aa01", "aa02", "aa03", "aa04"}) {
    const absl::Status offered = Offer(id, "elf");
    if (offered.code() == absl::StatusCode::kResourceExhausted) ++refused;
  }
  EXPECT_GE(refused, 2);
  EXPECT_EQ(Metric("firewatch_index_offers_refused_total"), std::to_string(refused));
  EXPECT_EQ(StateOf("aa01"), IndexState::kBuilding);
  EXPECT_EQ(Offer("aa01", "elf").code(), absl::StatusCode::kAlreadyExists);
}

TEST_F(IndexServiceTest, MissingHelperIsAFailureThatMayPass) {
  options_.helper_path = "/bin/true";
  Restart();
  WriteElf("elf", "\xab\xcd");
  ASSERT_TRUE(Offer("abcd", "elf").ok());
  ASSERT_TRUE(service_->WaitIdle(kWaitMs));
  EXPECT_EQ(StateOf("abcd"), IndexState::kFailed);
  EXPECT_THAT(reason_, HasSubstr("symbol helper"));
  options_.helper_path = "";
  Restart();
  ASSERT_TRUE(Offer("abcd", "elf").ok());
  ASSERT_TRUE(service_->WaitIdle(kWaitMs));
  EXPECT_EQ(StateOf("abcd"), IndexState::kReady);
}

TEST_F(IndexServiceTest, LeastRecentlyUsedAreUnmappedAndComeBack) {
  options_.max_mapped = 4;
  Restart();
  std::vector<std::string> ids;
  for (int i = 0; i < 10; ++i) {
    const char raw[] = {'\x33', static_cast<char>(i)};
    WriteElf("elf", std::string_view(raw, 2));
    ids.push_back(fmt::format("33{:02x}", i));
    ASSERT_TRUE(Offer(ids.back(), "elf").ok());
    ASSERT_TRUE(service_->WaitIdle(kWaitMs));
  }
  EXPECT_LE(std::stoi(Metric("firewatch_index_mapped")), 4);
  for (const std::string& id : ids) {
    ASSERT_EQ(StateOf(id), IndexState::kReady) << id;
    EXPECT_EQ(NameAt(0x200), "named");
  }
  EXPECT_LE(std::stoi(Metric("firewatch_index_mapped")), 4);
}

TEST_F(IndexServiceTest, ManyThreadsAskWhileIndexesAreReplaced) {
  WriteElf("elf", "\xab\xcd");
  ASSERT_TRUE(Offer("abcd", "elf").ok());
  ASSERT_TRUE(service_->WaitIdle(kWaitMs));
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> wrong{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      const BuildId id = BuildId::FromHex("abcd");
      while (!stop) {
        const auto handle = service_->Find(id, nullptr, nullptr);
        const uint64_t offsets[] = {0x210, 0x9999, 0x211};
        std::string depths;
        if (handle != nullptr) {
          handle->FindOffsets(offsets, {}, [&](size_t, std::span<const IndexFrame> frames) {
            depths += std::to_string(frames.size());
          });
        }
        if (depths != "101") ++wrong;
      }
    });
  }
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(Offer("abcd", "elf", "", true).ok());
    ASSERT_TRUE(service_->WaitIdle(kWaitMs));
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0U);
}

TEST(VaddrBySegmentsTest, ExecutableSegmentsFirstAndNothingOutside) {
  const std::vector<ElfSegment> segments = {
      {.file_offset = 0, .file_size = 0x100, .vaddr = 0x400000, .executable = false},
      {.file_offset = 0x80, .file_size = 0x100, .vaddr = 0x800080, .executable = true}};
  EXPECT_EQ(VaddrBySegments(segments, 0x10), 0x400010U);
  EXPECT_EQ(VaddrBySegments(segments, 0x80), 0x800080U);
  EXPECT_EQ(VaddrBySegments(segments, 0x180), std::nullopt);
  EXPECT_EQ(VaddrBySegments({}, 0), std::nullopt);
}

}  // namespace
}  // namespace firewatch::symbolizer
