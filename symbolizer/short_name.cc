// SPDX-License-Identifier: Apache-2.0
// Short forms of demangled names. One pass from left to right that copies the path of the name
// (A::B::f) and decides at every bracket: template arguments become <...>, parameters go, brackets
// that are themselves a part of the path ("(anonymous namespace)", "{lambda(int)#1}", Rust's
// <T as Trait>, Go's (*T)) stay. A space outside of brackets ends a return type: what was copied
// so far is forgotten.
#include <array>
#include <cctype>
#include <cstddef>

#include "symbolizer/name_parts.h"

namespace firewatch::symbolizer {
namespace {

constexpr std::string_view kAnonymous = "(anonymous namespace)";
constexpr std::string_view kOperator = "operator";
constexpr size_t kNone = std::string_view::npos;

bool IsWord(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }

// The word "operator" at `at`, not the end or the beginning of another one.
bool IsOperatorAt(std::string_view text, size_t at) {
  if (!text.substr(at).starts_with(kOperator)) return false;
  if (at > 0 && IsWord(text[at - 1])) return false;
  const size_t end = at + kOperator.size();
  return end < text.size() && !IsWord(text[end]);
}

// The characters of an operator's own that look like brackets; `at` is behind "operator".
size_t OperatorBytes(std::string_view text, size_t at) {
  static constexpr std::array<std::string_view, 14> kOperators = {
      "()", "[]", "<=>", "<<=", ">>=", "->*", "<<", ">>", "<=", ">=", "->", "<", ">", ""};
  const std::string_view rest = text.substr(at);
  for (const std::string_view own : kOperators) {
    if (rest.starts_with(own)) return own.size();
  }
  return 0;
}

// Inside of template arguments: "(1) < (2)", "1 << 2".
bool IsComparison(std::string_view text, size_t at) {
  const auto before = [&](size_t distance) { return at >= distance ? text[at - distance] : '\0'; };
  return before(1) == ' ' || before(1) == ')' || (before(1) == '<' && before(2) == ' ');
}

// The end of the bracket that opens at `at`; kNone when it does not close.
size_t EndOfBracket(std::string_view text, size_t at) {
  std::string open;
  for (size_t i = at; i < text.size(); ++i) {
    if (IsOperatorAt(text, i)) {
      i += kOperator.size();
      i += OperatorBytes(text, i);
      if (i >= text.size()) return kNone;
    }
    const char c = text[i];
    if (c == '<' && !open.empty() && IsComparison(text, i)) continue;
    if (c == '(' || c == '<' || c == '[' || c == '{') {
      open.push_back(c == '(' ? ')' : c == '<' ? '>' : c == '[' ? ']' : '}');
    } else if (c == ')' || c == ']' || c == '}' || c == '>') {
      if (c == '>' && i > 0 && (text[i - 1] == '-' || text[i - 1] == '=')) continue;  // an arrow
      if (open.empty()) return kNone;
      if (open.back() != c) {
        if (c == '>') continue;  // a comparison, which is written in parentheses
        return kNone;
      }
      open.pop_back();
      if (open.empty()) return i + 1;
    }
  }
  return kNone;
}

class Shortener {
 public:
  explicit Shortener(std::string_view text) : text_(text) {}

  // "" when it is not the form of a name.
  std::string Run() {
    while (at_ < text_.size() && !done_) {
      if (!Step()) return "";
    }
    return std::move(out_);
  }

 private:
  bool Step() {
    if (IsOperatorAt(text_, at_)) return TakeOperator();
    switch (text_[at_]) {
      case '<':
        return TakeAngle();
      case '(':
        return TakeParenthesis();
      case '{':
        return TakeBrace();
      case '[':
        return TakeSquare();
      case ' ':
        return TakeSpace();
      case ')':
      case ']':
      case '}':
        return false;
      default:
        out_.push_back(text_[at_++]);
        return true;
    }
  }

  void Copy(size_t end) {
    out_.append(text_.substr(at_, end - at_));
    at_ = end;
  }

  // Writes `text` for the bracket that opens here.
  bool Fold(std::string_view text) {
    const size_t end = EndOfBracket(text_, at_);
    if (end == kNone) return false;
    out_ += text;
    at_ = end;
    return true;
  }

