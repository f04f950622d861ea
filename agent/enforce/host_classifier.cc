// SPDX-License-Identifier: Apache-2.0
#include "agent/enforce/host_classifier.h"

#include <algorithm>
#include <memory>

#include "bpf/classify.h"
#include "bpf/packet.h"

// Declared static by classify.h; `image` of a view is a firewatch::agent::Image.
static const fw_u8* fw_slab_at(const fw_view* view, fw_u32 slab) {
  const auto* from = static_cast<const firewatch::agent::Image*>(view->image);
  return slab < from->slab_count() ? from->slab(slab) : nullptr;
}

namespace firewatch::agent {

HostVerdict JudgeOnHost(const Image& image, std::span<const uint8_t> frame) {
  HostVerdict out;
  // A copy of exactly the frame's size: reading behind it is an error that AddressSanitizer sees.
  // (Not a vector: an empty one has no address, and the kernel's pointers are never NULL.)
  const auto bytes = std::make_unique<uint8_t[]>(frame.size());
  std::copy(frame.begin(), frame.end(), bytes.get());
  const fw_parsed parsed = fw_parse(bytes.get(), bytes.get() + frame.size(),
                                    static_cast<fw_u32>(frame.size()), &out.packet);
  if (parsed == FW_PARSED_NOT_IP) return out;
  const bool drop_malformed = (image.header().flags & FW_IMAGE_DROP_MALFORMED) != 0;
  const bool doubtful =
      parsed == FW_PARSED_MALFORMED || parsed == FW_PARSED_HEADER_CHAIN || out.packet.cut != 0;
  if (doubtful && drop_malformed) {
    out.drop = true;
    return out;
  }
  if (parsed == FW_PARSED_MALFORMED) return out;
  fw_rules rules{};
  const fw_view view{const_cast<Image*>(&image), image.slab(0)};
  const fw_u32 matched = fw_match(&view, &out.packet, &rules);
  out.broken = matched == FW_MATCHED_BROKEN;
  const auto* table = reinterpret_cast<const fw_rule*>(image.slab(0) + FW_IMAGE_RULES);
  if (fw_is_rule(matched)) {
    const size_t index = matched % FW_RULES_MAX;
    out.reached.push_back(index);
    out.decided_by = index;
    out.drop = table[index].action == FW_ACTION_DROP;
    out.by_address = true;
    return out;
  }
  if (matched != FW_MATCHED) return out;
  for (size_t word = 0; word < FW_RULE_WORDS_MAX; ++word) {
    for (fw_u64 left = rules.word[word]; left != 0; left &= left - 1) {
      const size_t index = word * 64 + fw_lowest_bit(left);
      out.reached.push_back(index);
      if (table[index].action >= FW_ACTION_COUNT) continue;
      out.decided_by = index;
      out.drop = table[index].action == FW_ACTION_DROP;
      return out;
    }
  }
  return out;
}

}  // namespace firewatch::agent
