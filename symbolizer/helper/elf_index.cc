// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/helper/elf_index.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <utility>

#include "base/status.h"
#include "symbolizer/debug_copy.h"
#include "symbolizer/elf/elf_reader.h"
#include "symbolizer/index_build.h"
#include "symbolizer/unwind/table_builder.h"

namespace firewatch::symbolizer {
namespace {

// Leaves the last byte: the text stays terminated.
template <size_t kSize>
void CutInto(std::string_view text, char (&out)[kSize]) {
  std::memcpy(out, text.data(), std::min(text.size(), kSize - 1));
}
// A cut name would be another file's.
template <size_t kSize>
void FitInto(std::string_view text, char (&out)[kSize]) {
  if (text.size() < kSize) CutInto(text, out);
}

void SetError(const absl::Status& error, HelperStatus status, HelperAnswer* answer) {
  answer->status = status;
  CutInto(base::Message(error), answer->reason);
}

HelperStatus StatusForReading(const absl::Status& error) {
  return error.code() == absl::StatusCode::kUnavailable ? HelperStatus::kUnreadable
                                                        : HelperStatus::kRefused;
}

void SetFacts(const ObjectFacts& facts, HelperAnswer* answer) {
  answer->file_bytes = facts.file_bytes;
  answer->has_pseudo_id = facts.has_pseudo_id ? 1 : 0;
  answer->id_size = facts.id.size;
  std::copy(facts.id.bytes.begin(), facts.id.bytes.end(), answer->id);
  if (facts.has_symtab) answer->flags |= kHelperSymtab;
  if (facts.has_dynsym) answer->flags |= kHelperDynsym;
  if (facts.has_dwarf) answer->flags |= kHelperDwarf;
  if (facts.may_be_split) answer->flags |= kHelperMayBeSplit;
  answer->debuglink_crc = facts.debuglink_crc;
  FitInto(facts.debuglink, answer->debuglink);
  FitInto(facts.altlink, answer->altlink);
  answer->altlink_id_size = facts.altlink_id.size;
  std::copy(facts.altlink_id.bytes.begin(), facts.altlink_id.bytes.end(), answer->altlink_id);
  const size_t segments = std::min(facts.executable_segments.size(), kMaxHelperSegments);
  answer->segment_count = static_cast<uint32_t>(segments);
  for (size_t i = 0; i < segments; ++i) {
    const ElfSegment& segment = facts.executable_segments[i];
    answer->segments[i] = {
        .file_offset = segment.file_offset, .file_size = segment.file_size, .vaddr = segment.vaddr};
  }
}

void Build(ObjectFiles& files, bool lines, int index_fd, HelperAnswer* answer) {
  const auto report = BuildIndex(files, {.lines = lines, .threads = 1}, index_fd);
  if (!report.ok()) {
    const bool unwritten = report.status().code() == absl::StatusCode::kInternal;
    return SetError(report.status(),
                    unwritten ? HelperStatus::kNotWritten : StatusForReading(report.status()),
                    answer);
  }
  answer->symbol_count = report->symbols;
  answer->lines_state = static_cast<uint8_t>(report->lines);
  CutInto(report->lines_reason, answer->reason);
  answer->index_bytes = report->index_bytes;
  answer->dwarf_bytes = report->dwarf_bytes;
  answer->inflated_bytes = files.inflated_bytes();
  answer->line_rows = report->rows;
  answer->units_bad = report->units_bad;
  answer->units_without_dwo = report->units_without_dwo;
}

void BuildTable(const ObjectFiles& files, int table_fd, HelperAnswer* answer) {
  if (files.elf() == nullptr) {
    return SetError(base::InvalidArgument("no executable"), HelperStatus::kRefused, answer);
  }
  auto build = BuildUnwindTable(files.elf()->reader());
  if (!build.ok()) return SetError(build.status(), StatusForReading(build.status()), answer);
  build->source.id = files.facts().id;
  build->source.pseudo_id = files.facts().has_pseudo_id;
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

// Of relocatable files, which have no names for anybody, only those that others refer to. False,
// and it is said, for another.
bool CheckRelocatable(const ElfFile& file, HelperAnswer* answer) {
  if (!file.reader().relocatable()) return true;
  if (IsCommonFile(file.reader())) {
    answer->flags |= kHelperCommon;
    return true;
  }
  SetError(base::InvalidArgument("a relocatable file is neither executable nor shared object"),
           HelperStatus::kRefused, answer);
  return false;
}

const ElfFile& FirstOf(const ObjectFiles& files) {
  return files.elf() != nullptr ? *files.elf() : *files.debug();
}

void Strip(const ObjectFiles& files, int copy_fd, HelperAnswer* answer) {
  const ElfFile* file = &FirstOf(files);
  if (!CheckRelocatable(*file, answer)) return;
  const auto written = WriteDebugCopy(file->reader(), copy_fd);
  if (written.ok()) return;
  const bool unwritten = written.status().code() == absl::StatusCode::kInternal;
  SetError(written.status(),
           unwritten ? HelperStatus::kNotWritten : StatusForReading(written.status()), answer);
}

void Answer(HelperOperation operation, absl::StatusOr<std::unique_ptr<ObjectFiles>> files,
            int output_fd, HelperAnswer* answer) {
  if (!files.ok()) return SetError(files.status(), StatusForReading(files.status()), answer);
  SetFacts((*files)->facts(), answer);
  switch (operation) {
    case HelperOperation::kIdentify:
      CheckRelocatable(FirstOf(**files), answer);
      return;
    case HelperOperation::kOpenDwo:
      return;
    case HelperOperation::kBuild:
      return Build(**files, false, output_fd, answer);
    case HelperOperation::kBuildLines:
      return Build(**files, true, output_fd, answer);
    case HelperOperation::kTable:
      return BuildTable(**files, output_fd, answer);
    case HelperOperation::kStrip:
      return Strip(**files, output_fd, answer);
  }
}

HelperAnswer WithinMemory(const std::function<void(HelperAnswer*)>& fill) {
  HelperAnswer answer;
  try {
    fill(&answer);
  } catch (const std::bad_alloc&) {
    SetError(base::ResourceExhausted("needs more memory than the helper may have"),
             HelperStatus::kOverBudget, &answer);
  }
  return answer;
}

}  // namespace

HelperAnswer AnswerForFiles(HelperOperation operation, const ObjectFds& fds, int output_fd,
                            DwoOpener open_dwo) {
  return WithinMemory([&](HelperAnswer* answer) {
    answer->file_bytes = FdByteSource(fds.elf >= 0 ? fds.elf : fds.debug).size();
    ObjectOptions options;
    options.open_dwo = std::move(open_dwo);
    options.limits.allow_relocatable =
        operation == HelperOperation::kIdentify || operation == HelperOperation::kStrip;
    Answer(operation, ObjectFiles::Open(fds, std::move(options)), output_fd, answer);
  });
}

HelperAnswer AnswerForElf(HelperOperation operation, const ByteSource& elf, int output_fd) {
  return WithinMemory([&](HelperAnswer* answer) {
    answer->file_bytes = elf.size();
    Answer(operation, ObjectFiles::OfSource(elf, {}), output_fd, answer);
  });
}

}  // namespace firewatch::symbolizer
