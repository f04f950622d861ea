// SPDX-License-Identifier: Apache-2.0
// Agents with the true helper, a server that only keeps and counts what it is sent.
#include "agent/debug_info_uploader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>
#include <zstd.h>

#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "base/status.h"
#include "symbolizer/testing/tools_for_test.h"
#include "transport/http_server.h"

namespace firewatch::agent {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr std::string_view kPath = "/api/v1/debuginfo/";

// A build id has lines once a file with it has arrived.
class KeepingServer {
 public:
  void Start(base::MetricsRegistry& metrics) {
    transport::HttpServerOptions options;
    options.stream = {.path_prefix = std::string(kPath),
                      .open = [this](const auto& request) { return Open(request); }};
    auto started = transport::HttpServer::Start(
        options, [this](const auto& request) { return Answer(request); }, metrics);
    ASSERT_TRUE(started.ok());
    http_ = *std::move(started);
  }
  std::string address() const { return http_->address(); }

  // "abcdef debug agent zstd", in the order of arrival.
  std::vector<std::string> uploads() {
    base::MutexLock lock(mutex_);
    return uploads_;
  }
  std::string LastFile() {
    base::MutexLock lock(mutex_);
    std::string out(size_t{4} << 20, '\0');
    const size_t size = ::ZSTD_decompress(out.data(), out.size(), last_.data(), last_.size());
    EXPECT_FALSE(::ZSTD_isError(size));
    out.resize(::ZSTD_isError(size) ? 0 : size);
    return out;
  }
  int questions() {
    base::MutexLock lock(mutex_);
    return questions_;
  }
  // Answers this many uploads with this status.
  void Fail(int count, int status) {
    base::MutexLock lock(mutex_);
    failures_ = count;
    failure_status_ = status;
  }

 private:
  struct Sink final : transport::BodySink {
    Sink(KeepingServer& to, std::string build_id, std::string how)
        : server(to), id(std::move(build_id)), text(std::move(how)) {}
    std::optional<transport::HttpResponse> Take(std::string_view piece) override {
      bytes.append(piece);
      return std::nullopt;
    }
    transport::HttpResponse Finish() override {
      base::MutexLock lock(server.mutex_);
      if (server.failures_ > 0) {
        --server.failures_;
        return transport::ErrorResponse(server.failure_status_, "told to fail");
      }
      server.uploads_.push_back(id + " " + text);
      server.known_.insert(id);
      server.last_ = std::move(bytes);
      return {.status = 201, .body = "{}"};
    }
    KeepingServer& server;
    std::string id, text, bytes;
  };
  transport::StreamStart Open(const transport::HttpRequest& request) {
    transport::StreamStart start;
    start.sink = std::make_unique<Sink>(*this, request.path.substr(kPath.size()),
                                        std::string(request.Query("kind").value_or("?")) + " " +
                                            std::string(request.Query("source").value_or("?")) +
                                            " " + std::string(request.Header("content-encoding")));
    return start;
  }
  transport::HttpResponse Answer(const transport::HttpRequest& request) {
    base::MutexLock lock(mutex_);
    ++questions_;
    const std::string id = request.path.substr(kPath.size());
    const bool known = known_.contains(id);
    return {.content_type = "application/json",
            .body = known && id.size() == 40
                        ? R"({"state":"common","lines":false,"files":[{"kind":"common"}]})"
                    : known ? R"({"state":"ready","lines":true,"files":[]})"
                            : R"({"state":"unknown","lines":false,"files":[]})"};
  }

