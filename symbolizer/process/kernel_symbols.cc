// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/process/kernel_symbols.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "base/hash.h"
#include "base/status.h"
#include "base/unique_fd.h"
#include "symbolizer/process/kallsyms.h"

namespace firewatch::symbolizer {
namespace {

constexpr uint64_t kSecond = 1'000'000'000;
constexpr uint64_t kModulesInterval = 10 * kSecond;
constexpr uint64_t kProgramsInterval = kSecond;
constexpr uint64_t kFirstInterval = 60 * kSecond;
constexpr uint64_t kLongestInterval = 600 * kSecond;
constexpr uint64_t kFirstKernelAddress = uint64_t{1} << 63;
constexpr size_t kReadBytes = size_t{64} << 10;
constexpr uint64_t kHiddenAfterLines = 256;
// It takes some 0.2 s of CPU, under sanitizers 2.
constexpr int kChildTimeoutMs = 60'000;
// Some 10,000 names; a busy machine shows a few thousand of the kernel's.
constexpr size_t kMaxNamesBytes = size_t{2} << 20;

// Calls `take` for pieces of the file until its end or until `take` returns false.
absl::Status ReadPieces(const std::string& path,
                        const std::function<bool(std::string_view)>& take) {
  const base::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return base::ErrnoStatus(errno, fmt::format("open {}", path));
  std::string buffer(kReadBytes, '\0');
  while (true) {
    const ssize_t got = ::read(fd.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return base::ErrnoStatus(errno, fmt::format("read {}", path));
    if (got == 0 || !take(std::string_view(buffer).substr(0, static_cast<size_t>(got)))) {
      return absl::OkStatus();
    }
  }
}

// "" when the file cannot be read.
std::string ReadAll(const std::string& path) {
  std::string text;
  const absl::Status ignored = ReadPieces(path, [&](std::string_view piece) {
    text += piece;
    return text.size() < (size_t{1} << 20);
  });
  return ignored.ok() ? text : "";
}

std::string FirstLine(const std::string& path) {
  std::string text = ReadAll(path);
  text.resize(std::min(text.find('\n'), text.size()));
  return text;
}

// Runs `work` in a child, which has a copy of this process' memory: what it allocates is gone with
// it. Of the other threads' locks only malloc's is free there (pthread_atfork of glibc): `work` may
// allocate and make system calls, but not log. Its error comes back as text, with its code.
absl::Status InChild(const std::function<absl::Status()>& work) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return base::ErrnoStatus(errno, "pipe");
  const base::UniqueFd read_end(ends[0]);
  base::UniqueFd write_end(ends[1]);
  const pid_t child = ::fork();
  if (child < 0) return base::ErrnoStatus(errno, "fork");
  if (child == 0) {
    const absl::Status status = work();
    const std::string_view text = base::Message(status);
    // Below PIPE_BUF: written in one piece, without waiting.
    const ssize_t ignored =
        ::write(write_end.get(), text.data(), std::min<size_t>(text.size(), 512));
    ::_exit(ignored < 0 ? static_cast<int>(absl::StatusCode::kInternal)
                        : static_cast<int>(status.code()));
  }
  write_end.Reset();
  std::string text(512, '\0');
  pollfd readable{.fd = read_end.get(), .events = POLLIN, .revents = 0};
  while (::poll(&readable, 1, kChildTimeoutMs) < 0 && errno == EINTR) {
  }
  if (readable.revents == 0) ::kill(child, SIGKILL);
  text.resize(
      static_cast<size_t>(std::max<ssize_t>(0, ::read(read_end.get(), text.data(), text.size()))));
  int ended = 0;
  while (::waitpid(child, &ended, 0) < 0 && errno == EINTR) {
  }
  if (!WIFEXITED(ended)) return base::Internal("child that reads kernel symbols: killed");
  return WEXITSTATUS(ended) == 0
             ? absl::OkStatus()
             : base::MakeStatus(static_cast<absl::StatusCode>(WEXITSTATUS(ended)), text);
}

}  // namespace

KernelSymbols::KernelSymbols(std::string proc_root, IndexCache& cache, const base::Clock& clock,
                             base::MetricsRegistry& metrics,
                             std::unique_ptr<BpfProgramReader> programs)
    : proc_root_(std::move(proc_root)),
      cache_(cache),
      clock_(clock),
      reads_(metrics.AddCounter("firewatch_symbol_kallsyms_reads_total",
                                "Times the kernel's symbol list was read.")),
      programs_(std::move(programs)) {}

KernelSymbol KernelSymbols::Lookup(uint64_t address) {
  if (!tried_) Read();
  auto symbol = current_.index.SymbolAt(address);
  const bool of_module = symbol && symbol->group != 0;
  const bool unknown = !symbol && address >= kFirstKernelAddress;
  if (of_module || unknown) {
    if (const BpfFunction* function = BpfFunctionAt(address)) {
      return {.name = function->name, .module = "bpf", .found = true};
    }
  }
  if ((of_module || unknown) && ModulesChanged()) {
    Read();
    symbol = current_.index.SymbolAt(address);
  } else if (unknown && clock_.MonotonicNs() >= next_read_ns_) {
    Read();
    symbol = current_.index.SymbolAt(address);
    if (symbol) {
      interval_ns_ = kFirstInterval;
      next_read_ns_ = clock_.MonotonicNs() + interval_ns_;
    }
  }
  if (!symbol) return {};
  const NameTable& table = current_.index.names();
  return {.name = names_.Get(table, symbol->name, reader_).display,
          .module = names_.Get(table, symbol->group, reader_).linkage,
          .found = true};
}

bool KernelSymbols::ModulesChanged() {
  if (clock_.MonotonicNs() < next_modules_look_ns_) return false;
  next_modules_look_ns_ = clock_.MonotonicNs() + kModulesInterval;
  return base::Hash64(ReadAll(proc_root_ + "/modules")) != modules_hash_;
}

const BpfFunction* KernelSymbols::BpfFunctionAt(uint64_t address) {
  if (programs_ != nullptr && clock_.MonotonicNs() >= next_programs_look_ns_) {
    next_programs_look_ns_ = clock_.MonotonicNs() + kProgramsInterval;
    for (BpfFunction& function : programs_->ReadNew()) functions_.Add(std::move(function));
  }
  return functions_.At(address);
}

void KernelSymbols::DropRetired() {
  retired_.clear();
  functions_.DropRetired();
  if (names_.bytes() > kMaxNamesBytes) names_.Clear();
}

std::string_view KernelSymbols::Reason() {
  if (!tried_) Read();
  return reason_;
}

void KernelSymbols::Read() {
  interval_ns_ = tried_ ? std::min(interval_ns_ * 2, kLongestInterval) : kFirstInterval;
  tried_ = true;
  next_read_ns_ = clock_.MonotonicNs() + interval_ns_;
  reads_.Add();
  const absl::Status status = BuildIndex();
  reason_ = base::Message(status);
}

// To sort the list takes some 15 MB, once: not of this process, whose memory is bounded.
absl::Status KernelSymbols::BuildIndex() {
  // Before the symbols: what changes in between is then seen as a change.
  const std::string modules = ReadAll(proc_root_ + "/modules");
  modules_hash_ = base::Hash64(modules);
  next_modules_look_ns_ = clock_.MonotonicNs() + kModulesInterval;
  ASSIGN_OR_RETURN(const base::UniqueFd scratch, cache_.NewScratch());
  RETURN_IF_ERROR(InChild([&] { return WriteIndex(modules, scratch.get()); }));
  const std::string key = "kernel-" + FirstLine(proc_root_ + "/sys/kernel/random/boot_id");
  ASSIGN_OR_RETURN(MappedIndex index, cache_.Adopt(key, BuildId(), scratch.get()));
  retired_.push_back({.index = std::exchange(current_, std::move(index)),
                      .names = std::exchange(names_, NameCache())});
  return absl::OkStatus();
}

absl::Status KernelSymbols::WriteIndex(const std::string& modules, int fd) const {
  auto parser = std::make_unique<KallsymsParser>();
  const auto hidden_early = [&] {
    return parser->lines() >= kHiddenAfterLines && parser->addresses_hidden();
  };
  RETURN_IF_ERROR(ReadPieces(proc_root_ + "/kallsyms", [&](std::string_view piece) {
    parser->Feed(piece);
    return !hidden_early();
  }));
  parser->Finish();
  if (parser->addresses_hidden()) {
    return base::PermissionDenied(
        "addresses in {}/kallsyms are hidden: kernel.kptr_restrict is {}, or CAP_SYSLOG is missing",
        proc_root_, FirstLine(proc_root_ + "/sys/kernel/kptr_restrict"));
  }
  IndexSource source = parser->MakeSource(ParseModules(modules));
  if (source.symbols.empty()) return base::NotFound("{}/kallsyms has no symbols", proc_root_);
  return WriteSymbolIndex(std::move(source), fd).status();
}

}  // namespace firewatch::symbolizer
