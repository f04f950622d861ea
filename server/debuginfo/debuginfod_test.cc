// SPDX-License-Identifier: Apache-2.0
// The client against servers of our own: one that has files, one that has none, one that lies, one
// that never answers.
#include "server/debuginfo/debuginfod.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <chrono>
#include <map>

#include "server/debuginfo/fake_names.h"
#include "transport/http_server.h"

namespace firewatch::server {
namespace {

using symbolizer::BuildId;
using ::testing::ElementsAre;

const BuildId kId = BuildId::FromHex("aabbccdd");

std::string Elf(std::string_view id) {
  return "\x7f"
         "ELF" +
         std::string(id) + std::string(90, '.');
}

class DebuginfodTest : public ::testing::Test, protected DebugInfoFixture {
 protected:
  void SetUp() override {
    server_ = transport::HttpServer::Start(
                  {}, [this](const auto& request) { return Answer(request); }, server_metrics_)
                  .value();
  }
  transport::HttpResponse Answer(const transport::HttpRequest& request) {
    base::MutexLock lock(mutex_);
    asked_.push_back(request.path);
    if (request.path.starts_with("/moved/")) {
      return {.status = 302, .headers = {{"Location", "/files" + request.path.substr(6)}}};
    }
    const auto it = bodies_.find(request.path);
    if (it == bodies_.end()) return {.status = 404};
    return {.content_type = "application/octet-stream", .body = it->second};
  }
  std::string Url(const std::string& prefix = "") {
    return "http://" + server_->address() + prefix;
  }
  std::vector<std::string> Asked() {
    base::MutexLock lock(mutex_);
    return asked_;
  }
  std::unique_ptr<Debuginfod> Start(std::vector<std::string> urls, DebuginfodOptions options = {}) {
    options.urls = std::move(urls);
    options.directory = directory + "/missing";
    auto client = std::make_unique<Debuginfod>(options, *debuginfo, clock, metrics);
    debuginfo->SetWant([made = client.get()](const BuildId& id) { made->Want(id); });
    return client;
  }
  int Count(const std::string& result) {
    const std::string text = metrics.Expose();
    const std::string key = "firewatch_debuginfod_total{result=\"" + result + "\"} ";
    const size_t at = text.find(key);
    return at == std::string::npos ? -1 : std::stoi(text.substr(at + key.size()));
  }

