// SPDX-License-Identifier: Apache-2.0
// Units are handed out in order, a few small ones at once, read by any thread, and added to the
// table in order again: by whichever thread finds the next ones done. A thread that is too far
// ahead waits, so that only a few units are in memory at once.
#include "symbolizer/index/line_build.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <thread>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "base/status.h"
#include "symbolizer/dwarf/split_units.h"
#include "symbolizer/index/line_table_writer.h"

namespace firewatch::symbolizer {
namespace {

using dwarf::CodeFilter;
using dwarf::InfoFile;
using dwarf::SplitUnits;
using dwarf::UnitCounts;
using dwarf::UnitLines;
using dwarf::UnitReader;

constexpr int kMaxThreads = 64;
// Rows of units that wait for an earlier one. One unit can be a tenth of a program: as much is read
// meanwhile. About 2 MB.
constexpr size_t kMaxRowsWaiting = size_t{64} << 10;
// Of .debug_info, at least, are handed out together: a unit of C takes some microseconds, in which
// threads would meet at the lock.
constexpr uint64_t kBatchBytes = uint64_t{32} << 10;
// The entries of so small a unit are elsewhere, or it has a line program alone: its size says
// nothing, and two are a batch.
constexpr uint64_t kTinyUnitBytes = 256;

uint64_t BytesOf(const DwarfSections& s) {
  return s.info.size() + s.abbrev.size() + s.str.size() + s.line.size() + s.line_str.size() +
         s.ranges.size() + s.rnglists.size() + s.addr.size() + s.str_offsets.size() +
         s.aranges.size();
}

}  // namespace

class LineBuild::Reading {
 public:
  Reading(const DwarfInput& input, int threads)
      : alt_(input.alt.empty() ? std::nullopt : std::make_optional<InfoFile>(input.alt, nullptr)),
        file_(input.main, alt_ ? &*alt_ : nullptr),
        filter_(input.executable),
        split_(input) {
    for (int i = 1; i < threads; ++i) others_.emplace_back([this] { Work(); });
  }
  ~Reading() { Stop(); }
  Reading(const Reading&) = delete;
  Reading& operator=(const Reading&) = delete;

  // Reads what is left, together with the other threads, and adds all to the writer.
  absl::StatusOr<UnitCounts> Finish(LineTableWriter& writer) {
    // Also when memory ends: no other thread may use the writer after this.
    const absl::Cleanup stop = [this] { Stop(); };
    {
      std::unique_lock<std::mutex> lock(mutex_);
      writer_ = &writer;
      AddDone(lock);  // others may wait for that
    }
    Work();
    Stop();
    RETURN_IF_ERROR(status_);
    return counts_;
  }
  const InfoFile& file() const { return file_; }

 private:
  struct Piece {
    size_t unit;
    UnitLines lines;
  };
  struct Batch {
    size_t end;  // the unit behind it
    std::vector<Piece> pieces;

