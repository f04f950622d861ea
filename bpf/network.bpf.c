/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The TCP probe. Sockets are followed from their first state change to their destruction, without a
 * hook per packet: the kernel counts bytes, segments, retransmits and round-trip times itself, and
 * they are read when a connection ends, or by an iterator while it lives.
 *
 *   inet_sock_set_state    opened, established, closed; who connects, who listens. Not in a storm:
 *                          it comes ten times per connection
 *   tcp_destroy_sock       the end, and who closed; of what is not followed, all that is summed up
 *   tcp_retransmit_*       retransmits as they happen
 *   tcp_send_reset, tcp_receive_reset     who broke it
 *   kfree_skb              packets that the kernel dropped, with its reason
 *   tcp_v4_connect, tcp_v6_connect, on return, where functions may be traced: what failed before
 *                          anything was sent
 *   iterators              what is alive, what is older than the probe, who has it
 *
 * Whose a socket is (network_process.h): while a process holds a socket's lock, whatever happens to
 * it runs in that process's name (sk_lock.owned), also the backlog of packets that it works off.
 * Connecting, closing and exiting do. An accepted connection is born in a softirq, in the name of
 * whoever was interrupted: it gets the owner of its listener until its own process is seen.
 */
#include "bpf/network_attention.h"
#include "bpf/network_counters.h"
#include "bpf/network_edges.h"
#include "bpf/network_kernel.h"
#include "bpf/network_process.h"
#include "bpf/network_settings.h"
#include "bpf/network_socket.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* ---- maps ------------------------------------------------------------------------------------ */

/* Key: the socket's address; value: what is known of it. State changes add, tcp_destroy_sock
 * deletes, iterators change; memory is taken as it fills. The size is set at load. When full, a
 * socket is not followed, and counted; its end is still summed up. */
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, 131072);
  __type(key, fw_u64);
  __type(value, struct fw_net_socket);
} sockets SEC(".maps");

struct listen_key {
  struct fw_net_address local;
  fw_u32 netns;
  fw_u16 port;
  fw_u16 padding;
};

struct listener {
  struct fw_net_owner owner; /* of the latest */
  fw_u64 socket;
  fw_u32 shared; /* more than one process listened here */
  fw_u32 padding;
};

/* Who listens where. listen() adds, the end of the listener deletes. When full, connections that
 * come in there start without owner. */
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, 8192);
  __type(key, struct listen_key);
  __type(value, struct listener);
} listeners SEC(".maps");

/* To user space: struct fw_net_record, at a bounded rate. When full, records are lost and counted;
 * sums are not. */
struct {
  __uint(type, BPF_MAP_TYPE_RINGBUF);
  __uint(max_entries, 512 * 1024);
} records SEC(".maps");

struct allowance {
  fw_u64 since_ns;
  fw_u32 used;
  fw_u32 padding;
  fw_u64 asked; /* never reset */
};

/* Key 0: records of this CPU in the current tenth of a second. */
struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, 1);
  __type(key, fw_u32);
  __type(value, struct allowance);
} allowances SEC(".maps");

/* ---- who is followed ------------------------------------------------------------------------- */

/* How many of the sockets that are followed fall upon each slot: most of a storm's are not
 * followed, and this says so in a tenth of the time of a search. Counted up before a socket is
 * added and down after it is gone, so that 0 is certain. */
#define SLOT_BITS 14
__u32 followed[1 << SLOT_BITS];

static __always_inline __u32* slot_of(fw_u64 id) {
  /* To the verifier it is still a pointer, and only half of one makes a number. */
  fw_u32 low;
  asm volatile("%0 = %1" : "=w"(low) : "w"((fw_u32)id));
  return &followed[(low >> 6) * 0x9e3779b9u >> (32 - SLOT_BITS)];
}

static __always_inline struct fw_net_socket* find_socket(fw_u64 id) {
  if (*(volatile __u32*)slot_of(id) == 0) return NULL;
  return bpf_map_lookup_elem(&sockets, &id);
}

static __always_inline void forget(fw_u64 id) {
  if (bpf_map_delete_elem(&sockets, &id) == 0) __sync_fetch_and_add(slot_of(id), -1);
}

#define EEXIST 17

/* Unless it is there. */
static __always_inline bool keep(fw_u64 id, const struct fw_net_socket* socket) {
  __sync_fetch_and_add(slot_of(id), 1);
  const long error = bpf_map_update_elem(&sockets, &id, socket, BPF_NOEXIST);
  if (error == 0) return true;
  __sync_fetch_and_add(slot_of(id), -1);
  if (error != -EEXIST) count_net_loss(FW_NET_LOSS_SOCKETS_FULL);
  return false;
}

/* ---- records --------------------------------------------------------------------------------- */

#define ALLOWANCE_NS 100000000

static __always_inline bool may_send(void) {
  fw_u32 zero = 0;
  struct allowance* allowance = bpf_map_lookup_elem(&allowances, &zero);
  if (!allowance) return false;
  allowance->asked++;
  const fw_u64 now_ns = bpf_ktime_get_ns();
  if (now_ns - allowance->since_ns > ALLOWANCE_NS) {
    allowance->since_ns = now_ns;
    allowance->used = 0;
  }
  if (allowance->used * 10 >= events_per_second ||
      bpf_ringbuf_query(&records, BPF_RB_AVAIL_DATA) >= detail_backlog_bytes) {
    count_net_loss(FW_NET_LOSS_EVENTS_MERGED);
    return false;
  }
  allowance->used++;
  return true;
}

