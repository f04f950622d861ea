// SPDX-License-Identifier: Apache-2.0
// A folder of its own for one test, and programs (compilers, binutils) to fill it.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "base/unique_fd.h"

namespace firewatch::symbolizer {

class ToolFolder {
 public:
  ToolFolder()
      : path_((std::filesystem::temp_directory_path() / "firewatch-tools-XXXXXX").string()) {
    EXPECT_NE(::mkdtemp(path_.data()), nullptr);
  }
  ~ToolFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ToolFolder(const ToolFolder&) = delete;
  ToolFolder& operator=(const ToolFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string At(std::string_view name) const { return path_ + "/" + std::string(name); }

  void Write(std::string_view name, std::string_view content) const {
    std::filesystem::create_directories(std::filesystem::path(At(name)).parent_path());
    std::ofstream(At(name), std::ios::binary) << content;
  }
  std::string Read(std::string_view name) const {
    std::ifstream in(At(name), std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  std::vector<std::byte> Bytes(std::string_view name) const {
    const std::string text = Read(name);
    const auto* data = reinterpret_cast<const std::byte*>(text.data());
    return {data, data + text.size()};
  }
  base::UniqueFd Open(std::string_view name) const {
    base::UniqueFd fd(::open(At(name).c_str(), O_RDONLY | O_CLOEXEC));
    EXPECT_TRUE(fd.valid()) << At(name);
    return fd;
  }
  // A shell command line, run inside the folder. A failure fails the test.
  void Run(const std::string& command) const {
    const std::string line = "cd '" + path_ + "' && { " + command + "; } >log 2>&1";
    const int status = std::system(line.c_str());
    EXPECT_EQ(status, 0) << command << "\n" << Read("log");
  }

 private:
  std::string path_;
};

inline bool HaveTool(const std::string& name) {
  return std::system(("command -v " + name + " >/dev/null 2>&1").c_str()) == 0;
}

inline base::UniqueFd EmptyFile() {
  const std::string folder = std::filesystem::temp_directory_path().string();
  std::string path = folder + "/firewatch-empty-XXXXXX";
  base::UniqueFd fd(::mkostemp(path.data(), O_CLOEXEC));
  EXPECT_TRUE(fd.valid());
  ::unlink(path.c_str());
  return fd;
}

}  // namespace firewatch::symbolizer

// At the head of a test: says which program is missing.
#define SKIP_WITHOUT_TOOL(name) \
  if (!::firewatch::symbolizer::HaveTool(name)) GTEST_SKIP() << (name) << " is not installed"
