// SPDX-License-Identifier: Apache-2.0
// The names section. Where a block ends is decided by the linkage names alone, before anything is
// demangled: so blocks can be worked on by several threads and the bytes do not depend on it.
#include <zstd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <new>
#include <thread>

#include "base/status.h"
#include "symbolizer/demangle.h"
#include "symbolizer/expect.h"
#include "symbolizer/index/index_format.h"
#include "symbolizer/index/name_table.h"
#include "symbolizer/index/text.h"

namespace firewatch::symbolizer {
namespace {

// Measured on the names of ceph-mon (6 MB with the demangled ones, blocks of 50 KB, a busy
// machine): level 3 gives 580 KB at 73 MB/s, 6 gives 516 KB at 26 MB/s, 9 gives 502 KB at 6 MB/s.
// The time counts as part of a build that reads 240 MB of DWARF per second.
constexpr int kCompressionLevel = 3;
// Its tables have places for a block of names and not for the 128 KB that zstd thinks of: the same
// size within a thousandth, and half the memory.
constexpr int kMatchTableLog = 14;
// Room for one linkage name of the largest size and the numbers.
constexpr size_t kMaxDisplaysPerBlock =
    kMaxNamesBlockBytes - kNamesBlockLinkageBytes - kMaxNameBytes - 10 * kMaxNamesPerBlock;
// Names are all over a section of hundreds of megabytes: the memory of the next ones is asked for
// while one is demangled.
constexpr uint32_t kAhead = 3;
constexpr size_t kCacheLine = 64;
// Fewer are done before a thread has started.
constexpr size_t kNamesPerThread = 512;

struct Block {
  uint32_t first_place = 0;
  uint32_t end_place = 0;
  std::string packed;
};

// A name with eight of its bytes: most comparisons need no look at the name, which is somewhere in
// a section of hundreds of megabytes.
struct KeyedName {
  uint64_t key;
  uint32_t id;
};

// The bytes from `depth` on, the first one on top; zeros behind the end.
uint64_t KeyAt(std::string_view name, size_t depth) {
  char bytes[sizeof(uint64_t)] = {};
  if (depth < name.size()) {
    std::memcpy(bytes, name.data() + depth, std::min(sizeof(bytes), name.size() - depth));
  }
  uint64_t key;
  std::memcpy(&key, bytes, sizeof(key));
  return __builtin_bswap64(key);
}

// Sorts names that are equal up to `depth`. C++ names share beginnings of dozens of bytes, so those
// with equal keys are sorted by the bytes behind.
void SortFrom(const NameTableBuilder& names, std::span<KeyedName> keyed, size_t depth) {
  constexpr size_t kFew = 8;
  constexpr size_t kMaxDepth = 256;  // and how deep this recurses: an eighth of it
  if (keyed.size() < kFew || depth >= kMaxDepth) {
    std::sort(keyed.begin(), keyed.end(), [&](const KeyedName& a, const KeyedName& b) {
      return names.NameOf(a.id) < names.NameOf(b.id);
    });
    return;
  }
  for (KeyedName& name : keyed) name.key = KeyAt(names.NameOf(name.id), depth);
  std::sort(keyed.begin(), keyed.end(),
            [](const KeyedName& a, const KeyedName& b) { return a.key < b.key; });
  for (size_t first = 0; first < keyed.size();) {
    size_t end = first + 1;
    while (end < keyed.size() && keyed[end].key == keyed[first].key) ++end;
    if (end - first > 1) {
      SortFrom(names, keyed.subspan(first, end - first), depth + sizeof(uint64_t));
    }
    first = end;
  }
}

// Ids in order of place. Names differ, so nothing depends on the sort.
std::vector<uint32_t> InOrder(const NameTableBuilder& names) {
  std::vector<KeyedName> keyed(names.size());
  for (uint32_t id = 0; id < keyed.size(); ++id) keyed[id].id = id;
  SortFrom(names, keyed, 0);
  std::vector<uint32_t> ids(keyed.size());
  for (size_t place = 0; place < ids.size(); ++place) ids[place] = keyed[place].id;
  return ids;
}

std::vector<Block> SplitIntoBlocks(const NameTableBuilder& names,
                                   const std::vector<uint32_t>& ids) {
  std::vector<Block> blocks;
  size_t bytes = 0;
  const auto count = static_cast<uint32_t>(ids.size());
  for (uint32_t place = 0, first = 0; place < count; ++place) {
    bytes += names.NameOf(ids[place]).size();
    const uint32_t next = place + 1;
    if (bytes >= kNamesBlockLinkageBytes || next - first == kMaxNamesPerBlock || next == count) {
      blocks.push_back({.first_place = first, .end_place = next, .packed = {}});
      first = next;
      bytes = 0;
    }
  }
  return blocks;
}

void AppendVarint(size_t value, std::string* out) {
  while (value >= 0x80) {
    out->push_back(static_cast<char>(value | 0x80));
    value >>= 7;
  }
  out->push_back(static_cast<char>(value));
}

// Works on one block at a time; one per thread.
class BlockWriter {
 public:
  BlockWriter(const NameTableBuilder& names, const std::vector<uint32_t>& ids,
              const NameTableOptions& options)
      : names_(names), ids_(ids), options_(options), context_(ZSTD_createCCtx()) {
    ZSTD_CCtx_setParameter(context_, ZSTD_c_compressionLevel, kCompressionLevel);
    ZSTD_CCtx_setParameter(context_, ZSTD_c_hashLog, kMatchTableLog);
    ZSTD_CCtx_setParameter(context_, ZSTD_c_chainLog, kMatchTableLog);
  }
  ~BlockWriter() { ZSTD_freeCCtx(context_); }
  BlockWriter(const BlockWriter&) = delete;
  BlockWriter& operator=(const BlockWriter&) = delete;