static __always_inline long send_record(fw_u64 id, fw_u32 kind, fw_u32 in_edges,
                                        const struct fw_net_socket* socket) {
  struct fw_net_record* record = bpf_ringbuf_reserve(&records, sizeof(*record), 0);
  if (!record) {
    count_net_loss(FW_NET_LOSS_RING_FULL);
    return -1;
  }
  record->time_ns = bpf_ktime_get_ns();
  record->id = id;
  record->kind = kind;
  record->in_edges = in_edges;
  __builtin_memcpy(&record->socket, socket, sizeof(*socket));
  const bool wake = kind == FW_NET_RECORD_WAKE ||
                    bpf_ringbuf_query(&records, BPF_RB_AVAIL_DATA) >= wake_backlog_bytes;
  bpf_ringbuf_submit(record, wake ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
  return 0;
}

static __always_inline void wake_reader(void) {
  const struct fw_net_socket nothing = {};
  send_record(0, FW_NET_RECORD_WAKE, 0, &nothing);
}

/* Once per filling of a map of edges. */
static __always_inline void wake_when_edges_fill(void) {
  if (edges_used < edges_wake_at) return;
  edges_used = 0;
  wake_reader();
}

static __always_inline bool may_follow(void) {
  const enum attention_paid paid = follow_or_not();
  if (paid == DO_NOT_FOLLOW_AND_WAKE) wake_reader();
  return paid == FOLLOW;
}

/* ---- the end of a connection ----------------------------------------------------------------- */

static __always_inline fw_u32 read_word(const fw_u32* word) {
  return *(const volatile fw_u32*)word;
}

/* The counts are final. A connection that the report of living ones has shown is counted by user
 * space, which knows how much of it was counted already; all others are summed here. The report
 * runs at the same time on another CPU: each side adds to its word (a full barrier) before it reads
 * the other's, so at least one of the two sees the other, and none is counted twice or never. */
static __always_inline void finish(fw_u64 id, struct fw_net_socket* socket) {
  socket->flags |= FW_NET_REPORTED;
  if (socket->owner.tgid == 0 && socket->role != FW_NET_LISTEN) {
    count_net_loss(FW_NET_LOSS_OWNER_UNKNOWN);
  }
  __sync_fetch_and_add(&socket->closing, 1);
  if (read_word(&socket->seen) != 0) {
    send_record(id, FW_NET_RECORD_CLOSED, 0, socket);
    return;
  }
  add_connection(socket);
  if (may_send()) send_record(id, FW_NET_RECORD_CLOSED, 1, socket);
  wake_when_edges_fill();
}

static __always_inline void take_owner(struct fw_net_socket* socket,
                                       enum fw_net_owner_source source) {
  const struct fw_net_owner owner = meet_current();
  if (owner.tgid == 0) return;
  socket->owner = owner;
  socket->owner_source = source;
}

/* The kernel keeps no error for a connect that it could not start, or that the program gave up. */
#define EADDRNOTAVAIL 99
#define ECANCELED 125

static __always_inline void freeze(const struct sock* sk, const struct tcp_sock* tp, int old_state,
                                   bool owned, struct fw_net_socket* socket) {
  read_addresses(true, sk, tp, socket);
  read_counts(true, sk, tp, socket);
  socket->closed_ns = bpf_ktime_get_ns();
  socket->state = TCP_CLOSE;
  socket->error = (fw_u16)sk->sk_err;
  socket->flags |= FW_NET_ENDED;
  if (old_state == TCP_SYN_SENT) {
    socket->counts.handshake_retransmits = socket->counts.retransmits;
    if (socket->error == 0) {
      socket->error = tp->inet_conn.icsk_inet.inet_sport == 0 ? EADDRNOTAVAIL : ECANCELED;
    }
  }
  if (owned && socket->role != FW_NET_CONNECT && socket->owner_source < FW_NET_OWNER_CALL) {
    take_owner(socket, FW_NET_OWNER_CALL);
  }
}

/* ---- listeners ------------------------------------------------------------------------------- */

static __always_inline struct listen_key listen_key_of(const struct fw_net_socket* socket) {
  return (struct listen_key){
      .local = socket->local, .netns = socket->netns, .port = socket->local_port};
}

static __always_inline bool same_owner(const struct fw_net_owner* a, const struct fw_net_owner* b) {
  return a->tgid == b->tgid && a->start_ns == b->start_ns;
}

static __always_inline void remember_listener(fw_u64 id, const struct fw_net_socket* socket) {
  const struct listen_key key = listen_key_of(socket);
  struct listener value = {.owner = socket->owner, .socket = id};
  const struct listener* other = bpf_map_lookup_elem(&listeners, &key);
  if (other && (other->shared || !same_owner(&other->owner, &value.owner))) value.shared = 1;
  if (bpf_map_update_elem(&listeners, &key, &value, BPF_ANY)) {
    count_net_loss(FW_NET_LOSS_LISTENERS_FULL);
  }
}

static __always_inline void forget_listener(fw_u64 id, const struct fw_net_socket* socket) {
  const struct listen_key key = listen_key_of(socket);
  const struct listener* listener = bpf_map_lookup_elem(&listeners, &key);
  if (listener && listener->socket == id) bpf_map_delete_elem(&listeners, &key);
}

static __always_inline const struct listener* find_listener(const struct fw_net_socket* socket) {
  struct listen_key key = listen_key_of(socket);
  const struct listener* found = bpf_map_lookup_elem(&listeners, &key);
  if (found) return found;
  __builtin_memset(&key.local, 0, sizeof(key.local));
  return bpf_map_lookup_elem(&listeners, &key);
}

static __always_inline void inherit_owner(struct fw_net_socket* socket) {
  const struct listener* listener = find_listener(socket);
  if (!listener) return;
  socket->owner = listener->owner;
  socket->owner_source = listener->owner.tgid ? FW_NET_OWNER_LISTENER : FW_NET_OWNER_NONE;
  if (listener->shared) socket->flags |= FW_NET_SHARED_LISTENER;
}

/* ---- connections that are not followed --------------------------------------------------------
 */

/* An accepted socket is a copy of its listener, backlog and all; others have none. Wrong for those
 * of a listen() with a backlog of 0, and good enough for sums. */
static __always_inline fw_u8 likely_role(const struct sock* sk) {
  return sk->sk_max_ack_backlog != 0 ? FW_NET_ACCEPT : FW_NET_CONNECT;
}

/* Into the sums of its role, without process and peer. */
static __always_inline void count_end(const struct sock* sk, const struct tcp_sock* tp) {
  fw_u32 role = likely_role(sk);
  struct fw_net_edge_counts* to = bpf_map_lookup_elem(&edge_overflow, &role);
  if (!to) return;
  count_net_loss(FW_NET_LOSS_ENDS_MERGED);
  struct fw_net_socket socket = {};
  read_counts(true, sk, tp, &socket);
  __sync_fetch_and_add(&to->bytes_sent, socket.counts.bytes_sent);
  __sync_fetch_and_add(&to->bytes_received, socket.counts.bytes_received);
  __sync_fetch_and_add(&to->segments_sent, socket.counts.segments_sent);
  __sync_fetch_and_add(&to->segments_received, socket.counts.segments_received);
  __sync_fetch_and_add(&to->connections, 1);
  if (tp->rcv_nxt == 0) __sync_fetch_and_add(&to->failed, 1);
  if (socket.counts.retransmits) {
    __sync_fetch_and_add(&to->retransmits, socket.counts.retransmits);
  }
}

static __always_inline void begin(const struct sock* sk, const struct tcp_sock* tp, fw_u32 netns,
                                  fw_u8 role, fw_u8 state, struct fw_net_socket* out) {
  out->opened_ns = bpf_ktime_get_ns();
  out->netns = netns;
  out->role = role;
  out->state = state;
  read_addresses(true, sk, tp, out);
}

static __always_inline void sum_up_whole(const struct sock* sk, const struct tcp_sock* tp,
                                         fw_u32 netns, bool failed, struct fw_net_socket* socket) {
  const bool owned = sk->sk_lock.owned != 0;
  begin(sk, tp, netns, likely_role(sk), TCP_CLOSE, socket);
  if (!failed) socket->established_ns = socket->opened_ns;
  if (socket->role == FW_NET_ACCEPT) {
    inherit_owner(socket);
  } else if (owned) {
    take_owner(socket, FW_NET_OWNER_CALL);
  }
  freeze(sk, tp, failed ? TCP_SYN_SENT : TCP_ESTABLISHED, owned, socket);
  add_connection(socket);
  wake_when_edges_fill();
}

/* So that nobody counts it again: at its destruction, or where returns of connect() are looked at.
 * False when that cannot be said: then it must be counted at its destruction. */
static __always_inline bool mark_counted(const struct sock* sk) {
  const struct fw_net_socket socket = {
      .state = TCP_CLOSE, .flags = FW_NET_ENDED | FW_NET_REPORTED, .closing = 1};
  return keep((fw_u64)(unsigned long)sk, &socket);
}

/* Summed, and that is all. */
static __always_inline void sum_up(const struct sock* sk, const struct tcp_sock* tp, fw_u32 netns) {
  if (!may_sum_up_whole()) {
    count_end(sk, tp);
    return;
  }
  struct fw_net_socket socket = {};
  sum_up_whole(sk, tp, netns, false, &socket);
}

/* A connect that failed is worth more than one that did not: with process and error, always. */
static __always_inline void sum_up_failed(const struct sock* sk, const struct tcp_sock* tp,
                                          fw_u32 netns) {
  struct fw_net_socket socket = {};
  sum_up_whole(sk, tp, netns, true, &socket);
  mark_counted(sk);
}

/* Not followed, the map was full, or the probe has just started. */
static __always_inline void on_unknown_destroyed(const struct sock* sk) {
  const fw_u32 netns = netns_of(true, sk);
  if (!netns_is_wanted(netns)) return;
  const struct tcp_sock* tp = bpf_skc_to_tcp_sock((void*)sk);
  if (!tp) return;
  const bool failed = tp->rcv_nxt == 0;
  /* Never connected. What failed to is marked, if anybody saw it fail. (The kernel has taken its
   * other counts back.) */
  if (failed && (states_are_watched || tp->write_seq == 0)) return;
  /* Two packets may end one handshake on two CPUs, and each makes a socket of it: one of these is
   * destroyed before it has taken its packet, so that it knows of the SYN alone. (One that was
   * taken off its connection has no counts either, but no peer.) */
  if (!failed && tp->segs_in <= 1 && likely_role(sk) == FW_NET_ACCEPT &&
      sk->__sk_common.skc_dport != 0) {
    return;
  }
  if (!states_are_watched) count_net_loss(FW_NET_LOSS_NOT_WATCHED);
  if (failed) {
    count_end(sk, tp);
  } else {
    sum_up(sk, tp, netns);
  }
}

/* ---- state changes --------------------------------------------------------------------------- */

static __always_inline void on_syn_sent(const struct sock* sk, const struct tcp_sock* tp,
                                        fw_u32 netns) {
  const fw_u64 id = (fw_u64)(unsigned long)sk;
  /* A socket may try again after a failure. */
  struct fw_net_socket* before = find_socket(id);
  if (before && (before->flags & FW_NET_ENDED) && !(before->flags & FW_NET_REPORTED)) {
    finish(id, before);
  }
  if (before) forget(id);
  /* Or after a connection that it was taken off (AF_UNSPEC) while nobody watched. */
  if (!before && tp->rcv_nxt != 0) count_end(sk, tp);
  if (!may_follow()) return;
  struct fw_net_socket socket = {};
  begin(sk, tp, netns, FW_NET_CONNECT, TCP_SYN_SENT, &socket);
  take_owner(&socket, FW_NET_OWNER_CALL);
  keep(id, &socket);
}

static __always_inline void on_listen(const struct sock* sk, const struct tcp_sock* tp,
                                      fw_u32 netns) {
  const fw_u64 id = (fw_u64)(unsigned long)sk;
  struct fw_net_socket socket = {};
  if (find_socket(id)) forget(id);
  begin(sk, tp, netns, FW_NET_LISTEN, TCP_LISTEN, &socket);
  socket.backlog_limit = sk->sk_max_ack_backlog;
  take_owner(&socket, FW_NET_OWNER_CALL);
  keep(id, &socket);
  remember_listener(id, &socket);
}

static __always_inline void on_established(const struct sock* sk, const struct tcp_sock* tp,
                                           fw_u32 netns, int old_state) {
  const fw_u64 id = (fw_u64)(unsigned long)sk;
  struct fw_net_socket* socket = find_socket(id);
  if (socket) {
    if (socket->established_ns != 0) return;
    read_addresses(true, sk, tp, socket);
    socket->counts.handshake_retransmits = tp->total_retrans;
    socket->established_ns = bpf_ktime_get_ns();
    socket->state = TCP_ESTABLISHED;
    if (may_send()) send_record(id, FW_NET_RECORD_ESTABLISHED, 0, socket);
    return;
  }
  /* One that connects began before the probe, and is found among what lives, or is not followed. */
  if (old_state != TCP_SYN_RECV || !may_follow()) return;
  struct fw_net_socket fresh = {};
  begin(sk, tp, netns, FW_NET_ACCEPT, TCP_ESTABLISHED, &fresh);
  fresh.established_ns = fresh.opened_ns;
  fresh.counts.handshake_retransmits = tp->total_retrans;
  inherit_owner(&fresh);
  keep(id, &fresh);
  if (may_send()) send_record(id, FW_NET_RECORD_ESTABLISHED, 0, &fresh);
}

/* Of states from which CLOSE ends a connection. */
#define CONNECTED_STATES                                                                  \
  (1 << TCP_ESTABLISHED | 1 << TCP_FIN_WAIT1 | 1 << TCP_FIN_WAIT2 | 1 << TCP_CLOSE_WAIT | \
   1 << TCP_LAST_ACK | 1 << TCP_CLOSING)

static __always_inline void on_close(const struct sock* sk, const struct tcp_sock* tp, fw_u32 netns,
                                     int old_state) {
  const fw_u64 id = (fw_u64)(unsigned long)sk;
  const bool owned = sk->sk_lock.owned != 0;
  struct fw_net_socket* socket = find_socket(id);
  const bool dead = (sk->__sk_common.skc_flags & SOCK_DEAD) != 0;
  if (!socket) {
    if (old_state == TCP_SYN_SENT) {
      sum_up_failed(sk, tp, netns);
    } else if (!dead && 1 << (old_state & 15) & CONNECTED_STATES && mark_counted(sk)) {
      /* Not at its destruction as others: a program that breaks a connection, or takes a socket off
       * it, has the kernel clear the counts. */
      sum_up(sk, tp, netns);
    }
    return;
  }
  if (socket->role == FW_NET_LISTEN || (socket->flags & FW_NET_ENDED)) return;
  freeze(sk, tp, old_state, owned, socket);
  /* With an error the last has been said. Without, a reset of our own may follow (unread data, no
   * lingering), and then its destruction does, too. */
  if (socket->error != 0 || (!owned && !dead)) finish(id, socket);
}

/* What a process does to a connection that it was given: shut it down, close it. */
static __always_inline void on_other_state(const struct sock* sk, int state) {
  const fw_u64 id = (fw_u64)(unsigned long)sk;
  struct fw_net_socket* socket = find_socket(id);
  if (!socket) return;
  socket->state = (fw_u8)state;
  if (socket->owner_source < FW_NET_OWNER_CALL) take_owner(socket, FW_NET_OWNER_CALL);
}

/* Changes to these are looked at whoever makes them, to others when a process does. */
#define STATES_OF_THE_KERNEL \
  (1 << TCP_SYN_SENT | 1 << TCP_LISTEN | 1 << TCP_ESTABLISHED | 1 << TCP_CLOSE)

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_state, struct sock* sk, int old_state, int new_state) {
  /* Half of all changes: what comes from the other side, while no process looks. */
  if (!(1 << (new_state & 15) & STATES_OF_THE_KERNEL) && !sk->sk_lock.owned) return 0;
  const fw_u32 netns = netns_of(true, sk);
  if (!netns_is_wanted(netns)) return 0;
  const struct tcp_sock* tp = bpf_skc_to_tcp_sock(sk);
  if (!tp) return 0;
  switch (new_state) {
    case TCP_SYN_SENT:
      on_syn_sent(sk, tp, netns);
      break;
    case TCP_LISTEN:
      on_listen(sk, tp, netns);
      break;
    case TCP_ESTABLISHED:
      on_established(sk, tp, netns, old_state);
      break;
    case TCP_CLOSE:
      on_close(sk, tp, netns, old_state);
      break;
    default:
      on_other_state(sk, new_state);
  }
  return 0;
}

