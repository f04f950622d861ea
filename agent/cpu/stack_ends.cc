// SPDX-License-Identifier: Apache-2.0
#include "agent/cpu/stack_ends.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

namespace firewatch::agent {
namespace {

constexpr std::array<const char*, FW_STACK_END_COUNT> kNames = {
#define FW_NAME(constant, name) name,
    FW_STACK_ENDS(FW_NAME)
#undef FW_NAME
};
constexpr const char* kOther = "other";

uint64_t Sum(const std::array<uint64_t, FW_STACK_END_COUNT>& counts) {
  return std::accumulate(counts.begin(), counts.end(), uint64_t{0});
}

void AddTo(std::array<uint64_t, FW_STACK_END_COUNT>& to,
           const std::array<uint64_t, FW_STACK_END_COUNT>& counts) {
  for (size_t i = 0; i < to.size(); ++i) to[i] += counts[i];
}

}  // namespace

const char* StackEndName(fw_stack_end end) { return kNames[end]; }

double CompleteShare(const std::array<uint64_t, FW_STACK_END_COUNT>& counts) {
  const uint64_t all = Sum(counts) - counts[FW_STACK_END_NONE] - counts[FW_STACK_END_NO_MEMORY];
  return all == 0 ? 1 : static_cast<double>(counts[FW_STACK_END_ROOT]) / static_cast<double>(all);
}

void StackEndsByProgram::Add(std::span<const ProgramStackEnds> programs) {
  base::MutexLock lock(mutex_);
  for (auto& [name, program] : programs_) program.weight /= 2;
  for (const ProgramStackEnds& ends : programs) {
    // Kernel threads would take places and have nothing to say.
    const bool no_stacks = Sum(ends.counts) == ends.counts[FW_STACK_END_NONE];
    Program& program = no_stacks ? other_ : programs_[ends.program];
    AddTo(program.counts, ends.counts);
    program.weight += static_cast<double>(Sum(ends.counts));
  }
  if (programs_.size() <= kPrograms) return;
  std::vector<std::pair<double, std::string>> by_weight;
  for (const auto& [name, program] : programs_) by_weight.emplace_back(-program.weight, name);
  std::sort(by_weight.begin(), by_weight.end());
  for (size_t i = kPrograms; i < by_weight.size(); ++i) {
    const auto dropped = programs_.find(by_weight[i].second);
    AddTo(other_.counts, dropped->second.counts);
    programs_.erase(dropped);
  }
}

std::vector<ProgramStackEnds> StackEndsByProgram::Programs() const {
  base::MutexLock lock(mutex_);
  std::vector<ProgramStackEnds> out;
  for (const auto& [name, program] : programs_) out.push_back({name, program.counts});
  std::sort(out.begin(), out.end(), [](const ProgramStackEnds& a, const ProgramStackEnds& b) {
    return std::pair(Sum(b.counts), std::string_view(a.program)) <
           std::pair(Sum(a.counts), std::string_view(b.program));
  });
  if (Sum(other_.counts) != 0) out.push_back({kOther, other_.counts});
  return out;
}

base::MetricsRegistry::Series StackEndsByProgram::Series() const {
  base::MetricsRegistry::Series series;
  for (const ProgramStackEnds& program : Programs()) {
    for (size_t i = 0; i < program.counts.size(); ++i) {
      if (program.counts[i] == 0) continue;
      series.emplace_back(base::MetricLabels{{"program", program.program}, {"reason", kNames[i]}},
                          static_cast<double>(program.counts[i]));
    }
  }
  return series;
}

}  // namespace firewatch::agent
