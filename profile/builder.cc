// SPDX-License-Identifier: Apache-2.0
#include "profile/builder.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/hash/hash.h"
#include "base/check.h"
#include "base/hash.h"
#include "profile/saturating.h"
#include "profile/utf8.h"

namespace firewatch::profile {
namespace {

constexpr uint64_t Pair(uint32_t a, uint32_t b) { return uint64_t{a} << 32 | b; }

uint64_t HashOf(const Function& function) {
  return base::Hash64(
      std::array<uint64_t, 3>{Pair(function.name.value(), function.system_name.value()),
                              function.file.value(), static_cast<uint64_t>(function.start_line)});
}

uint64_t HashOf(const Mapping& mapping) {
  return base::Hash64(std::array<uint64_t, 4>{Pair(mapping.file.value(), mapping.build_id.value()),
                                              mapping.memory_start, mapping.memory_limit,
                                              mapping.file_offset});
}

uint64_t HashOf(const Location& location) {
  const std::array<uint64_t, 2> head{
      Pair(location.mapping.value(),
           static_cast<uint32_t>(location.kind) << 1 | (location.is_folded ? 1 : 0)),
      location.address};
  uint64_t hash = base::Hash64(head);
  for (const Line& line : location.lines) {  // by field: a Line has padding
    hash = base::Hash64(std::array<uint64_t, 4>{hash, line.function.value(),
                                                static_cast<uint64_t>(line.line),
                                                static_cast<uint64_t>(line.column)});
  }
  return hash;
}

bool SameRow(const Location& a, const Location& b) {
  return a.mapping == b.mapping && a.address == b.address && a.kind == b.kind &&
         a.is_folded == b.is_folded && a.lines == b.lines;
}

template <typename Row, typename Candidate>
uint32_t Append(std::vector<Row>& table, const Candidate& candidate) {
  CHECK(table.size() < UINT32_MAX);
  table.emplace_back(candidate);
  return static_cast<uint32_t>(table.size() - 1);
}

}  // namespace

ProfileBuilder::ProfileBuilder(std::vector<ValueType> sample_types) {
  profile_.sample_types = std::move(sample_types);
  AddString("");
  AddMapping(Mapping());
  AddStack({});
  AddLabelSet(LabelSet());
}

StringId ProfileBuilder::AddString(std::string_view text) {
  const uint64_t hash = base::Hash64(text);
  const auto same = [&](uint32_t row) { return profile_.strings[row] == text; };
  // Looked for before it is checked: what is there is valid, and most of it is there.
  const uint32_t known = strings_.Find(hash, same);
  if (known != InternIndex::kAbsent) return StringId(known);
  if (!IsValidUtf8(text)) return AddString(ToValidUtf8(text));
  return StringId(strings_.FindOrAdd(hash, same, [&] { return Append(profile_.strings, text); }));
}

FunctionId ProfileBuilder::AddFunction(const Function& function) {
  return FunctionId(functions_.FindOrAdd(
      HashOf(function), [&](uint32_t row) { return profile_.functions[row] == function; },
      [&] { return Append(profile_.functions, function); }));
}

FunctionId ProfileBuilder::AddFunction(std::string_view name, std::string_view system_name,
                                       std::string_view file, int64_t start_line) {
  const StringId name_id = AddString(name);
  return AddFunction({.name = name_id,
                      .system_name = system_name == name ? name_id : AddString(system_name),
                      .file = AddString(file),
                      .start_line = start_line});
}

MappingId ProfileBuilder::AddMapping(const Mapping& mapping) {
  return MappingId(mappings_.FindOrAdd(
      HashOf(mapping), [&](uint32_t row) { return profile_.mappings[row] == mapping; },
      [&] { return Append(profile_.mappings, mapping); }));
}

LocationId ProfileBuilder::AddLocation(const Location& location) {
  return LocationId(locations_.FindOrAdd(
      HashOf(location), [&](uint32_t row) { return SameRow(profile_.locations[row], location); },
      [&] { return Append(profile_.locations, location); }));
}

StackId ProfileBuilder::AddStack(std::span<const LocationId> leaf_first) {
  const auto bytes = std::as_bytes(leaf_first);
  return StackId(stacks_.FindOrAdd(
      base::Hash64({reinterpret_cast<const char*>(bytes.data()), bytes.size()}),
      [&](uint32_t row) { return std::ranges::equal(profile_.stacks[row], leaf_first); },
      [&] {
        CHECK(profile_.stacks.size() < UINT32_MAX);
        profile_.stacks.emplace_back(leaf_first.begin(), leaf_first.end());
        return static_cast<uint32_t>(profile_.stacks.size() - 1);
      }));
}

LabelSetId ProfileBuilder::AddLabelSet(const LabelSet& labels) {
  return LabelSetId(label_sets_.FindOrAdd(
      absl::Hash<LabelSet>()(labels),
      [&](uint32_t row) { return profile_.label_sets[row] == labels; },
      [&] { return Append(profile_.label_sets, labels); }));
}

void ProfileBuilder::AddSample(StackId stack, LabelSetId labels, std::span<const int64_t> values) {
  CHECK(values.size() == profile_.sample_types.size());
  bool added = false;
  const uint64_t key = Pair(stack.value(), labels.value());
  const uint32_t row = samples_.FindOrAdd(
      base::Hash64(std::span(&key, 1)),
      [&](uint32_t i) {
        return profile_.samples[i].stack == stack && profile_.samples[i].labels == labels;
      },
      [&] {
        CHECK(profile_.samples.size() < UINT32_MAX);
        profile_.samples.push_back({stack, labels, {values.begin(), values.end()}});
        added = true;
        return static_cast<uint32_t>(profile_.samples.size() - 1);
      });
  if (added) return;
  std::vector<int64_t>& sums = profile_.samples[row].values;
  for (size_t i = 0; i < sums.size(); ++i) sums[i] = SaturatingAdd(sums[i], values[i]);
}

Profile ProfileBuilder::Finish() { return std::move(profile_); }

}  // namespace firewatch::profile
