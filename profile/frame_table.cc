// SPDX-License-Identifier: Apache-2.0
#include "profile/frame_table.h"

#include <fmt/format.h>

#include <limits>

#include "profile/flame_tree.h"
#include "profile/saturating.h"

namespace firewatch::profile {
namespace {

constexpr uint32_t kUnset = std::numeric_limits<uint32_t>::max();
constexpr size_t kShownBuildIdBytes = 12;

std::string_view FunctionName(const Profile& profile, FunctionId id) {
  const Function& function = profile.functions[id.index()];
  const std::string_view name = profile.String(function.name);
  return name.empty() ? profile.String(function.system_name) : name;
}

// What a person calls the mapping: the base name of its file, or "[kernel]", "[anon]" as it is.
std::string_view BinaryName(const Profile& profile, const Mapping& mapping) {
  const std::string_view file = profile.String(mapping.file);
  if (file.starts_with("//anon")) return "[anon]";
  if (file.starts_with("[")) return file;
  const size_t slash = file.rfind('/');
  return slash == std::string_view::npos ? file : file.substr(slash + 1);
}

std::string AddressName(const Profile& profile, const Location& location) {
  const Mapping& mapping = profile.mappings[location.mapping.index()];
  const std::string_view binary = BinaryName(profile, mapping);
  const std::string_view build_id = profile.String(mapping.build_id);
  // Of kind kUnknown the address is no offset into anything.
  if (location.kind == LocationKind::kUnknown || (binary.empty() && build_id.empty())) {
    return fmt::format("[unknown]+0x{:x}", location.address);
  }
  if (binary.empty()) {
    return fmt::format("build-id:{}+0x{:x}", build_id.substr(0, kShownBuildIdBytes),
                       location.address);
  }
  return fmt::format("{}+0x{:x}", binary, location.address);
}

uint32_t LineOf(int64_t line) {
  return line > 0 && line <= std::numeric_limits<uint32_t>::max() ? static_cast<uint32_t>(line) : 0;
}

}  // namespace

std::string FrameName(const Profile& profile, const Location& location, size_t line_index) {
  if (line_index < location.lines.size()) {
    const std::string_view name = FunctionName(profile, location.lines[line_index].function);
    if (!name.empty()) return std::string(name);
  }
  return AddressName(profile, location);
}

FrameTable::FrameTable(const Profile& profile, std::span<const uint8_t> reasons) {
  Intern("");
  std::vector<uint32_t> name_of_function(profile.functions.size(), kUnset);
  std::vector<uint32_t> source_of_function(profile.functions.size(), 0);
  std::vector<uint32_t> file_of_mapping(profile.mappings.size(), kUnset);
  first_.reserve(profile.locations.size() + 1);
  frames_.reserve(profile.locations.size());
  for (size_t index = 0; index < profile.locations.size(); ++index) {
    const Location& location = profile.locations[index];
    const auto bare = static_cast<uint8_t>(
        kFrameNotSymbolized |
        (index < reasons.size() ? (reasons[index] & 15) << kFrameReasonShift : 0));
    first_.push_back(frames_.size());
    uint32_t& file = file_of_mapping[location.mapping.index()];
    if (file == kUnset) {
      file = Intern(BinaryName(profile, profile.mappings[location.mapping.index()]));
    }
    const uint8_t kernel = location.kind == LocationKind::kKernel ? kFrameKernel : uint8_t{0};
    for (size_t i = 0; i < location.lines.size(); ++i) {
      const Line& line = location.lines[i];
      const Function& function = profile.functions[line.function.index()];
      uint32_t& name = name_of_function[line.function.index()];
      uint32_t& source = source_of_function[line.function.index()];
      if (name == kUnset) {
        name = Intern(FunctionName(profile, line.function));
        source = Intern(profile.String(function.file));
      }
      Frame frame{.name = name,
                  .file = file,
                  .source = source,
                  .line = LineOf(function.start_line != 0 ? function.start_line : line.line),
                  .flags = kernel};
      if (i + 1 < location.lines.size()) frame.flags |= kFrameInlined;
      if (name == 0) {  // a function without a name
        frame.name = Intern(AddressName(profile, location));
        frame.flags |= bare;
      }
      frames_.push_back(frame);
    }
    if (location.lines.empty()) {
      const auto flags = static_cast<uint8_t>(kernel | bare);
      frames_.push_back(
          {.name = Intern(AddressName(profile, location)), .file = file, .flags = flags});
    }
  }
  first_.push_back(frames_.size());
}

uint32_t FrameTable::Intern(std::string_view name) {
  const auto it = index_.find(name);
  if (it != index_.end()) return it->second;
  const auto id = static_cast<uint32_t>(names_.size());
  names_.emplace_back(name);
  index_.emplace(name, id);
  return id;
}

std::vector<int64_t> SumByStack(const Profile& profile, int value_index) {
  std::vector<int64_t> sums(profile.stacks.size(), 0);
  if (value_index < 0 || static_cast<size_t>(value_index) >= profile.sample_types.size()) {
    return sums;
  }
  for (const Sample& sample : profile.samples) {
    int64_t& sum = sums[sample.stack.index()];
    sum = SaturatingAdd(sum, sample.values[static_cast<size_t>(value_index)]);
  }
  return sums;
}

}  // namespace firewatch::profile
