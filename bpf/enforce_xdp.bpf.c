// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The packet firewall: rules by bit vectors, at the earliest place a packet can be met.
//
//   on_xdp, on_tc          the two ways to be attached; the same judge
//   on_xdp_buff            instead of on_xdp from Linux 6.2 on: a call less
//   judge                  which generation, parse, match, act
//     bpf/packet.h         from bytes to fields
//     bpf/classify.h       from fields to the set of rules that match
//     act                  rules in order of priority until one decides
//       bpf/buckets.h      rates
//       report             an event, when the bounded rate allows one more
//
// No bpf_loop, no atomics with a result, no global functions: loads from Linux 5.10 on. Only
// user-space constants decide what else is used (kernel_has_frags).
#include "bpf/buckets.h"
#include "bpf/classify.h"
#include "bpf/firewall_maps.h"
#include "bpf/kernel.h"
#include "bpf/packet.h"

#include <linux/pkt_cls.h>

/* More than one buffer per frame (5.18): then the length is asked for, and costs a call. */
const volatile __u8 kernel_has_frags = 0;
/* Events per CPU and 128 jiffies (0.13 s at 1,000 Hz, 1.3 s at 100 Hz); jiffies cost no clock. */
const volatile __u32 events_per_window = 16;

#define VERDICT_PASS 0
#define VERDICT_DROP 1
/* As much of a frame as is made linear for reading, when it is not. */
#define PULL_BYTES 256

static __always_inline const fw_u8* fw_slab_at(const struct fw_view* view, fw_u32 slab) {
  fw_u32 rest = ((const struct fw_image*)view->slab0)->rest - 1;
  void* slabs = bpf_map_lookup_elem(&image_rests, &rest);
  slab--;
  return slabs ? bpf_map_lookup_elem(slabs, &slab) : NULL;
}

/* The compiler knows that an index is below 256 and would leave the mask out; verifiers before 6.2
 * follow neither the shifts it knows it by nor the table it makes of fw_lowest_bit. */
static __always_inline const struct fw_rule* rule_at(const struct fw_image* header, fw_u64 index) {
  asm volatile("" : "+r"(index));
  return (const struct fw_rule*)((const fw_u8*)header + FW_IMAGE_RULES) +
         (index & (FW_RULES_MAX - 1));
}

static __always_inline int may_report(struct fw_cpu* cpu) {
  fw_u64 window = bpf_jiffies64() / 128;
  if (cpu->allowance.window != window) {
    cpu->allowance.window = window;
    cpu->allowance.used = 0;
  }
  if (cpu->allowance.used >= events_per_window) return 0;
  cpu->allowance.used++;
  return 1;
}

static __always_inline void report(struct fw_cpu* cpu, fw_u64 generation, fw_u32 rule,
                                   enum fw_event_kind kind) {
  if (!may_report(cpu)) {
    cpu->counts[FW_FIREWALL_EVENTS_LIMITED]++;
    return;
  }
  struct fw_drop_event* event = bpf_ringbuf_reserve(&drop_events, sizeof(*event), 0);
  if (!event) {
    cpu->counts[FW_FIREWALL_EVENTS_LOST]++;
    return;
  }
  const struct fw_packet* packet = &cpu->packet;
  event->time_ns = bpf_ktime_get_ns();
  event->generation = generation;
  event->source_high = packet->source_high;
  event->source_low = packet->source_low;
  event->destination_high = packet->destination_high;
  event->destination_low = packet->destination_low;
  event->frame_bytes = packet->frame_bytes;
  event->rule = (fw_u16)rule;
  event->protocol = packet->protocol;
  event->source_port = packet->source_port;
  event->destination_port = packet->destination_port;
  event->kind = (fw_u8)kind;
  event->family = packet->family;
  event->fragment = packet->fragment;
  event->has_ports = packet->has_ports;
  bpf_ringbuf_submit(event, 0);
}

static __always_inline int drop(struct fw_cpu* cpu, const struct fw_image* header, fw_u32 rule,
                                struct fw_rule_counts* counts) {
  fw_u64 bytes = cpu->packet.frame_bytes;
  if (header->flags & FW_IMAGE_DRY_RUN) {
    cpu->counts[FW_FIREWALL_WOULD_DROP]++;
    if (counts) {
      counts->would_drop_packets++;
      counts->would_drop_bytes += bytes;
    }
    report(cpu, header->generation, rule, FW_EVENT_WOULD_DROP);
    return VERDICT_PASS;
  }
  cpu->counts[FW_FIREWALL_DROPPED]++;
  if (counts) {
    counts->dropped_packets++;
    counts->dropped_bytes += bytes;
  }
  report(cpu, header->generation, rule, FW_EVENT_DROPPED);
  return VERDICT_DROP;
}

/* In order of priority to the rule that decides; counts the rules that only look on the way. The
 * decider's index, or FW_RULES_MAX. The state of the search is in memory and volatile: in registers
 * the verifier would follow which words are known to be 0, and each round would double the states
 * (measured: more than 1,000,000 instructions). For the same reason only what every round needs is
 * inside the loop. */
