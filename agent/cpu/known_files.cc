// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/known_files.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <utility>

#include "agent/core/losses.h"
#include "base/hash.h"
#include "base/status.h"

namespace firewatch::agent {
namespace {

using symbolizer::FileId;

// Between two Advances. A new file costs the opening of a file and a system call, about 50 us.
constexpr size_t kMaxAnswers = 256;
// Asking the symbolizer again costs a compare.
constexpr size_t kMaxQuestions = 1024;
constexpr uint32_t kFileIdLimit = 1u << (FW_FRAME_KIND_SHIFT - FW_FRAME_FILE_OFFSET_BITS);
// Of the known files, when they are full.
constexpr size_t kForgetShare = 16;

fw_file_key KeyOf(const fw_file_note& note) {
  return {.inode_address = note.inode_address,
          .inode = note.inode,
          .device = note.device,
          .generation = note.generation};
}

uint32_t Raw(FileId id) { return static_cast<uint32_t>(id); }

}  // namespace

size_t KnownFiles::KeyHash::operator()(const fw_file_key& key) const {
  const std::array<uint64_t, 3> words = {key.inode_address, key.inode,
                                         uint64_t{key.device} << 32 | key.generation};
  return base::Hash64(std::span<const uint64_t>(words));
}

bool KnownFiles::KeyEqual::operator()(const fw_file_key& a, const fw_file_key& b) const {
  return std::memcmp(&a, &b, sizeof(a)) == 0;  // no padding
}

KnownFiles::KnownFiles(TableMemory& memory, TableStore::Budget budget,
                       symbolizer::Symbolizer& symbolizer, base::MetricsRegistry& metrics)
    : symbolizer_(symbolizer),
      memory_(memory),
      store_(memory, std::move(budget), metrics),
      answers_left_(kMaxAnswers),
      refused_loss_(LossCounter(metrics, FW_LOSS_TABLE_REFUSED)),
      full_loss_(LossCounter(metrics, FW_LOSS_FILES_FULL)),
      notes_(metrics.AddCounter("firewatch_unwind_notes_total",
                                "Mappings in samples whose file the kernel side did not know.")),
      notes_unmatched_(metrics.AddCounter(
          "firewatch_unwind_notes_unmatched_total",
          "Of these, mappings that the process table did not know or knew otherwise.")),
      known_gauge_(
          metrics.AddGauge("firewatch_unwind_known_files", "Files that the kernel side knows.")) {}

// --- notes ---------------------------------------------------------------------------------------

void KnownFiles::OnNotes(std::span<const fw_file_note> notes, const Process& process) {
  for (const fw_file_note& note : notes) {
    notes_.Add();
    if (!Answer(note, process)) notes_unmatched_.Add();
  }
}

bool KnownFiles::Answer(const fw_file_note& note, const Process& process) {
  const fw_file_key key = KeyOf(note);
  // Samples that were on their way when the first one was answered.
  if (keys_.contains(key) || answers_left_ == 0) return true;
  const ProcessMapping* mapping = process.mappings->Find(note.start);
  if (mapping == nullptr || mapping->anonymous || note.end > mapping->end) return false;
  if (mapping->file_offset + (note.start - mapping->start) != note.file_offset) return false;
  if (Raw(mapping->file) >= kFileIdLimit) return true;  // its frames stay addresses
  --answers_left_;
  if (keys_.size() >= FW_KNOWN_FILES_MAX) ForgetLeastUsed();
  File& file = Meet(mapping->file, *mapping, process);
  const bool first_met = file.keys.empty();
  file.keys.push_back(key);
  keys_.emplace(key, Key{mapping->file, now_s_});
  ForgetOlder(key, file);
  if (!Publish(key, mapping->file, file)) {
    ForgetKey(key);
    return true;
  }
  if (file.state == State::kBuilding && first_met) {
    building_.push_back(mapping->file);
    moved_s_ = now_s_;
    TryTable(mapping->file);
    if (files_.at(mapping->file).state != State::kBuilding) building_.pop_back();
  }
  return true;
}

KnownFiles::File& KnownFiles::Meet(FileId id, const ProcessMapping& mapping,
                                   const Process& process) {
  const auto [it, added] = files_.try_emplace(id);
  File& file = it->second;
  if (!added) return file;
  file.pid = static_cast<uint32_t>(process.pid);
  file.parent = static_cast<uint32_t>(process.parent);
  file.start = mapping.start;
  file.end = mapping.end;
  if (!refused_.contains(id)) {
    if (const std::optional<uint32_t> table = store_.Reserve(); table.has_value()) {
      file.table = *table;
      return file;
    }
  }
  file.state = State::kNone;
  return file;
}

bool KnownFiles::Publish(const fw_file_key& key, FileId id, const File& file) {
  const absl::Status status = memory_.SetKnownFile(key, {.file_id = Raw(id), .table = file.table});
  if (!status.ok()) {
    full_loss_.Add();
    spdlog::debug("known files: {}", base::Message(status));
  }
  return status.ok();
}

// --- tables --------------------------------------------------------------------------------------

void KnownFiles::Advance(uint64_t now_s) {
  now_s_ = now_s;
  answers_left_ = kMaxAnswers;
  for (size_t left = std::min(building_.size(), kMaxQuestions); left > 0; --left) {
    const FileId id = building_.front();
    building_.pop_front();
    const auto file = files_.find(id);
    if (file == files_.end() || file->second.state != State::kBuilding) continue;
    TryTable(id);
    if (file->second.state == State::kBuilding) {
      building_.push_back(id);
    } else {
      moved_s_ = now_s;
    }
  }
  store_.LoadWaiting(now_s);
  known_gauge_.Set(static_cast<double>(keys_.size()));
}

void KnownFiles::TryTable(FileId id) {
  File& file = files_.at(id);
  auto table = symbolizer_.UnwindTableOf(id, file.pid, file.parent, file.start, file.end);
  if (table.ok()) {
    file.state = State::kTable;
    SetTable(id, &file, store_.Attach(file.table, *std::move(table)));
    return;
  }
  if (absl::IsUnavailable(table.status())) return;
  file.state = State::kNone;
  if (refused_.emplace(id, base::Message(table.status())).second) refused_loss_.Add();
  spdlog::debug("no unwind table for {}: {}", symbolizer_.Info(id).path,
                base::Message(table.status()));
  store_.Release(file.table);
  SetTable(id, &file, FW_NO_TABLE);
}

void KnownFiles::SetTable(FileId id, File* file, uint32_t table) {
  if (std::exchange(file->table, table) == table) return;
  for (const fw_file_key& key : file->keys) Publish(key, id, *file);
}

void KnownFiles::EndWindow(uint64_t now_s) {
  now_s_ = now_s;
  store_.EndWindow(now_s);
}

// --- forgetting ----------------------------------------------------------------------------------

uint64_t KnownFiles::LastUsed(const Key& entry) const {
  const File& file = files_.at(entry.file);
  if (file.table == FW_NO_TABLE) return entry.noted_s;
  return std::max<uint64_t>(entry.noted_s, store_.EntryOf(file.table).last_used_s);
}

// A file in use that is forgotten comes back with its next sample.
void KnownFiles::ForgetLeastUsed() {
  std::vector<std::pair<uint64_t, fw_file_key>> by_use;
  by_use.reserve(keys_.size());
  for (const auto& [key, entry] : keys_) by_use.emplace_back(LastUsed(entry), key);
  const size_t count = std::max<size_t>(by_use.size() / kForgetShare, 1);
  std::nth_element(by_use.begin(), by_use.begin() + static_cast<ptrdiff_t>(count - 1), by_use.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  by_use.resize(count);
  for (const auto& [used_s, key] : by_use) ForgetKey(key);
  full_loss_.Add(count);
}

void KnownFiles::ForgetUnused(symbolizer::FileSet* kept) {
  std::vector<fw_file_key> unused;
  for (const auto& [key, entry] : keys_) {
    // A program that runs for a moment every few seconds is mapped by nobody now, perhaps.
    if (!kept->contains(entry.file) && now_s_ >= LastUsed(entry) + kUnusedS) unused.push_back(key);
  }
  for (const fw_file_key& key : unused) ForgetKey(key);
  for (const auto& [id, file] : files_) kept->Add(id);
}

// Keys that the same inode had before its ctime changed (a hard link is enough): never met again,
// but as much used as their file, so that they would stay until the map is full of them.
void KnownFiles::ForgetOlder(const fw_file_key& key, const File& file) {
  const std::vector<fw_file_key> keys = file.keys;
  for (const fw_file_key& other : keys) {
    if (other.inode_address == key.inode_address && other.inode == key.inode &&
        other.device == key.device && other.generation != key.generation) {
      ForgetKey(other);
    }
  }
}

void KnownFiles::ForgetKey(const fw_file_key& key) {
  const auto entry = keys_.find(key);
  if (entry == keys_.end()) return;
  memory_.ForgetFile(key);
  const auto file = files_.find(entry->second.file);
  keys_.erase(entry);
  std::erase_if(file->second.keys,
                [&key](const fw_file_key& other) { return KeyEqual()(key, other); });
  if (!file->second.keys.empty()) return;
  if (file->second.table != FW_NO_TABLE) store_.Release(file->second.table);
  files_.erase(file);
}

// --- listing -------------------------------------------------------------------------------------

TableListing KnownFiles::List() const {
  TableListing listing;
  listing.table_bytes = store_.used_bytes();
  listing.slab_bytes = store_.slab_bytes();
  listing.slabs = store_.slab_count();
  listing.evictions = store_.evictions();
  absl::flat_hash_map<uint32_t, bool> counted;  // files may share a table
  for (const auto& [id, file] : files_) {
    const symbolizer::FileInfo info = symbolizer_.Info(id);
    TableListing::Row row;
    row.path = info.path;
    row.build_id = info.build_id;
    row.state = file.state == State::kBuilding ? "being built" : "none";
    if (const auto reason = refused_.find(id); reason != refused_.end())
      row.reason = reason->second;
    if (file.table != FW_NO_TABLE) {
      const TableStore::Entry entry = store_.EntryOf(file.table);
      row.last_used_s = entry.last_used_s;
      row.uses = entry.uses;
      if (entry.table != nullptr) {
        row.rows = entry.table->counts().rows_merged;
        row.rules = entry.table->rules().size();
        row.bytes = entry.bytes;
        row.state = entry.loaded ? "loaded" : "not loaded";
        if (entry.loaded && counted.try_emplace(file.table).second) listing.rows_loaded += row.rows;
      }
    }
    listing.rows.push_back(std::move(row));
  }
  std::sort(listing.rows.begin(), listing.rows.end(), [](const auto& a, const auto& b) {
    return a.bytes != b.bytes ? a.bytes > b.bytes : a.path < b.path;
  });
  return listing;
}

}  // namespace firewatch::agent