  base::MetricsRegistry server_metrics_;
  base::Mutex mutex_;
  std::map<std::string, std::string> bodies_;
  std::vector<std::string> asked_;
  std::unique_ptr<transport::HttpServer> server_;
};

TEST_F(DebuginfodTest, AQueryBringsTheFileForTheNextOne) {
  bodies_["/files/buildid/aabbccdd/debuginfo"] = Elf("aabbccdd");
  const auto client = Start({Url("/empty"), Url("/moved")});
  NamesState state;
  EXPECT_EQ(debuginfo->NamesOf(kId, &state, nullptr), nullptr);
  EXPECT_TRUE(client->WaitIdle(20'000));
  EXPECT_TRUE(files->Has(kId));
  ASSERT_EQ(source.offers().size(), 1u);
  EXPECT_TRUE(source.offers()[0].second.debug);
  EXPECT_EQ(files->List()[0].source, FileSource::kDebuginfod);
  EXPECT_THAT(Asked(),
              ElementsAre("/empty/buildid/aabbccdd/debuginfo", "/moved/buildid/aabbccdd/debuginfo",
                          "/files/buildid/aabbccdd/debuginfo"));
  EXPECT_EQ(Count("fetched"), 1);
}

TEST_F(DebuginfodTest, TheExecutableIsTheSecondChoice) {
  bodies_["/buildid/aabbccdd/executable"] = Elf("aabbccdd");
  const auto client = Start({Url()});
  client->Want(kId);
  EXPECT_TRUE(client->WaitIdle(20'000));
  EXPECT_TRUE(source.offers().size() == 1 && source.offers()[0].second.executable);
}

TEST_F(DebuginfodTest, ANoIsRememberedAlsoOverARestart) {
  {
    const auto client = Start({Url()});
    for (int i = 0; i < 5; ++i) client->Want(kId);
    EXPECT_TRUE(client->WaitIdle(20'000));
    client->Want(kId);
    EXPECT_TRUE(client->WaitIdle(20'000));
  }
  EXPECT_EQ(Asked().size(), 2u);  // debuginfo, executable
  const auto client = Start({Url()});
  client->Want(kId);
  EXPECT_TRUE(client->WaitIdle(20'000));
  EXPECT_EQ(Asked().size(), 2u);
  EXPECT_EQ(Count("remembered"), 1);
  clock.AdvanceNs(uint64_t{7} * 3'600 * 1'000'000'000);
  client->Want(kId);
  EXPECT_TRUE(client->WaitIdle(20'000));
  EXPECT_EQ(Asked().size(), 4u);
}

TEST_F(DebuginfodTest, AFileOfAnotherBuildIsRefused) {
  bodies_["/buildid/aabbccdd/debuginfo"] = Elf("01020304");
  bodies_["/buildid/aabbccdd/executable"] = "<html>login please</html>";
  const auto client = Start({Url()});
  client->Want(kId);
  EXPECT_TRUE(client->WaitIdle(20'000));
  EXPECT_FALSE(files->Has(kId));
  EXPECT_EQ(Count("refused"), 2);
  EXPECT_EQ(Count("failed"), 1);
}

TEST_F(DebuginfodTest, AFileAboveTheBoundEndsTheDownload) {
  bodies_["/buildid/aabbccdd/debuginfo"] = Elf("aabbccdd") + std::string(1 << 20, 'x');
  const auto client = Start({Url()});
  client->Want(kId);
  EXPECT_TRUE(client->WaitIdle(20'000));
  EXPECT_FALSE(files->Has(kId));
  EXPECT_TRUE(std::filesystem::is_empty(directory + "/incoming"));
}

// Accepts and says nothing, ever.
class BlackHole {
 public:
  BlackHole() : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(at);
    EXPECT_EQ(::bind(fd_.get(), reinterpret_cast<sockaddr*>(&at), size), 0);
    EXPECT_EQ(::listen(fd_.get(), 16), 0);
    EXPECT_EQ(::getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&at), &size), 0);
    port_ = ntohs(at.sin_port);
  }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }

 private:
  base::UniqueFd fd_;
  uint16_t port_ = 0;
};

TEST_F(DebuginfodTest, ABlackHoleDelaysNoQueryAndNoStop) {
  const BlackHole hole;
  auto client = Start({hole.url()});
  const auto start = std::chrono::steady_clock::now();
  NamesState state;
  for (uint32_t i = 1; i <= 2'000; ++i) {
    debuginfo->NamesOf(BuildId::FromHex(fmt::format("{:08x}", i)), &state, nullptr);
  }
  const auto queries = std::chrono::steady_clock::now() - start;
  EXPECT_LT(queries, std::chrono::seconds(5));
  EXPECT_GT(Count("queue_full"), 900);
  client.reset();
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(12));
}

TEST_F(DebuginfodTest, AStalledDownloadEndsAndOthersGoOn) {
  const BlackHole hole;
  bodies_["/buildid/aabbccdd/debuginfo"] = Elf("aabbccdd");
  const auto client = Start({hole.url(), Url()}, {.timeout_ms = 500});
  client->Want(kId);
  EXPECT_TRUE(client->WaitIdle(20'000));
  EXPECT_TRUE(files->Has(kId));
}

TEST_F(DebuginfodTest, TheVariableIsReadAsElfutilsDoes) {
  EXPECT_THAT(
      ParseDebuginfodUrls(" https://a.example/  http://b.example:8002/x/ file:///etc ftp://c "),
      ElementsAre("https://a.example", "http://b.example:8002/x"));
  EXPECT_TRUE(ParseDebuginfodUrls("").empty());
  const auto client = Start({});
  client->Want(kId);
  EXPECT_TRUE(client->WaitIdle(0));
}

}  // namespace
}  // namespace firewatch::server
