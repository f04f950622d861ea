// SPDX-License-Identifier: Apache-2.0
#include "cli/symbolize_format.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

namespace firewatch::cli {
namespace {

constexpr SourceFrame kUnknownFrame;

std::string_view OrUnknown(std::string_view text) { return text.empty() ? "??" : text; }

// Length of the well-formed UTF-8 sequence at the front of `text`, 0 when there is none.
size_t Utf8Length(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return 1;
  const size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  // Overlong forms, surrogates, beyond U+10FFFF.
  const unsigned char second = byte(1);
  if ((first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) ||
      (first == 0xf0 && second < 0x90) || (first == 0xf4 && second > 0x8f)) {
    return 0;
  }
  return length;
}

}  // namespace

// Writes an object key by key, compact or indented by two.
class SymbolizePrinter::Json {
 public:
  Json(std::string* out, bool pretty, size_t depth) : out_(*out), pretty_(pretty), depth_(depth) {}

  void Open(char bracket) {
    out_ += bracket;
    ++depth_;
    first_ = true;
  }
  void Close(char bracket) {
    --depth_;
    if (!first_) NewLine();
    out_ += bracket;
    first_ = false;
  }
  void Next() {
    if (!first_) out_ += ',';
    first_ = false;
    NewLine();
  }
  void Key(std::string_view key) {
    Next();
    Quote(key);
    out_ += pretty_ ? ": " : ":";
  }
  void Text(std::string_view key, std::string_view value) {
    Key(key);
    Quote(value);
  }
  template <typename List>
  void Texts(std::string_view key, const List& values) {
    Key(key);
    Open('[');
    for (const auto& value : values) {
      Next();
      Quote(value);
    }
    Close(']');
  }
  void Number(std::string_view key, uint64_t value) {
    Key(key);
    fmt::format_to(std::back_inserter(out_), "{}", value);
  }
  void Hex(std::string_view key, std::optional<uint64_t> value) {
    Text(key, value.has_value() ? fmt::format("{:#x}", *value) : "");
  }

 private:
  void NewLine() {
    if (!pretty_) return;
    out_ += '\n';
    out_.append(2 * depth_, ' ');
  }
  // Names come from files of strangers: bytes that are not UTF-8 become U+FFFD.
  void Quote(std::string_view text) {
    out_ += '"';
    while (!text.empty()) {
      const char c = text.front();
      const size_t length = Utf8Length(text);
      if (length == 0) {
        out_ += "\xef\xbf\xbd";
      } else if (c == '"' || c == '\\') {
        out_ += {'\\', c};
      } else if (c == '\t' || c == '\n' || c == '\r') {
        out_ += {'\\', c == '\t' ? 't' : c == '\n' ? 'n' : 'r'};
      } else if (length == 1 && c < 0x20) {
        fmt::format_to(std::back_inserter(out_), "\\u{:04x}", static_cast<unsigned>(c));
      } else {
        out_ += text.substr(0, length);
      }
      text.remove_prefix(std::max<size_t>(length, 1));
    }
    out_ += '"';
  }