/* Nobody saw its states change. */
static __always_inline void freeze_at_destruction(const struct sock* sk,
                                                  struct fw_net_socket* socket) {
  const struct tcp_sock* tp = bpf_skc_to_tcp_sock((void*)sk);
  if (!tp) return;
  count_net_loss(FW_NET_LOSS_NOT_WATCHED);
  const bool connected = tp->rcv_nxt != 0;
  if (connected && socket->established_ns == 0) socket->established_ns = socket->opened_ns;
  freeze(sk, tp, TCP_ESTABLISHED, sk->sk_lock.owned != 0, socket);
  if (!connected) socket->counts.handshake_retransmits = socket->counts.retransmits;
}

SEC("tp_btf/tcp_destroy_sock")
int BPF_PROG(on_destroy, struct sock* sk) {
  const fw_u64 id = (fw_u64)(unsigned long)sk;
  struct fw_net_socket* socket = find_socket(id);
  if (!socket) {
    on_unknown_destroyed(sk);
    return 0;
  }
  if (socket->role == FW_NET_LISTEN) {
    read_listener(true, sk, socket);
    forget_listener(id, socket);
    if (socket->seen != 0 || socket->listen_drops != 0 || socket->synack_retransmits != 0) {
      socket->closed_ns = bpf_ktime_get_ns();
      send_record(id, FW_NET_RECORD_CLOSED, 0, socket);
    }
  } else if (!(socket->flags & FW_NET_REPORTED)) {
    if (!(socket->flags & FW_NET_ENDED)) freeze_at_destruction(sk, socket);
    if (sk->sk_lock.owned && socket->role != FW_NET_CONNECT &&
        socket->owner_source < FW_NET_OWNER_CALL) {
      take_owner(socket, FW_NET_OWNER_CALL);
    }
    finish(id, socket);
  }
  forget(id);
  return 0;
}

