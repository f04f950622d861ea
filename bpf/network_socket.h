/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* From the kernel's socket to our entry. Every function reads a socket in one of two ways: by
 * plain loads, where the verifier knows the pointer (`direct`), or by probing, where it is only a
 * number that was a socket's address when it was stored. The compiler keeps one of the two. */
#pragma once

#include "bpf/include/network.h"
#include "bpf/network_kernel.h"
#include "bpf/network_settings.h"

#define GET(direct, pointer, field) ((direct) ? (pointer)->field : BPF_CORE_READ((pointer), field))

static __always_inline bool netns_is_wanted(fw_u32 netns) {
  if (wanted_netns_count == 0) return true;
  for (fw_u32 i = 0; i < MAX_WANTED_NETNS; i++) {
    if (i < wanted_netns_count && wanted_netns[i] == netns) return true;
  }
  return false;
}

static __always_inline fw_u32 netns_of(bool direct, const struct sock* sk) {
  return direct ? sk->__sk_common.skc_net.net->ns.inum
                : BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
}

static __always_inline fw_u16 swap_port(fw_u16 port) { return (fw_u16)((port << 8) | (port >> 8)); }

static __always_inline void put_ipv4(struct fw_net_address* out, fw_u32 address) {
  fw_u32* words = (fw_u32*)out->bytes;
  words[0] = 0;
  words[1] = 0;
  words[2] = address == 0 ? 0 : 0xffff0000; /* little endian */
  words[3] = address;
}

static __always_inline void read_addresses(bool direct, const struct sock* sk,
                                           const struct tcp_sock* tp, struct fw_net_socket* out) {
  if (GET(direct, sk, __sk_common.skc_family) == AF_INET6) {
    out->flags |= FW_NET_IPV6;
    bpf_probe_read_kernel(&out->local, sizeof(out->local),
                          __builtin_preserve_access_index(&sk->__sk_common.skc_v6_rcv_saddr));
    bpf_probe_read_kernel(&out->remote, sizeof(out->remote),
                          __builtin_preserve_access_index(&sk->__sk_common.skc_v6_daddr));
  } else {
    put_ipv4(&out->local, GET(direct, sk, __sk_common.skc_rcv_saddr));
    put_ipv4(&out->remote, GET(direct, sk, __sk_common.skc_daddr));
  }
  const fw_u16 local_port = swap_port(GET(direct, tp, inet_conn.icsk_inet.inet_sport));
  const fw_u16 remote_port = swap_port(GET(direct, sk, __sk_common.skc_dport));
  /* A failed connect has lost them already. */
  if (local_port != 0) out->local_port = local_port;
  if (remote_port != 0) out->remote_port = remote_port;
}

static __always_inline void read_counts(bool direct, const struct sock* sk,
                                        const struct tcp_sock* tp, struct fw_net_socket* out) {
  struct fw_net_counts* counts = &out->counts;
  /* In this order: the kernel adds to bytes_retrans before it sends, and a living socket goes on
   * while it is read. So this is never too large, and the next reading mends it. */
  const fw_u64 sent = GET(direct, tp, bytes_sent);
  const fw_u64 retransmitted = GET(direct, tp, bytes_retrans);
  counts->bytes_sent = sent > retransmitted ? sent - retransmitted : 0;
  counts->bytes_received = GET(direct, tp, bytes_received);
  /* A FIN takes a sequence number, and the kernel counts it with the bytes. */
  if ((GET(direct, sk, __sk_common.skc_flags) & SOCK_DONE) && counts->bytes_received != 0) {
    counts->bytes_received--;
  }
  counts->segments_sent = GET(direct, tp, segs_out);
  counts->segments_received = GET(direct, tp, segs_in);
  counts->retransmits = GET(direct, tp, total_retrans);
  counts->srtt_us = GET(direct, tp, srtt_us) >> 3;
  counts->rttvar_us = GET(direct, tp, mdev_us) >> 2;
  counts->min_rtt_us = GET(direct, tp, rtt_min.s[0].v);
  counts->congestion_window = GET(direct, tp, snd_cwnd);
}

static __always_inline void read_listener(bool direct, const struct sock* sk,
                                          struct fw_net_socket* out) {
  out->backlog = GET(direct, sk, sk_ack_backlog);
  out->backlog_limit = GET(direct, sk, sk_max_ack_backlog);
  out->listen_drops = (fw_u32)GET(direct, sk, sk_drops.counter);
}
