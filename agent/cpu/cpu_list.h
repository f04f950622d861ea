// SPDX-License-Identifier: Apache-2.0
// Which CPUs are online, and how one hears that this changed.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/unique_fd.h"

namespace firewatch::agent {

// The kernel's list format: "0-3,8,10-11". Ascending, without duplicates; InvalidArgument for
// anything else, and for numbers above 65,535.
absl::StatusOr<std::vector<uint32_t>> ParseCpuList(std::string_view text);

// Reads and parses a file such as /sys/devices/system/cpu/online.
absl::StatusOr<std::vector<uint32_t>> ReadCpuList(const std::string& path);

// The kernel's announcements of CPUs that come and go (netlink uevents); where those may not be
// heard, a timer that fires every five seconds. Its descriptor is readable when there is something
// to look at, and silent otherwise.
class CpuWatch {
 public:
  static absl::StatusOr<CpuWatch> Open();
  int fd() const { return fd_.get(); }

  // What happened since the last call. `maybe_changed`: read the list again. `touched`: CPUs that
  // were switched off or on, also those that are back by now (events of theirs are gone).
  struct Changes {
    bool maybe_changed = false;
    std::vector<uint32_t> touched;
  };
  Changes Read();

 private:
  CpuWatch(base::UniqueFd fd, bool is_timer) : fd_(std::move(fd)), is_timer_(is_timer) {}
  base::UniqueFd fd_;
  bool is_timer_;
};

// The CPU number of "online@/devices/system/cpu/cpu7" or "offline@…"; -1 for other messages.
int CpuOfUevent(std::string_view message);

}  // namespace firewatch::agent
