// SPDX-License-Identifier: Apache-2.0
// Read http_connection.h first. The steps stand here in the order in which a request meets them.
#include "transport/http_connection.h"

#include <algorithm>
#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/read.hpp>
#include <chrono>
#include <utility>

#include "base/status.h"
#include "transport/url.h"

namespace firewatch::transport {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;

// Every piece gets the whole write timeout: a large answer may take long on a thin line, but a peer
// that does not read at all is cut off.
constexpr size_t kWritePiece = size_t{256} << 10;
// After a refusal the rest of the request is read for a moment: closing with unread bytes resets
// the connection, and the peer would lose the answer that tells it why.
constexpr size_t kLingerBytes = size_t{1} << 20;
constexpr std::chrono::milliseconds kLingerTime{500};
// One piece of a streamed body: large enough that a thread's wake-up is lost in its cost.
constexpr size_t kStreamPiece = size_t{256} << 10;
// Beast reads ahead by up to 64 KiB.
constexpr size_t kReadAhead = 64 * 1024;
constexpr int kMaxHeld = 64;

std::string LocalAddress(const tcp::socket& socket) {
  beast::error_code ignored;
  const auto endpoint = socket.local_endpoint(ignored);
  return endpoint.address().to_string(ignored);
}

std::string_view View(beast::string_view text) { return {text.data(), text.size()}; }

std::string LowerCase(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lower;
}

}  // namespace

Connection::Connection(tcp::socket socket, ConnectionHost& host)
    : host_(host),
      stream_(std::move(socket)),
      local_address_(LocalAddress(stream_.socket())),
      buffer_(host.options.max_header_bytes + kReadAhead) {}

Connection::~Connection() { EndStream(); }

// 1. A request line and headers, within one deadline however slowly they drip.
void Connection::ReadHeader() {
  parser_.emplace();
  is_head_ = false;
  parser_->header_limit(static_cast<uint32_t>(host_.options.max_header_bytes));
  // The larger of both bounds: which one holds is known when the header has been read.
  parser_->body_limit(
      std::max<uint64_t>(host_.options.max_body_bytes, host_.options.stream.max_body_bytes));
  host_.OnIdle(*this);
  stream_.expires_after(std::chrono::milliseconds(host_.options.header_timeout_ms));
  http::async_read_header(stream_, buffer_, *parser_,
                          [this](ErrorCode error, size_t) { OnHeader(error); });
}

void Connection::OnHeader(ErrorCode error) {
  host_.OnBusy(*this);
  if (error) return OnReadError(error);
  if (!CheckHeader()) return;
  if (IsStreamed()) return BeginStream();
  if (!CheckLength(host_.options.max_body_bytes)) return;
  const auto& expect = parser_->get()[http::field::expect];
  if (beast::iequals(expect, "100-continue")) return SendContinue();
  ReadBody();
}

void Connection::OnReadError(ErrorCode error) {
  if (error == http::error::header_limit || error == http::error::buffer_overflow) {
    return Refuse(431, "the request's headers are too large");
  }
  if (error == http::error::body_limit) return Refuse(413, "the request's body is too large");
  if (error == beast::error::timeout) host_.metrics.timeouts.Add();
  // Beast has a category for what it cannot parse; end_of_stream and partial_message are in it too
  // but only say that the peer went away.
  const bool malformed = error.category() == make_error_code(http::error::bad_version).category() &&
                         error != http::error::end_of_stream &&
                         error != http::error::partial_message;
  if (malformed) {
    host_.metrics.malformed.Add();
    return Refuse(400, "this is not HTTP: " + error.message());
  }
  host_.OnClosed(*this);
}

