// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/index/name_table.h"

#include <zstd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "base/status.h"
#include "symbolizer/index/index_format.h"
#include "symbolizer/index/text.h"

namespace firewatch::symbolizer {
namespace {

template <typename T>
T Load(std::span<const std::byte> bytes, size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof(value));
  return value;
}

NamesBlockEntry EntryAt(std::span<const std::byte> section, size_t number) {
  return Load<NamesBlockEntry>(section, sizeof(NamesHeader) + number * sizeof(NamesBlockEntry));
}

// LEB128 below 2^32; false when the text ends first or the number is larger.
bool TakeVarint(std::string_view* text, uint32_t* value) {
  uint64_t sum = 0;
  for (size_t i = 0; i < text->size() && i < 5; ++i) {
    const auto byte = static_cast<unsigned char>((*text)[i]);
    sum |= uint64_t{byte & 0x7fU} << (7 * i);
    if (byte >= 0x80) continue;
    if (sum > UINT32_MAX) return false;
    *value = static_cast<uint32_t>(sum);
    text->remove_prefix(i + 1);
    return true;
  }
  return false;
}

void CopyName(std::string_view name, std::string* out) {
  if (out == nullptr) return;
  if (IsPrintableUtf8(name)) {
    out->assign(name);
  } else {
    *out = MakePrintable(name);
  }
}

struct FreeContext {
  void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
};

}  // namespace

absl::StatusOr<NameTable> NameTable::Parse(std::span<const std::byte> section,
                                           uint64_t content_hash) {
  if (section.size() < sizeof(NamesHeader) + sizeof(NamesBlockEntry)) {
    return base::DataLoss("symbol index: names section of {} bytes", section.size());
  }
  const auto header = Load<NamesHeader>(section, 0);
  const size_t room = (section.size() - sizeof(NamesHeader)) / sizeof(NamesBlockEntry);
  if (header.block_count >= room) {
    return base::DataLoss("symbol index: {} blocks of names do not fit", header.block_count);
  }
  NamesBlockEntry before = EntryAt(section, 0);
  const uint64_t places = sizeof(NamesHeader) + (uint64_t{header.block_count} + 1) * sizeof(before);
  if (before.first_place != 0 ||
      before.offset != places + header.count * NamePlaceBytes(header.count)) {
    return base::DataLoss("symbol index: names do not start at place 0");
  }
  for (size_t i = 1; i <= header.block_count; ++i) {
    const NamesBlockEntry entry = EntryAt(section, i);
    if (entry.first_place <= before.first_place || entry.offset <= before.offset ||
        entry.first_place - before.first_place > kMaxNamesPerBlock) {
      return base::DataLoss("symbol index: block {} of names is out of order", i);
    }
    before = entry;
  }
  if (before.first_place != header.count || before.offset != section.size()) {
    return base::DataLoss("symbol index: blocks of names do not add up");
  }
  NameTable table;
  table.section_ = section;
  table.places_ = section.data() + places;
  table.count_ = header.count;
  table.block_count_ = header.block_count;
  table.content_hash_ = content_hash;
  return table;
}

uint32_t NameTable::PlaceOf(uint32_t id) const {
  uint32_t place = 0;
  const size_t bytes = NamePlaceBytes(count_);
  std::memcpy(&place, places_ + id * bytes, bytes);
  return place;
}

size_t NameTable::BlockOf(uint32_t place) const {
  size_t low = 0;  // blocks up to `low` start at or before the place
  size_t high = block_count_;
  while (high - low > 1) {
    const size_t middle = low + (high - low) / 2;
    (EntryAt(section_, middle).first_place <= place ? low : high) = middle;
  }
  return low;
}

NameTable::Block NameTable::BlockAt(size_t number) const {
  const NamesBlockEntry entry = EntryAt(section_, number);
  const NamesBlockEntry next = EntryAt(section_, number + 1);
  return {.first_place = entry.first_place,
          .end_place = next.first_place,
          .bytes = section_.subspan(entry.offset, next.offset - entry.offset)};
}

struct NameReader::Decoded {
  struct Entry {
    uint32_t linkage_at = 0;
    uint32_t linkage_size = 0;
    uint32_t display_size = 0;  // 0: as the linkage name; else it follows that
  };
  uint64_t table_hash = 0;
  size_t block = SIZE_MAX;  // which one `text` holds
  uint64_t last_use = 0;
  std::string text;
  std::vector<Entry> entries;
  uint32_t first_place = 0;
};

