// SPDX-License-Identifier: Apache-2.0
#include "server/debuginfo/reasons.h"

#include <algorithm>
#include <array>
#include <map>
#include <tuple>

#include "base/status.h"
#include "profile/saturating.h"

namespace firewatch::server {
namespace {

using profile::Location;
using profile::LocationKind;
using profile::MappingId;
using profile::Profile;
using profile::SaturatingAdd;

struct ReasonRow {
  uint8_t reason;
  std::string_view key;
  std::string_view text;
  bool upload_helps;
};
constexpr std::array<ReasonRow, 15> kReasons = {{
    {ingest::NAME_REASON_NONE, "none", "It has a name.", false},
    {ingest::NAME_REASON_PENDING, "pending",
     "Its symbols were still being read; newer windows, or this server soon, have the name.",
     false},
    {ingest::NAME_REASON_NO_FILE, "no_file",
     "The file was gone, replaced or not readable when the agent looked.", true},
    {ingest::NAME_REASON_NO_BUILD_ID, "no_build_id",
     "The file has neither symbols nor a build id by which others could be found.", false},
    {ingest::NAME_REASON_STRIPPED, "stripped",
     "The file is stripped, and no debug information for it was found.", true},
    {ingest::NAME_REASON_NO_SYMBOLS, "no_symbols",
     "There are symbols, but none covers this address.", true},
    {ingest::NAME_REASON_DEBUG_MISMATCH, "debug_mismatch",
     "A debug file was found, but it belongs to another build.", true},
    {ingest::NAME_REASON_OVER_BUDGET, "over_budget",
     "Reading its symbols takes more time or memory than is allowed.", true},
    {ingest::NAME_REASON_REFUSED, "refused", "The file is damaged, or no x86-64 ELF file.", true},
    {ingest::NAME_REASON_ANONYMOUS_MEMORY, "anonymous_memory",
     "Code without a file (a JIT), and no perf map or jitdump names it.", false},
    {ingest::NAME_REASON_UNKNOWN_MEMORY, "unknown_memory", "No mapping covers the address.", false},
    {ingest::NAME_REASON_KERNEL_HIDDEN, "kernel_hidden", "The kernel does not show its symbols.",
     false},
    {ingest::NAME_REASON_NO_DEBUG_INFO, "no_debug_info",
     "Neither the file nor a debug file has debug information.", true},
    {ingest::NAME_REASON_LINES_OFF, "lines_off", "Lines are switched off in the agent.", true},
    {kReasonUnknown, "unknown", "No agent has told why.", true},
}};

const ReasonRow& RowOf(uint8_t reason) {
  const auto row = std::ranges::find(kReasons, reason, &ReasonRow::reason);
  return row == kReasons.end() ? kReasons.back() : *row;
}

// A path in a command that people paste: quoted unless plain.
std::string ShellWord(std::string_view text) {
  const bool plain = std::ranges::all_of(text, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("/._-+").find(c) != std::string_view::npos;
  });
  if (plain && !text.empty()) return std::string(text);
  std::string quoted = "'";
  for (const char c : text) {
    if (c == '\'') {
      quoted += "'\\''";
    } else {
      quoted.push_back(c);
    }
  }
  return quoted + "'";
}

bool HasName(const Profile& profile, const profile::Line& line) {
  const profile::Function& function = profile.functions[line.function.index()];
  return !profile.String(function.name).empty() || !profile.String(function.system_name).empty();
}

size_t BareFrames(const Profile& profile, const Location& location) {
  if (location.lines.empty()) return 1;
  return static_cast<size_t>(std::ranges::count_if(
      location.lines, [&](const profile::Line& line) { return !HasName(profile, line); }));
}

// The server's own try, where there was one.
std::optional<uint8_t> ReasonOfState(NamesState state) {
  switch (state) {
    case NamesState::kReady:
      return ingest::NAME_REASON_NO_SYMBOLS;
    case NamesState::kBuilding:
      return ingest::NAME_REASON_PENDING;
    case NamesState::kNoSymbols:
      return ingest::NAME_REASON_STRIPPED;
    case NamesState::kMismatch:
      return ingest::NAME_REASON_DEBUG_MISMATCH;
    case NamesState::kRefused:
      return ingest::NAME_REASON_REFUSED;
    case NamesState::kOverBudget:
      return ingest::NAME_REASON_OVER_BUDGET;
    case NamesState::kUnknown:
    case NamesState::kFailed:
      return std::nullopt;
  }
  return std::nullopt;
}

}  // namespace

