// SPDX-License-Identifier: Apache-2.0
#include "cli/line_reader.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <vector>

#include "base/unique_fd.h"

namespace firewatch::cli {
namespace {

class LineReaderTest : public testing::Test {
 protected:
  LineReaderTest() {
    int ends[2];
    EXPECT_EQ(::pipe(ends), 0);
    read_.Reset(ends[0]);
    write_.Reset(ends[1]);
  }
  void Write(std::string_view text) {
    ASSERT_EQ(::write(write_.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  std::vector<std::string> Rest(LineReader& reader) {
    std::vector<std::string> lines;
    while (const auto line = reader.Next([this] {
      ++waits_;
      return true;
    })) {
      lines.emplace_back(*line);
    }
    return lines;
  }

  base::UniqueFd read_;
  base::UniqueFd write_;
  int waits_ = 0;
};

TEST_F(LineReaderTest, LinesWithAndWithoutReturnsAndTheLastOneWithoutEnd) {
  LineReader reader(read_.get());
  Write("one\n\ntwo\r\n three ");
  write_.Reset();
  EXPECT_EQ(Rest(reader), (std::vector<std::string>{"one", "", "two", " three "}));
}

TEST_F(LineReaderTest, TellsBeforeItWaitsAndNotBefore) {
  LineReader reader(read_.get());
  Write("one\ntwo\n");
  int waits = 0;
  const auto wait = [&waits] { return ++waits < 2; };
  EXPECT_EQ(reader.Next(wait), "one");
  EXPECT_EQ(waits, 1);
  EXPECT_EQ(reader.Next(wait), "two");
  EXPECT_EQ(waits, 1);
  // The pipe is open and empty: a reader that did not ask first would hang here.
  EXPECT_EQ(reader.Next(wait), std::nullopt);
  EXPECT_EQ(waits, 2);
}

TEST_F(LineReaderTest, ALineOverTwoReadsIsOneLine) {
  LineReader reader(read_.get());
  Write("0x11");
  bool more = false;
  const auto line = reader.Next([&] {
    if (std::exchange(more, true)) Write("40\n");
    return true;
  });
  EXPECT_EQ(line, "0x1140");
}

TEST_F(LineReaderTest, TooLongLinesAreCutAndTheNextOneIsWhole) {
  LineReader reader(read_.get());
  std::vector<std::string> lines;
  const std::string piece(50'000, 'x');
  int pieces = 0;
  while (const auto line = reader.Next([&] {
    if (pieces < 4) {
      Write(piece);
    } else if (pieces == 4) {
      Write("\nnext\n");
    } else {
      write_.Reset();
    }
    ++pieces;
    return true;
  })) {
    lines.emplace_back(*line);
  }
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0].size(), LineReader::kMaxLineBytes);
  EXPECT_EQ(lines[1], "next");
}

}  // namespace
}  // namespace firewatch::cli