/* ---- retransmits and resets ------------------------------------------------------------------ */

SEC("tp_btf/tcp_retransmit_skb")
int BPF_PROG(on_retransmit, struct sock* sk) {
  const fw_u64 id = (fw_u64)(unsigned long)sk;
  struct fw_net_socket* socket = find_socket(id);
  if (!socket) return 0;
  const struct tcp_sock* tp = bpf_skc_to_tcp_sock(sk);
  if (!tp) return 0;
  socket->counts.retransmits = tp->total_retrans;
  socket->state = sk->__sk_common.skc_state;
  if (may_send()) send_record(id, FW_NET_RECORD_RETRANSMIT, 0, socket);
  return 0;
}

SEC("tp_btf/tcp_retransmit_synack")
int BPF_PROG(on_retransmit_synack, struct sock* sk) {
  const fw_u64 id = (fw_u64)(unsigned long)sk;
  struct fw_net_socket* socket = find_socket(id);
  if (socket) __sync_fetch_and_add(&socket->synack_retransmits, 1);
  return 0;
}

SEC("tp_btf/tcp_receive_reset")
int BPF_PROG(on_receive_reset, struct sock* sk) {
  const fw_u64 id = (fw_u64)(unsigned long)sk;
  struct fw_net_socket* socket = find_socket(id);
  if (socket) socket->flags |= FW_NET_RESET_RECEIVED;
  return 0;
}

