// SPDX-License-Identifier: Apache-2.0
// What the helper does with one request's files. No process, no socket: this is also what tests and
// the fuzz target call.
#pragma once

#include "symbolizer/elf/byte_source.h"
#include "symbolizer/helper/protocol.h"
#include "symbolizer/object_files.h"

namespace firewatch::symbolizer {

// Fills everything but `magic`, `operation` and `sequence`. `output_fd` is used by kBuild,
// kBuildLines, kTable and kStrip; `open_dwo`, which may be empty, by kBuildLines.
HelperAnswer AnswerForFiles(HelperOperation operation, const ObjectFds& fds, int output_fd,
                            DwoOpener open_dwo);

// The same of one file that is read, never mapped; kBuildLines too.
HelperAnswer AnswerForElf(HelperOperation operation, const ByteSource& elf, int output_fd);

}  // namespace firewatch::symbolizer
