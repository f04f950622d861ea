// SPDX-License-Identifier: Apache-2.0
// ReadPprof of pprof_codec.h, in steps:
//   1. Walk the top level once: remember where the rows of each table lie, take the scalars.
//      (Samples come first in most files and point at tables that come later.)
//   2. Strings are kept as views; functions, mappings and locations are interned in that order.
//   3. Walk the top level again for the samples, which now find everything by id.
// Every number from the input is compared with what it indexes before it is used, and everything
// that a few bytes of input could blow up is bounded by PprofReadLimits.
#include <algorithm>
#include <charconv>
#include <limits>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "base/status.h"
#include "profile/builder.h"
#include "profile/pprof_codec.h"
#include "profile/pprof_fields.h"
#include "profile/utf8.h"
#include "profile/wire.h"

namespace firewatch::profile {
namespace {

constexpr size_t kMaxSampleTypes = 64;
constexpr size_t kMaxTypeNameBytes = 1024;
constexpr size_t kMaxComments = 1024;
constexpr size_t kMaxCommentBytes = size_t{1} << 20;
constexpr size_t kMaxFrameFilterBytes = size_t{64} << 10;

absl::Status Damaged(std::string_view what) {
  return base::InvalidArgument("{}: damaged or truncated message", what);
}

bool IsVarint(const WireField& field) { return field.type == WireType::kVarint; }
bool IsBytes(const WireField& field) { return field.type == WireType::kBytes; }

// A repeated integer may come one by one or packed. False: neither, or damaged.
template <typename Take>
bool ForEachInteger(const WireField& field, const Take& take) {
  if (IsVarint(field)) return take(field.value);
  if (!IsBytes(field)) return false;
  std::string_view rest = field.bytes;
  uint64_t value = 0;
  while (!rest.empty()) {
    if (!TakeVarint(rest, value) || !take(value)) return false;
  }
  return true;
}

// From the ids of the wire to our rows. Nearly all writers number from 1 in order, and then this
// is an array; ids may also be raw addresses, and those go to a hash map.
class IdMap {
 public:
  void Prepare(size_t rows) { dense_.assign(2 * rows + 2, kAbsent); }

  // False when the id is zero or taken.
  bool Add(uint64_t id, uint32_t row) {
    if (id == 0) return false;
    if (id >= dense_.size()) return sparse_.try_emplace(id, row).second;
    if (dense_[id] != kAbsent) return false;
    dense_[id] = row;
    return true;
  }
  // kAbsent when there is none.
  uint32_t Find(uint64_t id) const {
    if (id < dense_.size()) return dense_[id];
    const auto it = sparse_.find(id);
    return it == sparse_.end() ? kAbsent : it->second;
  }

  static constexpr uint32_t kAbsent = std::numeric_limits<uint32_t>::max();

 private:
  std::vector<uint32_t> dense_;
  absl::flat_hash_map<uint64_t, uint32_t> sparse_;
};

// A mapping of the file and what has become of it.
struct ReadMapping {
  uint64_t start = 0;
  uint64_t limit = 0;
  uint64_t offset = 0;
  LocationKind kind = LocationKind::kUnknown;
  MappingId covered;  // for locations inside: starts at 0
  Mapping bare;       // for the others, added when there is one: the same file, no extent
};

class Reader {
 public:
  Reader(std::string_view bytes, const PprofReadLimits& limits)
      : bytes_(bytes), limits_(limits), builder_({}) {}

  absl::StatusOr<Profile> Read() {
    RETURN_IF_ERROR(WalkTables());
    if (strings_.empty() || !strings_[0].empty()) {
      return base::InvalidArgument("string_table[0] is not \"\"");
    }
    RETURN_IF_ERROR(ReadHead());
    RETURN_IF_ERROR(ReadFunctions());
    RETURN_IF_ERROR(ReadMappings());
    RETURN_IF_ERROR(ReadLocations());
    RETURN_IF_ERROR(ReadSamples());
    return builder_.Finish();
  }

