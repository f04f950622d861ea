// SPDX-License-Identifier: Apache-2.0
// The policy that keeps the agent within its budget. Pure: usage goes in, steps come out; who
// measures and who obeys is the host (module_host.h).
//
// The budget is a part of the machine's CPU time for everything together, and a number of bytes.
// What the agent itself uses (main, HTTP and upload threads) comes off first, but for a tenth that
// modules always have; of the rest each module that runs has a share by its weight. A module is
// over when it uses more than its share while all together use more than the budget: what others
// leave is lent, never at their expense. One that has been over for `patience` steps down one
// level; the last level but one is the least detail, the last is off. It steps up again when it
// would still be at `recover_at` of what it may use, as its cost at the level above was measured,
// for as long as `recovery`; each time that a step up had to be taken back, that time doubles. From
// off it comes back to try, with the same doubling.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"

namespace firewatch::agent {

struct GovernorOptions {
  double budget = 0.01;  // of the machine: all its CPUs
  uint32_t cpus = 1;
  uint64_t memory_bytes = uint64_t{64} << 20;  // 0: memory is not governed
  // Use is measured over this time, so that a burst is no reason.
  uint64_t average_ns = 20'000'000'000;
  uint64_t patience_ns = 10'000'000'000;
  uint64_t recovery_ns = 60'000'000'000;
  uint64_t max_recovery_ns = 3'600'000'000'000;
  double recover_at = 0.75;
  // Building of tables and indexes counts as if it took place evenly over this time.
  uint64_t building_ns = 600'000'000'000;
};

// What a module has used since it was first started; none of the totals goes down.
struct GovernedUsage {
  uint64_t cpu_ns = 0;           // its threads
  uint64_t building_cpu_ns = 0;  // lumps
  uint64_t kernel_ns = 0;        // its BPF programs, estimated
  uint64_t memory_bytes = 0;     // now
};

struct GovernedModule {
  std::string name;
  double weight = 1;
  int levels = 1;  // that work; level `levels` is off
  bool may_switch_off = true;
  bool pinned = false;  // stays at level 0: the user has asked for exactly this
};

struct GovernorStep {
  std::string module;
  int from = 0;
  int to = 0;
  std::string why;  // "1.42 % of the machine, 0.60 % is its share, 1.61 % of 1.00 % in all"
};

// For the page and /metrics.
struct GovernorView {
  std::string module;
  int level = 0;
  double cpu = 0;    // of the machine, average
  double share = 0;  // of the machine
  uint64_t memory_bytes = 0;
  uint64_t memory_share_bytes = 0;
  uint64_t steps_down = 0;
  uint64_t steps_up = 0;
};

// One home thread.
class Governor {
 public:
  explicit Governor(const GovernorOptions& options) : options_(options) {}

  // Adds a module at level 0, or changes its numbers. Its measurements begin anew.
  void Add(const GovernedModule& module);
  // It runs no longer, other than by a step.
  void Remove(std::string_view name);
  // A reload.
  void SetBudget(double budget, uint64_t memory_bytes);

  // Totals now; to be called every second or few for each module that runs.
  void Measure(std::string_view name, uint64_t now_ns, const GovernedUsage& usage);
  // CPU time that no module has used: a total, too.
  void MeasureAgent(uint64_t now_ns, uint64_t cpu_ns);
  // What belongs to nobody alone: the heap of the agent.
  void SetCommonMemory(uint64_t bytes) { common_memory_bytes_ = bytes; }
  // At most one step, after all have been measured. The caller obeys at once.
  std::vector<GovernorStep> Decide(uint64_t now_ns);

  int LevelOf(std::string_view name) const;  // 0 when unknown
  std::vector<GovernorView> View() const;
  double total() const;                        // of the machine, average
  double agent() const { return agent_cpu_; }  // of it: the agent itself
  double budget() const { return options_.budget; }

 private:
  struct Point {
    uint64_t time_ns = 0;
    GovernedUsage usage;
  };
  struct State {
    GovernedModule module;
    int level = 0;
    std::deque<Point> points;
    std::deque<Point> building;  // one point per ten seconds, for ten minutes
    double cpu = 0;
    uint64_t memory_bytes = 0;
    uint64_t settled_ns = 0;      // when the level was last changed
    uint64_t over_since_ns = 0;   // 0: is not over
    uint64_t under_since_ns = 0;  // 0: may not step up
    uint64_t wait_ns = 0;         // how long it must have been under
    double cost_above = 0;        // CPU at the level above, when it stepped down
    uint64_t memory_above = 0;
    double ratio = 0;         // cost_above to the cost here, once that is known; 0: not yet
    bool stepped_up = false;  // the last step was up: going down again doubles the wait
    uint64_t steps_down = 0;
    uint64_t steps_up = 0;
  };

  double ShareOf(const State& state) const;
  uint64_t MemoryShareOf(const State& state) const;
  double ForModules() const;
  double WeightOfRunning() const;
  bool IsOff(const State& state) const { return state.level >= state.module.levels; }
  void Trim(std::deque<Point>* points, uint64_t now_ns) const;
  void Settle(State* state, int level, uint64_t now_ns);
  bool StepDown(State* state, uint64_t now_ns, std::vector<GovernorStep>* steps);
  bool StepUp(State* state, uint64_t now_ns, std::vector<GovernorStep>* steps);

  GovernorOptions options_;
  uint64_t common_memory_bytes_ = 0;
  std::deque<Point> agent_points_;
  double agent_cpu_ = 0;
  std::map<std::string, State, std::less<>> states_;
};

}  // namespace firewatch::agent
