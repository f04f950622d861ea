// SPDX-License-Identifier: Apache-2.0
// Label sets and matchers; the selector's text is parsed in selector.cc.
#include "profile/labels.h"

#include <fmt/format.h>
#include <re2/re2.h>

#include <algorithm>
#include <iterator>
#include <numeric>

#include "base/check.h"
#include "base/status.h"
#include "profile/utf8.h"
#include "profile/varint.h"

namespace firewatch::profile {
namespace {

using Pair = std::pair<std::string, std::string>;

constexpr std::string_view kCutMark = "…";
// A compiled expression and its DFA may take this much. 64 matchers of a hostile query: 128 MiB.
constexpr int64_t kMaxRegexBytes = int64_t{2} << 20;

bool IsNameStart(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

// Valid UTF-8 of at most max_bytes; what was cut ends in a mark that a reader sees.
void MakeFit(std::string& text, size_t max_bytes) {
  if (!IsValidUtf8(text)) text = ToValidUtf8(text);
  if (text.size() <= max_bytes) return;
  text.resize(Utf8Prefix(text, max_bytes - kCutMark.size()).size());
  text.append(kCutMark);
}

bool NameLess(const Pair& pair, std::string_view name) { return pair.first < name; }

void AppendQuoted(std::string& out, std::string_view value) {
  out.push_back('"');
  for (const char c : value) {
    if (c == '"' || c == '\\') {
      out.push_back('\\');
      out.push_back(c);
    } else if (c == '\n') {
      out.append("\\n");
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
      fmt::format_to(std::back_inserter(out), "\\x{:02x}", static_cast<unsigned char>(c));
    } else {
      out.push_back(c);
    }
  }
  out.push_back('"');
}

void AppendBytes(std::string& out, std::string_view bytes) {
  AppendVarint(out, bytes.size());
  out.append(bytes);
}

bool TakeBytes(std::string_view& from, std::string_view& bytes) {
  uint64_t size = 0;
  const size_t before = from.size();
  if (!TakeVarint(from, size) || size > from.size()) return false;
  // One way to write a length only: a padded varint would give one set two keys.
  if (before - from.size() > 1 && size >> (7 * (before - from.size() - 1)) == 0) return false;
  bytes = from.substr(0, size);
  from.remove_prefix(size);
  return true;
}

}  // namespace

bool IsValidLabelName(std::string_view name) {
  if (name.empty() || name.size() > kMaxLabelNameBytes || !IsNameStart(name[0])) return false;
  return std::ranges::all_of(
      name, [](char c) { return IsNameStart(c) || (c >= '0' && c <= '9') || c == '.'; });
}

LabelSet::LabelSet(std::vector<Pair> pairs) : pairs_(std::move(pairs)) {
  for (auto& [name, value] : pairs_) {
    MakeFit(name, kMaxLabelNameBytes);
    MakeFit(value, kMaxLabelValueBytes);
  }
  // Sorted by name and place, so that the last of equal names comes last. (std::stable_sort would
  // do, but libstdc++ 12 makes it of a function that clang 19 calls deprecated.)
  std::vector<size_t> order(pairs_.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::sort(order, [this](size_t a, size_t b) {
    const int names = pairs_[a].first.compare(pairs_[b].first);
    return names != 0 ? names < 0 : a < b;
  });
  std::vector<Pair> sorted;
  sorted.reserve(pairs_.size());
  for (const size_t i : order) {
    if (!sorted.empty() && sorted.back().first == pairs_[i].first) sorted.pop_back();
    sorted.push_back(std::move(pairs_[i]));
  }
  pairs_ = std::move(sorted);
  std::erase_if(pairs_, [](const Pair& pair) { return pair.second.empty(); });
}

std::string_view LabelSet::Get(std::string_view name) const {
  const auto it = std::lower_bound(pairs_.begin(), pairs_.end(), name, NameLess);
  if (it == pairs_.end() || it->first != name) return {};
  return it->second;
}

void LabelSet::Set(std::string_view name, std::string_view value) {
  Pair pair(name, value);
  MakeFit(pair.first, kMaxLabelNameBytes);
  MakeFit(pair.second, kMaxLabelValueBytes);
  const auto it = std::lower_bound(pairs_.begin(), pairs_.end(), pair.first, NameLess);
  const bool present = it != pairs_.end() && it->first == pair.first;
  if (pair.second.empty()) {
    if (present) pairs_.erase(it);
  } else if (present) {
    it->second = std::move(pair.second);
  } else {
    pairs_.insert(it, std::move(pair));
  }
}

std::string LabelSet::ToString() const {
  std::string text = "{";
  for (const auto& [name, value] : pairs_) {
    if (text.size() > 1) text.push_back(',');
    if (IsValidLabelName(name)) {
      text.append(name);
    } else {
      AppendQuoted(text, name);
    }
    text.push_back('=');
    AppendQuoted(text, value);
  }
  text.push_back('}');
  return text;
}

std::string LabelSet::Encode() const {
  std::string bytes;
  for (const auto& [name, value] : pairs_) {
    AppendBytes(bytes, name);
    AppendBytes(bytes, value);
  }
  return bytes;
}

absl::StatusOr<LabelSet> LabelSet::Decode(std::string_view bytes) {
  LabelSet set;
  while (!bytes.empty()) {
    std::string_view name;
    std::string_view value;
    if (!TakeBytes(bytes, name) || !TakeBytes(bytes, value)) {
      return base::InvalidArgument("label set: truncated after {} labels", set.pairs_.size());
    }
    if (name.size() > kMaxLabelNameBytes || value.size() > kMaxLabelValueBytes ||
        set.pairs_.size() == kMaxLabelsPerSet) {
      return base::InvalidArgument("label set: label {} is past the limits", set.pairs_.size() + 1);
    }
    if (value.empty() || !IsValidUtf8(name) || !IsValidUtf8(value)) {
      return base::InvalidArgument("label set: label {} is empty or not UTF-8",
                                   set.pairs_.size() + 1);
    }
    if (!set.pairs_.empty() && set.pairs_.back().first >= name) {
      return base::InvalidArgument("label set: label {} is out of order", set.pairs_.size() + 1);
    }
    set.pairs_.emplace_back(name, value);
  }
  return set;
}

Matcher::Matcher(std::string name, MatchOp op, std::string value)
    : name_(std::move(name)), op_(op), value_(std::move(value)) {}

absl::StatusOr<Matcher> Matcher::Create(std::string_view name, MatchOp op, std::string_view value) {
  Matcher matcher{std::string(name), op, std::string(value)};
  if (op == MatchOp::kEqual || op == MatchOp::kNotEqual) return matcher;
  re2::RE2::Options options;
  options.set_log_errors(false);
  options.set_dot_nl(true);  // a value is one text, not lines (as Prometheus 3)
  options.set_never_capture(true);
  options.set_max_mem(kMaxRegexBytes);
  auto regex = std::make_shared<const re2::RE2>(matcher.value_, options);
  if (!regex->ok()) {
    return base::InvalidArgument("regular expression \"{}\": {}", Utf8Prefix(matcher.value_, 200),
                                 regex->error());
  }
  matcher.regex_ = std::move(regex);
  return matcher;
}

bool Matcher::Matches(std::string_view value) const {
  switch (op_) {
    case MatchOp::kEqual:
      return value == value_;
    case MatchOp::kNotEqual:
      return value != value_;
    case MatchOp::kRegex:
      return re2::RE2::FullMatch(re2::StringPiece(value.data(), value.size()), *regex_);
    case MatchOp::kNotRegex:
      return !re2::RE2::FullMatch(re2::StringPiece(value.data(), value.size()), *regex_);
  }
  CHECK(false);
}

bool Selector::Matches(const LabelSet& labels) const {
  return std::ranges::all_of(matchers_, [&](const Matcher& matcher) {
    return matcher.Matches(labels.Get(matcher.name()));
  });
}

}  // namespace firewatch::profile
