// SPDX-License-Identifier: Apache-2.0
// WritePprof of pprof_codec.h. Rows are written straight to the wire in table order: row i of
// functions and locations gets id i + 1, mapping i gets id i, and "no mapping" becomes an empty
// mapping behind the others (go tool pprof takes the first one for the main binary). Strings that
// are not in the profile's own table (labels, types, comments) are appended to it.
#include <algorithm>
#include <limits>

#include "absl/container/flat_hash_map.h"
#include "base/hash.h"
#include "base/status.h"
#include "profile/pprof_codec.h"
#include "profile/pprof_fields.h"
#include "profile/wire.h"

namespace firewatch::profile {
namespace {

constexpr uint64_t kPageMask = 4095;

absl::Status CheckLocations(const Profile& profile) {
  for (size_t i = 0; i < profile.locations.size(); ++i) {
    const Location& location = profile.locations[i];
    if (location.mapping.index() >= profile.mappings.size()) {
      return base::InvalidArgument("location {}: no mapping {}", i, location.mapping.value());
    }
    for (const Line& line : location.lines) {
      if (line.function.index() >= profile.functions.size()) {
        return base::InvalidArgument("location {}: no function {}", i, line.function.value());
      }
    }
  }
  return absl::OkStatus();
}

absl::Status CheckSamples(const Profile& profile) {
  for (const auto& stack : profile.stacks) {
    for (const LocationId id : stack) {
      if (id.index() >= profile.locations.size()) {
        return base::InvalidArgument("stack: no location {}", id.value());
      }
    }
  }
  for (size_t i = 0; i < profile.samples.size(); ++i) {
    const Sample& sample = profile.samples[i];
    if (sample.stack.index() >= profile.stacks.size() ||
        sample.labels.index() >= profile.label_sets.size()) {
      return base::InvalidArgument("sample {}: no such stack or label set", i);
    }
    if (sample.values.size() != profile.sample_types.size()) {
      return base::InvalidArgument("sample {}: {} values for {} sample types", i,
                                   sample.values.size(), profile.sample_types.size());
    }
  }
  return absl::OkStatus();
}

absl::Status CheckConsistent(const Profile& profile) {
  if (profile.strings.empty() || !profile.strings[0].empty() || profile.mappings.empty()) {
    return base::InvalidArgument("string 0 or mapping 0 is missing");
  }
  const auto has = [&](StringId id) { return id.index() < profile.strings.size(); };
  for (const Function& function : profile.functions) {
    if (!has(function.name) || !has(function.system_name) || !has(function.file)) {
      return base::InvalidArgument("function: no such string");
    }
  }
  for (const Mapping& mapping : profile.mappings) {
    if (!has(mapping.file) || !has(mapping.build_id)) {
      return base::InvalidArgument("mapping: no such string");
    }
  }
  RETURN_IF_ERROR(CheckLocations(profile));
  return CheckSamples(profile);
}

class Writer {
 public:
  explicit Writer(const Profile& profile) : profile_(profile) {}

  std::string Write() {
    for (const ValueType& type : profile_.sample_types) {
      WriteValueType(kProfileSampleType, type);
    }
    for (const Sample& sample : profile_.samples) WriteSample(sample);
    WriteMappings();
    for (size_t i = 0; i < profile_.locations.size(); ++i) WriteLocation(i);
    for (size_t i = 0; i < profile_.functions.size(); ++i) WriteFunction(i);
    WriteScalars();
    // Last, because only now every string has its index.
    for (const std::string& text : profile_.strings) wire_.Bytes(kProfileString, text);
    for (const std::string_view text : extra_strings_) wire_.Bytes(kProfileString, text);
    return wire_.Take();
  }

 private:
  uint64_t StringIndex(std::string_view text) {
    if (text.empty()) return 0;
    const auto [it, added] =
        extra_index_.try_emplace(text, profile_.strings.size() + extra_strings_.size());
    if (added) extra_strings_.push_back(text);
    return it->second;
  }

  uint64_t WireMapping(MappingId id) const {
    return id == MappingId() ? profile_.mappings.size() : id.value();
  }

  void WriteValueType(uint32_t number, const ValueType& type) {
    const size_t start = wire_.Begin(number);
    wire_.Scalar(kValueTypeType, StringIndex(type.type));
    wire_.Scalar(kValueTypeUnit, StringIndex(type.unit));
    wire_.End(start);
  }

  void WriteSample(const Sample& sample) {
    const size_t start = wire_.Begin(kProfileSample);
    wire_.Packed(kSampleLocationId, profile_.stacks[sample.stack.index()],
                 [](LocationId id) { return uint64_t{id.value()} + 1; });
    wire_.Packed(kSampleValue, sample.values,
                 [](int64_t value) { return static_cast<uint64_t>(value); });
    for (const auto& [name, value] : profile_.label_sets[sample.labels.index()].pairs()) {
      const size_t label = wire_.Begin(kSampleLabel);
      wire_.Scalar(kLabelKey, StringIndex(name));
      wire_.Scalar(kLabelStr, StringIndex(value));
      wire_.End(label);
    }
    wire_.End(start);
  }

