// SPDX-License-Identifier: Apache-2.0
// The helper's side: config in, sandbox, hello out, then one answer per question until the agent
// closes its end.
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>

#include "base/status.h"
#include "base/unique_fd.h"
#include "symbolizer/helper/elf_index.h"
#include "symbolizer/helper/protocol.h"
#include "symbolizer/helper/sandbox.h"
#include "symbolizer/symbolizer.h"

namespace firewatch::symbolizer {
namespace {

constexpr size_t kMaxFds = 2;

struct Question {
  HelperRequest request;
  base::UniqueFd fds[kMaxFds];
  size_t fd_count = 0;
};

void TakeFds(const struct msghdr& message, Question* question) {
  for (const cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr;
       part = CMSG_NXTHDR(const_cast<msghdr*>(&message), const_cast<cmsghdr*>(part))) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count && question->fd_count < kMaxFds; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof(int));
      question->fds[question->fd_count++].Reset(fd);
    }
  }
}

// False at the end of the conversation.
bool Receive(int socket, Question* question) {
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxFds * sizeof(int))] = {};
  iovec data = {.iov_base = &question->request, .iov_len = sizeof(question->request)};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  ssize_t got = -1;
  do {
    got = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  if (got <= 0) return false;
  TakeFds(message, question);
  return got == sizeof(question->request) && question->request.magic == kHelperMagic;
}

template <typename T>
bool Send(int socket, const T& value) {
  T copy = value;
  iovec data = {.iov_base = &copy, .iov_len = sizeof(copy)};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  return ::sendmsg(socket, &message, MSG_NOSIGNAL) == sizeof(copy);
}

bool Serve(int socket, uint32_t max_cpu_seconds) {
  Question question;
  if (!Receive(socket, &question)) return false;
  AllowCpuSeconds(max_cpu_seconds);
  const size_t needed = question.request.operation == HelperOperation::kIdentify ? 1 : 2;
  if (question.fd_count != needed) return false;
  HelperAnswer answer = AnswerForElf(question.request.operation,
                                     FdByteSource(question.fds[0].get()), question.fds[1].get());
  answer.operation = question.request.operation;
  answer.sequence = question.request.sequence;
  return Send(socket, answer);
}

}  // namespace

int RunSymbolHelper(int fd) {
  HelperConfig config;
  if (::recv(fd, &config, sizeof(config), 0) != sizeof(config) || config.magic != kHelperMagic) {
    std::fputs("--symbol-helper is started by Firewatch itself\n", stderr);
    return 2;
  }
  const auto sandbox = EnterSandbox({.keep_fd = fd, .max_bytes = config.max_bytes});
  if (!sandbox.ok()) {
    const std::string text = base::ToString(sandbox.status()) + "\n";
    std::fputs(text.c_str(), stderr);
    return 1;
  }
  if (!Send(kSandboxFd, HelperHello{.sandbox = *sandbox})) return 1;
  while (Serve(kSandboxFd, config.max_cpu_seconds)) {
  }
  return 0;
}

}  // namespace firewatch::symbolizer
