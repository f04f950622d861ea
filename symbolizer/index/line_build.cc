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
#include <new>
#include <optional>
#include <span>
#include <thread>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "base/status.h"
#include "symbolizer/dwarf/split_units.h"
#include "symbolizer/index/line_table_writer.h"
#include "symbolizer/index/row_codec.h"

namespace firewatch::symbolizer {
namespace {

using dwarf::CodeFilter;
using dwarf::InfoFile;
using dwarf::SplitUnits;
using dwarf::UnitCounts;
using dwarf::UnitLines;
using dwarf::UnitReader;

constexpr int kMaxThreads = 64;
// Rows of units that wait for an earlier one: one unit can be a tenth of a program, and as much is
// read meanwhile. About 2 MB, and more in a large program, whose index is larger, too: with 64 Ki
// rows one of two threads stood still for 25 of ceph-mon's 460 ms, with these (124 Ki) for none.
constexpr size_t kMinRowsWaiting = size_t{64} << 10;
constexpr uint64_t kDwarfBytesPerRowWaiting = 2 << 10;
// Of .debug_info, at least, are handed out together: a unit of C takes some microseconds, in which
// threads would meet at the lock.
constexpr uint64_t kBatchBytes = uint64_t{32} << 10;
// The entries of so small a unit are elsewhere, or it has a line program alone: its size says
// nothing, and two are a batch.
constexpr uint64_t kTinyUnitBytes = 256;
// The memory of a larger piece is given back.
constexpr size_t kMaxSpareRows = 512;

uint64_t BytesOf(const DwarfSections& s) {
  return s.info.size() + s.abbrev.size() + s.str.size() + s.line.size() + s.line_str.size() +
         s.ranges.size() + s.rnglists.size() + s.addr.size() + s.str_offsets.size() +
         s.aranges.size();
}

}  // namespace

class LineBuild::Reading {
 public:
  Reading(const DwarfInput& input, int threads)
      : input_(input),
        filter_(input.executable),
        split_(input),
        max_rows_waiting_(
            std::max(kMinRowsWaiting, BytesOf(input.main) / kDwarfBytesPerRowWaiting)) {
    for (int i = 1; i < threads; ++i) others_.emplace_back([this] { WorkInThread(); });
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
    spare_ = {};
    if (no_memory_) return base::ResourceExhausted("lines need more memory than allowed");
    RETURN_IF_ERROR(status_);
    return counts_;
  }
  // After Finish.
  bool cut_short() const { return file_->cut_short(); }

 private:
  // One that waits. Its rows are in `rows` alone.
  struct Piece {
    size_t unit = 0;
    UnitLines lines;
    EncodedRows rows;
    size_t row_count = 0;
  };
  struct Batch {
    size_t end;  // the unit behind it
    std::vector<Piece> pieces;

