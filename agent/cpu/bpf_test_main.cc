// SPDX-License-Identifier: Apache-2.0
// The test binary is its own symbol helper, as the agent is.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string_view>

#include "symbolizer/symbolizer.h"

int main(int argc, char** argv) {
  if (argc == 3 && std::string_view(argv[1]) == "--symbol-helper") {
    return firewatch::symbolizer::RunSymbolHelper(std::atoi(argv[2]));
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
