/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the TCP probe keeps in its maps and sends to user space. Compiles as BPF C, C and C++.
 * Fixed-width types and explicit padding only. Drawn in docs/network.md. */
#pragma once

#include "bpf/include/frame.h"

/* Everything that the TCP probe cannot keep, by name. Append, never reorder.
 * X(constant, metric label, what a user reads) */
/* clang-format off */
#define FW_NET_LOSSES(X)                                                                         \
  X(SOCKETS_FULL, "sockets_full", "sockets not followed: the map was full, or memory")           \
  X(EDGES_FULL, "edges_full", "connections counted without process and peer: the map was full")  \
  X(EVENTS_MERGED, "events_merged", "connections seen only in sums: more than the allowed rate") \
  X(RING_FULL, "ring_full", "records dropped: the ring to user space was full")                  \
  X(PROCESSES_FULL, "processes_full", "processes without a name: the map was full")              \
  X(LISTENERS_FULL, "listeners_full", "listeners whose connections start without a process")     \
  X(OWNER_UNKNOWN, "owner_unknown", "connections of which no process was ever seen")                \
  X(NOT_FOLLOWED, "not_followed", "connections of which only the end is counted: more began than the allowed rate") \
  X(ENDS_MERGED, "ends_merged", "connections counted without process and peer: more ended than the allowed rate") \
  X(NOT_WATCHED, "not_watched", "connections of which only the end was looked at: far more began than the allowed rate")
/* clang-format on */

enum fw_net_loss {
#define FW_NET_LOSS_ENUM(constant, name, text) FW_NET_LOSS_##constant,
  FW_NET_LOSSES(FW_NET_LOSS_ENUM)
#undef FW_NET_LOSS_ENUM
      FW_NET_LOSS_COUNT
};

/* One life of a process between exec and exec. All zero: unknown. */
struct fw_net_owner {
  fw_u32 tgid;    /* in the initial pid namespace */
  fw_u32 exec_id; /* low half of what counts its execs */
  fw_u64 start_ns;
};

#define FW_NET_EXE_NAME_SIZE 40

struct fw_net_process {
  fw_u64 cgroup_id;
  fw_u64 exe_inode; /* 0: no file */
  fw_u32 exe_device;
  fw_u32 pid; /* in the agent's pid namespace; 0: not visible there */
  char comm[FW_COMM_SIZE];
  char exe_name[FW_NET_EXE_NAME_SIZE]; /* last part of the path; "" when unknown */
};

/* IPv4 as ::ffff:a.b.c.d; any address is all zero in both families. */
struct fw_net_address {
  fw_u8 bytes[16];
};

/* Of one socket since it was made, as the kernel counts. */
struct fw_net_counts {
  fw_u64 bytes_sent;     /* payload, without retransmissions */
  fw_u64 bytes_received; /* payload in order */
  fw_u32 segments_sent;
  fw_u32 segments_received;
  fw_u32 retransmits;           /* segments, all kinds */
  fw_u32 handshake_retransmits; /* of these: SYN of a connecting, SYN-ACK of an accepted socket */
  fw_u32 srtt_us;               /* smoothed; 0: nothing was measured */
  fw_u32 rttvar_us;
  fw_u32 min_rtt_us; /* ~0: nothing was measured */
  fw_u32 congestion_window;
};

enum fw_net_role {
  FW_NET_CONNECT = 1, /* this side sent the SYN */
  FW_NET_ACCEPT = 2,
  FW_NET_LISTEN = 3,
  FW_NET_OLD = 4,         /* not used any more */
  FW_NET_DROP = 5,        /* edges only: a packet that the kernel dropped */
  FW_NET_STRAY_RESET = 6, /* edges only: a reset without a connection */
  FW_NET_ROLES = 7
};

/* How the owner was found, worst first. */
enum fw_net_owner_source {
  FW_NET_OWNER_NONE = 0,
  FW_NET_OWNER_LISTENER = 1, /* of the socket that listens: who accepts may be another */
  FW_NET_OWNER_FILE = 2,     /* has a descriptor of the socket */
  FW_NET_OWNER_CALL = 3      /* made a system call on the socket */
};

#define FW_NET_IPV6 1
#define FW_NET_FROM_BEFORE 2      /* opened before the probe: opened_ns is when it was found */
#define FW_NET_RESET_SENT 4       /* this side broke the connection */
#define FW_NET_RESET_RECEIVED 8   /* the other side did */
#define FW_NET_ENDED 16           /* reached CLOSE; counts are final */
#define FW_NET_REPORTED 32        /* and its end has been counted */
#define FW_NET_SHARED_LISTENER 64 /* several processes listen where it came in */

