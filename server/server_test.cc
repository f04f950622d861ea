// SPDX-License-Identifier: Apache-2.0
// The binary as a user starts it, over the real store, asked by an HTTP client and by pprof.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <thread>

#include "base/clock.h"
#include "base/metrics.h"
#include "base/status.h"
#include "profile/pprof_codec.h"
#include "server/store/embedded/embedded_store.h"
#include "server/store/test_windows.h"
#include "server/test_program.h"
#include "symbolizer/elf/elf_reader.h"
#include "transport/http_client.h"

namespace firewatch::server {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class ServerTest : public ::testing::Test {
 protected:
  ServerTest() {
    std::string pattern = ::testing::TempDir() + "firewatch_server_XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
    now_ms_ = base::SystemClock().Now().unix_ms();
  }
  ~ServerTest() override { std::filesystem::remove_all(folder_); }

  std::string Data() const { return folder_ + "/data"; }

  // Two windows of "web" and one of "db", written before the server starts: it finds what was
  // there.
  void Fill() {
    base::SystemClock clock;
    base::MetricsRegistry metrics;
    auto store = OpenEmbeddedStore({.directory = Data()}, clock, metrics);
    ASSERT_TRUE(store.ok()) << base::ToString(store.status());
    bool duplicate = false;
    ASSERT_TRUE((*store)->Append(MakeTestWindow(1, now_ms_ - 60'000, "web", 30), &duplicate).ok());
    ASSERT_TRUE((*store)->Append(MakeTestWindow(2, now_ms_ - 50'000, "web", 12), &duplicate).ok());
    ASSERT_TRUE((*store)->Append(MakeTestWindow(3, now_ms_ - 50'000, "db", 100), &duplicate).ok());
    ASSERT_TRUE(
        (*store)
            ->Append(MakeTestConnections(4, now_ms_ - 50'000, "web", {MakeTestEdge(7, 443, 3)}),
                     &duplicate)
            .ok());
  }

  std::unique_ptr<TestProgram> Start(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), FIREWATCH_SERVER_BINARY);
    return std::make_unique<TestProgram>(std::move(arguments),
                                         folder_ + "/server" + std::to_string(started_++));
  }
  std::unique_ptr<TestProgram> StartOnAnyPort() {
    return Start({"--data", Data(), "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"});
  }

  // "" when it does not start.
  static std::string UrlOf(TestProgram& server) {
    const std::string line = server.WaitForLine("Firewatch is ready: ");
    return line.substr(0, line.find(' '));
  }

  json GetJson(const std::string& url) {
    const auto response = transport::HttpGet(url);
    EXPECT_TRUE(response.ok()) << base::ToString(response.status());
    EXPECT_EQ(response->status, 200) << response->body;
    return json::parse(response->body, nullptr, false);
  }

  std::string folder_;
  int64_t now_ms_ = 0;
  int started_ = 0;
};

TEST_F(ServerTest, ServesWhatTheStoreHolds) {
  ASSERT_NO_FATAL_FAILURE(Fill());
  const auto server = StartOnAnyPort();
  const std::string url = UrlOf(*server);
  ASSERT_NE(url, "") << server->Err();

  EXPECT_EQ(transport::HttpGet(url + "healthz")->body, "ok");
  EXPECT_EQ(GetJson(url + "api/v1/profile?type=samples")["total"], 142);
  EXPECT_EQ(GetJson(url + "api/v1/profile?type=samples&query=%7Bservice%3D%22web%22%7D")["total"],
            42);
  EXPECT_EQ(GetJson(url + "api/v1/top?type=samples")["total"], 142);
  EXPECT_EQ(GetJson(url + "api/v1/labels/service/values")["values"], json({"db", "web"}));
  const json series = GetJson(url + "api/v1/series?type=samples&group_by=service");
  EXPECT_EQ(series["total"], 142);
  EXPECT_EQ(series["groups"][0]["labels"]["service"], "db");
  EXPECT_EQ(GetJson(url + "api/v1/status")["store"]["windows"], 4);
  const json connections = GetJson(url + "api/v1/connections");
  ASSERT_EQ(connections["rows"].size(), 1u);
  EXPECT_EQ(connections["rows"][0]["labels"]["service"], "web");
  EXPECT_EQ(connections["rows"][0]["remote"], "10.0.0.7");
  EXPECT_EQ(connections["total"]["bytes_sent"], 3'000'000);
  EXPECT_EQ(GetJson(url + "api/v1/connections?query=%7Bservice%3D%22db%22%7D")["rows"].size(), 0u);
  // The newest windows began 50 s ago and lasted 10 s.
  const auto pprof = transport::HttpGet(url + "pprof/profile?seconds=10");
  ASSERT_TRUE(pprof.ok());
  const auto read = profile::ReadPprof(pprof->body);
  ASSERT_TRUE(read.ok()) << base::ToString(read.status());
  int64_t samples = 0;
  for (const profile::Sample& sample : read->samples) samples += sample.values[0];
  EXPECT_EQ(samples, 112);
  EXPECT_THAT(transport::HttpGet(url + "metrics")->body,
              HasSubstr("firewatch_http_requests_total"));
  EXPECT_THAT(transport::HttpGet(url)->body, HasSubstr("<!doctype html>"));

  server->Signal(SIGTERM);
  EXPECT_EQ(server->Wait(), 0) << server->Err();
}

TEST_F(ServerTest, GoToolPprofReadsIt) {
  if (std::system("go version > /dev/null 2>&1") != 0) GTEST_SKIP() << "go is not installed";
  ASSERT_NO_FATAL_FAILURE(Fill());
  const auto server = StartOnAnyPort();
  const std::string url = UrlOf(*server);
  ASSERT_NE(url, "") << server->Err();
  int runs = 0;
  const auto pprof = [&](const std::string& query, bool succeeds) {
    TestProgram tool(
        {"go", "tool", "pprof", "-sample_index=samples", "-raw", url + "pprof/profile" + query},
        folder_ + "/pprof" + std::to_string(runs++), {"PPROF_TMPDIR=" + folder_});
    // From Go 1.25 on the first call compiles pprof itself.
    EXPECT_EQ(tool.Wait(std::chrono::seconds(300)) == 0, succeeds) << query << tool.Err();
    return tool.Out() + tool.Err();
  };
  const std::string everything = pprof("", true);
  EXPECT_THAT(everything, HasSubstr("samples/count"));
  EXPECT_THAT(everything, HasSubstr("cpu/nanoseconds"));
  EXPECT_THAT(everything, HasSubstr("142 1420000000:"));  // of 10 ms each, one stack
  // Longer ago by as much as the first call has taken.
  const std::string web = pprof("?query=%7Bservice%3D%22web%22%7D&seconds=900", true);
  EXPECT_THAT(web, HasSubstr(" 42  420000000:"));
  EXPECT_THAT(web, Not(HasSubstr("142")));
  EXPECT_THAT(pprof("?query=%7Bservice%3D%22none%22%7D", true), HasSubstr("cpu/nanoseconds"));
  EXPECT_THAT(pprof("?query=%7B", false), HasSubstr("400 Bad Request - query: "));
}

TEST_F(ServerTest, SaysInOneLineWhyItCannotStart) {
  const auto server = StartOnAnyPort();
  const std::string url = UrlOf(*server);
  ASSERT_NE(url, "") << server->Err();
  const std::string taken = url.substr(7, url.size() - 8);  // of "http://127.0.0.1:1234/"
  const auto fails = [&](std::vector<std::string> arguments, int exit_code) {
    const auto program = Start(std::move(arguments));
    EXPECT_EQ(program->Wait(), exit_code);
    EXPECT_THAT(program->Out(), IsEmpty());
    const std::string text = program->Err();
    EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1) << text;
    return text;
  };
  const std::string other = folder_ + "/other";
  EXPECT_THAT(fails({"--data", other, "--http", taken, "--grpc", "127.0.0.1:0"}, 1),
              HasSubstr("listen on " + taken + ": Address already in use"));
  const std::string line = server->Out();
  const size_t at = line.find("agents: ") + 8;
  const std::string taken_grpc = line.substr(at, line.find(')') - at);
  EXPECT_THAT(fails({"--data", other, "--http", "127.0.0.1:0", "--grpc", taken_grpc}, 1),
              HasSubstr(taken_grpc));
  EXPECT_THAT(fails({"--data", Data(), "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"}, 1),
              HasSubstr("another process has it open"));
  EXPECT_THAT(fails({"--data", other, "--http", "0.0.0.0:0"}, 1), HasSubstr("--insecure"));
  EXPECT_THAT(fails({"--data", other, "--grpc", "0.0.0.0:0"}, 1), HasSubstr("--insecure"));
  EXPECT_THAT(fails({"--data", other, "--http", "here"}, 1), HasSubstr("\"here\""));
  EXPECT_THAT(fails({"--retention-hours", "x"}, 2), HasSubstr("--retention-hours"));
}

TEST_F(ServerTest, StopsOnEitherSignal) {
  for (const int signal : {SIGTERM, SIGINT}) {
    const auto server = StartOnAnyPort();
    ASSERT_NE(UrlOf(*server), "") << server->Err();
    server->Signal(signal);
    EXPECT_EQ(server->Wait(), 0) << server->Err();
  }
}

// A real file through the real helper, and bytes that are meant to hurt it.
TEST_F(ServerTest, TakesDebugInformationThroughItsSandboxedHelper) {
  const auto server = StartOnAnyPort();
  const std::string url = UrlOf(*server);
  ASSERT_NE(url, "") << server->Err();
  std::stringstream bytes;
  bytes << std::ifstream("/bin/sh").rdbuf();
  const std::string elf = bytes.str();
  const symbolizer::SpanByteSource source(std::as_bytes(std::span(elf)));
  const auto reader = symbolizer::ElfReader::Open(source);
  if (!reader.ok() || reader->build_id().empty()) GTEST_SKIP() << "/bin/sh has no build id here";
  const std::string id = reader->build_id().ToHex();
  const auto put = [&](const std::string& to, const std::string& body) {
    size_t sent = 0;
    return transport::HttpPut(
        url + "api/v1/debuginfo/" + to + "?kind=executable",
        [&](char* buffer, size_t capacity) -> absl::StatusOr<size_t> {
          const size_t count = std::min(capacity, body.size() - sent);
          body.copy(buffer, count, sent);
          sent += count;
          return count;
        },
        "application/octet-stream");
  };
  EXPECT_EQ(put("0102030405", elf)->status, 422);
  EXPECT_THAT(put("0102030405", elf)->body, HasSubstr("has build id " + id));
  EXPECT_EQ(put(id,
                "\x7f"
                "ELF" +
                    std::string(100'000, '\xff'))
                ->status,
            422);
  EXPECT_EQ(put(id, elf.substr(0, 1000))->status, 422);
  EXPECT_THAT(GetJson(url + "api/v1/debuginfo")["binaries"], IsEmpty());

  ASSERT_EQ(put(id, elf)->status, 201);
  std::string state = "building";
  for (int i = 0; i < 600 && state == "building"; ++i) {
    state = GetJson(url + "api/v1/debuginfo/" + id).value("state", "");
    if (state == "building") std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  // Stripped, as a distribution ships it: dynamic symbols at most.
  EXPECT_TRUE(state == "ready" || state == "no_symbols") << state;
  const json list = GetJson(url + "api/v1/debuginfo");
  EXPECT_EQ(list["binaries"].size(), 1u);
  EXPECT_EQ(list["bytes"], elf.size());
  EXPECT_EQ(transport::HttpDelete(url + "api/v1/debuginfo/" + id)->status, 204);
  EXPECT_EQ(transport::HttpDelete(url + "api/v1/debuginfo/" + id)->status, 404);
  EXPECT_EQ(transport::HttpGet(url + "healthz")->body, "ok");
}

}  // namespace
}  // namespace firewatch::server