  std::string& out_;
  const bool pretty_;
  size_t depth_;
  bool first_ = true;
};

SymbolizePrinter::SymbolizePrinter(SymbolizeFormat format, std::string* out)
    : format_(std::move(format)), out_(out) {}

void SymbolizePrinter::BeginList() {
  if (format_.style != SymbolizeStyle::kJson) return;
  in_list_ = true;
  list_has_items_ = false;
  *out_ += '[';
}

void SymbolizePrinter::EndList() {
  if (!in_list_) return;
  in_list_ = false;
  *out_ += format_.pretty && list_has_items_ ? "\n]\n" : "]\n";
}

void SymbolizePrinter::Frames(const SymbolizeRequest& request,
                              std::span<const SourceFrame> frames) {
  const std::span<const SourceFrame> shown =
      frames.empty() ? std::span<const SourceFrame>(&kUnknownFrame, 1) : frames;
  if (format_.style == SymbolizeStyle::kJson) {
    JsonFrames(request, "Symbol", shown);
  } else {
    Plain(request, shown);
  }
}

void SymbolizePrinter::Places(const SymbolizeRequest& request,
                              std::span<const SourceFrame> places) {
  if (format_.style == SymbolizeStyle::kJson) {
    JsonFrames(request, "Loc", places);
  } else {
    // Each place is an answer of its own kind: none is "inlined by" the one before.
    const SourceFrame* first = places.empty() ? &kUnknownFrame : places.data();
    for (size_t i = 0; i < std::max<size_t>(places.size(), 1); ++i) PlainFrame(first[i], false);
    if (format_.style == SymbolizeStyle::kLlvm) *out_ += '\n';
  }
}

void SymbolizePrinter::Failure(const SymbolizeRequest& request, std::string_view message) {
  if (format_.style != SymbolizeStyle::kJson) {
    Plain(request, {&kUnknownFrame, 1});
    return;
  }
  JsonObject([&](Json& json) {
    if (request.symbol.empty()) json.Hex("Address", request.offset.value_or(0));
    json.Key("Error");
    json.Open('{');
    json.Text("Message", message);
    json.Close('}');
    json.Text("ModuleName", request.module);
    if (!request.symbol.empty()) json.Text("SymName", request.symbol);
  });
}

void SymbolizePrinter::Plain(const SymbolizeRequest& request, std::span<const SourceFrame> frames) {
  if (format_.addresses && request.symbol.empty() && request.offset.has_value()) {
    fmt::format_to(std::back_inserter(*out_), "{:#x}{}", *request.offset,
                   format_.pretty ? ": " : "\n");
  }
  bool inlined = false;
  for (const SourceFrame& frame : frames) {
    PlainFrame(frame, inlined);
    inlined = true;
  }
  if (format_.style == SymbolizeStyle::kLlvm) *out_ += '\n';
}

void SymbolizePrinter::PlainFrame(const SourceFrame& frame, bool inlined) {
  std::string& out = *out_;
  if (format_.functions) {
    if (format_.pretty && inlined) out += " (inlined by) ";
    out += OrUnknown(frame.function);
    out += format_.pretty ? " at " : "\n";
  }
  const std::string_view file = OrUnknown(frame.file);
  if (!format_.verbose) {
    fmt::format_to(std::back_inserter(out), "{}:{}", file, frame.line);
    if (format_.style == SymbolizeStyle::kLlvm) out += ":0";
    out += '\n';
    out += Source(frame);
    return;
  }
  fmt::format_to(std::back_inserter(out), "  Filename: {}\n", file);
  if (frame.start_line != 0) {
    fmt::format_to(std::back_inserter(out),
                   "  Function start filename: {}\n  Function start line: {}\n",
                   OrUnknown(frame.start_file), frame.start_line);
  }
  if (format_.style == SymbolizeStyle::kLlvm && frame.start_address.has_value()) {
    fmt::format_to(std::back_inserter(out), "  Function start address: {:#x}\n",
                   *frame.start_address);
  }
  fmt::format_to(std::back_inserter(out), "  Line: {}\n  Column: 0\n", frame.line);
}

template <typename Body>
void SymbolizePrinter::JsonObject(Body body) {
  if (in_list_ && std::exchange(list_has_items_, true)) *out_ += ',';
  if (in_list_ && format_.pretty) *out_ += "\n  ";
  Json json(out_, format_.pretty, in_list_ ? 1 : 0);
  json.Open('{');
  body(json);
  json.Close('}');
  if (!in_list_) *out_ += '\n';
}

void SymbolizePrinter::JsonFrame(Json& json, const SourceFrame& frame) {
  json.Open('{');
  if (frame.details != nullptr) json.Texts("Aliases", frame.details->aliases);
  json.Number("Column", 0);
  json.Number("Discriminator", 0);
  json.Text("FileName", frame.file);
  if (frame.details != nullptr) json.Texts("Flags", frame.details->flags);
  json.Text("FunctionName", format_.functions ? frame.function : std::string_view());
  json.Number("Line", frame.line);
  if (const std::string source = Source(frame); !source.empty()) json.Text("Source", source);
  json.Hex("StartAddress", frame.start_address);
  json.Text("StartFileName", frame.start_file);
  json.Number("StartLine", frame.start_line);
  json.Close('}');
}

void SymbolizePrinter::JsonFrames(const SymbolizeRequest& request, std::string_view key,
                                  std::span<const SourceFrame> frames) {
  JsonObject([&](Json& json) {
    if (request.symbol.empty() && request.offset.has_value()) json.Hex("Address", request.offset);
    // The keys are in alphabetical order.
    if (key == "Symbol") json.Text("ModuleName", request.module);
    json.Key(key);
    json.Open('[');
    for (const SourceFrame& frame : frames) {
      json.Next();
      JsonFrame(json, frame);
    }
    json.Close(']');
    if (key == "Loc") {
      json.Text("ModuleName", request.module);
      json.Text("SymName", request.symbol);
    }
  });
}

std::string SymbolizePrinter::Source(const SourceFrame& frame) const {
  if (format_.source_lines == 0 || frame.line == 0 || !format_.read_source) return "";
  const std::optional<std::string_view> text = format_.read_source(frame.file);
  if (!text.has_value()) return "";
  const uint64_t before = format_.source_lines / 2;
  const uint64_t first = frame.line > before ? frame.line - before : 1;
  const uint64_t last = first + format_.source_lines - 1;
  // As wide as the last number but one: llvm-symbolizer rounds a logarithm.
  const size_t width = fmt::formatted_size("{}", last - 1);
  std::string out;
  std::string_view rest = *text;
  for (uint64_t number = 1; number <= last && !rest.empty(); ++number) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (number < first) continue;
    if (line.ends_with('\r')) line.remove_suffix(1);
    fmt::format_to(std::back_inserter(out), "{:>{}}{}: {}\n", number, width,
                   number == frame.line ? " >" : "  ", line);
  }
  return out;
}

}  // namespace firewatch::cli
