// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/index/name_table.h"

#include <zstd.h>

#include <cstring>
#include <utility>

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
  const size_t blocks = sizeof(NamesHeader) + (size_t{header.block_count} + 1) * sizeof(before);
  if (before.first_id != 0 || before.offset != blocks) {
    return base::DataLoss("symbol index: names do not start at id 0");
  }
  for (size_t i = 1; i <= header.block_count; ++i) {
    const NamesBlockEntry entry = EntryAt(section, i);
    if (entry.first_id <= before.first_id || entry.offset <= before.offset ||
        entry.first_id - before.first_id > kMaxNamesPerBlock) {
      return base::DataLoss("symbol index: block {} of names is out of order", i);
    }
    before = entry;
  }
  if (before.first_id != header.count || before.offset != section.size()) {
    return base::DataLoss("symbol index: blocks of names do not add up");
  }
  NameTable table;
  table.section_ = section;
  table.count_ = header.count;
  table.block_count_ = header.block_count;
  table.content_hash_ = content_hash;
  return table;
}

uint32_t NameTable::FirstIdOf(size_t block) const { return EntryAt(section_, block).first_id; }

size_t NameTable::BlockOf(uint32_t id) const {
  size_t low = 0;  // blocks up to `low` start at or before the id
  size_t high = block_count_;
  while (high - low > 1) {
    const size_t middle = low + (high - low) / 2;
    (FirstIdOf(middle) <= id ? low : high) = middle;
  }
  return low;
}

NameTable::Block NameTable::BlockAt(size_t number) const {
  const NamesBlockEntry entry = EntryAt(section_, number);
  const NamesBlockEntry next = EntryAt(section_, number + 1);
  return {.first_id = entry.first_id,
          .end_id = next.first_id,
          .bytes = section_.subspan(entry.offset, next.offset - entry.offset)};
}

struct NameReader::State {
  struct Entry {
    uint32_t linkage_at = 0;
    uint32_t linkage_size = 0;
    uint32_t display_size = 0;  // 0: as the linkage name; else it follows that
  };
  std::unique_ptr<ZSTD_DCtx, FreeContext> context{ZSTD_createDCtx()};
  std::string text;
  std::vector<Entry> entries;
  uint64_t table_hash = 0;
  size_t block = SIZE_MAX;  // which one `text` holds
  uint32_t first_id = 0;
};

NameReader::NameReader() : state_(std::make_unique<State>()) {}
NameReader::~NameReader() = default;
NameReader::NameReader(NameReader&&) noexcept = default;
NameReader& NameReader::operator=(NameReader&&) noexcept = default;

bool NameReader::Decode(const NameTable& table, size_t number) {
  State& state = *state_;
  if (state.block == number && state.table_hash == table.content_hash_) return true;
  state.block = SIZE_MAX;
  const NameTable::Block block = table.BlockAt(number);
  const unsigned long long size = ZSTD_getFrameContentSize(block.bytes.data(), block.bytes.size());
  if (size > kMaxNamesBlockBytes) return false;  // unknown and error are the largest numbers
  state.text.resize(size);
  const size_t got = ZSTD_decompressDCtx(state.context.get(), state.text.data(), size,
                                         block.bytes.data(), block.bytes.size());
  if (got != size) return false;

  std::string_view rest = state.text;
  state.entries.resize(block.end_id - block.first_id);
  uint64_t total = 0;
  for (State::Entry& entry : state.entries) {
    if (!TakeVarint(&rest, &entry.linkage_size) || !TakeVarint(&rest, &entry.display_size)) {
      return false;
    }
    entry.linkage_at = static_cast<uint32_t>(total);
    total += uint64_t{entry.linkage_size} + entry.display_size;
    if (total > size) return false;
  }
  if (total != rest.size()) return false;
  const auto texts = static_cast<uint32_t>(size - rest.size());
  for (State::Entry& entry : state.entries) entry.linkage_at += texts;
  state.block = number;
  state.table_hash = table.content_hash_;
  state.first_id = block.first_id;
  return true;
}

bool NameReader::Read(const NameTable& table, uint32_t id, std::string* linkage,
                      std::string* display) {
  if (id >= table.count() || !Decode(table, table.BlockOf(id))) {
    if (linkage != nullptr) linkage->clear();
    if (display != nullptr) display->clear();
    return false;
  }
  const State::Entry& entry = state_->entries[id - state_->first_id];
  const std::string_view text = state_->text;
  const std::string_view name = text.substr(entry.linkage_at, entry.linkage_size);
  CopyName(name, linkage);
  CopyName(entry.display_size == 0
               ? name
               : text.substr(entry.linkage_at + entry.linkage_size, entry.display_size),
           display);
  return true;
}

}  // namespace firewatch::symbolizer
