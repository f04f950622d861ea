// SPDX-License-Identifier: Apache-2.0
#include "agent/core/governor.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"

namespace firewatch::agent {
namespace {

constexpr uint64_t kBuildingPointNs = 10'000'000'000;
// Less than this long after a step the average still shows the level before.
constexpr size_t kMinPoints = 2;
// What a level may cost at most of the next one's: beyond, it is noise of a quiet moment.
constexpr double kMaxRatio = 16;
// Of the budget, whatever the agent itself uses: a module at its least detail costs something.
constexpr double kLeastForModules = 0.1;

double Percent(double part) { return 100 * part; }
double MiB(uint64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

}  // namespace

void Governor::Add(const GovernedModule& module) {
  State& state = states_[module.name];
  state.module = module;
  state.level = std::min(state.level, module.levels);
  if (module.pinned) state.level = 0;
  state.points.clear();
  state.building.clear();
  state.over_since_ns = 0;
  if (state.wait_ns == 0) state.wait_ns = options_.recovery_ns;
}

void Governor::Remove(std::string_view name) {
  if (const auto found = states_.find(name); found != states_.end()) states_.erase(found);
}

void Governor::SetBudget(double budget, uint64_t memory_bytes) {
  options_.budget = budget;
  options_.memory_bytes = memory_bytes;
}

void Governor::Measure(std::string_view name, uint64_t now_ns, const GovernedUsage& usage) {
  const auto found = states_.find(name);
  if (found == states_.end()) return;
  State& state = found->second;
  state.memory_bytes = usage.memory_bytes;
  state.points.push_back({now_ns, usage});
  Trim(&state.points, now_ns);
  if (state.building.empty() || state.building.back().time_ns + kBuildingPointNs <= now_ns) {
    state.building.push_back({now_ns, usage});
  }
  while (state.building.size() > 1 && state.building[1].time_ns + options_.building_ns <= now_ns) {
    state.building.pop_front();
  }
  const Point& first = state.points.front();
  if (now_ns <= first.time_ns) return;
  const auto window = static_cast<double>(now_ns - first.time_ns);
  const double running = static_cast<double>(usage.cpu_ns - first.usage.cpu_ns) +
                         static_cast<double>(usage.kernel_ns - first.usage.kernel_ns);
  const auto built =
      static_cast<double>(usage.building_cpu_ns - state.building.front().usage.building_cpu_ns);
  state.cpu = (running / window + built / static_cast<double>(options_.building_ns)) /
              static_cast<double>(options_.cpus);
}

void Governor::MeasureAgent(uint64_t now_ns, uint64_t cpu_ns) {
  agent_points_.push_back({now_ns, {.cpu_ns = cpu_ns}});
  Trim(&agent_points_, now_ns);
  const Point& first = agent_points_.front();
  if (now_ns <= first.time_ns) return;
  // A thread's clock and the process's are not read in one moment.
  const uint64_t used = cpu_ns - std::min(cpu_ns, first.usage.cpu_ns);
  agent_cpu_ = static_cast<double>(used) / static_cast<double>(now_ns - first.time_ns) /
               static_cast<double>(options_.cpus);
}

// The oldest point stands just outside the average.
void Governor::Trim(std::deque<Point>* points, uint64_t now_ns) const {
  while (points->size() > kMinPoints && (*points)[1].time_ns + options_.average_ns <= now_ns) {
    points->pop_front();
  }
}

double Governor::ForModules() const {
  return std::max(options_.budget - agent_cpu_, kLeastForModules * options_.budget);
}

double Governor::WeightOfRunning() const {
  double sum = 0;
  for (const auto& [name, state] : states_) {
    if (!IsOff(state)) sum += state.module.weight;
  }
  return sum;
}

double Governor::ShareOf(const State& state) const {
  // One that is off is judged by what it would have if it came back.
  const double others = WeightOfRunning() - (IsOff(state) ? 0 : state.module.weight);
  return ForModules() * state.module.weight / (others + state.module.weight);
}

uint64_t Governor::MemoryShareOf(const State& state) const {
  const double others = WeightOfRunning() - (IsOff(state) ? 0 : state.module.weight);
  return static_cast<uint64_t>(static_cast<double>(options_.memory_bytes) * state.module.weight /
                               (others + state.module.weight));
}

double Governor::total() const {
  double sum = agent_cpu_;
  for (const auto& [name, state] : states_) {
    if (!IsOff(state)) sum += state.cpu;
  }
  return sum;
}

void Governor::Settle(State* state, int level, uint64_t now_ns) {
  state->level = level;
  state->settled_ns = now_ns;
  state->over_since_ns = 0;
  state->under_since_ns = 0;
  state->ratio = 0;
  // What is measured from here on is the new level.
  state->points.clear();
}

bool Governor::StepDown(State* state, uint64_t now_ns, std::vector<GovernorStep>* steps) {
  const double all = total();
  uint64_t all_memory = common_memory_bytes_;
  for (const auto& [name, other] : states_) all_memory += IsOff(other) ? 0 : other.memory_bytes;
  const double share = ShareOf(*state);
  const uint64_t memory_share = MemoryShareOf(*state);
  const bool over_cpu = state->cpu > share && all > options_.budget;
  const bool over_memory = options_.memory_bytes != 0 && state->memory_bytes > memory_share &&
                           all_memory > options_.memory_bytes;
  if (!over_cpu && !over_memory) {
    state->over_since_ns = 0;
    return false;
  }
  state->under_since_ns = 0;
  if (state->over_since_ns == 0) state->over_since_ns = now_ns;
  const int last = state->module.may_switch_off ? state->module.levels : state->module.levels - 1;
  if (state->module.pinned || state->level >= last ||
      now_ns - state->over_since_ns < options_.patience_ns) {
    return false;
  }
  const std::string why =
      over_cpu ? fmt::format(
                     "{:.2f} % of the machine, {:.2f} % is its share, {:.2f} % of {:.2f} % "
                     "in all",
                     Percent(state->cpu), Percent(share), Percent(all), Percent(options_.budget))
               : fmt::format("{:.1f} MiB, {:.1f} MiB is its share, {:.1f} MiB of {:.1f} MiB in all",
                             MiB(state->memory_bytes), MiB(memory_share), MiB(all_memory),
                             MiB(options_.memory_bytes));
  steps->push_back({state->module.name, state->level, state->level + 1, why});
  // A level that has held for long was no failed trial.
  const bool failed_trial = state->stepped_up && now_ns - state->settled_ns < 2 * state->wait_ns;
  state->wait_ns =
      failed_trial ? std::min(2 * state->wait_ns, options_.max_recovery_ns) : options_.recovery_ns;
  state->stepped_up = false;
  state->cost_above = state->cpu;
  state->memory_above = over_memory ? state->memory_bytes : 0;
  ++state->steps_down;
  Settle(state, state->level + 1, now_ns);
  return true;
}

bool Governor::StepUp(State* state, uint64_t now_ns, std::vector<GovernorStep>* steps) {
  if (state->level == 0) return false;
  const double all = total() - (IsOff(*state) ? 0 : state->cpu);
  const double room = std::max(ShareOf(*state), options_.budget - all);
  // What the step has saved is known when the new level has been measured for a while.
  if (!IsOff(*state) && state->ratio == 0 &&
      now_ns - state->settled_ns >= std::max(options_.patience_ns, options_.average_ns / 2)) {
    state->ratio = std::clamp(state->cost_above / std::max(state->cpu, 1e-9), 1.0, kMaxRatio);
  }
  // Either it would fit as it was measured above, or with what it would cost above now, when its
  // load has gone.
  const auto fits_in = [this](double predicted, double above, double limit) {
    return std::min(predicted, above) <= options_.recover_at * limit;
  };
  const double ratio = state->ratio == 0 ? kMaxRatio : state->ratio;
  const bool fits =
      IsOff(*state) ||
      (fits_in(state->cpu * ratio, state->cost_above, room) &&
       (options_.memory_bytes == 0 || fits_in(2 * static_cast<double>(state->memory_bytes),
                                              static_cast<double>(state->memory_above),
                                              static_cast<double>(MemoryShareOf(*state)))));
  if (!fits) {
    state->under_since_ns = 0;
    return false;
  }
  if (state->under_since_ns == 0) state->under_since_ns = now_ns;
  if (now_ns - state->under_since_ns < state->wait_ns) return false;
  steps->push_back({state->module.name, state->level, state->level - 1,
                    fmt::format("{:.2f} % of the machine in all, {:.2f} % is the budget",
                                Percent(total()), Percent(options_.budget))});
  state->stepped_up = true;
  ++state->steps_up;
  Settle(state, state->level - 1, now_ns);
  return true;
}

std::vector<GovernorStep> Governor::Decide(uint64_t now_ns) {
  std::vector<GovernorStep> steps;
  // The one that is furthest over its share goes first; the others are judged again afterwards.
  std::vector<State*> order;
  for (auto& [name, state] : states_) order.push_back(&state);
  std::ranges::sort(order, std::greater<>(),
                    [this](const State* state) { return state->cpu / ShareOf(*state); });
  bool stepped = false;
  for (State* state : order) {
    const bool measured = state->points.size() >= kMinPoints;
    if (IsOff(*state)) {
      stepped |= !stepped && StepUp(state, now_ns, &steps);
      continue;
    }
    if (!measured) continue;
    if (!stepped && StepDown(state, now_ns, &steps)) {
      stepped = true;
      // What the step has given may be enough for all: their patience begins anew.
      for (auto& [name, other] : states_) other.over_since_ns = 0;
      continue;
    }
    if (!stepped && state->over_since_ns == 0) stepped |= StepUp(state, now_ns, &steps);
  }
  return steps;
}

int Governor::LevelOf(std::string_view name) const {
  const auto found = states_.find(name);
  return found == states_.end() ? 0 : found->second.level;
}

std::vector<GovernorView> Governor::View() const {
  std::vector<GovernorView> out;
  for (const auto& [name, state] : states_) {
    out.push_back({.module = name,
                   .level = state.level,
                   .cpu = IsOff(state) ? 0 : state.cpu,
                   .share = ShareOf(state),
                   .memory_bytes = IsOff(state) ? 0 : state.memory_bytes,
                   .memory_share_bytes = MemoryShareOf(state),
                   .steps_down = state.steps_down,
                   .steps_up = state.steps_up});
  }
  return out;
}

}  // namespace firewatch::agent
