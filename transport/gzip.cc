// SPDX-License-Identifier: Apache-2.0
#include "transport/gzip.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <limits>

#include "base/check.h"

namespace firewatch::transport {
namespace {

std::string_view Trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

// "q=0", "q=0.000": the client does not want it.
bool HasZeroWeight(std::string_view parameters) {
  const size_t at = parameters.find("q=");
  if (at == std::string_view::npos) return false;
  const std::string_view weight = Trim(parameters.substr(at + 2));
  return !weight.empty() && weight.find_first_not_of("0.") == std::string_view::npos;
}

}  // namespace

std::string Gzip(std::string_view bytes, int level) {
  z_stream stream{};
  // 15 + 16: the largest window, with gzip's header instead of zlib's.
  CHECK(::deflateInit2(&stream, level, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  std::string out(::deflateBound(&stream, bytes.size()), '\0');
  size_t produced = 0;
  int result = Z_OK;
  // zlib counts in 32 bits: larger inputs go through in pieces.
  constexpr size_t kPiece = std::numeric_limits<uInt>::max() / 2;
  do {
    const size_t in = std::min(bytes.size(), kPiece);
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
    stream.avail_in = static_cast<uInt>(in);
    bytes.remove_prefix(in);
    do {
      const size_t room = std::min(out.size() - produced, kPiece);
      stream.next_out = reinterpret_cast<Bytef*>(out.data() + produced);
      stream.avail_out = static_cast<uInt>(room);
      result = ::deflate(&stream, bytes.empty() ? Z_FINISH : Z_NO_FLUSH);
      CHECK(result == Z_OK || result == Z_STREAM_END || result == Z_BUF_ERROR);
      produced += room - stream.avail_out;
    } while (stream.avail_in > 0 || (bytes.empty() && result != Z_STREAM_END));
  } while (result != Z_STREAM_END);
  ::deflateEnd(&stream);
  out.resize(produced);
  return out;
}

bool AcceptsGzip(std::string_view accept_encoding) {
  while (!accept_encoding.empty()) {
    const size_t comma = std::min(accept_encoding.find(','), accept_encoding.size());
    const std::string_view item = accept_encoding.substr(0, comma);
    accept_encoding.remove_prefix(std::min(comma + 1, accept_encoding.size()));
    const size_t semicolon = std::min(item.find(';'), item.size());
    const std::string_view coding = Trim(item.substr(0, semicolon));
    if (coding == "gzip" || coding == "x-gzip" || coding == "*") {
      return !HasZeroWeight(item.substr(semicolon));
    }
  }
  return false;
}

bool IsCompressible(std::string_view content_type) {
  constexpr std::array<std::string_view, 6> kTypes = {
      "application/json", "application/javascript",    "application/xml",
      "image/svg+xml",    "application/manifest+json", "application/wasm"};
  const std::string_view type =
      Trim(content_type.substr(0, std::min(content_type.find(';'), content_type.size())));
  return type.starts_with("text/") || std::find(kTypes.begin(), kTypes.end(), type) != kTypes.end();
}

}  // namespace firewatch::transport
