/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Sums per (process, peer, port): what a storm of connections becomes before it crosses. */
#pragma once

#include "bpf/network_counters.h"
#include "bpf/network_kernel.h"
#include "bpf/network_settings.h"

/* Two maps of one shape. The programs fill the one that active_edges names; user space turns it
 * around, waits until no program can still use the old one (an RCU grace period), reads that and
 * empties it. So no sum is ever lost between reading and deleting. Memory is taken as it fills.
 * When full, sums go to edge_overflow. */
#define EDGE_MAP                        \
  __uint(type, BPF_MAP_TYPE_HASH);      \
  __uint(map_flags, BPF_F_NO_PREALLOC); \
  __uint(max_entries, 16384);           \
  __type(key, struct fw_net_edge);      \
  __type(value, struct fw_net_edge_counts)

struct {
  EDGE_MAP;
} edges_0 SEC(".maps");
struct {
  EDGE_MAP;
} edges_1 SEC(".maps");

/* Key: enum fw_net_role; sums without process and peer. Never emptied. */
struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, FW_NET_ROLES);
  __type(key, fw_u32);
  __type(value, struct fw_net_edge_counts);
} edge_overflow SEC(".maps");

struct rtt_histogram {
  fw_u64 buckets[FW_NET_RTT_BUCKETS];
  fw_u64 sum_us;
  fw_u64 count;
};

/* Key 0: smoothed RTTs of connections at their end, of those that only the edges have. */
struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, 1);
  __type(key, fw_u32);
  __type(value, struct rtt_histogram);
} rtt SEC(".maps");

static __always_inline void count_rtt(fw_u32 rtt_us) {
  fw_u32 zero = 0;
  struct rtt_histogram* histogram = bpf_map_lookup_elem(&rtt, &zero);
  if (!histogram) return;
  fw_u32 bucket = 0;
  for (fw_u32 limit = rtt_us >> FW_NET_RTT_SHIFT; bucket < FW_NET_RTT_BUCKETS - 1; bucket++) {
    if (limit == 0) break;
    limit >>= 1;
  }
  if (bucket >= FW_NET_RTT_BUCKETS) return; /* for the verifier */
  __sync_fetch_and_add(&histogram->buckets[bucket], 1);
  __sync_fetch_and_add(&histogram->sum_us, rtt_us);
  __sync_fetch_and_add(&histogram->count, 1);
}

static __always_inline struct fw_net_edge_counts* look_up_edge(const struct fw_net_edge* edge) {
  return active_edges == 0 ? bpf_map_lookup_elem(&edges_0, edge)
                           : bpf_map_lookup_elem(&edges_1, edge);
}

/* Never NULL but for the verifier. */
static __always_inline struct fw_net_edge_counts* find_edge(const struct fw_net_edge* edge) {
  struct fw_net_edge_counts* counts = look_up_edge(edge);
  if (counts) return counts;
  const struct fw_net_edge_counts none = {};
  /* NOEXIST: another CPU may have added it meanwhile. */
  const long error = active_edges == 0 ? bpf_map_update_elem(&edges_0, edge, &none, BPF_NOEXIST)
                                       : bpf_map_update_elem(&edges_1, edge, &none, BPF_NOEXIST);
  if (error == 0) __sync_fetch_and_add(&edges_used, 1);
  counts = look_up_edge(edge);
  if (counts) return counts;
  count_net_loss(FW_NET_LOSS_EDGES_FULL);
  fw_u32 role = edge->role;
  return bpf_map_lookup_elem(&edge_overflow, &role);
}

static __always_inline struct fw_net_edge_counts* edge_of(const struct fw_net_socket* socket) {
  struct fw_net_edge edge = {};
  edge.owner = socket->owner;
  edge.remote = socket->remote;
  edge.netns = socket->netns;
  edge.port = socket->role == FW_NET_CONNECT ? socket->remote_port : socket->local_port;
  edge.code = socket->error;
  edge.role = socket->role;
  edge.protocol = IPPROTO_TCP;
  edge.flags = socket->flags & FW_NET_IPV6;
  return find_edge(&edge);
}

static __always_inline void add_connection(const struct fw_net_socket* socket) {
  const struct fw_net_counts* from = &socket->counts;
  const bool failed = socket->established_ns == 0 && socket->role == FW_NET_CONNECT;
  struct fw_net_edge_counts* to = edge_of(socket);
  if (!to) return;
  __sync_fetch_and_add(&to->bytes_sent, from->bytes_sent);
  __sync_fetch_and_add(&to->bytes_received, from->bytes_received);
  __sync_fetch_and_add(&to->segments_sent, from->segments_sent);
  __sync_fetch_and_add(&to->segments_received, from->segments_received);
  __sync_fetch_and_add(&to->duration_us, (socket->closed_ns - socket->opened_ns) / 1000);
  if (from->srtt_us != 0) {
    __sync_fetch_and_add(&to->rtt_us, from->srtt_us);
    __sync_fetch_and_add(&to->rtt_count, 1);
    count_rtt(from->srtt_us);
  }
  __sync_fetch_and_add(&to->connections, 1);
  if (failed) __sync_fetch_and_add(&to->failed, 1);
  if (socket->flags & FW_NET_RESET_SENT) __sync_fetch_and_add(&to->resets_sent, 1);
  if (socket->flags & FW_NET_RESET_RECEIVED) __sync_fetch_and_add(&to->resets_received, 1);
  if (from->retransmits != from->handshake_retransmits) {
    __sync_fetch_and_add(&to->retransmits, from->retransmits - from->handshake_retransmits);
  }
  if (from->handshake_retransmits) {
    __sync_fetch_and_add(&to->handshake_retransmits, from->handshake_retransmits);
  }
}
