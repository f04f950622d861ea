// SPDX-License-Identifier: Apache-2.0
// Field numbers of proto/pprof.proto, for the reader and the writer, and the mapping names that
// tell what kind of code a mapping holds.
#pragma once

#include <cstdint>
#include <string_view>

#include "profile/profile.h"

namespace firewatch::profile {

enum ProfileField : uint32_t {
  kProfileSampleType = 1,
  kProfileSample = 2,
  kProfileMapping = 3,
  kProfileLocation = 4,
  kProfileFunction = 5,
  kProfileString = 6,
  kProfileDropFrames = 7,
  kProfileKeepFrames = 8,
  kProfileTimeNanos = 9,
  kProfileDurationNanos = 10,
  kProfilePeriodType = 11,
  kProfilePeriod = 12,
  kProfileComment = 13,
  kProfileDefaultSampleType = 14,
};
enum ValueTypeField : uint32_t { kValueTypeType = 1, kValueTypeUnit = 2 };
enum SampleField : uint32_t { kSampleLocationId = 1, kSampleValue = 2, kSampleLabel = 3 };
enum LabelField : uint32_t { kLabelKey = 1, kLabelStr = 2, kLabelNum = 3, kLabelNumUnit = 4 };
enum MappingField : uint32_t {
  kMappingId = 1,
  kMappingMemoryStart = 2,
  kMappingMemoryLimit = 3,
  kMappingFileOffset = 4,
  kMappingFilename = 5,
  kMappingBuildId = 6,
  kMappingHasFunctions = 7,
  kMappingHasFilenames = 8,
  kMappingHasLineNumbers = 9,
  kMappingHasInlineFrames = 10,
};
enum LocationField : uint32_t {
  kLocationId = 1,
  kLocationMappingId = 2,
  kLocationAddress = 3,
  kLocationLine = 4,
  kLocationIsFolded = 5,
};
enum LineField : uint32_t { kLineFunctionId = 1, kLineLine = 2, kLineColumn = 3 };
enum FunctionField : uint32_t {
  kFunctionId = 1,
  kFunctionName = 2,
  kFunctionSystemName = 3,
  kFunctionFilename = 4,
  kFunctionStartLine = 5,
};

// What code in a mapping of this name is, when the mapping covers it. pprof has no field for it,
// so the name carries it.
LocationKind KindOfMapping(std::string_view file, std::string_view build_id);

}  // namespace firewatch::profile