// 2. Who asks, and for what: refused here, it costs no worker and no body.
bool Connection::CheckHeader() {
  const auto& message = parser_->get();
  is_head_ = message.method() == http::verb::head;
  if (message.count(http::field::host) != 1) {
    host_.metrics.malformed.Add();
    Refuse(400, "a request needs exactly one Host header");
    return false;
  }
  const std::string_view host_header = View(message[http::field::host]);
  switch (host_.policy.Check(host_header, View(message[http::field::origin]), local_address_)) {
    case HostVerdict::kAllowed:
      break;
    case HostVerdict::kForeignHost:
      host_.metrics.foreign_host.Add();
      Refuse(403,
             "this server does not answer to the name in the Host header; --allowed-host adds one");
      return false;
    case HostVerdict::kForeignOrigin:
      host_.metrics.foreign_origin.Add();
      Refuse(403, "requests from pages of another origin are refused");
      return false;
  }
  auto target = ParseTarget(View(message.target()));
  if (!target.ok()) {
    host_.metrics.malformed.Add();
    Refuse(400, base::Message(target.status()));
    return false;
  }
  request_.emplace();
  request_->method = View(message.method_string());
  request_->path = std::move(target->path);
  request_->query = std::move(target->query);
  return true;
}

bool Connection::CheckLength(uint64_t limit) {
  parser_->body_limit(limit);  // a body in chunks is measured as it comes
  const auto length = parser_->content_length();
  if (!length || *length <= limit) return true;
  Refuse(413, "the request's body is too large");
  return false;
}

// curl waits a second for this line before it sends a larger body.
void Connection::SendContinue() {
  static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
  stream_.expires_after(std::chrono::milliseconds(host_.options.write_timeout_ms));
  asio::async_write(stream_, asio::buffer(kContinue.data(), kContinue.size()),
                    [this](ErrorCode error, size_t) {
                      if (error) return host_.OnClosed(*this);
                      if (streaming_) return ReadPiece();
                      ReadBody();
                    });
}

// 3. The body, bounded in bytes and time. Without one this completes at once.
void Connection::ReadBody() {
  stream_.expires_after(std::chrono::milliseconds(host_.options.body_timeout_ms));
  http::async_read(stream_, buffer_, *parser_, [this](ErrorCode error, size_t) { OnBody(error); });
}

// 4. To a worker. No operation is pending until its answer comes.
void Connection::OnBody(ErrorCode error) {
  if (error) return OnReadError(error);
  const bool keep_alive = parser_->keep_alive();
  stream_.expires_never();
  if (host_.Dispatch(*this, TakeRequest(), keep_alive)) return;
  host_.metrics.queue_full.Add();
  HttpResponse busy = ErrorResponse(503, "too many requests are waiting; try again in a second");
  busy.headers.emplace_back("Retry-After", "1");
  Respond(RenderResponse(std::move(busy), is_head_, keep_alive));
}

HttpRequest Connection::TakeRequest() {
  auto& message = parser_->get();
  for (const auto& field : message) {
    request_->headers.emplace_back(LowerCase(View(field.name_string())), View(field.value()));
  }
  request_->body = std::move(message.body());
  return *std::exchange(request_, std::nullopt);
}

// 3b. and 4b. A streamed body: the sink is opened, fed and closed by the stream thread; between two
// pieces this connection reads. At any time it is at one of both, so there is one piece in memory.
bool Connection::IsStreamed() const {
  const StreamOptions& stream = host_.options.stream;
  return !stream.path_prefix.empty() && request_->method == stream.method &&
         request_->path.starts_with(stream.path_prefix);
}

void Connection::BeginStream() {
  if (!CheckLength(host_.options.stream.max_body_bytes)) return;
  stream_.expires_never();
  if (host_.streams < host_.options.stream.max_streams) {
    streaming_ = true;
    ++host_.streams;
    if (host_.OpenStream(*this, TakeRequest(), parser_->keep_alive())) return;
  }
  host_.metrics.queue_full.Add();
  HttpResponse busy = ErrorResponse(503, "too many uploads at the same time; try again later");
  busy.headers.emplace_back("Retry-After", "5");
  Respond(RenderResponse(std::move(busy), is_head_, false));
}

