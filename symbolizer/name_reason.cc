// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/symbolizer.h"

namespace firewatch::symbolizer {

std::string_view NameReasonText(NameReason reason) {
  switch (reason) {
    case NameReason::kNone:
      return "";
    case NameReason::kPending:
      return "being read";
    case NameReason::kNoFile:
      return "no file";
    case NameReason::kNoBuildId:
      return "no build id";
    case NameReason::kStripped:
      return "stripped";
    case NameReason::kNoSymbols:
      return "no symbol there";
    case NameReason::kDebugMismatch:
      return "debug file mismatch";
    case NameReason::kOverBudget:
      return "over budget";
    case NameReason::kRefused:
      return "damaged";
    case NameReason::kAnonymousMemory:
      return "code without a file";
    case NameReason::kUnknownMemory:
      return "unknown memory";
    case NameReason::kKernelHidden:
      return "kernel symbols are hidden";
    case NameReason::kNoDebugInfo:
      return "no debug information";
    case NameReason::kLinesOff:
      return "lines are off";
  }
  return "unknown";
}

}  // namespace firewatch::symbolizer