  // Flags and limits are raised to what the locations show, so that no caller can forget them: a
  // mapping that does not cover an offset would lose its location's kind on reading.
  std::vector<Mapping> CompleteMappings() const {
    std::vector<Mapping> mappings = profile_.mappings;
    for (const Location& location : profile_.locations) {
      Mapping& mapping = mappings[location.mapping.index()];
      mapping.has_inline_frames |= location.lines.size() > 1;
      for (const Line& line : location.lines) {
        mapping.has_line_numbers |= line.line != 0;
        mapping.has_filenames |= profile_.functions[line.function.index()].file != StringId();
      }
      const bool in_file =
          location.kind == LocationKind::kNative || location.kind == LocationKind::kVdso;
      if (in_file && location.mapping != MappingId() && location.address >= mapping.memory_limit) {
        mapping.memory_limit = location.address >= std::numeric_limits<uint64_t>::max() - kPageMask
                                   ? std::numeric_limits<uint64_t>::max()
                                   : (location.address + kPageMask + 1) & ~kPageMask;
      }
    }
    return mappings;
  }

  void WriteMappings() {
    const std::vector<Mapping> mappings = CompleteMappings();
    for (size_t i = 1; i < mappings.size(); ++i) WriteMapping(i, mappings[i]);
    const bool unmapped = std::ranges::any_of(profile_.locations, [](const Location& location) {
      return location.mapping == MappingId();
    });
    if (unmapped) WriteMapping(mappings.size(), mappings[0]);
  }

  void WriteMapping(size_t id, const Mapping& mapping) {
    const size_t start = wire_.Begin(kProfileMapping);
    wire_.Scalar(kMappingId, uint64_t{id});
    wire_.Scalar(kMappingMemoryStart, mapping.memory_start);
    wire_.Scalar(kMappingMemoryLimit, mapping.memory_limit);
    wire_.Scalar(kMappingFileOffset, mapping.file_offset);
    wire_.Scalar(kMappingFilename, uint64_t{mapping.file.value()});
    wire_.Scalar(kMappingBuildId, uint64_t{mapping.build_id.value()});
    wire_.Scalar(kMappingHasFunctions, uint64_t{1});
    wire_.Scalar(kMappingHasFilenames, uint64_t{mapping.has_filenames});
    wire_.Scalar(kMappingHasLineNumbers, uint64_t{mapping.has_line_numbers});
    wire_.Scalar(kMappingHasInlineFrames, uint64_t{mapping.has_inline_frames});
    wire_.End(start);
  }

  void WriteLocation(size_t i) {
    const Location& location = profile_.locations[i];
    const size_t start = wire_.Begin(kProfileLocation);
    wire_.Scalar(kLocationId, uint64_t{i + 1});
    wire_.Scalar(kLocationMappingId, WireMapping(location.mapping));
    wire_.Scalar(kLocationAddress, location.address);
    for (const Line& line : location.lines) {
      const size_t line_start = wire_.Begin(kLocationLine);
      wire_.Scalar(kLineFunctionId, uint64_t{line.function.value()} + 1);
      wire_.Scalar(kLineLine, line.line);
      wire_.Scalar(kLineColumn, line.column);
      wire_.End(line_start);
    }
    wire_.Scalar(kLocationIsFolded, uint64_t{location.is_folded});
    wire_.End(start);
  }

  void WriteFunction(size_t i) {
    const Function& function = profile_.functions[i];
    const size_t start = wire_.Begin(kProfileFunction);
    wire_.Scalar(kFunctionId, uint64_t{i + 1});
    wire_.Scalar(kFunctionName, uint64_t{function.name.value()});
    wire_.Scalar(kFunctionSystemName, uint64_t{function.system_name.value()});
    wire_.Scalar(kFunctionFilename, uint64_t{function.file.value()});
    wire_.Scalar(kFunctionStartLine, function.start_line);
    wire_.End(start);
  }

  void WriteScalars() {
    wire_.Scalar(kProfileDropFrames, StringIndex(profile_.drop_frames));
    wire_.Scalar(kProfileKeepFrames, StringIndex(profile_.keep_frames));
    wire_.Scalar(kProfileTimeNanos, profile_.start_unix_ns);
    wire_.Scalar(kProfileDurationNanos, profile_.duration_ns);
    if (profile_.period_type != ValueType()) {
      WriteValueType(kProfilePeriodType, profile_.period_type);
    }
    wire_.Scalar(kProfilePeriod, profile_.period);
    wire_.Packed(kProfileComment, profile_.comments,
                 [this](const std::string& text) { return StringIndex(text); });
    wire_.Scalar(kProfileDefaultSampleType, StringIndex(profile_.default_sample_type));
  }

  const Profile& profile_;
  WireWriter wire_;
  // Views into the profile, which outlives the writer.
  absl::flat_hash_map<std::string_view, uint64_t, base::StringHash, base::StringEqual> extra_index_;
  std::vector<std::string_view> extra_strings_;
};

}  // namespace

absl::StatusOr<std::string> WritePprof(const Profile& profile, Compression compression, int level) {
  if (const absl::Status status = CheckConsistent(profile); !status.ok()) {
    return base::Annotate(status, "pprof writer");
  }
  std::string bytes = Writer(profile).Write();
  if (compression == Compression::kNone) return bytes;
  return Compress(bytes, compression, level);
}

}  // namespace firewatch::profile
