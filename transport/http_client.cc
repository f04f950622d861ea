// SPDX-License-Identifier: Apache-2.0
#include "transport/http_client.h"

#include <curl/curl.h>

#include <array>
#include <memory>
#include <mutex>

#include "base/status.h"
#include "transport/address.h"

namespace firewatch::transport {
namespace {

struct CurlClose {
  void operator()(CURL* handle) const { ::curl_easy_cleanup(handle); }
  void operator()(curl_slist* list) const { ::curl_slist_free_all(list); }
};
using CurlHandle = std::unique_ptr<CURL, CurlClose>;
using CurlList = std::unique_ptr<curl_slist, CurlClose>;

struct Receiver {
  HttpResponse response;
  size_t max_body_bytes = 0;
  bool too_large = false;
};

size_t OnBody(char* data, size_t size, size_t count, void* user) {
  auto& receiver = *static_cast<Receiver*>(user);
  const size_t bytes = size * count;
  if (receiver.response.body.size() + bytes > receiver.max_body_bytes) {
    receiver.too_large = true;
    return 0;  // makes curl stop with CURLE_WRITE_ERROR
  }
  receiver.response.body.append(data, bytes);
  return bytes;
}

size_t OnHeaderLine(char* data, size_t size, size_t count, void* user) {
  auto& receiver = *static_cast<Receiver*>(user);
  std::string_view line(data, size * count);
  if (line.starts_with("HTTP/")) receiver.response.headers.clear();  // after "100 Continue"
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos) return line.size();
  std::string name(line.substr(0, colon));
  for (char& c : name) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  std::string_view value = line.substr(colon + 1);
  while (!value.empty() && (value.front() == ' ' || value.front() == '\t')) value.remove_prefix(1);
  while (!value.empty() && (value.back() == '\r' || value.back() == '\n' || value.back() == ' ')) {
    value.remove_suffix(1);
  }
  if (name == "content-type") receiver.response.content_type = std::string(value);
  receiver.response.headers.emplace_back(std::move(name), value);
  return line.size();
}

CurlHandle NewHandle() {
  static std::once_flag once;  // curl_global_init is not thread-safe in Debian 12's build
  std::call_once(once, [] { ::curl_global_init(CURL_GLOBAL_DEFAULT); });
  return CurlHandle(::curl_easy_init());
}

bool IsLoopbackUrl(const std::string& url) {
  std::unique_ptr<CURLU, decltype(&::curl_url_cleanup)> parsed(::curl_url(), &::curl_url_cleanup);
  char* host = nullptr;
  if (::curl_url_set(parsed.get(), CURLUPART_URL, url.c_str(), 0) != CURLUE_OK ||
      ::curl_url_get(parsed.get(), CURLUPART_HOST, &host, 0) != CURLUE_OK) {
    return false;
  }
  std::string name = host;
  ::curl_free(host);
  if (name.starts_with('[') && name.ends_with(']')) name = name.substr(1, name.size() - 2);
  return IsLoopbackHost(name);
}

CurlList HeaderList(const HttpClientOptions& options, std::string_view content_type) {
  CurlList list;
  const auto add = [&](const std::string& line) {
    list.reset(::curl_slist_append(list.release(), line.c_str()));
  };
  for (const auto& [name, value] : options.headers) add(name + ": " + value);
  if (!content_type.empty()) add("Content-Type: " + std::string(content_type));
  return list;
}

void Configure(CURL* curl, const std::string& url, const HttpClientOptions& options,
               Receiver& receiver) {
  ::curl_easy_setopt(curl, CURLOPT_URL, url.c_str());
  ::curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
  ::curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);  // timeouts by SIGALRM would hit any thread
  ::curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS,
                     static_cast<long>(options.connect_timeout_ms));
  ::curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, static_cast<long>(options.timeout_ms));
  ::curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, &OnBody);
  ::curl_easy_setopt(curl, CURLOPT_WRITEDATA, &receiver);
  ::curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, &OnHeaderLine);
  ::curl_easy_setopt(curl, CURLOPT_HEADERDATA, &receiver);
  ::curl_easy_setopt(curl, CURLOPT_USERAGENT, "firewatch");
  if (options.accept_gzip) ::curl_easy_setopt(curl, CURLOPT_ACCEPT_ENCODING, "gzip");
  if (IsLoopbackUrl(url)) ::curl_easy_setopt(curl, CURLOPT_PROXY, "");
}

absl::Status ToStatus(CURLcode code, const std::string& url, std::string_view detail,
                      const Receiver& receiver) {
  const std::string_view reason = detail.empty() ? ::curl_easy_strerror(code) : detail;
  if (receiver.too_large) {
    return base::ResourceExhausted("{}: the answer is larger than {} bytes", url,
                                   receiver.max_body_bytes);
  }
  switch (code) {
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
      return base::InvalidArgument("{}: {}", url, reason);
    case CURLE_OPERATION_TIMEDOUT:
      return base::MakeStatus(absl::StatusCode::kDeadlineExceeded,
                              fmt::format("{}: {}", url, reason));
    default:
      return base::Unavailable("{}: {}", url, reason);
  }
}

absl::StatusOr<HttpResponse> Perform(CURL* curl, const std::string& url,
                                     const HttpClientOptions& options,
                                     std::string_view content_type) {
  Receiver receiver{.response = {}, .max_body_bytes = options.max_body_bytes};
  std::array<char, CURL_ERROR_SIZE> detail{};
  const CurlList headers = HeaderList(options, content_type);
  Configure(curl, url, options, receiver);
  ::curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers.get());
  ::curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, detail.data());
  const CURLcode code = ::curl_easy_perform(curl);
  if (code != CURLE_OK) return ToStatus(code, url, detail.data(), receiver);
  long status = 0;
  ::curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
  receiver.response.status = static_cast<int>(status);
  return std::move(receiver.response);
}

}  // namespace

absl::StatusOr<HttpResponse> HttpGet(const std::string& url, const HttpClientOptions& options) {
  const CurlHandle curl = NewHandle();
  if (curl == nullptr) return base::ResourceExhausted("no memory for a request");
  return Perform(curl.get(), url, options, "");
}

absl::StatusOr<HttpResponse> HttpPost(const std::string& url, std::string_view body,
                                      std::string_view content_type,
                                      const HttpClientOptions& options) {
  const CurlHandle curl = NewHandle();
  if (curl == nullptr) return base::ResourceExhausted("no memory for a request");
  ::curl_easy_setopt(curl.get(), CURLOPT_POST, 1L);
  ::curl_easy_setopt(curl.get(), CURLOPT_POSTFIELDS, body.data() == nullptr ? "" : body.data());
  ::curl_easy_setopt(curl.get(), CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body.size()));
  return Perform(curl.get(), url, options, content_type);
}

}  // namespace firewatch::transport
