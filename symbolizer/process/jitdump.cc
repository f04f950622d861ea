// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/process/jitdump.h"

#include <elf.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace firewatch::symbolizer {
namespace {

constexpr uint32_t kMagic = 0x4A695444;  // "DTiJ" in the file, "JiTD" as a number
constexpr uint32_t kVersion = 1;
constexpr size_t kHeaderBytes = 40;
constexpr size_t kPrefixBytes = 16;
constexpr size_t kLoadBytes = 40;  // before the name
constexpr size_t kMoveBytes = 48;
constexpr size_t kDebugInfoBytes = 16;  // before the entries
constexpr size_t kLineBytes = 16;       // before the file's name
// Debug info whose load never comes must not pile up.
constexpr size_t kMaxWaitingDebugInfo = 1024;
constexpr std::string_view kSameFile = "\xff";

enum Record : uint32_t { kLoad = 0, kMove = 1, kDebugInfo = 2, kClose = 3 };

template <typename T>
T Field(std::span<const std::byte> bytes, size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

std::string_view Text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

absl::Status JitDump::ReadHeader(const ByteSource& file) {
  if (file.size() < kHeaderBytes) return absl::OkStatus();  // not written yet
  std::array<std::byte, kHeaderBytes> header;
  RETURN_IF_ERROR(file.Read(0, header));
  const auto magic = Field<uint32_t>(header, 0);
  const auto version = Field<uint32_t>(header, 4);
  const auto bytes = Field<uint32_t>(header, 8);
  const auto machine = Field<uint32_t>(header, 12);
  if (magic != kMagic || version != kVersion || bytes < kHeaderBytes || machine != EM_X86_64) {
    broken_ = base::InvalidArgument("no jitdump of this machine (magic {:#x}, version {}, {})",
                                    magic, version, machine);
    return broken_;
  }
  read_ = bytes;
  return absl::OkStatus();
}

absl::Status JitDump::Update(const ByteSource& file) {
  if (!broken_.ok()) return broken_;
  if (read_ == 0) RETURN_IF_ERROR(ReadHeader(file));
  if (read_ == 0) return absl::OkStatus();
  for (size_t count = 0; count < kMaxRecordsPerUpdate && !closed_; ++count) {
    if (file.size() < read_ || file.size() - read_ < kPrefixBytes) break;
    std::array<std::byte, kPrefixBytes> prefix;
    RETURN_IF_ERROR(file.Read(read_, prefix));
    const auto id = Field<uint32_t>(prefix, 0);
    const auto bytes = Field<uint32_t>(prefix, 4);
    if (id == 0 && bytes == 0 && Field<uint64_t>(prefix, 8) == 0) break;  // a hole: written later
    if (bytes < kPrefixBytes) {
      broken_ = base::DataLoss("a record of {} bytes at {}", bytes, read_);
      return broken_;
    }
    if (file.size() - read_ < bytes) break;  // not whole yet
    const uint64_t at = read_ + kPrefixBytes;
    const auto size = static_cast<uint32_t>(bytes - kPrefixBytes);
    if (id == kLoad) RETURN_IF_ERROR(TakeLoad(file, at, size));
    if (id == kMove) RETURN_IF_ERROR(TakeMove(file, at, size));
    if (id == kDebugInfo) RETURN_IF_ERROR(TakeDebugInfo(file, at, size));
    if (id == kClose) closed_ = true;
    ++records_;
    read_ += bytes;
  }
  return absl::OkStatus();
}

absl::Status JitDump::TakeLoad(const ByteSource& file, uint64_t at, uint32_t bytes) {
  std::array<std::byte, kLoadBytes + kMaxNameBytes + 1> buffer;
  const std::span<std::byte> record(buffer.data(), std::min<size_t>(buffer.size(), bytes));
  RETURN_IF_ERROR(file.Read(at, record));
  if (record.size() <= kLoadBytes) {
    ++malformed_;
    return absl::OkStatus();
  }
  const auto address = Field<uint64_t>(record, 16);
  const auto size = Field<uint64_t>(record, 24);
  CodeRange range;
  const std::string_view name = Text(record.subspan(kLoadBytes));
  range.name_size = static_cast<uint32_t>(std::min({name.find('\0'), name.size(), kMaxNameBytes}));
  range.name_offset = at + kLoadBytes;
  if (const auto lines = debug_info_.find(address); lines != debug_info_.end()) {
    range.lines_offset = lines->second;
    debug_info_.erase(lines);
  }
  if (!ranges_.Add(address, size, range)) ++dropped_;
  return absl::OkStatus();
}

absl::Status JitDump::TakeMove(const ByteSource& file, uint64_t at, uint32_t bytes) {
  if (bytes < kMoveBytes) {
    ++malformed_;
    return absl::OkStatus();
  }
  std::array<std::byte, kMoveBytes> record;
  RETURN_IF_ERROR(file.Read(at, record));
  const auto from = Field<uint64_t>(record, 16);
  const auto to = Field<uint64_t>(record, 24);
  auto range = ranges_.Find(from);
  if (!range) {
    ++malformed_;
    return absl::OkStatus();
  }
  range->moved_by += to - from;
  if (!ranges_.Add(to, Field<uint64_t>(record, 32), *range)) ++dropped_;
  return absl::OkStatus();
}

absl::Status JitDump::TakeDebugInfo(const ByteSource& file, uint64_t at, uint32_t bytes) {
  if (bytes < kDebugInfoBytes) {
    ++malformed_;
    return absl::OkStatus();
  }
  std::array<std::byte, 8> address;
  RETURN_IF_ERROR(file.Read(at, address));
  if (debug_info_.size() >= kMaxWaitingDebugInfo) debug_info_.clear();
  debug_info_[Field<uint64_t>(address, 0)] = at;
  return absl::OkStatus();
}

bool JitDump::Find(const ByteSource& file, uint64_t address, JitSymbol* symbol) const {
  const auto range = ranges_.Find(address);
  if (!range) return false;
  *symbol = {};
  symbol->name.resize(range->name_size);
  const std::span name(symbol->name.data(), symbol->name.size());
  if (!file.Read(range->name_offset, std::as_writable_bytes(name)).ok()) return false;
  if (range->lines_offset != 0) {
    FindLine(file, range->lines_offset, address - range->moved_by, symbol);
  }
  return !symbol->name.empty();
}

// The entry with the greatest address up to `address`; entries need not be sorted.
void JitDump::FindLine(const ByteSource& file, uint64_t record, uint64_t address,
                       JitSymbol* symbol) const {
  std::array<std::byte, 4> size_field;
  // The record's size stands 12 bytes before its fields; it was checked against the file.
  if (!file.Read(record - kPrefixBytes + 4, size_field).ok()) return;
  const uint64_t whole = Field<uint32_t>(size_field, 0);
  if (whole < kPrefixBytes + kDebugInfoBytes) return;
  std::vector<std::byte> bytes(std::min(whole - kPrefixBytes, kMaxLineBytes));
  if (!file.Read(record, bytes).ok()) return;
  const uint64_t count = Field<uint64_t>(bytes, 8);
  std::span<const std::byte> rest(bytes);
  rest = rest.subspan(kDebugInfoBytes);
  std::string_view last_file;
  std::string_view best_file;
  uint64_t best_address = 0;
  for (uint64_t i = 0; i < count && rest.size() > kLineBytes; ++i) {
    const auto entry_address = Field<uint64_t>(rest, 0);
    const auto line = Field<int32_t>(rest, 8);
    std::string_view name = Text(rest.subspan(kLineBytes));
    const size_t end = name.find('\0');
    if (end == std::string_view::npos) break;
    name = name.substr(0, end);
    rest = rest.subspan(kLineBytes + end + 1);
    if (name != kSameFile) last_file = name;
    if (entry_address > address || entry_address < best_address || line <= 0) continue;
    best_address = entry_address;
    best_file = last_file;
    symbol->line = static_cast<uint32_t>(line);
  }
  symbol->file = best_file.substr(0, 4096);
}

}  // namespace firewatch::symbolizer
