// SPDX-License-Identifier: Apache-2.0
#include "agent/window_request.h"

#include <gtest/gtest.h>

#include "base/status.h"
#include "profile/builder.h"
#include "profile/pprof_codec.h"

namespace firewatch::agent {
namespace {

TEST(WindowRequestTest, CarriesLabelsProfilesLossesAndTimes) {
  profile::ProfileBuilder builder({{"samples", "count"}, {"cpu", "nanoseconds"}});
  profile::Location location;
  location.lines.push_back({.function = builder.AddFunction("f", "f", "")});
  const std::array<profile::LocationId, 1> stack = {builder.AddLocation(location)};
  builder.AddSample(builder.AddStack(stack), profile::LabelSetId(), std::array<int64_t, 2>{3, 30});
  ClosedWindow window;
  window.start = {1'000};
  window.end = {2'000};
  window.hz = 19;
  window.groups.push_back({profile::LabelSet({{"service", "s"}, {"exe", "e"}}), builder.Finish()});
  window.losses = {{"ring_full", 4}};
  window.stack_ends = {{"root", 3}};

  const auto request = MakeUploadRequest(window, "node1");
  ASSERT_TRUE(request.ok()) << base::ToString(request.status());
  EXPECT_EQ(request->node(), "node1");
  EXPECT_EQ(request->start_unix_ns(), 1'000);
  EXPECT_EQ(request->end_unix_ns(), 2'000);
  EXPECT_EQ(request->sample_hz(), 19u);
  ASSERT_EQ(request->profiles_size(), 1);
  EXPECT_EQ(request->profiles(0).labels(0).name(), "exe");
  EXPECT_EQ(request->profiles(0).labels(1).value(), "s");
  EXPECT_EQ(request->losses(0).name(), "ring_full");
  EXPECT_EQ(request->losses(0).count(), 4u);
  EXPECT_EQ(request->stack_ends(0).reason(), "root");
  const auto back = profile::ReadPprof(request->profiles(0).pprof_zstd());
  ASSERT_TRUE(back.ok()) << base::ToString(back.status());
  ASSERT_EQ(back->samples.size(), 1u);
  EXPECT_EQ(back->samples[0].values[1], 30);
}

TEST(WindowRequestTest, SaysWhatFramesLackAndWhy) {
  ClosedWindow window;
  window.binaries.push_back({.no_names = symbolizer::NameReason::kStripped,
                             .bare_frames = 7,
                             .no_lines = symbolizer::NameReason::kDebugMismatch,
                             .frames_without_line = 2,
                             .build_id = "00ff",
                             .path = "/opt/\xff",
                             .detail = "why",
                             .segments = {{.file_offset = 1, .vaddr = 2, .file_size = 3}}});
  window.bare_frames = {{symbolizer::NameReason::kAnonymousMemory, 9}};
  const auto request = MakeUploadRequest(window, "node1");
  ASSERT_TRUE(request.ok()) << base::ToString(request.status());
  ASSERT_EQ(request->binaries_size(), 1);
  const ingest::BinaryInfo& binary = request->binaries(0);
  EXPECT_EQ(binary.build_id(), "00ff");
  EXPECT_EQ(binary.path(), "/opt/\xef\xbf\xbd");
  EXPECT_EQ(binary.reason(), ingest::NAME_REASON_STRIPPED);
  EXPECT_EQ(binary.bare_frames(), 7u);
  EXPECT_EQ(binary.lines_reason(), ingest::NAME_REASON_DEBUG_MISMATCH);
  EXPECT_EQ(binary.frames_without_line(), 2u);
  EXPECT_EQ(binary.detail(), "why");
  ASSERT_EQ(binary.segments_size(), 1);
  EXPECT_EQ(binary.segments(0).offset(), 1u);
  EXPECT_EQ(binary.segments(0).vaddr(), 2u);
  EXPECT_EQ(binary.segments(0).size(), 3u);
  ASSERT_EQ(request->bare_frames_size(), 1);
  EXPECT_EQ(request->bare_frames(0).reason(), ingest::NAME_REASON_ANONYMOUS_MEMORY);
  EXPECT_EQ(request->bare_frames(0).count(), 9u);
}

}  // namespace
}  // namespace firewatch::agent
