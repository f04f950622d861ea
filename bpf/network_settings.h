/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What user space decides: constants before the load, and what may change while it runs. */
#pragma once

#include "bpf/kernel.h"

/* Only sockets of these network namespaces (inode numbers) are looked at; count 0: all. */
#define MAX_WANTED_NETNS 8
const volatile __u32 wanted_netns_count = 0;
const volatile __u32 wanted_netns[MAX_WANTED_NETNS] = {};
/* How many arguments this kernel's tracepoints have: kfree_skb 2 (until 5.16), 3, or 4 with the
 * receiving socket (since 6.11); tcp_send_reset 2 or 3 with a reason (since 6.10). */
const volatile __u32 kfree_skb_arguments = 2;
const volatile __u32 send_reset_arguments = 2;
/* SKB_DROP_REASON_NOT_SPECIFIED here; drops without reason are told by where they happened. */
const volatile __u32 reason_not_specified = 0;
/* What was left in a queue when its socket ended (SKB_DROP_REASON_QUEUE_PURGE, or a number that no
 * reason has): every other connection leaves its FIN there, and no packet was dropped. */
const volatile __u32 reason_queue_purge = ~0u;

/* Changed while it runs. Records of single connections per second and CPU; more are only summed. */
__u32 events_per_second = 1000;
/* Connections that begin, per second and CPU, which are followed; of more only their ends are
 * counted. */
__u32 follow_per_second = 1000;
/* 0: on_state is not attached, and on_destroy is all that is known of a connection. */
__u32 states_are_watched = 1;
/* A reader is woken when so much waits in the ring. */
__u32 wake_backlog_bytes = 64 * 1024;
/* While less than this waits, records that are only shown are sent, too; the rest of the ring is
 * for ends of connections, which are counted by them. */
__u32 detail_backlog_bytes = 256 * 1024;
/* Which of the two maps of edges is filled; user space empties the other one. */
__u32 active_edges = 0;
/* Entries that were added to the active one. */
__u32 edges_used = 0;
__u32 edges_wake_at = 8192;
/* Calls of the kernel's function that sends again; counted where a kprobe sees them. */
fw_u64 retransmit_calls = 0;
/* Step of the search for sockets that are older than the probe: 1 listeners, 2 the rest. */
__u32 backfill_step = 0;
