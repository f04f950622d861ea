// SPDX-License-Identifier: Apache-2.0
// What one unit says about its code, flattened: disjoint ranges of addresses, each with the chain
// of inlined calls, the file and the line there.
//
// Steps, for one unit at a time:
//   1. run the line program: segments (address, file, line)                  line_program.h
//   2. walk the entries: functions and inlined calls with their ranges       functions.h
//   3. flatten the ranges: where several cover an address, the entry that comes last speaks; that
//      is the innermost one when they nest, and LLVM's choice when they do not
//   4. join 1 and 3, so that a row begins where either changes; rows that say the same become one.
//      Code without a line keeps its chain, code of the unit outside of all functions its line.
// 2 to 4 are done piece by piece, some thousand ranges at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "symbolizer/dwarf/code_filter.h"
#include "symbolizer/dwarf/functions.h"
#include "symbolizer/dwarf/interned.h"
#include "symbolizer/dwarf/line_program.h"
#include "symbolizer/dwarf/split_units.h"
#include "symbolizer/dwarf/string_list.h"
#include "symbolizer/dwarf/unit.h"

namespace firewatch::symbolizer::dwarf {

// A piece of a unit. Numbers refer to the vectors beside; 0 is "none" for files, nodes and chains,
// whose first element says nothing.
struct UnitLines {
  struct Function {
    const char* name = nullptr;  // in a section, with a NUL behind it; nullptr: none
    uint32_t file = 0;
    uint32_t line = 0;

    bool operator==(const Function&) const = default;  // names by where they are
    uint64_t Hash() const {
      return MixHash(MixHash(reinterpret_cast<uintptr_t>(name), file), line);
    }
  };
  // A call of a function, inlined or (parent 0) not. A parent comes before its children.
  struct Node {
    uint32_t function = 0;
    uint32_t parent = 0;
    uint32_t call_file = 0;
    uint32_t call_line = 0;

    bool operator==(const Node&) const = default;
    uint64_t Hash() const {
      return MixHash(MixHash(0, uint64_t{function} << 32 | parent),
                     uint64_t{call_file} << 32 | call_line);
    }
  };
  struct Chain {
    uint32_t node = 0;  // 0: no function is known here
    uint32_t file = 0;
    uint32_t line = 0;

    bool operator==(const Chain&) const = default;
    uint64_t Hash() const { return MixHash(MixHash(0, uint64_t{node} << 32 | file), line); }
  };
  struct Row {
    uint64_t address;  // up to the next row
    uint32_t chain;    // 0: nothing is known from here on; always so in the last row
  };

  StringList files;
  std::vector<Function> functions;
  std::vector<Node> nodes;
  std::vector<Chain> chains;
  std::vector<Row> rows;
  std::vector<AddressRange> code;  // of the functions, in no order

  // Keeps the memory.
  void Clear() {
    files.Clear();
    functions.clear();
    nodes.clear();
    chains.clear();
    rows.clear();
    code.clear();
  }
};

struct UnitCounts {
  uint64_t units = 0;
  uint64_t units_bad = 0;          // header or entries that cannot be read; the rest is used
  uint64_t units_without_dwo = 0;  // skeletons whose split unit cannot be had
  uint64_t functions = 0;          // concrete functions with code
  uint64_t inlined = 0;            // inlined calls with code
  uint64_t ranges_dropped = 0;     // tombstones and code outside the executable segments
  uint64_t sequences_dropped = 0;  // the same, of line programs
  uint64_t line_programs_bad = 0;
  uint64_t names_missing = 0;  // functions whose name is in a file that was not given, or nowhere

  void Add(const UnitCounts& other);
};

// Gets the pieces of a unit as they come. May move a piece away; what is left of it is used again
// for the next one, so that reading needs no new memory.
using TakePiece = std::function<void(UnitLines&& piece)>;

// Memory that is used again for each unit. One thread.
class UnitReader {
 public:
  // `split` must outlive the reader.
  explicit UnitReader(SplitUnits& split);

  // Reads the unit at `offset`. What is damaged is left out and counted.
  void Read(const InfoFile& file, uint64_t offset, const CodeFilter& filter, const TakePiece& take,
            UnitCounts* counts);

 private:
  void ReadLines(const Unit& unit, const CodeFilter& filter, UnitCounts* counts);
  UnitLines* StartPiece();
  void FinishPiece(UnitLines* out, const TakePiece& take);
  void Flatten(UnitLines* out);
  void AddCodeOutsideFunctions(const Unit& unit, const CodeFilter& filter, UnitLines* out);
  void AddRows(uint64_t start, uint64_t end, uint32_t entry, UnitLines* out);
  void AddRow(uint64_t address, uint32_t entry, const LineRow* line, UnitLines* out);
  uint32_t NodeOf(uint32_t entry, UnitLines* out);
  uint32_t FunctionOf(uint32_t name, UnitLines* out);
  uint32_t FileOf(uint64_t file, UnitLines* out);
  uint32_t ForeignFileOf(const FunctionName& said, UnitLines* out);
  uint32_t AddFile(UnitLines* out);

  SplitUnits& split_;
  ForeignUnits foreign_;
  FunctionWalk walk_;
  LineProgram program_;
  uint64_t line_bytes_read_ = 0;  // by this reader
  LineRows line_rows_;
  LineRows::Reader line_reader_{line_rows_};
  std::vector<const CodeRange*> open_ranges_;
  std::vector<AddressRange> unit_ranges_;
  std::string_view comp_dir_;
  std::string path_;
  UnitLines piece_;
  // From what was read to numbers in UnitLines; UINT32_MAX: not yet there.
  std::vector<uint32_t> node_of_entry_;
  std::vector<uint32_t> function_of_name_;
  std::vector<uint32_t> file_of_index_;
  IndexMap file_of_foreign_;  // by number of the unit, index in its table
  std::vector<uint32_t> path_to_root_;
  Interned<UnitLines::Function> functions_;
  Interned<UnitLines::Node> nodes_;
  Interned<UnitLines::Chain> chains_;
};

}  // namespace firewatch::symbolizer::dwarf
