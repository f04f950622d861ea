// SPDX-License-Identifier: Apache-2.0
// Decompress and Compress of pprof_codec.h. Both formats are inflated as streams into a buffer that
// grows with what really comes out: a length that the input declares is never believed, so a
// kilobyte that claims 4 GiB costs a kilobyte.
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cstdint>
#include <memory>

#include "base/check.h"
#include "base/status.h"
#include "profile/pprof_codec.h"

namespace firewatch::profile {
namespace {

constexpr size_t kFirstChunk = size_t{64} << 10;
// The window is allocated before the first byte is inflated. 8 MiB is what RFC 8878 asks every
// decoder to support; `zstd --ultra -20` and --long need more and are refused.
constexpr int kMaxWindowLog = 23;
// inflateInit2: 15 bits of window, + 16: gzip only (not zlib's own header).
constexpr int kGzipWindowBits = 15 + 16;

bool IsGzip(std::string_view bytes) { return bytes.starts_with("\x1f\x8b"); }

// A zstd frame or a skippable frame (RFC 8878, 3.1).
bool IsZstd(std::string_view bytes) {
  if (bytes.starts_with("\x28\xb5\x2f\xfd")) return true;
  return bytes.size() >= 4 && (static_cast<unsigned char>(bytes[0]) & 0xF0) == 0x50 &&
         bytes.substr(1, 3) == "\x2a\x4d\x18";
}

// Room for output that doubles until the limit; one byte past it shows that the limit is broken.
class GrowingOutput {
 public:
  GrowingOutput(size_t input_bytes, size_t max_bytes) : max_bytes_(max_bytes) {
    text_.resize(std::min(std::max(kFirstChunk, 4 * input_bytes), max_bytes_ + 1));
  }
  char* cursor() { return text_.data() + used_; }
  size_t room() const { return text_.size() - used_; }
  void Advance(size_t bytes) { used_ += bytes; }
  bool past_limit() const { return used_ > max_bytes_; }
  // Call when there is no room and the limit is not broken.
  void Grow() { text_.resize(std::min(2 * text_.size(), max_bytes_ + 1)); }
  std::string Take() {
    text_.resize(used_);
    return std::move(text_);
  }

