// SPDX-License-Identifier: Apache-2.0
#include "agent/enforce/prefix.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <optional>

#include "base/status.h"

namespace firewatch::agent {
namespace {

constexpr size_t kMaxText = 64;  // of one prefix; INET6_ADDRSTRLEN and a length are 50

uint32_t HostMask4(uint8_t length) { return length == 0 ? ~0u : ~0u >> 1 >> (length - 1); }
uint64_t HostMask64(int length) { return length <= 0 ? ~0ull : length >= 64 ? 0 : ~0ull >> length; }
Address6 HostMask6(uint8_t length) { return {HostMask64(length), HostMask64(length - 64)}; }

uint64_t BigEndian64(const uint8_t* bytes) {
  uint64_t value = 0;
  for (int i = 0; i < 8; ++i) value = value << 8 | bytes[i];
  return value;
}

std::string_view Trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\v\f";
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

// A prefix that is inside the one before it, in order of address and length, is covered by it.
template <typename Prefix>
void DropCovered(std::vector<Prefix>* prefixes) {
  std::sort(prefixes->begin(), prefixes->end());
  size_t kept = 0;
  for (const Prefix& prefix : *prefixes) {
    if (kept > 0 && LastAddress(prefix) <= LastAddress((*prefixes)[kept - 1])) continue;
    (*prefixes)[kept++] = prefix;
  }
  prefixes->resize(kept);
  prefixes->shrink_to_fit();
}

}  // namespace

uint32_t LastAddress(const Prefix4& prefix) { return prefix.address | HostMask4(prefix.length); }

Address6 LastAddress(const Prefix6& prefix) {
  const Address6 mask = HostMask6(prefix.length);
  return {prefix.address.high | mask.high, prefix.address.low | mask.low};
}

absl::Status PrefixSet::Add(std::string_view text) {
  if (text.size() > kMaxText) return base::InvalidArgument("not an address or prefix: too long");
  const size_t slash = text.find('/');
  const std::string address(text.substr(0, slash));
  std::optional<unsigned> length;
  if (slash != std::string_view::npos) {
    const std::string_view digits = text.substr(slash + 1);
    unsigned value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error != std::errc() || end != digits.data() + digits.size() || value > 128) {
      return base::InvalidArgument("\"{}\": the length after \"/\" is not a number of bits", text);
    }
    length = value;
  }
  uint8_t bytes[16];
  // An embedded NUL would end what inet_pton reads.
  const bool whole = address.size() == std::strlen(address.c_str());
  if (whole && ::inet_pton(AF_INET, address.c_str(), bytes) == 1) {
    if (length.value_or(32) > 32) {
      return base::InvalidArgument("\"{}\": an IPv4 prefix has at most 32 bits", text);
    }
    Prefix4 prefix{.address = static_cast<uint32_t>(BigEndian64(bytes) >> 32),
                   .length = static_cast<uint8_t>(length.value_or(32))};
    const uint32_t mask = HostMask4(prefix.length);
    if (prefix.length < 32 && (prefix.address & mask) != 0) {
      prefix.address &= ~mask;
      return base::InvalidArgument("\"{}\": bits beyond the length are set; {} is the prefix", text,
                                   FormatPrefix(prefix));
    }
    Add(prefix);
    return absl::OkStatus();
  }
  if (whole && ::inet_pton(AF_INET6, address.c_str(), bytes) == 1) {
    Prefix6 prefix{.address = {BigEndian64(bytes), BigEndian64(bytes + 8)},
                   .length = static_cast<uint8_t>(length.value_or(128))};
    const Address6 mask = HostMask6(prefix.length);
    if ((prefix.address.high & mask.high) != 0 || (prefix.address.low & mask.low) != 0) {
      prefix.address.high &= ~mask.high;
      prefix.address.low &= ~mask.low;
      return base::InvalidArgument("\"{}\": bits beyond the length are set; {} is the prefix", text,
                                   FormatPrefix(prefix));
    }
    Add(prefix);
    return absl::OkStatus();
  }
  return base::InvalidArgument("\"{}\" is not an IPv4 or IPv6 address or prefix", text);
}

void PrefixSet::Close() {
  DropCovered(&prefixes4_);
  DropCovered(&prefixes6_);
}

absl::StatusOr<PrefixSet> ParsePrefixList(std::string_view text, std::string_view name) {
  PrefixSet set;
  size_t line_number = 0;
  while (!text.empty()) {
    ++line_number;
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    line = Trim(line.substr(0, line.find_first_of("#;")));
    if (line.empty()) continue;
    if (const absl::Status status = set.Add(line); !status.ok()) {
      return base::Annotate(status, fmt::format("{}:{}", name, line_number));
    }
    if (set.size() > kMaxPrefixes) {
      return base::InvalidArgument("{}:{}: more than {} prefixes", name, line_number, kMaxPrefixes);
    }
  }
  set.Close();
  return set;
}

std::string FormatAddress4(uint32_t address) {
  return fmt::format("{}.{}.{}.{}", address >> 24, address >> 16 & 255, address >> 8 & 255,
                     address & 255);
}

std::string FormatAddress6(const Address6& address) {
  uint8_t bytes[16];
  for (int i = 0; i < 8; ++i) {
    bytes[i] = static_cast<uint8_t>(address.high >> (56 - 8 * i));
    bytes[8 + i] = static_cast<uint8_t>(address.low >> (56 - 8 * i));
  }
  char text[INET6_ADDRSTRLEN];
  return ::inet_ntop(AF_INET6, bytes, text, sizeof(text)) != nullptr ? text : "";
}

std::string FormatPrefix(const Prefix4& prefix) {
  return fmt::format("{}/{}", FormatAddress4(prefix.address), prefix.length);
}
std::string FormatPrefix(const Prefix6& prefix) {
  return fmt::format("{}/{}", FormatAddress6(prefix.address), prefix.length);
}

}  // namespace firewatch::agent
