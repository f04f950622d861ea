// SPDX-License-Identifier: Apache-2.0
// The event stream as a file: samples and process events as they were delivered, so that everything
// above the kernel can run again without privilege and without waiting. The bytes are drawn in
// docs/formats.md ("Replay file").
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <variant>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/core/events.h"
#include "agent/core/process_table.h"
#include "agent/cpu/sample.h"

namespace firewatch::agent {

struct ReplayHeader {
  uint32_t hz = 0;                      // 1..999
  int64_t unix_minus_monotonic_ns = 0;  // wall clock = CLOCK_MONOTONIC + this
};

// One home thread. What was written is complete in the file after Close or the destructor; a write
// error is kept and returned by Close.
class ReplayWriter {
 public:
  static absl::StatusOr<std::unique_ptr<ReplayWriter>> Create(const std::string& path,
                                                              const ReplayHeader& header);
  ~ReplayWriter();
  ReplayWriter(const ReplayWriter&) = delete;
  ReplayWriter& operator=(const ReplayWriter&) = delete;

  // Its `bytes`, without notes and the copy of the stack: as the kernel side walked it, whatever
  // user space made of the copy later (events after it would then come before it). Frames of kind FILE, whose ids end with this run, as the addresses
  // that they are in `mappings`, those of the sample's process.
  void Write(const SampleRecord& sample, const MappingSet& mappings);
  void Write(const ProcessEvent& event);
  absl::Status Close();

 private:
  struct Impl;
  explicit ReplayWriter(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// One home thread.
class ReplayReader {
 public:
  // std::monostate is the end of the stream.
  using Item = std::variant<std::monostate, SampleRecord, ProcessEvent>;

  static absl::StatusOr<std::unique_ptr<ReplayReader>> Open(const std::string& path);
  // Reads from memory, which must outlive the reader.
  static absl::StatusOr<std::unique_ptr<ReplayReader>> FromBytes(std::span<const std::byte> bytes);
  ~ReplayReader();
  ReplayReader(const ReplayReader&) = delete;
  ReplayReader& operator=(const ReplayReader&) = delete;

  const ReplayHeader& header() const;

  // The next item; a sample's spans are valid until the next call. InvalidArgument or DataLoss (a
  // record is cut short) for bytes that no writer of ours wrote; the reader is then at its end.
  absl::StatusOr<Item> Next();

 private:
  struct Impl;
  explicit ReplayReader(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace firewatch::agent