  base::Mutex mutex_;
  std::vector<std::string> uploads_ ABSL_GUARDED_BY(mutex_);
  std::set<std::string> known_ ABSL_GUARDED_BY(mutex_);
  std::string last_ ABSL_GUARDED_BY(mutex_);
  int questions_ ABSL_GUARDED_BY(mutex_) = 0;
  int failures_ ABSL_GUARDED_BY(mutex_) = 0;
  int failure_status_ ABSL_GUARDED_BY(mutex_) = 0;
  std::unique_ptr<transport::HttpServer> http_;
};

class DebugInfoUploaderTest : public testing::Test {
 protected:
  void SetUp() override {
    SKIP_WITHOUT_TOOL("gcc");
    SKIP_WITHOUT_TOOL("objcopy");
    folder_.Write("a.c",
                  "const char kText[] = \"text of the program\";\nint main(void) { return "
                  "kText[0]; }\n");
    folder_.Run("gcc -O1 -g -Wl,--build-id=0xaa01 -o one a.c");
    folder_.Run("gcc -O1 -g -Wl,--build-id=0xaa02 -o two a.c");
    folder_.Run("gcc -O1 -g -Wl,--build-id=0xaa03 -o three a.c");
    folder_.Run(
        "objcopy --only-keep-debug three three.debug && "
        "objcopy --strip-all --add-gnu-debuglink=three.debug three linked && "
        "gcc -O1 -s -Wl,--build-id=0xaa04 -o bare a.c");
    server_.Start(server_metrics_);
  }
  symbolizer::FileUse UseOf(const std::string& name, const std::string& id, uint64_t frames = 1) {
    return {.file = {.path = folder_.At(name), .build_id = symbolizer::BuildId::FromHex(id)},
            .id = symbolizer::BuildId::FromHex(id),
            .pid = static_cast<uint32_t>(::getpid()),
            .frames = frames};
  }
  DebugInfoUploaderOptions Options() {
    return {.server = server_.address(),
            .copies = {.directory = folder_.path()},
            .cpu = {.share = 1},
            .spread_ms = 0,
            .backoff_min_ms = 10};
  }
  struct Agent {
    std::unique_ptr<base::MetricsRegistry> metrics = std::make_unique<base::MetricsRegistry>();
    std::unique_ptr<DebugInfoUploader> uploader;
    uint64_t Results(const char* result) const {
      return metrics
          ->AddCounter("firewatch_debuginfo_uploads_total",
                       "Build ids that were to be uploaded, by result of a try.",
                       {{"result", result}})
          .value();
    }
  };
  Agent StartAgent(DebugInfoUploaderOptions options) {
    Agent agent;
    auto started = DebugInfoUploader::Start(std::move(options), *agent.metrics);
    EXPECT_TRUE(started.ok()) << base::ToString(started.status());
    if (started.ok()) agent.uploader = *std::move(started);
    return agent;
  }

