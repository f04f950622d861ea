// SPDX-License-Identifier: Apache-2.0
#include "profile/test_profiles.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "profile/builder.h"

namespace firewatch::profile {
std::string LocationText(const Profile& profile, LocationId id) {
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
  for (const auto& [sample, values] : SamplesByText(profile)) {
    text += sample;
    for (const int64_t value : values) text += fmt::format(" {}", value);
    text += "\n";
  }
  return text;
}

std::map<std::string, std::vector<int64_t>> SamplesByText(const Profile& profile) {
  std::map<std::string, std::vector<int64_t>> samples;
  for (const Sample& sample : profile.samples) {
    std::string text;
    for (const LocationId id : profile.stacks[sample.stack.index()]) {
      text += LocationText(profile, id);
    }
    text += profile.label_sets[sample.labels.index()].ToString();
    std::vector<int64_t>& sums = samples[text];
    sums.resize(sample.values.size());
    for (size_t i = 0; i < sums.size(); ++i) sums[i] += sample.values[i];
  }
  return samples;
}

Profile RandomTestProfile(std::mt19937& random) {
  const auto below = [&random](uint32_t limit) { return static_cast<uint32_t>(random() % limit); };
  ProfileBuilder builder({{"samples", "count"}, {"cpu", "nanoseconds"}});
  std::vector<FunctionId> functions;
  for (int i = 0; i < 12; ++i) {
    const std::string name = fmt::format("f{}", i % 9);  // some names twice
    functions.push_back(builder.AddFunction(name, "_Z" + name, fmt::format("{}.cc", i), i));
  }
  std::vector<Mapping> mappings;
  for (const char* file : {"/bin/a", "/bin/b", "[kernel]", "[anon]", ""}) {
    Mapping mapping;
    mapping.file = builder.AddString(file);
    if (file[0] == '/') {
      mapping.build_id = builder.AddString(file[5] == 'a' ? "aaaa" : "");
      mapping.memory_limit = 0x4000;
    }
    mappings.push_back(mapping);
  }
  std::vector<LocationId> locations;
  for (int i = 0; i < 24; ++i) {
    const Mapping& mapping = mappings[below(5)];
    Location location{.mapping = builder.AddMapping(mapping), .address = 16 * (1 + below(40))};
    location.kind = mapping.memory_limit != 0  ? LocationKind::kNative
                    : &mapping == &mappings[2] ? LocationKind::kKernel
                    : &mapping == &mappings[3] ? LocationKind::kJit
                                               : LocationKind::kUnknown;
    for (uint32_t lines = below(4); lines > 0; --lines) {
      location.lines.push_back({.function = functions[below(12)], .line = below(30)});
    }
    locations.push_back(builder.AddLocation(location));
  }
  const uint32_t samples = below(40);
  for (uint32_t i = 0; i < samples; ++i) {
    std::vector<LocationId> stack;
    for (uint32_t depth = below(8); depth > 0; --depth) stack.push_back(locations[below(24)]);
    LabelSet labels;
    if (below(3) == 0) labels.Set("thread", fmt::format("t{}", below(3)));
    const int64_t count = static_cast<int64_t>(below(20)) - 4;
    const int64_t values[] = {count, 10 * count};
    builder.AddSample(builder.AddStack(stack), builder.AddLabelSet(labels), values);
  }
  return builder.Finish();
}

}  // namespace firewatch::profile
