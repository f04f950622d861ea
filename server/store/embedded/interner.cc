// SPDX-License-Identifier: Apache-2.0
#include "server/store/embedded/interner.h"

#include <algorithm>

#include "server/store/embedded/bytes.h"
#include "server/store/embedded/rows.h"

namespace firewatch::server {
namespace {

constexpr uint32_t kNotYet = UINT32_MAX;

}  // namespace

ProfileHashes HashProfile(const profile::Profile& profile) {
  ProfileHashes hashes;
  hashes.stack_used.resize(profile.stacks.size());
  hashes.stacks.resize(profile.stacks.size());
  hashes.locations.resize(profile.locations.size());
  std::vector<bool> location_done(profile.locations.size());
  std::vector<base::Hash128> chain;
  for (const profile::Sample& sample : profile.samples) {
    const size_t stack = sample.stack.index();
    if (hashes.stack_used[stack]) continue;
    hashes.stack_used[stack] = true;
    chain.clear();
    for (const profile::LocationId id : profile.stacks[stack]) {
      if (!location_done[id.index()]) {
        location_done[id.index()] = true;
        hashes.locations[id.index()] = IdentityOf(profile, profile.locations[id.index()]);
      }
      chain.push_back(hashes.locations[id.index()]);
    }
    hashes.stacks[stack] = profile::IdentityOf(chain);
  }
  return hashes;
}

// Ids already found for one profile.
struct Interner::Memo {
  explicit Memo(const profile::Profile& profile)
      : mappings(profile.mappings.size(), kNotYet),
        functions(profile.functions.size(), kNotYet),
        locations(profile.locations.size(), kNotYet) {}
  std::vector<uint32_t> mappings, functions, locations;
};

Interner::Interner(PartitionTables& tables, WriteSet& rows)
    : tables_(tables), rows_(rows), append_(tables.BeginAppend()) {
  prefixes_.resize(static_cast<size_t>(RowKind::kBlock) + 1);
  for (size_t kind = 1; kind < prefixes_.size(); ++kind) {
    prefixes_[kind] = KindPrefix(tables.key(), static_cast<RowKind>(kind));
  }
}

template <typename MakePayload>
uint32_t Interner::InternRow(RowKind kind, const base::Hash128& hash, const MakePayload& make)
    ABSL_NO_THREAD_SAFETY_ANALYSIS {  // the constructor's caller holds the lock
  InternedId& entry = tables_.Intern(kind, hash);
  const uint32_t id = entry.id;
  if (entry.durable || entry.append == append_) return id;
  entry.append = append_;
  written_.emplace_back(kind, hash);
  // `make` may intern other rows and so move `entry`.
  rows_.Put(Table::kPartitions, IdKey(prefixes_[static_cast<size_t>(kind)], id),
            EncodeInterned(hash, make()));
  return id;
}

uint32_t Interner::InternLabels(RowKind kind, const profile::LabelSet& labels) {
  const std::string bytes = labels.Encode();
  return InternRow(kind, base::HashBytes128(bytes), [&bytes] { return bytes; });
}

uint32_t Interner::InternMapping(const profile::Profile& profile, profile::MappingId id,
                                 Memo& memo) {
  uint32_t& known = memo.mappings[id.index()];
  if (known != kNotYet) return known;
  const profile::Mapping& mapping = profile.mappings[id.index()];
  const std::string payload = MappingRow{.file = std::string(profile.String(mapping.file)),
                                         .build_id = std::string(profile.String(mapping.build_id)),
                                         .memory_start = mapping.memory_start,
                                         .memory_limit = mapping.memory_limit,
                                         .file_offset = mapping.file_offset}
                                  .Encode();
  known = InternRow(RowKind::kMapping, base::HashBytes128(payload), [&payload] { return payload; });
  return known;
}

uint32_t Interner::InternFunction(const profile::Profile& profile, profile::FunctionId id,
                                  Memo& memo) {
  uint32_t& known = memo.functions[id.index()];
  if (known != kNotYet) return known;
  const profile::Function& function = profile.functions[id.index()];
  const std::string payload =
      FunctionRow{.name = std::string(profile.String(function.name)),
                  .system_name = std::string(profile.String(function.system_name)),
                  .file = std::string(profile.String(function.file)),
                  .start_line = function.start_line}
          .Encode();
  known =
      InternRow(RowKind::kFunction, base::HashBytes128(payload), [&payload] { return payload; });
  return known;
}

uint32_t Interner::InternLocation(const profile::Profile& profile, profile::LocationId id,
                                  const base::Hash128& hash, Memo& memo) {
  if (memo.locations[id.index()] != kNotYet) return memo.locations[id.index()];
  const profile::Location& location = profile.locations[id.index()];
  const uint32_t known = InternRow(RowKind::kLocation, hash, [&] {
    LocationRow row{
        .address = location.address, .kind = location.kind, .is_folded = location.is_folded};
    if (location.mapping.index() != 0) {
      row.mapping = InternMapping(profile, location.mapping, memo) + 1;
    }
    return row.Encode();
  });
  memo.locations[id.index()] = known;
  WriteNamesIfBetter(profile, location, hash, known, memo);
  return known;
}

void Interner::WriteNamesIfBetter(const profile::Profile& profile,
                                  const profile::Location& location, const base::Hash128& hash,
                                  uint32_t id, Memo& memo) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  const uint16_t score = NameScore(profile, location);
  if (score <= tables_.Intern(RowKind::kLocation, hash).name_score) return;
  uint16_t& written = names_written_[hash];
  if (score <= written) return;
  written = score;
  NamesRow row;
  for (const profile::Line& line : location.lines) {
    row.lines.push_back({.function = InternFunction(profile, line.function, memo),
                         .line = line.line,
                         .column = line.column});
  }
  rows_.Put(Table::kPartitions,
            NamesKey(prefixes_[static_cast<size_t>(RowKind::kNames)], id, score), row.Encode());
}

Interner::ProfileIds Interner::InternProfile(const profile::Profile& profile,
                                             const ProfileHashes& hashes) {
  Memo memo(profile);
  ProfileIds ids{.stacks = std::vector<uint32_t>(profile.stacks.size(), kNotYet),
                 .label_sets = std::vector<uint32_t>(profile.label_sets.size(), kNotYet)};
  std::vector<uint32_t> chain;
  for (const profile::Sample& sample : profile.samples) {
    uint32_t& labels = ids.label_sets[sample.labels.index()];
    if (labels == kNotYet) {
      const profile::LabelSet& set = profile.label_sets[sample.labels.index()];
      labels = set.empty() ? 0 : InternLabels(RowKind::kLabelSet, set) + 1;
    }
    const size_t stack = sample.stack.index();
    if (ids.stacks[stack] != kNotYet) continue;
    // Also for a stack that is known: its locations may bring better names.
    chain.clear();
    for (const profile::LocationId id : profile.stacks[stack]) {
      chain.push_back(InternLocation(profile, id, hashes.locations[id.index()], memo));
    }
    ids.stacks[stack] =
        InternRow(RowKind::kStack, hashes.stacks[stack], [&chain] { return EncodeStack(chain); });
  }
  return ids;
}

void Interner::MarkDurable() {
  base::MutexLock lock(tables_.mutex());
  for (const auto& [kind, hash] : written_) tables_.Intern(kind, hash).durable = true;
  for (const auto& [hash, score] : names_written_) {
    InternedId& entry = tables_.Intern(RowKind::kLocation, hash);
    entry.name_score = std::max(entry.name_score, score);
  }
}

}  // namespace firewatch::server
