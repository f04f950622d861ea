// SPDX-License-Identifier: Apache-2.0
// From an upload to a kept file: what is taken, what is refused, what goes first.
#include "server/debuginfo/debuginfo.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zstd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "server/debuginfo/fake_names.h"
#include "server/debuginfo/naming.h"
#include "server/debuginfo/upload.h"

namespace firewatch::server {
namespace {

using symbolizer::BuildId;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using transport::HttpRequest;
using transport::HttpResponse;

const BuildId kId = BuildId::FromHex("aabbccdd");
const BuildId kOther = BuildId::FromHex("01020304");

std::string Elf(std::string_view id, size_t bytes = 100) {
  std::string elf =
      "\x7f"
      "ELF";
  elf += id;
  elf.resize(std::max(bytes, elf.size()), '.');
  return elf;
}

std::string Zstd(std::string_view bytes) {
  std::string frame(::ZSTD_compressBound(bytes.size()), '\0');
  frame.resize(::ZSTD_compress(frame.data(), frame.size(), bytes.data(), bytes.size(), 3));
  return frame;
}

class DebugInfoTest : public ::testing::Test, protected DebugInfoFixture {
 protected:
  HttpResponse Put(const std::string& id, std::string_view body, const std::string& encoding = "",
                   const std::string& kind = "debug", size_t piece = 7) {
    HttpRequest request{.method = "PUT", .path = std::string(kDebugInfoPath) + id};
    if (!kind.empty()) request.query.emplace_back("kind", kind);
    if (!encoding.empty()) request.headers.emplace_back("content-encoding", encoding);
    transport::StreamStart start = OpenUpload(*debuginfo, request);
    if (start.sink == nullptr) return start.refusal;
    for (size_t at = 0; at < body.size(); at += piece) {
      if (auto response = start.sink->Take(body.substr(at, piece))) return *response;
    }
    return start.sink->Finish();
  }
  bool NothingIncoming() { return std::filesystem::is_empty(directory + "/incoming"); }
  std::vector<std::string> Kept() {
    std::vector<std::string> kept;
    for (const StoredFile& file : files->List()) {
      kept.push_back(file.id.ToHex() + " " + std::string(FileKindText(file.kind)));
    }
    return kept;
  }
};

TEST_F(DebugInfoTest, AnUploadIsKeptAndOffered) {
  const HttpResponse response = Put("aabbccdd", Elf("aabbccdd"));
  EXPECT_EQ(response.status, 201) << response.body;
  EXPECT_THAT(response.body, HasSubstr("\"build_id\":\"aabbccdd\""));
  EXPECT_THAT(Kept(), ElementsAre("aabbccdd debug"));
  EXPECT_EQ(files->total_bytes(), 100u);
  ASSERT_EQ(source.offers().size(), 1u);
  EXPECT_TRUE(source.offers()[0].second.debug);
  EXPECT_TRUE(source.offers()[0].second.replace);
  // The executable joins it: both are offered.
  EXPECT_EQ(Put("AABBCCDD", Elf("aabbccdd", 300), "", "executable").status, 201);
  EXPECT_TRUE(source.offers()[1].second.executable && source.offers()[1].second.debug);
  EXPECT_EQ(files->total_bytes(), 400u);
  EXPECT_TRUE(NothingIncoming());
}

TEST_F(DebugInfoTest, ACompressedUploadIsKeptWhole) {
  const std::string elf = Elf("aabbccdd", 200'000);
  EXPECT_EQ(Put("aabbccdd", Zstd(elf), "zstd").status, 201);
  std::stringstream kept;
  kept << std::ifstream(directory + "/files/aabbccdd.debug.upload").rdbuf();
  EXPECT_EQ(kept.str(), elf);
}

TEST_F(DebugInfoTest, WhatIsWrongIsRefusedWithItsReason) {
  EXPECT_THAT(Put("aabbccdd", Elf("01020304")).body,
              HasSubstr("has build id 01020304, not aabbccdd"));
  EXPECT_EQ(Put("aabbccdd", Elf("01020304")).status, 422);
  EXPECT_EQ(Put("aabbccdd", "#!/bin/sh\necho").status, 422);
  EXPECT_EQ(Put("aabbccdd", "\x7f").status, 422);
  EXPECT_EQ(Put("aabbccdd", "").status, 422);
  EXPECT_EQ(Put("xyz", Elf("aabbccdd")).status, 400);
  EXPECT_EQ(Put("", Elf("aabbccdd")).status, 400);
  EXPECT_EQ(Put("aabbccdd", Elf("aabbccdd"), "gzip").status, 400);
  EXPECT_EQ(Put("aabbccdd", Elf("aabbccdd"), "", "source").status, 400);
  const std::string frame = Zstd(Elf("aabbccdd", 5'000));
  EXPECT_THAT(Put("aabbccdd", frame.substr(0, frame.size() - 3), "zstd").body,
              HasSubstr("cut off"));
  EXPECT_THAT(Put("aabbccdd", frame + "x", "zstd").body, HasSubstr("follow"));
  EXPECT_THAT(Put("aabbccdd", "not a frame at all", "zstd").body, HasSubstr("no zstd frame"));
  EXPECT_THAT(Kept(), IsEmpty());
  EXPECT_TRUE(NothingIncoming());
}

TEST_F(DebugInfoTest, AFileThatUnpacksPastTheBoundIsRefusedOnTheWay) {
  const std::string bomb = Zstd(Elf("aabbccdd", 50 << 20));
  ASSERT_LT(bomb.size(), 10'000u);
  const HttpResponse response = Put("aabbccdd", bomb, "zstd", "debug", 256 << 10);
  EXPECT_EQ(response.status, 413) << response.body;
  EXPECT_TRUE(NothingIncoming());
}

TEST_F(DebugInfoTest, TheLeastRecentlyUsedGoesFirst) {
  const auto put = [&](const std::string& id) {
    clock.AdvanceNs(3'600'000'000'000);
    return Put(id, Elf(id, 200'000), "", "debug", 64 << 10).status;
  };
  for (const char* id : {"00000001", "00000002", "00000003", "00000004", "00000005"}) {
    EXPECT_EQ(put(id), 201);
  }
  clock.AdvanceNs(3'600'000'000'000);
  files->NoteUse(BuildId::FromHex("00000001"));
  EXPECT_EQ(put("00000006"), 201);
  EXPECT_THAT(Kept(), ElementsAre("00000001 debug", "00000003 debug", "00000004 debug",
                                  "00000005 debug", "00000006 debug"));
  EXPECT_LE(files->total_bytes(), uint64_t{1} << 20);
  // Use times are on disk.
  Reopen();
  EXPECT_EQ(put("00000007"), 201);
  EXPECT_THAT(Kept(), ElementsAre("00000001 debug", "00000004 debug", "00000005 debug",
                                  "00000006 debug", "00000007 debug"));
}

TEST_F(DebugInfoTest, ARestartFindsWhatIsWholeAndNothingElse) {
  EXPECT_EQ(Put("aabbccdd", Elf("aabbccdd")).status, 201);
  std::ofstream(directory + "/incoming/9") << "half";
  std::ofstream(directory + "/files/garbage") << "x";
  std::ofstream(directory + "/files/zz.debug.upload") << "x";
  std::filesystem::create_symlink("/etc/passwd", directory + "/files/0badf00d.debug.upload");
  Reopen();
  EXPECT_THAT(Kept(), ElementsAre("aabbccdd debug"));
  EXPECT_EQ(files->total_bytes(), 100u);
  EXPECT_TRUE(NothingIncoming());
  EXPECT_TRUE(debuginfo->Delete(kId).ok());
  EXPECT_EQ(debuginfo->Delete(kId).code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Kept(), IsEmpty());
}

// A file that shares names with others waits for the file that has them, also over a restart.
TEST_F(DebugInfoTest, TheCommonFileHasThoseBuiltAgainThatWait) {
  const BuildId third = BuildId::FromHex("05060708");
  std::vector<BuildId> wanted;
  const auto want = [&](const BuildId& id) { wanted.push_back(id); };
  common->SetWant(want);
  ASSERT_EQ(Put("aabbccdd", Elf("aabbccdd")).status, 201);
  ASSERT_EQ(Put("05060708", Elf("05060708")).status, 201);
  EXPECT_FALSE(common->OpenFor(kOther, kId).valid());
  EXPECT_FALSE(common->OpenFor(kOther, third).valid());
  EXPECT_THAT(wanted, ElementsAre(kOther, kOther));
  Reopen();
  wanted.clear();
  common->SetWant(want);
  EXPECT_EQ(debuginfo->EntryOf(kId).missing_common, kOther);
  // Whoever has the names looked up asks for it.
  source.Set(kId, NamesState::kReady, std::make_shared<FakeBinaryNames>());
  source.Set(third, NamesState::kReady, std::make_shared<FakeBinaryNames>());
  NamesState state = NamesState::kUnknown;
  std::string reason;
  EXPECT_NE(debuginfo->NamesOf(kId, &state, &reason), nullptr);
  EXPECT_THAT(wanted, ElementsAre(kOther));
  EXPECT_EQ(source.offers().size(), 2u);

  // There is room for none of them, and the server starts anew: a query has them built.
  source.full = true;
  ASSERT_EQ(Put("01020304", Elf("01020304common")).status, 201);
  source.full = false;
  Reopen();
  ASSERT_EQ(source.offers().size(), 2u);
  for (int i = 0; i < 3; ++i) EXPECT_NE(debuginfo->NamesOf(kId, &state, &reason), nullptr);
  ASSERT_EQ(source.offers().size(), 3u);
  EXPECT_EQ(source.offers()[2].first, kId);
  EXPECT_TRUE(source.offers()[2].second.replace);
  EXPECT_TRUE(common->OpenFor(kOther, kId).valid());
  EXPECT_THAT(common->WaitingFor(kOther), ElementsAre(third));
  EXPECT_TRUE(debuginfo->EntryOf(kId).missing_common.empty());
  clock.AdvanceNs(uint64_t{3600} * 1'000'000'000);
  debuginfo->NamesOf(kId, &state, &reason);
  EXPECT_EQ(source.offers().size(), 3u);  // it has all

  // With room those that wait are built when it comes.
  const BuildId another = BuildId::FromHex("0a0b0c0d");
  EXPECT_FALSE(common->OpenFor(another, third).valid());
  EXPECT_THAT(common->WaitingFor(kOther), IsEmpty());
  ASSERT_EQ(Put("0a0b0c0d", Elf("0a0b0c0dcommon")).status, 201);
  ASSERT_EQ(source.offers().size(), 4u);
  EXPECT_EQ(source.offers()[3].first, third);
  EXPECT_THAT(Kept(), ElementsAre("01020304 common", "05060708 debug", "0a0b0c0d common",
                                  "aabbccdd debug"));
  EXPECT_EQ(Put("0a0b0c0d", Elf("0a0b0c0d"), "", "common").status, 400);
  // It goes like any other, and so does what is known of a file that is gone.
  EXPECT_TRUE(debuginfo->Delete(another).ok());
  EXPECT_FALSE(common->OpenFor(another, third).valid());
  EXPECT_TRUE(debuginfo->Delete(third).ok());
  Reopen();
  EXPECT_THAT(common->WaitingFor(another), IsEmpty());
  std::vector<std::string> records;
  for (const auto& file : std::filesystem::directory_iterator(directory + "/common")) {
    records.push_back(file.path().filename());
  }
  EXPECT_THAT(records, ElementsAre("01020304.aabbccdd.used"));
}

// An error in the middle of opening is an error.
TEST(NamingOpenTest, ADirectoryThatCannotBeMadeIsSaid) {
  char pattern[] = "/tmp/firewatch-naming-XXXXXX";
  const std::string directory = ::mkdtemp(pattern);
  std::ofstream(directory + "/common") << "a file";
  const base::SystemClock clock;
  base::MetricsRegistry metrics;
  const auto naming = Naming::Open({.directory = directory}, clock, metrics);
  EXPECT_THAT(base::ToString(naming.status()), HasSubstr("/common"));
  std::filesystem::remove_all(directory);
}

TEST_F(DebugInfoTest, QueriesStartWhatIsMissingAndNeverMoreOftenThanNeeded) {
  std::vector<std::string> wanted;
  debuginfo->SetWant([&](const BuildId& id) { wanted.push_back(id.ToHex()); });
  EXPECT_EQ(Put("aabbccdd", Elf("aabbccdd")).status, 201);
  NamesState state;
  // An index that is gone (evicted) is made again from the file that is kept.
  EXPECT_EQ(debuginfo->NamesOf(kId, &state, nullptr), nullptr);
  EXPECT_EQ(state, NamesState::kBuilding);
  EXPECT_EQ(source.offers().size(), 2u);
  EXPECT_EQ(debuginfo->NamesOf(kId, &state, nullptr), nullptr);
  EXPECT_EQ(source.offers().size(), 2u);
  EXPECT_THAT(wanted, IsEmpty());
  // Nothing is kept: others are asked.
  EXPECT_EQ(debuginfo->NamesOf(kOther, &state, nullptr), nullptr);
  EXPECT_THAT(wanted, ElementsAre("01020304"));
  auto names = std::make_shared<FakeBinaryNames>();
  source.Set(kOther, NamesState::kReady, names);
  EXPECT_EQ(debuginfo->NamesOf(kOther, &state, nullptr), names);
  EXPECT_EQ(wanted.size(), 1u);
  names->lines = false;
  EXPECT_EQ(debuginfo->NamesOf(kOther, &state, nullptr), names);
  EXPECT_EQ(wanted.size(), 2u);
}

}  // namespace
}  // namespace firewatch::server