    size_t rows() const {
      size_t count = 0;
      for (const Piece& piece : pieces) count += piece.row_count;
      return count;
    }
  };
  // No batch more is begun; waits for those under way.
  void Stop() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      next_to_read_ = SIZE_MAX;
      moved_.notify_all();
    }
    for (std::thread& other : others_) other.join();
    others_.clear();
  }
  // Finds the units: by whoever comes first, beside whatever the one who asked does meanwhile.
  void Open() {
    if (!input_.alt.empty()) alt_.emplace(input_.alt, nullptr);
    file_.emplace(input_.main, alt_ ? &*alt_ : nullptr);
  }
  // What each thread does.
  void Work() {
    UnitReader reader(split_);
    UnitCounts counts;
    EncodedRows rows;
    std::call_once(opened_, [this] { Open(); });
    const std::span<const uint64_t> units = file_->unit_offsets();
    std::unique_lock<std::mutex> lock(mutex_);
    while (status_.ok() && next_to_read_ < units.size()) {
      if (rows_waiting_ > max_rows_waiting_) {
        moved_.wait(lock);
        continue;
      }
      const size_t first = next_to_read_;
      next_to_read_ = EndOfBatch(first);
      Batch batch = {.end = next_to_read_, .pieces = {}};
      lock.unlock();
      for (size_t unit = first; unit < batch.end; ++unit) {
        const auto take = [&](UnitLines&& piece) {
          EncodeRows(piece.rows, &rows);
          if (AddEarly(first, &batch, unit, piece, rows)) return;
          batch.pieces.push_back(CopyOf(unit, piece, rows));
        };
        reader.Read(*file_, units[unit], filter_, take, &counts);
      }
      lock.lock();
      rows_waiting_ += batch.rows();
      done_.emplace(first, std::move(batch));
      if (!adding_) AddDone(lock);
    }
    counts_.Add(counts);
  }
  void WorkInThread() {
    try {
      Work();
    } catch (const std::bad_alloc&) {
      // What it was adding to stays as it is: nobody adds anything more.
      const std::lock_guard<std::mutex> lock(mutex_);
      no_memory_ = true;
      next_to_read_ = SIZE_MAX;
      moved_.notify_all();
    }
  }
  size_t EndOfBatch(size_t first) const {
    const std::span<const uint64_t> offsets = file_->unit_offsets();
    size_t end = first;
    for (uint64_t bytes = 0; end < offsets.size() && bytes < kBatchBytes; ++end) {
      const uint64_t next = end + 1 < offsets.size() ? offsets[end + 1] : input_.main.info.size();
      const uint64_t size = next - offsets[end];
      bytes += size < kTinyUnitBytes ? kBatchBytes / 2 : size;
    }
    return end;
  }
  // Into the memory of one that has waited before.
  Piece CopyOf(size_t unit, const UnitLines& lines, const EncodedRows& rows) {
    Piece copy;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!spare_.empty()) {
        copy = std::move(spare_.back());
        spare_.pop_back();
      }
    }
    copy.unit = unit;
    copy.lines.files = lines.files;
    copy.lines.functions = lines.functions;
    copy.lines.nodes = lines.nodes;
    copy.lines.chains = lines.chains;
    copy.lines.code = lines.code;
    copy.rows = rows;
    copy.row_count = lines.rows.size();
    return copy;
  }
  void KeepSpare(std::vector<Piece>& pieces) {
    for (Piece& piece : pieces) {
      std::vector<UnitLines::Row>().swap(piece.lines.rows);  // what a claim has left there
      if (piece.row_count <= kMaxSpareRows) spare_.push_back(std::move(piece));
    }
    pieces.clear();
  }
  // A piece of a batch that is next, and those before it, go into the table before the batch is
  // read to its end. False when it is not next.
  bool AddEarly(size_t first, Batch* before, size_t unit, UnitLines& piece, EncodedRows& rows) {
    if (next_to_add_ != first) return false;
    std::unique_lock<std::mutex> lock(mutex_);
    if (adding_ || !status_.ok()) return false;
    adding_ = true;
    lock.unlock();
    absl::Status status = AddPieces(before);
    if (status.ok()) status = writer_->Add(unit, std::move(piece), &rows);
    lock.lock();
    KeepSpare(before->pieces);
    adding_ = false;
    if (status_.ok()) status_ = std::move(status);
    return true;
  }
  // By the one thread that has set adding_.
  absl::Status AddPieces(Batch* batch) {
    for (Piece& piece : batch->pieces) {
      RETURN_IF_ERROR(writer_->Add(piece.unit, std::move(piece.lines), &piece.rows));
    }
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
      KeepSpare(batch.pieces);
      if (status_.ok()) status_ = std::move(status);
      next_to_add_ = batch.end;
      moved_.notify_all();
    }
    adding_ = false;
    if (!status_.ok()) moved_.notify_all();
  }

  const DwarfInput& input_;
  std::once_flag opened_;
  std::optional<InfoFile> alt_;  // these two are set by Open
  std::optional<InfoFile> file_;
  CodeFilter filter_;
  SplitUnits split_;
  const size_t max_rows_waiting_;
  LineTableWriter* writer_ = nullptr;  // of whoever has adding_; set by Finish

  std::mutex mutex_;  // guards all below
  std::condition_variable moved_;
  size_t next_to_read_ = 0;
  std::atomic<size_t> next_to_add_ = 0;  // written with the lock; the first unit of a batch
  bool adding_ = true;                   // nobody does before Finish
  size_t rows_waiting_ = 0;              // in done_
  std::map<size_t, Batch> done_;         // by first unit
  std::vector<Piece> spare_;             // memory of pieces that have been added
  UnitCounts counts_;
  absl::Status status_;
  bool no_memory_ = false;           // for another thread than the one that waits for the end
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
  if (reading_->cut_short()) ++stats.units_bad;
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
