// SPDX-License-Identifier: Apache-2.0
// A JIT in a page: machine code in anonymous memory, named in /tmp/perf-PID.map (--how map) or in a
// jitdump in --folder (--how dump), function after function while the program runs. The code of
// each is thrown away and its memory used for the next one, as real ones do.
#include <elf.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <string>

#include "tests/workloads/common.h"

namespace {

// push rbp; mov rbp,rsp; mov rax,rdi; L: dec rax; jnz L; pop rbp; ret
constexpr unsigned char kCode[] = {0x55, 0x48, 0x89, 0xe5, 0x48, 0x89, 0xf8,
                                   0x48, 0xff, 0xc8, 0x75, 0xfb, 0x5d, 0xc3};
constexpr size_t kPage = 4096;

class Names {
 public:
  Names(bool dump, const std::string& folder) : dump_(dump) {
    const std::string pid = std::to_string(getpid());
    path_ = dump ? folder + "/jit-" + pid + ".dump" : "/tmp/perf-" + pid + ".map";
    fd_ = open(path_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (!dump) return;
    struct {
      uint32_t magic = 0x4A695444, version = 1, size = 40, machine = EM_X86_64, pad = 0, pid = 0;
      uint64_t time = 0, flags = 0;
    } header;
    Write(&header, sizeof(header));
    // The marker by which profilers find the file.
    mmap(nullptr, kPage, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd_, 0);
  }
  ~Names() {
    close(fd_);
    unlink(path_.c_str());
  }
  void Add(const void* code, const std::string& name) {
    const auto address = reinterpret_cast<uint64_t>(code);
    if (!dump_) {
      char line[256];
      const int size =
          std::snprintf(line, sizeof(line), "%lx %zx %s\n", address, sizeof(kCode), name.c_str());
      return Write(line, static_cast<size_t>(size));
    }
    std::string lines;
    Put64(&lines, {address, 1, address});
    Put32(&lines, {42, 0});
    lines.append("/srv/jitted.src").push_back('\0');
    Record(2, lines);
    std::string load;
    Put32(&load, {static_cast<uint32_t>(getpid()), static_cast<uint32_t>(getpid())});
    Put64(&load, {address, address, sizeof(kCode), index_++});
    load.append(name).push_back('\0');
    load.append(reinterpret_cast<const char*>(kCode), sizeof(kCode));
    Record(0, load);
  }

 private:
  void Record(uint32_t id, const std::string& body) {
    std::string record;
    Put32(&record, {id, static_cast<uint32_t>(body.size() + 16)});
    Put64(&record, {workload::ClockNs(CLOCK_MONOTONIC)});
    record += body;
    Write(record.data(), record.size());
  }
  static void Put32(std::string* to, std::initializer_list<uint32_t> words) {
    for (const uint32_t word : words) to->append(reinterpret_cast<const char*>(&word), 4);
  }
  static void Put64(std::string* to, std::initializer_list<uint64_t> words) {
    for (const uint64_t word : words) to->append(reinterpret_cast<const char*>(&word), 8);
  }
  void Write(const void* data, size_t size) {
    if (write(fd_, data, size) != static_cast<ssize_t>(size)) std::exit(3);
  }

  const bool dump_;
  std::string path_;
  int fd_ = -1;
  uint64_t index_ = 0;
};

}  // namespace

// The caller of all jitted code: a frame that tests look for.
extern "C" [[gnu::noinline, gnu::noipa]] void call_jitted(void* code, double seconds) {
  const uint64_t end = workload::ClockNs(CLOCK_MONOTONIC) + static_cast<uint64_t>(seconds * 1e9);
  while (workload::ClockNs(CLOCK_MONOTONIC) < end) {
    reinterpret_cast<void (*)(uint64_t)>(code)(100'000);
    asm volatile("");
  }
}

int main(int argc, char** argv) {
  const double seconds = workload::Number(argc, argv, "--seconds", 10);
  const int functions = static_cast<int>(workload::Number(argc, argv, "--functions", 4));
  const bool dump = std::strcmp(workload::Option(argc, argv, "--how", "map"), "dump") == 0;
  auto* memory = static_cast<char*>(mmap(nullptr, 4 * kPage, PROT_READ | PROT_WRITE | PROT_EXEC,
                                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  if (memory == MAP_FAILED) return 2;
  Names names(dump, workload::Option(argc, argv, "--folder", "/tmp"));
  for (int i = 0; i < functions; ++i) {
    // Every address is used twice, for different functions.
    char* code = memory + kPage * static_cast<size_t>(i / 2);
    std::memcpy(code, kCode, sizeof(kCode));
    names.Add(code, "jitted_" + std::to_string(i) + " (tier 2)");
    call_jitted(code, seconds / functions);
  }
  workload::PrintOwnCpu();
  return 0;
}