  symbolizer::ToolFolder folder_;
  base::MetricsRegistry server_metrics_;
  KeepingServer server_;
};

TEST_F(DebugInfoUploaderTest, OneUploadPerBuildIdAndFleet) {
  const Agent first = StartAgent(Options());
  for (int window = 0; window < 3; ++window) first.uploader->Offer(UseOf("one", "aa01"));
  ASSERT_TRUE(first.uploader->WaitIdle(60'000));
  EXPECT_THAT(server_.uploads(), ElementsAre("aa01 executable agent zstd"));
  EXPECT_EQ(first.Results("uploaded"), 1u);
  const std::string sent = server_.LastFile();
  const std::string original = folder_.Read("one");
  EXPECT_EQ(sent.size(), original.size());
  EXPECT_NE(original.find("text of the program"), std::string::npos);
  EXPECT_EQ(sent.find("text of the program"), std::string::npos);

  const Agent second = StartAgent(Options());
  second.uploader->Offer(UseOf("one", "aa01"));
  ASSERT_TRUE(second.uploader->WaitIdle(60'000));
  EXPECT_EQ(server_.uploads().size(), 1u);
  EXPECT_EQ(second.Results("present"), 1u);
  const int questions = server_.questions();
  second.uploader->Offer(UseOf("one", "aa01"));
  first.uploader->Offer(UseOf("one", "aa01"));
  EXPECT_TRUE(first.uploader->WaitIdle(0) && second.uploader->WaitIdle(0));
  EXPECT_EQ(server_.questions(), questions);
}

TEST_F(DebugInfoUploaderTest, DebugFilesComeWithTheirProgramAndWhatHasNothingIsNotSent) {
  const Agent agent = StartAgent(Options());
  agent.uploader->Offer(UseOf("linked", "aa03"));
  ASSERT_TRUE(agent.uploader->WaitIdle(60'000));
  EXPECT_THAT(server_.uploads(),
              ElementsAre("aa03 debug agent zstd", "aa03 executable agent zstd"));
  agent.uploader->Offer(UseOf("bare", "aa04"));
  ASSERT_TRUE(agent.uploader->WaitIdle(60'000));
  EXPECT_EQ(agent.Results("without"), 1u);
  agent.uploader->Offer(UseOf("missing", "aa05"));
  ASSERT_TRUE(agent.uploader->WaitIdle(60'000));
  EXPECT_EQ(agent.Results("gone"), 1u);
  EXPECT_EQ(server_.uploads().size(), 2u);
}

TEST_F(DebugInfoUploaderTest, ACommonFileIsSentOnceBeforeThoseThatReferToIt) {
  SKIP_WITHOUT_TOOL("dwz");
  folder_.Write("b.c",
                "#include <stdlib.h>\n#include <stdio.h>\n"
                "static inline int Inner(int x) { return abs(x) + rand(); }\n"
                "int main(int argc, char** argv) { return printf(\"%s\", argv[Inner(argc)]); }\n");
  folder_.Run(
      "gcc -O1 -g -Wl,--build-id=0xaa01 -o one b.c && gcc -O1 -g -DTWO -Wl,--build-id=0xaa02 -o "
      "two "
      "b.c && dwz -m common one two");
  const Agent agent = StartAgent(Options());
  agent.uploader->Offer(UseOf("one", "aa01"));
  ASSERT_TRUE(agent.uploader->WaitIdle(60'000));
  agent.uploader->Offer(UseOf("two", "aa02"));
  ASSERT_TRUE(agent.uploader->WaitIdle(60'000));
  const auto uploads = server_.uploads();
  ASSERT_EQ(uploads.size(), 3u);
  EXPECT_THAT(uploads[0], testing::MatchesRegex("[0-9a-f]{40} debug agent zstd"));
  EXPECT_EQ(uploads[1], "aa01 executable agent zstd");
  EXPECT_EQ(uploads[2], "aa02 executable agent zstd");
  EXPECT_EQ(agent.Results("uploaded"), 2u);
}

TEST_F(DebugInfoUploaderTest, TheQueueIsBoundedAndTheMostSampledGoesFirst) {
  DebugInfoUploaderOptions options = Options();
  options.max_waiting = 2;
  options.server = "127.0.0.1:1";  // nobody: everything waits
  options.backoff_min_ms = options.backoff_max_ms = 60'000;
  const Agent waiting = StartAgent(options);
  for (const char* id : {"01", "02", "03", "04", "05"}) waiting.uploader->Offer(UseOf("one", id));
  // One may be under way, two wait.
  EXPECT_GE(waiting.metrics
                ->AddCounter("firewatch_debuginfo_uploads_left_out_total",
                             "Offers of files that were not taken: too many wait.")
                .value(),
            2u);
  EXPECT_FALSE(waiting.uploader->WaitIdle(0));

  options = Options();
  options.cpu = {.share = 0, .burst_seconds = 1e-9};  // one, then never again
  const Agent agent = StartAgent(options);
  agent.uploader->Offer(UseOf("missing", "aa05", 1000));
  for (int i = 0; i < 600 && agent.Results("gone") == 0; ++i) ::usleep(100'000);
  agent.uploader->Offer(UseOf("one", "aa01", 5));
  EXPECT_FALSE(agent.uploader->WaitIdle(300));
  EXPECT_THAT(server_.uploads(), IsEmpty());
}

TEST_F(DebugInfoUploaderTest, WhatTheServerFailsOnIsTriedAgainAndWhatItRefusesIsNot) {
  const Agent agent = StartAgent(Options());
  server_.Fail(2, 507);
  agent.uploader->Offer(UseOf("one", "aa01"));
  ASSERT_TRUE(agent.uploader->WaitIdle(60'000));
  EXPECT_EQ(agent.Results("failed"), 2u);
  EXPECT_EQ(agent.Results("uploaded"), 1u);
  server_.Fail(1, 422);
  agent.uploader->Offer(UseOf("two", "aa02"));
  ASSERT_TRUE(agent.uploader->WaitIdle(60'000));
  EXPECT_EQ(agent.Results("refused"), 1u);
  EXPECT_EQ(server_.uploads().size(), 1u);
  EXPECT_EQ(DebugInfoUploader::Start({.server = "https://x"}, *agent.metrics).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace firewatch::agent
