/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Token buckets: packets and bits per second, per rule or per source. Whole numbers only, so that
 * what passes is exactly what a slow twin in user space says (FW_TOKENS_EACH). */
#pragma once

#include "bpf/firewall_maps.h"

/* Adds what the time since the last packet has earned and takes the cost of one. 1: it was there.
 * No calls: the lock is held. */
static __always_inline int take_tokens(struct fw_bucket* bucket, const struct fw_rule* rule,
                                       fw_u64 now_ns, fw_u64 frame_bits) {
  /* Another CPU may have been here with a later time. */
  fw_u64 elapsed_ns = now_ns > bucket->last_ns ? now_ns - bucket->last_ns : 0;
  fw_u64 packet_tokens = bucket->packet_tokens, bit_tokens = bucket->bit_tokens;
  fw_u64 packet_cost = rule->packets_per_s ? FW_TOKENS_EACH : 0;
  fw_u64 bit_cost = rule->bits_per_s ? frame_bits * FW_TOKENS_EACH : 0;

  packet_tokens +=
      rule->packets_per_s * (elapsed_ns < rule->packet_fill_ns ? elapsed_ns : rule->packet_fill_ns);
  if (packet_tokens > rule->packet_depth) packet_tokens = rule->packet_depth;
  bit_tokens +=
      rule->bits_per_s * (elapsed_ns < rule->bit_fill_ns ? elapsed_ns : rule->bit_fill_ns);
  if (bit_tokens > rule->bit_depth) bit_tokens = rule->bit_depth;

  int enough = packet_tokens >= packet_cost && bit_tokens >= bit_cost;
  bucket->packet_tokens = enough ? packet_tokens - packet_cost : packet_tokens;
  bucket->bit_tokens = enough ? bit_tokens - bit_cost : bit_tokens;
  bucket->last_ns += elapsed_ns;
  return enough;
}

static __always_inline void fill_bucket(struct fw_bucket* bucket, const struct fw_rule* rule,
                                        fw_u64 high, fw_u64 low, fw_u64 now_ns) {
  bucket->address_high = high;
  bucket->address_low = low;
  bucket->key = rule->parameter;
  bucket->packet_tokens = rule->packet_depth;
  bucket->bit_tokens = rule->bit_depth;
  bucket->last_ns = now_ns;
}

static __always_inline int take_per_rule(const struct fw_rule* rule, fw_u64 now_ns, fw_u64 bits) {
  fw_u32 slot = rule->slot;
  struct fw_rule_bucket* entry = bpf_map_lookup_elem(&rule_buckets, &slot);
  if (!entry) return 1;
  bpf_spin_lock(&entry->lock);
  if (entry->bucket.key != rule->parameter) fill_bucket(&entry->bucket, rule, 0, 0, now_ns);
  int enough = take_tokens(&entry->bucket, rule, now_ns, bits);
  bpf_spin_unlock(&entry->lock);
  return enough;
}

/* murmur3's finalizer over both halves, with a secret: who does not know it cannot choose sources
 * that meet in one set. */
static __always_inline fw_u64 mix(fw_u64 value) {
  value = (value ^ (value >> 33)) * 0xff51afd7ed558ccdull;
  value = (value ^ (value >> 33)) * 0xc4ceb9fe1a85ec53ull;
  return value ^ (value >> 33);
}

static __always_inline int take_per_source(const struct fw_rule* rule, fw_u64 seed, fw_u64 high,
                                           fw_u64 low, fw_u64 now_ns, fw_u64 bits,
                                           fw_u64* evicted) {
  fw_u32 set = (fw_u32)mix(mix(mix(seed ^ rule->parameter) ^ high) ^ low) % SOURCE_BUCKET_SETS;
  struct fw_bucket_set* entry = bpf_map_lookup_elem(&source_buckets, &set);
  if (!entry) return 1;
  fw_u64 oldest_ns = ~0ull;
  fw_u32 oldest = 0, found = FW_BUCKET_WAYS, key = rule->parameter;
  int forgot = 0;

  bpf_spin_lock(&entry->lock);
#pragma unroll
  for (fw_u32 i = 0; i < FW_BUCKET_WAYS; i++) {
    struct fw_bucket* way = &entry->ways[i];
    fw_u64 used_ns = way->key ? way->last_ns : 0;
    if (way->key == key && way->address_low == low && way->address_high == high) found = i;
    if (used_ns < oldest_ns) {
      oldest_ns = used_ns;
      oldest = i;
    }
  }
  if (found == FW_BUCKET_WAYS) {
    found = oldest;
    forgot = oldest_ns && oldest_ns + 1000000000 > now_ns;
    fill_bucket(&entry->ways[found & (FW_BUCKET_WAYS - 1)], rule, high, low, now_ns);
  }
  int enough = take_tokens(&entry->ways[found & (FW_BUCKET_WAYS - 1)], rule, now_ns, bits);
  bpf_spin_unlock(&entry->lock);
  if (forgot) (*evicted)++;
  return enough;
}

/* 1: within the limit. */
static __always_inline int within_rate(const struct fw_rule* rule, const struct fw_packet* packet,
                                       fw_u64 seed, fw_u64* evicted) {
  fw_u64 now_ns = bpf_ktime_get_ns();
  fw_u64 bits = (fw_u64)packet->frame_bytes * 8;
  if (rule->per == FW_PER_RULE) return take_per_rule(rule, now_ns, bits);
  fw_u64 high = packet->source_high, low = packet->source_low;
  /* Families must not meet: no IPv6 source has ones in the upper half of its upper half and is
   * routed, and an IPv4 source has zeros there. */
  if (packet->family == FW_FAMILY_IPV4) high = ~0ull;
  if (rule->per == FW_PER_SOURCE_24) low &= packet->family == FW_FAMILY_IPV4 ? ~255ull : 0;
  return take_per_source(rule, seed, high, low, now_ns, bits, evicted);
}
