// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/elf/inflate.h"

#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <memory>

#include "base/status.h"

namespace firewatch::symbolizer {
namespace {

constexpr size_t kPieceBytes = size_t{256} << 10;
constexpr size_t kMaxInputBytes = size_t{1} << 30;  // zlib counts in 32 bits
constexpr int kMaxZstdWindowLog = 27;

using Buffer = std::vector<std::byte>;

absl::Status InflateZlib(std::span<const std::byte> packed, ScratchFile& scratch) {
  z_stream stream{};
  if (::inflateInit(&stream) != Z_OK) return base::ResourceExhausted("zlib: no memory");
  const std::unique_ptr<z_stream, int (*)(z_stream*)> owner(&stream, ::inflateEnd);
  Buffer buffer(kPieceBytes);
  int result = Z_OK;
  while (result != Z_STREAM_END) {
    if (stream.avail_in == 0) {
      const auto piece = packed.first(std::min(packed.size(), kMaxInputBytes));
      // zlib's interface predates const.
      stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(piece.data()));
      stream.avail_in = static_cast<uInt>(piece.size());
      packed = packed.subspan(piece.size());
    }
    stream.next_out = reinterpret_cast<Bytef*>(buffer.data());
    stream.avail_out = static_cast<uInt>(buffer.size());
    result = ::inflate(&stream, Z_NO_FLUSH);
    if (result != Z_OK && result != Z_STREAM_END) {
      return base::DataLoss("a section's zlib stream is damaged or cut");
    }
    RETURN_IF_ERROR(scratch.Write(std::span(buffer).first(buffer.size() - stream.avail_out)));
  }
  return absl::OkStatus();
}

absl::Status InflateZstd(std::span<const std::byte> packed, ScratchFile& scratch) {
  const std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> context(::ZSTD_createDCtx(),
                                                                   ::ZSTD_freeDCtx);
  if (context == nullptr) return base::ResourceExhausted("zstd: no memory");
  ::ZSTD_DCtx_setParameter(context.get(), ZSTD_d_windowLogMax, kMaxZstdWindowLog);
  Buffer buffer(kPieceBytes);
  ZSTD_inBuffer in = {.src = packed.data(), .size = packed.size(), .pos = 0};
  size_t left = 1;
  while (in.pos < in.size || left != 0) {
    ZSTD_outBuffer out = {.dst = buffer.data(), .size = buffer.size(), .pos = 0};
    const size_t before = in.pos;
    left = ::ZSTD_decompressStream(context.get(), &out, &in);
    if (::ZSTD_isError(left) != 0) {
      return base::DataLoss("a section's zstd stream: {}", ::ZSTD_getErrorName(left));
    }
    if (out.pos == 0 && in.pos == before && left != 0) {
      return base::DataLoss("a section's zstd stream is cut");
    }
    RETURN_IF_ERROR(scratch.Write(std::span(buffer).first(out.pos)));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::span<const std::byte>> Inflate(Compression compression,
                                                   std::span<const std::byte> packed, uint64_t size,
                                                   ScratchFile& scratch) {
  RETURN_IF_ERROR(scratch.Begin(size));
  if (compression == Compression::kNone) {
    RETURN_IF_ERROR(scratch.Write(packed));
  } else {
    RETURN_IF_ERROR(compression == Compression::kZlib ? InflateZlib(packed, scratch)
                                                      : InflateZstd(packed, scratch));
  }
  return scratch.End();
}

absl::StatusOr<std::vector<std::byte>> InflateXz(std::span<const std::byte> packed,
                                                 uint64_t max_bytes) {
  lzma_stream stream = LZMA_STREAM_INIT;
  if (::lzma_stream_decoder(&stream, max_bytes, 0) != LZMA_OK) {
    return base::ResourceExhausted("xz: no memory");
  }
  const std::unique_ptr<lzma_stream, void (*)(lzma_stream*)> owner(&stream, ::lzma_end);
  std::vector<std::byte> out;
  stream.next_in = reinterpret_cast<const uint8_t*>(packed.data());
  stream.avail_in = packed.size();
  while (true) {
    const size_t done = out.size();
    if (done >= max_bytes) return base::ResourceExhausted(".gnu_debugdata is larger than {}", done);
    out.resize(std::min<uint64_t>(max_bytes, done + std::max(done, kPieceBytes)));
    stream.next_out = reinterpret_cast<uint8_t*>(out.data() + done);
    stream.avail_out = out.size() - done;
    const lzma_ret result = ::lzma_code(&stream, LZMA_FINISH);
    out.resize(out.size() - stream.avail_out);
    if (result == LZMA_STREAM_END) return out;
    if (result == LZMA_MEM_ERROR || result == LZMA_MEMLIMIT_ERROR) {
      return base::ResourceExhausted(".gnu_debugdata needs more memory than allowed");
    }
    if (result != LZMA_OK) return base::DataLoss(".gnu_debugdata is damaged");
  }
}

}  // namespace firewatch::symbolizer
