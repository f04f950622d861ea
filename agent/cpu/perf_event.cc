// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/perf_event.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "base/status.h"

namespace firewatch::agent {

absl::StatusOr<base::UniqueFd> OpenPerfEvent(perf_event_attr attr, pid_t pid, int cpu) {
  attr.size = sizeof(attr);
  const long fd = ::syscall(SYS_perf_event_open, &attr, pid, cpu, -1, PERF_FLAG_FD_CLOEXEC);
  if (fd >= 0) return base::UniqueFd(static_cast<int>(fd));
  const int error = errno;
  const std::string what =
      cpu >= 0 ? fmt::format("perf_event_open on CPU {}", cpu) : std::string("perf_event_open");
  const absl::Status status = base::ErrnoStatus(error, what);
  if (error == EACCES || error == EPERM) {
    return base::PermissionDenied("{} (needs root or CAP_PERFMON; before Linux 5.8 CAP_SYS_ADMIN)",
                                  base::Message(status));
  }
  if (error == ENOSYS) {
    return base::FailedPrecondition("{} (this kernel is built without perf events)",
                                    base::Message(status));
  }
  return status;
}

bool HasHardwareCycles() {
  perf_event_attr attr{};
  attr.type = PERF_TYPE_HARDWARE;
  attr.config = PERF_COUNT_HW_CPU_CYCLES;
  attr.freq = 1;
  attr.sample_freq = 19;
  attr.disabled = 1;
  return OpenPerfEvent(attr, -1, 0).ok();
}

}  // namespace firewatch::agent
