// SPDX-License-Identifier: Apache-2.0
// What `firewatch symbolize` prints: the forms LLVM, GNU and JSON of llvm-symbolizer 19, byte by
// byte, but for what Firewatch does not keep: columns and discriminators are 0. Text in, text out:
// no file, no symbolizer.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cli/symbolize_input.h"

namespace firewatch::cli {

enum class SymbolizeStyle : uint8_t { kLlvm, kGnu, kJson };

// What more is known of a frame than llvm-symbolizer's forms have room for.
struct FrameDetails {
  std::vector<std::string_view> flags;  // "inlined", "plt", "cold", "folded", ...
  std::vector<std::string> aliases;     // other names of the same code
};

// One frame of an answer; empty texts and 0 are what is not known. Views are borrowed for the call.
struct SourceFrame {
  std::string_view function;
  std::string_view file;
  uint32_t line = 0;
  // Where the function begins in the source and in memory.
  std::string_view start_file;
  uint32_t start_line = 0;
  std::optional<uint64_t> start_address;
  // Firewatch's own (--details), in JSON only; null: not asked for.
  const FrameDetails* details = nullptr;
};

struct SymbolizeFormat {
  SymbolizeStyle style = SymbolizeStyle::kLlvm;
  bool functions = true;
  bool addresses = false;  // the address before each answer
  bool pretty = false;     // one line per frame; JSON: indented
  bool verbose = false;
  uint32_t source_lines = 0;  // this many lines of the source around each frame's line
  // Text of a source file, nothing when it cannot be read; valid until the next call. Needed for
  // source_lines only.
  std::function<std::optional<std::string_view>(std::string_view file)> read_source;
};

// Appends to a text. One home thread.
class SymbolizePrinter {
 public:
  // `out` must outlive the printer.
  SymbolizePrinter(SymbolizeFormat format, std::string* out);

  // Around the answers to addresses that were arguments: JSON makes them one array, the other forms
  // print nothing.
  void BeginList();
  void EndList();

  // Frames of an address or, when the line could not be read, of none. Innermost first. No frame:
  // "??".
  void Frames(const SymbolizeRequest& request, std::span<const SourceFrame> frames);
  // Places of a symbol; none: "??".
  void Places(const SymbolizeRequest& request, std::span<const SourceFrame> places);
  // The module cannot be used. JSON says why; the other forms print "??" (the reason goes to
  // standard error, which is not the printer's business).
  void Failure(const SymbolizeRequest& request, std::string_view message);

 private:
  class Json;
  void Plain(const SymbolizeRequest& request, std::span<const SourceFrame> frames);
  void PlainFrame(const SourceFrame& frame, bool inlined);
  void JsonFrame(Json& json, const SourceFrame& frame);
  void JsonFrames(const SymbolizeRequest& request, std::string_view key,
                  std::span<const SourceFrame> frames);
  template <typename Body>
  void JsonObject(Body body);
  std::string Source(const SourceFrame& frame) const;

  const SymbolizeFormat format_;
  std::string* const out_;
  bool in_list_ = false;
  bool list_has_items_ = false;
};

}  // namespace firewatch::cli
