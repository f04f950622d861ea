// SPDX-License-Identifier: Apache-2.0
#include "server/store/test_windows.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/hash.h"
#include "profile/builder.h"

namespace firewatch::server {
namespace {

constexpr int64_t kPeriodNs = 10'000'000;

profile::LocationId AddFrame(profile::ProfileBuilder& builder, const std::string& name,
                             int detail) {
  profile::Location location;
  location.kind = profile::LocationKind::kNative;
  location.address = base::Hash64(name) & 0xffff;
  location.mapping = builder.AddMapping({.file = builder.AddString("/usr/bin/world"),
                                         .build_id = builder.AddString("c0ffee"),
                                         .memory_limit = 0x10000});
  if (detail >= 3) {
    location.lines.push_back(
        {.function = builder.AddFunction("inlined_" + name, "", "inline.h"), .line = 7});
  }
  if (detail >= 1) {
    location.lines.push_back(
        {.function = builder.AddFunction(name, "_Z" + name, detail >= 2 ? "world.cc" : ""),
         .line = detail >= 2 ? 42 : 0});
  }
  return builder.AddLocation(location);
}

std::string DescribeFrame(const profile::Profile& profile, profile::LocationId id) {
  const profile::Location& location = profile.locations[id.index()];
  const profile::Mapping& mapping = profile.mappings[location.mapping.index()];
  std::string text;
  for (const profile::Line& line : location.lines) {
    const profile::Function& function = profile.functions[line.function.index()];
    if (!text.empty()) text += '<';
    text +=
        fmt::format("{}|{}|{}:{}", profile.String(function.name),
                    profile.String(function.system_name), profile.String(function.file), line.line);
  }
  if (!text.empty()) return text;
  return fmt::format("{}+{:#x}", profile.String(mapping.file), location.address);
}

}  // namespace

profile::Profile MakeTestProfile(const std::vector<TestStack>& stacks) {
  profile::ProfileBuilder builder({{"samples", "count"}, {"cpu", "nanoseconds"}});
  builder.profile().period_type = {"cpu", "nanoseconds"};
  builder.profile().period = kPeriodNs;
  for (const TestStack& stack : stacks) {
    std::vector<profile::LocationId> leaf_first;
    for (auto name = stack.root_first.rbegin(); name != stack.root_first.rend(); ++name) {
      leaf_first.push_back(AddFrame(builder, *name, stack.detail));
    }
    profile::LabelSet labels;
    if (!stack.thread.empty()) labels.Set("thread", stack.thread);
    const int64_t values[] = {stack.samples, stack.samples * kPeriodNs};
    builder.AddSample(builder.AddStack(leaf_first), builder.AddLabelSet(labels), values);
  }
  return builder.Finish();
}

WindowBatch MakeTestWindow(uint64_t sequence, int64_t start_ms, std::string_view service,
                           int64_t samples) {
  WindowBatch batch;
  batch.upload = {.agent_id = std::string(16, 'a'), .sequence = sequence};
  batch.window = {.from_ms = start_ms, .to_ms = start_ms + 10'000};
  batch.node = "node-1";
  batch.series.push_back(
      {.labels = profile::LabelSet({{"node", "node-1"}, {"service", std::string(service)}}),
       .profile = MakeTestProfile({{.root_first = {"main", "work"}, .samples = samples}})});
  return batch;
}

ConnectionEdge MakeTestEdge(uint8_t peer, uint16_t port, uint64_t connections) {
  ConnectionEdge edge{.remote = {'\x0a', '\0', '\0', static_cast<char>(peer)}, .port = port};
  edge.counts.opened = connections;
  edge.counts.bytes_sent = connections * 1'000'000;
  edge.counts.rtt_us = connections * 100;
  edge.counts.rtt_count = connections;
  edge.living = connections;
  return edge;
}

WindowBatch MakeTestConnections(uint64_t sequence, int64_t start_ms, std::string_view service,
                                std::vector<ConnectionEdge> edges) {
  WindowBatch batch = MakeTestWindow(sequence, start_ms, service, 1);
  batch.connections.push_back({.labels = batch.series[0].labels, .edges = std::move(edges)});
  batch.series.clear();
  return batch;
}

std::vector<ConnectionEdge> RandomWindows::NextEdges() {
  std::vector<ConnectionEdge> edges;
  for (int count = Draw(6); count > 0; --count) {
    ConnectionEdge edge = MakeTestEdge(static_cast<uint8_t>(Draw(4)),
                                       static_cast<uint16_t>(79 + Draw(3)), of_connections_() % 5);
    if (Draw(3) == 0) edge.role = ConnectionRole::kAccept;
    if (Draw(4) == 0) edge.remote.append(12, 'x');  // IPv6
    if (Draw(5) == 0) edge.remote.clear();
    if (edge.remote.empty()) edge.port = 0;
    for (const auto counter : kConnectionCounters) {
      if (Draw(4) == 0) edge.counts.*counter = of_connections_() >> (10 + Draw(54));
    }
    edges.push_back(std::move(edge));
  }
  return edges;
}

WindowBatch RandomWindows::Next(int64_t spread_ms) {
  WindowBatch batch;
  batch.upload = {.agent_id = std::string(16, static_cast<char>('a' + Below(3))),
                  .sequence = ++sequence_};
  batch.node = fmt::format("node-{}", Below(3));
  const int64_t start_ms = kTestEpochMs + Below(static_cast<int>(spread_ms / 1000)) * 1000;
  batch.window = {.from_ms = start_ms, .to_ms = start_ms + 10'000};
  for (int services = 1 + Below(4); services > 0; --services) {
    std::vector<TestStack> stacks;
    for (int count = Below(12); count > 0; --count) {
      TestStack stack{.root_first = {"main"}, .samples = 1 + Below(50), .detail = Below(4)};
      for (int depth = Below(5); depth > 0; --depth) {
        stack.root_first.push_back(fmt::format("f{}", Below(12)));
      }
      if (Below(2) == 0) stack.thread = fmt::format("worker-{}", Below(3));
      stacks.push_back(std::move(stack));
    }
    batch.series.push_back(
        {.labels = profile::LabelSet({{"node", batch.node},
                                      {"service", fmt::format("service-{}", Below(5))},
                                      {"zone", Below(2) == 0 ? "" : "west"}}),
         .profile = MakeTestProfile(stacks)});
  }
  // Some are of series that have no samples.
  for (int services = Draw(4); services > 0; --services) {
    batch.connections.push_back(
        {.labels = profile::LabelSet(
             {{"node", batch.node}, {"service", fmt::format("service-{}", Draw(9))}}),
         .edges = NextEdges()});
  }
  if (Below(3) == 0) batch.losses.emplace_back("ring_full", 1 + Below(5));
  batch.stack_ends.emplace_back("root", 1 + Below(100));
  return batch;
}

std::vector<std::string> DescribeSamples(const profile::Profile& profile) {
  std::vector<std::string> lines;
  const int samples = profile.FindSampleType("samples");
  const int cpu = profile.FindSampleType("cpu");
  for (const profile::Sample& sample : profile.samples) {
    std::string line;
    const auto& stack = profile.stacks[sample.stack.index()];
    for (auto location = stack.rbegin(); location != stack.rend(); ++location) {
      if (!line.empty()) line += ';';
      line += DescribeFrame(profile, *location);
    }
    lines.push_back(fmt::format(
        "{} {} {} {}", line, profile.label_sets[sample.labels.index()].ToString(),
        sample.values[static_cast<size_t>(samples)], sample.values[static_cast<size_t>(cpu)]));
  }
  std::ranges::sort(lines);
  return lines;
}

}  // namespace firewatch::server