 private:
  const size_t max_bytes_;
  std::string text_;
  size_t used_ = 0;
};

absl::Status PastLimit(size_t max_bytes) {
  return base::InvalidArgument("inflates to more than {} bytes", max_bytes);
}

using Inflater = std::unique_ptr<z_stream, decltype([](z_stream* z) {
                                   inflateEnd(z);
                                   delete z;
                                 })>;

absl::StatusOr<std::string> InflateGzip(std::string_view bytes, size_t max_bytes) {
  auto fresh = std::make_unique<z_stream>();
  CHECK(inflateInit2(fresh.get(), kGzipWindowBits) == Z_OK);
  const Inflater stream(fresh.release());
  GrowingOutput output(bytes.size(), max_bytes);
  // zlib counts in 32 bits, so both sides are fed in pieces; a file may have several members.
  while (true) {
    const auto in = static_cast<uInt>(std::min<size_t>(bytes.size(), UINT32_MAX));
    const auto room = static_cast<uInt>(std::min<size_t>(output.room(), UINT32_MAX));
    stream->next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
    stream->avail_in = in;
    stream->next_out = reinterpret_cast<Bytef*>(output.cursor());
    stream->avail_out = room;
    const int result = inflate(stream.get(), Z_NO_FLUSH);
    bytes.remove_prefix(in - stream->avail_in);
    output.Advance(room - stream->avail_out);
    if (output.past_limit()) return PastLimit(max_bytes);
    if (result == Z_STREAM_END) {
      if (bytes.empty()) return output.Take();
      if (!IsGzip(bytes)) {
        return base::InvalidArgument("gzip: {} bytes of something else at the end", bytes.size());
      }
      CHECK(inflateReset(stream.get()) == Z_OK);
    } else if (result != Z_OK && result != Z_BUF_ERROR) {
      return base::InvalidArgument("gzip: {}", stream->msg == nullptr ? "damaged" : stream->msg);
    } else if (output.room() != 0 && bytes.empty()) {
      return base::InvalidArgument("gzip: truncated");
    }
    if (output.room() == 0) output.Grow();
  }
}

using ZstdReader = std::unique_ptr<ZSTD_DCtx, decltype([](ZSTD_DCtx* d) { ZSTD_freeDCtx(d); })>;

absl::StatusOr<std::string> InflateZstd(std::string_view bytes, size_t max_bytes) {
  const ZstdReader stream(ZSTD_createDCtx());
  CHECK(stream != nullptr);
  CHECK(!ZSTD_isError(ZSTD_DCtx_setParameter(stream.get(), ZSTD_d_windowLogMax, kMaxWindowLog)));
  GrowingOutput output(bytes.size(), max_bytes);
  ZSTD_inBuffer in{bytes.data(), bytes.size(), 0};
  while (true) {
    ZSTD_outBuffer out{output.cursor(), output.room(), 0};
    const size_t result = ZSTD_decompressStream(stream.get(), &out, &in);
    if (ZSTD_isError(result)) {
      return base::InvalidArgument("zstd: {}", ZSTD_getErrorName(result));
    }
    output.Advance(out.pos);
    if (output.past_limit()) return PastLimit(max_bytes);
    // 0: a frame is complete and flushed. Another frame may follow.
    if (in.pos == in.size && output.room() != 0) {
      if (result == 0) return output.Take();
      return base::InvalidArgument("zstd: truncated");
    }
    if (in.pos == in.size && result == 0) return output.Take();
    if (output.room() == 0) output.Grow();
  }
}

absl::StatusOr<std::string> DeflateGzip(std::string_view bytes, int level) {
  z_stream stream{};
  if (deflateInit2(&stream, level == 0 ? Z_DEFAULT_COMPRESSION : level, Z_DEFLATED, kGzipWindowBits,
                   8, Z_DEFAULT_STRATEGY) != Z_OK) {
    return base::InvalidArgument("gzip: no level {}", level);
  }
  std::string output(deflateBound(&stream, bytes.size()), '\0');
  size_t used = 0;
  int result = Z_OK;
  do {
    const auto in = static_cast<uInt>(std::min<size_t>(bytes.size(), UINT32_MAX));
    const auto room = static_cast<uInt>(std::min<size_t>(output.size() - used, UINT32_MAX));
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
    stream.avail_in = in;
    stream.next_out = reinterpret_cast<Bytef*>(output.data() + used);
    stream.avail_out = room;
    result = deflate(&stream, in == bytes.size() ? Z_FINISH : Z_NO_FLUSH);
    bytes.remove_prefix(in - stream.avail_in);
    used += room - stream.avail_out;
  } while (result == Z_OK);
  deflateEnd(&stream);
  CHECK(result == Z_STREAM_END);  // deflateBound is an upper bound
  output.resize(used);
  return output;
}

absl::StatusOr<std::string> DeflateZstd(std::string_view bytes, int level) {
  std::string output(ZSTD_compressBound(bytes.size()), '\0');
  const size_t size = ZSTD_compress(output.data(), output.size(), bytes.data(), bytes.size(),
                                    level == 0 ? ZSTD_CLEVEL_DEFAULT : level);
  if (ZSTD_isError(size)) return base::InvalidArgument("zstd: {}", ZSTD_getErrorName(size));
  output.resize(size);
  return output;
}

}  // namespace

absl::StatusOr<std::string> Decompress(std::string_view bytes, size_t max_bytes) {
  CHECK(max_bytes < SIZE_MAX / 4);
  if (IsGzip(bytes)) return InflateGzip(bytes, max_bytes);
  if (IsZstd(bytes)) return InflateZstd(bytes, max_bytes);
  if (bytes.size() > max_bytes) return PastLimit(max_bytes);
  return std::string(bytes);
}

absl::StatusOr<std::string> Compress(std::string_view bytes, Compression compression, int level) {
  switch (compression) {
    case Compression::kNone:
      return std::string(bytes);
    case Compression::kGzip:
      return DeflateGzip(bytes, level);
    case Compression::kZstd:
      return DeflateZstd(bytes, level);
  }
  CHECK(false);
}

}  // namespace firewatch::profile
