// SPDX-License-Identifier: Apache-2.0
// The uploader against a real gRPC server in this process.
#include "agent/upload/uploader.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <deque>
#include <filesystem>
#include <fstream>
#include <set>
#include <thread>

#include "agent/core/losses.h"
#include "base/mutex.h"
#include "base/status.h"
#include "base/unique_fd.h"
#include "proto/ingest.grpc.pb.h"

namespace firewatch::agent {
namespace {

using ::testing::AnyOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Clock = std::chrono::steady_clock;

// Keeps what it accepts, names and all, and answers as told.
class FakeIngest final : public ingest::IngestService::Service {
 public:
  grpc::Status Hello(grpc::ServerContext*, const ingest::HelloRequest* request,
                     ingest::HelloResponse* response) override {
    base::MutexLock lock(mutex_);
    hellos_.push_back(*request);
    response->set_min_protocol_version(min_version_);
    response->set_max_protocol_version(min_version_ + 1);
    response->set_server_version("9.9");
    return hello_status_;
  }

  grpc::Status UploadWindow(grpc::ServerContext* context,
                            const ingest::UploadWindowRequest* request,
                            ingest::UploadWindowResponse* response) override {
    while (silent_.load() && !context->IsCancelled()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    base::MutexLock lock(mutex_);
    ++calls_;
    grpc::Status answer;
    if (!answers_.empty()) {
      answer = answers_.front();
      answers_.pop_front();
    }
    if (!answer.ok() && !lose_acknowledgements_) return answer;
    const bool fresh = names_.emplace(request->agent_id(), request->sequence()).second;
    if (fresh) accepted_.push_back(*request);
    response->set_duplicate(!fresh);
    return answer;
  }

  void AnswerNext(std::vector<grpc::Status> answers, bool lose_acknowledgements = false) {
    base::MutexLock lock(mutex_);
    answers_.assign(answers.begin(), answers.end());
    lose_acknowledgements_ = lose_acknowledgements;
  }
  void SetMinVersion(uint32_t version) {
    base::MutexLock lock(mutex_);
    min_version_ = version;
  }
  void SetHelloStatus(grpc::Status status) {
    base::MutexLock lock(mutex_);
    hello_status_ = std::move(status);
  }
  void SetSilent(bool silent) { silent_.store(silent); }

  std::vector<uint64_t> AcceptedSequences() {
    base::MutexLock lock(mutex_);
    std::vector<uint64_t> sequences;
    for (const auto& window : accepted_) sequences.push_back(window.sequence());
    return sequences;
  }
  std::vector<ingest::UploadWindowRequest> Accepted() {
    base::MutexLock lock(mutex_);
    return accepted_;
  }
  std::vector<ingest::HelloRequest> Hellos() {
    base::MutexLock lock(mutex_);
    return hellos_;
  }
  int calls() {
    base::MutexLock lock(mutex_);
    return calls_;
  }

 private:
  base::Mutex mutex_;
  uint32_t min_version_ ABSL_GUARDED_BY(mutex_) = 1;
  grpc::Status hello_status_ ABSL_GUARDED_BY(mutex_);
  std::deque<grpc::Status> answers_ ABSL_GUARDED_BY(mutex_);
  bool lose_acknowledgements_ ABSL_GUARDED_BY(mutex_) = false;
  std::set<std::pair<std::string, uint64_t>> names_ ABSL_GUARDED_BY(mutex_);
  std::vector<ingest::UploadWindowRequest> accepted_ ABSL_GUARDED_BY(mutex_);
  std::vector<ingest::HelloRequest> hellos_ ABSL_GUARDED_BY(mutex_);
  int calls_ ABSL_GUARDED_BY(mutex_) = 0;
  std::atomic<bool> silent_{false};
};

class UploaderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char directory[] = "/tmp/firewatch_uploader_XXXXXX";
    ASSERT_NE(::mkdtemp(directory), nullptr);
    root_ = directory;
    spool_ = root_ + "/spool";
    StartServer();
  }
  void TearDown() override {
    StopServer();
    std::filesystem::remove_all(root_);
  }