struct packet {
  struct fw_net_address from;
  fw_u16 port; /* that it was sent to, host byte order; 0 when not TCP or UDP */
  fw_u8 protocol;
  bool ipv6;
};

#define NO_HEADER 0xffff

/* Addresses and ports of a packet that has arrived; nothing of what is behind them. */
static __always_inline bool read_packet(const struct sk_buff* skb, struct packet* out) {
  const fw_u16 protocol = BPF_CORE_READ(skb, protocol);
  if (protocol != ETH_P_IP_BE && protocol != ETH_P_IPV6_BE) return false;
  const fw_u16 offset = BPF_CORE_READ(skb, network_header);
  if (offset == NO_HEADER) return false;
  const unsigned char* header = BPF_CORE_READ(skb, head) + offset;
  out->ipv6 = protocol == ETH_P_IPV6_BE;
  fw_u32 header_bytes = 40;
  if (out->ipv6) {
    bpf_probe_read_kernel(&out->protocol, 1, header + 6);
    bpf_probe_read_kernel(&out->from, 16, header + 8);
  } else {
    fw_u8 version_and_length = 0;
    fw_u32 from = 0;
    bpf_probe_read_kernel(&version_and_length, 1, header);
    bpf_probe_read_kernel(&out->protocol, 1, header + 9);
    bpf_probe_read_kernel(&from, 4, header + 12);
    put_ipv4(&out->from, from);
    header_bytes = (version_and_length & 15) * 4;
  }
  if (out->protocol == IPPROTO_TCP || out->protocol == 17) {
    fw_u16 port = 0;
    bpf_probe_read_kernel(&port, 2, header + header_bytes + 2);
    out->port = swap_port(port);
  }
  return true;
}

