// SPDX-License-Identifier: Apache-2.0
// Owners for libbpf's objects. Skeletons bring static open/load/destroy functions, so one template
// makes any of them a unique_ptr. Members of a class stand in the order skeleton, links, ring
// buffer: destruction runs backwards, and nothing outlives what it points into.
#pragma once

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <memory>

namespace firewatch::agent {

template <typename Skeleton>
struct SkeletonDeleter {
  void operator()(Skeleton* skeleton) const { Skeleton::destroy(skeleton); }
};
template <typename Skeleton>
using BpfSkeleton = std::unique_ptr<Skeleton, SkeletonDeleter<Skeleton>>;

struct BpfLinkDeleter {
  void operator()(bpf_link* link) const { bpf_link__destroy(link); }
};
using BpfLink = std::unique_ptr<bpf_link, BpfLinkDeleter>;

struct RingBufferDeleter {
  void operator()(ring_buffer* ring) const { ring_buffer__free(ring); }
};
using BpfRingBuffer = std::unique_ptr<ring_buffer, RingBufferDeleter>;

}  // namespace firewatch::agent
