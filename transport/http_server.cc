// SPDX-License-Identifier: Apache-2.0
// The listener, its connections and its workers. Read http_connection.h for what one connection
// does. Threads: one for all sockets (home of everything here that has no other note), `workers`
// for handlers, one more for the express paths. Jobs go out through bounded queues; answers come
// back as tasks of the I/O thread.
#include "transport/http_server.h"

#include <algorithm>
#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <exception>
#include <list>
#include <thread>

#include "absl/container/flat_hash_map.h"
#include "base/bounded_queue.h"
#include "base/status.h"
#include "transport/address.h"
#include "transport/http_connection.h"

namespace firewatch::transport {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using ErrorCode = boost::system::error_code;

// Out of descriptors: wait for some connection to end instead of spinning on accept.
constexpr std::chrono::milliseconds kAcceptRetry{100};
// How long a stopping server waits for peers to take their last answers.
constexpr std::chrono::milliseconds kStopTime{1'000};
constexpr size_t kExpressQueue = 64;

absl::StatusOr<tcp::endpoint> Resolve(asio::io_context& io, const HostPort& address) {
  const std::string host = address.host == "localhost" ? "127.0.0.1" : address.host;
  ErrorCode error;
  const auto literal = asio::ip::make_address(host, error);
  if (!error) return tcp::endpoint(literal, *address.port);
  tcp::resolver resolver(io);
  const auto found = resolver.resolve(host, std::to_string(*address.port), error);
  if (error || found.empty()) {
    return base::InvalidArgument("cannot resolve {}: {}", host, error.message());
  }
  return found.begin()->endpoint();
}

// The errno classes of base/status.h; "Address already in use" keeps its own words.
absl::Status ListenError(const ErrorCode& error, std::string_view step, std::string_view address) {
  return base::ErrnoStatus(error.value(), fmt::format("{} {}", step, address));
}

absl::Status Listen(tcp::acceptor& acceptor, const tcp::endpoint& endpoint,
                    std::string_view address) {
  ErrorCode error;
  if (acceptor.open(endpoint.protocol(), error)) return ListenError(error, "open", address);
  acceptor.set_option(tcp::acceptor::reuse_address(true), error);  // sockets in TIME_WAIT only
  if (endpoint.address().is_v6() && !endpoint.address().is_unspecified()) {
    acceptor.set_option(asio::ip::v6_only(true), error);
  }
  if (acceptor.bind(endpoint, error)) return ListenError(error, "listen on", address);
  if (acceptor.listen(asio::socket_base::max_listen_connections, error)) {
    return ListenError(error, "listen on", address);
  }
  return absl::OkStatus();
}

std::string ToText(const tcp::endpoint& endpoint) {
  const std::string host = endpoint.address().to_string();
  return fmt::format(fmt::runtime(endpoint.address().is_v6() ? "[{}]:{}" : "{}:{}"), host,
                     endpoint.port());
}

struct Job {
  Connection* connection = nullptr;
  HttpRequest request;
  bool keep_alive = false;
};
using JobQueue = base::BoundedQueue<Job>;

// For the stream thread: open (no sink), take a piece, or only destroy what `dropped` holds.
struct StreamJob {
  Connection* connection = nullptr;  // nullptr: drop
  HttpRequest request;
  BodySink* sink = nullptr;
  std::string_view piece;
  bool last = false;
  bool keep_alive = false;
  std::unique_ptr<BodySink> dropped;
};

class BeastServer final : public ConnectionHost, public HttpServer {
 public:
  BeastServer(HttpServerOptions server_options, Handler handler, base::MetricsRegistry& registry)
      : ConnectionHost(std::move(server_options), registry),
        handler_(std::move(handler)),
        queue_(static_cast<size_t>(std::max(options.max_queued_requests, 1))),
        express_queue_(kExpressQueue),
        stream_queue_(2 * static_cast<size_t>(std::max(options.stream.max_streams, 0)) + 1) {}
  ~BeastServer() override;

  // Binds and starts the threads; once.
  absl::Status Run();

  std::string address() const override { return bound_address_; }

 private:
  bool Dispatch(Connection& connection, HttpRequest&& request, bool keep_alive) override;
  bool OpenStream(Connection& connection, HttpRequest&& request, bool keep_alive) override;
  bool PassPiece(Connection& connection, BodySink& sink, std::string_view piece, bool last,
                 bool keep_alive) override;
  void DropSink(std::unique_ptr<BodySink> sink) override;
  void OnIdle(Connection& connection) override;
  void OnBusy(Connection& connection) override;
  void OnClosed(Connection& connection) override;

  void Accept();
  void OnAccept(const ErrorCode& error, tcp::socket socket);
  // False when every connection is busy.
  bool MakeRoom();
  void Work(JobQueue& queue);
  WireResponse Answer(const Job& job);
  void WorkOnStreams();
  void Work(StreamJob& job);
  void BeginStop();
  void FinishStop();

  const Handler handler_;
  std::string bound_address_;  // set by Run
  std::atomic<bool> stopping_{false};

  JobQueue queue_;
  JobQueue express_queue_;
  base::BoundedQueue<StreamJob> stream_queue_;

  asio::io_context io_{1};
  asio::executor_work_guard<asio::io_context::executor_type> keep_running_{io_.get_executor()};
  tcp::acceptor acceptor_{io_};
  asio::steady_timer timer_{io_};  // accept retry, later the end of the stop
  absl::flat_hash_map<Connection*, std::unique_ptr<Connection>> connections_;
  std::list<Connection*> idle_;  // the longest idle first
  bool workers_gone_ = false;

  std::vector<std::thread> workers_;
  std::thread io_thread_;
};

absl::Status BeastServer::Run() {
  const std::string& text = options.address;
  RETURN_IF_ERROR(CheckListenerPolicy(text, options.insecure));
  ASSIGN_OR_RETURN(const HostPort parsed, ParseHostPort(text));
  ASSIGN_OR_RETURN(const tcp::endpoint endpoint, Resolve(io_, parsed));
  RETURN_IF_ERROR(Listen(acceptor_, endpoint, text));
  bound_address_ = ToText(acceptor_.local_endpoint());
  Accept();
  io_thread_ = std::thread([this] { io_.run(); });
  for (int i = 0; i < std::max(options.workers, 1); ++i) {
    workers_.emplace_back([this] { Work(queue_); });
  }
  workers_.emplace_back([this] { Work(express_queue_); });
  if (!options.stream.path_prefix.empty()) workers_.emplace_back([this] { WorkOnStreams(); });
  return absl::OkStatus();
}

// Stop in three steps: no new requests; workers end (what still waits is answered 503); peers get
// a moment to take their answers.
BeastServer::~BeastServer() {
  if (!io_thread_.joinable()) return;  // Run failed
  stopping_ = true;
  asio::post(io_, [this] { BeginStop(); });
  queue_.Close();
  express_queue_.Close();
  stream_queue_.Close();
  for (std::thread& worker : workers_) worker.join();
  asio::post(io_, [this] { FinishStop(); });
  io_thread_.join();
}

void BeastServer::BeginStop() {
  ErrorCode ignored;
  acceptor_.close(ignored);
  timer_.cancel();
  while (!idle_.empty()) {
    Connection& connection = *idle_.front();
    OnBusy(connection);  // off the list: evicted once
    connection.Evict();
  }
}

void BeastServer::FinishStop() {
  workers_gone_ = true;
  if (connections_.empty()) return io_.stop();
  timer_.expires_after(kStopTime);
  timer_.async_wait([this](const ErrorCode& error) {
    if (!error) io_.stop();
  });
}

void BeastServer::Accept() {
  acceptor_.async_accept(
      [this](const ErrorCode& error, tcp::socket socket) { OnAccept(error, std::move(socket)); });
}

void BeastServer::OnAccept(const ErrorCode& error, tcp::socket socket) {
  if (stopping_) return;
  if (error) {
    metrics.accept_errors.Add();
    timer_.expires_after(kAcceptRetry);
    timer_.async_wait([this](const ErrorCode& cancelled) {
      if (!cancelled && !stopping_) Accept();
    });
    return;
  }
  metrics.accepted.Add();
  if (MakeRoom()) {
    ErrorCode ignored;
    socket.set_option(tcp::no_delay(true), ignored);
    auto connection = std::make_unique<Connection>(std::move(socket), *this);
    Connection* key = connection.get();
    connections_.emplace(key, std::move(connection));
    metrics.connections.Set(static_cast<double>(connections_.size()));
    key->Start();
  } else {
    metrics.refused.Add();  // `socket` closes as it goes out of scope
  }
  Accept();
}

bool BeastServer::MakeRoom() {
  const auto limit = static_cast<size_t>(std::max(options.max_connections, 1));
  if (connections_.size() < limit) return true;
  if (idle_.empty()) return false;
  Connection& oldest = *idle_.front();
  OnBusy(oldest);
  oldest.Evict();  // gone a moment later, when its read has failed
  metrics.evicted.Add();
  return true;
}

void BeastServer::OnIdle(Connection& connection) {
  connection.idle_position = idle_.insert(idle_.end(), &connection);
}

void BeastServer::OnBusy(Connection& connection) {
  if (!connection.idle_position.has_value()) return;
  idle_.erase(*connection.idle_position);
  connection.idle_position.reset();
}

void BeastServer::OnClosed(Connection& connection) {
  OnBusy(connection);
  connections_.erase(&connection);
  metrics.connections.Set(static_cast<double>(connections_.size()));
  if (workers_gone_ && connections_.empty()) io_.stop();
}

bool BeastServer::Dispatch(Connection& connection, HttpRequest&& request, bool keep_alive) {
  const auto& express = options.express_paths;
  const bool is_express = std::find(express.begin(), express.end(), request.path) != express.end();
  Job job{&connection, std::move(request), keep_alive};
  return (is_express ? express_queue_ : queue_).TryPush(std::move(job));
}

bool BeastServer::OpenStream(Connection& connection, HttpRequest&& request, bool keep_alive) {
  return stream_queue_.TryPush(
      {.connection = &connection, .request = std::move(request), .keep_alive = keep_alive});
}

bool BeastServer::PassPiece(Connection& connection, BodySink& sink, std::string_view piece,
                            bool last, bool keep_alive) {
  return stream_queue_.TryPush({.connection = &connection,
                                .sink = &sink,
                                .piece = piece,
                                .last = last,
                                .keep_alive = keep_alive});
}

void BeastServer::DropSink(std::unique_ptr<BodySink> sink) {
  StreamJob job{.dropped = std::move(sink)};
  (void)stream_queue_.TryPush(std::move(job));  // full or stopping: destroyed here, then
}

// Home: the stream thread.
void BeastServer::WorkOnStreams() {
  while (auto job = stream_queue_.Pop()) {
    if (job->connection != nullptr) Work(*job);
  }
}

void BeastServer::Work(StreamJob& job) {
  Connection* connection = job.connection;  // waits for this answer, as for a worker's
  std::optional<HttpResponse> response;
  std::unique_ptr<BodySink> sink;
  try {
    if (stopping_) {
      response = ErrorResponse(503, "the server is stopping");
    } else if (job.sink == nullptr) {
      StreamStart start = options.stream.open(job.request);
      sink = std::move(start.sink);
      if (sink == nullptr) response = std::move(start.refusal);
    } else {
      response = job.sink->Take(job.piece);
      if (!response && job.last) response = job.sink->Finish();
    }
  } catch (const std::exception& error) {
    metrics.handler_errors.Add();
    response = ErrorResponse(500, fmt::format("internal error: {}", error.what()));
  }
  if (response) {
    const bool keep_alive = job.last && job.keep_alive && !stopping_;  // else a body is left over
    asio::post(io_, [connection,
                     answer = RenderResponse(*std::move(response), false, keep_alive)]() mutable {
      connection->Respond(std::move(answer));
    });
  } else if (sink != nullptr) {
    asio::post(io_, [connection, opened = std::move(sink)]() mutable {
      connection->StartStream(std::move(opened));
    });
  } else {
    asio::post(io_, [connection] { connection->ReadPiece(); });
  }
}

// Home: a worker's thread.
void BeastServer::Work(JobQueue& queue) {
  while (auto job = queue.Pop()) {
    // A connection with a job has no other way to end, so the pointer is good until its answer.
    asio::post(io_, [connection = job->connection, answer = Answer(*job)]() mutable {
      connection->Respond(std::move(answer));
    });
  }
}

WireResponse BeastServer::Answer(const Job& job) {
  const bool is_head = job.request.method == "HEAD";
  if (stopping_) {
    return RenderResponse(ErrorResponse(503, "the server is stopping"), is_head, false);
  }
  HttpResponse response;
  try {
    response = handler_(job.request);
    CompressIfWanted(job.request, response);
  } catch (const std::exception& error) {  // bad_alloc above all: one request fails, not the server
    metrics.handler_errors.Add();
    response = ErrorResponse(500, fmt::format("internal error: {}", error.what()));
  }
  return RenderResponse(std::move(response), is_head, job.keep_alive && !stopping_);
}

}  // namespace

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(HttpServerOptions options,
                                                              Handler handler,
                                                              base::MetricsRegistry& metrics) {
  auto server = std::make_unique<BeastServer>(std::move(options), std::move(handler), metrics);
  RETURN_IF_ERROR(server->Run());
  return std::unique_ptr<HttpServer>(std::move(server));
}

}  // namespace firewatch::transport
