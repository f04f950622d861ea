// SPDX-License-Identifier: Apache-2.0
// Where the kernel's BPF programs lie and what they are called, by the bpf() system call: programs
// come by the hour on some machines, and to read all of /proc/kallsyms for each takes 0.1 CPU s.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace firewatch::symbolizer {

// One function of a program, of its compiled code.
struct BpfFunction {
  uint64_t start = 0;
  uint64_t end = 0;  // behind it
  std::string name;  // as in kallsyms: "bpf_prog_6deef7357e7b4530_on_tick"
};

class BpfProgramReader {
 public:
  // CAP_SYS_ADMIN is needed for others' programs; without it there are none.
  static std::unique_ptr<BpfProgramReader> ForThisKernel();
  virtual ~BpfProgramReader() = default;

  // Functions of the programs that were loaded since the last call; the first time of all. With no
  // new program it is one system call, else some 50 us for each. Those that went are not reported.
  virtual std::vector<BpfFunction> ReadNew() = 0;
};

// By address. One thread.
class BpfFunctions {
 public:
  // Takes the place of what overlaps it: that is no longer loaded.
  void Add(BpfFunction function);
  // nullptr: none that was added. Valid until DropRetired.
  const BpfFunction* At(uint64_t address) const;
  void DropRetired() { retired_.clear(); }

 private:
  using Map = std::map<uint64_t, BpfFunction>;  // by start
  Map functions_;
  std::vector<Map::node_type> retired_;
};

}  // namespace firewatch::symbolizer
