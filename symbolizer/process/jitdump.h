// SPDX-License-Identifier: Apache-2.0
// jit-PID.dump, by which JITs name their code with lines (linux/tools/perf/Documentation/
// jitdump-specification.txt, version 1). A header and records, appended to while the process runs:
//
//   header  magic "DTiJ" u32, version u32, header bytes u32, ELF machine u32, pad u32, pid u32,
//           time u64, flags u64
//   record  id u32, bytes u32 (with this prefix), time u64, then by id:
//     0 load        pid u32, tid u32, vma u64, address u64, size u64, index u64, name\0, code
//     1 move        pid u32, tid u32, vma u64, old u64, new u64, size u64, index u64
//     2 debug info  address u64, count u64, then address u64, line u32, column u32, file\0 each;
//                   file "\xff" means that of the entry before; comes ahead of its load
//     3 close       nothing follows
//
// Written by a stranger, read in this process: fixed fields at checked offsets, lines only when
// they are asked for, no recursion. Code bytes are passed over unread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "symbolizer/elf/byte_source.h"
#include "symbolizer/process/code_map.h"

namespace firewatch::symbolizer {

struct JitSymbol {
  std::string name;
  std::string file;   // "" when unknown
  uint32_t line = 0;  // 0 when unknown
};

// One thread. The file is handed in for each call, since a source knows the size of its time.
class JitDump {
 public:
  explicit JitDump(size_t max_ranges) : ranges_(max_ranges) {}

  // Reads the records that were appended since the last call and are whole, at most
  // kMaxRecordsPerUpdate. InvalidArgument when this is no jitdump of this machine, DataLoss when
  // the records end in nonsense: for good, further calls change nothing. An error of reading
  // leaves what is known.
  absl::Status Update(const ByteSource& file);

  // False when no record covers the address. Reads name and line from the file.
  bool Find(const ByteSource& file, uint64_t address, JitSymbol* symbol) const;

  uint64_t records() const { return records_; }
  uint64_t malformed() const { return malformed_; }  // records whose fields contradict each other
  uint64_t dropped() const { return dropped_; }      // code beyond max_ranges
  size_t ranges() const { return ranges_.size(); }
  bool closed() const { return closed_; }

  static constexpr size_t kMaxRecordsPerUpdate = 65'536;
  static constexpr size_t kMaxNameBytes = 1024;  // longer ones are cut
  // A function's lines; more are not looked at.
  static constexpr uint64_t kMaxLineBytes = uint64_t{1} << 20;

 private:
  absl::Status ReadHeader(const ByteSource& file);
  absl::Status TakeLoad(const ByteSource& file, uint64_t at, uint32_t bytes);
  absl::Status TakeMove(const ByteSource& file, uint64_t at, uint32_t bytes);
  absl::Status TakeDebugInfo(const ByteSource& file, uint64_t at, uint32_t bytes);
  void FindLine(const ByteSource& file, uint64_t record, uint64_t address, JitSymbol* symbol) const;

  CodeMap ranges_;
  uint64_t read_ = 0;  // all records before are known; 0: the header has not been read
  bool closed_ = false;
  absl::Status broken_;
  absl::flat_hash_map<uint64_t, uint64_t> debug_info_;  // address -> record, until its load comes
  uint64_t records_ = 0;
  uint64_t malformed_ = 0;
  uint64_t dropped_ = 0;
};

}  // namespace firewatch::symbolizer