struct NameReader::State {
  std::unique_ptr<ZSTD_DCtx, FreeContext> context{ZSTD_createDCtx()};
  std::vector<Decoded> decoded;
  absl::flat_hash_map<std::pair<uint64_t, size_t>, size_t> known;  // by table and block
  size_t max_blocks = 1;
  uint64_t uses = 0;

  bool Decode(const NameTable& table, size_t number, Decoded* out) const;
};

NameReader::NameReader(size_t max_blocks) : state_(std::make_unique<State>()) {
  state_->max_blocks = std::max<size_t>(max_blocks, 1);
}
NameReader::~NameReader() = default;
NameReader::NameReader(NameReader&&) noexcept = default;
NameReader& NameReader::operator=(NameReader&&) noexcept = default;

bool NameReader::State::Decode(const NameTable& table, size_t number, Decoded* out) const {
  const NameTable::Block block = table.BlockAt(number);
  const unsigned long long size = ZSTD_getFrameContentSize(block.bytes.data(), block.bytes.size());
  if (size > kMaxNamesBlockBytes) return false;  // unknown and error are the largest numbers
  out->text.resize(size);
  const size_t got = ZSTD_decompressDCtx(context.get(), out->text.data(), size, block.bytes.data(),
                                         block.bytes.size());
  if (got != size) return false;

  std::string_view rest = out->text;
  out->entries.resize(block.end_place - block.first_place);
  uint64_t total = 0;
  for (Decoded::Entry& entry : out->entries) {
    if (!TakeVarint(&rest, &entry.linkage_size) || !TakeVarint(&rest, &entry.display_size)) {
      return false;
    }
    entry.linkage_at = static_cast<uint32_t>(total);
    total += uint64_t{entry.linkage_size} + entry.display_size;
    if (total > size) return false;
  }
  if (total != rest.size()) return false;
  const auto texts = static_cast<uint32_t>(size - rest.size());
  for (Decoded::Entry& entry : out->entries) entry.linkage_at += texts;
  out->first_place = block.first_place;
  return true;
}

const NameReader::Decoded* NameReader::BlockOf(const NameTable& table, uint32_t place) {
  State& state = *state_;
  const size_t number = table.BlockOf(place);
  const std::pair key(table.content_hash_, number);
  if (const auto known = state.known.find(key); known != state.known.end()) {
    Decoded& decoded = state.decoded[known->second];
    decoded.last_use = ++state.uses;
    return &decoded;
  }
  if (state.decoded.size() < state.max_blocks) {
    state.decoded.emplace_back();
  } else {
    // The one that was not used for longest goes to the end of the list and is written over.
    const auto oldest =
        std::min_element(state.decoded.begin(), state.decoded.end(),
                         [](const auto& a, const auto& b) { return a.last_use < b.last_use; });
    state.known.erase({oldest->table_hash, oldest->block});
    std::swap(*oldest, state.decoded.back());
    state.known[{oldest->table_hash, oldest->block}] =
        static_cast<size_t>(oldest - state.decoded.begin());
    state.known.erase({state.decoded.back().table_hash, state.decoded.back().block});
  }
  Decoded& decoded = state.decoded.back();
  decoded.table_hash = key.first;
  decoded.block = number;
  decoded.last_use = ++state.uses;
  if (!state.Decode(table, number, &decoded)) {
    state.decoded.pop_back();
    return nullptr;
  }
  state.known[key] = state.decoded.size() - 1;
  return &decoded;
}

bool NameReader::Read(const NameTable& table, uint32_t id, std::string* linkage,
                      std::string* display) {
  const uint32_t place = id < table.count() ? table.PlaceOf(id) : UINT32_MAX;
  const Decoded* block = place < table.count() ? BlockOf(table, place) : nullptr;
  if (block == nullptr) {
    if (linkage != nullptr) linkage->clear();
    if (display != nullptr) display->clear();
    return false;
  }
  const Decoded::Entry& entry = block->entries[place - block->first_place];
  const std::string_view text = block->text;
  const std::string_view name = text.substr(entry.linkage_at, entry.linkage_size);
  CopyName(name, linkage);
  CopyName(entry.display_size == 0
               ? name
               : text.substr(entry.linkage_at + entry.linkage_size, entry.display_size),
           display);
  return true;
}

}  // namespace firewatch::symbolizer