void Connection::StartStream(std::unique_ptr<BodySink> sink) {
  sink_ = std::move(sink);
  const bool wait = beast::iequals(parser_->get()[http::field::expect], "100-continue");
  stream_parser_.emplace(std::move(*parser_));
  parser_.reset();
  piece_.resize(kStreamPiece);
  if (wait) return SendContinue();
  ReadPiece();
}

void Connection::ReadPiece() {
  auto& body = stream_parser_->get().body();
  body.data = piece_.data();
  body.size = piece_.size();
  body.more = true;
  stream_.expires_after(std::chrono::milliseconds(host_.options.body_timeout_ms));
  http::async_read(stream_, buffer_, *stream_parser_,
                   [this](ErrorCode error, size_t) { OnPiece(error); });
}

void Connection::OnPiece(ErrorCode error) {
  if (error && error != http::error::need_buffer) return OnReadError(error);
  stream_.expires_never();
  const size_t bytes = piece_.size() - stream_parser_->get().body().size;
  if (host_.PassPiece(*this, *sink_, {piece_.data(), bytes}, stream_parser_->is_done(),
                      stream_parser_->keep_alive())) {
    return;
  }
  Refuse(503, "the server is stopping");
}

void Connection::EndStream() {
  if (sink_ != nullptr) host_.DropSink(std::move(sink_));
  stream_parser_.reset();
  piece_ = {};
  if (std::exchange(streaming_, false)) --host_.streams;
}

void Connection::Refuse(int status, std::string_view message) {
  Respond(RenderResponse(ErrorResponse(status, message), is_head_, false));
}

// 5. The answer, piece by piece.
void Connection::Respond(WireResponse response) {
  EndStream();
  host_.metrics.CountAnswer(response.status);
  response_ = std::move(response);
  written_ = 0;
  if (response_.hold_ms != 0 && host_.held < kMaxHeld) return Hold();
  WriteSome();
}

void Connection::Hold() {
  ++host_.held;
  hold_ = std::make_unique<asio::steady_timer>(stream_.get_executor(),
                                               std::chrono::milliseconds(response_.hold_ms));
  hold_->async_wait([this](ErrorCode error) {
    if (error) return;  // the server ends, and this with it
    --host_.held;
    hold_.reset();
    WriteSome();
  });
}

void Connection::WriteSome() {
  const size_t head = response_.head.size();
  const size_t in_head = std::min(written_, head);
  const size_t in_body = written_ - in_head;
  const std::array<asio::const_buffer, 2> pieces = {
      asio::buffer(response_.head.data() + in_head, head - in_head),
      asio::buffer(response_.body.data() + in_body,
                   std::min(response_.body.size() - in_body, kWritePiece))};
  stream_.expires_after(std::chrono::milliseconds(host_.options.write_timeout_ms));
  asio::async_write(stream_, pieces,
                    [this](ErrorCode error, size_t bytes) { OnWritten(error, bytes); });
}

void Connection::OnWritten(ErrorCode error, size_t bytes) {
  if (error) {
    if (error == beast::error::timeout) host_.metrics.timeouts.Add();
    return host_.OnClosed(*this);
  }
  written_ += bytes;
  if (written_ < response_.head.size() + response_.body.size()) return WriteSome();
  const bool keep_alive = response_.keep_alive;
  response_ = {};  // an idle connection holds no memory of its last answer
  if (keep_alive) return ReadHeader();
  Linger();
}

// 6. Say goodbye, then wait for the peer's.
void Connection::Linger() {
  ErrorCode ignored;
  stream_.socket().shutdown(tcp::socket::shutdown_send, ignored);
  buffer_.clear();
  stream_.expires_after(kLingerTime);
  OnLingerRead({}, 0);
}

void Connection::OnLingerRead(ErrorCode error, size_t bytes) {
  discarded_ += bytes;
  if (error || discarded_ > kLingerBytes) return host_.OnClosed(*this);
  stream_.async_read_some(buffer_.prepare(kReadAhead),
                          [this](ErrorCode next, size_t count) { OnLingerRead(next, count); });
}

}  // namespace firewatch::transport