std::string_view ReasonKey(uint8_t reason) { return RowOf(reason).key; }
std::string_view ReasonText(uint8_t reason) { return RowOf(reason).text; }

std::string UploadCommand(std::string_view build_id, std::string_view path) {
  if (build_id.empty()) return "";
  return fmt::format("firewatch debuginfo upload {}",
                     path.empty() || path.starts_with("[") ? "FILE" : ShellWord(path));
}

std::string ReasonAdvice(uint8_t reason, std::string_view build_id, std::string_view path) {
  switch (reason) {
    case ingest::NAME_REASON_NO_BUILD_ID:
      return "link it with --build-id, or keep its symbols";
    case ingest::NAME_REASON_ANONYMOUS_MEMORY:
      return "let the runtime write a perf map (java: -XX:+DumpPerfMapAtExit or an agent; node: "
             "--perf-basic-prof; python: -X perf)";
    case ingest::NAME_REASON_KERNEL_HIDDEN:
      return "sysctl kernel.kptr_restrict=0, or give the agent CAP_SYSLOG";
    default:
      break;
  }
  if (!RowOf(reason).upload_helps || build_id.empty()) return "";
  return UploadCommand(build_id, path);
}

uint8_t BareReasons::ReasonOfFile(MappingId mapping) {
  std::optional<uint8_t>& known = of_mapping_[mapping.index()];
  if (known) return *known;
  const std::string_view build_id = profile_.String(profile_.mappings[mapping.index()].build_id);
  const std::string_view path = profile_.String(profile_.mappings[mapping.index()].file);
  std::shared_ptr<const BinaryRecord> record;
  if (debuginfo_ != nullptr) {
    const auto id = symbolizer::BuildId::FromHex(build_id);
    if (!id.empty()) {
      bool has_lines = false;
      known = ReasonOfState(debuginfo_->StateOf(id, nullptr, &has_lines));
    }
    record = debuginfo_->binaries().Find(build_id, path);
  }
  if (!known && record != nullptr) {
    // Now every frame of it has a name: this one was met before they were read.
    known = static_cast<uint8_t>(
        record->reason == ingest::NAME_REASON_NONE ? ingest::NAME_REASON_PENDING : record->reason);
  }
  if (!known) {
    known = build_id.empty() ? uint8_t{ingest::NAME_REASON_NO_BUILD_ID} : kReasonUnknown;
  }
  return *known;
}

uint8_t BareReasons::Of(const Location& location) {
  if (BareFrames(profile_, location) == 0) return ingest::NAME_REASON_NONE;
  const std::string_view file = profile_.String(profile_.mappings[location.mapping.index()].file);
  switch (location.kind) {
    case LocationKind::kKernel:
      return ingest::NAME_REASON_KERNEL_HIDDEN;
    case LocationKind::kJit:
      return ingest::NAME_REASON_ANONYMOUS_MEMORY;
    case LocationKind::kUnknown:
      if (file.empty()) return ingest::NAME_REASON_UNKNOWN_MEMORY;
      break;
    case LocationKind::kNative:
    case LocationKind::kVdso:
      break;
  }
  if (location.mapping == MappingId()) return ingest::NAME_REASON_UNKNOWN_MEMORY;
  return ReasonOfFile(location.mapping);
}

std::vector<uint8_t> BareReasons::All() {
  std::vector<uint8_t> all;
  all.reserve(profile_.locations.size());
  for (const Location& location : profile_.locations) all.push_back(Of(location));
  return all;
}

