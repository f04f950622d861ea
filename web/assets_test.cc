// SPDX-License-Identifier: Apache-2.0
#include "web/assets.h"

#include <algorithm>
#include <string>

#include "gtest/gtest.h"

namespace firewatch::web {
namespace {

std::string_view Text(const Asset& asset) {
  return {reinterpret_cast<const char*>(asset.bytes.data()), asset.bytes.size()};
}

const Asset* Find(std::string_view path) {
  for (const Asset& asset : Assets()) {
    if (asset.path == path) return &asset;
  }
  return nullptr;
}

TEST(WebAssetsTest, IndexIsThereAndMayNotBeCachedForEver) {
  const Asset* index = Find("/index.html");
  ASSERT_NE(index, nullptr);
  EXPECT_FALSE(index->immutable);
  EXPECT_EQ(index->content_type, "text/html; charset=utf-8");
  EXPECT_TRUE(Text(*index).starts_with("<!doctype html>"));
}

TEST(WebAssetsTest, TableIsSortedByPathWithoutDoubles) {
  EXPECT_TRUE(std::is_sorted(Assets().begin(), Assets().end(),
                             [](const Asset& a, const Asset& b) { return a.path < b.path; }));
  for (size_t i = 1; i < Assets().size(); ++i) EXPECT_NE(Assets()[i - 1].path, Assets()[i].path);
}

// The content security policy is default-src 'self': every script, style and icon is a file of
// ours.
TEST(WebAssetsTest, IndexNamesOnlyFilesOfTheTable) {
  std::string_view index = Text(*Find("/index.html"));
  int references = 0;
  for (std::string_view attribute : {"src=\"", "href=\""}) {
    for (size_t at = index.find(attribute); at != index.npos; at = index.find(attribute, at + 1)) {
      size_t begin = at + attribute.size();
      std::string target(index.substr(begin, index.find('"', begin) - begin));
      ASSERT_TRUE(target.starts_with("./")) << target;
      EXPECT_NE(Find(target.substr(1)), nullptr) << target;
      ++references;
    }
  }
  EXPECT_GE(references, 2);
  EXPECT_EQ(index.find("<style"), index.npos);
  EXPECT_EQ(index.find(" style="), index.npos);
}

TEST(WebAssetsTest, ScriptsAreImmutableAndCompressed) {
  int scripts = 0;
  for (const Asset& asset : Assets()) {
    if (!asset.path.ends_with(".js")) continue;
    ++scripts;
    EXPECT_TRUE(asset.immutable) << asset.path;
    ASSERT_GT(asset.gzip_bytes.size(), 2u);
    EXPECT_EQ(asset.gzip_bytes[0], 0x1f);
    EXPECT_EQ(asset.gzip_bytes[1], 0x8b);
    EXPECT_LT(asset.gzip_bytes.size(), asset.bytes.size());
  }
  EXPECT_GE(scripts, 1);
}

}  // namespace
}  // namespace firewatch::web
