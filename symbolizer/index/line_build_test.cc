// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/index/line_build.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <new>
#include <string_view>
#include <thread>

#include "base/status.h"
#include "symbolizer/dwarf/dwarf_builder_for_test.h"
#include "symbolizer/dwarf/names_for_test.h"

namespace firewatch::symbolizer {
namespace {

using dwarf::SectionBytes;

// So many small units that each thread reads some, each with a function of its own and, every
// other, a copy of the function of the first.
class ManyUnits {
 public:
  static constexpr uint64_t kUnits = 400;

  ManyUnits() {
    using namespace dwarf;
    abbreviations_.Bytes(Abbreviated(1, kTagCompileUnit, true, {{kAtCompDir, kFormString}}))
        .Bytes(
            Abbreviated(2, kTagSubprogram, false,
                        {{kAtName, kFormString}, {kAtLowPc, kFormAddr}, {kAtHighPc, kFormData4}}))
        .Uleb(0);
    for (uint64_t i = 0; i < kUnits; ++i) {
      SectionBytes entries;
      entries.Uleb(1).Text("/c");
      entries.Uleb(2).Text("f" + std::to_string(i)).U64(0x1000 + 0x40 * i).U32(0x20);
      if (i % 2 == 0) entries.Uleb(2).Text("shared").U64(0x100).U32(0x20);
      info_.Bytes(UnitOf(4, 0, entries.U8(0)));
    }
    input_.main.info = info_.bytes();
    input_.main.abbrev = abbreviations_.bytes();
  }
  const DwarfInput& input() const { return input_; }

 private:
  SectionBytes info_;
  SectionBytes abbreviations_;
  DwarfInput input_;
};

// Has no memory for names that another thread than the one that made it asks for.
class PoorNames final : public NameInterner {
 public:
  uint32_t Intern(std::string_view name) override {
    ThrowIfOther();
    return names_.Intern(name);
  }
  uint32_t InternCopy(std::string_view name) override {
    ThrowIfOther();
    return names_.InternCopy(name);
  }
  bool thrown() const { return thrown_; }

 private:
  void ThrowIfOther() {
    if (std::this_thread::get_id() == owner_) return;
    thrown_ = true;
    throw std::bad_alloc();
  }
  NamesForTest names_;
  const std::thread::id owner_ = std::this_thread::get_id();
  std::atomic<bool> thrown_ = false;
};

TEST(LineBuildTest, AnyNumberOfThreadsWritesTheSame) {
  const ManyUnits units;
  NamesForTest names;
  VectorSink alone;
  const auto stats = BuildLines(units.input(), {}, names, alone);
  ASSERT_TRUE(stats.ok()) << base::ToString(stats.status());
  EXPECT_EQ(stats->units, ManyUnits::kUnits);
  EXPECT_EQ(stats->overlaps, ManyUnits::kUnits / 2 - 1);
  for (const int threads : {2, 3, 8}) {
    NamesForTest others;
    VectorSink together;
    const auto same = BuildLines(units.input(), {.threads = threads}, others, together);
    ASSERT_TRUE(same.ok()) << base::ToString(same.status());
    EXPECT_EQ(same->overlaps, stats->overlaps);
    EXPECT_TRUE(alone.bytes() == together.bytes()) << threads;
    EXPECT_EQ(names.size(), others.size());
  }
}

TEST(LineBuildTest, MemoryThatEndsInAnotherThreadIsAnErrorToo) {
  const ManyUnits units;
  // Which thread adds a unit is not known beforehand.
  constexpr int kTries = 1000;
  for (int i = 0; i < kTries; ++i) {
    PoorNames names;
    VectorSink sink;
    const auto stats = BuildLines(units.input(), {.threads = 8}, names, sink);
    EXPECT_EQ(stats.ok(), !names.thrown());
    if (stats.ok()) continue;
    EXPECT_EQ(stats.status().code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(base::Message(stats.status()), testing::HasSubstr("memory"));
    return;
  }
  FAIL() << "no other thread has added a unit in " << kTries << " builds";
}

}  // namespace
}  // namespace firewatch::symbolizer
