// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/window.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <tuple>

#include "agent/cpu/stack_ends.h"
#include "base/check.h"
#include "profile/builder.h"

namespace firewatch::agent {
namespace {

using profile::LocationKind;

// Beside the kinds that cross from the kernel (bpf/include/frame.h): code without a file.
constexpr fw_u64 kFrameJit = 8;

// Of BinaryGaps in one window: beyond, those with the fewest bare frames are left out.
constexpr size_t kMaxBinaries = 4096;

fw_u64 MakeFrame(fw_u64 kind, uint64_t payload) {
  return (kind << FW_FRAME_KIND_SHIFT) | (payload & FW_FRAME_PAYLOAD_MASK);
}
uint64_t HashFrames(std::span<const fw_u64> frames) {
  return base::Hash64({reinterpret_cast<const char*>(frames.data()), frames.size_bytes()});
}
fw_u64 KindOf(fw_u64 frame) { return frame >> FW_FRAME_KIND_SHIFT; }
uint64_t PayloadOf(fw_u64 frame) { return frame & FW_FRAME_PAYLOAD_MASK; }
// The top four bits of a kernel address are ones on every 64-bit kernel.
uint64_t KernelAddress(fw_u64 frame) { return PayloadOf(frame) | ~FW_FRAME_PAYLOAD_MASK; }
constexpr uint64_t kFileOffsetMask = (uint64_t{1} << FW_FRAME_FILE_OFFSET_BITS) - 1;
constexpr uint64_t kMaxFiles = uint64_t{1} << (FW_FRAME_KIND_SHIFT - FW_FRAME_FILE_OFFSET_BITS);

// Every mapping that Firewatch writes starts at file offset 0, so that a location's address is a
// file offset; this is its limit when the file's size is not known.
constexpr uint64_t kUnknownLimit = uint64_t{1} << FW_FRAME_FILE_OFFSET_BITS;

// What a person calls the process.
std::string ProgramOf(const Process& process) {
  const std::string_view path = process.exe_path;
  const std::string_view base = path.substr(path.rfind('/') + 1);
  return std::string(base.empty() ? std::string_view(process.comm) : base);
}

// "/tmp/jit-4711.dump", as tools/perf knows a jitdump.
bool IsJitDumpPath(std::string_view path) {
  const std::string_view base = path.substr(path.rfind('/') + 1);
  return base.starts_with("jit-") && base.ends_with(".dump");
}

}  // namespace

// What the frames of all groups lack, by file.
struct Window::Gaps {
  struct File {
    uint64_t frames = 0;
    uint64_t without_line = 0;
    std::array<uint64_t, 16> bare{};  // by NameReason
  };
  void AddBare(symbolizer::NameReason reason, uint64_t count) {
    bare[static_cast<size_t>(reason)] += count;
  }
  absl::flat_hash_map<symbolizer::FileId, File> files;
  std::array<uint64_t, 16> bare{};  // of all frames
};

// The profile of one label set while it is built, with the frames that it has met.
struct Window::GroupBuilder {
  GroupBuilder(symbolizer::Symbolizer& names, const WindowOptions& options, Gaps& to)
      : symbolizer(names),
        gaps(to),
        single_profile(options.single_profile),
        period_ns(1'000'000'000 / options.hz),
        builder({{"samples", "count"}, {"cpu", "nanoseconds"}}) {
    profile::Profile& out = builder.profile();
    out.period_type = {"cpu", "nanoseconds"};
    out.period = period_ns;
    out.default_sample_type = "cpu";
  }

  // What is needed of a location beside its id: where its gaps are counted.
  struct Met {
    profile::LocationId id{};
    bool in_file = false;
    symbolizer::FileId file{};
    symbolizer::NameReason no_name = symbolizer::NameReason::kNone;
    bool has_line = false;
  };

  // `samples` pass through the frame.
  profile::LocationId LocationOf(fw_u64 frame, const Owner& owner, uint64_t samples) {
    // Two processes have different code at one address of theirs; of files and the kernel they
    // have the same.
    const uint64_t space = KindOf(frame) == kFrameJit ? owner.incarnation : 0;
    const auto [it, added] = locations.try_emplace(std::pair(frame, space));
    if (added) MakeLocation(frame, owner, &it->second);
    const Met& met = it->second;
    if (met.in_file) {
      Gaps::File& file = gaps.files[met.file];
      file.frames += samples;
      if (met.no_name != symbolizer::NameReason::kNone) {
        file.bare[static_cast<size_t>(met.no_name)] += samples;
      } else if (!met.has_line) {
        file.without_line += samples;
      }
    }
    if (met.no_name != symbolizer::NameReason::kNone) gaps.AddBare(met.no_name, samples);
    return met.id;
  }

  void MakeLocation(fw_u64 frame, const Owner& owner, Met* met) {
    switch (KindOf(frame)) {
      case FW_FRAME_KERNEL:
        return KernelLocation(KernelAddress(frame), met);
      case FW_FRAME_FILE:
        return FileLocation(
            static_cast<symbolizer::FileId>(PayloadOf(frame) >> FW_FRAME_FILE_OFFSET_BITS),
            PayloadOf(frame) & kFileOffsetMask, met);
      case kFrameJit:
        return JitLocation(owner, PayloadOf(frame), met);
      default:
        met->no_name = symbolizer::NameReason::kUnknownMemory;
        met->id = builder.AddLocation({.mapping = NamedMapping("[unknown]"),
                                       .address = PayloadOf(frame),
                                       .kind = LocationKind::kUnknown});
    }
  }

  void KernelLocation(uint64_t address, Met* met) {
    const symbolizer::KernelSymbol symbol = symbolizer.LookupKernel(address);
    profile::Location location;
    location.kind = LocationKind::kKernel;
    location.address = address;
    location.mapping = NamedMapping(symbol.module.empty() ? std::string("[kernel]")
                                                          : fmt::format("[{}]", symbol.module));
    if (symbol.found) {
      location.lines.push_back({.function = builder.AddFunction(symbol.name, symbol.name, "")});
    } else {
      met->no_name = symbol.pending                      ? symbolizer::NameReason::kPending
                     : symbolizer.KernelReason().empty() ? symbolizer::NameReason::kNoSymbols
                                                         : symbolizer::NameReason::kKernelHidden;
    }
    met->id = builder.AddLocation(location);
  }

  void FileLocation(symbolizer::FileId file, uint64_t offset, Met* met) {
    const auto [it, added] = mappings.try_emplace(file);
    if (added) it->second = AddFileMapping(file);
    profile::Location location;
    location.kind = it->second.vdso ? LocationKind::kVdso : LocationKind::kNative;
    location.address = offset;
    location.mapping = it->second.id;
    met->in_file = true;
    met->file = file;
    met->no_name = symbolizer.Lookup(file, offset, &frames);
    AddLines(&location, met);
    met->id = builder.AddLocation(location);
  }

  void JitLocation(const Owner& owner, uint64_t address, Met* met) {
    profile::Location location;
    location.kind = LocationKind::kJit;
    location.address = address;
    location.mapping = NamedMapping("[anon]");
    met->no_name = symbolizer.LookupJit(owner.incarnation, address, &frames);
    AddLines(&location, met);
    met->id = builder.AddLocation(location);
  }

  // From `frames`.
  void AddLines(profile::Location* location, Met* met) {
    MappingFlags& flags = flags_of[location->mapping];
    for (const symbolizer::SymbolFrame& frame : frames) {
      met->has_line |= frame.line != 0;
      flags.filenames |= !frame.file.empty();
      location->lines.push_back({.function = builder.AddFunction(frame.name, frame.system_name,
                                                                 frame.file, frame.start_line),
                                 .line = frame.line});
    }
    flags.lines |= met->has_line;
    flags.inlined |= frames.size() > 1;
  }

  // What a mapping's frames have is known when all have been named.
  void SetMappingFlags() {
    for (const auto& [id, flags] : flags_of) {
      profile::Mapping& mapping = builder.profile().mappings[id.index()];
      mapping.has_filenames = flags.filenames;
      mapping.has_line_numbers = flags.lines;
      mapping.has_inline_frames = flags.inlined;
    }
  }

  struct FileMapping {
    profile::MappingId id;
    bool vdso = false;
  };
  FileMapping AddFileMapping(symbolizer::FileId file) {
    const symbolizer::FileInfo info = symbolizer.Info(file);
    profile::Mapping mapping;
    mapping.file = builder.AddString(info.path);
    mapping.build_id = builder.AddString(info.content_id);
    // Rounded as pprof does when it compares mappings of two profiles.
    mapping.memory_limit =
        info.size_bytes == 0 ? kUnknownLimit : (info.size_bytes + 4095) & ~4095ull;
    mapping.has_functions = true;
    return {builder.AddMapping(mapping), info.path == "[vdso]"};
  }

  profile::MappingId NamedMapping(std::string_view name) {
    profile::Mapping mapping;
    mapping.file = builder.AddString(name);
    mapping.memory_limit = ~uint64_t{0};
    mapping.has_functions = true;
    return builder.AddMapping(mapping);
  }

  profile::LabelSetId LabelsOf(const Owner& owner, uint32_t thread, const std::string& comm) {
    // One process, one thread name → one label set; the pid matters only in a single profile.
    const uint64_t key =
        (single_profile ? uint64_t{static_cast<uint32_t>(owner.pid)} << 32 : 0) | thread;
    const auto [it, added] = label_sets.try_emplace(key);
    if (added) {
      std::vector<std::pair<std::string, std::string>> pairs = {{"thread", comm}};
      if (single_profile) {
        pairs.emplace_back("comm", owner.comm);
        pairs.emplace_back("pid", fmt::format("{}", static_cast<uint32_t>(owner.pid)));
      }
      it->second = builder.AddLabelSet(profile::LabelSet(std::move(pairs)));
    }
    return it->second;
  }

  struct MappingFlags {
    bool filenames = false;
    bool lines = false;
    bool inlined = false;
  };

  symbolizer::Symbolizer& symbolizer;
  Gaps& gaps;
  const bool single_profile;
  const int64_t period_ns;
  profile::ProfileBuilder builder;
  absl::flat_hash_map<std::pair<fw_u64, uint64_t>, Met> locations;
  absl::flat_hash_map<profile::MappingId, MappingFlags> flags_of;
  absl::flat_hash_map<symbolizer::FileId, FileMapping> mappings;
  absl::flat_hash_map<uint64_t, profile::LabelSetId> label_sets;
  std::vector<profile::LocationId> stack;       // scratch
  std::vector<symbolizer::SymbolFrame> frames;  // scratch
};

Window::Window(WindowOptions options, symbolizer::Symbolizer& symbolizer)
    : options_(options), symbolizer_(symbolizer) {}

uint32_t Window::OwnerOf(const Process& process) {
  const auto [it, added] =
      owner_of_incarnation_.try_emplace(process.incarnation, static_cast<uint32_t>(owners_.size()));
  // A process that maps or unmaps code goes on as a new owner: stacks of before keep their
  // mappings.
  const bool changed = !added && owners_[it->second].mappings != process.mappings;
  if (added || changed) {
    it->second = static_cast<uint32_t>(owners_.size());
    owners_.push_back({process.incarnation,
                       process.pid,
                       process.parent,
                       process.comm,
                       ProgramOf(process),
                       process.mappings,
                       process.labels,
                       {},
                       false});
  }
  return it->second;
}

uint32_t Window::ThreadOf(std::string_view comm) {
  if (const auto it = thread_index_.find(comm); it != thread_index_.end()) return it->second;
  const auto index = static_cast<uint32_t>(threads_.size());
  threads_.emplace_back(comm);
  thread_index_.emplace(std::string(comm), index);
  return index;
}

void Window::Add(const SampleRecord& sample, const Process& process) {
  ++samples_;
  ++stack_ends_[sample.stack_end];
  const uint32_t owner = OwnerOf(process);
  ++owners_[owner].stack_ends[sample.stack_end];
  const uint32_t thread = ThreadOf(sample.comm);
  // 64 bits: with the 20,000 stacks that fit into a window, two of them meet once in 10^11 windows.
  const std::array<uint64_t, 4> key = {HashFrames(sample.kernel_frames),
                                       HashFrames(sample.user_frames), owner, thread};
  const uint64_t hash = base::Hash64(std::span<const uint64_t>(key));
  if (const auto it = stack_of_hash_.find(hash); it != stack_of_hash_.end()) {
    ++stacks_[it->second].count;
    return;
  }
  AddStack(hash, sample, owner, thread);
}

void Window::AddStack(uint64_t hash, const SampleRecord& sample, uint32_t owner, uint32_t thread) {
  Stack stack{.owner = owner,
              .thread = thread,
              .first_frame = static_cast<uint32_t>(frames_.size()),
              .frames = 0,
              .count = 1};
  if (frames_.size() + sample.kernel_frames.size() + sample.user_frames.size() >
      options_.max_frames) {
    ++stacks_full_;
  } else {
    // Leaf first. All but the first kernel frame are return addresses: one less lies inside the
    // call, which is what pprof's format asks for and what names and lines belong to. User frames
    // come so (bpf/include/frame.h): only the unwinder knows which frame a signal interrupted.
    for (size_t i = 0; i < sample.kernel_frames.size(); ++i) {
      frames_.push_back(
          MakeFrame(FW_FRAME_KERNEL, PayloadOf(sample.kernel_frames[i]) - (i == 0 ? 0 : 1)));
    }
    for (const fw_u64 frame : sample.user_frames) {
      frames_.push_back(KindOf(frame) == FW_FRAME_FILE
                            ? ResolveFile(owners_[owner], frame)
                            : ResolveUser(owners_[owner], PayloadOf(frame)));
    }
    stack.frames = static_cast<uint32_t>(frames_.size()) - stack.first_frame;
  }
  stack_of_hash_.emplace(hash, static_cast<uint32_t>(stacks_.size()));
  stacks_.push_back(stack);
}

void Window::RequestJit(Owner& owner) {
  if (owner.jit_requested) return;
  owner.jit_requested = true;
  symbolizer_.RequestJit(static_cast<uint32_t>(owner.pid), owner.incarnation,
                         [&]() -> std::optional<symbolizer::JitMarker> {
                           for (const ProcessMapping& mapping : owner.mappings->all()) {
                             if (mapping.anonymous) continue;
                             if (!IsJitDumpPath(symbolizer_.Info(mapping.file).path)) continue;
                             return symbolizer::JitMarker{.file = mapping.file,
                                                          .map_start = mapping.start,
                                                          .map_end = mapping.end};
                           }
                           return std::nullopt;
                         });
}

void Window::AddFiles(symbolizer::FileSet* kept) const {
  for (const Owner& owner : owners_) owner.mappings->AddFiles(kept);
  for (const fw_u64 frame : frames_) {
    if (KindOf(frame) != FW_FRAME_FILE) continue;
    kept->Add(static_cast<symbolizer::FileId>(PayloadOf(frame) >> FW_FRAME_FILE_OFFSET_BITS));
  }
}

fw_u64 Window::ResolveUser(Owner& owner, uint64_t pc) {
  const ProcessMapping* mapping = owner.mappings->Find(pc);
  if (mapping == nullptr) return MakeFrame(FW_FRAME_USER, pc);
  if (mapping->anonymous) {
    RequestJit(owner);
    return MakeFrame(kFrameJit, pc);
  }
  const uint64_t offset = pc - mapping->start + mapping->file_offset;
  const auto file = static_cast<uint64_t>(mapping->file);
  if (offset > kFileOffsetMask || file >= kMaxFiles) return MakeFrame(FW_FRAME_USER, pc);
  symbolizer_.Request(mapping->file, static_cast<uint32_t>(owner.pid),
                      static_cast<uint32_t>(owner.parent), mapping->start, mapping->end);
  return MakeFrame(FW_FRAME_FILE, (file << FW_FRAME_FILE_OFFSET_BITS) | offset);
}

// The kernel side has found the file; what is missing are its names.
fw_u64 Window::ResolveFile(const Owner& owner, fw_u64 frame) {
  const uint64_t offset = PayloadOf(frame) & kFileOffsetMask;
  if (!options_.file_frames) return MakeFrame(FW_FRAME_USER, offset);
  const auto file = static_cast<symbolizer::FileId>(PayloadOf(frame) >> FW_FRAME_FILE_OFFSET_BITS);
  if (requested_.contains(file)) return frame;
  // Not there when events were lost: then another process will say where the file is.
  if (const ProcessMapping* mapping = owner.mappings->FindFile(file, offset); mapping != nullptr) {
    requested_.insert(file);
    symbolizer_.Request(file, static_cast<uint32_t>(owner.pid), static_cast<uint32_t>(owner.parent),
                        mapping->start, mapping->end);
  }
  return frame;
}

std::vector<ProgramStackEnds> Window::ProgramEnds() const {
  base::StringMap<size_t> index;
  std::vector<ProgramStackEnds> programs;
  for (const Owner& owner : owners_) {
    const auto [it, added] = index.try_emplace(owner.program, programs.size());
    if (added) programs.push_back({owner.program, {}});
    for (size_t i = 0; i < owner.stack_ends.size(); ++i) {
      programs[it->second].counts[i] += owner.stack_ends[i];
    }
  }
  return programs;
}

void Window::AddToGroup(const Stack& stack, GroupBuilder& group) {
  group.stack.clear();
  for (uint32_t i = 0; i < stack.frames; ++i) {
    group.stack.push_back(
        group.LocationOf(frames_[stack.first_frame + i], owners_[stack.owner], stack.count));
  }
  const auto count = static_cast<int64_t>(stack.count);
  const std::array<int64_t, 2> values = {count, count * group.period_ns};
  group.builder.AddSample(
      group.builder.AddStack(group.stack),
      group.LabelsOf(owners_[stack.owner], stack.thread, threads_[stack.thread]), values);
}

void Window::ReportGaps(const Gaps& gaps, ClosedWindow* closed) const {
  for (size_t reason = 1; reason < gaps.bare.size(); ++reason) {
    if (gaps.bare[reason] == 0) continue;
    closed->bare_frames.emplace_back(static_cast<symbolizer::NameReason>(reason),
                                     gaps.bare[reason]);
  }
  for (const auto& [id, file] : gaps.files) {
    symbolizer_.NoteUse(id, file.frames);
    const auto most = std::max_element(file.bare.begin(), file.bare.end());
    if (*most == 0 && file.without_line == 0) continue;
    const symbolizer::FileInfo info = symbolizer_.Info(id);
    BinaryGaps& out = closed->binaries.emplace_back();
    out.file = id;
    out.build_id = info.content_id;
    out.path = info.path;
    out.detail = info.reason;
    out.bare_frames = std::accumulate(file.bare.begin(), file.bare.end(), uint64_t{0});
    if (*most != 0) out.no_names = static_cast<symbolizer::NameReason>(most - file.bare.begin());
    out.frames_without_line = file.without_line;
    if (file.without_line != 0) {
      // A function of a file with lines that has none itself was compiled without them.
      out.no_lines = info.no_lines == symbolizer::NameReason::kNone
                         ? symbolizer::NameReason::kNoDebugInfo
                         : info.no_lines;
    }
  }
  std::sort(closed->binaries.begin(), closed->binaries.end(),
            [](const BinaryGaps& a, const BinaryGaps& b) {
              return std::tuple(b.bare_frames, b.frames_without_line, a.path, a.build_id) <
                     std::tuple(a.bare_frames, a.frames_without_line, b.path, b.build_id);
            });
  if (closed->binaries.size() > kMaxBinaries) closed->binaries.resize(kMaxBinaries);
  for (BinaryGaps& gaps_of : closed->binaries) {
    gaps_of.segments = symbolizer_.SegmentsOf(gaps_of.file);
  }
}

void Window::SetHz(uint32_t hz) {
  CHECK(samples_ == 0);
  options_.hz = hz;
}

ClosedWindow Window::Close(base::WallTime start, base::WallTime end) {
  ClosedWindow closed;
  closed.start = start;
  closed.end = end;
  closed.hz = options_.hz;
  closed.samples = samples_;
  absl::flat_hash_map<profile::LabelSet, std::unique_ptr<GroupBuilder>> groups;
  Gaps gaps;
  std::vector<GroupBuilder*> group_of_owner(owners_.size(), nullptr);
  for (const Stack& stack : stacks_) {
    GroupBuilder*& group = group_of_owner[stack.owner];
    if (group == nullptr) {
      auto& slot =
          groups[options_.single_profile ? profile::LabelSet() : *owners_[stack.owner].labels];
      if (slot == nullptr) slot = std::make_unique<GroupBuilder>(symbolizer_, options_, gaps);
      group = slot.get();
    }
    AddToGroup(stack, *group);
  }
  for (auto& [labels, group] : groups) {
    group->builder.profile().start_unix_ns = start.unix_ns;
    group->builder.profile().duration_ns = end.unix_ns - start.unix_ns;
    group->SetMappingFlags();
    closed.groups.push_back({labels, group->builder.Finish()});
  }
  for (size_t i = 0; i < stack_ends_.size(); ++i) {
    if (stack_ends_[i] == 0) continue;
    closed.stack_ends.emplace_back(StackEndName(static_cast<fw_stack_end>(i)), stack_ends_[i]);
  }
  closed.program_ends = ProgramEnds();
  ReportGaps(gaps, &closed);
  owners_.clear();
  owner_of_incarnation_.clear();
  threads_.clear();
  thread_index_.clear();
  stacks_.clear();
  stack_of_hash_.clear();
  frames_.clear();
  requested_.clear();
  stack_ends_.fill(0);
  samples_ = 0;
  stacks_full_ = 0;
  return closed;
}

}  // namespace firewatch::agent
