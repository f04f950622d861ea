// SPDX-License-Identifier: Apache-2.0
#include "profile/test_profiles.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "profile/builder.h"

namespace firewatch::profile {
namespace {

std::string DescribeLocation(const Profile& profile, LocationId id) {
  const Location& location = profile.locations[id.index()];
  const Mapping& mapping = profile.mappings[location.mapping.index()];
  std::string text = fmt::format(
      "[{} {} {:x} kind {}{}", profile.String(mapping.file), profile.String(mapping.build_id),
      location.address, static_cast<int>(location.kind), location.is_folded ? " folded" : "");
  for (const Line& line : location.lines) {
    const Function& function = profile.functions[line.function.index()];
    fmt::format_to(std::back_inserter(text), " | {} {} {} {} {}:{}", profile.String(function.name),
                   profile.String(function.system_name), profile.String(function.file),
                   function.start_line, line.line, line.column);
  }
  return text + "]";
}

}  // namespace

Profile SmallTestProfile() {
  ProfileBuilder builder({{"samples", "count"}, {"cpu", "nanoseconds"}});
  const auto mapping = [&](std::string_view file, std::string_view build_id, uint64_t limit) {
    return builder.AddMapping({.file = builder.AddString(file),
                               .build_id = builder.AddString(build_id),
                               .memory_limit = limit,
                               .has_functions = true});
  };
  const MappingId app = mapping("/usr/bin/app", "00112233445566778899aabbccddeeff00112233", 0x9000);
  const MappingId kernel = mapping("[kernel]", "", 0);
  const MappingId module = mapping("[nf_tables]", "", 0);
  const MappingId vdso = mapping("[vdso]", "", 0x2000);
  const MappingId anon = mapping("[anon]", "", 0);
  const auto location = [&](MappingId in, uint64_t address, LocationKind kind,
                            std::vector<Line> lines) {
    return builder.AddLocation(
        {.mapping = in, .address = address, .kind = kind, .lines = std::move(lines)});
  };
  const FunctionId main = builder.AddFunction("main", "main", "app.cc", 10);
  const FunctionId work = builder.AddFunction("app::Work(int)", "_ZN3app4WorkEi", "app.cc", 20);
  const FunctionId inlined = builder.AddFunction("app::Step()", "_ZN3app4StepEv", "app.h", 5);
  const FunctionId read = builder.AddFunction("ksys_read", "ksys_read", "");
  const FunctionId hook = builder.AddFunction("nft_do_chain", "nft_do_chain", "");
  const LocationId in_main = location(app, 0x1010, LocationKind::kNative, {{main, 12, 3}});
  const LocationId in_work =
      location(app, 0x1100, LocationKind::kNative, {{inlined, 6, 0}, {work, 22, 0}});
  const LocationId bare = location(app, 0x1200, LocationKind::kNative, {});
  const LocationId in_read =
      location(kernel, 0xffffffff81234567, LocationKind::kKernel, {{read, 0, 0}});
  const LocationId in_hook =
      location(module, 0xffffffffc0001234, LocationKind::kKernel, {{hook, 0, 0}});
  const LocationId clock = location(vdso, 0x600, LocationKind::kVdso, {});
  const LocationId jit = location(anon, 0x7f0000001000, LocationKind::kJit, {});
  const LocationId nowhere = location(MappingId(), 0x1234, LocationKind::kUnknown, {});
  const LabelSetId worker =
      builder.AddLabelSet(LabelSet({{"thread", "worker \"1\""}, {"tid", "7"}}));
  const auto sample = [&](std::vector<LocationId> stack, LabelSetId labels, int64_t count) {
    const int64_t values[] = {count, count * 1'000'000};
    builder.AddSample(builder.AddStack(stack), labels, values);
  };
  sample({in_work, in_main}, worker, 5);
  sample({in_work, in_main}, LabelSetId(), 7);
  sample({bare, in_main}, LabelSetId(), 1);
  sample({in_hook, in_read, in_main}, worker, 2);
  sample({clock, in_work, in_main}, LabelSetId(), 3);
  sample({nowhere, jit, in_main}, LabelSetId(), 4);
  sample({}, worker, 1);
  Profile& profile = builder.profile();
  profile.period_type = {"cpu", "nanoseconds"};
  profile.period = 52'631'578;
  profile.start_unix_ns = 1'700'000'000'000'000'000;
  profile.duration_ns = 10'000'000'000;
  profile.default_sample_type = "cpu";
  profile.comments = {"made by hand", "two"};
  profile.drop_frames = "drop.*";
  profile.keep_frames = "keep";
  return builder.Finish();
}

std::string DescribeForTest(const Profile& profile) {
  std::string text;
  for (const ValueType& type : profile.sample_types) text += type.type + "/" + type.unit + " ";
  fmt::format_to(std::back_inserter(text), "\n{}/{} {} {} {} {} {} {}\n", profile.period_type.type,
                 profile.period_type.unit, profile.period, profile.start_unix_ns,
                 profile.duration_ns, profile.default_sample_type, profile.drop_frames,
                 profile.keep_frames);
  for (const std::string& comment : profile.comments) text += "# " + comment + "\n";
  std::vector<std::string> lines;
  for (const Sample& sample : profile.samples) {
    std::string line;
    for (const LocationId id : profile.stacks[sample.stack.index()]) {
      line += DescribeLocation(profile, id);
    }
    line += profile.label_sets[sample.labels.index()].ToString();
    for (const int64_t value : sample.values) line += fmt::format(" {}", value);
    lines.push_back(std::move(line));
  }
  std::ranges::sort(lines);
  for (const std::string& line : lines) text += line + "\n";
  return text;
}

}  // namespace firewatch::profile
