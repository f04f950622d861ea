// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/unwind/table_writer.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <numeric>

#include "base/hash.h"
#include "base/status.h"
#include "symbolizer/unwind/table_format.h"

namespace firewatch::symbolizer {
namespace {

void Append(const void* data, size_t size, std::string* out) {
  out->append(static_cast<const char*>(data), size);
}

// The first slot of each rule: the more rows use a rule, the lower its slot, so that the first
// FW_DIRECT_RULES slots are named by one byte. Ties: as met.
struct Slots {
  std::vector<uint16_t> of_rule;
  std::vector<uint64_t> words;  // slot 0: NONE
};

Slots AssignSlots(const TableSource& source, std::vector<uint64_t>& uses) {
  std::vector<uint32_t> order(source.rules.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&uses](uint32_t a, uint32_t b) {
    return uses[a] != uses[b] ? uses[a] > uses[b] : a < b;
  });
  Slots slots{.of_rule = std::vector<uint16_t>(source.rules.size()), .words = {0}};
  for (const uint32_t rule : order) {
    const RuleWords& words = source.rules[rule];
    if (words.none() || uses[rule] == 0) continue;
    const size_t needed = words.two_slots() ? 2 : 1;
    if (slots.words.size() + needed > FW_RULE_SLOTS_MAX) continue;
    slots.of_rule[rule] = static_cast<uint16_t>(slots.words.size());
    slots.words.push_back(words.rule);
    if (needed == 2) slots.words.push_back(words.slot);
  }
  return slots;
}

// The rows of one page, place[0] == 0.
struct PageRows {
  std::vector<uint16_t> places;
  std::vector<uint16_t> slots;
  void Clear() {
    places.clear();
    slots.clear();
  }
  void Add(uint16_t place, uint16_t slot) {
    if (!slots.empty() && slots.back() == slot) return;
    places.push_back(place);
    slots.push_back(slot);
  }
};

class PageEncoder {
 public:
  // Appends the page's bytes and fills in its entry; a page of NONE alone has neither.
  void Encode(const PageRows& rows, std::string* pages, fw_page_entry* entry) {
    if (rows.slots.size() == 1 && rows.slots[0] == 0) return;
    entry->location = static_cast<uint32_t>(pages->size() / 8);
    entry->rows = static_cast<uint16_t>(rows.slots.size());
    Append(rows.places.data(), rows.places.size() * sizeof(uint16_t), pages);
    if (FindLocalRules(rows)) {
      entry->local_rules = static_cast<uint8_t>(local_.size());
      Append(numbers_.data(), numbers_.size(), pages);
      if (numbers_.size() % 2 != 0) pages->push_back('\0');
      Append(local_.data(), local_.size() * sizeof(uint16_t), pages);
    } else {
      entry->flags = FW_PAGE_WIDE;
      Append(rows.slots.data(), rows.slots.size() * sizeof(uint16_t), pages);
    }
    pages->resize((pages->size() + 7) & ~size_t{7});
  }