 private:
  // --- step 1
  absl::Status WalkTables() {
    WireReader reader(bytes_);
    WireField field;
    while (reader.Next(field)) {
      switch (field.number) {
        case kProfileSampleType:
          RETURN_IF_ERROR(Keep(field, sample_types_, kMaxSampleTypes, "sample types"));
          break;
        case kProfileSample:
          if (++samples_ > limits_.max_samples) return TooMany("samples", limits_.max_samples);
          break;
        case kProfileMapping:
          RETURN_IF_ERROR(Keep(field, mappings_, limits_.max_table_rows, "mappings"));
          break;
        case kProfileLocation:
          RETURN_IF_ERROR(Keep(field, locations_, limits_.max_table_rows, "locations"));
          break;
        case kProfileFunction:
          RETURN_IF_ERROR(Keep(field, functions_, limits_.max_table_rows, "functions"));
          break;
        case kProfileString:
          RETURN_IF_ERROR(Keep(field, strings_, limits_.max_table_rows, "strings"));
          break;
        default:
          RETURN_IF_ERROR(TakeScalar(field));
      }
    }
    return reader.ok() ? absl::OkStatus() : Damaged("profile");
  }

  static absl::Status TooMany(std::string_view what, size_t limit) {
    return base::InvalidArgument("more than {} {}", limit, what);
  }

  static absl::Status Keep(const WireField& field, std::vector<std::string_view>& rows,
                           size_t limit, std::string_view what) {
    if (!IsBytes(field)) return Damaged(what);
    if (rows.size() == limit) return TooMany(what, limit);
    rows.push_back(field.bytes);
    return absl::OkStatus();
  }

  absl::Status TakeScalar(const WireField& field) {
    if (field.number == kProfilePeriodType) {
      if (!IsBytes(field)) return Damaged("period type");
      return ReadValueType(field.bytes, period_type_);
    }
    if (field.number == kProfileComment) {
      const bool taken = ForEachInteger(field, [this](uint64_t index) {
        comments_.push_back(index);
        return comments_.size() <= kMaxComments;
      });
      if (taken) return absl::OkStatus();
      return base::InvalidArgument("comments: damaged or more than {}", kMaxComments);
    }
    if (field.number < kProfileDropFrames || field.number > kProfileDefaultSampleType) {
      return absl::OkStatus();  // unknown
    }
    if (!IsVarint(field)) return Damaged("profile");
    scalars_[field.number - kProfileDropFrames] = field.value;
    return absl::OkStatus();
  }

  uint64_t scalar(ProfileField field) const { return scalars_[field - kProfileDropFrames]; }

  // --- strings
  // True when `index` is in the table; then `text` is what stands there.
  bool Text(uint64_t index, std::string_view& text) const {
    if (index >= strings_.size()) return false;
    text = strings_[index];
    return true;
  }

  absl::Status BadString(std::string_view what, uint64_t index) const {
    return base::InvalidArgument("{}: string {} of {}", what, index, strings_.size());
  }

  // Interned when first used, so that the profile holds no string that nothing names.
  bool Intern(uint64_t index, StringId& id) {
    if (index >= strings_.size()) return false;
    if (string_ids_[index] == StringId() && index != 0) {
      string_ids_[index] = builder_.AddString(strings_[index]);
    }
    id = string_ids_[index];
    return true;
  }

  // For texts that are copied into the profile by themselves and not interned.
  absl::Status CopyText(uint64_t index, size_t max_bytes, std::string_view what,
                        std::string& copy) const {
    std::string_view text;
    if (!Text(index, text)) return BadString(what, index);
    if (text.size() > max_bytes) {
      return base::InvalidArgument("{}: {} bytes, more than {}", what, text.size(), max_bytes);
    }
    copy = ToValidUtf8(text);
    return absl::OkStatus();
  }

  // --- head
  struct WireValueType {
    uint64_t type = 0;
    uint64_t unit = 0;
  };