static __always_inline fw_u32 netns_of_packet(const struct sk_buff* skb, const struct sock* sk) {
  if (sk) return netns_of(false, sk);
  return BPF_CORE_READ(skb, dev, nd_net.net, ns.inum);
}

static __always_inline void count_stray_reset(const struct sk_buff* skb, const struct sock* sk,
                                              const struct fw_net_owner* owner, fw_u16 reason) {
  struct packet packet = {};
  const fw_u32 netns = netns_of_packet(skb, sk);
  if (!netns_is_wanted(netns) || !read_packet(skb, &packet)) return;
  struct fw_net_edge edge = {.remote = packet.from,
                             .netns = netns,
                             .port = packet.port,
                             .code = reason,
                             .role = FW_NET_STRAY_RESET,
                             .protocol = IPPROTO_TCP,
                             .flags = packet.ipv6 ? FW_NET_IPV6 : 0};
  if (owner) edge.owner = *owner;
  struct fw_net_edge_counts* counts = find_edge(&edge);
  if (!counts) return;
  __sync_fetch_and_add(&counts->connections, 1);
  __sync_fetch_and_add(&counts->resets_sent, 1);
}

/* Raw arguments: the socket may be NULL, which verifiers before 6.13 do not know. */
SEC("raw_tp/tcp_send_reset")
int on_send_reset(struct bpf_raw_tracepoint_args* ctx) {
  const struct sock* sk = (const struct sock*)ctx->args[0];
  const struct sk_buff* skb = (const struct sk_buff*)ctx->args[1];
  fw_u16 reason = 0;
  if (send_reset_arguments >= 3) reason = (fw_u16)ctx->args[2];
  const fw_u64 id = (fw_u64)(unsigned long)sk;
  struct fw_net_socket* socket = sk ? bpf_map_lookup_elem(&sockets, &id) : NULL;
  if (socket && socket->role != FW_NET_LISTEN && !(socket->flags & FW_NET_REPORTED)) {
    socket->flags |= FW_NET_RESET_SENT;
    socket->reset_reason = (fw_u8)reason;
    return 0;
  }
  if (skb) count_stray_reset(skb, sk, socket ? &socket->owner : NULL, reason);
  return 0;
}

/* ---- drops ----------------------------------------------------------------------------------- */

SEC("raw_tp/kfree_skb")
int on_drop(struct bpf_raw_tracepoint_args* ctx) {
  const struct sk_buff* skb = (const struct sk_buff*)ctx->args[0];
  fw_u32 reason = 0;
  const struct sock* sk = NULL;
  if (kfree_skb_arguments >= 3) {
    reason = (fw_u32)ctx->args[2];
    if (reason == reason_queue_purge) return 0;
  }
  if (kfree_skb_arguments >= 4) sk = (const struct sock*)ctx->args[3];
  if (!sk) sk = BPF_CORE_READ(skb, sk);
  struct packet packet = {};
  const fw_u32 netns = netns_of_packet(skb, sk);
  if (!netns_is_wanted(netns)) return 0;
  const fw_u64 id = (fw_u64)(unsigned long)sk;
  const struct fw_net_socket* socket = sk ? bpf_map_lookup_elem(&sockets, &id) : NULL;
  if (!read_packet(skb, &packet)) {
    /* What a socket could not send has no header yet. */
    if (!socket) return 0;
    packet.protocol = IPPROTO_TCP;
    packet.ipv6 = (socket->flags & FW_NET_IPV6) != 0;
  }
  struct fw_net_edge edge = {.netns = netns,
                             /* What a subsystem adds to the list has its number above. */
                             .code = reason < 0xffff ? (fw_u16)reason : 0xffff,
                             .role = FW_NET_DROP,
                             .protocol = packet.protocol,
                             .flags = packet.ipv6 ? FW_NET_IPV6 : 0};
  if (socket) {
    edge.owner = socket->owner;
    edge.port = socket->role == FW_NET_CONNECT ? socket->remote_port : socket->local_port;
  }
  if (kfree_skb_arguments < 3 || reason == reason_not_specified) {
    const fw_u64 location = ctx->args[1];
    __builtin_memcpy(edge.remote.bytes, &location, sizeof(location));
  }
  struct fw_net_edge_counts* counts = find_edge(&edge);
  if (counts) __sync_fetch_and_add(&counts->connections, 1);
  return 0;
}

/* ---- where the kernel may be traced by function ------------------------------------------------
 * Loaded only where that was found to work; the rest does not depend on it. */

#define SAME_CALL_NS 1000000

struct retransmit_call {
  fw_u64 id;
  fw_u64 sent_again; /* the socket's count when it began */
  fw_u64 time_ns;
};

/* Key 0: the last call on this CPU. */
struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, 1);
  __type(key, fw_u32);
  __type(value, struct retransmit_call);
} last_call SEC(".maps");