struct fw_net_socket {
  fw_u64 opened_ns;      /* CLOCK_MONOTONIC: SYN sent, or handshake done for an accepted one */
  fw_u64 established_ns; /* 0: never */
  fw_u64 closed_ns;
  struct fw_net_owner owner;
  struct fw_net_address local;
  struct fw_net_address remote;
  fw_u16 local_port; /* host byte order, as the next one */
  fw_u16 remote_port;
  fw_u8 state; /* TCP_ESTABLISHED 1 .. TCP_NEW_SYN_RECV 12, linux/tcp_states.h */
  fw_u8 role;
  fw_u8 owner_source;
  fw_u8 flags;
  fw_u32 netns; /* inode number */
  fw_u16 error; /* errno of a failure, 0: none */
  fw_u8 reset_reason;
  fw_u8 padding;
  /* Two sides that must not both count one connection: each adds to its word, then reads the
   * other's. See finish() in bpf/network.bpf.c. */
  fw_u32 seen;    /* by the report of living sockets */
  fw_u32 closing; /* counted at its end */
  /* Listeners only. */
  fw_u32 backlog;
  fw_u32 backlog_limit;
  fw_u32 listen_drops; /* the kernel's own count of this socket */
  fw_u32 synack_retransmits;
  struct fw_net_counts counts;
};

enum fw_net_record_kind {
  FW_NET_RECORD_ESTABLISHED = 1,
  FW_NET_RECORD_CLOSED = 2, /* counts are final */
  FW_NET_RECORD_RETRANSMIT = 3,
  FW_NET_RECORD_LIVE = 4, /* of the iterator, never in the ring */
  FW_NET_RECORD_WAKE = 5  /* edges have filled up, or a storm blows: the socket means nothing */
};

struct fw_net_record {
  fw_u64 time_ns; /* CLOCK_MONOTONIC */
  fw_u64 id;      /* of the socket while it lives; together with opened_ns unique */
  fw_u32 kind;
  fw_u32 in_edges; /* CLOSED: the sums in the edges have this connection already */
  struct fw_net_socket socket;
};

/* What is summed up in the kernel: per process, peer and port of the service. */
struct fw_net_edge {
  struct fw_net_owner owner;
  struct fw_net_address remote; /* of a drop without reason: where in the kernel, first 8 bytes */
  fw_u32 netns;
  fw_u16 port; /* the service's: remote for CONNECT, else local; of a drop: 0 */
  fw_u16
      code; /* errno of failed connections; of a drop: its reason; of a stray reset: its reason */
  fw_u8 role;
  fw_u8 protocol; /* IPPROTO_TCP; of a drop: the packet's */
  fw_u8 flags;    /* FW_NET_IPV6 */
  fw_u8 padding[5];
};

struct fw_net_edge_counts {
  fw_u64 bytes_sent;
  fw_u64 bytes_received;
  fw_u64 segments_sent;
  fw_u64 segments_received;
  fw_u64 duration_us; /* sum over the closed */
  fw_u64 rtt_us;      /* sum of smoothed RTTs at the end, over rtt_count */
  fw_u32 rtt_count;
  fw_u32 connections; /* ended ones; drops and stray resets count here, too */
  fw_u32 failed;      /* of these: never established */
  fw_u32 resets_sent;
  fw_u32 resets_received;
  fw_u32 retransmits; /* data */
  fw_u32 handshake_retransmits;
  fw_u32 padding;
};

/* RTT histogram: bucket i has what is below 2^(i + FW_NET_RTT_SHIFT) us, the last one all others.
 * 32 us .. 33 s. */
#define FW_NET_RTT_BUCKETS 22
#define FW_NET_RTT_SHIFT 5

#ifdef __cplusplus
#define FW_NET_ASSERT static_assert
#else
#define FW_NET_ASSERT _Static_assert
#endif
FW_NET_ASSERT(sizeof(struct fw_net_owner) == 16, "shared layout");
FW_NET_ASSERT(sizeof(struct fw_net_process) == 80, "shared layout");
FW_NET_ASSERT(sizeof(struct fw_net_counts) == 48, "shared layout");
FW_NET_ASSERT(sizeof(struct fw_net_socket) == 160, "shared layout");
FW_NET_ASSERT(sizeof(struct fw_net_record) == 184, "shared layout");
FW_NET_ASSERT(sizeof(struct fw_net_edge) == 48, "shared layout");
FW_NET_ASSERT(sizeof(struct fw_net_edge_counts) == 80, "shared layout");
#undef FW_NET_ASSERT
