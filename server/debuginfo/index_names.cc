// SPDX-License-Identifier: Apache-2.0
#include "server/debuginfo/index_names.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "absl/hash/hash.h"
#include "base/status.h"

namespace firewatch::server {
namespace {

using symbolizer::BuildId;
using symbolizer::IndexFrame;
using symbolizer::IndexState;

// A healthy helper needs milliseconds; one that was just killed by a hostile file some seconds.
constexpr int kIdentifyTimeoutMs = 20'000;

NamesState StateOf(IndexState state) {
  switch (state) {
    case IndexState::kUnknown:
      return NamesState::kUnknown;
    case IndexState::kBuilding:
      return NamesState::kBuilding;
    case IndexState::kReady:
      return NamesState::kReady;
    case IndexState::kNoSymbols:
      return NamesState::kNoSymbols;
    case IndexState::kMismatch:
      return NamesState::kMismatch;
    case IndexState::kRefused:
      return NamesState::kRefused;
    case IndexState::kOverBudget:
      return NamesState::kOverBudget;
    case IndexState::kFailed:
      return NamesState::kFailed;
  }
  return NamesState::kFailed;
}

}  // namespace

void NameReaders::Read(const symbolizer::NameTable& table, uint32_t id, std::string* linkage,
                       std::string* display) {
  // Ids of one function stand together: neighbours meet in one reader, whose block is decoded.
  Reader& reader = readers_[id / 64 % readers_.size()];
  base::MutexLock lock(reader.mutex);
  reader.reader.Read(table, id, linkage, display);
}

static_assert(kMaxNameFrames >= symbolizer::kMaxIndexFrames);

class IndexNames::Names final : public BinaryNames {
 public:
  Names(std::shared_ptr<const symbolizer::ServedIndex> served, std::shared_ptr<NameReaders> readers)
      : served_(std::move(served)), readers_(std::move(readers)) {}

  void Find(std::span<const uint64_t> file_offsets, std::span<const symbolizer::ElfSegment> known,
            absl::FunctionRef<void(size_t number, std::span<const NameFrame> frames)> take)
      const override {
    std::array<NameFrame, kMaxNameFrames> out;
    served_->FindOffsets(file_offsets, known,
                         [&](size_t number, std::span<const IndexFrame> frames) {
                           for (size_t i = 0; i < frames.size(); ++i) {
                             out[i] = {.name = frames[i].name,
                                       .file = frames[i].file,
                                       .line = frames[i].line,
                                       .start_line = frames[i].start_line};
                           }
                           take(number, std::span(out).first(frames.size()));
                         });
  }
  void Text(uint32_t id, std::string* display, std::string* linkage) const override {
    readers_->Read(served_->index().names(), id, linkage, display);
  }
  bool has_lines() const override { return served_->index().has_lines(); }
  const symbolizer::ServedIndex* served() const { return served_.get(); }

 private:
  const std::shared_ptr<const symbolizer::ServedIndex> served_;
  const std::shared_ptr<NameReaders> readers_;
};

IndexNames::IndexNames(symbolizer::IndexService& service, const std::string& helper_path,
                       const base::Clock& clock, base::MetricsRegistry& metrics)
    : service_(service),
      identify_queue_({.helper_path = helper_path, .max_cpu_seconds = 5, .max_bytes = 256 << 20},
                      clock, metrics) {}

std::shared_ptr<const BinaryNames> IndexNames::Find(const BuildId& id, NamesState* state,
                                                    std::string* reason) {
  IndexState index_state = IndexState::kUnknown;
  auto served = service_.Find(id, &index_state, reason);
  if (state != nullptr) *state = StateOf(index_state);
  if (served == nullptr) return nullptr;
  Shard& shard = shards_[absl::Hash<BuildId>()(id) % kShards];
  base::MutexLock lock(shard.mutex);
  if (shard.names.size() >= kMaxNamesPerShard && !shard.names.contains(id)) shard.names.clear();
  std::shared_ptr<const Names>& names = shard.names[id];
  if (names == nullptr || names->served() != served.get()) {
    names = std::make_shared<const Names>(std::move(served), readers_);
  }
  return names;
}

absl::Status IndexNames::Offer(const BuildId& id, NameFiles files, bool replace) {
  return service_.Offer(
      id,
      {.elf = std::move(files.executable), .debug = std::move(files.debug), .alt = {}, .dwp = {}},
      replace);
}

absl::StatusOr<IdentifiedFile> IndexNames::Identify(const base::UniqueFd& file) {
  base::UniqueFd copy(::fcntl(file.get(), F_DUPFD_CLOEXEC, 0));
  if (!copy.valid()) return base::ErrnoStatus(errno, "copy a descriptor");
  base::MutexLock lock(identify_mutex_);
  symbolizer::HelperJob job{.operation = symbolizer::HelperOperation::kIdentify};
  job.elf = std::move(copy);
  identify_queue_.Submit(std::move(job));
  // One at a time, so the first result is ours, also after a deadline: see below.
  const std::vector<symbolizer::HelperResult> results = identify_queue_.Poll(kIdentifyTimeoutMs);
  if (results.empty()) {
    // Its answer would be taken for that of the next file: wait for it, as long as it takes (the
    // helper has a bound of its own).
    while (identify_queue_.outstanding() > 0) identify_queue_.Poll(kIdentifyTimeoutMs);
    return base::Unavailable("the helper that reads ELF files does not answer");
  }
  const symbolizer::HelperResult& result = results.front();
  if (result.helper_died) return base::InvalidArgument("the file is refused: {}", result.failure);
  if (!result.failure.empty()) return base::Unavailable("{}", result.failure);
  const symbolizer::HelperAnswer& answer = result.answer;
  if (answer.status != symbolizer::HelperStatus::kOk) {
    const size_t length = ::strnlen(answer.reason, sizeof(answer.reason));
    return base::InvalidArgument("the file is refused: {}",
                                 std::string_view(answer.reason, length));
  }
  if (answer.has_pseudo_id != 0 || answer.id_size == 0 || answer.id_size > sizeof(answer.id)) {
    return base::InvalidArgument("the file has no build id");
  }
  IdentifiedFile identified;
  identified.id.size = answer.id_size;
  std::copy_n(answer.id, answer.id_size, identified.id.bytes.begin());
  identified.is_common = (answer.flags & symbolizer::kHelperCommon) != 0;
  return identified;
}

}  // namespace firewatch::server
