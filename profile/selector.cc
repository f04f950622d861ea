// SPDX-License-Identifier: Apache-2.0
// ParseSelector of labels.h. The grammar:
//   selector = [ "{" [ matcher { "," matcher } [ "," ] ] "}" ]
//   matcher  = name ( "=" | "!=" | "=~" | "!~" ) string
//   name     = [a-zA-Z_][a-zA-Z0-9_.]* | string     (a string for names outside the plain form)
//   string   = "…" or '…' with escapes, or `…` without
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>

#include "base/status.h"
#include "profile/labels.h"
#include "profile/utf8.h"

namespace firewatch::profile {
namespace {

constexpr size_t kMaxSelectorBytes = size_t{16} << 10;
constexpr size_t kMaxMatchers = 64;

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

void AppendCodePoint(std::string& out, uint32_t code) {
  const auto put = [&out](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | (code >> 6));
    put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | (code >> 12));
    put(0x80 | ((code >> 6) & 0x3F));
    put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | (code >> 18));
    put(0x80 | ((code >> 12) & 0x3F));
    put(0x80 | ((code >> 6) & 0x3F));
    put(0x80 | (code & 0x3F));
  }
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  absl::StatusOr<Selector> Parse() {
    std::vector<Matcher> matchers;
    SkipSpace();
    if (AtEnd()) return Selector();
    if (!Take('{')) return Expected("\"{\"");
    SkipSpace();
    while (!Take('}')) {
      if (matchers.size() == kMaxMatchers) {
        return Error(position_, fmt::format("more than {} matchers", kMaxMatchers));
      }
      ASSIGN_OR_RETURN(Matcher matcher, ParseMatcher());
      matchers.push_back(std::move(matcher));
      SkipSpace();
      if (Take(',')) {
        SkipSpace();
      } else if (AtEnd() || Peek() != '}') {
        return Expected("\",\" or \"}\"");
      }
    }
    SkipSpace();
    if (!AtEnd()) return Expected("the end");
    return Selector(std::move(matchers));
  }

 private:
  bool AtEnd() const { return position_ == text_.size(); }
  char Peek() const { return text_[position_]; }
  bool Take(char c) {
    if (AtEnd() || Peek() != c) return false;
    ++position_;
    return true;
  }
  void SkipSpace() {
    while (!AtEnd() && (Peek() == ' ' || Peek() == '\t' || Peek() == '\n' || Peek() == '\r')) {
      ++position_;
    }
  }

  // Columns count characters, as an editor does.
  absl::Status Error(size_t position, std::string_view what) const {
    const auto before = text_.substr(0, position);
    const auto column = 1 + std::ranges::count_if(before, [](char c) {
                          return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
                        });
    return base::InvalidArgument("selector, column {}: {}", column, what);
  }

  absl::Status Expected(std::string_view what) const {
    if (AtEnd()) return Error(position_, fmt::format("expected {}, found the end", what));
    size_t bytes = 1;  // the whole character, so that the message stays valid UTF-8
    while (position_ + bytes < text_.size() &&
           (static_cast<unsigned char>(text_[position_ + bytes]) & 0xC0) == 0x80) {
      ++bytes;
    }
    return Error(position_,
                 fmt::format("expected {}, found \"{}\"", what, text_.substr(position_, bytes)));
  }

  absl::StatusOr<Matcher> ParseMatcher() {
    ASSIGN_OR_RETURN(std::string name, ParseName());
    SkipSpace();
    ASSIGN_OR_RETURN(const MatchOp op, ParseOperator());
    SkipSpace();
    const size_t value_position = position_;
    ASSIGN_OR_RETURN(const std::string value, ParseString("a quoted value"));
    // Pyroscope's clients ask for service_name.
    auto matcher = Matcher::Create(name == "service_name" ? "service" : name, op, value);
    if (!matcher.ok()) return Error(value_position, base::Message(matcher.status()));
    return matcher;
  }

  absl::StatusOr<std::string> ParseName() {
    const size_t start = position_;
    if (!AtEnd() && (Peek() == '"' || Peek() == '\'' || Peek() == '`')) {
      ASSIGN_OR_RETURN(std::string name, ParseString("a label name"));
      if (name.empty() || name.size() > kMaxLabelNameBytes) {
        return Error(start, fmt::format("expected a label name of 1 to {} bytes, found {} bytes",
                                        kMaxLabelNameBytes, name.size()));
      }
      return name;
    }
    while (!AtEnd() && IsNameByte(Peek())) ++position_;
    const std::string_view name = text_.substr(start, position_ - start);
    if (name.size() > kMaxLabelNameBytes) {
      return Error(start, fmt::format("expected a label name of 1 to {} bytes, found {} bytes",
                                      kMaxLabelNameBytes, name.size()));
    }
    if (!IsValidLabelName(name)) {
      position_ = start;
      return Expected("a label name");
    }
    return std::string(name);
  }

  static bool IsNameByte(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '.';
  }

  absl::StatusOr<MatchOp> ParseOperator() {
    if (Take('=')) return Take('~') ? MatchOp::kRegex : MatchOp::kEqual;
    if (Take('!')) {
      if (Take('=')) return MatchOp::kNotEqual;
      if (Take('~')) return MatchOp::kNotRegex;
      return Expected("\"=\" or \"~\" after \"!\"");
    }
    return Expected("one of = != =~ !~");
  }

  absl::StatusOr<std::string> ParseString(std::string_view what) {
    const size_t start = position_;
    if (AtEnd() || (Peek() != '"' && Peek() != '\'' && Peek() != '`')) return Expected(what);
    const char quote = Peek();
    ++position_;
    std::string value;
    while (true) {
      if (AtEnd()) return Error(start, "this quote is never closed");
      const char c = text_[position_++];
      if (c == quote) break;
      if (c != '\\' || quote == '`') {
        value.push_back(c);
      } else {
        RETURN_IF_ERROR(ParseEscape(value));
      }
    }
    if (!IsValidUtf8(value)) return Error(start, "the escapes give text that is not UTF-8");
    return value;
  }

  // After the backslash.
  absl::Status ParseEscape(std::string& value) {
    if (AtEnd()) return Expected("an escape");
    constexpr std::string_view kLetters = "abfnrtv\\\"'";
    constexpr std::string_view kMeanings = "\a\b\f\n\r\t\v\\\"'";
    const char letter = Peek();
    if (const size_t index = kLetters.find(letter); index != std::string_view::npos) {
      value.push_back(kMeanings[index]);
      ++position_;
      return absl::OkStatus();
    }
    const size_t digits = letter == 'x' ? 2 : letter == 'u' ? 4 : letter == 'U' ? 8 : 0;
    if (digits == 0) return Expected("an escape (\\\" \\\\ \\n \\t \\xHH \\uHHHH ...)");
    ++position_;
    uint32_t code = 0;
    for (size_t i = 0; i < digits; ++i, ++position_) {
      const int digit = AtEnd() ? -1 : HexDigit(Peek());
      if (digit < 0) return Expected("a hexadecimal digit");
      code = code << 4 | static_cast<uint32_t>(digit);
    }
    if (letter == 'x') {
      value.push_back(static_cast<char>(code));
    } else if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) {
      return Error(position_, "expected a Unicode character before this");
    } else {
      AppendCodePoint(value, code);
    }
    return absl::OkStatus();
  }

  const std::string_view text_;
  size_t position_ = 0;
};

}  // namespace

absl::StatusOr<Selector> ParseSelector(std::string_view text) {
  if (text.size() > kMaxSelectorBytes) {
    return base::InvalidArgument("selector: {} bytes, more than {}", text.size(),
                                 kMaxSelectorBytes);
  }
  if (!IsValidUtf8(text)) return base::InvalidArgument("selector: not UTF-8");
  return Parser(text).Parse();
}

}  // namespace firewatch::profile
