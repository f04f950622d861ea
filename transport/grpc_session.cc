// SPDX-License-Identifier: Apache-2.0
#include "transport/grpc_session.h"

#include <nghttp2/nghttp2.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/status.h"

namespace firewatch::transport {
namespace {

constexpr size_t kFrameHeaderBytes = 5;  // a flag "compressed" and a 32-bit length
constexpr size_t kMaxStatusTextBytes = 4096;
constexpr uint32_t kMaxHeaderListBytes = 16 << 10;
constexpr int kLastCode = 16;  // UNAUTHENTICATED

nghttp2_nv Header(std::string_view name, std::string_view value) {
  // nghttp2 copies both; its type has no const.
  const auto bytes = [](std::string_view text) {
    return const_cast<uint8_t*>(reinterpret_cast<const uint8_t*>(text.data()));
  };
  return {bytes(name), bytes(value), name.size(), value.size(), NGHTTP2_NV_FLAG_NONE};
}

std::string_view Text(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

int Number(std::string_view text, int otherwise) {
  int number = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), number);
  return parsed.ec == std::errc() && parsed.ptr == text.data() + text.size() ? number : otherwise;
}

// What a proxy in between means that answers for the server (http-grpc-status-mapping.md).
absl::StatusCode CodeOfHttp(int http_status) {
  switch (http_status) {
    case 400:
      return absl::StatusCode::kInternal;
    case 401:
      return absl::StatusCode::kUnauthenticated;
    case 403:
      return absl::StatusCode::kPermissionDenied;
    case 404:
      return absl::StatusCode::kUnimplemented;
    case 429:
    case 502:
    case 503:
    case 504:
      return absl::StatusCode::kUnavailable;
    default:
      return absl::StatusCode::kUnknown;
  }
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

class Nghttp2Session final : public GrpcSession {
 public:
  explicit Nghttp2Session(Options options) : options_(std::move(options)) {}
  ~Nghttp2Session() override { ::nghttp2_session_del(session_); }
  Nghttp2Session(const Nghttp2Session&) = delete;
  Nghttp2Session& operator=(const Nghttp2Session&) = delete;

  absl::Status Open();
  absl::Status Feed(std::string_view bytes) override;
  absl::StatusOr<std::string_view> TakeOutput() override;
  absl::Status Begin(std::string_view method, std::string_view message, int timeout_ms) override;
  bool done() const override { return call_.done; }
  absl::StatusOr<std::string> TakeResult() override;
  bool usable() const override {
    return !goodbye_ && ::nghttp2_session_check_request_allowed(session_) != 0;
  }

 private:
  struct Call {
    int32_t stream = -1;
    std::array<char, kFrameHeaderBytes> prefix{};
    std::string_view message;
    size_t sent = 0;  // of prefix and message
    int http_status = 0;
    int code = -1;  // grpc-status; -1: none came
    std::string text;
    std::string answer;  // with its prefix
    bool too_large = false;
    uint32_t reset = 0;  // the HTTP/2 error the stream ended by
    bool done = true;
  };

  static Nghttp2Session& Of(void* self) { return *static_cast<Nghttp2Session*>(self); }
  static ssize_t OnRead(nghttp2_session*, int32_t, uint8_t* out, size_t capacity, uint32_t* flags,
                        nghttp2_data_source* source, void*);
  static int OnHeader(nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name,
                      size_t name_size, const uint8_t* value, size_t value_size, uint8_t,
                      void* self);
  static int OnData(nghttp2_session*, uint8_t, int32_t stream, const uint8_t* data, size_t size,
                    void* self);
  static int OnClose(nghttp2_session*, int32_t stream, uint32_t error, void* self);
  static int OnFrame(nghttp2_session*, const nghttp2_frame* frame, void* self);

  void TakeHeader(std::string_view name, std::string_view value);

  const Options options_;
  nghttp2_session* session_ = nullptr;  // owned
  Call call_;
  bool goodbye_ = false;
};

absl::Status Nghttp2Session::Open() {
  nghttp2_session_callbacks* callbacks = nullptr;
  if (::nghttp2_session_callbacks_new(&callbacks) != 0) {
    return base::ResourceExhausted("no memory for an HTTP/2 session");
  }
  ::nghttp2_session_callbacks_set_on_header_callback(callbacks, &OnHeader);
  ::nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, &OnData);
  ::nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, &OnClose);
  ::nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, &OnFrame);
  const int made = ::nghttp2_session_client_new(&session_, callbacks, this);
  ::nghttp2_session_callbacks_del(callbacks);
  const std::array<nghttp2_settings_entry, 2> settings = {
      {{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
       {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, kMaxHeaderListBytes}}};
  if (made != 0 || ::nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings.data(),
                                             settings.size()) != 0) {
    return base::ResourceExhausted("no memory for an HTTP/2 session");
  }
  return absl::OkStatus();
}

