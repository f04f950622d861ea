// SPDX-License-Identifier: Apache-2.0
// A NameSource in maps, for tests: files are "ELF" when they start so, their build id is what
// follows in hexadecimal; "common" behind it makes one a common file.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/metrics.h"
#include "base/mutex.h"
#include "base/status.h"
#include "server/debuginfo/debuginfo.h"
#include "server/debuginfo/name_source.h"

namespace firewatch::server {

class FakeBinaryNames final : public BinaryNames {
 public:
  struct Frame {
    std::string name, file;
    uint32_t line = 0, start_line = 0;
  };
  // Innermost first. With `by_vaddr` the key is an address, found by segments that the agent told.
  void Add(uint64_t key, const std::vector<Frame>& frames) {
    for (const Frame& frame : frames) {
      frames_[key].push_back({.name = Intern(frame.name),
                              .file = Intern(frame.file),
                              .line = frame.line,
                              .start_line = frame.start_line});
    }
  }
  bool by_vaddr = false;
  bool lines = true;
  mutable std::atomic<int> calls{0}, finds{0}, texts{0};

  void Find(std::span<const uint64_t> file_offsets, std::span<const symbolizer::ElfSegment> known,
            absl::FunctionRef<void(size_t number, std::span<const NameFrame> frames)> take)
      const override {
    ++calls;
    for (size_t i = 0; i < file_offsets.size(); ++i) take(i, FramesOf(file_offsets[i], known));
  }
  void Text(uint32_t id, std::string* display, std::string* linkage) const override {
    ++texts;
    *display = texts_.at(id);
    *linkage = "_Z" + texts_.at(id);
  }
  bool has_lines() const override { return lines; }

 private:
  std::span<const NameFrame> FramesOf(uint64_t file_offset,
                                      std::span<const symbolizer::ElfSegment> known) const {
    ++finds;
    uint64_t key = by_vaddr ? UINT64_MAX : file_offset;
    for (const auto& segment : known) {
      if (by_vaddr && file_offset >= segment.file_offset &&
          file_offset - segment.file_offset < segment.file_size) {
        key = file_offset - segment.file_offset + segment.vaddr;
      }
    }
    const auto it = frames_.find(key);
    if (it == frames_.end()) return {};
    return it->second;
  }
  uint32_t Intern(const std::string& text) {
    for (uint32_t i = 0; i < texts_.size(); ++i) {
      if (texts_[i] == text) return i;
    }
    texts_.push_back(text);
    return static_cast<uint32_t>(texts_.size() - 1);
  }
  std::map<uint64_t, std::vector<NameFrame>> frames_;
  std::vector<std::string> texts_ = {""};
};

class FakeNameSource final : public NameSource {
 public:
  struct Offered {
    bool executable = false, debug = false, replace = false;
  };
  std::atomic<bool> full{false};
  void Set(const symbolizer::BuildId& id, NamesState state,
           std::shared_ptr<const BinaryNames> names = nullptr, std::string reason = "") {
    base::MutexLock lock(mutex_);
    known_[id] = {state, std::move(names), std::move(reason)};
  }
  std::vector<std::pair<symbolizer::BuildId, Offered>> offers() {
    base::MutexLock lock(mutex_);
    return offers_;
  }

  std::shared_ptr<const BinaryNames> Find(const symbolizer::BuildId& id, NamesState* state,
                                          std::string* reason) override {
    base::MutexLock lock(mutex_);
    const auto it = known_.find(id);
    const bool is_known = it != known_.end();
    if (state != nullptr) *state = is_known ? it->second.state : NamesState::kUnknown;
    if (reason != nullptr && is_known) *reason = it->second.reason;
    return is_known && it->second.state == NamesState::kReady ? it->second.names : nullptr;
  }
  absl::Status Offer(const symbolizer::BuildId& id, NameFiles files, bool replace) override {
    base::MutexLock lock(mutex_);
    if (full) return base::ResourceExhausted("full");
    offers_.emplace_back(id, Offered{.executable = files.executable.valid(),
                                     .debug = files.debug.valid(),
                                     .replace = replace});
    return absl::OkStatus();
  }
  absl::StatusOr<IdentifiedFile> Identify(const base::UniqueFd& file) override {
    std::array<char, 64> bytes{};
    const ssize_t got = ::pread(file.get(), bytes.data(), bytes.size(), 0);
    const std::string_view text(bytes.data(), static_cast<size_t>(std::max<ssize_t>(got, 0)));
    if (text.size() < 12 || !text.starts_with("\x7f"
                                              "ELF")) {
      return base::InvalidArgument("not an ELF file");
    }
    return IdentifiedFile{.id = symbolizer::BuildId::FromHex(text.substr(4, 8)),
                          .is_common = text.substr(12).starts_with("common")};
  }

 private:
  struct Known {
    NamesState state = NamesState::kUnknown;
    std::shared_ptr<const BinaryNames> names;
    std::string reason;
  };
  base::Mutex mutex_;
  std::map<symbolizer::BuildId, Known> known_;
  std::vector<std::pair<symbolizer::BuildId, Offered>> offers_;
};

// A data directory with everything on the fake source.
class DebugInfoFixture {
 public:
  explicit DebugInfoFixture(uint64_t max_bytes = 1 << 20, uint64_t max_file_bytes = 1 << 18)
      : clock({.unix_ns = 1'700'000'000'000'000'000}, 0) {
    char pattern[] = "/tmp/firewatch-debuginfo-XXXXXX";
    directory = ::mkdtemp(pattern);
    max_bytes_ = max_bytes;
    max_file_bytes_ = max_file_bytes;
    Reopen();
  }
  ~DebugInfoFixture() {
    debuginfo.reset();
    std::filesystem::remove_all(directory);
  }
  void Reopen() {
    debuginfo.reset();
    files = FileStore::Open({.directory = directory,
                             .max_bytes = max_bytes_,
                             .max_file_bytes = max_file_bytes_,
                             .min_free_bytes = 0},
                            clock, metrics)
                .value();
    common = CommonFiles::Open(directory + "/common", *files, metrics).value();
    binaries = BinaryRegistry::Open(directory + "/binaries", clock, metrics).value();
    debuginfo = std::make_unique<DebugInfo>(*files, *common, source, *binaries, clock, metrics);
  }

  std::string directory;
  base::FakeClock clock;
  base::MetricsRegistry metrics;
  FakeNameSource source;
  std::unique_ptr<FileStore> files;
  std::unique_ptr<CommonFiles> common;
  std::unique_ptr<BinaryRegistry> binaries;
  std::unique_ptr<DebugInfo> debuginfo;

 private:
  uint64_t max_bytes_ = 0, max_file_bytes_ = 0;
};

}  // namespace firewatch::server