 private:
  // False when there are too many rare rules for one byte each.
  bool FindLocalRules(const PageRows& rows) {
    numbers_.clear();
    local_.clear();
    for (const uint16_t slot : rows.slots) {
      if (slot < FW_DIRECT_RULES) {
        numbers_.push_back(static_cast<uint8_t>(slot));
        continue;
      }
      const auto found = std::find(local_.begin(), local_.end(), slot);
      if (found == local_.end() && local_.size() == FW_LOCAL_RULES) return false;
      numbers_.push_back(
          static_cast<uint8_t>(FW_DIRECT_RULES + static_cast<size_t>(found - local_.begin())));
      if (found == local_.end()) local_.push_back(slot);
    }
    return true;
  }
  std::vector<uint8_t> numbers_;
  std::vector<uint16_t> local_;
};

struct Pages {
  uint32_t first = 0;
  std::vector<fw_page_entry> directory;
  std::string bytes;
  uint64_t rows = 0;
};

Pages EncodePages(const std::vector<TableRow>& rows, const Slots& slots) {
  Pages pages;
  if (rows.empty()) return pages;
  pages.first = static_cast<uint32_t>(rows.front().offset >> FW_PAGE_SHIFT);
  PageEncoder encoder;
  PageRows page;
  uint16_t open_slot = 0;  // of the row that reaches into the page
  for (size_t at = 0; at < rows.size() && pages.directory.size() < kTablePagesMax;) {
    const uint64_t number = pages.first + pages.directory.size();
    page.Clear();
    page.Add(0, open_slot);
    for (; at < rows.size() && rows[at].offset >> FW_PAGE_SHIFT == number; ++at) {
      const auto place = static_cast<uint16_t>(rows[at].offset & (FW_PAGE_ROWS_MAX - 1));
      open_slot = slots.of_rule[rows[at].rule];
      if (place == 0) page.Clear();
      page.Add(place, open_slot);
    }
    fw_page_entry& entry = pages.directory.emplace_back();
    std::memset(&entry, 0, sizeof(entry));
    encoder.Encode(page, &pages.bytes, &entry);
    pages.rows += entry.rows;
  }
  return pages;
}

TableHeader HeaderOf(const TableSource& source, const Slots& slots, const Pages& pages) {
  TableHeader header{};
  std::memcpy(header.magic, kTableMagic, sizeof(header.magic));
  header.version = kTableVersion;
  header.flags = source.pseudo_id ? kTablePseudoId : 0;
  header.file_bytes = source.file_bytes;
  header.first_page = pages.first;
  header.page_count = static_cast<uint32_t>(pages.directory.size());
  header.rule_slots = static_cast<uint32_t>(slots.words.size());
  header.id_size = source.id.size;
  std::memcpy(header.id, source.id.bytes.data(), sizeof(header.id));
  header.row_count = pages.rows;
  header.page_bytes = pages.bytes.size();
  const UnwindTableCounts& counts = source.counts;
  const uint64_t values[] = {counts.fdes,        counts.fdes_refused, counts.rows_read,
                             counts.rows_merged, counts.rows_no_rule, counts.cfi_bytes};
  static_assert(sizeof(values) == sizeof(header.counts));
  std::memcpy(header.counts, values, sizeof(values));
  return header;
}

absl::Status WriteAt(int fd, uint64_t offset, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return base::ErrnoStatus(errno, "write the unwind table");
    bytes.remove_prefix(static_cast<size_t>(written));
    offset += static_cast<uint64_t>(written);
  }
  return absl::OkStatus();
}

}  // namespace

std::string EncodeUnwindTable(const TableSource& source) {
  std::vector<uint64_t> uses(source.rules.size());
  for (const TableRow& row : source.rows) ++uses[row.rule];
  const Slots slots = AssignSlots(source, uses);
  const Pages pages = EncodePages(source.rows, slots);
  TableHeader header = HeaderOf(source, slots, pages);
  const uint64_t end = uint64_t{pages.first} + pages.directory.size();
  for (const TableRow& row : source.rows) {
    if (source.rules[row.rule].none()) continue;
    const bool lost = slots.of_rule[row.rule] == 0 || row.offset >> FW_PAGE_SHIFT >= end;
    header.counts[4] += lost ? 1 : 0;
  }
  std::string out(sizeof(header), '\0');
  Append(slots.words.data(), slots.words.size() * sizeof(uint64_t), &out);
  Append(pages.directory.data(), pages.directory.size() * sizeof(fw_page_entry), &out);
  out += pages.bytes;
  header.body_xxh3 = base::Hash64(std::string_view(out).substr(sizeof(header)));
  header.header_xxh3 = base::Hash64(
      std::string_view(reinterpret_cast<const char*>(&header), offsetof(TableHeader, header_xxh3)));
  std::memcpy(out.data(), &header, sizeof(header));
  return out;
}

absl::StatusOr<uint64_t> WriteUnwindTable(const TableSource& source, int fd) {
  const std::string bytes = EncodeUnwindTable(source);
  const std::string_view view(bytes);
  RETURN_IF_ERROR(WriteAt(fd, sizeof(TableHeader), view.substr(sizeof(TableHeader))));
  RETURN_IF_ERROR(WriteAt(fd, 0, view.substr(0, sizeof(TableHeader))));
  return bytes.size();
}

}  // namespace firewatch::symbolizer
