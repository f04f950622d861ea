// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/index/index_cache.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <deque>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "base/status.h"
#include "symbolizer/index/index_writer.h"

namespace firewatch::symbolizer {
namespace {

class IndexCacheTest : public testing::Test {
 protected:
  void TearDown() override { std::filesystem::remove_all(directory_); }

  static std::string MakeDirectory() {
    std::string path = "/tmp/index_cache_test-XXXXXX";
    return ::mkdtemp(path.data()) == nullptr ? "" : path;
  }
  std::unique_ptr<IndexCache> Open(uint64_t max_bytes = uint64_t{1} << 30) const {
    auto cache = IndexCache::Open(directory_ + "/a/b", max_bytes);
    EXPECT_TRUE(cache.ok()) << cache.status();
    return cache.ok() ? *std::move(cache) : nullptr;
  }
  std::string PathOf(const std::string& key) const { return directory_ + "/a/b/" + key + ".fwsym"; }

  // An index of one function "function", and of others so that it takes about `bytes`.
  static absl::Status Add(IndexCache& cache, const std::string& key, size_t bytes = 0) {
    IndexSource source;
    source.id = kId;
    source.symbols = {{.start = 1, .end = 2, .name = "function"}};
    // Names that hardly compress: 6 bits in every byte.
    std::mt19937 random(1);
    std::deque<std::string> names;
    for (size_t done = 0; done < bytes; done += 750) {
      std::string& name = names.emplace_back(1000, ' ');
      for (char& c : name) c = static_cast<char>('?' + random() % 64);
      const uint64_t start = 16 * names.size();
      source.symbols.push_back({.start = start, .end = start + 1, .name = name});
    }
    ASSIGN_OR_RETURN(const base::UniqueFd scratch, cache.NewScratch());
    RETURN_IF_ERROR(WriteSymbolIndex(std::move(source), scratch.get()).status());
    return cache.Adopt(key, kId, scratch.get()).status();
  }

  static constexpr BuildId kId = {.bytes = {1}, .size = 1};
  const std::string directory_ = MakeDirectory();
};

TEST_F(IndexCacheTest, AdoptedIndexIsFoundAlsoAfterReopening) {
  ASSERT_TRUE(Add(*Open(), "01").ok());
  auto found = Open()->Find("01");
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->index.LinkageName(found->index.SymbolAt(1)->name), "function");
  EXPECT_EQ(Open()->Find("02").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(IndexCacheTest, FilesArePrivate) {
  ASSERT_TRUE(Add(*Open(), "01").ok());
  struct stat info{};
  ASSERT_EQ(::stat(PathOf("01").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
  ASSERT_EQ(::stat((directory_ + "/a/b").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700U);
}

TEST_F(IndexCacheTest, CorruptFileIsCountedRemovedAndNotFound) {
  auto cache = Open();
  ASSERT_TRUE(Add(*cache, "01").ok());
  std::fstream(PathOf("01"), std::ios::in | std::ios::out).seekp(110).write("XX", 2);
  EXPECT_EQ(cache->Find("01").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(cache->corrupt_files(), 1U);
  EXPECT_FALSE(std::filesystem::exists(PathOf("01")));
  EXPECT_TRUE(Add(*cache, "01").ok()) << "built again";
  EXPECT_TRUE(cache->Find("01").ok());
}

TEST_F(IndexCacheTest, GarbageAndForeignIdsAreNotAdopted) {
  auto cache = Open();
  auto scratch = cache->NewScratch();
  ASSERT_TRUE(scratch.ok());
  ASSERT_EQ(::write(scratch->get(), "garbage", 7), 7);
  EXPECT_EQ(cache->Adopt("01", kId, scratch->get()).status().code(), absl::StatusCode::kDataLoss);

  IndexSource other;
  other.id = {.bytes = {2}, .size = 1};
  auto good = cache->NewScratch();
  ASSERT_TRUE(good.ok());
  ASSERT_TRUE(WriteSymbolIndex(other, good->get()).ok());
  EXPECT_EQ(cache->Adopt("01", kId, good->get()).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE(std::filesystem::is_empty(directory_ + "/a/b")) << "nothing is left behind";
}

// The helper keeps its descriptor of the scratch file: what it does with it later must not reach
// the mapped index (a truncated mapping raises SIGBUS).
TEST_F(IndexCacheTest, WriterCannotChangeOrTruncateAnAdoptedIndex) {
  auto cache = Open();
  IndexSource source;
  source.id = kId;
  source.symbols = {{.start = 1, .end = 2, .name = "f"}};
  auto scratch = cache->NewScratch();
  ASSERT_TRUE(scratch.ok());
  ASSERT_TRUE(WriteSymbolIndex(std::move(source), scratch->get()).ok());
  auto mapped = cache->Adopt("01", kId, scratch->get());
  ASSERT_TRUE(mapped.ok());
  ASSERT_EQ(::ftruncate(scratch->get(), 0), 0);
  EXPECT_EQ(mapped->index.LinkageName(mapped->index.SymbolAt(1)->name), "f");
}

TEST_F(IndexCacheTest, LeastRecentlyUsedGoesFirst) {
  auto cache = Open(400 * 1024);
  for (const char* key : {"01", "02", "03"}) ASSERT_TRUE(Add(*cache, key, 110'000).ok());
  // Ages in the order 02, 01, 03; then 01 is used.
  const auto age = [&](const char* key, time_t seconds) {
    const timespec then = {.tv_sec = ::time(nullptr) - seconds, .tv_nsec = 0};
    const timespec times[2] = {then, then};
    ASSERT_EQ(::utimensat(AT_FDCWD, PathOf(key).c_str(), times, 0), 0);
  };
  age("02", 200);
  age("01", 300);
  age("03", 100);
  ASSERT_TRUE(cache->Find("01").ok());
  ASSERT_TRUE(Add(*cache, "04", 110'000).ok());
  EXPECT_FALSE(std::filesystem::exists(PathOf("02")));
  EXPECT_TRUE(std::filesystem::exists(PathOf("01")));
  EXPECT_TRUE(std::filesystem::exists(PathOf("03")));
  EXPECT_TRUE(std::filesystem::exists(PathOf("04")));
  EXPECT_LE(cache->total_bytes(), 400U * 1024);
  EXPECT_EQ(cache->evicted_files(), 1U);
}

TEST_F(IndexCacheTest, TemporaryDirectoryIsRemovedAtTheEnd) {
  ASSERT_EQ(::setenv("TMPDIR", directory_.c_str(), 1), 0);
  auto cache = IndexCache::Open("", 1 << 20);
  ::unsetenv("TMPDIR");
  ASSERT_TRUE(cache.ok()) << cache.status();
  ASSERT_TRUE(Add(**cache, "01").ok());
  EXPECT_FALSE(std::filesystem::is_empty(directory_));
  cache->reset();
  EXPECT_TRUE(std::filesystem::is_empty(directory_));
}

TEST_F(IndexCacheTest, DirectoryThatCannotBeMadeIsAnErrorThatNamesIt) {
  std::ofstream(directory_ + "/file") << "x";
  const auto cache = IndexCache::Open(directory_ + "/file/cache", 1 << 20);
  ASSERT_FALSE(cache.ok());
  EXPECT_NE(base::Message(cache.status()).find(directory_ + "/file/cache"), std::string::npos);
}

}  // namespace
}  // namespace firewatch::symbolizer
