// SPDX-License-Identifier: Apache-2.0
#include "cli/symbolize_input.h"

#include <algorithm>
#include <cctype>
#include <charconv>

#include "base/status.h"

namespace firewatch::cli {
namespace {

constexpr std::string_view kSpaces = " \t\n\v\f\r";

bool Consume(std::string_view* text, std::string_view prefix) {
  if (!text->starts_with(prefix)) return false;
  text->remove_prefix(prefix.size());
  return true;
}

void TrimLeft(std::string_view* text) {
  text->remove_prefix(std::min(text->find_first_not_of(kSpaces), text->size()));
}

void TrimRight(std::string_view* text) {
  const size_t last = text->find_last_not_of(kSpaces);
  *text = text->substr(0, last == std::string_view::npos ? 0 : last + 1);
}

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// Takes a word, quoted or up to a blank, from the front. Empty when a quote is not closed.
std::string_view TakeWord(std::string_view* text) {
  TrimLeft(text);
  if (text->empty()) return {};
  const char first = text->front();
  std::string_view word;
  if (first == '"' || first == '\'') {
    const size_t end = text->find(first, 1);
    if (end == std::string_view::npos) return {};
    word = text->substr(1, end - 1);
    text->remove_prefix(end + 1);
    return word;
  }
  const size_t end = std::min(text->find_first_of(" \n\r"), text->size());
  word = text->substr(0, end);
  text->remove_prefix(end);
  return word;
}

std::string Upper(std::string text) {
  for (char& c : text) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return text;
}

enum class Prefix : uint8_t { kNone, kFile, kBuildId };

absl::StatusOr<Prefix> TakePrefix(std::string_view* text) {
  Prefix prefix = Prefix::kNone;
  while (!text->empty()) {
    TrimLeft(text);
    Prefix next = Prefix::kNone;
    if (Consume(text, "FILE:")) next = Prefix::kFile;
    if (next == Prefix::kNone && Consume(text, "BUILDID:")) next = Prefix::kBuildId;
    if (next == Prefix::kNone) break;
    if (prefix != Prefix::kNone) {
      return base::InvalidArgument("duplicate input file specification prefix");
    }
    prefix = next;
  }
  return prefix;
}

// The file, when this line has to name it.
absl::Status TakeModule(std::string_view* text, bool given, SymbolizeRequest* request) {
  ASSIGN_OR_RETURN(const Prefix prefix, TakePrefix(text));
  if (prefix == Prefix::kNone) {
    if (given) return absl::OkStatus();
    const std::string_view name = TakeWord(text);
    if (name.empty()) return base::InvalidArgument("no input filename has been specified");
    request->module = name;
    return absl::OkStatus();
  }
  TrimLeft(text);
  if (text->empty()) {
    return prefix == Prefix::kFile ? base::InvalidArgument("must be followed by an input file")
                                   : base::InvalidArgument("must be followed by a hash");
  }
  if (given) return base::InvalidArgument("input file has already been specified");
  const std::string_view name = TakeWord(text);
  if (name.empty()) return base::InvalidArgument("unbalanced quotes in input file name");
  if (prefix == Prefix::kFile) {
    request->module = name;
    return absl::OkStatus();
  }
  request->build_id = NormalizeBuildId(name);
  if (request->build_id.empty()) return base::InvalidArgument("wrong format of build-id");
  request->module = Upper(request->build_id);
  return absl::OkStatus();
}

}  // namespace

std::optional<uint64_t> ParseNumber(std::string_view text) {
  int radix = 10;
  if (Consume(&text, "0x") || Consume(&text, "0X")) {
    radix = 16;
  } else if (Consume(&text, "0b") || Consume(&text, "0B")) {
    radix = 2;
  } else if (Consume(&text, "0o")) {
    radix = 8;
  } else if (text.size() > 1 && text[0] == '0' && IsDigit(text[1])) {
    text.remove_prefix(1);
    radix = 8;
  }
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, radix);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::string NormalizeBuildId(std::string_view text) {
  std::string digits;
  if (text.size() % 2 != 0) digits = "0";
  for (const char c : text) {
    if (!std::isxdigit(static_cast<unsigned char>(c))) return "";
    digits += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  return digits;
}

absl::Status ParseSymbolizeLine(std::string_view line, std::string_view module,
                                std::string_view build_id, SymbolizeRequest* request) {
  *request = SymbolizeRequest();
  request->module = build_id.empty() ? std::string(module) : Upper(std::string(build_id));
  request->build_id = build_id;
  if (Consume(&line, "DATA ")) {
    request->kind = SymbolizeRequest::Kind::kData;
  } else if (Consume(&line, "FRAME ")) {
    request->kind = SymbolizeRequest::Kind::kFrame;
  } else {
    (void)Consume(&line, "CODE ");
  }
  RETURN_IF_ERROR(TakeModule(&line, !module.empty() || !build_id.empty(), request));

  TrimLeft(&line);
  TrimRight(&line);
  if (line.empty()) return base::InvalidArgument("no module offset has been specified");
  // What follows the address is ignored, as in GNU addr2line.
  const std::string_view address = line.substr(0, line.find_first_of(" \n\r"));
  if (const std::optional<uint64_t> value = ParseNumber(address); value.has_value()) {
    request->offset = value;
    return absl::OkStatus();
  }
  if (IsDigit(address.front())) return base::InvalidArgument("expected a number as module offset");
  request->symbol = address;
  request->offset = 0;
  if (const size_t plus = address.rfind('+'); plus != std::string_view::npos && plus > 0) {
    const std::optional<uint64_t> added = ParseNumber(address.substr(plus + 1));
    if (added.has_value()) {
      request->symbol = address.substr(0, plus);
      request->offset = added;
    }
  }
  return absl::OkStatus();
}

}  // namespace firewatch::cli