std::string BareReasons::DetailOf(MappingId mapping) {
  if (debuginfo_ == nullptr) return "";
  const std::string_view build_id = profile_.String(profile_.mappings[mapping.index()].build_id);
  const auto id = symbolizer::BuildId::FromHex(build_id);
  std::string reason;
  bool has_lines = false;
  if (!id.empty()) debuginfo_->StateOf(id, &reason, &has_lines);
  if (!reason.empty()) return reason;
  const auto record = debuginfo_->binaries().Find(
      build_id, profile_.String(profile_.mappings[mapping.index()].file));
  return record == nullptr ? "" : record->detail;
}

UnnamedFrames FindUnnamed(const Profile& profile, int value_index, const DebugInfo* debuginfo) {
  UnnamedFrames result;
  BareReasons reasons(profile, debuginfo);
  struct Row {
    UnnamedBinary binary;
    size_t last_stack = SIZE_MAX;
  };
  std::map<std::tuple<uint32_t, uint8_t>, Row> rows;  // mapping, reason
  std::vector<Row*> row_of_location(profile.locations.size(), nullptr);
  std::vector<size_t> bare_frames(profile.locations.size(), 0);
  for (size_t i = 0; i < profile.locations.size(); ++i) {
    const Location& location = profile.locations[i];
    bare_frames[i] = BareFrames(profile, location);
    if (bare_frames[i] == 0) continue;
    const uint8_t reason = reasons.Of(location);
    const auto [it, is_new] = rows.try_emplace({location.mapping.value(), reason});
    row_of_location[i] = &it->second;
    if (!is_new) continue;
    const profile::Mapping& mapping = profile.mappings[location.mapping.index()];
    it->second.binary.path = profile.String(mapping.file);
    it->second.binary.build_id = profile.String(mapping.build_id);
    it->second.binary.reason = reason;
    it->second.binary.detail = reasons.DetailOf(location.mapping);
  }
  std::vector<int64_t> sums(profile.stacks.size(), 0);
  for (const profile::Sample& sample : profile.samples) {
    int64_t& sum = sums[sample.stack.index()];
    sum = SaturatingAdd(sum, sample.values[static_cast<size_t>(value_index)]);
  }
  const auto times = [](int64_t value, size_t count) {
    int64_t product = 0;
    return __builtin_mul_overflow(value, static_cast<int64_t>(count), &product) ? INT64_MAX
                                                                                : product;
  };
  for (size_t stack = 0; stack < sums.size(); ++stack) {
    const int64_t value = sums[stack];
    if (value == 0) continue;
    result.total = SaturatingAdd(result.total, value);
    bool is_leaf = true;
    for (const profile::LocationId location : profile.stacks[stack]) {
      const size_t lines = std::max<size_t>(profile.locations[location.index()].lines.size(), 1);
      result.all_frames = SaturatingAdd(result.all_frames, times(value, lines));
      Row* row = row_of_location[location.index()];
      if (row != nullptr) {
        const int64_t bare = times(value, bare_frames[location.index()]);
        result.frames = SaturatingAdd(result.frames, bare);
        row->binary.frames = SaturatingAdd(row->binary.frames, bare);
        if (is_leaf) row->binary.self = SaturatingAdd(row->binary.self, value);
        if (row->last_stack != stack) {
          row->binary.total = SaturatingAdd(row->binary.total, value);
          row->last_stack = stack;
        }
      }
      is_leaf = false;
    }
  }
  for (auto& [key, row] : rows) {
    if (row.binary.frames != 0) result.binaries.push_back(std::move(row.binary));
  }
  std::ranges::sort(result.binaries, [](const UnnamedBinary& a, const UnnamedBinary& b) {
    if (a.frames != b.frames) return a.frames > b.frames;
    return std::tie(a.path, a.build_id, a.reason) < std::tie(b.path, b.build_id, b.reason);
  });
  return result;
}

}  // namespace firewatch::server