  static absl::Status ReadValueType(std::string_view bytes, WireValueType& type) {
    WireReader reader(bytes);
    WireField field;
    while (reader.Next(field)) {
      if (field.number != kValueTypeType && field.number != kValueTypeUnit) continue;
      if (!IsVarint(field)) return Damaged("value type");
      (field.number == kValueTypeType ? type.type : type.unit) = field.value;
    }
    return reader.ok() ? absl::OkStatus() : Damaged("value type");
  }

  absl::Status CopyValueType(const WireValueType& wire, ValueType& type) const {
    RETURN_IF_ERROR(CopyText(wire.type, kMaxTypeNameBytes, "value type", type.type));
    return CopyText(wire.unit, kMaxTypeNameBytes, "value type", type.unit);
  }

  absl::Status ReadHead() {
    string_ids_.resize(strings_.size());
    std::vector<ValueType> types;
    for (const std::string_view row : sample_types_) {
      WireValueType wire;
      RETURN_IF_ERROR(ReadValueType(row, wire));
      RETURN_IF_ERROR(CopyValueType(wire, types.emplace_back()));
    }
    if (types.empty() && samples_ != 0) return base::InvalidArgument("no sample types");
    Profile& profile = builder_.profile();
    profile.sample_types = std::move(types);
    RETURN_IF_ERROR(CopyValueType(period_type_, profile.period_type));
    profile.period = static_cast<int64_t>(scalar(kProfilePeriod));
    profile.start_unix_ns = static_cast<int64_t>(scalar(kProfileTimeNanos));
    profile.duration_ns = static_cast<int64_t>(scalar(kProfileDurationNanos));
    RETURN_IF_ERROR(CopyText(scalar(kProfileDefaultSampleType), kMaxTypeNameBytes,
                             "default sample type", profile.default_sample_type));
    RETURN_IF_ERROR(CopyText(scalar(kProfileDropFrames), kMaxFrameFilterBytes, "drop_frames",
                             profile.drop_frames));
    RETURN_IF_ERROR(CopyText(scalar(kProfileKeepFrames), kMaxFrameFilterBytes, "keep_frames",
                             profile.keep_frames));
    size_t room = kMaxCommentBytes;
    for (const uint64_t index : comments_) {
      std::string& comment = profile.comments.emplace_back();
      RETURN_IF_ERROR(CopyText(index, room, "comments", comment));
      room -= std::min(room, comment.size());
    }
    return absl::OkStatus();
  }

  // --- step 2
  absl::Status ReadFunctions() {
    function_of_.Prepare(functions_.size());
    for (const std::string_view row : functions_) {
      WireReader reader(row);
      WireField field;
      uint64_t fields[kFunctionStartLine + 1] = {};
      while (reader.Next(field)) {
        if (field.number > kFunctionStartLine) continue;
        if (!IsVarint(field)) return Damaged("function");
        fields[field.number] = field.value;
      }
      if (!reader.ok()) return Damaged("function");
      Function function;
      function.start_line = static_cast<int64_t>(fields[kFunctionStartLine]);
      if (!Intern(fields[kFunctionName], function.name) ||
          !Intern(fields[kFunctionSystemName], function.system_name) ||
          !Intern(fields[kFunctionFilename], function.file)) {
        return base::InvalidArgument("function {}: a string index past the table",
                                     fields[kFunctionId]);
      }
      const FunctionId id = builder_.AddFunction(function);
      if (!function_of_.Add(fields[kFunctionId], id.value())) {
        return base::InvalidArgument("function id {}: zero or there twice", fields[kFunctionId]);
      }
    }
    return absl::OkStatus();
  }

