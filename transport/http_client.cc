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
  CURL* curl = nullptr;
  const BodyConsumer* consume = nullptr;  // nullptr: into the response
  size_t consumed_bytes = 0;
  const BodyProducer* produce = nullptr;
  const std::atomic<bool>* cancel = nullptr;
  absl::Status callback_status;  // of consume or produce
};

// Of the answer at hand, which may be a redirect.
long StatusOf(CURL* curl) {
  long status = 0;
  ::curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
  return status;
}

size_t OnBody(char* data, size_t size, size_t count, void* user) {
  auto& receiver = *static_cast<Receiver*>(user);
  const size_t bytes = size * count;
  if (receiver.consume != nullptr) {
    if (StatusOf(receiver.curl) != 200) return bytes;
    receiver.consumed_bytes += bytes;
    if (receiver.consumed_bytes > receiver.max_body_bytes) {
      receiver.too_large = true;
      return 0;
    }
    receiver.callback_status = (*receiver.consume)({data, bytes});
    return receiver.callback_status.ok() ? bytes : 0;
  }
  if (receiver.response.body.size() + bytes > receiver.max_body_bytes) {
    receiver.too_large = true;
    return 0;  // makes curl stop with CURLE_WRITE_ERROR
  }
  receiver.response.body.append(data, bytes);
  return bytes;
}

size_t OnProduce(char* buffer, size_t size, size_t count, void* user) {
  auto& receiver = *static_cast<Receiver*>(user);
  const absl::StatusOr<size_t> bytes = (*receiver.produce)(buffer, size * count);
  if (bytes.ok()) return *bytes;
  receiver.callback_status = bytes.status();
  return CURL_READFUNC_ABORT;
}

int OnProgress(void* user, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  const auto& receiver = *static_cast<Receiver*>(user);
  return receiver.cancel->load(std::memory_order_relaxed) ? 1 : 0;  // not 0: ends it
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
  if (options.stall_timeout_ms > 0) {
    ::curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);  // bytes per second
    ::curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME,
                       static_cast<long>((options.stall_timeout_ms + 999) / 1000));
  }
  if (options.max_redirects > 0) {
    ::curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 1L);
    ::curl_easy_setopt(curl, CURLOPT_MAXREDIRS, static_cast<long>(options.max_redirects));
    ::curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
  }
  if (options.cancel != nullptr) {
    ::curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    ::curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, &OnProgress);
    ::curl_easy_setopt(curl, CURLOPT_XFERINFODATA, &receiver);
  }
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
  if (!receiver.callback_status.ok()) return receiver.callback_status;
  switch (code) {
    case CURLE_ABORTED_BY_CALLBACK:
      return base::MakeStatus(absl::StatusCode::kCancelled, fmt::format("{}: cancelled", url));
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
                                     std::string_view content_type,
                                     const BodyConsumer* consume = nullptr,
                                     const BodyProducer* produce = nullptr) {
  Receiver receiver{.response = {},
                    .max_body_bytes = options.max_body_bytes,
                    .curl = curl,
                    .consume = consume,
                    .produce = produce,
                    .cancel = options.cancel,
                    .callback_status = {}};
  std::array<char, CURL_ERROR_SIZE> detail{};
  const CurlList headers = HeaderList(options, content_type);
  Configure(curl, url, options, receiver);
  ::curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers.get());
  if (produce != nullptr) {
    ::curl_easy_setopt(curl, CURLOPT_UPLOAD, 1L);  // PUT, in chunks, after "100 Continue"
    ::curl_easy_setopt(curl, CURLOPT_READFUNCTION, &OnProduce);
    ::curl_easy_setopt(curl, CURLOPT_READDATA, &receiver);
    ::curl_easy_setopt(curl, CURLOPT_UPLOAD_BUFFERSIZE, 256L << 10);
  }
  ::curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, detail.data());
  const CURLcode code = ::curl_easy_perform(curl);
  if (code != CURLE_OK) return ToStatus(code, url, detail.data(), receiver);
  receiver.response.status = static_cast<int>(StatusOf(curl));
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

absl::StatusOr<HttpResponse> HttpDelete(const std::string& url, const HttpClientOptions& options) {
  const CurlHandle curl = NewHandle();
  if (curl == nullptr) return base::ResourceExhausted("no memory for a request");
  ::curl_easy_setopt(curl.get(), CURLOPT_CUSTOMREQUEST, "DELETE");
  return Perform(curl.get(), url, options, "");
}

absl::StatusOr<HttpResponse> HttpPut(const std::string& url, const BodyProducer& produce,
                                     std::string_view content_type,
                                     const HttpClientOptions& options) {
  const CurlHandle curl = NewHandle();
  if (curl == nullptr) return base::ResourceExhausted("no memory for a request");
  return Perform(curl.get(), url, options, content_type, nullptr, &produce);
}

absl::StatusOr<HttpResponse> HttpDownload(const std::string& url, const BodyConsumer& consume,
                                          const HttpClientOptions& options) {
  const CurlHandle curl = NewHandle();
  if (curl == nullptr) return base::ResourceExhausted("no memory for a request");
  return Perform(curl.get(), url, options, "", &consume);
}

}  // namespace firewatch::transport
