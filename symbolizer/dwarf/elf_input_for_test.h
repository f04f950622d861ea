// SPDX-License-Identifier: Apache-2.0
// A DwarfInput from files on disk, for tests and for dwarf_scan: 64-bit ELF files whose debug
// sections are not compressed, which are ours or our compilers' and are mapped as they are.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/mapped_file.h"
#include "symbolizer/dwarf/input.h"

namespace firewatch::symbolizer {

struct DwarfTestFiles {
  std::string main;
  std::string alt;  // "" for none
  std::string dwp;
  bool find_dwo = false;  // as DW_AT_comp_dir / DW_AT_dwo_name say
};

class ElfInputForTest {
 public:
  static absl::StatusOr<std::unique_ptr<ElfInputForTest>> Open(const DwarfTestFiles& files);

  // Valid as long as this object. Its executable segments are those of the main file, if it has
  // bytes for any (a separate debug file has none).
  const DwarfInput& input() const { return input_; }
  uint64_t text_start() const { return text_start_; }
  uint64_t text_size() const { return text_size_; }

 private:
  absl::StatusOr<DwarfSections> Map(const std::string& path, bool split, bool is_main);

  DwarfInput input_;
  uint64_t text_start_ = 0;
  uint64_t text_size_ = 0;
  std::mutex mutex_;  // guards what follows, while units are read
  std::vector<base::MappedFile> files_;
  std::vector<std::unique_ptr<DwarfSections>> dwo_;
};

}  // namespace firewatch::symbolizer