  absl::Status ReadMappings() {
    mapping_of_.Prepare(mappings_.size());
    read_mappings_.reserve(mappings_.size());
    for (const std::string_view row : mappings_) {
      WireReader reader(row);
      WireField field;
      uint64_t fields[kMappingHasInlineFrames + 1] = {};
      while (reader.Next(field)) {
        if (field.number > kMappingHasInlineFrames) continue;
        if (!IsVarint(field)) return Damaged("mapping");
        fields[field.number] = field.value;
      }
      if (!reader.ok()) return Damaged("mapping");
      Mapping mapping;
      if (!Intern(fields[kMappingFilename], mapping.file) ||
          !Intern(fields[kMappingBuildId], mapping.build_id)) {
        return base::InvalidArgument("mapping {}: a string index past the table",
                                     fields[kMappingId]);
      }
      mapping.has_functions = fields[kMappingHasFunctions] != 0;
      mapping.has_filenames = fields[kMappingHasFilenames] != 0;
      mapping.has_line_numbers = fields[kMappingHasLineNumbers] != 0;
      mapping.has_inline_frames = fields[kMappingHasInlineFrames] != 0;
      const auto index = static_cast<uint32_t>(read_mappings_.size());
      if (!mapping_of_.Add(fields[kMappingId], index)) {
        return base::InvalidArgument("mapping id {}: zero or there twice", fields[kMappingId]);
      }
      read_mappings_.push_back(Normalise(mapping, fields[kMappingMemoryStart],
                                         fields[kMappingMemoryLimit], fields[kMappingFileOffset]));
    }
    return absl::OkStatus();
  }

  // `mapping` has no extent yet. One that names no file covers nothing.
  ReadMapping Normalise(Mapping mapping, uint64_t start, uint64_t limit, uint64_t offset) {
    ReadMapping read;
    read.kind = KindOfMapping(builder_.profile().String(mapping.file),
                              builder_.profile().String(mapping.build_id));
    if (mapping.file == StringId() && mapping.build_id == StringId()) return read;
    read.bare = mapping;
    const bool by_offset = read.kind == LocationKind::kNative || read.kind == LocationKind::kVdso;
    if (!by_offset || limit <= start ||
        __builtin_add_overflow(limit - start, offset, &mapping.memory_limit)) {
      builder_.AddMapping(read.bare);  // also when no location needs it: the first names the file
      return read;
    }
    read.start = start;
    read.limit = limit;
    read.offset = offset;
    read.covered = builder_.AddMapping(mapping);
    return read;
  }

  // Puts mapping, kind and normalised address into `location`.
  void Place(const ReadMapping& mapping, Location& location) {
    const bool inside = location.address >= mapping.start && location.address < mapping.limit;
    const uint64_t offset = location.address - mapping.start + mapping.offset;
    // The first bytes of a file are its header: at offset 0, this is a writer that knows names
    // only.
    if (inside && offset != 0) {
      location.mapping = mapping.covered;
      location.address = offset;
      location.kind = mapping.kind;
      return;
    }
    location.mapping = builder_.AddMapping(mapping.bare);
    const bool raw = mapping.kind == LocationKind::kKernel || mapping.kind == LocationKind::kJit;
    location.kind = raw ? mapping.kind : LocationKind::kUnknown;
  }

  absl::Status ReadLocations() {
    location_of_.Prepare(locations_.size());
    Location location;  // reused: keeps the capacity of its lines
    for (const std::string_view row : locations_) {
      uint64_t id = 0;
      RETURN_IF_ERROR(ReadLocation(row, id, location));
      const LocationId row_id = builder_.AddLocation(location);
      if (row_id.index() >= frames_of_.size()) {
        frames_of_.push_back(std::max<size_t>(1, location.lines.size()));
      }
      if (!location_of_.Add(id, row_id.value())) {
        return base::InvalidArgument("location id {}: zero or there twice", id);
      }
    }
    return absl::OkStatus();
  }

  absl::Status ReadLocation(std::string_view row, uint64_t& id, Location& location) {
    WireReader reader(row);
    WireField field;
    uint64_t mapping_id = 0;
    location.address = 0;
    location.is_folded = false;
    location.lines.clear();
    while (reader.Next(field)) {
      if (field.number == kLocationLine) {
        if (!IsBytes(field)) return Damaged("line");
        if (++lines_ > limits_.max_table_rows) return TooMany("lines", limits_.max_table_rows);
        RETURN_IF_ERROR(ReadLine(field.bytes, location.lines.emplace_back()));
      } else if (field.number <= kLocationIsFolded) {
        if (!IsVarint(field)) return Damaged("location");
        if (field.number == kLocationId) id = field.value;
        if (field.number == kLocationMappingId) mapping_id = field.value;
        if (field.number == kLocationAddress) location.address = field.value;
        if (field.number == kLocationIsFolded) location.is_folded = field.value != 0;
      }
    }
    if (!reader.ok()) return Damaged("location");
    if (mapping_id == 0) {
      Place(ReadMapping(), location);
      return absl::OkStatus();
    }
    const uint32_t mapping = mapping_of_.Find(mapping_id);
    if (mapping == IdMap::kAbsent) {
      return base::InvalidArgument("location {}: no mapping {}", id, mapping_id);
    }
    Place(read_mappings_[mapping], location);
    return absl::OkStatus();
  }

