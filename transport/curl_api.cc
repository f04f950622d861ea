// SPDX-License-Identifier: Apache-2.0
#include "transport/curl_api.h"

#include <dlfcn.h>

#include <string_view>
#include <type_traits>

#include "base/status.h"

namespace firewatch::transport {
namespace {

// Has had this name since 2006, in all distributions.
constexpr char kLibrary[] = "libcurl.so.4";

std::string_view LoaderError() {
  const char* const error = ::dlerror();
  return error == nullptr ? "unknown error" : error;
}

absl::StatusOr<CurlApi> Load() {
  // Never closed: it and its libraries have state of the process.
  void* const library = ::dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    return base::Unavailable("HTTP requests need {}: {}", kLibrary, LoaderError());
  }
  CurlApi api{};
  bool whole = true;
  const auto find = [&](const char* name, auto& function) {
    void* const symbol = ::dlsym(library, name);
    whole = whole && symbol != nullptr;
    function = reinterpret_cast<std::decay_t<decltype(function)>>(symbol);
  };
  find("curl_global_init", api.global_init);
  find("curl_easy_init", api.easy_init);
  find("curl_easy_cleanup", api.easy_cleanup);
  find("curl_easy_setopt", api.easy_setopt);
  find("curl_easy_perform", api.easy_perform);
  find("curl_easy_getinfo", api.easy_getinfo);
  find("curl_easy_strerror", api.easy_strerror);
  find("curl_slist_append", api.slist_append);
  find("curl_slist_free_all", api.slist_free_all);
  find("curl_url", api.url);
  find("curl_url_cleanup", api.url_cleanup);
  find("curl_url_set", api.url_set);
  find("curl_url_get", api.url_get);
  find("curl_free", api.free);
  if (!whole)
    return base::Unavailable("HTTP requests need a newer {}: {}", kLibrary, LoaderError());
  // Not thread-safe in Debian 12's build.
  if (const CURLcode code = api.global_init(CURL_GLOBAL_DEFAULT); code != CURLE_OK) {
    return base::Unavailable("{}: {}", kLibrary, api.easy_strerror(code));
  }
  return api;
}

}  // namespace

absl::StatusOr<const CurlApi*> LoadCurl() {
  static const absl::StatusOr<CurlApi> loaded = Load();
  if (!loaded.ok()) return loaded.status();
  return &*loaded;
}

}  // namespace firewatch::transport
