// SPDX-License-Identifier: Apache-2.0
// Makes the image of a generation (bpf/include/firewall.h) of a set of rules.
//
// 1. The prefixes of all rules are sorted and swept once: nested prefixes make a stack, and each
//    place where the stack changes starts a run of addresses that the same rules name.
// 2. Runs become pages and blocks per /24 (IPv4) or a tree (IPv6); equal pages and equal blocks are
//    stored once.
// 3. Sets of rules are interned: a vector is stored once, whichever field asks for it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/enforce/rule.h"

namespace firewatch::agent {

struct ImageOptions {
  uint64_t generation = 1;
  uint64_t now_ns = 0;  // CLOCK_MONOTONIC: ttl counts from here
  uint64_t confirm_deadline_ns = 0;
  uint64_t bucket_seed = 0;
  bool dry_run = false;
  std::vector<uint16_t> slots;        // of counters, per rule
  std::vector<uint32_t> bucket_keys;  // per rule, not 0
  std::string metadata;               // JSON
  size_t max_bytes = size_t{64} << 20;
};

// Words of whole slabs, as the map's values hold them.
struct Image {
  std::vector<uint64_t> words;
  size_t slab_count() const { return words.size() * 8 / FW_IMAGE_SLAB_BYTES; }
  size_t bytes() const { return words.size() * 8; }
  size_t used_bytes = 0;  // zeros behind them
  const uint8_t* slab(size_t number) const {
    return reinterpret_cast<const uint8_t*>(words.data()) + number * FW_IMAGE_SLAB_BYTES;
  }
  const fw_image& header() const { return *reinterpret_cast<const fw_image*>(words.data()); }
};

// ResourceExhausted when it would be larger than max_bytes. About 0.5 s of CPU for 1,000,000
// prefixes, and about 100 bytes of memory per prefix while it works.
absl::StatusOr<Image> BuildImage(const RuleSet& rules, const ImageOptions& options);

}  // namespace firewatch::agent
