// SPDX-License-Identifier: Apache-2.0
// Answers the notes of samples: which file a mapping is that the kernel side does not know, and
// where that file's unwind table is.
//
//   note --process table--> file --symbolizer--> table --table_store--> slabs
//                             |
//                             +--> known_files: frames of the file leave the kernel as FILE frames
//
// The first note of a file is answered at once, without its table; the table follows as soon as the
// helper has built it (or the cache has it: then at once, too).
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "agent/core/process_table.h"
#include "agent/cpu/table_memory.h"
#include "agent/cpu/table_store.h"
#include "base/metrics.h"
#include "symbolizer/symbolizer.h"

namespace firewatch::agent {

// What `firewatch doctor --tables` prints.
struct TableListing {
  struct Row {
    std::string path;
    std::string build_id;
    uint64_t rows = 0;   // of the table, after merging
    uint64_t bytes = 0;  // in slabs, 0 when not loaded
    uint64_t rules = 0;
    uint32_t last_used_s = 0;  // CLOCK_MONOTONIC
    uint32_t uses = 0;
    std::string_view state;  // "loaded", "not loaded", "being built", "none"
    std::string reason;      // why there is none
  };
  std::vector<Row> rows;
  uint64_t rows_loaded = 0;
  uint64_t table_bytes = 0;
  uint64_t slab_bytes = 0;
  uint64_t slabs = 0;
  uint64_t evictions = 0;
};

// One home thread. Everything passed by reference must outlive it.
class KnownFiles {
 public:
  KnownFiles(TableMemory& memory, TableStore::Budget budget, symbolizer::Symbolizer& symbolizer,
             base::MetricsRegistry& metrics);

  // The notes of one sample of `process`. A mapping that the process table does not have (or has
  // otherwise) is passed over: the next sample brings the note again.
  void OnNotes(std::span<const fw_file_note> notes, const Process& process);

  // Takes what the helper has built into the kernel. After each Poll of the symbolizer.
  void Advance(uint64_t now_s);
  // Tables are being built: call Advance again soon. Not said for files that nothing has come of
  // for some seconds (one that cannot be opened is tried for minutes): those need no hurry.
  bool building() const { return !building_.empty() && now_s_ <= moved_s_ + kHurryS; }

  void EndWindow(uint64_t now_s);
  // Between windows: gives back what is over the budget now.
  void ObeyBudget() { store_.ObeyBudget(); }

  // Gives up files that `kept` does not have and that no note has named for a minute; adds the
  // others to it (Symbolizer::ForgetUnused).
  void ForgetUnused(symbolizer::FileSet* kept);
  // The id will stand for another file.
  void OnForgotten(symbolizer::FileId file) { refused_.erase(file); }

  TableListing List() const;
  const TableStore& store() const { return store_; }

 private:
  static constexpr uint64_t kHurryS = 3;
  static constexpr uint64_t kUnusedS = 60;

  struct KeyHash {
    size_t operator()(const fw_file_key& key) const;
  };
  struct KeyEqual {
    bool operator()(const fw_file_key& a, const fw_file_key& b) const;
  };
  struct Key {
    symbolizer::FileId file{};
    uint64_t noted_s = 0;
  };
  // Seconds of CLOCK_MONOTONIC; by a note, or by a walk that used its table.
  uint64_t LastUsed(const Key& entry) const;
  enum class State : uint8_t { kBuilding, kTable, kNone };
  struct File {
    State state = State::kBuilding;
    uint32_t table = FW_NO_TABLE;
    std::vector<fw_file_key> keys;  // one file may be met under several: overlays, bind mounts
    // Where the file was seen, for the symbolizer.
    uint32_t pid = 0;
    uint32_t parent = 0;
    uint64_t start = 0;
    uint64_t end = 0;
  };

  bool Answer(const fw_file_note& note, const Process& process);
  File& Meet(symbolizer::FileId id, const ProcessMapping& mapping, const Process& process);
  bool Publish(const fw_file_key& key, symbolizer::FileId id, const File& file);
  void TryTable(symbolizer::FileId id);
  void SetTable(symbolizer::FileId id, File* file, uint32_t table);
  void ForgetLeastUsed();
  void ForgetOlder(const fw_file_key& key, const File& file);
  void ForgetKey(const fw_file_key& key);

  symbolizer::Symbolizer& symbolizer_;
  TableMemory& memory_;
  TableStore store_;
  uint64_t now_s_ = 0;
  uint64_t moved_s_ = 0;  // when a file was last added to building_ or left it
  size_t answers_left_;
  absl::flat_hash_map<fw_file_key, Key, KeyHash, KeyEqual> keys_;
  absl::flat_hash_map<symbolizer::FileId, File> files_;
  std::deque<symbolizer::FileId> building_;
  absl::flat_hash_map<symbolizer::FileId, std::string> refused_;  // each file once, with the reason

  base::Counter& refused_loss_;
  base::Counter& full_loss_;
  base::Counter& notes_;
  base::Counter& notes_unmatched_;
  base::Gauge& known_gauge_;
};

}  // namespace firewatch::agent
