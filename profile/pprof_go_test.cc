// SPDX-License-Identifier: Apache-2.0
// What we write, as `go tool pprof` reads it.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>

#include "base/check.h"
#include "profile/pprof_codec.h"
#include "profile/test_profiles.h"

namespace firewatch::profile {
namespace {

struct Output {
  std::string text;
  int status = -1;
};

Output RunShell(const std::string& command) {
  Output output;
  FILE* pipe = popen(("(" + command + ") 2>&1").c_str(), "r");
  CHECK(pipe != nullptr);
  std::array<char, 4096> buffer;
  while (const size_t size = fread(buffer.data(), 1, buffer.size(), pipe)) {
    output.text.append(buffer.data(), size);
  }
  output.status = pclose(pipe);
  return output;
}

// Go before 1.20 keeps neither columns nor samples without a stack.
Profile AsOldGoKeepsIt(Profile profile) {
  std::erase_if(profile.samples,
                [&](const Sample& sample) { return profile.stacks[sample.stack.index()].empty(); });
  for (Location& location : profile.locations) {
    for (Line& line : location.lines) line.column = 0;
  }
  return profile;
}

class GoPprofTest : public testing::Test {
 protected:
  void SetUp() override {
    // The tool is built at its first use and kept in Go's cache, which needs a home.
    if (RunShell("go version").status != 0) GTEST_SKIP() << "no go on this machine";
    std::string pattern = testing::TempDir() + "firewatch-pprof-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    const auto bytes = WritePprof(SmallTestProfile(), Compression::kGzip);
    ASSERT_TRUE(bytes.ok());
    std::ofstream(folder_ / "small.pb.gz", std::ios::binary) << *bytes;
  }
  void TearDown() override {
    if (!folder_.empty()) std::filesystem::remove_all(folder_);
  }

  Output Pprof(const std::string& arguments) {
    const std::string folder = folder_.string();
    return RunShell("PPROF_TMPDIR=" + folder + " PPROF_BINARY_PATH=" + folder + " go tool pprof " +
                    arguments + " " + folder + "/small.pb.gz");
  }

  std::filesystem::path folder_;
};

TEST_F(GoPprofTest, RawShowsWhatWasWritten) {
  const Output raw = Pprof("-raw");
  ASSERT_EQ(raw.status, 0) << raw.text;
  for (const char* expected : {
           "PeriodType: cpu nanoseconds",
           "Period: 52631578",
           "Duration: 10",
           "samples/count cpu/nanoseconds[dflt]",
           "5    5000000: ",
           "tid:[7]",
           "thread:[worker \"1\"]",
           // Numbers of rows differ between versions of Go, and columns are shown since 1.20.
           ": 0x1010 M=1 main app.cc:12",
           ": 0x1100 M=1 app::Step() app.h:6",
           "app::Work(int) app.cc:22",
           ": 0xffffffff81234567 M=",
           " ksys_read ",
           ": 0x0/0x9000/0x0 /usr/bin/app 00112233445566778899aabbccddeeff00112233 "
           "[FN][FL][LN][IN]",
           ": 0x0/0x0/0x0 [kernel]  [FN]",
           ": 0x0/0x0/0x0   [FN]",
       }) {
    EXPECT_NE(raw.text.find(expected), std::string::npos) << expected << "\nin\n" << raw.text;
  }
}

TEST_F(GoPprofTest, TopHasOurTotalsAndNames) {
  const Output top = Pprof("-top -sample_index=samples");
  ASSERT_EQ(top.status, 0) << top.text;
  EXPECT_NE(top.text.find("Showing nodes accounting for 22, 95.65% of 23 total"), std::string::npos)
      << top.text;
  EXPECT_NE(top.text.find("app::Step() (inline)"), std::string::npos) << top.text;
  EXPECT_NE(top.text.find("File: app"), std::string::npos) << top.text;
}

TEST_F(GoPprofTest, TracesShowStacksAndLabels) {
  const Output traces = Pprof("-traces -sample_index=samples");
  ASSERT_EQ(traces.status, 0) << traces.text;
  EXPECT_NE(traces.text.find("nft_do_chain"), std::string::npos) << traces.text;
  EXPECT_NE(traces.text.find("thread:  worker \"1\""), std::string::npos) << traces.text;
}

TEST_F(GoPprofTest, WhatGoWritesBackIsReadBackTheSame) {
  const std::string copy = (folder_ / "copy.pb.gz").string();
  const Output proto = Pprof("-proto -output=" + copy);
  ASSERT_EQ(proto.status, 0) << proto.text;
  std::ifstream file(copy, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const auto read = ReadPprof(bytes);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(SamplesByText(AsOldGoKeepsIt(*read)),
            SamplesByText(AsOldGoKeepsIt(SmallTestProfile())));
}

}  // namespace
}  // namespace firewatch::profile
