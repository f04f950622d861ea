// SPDX-License-Identifier: Apache-2.0
#include "server/store/embedded/merge_reader.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "base/status.h"
#include "profile/builder.h"
#include "profile/saturating.h"

namespace firewatch::server {
namespace {

uint64_t Pair(uint32_t stack, uint32_t labels) { return uint64_t{stack} << 32 | labels; }
uint32_t FirstOf(uint64_t pair) { return static_cast<uint32_t>(pair >> 32); }
uint32_t SecondOf(uint64_t pair) { return static_cast<uint32_t>(pair); }

void SortUnique(std::vector<uint32_t>& ids) {
  std::ranges::sort(ids);
  const auto rest = std::ranges::unique(ids);
  ids.erase(rest.begin(), rest.end());
}

// The merged index of `hash`, a new one at the end of `table` when it was not there.
template <typename Row>
std::pair<uint32_t, bool> FindOrAdd(absl::flat_hash_map<base::Hash128, uint32_t>& index,
                                    std::vector<Row>& table, const base::Hash128& hash) {
  const auto [entry, is_new] = index.try_emplace(hash, static_cast<uint32_t>(table.size()));
  if (is_new) table.emplace_back();
  return {entry->second, is_new};
}

}  // namespace

MergeReader::MergeReader(const Database& database, const Query& query)
    : database_(database), query_(query), cursor_(database.NewCursor(Table::kPartitions)) {}

absl::StatusOr<profile::Profile> MergeReader::Run() {
  RETURN_IF_ERROR(CheckQuery(query_));
  RETURN_IF_ERROR(ForEachPartition(cursor_, query_, [this](const PartitionKey& partition) {
    return MergePartition(partition);
  }));
  return Build();
}

absl::Status MergeReader::MergePartition(const PartitionKey& partition) {
  ASSIGN_OR_RETURN(const std::vector<SelectedSeries> series,
                   SelectSeries(cursor_, partition, query_.selector));
  if (series.empty()) return absl::OkStatus();
  sums_.by_stack_and_labels.clear();
  sums_.by_stack.clear();
  sums_.stack_seen.clear();
  RETURN_IF_ERROR(SumBlocks(partition, series));
  RETURN_IF_ERROR(NoteWindowTimes(partition, series));
  return base::Annotate(FoldPartition(partition), "merge");
}

absl::Status MergeReader::SumBlocks(const PartitionKey& partition,
                                    const std::vector<SelectedSeries>& series) {
  const std::string prefix = KindPrefix(partition, RowKind::kBlock);
  const int64_t from_ms = std::max<int64_t>(query_.range.from_ms, 0);
  std::vector<BlockRow> rows;
  BlockHeader header;
  for (const SelectedSeries& one : series) {
    for (cursor_.Seek(BlockKey(prefix, one.id, from_ms, 0)); cursor_.Valid(); cursor_.Next()) {
      const std::optional<BlockKeyParts> parts = ParseBlock(prefix, cursor_.key());
      if (!parts || parts->series != one.id || parts->start_ms >= query_.range.to_ms) break;
      absl::Status status = decoder_.Decode(cursor_.value(), &header, &rows);
      if (status.ok()) AddRows(rows);
      if (!status.ok()) return base::Annotate(status, "block " + HexKey(cursor_.key()));
      period_ns_ = std::max(period_ns_, header.period_ns);
    }
    RETURN_IF_ERROR(cursor_.status());
  }
  return absl::OkStatus();
}

void MergeReader::AddRows(const std::vector<BlockRow>& rows) {
  // Saturating, as Series() and every other sum: one sender of absurd values must not make the
  // whole range unreadable.
  const auto add = [](Sums& sums, const BlockRow& row) {
    sums.samples = profile::SaturatingAdd(sums.samples, row.samples);
    sums.cpu_ns = profile::SaturatingAdd(sums.cpu_ns, row.cpu_ns);
  };
  // Ids are dense, so the largest one of a sound block is no larger than the table; a bound all the
  // same, for a damaged block must not make the array of it.
  constexpr uint32_t kMaxFlatStack = 1U << 26;
  if (!rows.empty() && rows.back().stack < kMaxFlatStack &&
      rows.back().stack >= sums_.by_stack.size()) {
    sums_.by_stack.resize(rows.back().stack + size_t{1});
    sums_.stack_seen.resize(sums_.by_stack.size());
  }
  for (const BlockRow& row : rows) {
    if (row.labels == 0 && row.stack < kMaxFlatStack) {
      sums_.stack_seen[row.stack] = true;
      add(sums_.by_stack[row.stack], row);
    } else {
      add(sums_.by_stack_and_labels[Pair(row.stack, row.labels)], row);
    }
  }
}

absl::Status MergeReader::NoteWindowTimes(const PartitionKey& partition,
                                          const std::vector<SelectedSeries>& series) {
  const auto is_selected = [&series](const WindowRow::SeriesTotal& total) {
    return std::ranges::binary_search(series, total.series, {}, &SelectedSeries::id);
  };
  return ForEachWindow(cursor_, partition, query_.range,
                       [&](int64_t start_ms, const WindowRow& window) {
                         if (!std::ranges::any_of(window.totals, is_selected)) return;
                         first_start_ms_ = std::min(first_start_ms_, start_ms);
                         last_end_ms_ = std::max(last_end_ms_, window.end_ms);
                       });
}

absl::Status MergeReader::FoldPartition(const PartitionKey& partition) {
  std::vector<uint32_t> stacks;
  std::vector<uint32_t> label_sets;
  for (uint32_t stack = 0; stack < sums_.stack_seen.size(); ++stack) {
    if (sums_.stack_seen[stack]) stacks.push_back(stack);
  }
  for (const auto& [pair, sums] : sums_.by_stack_and_labels) {
    stacks.push_back(FirstOf(pair));
    if (SecondOf(pair) != 0) label_sets.push_back(SecondOf(pair) - 1);
  }
  SortUnique(stacks);
  SortUnique(label_sets);
  ASSIGN_OR_RETURN(const IdMap merged_stacks, FoldStacks(partition, stacks));
  ASSIGN_OR_RETURN(const IdMap merged_labels, FoldLabelSets(partition, label_sets));

  const auto add = [&](uint32_t stack, uint32_t labels, const Sums& sums) {
    const uint32_t merged = labels == 0 ? 0 : merged_labels.at(labels - 1) + 1;
    Sums& total = samples_[Pair(merged_stacks.at(stack), merged)];
    total.samples = profile::SaturatingAdd(total.samples, sums.samples);
    total.cpu_ns = profile::SaturatingAdd(total.cpu_ns, sums.cpu_ns);
  };
  for (uint32_t stack = 0; stack < sums_.stack_seen.size(); ++stack) {
    if (sums_.stack_seen[stack]) add(stack, 0, sums_.by_stack[stack]);
  }
  for (const auto& [pair, sums] : sums_.by_stack_and_labels) {
    add(FirstOf(pair), SecondOf(pair), sums);
  }
  return absl::OkStatus();
}

absl::StatusOr<MergeReader::IdMap> MergeReader::FoldStacks(const PartitionKey& partition,
                                                           const std::vector<uint32_t>& stacks) {
  IdMap merged;
  std::vector<uint32_t> locations;
  std::vector<uint32_t> new_stacks;
  std::vector<uint32_t> chain;
  const size_t known = stacks_.size();
  RETURN_IF_ERROR(FetchRows(cursor_, partition, RowKind::kStack, stacks,
                            [&](uint32_t id, const base::Hash128& hash, std::string_view payload) {
                              if (!DecodeStack(payload, &chain)) return false;
                              // Also of a known stack: this partition may know better names.
                              locations.insert(locations.end(), chain.begin(), chain.end());
                              const auto [index, is_new] = FindOrAdd(stack_index_, stacks_, hash);
                              if (is_new) stacks_[index] = chain;
                              merged[id] = index;
                              return true;
                            }));
  SortUnique(locations);
  ASSIGN_OR_RETURN(const IdMap merged_locations, FoldLocations(partition, locations));
  for (size_t stack = known; stack < stacks_.size(); ++stack) {
    for (uint32_t& location : stacks_[stack]) location = merged_locations.at(location);
  }
  return merged;
}

absl::StatusOr<MergeReader::IdMap> MergeReader::FoldLocations(
    const PartitionKey& partition, const std::vector<uint32_t>& locations) {
  IdMap merged;
  std::vector<uint32_t> mappings;
  const size_t known = locations_.size();
  RETURN_IF_ERROR(FetchRows(cursor_, partition, RowKind::kLocation, locations,
                            [&](uint32_t id, const base::Hash128& hash, std::string_view payload) {
                              LocationRow row;
                              if (!row.Decode(payload)) return false;
                              const auto [index, is_new] =
                                  FindOrAdd(location_index_, locations_, hash);
                              if (is_new) {
                                locations_[index].row = row;
                                if (row.mapping != 0) mappings.push_back(row.mapping - 1);
                              }
                              merged[id] = index;
                              return true;
                            }));
  SortUnique(mappings);
  ASSIGN_OR_RETURN(const IdMap merged_mappings, FoldMappings(partition, mappings));
  for (size_t i = known; i < locations_.size(); ++i) {
    uint32_t& mapping = locations_[i].row.mapping;
    if (mapping != 0) mapping = merged_mappings.at(mapping - 1) + 1;
  }
  RETURN_IF_ERROR(FoldNames(partition, locations, merged));
  return merged;
}

absl::Status MergeReader::FoldNames(const PartitionKey& partition,
                                    const std::vector<uint32_t>& locations, const IdMap& merged) {
  std::vector<uint32_t> improved;
  std::vector<uint32_t> functions;
  RETURN_IF_ERROR(FetchNames(cursor_, partition, locations,
                             [&](uint32_t id, uint16_t score, const NamesRow& names) {
                               MergedLocation& location = locations_[merged.at(id)];
                               if (score < location.score) return;  // as good and newer wins
                               location.score = score;
                               location.lines = names.lines;
                               improved.push_back(merged.at(id));
                               for (const auto& line : names.lines)
                                 functions.push_back(line.function);
                             }));
  SortUnique(functions);
  ASSIGN_OR_RETURN(const IdMap merged_functions, FoldFunctions(partition, functions));
  for (const uint32_t index : improved) {
    for (auto& line : locations_[index].lines) line.function = merged_functions.at(line.function);
  }
  return absl::OkStatus();
}

absl::StatusOr<MergeReader::IdMap> MergeReader::FoldMappings(
    const PartitionKey& partition, const std::vector<uint32_t>& mappings) {
  IdMap merged;
  RETURN_IF_ERROR(FetchRows(cursor_, partition, RowKind::kMapping, mappings,
                            [&](uint32_t id, const base::Hash128& hash, std::string_view payload) {
                              const auto [index, is_new] =
                                  FindOrAdd(mapping_index_, mappings_, hash);
                              merged[id] = index;
                              return !is_new || mappings_[index].Decode(payload);
                            }));
  return merged;
}

absl::StatusOr<MergeReader::IdMap> MergeReader::FoldFunctions(
    const PartitionKey& partition, const std::vector<uint32_t>& functions) {
  IdMap merged;
  RETURN_IF_ERROR(FetchRows(cursor_, partition, RowKind::kFunction, functions,
                            [&](uint32_t id, const base::Hash128& hash, std::string_view payload) {
                              const auto [index, is_new] =
                                  FindOrAdd(function_index_, functions_, hash);
                              merged[id] = index;
                              return !is_new || functions_[index].Decode(payload);
                            }));
  return merged;
}

absl::StatusOr<MergeReader::IdMap> MergeReader::FoldLabelSets(
    const PartitionKey& partition, const std::vector<uint32_t>& label_sets) {
  IdMap merged;
  RETURN_IF_ERROR(FetchRows(cursor_, partition, RowKind::kLabelSet, label_sets,
                            [&](uint32_t id, const base::Hash128& hash, std::string_view payload) {
                              const auto [index, is_new] =
                                  FindOrAdd(label_set_index_, label_sets_, hash);
                              merged[id] = index;
                              if (!is_new) return true;
                              auto labels = profile::LabelSet::Decode(payload);
                              if (!labels.ok()) return false;
                              label_sets_[index] = *std::move(labels);
                              return true;
                            }));
  return merged;
}

namespace {

// What a mapping's locations turned out to know.
void NoteNames(const std::vector<NamesRow::Line>& lines, const std::vector<FunctionRow>& functions,
               profile::Mapping& mapping) {
  mapping.has_functions |= !lines.empty();
  mapping.has_inline_frames |= lines.size() > 1;
  for (const auto& line : lines) {
    mapping.has_filenames |= !functions[line.function].file.empty();
    mapping.has_line_numbers |= line.line != 0;
  }
}

}  // namespace

profile::Profile MergeReader::Build() const {
  profile::ProfileBuilder builder({{"samples", "count"}, {"cpu", "nanoseconds"}});
  std::vector<profile::Mapping> mappings(mappings_.size());
  for (size_t i = 0; i < mappings_.size(); ++i) {
    mappings[i].file = builder.AddString(mappings_[i].file);
    mappings[i].build_id = builder.AddString(mappings_[i].build_id);
    mappings[i].memory_start = mappings_[i].memory_start;
    mappings[i].memory_limit = mappings_[i].memory_limit;
    mappings[i].file_offset = mappings_[i].file_offset;
  }
  for (const MergedLocation& location : locations_) {
    if (location.row.mapping != 0) {
      NoteNames(location.lines, functions_, mappings[location.row.mapping - 1]);
    }
  }
  std::vector<profile::MappingId> mapping_ids;
  for (const profile::Mapping& mapping : mappings)
    mapping_ids.push_back(builder.AddMapping(mapping));
  std::vector<profile::FunctionId> function_ids;
  for (const FunctionRow& function : functions_) {
    function_ids.push_back(builder.AddFunction(function.name, function.system_name, function.file,
                                               function.start_line));
  }
  std::vector<profile::LocationId> location_ids;
  for (const MergedLocation& from : locations_) {
    profile::Location location{
        .address = from.row.address, .kind = from.row.kind, .is_folded = from.row.is_folded};
    if (from.row.mapping != 0) location.mapping = mapping_ids[from.row.mapping - 1];
    for (const auto& line : from.lines) {
      location.lines.push_back(
          {.function = function_ids[line.function], .line = line.line, .column = line.column});
    }
    location_ids.push_back(builder.AddLocation(location));
  }
  std::vector<profile::StackId> stack_ids;
  std::vector<profile::LocationId> chain;
  for (const auto& stack : stacks_) {
    chain.clear();
    for (const uint32_t location : stack) chain.push_back(location_ids[location]);
    stack_ids.push_back(builder.AddStack(chain));
  }
  std::vector<profile::LabelSetId> label_set_ids{profile::LabelSetId(0)};
  for (const auto& labels : label_sets_) label_set_ids.push_back(builder.AddLabelSet(labels));

  std::vector<std::pair<uint64_t, Sums>> samples(samples_.begin(), samples_.end());
  std::ranges::sort(samples, {}, &std::pair<uint64_t, Sums>::first);
  for (const auto& [pair, sums] : samples) {
    const int64_t values[] = {sums.samples, sums.cpu_ns};
    builder.AddSample(stack_ids[FirstOf(pair)], label_set_ids[SecondOf(pair)], values);
  }
  profile::Profile& profile = builder.profile();
  profile.period_type = {"cpu", "nanoseconds"};
  profile.period = period_ns_;
  profile.default_sample_type = query_.sample_type;
  if (last_end_ms_ > 0) {
    profile.start_unix_ns = first_start_ms_ * 1'000'000;
    profile.duration_ns = (last_end_ms_ - first_start_ms_) * 1'000'000;
  }
  return builder.Finish();
}

}  // namespace firewatch::server
