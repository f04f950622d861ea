// SPDX-License-Identifier: Apache-2.0
#include "cli/symbolize_names.h"

#include <algorithm>
#include <cctype>

#include "symbolizer/index/symbol_index.h"

namespace firewatch::cli {
namespace {

bool IsWord(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '$'; }

// "operator<", "operator()", "operator new": where the operator's own text ends.
size_t EndOfOperator(std::string_view name, size_t at) {
  size_t end = at + std::string_view("operator").size();
  if (name.substr(end).starts_with("()")) return end + 2;
  while (end < name.size() && name[end] != '(') ++end;
  return end;
}

bool IsOperator(std::string_view name, size_t at) {
  constexpr std::string_view kWord = "operator";
  return name.substr(at).starts_with(kWord) && (at == 0 || !IsWord(name[at - 1])) &&
         at + kWord.size() < name.size() && !IsWord(name[at + kWord.size()]);
}

// Past the bracket that closes the one at `at`; npos when none does.
size_t SkipBracket(std::string_view name, size_t at) {
  size_t depth = 0;
  for (size_t i = at; i < name.size(); ++i) {
    const char c = name[i];
    if (c == '-' && i + 1 < name.size() && name[i + 1] == '>') {
      ++i;
    } else if (c == '(' || c == '<' || c == '[' || c == '{') {
      ++depth;
    } else if (c == ')' || c == '>' || c == ']' || c == '}') {
      if (--depth == 0) return i + 1;
    }
  }
  return std::string_view::npos;
}

// Parameters in the middle: "f(int) const::{lambda()#1}::operator()". Where the "::" behind them
// stands; npos when the parameters at `at` end the name.
size_t BehindParameters(std::string_view name, size_t at) {
  const size_t behind = SkipBracket(name, at);
  if (behind == std::string_view::npos) return behind;
  std::string_view rest = name.substr(behind);
  for (const std::string_view word : {" const", " volatile", " &&", " &"}) {
    if (rest.starts_with(word)) rest.remove_prefix(word.size());
  }
  return rest.starts_with("::") ? name.size() - rest.size() : std::string_view::npos;
}

}  // namespace

std::string BareName(std::string_view demangled) {
  size_t start = 0;  // of the last component
  size_t end = demangled.size();
  for (size_t i = 0; i < demangled.size();) {
    const char c = demangled[i];
    if (IsOperator(demangled, i)) {
      start = i;
      end = EndOfOperator(demangled, i);
      break;
    }
    if (c == '(' && !demangled.substr(i).starts_with("(anonymous namespace)")) {
      const size_t further = BehindParameters(demangled, i);
      if (further == std::string_view::npos) {
        end = i;
        break;
      }
      i = further;
    } else if (c == '(' || c == '<' || c == '[' || c == '{') {
      const size_t behind = SkipBracket(demangled, i);
      if (behind == std::string_view::npos) return std::string(demangled);
      i = behind;
    } else if (demangled.substr(i).starts_with("::")) {
      i += 2;
      start = i;
    } else if (c == ' ') {
      start = ++i;  // what stood before was the return type
    } else {
      ++i;
    }
  }
  if (start >= end) return std::string(demangled);
  std::string name(demangled.substr(start, end - start));
  // "[abi:cxx11]" is the mangling's, not the source's.
  for (size_t tag = name.find("[abi:"); tag != std::string::npos; tag = name.find("[abi:")) {
    name.erase(tag, std::min(name.find(']', tag), name.size() - 1) - tag + 1);
  }
  return name;
}

std::vector<std::string_view> FlagNames(uint8_t flags) {
  struct Word {
    uint8_t flag;
    std::string_view text;
  };
  static constexpr Word kWords[] = {
      {symbolizer::kInlined, "inlined"}, {symbolizer::kPlt, "plt"},
      {symbolizer::kColdPart, "cold"},   {symbolizer::kVariant, "variant"},
      {symbolizer::kAliased, "aliased"}, {symbolizer::kFolded, "folded"},
      {symbolizer::kUnsized, "unsized"},
  };
  std::vector<std::string_view> names;
  for (const Word& word : kWords) {
    if ((flags & word.flag) != 0) names.push_back(word.text);
  }
  return names;
}

}  // namespace firewatch::cli
