// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/fallback_image.h"

#include <elf.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/status.h"

namespace firewatch::agent {
namespace {

constexpr size_t kMaxSegments = 4096;
constexpr uint64_t kMaxAddress = uint64_t{1} << 47;
constexpr uint64_t kPage = 4096;
// DW_EH_PE_* of the LSB: what every linker writes into .eh_frame_hdr.
constexpr uint8_t kFourBytes = 0x03;      // udata4; sdata4 is 0x0b
constexpr uint8_t kTableEncoding = 0x3b;  // datarel | sdata4

bool ReadAt(int fd, uint64_t offset, void* out, size_t size) {
  return ::pread(fd, out, size, static_cast<off_t>(offset)) == static_cast<ssize_t>(size);
}

}  // namespace

absl::StatusOr<std::shared_ptr<FileImage>> FileImage::Open(base::UniqueFd fd) {
  std::shared_ptr<FileImage> image(new FileImage(std::move(fd)));
  RETURN_IF_ERROR(image->ReadHeaders());
  return image;
}

absl::Status FileImage::ReadHeaders() {
  struct stat info{};
  if (::fstat(fd_.get(), &info) != 0) return base::ErrnoStatus(errno, "stat a mapped file");
  file_size_ = static_cast<uint64_t>(info.st_size);
  Elf64_Ehdr header{};
  if (!ReadAt(fd_.get(), 0, &header, sizeof(header)) ||
      std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_ident[EI_CLASS] != ELFCLASS64 ||
      header.e_ident[EI_DATA] != ELFDATA2LSB || header.e_machine != EM_X86_64 ||
      header.e_phentsize != sizeof(Elf64_Phdr) || header.e_phnum > kMaxSegments) {
    return base::InvalidArgument("not an x86-64 ELF file");
  }
  std::vector<Elf64_Phdr> programs(header.e_phnum);
  if (header.e_phoff > file_size_ ||
      !ReadAt(fd_.get(), header.e_phoff, programs.data(), programs.size() * sizeof(Elf64_Phdr))) {
    return base::InvalidArgument("program headers outside of the file");
  }
  std::optional<uint64_t> frame_header;
  low_ = kMaxAddress;
  for (const Elf64_Phdr& program : programs) {
    if (program.p_type == PT_GNU_EH_FRAME) frame_header = program.p_vaddr;
    if (program.p_type != PT_LOAD || program.p_memsz == 0) continue;
    if (program.p_vaddr >= kMaxAddress || program.p_memsz > kMaxAddress ||
        program.p_offset > file_size_ || program.p_filesz > program.p_memsz) {
      return base::InvalidArgument("a segment outside of the file or of memory");
    }
    segments_.push_back({.file_offset = program.p_offset,
                         .file_size = std::min(program.p_filesz, file_size_ - program.p_offset),
                         .vaddr = program.p_vaddr,
                         .memory_size = program.p_memsz,
                         .executable = (program.p_flags & PF_X) != 0});
    low_ = std::min(low_, program.p_vaddr & ~(kPage - 1));
    high_ = std::max(high_, program.p_vaddr + program.p_memsz);
  }
  if (segments_.empty()) return base::InvalidArgument("no segment to load");
  if (frame_header) ReadSearchTable(*frame_header);
  return absl::OkStatus();
}

// u8 version, u8 encodings of: pointer to .eh_frame, count, entries; then those three.
void FileImage::ReadSearchTable(uint64_t header) {
  uint64_t word = 0;
  uint64_t counts = 0;
  if (!ReadWord(header, &word) || !ReadWord(header + 8, &counts)) return;
  const auto byte = [word](int i) { return static_cast<uint8_t>(word >> (8 * i)); };
  if (byte(0) != 1 || (byte(1) & 0x07) != kFourBytes || byte(2) != kFourBytes ||
      byte(3) != kTableEncoding) {
    return;
  }
  const uint64_t count = counts & 0xffffffff;
  if (count == 0 || count > file_size_ / 8) return;
  search_table_ = SearchTable{.header = header, .entries = header + 12, .count = count};
}

std::optional<uint64_t> FileImage::VaddrOfMapping(uint64_t file_offset) const {
  for (const Segment& segment : segments_) {
    const uint64_t first = segment.file_offset & ~(kPage - 1);
    if (segment.executable && file_offset >= first &&
        file_offset < segment.file_offset + segment.file_size) {
      return segment.vaddr + (file_offset - segment.file_offset);
    }
  }
  return std::nullopt;
}

const FileImage::Segment* FileImage::SegmentOf(uint64_t vaddr) {
  if (last_segment_ != nullptr && vaddr - last_segment_->vaddr < last_segment_->memory_size) {
    return last_segment_;
  }
  for (const Segment& segment : segments_) {
    if (vaddr - segment.vaddr < segment.memory_size) return last_segment_ = &segment;
  }
  return nullptr;
}

const FileImage::Chunk* FileImage::ChunkAt(uint64_t number) {
  if (number == last_number_) return last_chunk_;
  std::unique_ptr<Chunk>& chunk = chunks_[number];
  if (chunk == nullptr) {
    auto fresh = std::make_unique<Chunk>();  // the rest past the end of the file stays zero
    if (::pread(fd_.get(), fresh->data(), kChunkBytes, static_cast<off_t>(number * kChunkBytes)) <=
        0) {
      chunks_.erase(number);
      return nullptr;
    }
    chunk = std::move(fresh);
  }
  last_number_ = number;
  last_chunk_ = chunk.get();
  return last_chunk_;
}

bool FileImage::ReadWord(uint64_t vaddr, uint64_t* word) {
  const Segment* segment = SegmentOf(vaddr);
  if (segment == nullptr) return false;
  const uint64_t into = vaddr - segment->vaddr;
  const uint64_t offset = segment->file_offset + into;
  if (into + 8 <= segment->file_size && offset % kChunkBytes + 8 <= kChunkBytes) {
    const Chunk* chunk = ChunkAt(offset / kChunkBytes);
    if (chunk == nullptr) return false;
    std::memcpy(word, chunk->data() + offset % kChunkBytes, 8);
    return true;
  }
  *word = 0;
  for (unsigned i = 0; i < 8 && into + i < segment->file_size; ++i) {
    const Chunk* chunk = ChunkAt((offset + i) / kChunkBytes);
    if (chunk == nullptr) return false;
    *word |= static_cast<uint64_t>((*chunk)[(offset + i) % kChunkBytes]) << (8 * i);
  }
  return true;
}

void FileImage::DropChunks() {
  chunks_.clear();
  last_number_ = ~uint64_t{0};
  last_chunk_ = nullptr;
}

}  // namespace firewatch::agent
