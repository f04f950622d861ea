// SPDX-License-Identifier: Apache-2.0
// Each id of an added profile is translated once and then found in an array; what no sample points
// at is not merged. Locations are translated in the order of their table, not of the stacks: they
// and their lines lie in memory that way, and the cost of merging is that of reaching them.
#include "profile/merge.h"

#include <algorithm>
#include <limits>

#include "base/status.h"
#include "profile/saturating.h"

namespace firewatch::profile {
namespace {

constexpr uint32_t kUnset = std::numeric_limits<uint32_t>::max();
constexpr size_t kMaxComments = 1024;

template <typename IdType>
class Translator {
 public:
  explicit Translator(size_t rows) : ids_(rows, kUnset) {}
  bool Has(IdType id) const { return ids_[id.index()] != kUnset; }
  IdType Get(IdType id) const { return IdType(ids_[id.index()]); }
  IdType Put(IdType id, IdType translated) {
    ids_[id.index()] = translated.value();
    return translated;
  }

 private:
  std::vector<uint32_t> ids_;
};

}  // namespace

struct ProfileMerger::Translation {
  explicit Translation(const Profile& profile)
      : strings(profile.strings.size()),
        functions(profile.functions.size()),
        mappings(profile.mappings.size()),
        locations(profile.locations.size()),
        stacks(profile.stacks.size()),
        label_sets(profile.label_sets.size()) {
    named.reserve(profile.functions.size());
    for (const Function& function : profile.functions) {
      named.push_back(function.name != StringId() || function.system_name != StringId());
    }
  }
  Translator<StringId> strings;
  Translator<FunctionId> functions;
  Translator<MappingId> mappings;
  Translator<LocationId> locations;
  Translator<StackId> stacks;
  Translator<LabelSetId> label_sets;
  std::vector<bool> named;        // by function
  std::vector<LocationId> stack;  // reused
};

namespace {

// Larger is better: names, then lines, then known source lines; see ProfileMerger::Add.
uint64_t Quality(const Location& location, const std::vector<bool>& named) {
  constexpr uint64_t kMost = (uint64_t{1} << 31) - 1;
  bool any_named = false;
  uint64_t sourced = 0;
  for (const Line& line : location.lines) {
    any_named |= named[line.function.index()];
    sourced += line.line != 0 ? 1 : 0;
  }
  return uint64_t{any_named} << 63 | std::min<uint64_t>(location.lines.size(), kMost) << 32 |
         std::min(sourced, kMost);
}

}  // namespace

ProfileMerger::ProfileMerger() : builder_(std::vector<ValueType>()) {
  mapping_of_key_[MappingKey()] = MappingId();
}

absl::Status ProfileMerger::Add(const Profile& profile) {
  if (profile.sample_types.empty() && profile.samples.empty()) return absl::OkStatus();
  if (first_) {
    builder_.profile().sample_types = profile.sample_types;
    first_ = false;
  } else if (builder_.profile().sample_types != profile.sample_types) {
    return base::InvalidArgument("merge: sample types differ from those of the first profile");
  }
  AddHead(profile);
  Translation translation(profile);
  TranslateLocations(profile, translation);
  for (const Sample& sample : profile.samples) {
    const StackId stack = TranslateStack(profile, sample.stack, translation);
    const LabelSetId labels =
        translation.label_sets.Has(sample.labels)
            ? translation.label_sets.Get(sample.labels)
            : translation.label_sets.Put(
                  sample.labels, builder_.AddLabelSet(profile.label_sets[sample.labels.index()]));
    builder_.AddSample(stack, labels, sample.values);
  }
  return absl::OkStatus();
}

Profile ProfileMerger::Finish() { return builder_.Finish(); }

void ProfileMerger::AddHead(const Profile& profile) {
  Profile& merged = builder_.profile();
  if (merged.period_type == ValueType()) merged.period_type = profile.period_type;
  merged.period = std::max(merged.period, profile.period);
  if (merged.start_unix_ns == 0 ||
      (profile.start_unix_ns != 0 && profile.start_unix_ns < merged.start_unix_ns)) {
    merged.start_unix_ns = profile.start_unix_ns;
  }
  merged.duration_ns = SaturatingAdd(merged.duration_ns, profile.duration_ns);
  if (merged.default_sample_type.empty()) merged.default_sample_type = profile.default_sample_type;
  if (merged.drop_frames.empty()) merged.drop_frames = profile.drop_frames;
  if (merged.keep_frames.empty()) merged.keep_frames = profile.keep_frames;
  for (const std::string& comment : profile.comments) {
    if (merged.comments.size() == kMaxComments) break;
    if (std::ranges::find(merged.comments, comment) == merged.comments.end()) {
      merged.comments.push_back(comment);
    }
  }
}

StringId ProfileMerger::TranslateString(const Profile& profile, StringId id,
                                        Translation& translation) {
  if (translation.strings.Has(id)) return translation.strings.Get(id);
  return translation.strings.Put(id, builder_.AddString(profile.String(id)));
}

MappingId ProfileMerger::TranslateMapping(const Profile& profile, MappingId id,
                                          Translation& translation) {
  if (translation.mappings.Has(id)) return translation.mappings.Get(id);
  Mapping mapping = profile.mappings[id.index()];
  mapping.file = TranslateString(profile, mapping.file, translation);
  mapping.build_id = TranslateString(profile, mapping.build_id, translation);
  std::vector<Mapping>& ours = builder_.profile().mappings;
  const MappingKey key(mapping.file, mapping.build_id, mapping.memory_start, mapping.file_offset,
                       mapping.memory_limit != 0);
  const auto [it, added] =
      mapping_of_key_.try_emplace(key, MappingId(static_cast<uint32_t>(ours.size())));
  if (added) {
    ours.push_back(mapping);
  } else {
    Mapping& known = ours[it->second.index()];
    known.memory_limit = std::max(known.memory_limit, mapping.memory_limit);
    known.has_functions |= mapping.has_functions;
    known.has_filenames |= mapping.has_filenames;
    known.has_line_numbers |= mapping.has_line_numbers;
    known.has_inline_frames |= mapping.has_inline_frames;
  }
  return translation.mappings.Put(id, it->second);
}

void ProfileMerger::CopyLines(const Profile& profile, const Location& from,
                              Translation& translation, Location& to) {
  to.lines = from.lines;
  for (Line& line : to.lines) {
    if (!translation.functions.Has(line.function)) {
      Function function = profile.functions[line.function.index()];
      function.name = TranslateString(profile, function.name, translation);
      function.system_name = TranslateString(profile, function.system_name, translation);
      function.file = TranslateString(profile, function.file, translation);
      translation.functions.Put(line.function, builder_.AddFunction(function));
    }
    line.function = translation.functions.Get(line.function);
  }
}

void ProfileMerger::TranslateLocations(const Profile& profile, Translation& translation) {
  std::vector<bool> used_stacks(profile.stacks.size(), false);
  for (const Sample& sample : profile.samples) used_stacks[sample.stack.index()] = true;
  std::vector<bool> used(profile.locations.size(), false);
  for (size_t i = 0; i < profile.stacks.size(); ++i) {
    if (!used_stacks[i]) continue;
    for (const LocationId id : profile.stacks[i]) used[id.index()] = true;
  }
  for (uint32_t i = 0; i < used.size(); ++i) {
    if (used[i]) TranslateLocation(profile, LocationId(i), translation);
  }
}

void ProfileMerger::TranslateLocation(const Profile& profile, LocationId id,
                                      Translation& translation) {
  const Location& location = profile.locations[id.index()];
  const uint64_t quality = Quality(location, translation.named);
  std::vector<Location>& ours = builder_.profile().locations;
  const auto [it, added] = location_of_identity_.try_emplace(
      IdentityOf(profile, location), LocationId(static_cast<uint32_t>(ours.size())));
  const LocationId translated = it->second;
  if (added) {
    Location copy{.mapping = TranslateMapping(profile, location.mapping, translation),
                  .address = location.address,
                  .kind = location.kind,
                  .is_folded = location.is_folded};
    CopyLines(profile, location, translation, copy);
    ours.push_back(std::move(copy));
    quality_.push_back(quality);
  } else {
    if (location.is_folded) ours[translated.index()].is_folded = true;
    if (quality > quality_[translated.index()]) {
      CopyLines(profile, location, translation, ours[translated.index()]);
      quality_[translated.index()] = quality;
    }
  }
  translation.locations.Put(id, translated);
}

StackId ProfileMerger::TranslateStack(const Profile& profile, StackId id,
                                      Translation& translation) {
  if (translation.stacks.Has(id)) return translation.stacks.Get(id);
  translation.stack.clear();
  for (const LocationId location : profile.stacks[id.index()]) {
    translation.stack.push_back(translation.locations.Get(location));
  }
  return translation.stacks.Put(id, builder_.AddStack(translation.stack));
}

}  // namespace firewatch::profile
