// SPDX-License-Identifier: Apache-2.0
// libcurl, loaded by the first request instead of with the program: with what it drags in it is 28
// libraries (TLS twice, LDAP, Kerberos), which cost every start of a program 6 ms of CPU, most of
// what `firewatch symbolize` takes with a saved index, and most starts make no request at all.
#pragma once

#include <curl/curl.h>

#include "absl/status/statusor.h"

namespace firewatch::transport {

// What we call of it. Each is the function curl_NAME; setopt without the type checks of its macro:
// integers must be `long` or `curl_off_t`, as its manual says.
struct CurlApi {
  decltype(&::curl_global_init) global_init;
  decltype(&::curl_easy_init) easy_init;
  decltype(&::curl_easy_cleanup) easy_cleanup;
  decltype(&::curl_easy_setopt) easy_setopt;
  decltype(&::curl_easy_perform) easy_perform;
  decltype(&::curl_easy_getinfo) easy_getinfo;
  decltype(&::curl_easy_strerror) easy_strerror;
  decltype(&::curl_slist_append) slist_append;
  decltype(&::curl_slist_free_all) slist_free_all;
  decltype(&::curl_url) url;
  decltype(&::curl_url_cleanup) url_cleanup;
  decltype(&::curl_url_set) url_set;
  decltype(&::curl_url_get) url_get;
  decltype(&::curl_free) free;
};

// Loads and initializes it at the first call; any thread. It stays for the life of the process.
// Unavailable when it is not installed or too old, then always.
absl::StatusOr<const CurlApi*> LoadCurl();

}  // namespace firewatch::transport
