// SPDX-License-Identifier: Apache-2.0
#include "agent/stacks/remote_memory.h"

#include <sys/uio.h>

#include <algorithm>
#include <cstring>

namespace firewatch::agent {

const RemoteMemory::Page& RemoteMemory::Fetch(uint64_t page) {
  if (const auto found = pages_.find(page); found != pages_.end()) return found->second;
  if (pages_.size() >= kMaxPages) pages_.clear();
  Page& fetched = pages_[page];
  const iovec local{.iov_base = fetched.bytes.data(), .iov_len = kPageBytes};
  const iovec remote{.iov_base = reinterpret_cast<void*>(page * kPageBytes),  // another's address
                     .iov_len = kPageBytes};
  fetched.readable =
      ::process_vm_readv(pid_, &local, 1, &remote, 1, 0) == static_cast<ssize_t>(kPageBytes);
  return fetched;
}

bool RemoteMemory::Read(void* to, size_t size, uint64_t address) {
  auto* out = static_cast<std::byte*>(to);
  while (size > 0) {
    const Page& page = Fetch(address / kPageBytes);
    if (!page.readable) return false;
    const size_t offset = address % kPageBytes;
    const size_t here = std::min(size, kPageBytes - offset);
    std::memcpy(out, page.bytes.data() + offset, here);
    out += here;
    address += here;
    size -= here;
  }
  return true;
}

}  // namespace firewatch::agent