  absl::Status ReadLine(std::string_view bytes, Line& line) const {
    WireReader reader(bytes);
    WireField field;
    uint64_t function_id = 0;
    while (reader.Next(field)) {
      if (field.number > kLineColumn) continue;
      if (!IsVarint(field)) return Damaged("line");
      if (field.number == kLineFunctionId) function_id = field.value;
      if (field.number == kLineLine) line.line = static_cast<int64_t>(field.value);
      if (field.number == kLineColumn) line.column = static_cast<int64_t>(field.value);
    }
    if (!reader.ok()) return Damaged("line");
    const uint32_t function = function_of_.Find(function_id);
    if (function == IdMap::kAbsent)
      return base::InvalidArgument("line: no function {}", function_id);
    line.function = FunctionId(function);
    return absl::OkStatus();
  }

  // --- step 3
  absl::Status ReadSamples() {
    WireReader reader(bytes_);
    WireField field;
    while (reader.Next(field)) {
      if (field.number != kProfileSample) continue;
      if (!IsBytes(field)) return Damaged("sample");
      RETURN_IF_ERROR(ReadSample(field.bytes));
    }
    return absl::OkStatus();
  }

  absl::Status ReadSample(std::string_view bytes) {
    stack_.clear();
    values_.clear();
    labels_.clear();
    size_t frames = 0;
    const size_t types = builder_.profile().sample_types.size();
    WireReader reader(bytes);
    WireField field;
    while (reader.Next(field)) {
      if (field.number == kSampleLocationId) {
        const bool taken = ForEachInteger(field, [&](uint64_t id) {
          const uint32_t row = location_of_.Find(id);
          if (row == IdMap::kAbsent) return false;
          stack_.push_back(LocationId(row));
          frames += frames_of_[row];
          return frames <= limits_.max_stack_depth;
        });
        if (!taken) {
          return base::InvalidArgument(
              "sample: damaged, an unknown location or more than {} frames",
              limits_.max_stack_depth);
        }
      } else if (field.number == kSampleValue) {
        const bool taken = ForEachInteger(field, [&](uint64_t value) {
          values_.push_back(static_cast<int64_t>(value));
          return values_.size() <= types;
        });
        if (!taken) return base::InvalidArgument("sample: damaged or more than {} values", types);
      } else if (field.number == kSampleLabel) {
        if (!IsBytes(field)) return Damaged("label");
        RETURN_IF_ERROR(ReadLabel(field.bytes));
      }
    }
    if (!reader.ok()) return Damaged("sample");
    if (values_.size() != types) {
      return base::InvalidArgument("sample: {} values for {} sample types", values_.size(), types);
    }
    frames_ += frames;
    if (frames_ > limits_.max_frames) return TooMany("frames", limits_.max_frames);
    return AddSample();
  }

  absl::Status AddSample() {
    LabelSetId labels;
    if (!labels_.empty()) {
      const size_t before = builder_.profile().label_sets.size();
      const LabelSet set(labels_);
      labels = builder_.AddLabelSet(set);
      if (labels.index() == before) {
        for (const auto& [name, value] : set.pairs()) {
          label_bytes_ += name.size() + value.size();
        }
        if (label_bytes_ > limits_.max_label_bytes) {
          return TooMany("bytes of labels", limits_.max_label_bytes);
        }
      }
    }
    builder_.AddSample(builder_.AddStack(stack_), labels, values_);
    return absl::OkStatus();
  }