static __always_inline fw_u32 find_decider(struct fw_cpu* cpu, const struct fw_image* header) {
  volatile fw_u64* words = cpu->rules.word;
  volatile struct fw_search* search = &cpu->search;
  search->place = 0;
  search->sampled = FW_RULES_MAX;
  search->now_ns = header->flags & FW_IMAGE_EXPIRES ? bpf_ktime_get_ns() : 0;
  for (fw_u32 i = 0; i < FW_RULES_MAX + FW_RULE_WORDS_MAX; i++) {
    fw_u32 place = search->place & (FW_RULE_WORDS_MAX - 1);
    fw_u64 word = words[place];
    if (!word) {
      if (place == FW_RULE_WORDS_MAX - 1) break;
      search->place = place + 1;
      continue;
    }
    words[place] = word & (word - 1);
    fw_u32 index = place * 64 + fw_lowest_bit(word);
    const struct fw_rule* rule = rule_at(header, index);
    if (rule->deadline_ns && search->now_ns >= rule->deadline_ns) continue;
    if (rule->action < FW_ACTION_COUNT) return index;
    fw_u32 slot = rule->slot;
    struct fw_rule_counts* counts = bpf_map_lookup_elem(&rule_counts, &slot);
    if (!counts) break;
    counts->packets++;
    counts->bytes += cpu->packet.frame_bytes;
    if (rule->action != FW_ACTION_SAMPLE || !rule->parameter) continue;
    if (counts->packets % rule->parameter) continue;
    counts->sampled++;
    search->sampled = index;
  }
  return FW_RULES_MAX;
}

/* What `matched` of fw_match means, where it is not nothing. */
static __always_inline int act(struct fw_cpu* cpu, const struct fw_image* header, fw_u32 matched) {
  fw_u32 index = matched & ~FW_ENTRY_RULE;
  if (matched == FW_MATCHED) {
    index = find_decider(cpu, header);
    fw_u32 sampled = *(volatile fw_u32*)&cpu->search.sampled;
    if (sampled < FW_RULES_MAX) report(cpu, header->generation, sampled, FW_EVENT_SAMPLED);
    if (index >= FW_RULES_MAX) {
      cpu->counts[FW_FIREWALL_NO_MATCH]++;
      return VERDICT_PASS;
    }
  }
  const struct fw_rule* rule = rule_at(header, index);
  fw_u32 slot = rule->slot;
  struct fw_rule_counts* counts = bpf_map_lookup_elem(&rule_counts, &slot);
  if (!counts) return VERDICT_PASS;
  counts->packets++;
  counts->bytes += cpu->packet.frame_bytes;
  if (rule->action == FW_ACTION_DROP) return drop(cpu, header, index, counts);
  if (rule->action == FW_ACTION_RATE && !within_rate(rule, &cpu->packet, header->bucket_seed,
                                                     &cpu->counts[FW_FIREWALL_BUCKETS_EVICTED])) {
    return drop(cpu, header, index, counts);
  }
  cpu->counts[FW_FIREWALL_PASSED]++;
  return VERDICT_PASS;
}

/* The generation before, while nobody has confirmed the one that should judge, and perhaps nobody
 * can: it may have locked them out. */
static __always_inline const fw_u8* previous_slab0(struct fw_cpu* cpu) {
  fw_u32 key = 1, zero = 0;
  cpu->counts[FW_FIREWALL_REVERTED]++;
  void* image = bpf_map_lookup_elem(&generations, &key);
  return image ? bpf_map_lookup_elem(image, &zero) : NULL;
}

static __always_inline int judge(void* data, void* data_end, fw_u32 frame_bytes) {
  fw_u32 zero = 0;
  struct fw_cpu* cpu = bpf_map_lookup_elem(&cpus, &zero);
  if (!cpu) return VERDICT_PASS;
  cpu->counts[FW_FIREWALL_SEEN]++;
  cpu->counts[FW_FIREWALL_SEEN_BYTES] += frame_bytes;

  void* image = bpf_map_lookup_elem(&generations, &zero);
  const fw_u8* slab0 = image ? bpf_map_lookup_elem(image, &zero) : NULL;
  if (slab0) {
    fw_u64 deadline_ns = ((const struct fw_image*)slab0)->confirm_deadline_ns;
    if (deadline_ns && bpf_ktime_get_ns() >= deadline_ns) slab0 = previous_slab0(cpu);
  }
  if (!slab0) {
    cpu->counts[FW_FIREWALL_NO_RULES]++;
    return VERDICT_PASS;
  }
  const struct fw_image* header = (const struct fw_image*)slab0;

  enum fw_parsed parsed = fw_parse(data, data_end, frame_bytes, &cpu->packet);
  if (parsed == FW_PARSED_NOT_IP) {
    cpu->counts[FW_FIREWALL_NOT_IP]++;
    return VERDICT_PASS;
  }
  if (parsed == FW_PARSED_MALFORMED) {
    cpu->counts[FW_FIREWALL_MALFORMED]++;
    /* Nothing is known of it; what the scratch holds is of the packet before. */
    __builtin_memset(&cpu->packet, 0, offsetof(struct fw_packet, frame_bytes));
    if (header->flags & FW_IMAGE_DROP_MALFORMED) return drop(cpu, header, FW_EVENT_NO_RULE, NULL);
    return VERDICT_PASS;
  }
  int doubtful = parsed == FW_PARSED_HEADER_CHAIN || cpu->packet.cut;
  if (parsed == FW_PARSED_HEADER_CHAIN) cpu->counts[FW_FIREWALL_HEADER_CHAIN]++;
  if (cpu->packet.cut) cpu->counts[FW_FIREWALL_TRANSPORT_CUT]++;
  if (doubtful && header->flags & FW_IMAGE_DROP_MALFORMED) {
    return drop(cpu, header, FW_EVENT_NO_RULE, NULL);
  }

  const struct fw_view view = {NULL, slab0};
  fw_u32 matched = fw_match(&view, &cpu->packet, &cpu->rules);
  if (matched == FW_MATCHED_NONE) {
    cpu->counts[FW_FIREWALL_NO_MATCH]++;
    return VERDICT_PASS;
  }
  if (matched == FW_MATCHED_BROKEN) {
    cpu->counts[FW_FIREWALL_BROKEN]++;
    return VERDICT_PASS;
  }
  return act(cpu, header, matched);
}

