// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/window.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "agent/core/losses.h"
#include "agent/cpu/collector.h"
#include "agent/cpu/fake_table_memory.h"
#include "profile/flame_tree.h"
#include "profile/folded_codec.h"
#include "symbolizer/testing/fake_symbolizer.h"

namespace firewatch::agent {
namespace {

using symbolizer::FakeSymbolizer;
using testing::ElementsAre;
using testing::Pair;

constexpr uint64_t kText = 0x400000;

class WindowTest : public testing::Test {
 protected:
  WindowTest() {
    names_.AddSymbol("/bin/app", 0x1000, 0x1010, "leaf");
    names_.AddSymbol("/bin/app", 0x1010, 0x1020, "caller");
    names_.AddSymbol("/bin/app", 0x1020, 0x1030, "main");
    names_.AddKernelSymbol(0xffffffff81000100, 0xffffffff81000200, "vfs_read");
    names_.AddKernelSymbol(0xffffffffc0000100, 0xffffffffc0000200, "ext4_read", "ext4");
  }

  // One executable mapping: addresses 0x400000… are file offsets 0x1000….
  Process MakeProcess(uint32_t pid, const std::string& path, const std::string& service) {
    symbolizer::FileIdentity identity;
    identity.path = path;
    MappingSet none;
    Process process;
    process.pid = Pid{pid};
    process.incarnation = pid;
    process.comm = "app";
    process.mappings = none.With({.start = kText,
                                  .end = kText + 0x1000,
                                  .file_offset = 0x1000,
                                  .file = names_.Intern(identity)});
    process.labels = std::make_shared<profile::LabelSet>(
        std::vector<std::pair<std::string, std::string>>{{"service", service}});
    return process;
  }

  void Add(Window& window, const Process& process, std::vector<fw_u64> user,
           std::vector<fw_u64> kernel = {}, std::string_view thread = "app") {
    SampleRecord sample;
    sample.pid = process.pid;
    sample.comm = thread;
    sample.user_frames = user;
    sample.kernel_frames = kernel;
    sample.stack_end = FW_STACK_END_FRAME_POINTER;
    window.Add(sample, process);
  }

  static std::map<std::string, std::string> Folded(const ClosedWindow& closed) {
    std::map<std::string, std::string> out;
    for (const WindowGroup& group : closed.groups) {
      out[std::string(group.labels.Get("service"))] = profile::WriteFolded(group.profile, 0);
    }
    return out;
  }