  bool Write(Block* block) {
    text_.clear();
    raw_.clear();
    size_t displays = 0;
    for (uint32_t place = block->first_place; place < block->end_place; ++place) {
      if (block->end_place - place > kAhead) {
        const char* const soon = names_.NameOf(ids_[place + kAhead]).data();
        ExpectRead(soon);
        ExpectRead(soon, kCacheLine);
      }
      const std::string_view name = names_.NameOf(ids_[place]);
      std::string display = ShownName(name, options_.keep_suffixes);
      displays += display.size();
      if (displays > kMaxDisplaysPerBlock) display.clear();
      AppendVarint(name.size(), &raw_);
      AppendVarint(display.size(), &raw_);
      // As long as the name was: every offending byte becomes one '?'.
      if (IsPrintableUtf8(name)) {
        text_ += name;
      } else {
        text_ += MakePrintable(name);
      }
      text_ += display;
    }
    raw_ += text_;
    packed_.resize(ZSTD_compressBound(raw_.size()));
    const size_t size =
        ZSTD_compress2(context_, packed_.data(), packed_.size(), raw_.data(), raw_.size());
    if (ZSTD_isError(size) != 0) return false;
    block->packed.assign(packed_.data(), size);
    return true;
  }

 private:
  const NameTableBuilder& names_;
  const std::vector<uint32_t>& ids_;
  const NameTableOptions& options_;
  ZSTD_CCtx* context_;
  std::string raw_;
  std::string text_;
  std::string packed_;
};

template <typename T>
void Append(const T& value, std::vector<std::byte>* out) {
  const auto* bytes = reinterpret_cast<const std::byte*>(&value);
  out->insert(out->end(), bytes, bytes + sizeof(value));
}

absl::StatusOr<std::vector<std::byte>> Join(const std::vector<Block>& blocks,
                                            const std::vector<uint32_t>& ids) {
  const auto count = static_cast<uint32_t>(ids.size());
  const size_t place_bytes = NamePlaceBytes(count);
  uint64_t offset = sizeof(NamesHeader) + (blocks.size() + 1) * sizeof(NamesBlockEntry) +
                    ids.size() * place_bytes;
  uint64_t size = offset;
  for (const Block& block : blocks) size += block.packed.size();
  if (size > UINT32_MAX) {
    return base::ResourceExhausted("{} bytes of names, {} are allowed", size, UINT32_MAX);
  }
  std::vector<std::byte> section;
  section.reserve(size);
  Append(NamesHeader{.count = count, .block_count = static_cast<uint32_t>(blocks.size())},
         &section);
  for (const Block& block : blocks) {
    Append(
        NamesBlockEntry{.first_place = block.first_place, .offset = static_cast<uint32_t>(offset)},
        &section);
    offset += block.packed.size();
  }
  Append(NamesBlockEntry{.first_place = count, .offset = static_cast<uint32_t>(offset)}, &section);
  const size_t places = section.size();
  section.resize(places + ids.size() * place_bytes);
  for (uint32_t place = 0; place < count; ++place) {
    // Little endian: the low bytes come first.
    std::memcpy(section.data() + places + ids[place] * place_bytes, &place, place_bytes);
  }
  for (const Block& block : blocks) {
    const auto bytes = std::as_bytes(std::span<const char>(block.packed));
    section.insert(section.end(), bytes.begin(), bytes.end());
  }
  return section;
}

}  // namespace

// What threads share. Whoever comes first puts the names in order; the others wait for that.
class NameTableWriter::Work {
 public:
  Work(const NameTableBuilder& names, const NameTableOptions& options)
      : names_(names), options_(options) {
    const size_t worth = names_.size() / kNamesPerThread + 1;
    for (size_t i = 1; i < std::min<size_t>(options_.threads, worth); ++i) {
      helpers_.emplace_back([this] { TakePartInThread(); });
    }
  }
  ~Work() {
    stop_ = true;
    for (std::thread& helper : helpers_) helper.join();
  }
  Work(const Work&) = delete;
  Work& operator=(const Work&) = delete;