/* Data and SYNs that are sent again, for kernels without the tracepoint, or on request. Called just
 * before total_retrans counts it. The inner function alone is called for tail loss probes; the
 * outer one has it inlined on some kernels (Debian's 6.1) and calls it on others (6.12), then a
 * second look finds the same count. So does a call that follows one that could not send. */
static __always_inline void on_call(const struct sock* sk) {
  if (!netns_is_wanted(netns_of(false, sk))) return;
  fw_u32 zero = 0;
  struct retransmit_call* last = bpf_map_lookup_elem(&last_call, &zero);
  if (!last) return;
  const fw_u64 id = (fw_u64)(unsigned long)sk;
  const fw_u64 sent_again = BPF_CORE_READ((const struct tcp_sock*)sk, total_retrans);
  const fw_u64 now_ns = bpf_ktime_get_ns();
  /* Another socket may live at the address a moment later. */
  const bool same = last->id == id && last->sent_again == sent_again;
  if (same && now_ns - last->time_ns < SAME_CALL_NS) return;
  last->id = id;
  last->sent_again = sent_again;
  last->time_ns = now_ns;
  __sync_fetch_and_add(&retransmit_calls, 1);
  struct fw_net_socket* socket = bpf_map_lookup_elem(&sockets, &id);
  if (socket && may_send()) send_record(id, FW_NET_RECORD_RETRANSMIT, 0, socket);
}

SEC("?kprobe/tcp_retransmit_skb")
int on_retransmit_call(struct pt_regs* ctx) {
  on_call((const struct sock*)ctx->rdi);
  return 0;
}

SEC("?kprobe/__tcp_retransmit_skb")
int on_retransmit_inner(struct pt_regs* ctx) {
  on_call((const struct sock*)ctx->rdi);
  return 0;
}

/* linux/in.h, linux/in6.h */
struct socket_address {
  fw_u16 family;
  fw_u16 port; /* network byte order, as the address */
  fw_u32 ipv4; /* in6: flow */
  fw_u8 ipv6[16];
};

/* Only what no state change has shown: without a route or permission the socket stays closed. A
 * socket that is known has come as far as its SYN, then or before. */
static __always_inline void on_connect(const struct sock* sk, const void* to, bool ipv6,
                                       int error) {
  if (error >= 0) return;
  const fw_u32 netns = netns_of(false, sk);
  const fw_u64 id = (fw_u64)(unsigned long)sk;
  if (!netns_is_wanted(netns) || bpf_map_lookup_elem(&sockets, &id)) return;
  struct socket_address address = {};
  bpf_probe_read_kernel(&address, ipv6 ? sizeof(address) : 8, to);
  struct fw_net_socket socket = {};
  socket.opened_ns = bpf_ktime_get_ns();
  socket.closed_ns = socket.opened_ns;
  socket.netns = netns;
  socket.role = FW_NET_CONNECT;
  socket.state = TCP_CLOSE;
  socket.error = (fw_u16)-error;
  socket.flags = FW_NET_ENDED | FW_NET_REPORTED;
  socket.remote_port = swap_port(address.port);
  if (ipv6) {
    socket.flags |= FW_NET_IPV6;
    __builtin_memcpy(socket.remote.bytes, address.ipv6, sizeof(address.ipv6));
    const fw_u32* words = (const fw_u32*)socket.remote.bytes;
    /* ::ffff:a.b.c.d has been through tcp_v4_connect. */
    if (words[0] == 0 && words[1] == 0 && words[2] == 0xffff0000) return;
  } else {
    put_ipv4(&socket.remote, address.ipv4);
  }
  take_owner(&socket, FW_NET_OWNER_CALL);
  /* Not add_connection: of an atomic addition of what it knows to be 0 clang makes an instruction
   * that kernels before 5.12 do not have. */
  struct fw_net_edge_counts* counts = edge_of(&socket);
  if (counts) {
    __sync_fetch_and_add(&counts->connections, 1);
    __sync_fetch_and_add(&counts->failed, 1);
  }
  if (may_send()) send_record(id, FW_NET_RECORD_CLOSED, 1, &socket);
  wake_when_edges_fill();
}

SEC("?fexit/tcp_v4_connect")
int BPF_PROG(on_connect_ipv4, struct sock* sk, void* to, int length, int error) {
  on_connect(sk, to, false, error);
  return 0;
}

SEC("?fexit/tcp_v6_connect")
int BPF_PROG(on_connect_ipv6, struct sock* sk, void* to, int length, int error) {
  on_connect(sk, to, true, error);
  return 0;
}

/* ---- iterators ------------------------------------------------------------------------------- */

/* A living socket that no hook has shown yet. */
static __always_inline void adopt(struct sock* sk, const struct fw_net_owner* owner) {
  const struct tcp_sock* tp = (const struct tcp_sock*)sk;
  const fw_u64 id = (fw_u64)(unsigned long)sk;
  const fw_u8 state = BPF_CORE_READ(sk, __sk_common.skc_state);
  const bool listens = state == TCP_LISTEN;
  if (listens != (backfill_step == 1)) return;
  if (!listens && !(1 << (state & 15) & (CONNECTED_STATES | 1 << TCP_SYN_SENT))) return;
  struct fw_net_socket socket = {};
  socket.netns = netns_of(false, sk);
  socket.opened_ns = bpf_ktime_get_ns();
  socket.established_ns = state == TCP_SYN_SENT ? 0 : socket.opened_ns;
  socket.state = state;
  socket.flags = FW_NET_FROM_BEFORE;
  read_addresses(false, sk, tp, &socket);
  if (owner && owner->tgid) {
    socket.owner = *owner;
    socket.owner_source = FW_NET_OWNER_FILE;
  }
  if (listens) {
    socket.role = FW_NET_LISTEN;
    keep(id, &socket);
    remember_listener(id, &socket);
    return;
  }
  const struct listener* listener = find_listener(&socket);
  socket.role = listener ? FW_NET_ACCEPT : FW_NET_CONNECT;
  if (socket.owner_source == FW_NET_OWNER_NONE && listener) inherit_owner(&socket);
  keep(id, &socket);
}