  FakeSymbolizer names_;
};

TEST_F(WindowTest, AddsEqualStacksAndKeepsUserFramesAsTheKernelSideWroteThem) {
  Window window({.hz = 100}, names_);
  const Process process = MakeProcess(1, "/bin/app", "a");
  // 0x40001f is the last byte of caller: the call before main's first byte.
  Add(window, process, {kText + 0x8, kText + 0x1f, kText + 0x27});
  Add(window, process, {kText + 0x8, kText + 0x1f, kText + 0x27});
  const ClosedWindow closed = window.Close({0}, {10'000'000'000});
  EXPECT_THAT(Folded(closed), ElementsAre(Pair("a", "main;caller;leaf 2\n")));
  const profile::Profile& out = closed.groups[0].profile;
  ASSERT_EQ(out.samples.size(), 1u);
  EXPECT_THAT(out.samples[0].values, ElementsAre(2, 20'000'000));
  EXPECT_EQ(out.period, 10'000'000);
  EXPECT_EQ(out.duration_ns, 10'000'000'000);
  EXPECT_THAT(closed.stack_ends, ElementsAre(Pair("frame_pointer_end", 2u)));
  EXPECT_THAT(names_.requested, ElementsAre("/bin/app"));
}

TEST_F(WindowTest, AFileFrameIsTheSameLocationAsItsAddress) {
  Window window({.hz = 100}, names_);
  const Process process = MakeProcess(1, "/bin/app", "a");
  const auto file = static_cast<fw_u64>(process.mappings->all()[0].file);
  const auto frame = [file](fw_u64 offset) {
    return FW_FRAME_FILE << FW_FRAME_KIND_SHIFT | file << FW_FRAME_FILE_OFFSET_BITS | offset;
  };
  Add(window, process, {kText + 0x8, kText + 0x1f, kText + 0x27});
  Add(window, process, {frame(0x1008), frame(0x101f), frame(0x1027)});
  const ClosedWindow closed = window.Close({0}, {1});
  EXPECT_THAT(Folded(closed), ElementsAre(Pair("a", "main;caller;leaf 2\n")));
  EXPECT_EQ(closed.groups[0].profile.locations.size(), 3u);
}

TEST_F(WindowTest, AsksForTheNamesOfFileFrames) {
  Window window({.hz = 100}, names_);
  const Process process = MakeProcess(1, "/bin/app", "a");
  const auto file = static_cast<fw_u64>(process.mappings->all()[0].file);
  Add(window, process,
      {FW_FRAME_FILE << FW_FRAME_KIND_SHIFT | file << FW_FRAME_FILE_OFFSET_BITS | 0x1008});
  EXPECT_THAT(names_.requested, ElementsAre("/bin/app"));
}

TEST_F(WindowTest, TellsTheFilesOfItsFramesUntilItIsClosed) {
  Window window({.hz = 100}, names_);
  const Process process = MakeProcess(1, "/bin/app", "a");
  MakeProcess(2, "/bin/other", "a");
  // As the kernel side says it: the process may have unmapped the file meanwhile.
  Add(window, process,
      {FW_FRAME_FILE << FW_FRAME_KIND_SHIFT | fw_u64{1} << FW_FRAME_FILE_OFFSET_BITS | 0x1008});
  symbolizer::FileSet kept;
  window.AddFiles(&kept);
  EXPECT_TRUE(kept.contains(process.mappings->all()[0].file));
  EXPECT_TRUE(kept.contains(symbolizer::FileId{1}));
  (void)window.Close({0}, {1});
  kept = {};
  window.AddFiles(&kept);
  EXPECT_FALSE(kept.contains(process.mappings->all()[0].file));
  EXPECT_FALSE(kept.contains(symbolizer::FileId{1}));
}

TEST_F(WindowTest, FileIdsOfAnotherRunAreNotLookedUp) {
  Window window({.hz = 100, .file_frames = false}, names_);
  Add(window, MakeProcess(1, "/bin/app", "a"),
      {FW_FRAME_FILE << FW_FRAME_KIND_SHIFT | fw_u64{77} << FW_FRAME_FILE_OFFSET_BITS | 0x1008});
  EXPECT_THAT(Folded(window.Close({0}, {1})), ElementsAre(Pair("a", "[unknown]+0x1008 1\n")));
}

TEST_F(WindowTest, CountsHowStacksEndedByProgram) {
  Window window({.hz = 100}, names_);
  Process process = MakeProcess(1, "/bin/app", "a");
  process.exe_path = "/usr/bin/web";
  Add(window, process, {kText + 0x8});
  process.incarnation = 2;
  Add(window, process, {kText + 0x8});
  process.incarnation = 3;
  process.exe_path = "";
  Add(window, process, {kText + 0x8});
  std::map<std::string, uint64_t> by_program;
  for (const ProgramStackEnds& ends : window.Close({0}, {1}).program_ends) {
    by_program[ends.program] = ends.counts[FW_STACK_END_FRAME_POINTER];
  }
  EXPECT_THAT(by_program, ElementsAre(Pair("app", 1), Pair("web", 2)));
}

TEST_F(WindowTest, PutsKernelFramesAboveUserFramesWithTheirModule) {
  Window window({.hz = 100}, names_);
  Add(window, MakeProcess(1, "/bin/app", "a"), {kText + 0x28},
      {0xffffffffc0000104, 0xffffffff81000105});
  const ClosedWindow closed = window.Close({0}, {1});
  EXPECT_THAT(Folded(closed), ElementsAre(Pair("a", "main;vfs_read;ext4_read 1\n")));
}

TEST_F(WindowTest, KeepsUnknownAddressesVisible) {
  Window window({.hz = 100}, names_);
  Add(window, MakeProcess(1, "/bin/app", "a"), {kText + 0x500, 0x7f0000001234});
  const ClosedWindow closed = window.Close({0}, {1});
  EXPECT_THAT(Folded(closed), ElementsAre(Pair("a", "[unknown]+0x7f0000001234;app+0x1500 1\n")));
}

TEST_F(WindowTest, ALocationHasItsWholeInlineChainWithLines) {
  names_.AddSymbol("/bin/lib", 0x1000, 0x1010, "outer", "/src/a.cc", 10);
  names_.AddSymbol("/bin/lib", 0x1004, 0x1008, "inlined", "/src/b.h", 20);
  Window window({.hz = 100}, names_);
  Add(window, MakeProcess(1, "/bin/lib", "a"), {kText + 0x5});
  const ClosedWindow closed = window.Close({0}, {1});
  EXPECT_THAT(Folded(closed), ElementsAre(Pair("a", "outer;inlined 1\n")));
  const profile::Profile& out = closed.groups[0].profile;
  ASSERT_EQ(out.locations.size(), 1u);
  const auto& lines = out.locations[0].lines;
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0].line, 20);
  EXPECT_EQ(out.String(out.functions[lines[0].function.index()].file), "/src/b.h");
  EXPECT_EQ(out.functions[lines[0].function.index()].start_line, 19);
  EXPECT_EQ(lines[1].line, 10);
  const profile::Mapping& mapping = out.mappings[out.locations[0].mapping.index()];
  EXPECT_TRUE(mapping.has_filenames && mapping.has_line_numbers && mapping.has_inline_frames);
  EXPECT_TRUE(closed.binaries.empty());
}

TEST_F(WindowTest, BetterNamesLeaveTheIdentityOfAStackAsItIs) {
  symbolizer::FileIdentity identity;
  identity.path = "/bin/lib";
  identity.build_id = symbolizer::BuildId::FromHex("00112233445566778899aabbccddeeff00112233");
  const Process base = MakeProcess(1, "/bin/lib", "a");
  Process process = base;
  process.mappings = MappingSet().With({.start = kText,
                                        .end = kText + 0x1000,
                                        .file_offset = 0x1000,
                                        .file = names_.Intern(identity)});
  std::vector<base::Hash128> identities;
  for (int round = 0; round < 3; ++round) {
    if (round == 1) names_.AddSymbol("/bin/lib", 0x1000, 0x1010, "outer", "/src/a.cc", 10);
    if (round == 2) names_.AddSymbol("/bin/lib", 0x1004, 0x1008, "inlined", "/src/b.h", 20);
    Window window({.hz = 100}, names_);
    Add(window, process, {kText + 0x5});
    const ClosedWindow closed = window.Close({0}, {1});
    const profile::Profile& out = closed.groups[0].profile;
    EXPECT_EQ(out.locations[0].lines.size(), static_cast<size_t>(round));
    identities.push_back(profile::IdentityOf(out, out.locations[0]));
  }
  EXPECT_EQ(identities[0], identities[1]);
  EXPECT_EQ(identities[0], identities[2]);
}

TEST_F(WindowTest, JitCodeIsNamedByItsProcess) {
  Window window({.hz = 100}, names_);
  Process first = MakeProcess(1, "/bin/app", "a");
  const ProcessMapping code = {.start = 0x7f0000,
                               .end = 0x7f1000,
                               .file = names_.Intern({.path = "//anon", .build_id = {}}),
                               .anonymous = true};
  first.mappings = first.mappings->With(code)->With(
      {.start = 0x7f2000,
       .end = 0x7f3000,
       .file = names_.Intern({.path = "/tmp/jit-1.dump", .build_id = {}})});
  Process second = MakeProcess(2, "/bin/app", "a");
  second.mappings = second.mappings->With(code);
  names_.jit_names[{1, 0x7f0010}] = "JS:*fib";
  names_.jit_names[{2, 0x7f0010}] = "JS:*sort";
  for (int i = 0; i < 2; ++i) Add(window, first, {0x7f0010, kText + 0x1f});
  Add(window, second, {0x7f0010, kText + 0x1f});
  Add(window, second, {0x7f0020, kText + 0x1f});
  const ClosedWindow closed = window.Close({0}, {1});
  EXPECT_THAT(Folded(closed), ElementsAre(Pair("a",
                                               "caller;JS:*fib 2\ncaller;JS:*sort 1\n"
                                               "caller;[anon]+0x7f0020 1\n")));
  EXPECT_THAT(names_.jit_requested, ElementsAre(1, 2));
  ASSERT_TRUE(names_.jit_markers[1].has_value());
  EXPECT_EQ(names_.jit_markers[1]->map_start, 0x7f2000u);
  EXPECT_FALSE(names_.jit_markers[2].has_value());
  EXPECT_THAT(closed.bare_frames, ElementsAre(Pair(symbolizer::NameReason::kAnonymousMemory, 1u)));
}

TEST_F(WindowTest, ReportsWhatFramesLackByFileAndReason) {
  names_.AddSymbol("/bin/lib", 0x1000, 0x1010, "f", "/src/a.cc", 10);
  Window window({.hz = 100}, names_);
  const Process app = MakeProcess(1, "/bin/app", "a");
  for (int i = 0; i < 3; ++i) Add(window, app, {kText + 0x500, kText + 0x8});
  Add(window, app, {0x7f0000001234});
  Add(window, MakeProcess(2, "/bin/lib", "b"), {kText + 0x8});
  Add(window, app, {kText + 0x8}, {0xffffffff90000000});
  const ClosedWindow closed = window.Close({0}, {1});
  ASSERT_EQ(closed.binaries.size(), 1u);
  EXPECT_EQ(closed.binaries[0].path, "/bin/app");
  EXPECT_EQ(closed.binaries[0].no_names, symbolizer::NameReason::kNoSymbols);
  EXPECT_EQ(closed.binaries[0].bare_frames, 3u);
  EXPECT_EQ(closed.binaries[0].no_lines, symbolizer::NameReason::kNoDebugInfo);
  EXPECT_EQ(closed.binaries[0].frames_without_line, 4u);
  ASSERT_EQ(closed.binaries[0].segments.size(), 1u);
  EXPECT_EQ(closed.binaries[0].segments[0].vaddr, 0x2000u);
  EXPECT_EQ(names_.used["/bin/app"], 7u);
  EXPECT_EQ(names_.used["/bin/lib"], 1u);
  EXPECT_THAT(closed.bare_frames, ElementsAre(Pair(symbolizer::NameReason::kNoSymbols, 4u),
                                              Pair(symbolizer::NameReason::kUnknownMemory, 1u)));
}

TEST_F(WindowTest, MakesOneProfilePerLabelSet) {
  Window window({.hz = 100}, names_);
  Add(window, MakeProcess(1, "/bin/app", "a"), {kText + 0x8});
  Add(window, MakeProcess(2, "/bin/app", "a"), {kText + 0x8});
  Add(window, MakeProcess(3, "/bin/app", "b"), {kText + 0x28});
  EXPECT_THAT(Folded(window.Close({0}, {1})),
              ElementsAre(Pair("a", "leaf 2\n"), Pair("b", "main 1\n")));
}

TEST_F(WindowTest, TellsThreadsApart) {
  Window window({.hz = 100}, names_);
  const Process process = MakeProcess(1, "/bin/app", "a");
  Add(window, process, {kText + 0x8}, {}, "worker");
  Add(window, process, {kText + 0x8}, {}, "io");
  const ClosedWindow closed = window.Close({0}, {1});
  std::map<std::string, int64_t> by_thread;
  for (const profile::Sample& sample : closed.groups[0].profile.samples) {
    by_thread[std::string(closed.groups[0].profile.label_sets[sample.labels.index()].Get(
        "thread"))] = sample.values[0];
  }
  EXPECT_THAT(by_thread, ElementsAre(Pair("io", 1), Pair("worker", 1)));
}

TEST_F(WindowTest, ResolvesAnAddressInTheMappingsOfItsMoment) {
  names_.AddSymbol("/bin/other", 0x1000, 0x1010, "other");
  Window window({.hz = 100}, names_);
  Process process = MakeProcess(1, "/bin/app", "a");
  Add(window, process, {kText + 0x8});
  // The same address now belongs to another file (dlclose, dlopen).
  process.mappings = MakeProcess(1, "/bin/other", "a").mappings;
  Add(window, process, {kText + 0x8});
  EXPECT_THAT(Folded(window.Close({0}, {1})), ElementsAre(Pair("a", "leaf 1\nother 1\n")));
}

TEST_F(WindowTest, CountsSamplesWhoseStackDoesNotFit) {
  Window window({.hz = 100, .max_frames = 3}, names_);
  const Process process = MakeProcess(1, "/bin/app", "a");
  Add(window, process, {kText + 0x8, kText + 0x1f, kText + 0x27});
  Add(window, process, {kText + 0x8});
  EXPECT_EQ(window.stacks_full(), 1u);
  const ClosedWindow closed = window.Close({0}, {1});
  EXPECT_EQ(closed.samples, 2u);
  int64_t sum = 0;
  for (const profile::Sample& sample : closed.groups[0].profile.samples) sum += sample.values[0];
  EXPECT_EQ(sum, 2);
}

TEST_F(WindowTest, SingleProfileCarriesCommAndPidAsLabels) {
  Window window({.hz = 100, .single_profile = true}, names_);
  Add(window, MakeProcess(1, "/bin/app", "a"), {kText + 0x8});
  Add(window, MakeProcess(2, "/bin/app", "b"), {kText + 0x8});
  const ClosedWindow closed = window.Close({0}, {1});
  ASSERT_EQ(closed.groups.size(), 1u);
  std::map<std::string, int64_t> by_pid;
  for (const profile::Sample& sample : closed.groups[0].profile.samples) {
    by_pid[std::string(closed.groups[0].profile.label_sets[sample.labels.index()].Get("pid"))] =
        sample.values[0];
  }
  EXPECT_THAT(by_pid, ElementsAre(Pair("1", 1), Pair("2", 1)));
}

TEST_F(WindowTest, IsEmptyAfterClose) {
  Window window({.hz = 100}, names_);
  Add(window, MakeProcess(1, "/bin/app", "a"), {kText + 0x8});
  window.Close({0}, {1});
  const ClosedWindow second = window.Close({1}, {2});
  EXPECT_EQ(second.samples, 0u);
  EXPECT_TRUE(second.groups.empty());
}

TEST(CollectorTest, AClosedWindowWaitsForNamesWhileTheNextOneFills) {
  FakeSymbolizer names;
  base::MetricsRegistry metrics;
  ProcessTable table({.proc_root = "/nonexistent", .node = "n"}, names, metrics);
  std::vector<ClosedWindow> closed;
  Collector collector({.hz = 100}, table, names, metrics,
                      [&](ClosedWindow window) { closed.push_back(std::move(window)); });
  SampleRecord sample;
  sample.pid = Pid{7};
  sample.time_ns = 1;
  sample.comm = "x";
  collector.OnSample(sample);
  names.pending = 1;
  collector.CloseWindow({0}, {10});
  EXPECT_FALSE(collector.FinishClosed(false));
  collector.OnSample(sample);
  collector.OnSample(sample);
  EXPECT_TRUE(closed.empty());
  names.pending = 0;
  EXPECT_TRUE(collector.FinishClosed(false));
  ASSERT_EQ(closed.size(), 1u);
  EXPECT_EQ(closed[0].samples, 1u);
  EXPECT_EQ(collector.open_samples(), 2u);
  EXPECT_EQ(collector.samples_total(), 3u);
}

TEST(CollectorTest, EachSampleHasTheWeightOfItsRate) {
  FakeSymbolizer names;
  base::MetricsRegistry metrics;
  ProcessTable table({.proc_root = "/nonexistent", .node = "n"}, names, metrics);
  std::vector<ClosedWindow> closed;
  Collector collector({.hz = 100}, table, names, metrics,
                      [&](ClosedWindow window) { closed.push_back(std::move(window)); });
  SampleRecord sample;
  sample.pid = Pid{7};
  sample.comm = "x";
  for (const uint32_t next_hz : {50u, 10u, 0u}) {
    for (int i = 0; i < 3; ++i) collector.OnSample(sample);
    collector.CloseWindow({0}, {10});
    if (next_hz != 0) collector.SetHz(next_hz);
    EXPECT_TRUE(collector.FinishClosed(true));
  }
  ASSERT_EQ(closed.size(), 3u);
  std::vector<uint32_t> rates;
  std::vector<int64_t> nanoseconds;
  for (const ClosedWindow& window : closed) {
    rates.push_back(window.hz);
    nanoseconds.push_back(window.groups.at(0).profile.period * 3);
  }
  EXPECT_THAT(rates, ElementsAre(100u, 50u, 10u));
  EXPECT_THAT(nanoseconds, ElementsAre(30'000'000, 60'000'000, 300'000'000));
  // The one after keeps the rate.
  collector.OnSample(sample);
  collector.CloseWindow({10}, {20});
  EXPECT_TRUE(collector.FinishClosed(true));
  EXPECT_EQ(closed[3].hz, 10u);
}

TEST(CollectorTest, LossesGoIntoTheNextWindowOnce) {
  FakeSymbolizer names;
  base::MetricsRegistry metrics;
  ProcessTable table({.proc_root = "/nonexistent", .node = "n"}, names, metrics);
  std::vector<ClosedWindow> closed;
  Collector collector({.hz = 100}, table, names, metrics,
                      [&](ClosedWindow window) { closed.push_back(std::move(window)); });
  LossCounter(metrics, FW_LOSS_RING_FULL).Add(5);
  for (int i = 0; i < 2; ++i) {
    collector.CloseWindow({0}, {10});
    collector.FinishClosed(true);
  }
  EXPECT_THAT(closed[0].losses, ElementsAre(Pair("ring_full", 5u)));
  EXPECT_TRUE(closed[1].losses.empty());
}

TEST(CollectorTest, HandsNotesOnWithTheProcessOfTheSample) {
  FakeSymbolizer names;
  base::MetricsRegistry metrics;
  ProcessTable table({.proc_root = "/nonexistent", .node = "n"}, names, metrics);
  FakeTableMemory memory;
  KnownFiles files(memory, [] { return RoomFor(uint64_t{1} << 20); }, names, metrics);
  Collector collector({.hz = 100}, table, names, metrics, [](ClosedWindow) {});
  ProcessEvent mapped;
  mapped.kind = ProcessEventKind::kMmap;
  mapped.pid = Pid{7};
  mapped.start = kText;
  mapped.end = kText + 0x1000;
  mapped.file.path = "/bin/app";
  collector.OnEvent(mapped);
  const fw_file_note note = {.start = kText, .end = kText + 0x1000, .inode = 9};
  SampleRecord sample;
  sample.pid = Pid{7};
  sample.time_ns = 1;
  sample.file_notes = std::span(&note, 1);
  collector.OnSample(sample);  // nobody answers
  EXPECT_TRUE(memory.known_files.empty());
  collector.SetKnownFiles(&files);
  collector.OnSample(sample);
  EXPECT_TRUE(memory.known_files.contains(9));
}

}  // namespace
}  // namespace firewatch::agent
