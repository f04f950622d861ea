// SPDX-License-Identifier: Apache-2.0
// Every route on a fake store, without sockets.
#include "server/api/api.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/status.h"
#include "profile/pprof_codec.h"
#include "server/api/fake_store.h"
#include "server/debuginfo/fake_names.h"
#include "transport/url.h"

namespace firewatch::server {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;
using transport::HttpRequest;
using transport::HttpResponse;

constexpr int64_t kNow = 1'767'322'245'678;
constexpr int64_t kSecond = 1'000;

std::string_view HeaderOf(const HttpResponse& response, std::string_view name) {
  for (const auto& [key, value] : response.headers) {
    if (key == name) return value;
  }
  return {};
}

constexpr unsigned char kScript[] = {'a', 'l', 'e', 'r', 't'};
constexpr unsigned char kScriptGzip[] = {0x1f, 0x8b, 1};
constexpr unsigned char kIndex[] = {'<', 'h', 't', 'm', 'l', '>'};
constexpr web::Asset kPage[] = {
    {"/assets/a-1f.js", "text/javascript", "\"js\"", kScriptGzip, kScript, true},
    {"/index.html", "text/html; charset=utf-8", "\"index\"", {}, kIndex, false}};

class ApiTest : public ::testing::Test {
 protected:
  ApiTest() : clock_({.unix_ns = kNow * 1'000'000}, 0) {
    const profile::LabelSet web({{"service", "web"}, {"node", "n1"}});
    const profile::LabelSet db({{"service", "db"}, {"node", "n1"}});
    store_.Add(kNow - 60 * kSecond, web, "main;serve;parse", 300);
    store_.Add(kNow - 50 * kSecond, web, "main;serve", 100);
    store_.Add(kNow - 50 * kSecond, db, "main;scan", 1'000);
    store_.Add(kNow - 3'600 * kSecond, db, "main;old", 5'000);
    store_.stats.newest_ms = kNow - 50 * kSecond;
  }

  Api& api() {
    if (!api_) {
      api_ = std::make_unique<Api>(ApiContext{.store = store_,
                                              .clock = clock_,
                                              .nodes =
                                                  [] {
                                                    NodeStatus node;
                                                    node.node = "n1";
                                                    node.agent_version = "0.1";
                                                    node.sample_hz = 19;
                                                    node.last_seen_ms = kNow - 5;
                                                    node.windows = 3;
                                                    node.agents = 1;
                                                    return std::vector<NodeStatus>{node};
                                                  },
                                              .version = "1.2.3",
                                              .max_nodes = max_nodes_,
                                              .debuginfo = debuginfo_},
                                   metrics_, page_,
                                   HealthOptions{.cache = std::chrono::milliseconds(0)});
    }
    return *api_;
  }

  HttpResponse Get(const std::string& url, HttpRequest request = {}) {
    auto target = transport::ParseTarget(url);
    EXPECT_TRUE(target.ok()) << url;
    if (request.method.empty()) request.method = "GET";
    request.path = target->path;
    request.query = target->query;
    return api().Handle(request);
  }

  json GetJson(const std::string& url) {
    const HttpResponse response = Get(url);
    EXPECT_EQ(response.status, 200) << url << ": " << response.body;
    EXPECT_EQ(response.content_type, "application/json");
    return json::parse(response.body);
  }

  std::string ErrorOf(const std::string& url, int status = 400) {
    const HttpResponse response = Get(url);
    EXPECT_EQ(response.status, status) << url << ": " << response.body;
    const json parsed = json::parse(response.body, nullptr, false);
    return parsed.is_object() ? parsed.value("error", "") : "";
  }

  FakeStore store_;
  base::FakeClock clock_;
  base::MetricsRegistry metrics_;
  std::span<const web::Asset> page_ = kPage;
  uint32_t max_nodes_ = 0;
  DebugInfo* debuginfo_ = nullptr;
  std::unique_ptr<Api> api_;
};

// The value of the node that is reached by names from the root.
int64_t TotalAt(const json& answer, const std::vector<std::string>& path) {
  const json& nodes = answer["nodes"];
  size_t at = 0;
  for (const std::string& name : path) {
    size_t next = 0;
    for (size_t i = 1; i < nodes["parent"].size(); ++i) {
      if (nodes["parent"][i] == at && answer["names"][nodes["name"][i].get<size_t>()] == name)
        next = i;
    }
    if (next == 0) return -1;
    at = next;
  }
  return nodes["total"][at];
}

TEST_F(ApiTest, ProfileIsAFlameTreeInColumns) {
  const json answer = GetJson("/api/v1/profile");
  EXPECT_EQ(answer["type"], "cpu");
  EXPECT_EQ(answer["unit"], "nanoseconds");
  EXPECT_EQ(answer["from_ms"], kNow - 900 * kSecond);
  EXPECT_EQ(answer["to_ms"], kNow + 1);
  EXPECT_EQ(answer["total"], 1'400);
  EXPECT_EQ(answer["matched_series"], 2);
  EXPECT_EQ(answer["cut"], false);
  EXPECT_EQ(TotalAt(answer, {"main"}), 1'400);
  EXPECT_EQ(TotalAt(answer, {"main", "serve"}), 400);
  EXPECT_EQ(TotalAt(answer, {"main", "serve", "parse"}), 300);
  EXPECT_EQ(TotalAt(answer, {"main", "old"}), -1);
  const size_t size = answer["nodes"]["parent"].size();
  EXPECT_EQ(size, 5u);
  for (const char* column : {"name", "self", "total", "flags", "file"}) {
    EXPECT_EQ(answer["nodes"][column].size(), size) << column;
  }
}

TEST_F(ApiTest, ProfileFollowsSelectorRangeAndType) {
  EXPECT_EQ(GetJson("/api/v1/profile?query=%7Bservice%3D%22web%22%7D")["total"], 400);
  EXPECT_EQ(GetJson("/api/v1/profile?type=samples")["total"], 3);
  EXPECT_EQ(GetJson("/api/v1/profile?type=samples")["unit"], "count");
  EXPECT_EQ(GetJson("/api/v1/profile?from=now-55s")["total"], 1'100);
  EXPECT_EQ(GetJson("/api/v1/profile?from=now-2h")["total"], 6'400);
}

TEST_F(ApiTest, AnEmptyRangeIsAnEmptyTree) {
  const json answer = GetJson("/api/v1/profile?query=%7Bservice%3D%22none%22%7D");
  EXPECT_EQ(answer["total"], 0);
  EXPECT_EQ(answer["matched_series"], 0);
  EXPECT_EQ(answer["nodes"]["parent"].size(), 1u);
}

TEST_F(ApiTest, ACutTreeSaysSoAndKeepsItsTotal) {
  const json asked = GetJson("/api/v1/profile?max_nodes=3");
  EXPECT_EQ(asked["total"], 1'400);
  EXPECT_EQ(asked["cut"], true);
  EXPECT_EQ(asked["max_nodes"], 3);
}

TEST_F(ApiTest, TheServersOwnBoundHoldsForEveryRequest) {
  max_nodes_ = 3;
  for (const char* url :
       {"/api/v1/profile", "/api/v1/profile?max_nodes=0", "/api/v1/profile?max_nodes=1000"}) {
    const json answer = GetJson(url);
    EXPECT_EQ(answer["max_nodes"], 3) << url;
    EXPECT_EQ(answer["cut"], true) << url;
    EXPECT_EQ(answer["total"], 1'400) << url;
  }
  EXPECT_EQ(HeaderOf(Get("/api/v1/profile?format=columns"), "X-Firewatch-Cut"), "1");
}

TEST_F(ApiTest, ColumnsCarryTheirTotalsInHeaders) {
  const HttpResponse response = Get("/api/v1/profile?format=columns");
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.content_type, "application/octet-stream");
  EXPECT_EQ(HeaderOf(response, "X-Firewatch-Total"), "1400");
  EXPECT_EQ(HeaderOf(response, "X-Firewatch-Unit"), "nanoseconds");
  EXPECT_EQ(HeaderOf(response, "X-Firewatch-Nodes"), "5");
  EXPECT_EQ(HeaderOf(response, "X-Firewatch-Matched-Series"), "2");
  EXPECT_EQ(HeaderOf(response, "X-Firewatch-Cut"), "0");
  EXPECT_FALSE(response.body.empty());
}

TEST_F(ApiTest, FoldedIsText) {
  const HttpResponse response =
      Get("/api/v1/profile?format=folded&query=%7Bservice%3D%22web%22%7D");
  EXPECT_EQ(response.body, "main;serve 100\nmain;serve;parse 300\n");
  EXPECT_THAT(response.content_type, StartsWith("text/plain"));
}

TEST_F(ApiTest, PprofHoldsBothSampleTypes) {
  for (const char* url : {"/api/v1/profile?format=pprof", "/pprof/profile", "/api/v1/pprof"}) {
    const HttpResponse response = Get(url);
    ASSERT_EQ(response.status, 200) << url << response.body;
    EXPECT_THAT(HeaderOf(response, "Content-Disposition"),
                StartsWith("attachment; filename=\"firewatch-"));
    EXPECT_THAT(response.body, StartsWith("\x1f\x8b"));
    const auto read = profile::ReadPprof(response.body);
    ASSERT_TRUE(read.ok()) << base::ToString(read.status());
    EXPECT_THAT(read->sample_types, ElementsAre(profile::ValueType{"samples", "count"},
                                                profile::ValueType{"cpu", "nanoseconds"}));
    EXPECT_EQ(read->samples.size(), 3u);
  }
}

TEST_F(ApiTest, PprofOfNothingIsAValidProfile) {
  const HttpResponse response = Get("/pprof/profile?query=%7Bservice%3D%22none%22%7D");
  ASSERT_EQ(response.status, 200);
  const auto read = profile::ReadPprof(response.body);
  ASSERT_TRUE(read.ok()) << base::ToString(read.status());
  EXPECT_EQ(read->sample_types.size(), 2u);
  EXPECT_THAT(read->samples, IsEmpty());
}

TEST_F(ApiTest, PprofSecondsCountBackFromTheNewestWindow) {
  store_.stats.newest_ms = kNow - 40 * kSecond;  // the end of the window that began 50 s ago
  EXPECT_EQ(Get("/pprof/profile?seconds=30").status, 200);
  EXPECT_EQ(store_.last_range.from_ms, kNow - 70 * kSecond);
  EXPECT_EQ(store_.last_range.to_ms, kNow + 1);
  // Less than a window is asked for: the newest window it is, not nothing.
  const auto small = profile::ReadPprof(Get("/pprof/profile?seconds=1").body);
  ASSERT_TRUE(small.ok());
  EXPECT_EQ(small->samples.size(), 2u);
}

TEST_F(ApiTest, PprofSecondsOfAStoppedAgentAreEmpty) {
  clock_.AdvanceNs(uint64_t{3'600} * 1'000'000'000);
  const HttpResponse response = Get("/pprof/profile?seconds=30");
  ASSERT_EQ(response.status, 200);
  EXPECT_EQ(store_.last_range.from_ms, kNow + 3'570 * kSecond);
  const auto read = profile::ReadPprof(response.body);
  ASSERT_TRUE(read.ok());
  EXPECT_THAT(read->samples, IsEmpty());
}

TEST_F(ApiTest, PprofErrorsAreTextThatPprofShows) {
  const HttpResponse response = Get("/pprof/profile?query=%7Bservice");
  EXPECT_EQ(response.status, 400);
  EXPECT_THAT(response.content_type, StartsWith("text/plain"));
  EXPECT_EQ(HeaderOf(response, "X-Go-Pprof"), "1");
  EXPECT_THAT(response.body, StartsWith("query: "));
  for (const char* url : {"/pprof/profile?seconds=0", "/pprof/profile?seconds=-5",
                          "/pprof/profile?seconds=1e99", "/pprof/profile?seconds=5&from=now-1h"}) {
    EXPECT_EQ(Get(url).status, 400) << url;
  }
}

TEST_F(ApiTest, TopListsFunctionsBySelf) {
  const json answer = GetJson("/api/v1/top?limit=2");
  EXPECT_EQ(answer["total"], 1'400);
  EXPECT_EQ(answer["unit"], "nanoseconds");
  ASSERT_EQ(answer["functions"].size(), 2u);
  EXPECT_EQ(answer["functions"][0]["name"], "scan");
  EXPECT_EQ(answer["functions"][0]["self"], 1'000);
  EXPECT_EQ(answer["functions"][1]["name"], "parse");
  EXPECT_EQ(GetJson("/api/v1/top?limit=0")["functions"].size(), 4u);
}

TEST_F(ApiTest, SeriesAreGroupedAndSortedByTotal) {
  const json answer = GetJson("/api/v1/series?group_by=service&step=60000");
  EXPECT_EQ(answer["step_ms"], 60'000);
  EXPECT_EQ(answer["total"], 1'400);
  ASSERT_EQ(answer["groups"].size(), 2u);
  EXPECT_EQ(answer["groups"][0]["labels"], json({{"service", "db"}}));
  EXPECT_EQ(answer["groups"][0]["total"], 1'000);
  EXPECT_EQ(answer["groups"][1]["labels"]["service"], "web");
  int64_t sum = 0;
  for (const json& point : answer["groups"][1]["points"]) sum += point[1].get<int64_t>();
  EXPECT_EQ(sum, 400);
  const json whole = GetJson("/api/v1/series");
  ASSERT_EQ(whole["groups"].size(), 1u);
  EXPECT_EQ(whole["step_ms"], 10'000);
  EXPECT_EQ(whole["groups"][0]["labels"], json::object());
}

TEST_F(ApiTest, SeriesBoundTheirPoints) {
  EXPECT_THAT(ErrorOf("/api/v1/series?step=1"), HasSubstr("use 82 or more"));
  EXPECT_THAT(ErrorOf("/api/v1/series?step=0"), HasSubstr("step: \"0\""));
  EXPECT_EQ(Get("/api/v1/series?step=82").status, 200);
}

TEST_F(ApiTest, LabelsAndTheirValues) {
  EXPECT_EQ(GetJson("/api/v1/labels")["names"], json({"node", "service"}));
  EXPECT_EQ(GetJson("/api/v1/labels/service/values")["values"], json({"db", "web"}));
  EXPECT_EQ(GetJson("/api/v1/labels/service/values?query=%7Bservice%3D~%22w.*%22%7D")["values"],
            json({"web"}));
  EXPECT_EQ(GetJson("/api/v1/labels/nothing/values")["values"], json::array());
  EXPECT_THAT(ErrorOf("/api/v1/labels/a%2Fb/values"), HasSubstr("is not a label name"));
  EXPECT_EQ(Get("/api/v1/labels//values").status, 404);
  EXPECT_EQ(Get("/api/v1/labels/service").status, 404);
}

TEST_F(ApiTest, StatusTellsNodesStoreAndLosses) {
  store_.stats.windows = 7;
  store_.stats.losses = {{"ring_full", 3}};
  store_.stats.stack_ends = {
      {"root", 9}, {"no_table", 1}, {"no_user_stack", 50}, {"memory_gone", 5}};
  const json answer = GetJson("/api/v1/status");
  EXPECT_EQ(answer["version"], "1.2.3");
  EXPECT_EQ(answer["now_ms"], kNow);
  ASSERT_EQ(answer["nodes"].size(), 1u);
  const json& node = answer["nodes"][0];
  EXPECT_EQ(node["node"], "n1");
  EXPECT_EQ(node["last_seen_ms"], kNow - 5);
  EXPECT_EQ(node["hz"], 19);
  EXPECT_EQ(node["agent_version"], "0.1");
  EXPECT_EQ(node["windows"], 3);
  EXPECT_EQ(node["agents"], 1);
  EXPECT_EQ(answer["store"]["windows"], 7);
  EXPECT_EQ(answer["losses"]["ring_full"], 3);
  EXPECT_EQ(answer["stack_ends"]["root"], 9);
  EXPECT_EQ(answer["complete_stacks"], (json{{"complete", 9}, {"all", 10}}));
}

ConnectionRow RowOf(std::string_view service, std::string remote, uint16_t port) {
  ConnectionRow row;
  row.labels = profile::LabelSet({{"node", "n1"}, {"service", std::string(service)}});
  row.edge = {.remote = std::move(remote), .port = port};
  return row;
}

class ConnectionsApiTest : public ApiTest {
 protected:
  ConnectionsApiTest() {
    ConnectionRow web = RowOf("web", std::string("\x0a\0\0\1", 4), 80);
    web.edge.counts = {.opened = 4,
                       .closed = 3,
                       .failed = 2,
                       .resets_sent = 5,
                       .resets_received = 6,
                       .retransmits = 7,
                       .syn_retransmits = 8,
                       .bytes_sent = 9,
                       .bytes_received = 10,
                       .segments_sent = 11,
                       .segments_received = 12,
                       .duration_us = 13,
                       .rtt_us = 300,
                       .rtt_count = 2};
    web.edge.living = 1;
    ConnectionRow db = RowOf("db", std::string("\x20\1\x0d\xb8", 4) + std::string(12, '\0'), 5432);
    db.edge.role = ConnectionRole::kAccept;
    db.edge.counts.bytes_received = 1'000;
    db.edge.counts.opened = 1;
    db.edge.living = 2;
    ConnectionRow other = RowOf("web", "", 0);
    other.edge.counts.failed = 50;
    store_.connections = {.rows = {db, other, web}, .windows = 30};
  }

  std::vector<std::string> Remotes(const std::string& parameters) {
    std::vector<std::string> remotes;
    const json answer = GetJson("/api/v1/connections?" + parameters);
    for (const json& row : answer.at("rows")) {
      remotes.push_back(row["remote"]);
    }
    return remotes;
  }
};

TEST_F(ConnectionsApiTest, RowsTotalAndRange) {
  const json answer = GetJson("/api/v1/connections");
  EXPECT_EQ(answer["to_ms"], kNow + 1);
  EXPECT_EQ(answer["from_ms"], kNow - 15 * 60 * kSecond);
  EXPECT_EQ(store_.last_range.from_ms, kNow - 15 * 60 * kSecond);
  EXPECT_EQ(answer["windows"], 30);
  EXPECT_EQ(answer["left_out"], 0);
  ASSERT_EQ(answer["rows"].size(), 3u);
  const json expected = {{"labels", {{"node", "n1"}, {"service", "web"}}},
                         {"role", "connect"},
                         {"remote", "10.0.0.1"},
                         {"port", 80},
                         {"opened", 4},
                         {"closed", 3},
                         {"failed", 2},
                         {"resets_sent", 5},
                         {"resets_received", 6},
                         {"retransmits", 7},
                         {"syn_retransmits", 8},
                         {"bytes_sent", 9},
                         {"bytes_received", 10},
                         {"segments_sent", 11},
                         {"segments_received", 12},
                         {"duration_us", 13},
                         {"rtt_us", 150},
                         {"living", 1}};
  EXPECT_EQ(answer["rows"][0], expected);
  const json& total = answer["total"];
  EXPECT_EQ(total["opened"], 5);
  EXPECT_EQ(total["failed"], 52);
  EXPECT_EQ(total["bytes_received"], 1'010);
  EXPECT_EQ(total["rtt_us"], 150);
  EXPECT_EQ(total["living"], 3);
  EXPECT_FALSE(total.contains("labels"));
}

TEST_F(ConnectionsApiTest, SortsAndLeavesOut) {
  EXPECT_THAT(Remotes("sort=retransmits"), ElementsAre("10.0.0.1", "2001:db8::", ""));
  EXPECT_THAT(Remotes("sort=bytes"), ElementsAre("2001:db8::", "10.0.0.1", ""));
  EXPECT_THAT(Remotes("sort=failed"), ElementsAre("", "10.0.0.1", "2001:db8::"));
  EXPECT_THAT(Remotes("sort=opened"), ElementsAre("10.0.0.1", "2001:db8::", ""));
  EXPECT_THAT(Remotes("sort=rtt"), ElementsAre("10.0.0.1", "2001:db8::", ""));
  const json answer = GetJson("/api/v1/connections?sort=failed&limit=1");
  ASSERT_EQ(answer["rows"].size(), 1u);
  EXPECT_EQ(answer["left_out"], 2);
  EXPECT_EQ(answer["total"]["failed"], 52);  // of what is left out, too
  EXPECT_THAT(Remotes("query=%7Bservice%3D%22db%22%7D"), ElementsAre("2001:db8::"));
  EXPECT_THAT(Remotes("query=%7Bservice%3D%22no%22%7D"), IsEmpty());
}

TEST_F(ConnectionsApiTest, ErrorsAreThoseOfTheOtherPaths) {
  EXPECT_THAT(ErrorOf("/api/v1/connections?sort=age"), HasSubstr("sort: \"age\" is not one of"));
  EXPECT_THAT(ErrorOf("/api/v1/connections?limit=0"), HasSubstr("from 1 to 5000"));
  EXPECT_THAT(ErrorOf("/api/v1/connections?limit=5001"), HasSubstr("from 1 to 5000"));
  EXPECT_THAT(ErrorOf("/api/v1/connections?type=cpu"), HasSubstr("unknown parameter \"type\""));
  EXPECT_THAT(ErrorOf("/api/v1/connections?query=%7B"), HasSubstr("query: "));
  store_.merge_error = base::DataLoss("row is damaged");
  EXPECT_EQ(ErrorOf("/api/v1/connections", 500), "row is damaged");
  EXPECT_THAT(Get("/metrics").body,
              HasSubstr("firewatch_api_requests_total{route=\"connections\"} 6\n"));
}

TEST_F(ApiTest, NamesThatAreNotUtf8AreReplaced) {
  profile::LabelSet labels;
  labels.Set("service", "bad\xff");
  store_.Add(kNow - 1, labels, "f\xc3(", 1);
  const json answer = GetJson("/api/v1/profile?from=now-1s");  // parsing is the check
  EXPECT_EQ(answer["total"], 1);
  EXPECT_EQ(GetJson("/api/v1/labels/service/values?from=now-1s")["values"][0], "bad\xef\xbf\xbd");
}

TEST_F(ApiTest, NothingIsDroppedInSilence) {
  EXPECT_THAT(ErrorOf("/api/v1/profile?form=now-1h"), HasSubstr("unknown parameter \"form\""));
  EXPECT_THAT(ErrorOf("/api/v1/top?format=json"), HasSubstr("unknown parameter \"format\""));
  EXPECT_THAT(ErrorOf("/api/v1/status?x=1"), HasSubstr("unknown parameter \"x\""));
  EXPECT_THAT(ErrorOf("/api/v1/labels?type=cpu"), HasSubstr("unknown parameter \"type\""));
  EXPECT_THAT(ErrorOf("/api/v1/profile?query=&query="), HasSubstr("comes twice"));
  EXPECT_THAT(ErrorOf("/api/v1/profile?format=exe"),
              HasSubstr("not one of json, columns, pprof, folded"));
  EXPECT_THAT(ErrorOf("/api/v1/profile?format=folded&max_nodes=5"), HasSubstr("max_nodes"));
  EXPECT_THAT(ErrorOf("/api/v1/profile?type=mana"), HasSubstr("cpu, samples"));
  EXPECT_THAT(ErrorOf("/api/v1/profile?from=now%2B1h"), HasSubstr("in the future"));
  EXPECT_THAT(ErrorOf("/api/v1/profile?query=%7B"), HasSubstr("query: "));
}

TEST_F(ApiTest, ErrorsOfTheStoreKeepTheirClass) {
  store_.merge_error = base::DataLoss("stack 17 is damaged");
  EXPECT_EQ(ErrorOf("/api/v1/profile", 500), "stack 17 is damaged");
  store_.merge_error = base::Unavailable("compacting");
  EXPECT_EQ(ErrorOf("/api/v1/top", 503), "compacting");
  EXPECT_EQ(Get("/pprof/profile").body, "compacting\n");
}

TEST_F(ApiTest, DebugInformationIsListedAndDeleted) {
  EXPECT_THAT(ErrorOf("/api/v1/debuginfo", 404), HasSubstr("keeps no debug information"));
  api_.reset();
  DebugInfoFixture kept;
  debuginfo_ = kept.debuginfo.get();
  const auto id = symbolizer::BuildId::FromHex("aabbccdd");
  auto file = kept.files->Receive();
  ASSERT_TRUE(file.ok() && (*file)
                               ->Write("\x7f"
                                       "ELFaabbccdd")
                               .ok());
  ASSERT_TRUE(debuginfo_->Accept(**file, id, FileKind::kDebug, FileSource::kUpload).ok());
  kept.source.Set(id, NamesState::kOverBudget, nullptr, "took too long");
  const json list = GetJson("/api/v1/debuginfo");
  EXPECT_EQ(list["bytes"], 12);
  EXPECT_EQ(list["binaries"][0]["build_id"], "aabbccdd");
  EXPECT_EQ(list["binaries"][0]["state"], "over_budget");
  EXPECT_EQ(list["binaries"][0]["reason"], "took too long");
  EXPECT_EQ(list["binaries"][0]["files"][0]["kind"], "debug");
  EXPECT_EQ(GetJson("/api/v1/debuginfo/AABBCCDD")["files"].size(), 1u);
  EXPECT_EQ(GetJson("/api/v1/debuginfo/01")["state"], "unknown");
  EXPECT_NE(ErrorOf("/api/v1/debuginfo/xyz"), "");
  EXPECT_NE(ErrorOf("/api/v1/debuginfo/"), "");
  const auto method = [&](const std::string& path, const std::string& name) {
    return Get(path, {.method = name, .path = {}, .query = {}, .headers = {}, .body = {}});
  };
  EXPECT_EQ(method("/api/v1/debuginfo/aabbccdd", "POST").status, 405);
  EXPECT_EQ(method("/api/v1/debuginfo", "DELETE").status, 405);
  EXPECT_EQ(method("/api/v1/debuginfo/aabbccdd", "DELETE").status, 204);
  EXPECT_EQ(method("/api/v1/debuginfo/aabbccdd", "DELETE").status, 404);
}

TEST_F(ApiTest, UnnamedSaysWhatLacksNames) {
  EXPECT_THAT(GetJson("/api/v1/unnamed")["binaries"], IsEmpty());
  EXPECT_EQ(GetJson("/api/v1/unnamed?type=samples")["all_frames"], 3 + 2 + 2);
  EXPECT_EQ(GetJson("/api/v1/unnamed?type=samples")["frames"], 0);
  profile::ProfileBuilder builder({{"samples", "count"}, {"cpu", "nanoseconds"}});
  const auto mapping = builder.AddMapping({.file = builder.AddString("/usr/bin/app"),
                                           .build_id = builder.AddString("aabb"),
                                           .memory_limit = 1 << 20});
  const auto bare = builder.AddLocation(
      {.mapping = mapping, .address = 0x10, .kind = profile::LocationKind::kNative});
  const int64_t values[] = {2, 200};
  builder.AddSample(builder.AddStack(std::span(&bare, 1)), {}, values);
  WindowBatch batch;
  batch.window.from_ms = kNow - 50 * kSecond;
  batch.series.push_back({profile::LabelSet({{"service", "bare"}}), builder.Finish()});
  bool duplicate = false;
  ASSERT_TRUE(store_.Append(batch, &duplicate).ok());
  const json unnamed = GetJson("/api/v1/unnamed?type=samples");
  EXPECT_EQ(unnamed["frames"], 2);
  EXPECT_EQ(unnamed["binaries"][0]["path"], "/usr/bin/app");
  EXPECT_EQ(unnamed["binaries"][0]["reason"], "unknown");
  EXPECT_EQ(unnamed["binaries"][0]["advice"], "firewatch debuginfo upload /usr/bin/app");
  EXPECT_NE(ErrorOf("/api/v1/unnamed?step=1"), "");
  const json tree = GetJson("/api/v1/profile?query={service=\"bare\"}");
  EXPECT_EQ(tree["nodes"]["flags"][1], 4 | 15 << 4);
  EXPECT_EQ(tree["nodes"]["source"].size(), 2u);
}

TEST_F(ApiTest, UnknownPathsAre404AndOtherMethods405) {
  EXPECT_NE(ErrorOf("/api/v1/nothing", 404), "");
  EXPECT_NE(ErrorOf("/api/v1/profile/", 404), "");
  EXPECT_EQ(Get("/nothing").status, 404);
  const HttpResponse posted = Get(
      "/api/v1/profile", {.method = "POST", .path = {}, .query = {}, .headers = {}, .body = {}});
  EXPECT_EQ(posted.status, 405);
  EXPECT_EQ(HeaderOf(posted, "Allow"), "GET, HEAD");
  EXPECT_EQ(
      Get("/api/v1/profile", {.method = "HEAD", .path = {}, .query = {}, .headers = {}, .body = {}})
          .status,
      200);
}

TEST_F(ApiTest, CountsErrorsByRoute) {
  Get("/api/v1/profile?x=1");
  Get("/api/v1/profile?y=1");
  store_.merge_error = base::DataLoss("damaged");
  Get("/api/v1/top");
  const HttpResponse metrics = Get("/metrics");
  EXPECT_THAT(metrics.content_type, StartsWith("text/plain; version=0.0.4"));
  EXPECT_THAT(metrics.body,
              HasSubstr("firewatch_api_errors_total{route=\"profile\",class=\"4xx\"} 2\n"));
  EXPECT_THAT(metrics.body,
              HasSubstr("firewatch_api_errors_total{route=\"top\",class=\"5xx\"} 1\n"));
  EXPECT_THAT(metrics.body, HasSubstr("firewatch_api_requests_total{route=\"profile\"} 2\n"));
}

TEST_F(ApiTest, HealthSaysWhy) {
  EXPECT_EQ(Get("/healthz").body, "ok");
  store_.health = base::ResourceExhausted("the disk is full");
  const HttpResponse sick = Get("/healthz");
  EXPECT_EQ(sick.status, 503);
  EXPECT_THAT(sick.body, HasSubstr("the disk is full"));
}

TEST_F(ApiTest, ServesThePageWithItsPolicy) {
  const HttpResponse index = Get("/");
  EXPECT_EQ(index.body, "<html>");
  EXPECT_EQ(index.content_type, "text/html; charset=utf-8");
  EXPECT_EQ(HeaderOf(index, "Cache-Control"), "no-cache");
  EXPECT_THAT(HeaderOf(index, "Content-Security-Policy"), HasSubstr("default-src 'self'"));
  const HttpResponse script = Get("/assets/a-1f.js");
  EXPECT_EQ(script.body, "alert");
  EXPECT_THAT(HeaderOf(script, "Cache-Control"), HasSubstr("immutable"));
  EXPECT_EQ(HeaderOf(script, "Content-Encoding"), "");
}

TEST_F(ApiTest, ServesCompressedFilesAndNotModified) {
  const HttpRequest gzip{.method = {},
                         .path = {},
                         .query = {},
                         .headers = {{"accept-encoding", "gzip, br"}},
                         .body = {}};
  const HttpResponse script = Get("/assets/a-1f.js", gzip);
  EXPECT_EQ(HeaderOf(script, "Content-Encoding"), "gzip");
  EXPECT_EQ(script.body, "\x1f\x8b\x01");
  EXPECT_EQ(HeaderOf(Get("/", gzip), "Content-Encoding"), "");  // has no smaller form
  for (const char* tags : {"\"index\"", "W/\"index\"", "\"x\", \"index\"", "*"}) {
    const HttpResponse same = Get(
        "/",
        {.method = {}, .path = {}, .query = {}, .headers = {{"if-none-match", tags}}, .body = {}});
    EXPECT_EQ(same.status, 304) << tags;
    EXPECT_EQ(HeaderOf(same, "ETag"), "\"index\"");
    EXPECT_EQ(same.body, "");
  }
  const HttpResponse other = Get(
      "/",
      {.method = {}, .path = {}, .query = {}, .headers = {{"if-none-match", "\"x\""}}, .body = {}});
  EXPECT_EQ(other.status, 200);
}

TEST_F(ApiTest, WithoutAPageItSaysWhereTheDataIs) {
  page_ = {};
  const HttpResponse response = Get("/");
  EXPECT_EQ(response.status, 200);
  EXPECT_THAT(response.body, HasSubstr("/api/v1/profile"));
  EXPECT_EQ(Get("/index.html").status, 404);
}

}  // namespace
}  // namespace firewatch::server
