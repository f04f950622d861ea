// SPDX-License-Identifier: Apache-2.0
#include "server/debuginfo/naming_store.h"

#include <array>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/hash.h"
#include "profile/utf8.h"

namespace firewatch::server {
namespace {

using profile::FunctionId;
using profile::Location;
using profile::Profile;
using profile::StringId;

// Adds strings and functions to a profile that is there already. The index of what it has is made
// at the first addition: most profiles need none.
class Additions {
 public:
  explicit Additions(Profile& profile) : profile_(profile) {}

  StringId AddString(std::string_view text) {
    if (text.empty()) return StringId(0);
    if (strings_.empty()) {
      for (size_t i = 0; i < profile_.strings.size(); ++i) {
        strings_.emplace(profile_.strings[i], static_cast<uint32_t>(i));
      }
    }
    const std::string valid = profile::ToValidUtf8(text);
    const auto [it, is_new] =
        strings_.try_emplace(valid, static_cast<uint32_t>(profile_.strings.size()));
    if (is_new) profile_.strings.push_back(valid);
    return StringId(it->second);
  }

  FunctionId AddFunction(const profile::Function& function) {
    const std::array<uint64_t, 4> key = {function.name.value(), function.system_name.value(),
                                         function.file.value(),
                                         static_cast<uint64_t>(function.start_line)};
    const auto [it, is_new] =
        functions_.try_emplace(key, static_cast<uint32_t>(profile_.functions.size()));
    if (is_new) profile_.functions.push_back(function);
    return FunctionId(it->second);
  }

 private:
  Profile& profile_;
  base::StringMap<uint32_t> strings_;
  absl::flat_hash_map<std::array<uint64_t, 4>, uint32_t> functions_;  // those that were added
};

struct Quality {
  size_t named = 0;
  size_t with_line = 0;
  friend auto operator<=>(const Quality&, const Quality&) = default;
};

Quality QualityOf(const Profile& profile, const Location& location) {
  Quality quality;
  for (const profile::Line& line : location.lines) {
    const profile::Function& function = profile.functions[line.function.index()];
    if (profile.String(function.name).empty() && profile.String(function.system_name).empty()) {
      continue;
    }
    ++quality.named;
    if (line.line != 0 && !profile.String(function.file).empty()) ++quality.with_line;
  }
  return quality;
}

Quality QualityOf(std::span<const NameFrame> frames) {
  Quality quality;
  for (const NameFrame& frame : frames) {
    if (frame.name == 0) continue;
    ++quality.named;
    if (frame.line != 0 && frame.file != 0) ++quality.with_line;
  }
  return quality;
}

// A location that lacks something.
struct Wanting {
  size_t location;
  Quality stored;
};

// One mapping of the profile, with what names it.
class NamedMapping {
 public:
  NamedMapping(Profile& profile, size_t mapping, DebugInfo& debuginfo, NameCache& cache)
      : profile_(profile), mapping_(mapping) {
    const std::string_view build_id = profile.String(profile.mappings[mapping].build_id);
    const auto id = symbolizer::BuildId::FromHex(build_id);
    if (id.empty()) return;
    NamesState state;
    auto names = debuginfo.NamesOf(id, &state, nullptr);
    if (names == nullptr) return;
    names_ = cache.Of(id, std::move(names), debuginfo.binaries().Find(build_id, ""));
  }

  bool has_names() const { return names_ != nullptr; }

  // Returns how many became better.
  uint64_t Improve(std::span<const Wanting> locations, Additions& additions) {
    std::vector<uint64_t> offsets;
    offsets.reserve(locations.size());
    for (const Wanting& wanting : locations) {
      offsets.push_back(profile_.locations[wanting.location].address);
    }
    uint64_t improved = 0;
    names_->Find(offsets, [&](size_t number, std::span<const NameFrame> found) {
      const Wanting& wanting = locations[number];
      if (QualityOf(found) <= wanting.stored) return;
      Replace(profile_.locations[wanting.location], found, additions);
      ++improved;
    });
    return improved;
  }

 private:
  void Replace(Location& location, std::span<const NameFrame> found, Additions& additions) {
    location.lines.clear();
    for (const NameFrame& frame : found) {
      location.lines.push_back({.function = FunctionOf(frame, additions), .line = frame.line});
    }
    profile::Mapping& mapping = profile_.mappings[mapping_];
    mapping.has_functions = true;
    mapping.has_inline_frames |= found.size() > 1;
    for (const NameFrame& frame : found) {
      mapping.has_filenames |= frame.file != 0;
      mapping.has_line_numbers |= frame.line != 0;
    }
  }

  struct Names {
    StringId display, linkage;
  };
  const Names& NamesOf(uint32_t id, Additions& additions) {
    const auto [it, is_new] = strings_.try_emplace(id);
    if (is_new) {
      const CachedNames::Text text = names_->TextOf(id);
      it->second = {additions.AddString(text.display), additions.AddString(text.linkage)};
    }
    return it->second;
  }
  FunctionId FunctionOf(const NameFrame& frame, Additions& additions) {
    const Names names = NamesOf(frame.name, additions);
    return additions.AddFunction({.name = names.display,
                                  .system_name = names.linkage,
                                  .file = NamesOf(frame.file, additions).display,
                                  .start_line = frame.start_line});
  }

  Profile& profile_;
  const size_t mapping_;
  std::shared_ptr<CachedNames> names_;
  absl::flat_hash_map<uint32_t, Names> strings_;  // by id of the binary's texts
};

}  // namespace

NamingStats NameProfile(Profile& profile, DebugInfo& debuginfo, NameCache& cache) {
  NamingStats stats;
  std::vector<std::vector<Wanting>> wanting(profile.mappings.size());
  for (size_t i = 0; i < profile.locations.size(); ++i) {
    const Location& location = profile.locations[i];
    if (location.kind != profile::LocationKind::kNative) continue;
    const size_t mapping = location.mapping.index();
    if (profile.mappings[mapping].build_id == StringId(0)) continue;
    const Quality stored = QualityOf(profile, location);
    if (stored.named > 0 && stored.with_line == location.lines.size()) continue;
    ++stats.looked_up;
    wanting[mapping].push_back({.location = i, .stored = stored});
  }
  Additions additions(profile);
  for (size_t i = 0; i < wanting.size(); ++i) {
    if (wanting[i].empty()) continue;
    NamedMapping mapping(profile, i, debuginfo, cache);
    if (mapping.has_names()) stats.improved += mapping.Improve(wanting[i], additions);
  }
  return stats;
}

NamingStore::NamingStore(ProfileStore& store, DebugInfo& debuginfo, base::MetricsRegistry& metrics)
    : store_(store),
      debuginfo_(debuginfo),
      looked_up_(metrics.AddCounter("firewatch_naming_locations_total",
                                    "Stored locations without name or line, met by queries.",
                                    {{"result", "looked_up"}})),
      improved_(metrics.AddCounter("firewatch_naming_locations_total",
                                   "Stored locations without name or line, met by queries.",
                                   {{"result", "improved"}})) {}

absl::StatusOr<Profile> NamingStore::Merge(const Query& query) {
  absl::StatusOr<Profile> merged = store_.Merge(query);
  if (!merged.ok()) return merged;
  const NamingStats stats = NameProfile(*merged, debuginfo_, cache_);
  looked_up_.Add(stats.looked_up);
  improved_.Add(stats.improved);
  return merged;
}

}  // namespace firewatch::server
