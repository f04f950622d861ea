// SPDX-License-Identifier: Apache-2.0
// A program under test: started in a folder of its own, its output in files there.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace firewatch::server {

class TestProgram {
 public:
  // `output` is a path prefix for .out and .err; `environment` are NAME=VALUE to add.
  TestProgram(std::vector<std::string> arguments, std::string output,
              std::vector<std::string> environment = {})
      : output_(std::move(output)) {
    pid_ = ::fork();
    if (pid_ == 0) RunChild(arguments, environment);
  }
  ~TestProgram() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  TestProgram(const TestProgram&) = delete;
  TestProgram& operator=(const TestProgram&) = delete;

  std::string Out() const { return Read(output_ + ".out"); }
  std::string Err() const { return Read(output_ + ".err"); }
  void Signal(int signal) const { ::kill(pid_, signal); }

  // Its exit code; -1 when it was killed or is still there after the time (then it is killed).
  int Wait(std::chrono::milliseconds timeout = std::chrono::seconds(60)) {
    const auto deadline = std::chrono::steady_clock::now() + timeout;
    int status = 0;
    while (::waitpid(pid_, &status, WNOHANG) == 0) {
      if (std::chrono::steady_clock::now() > deadline) return -1;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

  // What stands behind `prefix` up to the line's end, once it is printed; "" when it never is.
  std::string WaitForLine(const std::string& prefix) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (std::chrono::steady_clock::now() < deadline) {
      const std::string out = Out();
      const size_t at = out.find(prefix);
      const size_t end = at == std::string::npos ? at : out.find('\n', at);
      if (end != std::string::npos) return out.substr(at + prefix.size(), end - at - prefix.size());
      if (::waitpid(pid_, nullptr, WNOHANG | WNOWAIT) != 0 && ::kill(pid_, 0) != 0) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return "";
  }

 private:
  [[noreturn]] void RunChild(const std::vector<std::string>& arguments,
                             const std::vector<std::string>& environment) const {
    Redirect(output_ + ".out", STDOUT_FILENO);
    Redirect(output_ + ".err", STDERR_FILENO);
    for (const std::string& pair : environment) {
      const size_t equal = pair.find('=');
      ::setenv(pair.substr(0, equal).c_str(), pair.substr(equal + 1).c_str(), 1);
    }
    std::vector<char*> argv;
    for (const std::string& argument : arguments)
      argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    ::execvp(argv[0], argv.data());
    ::_exit(127);
  }

  static void Redirect(const std::string& path, int target) {
    const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ::dup2(fd, target);
  }

  static std::string Read(const std::string& path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  }

  const std::string output_;
  pid_t pid_ = -1;
};

}  // namespace firewatch::server
