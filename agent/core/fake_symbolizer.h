// SPDX-License-Identifier: Apache-2.0
// A symbolizer that only hands out ids, for tests of the process table.
#pragma once

#include <vector>

#include "symbolizer/symbolizer.h"

namespace firewatch::agent {

class FakeSymbolizer final : public symbolizer::Symbolizer {
 public:
  symbolizer::FileId Intern(const symbolizer::FileIdentity& file) override {
    for (size_t i = 0; i < files_.size(); ++i) {
      if (files_[i] == file) return symbolizer::FileId{static_cast<uint32_t>(i)};
    }
    files_.push_back(file);
    return symbolizer::FileId{static_cast<uint32_t>(files_.size() - 1)};
  }
  void Request(symbolizer::FileId, uint32_t, uint32_t, uint64_t, uint64_t) override {}
  size_t Poll(int) override { return 0; }
  symbolizer::FileInfo Info(symbolizer::FileId file) const override {
    symbolizer::FileInfo info;
    info.path = files_[static_cast<size_t>(file)].path;
    return info;
  }
  bool Lookup(symbolizer::FileId, uint64_t, symbolizer::Symbol*) override { return false; }
  symbolizer::KernelSymbol LookupKernel(uint64_t) override { return {}; }
  std::string_view KernelReason() override { return ""; }
  uint64_t MappedBytes() const override { return 0; }

 private:
  std::vector<symbolizer::FileIdentity> files_;
};

}  // namespace firewatch::agent
