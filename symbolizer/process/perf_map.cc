// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/process/perf_map.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <span>

#include "base/status.h"

namespace firewatch::symbolizer {
namespace {

constexpr size_t kBufferBytes = size_t{256} << 10;
// A file that begins as before is taken for the same, grown.
constexpr size_t kBeginningBytes = 128;

bool TakeHex(std::string_view* text, uint64_t* value) {
  if (text->starts_with("0x") || text->starts_with("0X")) text->remove_prefix(2);
  const char* end = text->data() + text->size();
  const auto [stop, error] = std::from_chars(text->data(), end, *value, 16);
  if (error != std::errc()) return false;
  text->remove_prefix(static_cast<size_t>(stop - text->data()));
  return true;
}

bool TakeBlanks(std::string_view* text) {
  const size_t blanks = std::min(text->find_first_not_of(" \t"), text->size());
  text->remove_prefix(blanks);
  return blanks > 0;
}

std::span<std::byte> Bytes(char* data, size_t size) {
  return std::as_writable_bytes(std::span(data, size));
}

}  // namespace

bool ParsePerfMapLine(std::string_view line, PerfMapLine* parsed) {
  if (line.ends_with('\r')) line.remove_suffix(1);
  if (!TakeHex(&line, &parsed->start) || !TakeBlanks(&line)) return false;
  if (!TakeHex(&line, &parsed->size) || !TakeBlanks(&line)) return false;
  parsed->name = line;
  return !line.empty() && parsed->size > 0;
}

// Forgets everything when this is not the file of before.
absl::Status PerfMap::CheckBeginning(const ByteSource& file) {
  const auto begins_as_before = [&]() -> absl::StatusOr<bool> {
    if (file.size() < read_) return false;
    std::string now(beginning_.size(), '\0');
    RETURN_IF_ERROR(file.Read(0, Bytes(now.data(), now.size())));
    return now == beginning_;
  };
  ASSIGN_OR_RETURN(const bool same, begins_as_before());
  if (!same) {
    ranges_.Clear();
    read_ = 0;
    skipping_ = false;
    beginning_.clear();
  }
  if (beginning_.size() < kBeginningBytes) {
    beginning_.resize(std::min<uint64_t>(kBeginningBytes, file.size()));
    RETURN_IF_ERROR(file.Read(0, Bytes(beginning_.data(), beginning_.size())));
  }
  return absl::OkStatus();
}

absl::Status PerfMap::Update(const ByteSource& file) {
  RETURN_IF_ERROR(CheckBeginning(file));
  const uint64_t end = std::min({file.size(), read_ + kMaxBytesPerUpdate, kMaxFileBytes});
  if (file.size() > kMaxFileBytes && read_ == kMaxFileBytes) ++dropped_;
  if (read_ >= end) return absl::OkStatus();
  std::vector<char> buffer(std::min<uint64_t>(kBufferBytes, end - read_));
  while (read_ < end) {
    const size_t size = std::min<uint64_t>(buffer.size(), end - read_);
    RETURN_IF_ERROR(file.Read(read_, Bytes(buffer.data(), size)));
    size_t used = 0;
    while (used < size) {
      const void* found = std::memchr(buffer.data() + used, '\n', size - used);
      if (found == nullptr) break;
      const auto length =
          static_cast<size_t>(static_cast<const char*>(found) - buffer.data()) - used;
      if (!skipping_) TakeLine({buffer.data() + used, length}, read_ + used);
      skipping_ = false;
      used += length + 1;
    }
    if (used == 0 && size == kBufferBytes) {
      if (!skipping_) ++malformed_;
      skipping_ = true;
      used = size;
    }
    if (used == 0) break;  // the last line is not whole yet
    read_ += used;
  }
  return absl::OkStatus();
}

void PerfMap::TakeLine(std::string_view line, uint64_t offset) {
  if (line.empty()) return;
  ++lines_;
  PerfMapLine parsed;
  if (!ParsePerfMapLine(line, &parsed)) {
    ++malformed_;
    return;
  }
  const CodeRange range = {
      .name_size = static_cast<uint32_t>(std::min(parsed.name.size(), kMaxNameBytes)),
      .name_offset = offset + static_cast<uint64_t>(parsed.name.data() - line.data()),
      .lines_offset = 0};
  if (!ranges_.Add(parsed.start, parsed.size, range)) ++dropped_;
}

bool PerfMap::Find(const ByteSource& file, uint64_t address, std::string* name) const {
  const auto range = ranges_.Find(address);
  if (!range) return false;
  name->resize(range->name_size);
  if (!file.Read(range->name_offset, Bytes(name->data(), name->size())).ok()) return false;
  // Rewritten since: what is there now is a piece of another line.
  return name->find('\n') == std::string::npos;
}

}  // namespace firewatch::symbolizer