  void StartServer() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:" + std::to_string(port_),
                             grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
  }
  // Leaves the port free; a client finds nobody there.
  void StopServer() {
    if (server_ == nullptr) return;
    server_->Shutdown(std::chrono::system_clock::now());
    server_.reset();
  }

  UploaderOptions Options() const {
    return {.server = "127.0.0.1:" + std::to_string(port_),
            .spool_directory = spool_,
            .backoff_min_ms = 10,
            .backoff_max_ms = 50,
            .rpc_timeout_ms = 5'000};
  }
  std::unique_ptr<Uploader> Start(UploaderOptions options) {
    auto uploader = Uploader::Start(std::move(options), metrics_);
    EXPECT_TRUE(uploader.ok()) << base::ToString(uploader.status());
    return uploader.ok() ? *std::move(uploader) : nullptr;
  }
  std::unique_ptr<Uploader> Start() { return Start(Options()); }

  static ingest::UploadWindowRequest Window(int number, size_t bytes = 10) {
    ingest::UploadWindowRequest window;
    window.set_node("n1");
    window.set_start_unix_ns(number);
    window.add_profiles()->set_pprof_zstd(std::string(bytes, 'x'));
    return window;
  }
  static void Submit(Uploader& uploader, int number, size_t bytes = 10) {
    const absl::Status status = uploader.Submit(Window(number, bytes));
    EXPECT_TRUE(status.ok()) << base::ToString(status);
  }
  static std::vector<uint64_t> UpTo(uint64_t last) {
    std::vector<uint64_t> numbers(last);
    for (uint64_t i = 0; i < last; ++i) numbers[i] = i + 1;
    return numbers;
  }
  // True as soon as `condition` holds, false after half a minute.
  template <typename Condition>
  static bool Eventually(Condition condition) {
    const auto until = Clock::now() + std::chrono::seconds(30);
    while (!condition()) {
      if (Clock::now() > until) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return true;
  }
  uint64_t Lost(fw_loss loss) { return LossCounter(metrics_, loss).value(); }

  std::string root_;
  std::string spool_;
  int port_ = 0;
  FakeIngest service_;
  std::unique_ptr<grpc::Server> server_;
  base::MetricsRegistry metrics_;
};

TEST_F(UploaderTest, WindowArrivesWithItsNames) {
  const auto uploader = Start();
  Submit(*uploader, 42);
  ASSERT_TRUE(uploader->Flush(5'000));
  const auto accepted = service_.Accepted();
  ASSERT_EQ(accepted.size(), 1u);
  EXPECT_EQ(accepted[0].protocol_version(), 1u);
  EXPECT_EQ(accepted[0].agent_id().size(), 16u);
  EXPECT_EQ(accepted[0].sequence(), 1u);
  EXPECT_EQ(accepted[0].start_unix_ns(), 42);
  EXPECT_EQ(accepted[0].node(), "n1");
  ASSERT_EQ(accepted[0].profiles_size(), 1);
  const UploaderStatus status = uploader->Status();
  EXPECT_TRUE(status.connected);
  EXPECT_EQ(status.last_error, "");
  EXPECT_EQ(status.uploaded_windows, 1u);
  EXPECT_GT(metrics_.AddCounter("firewatch_agent_uploaded_bytes_total", "").value(), 0u);
  EXPECT_EQ(status.spooled_windows, 0u);
  EXPECT_EQ(status.dropped_windows, 0u);
}

TEST_F(UploaderTest, HelloComesFirstAndOncePerConnection) {
  const auto uploader = Start();
  for (int i = 0; i < 3; ++i) Submit(*uploader, i);
  ASSERT_TRUE(uploader->Flush(5'000));
  ASSERT_EQ(service_.Hellos().size(), 1u);
  EXPECT_EQ(service_.Hellos()[0].protocol_version(), 1u);
  EXPECT_EQ(service_.Hellos()[0].node(), "n1");
  EXPECT_FALSE(service_.Hellos()[0].agent_version().empty());
  StopServer();
  StartServer();
  Submit(*uploader, 3);
  ASSERT_TRUE(uploader->Flush(5'000));
  EXPECT_EQ(service_.Hellos().size(), 2u);
  EXPECT_EQ(service_.AcceptedSequences(), UpTo(4));
}

TEST_F(UploaderTest, WindowWhoseAcknowledgementWasLostIsAcceptedOnce) {
  const grpc::Status lost(grpc::StatusCode::UNAVAILABLE, "connection reset");
  service_.AnswerNext({lost, lost, grpc::Status::OK}, /*lose_acknowledgements=*/true);
  const auto uploader = Start();
  Submit(*uploader, 1);
  Submit(*uploader, 2);
  ASSERT_TRUE(uploader->Flush(5'000));
  EXPECT_THAT(service_.AcceptedSequences(), ElementsAre(1, 2));
  EXPECT_EQ(service_.calls(), 4);
  EXPECT_EQ(uploader->Status().uploaded_windows, 2u);
}

TEST_F(UploaderTest, ServerThatComesBackGetsEverythingInOrder) {
  StopServer();
  const auto uploader = Start();
  for (int i = 0; i < 20; ++i) Submit(*uploader, i);
  ASSERT_TRUE(Eventually([&] { return !uploader->Status().last_error.empty(); }));
  EXPECT_FALSE(uploader->Flush(50));
  EXPECT_FALSE(uploader->Status().connected);
  EXPECT_EQ(uploader->Status().spooled_windows, 20u);
  StartServer();
  ASSERT_TRUE(uploader->Flush(10'000));
  EXPECT_EQ(service_.AcceptedSequences(), UpTo(20));
  EXPECT_TRUE(Eventually([&] { return uploader->Status().last_error.empty(); }));
}

TEST_F(UploaderTest, ServerThatComesBackIsFoundWithoutFlush) {
  StopServer();
  const auto uploader = Start();
  Submit(*uploader, 1);
  ASSERT_TRUE(Eventually([&] { return !uploader->Status().last_error.empty(); }));
  StartServer();
  EXPECT_TRUE(Eventually([&] { return uploader->Status().uploaded_windows == 1; }));
}

TEST_F(UploaderTest, FullSpoolDropsTheOldestAndSaysSo) {
  StopServer();
  UploaderOptions options = Options();
  options.spool_max_bytes = 5'000;
  const auto uploader = Start(options);
  for (int i = 0; i < 10; ++i) Submit(*uploader, i, /*bytes=*/1'000);
  EXPECT_EQ(uploader->Status().spooled_windows, 4u);
  EXPECT_LE(uploader->Status().spooled_bytes, 5'000u);
  EXPECT_EQ(uploader->Status().dropped_windows, 6u);
  EXPECT_EQ(Lost(FW_LOSS_SPOOL_DROPPED), 6u);
  StartServer();
  ASSERT_TRUE(uploader->Flush(5'000));
  // A window that was on its way when it had to make room may arrive all the same.
  EXPECT_THAT(service_.AcceptedSequences(),
              AnyOf(ElementsAre(7, 8, 9, 10), ElementsAre(6, 7, 8, 9, 10)));
}

TEST_F(UploaderTest, RestartSendsWhatWaitsAndGoesOnCounting) {
  StopServer();
  {
    const auto uploader = Start();
    for (int i = 0; i < 3; ++i) Submit(*uploader, i);
  }
  StartServer();
  const auto uploader = Start();
  Submit(*uploader, 3);
  ASSERT_TRUE(uploader->Flush(5'000));
  EXPECT_EQ(service_.AcceptedSequences(), UpTo(4));
  std::set<std::string> ids;
  for (const auto& window : service_.Accepted()) ids.insert(window.agent_id());
  EXPECT_EQ(ids.size(), 1u);
}

TEST_F(UploaderTest, RefusedWindowIsDroppedAndTheNextOneIsSent) {
  service_.AnswerNext({{grpc::StatusCode::INVALID_ARGUMENT, "no profile"}});
  const auto uploader = Start();
  Submit(*uploader, 1);
  Submit(*uploader, 2);
  ASSERT_TRUE(uploader->Flush(5'000));
  EXPECT_THAT(service_.AcceptedSequences(), ElementsAre(2));
  EXPECT_EQ(service_.calls(), 2);
  EXPECT_EQ(service_.Hellos().size(), 1u);
  EXPECT_EQ(Lost(FW_LOSS_UPLOAD_REFUSED), 1u);
  EXPECT_EQ(uploader->Status().dropped_windows, 1u);
}

TEST_F(UploaderTest, BusyServerIsAskedAgain) {
  const grpc::Status busy(grpc::StatusCode::RESOURCE_EXHAUSTED, "busy");
  service_.AnswerNext({busy, busy, busy});
  const auto uploader = Start();
  Submit(*uploader, 1);
  ASSERT_TRUE(Eventually([&] { return uploader->Status().uploaded_windows == 1; }));
  EXPECT_EQ(service_.calls(), 4);
  EXPECT_EQ(Lost(FW_LOSS_UPLOAD_REFUSED), 0u);
}

TEST_F(UploaderTest, ServerOfAnotherProtocolIsNamedAndTheSpoolKeepsEverything) {
  service_.SetMinVersion(2);
  const auto uploader = Start();
  Submit(*uploader, 1);
  ASSERT_TRUE(Eventually([&] { return !uploader->Status().last_error.empty(); }));
  EXPECT_THAT(uploader->Status().last_error,
              HasSubstr("(version 9.9) speaks protocol versions 2 to 3, this agent speaks 1"));
  Submit(*uploader, 2);
  EXPECT_EQ(uploader->Status().spooled_windows, 2u);
  EXPECT_EQ(service_.calls(), 0);
  service_.SetMinVersion(1);
  ASSERT_TRUE(uploader->Flush(5'000));
  EXPECT_THAT(service_.AcceptedSequences(), ElementsAre(1, 2));
}

TEST_F(UploaderTest, RefusalOfHelloIsShownInTheServersWords) {
  service_.SetHelloStatus(
      {grpc::StatusCode::FAILED_PRECONDITION, "this server speaks 5, the agent 1"});
  const auto uploader = Start();
  Submit(*uploader, 1);
  ASSERT_TRUE(Eventually([&] { return !uploader->Status().last_error.empty(); }));
  EXPECT_THAT(uploader->Status().last_error, HasSubstr("this server speaks 5, the agent 1"));
  EXPECT_EQ(uploader->Status().spooled_windows, 1u);
}

TEST_F(UploaderTest, DamagedWindowDoesNotHoldUpTheNext) {
  StopServer();
  const auto uploader = Start();
  for (int i = 0; i < 3; ++i) Submit(*uploader, i);
  std::ofstream(spool_ + "/00000000000000000002.window") << "damaged";
  StartServer();
  ASSERT_TRUE(uploader->Flush(5'000));
  EXPECT_THAT(service_.AcceptedSequences(), ElementsAre(1, 3));
  EXPECT_EQ(Lost(FW_LOSS_SPOOL_DAMAGED), 1u);
}

TEST_F(UploaderTest, WindowThatTheDiskRefusesIsSentFromMemory) {
  const auto uploader = Start();
  std::filesystem::rename(spool_, spool_ + ".away");
  const absl::Status status = uploader->Submit(Window(1));
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(base::ToString(status), HasSubstr("kept in memory only"));
  ASSERT_TRUE(uploader->Flush(5'000));
  EXPECT_THAT(service_.AcceptedSequences(), ElementsAre(1));
  EXPECT_EQ(uploader->Status().dropped_windows, 0u);
}

TEST_F(UploaderTest, MemoryIsBoundedAndGoesToTheDiskWhenThatIsBack) {
  StopServer();
  const auto uploader = Start();
  std::filesystem::rename(spool_, spool_ + ".away");
  for (int i = 0; i < 10; ++i) EXPECT_FALSE(uploader->Submit(Window(i)).ok());
  EXPECT_EQ(uploader->Status().spooled_windows, 8u);
  EXPECT_EQ(Lost(FW_LOSS_SPOOL_DROPPED), 2u);
  EXPECT_THAT(uploader->Status().last_error, ::testing::Not(""));
  std::filesystem::rename(spool_ + ".away", spool_);
  Submit(*uploader, 10);
  EXPECT_GE(std::distance(std::filesystem::directory_iterator(spool_), {}), 8);
  StartServer();
  ASSERT_TRUE(uploader->Flush(5'000));
  EXPECT_THAT(service_.AcceptedSequences(), ElementsAre(1, 2, 3, 4, 5, 6, 7, 8, 11));
}

TEST_F(UploaderTest, WindowTooLargeForAMessageIsRefusedAtOnce) {
  const auto uploader = Start();
  EXPECT_TRUE(absl::IsResourceExhausted(uploader->Submit(Window(1, 65u << 20))));
  EXPECT_EQ(Lost(FW_LOSS_UPLOAD_REFUSED), 1u);
  EXPECT_TRUE(uploader->Flush(1'000));
}

TEST_F(UploaderTest, AwayServerIsNotAskedWithoutPause) {
  StopServer();
  UploaderOptions options = Options();
  options.backoff_min_ms = 100;
  options.backoff_max_ms = 200;
  const auto uploader = Start(options);
  Submit(*uploader, 1);
  const base::Counter& failures = metrics_.AddCounter("firewatch_agent_upload_failures_total", "");
  const auto begin = Clock::now();
  ASSERT_TRUE(Eventually([&] { return failures.value() >= 5; }));
  // Four pauses lie between five failures, the shortest of half the least backoff.
  EXPECT_GE(Clock::now() - begin, std::chrono::milliseconds(4 * 50));
}

TEST_F(UploaderTest, StopDoesNotWaitForASilentServer) {
  service_.SetSilent(true);
  UploaderOptions options = Options();
  options.rpc_timeout_ms = 120'000;
  auto uploader = Start(options);
  Submit(*uploader, 1);
  ASSERT_TRUE(Eventually([&] { return uploader->Status().connected; }));
  const auto begin = Clock::now();
  uploader.reset();
  EXPECT_LT(Clock::now() - begin, std::chrono::seconds(30));
  service_.SetSilent(false);
}

TEST_F(UploaderTest, StopDoesNotWaitForAServerThatNeverSpeaks) {
  const base::UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(::listen(listener.get(), 1), 0);
  ASSERT_EQ(::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  UploaderOptions options = Options();
  options.server = "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  options.rpc_timeout_ms = 120'000;
  auto uploader = Start(options);
  Submit(*uploader, 1);
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  const auto begin = Clock::now();
  uploader.reset();
  EXPECT_LT(Clock::now() - begin, std::chrono::seconds(30));
}

TEST_F(UploaderTest, FlushOfNothingReturnsAtOnce) {
  const auto uploader = Start();
  const auto begin = Clock::now();
  EXPECT_TRUE(uploader->Flush(60'000));
  EXPECT_LT(Clock::now() - begin, std::chrono::seconds(30));
}

TEST_F(UploaderTest, FlushGivesUpAfterItsTime) {
  StopServer();
  const auto uploader = Start();
  Submit(*uploader, 1);
  const auto begin = Clock::now();
  EXPECT_FALSE(uploader->Flush(200));
  EXPECT_GE(Clock::now() - begin, std::chrono::milliseconds(200));
  EXPECT_LT(Clock::now() - begin, std::chrono::seconds(30));
}

TEST_F(UploaderTest, DirectoryThatCannotBeMadeIsAnError) {
  UploaderOptions options = Options();
  options.spool_directory = "/proc/firewatch";
  EXPECT_FALSE(Uploader::Start(options, metrics_).ok());
}

}  // namespace
}  // namespace firewatch::agent
