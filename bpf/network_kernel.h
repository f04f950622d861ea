/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The kernel's sockets and packets, as far as the TCP probe reads them (see bpf/kernel.h). */
#pragma once

#include "bpf/kernel.h"

struct net {
  struct ns_common ns;
} CORE;

typedef struct {
  struct net* net;
} CORE possible_net_t;

struct in6_addr {
  fw_u8 bytes[16]; /* no CORE: the whole of it is copied */
};

struct sock_common {
  fw_u32 skc_daddr; /* network byte order, as skc_rcv_saddr and skc_dport */
  fw_u32 skc_rcv_saddr;
  fw_u16 skc_dport;
  fw_u16 skc_num; /* host byte order; 0 once the port is given back */
  unsigned short skc_family;
  volatile unsigned char skc_state;
  possible_net_t skc_net;
  struct in6_addr skc_v6_daddr;
  struct in6_addr skc_v6_rcv_saddr;
  unsigned long skc_flags;
} CORE;

typedef struct {
  int owned; /* a process holds the lock: whatever changes the socket now runs in its name */
} CORE socket_lock_t;

typedef struct {
  int counter;
} CORE atomic_t;

struct sock {
  struct sock_common __sk_common;
  socket_lock_t sk_lock;
  atomic_t sk_drops;
  int sk_err;
  unsigned short sk_protocol;
  fw_u32 sk_ack_backlog;
  fw_u32 sk_max_ack_backlog;
} CORE;

struct inet_sock {
  fw_u16 inet_sport; /* network byte order; stays when the port is given back */
} CORE;

struct inet_connection_sock {
  struct inet_sock icsk_inet;
} CORE;

struct minmax_sample {
  fw_u32 v;
} CORE;

struct minmax {
  struct minmax_sample s[3];
} CORE;

struct tcp_sock {
  struct inet_connection_sock inet_conn;
  fw_u32 rcv_nxt;   /* what the other side sends next; 0: no SYN of it has come */
  fw_u32 write_seq; /* what this side does; 0: it has never connected nor been accepted */
  fw_u64 bytes_sent;
  fw_u64 bytes_retrans;
  fw_u64 bytes_received;
  fw_u32 segs_out;
  fw_u32 segs_in;
  fw_u32 total_retrans;
  fw_u32 srtt_us; /* eighths */
  fw_u32 mdev_us; /* quarters */
  fw_u32 snd_cwnd;
  struct minmax rtt_min;
} CORE;

struct socket {
  struct sock* sk;
} CORE;

struct net_device {
  possible_net_t nd_net;
} CORE;

struct sk_buff {
  struct net_device* dev;
  struct sock* sk;
  fw_u16 protocol; /* network byte order */
  fw_u16 network_header;
  fw_u16 transport_header;
  unsigned char* head;
} CORE;

struct request_sock;

struct bpf_iter_meta {
  struct seq_file* seq;
} CORE;

struct bpf_iter__task_file {
  struct bpf_iter_meta* meta;
  struct task_struct* task;
  fw_u32 fd;
  struct file* file;
} CORE;

struct bpf_iter__tcp {
  struct bpf_iter_meta* meta;
  struct sock_common* sk_common;
} CORE;

struct bpf_iter__bpf_map_elem {
  struct bpf_iter_meta* meta;
  struct bpf_map* map;
  void* key;
  void* value;
} CORE;

/* Numbers that are the same on all kernels: linux/tcp_states.h, net/sock.h (enum sock_flags),
 * linux/socket.h, linux/if_ether.h, linux/magic.h. */
enum {
  TCP_ESTABLISHED = 1,
  TCP_SYN_SENT,
  TCP_SYN_RECV,
  TCP_FIN_WAIT1,
  TCP_FIN_WAIT2,
  TCP_TIME_WAIT,
  TCP_CLOSE,
  TCP_CLOSE_WAIT,
  TCP_LAST_ACK,
  TCP_LISTEN,
  TCP_CLOSING,
  TCP_NEW_SYN_RECV
};
#define SOCK_DEAD 1 /* bits of skc_flags: no process has it any more */
#define SOCK_DONE 2 /* a FIN came in order */
#define AF_INET 2
#define AF_INET6 10
#define ETH_P_IP_BE 0x0008
#define ETH_P_IPV6_BE 0xdd86
#define SOCKFS_MAGIC 0x534F434B
#define IPPROTO_TCP 6
