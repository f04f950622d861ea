// SPDX-License-Identifier: Apache-2.0
// What the helper does with one file. No process, no socket: this is also what tests and the fuzz
// target call.
#pragma once

#include "symbolizer/elf/byte_source.h"
#include "symbolizer/helper/protocol.h"

namespace firewatch::symbolizer {

// Fills everything but `magic`, `operation` and `sequence`. `output_fd` is used by kBuild
// and kTable.
HelperAnswer AnswerForElf(HelperOperation operation, const ByteSource& elf, int output_fd);

}  // namespace firewatch::symbolizer
