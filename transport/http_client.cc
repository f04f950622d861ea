// SPDX-License-Identifier: Apache-2.0
#include "transport/http_client.h"

#include <array>
#include <memory>

#include "base/status.h"
#include "transport/address.h"
#include "transport/curl_api.h"

namespace firewatch::transport {
namespace {

struct CurlClose {
  const CurlApi* api;
  void operator()(CURL* handle) const { api->easy_cleanup(handle); }
  void operator()(curl_slist* list) const { api->slist_free_all(list); }
  void operator()(CURLU* url) const { api->url_cleanup(url); }
};
using CurlHandle = std::unique_ptr<CURL, CurlClose>;
using CurlList = std::unique_ptr<curl_slist, CurlClose>;
using CurlUrl = std::unique_ptr<CURLU, CurlClose>;

struct Receiver {
  HttpResponse response;
  size_t max_body_bytes = 0;
  bool too_large = false;
  const CurlHandle* curl = nullptr;
  const BodyConsumer* consume = nullptr;  // nullptr: into the response
  size_t consumed_bytes = 0;
  const BodyProducer* produce = nullptr;
  const std::atomic<bool>* cancel = nullptr;
  absl::Status callback_status;  // of consume or produce
};

// Of the answer at hand, which may be a redirect.
long StatusOf(const CurlHandle& curl) {
  long status = 0;
  curl.get_deleter().api->easy_getinfo(curl.get(), CURLINFO_RESPONSE_CODE, &status);
  return status;
}

size_t OnBody(char* data, size_t size, size_t count, void* user) {
  auto& receiver = *static_cast<Receiver*>(user);
  const size_t bytes = size * count;
  if (receiver.consume != nullptr) {
    if (StatusOf(*receiver.curl) != 200) return bytes;
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

absl::StatusOr<CurlHandle> NewHandle() {
  ASSIGN_OR_RETURN(const CurlApi* api, LoadCurl());
  CurlHandle curl(api->easy_init(), CurlClose{api});
  if (curl == nullptr) return base::ResourceExhausted("no memory for a request");
  return curl;
}

bool IsLoopbackUrl(const CurlApi& api, const std::string& url) {
  const CurlUrl parsed(api.url(), CurlClose{&api});
  char* host = nullptr;
  if (api.url_set(parsed.get(), CURLUPART_URL, url.c_str(), 0) != CURLUE_OK ||
      api.url_get(parsed.get(), CURLUPART_HOST, &host, 0) != CURLUE_OK) {
    return false;
  }
  std::string name = host;
  api.free(host);
  if (name.starts_with('[') && name.ends_with(']')) name = name.substr(1, name.size() - 2);
  return IsLoopbackHost(name);
}

CurlList HeaderList(const CurlApi& api, const HttpClientOptions& options,
                    std::string_view content_type) {
  CurlList list(nullptr, CurlClose{&api});
  const auto add = [&](const std::string& line) {
    list.reset(api.slist_append(list.release(), line.c_str()));
  };
  for (const auto& [name, value] : options.headers) add(name + ": " + value);
  if (!content_type.empty()) add("Content-Type: " + std::string(content_type));
  return list;
}

void Configure(const CurlHandle& curl, const std::string& url, const HttpClientOptions& options,
               Receiver& receiver) {
  const CurlApi& api = *curl.get_deleter().api;
  const auto set = [&](CURLoption option, auto value) {
    static_assert(sizeof(value) == sizeof(long));  // a `long` or a pointer, not an `int`
    api.easy_setopt(curl.get(), option, value);
  };
  set(CURLOPT_URL, url.c_str());
  set(CURLOPT_PROTOCOLS_STR, "http,https");
  set(CURLOPT_NOSIGNAL, 1L);  // timeouts by SIGALRM would hit any thread
  set(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(options.connect_timeout_ms));
  set(CURLOPT_TIMEOUT_MS, static_cast<long>(options.timeout_ms));
  set(CURLOPT_WRITEFUNCTION, &OnBody);
  set(CURLOPT_WRITEDATA, &receiver);
  set(CURLOPT_HEADERFUNCTION, &OnHeaderLine);
  set(CURLOPT_HEADERDATA, &receiver);
  set(CURLOPT_USERAGENT, "firewatch");
  if (options.stall_timeout_ms > 0) {
    set(CURLOPT_LOW_SPEED_LIMIT, 1L);  // bytes per second
    set(CURLOPT_LOW_SPEED_TIME, static_cast<long>((options.stall_timeout_ms + 999) / 1000));
  }
  if (options.max_redirects > 0) {
    set(CURLOPT_FOLLOWLOCATION, 1L);
    set(CURLOPT_MAXREDIRS, static_cast<long>(options.max_redirects));
    set(CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
  }
  if (options.cancel != nullptr) {
    set(CURLOPT_NOPROGRESS, 0L);
    set(CURLOPT_XFERINFOFUNCTION, &OnProgress);
    set(CURLOPT_XFERINFODATA, &receiver);
  }
  if (options.accept_gzip) set(CURLOPT_ACCEPT_ENCODING, "gzip");
  if (IsLoopbackUrl(api, url)) set(CURLOPT_PROXY, "");
}

absl::Status ToStatus(CURLcode code, const std::string& url, std::string_view detail,
                      const Receiver& receiver) {
  const CurlApi& api = *receiver.curl->get_deleter().api;
  const std::string_view reason = detail.empty() ? api.easy_strerror(code) : detail;
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

absl::StatusOr<HttpResponse> Perform(const CurlHandle& curl, const std::string& url,
                                     const HttpClientOptions& options,
                                     std::string_view content_type,
                                     const BodyConsumer* consume = nullptr,
                                     const BodyProducer* produce = nullptr) {
  Receiver receiver{.response = {},
                    .max_body_bytes = options.max_body_bytes,
                    .curl = &curl,
                    .consume = consume,
                    .produce = produce,
                    .cancel = options.cancel,
                    .callback_status = {}};
  std::array<char, CURL_ERROR_SIZE> detail{};
  const CurlApi& api = *curl.get_deleter().api;
  const CurlList headers = HeaderList(api, options, content_type);
  Configure(curl, url, options, receiver);
  api.easy_setopt(curl.get(), CURLOPT_HTTPHEADER, headers.get());
  if (produce != nullptr) {
    api.easy_setopt(curl.get(), CURLOPT_UPLOAD, 1L);  // PUT, in chunks, after "100 Continue"
    api.easy_setopt(curl.get(), CURLOPT_READFUNCTION, &OnProduce);
    api.easy_setopt(curl.get(), CURLOPT_READDATA, &receiver);
    api.easy_setopt(curl.get(), CURLOPT_UPLOAD_BUFFERSIZE, 256L << 10);
  }
  api.easy_setopt(curl.get(), CURLOPT_ERRORBUFFER, detail.data());
  const CURLcode code = api.easy_perform(curl.get());
  if (code != CURLE_OK) return ToStatus(code, url, detail.data(), receiver);
  receiver.response.status = static_cast<int>(StatusOf(curl));
  return std::move(receiver.response);
}

}  // namespace

absl::StatusOr<HttpResponse> HttpGet(const std::string& url, const HttpClientOptions& options) {
  ASSIGN_OR_RETURN(const CurlHandle curl, NewHandle());
  return Perform(curl, url, options, "");
}

absl::StatusOr<HttpResponse> HttpPost(const std::string& url, std::string_view body,
                                      std::string_view content_type,
                                      const HttpClientOptions& options) {
  ASSIGN_OR_RETURN(const CurlHandle curl, NewHandle());
  const CurlApi& api = *curl.get_deleter().api;
  api.easy_setopt(curl.get(), CURLOPT_POST, 1L);
  api.easy_setopt(curl.get(), CURLOPT_POSTFIELDS, body.data() == nullptr ? "" : body.data());
  api.easy_setopt(curl.get(), CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body.size()));
  return Perform(curl, url, options, content_type);
}

absl::StatusOr<HttpResponse> HttpDelete(const std::string& url, const HttpClientOptions& options) {
  ASSIGN_OR_RETURN(const CurlHandle curl, NewHandle());
  curl.get_deleter().api->easy_setopt(curl.get(), CURLOPT_CUSTOMREQUEST, "DELETE");
  return Perform(curl, url, options, "");
}

absl::StatusOr<HttpResponse> HttpPut(const std::string& url, const BodyProducer& produce,
                                     std::string_view content_type,
                                     const HttpClientOptions& options) {
  ASSIGN_OR_RETURN(const CurlHandle curl, NewHandle());
  return Perform(curl, url, options, content_type, nullptr, &produce);
}

absl::StatusOr<HttpResponse> HttpDownload(const std::string& url, const BodyConsumer& consume,
                                          const HttpClientOptions& options) {
  ASSIGN_OR_RETURN(const CurlHandle curl, NewHandle());
  return Perform(curl, url, options, "", &consume);
}

}  // namespace firewatch::transport
