// SPDX-License-Identifier: Apache-2.0
// Frames for tests, written from the standards' drawings.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "agent/enforce/prefix.h"

namespace firewatch::agent {

// Appends headers one after another; lengths and next-header fields are the caller's, where they
// are not obvious.
class FrameBuilder {
 public:
  FrameBuilder() : bytes_(12, 0x02) {}

  FrameBuilder& Vlan(uint16_t tag, uint16_t type = 0x8100) { return U16(type).U16(tag); }
  FrameBuilder& Type(uint16_t type) { return U16(type); }
  // With the Ethernet type in front. `total` 0: set by Bytes() to what follows.
  FrameBuilder& Ipv4(uint32_t source, uint32_t destination, uint8_t protocol, uint16_t fragment = 0,
                     size_t option_words = 0) {
    Type(0x0800);
    ip_at_ = bytes_.size();
    U8(static_cast<uint8_t>(0x45 + option_words)).U8(0).U16(0).U16(1).U16(fragment);
    U8(64).U8(protocol).U16(0).U32(source).U32(destination);
    for (size_t i = 0; i < option_words; ++i) U32(0x01010101);
    return *this;
  }
  FrameBuilder& Ipv6(const Address6& source, const Address6& destination, uint8_t next) {
    Type(0x86dd);
    ip_at_ = bytes_.size();
    U32(0x60000000).U16(0).U8(next).U8(64);
    return U64(source.high).U64(source.low).U64(destination.high).U64(destination.low);
  }
  FrameBuilder& Extension(uint8_t next, uint8_t more_units = 0) {
    U8(next).U8(more_units);
    return Zeros(6 + size_t{8} * more_units);
  }
  FrameBuilder& FragmentHeader(uint8_t next, uint16_t offset_and_more) {
    return U8(next).U8(0).U16(offset_and_more).U32(7);
  }
  FrameBuilder& Tcp(uint16_t source, uint16_t destination, uint8_t flags) {
    return U16(source).U16(destination).U32(1).U32(2).U8(0x50).U8(flags).U16(512).U32(0);
  }
  FrameBuilder& Udp(uint16_t source, uint16_t destination) {
    return U16(source).U16(destination).U16(8).U16(0);
  }
  FrameBuilder& Icmp(uint8_t type) { return U8(type).U8(0).U16(0).U32(0); }

  FrameBuilder& U8(uint8_t value) {
    bytes_.push_back(value);
    return *this;
  }
  FrameBuilder& U16(uint16_t v) {
    return U8(static_cast<uint8_t>(v >> 8)).U8(static_cast<uint8_t>(v));
  }
  FrameBuilder& U32(uint32_t v) {
    return U16(static_cast<uint16_t>(v >> 16)).U16(static_cast<uint16_t>(v));
  }
  FrameBuilder& U64(uint64_t v) {
    return U32(static_cast<uint32_t>(v >> 32)).U32(static_cast<uint32_t>(v));
  }
  FrameBuilder& Zeros(size_t count) {
    bytes_.insert(bytes_.end(), count, 0);
    return *this;
  }

  // The frame, with the IP packet's length filled in.
  std::vector<uint8_t> Bytes() const {
    std::vector<uint8_t> out = bytes_;
    if (ip_at_ == 0) return out;
    const bool is_ipv6 = out[ip_at_] >> 4 == 6;
    const size_t length = out.size() - ip_at_ - (is_ipv6 ? 40 : 0);
    const size_t at = ip_at_ + (is_ipv6 ? 4 : 2);
    out[at] = static_cast<uint8_t>(length >> 8);
    out[at + 1] = static_cast<uint8_t>(length);
    return out;
  }
  size_t ip_at() const { return ip_at_; }

 private:
  std::vector<uint8_t> bytes_;
  size_t ip_at_ = 0;
};

inline uint32_t Ip4(uint8_t a, uint8_t b, uint8_t c, uint8_t d) {
  return uint32_t{a} << 24 | uint32_t{b} << 16 | uint32_t{c} << 8 | d;
}

}  // namespace firewatch::agent
