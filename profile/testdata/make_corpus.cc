// SPDX-License-Identifier: Apache-2.0
// Writes the committed seeds of the fuzz targets:
//   build/asan/bin/profile_make_corpus profile/testdata
#include <filesystem>
#include <fstream>
#include <random>
#include <string_view>

#include "base/check.h"
#include "profile/pprof_codec.h"
#include "profile/test_profiles.h"

namespace firewatch::profile {
namespace {

void WriteSeed(const std::filesystem::path& path, std::string_view bytes) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream file(path, std::ios::binary);
  file << bytes;
  CHECK(file.good());
}

void WriteProfiles(const std::filesystem::path& folder) {
  const Profile small = SmallTestProfile();
  WriteSeed(folder / "small.pb", WritePprof(small, Compression::kNone).value());
  WriteSeed(folder / "small.pb.gz", WritePprof(small, Compression::kGzip).value());
  WriteSeed(folder / "small.pb.zst", WritePprof(small, Compression::kZstd).value());
  std::mt19937 random(1);
  WriteSeed(folder / "random.pb",
            WritePprof(RandomTestProfile(random), Compression::kNone).value());
  // Unpacked ids and values, a numeric label with a unit, a mapping that does not start at 0.
  static constexpr char kForeignBytes[] =
      "\x0a\x04\x08\x01\x10\x02"                                  // sample type
      "\x12\x0c\x08\x01\x08\x05\x10\x03\x1a\x04\x08\x03\x18\x07"  // sample
      "\x1a\x0c\x08\x01\x10\x80\x80\x04\x18\x80\x80\x08\x28\x04"  // mapping
      "\x22\x0c\x08\x01\x10\x01\x18\x90\x80\x04\x22\x02\x08\x09"  // location 1
      "\x22\x02\x08\x05"                                          // location 5
      "\x2a\x06\x08\x09\x10\x05\x28\x03"                          // function 9
      "\x32\x00"
      "\x32\x03"
      "cpu"
      "\x32\x02"
      "ns"
      "\x32\x05"
      "bytes"
      "\x32\x06"
      "/bin/a"
      "\x32\x01"
      "f";
  constexpr std::string_view kForeign(kForeignBytes, sizeof(kForeignBytes) - 1);
  WriteSeed(folder / "foreign.pb", kForeign);
  CHECK(ReadPprof(kForeign).ok());
}

void WriteSelectors(const std::filesystem::path& folder) {
  WriteSeed(folder / "all_operators", R"({service="x", node!="y", exe=~"a.*", comm!~"b|c"})");
  WriteSeed(folder / "escapes", R"({a="\"\\\n\x41\u20ac\U0001F525",'b-c'='d',e=`\f`,})");
  WriteSeed(folder / "empty", "{}");
  WriteSeed(folder / "open_quote", "{service_name=\"x");
  WriteSeed(folder / "label_set", "L" + LabelSet({{"comm", "x"}, {"service", "a\"b"}}).Encode());
}

}  // namespace
}  // namespace firewatch::profile

int main(int argc, char** argv) {
  CHECK(argc == 2);
  firewatch::profile::WriteProfiles(std::filesystem::path(argv[1]) / "pprof");
  firewatch::profile::WriteSelectors(std::filesystem::path(argv[1]) / "selector");
  return 0;
}
