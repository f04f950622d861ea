// SPDX-License-Identifier: Apache-2.0
// A Symbolizer for tests of other rooms: files are ids, names are what the test put there.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "symbolizer/symbolizer.h"

namespace firewatch::symbolizer {

class FakeSymbolizer final : public Symbolizer {
 public:
  // Every offset in [begin, end) of the file with this path is called `name`.
  // With several over one offset the first is the physical function, the others are inlined.
  void AddSymbol(const std::string& path, uint64_t begin, uint64_t end, const std::string& name,
                 const std::string& file = "", uint32_t line = 0) {
    symbols_.push_back({path, begin, end, name, file, line});
  }
  void AddKernelSymbol(uint64_t begin, uint64_t end, const std::string& name,
                       const std::string& module = "") {
    kernel_.push_back({module, begin, end, name, "", 0});
  }

  FileId Intern(const FileIdentity& file) override {
    for (size_t i = 0; i < files_.size(); ++i) {
      if (files_[i] == file) return static_cast<FileId>(i);
    }
    files_.push_back(file);
    build_ids_.push_back(file.build_id.ToHex());
    return static_cast<FileId>(files_.size() - 1);
  }
  void Request(FileId file, uint32_t, uint32_t, uint64_t, uint64_t) override {
    requested.insert(files_[static_cast<size_t>(file)].path);
  }
  absl::StatusOr<std::shared_ptr<const MappedUnwindTable>> UnwindTableOf(FileId file, uint32_t,
                                                                         uint32_t, uint64_t,
                                                                         uint64_t) override {
    ++table_questions;
    const auto table = tables.find(files_[static_cast<size_t>(file)].path);
    if (table == tables.end()) return base::NotFound("no unwind table");
    return table->second;
  }
  absl::StatusOr<base::UniqueFd> OpenFile(FileId, uint32_t, uint32_t, uint64_t, uint64_t) override {
    return base::NotFound("files of a fake have no bytes");
  }
  size_t Poll(int) override { return pending; }
  void NoteUse(FileId file, uint64_t frames) override {
    used[files_[static_cast<size_t>(file)].path] += frames;
  }
  bool WaitForLines(int) override { return true; }
  std::vector<FileSegment> SegmentsOf(FileId) override {
    return {{.file_offset = 0x1000, .vaddr = 0x2000, .file_size = 0x1000}};
  }
  FileInfo Info(FileId file) const override {
    const auto index = static_cast<size_t>(file);
    return {.path = files_[index].path,
            .build_id = build_ids_[index],
            .content_id = build_ids_[index],
            .size_bytes = 10'000,
            .state = FileState::kReady,
            .no_names = NameReason::kNone,
            .no_lines = NameReason::kNoDebugInfo,
            .reason = ""};
  }
  NameReason Lookup(FileId file, uint64_t file_offset, std::vector<SymbolFrame>* frames) override {
    frames->clear();
    const std::string& path = files_[static_cast<size_t>(file)].path;
    // What was put there last is innermost.
    for (auto row = symbols_.rbegin(); row != symbols_.rend(); ++row) {
      if (row->path != path || file_offset < row->begin || file_offset >= row->end) continue;
      frames->push_back({.name = row->name,
                         .system_name = row->name,
                         .file = row->file,
                         .line = row->line,
                         .start_line = row->line == 0 ? 0 : row->line - 1});
    }
    return frames->empty() ? NameReason::kNoSymbols : NameReason::kNone;
  }
  void RequestJit(uint32_t, uint64_t incarnation,
                  absl::FunctionRef<std::optional<JitMarker>()> find_marker) override {
    if (jit_requested.insert(incarnation).second) jit_markers[incarnation] = find_marker();
  }
  NameReason LookupJit(uint64_t incarnation, uint64_t address,
                       std::vector<SymbolFrame>* frames) override {
    frames->clear();
    const auto found = jit_names.find({incarnation, address});
    if (found == jit_names.end()) return NameReason::kAnonymousMemory;
    frames->push_back({.name = found->second, .system_name = found->second});
    return NameReason::kNone;
  }
  KernelSymbol LookupKernel(uint64_t address) override {
    for (const Row& row : kernel_) {
      if (address >= row.begin && address < row.end) {
        return {.name = row.name, .module = row.path, .found = true};
      }
    }
    return {};
  }
  std::string_view KernelReason() override { return ""; }
  std::vector<FileId> ForgetUnused(const FileSet& files_kept) override {
    kept = files_kept;
    return std::exchange(forgotten, {});
  }
  uint64_t MappedBytes() const override { return 0; }

  size_t pending = 0;                                              // what Poll answers
  std::set<std::string> requested;                                 // paths
  std::map<std::string, uint64_t> used;                            // frames by path
  std::map<std::pair<uint64_t, uint64_t>, std::string> jit_names;  // by incarnation and address
  std::set<uint64_t> jit_requested;                                // incarnations
  std::map<uint64_t, std::optional<JitMarker>> jit_markers;        // what they came with
  // By path; a file without an entry has no table.
  std::map<std::string, absl::StatusOr<std::shared_ptr<const MappedUnwindTable>>> tables;
  size_t table_questions = 0;
  FileSet kept;                   // of the last ForgetUnused
  std::vector<FileId> forgotten;  // what the next one answers

 private:
  struct Row {
    std::string path;
    uint64_t begin, end;
    std::string name;
    std::string file;
    uint32_t line = 0;
  };

  std::deque<FileIdentity> files_;  // deque: views into it stay valid
  std::deque<std::string> build_ids_;
  std::deque<Row> symbols_;
  std::deque<Row> kernel_;
};

}  // namespace firewatch::symbolizer
