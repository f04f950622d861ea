// SPDX-License-Identifier: Apache-2.0
// One running helper: started, spoken to, reaped. Owns the child and the socket.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "base/unique_fd.h"
#include "symbolizer/helper/protocol.h"

namespace firewatch::symbolizer {

// One home thread. The destructor ends the child.
class HelperProcess {
 public:
  enum class Transfer { kDone, kLater, kDead };

  // Starts `path` ("" = /proc/self/exe) with `--symbol-helper 3`, an empty environment and clean
  // signal state. Does not wait for it to come up.
  static absl::StatusOr<std::unique_ptr<HelperProcess>> Start(const std::string& path,
                                                              const HelperConfig& config);
  ~HelperProcess();
  HelperProcess(const HelperProcess&) = delete;
  HelperProcess& operator=(const HelperProcess&) = delete;

  // None of these waits. kLater: the socket is full, or there is nothing to read. At most
  // kMaxHelperFds descriptors; none is fine.
  Transfer Send(const HelperRequest& request, std::span<const int> fds);
  Transfer Receive(HelperHello* hello);
  // Either an answer or a question comes; `is_question` says which.
  Transfer Receive(HelperAnswer* answer, HelperDwoQuestion* question, bool* is_question);

  int socket() const { return socket_.get(); }
  pid_t pid() const { return pid_; }

  // Kills it if it still runs, reaps it, and says how it ended: "killed by SIGSYS", "exit code 2".
  std::string End();

 private:
  HelperProcess(base::UniqueFd socket, pid_t pid) : socket_(std::move(socket)), pid_(pid) {}

  base::UniqueFd socket_;
  pid_t pid_;  // -1 once reaped
};

}  // namespace firewatch::symbolizer
