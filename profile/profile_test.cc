// SPDX-License-Identifier: Apache-2.0
#include "profile/profile.h"

#include <gtest/gtest.h>

#include "profile/builder.h"

namespace firewatch::profile {
namespace {

class IdentityTest : public testing::Test {
 protected:
  Location Native(std::string_view file, std::string_view build_id, uint64_t address,
                  std::vector<std::string> names = {}) {
    Location location{.mapping = builder_.AddMapping({.file = builder_.AddString(file),
                                                      .build_id = builder_.AddString(build_id)}),
                      .address = address,
                      .kind = LocationKind::kNative};
    for (const std::string& name : names) {
      location.lines.push_back({.function = builder_.AddFunction(name, name, "x.c"), .line = 1});
    }
    return location;
  }
  base::Hash128 Of(const Location& location) { return IdentityOf(builder_.profile(), location); }

  ProfileBuilder builder_{std::vector<ValueType>{{"samples", "count"}}};
};

// Stores keep identities: these bytes (docs/formats.md) may never change silently.
TEST_F(IdentityTest, IsTheDocumentedHash) {
  const std::string by_build_id =
      std::string("\x01\x01\x04", 3) + "abcd" + std::string("\x34\x12\x00\x00\x00\x00\x00\x00", 8);
  EXPECT_EQ(Of(Native("/bin/a", "abcd", 0x1234)), base::HashBytes128(by_build_id));
  const std::string by_path = std::string("\x02\x01\x06", 3) + "/bin/a" +
                              std::string("\x34\x12\x00\x00\x00\x00\x00\x00", 8);
  EXPECT_EQ(Of(Native("/bin/a", "", 0x1234)), base::HashBytes128(by_path));
  const std::string chain = std::string("\x04\x06") + "/bin/a" +
                            "\x01"
                            "f"
                            "\x01"
                            "f"
                            "\x03"
                            "x.c" +
                            std::string("\x00\x01\x00", 3);
  EXPECT_EQ(Of(Native("/bin/a", "", 0x1234, {"f"})), base::HashBytes128(chain));
  Location kernel = Native("[kernel]", "", 0xffff, {"f"});
  kernel.kind = LocationKind::kKernel;
  EXPECT_EQ(Of(kernel), base::HashBytes128(std::string("\x03\x08") + "[kernel]" +
                                           "\x01"
                                           "f"));
  Location address = Native("[anon]", "", 0x10);
  address.kind = LocationKind::kJit;
  EXPECT_EQ(Of(address), base::HashBytes128(std::string("\x05\x06") + "[anon]" +
                                            std::string("\x10\0\0\0\0\0\0\0", 8)));
}

TEST_F(IdentityTest, NamesPlayNoPartWhenTheBuildIdIsKnown) {
  EXPECT_EQ(Of(Native("/bin/a", "abcd", 1)), Of(Native("/other/path", "abcd", 1, {"f", "g"})));
  EXPECT_NE(Of(Native("/bin/a", "abcd", 1)), Of(Native("/bin/a", "abcd", 2)));
  EXPECT_NE(Of(Native("/bin/a", "abcd", 1)), Of(Native("/bin/a", "abce", 1)));
}

TEST_F(IdentityTest, LongChainsAreHashedWhole) {
  std::vector<std::string> names(40, std::string(100, 'n'));
  const base::Hash128 before = Of(Native("/bin/a", "", 1, names));
  EXPECT_EQ(before, Of(Native("/bin/a", "", 2, names)));
  names.back().back() = 'm';
  EXPECT_NE(before, Of(Native("/bin/a", "", 1, names)));
}

TEST_F(IdentityTest, StackIsTheHashOfItsLocationsInOrder) {
  const base::Hash128 a = Of(Native("/bin/a", "abcd", 1));
  const base::Hash128 b = Of(Native("/bin/a", "abcd", 2));
  const base::Hash128 ab[] = {a, b};
  const base::Hash128 ba[] = {b, a};
  EXPECT_NE(IdentityOf(ab), IdentityOf(ba));
  EXPECT_NE(IdentityOf(ab), IdentityOf(std::span(ab, 1)));
}

TEST(ProfileTest, FindsSampleTypesByName) {
  const Profile profile = ProfileBuilder({{"samples", "count"}, {"cpu", "nanoseconds"}}).Finish();
  EXPECT_EQ(profile.FindSampleType("cpu"), 1);
  EXPECT_EQ(profile.FindSampleType("nanoseconds"), -1);
}

}  // namespace
}  // namespace firewatch::profile
