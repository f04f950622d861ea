// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/process/child_job.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "base/status.h"

namespace firewatch::symbolizer {
namespace {

constexpr uint64_t kLongestNs = 60'000'000'000;
// Below PIPE_BUF: written in one piece, without waiting.
constexpr size_t kMaxTextBytes = 512;

uint64_t NsOf(const timeval& time) {
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 +
         static_cast<uint64_t>(time.tv_usec) * 1'000;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChildJob>> ChildJob::Start(const std::function<absl::Status()>& work,
                                                          const base::Clock& clock) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return base::ErrnoStatus(errno, "pipe");
  base::UniqueFd read_end(ends[0]);
  const base::UniqueFd write_end(ends[1]);
  const pid_t child = ::fork();
  if (child < 0) return base::ErrnoStatus(errno, "fork");
  if (child == 0) {
    const absl::Status status = work();
    const std::string_view text = base::Message(status);
    const ssize_t ignored =
        ::write(write_end.get(), text.data(), std::min(text.size(), kMaxTextBytes));
    ::_exit(ignored < 0 ? static_cast<int>(absl::StatusCode::kInternal)
                        : static_cast<int>(status.code()));
  }
  return std::unique_ptr<ChildJob>(new ChildJob(child, std::move(read_end), clock));
}

ChildJob::ChildJob(pid_t child, base::UniqueFd read_end, const base::Clock& clock)
    : child_(child),
      read_end_(std::move(read_end)),
      clock_(clock),
      deadline_ns_(clock.MonotonicNs() + kLongestNs) {}

ChildJob::~ChildJob() {
  if (child_ < 0) return;
  ::kill(child_, SIGKILL);
  Reap();
}

bool ChildJob::IsDone(int timeout_ms) {
  if (child_ < 0) return true;
  // Readable or closed: it has said how it went, or died.
  pollfd readable{.fd = read_end_.get(), .events = POLLIN, .revents = 0};
  while (::poll(&readable, 1, timeout_ms) < 0 && errno == EINTR) {
  }
  if (readable.revents == 0) {
    if (clock_.MonotonicNs() < deadline_ns_) return false;
    ::kill(child_, SIGKILL);
  }
  Reap();
  return true;
}

void ChildJob::Reap() {
  std::string text(kMaxTextBytes, '\0');
  const ssize_t got = ::read(read_end_.get(), text.data(), text.size());
  text.resize(static_cast<size_t>(std::max<ssize_t>(0, got)));
  int ended = 0;
  rusage usage{};
  while (::wait4(child_, &ended, 0, &usage) < 0 && errno == EINTR) {
  }
  child_ = -1;
  cpu_ns_ = NsOf(usage.ru_utime) + NsOf(usage.ru_stime);
  if (!WIFEXITED(ended)) {
    result_ = base::Internal("a child process was killed");
  } else if (WEXITSTATUS(ended) != 0) {
    result_ = base::MakeStatus(static_cast<absl::StatusCode>(WEXITSTATUS(ended)), text);
  }
}

}  // namespace firewatch::symbolizer
