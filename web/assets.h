// SPDX-License-Identifier: Apache-2.0
// The page, as the server embeds it: one table made by web/dev/embed.mjs from what vite built.
//
// All views point into read-only data of the binary and stay valid for ever. The table is sorted by
// path. It is empty when the binary was built without the page (FIREWATCH_WEB=OFF, or no node at
// hand); the server then says so instead of a page.
#pragma once

#include <span>
#include <string_view>

namespace firewatch::web {

struct Asset {
  std::string_view path;          // "/index.html", "/assets/index-B7qk2v1s.js"
  std::string_view content_type;  // "text/javascript; charset=utf-8"
  std::string_view etag;          // with its quotes; of `bytes`, so it is good for both encodings
  std::span<const unsigned char> gzip_bytes;  // empty when gzip does not make the file smaller
  std::span<const unsigned char> bytes;
  bool immutable = false;  // the name carries a hash of the content: may be cached for ever
};

std::span<const Asset> Assets();

}  // namespace firewatch::web
