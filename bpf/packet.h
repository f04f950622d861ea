/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* From the bytes of a frame to the fields that rules look at. Pure: the same text compiles into the
 * BPF program and into host programs (tests under sanitizers, fuzzing).
 *
 * Bytes of strangers: each read is checked against the end of the data, and each header against the
 * length that the IP header states, so that padding behind a short packet is not taken for ports.
 * What is in doubt stays unknown, and a rule that asks for it does not match; the addresses are
 * still judged. At most two VLAN tags and eight IPv6 extension headers are followed.
 *
 * `packet` is in memory that the verifier does not follow (a map's value), and the offset goes
 * through it (volatile): after each header of a chain the verifier forgets how it was reached, and
 * looks at one state instead of one for each way through the chain.
 */
#pragma once

#include "bpf/include/firewall.h"

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

enum fw_parsed {
  FW_PARSED_IP = 0,
  FW_PARSED_NOT_IP,       /* other protocols, and frames too short for any */
  FW_PARSED_MALFORMED,    /* the IP header is cut or contradicts itself: no addresses to judge by */
  FW_PARSED_HEADER_CHAIN, /* more than FW_EXTENSIONS_MAX headers: the protocol stays unknown */
};

#define FW_VLAN_TAGS_MAX 2
#define FW_EXTENSIONS_MAX 8
/* Farther into a frame than any chain can reach: 14 + 8 + 40 + 8 × 2048 is below it. */
#define FW_OFFSET_MASK 0x7fffu

#ifdef __bpf__
/* Where BPF programs run, loads need not be aligned; memcpy would go byte by byte. */
#define FW_LOAD(type, at) (*(const type*)(at))
#else
#define FW_LOAD(type, at)                         \
  ({                                              \
    type loaded;                                  \
    __builtin_memcpy(&loaded, at, sizeof loaded); \
    loaded;                                       \
  })
#endif
#define FW_BE16(at) ((fw_u16)__builtin_bswap16(FW_LOAD(fw_u16, at)))
#define FW_BE32(at) (__builtin_bswap32(FW_LOAD(fw_u32, at)))
#define FW_BE64(at) (__builtin_bswap64(FW_LOAD(fw_u64, at)))

static __always_inline int fw_is_extension(fw_u32 header) {
  return header == 0 || header == 43 || header == 44 || header == 51 || header == 60 ||
         header == 135 || header == 139 || header == 140;
}

/* Ports, flags or type, as far as the bytes before `end` (an offset in the frame) go. */
static __always_inline void fw_parse_transport(const fw_u8* data, const fw_u8* data_end, fw_u32 end,
                                               struct fw_packet* packet) {
  fw_u32 offset = *(volatile fw_u32*)&packet->offset & FW_OFFSET_MASK;
  const fw_u8* at = data + offset;
  fw_u32 protocol = packet->protocol;

  if (protocol == 1 || protocol == 58) { /* ICMP, ICMPv6: each in its own family only */
    if ((protocol == 1) != (packet->family == FW_FAMILY_IPV4)) return;
    if (at + 1 > data_end || offset + 1 > end) {
      packet->cut = 1;
      return;
    }
    packet->detail = (fw_u16)((protocol == 1 ? FW_DETAIL_ICMP : FW_DETAIL_ICMPV6) + at[0]);
    return;
  }
  /* TCP, UDP, DCCP, SCTP, UDP-Lite: ports first. */
  if (protocol != 6 && protocol != 17 && protocol != 33 && protocol != 132 && protocol != 136)
    return;
  if (at + 4 > data_end || offset + 4 > end) {
    packet->cut = 1;
    return;
  }
  packet->source_port = FW_BE16(at);
  packet->destination_port = FW_BE16(at + 2);
  packet->has_ports = 1;
  if (protocol != 6) return;
  if (at + 14 > data_end || offset + 14 > end) {
    packet->cut = 1;
    return;
  }
  packet->detail = (fw_u16)(FW_DETAIL_TCP + at[13]);
}

static __always_inline enum fw_parsed fw_parse_ipv4(const fw_u8* data, const fw_u8* data_end,
                                                    fw_u32 offset, struct fw_packet* packet) {
  const fw_u8* at = data + offset;
  if (at + 20 > data_end) return FW_PARSED_MALFORMED;
  fw_u32 header_bytes = (at[0] & 15u) * 4;
  fw_u32 total_bytes = FW_BE16(at + 2);
  if (at[0] >> 4 != 4 || header_bytes < 20) return FW_PARSED_MALFORMED;
  if (total_bytes && total_bytes < header_bytes) return FW_PARSED_MALFORMED;
  if (offset + header_bytes > packet->frame_bytes) return FW_PARSED_MALFORMED;
  fw_u32 fragment = FW_BE16(at + 6);

  packet->family = FW_FAMILY_IPV4;
  packet->protocol = at[9];
  packet->source_high = 0;
  packet->source_low = FW_BE32(at + 12);
  packet->destination_high = 0;
  packet->destination_low = FW_BE32(at + 16);
  *(volatile fw_u32*)&packet->offset = offset + header_bytes;
  if (fragment & 0x1fff) {
    packet->fragment = FW_FRAGMENT_LATER;
    return FW_PARSED_IP;
  }
  packet->fragment = fragment & 0x2000 ? FW_FRAGMENT_FIRST : FW_FRAGMENT_NONE;
  /* 0: a packet that the kernel has joined from many (BIG TCP); it goes to the end of the frame. */
  fw_u32 end = total_bytes ? offset + total_bytes : packet->frame_bytes;
  fw_parse_transport(data, data_end, end, packet);
  return FW_PARSED_IP;
}

/* Follows the extension headers: sets packet->offset, protocol, fragment and cut. `end` as above.
 */
static __always_inline enum fw_parsed fw_follow_extensions(const fw_u8* data, const fw_u8* data_end,
                                                           fw_u32 end, struct fw_packet* packet) {
  for (int i = 0; i < FW_EXTENSIONS_MAX; i++) {
    fw_u32 header = *(volatile fw_u16*)&packet->protocol;
    if (!fw_is_extension(header)) return FW_PARSED_IP;
    fw_u32 offset = *(volatile fw_u32*)&packet->offset & FW_OFFSET_MASK;
    const fw_u8* at = data + offset;
    if (at + 8 > data_end || offset + 8 > end) {
      packet->cut = 1;
      break;
    }
    fw_u32 bytes = header == 44 ? 8 : header == 51 ? (at[1] + 2u) * 4 : (at[1] + 1u) * 8;
    *(volatile fw_u16*)&packet->protocol = at[0];
    *(volatile fw_u32*)&packet->offset = offset + bytes;
    if (header != 44) continue;
    fw_u32 fragment = FW_BE16(at + 2);
    if (fragment & 0xfff8) {
      /* What follows is the middle of something. Its protocol is known unless the headers before
       * the transport's were cut apart, too. */
      packet->fragment = FW_FRAGMENT_LATER;
      if (fw_is_extension(at[0])) packet->protocol = FW_PROTOCOL_UNKNOWN;
      return FW_PARSED_IP;
    }
    if (fragment & 1) packet->fragment = FW_FRAGMENT_FIRST;
  }
  if (!packet->cut && !fw_is_extension(*(volatile fw_u16*)&packet->protocol)) return FW_PARSED_IP;
  packet->protocol = FW_PROTOCOL_UNKNOWN;
  return packet->cut ? FW_PARSED_IP : FW_PARSED_HEADER_CHAIN;
}

static __always_inline enum fw_parsed fw_parse_ipv6(const fw_u8* data, const fw_u8* data_end,
                                                    fw_u32 offset, struct fw_packet* packet) {
  const fw_u8* at = data + offset;
  if (at + 40 > data_end) return FW_PARSED_MALFORMED;
  if (at[0] >> 4 != 6) return FW_PARSED_MALFORMED;
  fw_u32 payload_bytes = FW_BE16(at + 4);
  /* 0: a jumbogram, or joined by the kernel. */
  fw_u32 end = payload_bytes ? offset + 40 + payload_bytes : packet->frame_bytes;

  packet->family = FW_FAMILY_IPV6;
  packet->protocol = at[6];
  packet->source_high = FW_BE64(at + 8);
  packet->source_low = FW_BE64(at + 16);
  packet->destination_high = FW_BE64(at + 24);
  packet->destination_low = FW_BE64(at + 32);
  *(volatile fw_u32*)&packet->offset = offset + 40;
  enum fw_parsed parsed = fw_follow_extensions(data, data_end, end, packet);
  if (parsed == FW_PARSED_IP && packet->protocol != FW_PROTOCOL_UNKNOWN &&
      packet->fragment != FW_FRAGMENT_LATER) {
    fw_parse_transport(data, data_end, end, packet);
  }
  return parsed;
}

/* A frame from its Ethernet header on. Fills `packet` where the result is FW_PARSED_IP or
 * FW_PARSED_HEADER_CHAIN. `frame_bytes` may be more than lies between the pointers (the rest is in
 * other pages): what would have to be read there counts as cut. */
static __always_inline enum fw_parsed fw_parse(const fw_u8* data, const fw_u8* data_end,
                                               fw_u32 frame_bytes, struct fw_packet* packet) {
  packet->frame_bytes = frame_bytes;
  packet->detail = FW_DETAIL_NONE;
  packet->has_ports = 0;
  packet->source_port = 0;
  packet->destination_port = 0;
  packet->fragment = FW_FRAGMENT_NONE;
  packet->cut = 0;

  if (data + 14 > data_end) return FW_PARSED_NOT_IP;
  fw_u32 type = FW_BE16(data + 12);
  fw_u32 offset = 14;
#pragma unroll
  for (int i = 0; i < FW_VLAN_TAGS_MAX; i++) {
    if (type != 0x8100 && type != 0x88a8 && type != 0x9100) break;
    if (data + offset + 4 > data_end) return FW_PARSED_NOT_IP;
    type = FW_BE16(data + offset + 2);
    offset += 4;
  }
  if (type == 0x0800) return fw_parse_ipv4(data, data_end, offset, packet);
  if (type == 0x86dd) return fw_parse_ipv6(data, data_end, offset, packet);
  return FW_PARSED_NOT_IP;
}
