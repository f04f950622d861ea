// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/index/symbol_index.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/hash.h"
#include "base/status.h"
#include "symbolizer/index/line_table_format.h"

namespace firewatch::symbolizer {
namespace {

constexpr size_t kAlignment = 8;
// Addresses that are looked up at once.
constexpr size_t kGroup = 16;
constexpr size_t kUsualFrames = 8;

std::string_view AsText(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

template <typename T>
T Load(const std::byte* table, size_t number) {
  T value;
  std::memcpy(&value, table + number * sizeof(value), sizeof(value));
  return value;
}

absl::Status CheckHeader(const IndexHeader& header, std::span<const std::byte> bytes) {
  if (std::memcmp(header.magic, kIndexMagic, sizeof(header.magic)) != 0) {
    return base::DataLoss("symbol index: wrong magic");
  }
  if (header.version != kIndexVersion) {
    return base::DataLoss("symbol index: version {}, expected {}", header.version, kIndexVersion);
  }
  if (header.index_bytes != bytes.size() || header.section_count > kMaxIndexSections) {
    return base::DataLoss("symbol index: sizes do not add up");
  }
  const size_t sum_at = sizeof(header) + header.section_count * sizeof(IndexSectionEntry);
  if (bytes.size() < sum_at + sizeof(uint64_t)) {
    return base::DataLoss("symbol index: {} sections in {} bytes", header.section_count,
                          bytes.size());
  }
  if (base::Hash64(AsText(bytes.first(sum_at))) != Load<uint64_t>(bytes.data() + sum_at, 0)) {
    return base::DataLoss("symbol index: header checksum");
  }
  if (header.id_size > sizeof(header.id)) return base::DataLoss("symbol index: size of the id");
  if (header.lines_state >= kLinesStateCount) {
    return base::DataLoss("symbol index: state of lines {}", header.lines_state);
  }
  return absl::OkStatus();
}

bool IsZero(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

// The sections by kind, sums checked; a kind that is not there is empty, one that is not known
// (of a later version that only adds) is passed over.
struct Sections {
  struct Section {
    std::span<const std::byte> bytes;
    uint32_t version = 0;
    uint64_t xxh3 = 0;
    bool present = false;
  };
  Section by_kind[5];
  const Section& operator[](IndexSectionKind kind) const {
    return by_kind[static_cast<size_t>(kind)];
  }
};

absl::StatusOr<Sections> ReadSections(std::span<const std::byte> bytes, uint16_t count) {
  Sections sections;
  uint64_t end = sizeof(IndexHeader) + count * sizeof(IndexSectionEntry) + sizeof(uint64_t);
  for (uint16_t i = 0; i < count; ++i) {
    const auto entry = Load<IndexSectionEntry>(bytes.data() + sizeof(IndexHeader), i);
    const bool known = entry.kind < std::size(sections.by_kind);
    if ((known && sections.by_kind[entry.kind].present) || entry.offset % kAlignment != 0 ||
        entry.offset < end || entry.offset - end >= kAlignment || entry.offset > bytes.size() ||
        entry.size > bytes.size() - entry.offset) {
      return base::DataLoss("symbol index: section {} is out of place", i);
    }
    if (!IsZero(bytes.subspan(end, entry.offset - end))) {
      return base::DataLoss("symbol index: bytes between sections");
    }
    const auto section = bytes.subspan(entry.offset, entry.size);
    if (base::Hash64(AsText(section)) != entry.xxh3) {
      return base::DataLoss("symbol index: checksum of section {}", i);
    }
    if (known) {
      sections.by_kind[entry.kind] = {
          .bytes = section, .version = entry.version, .xxh3 = entry.xxh3, .present = true};
    }
    end = entry.offset + entry.size;
  }
  if (bytes.size() - end >= kAlignment || !IsZero(bytes.subspan(end))) {
    return base::DataLoss("symbol index: bytes behind the sections");
  }
  return sections;
}

absl::Status CheckVersion(const Sections::Section& section, uint32_t expected, const char* what) {
  if (!section.present) return base::DataLoss("symbol index: no {} section", what);
  if (section.version == expected) return absl::OkStatus();
  return base::DataLoss("symbol index: {} version {}, expected {}", what, section.version,
                        expected);
}

}  // namespace

absl::StatusOr<SymbolIndex> SymbolIndex::Parse(std::span<const std::byte> bytes) {
  if (bytes.size() < sizeof(IndexHeader)) return base::DataLoss("symbol index: too short");
  const auto header = Load<IndexHeader>(bytes.data(), 0);
  RETURN_IF_ERROR(CheckHeader(header, bytes));
  ASSIGN_OR_RETURN(const Sections sections, ReadSections(bytes, header.section_count));
  const auto& segments = sections[IndexSectionKind::kSegments];
  const auto& names = sections[IndexSectionKind::kNames];
  const auto& symbols = sections[IndexSectionKind::kSymbols];
  RETURN_IF_ERROR(CheckVersion(segments, kSegmentsVersion, "segments"));
  RETURN_IF_ERROR(CheckVersion(names, kNamesVersion, "names"));
  RETURN_IF_ERROR(CheckVersion(symbols, kSymbolsVersion, "symbols"));

  SymbolIndex index;
  index.file_bytes_ = header.elf_bytes;
  index.has_table_ = (header.flags & kIndexHasTable) != 0;
  index.has_pseudo_id_ = (header.flags & kIndexPseudoId) != 0;
  index.lines_state_ = static_cast<LinesState>(header.lines_state);
  index.id_.size = header.id_size;
  std::memcpy(index.id_.bytes.data(), header.id, header.id_size);
  RETURN_IF_ERROR(index.ParseSegments(segments.bytes));
  ASSIGN_OR_RETURN(index.names_, NameTable::Parse(names.bytes, names.xxh3));
  RETURN_IF_ERROR(index.ParseSymbols(symbols.bytes));
  const auto& lines = sections[IndexSectionKind::kLines];
  if (lines.present != index.has_lines()) {
    return base::DataLoss("symbol index: lines are {}, but the header says otherwise",
                          lines.present ? "there" : "missing");
  }
  if (!lines.present) return index;
  RETURN_IF_ERROR(CheckVersion(lines, kLinesVersion, "lines"));
  ASSIGN_OR_RETURN(index.lines_, LineTable::Parse(lines.bytes, index.names_.count()));
  return index;
}

absl::Status SymbolIndex::ParseSegments(std::span<const std::byte> section) {
  if (section.size() % sizeof(IndexSegment) != 0 ||
      section.size() / sizeof(IndexSegment) > kMaxIndexSegments) {
    return base::DataLoss("symbol index: segments of {} bytes", section.size());
  }
  for (size_t i = 0; i < section.size() / sizeof(IndexSegment); ++i) {
    const auto segment = Load<IndexSegment>(section.data(), i);
    if (segment.file_size > UINT64_MAX - segment.file_offset ||
        segment.file_size > UINT64_MAX - segment.vaddr) {
      return base::DataLoss("symbol index: segment {} wraps around", i);
    }
  }
  segments_ = section;
  return absl::OkStatus();
}

absl::Status SymbolIndex::ParseSymbols(std::span<const std::byte> section) {
  SymbolsHeader header;
  if (section.size() < sizeof(header)) return base::DataLoss("symbol index: no symbols header");
  std::memcpy(&header, section.data(), sizeof(header));
  if (header.name_width < 2 || header.name_width > 4) {
    return base::DataLoss("symbol index: names of {} bytes", header.name_width);
  }
  // Counts are below 2^32 and elements small: no sum of these wraps around.
  uint64_t at = sizeof(header);
  const auto column = [&](uint64_t count, uint64_t size) {
    const uint64_t offset = at;
    at += count * size;
    return section.data() + std::min<uint64_t>(offset, section.size());
  };
  range_count_ = header.range_count;
  chunk_count_ = header.chunk_count;
  large_count_ = header.large_count;
  alias_count_ = header.alias_count;
  group_count_ = header.group_count;
  name_width_ = header.name_width;
  chunks_ = column(chunk_count_, sizeof(SymbolsChunk));
  starts_ = column(range_count_, sizeof(uint32_t));
  sizes_ = column(range_count_, sizeof(uint16_t));
  name_ids_ = column(range_count_, name_width_);
  flags_ = column(range_count_, sizeof(uint8_t));
  group_numbers_ = column(group_count_ > 0 ? range_count_ : 0, sizeof(uint16_t));
  group_names_ = column(group_count_, sizeof(uint32_t));
  large_ = column(large_count_, sizeof(SymbolsLarge));
  aliases_ = column(alias_count_, sizeof(SymbolsAlias));
  if (at != section.size()) return base::DataLoss("symbol index: symbols do not add up");
  RETURN_IF_ERROR(CheckChunks());
  RETURN_IF_ERROR(CheckRanges());
  return CheckLists();
}

absl::Status SymbolIndex::CheckChunks() const {
  if ((chunk_count_ == 0) != (range_count_ == 0)) {
    return base::DataLoss("symbol index: {} chunks of {} ranges", chunk_count_, range_count_);
  }
  for (uint32_t i = 0; i < chunk_count_; ++i) {
    const auto chunk = Load<SymbolsChunk>(chunks_, i);
    const bool ordered = i == 0
                             ? chunk.first_range == 0
                             : chunk.first_range > Load<SymbolsChunk>(chunks_, i - 1).first_range;
    if (!ordered || chunk.first_range >= range_count_ ||
        Load<uint32_t>(starts_, chunk.first_range) != 0) {
      return base::DataLoss("symbol index: chunk {} is out of order", i);
    }
  }
  return absl::OkStatus();
}

absl::Status SymbolIndex::CheckRanges() const {
  uint64_t free_from = 0;
  uint32_t large = 0;
  uint32_t chunk = 0;
  for (uint32_t i = 0; i < range_count_; ++i) {
    while (chunk + 1 < chunk_count_ && Load<SymbolsChunk>(chunks_, chunk + 1).first_range <= i) {
      ++chunk;
    }
    const uint64_t start = Load<SymbolsChunk>(chunks_, chunk).base + Load<uint32_t>(starts_, i);
    uint64_t size = Load<uint16_t>(sizes_, i);
    if (size == kLargeSize) {
      const auto entry = large < large_count_ ? Load<SymbolsLarge>(large_, large)
                                              : SymbolsLarge{.range = UINT32_MAX};
      if (entry.range != i || entry.size < kLargeSize) {
        return base::DataLoss("symbol index: range {} is not in the list of large ones", i);
      }
      size = entry.size;
      ++large;
    }
    if (start < free_from || size == 0 || start > UINT64_MAX - size) {
      return base::DataLoss("symbol index: range {} overlaps or is empty", i);
    }
    free_from = start + size;
    if (NameOf(i) >= names_.count()) {
      return base::DataLoss("symbol index: range {} has a name outside the table", i);
    }
    if (group_count_ > 0 && Load<uint16_t>(group_numbers_, i) >= group_count_) {
      return base::DataLoss("symbol index: range {} has a group outside the list", i);
    }
  }
  if (large != large_count_) return base::DataLoss("symbol index: list of large ranges");
  return absl::OkStatus();
}

absl::Status SymbolIndex::CheckLists() const {
  for (uint16_t i = 0; i < group_count_; ++i) {
    if (Load<uint32_t>(group_names_, i) >= names_.count()) {
      return base::DataLoss("symbol index: group {} has a name outside the table", i);
    }
  }
  uint32_t last_range = 0;
  for (uint32_t i = 0; i < alias_count_; ++i) {
    const auto alias = Load<SymbolsAlias>(aliases_, i);
    if (alias.range < last_range || alias.range >= range_count_ || alias.name >= names_.count()) {
      return base::DataLoss("symbol index: alias {} is out of order", i);
    }
    last_range = alias.range;
  }
  return absl::OkStatus();
}

uint32_t SymbolIndex::NameOf(uint32_t range) const {
  uint32_t name = 0;
  std::memcpy(&name, name_ids_ + size_t{range} * name_width_, name_width_);
  return name;
}

uint32_t SymbolIndex::ChunkOf(uint32_t range) const {
  uint32_t low = 0;
  uint32_t high = chunk_count_;
  while (high - low > 1) {
    const uint32_t middle = low + (high - low) / 2;
    (Load<SymbolsChunk>(chunks_, middle).first_range <= range ? low : high) = middle;
  }
  return low;
}

uint64_t SymbolIndex::StartOf(uint32_t range) const {
  return Load<SymbolsChunk>(chunks_, ChunkOf(range)).base + Load<uint32_t>(starts_, range);
}

uint64_t SymbolIndex::SizeOf(uint32_t range) const {
  const uint16_t size = Load<uint16_t>(sizes_, range);
  if (size != kLargeSize) return size;
  uint32_t low = 0;
  uint32_t high = large_count_;
  while (high - low > 1) {
    const uint32_t middle = low + (high - low) / 2;
    (Load<SymbolsLarge>(large_, middle).range <= range ? low : high) = middle;
  }
  return Load<SymbolsLarge>(large_, low).size;
}

SymbolIndex::RangeSearch SymbolIndex::BeginSearch(uint64_t vaddr) const {
  uint32_t chunk = 0;
  if (chunk_count_ > 1) {
    uint32_t high = chunk_count_;
    while (high - chunk > 1) {
      const uint32_t middle = chunk + (high - chunk) / 2;
      (Load<SymbolsChunk>(chunks_, middle).base <= vaddr ? chunk : high) = middle;
    }
  }
  const auto here = Load<SymbolsChunk>(chunks_, chunk);
  const uint32_t end =
      chunk + 1 < chunk_count_ ? Load<SymbolsChunk>(chunks_, chunk + 1).first_range : range_count_;
  const uint64_t distance = vaddr < here.base ? 0 : vaddr - here.base;
  return {.base = here.base,
          .distance = static_cast<uint32_t>(std::min<uint64_t>(distance, UINT32_MAX)),
          .low = here.first_range,
          .count = end - here.first_range};
}

// Towards the last start at or below the distance; the first start of a chunk is 0. Both outcomes
// of a step are computed and one is chosen: random addresses would mispredict every other branch.
void SymbolIndex::Halve(RangeSearch& search) const {
  const uint32_t half = search.count / 2;
  const uint32_t middle = search.low + half;
  search.low = Load<uint32_t>(starts_, middle) <= search.distance ? middle : search.low;
  search.count -= half;
}

uint32_t SymbolIndex::EndSearch(uint64_t vaddr, const RangeSearch& search) const {
  const uint64_t start = search.base + Load<uint32_t>(starts_, search.low);
  return vaddr >= start && vaddr - start < SizeOf(search.low) ? search.low : range_count_;
}

uint32_t SymbolIndex::RangeOf(uint64_t vaddr) const {
  if (range_count_ == 0) return range_count_;
  RangeSearch search = BeginSearch(vaddr);
  while (search.count > 1) Halve(search);
  return EndSearch(vaddr, search);
}

// All searches take a step before one takes the next: their reads do not wait for each other.
void SymbolIndex::RangesOf(std::span<const uint64_t> vaddrs, std::span<uint32_t> ranges) const {
  if (range_count_ == 0) {
    std::fill(ranges.begin(), ranges.end(), range_count_);
    return;
  }
  RangeSearch searches[kGroup];
  uint32_t most = 0;
  for (size_t i = 0; i < vaddrs.size(); ++i) {
    searches[i] = BeginSearch(vaddrs[i]);
    most = std::max(most, searches[i].count);
  }
  for (; most > 1; most -= most / 2) {
    for (size_t i = 0; i < vaddrs.size(); ++i) Halve(searches[i]);
  }
  for (size_t i = 0; i < vaddrs.size(); ++i) {
    const uint32_t low = searches[i].low;
    __builtin_prefetch(sizes_ + size_t{low} * sizeof(uint16_t));
    __builtin_prefetch(name_ids_ + size_t{low} * name_width_);
    __builtin_prefetch(flags_ + low);
  }
  for (size_t i = 0; i < vaddrs.size(); ++i) ranges[i] = EndSearch(vaddrs[i], searches[i]);
}

IndexSymbol SymbolIndex::SymbolNumber(uint32_t number) const {
  const uint32_t group =
      group_count_ > 0 ? Load<uint32_t>(group_names_, Load<uint16_t>(group_numbers_, number)) : 0;
  return {.start = StartOf(number),
          .size_bytes = SizeOf(number),
          .name = NameOf(number),
          .group = group,
          .flags = Load<uint8_t>(flags_, number)};
}

std::optional<IndexSymbol> SymbolIndex::SymbolAt(uint64_t vaddr) const {
  const uint32_t range = RangeOf(vaddr);
  if (range == range_count_) return std::nullopt;
  return SymbolNumber(range);
}

size_t SymbolIndex::AliasesOf(uint64_t vaddr, std::span<uint32_t> out) const {
  const uint32_t range = RangeOf(vaddr);
  if (range == range_count_) return 0;
  uint32_t low = 0;  // the first alias of the range or a later one
  for (uint32_t high = alias_count_; low < high;) {
    const uint32_t middle = low + (high - low) / 2;
    if (Load<SymbolsAlias>(aliases_, middle).range < range) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  size_t count = 0;
  for (; low < alias_count_ && count < out.size(); ++low) {
    const auto alias = Load<SymbolsAlias>(aliases_, low);
    if (alias.range != range) break;
    out[count++] = alias.name;
  }
  return count;
}

IndexSegment SymbolIndex::SegmentNumber(size_t number) const {
  return Load<IndexSegment>(segments_.data(), number);
}

std::optional<uint64_t> SymbolIndex::VaddrOf(uint64_t file_offset) const {
  // One or two, in all but exotic files.
  for (size_t i = 0; i < segments_.size() / sizeof(IndexSegment); ++i) {
    const auto segment = Load<IndexSegment>(segments_.data(), i);
    if (file_offset < segment.file_offset) break;
    const uint64_t distance = file_offset - segment.file_offset;
    if (distance < segment.file_size) return segment.vaddr + distance;
  }
  return std::nullopt;
}

// Inlined functions and lines are the debug information's; the physical function has the name that
// the symbol table gives it, where there is one.
size_t SymbolIndex::Join(uint32_t range, std::span<const LineFrame> lines,
                         std::span<IndexFrame> out) const {
  const bool has_symbol = range != range_count_;
  IndexFrame physical;
  if (has_symbol) {
    physical.name = NameOf(range);
    physical.flags = static_cast<uint8_t>(Load<uint8_t>(flags_, range) & ~kContinued);
  }
  if (lines.empty()) {
    out[0] = physical;
    return has_symbol ? 1 : 0;
  }
  // A line of padding, or of code that neither a symbol nor a function is known for.
  if (!has_symbol && lines.size() == 1 && lines[0].function == kNoFunction) return 0;
  for (size_t i = 0; i < lines.size(); ++i) {
    const LineFrame& line = lines[i];
    const auto function =
        line.function == kNoFunction ? LineTable::Function{} : lines_.FunctionAt(line.function);
    const bool from_symbol = has_symbol && i + 1 == lines.size();
    out[i] = {.name = from_symbol ? physical.name : function.name,
              .file = line.file,
              .line = line.line,
              .start_line = function.line,
              .flags = from_symbol    ? physical.flags
                       : line.inlined ? uint8_t{kInlined}
                                      : uint8_t{0}};
  }
  return lines.size();
}

size_t SymbolIndex::FindAddress(uint64_t vaddr, std::span<IndexFrame> out) const {
  if (out.empty()) return 0;
  if (!has_lines()) return Join(RangeOf(vaddr), {}, out);
  LineTable::Search search;
  lines_.FindCells(vaddr, &search);
  const uint32_t range = RangeOf(vaddr);
  lines_.FindChain(&search);
  LineFrame lines[kMaxIndexFrames];
  const size_t depth =
      lines_.Frames(search, std::span(lines).first(std::min(out.size(), std::size(lines))));
  return Join(range, std::span(lines).first(depth), out);
}

// Groups of addresses take each step together. The last one, frames of calls and then what their
// functions are called, in two, as far as the frames find room.
void SymbolIndex::FindAddresses(
    std::span<const uint64_t> vaddrs,
    absl::FunctionRef<void(size_t number, std::span<const IndexFrame> frames)> take) const {
  IndexFrame out[kMaxIndexFrames];
  LineFrame lines[kGroup * kUsualFrames + kMaxIndexFrames];
  std::span<const LineFrame> chains[kGroup];
  LineTable::Search searches[kGroup];
  uint32_t ranges[kGroup];
  for (size_t begin = 0; begin < vaddrs.size(); begin += kGroup) {
    const auto group = vaddrs.subspan(begin, std::min(kGroup, vaddrs.size() - begin));
    const auto group_searches = std::span(searches).first(group.size());
    lines_.FindCells(group, group_searches);
    RangesOf(group, std::span(ranges).first(group.size()));
    lines_.FindChains(group_searches);

    size_t taken = 0;
    const auto take_until = [&](size_t end) {
      for (; taken < end; ++taken) {
        const size_t depth = Join(ranges[taken], chains[taken], out);
        take(begin + taken, std::span(out).first(depth));
      }
    };
    std::span<LineFrame> room = lines;
    for (size_t i = 0; i < group.size(); ++i) {
      if (room.size() < kMaxIndexFrames) {
        take_until(i);
        room = lines;
      }
      chains[i] = room.first(lines_.Frames(searches[i], room.first(kMaxIndexFrames)));
      room = room.subspan(chains[i].size());
    }
    take_until(group.size());
  }
}

size_t SymbolIndex::FindOffset(uint64_t file_offset, std::span<IndexFrame> out) const {
  const auto vaddr = VaddrOf(file_offset);
  return vaddr ? FindAddress(*vaddr, out) : 0;
}

std::string SymbolIndex::LinkageName(uint32_t id) const {
  std::string name;
  NameReader().Read(names_, id, &name, nullptr);
  return name;
}

std::string SymbolIndex::DisplayName(uint32_t id) const {
  std::string name;
  NameReader().Read(names_, id, nullptr, &name);
  return name;
}

uint64_t SymbolIndex::end() const {
  if (range_count_ == 0) return 0;
  return StartOf(range_count_ - 1) + SizeOf(range_count_ - 1);
}

}  // namespace firewatch::symbolizer
