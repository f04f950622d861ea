// SPDX-License-Identifier: Apache-2.0
#include "tests/modules/test_modules.h"

#include <bpf/bpf.h>
#include <fmt/format.h>

#include <cerrno>
#include <chrono>
#include <utility>

#include "base/status.h"

namespace firewatch::testing {
namespace {

struct TickerOptions {
  uint64_t interval_ms = 100;
  uint64_t burn_percent = 0;
};

absl::StatusOr<TickerOptions> ParseOptions(const agent::ConfigSection& section) {
  TickerOptions options;
  agent::ConfigReader reader(section, "ticker");
  reader.Duration("interval", 1, 60'000, &options.interval_ms);
  reader.Integer("burn", uint64_t{0}, uint64_t{100}, &options.burn_percent);
  RETURN_IF_ERROR(reader.Finish());
  return options;
}

absl::Status Empty(const agent::ConfigSection& section, std::string name) {
  return agent::ConfigReader(section, std::move(name)).Finish();
}

}  // namespace

absl::Status TickerModule::CheckConfig(const agent::ConfigSection& section) const {
  return ParseOptions(section).status();
}

absl::Status TickerModule::Reconfigure(const agent::ConfigSection& section) {
  ASSIGN_OR_RETURN(const TickerOptions options, ParseOptions(section));
  interval_ms_ = options.interval_ms;
  burn_percent_ = options.burn_percent;
  return absl::OkStatus();
}

absl::Status TickerModule::Start(const agent::ConfigSection& section,
                                 agent::ModuleContext& context) {
  RETURN_IF_ERROR(Reconfigure(section));
  stop_ = false;
  level_ = 0;
  thread_ = std::thread([this, &context] { Run(context); });
  return absl::OkStatus();
}

void TickerModule::Run(agent::ModuleContext& context) {
  const agent::ThreadMeter::Scope scope(context.threads);
  base::Counter& ticks = context.metrics.AddCounter("firewatch_ticker_ticks_total", "Ticks.");
  while (!stop_) {
    const uint64_t interval_ms = interval_ms_;
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(interval_ms);
    const auto burn_until = std::chrono::steady_clock::now() +
                            std::chrono::microseconds(interval_ms * 10 * burn_percent_ >> level_);
    while (std::chrono::steady_clock::now() < burn_until) {
    }
    ++ticks_;
    ticks.Add();
    std::this_thread::sleep_until(end);
  }
}

void TickerModule::Stop() {
  stop_ = true;
  if (thread_.joinable()) thread_.join();
}

agent::ModuleReport TickerModule::Report() const {
  return {.details_json = fmt::format(R"({{"ticks":{},"interval_ms":{}}})", ticks_.load(),
                                      interval_ms_.load())};
}

std::optional<transport::HttpResponse> TickerModule::Handle(const transport::HttpRequest& request) {
  if (request.path != "/ticker") return std::nullopt;
  return transport::HttpResponse{.body = fmt::format("{}\n", ticks_.load())};
}

absl::Status UnloadableModule::CheckConfig(const agent::ConfigSection& section) const {
  return Empty(section, "unloadable");
}

absl::Status UnloadableModule::Start(const agent::ConfigSection&, agent::ModuleContext&) {
  // An exit without a return value: "R0 !read_ok".
  const bpf_insn program[] = {{.code = BPF_JMP | BPF_EXIT}};
  const base::UniqueFd fd(
      bpf_prog_load(BPF_PROG_TYPE_SOCKET_FILTER, "unloadable", "GPL", program, 1, nullptr));
  if (fd.valid()) return base::Internal("the verifier has accepted nonsense");
  return base::FailedPrecondition("{}",
                                  base::Message(base::ErrnoStatus(errno, "load unloadable.bpf.c")));
}

absl::Status ForgetfulModule::CheckConfig(const agent::ConfigSection& section) const {
  return Empty(section, "forgetful");
}

absl::Status ForgetfulModule::Start(const agent::ConfigSection&, agent::ModuleContext&) {
  forget_ = false;
  map_.Reset(bpf_map_create(BPF_MAP_TYPE_ARRAY, "forgetful", 4, 8, 1, nullptr));
  return map_.valid() ? absl::OkStatus() : base::ErrnoStatus(errno, "make the map");
}

absl::Status ForgetfulModule::CheckHealth() {
  if (forget_.exchange(false)) map_.Reset();
  const uint32_t key = 0;
  uint64_t value = 0;
  if (bpf_map_lookup_elem(map_.get(), &key, &value) == 0) return absl::OkStatus();
  return base::ErrnoStatus(errno, "its maps are gone");
}

std::optional<transport::HttpResponse> ForgetfulModule::Handle(
    const transport::HttpRequest& request) {
  if (request.path != "/forgetful/forget") return std::nullopt;
  forget_ = true;
  return transport::HttpResponse{.body = "forgotten\n"};
}

}  // namespace firewatch::testing
