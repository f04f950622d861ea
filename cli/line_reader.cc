// SPDX-License-Identifier: Apache-2.0
#include "cli/line_reader.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace firewatch::cli {
namespace {

constexpr size_t kReadBytes = size_t{256} << 10;

std::string_view WithoutReturn(std::string_view line) {
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

}  // namespace

std::optional<std::string_view> LineReader::Next(const std::function<bool()>& before_wait) {
  while (true) {
    const size_t end = buffer_.find('\n', std::max(begin_, scanned_));
    if (end != std::string::npos) {
      const std::string_view line(buffer_.data() + begin_, end - begin_);
      begin_ = scanned_ = end + 1;
      if (cutting_) {
        cutting_ = false;
        continue;
      }
      return WithoutReturn(line.substr(0, kMaxLineBytes));
    }
    if (!cutting_ && buffer_.size() - begin_ > kMaxLineBytes) {
      cut_line_ = buffer_.substr(begin_, kMaxLineBytes);
      begin_ = scanned_ = buffer_.size();
      cutting_ = true;
      return cut_line_;
    }
    if (cutting_) begin_ = buffer_.size();
    scanned_ = buffer_.size();
    if (at_end_) {
      // The last line may have no end.
      const std::string_view line(buffer_.data() + begin_, buffer_.size() - begin_);
      begin_ = buffer_.size();
      if (line.empty() || cutting_) return std::nullopt;
      return WithoutReturn(line);
    }
    buffer_.erase(0, begin_);
    scanned_ -= begin_;
    begin_ = 0;
    if (!before_wait()) return std::nullopt;
    const size_t old = buffer_.size();
    buffer_.resize(old + kReadBytes);
    ssize_t got = 0;
    do {
      got = ::read(fd_, buffer_.data() + old, kReadBytes);
    } while (got < 0 && errno == EINTR);
    buffer_.resize(old + static_cast<size_t>(std::max<ssize_t>(got, 0)));
    at_end_ = got <= 0;
  }
}

}  // namespace firewatch::cli
