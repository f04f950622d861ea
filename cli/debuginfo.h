// SPDX-License-Identifier: Apache-2.0
// `firewatch debuginfo`: gives a server the files by which it names what agents could not name.
#pragma once

#include <string>
#include <vector>

namespace firewatch::cli {

struct DebugInfoOptions {
  std::string server = "127.0.0.1:7171";  // or a URL
  std::vector<std::string> files;
  int wait_seconds = 60;  // for the server to have read a file; 0: does not wait
};

// Exit codes: 0; 1 when the server does not answer, or not every file was taken and read.
int RunDebugInfoUpload(const DebugInfoOptions& options);
int RunDebugInfoList(const DebugInfoOptions& options);

}  // namespace firewatch::cli
