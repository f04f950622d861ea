// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/window.h"

#include <fmt/format.h>

#include <optional>

#include "agent/cpu/stack_ends.h"
#include "profile/builder.h"

namespace firewatch::agent {
namespace {

using profile::LocationKind;

// Beside the kinds that cross from the kernel (bpf/include/frame.h): code without a file.
constexpr fw_u64 kFrameJit = 8;

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

}  // namespace

// The profile of one label set while it is built, with the frames that it has met.
struct Window::GroupBuilder {
  explicit GroupBuilder(symbolizer::Symbolizer& names, const WindowOptions& options)
      : symbolizer(names),
        single_profile(options.single_profile),
        period_ns(1'000'000'000 / options.hz),
        builder({{"samples", "count"}, {"cpu", "nanoseconds"}}) {
    profile::Profile& out = builder.profile();
    out.period_type = {"cpu", "nanoseconds"};
    out.period = period_ns;
    out.default_sample_type = "cpu";
  }

  profile::LocationId LocationOf(fw_u64 frame) {
    const auto [it, added] = locations.try_emplace(frame);
    if (added) it->second = MakeLocation(frame);
    return it->second;
  }

  profile::LocationId MakeLocation(fw_u64 frame) {
    switch (KindOf(frame)) {
      case FW_FRAME_KERNEL:
        return KernelLocation(KernelAddress(frame));
      case FW_FRAME_FILE:
        return FileLocation(
            static_cast<symbolizer::FileId>(PayloadOf(frame) >> FW_FRAME_FILE_OFFSET_BITS),
            PayloadOf(frame) & kFileOffsetMask);
      case kFrameJit:
        return BareLocation("[anon]", LocationKind::kJit, PayloadOf(frame));
      default:
        return BareLocation("[unknown]", LocationKind::kUnknown, PayloadOf(frame));
    }
  }

  profile::LocationId KernelLocation(uint64_t address) {
    const symbolizer::KernelSymbol symbol = symbolizer.LookupKernel(address);
    profile::Location location;
    location.kind = LocationKind::kKernel;
    location.address = address;
    location.mapping = NamedMapping(symbol.module.empty() ? std::string("[kernel]")
                                                          : fmt::format("[{}]", symbol.module));
    if (symbol.found) {
      location.lines.push_back({.function = builder.AddFunction(symbol.name, symbol.name, "")});
    }
    return builder.AddLocation(location);
  }

  profile::LocationId FileLocation(symbolizer::FileId file, uint64_t offset) {
    const auto [it, added] = mappings.try_emplace(file);
    if (added) it->second = AddFileMapping(file);
    profile::Location location;
    location.kind = it->second.vdso ? LocationKind::kVdso : LocationKind::kNative;
    location.address = offset;
    location.mapping = it->second.id;
    symbolizer::Symbol symbol;
    if (symbolizer.Lookup(file, offset, &symbol)) {
      location.lines.push_back(
          {.function = builder.AddFunction(symbol.name, symbol.system_name, "")});
    }
    return builder.AddLocation(location);
  }

  struct FileMapping {
    profile::MappingId id;
    bool vdso = false;
  };
  FileMapping AddFileMapping(symbolizer::FileId file) {
    const symbolizer::FileInfo info = symbolizer.Info(file);
    profile::Mapping mapping;
    mapping.file = builder.AddString(info.path);
    mapping.build_id = builder.AddString(info.build_id);
    // Rounded as pprof does when it compares mappings of two profiles.
    mapping.memory_limit =
        info.size_bytes == 0 ? kUnknownLimit : (info.size_bytes + 4095) & ~4095ull;
    mapping.has_functions = true;
    return {builder.AddMapping(mapping), info.path == "[vdso]"};
  }

  profile::LocationId BareLocation(std::string_view mapping, LocationKind kind, uint64_t address) {
    profile::Location location;
    location.kind = kind;
    location.address = address;
    location.mapping = NamedMapping(mapping);
    return builder.AddLocation(location);
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

  symbolizer::Symbolizer& symbolizer;
  const bool single_profile;
  const int64_t period_ns;
  profile::ProfileBuilder builder;
  absl::flat_hash_map<fw_u64, profile::LocationId> locations;
  absl::flat_hash_map<symbolizer::FileId, FileMapping> mappings;
  absl::flat_hash_map<uint64_t, profile::LabelSetId> label_sets;
  std::vector<profile::LocationId> stack;  // scratch
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
                       {}});
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

fw_u64 Window::ResolveUser(const Owner& owner, uint64_t pc) {
  const ProcessMapping* mapping = owner.mappings->Find(pc);
  if (mapping == nullptr) return MakeFrame(FW_FRAME_USER, pc);
  if (mapping->anonymous) return MakeFrame(kFrameJit, pc);
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
    group.stack.push_back(group.LocationOf(frames_[stack.first_frame + i]));
  }
  const auto count = static_cast<int64_t>(stack.count);
  const std::array<int64_t, 2> values = {count, count * group.period_ns};
  group.builder.AddSample(
      group.builder.AddStack(group.stack),
      group.LabelsOf(owners_[stack.owner], stack.thread, threads_[stack.thread]), values);
}

ClosedWindow Window::Close(base::WallTime start, base::WallTime end) {
  ClosedWindow closed;
  closed.start = start;
  closed.end = end;
  closed.hz = options_.hz;
  closed.samples = samples_;
  absl::flat_hash_map<profile::LabelSet, std::unique_ptr<GroupBuilder>> groups;
  std::vector<GroupBuilder*> group_of_owner(owners_.size(), nullptr);
  for (const Stack& stack : stacks_) {
    GroupBuilder*& group = group_of_owner[stack.owner];
    if (group == nullptr) {
      auto& slot =
          groups[options_.single_profile ? profile::LabelSet() : *owners_[stack.owner].labels];
      if (slot == nullptr) slot = std::make_unique<GroupBuilder>(symbolizer_, options_);
      group = slot.get();
    }
    AddToGroup(stack, *group);
  }
  for (auto& [labels, group] : groups) {
    group->builder.profile().start_unix_ns = start.unix_ns;
    group->builder.profile().duration_ns = end.unix_ns - start.unix_ns;
    closed.groups.push_back({labels, group->builder.Finish()});
  }
  for (size_t i = 0; i < stack_ends_.size(); ++i) {
    if (stack_ends_[i] == 0) continue;
    closed.stack_ends.emplace_back(StackEndName(static_cast<fw_stack_end>(i)), stack_ends_[i]);
  }
  closed.program_ends = ProgramEnds();
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
