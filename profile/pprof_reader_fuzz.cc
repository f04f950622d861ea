// SPDX-License-Identifier: Apache-2.0
// What is read must be written, and read again the same; everything that draws a profile must
// take it.
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "profile/flame_codec.h"
#include "profile/flame_tree.h"
#include "profile/folded_codec.h"
#include "profile/merge.h"
#include "profile/pprof_codec.h"
#include "profile/saturating.h"

namespace firewatch::profile {
namespace {

std::vector<int64_t> Totals(const Profile& profile) {
  std::vector<int64_t> totals(profile.sample_types.size(), 0);
  for (const Sample& sample : profile.samples) {
    for (size_t i = 0; i < totals.size(); ++i) {
      totals[i] = SaturatingAdd(totals[i], sample.values[i]);
    }
  }
  return totals;
}

void RoundTrip(std::string_view bytes) {
  const PprofReadLimits limits{.max_decompressed_bytes = size_t{4} << 20,
                               .max_samples = 10'000,
                               .max_stack_depth = 4096,
                               .max_table_rows = 100'000,
                               .max_frames = 100'000,
                               .max_label_bytes = size_t{1} << 20};
  const auto profile = ReadPprof(bytes, limits);
  if (!profile.ok()) return;
  const auto written = WritePprof(*profile, Compression::kNone);
  CHECK(written.ok());
  // Numeric labels have become strings, so the second reading may meet a limit the first did not.
  const auto again = ReadPprof(*written);
  CHECK(again.ok());
  CHECK(Totals(*again) == Totals(*profile));
  CHECK(again->samples.size() == profile->samples.size());
  CHECK(WritePprof(*again, Compression::kNone).ok());

  ProfileMerger merger;
  CHECK(merger.Add(*profile).ok());
  CHECK(merger.Add(*again).ok());
  const Profile merged = merger.Finish();
  const FlameTree tree = BuildFlameTree(merged, {.max_nodes = 1000});
  CHECK(!EncodeFlameTree(tree).empty());
  TopFunctions(merged, 0, 10);
  CHECK(WriteFolded(merged, 0, 4096).size() <= 4096 + 64);
}

}  // namespace
}  // namespace firewatch::profile

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  firewatch::profile::RoundTrip({reinterpret_cast<const char*>(data), size});
  return 0;
}
