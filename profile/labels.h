// SPDX-License-Identifier: Apache-2.0
// Label sets (what a series is named by) and matchers (how a query picks series).
//
// The query text is Prometheus' selector: {service="x", node!="y", exe=~"a.*", comm!~"b"}.
// Regular expressions are RE2, anchored at both ends. An absent label counts as "". The empty text
// and "{}" mean everything.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace re2 {
class RE2;
}

namespace firewatch::profile {

// Label names: [a-zA-Z_][a-zA-Z0-9_.]*, at most 128 bytes; values: UTF-8, at most 2,048 bytes.
inline constexpr size_t kMaxLabelNameBytes = 128;
inline constexpr size_t kMaxLabelValueBytes = 2048;
inline constexpr size_t kMaxLabelsPerSet = 64;
bool IsValidLabelName(std::string_view name);

// Immutable in spirit: sorted by name, names unique, empty values left out. A value type.
class LabelSet {
 public:
  LabelSet() = default;
  // Sorts; the last of equal names wins; pairs with an empty value are dropped.
  explicit LabelSet(std::vector<std::pair<std::string, std::string>> pairs);

  // "" when absent. Valid as long as this set.
  std::string_view Get(std::string_view name) const;
  void Set(std::string_view name, std::string_view value);
  const std::vector<std::pair<std::string, std::string>>& pairs() const { return pairs_; }
  bool empty() const { return pairs_.empty(); }

  // {comm="x",service="y"} with \" \\ \n escaped; parses back by ParseSelector.
  std::string ToString() const;
  // Canonical bytes (varint lengths): equal sets have equal bytes. What stores key series by.
  std::string Encode() const;
  static absl::StatusOr<LabelSet> Decode(std::string_view bytes);

  friend bool operator==(const LabelSet&, const LabelSet&) = default;
  friend auto operator<=>(const LabelSet&, const LabelSet&) = default;
  template <typename H>
  friend H AbslHashValue(H state, const LabelSet& set) {
    return H::combine(std::move(state), set.pairs_);
  }

 private:
  std::vector<std::pair<std::string, std::string>> pairs_;
};

enum class MatchOp { kEqual, kNotEqual, kRegex, kNotRegex };

// One condition. Copyable (the compiled expression is shared and immutable), thread-safe.
class Matcher {
 public:
  // InvalidArgument names the expression and RE2's own error text.
  static absl::StatusOr<Matcher> Create(std::string_view name, MatchOp op, std::string_view value);

  bool Matches(std::string_view value) const;
  const std::string& name() const { return name_; }
  MatchOp op() const { return op_; }
  const std::string& value() const { return value_; }

 private:
  Matcher(std::string name, MatchOp op, std::string value);
  std::string name_;
  MatchOp op_;
  std::string value_;
  std::shared_ptr<const re2::RE2> regex_;  // shared: immutable, and RE2 cannot be copied
};

// All matchers must hold (AND).
class Selector {
 public:
  Selector() = default;
  explicit Selector(std::vector<Matcher> matchers) : matchers_(std::move(matchers)) {}
  bool Matches(const LabelSet& labels) const;
  const std::vector<Matcher>& matchers() const { return matchers_; }

 private:
  std::vector<Matcher> matchers_;
};

// The error gives the column (1-based) and what was expected there. Text over 16 KiB or more than
// 64 matchers are refused. `service_name` is taken as `service` (Pyroscope's clients).
absl::StatusOr<Selector> ParseSelector(std::string_view text);

}  // namespace firewatch::profile
