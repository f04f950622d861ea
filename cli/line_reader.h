// SPDX-License-Identifier: Apache-2.0
// Lines of a descriptor. Before it waits for more, the caller is told, so that it can hand out what
// it has: an interactive user gets each answer at once, and a pipe with a million lines is not
// answered line by line.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace firewatch::cli {

// One home thread.
class LineReader {
 public:
  // Longer lines are cut: what is behind is dropped.
  static constexpr size_t kMaxLineBytes = size_t{64} << 10;

  // `fd` must outlive the reader.
  explicit LineReader(int fd) : fd_(fd) {}

  // The next line without its end ("\n" or "\r\n"); valid until the next call. Nothing at the end
  // of input, on a read error, or when `before_wait` says false.
  std::optional<std::string_view> Next(const std::function<bool()>& before_wait);

 private:
  const int fd_;
  std::string buffer_;
  size_t begin_ = 0;      // of what was not given out
  size_t scanned_ = 0;    // up to here there is no end of line
  bool cutting_ = false;  // in the rest of a line that was too long
  bool at_end_ = false;
  std::string cut_line_;
};

}  // namespace firewatch::cli