absl::Status Nghttp2Session::Feed(std::string_view bytes) {
  const ssize_t taken = ::nghttp2_session_mem_recv(
      session_, reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  if (taken < 0) {
    return base::Unavailable("no HTTP/2 from the server: {}",
                             ::nghttp2_strerror(static_cast<int>(taken)));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string_view> Nghttp2Session::TakeOutput() {
  const uint8_t* data = nullptr;
  const ssize_t size = ::nghttp2_session_mem_send(session_, &data);
  if (size < 0) {
    return base::Unavailable("HTTP/2: {}", ::nghttp2_strerror(static_cast<int>(size)));
  }
  // Some of what breaks the protocol is answered with a goodbye and no error.
  if (size == 0 && !call_.done && ::nghttp2_session_want_read(session_) == 0) {
    return base::Unavailable("no HTTP/2 from the server");
  }
  return Text(data, static_cast<size_t>(size));
}

absl::Status Nghttp2Session::Begin(std::string_view method, std::string_view message,
                                   int timeout_ms) {
  CHECK(call_.done);
  call_ = {};
  if (message.size() > UINT32_MAX) {
    return base::ResourceExhausted("{} bytes do not fit into one message", message.size());
  }
  const auto size = static_cast<uint32_t>(message.size());
  for (size_t i = 0; i < 4; ++i) call_.prefix[1 + i] = static_cast<char>(size >> (24 - 8 * i));
  call_.message = message;
  const std::string timeout = fmt::format("{}m", std::clamp(timeout_ms, 1, 99'999'999));
  const std::array<nghttp2_nv, 8> headers = {
      Header(":method", "POST"),
      Header(":scheme", "http"),
      Header(":path", method),
      Header(":authority", options_.authority),
      Header("te", "trailers"),
      Header("content-type", "application/grpc"),
      Header("user-agent", options_.user_agent),
      Header("grpc-timeout", timeout),
  };
  nghttp2_data_provider body{};
  body.source.ptr = &call_;
  body.read_callback = &OnRead;
  const int32_t stream =
      ::nghttp2_submit_request(session_, nullptr, headers.data(), headers.size(), &body, nullptr);
  if (stream < 0) return base::Unavailable("HTTP/2: {}", ::nghttp2_strerror(stream));
  call_.stream = stream;
  call_.done = false;
  return absl::OkStatus();
}

ssize_t Nghttp2Session::OnRead(nghttp2_session*, int32_t, uint8_t* out, size_t capacity,
                               uint32_t* flags, nghttp2_data_source* source, void*) {
  Call& call = *static_cast<Call*>(source->ptr);
  size_t written = 0;
  if (call.sent < kFrameHeaderBytes) {
    written = std::min(capacity, kFrameHeaderBytes - call.sent);
    std::memcpy(out, call.prefix.data() + call.sent, written);
    call.sent += written;
  }
  const size_t at = call.sent - kFrameHeaderBytes;  // only used when the prefix is through
  if (call.sent >= kFrameHeaderBytes && at < call.message.size() && written < capacity) {
    const size_t more = std::min(capacity - written, call.message.size() - at);
    std::memcpy(out + written, call.message.data() + at, more);
    written += more;
    call.sent += more;
  }
  if (call.sent == kFrameHeaderBytes + call.message.size()) *flags |= NGHTTP2_DATA_FLAG_EOF;
  return static_cast<ssize_t>(written);
}

void Nghttp2Session::TakeHeader(std::string_view name, std::string_view value) {
  if (name == ":status") {
    call_.http_status = Number(value, 0);
  } else if (name == "grpc-status") {
    const int code = Number(value, -2);
    call_.code = code < 0 || code > kLastCode ? static_cast<int>(absl::StatusCode::kUnknown) : code;
  } else if (name == "grpc-message") {
    call_.text = DecodeGrpcMessage(value.substr(0, kMaxStatusTextBytes));
  }
}

int Nghttp2Session::OnHeader(nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name,
                             size_t name_size, const uint8_t* value, size_t value_size, uint8_t,
                             void* self) {
  Nghttp2Session& session = Of(self);
  if (frame->hd.stream_id == session.call_.stream && !session.call_.done) {
    session.TakeHeader(Text(name, name_size), Text(value, value_size));
  }
  return 0;
}

int Nghttp2Session::OnData(nghttp2_session* inner, uint8_t, int32_t stream, const uint8_t* data,
                           size_t size, void* self) {
  Nghttp2Session& session = Of(self);
  Call& call = session.call_;
  if (stream != call.stream || call.done || call.too_large) return 0;
  if (call.answer.size() + size > session.options_.max_answer_bytes + kFrameHeaderBytes) {
    call.too_large = true;
    return ::nghttp2_submit_rst_stream(inner, NGHTTP2_FLAG_NONE, stream, NGHTTP2_CANCEL) == 0
               ? 0
               : NGHTTP2_ERR_CALLBACK_FAILURE;
  }
  call.answer.append(Text(data, size));
  return 0;
}

int Nghttp2Session::OnClose(nghttp2_session*, int32_t stream, uint32_t error, void* self) {
  Call& call = Of(self).call_;
  if (stream == call.stream && !call.done) {
    call.reset = error;
    call.done = true;
  }
  return 0;
}

int Nghttp2Session::OnFrame(nghttp2_session*, const nghttp2_frame* frame, void* self) {
  if (frame->hd.type == NGHTTP2_GOAWAY) Of(self).goodbye_ = true;
  return 0;
}

absl::StatusOr<std::string> Nghttp2Session::TakeResult() {
  CHECK(call_.done);
  Call call = std::exchange(call_, {});
  if (call.too_large) {
    return base::ResourceExhausted("the answer is larger than {} bytes", options_.max_answer_bytes);
  }
  if (call.code > 0) return base::MakeStatus(static_cast<absl::StatusCode>(call.code), call.text);
  if (call.code < 0 && call.http_status != 0 && call.http_status != 200) {
    return base::MakeStatus(CodeOfHttp(call.http_status),
                            fmt::format("HTTP status {}", call.http_status));
  }
  if (call.code < 0) {
    return base::Unavailable("the server ended the call without a status ({})",
                             ::nghttp2_http2_strerror(call.reset));
  }
  if (call.answer.size() < kFrameHeaderBytes) return base::Internal("OK without a message");
  if (call.answer[0] != 0) return base::Internal("a compressed message, which nobody asked for");
  uint32_t size = 0;
  for (size_t i = 1; i < kFrameHeaderBytes; ++i) {
    size = size << 8 | static_cast<uint8_t>(call.answer[i]);
  }
  if (size != call.answer.size() - kFrameHeaderBytes) {
    return base::Internal("a message of {} bytes in {}", size,
                          call.answer.size() - kFrameHeaderBytes);
  }
  call.answer.erase(0, kFrameHeaderBytes);
  return std::move(call.answer);
}

}  // namespace

absl::StatusOr<std::unique_ptr<GrpcSession>> GrpcSession::Create(Options options) {
  auto session = std::make_unique<Nghttp2Session>(std::move(options));
  RETURN_IF_ERROR(session->Open());
  return session;
}

std::string DecodeGrpcMessage(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const int high = text[i] == '%' && i + 2 < text.size() ? HexDigit(text[i + 1]) : -1;
    const int low = high >= 0 ? HexDigit(text[i + 2]) : -1;
    if (low >= 0) {
      out += static_cast<char>(high * 16 + low);
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

}  // namespace firewatch::transport