    size_t rows() const {
      size_t count = 0;
      for (const Piece& piece : pieces) count += piece.lines.rows.size();
      return count;
    }
  };
  // No batch more is begun; waits for those under way.
  void Stop() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      next_to_read_ = file_.unit_offsets().size();
      moved_.notify_all();
    }
    for (std::thread& other : others_) other.join();
    others_.clear();
  }
  // What each thread does.
  void Work() {
    UnitReader reader(split_);
    UnitCounts counts;
    std::unique_lock<std::mutex> lock(mutex_);
    while (status_.ok() && next_to_read_ < file_.unit_offsets().size()) {
      if (rows_waiting_ > kMaxRowsWaiting) {
        moved_.wait(lock);
        continue;
      }
      const size_t first = next_to_read_;
      next_to_read_ = EndOfBatch(first);
      Batch batch = {.end = next_to_read_, .pieces = {}};
      lock.unlock();
      for (size_t unit = first; unit < batch.end; ++unit) {
        const auto take = [&](UnitLines&& piece) {
          // One that has to wait is copied: the copy has no room to spare.
          if (!AddEarly(first, &batch, unit, piece)) batch.pieces.push_back({unit, piece});
        };
        reader.Read(file_, file_.unit_offsets()[unit], filter_, take, &counts);
      }
      lock.lock();
      rows_waiting_ += batch.rows();
      done_.emplace(first, std::move(batch));
      if (!adding_) AddDone(lock);
    }
    counts_.Add(counts);
  }
  size_t EndOfBatch(size_t first) const {
    const std::span<const uint64_t> offsets = file_.unit_offsets();
    size_t end = first;
    for (uint64_t bytes = 0; end < offsets.size() && bytes < kBatchBytes; ++end) {
      const uint64_t next =
          end + 1 < offsets.size() ? offsets[end + 1] : file_.sections().info.size();
      const uint64_t size = next - offsets[end];
      bytes += size < kTinyUnitBytes ? kBatchBytes / 2 : size;
    }
    return end;
  }
  // A piece of a batch that is next, and those before it, go into the table before the batch is
  // read to its end. False when it is not next.
  bool AddEarly(size_t first, Batch* before, size_t unit, UnitLines& piece) {
    if (next_to_add_ != first) return false;
    std::unique_lock<std::mutex> lock(mutex_);
    if (adding_ || !status_.ok()) return false;
    adding_ = true;
    lock.unlock();
    absl::Status status = AddPieces(before);
    if (status.ok()) status = writer_->Add(unit, std::move(piece));
    lock.lock();
    adding_ = false;
    if (status_.ok()) status_ = std::move(status);
    return true;
  }
  // By the one thread that has set adding_.
  absl::Status AddPieces(Batch* batch) {
    for (Piece& piece : batch->pieces) {
      RETURN_IF_ERROR(writer_->Add(piece.unit, std::move(piece.lines)));
    }
    batch->pieces.clear();
    return absl::OkStatus();
  }
  // Adds the batches that are next, one after the other, without the lock.
  void AddDone(std::unique_lock<std::mutex>& lock) {
    adding_ = true;
    while (status_.ok()) {
      const auto next = done_.find(next_to_add_);
      if (next == done_.end()) break;
      Batch batch = std::move(next->second);
      done_.erase(next);
      rows_waiting_ -= batch.rows();
      lock.unlock();
      absl::Status status = AddPieces(&batch);
      lock.lock();
      if (status_.ok()) status_ = std::move(status);
      next_to_add_ = batch.end;
      moved_.notify_all();
    }
    adding_ = false;
    if (!status_.ok()) moved_.notify_all();
  }

  const std::optional<InfoFile> alt_;
  const InfoFile file_;
  CodeFilter filter_;
  SplitUnits split_;
  LineTableWriter* writer_ = nullptr;  // of whoever has adding_; set by Finish

  std::mutex mutex_;  // guards all below
  std::condition_variable moved_;
  size_t next_to_read_ = 0;
  std::atomic<size_t> next_to_add_ = 0;  // written with the lock; the first unit of a batch
  bool adding_ = true;                   // nobody does before Finish
  size_t rows_waiting_ = 0;              // in done_
  std::map<size_t, Batch> done_;         // by first unit
  UnitCounts counts_;
  absl::Status status_;
  std::vector<std::thread> others_;  // last: they use what stands above
};

LineBuild::LineBuild(const DwarfInput& input, const LineBuildOptions& options)
    : input_(input), options_(options) {
  if (input.main.info.empty()) return;
  reading_ = std::make_unique<Reading>(input, std::clamp(options.threads, 1, kMaxThreads));
}

LineBuild::~LineBuild() = default;

absl::StatusOr<LineBuildStats> LineBuild::Finish(NameInterner& names, SectionSink& section,
                                                 const std::function<void()>& names_done) {
  if (reading_ == nullptr) return base::NotFound("no .debug_info");
  LineBuildStats stats;
  stats.dwarf_bytes = BytesOf(input_.main) + BytesOf(input_.alt) + BytesOf(input_.dwp);
  LineTableWriter writer(names, section, options_.put_aside);
  ASSIGN_OR_RETURN(static_cast<UnitCounts&>(stats), reading_->Finish(writer));
  if (reading_->file().cut_short()) ++stats.units_bad;
  if (stats.units <= stats.units_bad && stats.functions == 0) {
    return base::DataLoss("none of {} units can be read", stats.units_bad);
  }
  names_done();
  const uint64_t max_rows = std::min(options_.max_rows, (uint64_t{4} << 20) + stats.dwarf_bytes);
  RETURN_IF_ERROR(writer.Finish(max_rows));
  stats.rows = writer.row_count();
  stats.overlaps = writer.overlaps();
  return stats;
}

absl::StatusOr<LineBuildStats> BuildLines(const DwarfInput& input, const LineBuildOptions& options,
                                          NameInterner& names, SectionSink& section) {
  return LineBuild(input, options).Finish(names, section);
}

}  // namespace firewatch::symbolizer
