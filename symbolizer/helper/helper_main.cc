// SPDX-License-Identifier: Apache-2.0
// The helper's side: config in, sandbox, hello out, then one answer per question until the agent
// closes its end.
#include <sys/socket.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>

#include "base/status.h"
#include "base/unique_fd.h"
#include "symbolizer/helper/elf_index.h"
#include "symbolizer/helper/protocol.h"
#include "symbolizer/helper/sandbox.h"
#include "symbolizer/index_build.h"
#include "symbolizer/symbolizer.h"

namespace firewatch::symbolizer {
namespace {

struct Question {
  HelperRequest request;
  base::UniqueFd fds[kMaxHelperFds];
  size_t fd_count = 0;

  // The descriptor of that bit; -1 when it was not sent.
  int Fd(HelperFd which) const {
    size_t before = 0;
    for (uint32_t bit = 1; bit < which; bit <<= 1) before += (request.fds & bit) != 0 ? 1 : 0;
    return (request.fds & which) != 0 ? fds[before].get() : -1;
  }
};

void TakeFds(const struct msghdr& message, Question* question) {
  for (const cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr;
       part = CMSG_NXTHDR(const_cast<msghdr*>(&message), const_cast<cmsghdr*>(part))) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count && question->fd_count < kMaxHelperFds; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof(int));
      question->fds[question->fd_count++].Reset(fd);
    }
  }
}

// False at the end of the conversation.
bool Receive(int socket, Question* question) {
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxHelperFds * sizeof(int))] = {};
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

// Asks the agent, and waits for its answer: it sends no other request meanwhile.
base::UniqueFd AskForDwo(int socket, uint64_t sequence, std::string_view name,
                         std::string_view directory) {
  HelperDwoQuestion ask;
  ask.sequence = sequence;
  if (name.size() >= sizeof(ask.name) || directory.size() >= sizeof(ask.directory)) return {};
  std::memcpy(ask.name, name.data(), name.size());
  std::memcpy(ask.directory, directory.data(), directory.size());
  Question answer;
  if (!Send(socket, ask) || !Receive(socket, &answer)) ::_exit(0);  // the agent is gone
  if (answer.request.operation != HelperOperation::kOpenDwo || answer.fd_count != 1) return {};
  return std::move(answer.fds[0]);
}

// The descriptors that the operation cannot do without, and no unknown ones.
bool Fits(const Question& question) {
  const uint32_t fds = question.request.fds;
  if (fds >= 1U << kMaxHelperFds || std::popcount(fds) != static_cast<int>(question.fd_count)) {
    return false;
  }
  const bool has_output = (fds & kHelperOutput) != 0;
  switch (question.request.operation) {
    case HelperOperation::kIdentify:
      return (fds & (kHelperElf | kHelperDebug)) != 0;
    case HelperOperation::kTable:
      return has_output && (fds & kHelperElf) != 0;
    case HelperOperation::kBuild:
    case HelperOperation::kBuildLines:
    case HelperOperation::kStrip:
      return has_output && (fds & (kHelperElf | kHelperDebug)) != 0;
    default:
      return false;
  }
}

bool Serve(int socket, uint32_t max_cpu_seconds) {
  Question question;
  if (!Receive(socket, &question)) return false;
  AllowCpuSeconds(max_cpu_seconds);
  if (!Fits(question)) return false;
  const HelperRequest& request = question.request;
  DwoOpener open_dwo;
  if (request.operation == HelperOperation::kBuildLines && request.may_ask != 0) {
    open_dwo = [&](std::string_view name, std::string_view directory) {
      return AskForDwo(socket, request.sequence, name, directory);
    };
  }
  HelperAnswer answer = AnswerForFiles(request.operation,
                                       {.elf = question.Fd(kHelperElf),
                                        .debug = question.Fd(kHelperDebug),
                                        .alt = question.Fd(kHelperAlt),
                                        .dwp = question.Fd(kHelperDwp),
                                        .scratch = question.Fd(kHelperScratch)},
                                       question.Fd(kHelperOutput), std::move(open_dwo));
  answer.operation = request.operation;
  answer.sequence = request.sequence;
  return Send(socket, answer);
}

}  // namespace

int RunSymbolHelper(int fd) {
  HelperConfig config;
  if (::recv(fd, &config, sizeof(config), 0) != sizeof(config) || config.magic != kHelperMagic) {
    std::fputs("--symbol-helper is started by Firewatch itself\n", stderr);
    return 2;
  }
  ReturnLargeBlocks();
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