static __always_inline int judge_xdp(struct xdp_md* context, fw_u32 frame_bytes) {
  void *data = (void*)(long)context->data, *data_end = (void*)(long)context->data_end;
  return judge(data, data_end, frame_bytes) == VERDICT_DROP ? XDP_DROP : XDP_PASS;
}

/* on_xdp_buff differs in how it knows the length of a frame. The kernel tells by a call, which
 * costs as much as the look-up of a source (5 ns); only frames in several pieces need it. */
SEC("xdp")
int on_xdp(struct xdp_md* context) {
  fw_u32 frame_bytes = (fw_u32)(context->data_end - context->data);
  if (kernel_has_frags && HAS_HELPER(xdp_get_buff_len)) {
    frame_bytes = (fw_u32)bpf_xdp_get_buff_len(context);
  }
  return judge_xdp(context, frame_bytes);
}

/* Where the kernel lets a program read its own struct of the frame (6.2): one load says whether
 * there are several. */
static __always_inline fw_u32 frame_length(struct xdp_md* context) {
  const struct xdp_buff* buff = bpf_cast_to_kern_ctx(context);
  if (buff->flags & XDP_FLAGS_HAS_FRAGS) return (fw_u32)bpf_xdp_get_buff_len(context);
  return (fw_u32)(context->data_end - context->data);
}

SEC("xdp")
int on_xdp_buff(struct xdp_md* context) { return judge_xdp(context, frame_length(context)); }

/* Where a device takes no XDP program. Behind it, filters of others go on (TC_ACT_UNSPEC). */
SEC("tc")
int on_tc(struct __sk_buff* context) {
  fw_u32 have = (fw_u32)(context->data_end - context->data);
  if (have < PULL_BYTES && have < context->len) {
    bpf_skb_pull_data(context, context->len < PULL_BYTES ? context->len : PULL_BYTES);
  }
  void *data = (void*)(long)context->data, *data_end = (void*)(long)context->data_end;
  return judge(data, data_end, context->len) == VERDICT_DROP ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

/* ---- benchmarks only: not loaded by the agent
 * ----------------------------------------------------
 */

/* Another source for each run of one packet. */
static __always_inline int set_source(struct xdp_md* context) {
  void *data = (void*)(long)context->data, *data_end = (void*)(long)context->data_end;
  fw_u32 zero = 0;
  struct fw_cpu* cpu = bpf_map_lookup_elem(&cpus, &zero);
  if (!cpu) return 0;
  fw_u32 next = (fw_u32)cpu->bench_next++ % BENCH_SOURCES;
  fw_u32* source = bpf_map_lookup_elem(&bench_sources, &next);
  if (!source || data + 34 > data_end) return 0;
  *(fw_u32*)(data + 26) = *source;
  return 1;
}

SEC("xdp")
int bench_judge(struct xdp_md* context) {
  if (!set_source(context)) return XDP_ABORTED;
  return judge_xdp(context, frame_length(context));
}

/* What all of it costs without the look-up of rules. */
SEC("xdp")
int bench_parse(struct xdp_md* context) {
  if (!set_source(context)) return XDP_ABORTED;
  void *data = (void*)(long)context->data, *data_end = (void*)(long)context->data_end;
  fw_u32 frame_bytes = (fw_u32)(context->data_end - context->data);
  fw_u32 zero = 0;
  struct fw_cpu* cpu = bpf_map_lookup_elem(&cpus, &zero);
  if (!cpu) return XDP_ABORTED;
  cpu->counts[FW_FIREWALL_SEEN]++;
  cpu->counts[FW_FIREWALL_SEEN_BYTES] += frame_bytes;
  if (fw_parse(data, data_end, frame_bytes, &cpu->packet) != FW_PARSED_IP) return XDP_ABORTED;
  cpu->counts[FW_FIREWALL_NO_MATCH]++;
  return XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
