// SPDX-License-Identifier: Apache-2.0
// Strings one behind the other: a list of many short ones that is cleared and filled again with
// every unit, or copied, without asking for memory for each.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

namespace firewatch::symbolizer::dwarf {

class StringList {
 public:
  StringList() = default;
  StringList(std::initializer_list<std::string_view> strings) {
    for (const std::string_view string : strings) Add(string);
  }

  void Add(std::string_view string) {
    text_.append(string);
    ends_.push_back(text_.size());
  }
  size_t size() const { return ends_.size(); }
  // Valid until the next change.
  std::string_view operator[](size_t index) const {
    const size_t start = index == 0 ? 0 : ends_[index - 1];
    return std::string_view(text_).substr(start, ends_[index] - start);
  }
  // Keeps the memory.
  void Clear() {
    text_.clear();
    ends_.clear();
  }

 private:
  std::string text_;
  std::vector<size_t> ends_;
};

}  // namespace firewatch::symbolizer::dwarf