  absl::Status ReadLabel(std::string_view bytes) {
    if (labels_.size() == kMaxLabelsPerSet) return TooMany("labels of a sample", kMaxLabelsPerSet);
    WireReader reader(bytes);
    WireField field;
    uint64_t fields[kLabelNumUnit + 1] = {};
    while (reader.Next(field)) {
      if (field.number > kLabelNumUnit) continue;
      if (!IsVarint(field)) return Damaged("label");
      fields[field.number] = field.value;
    }
    if (!reader.ok()) return Damaged("label");
    std::string_view key;
    std::string_view text;
    std::string_view unit;
    if (!Text(fields[kLabelKey], key)) return BadString("label", fields[kLabelKey]);
    if (!Text(fields[kLabelStr], text)) return BadString("label", fields[kLabelStr]);
    if (!Text(fields[kLabelNumUnit], unit)) return BadString("label", fields[kLabelNumUnit]);
    // Cut before the copy: a megabyte of name may be pointed at from every sample.
    key = key.substr(0, 2 * kMaxLabelNameBytes);
    text = text.substr(0, 2 * kMaxLabelValueBytes);
    unit = unit.substr(0, kMaxLabelNameBytes);
    if (fields[kLabelStr] == 0 && (fields[kLabelNum] != 0 || !unit.empty())) {
      char digits[24];
      const auto end =
          std::to_chars(digits, digits + sizeof(digits), static_cast<int64_t>(fields[kLabelNum]));
      std::string value(digits, end.ptr);
      if (!unit.empty()) value.append(" ").append(unit);
      labels_.emplace_back(key, std::move(value));
    } else {
      labels_.emplace_back(key, text);
    }
    return absl::OkStatus();
  }

  const std::string_view bytes_;
  const PprofReadLimits& limits_;
  ProfileBuilder builder_;

  // Where the rows lie (views into bytes_), from step 1.
  std::vector<std::string_view> sample_types_, mappings_, locations_, functions_, strings_;
  size_t samples_ = 0;
  WireValueType period_type_;
  std::vector<uint64_t> comments_;
  uint64_t scalars_[kProfileDefaultSampleType - kProfileDropFrames + 1] = {};

  // What has become of them, from step 2.
  std::vector<StringId> string_ids_;
  IdMap function_of_, mapping_of_, location_of_;
  std::vector<ReadMapping> read_mappings_;
  std::vector<size_t> frames_of_;  // by location: a location without lines is one frame
  size_t lines_ = 0;

  // Of the sample at hand, and sums, in step 3.
  std::vector<LocationId> stack_;
  std::vector<int64_t> values_;
  std::vector<std::pair<std::string, std::string>> labels_;
  size_t frames_ = 0;
  size_t label_bytes_ = 0;
};

}  // namespace

LocationKind KindOfMapping(std::string_view file, std::string_view build_id) {
  if (file.empty()) return build_id.empty() ? LocationKind::kUnknown : LocationKind::kNative;
  // perf's and our names for memory without a file; the kernel's own names of such areas.
  for (const std::string_view name : {"//anon", "[anon", "[heap]", "[stack", "[uprobes]"}) {
    if (file.starts_with(name)) return LocationKind::kJit;
  }
  if (file == "[vdso]" || file == "[vsyscall]") return LocationKind::kVdso;
  if (file.starts_with("[")) return LocationKind::kKernel;
  return LocationKind::kNative;
}

absl::StatusOr<Profile> ReadPprof(std::string_view bytes, const PprofReadLimits& limits) {
  const auto read = [&]() -> absl::StatusOr<Profile> {
    if (bytes.empty()) return base::InvalidArgument("no bytes");
    ASSIGN_OR_RETURN(const std::string raw, Decompress(bytes, limits.max_decompressed_bytes));
    return Reader(raw, limits).Read();
  };
  absl::StatusOr<Profile> profile = read();
  if (!profile.ok()) return base::Annotate(profile.status(), "pprof");
  return profile;
}

}  // namespace firewatch::profile
