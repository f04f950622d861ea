// SPDX-License-Identifier: Apache-2.0
// A machine full of processes that do nothing: N sleeping children, each an exec of this program
// again (so that each has mappings of its own to learn). Says "ready" when all are asleep, and ends
// them when its standard input closes.
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <vector>

#include "tests/workloads/common.h"

int main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "--sleep") == 0) {
    const char byte = 's';
    if (write(STDOUT_FILENO, &byte, 1) != 1) return 1;
    for (;;) pause();
  }
  const int count = static_cast<int>(workload::Number(argc, argv, "--count", 1000));
  int ready[2];
  if (pipe(ready) != 0) return 1;
  std::vector<pid_t> children;
  for (int i = 0; i < count; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      dup2(ready[1], STDOUT_FILENO);
      close(STDIN_FILENO);
      execl("/proc/self/exe", argv[0], "--sleep", static_cast<char*>(nullptr));
      _exit(127);
    }
    if (child > 0) children.push_back(child);
  }
  close(ready[1]);
  char byte = 0;
  size_t asleep = 0;
  while (asleep < children.size() && read(ready[0], &byte, 1) == 1) ++asleep;
  std::printf("ready=%zu\n", asleep);
  std::fflush(stdout);
  while (read(STDIN_FILENO, &byte, 1) > 0) {
  }
  for (const pid_t child : children) kill(child, SIGKILL);
  for (const pid_t child : children) waitpid(child, nullptr, 0);
  return 0;
}
