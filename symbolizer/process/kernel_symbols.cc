// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/process/kernel_symbols.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
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

void KernelSymbols::Request() {
  if (!tried_) Read(kFirstInterval);
}

void KernelSymbols::Poll(int timeout_ms) {
  if (job_ == nullptr || !job_->IsDone(timeout_ms)) return;
  child_cpu_ns_ += job_->cpu_ns();
  absl::Status status = job_->result();
  job_.reset();
  if (status.ok()) status = Adopt();
  scratch_.Reset();
  reason_ = base::Message(status);
}

KernelSymbol KernelSymbols::Lookup(uint64_t address) {
  Request();
  const auto symbol = current_.index.SymbolAt(address);
  const bool of_module = symbol && symbol->group != 0;
  const bool unknown = !symbol && address >= kFirstKernelAddress;
  if (of_module || unknown) {
    if (const BpfFunction* function = BpfFunctionAt(address)) {
      return {.name = function->name, .module = "bpf", .found = true};
    }
    if (job_ == nullptr && ModulesChanged()) {
      Read(kFirstInterval);
    } else if (job_ == nullptr && unknown && clock_.MonotonicNs() >= next_read_ns_) {
      Read(std::min(interval_ns_ * 2, kLongestInterval));
    }
    // What a module's name was may be another one's address now.
    if (job_ != nullptr) return {.pending = true};
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

void KernelSymbols::Read(uint64_t next_interval_ns) {
  interval_ns_ = next_interval_ns;
  tried_ = true;
  next_read_ns_ = clock_.MonotonicNs() + interval_ns_;
  reads_.Add();
  const absl::Status status = StartJob();
  reason_ = base::Message(status);
}

// To sort the list takes some 15 MB, once: not of this process, whose memory is bounded. And 0.2 s
// of CPU, which may be seconds on a busy machine: not of this thread, which samples wait for.
absl::Status KernelSymbols::StartJob() {
  // Before the symbols: what changes in between is then seen as a change.
  const std::string modules = ReadAll(proc_root_ + "/modules");
  modules_hash_ = base::Hash64(modules);
  next_modules_look_ns_ = clock_.MonotonicNs() + kModulesInterval;
  ASSIGN_OR_RETURN(scratch_, cache_.NewScratch());
  ASSIGN_OR_RETURN(job_,
                   ChildJob::Start([&] { return WriteIndex(modules, scratch_.get()); }, clock_));
  return absl::OkStatus();
}

absl::Status KernelSymbols::Adopt() {
  const std::string key = "kernel-" + FirstLine(proc_root_ + "/sys/kernel/random/boot_id");
  ASSIGN_OR_RETURN(MappedIndex index, cache_.Adopt(key, BuildId(), scratch_.get()));
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
