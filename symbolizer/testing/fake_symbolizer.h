// SPDX-License-Identifier: Apache-2.0
// A Symbolizer for tests of other rooms: files are ids, names are what the test put there.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
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
  void AddSymbol(const std::string& path, uint64_t begin, uint64_t end, const std::string& name) {
    symbols_.push_back({path, begin, end, name});
  }
  void AddKernelSymbol(uint64_t begin, uint64_t end, const std::string& name,
                       const std::string& module = "") {
    kernel_.push_back({module, begin, end, name});
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
  FileInfo Info(FileId file) const override {
    const auto index = static_cast<size_t>(file);
    return {.path = files_[index].path,
            .build_id = build_ids_[index],
            .size_bytes = 10'000,
            .state = FileState::kReady,
            .reason = ""};
  }
  bool Lookup(FileId file, uint64_t file_offset, Symbol* symbol) override {
    const Row* row = Find(symbols_, files_[static_cast<size_t>(file)].path, file_offset);
    if (row == nullptr) return false;
    *symbol = {.name = row->name, .system_name = row->name};
    return true;
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
  uint64_t MappedBytes() const override { return 0; }

  size_t pending = 0;               // what Poll answers
  std::set<std::string> requested;  // paths
  // By path; a file without an entry has no table.
  std::map<std::string, absl::StatusOr<std::shared_ptr<const MappedUnwindTable>>> tables;
  size_t table_questions = 0;

 private:
  struct Row {
    std::string path;
    uint64_t begin, end;
    std::string name;
  };
  static const Row* Find(const std::deque<Row>& rows, const std::string& path, uint64_t offset) {
    for (const Row& row : rows) {
      if (row.path == path && offset >= row.begin && offset < row.end) return &row;
    }
    return nullptr;
  }

  std::deque<FileIdentity> files_;  // deque: views into it stay valid
  std::deque<std::string> build_ids_;
  std::deque<Row> symbols_;
  std::deque<Row> kernel_;
};

}  // namespace firewatch::symbolizer
