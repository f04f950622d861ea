// SPDX-License-Identifier: Apache-2.0
// CHECK states what can only be false by a bug of ours; it is on in every build. Input from
// outside is never CHECKed: it gets a Status and a counter.
#pragma once

namespace firewatch::base {

// Prints "file:line: CHECK failed: text" to standard error and aborts.
[[noreturn]] void CheckFailed(const char* file, int line, const char* text);

}  // namespace firewatch::base

#define CHECK(condition)                               \
  (static_cast<bool>(condition) ? static_cast<void>(0) \
                                : ::firewatch::base::CheckFailed(__FILE__, __LINE__, #condition))
