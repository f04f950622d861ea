// SPDX-License-Identifier: Apache-2.0
// /proc/kallsyms, line by line: "ffffffff81000000 T name\t[module]". The list has starts only, no
// sizes, so the end of a function is the start of whatever comes next, data included.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "symbolizer/index/index_writer.h"

namespace firewatch::symbolizer {

// Any thread, one at a time. Memory: 24 bytes per line and the names of text symbols; about 6 MB
// for 120,000 lines, while it is read.
class KallsymsParser {
 public:
  // Text in pieces of any size. Lines that do not have the shape are counted and skipped, except
  // that a line longer than 4 KiB is cut.
  void Feed(std::string_view piece);
  // The last line may lack its newline.
  void Finish();

  uint64_t lines() const { return lines_; }
  uint64_t malformed() const { return malformed_; }
  // All addresses are zero for readers whom the kernel does not trust (kptr_restrict).
  bool addresses_hidden() const { return lines_ > 0 && nonzero_ == 0; }

  // Named ranges of addresses; names point into this parser. Call once, after Finish.
  // Kept are types t, T, w, W; kernel, modules and [bpf], not [__builtin__ftrace] (trampolines
  // under one name) and not the linker script's end markers (_etext …), which only bound others.
  // `module_ends`: text end by module name where known; a module's last function ends there, else
  // 4 KiB on; a BPF program 64 KiB on; the kernel's last 1 MiB on.
  struct ModuleEnd {
    std::string name;
    uint64_t end = 0;
  };
  IndexSource MakeSource(const std::vector<ModuleEnd>& module_ends);

 private:
  struct Entry {
    uint64_t address = 0;
    uint32_t name = 0;  // offset in names_
    uint16_t name_size = 0;
    uint16_t module = 0;
    char type = 0;  // 0: bounds others only
  };
  void TakeLine(std::string_view line);
  uint16_t ModuleNumber(std::string_view name);
  uint64_t ReachOf(const Entry& entry, const std::vector<ModuleEnd>& module_ends) const;

  std::string partial_;
  std::vector<Entry> entries_;
  std::string names_;
  std::vector<std::string> modules_ = {""};
  uint64_t lines_ = 0;
  uint64_t malformed_ = 0;
  uint64_t nonzero_ = 0;
};

// "name size refs users state 0xaddress" lines of /proc/modules.
std::vector<KallsymsParser::ModuleEnd> ParseModules(std::string_view text);

}  // namespace firewatch::symbolizer
