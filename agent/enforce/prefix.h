// SPDX-License-Identifier: Apache-2.0
// Prefixes of IP addresses, and sets of them as files list them.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace firewatch::agent {

// An address of 128 bits in host order.
struct Address6 {
  uint64_t high = 0;
  uint64_t low = 0;
  friend auto operator<=>(const Address6&, const Address6&) = default;
};

// Bits beyond `length` are 0.
struct Prefix4 {
  uint32_t address = 0;  // host order
  uint8_t length = 0;    // 0..32
  friend auto operator<=>(const Prefix4&, const Prefix4&) = default;
};
struct Prefix6 {
  Address6 address;
  uint8_t length = 0;  // 0..128
  friend auto operator<=>(const Prefix6&, const Prefix6&) = default;
};

// The last address of a prefix.
uint32_t LastAddress(const Prefix4& prefix);
Address6 LastAddress(const Prefix6& prefix);

inline constexpr size_t kMaxPrefixes = 1'000'000;

// Immutable once it is shared between rules.
class PrefixSet {
 public:
  // "10.0.0.0/8", "192.0.2.1", "2001:db8::/32". InvalidArgument says what is wrong with it, also
  // when bits beyond the length are set (with what was perhaps meant).
  absl::Status Add(std::string_view text);
  void Add(const Prefix4& prefix) { prefixes4_.push_back(prefix); }
  void Add(const Prefix6& prefix) { prefixes6_.push_back(prefix); }
  // Sorts, drops what is there twice or is covered by another. Before the set is used.
  void Close();

  const std::vector<Prefix4>& prefixes4() const { return prefixes4_; }
  const std::vector<Prefix6>& prefixes6() const { return prefixes6_; }
  size_t size() const { return prefixes4_.size() + prefixes6_.size(); }

 private:
  std::vector<Prefix4> prefixes4_;
  std::vector<Prefix6> prefixes6_;
};

// A plain list: one prefix per line; "#" and ";" begin a comment; blank lines are skipped. `name`
// is what errors call it: "NAME:LINE: why". At most kMaxPrefixes. Closed.
absl::StatusOr<PrefixSet> ParsePrefixList(std::string_view text, std::string_view name);

std::string FormatPrefix(const Prefix4& prefix);
std::string FormatPrefix(const Prefix6& prefix);
std::string FormatAddress4(uint32_t address);
std::string FormatAddress6(const Address6& address);

}  // namespace firewatch::agent
