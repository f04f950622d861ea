// SPDX-License-Identifier: Apache-2.0
// A profile in memory: tables of strings, functions, mappings, locations, stacks and sample label
// sets, and samples that point into them. Everything else in this folder reads or makes one.
//
// The identity of a location is (build id, file offset, kind) when the build id is known, else its
// whole chain of (function, file, line). Names are never part of the identity when the offset is
// known, so a name that improves later does not split a stack in two (see IdentityOf below).
//
// Filled by ProfileBuilder (builder.h), which interns; const afterwards.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/hash.h"
#include "profile/ids.h"
#include "profile/labels.h"

namespace firewatch::profile {

// What a value counts. The two of ours: {"samples", "count"} and {"cpu", "nanoseconds"}.
struct ValueType {
  std::string type;
  std::string unit;
  friend bool operator==(const ValueType&, const ValueType&) = default;
};

enum class LocationKind : uint8_t {
  kUnknown = 0,  // nothing but an address, or only names
  kNative = 1,   // user code of a mapped file; address = file offset
  kKernel = 2,  // kernel text, modules, BPF programs; the mapping is named "[kernel]" or "[module]"
  kVdso = 3,
  kJit = 4,  // anonymous executable memory
};

struct Function {
  StringId name = {};         // demangled, what people read
  StringId system_name = {};  // as in the symbol table
  StringId file = {};
  int64_t start_line = 0;
  friend bool operator==(const Function&, const Function&) = default;
};

struct Mapping {
  StringId file = {};      // path as the process saw it, or "[kernel]", "[vdso]", "[anon]"
  StringId build_id = {};  // lower-case hex; "" when unknown
  // What Firewatch writes, and what ReadPprof makes of every other profile: memory_start and
  // file_offset 0 and memory_limit above the last offset, so that a Location's address is a file
  // offset also by pprof's arithmetic. All three 0: the extent is unknown (kernel, [anon] ...).
  uint64_t memory_start = 0;
  uint64_t memory_limit = 0;
  uint64_t file_offset = 0;
  bool has_functions = false;
  bool has_filenames = false;
  bool has_line_numbers = false;
  bool has_inline_frames = false;
  friend bool operator==(const Mapping&, const Mapping&) = default;
};

struct Line {
  FunctionId function = {};
  int64_t line = 0;
  int64_t column = 0;
  friend bool operator==(const Line&, const Line&) = default;
};

struct Location {
  MappingId mapping = {};
  uint64_t address = 0;  // file offset for kNative and kVdso, as in Mapping; else raw
  LocationKind kind = LocationKind::kUnknown;
  bool is_folded = false;
  std::vector<Line> lines = {};  // innermost inlined function first; empty: not symbolized
};

struct Sample {
  StackId stack = {};
  LabelSetId labels = {};            // per-sample labels such as thread
  std::vector<int64_t> values = {};  // one per sample type
};

struct Profile {
  std::vector<ValueType> sample_types;
  ValueType period_type;
  int64_t period = 0;  // in period_type's unit; ns between samples for cpu/nanoseconds
  int64_t start_unix_ns = 0;
  int64_t duration_ns = 0;
  std::string default_sample_type;  // "" means the last sample type (pprof's rule)
  std::vector<std::string> comments;
  // pprof's expressions for frames to hide; carried along, not applied.
  std::string drop_frames;
  std::string keep_frames;

  std::vector<std::string> strings;  // [0] = ""
  std::vector<Function> functions;
  std::vector<Mapping> mappings;  // [0] = no mapping
  std::vector<Location> locations;
  std::vector<std::vector<LocationId>> stacks;  // leaf first; [0] = empty
  std::vector<LabelSet> label_sets;             // [0] = empty
  std::vector<Sample> samples;

  std::string_view String(StringId id) const { return strings[id.index()]; }
  // Index into sample_types, or -1.
  int FindSampleType(std::string_view type) const;
};

// 128-bit identity of a location, the same on every machine and in every process (bytes in
// docs/formats.md, section "Location identity"):
//   native or vdso with a build id: hash of (kind, build id, file offset); names play no part
//   kernel with names: hash of (mapping name, function system names): addresses move at boot
//   else with names: hash of (mapping file, chain of functions with file and line). A path without
//       a build id is not enough: /app/server is another program on another machine, and its
//       offset must not lend its name to this one.
//   else: hash of (mapping file, address).
base::Hash128 IdentityOf(const Profile& profile, const Location& location);
// Identity of a stack: hash of its locations' identities, leaf first.
base::Hash128 IdentityOf(std::span<const base::Hash128> locations);

}  // namespace firewatch::profile