static __always_inline struct sock* socket_of_file(const struct file* file) {
  struct inode* inode = BPF_CORE_READ(file, f_inode);
  /* include/linux/stat.h: S_IFMT, S_IFSOCK */
  if ((BPF_CORE_READ(inode, i_mode) & 0170000) != 0140000) return NULL;
  if (BPF_CORE_READ(inode, i_sb, s_magic) != SOCKFS_MAGIC) return NULL;
  struct socket* socket = BPF_CORE_READ(file, private_data);
  return BPF_CORE_READ(socket, sk);
}

static __always_inline bool is_tcp(const struct sock* sk) {
  const unsigned short family = BPF_CORE_READ(sk, __sk_common.skc_family);
  return (family == AF_INET || family == AF_INET6) && BPF_CORE_READ(sk, sk_protocol) == IPPROTO_TCP;
}

/* Every descriptor of every process. backfill_step 0: only owners of sockets that are followed. */
SEC("iter/task_file")
int find_owners(struct bpf_iter__task_file* ctx) {
  struct task_struct* task = ctx->task;
  struct file* file = ctx->file;
  if (!task || !file) return 0;
  struct sock* sk = socket_of_file(file);
  if (!sk || !is_tcp(sk) || !netns_is_wanted(netns_of(false, sk))) return 0;
  const fw_u64 id = (fw_u64)(unsigned long)sk;
  struct fw_net_socket* socket = bpf_map_lookup_elem(&sockets, &id);
  if (socket) {
    if (socket->owner_source >= FW_NET_OWNER_FILE) return 0;
    const struct fw_net_owner owner = meet_process(task);
    if (owner.tgid == 0) return 0;
    socket->owner = owner;
    socket->owner_source = FW_NET_OWNER_FILE;
    return 0;
  }
  if (backfill_step == 0) return 0;
  const struct fw_net_owner owner = meet_process(task);
  adopt(sk, &owner);
  return 0;
}

/* Every socket of the reader's network namespace: those without descriptor, too. */
SEC("iter/tcp")
int find_sockets(struct bpf_iter__tcp* ctx) {
  struct sock_common* common = ctx->sk_common;
  if (!common || backfill_step == 0) return 0;
  const struct tcp_sock* tp = bpf_skc_to_tcp_sock(common);
  if (!tp) return 0; /* half open, or waiting for its time to end */
  struct sock* sk = (struct sock*)common;
  const fw_u64 id = (fw_u64)(unsigned long)sk;
  if (!netns_is_wanted(netns_of(false, sk)) || bpf_map_lookup_elem(&sockets, &id)) return 0;
  adopt(sk, NULL);
  return 0;
}

/* The living sockets, each as a record. */
SEC("iter/bpf_map_elem")
int report_sockets(struct bpf_iter__bpf_map_elem* ctx) {
  const fw_u64* key = ctx->key;
  struct seq_file* seq = ctx->meta->seq;
  if (!key) return 0;
  fw_u64 id = *key;
  struct fw_net_socket* socket = bpf_map_lookup_elem(&sockets, &id);
  if (!socket) return 0;
  struct fw_net_record record = {.id = id, .kind = FW_NET_RECORD_LIVE};
  record.socket = *socket;
  const struct sock* sk = (const struct sock*)id;
  if (record.socket.role == FW_NET_LISTEN) {
    read_listener(false, sk, &record.socket);
  } else if (!(record.socket.flags & FW_NET_ENDED)) {
    record.socket.state = BPF_CORE_READ(sk, __sk_common.skc_state);
    if (record.socket.local_port == 0) read_addresses(false, sk, (void*)sk, &record.socket);
    read_counts(false, sk, (void*)sk, &record.socket);
    /* The number of a listener's SYN-ACKs or of SYNs is known since ESTABLISHED, which may have
     * come since the entry was copied. */
    if (record.socket.role == FW_NET_CONNECT && record.socket.established_ns == 0) {
      record.socket.counts.handshake_retransmits = record.socket.counts.retransmits;
    }
  }
  record.time_ns = bpf_ktime_get_ns();
  /* Another socket may live at this address meanwhile: what was read is this one's only if the
   * entry is still the same. See finish() for the words. */
  socket = bpf_map_lookup_elem(&sockets, &id);
  if (!socket || socket->opened_ns != record.socket.opened_ns) return 0;
  if (socket->role != FW_NET_LISTEN) {
    if (socket->seen == 0) __sync_fetch_and_add(&socket->seen, 1);
    if (read_word(&socket->closing) != 0) return 0;
  } else {
    socket->seen = 1;
  }
  bpf_seq_write(seq, &record, sizeof(record));
  return 0;
}