  absl::StatusOr<std::vector<std::byte>> Finish() {
    TakePart();
    for (std::thread& helper : helpers_) helper.join();
    helpers_.clear();
    if (no_memory_) return base::ResourceExhausted("names need more memory than allowed");
    if (failed_) return base::Internal("names could not be compressed");
    return Join(blocks_, ids_);
  }

 private:
  void TakePart() {
    std::call_once(in_order_, [this] {
      ids_ = InOrder(names_);
      blocks_ = SplitIntoBlocks(names_, ids_);
    });
    BlockWriter writer(names_, ids_, options_);
    for (size_t i = next_++; i < blocks_.size() && !stop_; i = next_++) {
      if (!writer.Write(&blocks_[i])) failed_ = true;
    }
  }

  void TakePartInThread() {
    try {
      TakePart();
    } catch (const std::bad_alloc&) {
      no_memory_ = true;
    }
  }

  const NameTableBuilder& names_;
  const NameTableOptions options_;
  std::once_flag in_order_;
  std::vector<uint32_t> ids_;  // these two are written by in_order_ alone
  std::vector<Block> blocks_;  // each by who took its number
  std::atomic<size_t> next_ = 0;
  std::atomic<bool> failed_ = false;
  std::atomic<bool> no_memory_ = false;
  std::atomic<bool> stop_ = false;
  std::vector<std::thread> helpers_;
};

NameTableWriter::NameTableWriter(const NameTableBuilder& names, const NameTableOptions& options)
    : work_(std::make_unique<Work>(names, options)) {}

NameTableWriter::~NameTableWriter() = default;

absl::StatusOr<std::vector<std::byte>> NameTableWriter::Finish() { return work_->Finish(); }

absl::StatusOr<std::vector<std::byte>> WriteNames(const NameTableBuilder& names,
                                                  const NameTableOptions& options) {
  return NameTableWriter(names, options).Finish();
}

}  // namespace firewatch::symbolizer