  // With the bracket's symbols, or " new", or the type of a conversion up to its parameters.
  bool TakeOperator() {
    Copy(at_ + kOperator.size());
    if (const size_t own = OperatorBytes(text_, at_); own > 0) {
      Copy(at_ + own);
      if (text_.substr(at_).starts_with(" <")) ++at_;  // operator< <int>
      if (at_ < text_.size() && text_[at_] == '<') return Fold("<...>");
      return true;
    }
    if (text_[at_] != ' ') return true;  // +, ==, ""_x
    out_.push_back(text_[at_++]);
    while (at_ < text_.size() && text_[at_] != '(') {
      if (text_[at_] == '<') {
        if (!TakeAngle()) return false;
      } else {
        out_.push_back(text_[at_++]);
      }
    }
    return true;
  }

  bool TakeAngle() {
    const size_t end = EndOfBracket(text_, at_);
    if (end == kNone) return false;
    // Rust: <T as Trait>::method, at the start of the path. Its own arguments are folded.
    const bool starts_path = out_.empty() || out_.back() == ' ' || out_.back() == '<';
    if (!starts_path) return Fold("<...>");
    out_.push_back(text_[at_++]);
    while (at_ < end - 1) {
      if (text_[at_] == '<') {
        if (!TakeAngle() || at_ > end - 1) return false;
      } else {
        out_.push_back(text_[at_++]);
      }
    }
    out_.push_back('>');
    at_ = end;
    return true;
  }

  bool TakeParenthesis() {
    if (text_.substr(at_).starts_with(kAnonymous)) {
      Copy(at_ + kAnonymous.size());
      return true;
    }
    const size_t end = EndOfBracket(text_, at_);
    if (end == kNone) return false;
    if (!out_.empty() && out_.back() == '.') {  // Go: main.(*T).Method
      Copy(end);
      return true;
    }
    if (!out_.empty() && out_.back() == '!') {  // D: bar!(int)
      return Fold("(...)");
    }
    if (out_.empty()) return false;  // void (*f(int))(char)
    at_ = end;
    SkipQualifiers();
    if (text_.substr(at_).starts_with("::")) return true;  // something local to the function
    // The end of the name, or of decltype(...) as a return type.
    if (at_ < text_.size() && text_[at_] == ' ' && out_.ends_with("decltype")) return TakeSpace();
    done_ = true;
    return true;
  }

  void SkipQualifiers() {
    static constexpr std::array<std::string_view, 6> kQualifiers = {
        " const", " volatile", " &&", " &", " noexcept", " restrict"};
    for (bool found = true; found;) {
      found = false;
      for (const std::string_view qualifier : kQualifiers) {
        if (!text_.substr(at_).starts_with(qualifier)) continue;
        at_ += qualifier.size();
        found = true;
        break;
      }
    }
  }

  // {lambda(int)#1}, {closure#0}, {{closure}}: without the parameters.
  bool TakeBrace() {
    const size_t end = EndOfBracket(text_, at_);
    if (end == kNone) return false;
    while (at_ < end) {
      if (text_[at_] == '(') {
        const size_t inner = EndOfBracket(text_, at_);
        if (inner == kNone || inner > end) return false;
        at_ = inner;
      } else {
        out_.push_back(text_[at_++]);
      }
    }
    return true;
  }

  bool TakeSquare() {
    const size_t end = EndOfBracket(text_, at_);
    if (end == kNone) return false;
    if (text_.substr(at_).starts_with("[abi:")) {
      at_ = end;
      return true;
    }
    Copy(end);  // Go's type arguments
    return true;
  }

  // The end of a return type, or of the name: "foo (.cold)", "f [clone .x]".
  bool TakeSpace() {
    ++at_;
    const std::string_view rest = text_.substr(at_);
    if (rest.starts_with("(.") || rest.starts_with("[clone")) {
      done_ = true;
      return true;
    }
    out_.clear();
    return true;
  }

  const std::string_view text_;
  size_t at_ = 0;
  std::string out_;
  bool done_ = false;
};

}  // namespace

std::string ShortName(std::string_view demangled) {
  if (demangled.find_first_of("<( [") == kNone) return std::string(demangled);
  if (demangled.starts_with("-[") || demangled.starts_with("+[")) return std::string(demangled);
  // Code that belongs to a function or a variable without being it.
  static constexpr std::array<std::string_view, 8> kPrefixes = {
      "non-virtual thunk to ",
      "virtual thunk to ",
      "covariant return thunk to ",
      "guard variable for ",
      "TLS init function for ",
      "TLS wrapper function for ",
      "thread-local wrapper routine for ",
      "thread-local initialization routine for "};
  std::string_view prefix;
  for (const std::string_view candidate : kPrefixes) {
    if (demangled.starts_with(candidate)) prefix = candidate;
  }
  std::string name = Shortener(demangled.substr(prefix.size())).Run();
  return name.empty() ? std::string(demangled) : std::string(prefix) + name;
}

}  // namespace firewatch::symbolizer
