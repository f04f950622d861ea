// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/helper/elf_index.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <string>
#include <utility>

#include "base/hash.h"
#include "base/status.h"
#include "symbolizer/elf/elf_reader.h"
#include "symbolizer/elf/function_symbols.h"
#include "symbolizer/index/index_writer.h"
#include "symbolizer/unwind/table_builder.h"

namespace firewatch::symbolizer {
namespace {

constexpr uint64_t kPseudoIdBytes = 4096;

// Files without a build id are told apart by size, first and last 4 KiB: headers on one end,
// section headers on the other. Two builds that agree in all three would share an index.
absl::StatusOr<BuildId> PseudoId(const ByteSource& elf) {
  const uint64_t part = std::min(elf.size(), kPseudoIdBytes);
  std::string bytes(sizeof(uint64_t) + 2 * part, '\0');
  const uint64_t size = elf.size();
  std::memcpy(bytes.data(), &size, sizeof(size));
  const auto span = std::as_writable_bytes(std::span<char>(bytes)).subspan(sizeof(size));
  RETURN_IF_ERROR(elf.Read(0, span.first(part)));
  RETURN_IF_ERROR(elf.Read(size - part, span.subspan(part)));
  const base::Hash128 hash = base::HashBytes128(bytes);
  BuildId id;
  id.size = sizeof(hash.high) + sizeof(hash.low);
  std::memcpy(id.bytes.data(), &hash.high, sizeof(hash.high));
  std::memcpy(id.bytes.data() + sizeof(hash.high), &hash.low, sizeof(hash.low));
  return id;
}

struct Identity {
  BuildId id;
  bool is_pseudo = false;
};

absl::StatusOr<Identity> Identify(const ElfReader& elf) {
  Identity identity{.id = elf.build_id()};
  if (!identity.id.empty()) return identity;
  identity.is_pseudo = true;
  ASSIGN_OR_RETURN(identity.id, PseudoId(elf.source()));
  return identity;
}

void SetError(const absl::Status& error, HelperStatus status, HelperAnswer* answer) {
  answer->status = status;
  const std::string_view text = base::Message(error);
  std::memcpy(answer->reason, text.data(), std::min(text.size(), sizeof(answer->reason) - 1));
}

HelperStatus StatusForReading(const absl::Status& error) {
  return error.code() == absl::StatusCode::kUnavailable ? HelperStatus::kUnreadable
                                                        : HelperStatus::kRefused;
}

void Build(const ElfReader& elf, const Identity& identity, int index_fd, HelperAnswer* answer) {
  auto functions = ReadFunctionSymbols(elf);
  if (!functions.ok()) {
    return SetError(functions.status(), StatusForReading(functions.status()), answer);
  }
  IndexSource source;
  source.id = identity.id;
  source.pseudo_id = identity.is_pseudo;
  source.has_table = functions->has_table;
  source.file_bytes = elf.source().size();
  source.keep_suffixes = functions->is_go;
  source.segments = ExecutableSegments(elf);
  source.symbols = std::move(functions->symbols);
  auto count = WriteSymbolIndex(std::move(source), index_fd);
  if (!count.ok()) return SetError(count.status(), HelperStatus::kNotWritten, answer);
  answer->symbol_count = *count;
}

void BuildTable(const ElfReader& elf, const Identity& identity, int table_fd,
                HelperAnswer* answer) {
  auto build = BuildUnwindTable(elf);
  if (!build.ok()) return SetError(build.status(), StatusForReading(build.status()), answer);
  build->source.id = identity.id;
  build->source.pseudo_id = identity.is_pseudo;
  static_assert(kCfiReasonCount <= kHelperReasons);
  for (size_t i = 0; i < kCfiReasonCount; ++i) {
    answer->fde_reasons[i] =
        static_cast<uint32_t>(std::min<uint64_t>(build->reasons[i], UINT32_MAX));
  }
  answer->fdes = build->source.counts.fdes;
  answer->rows = build->source.counts.rows_merged;
  answer->rows_no_rule = build->source.counts.rows_no_rule;
  const auto written = WriteUnwindTable(build->source, table_fd);
  if (!written.ok()) SetError(written.status(), HelperStatus::kNotWritten, answer);
}

void Answer(HelperOperation operation, const ByteSource& source, int output_fd,
            HelperAnswer* answer) {
  answer->file_bytes = source.size();
  auto elf = ElfReader::Open(source);
  if (!elf.ok()) return SetError(elf.status(), StatusForReading(elf.status()), answer);
  auto identity = Identify(*elf);
  if (!identity.ok()) return SetError(identity.status(), HelperStatus::kUnreadable, answer);
  answer->has_pseudo_id = identity->is_pseudo ? 1 : 0;
  answer->id_size = identity->id.size;
  std::memcpy(answer->id, identity->id.bytes.data(), sizeof(answer->id));
  if (operation == HelperOperation::kBuild) Build(*elf, *identity, output_fd, answer);
  if (operation == HelperOperation::kTable) BuildTable(*elf, *identity, output_fd, answer);
}

}  // namespace

HelperAnswer AnswerForElf(HelperOperation operation, const ByteSource& elf, int output_fd) {
  HelperAnswer answer;
  try {
    Answer(operation, elf, output_fd, &answer);
  } catch (const std::bad_alloc&) {
    SetError(base::ResourceExhausted("needs more memory than the helper may have"),
             HelperStatus::kRefused, &answer);
  }
  return answer;
}

}  // namespace firewatch::symbolizer
