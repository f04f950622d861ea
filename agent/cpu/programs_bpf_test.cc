// SPDX-License-Identifier: Apache-2.0
// Each BPF program by itself: that this kernel's verifier takes it, what that costs the verifier,
// and what a tick does when it is run by hand. Opens the skeleton, as only the sampler does
// otherwise: programs are loaded here that the sampler never loads together.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "agent/core/bpf_handles.h"
#include "agent/core/bpf_info.h"
#include "agent/cpu/sample.h"
#include "bpf/cpu.skel.h"

namespace firewatch::agent {
namespace {

using ::testing::Le;

// Verified instructions on kernel 6.18 with clang 19. Another kernel walks other paths, so there
// the bound is only the verifier's own million, of which a tenth is the alarm.
const std::map<std::string, uint32_t> kVerifiedOn618 = {{"tick", 20'000},
                                                        {"test_tick", 20'000},
                                                        {"test_look_up", 8'000},
                                                        {"on_fork", 200},
                                                        {"on_free", 200}};
constexpr uint32_t kVerifiedElsewhere = 100'000;

struct Received {
  size_t count = 0;
  size_t kernel_frames = 0;
  size_t user_frames = 0;
  Pid pid{};
  uint32_t tid = 0;
  std::string comm;
  bool in_kernel = false;
  fw_stack_end end = FW_STACK_END_NONE;
};

int OnRecord(void* context, void* data, size_t size) {
  auto& received = *static_cast<Received*>(context);
  const auto sample = ParseSample({static_cast<const std::byte*>(data), size});
  if (!sample.ok()) return 0;
  ++received.count;
  received.kernel_frames = sample->kernel_frames.size();
  received.user_frames = sample->user_frames.size();
  received.pid = sample->pid;
  received.tid = sample->tid;
  received.comm = sample->comm;
  received.in_kernel = sample->in_kernel;
  received.end = sample->stack_end;
  return 0;
}

uint32_t PidNamespace() {
  struct stat info{};
  ::stat("/proc/self/ns/pid", &info);
  return static_cast<uint32_t>(info.st_ino);
}

bool InitialPidNamespace() { return PidNamespace() == 0xEFFFFFFC; }

class ProgramsTest : public ::testing::Test {
 protected:
  // Loads all programs whose names begin so; false (with a reason) when that is not permitted.
  bool Load(const std::string& prefix) {
    skeleton_.reset(cpu_bpf::open());
    bpf_program* program = nullptr;
    bpf_object__for_each_program(program, skeleton_->obj) {
      bpf_program__set_autoload(program,
                                std::string(bpf_program__name(program)).starts_with(prefix));
    }
    skeleton_->rodata->pid_namespace = InitialPidNamespace() ? 0 : PidNamespace();
    if (Configure) Configure(*skeleton_);
    const int error = -cpu_bpf::load(skeleton_.get());
    if (error == EPERM) {  // EACCES is what the verifier says
      reason_ = std::string("load BPF programs: ") + std::strerror(error);
      return false;
    }
    EXPECT_EQ(error, 0) << log_.warnings();
    return error == 0;
  }

  // The count as the verifier's log gives it, for kernels before 5.16, which do not keep it. Loads
  // everything again; 0 when the log does not say.
  uint32_t VerifierSays(const std::string& name) {
    constexpr uint32_t kStatistics = 4;  // BPF_LOG_STATS, since Linux 5.2
    std::vector<char> log(64 * 1024);
    const BpfSkeleton<cpu_bpf> again(cpu_bpf::open());
    again->rodata->pid_namespace = skeleton_->rodata->pid_namespace;
    bpf_program* program = bpf_object__find_program_by_name(again->obj, name.c_str());
    bpf_program__set_autoload(program, true);
    bpf_program__set_log_level(program, kStatistics);
    bpf_program__set_log_buf(program, log.data(), log.size());
    if (cpu_bpf::load(again.get()) != 0) return 0;
    const char* processed = std::strstr(log.data(), "processed ");
    unsigned count = 0;
    return processed != nullptr && std::sscanf(processed, "processed %u insns", &count) == 1 ? count
                                                                                             : 0;
  }

  Received RunOnce(bpf_program* program) {
    Received received;
    const BpfRingBuffer ring(
        ring_buffer__new(bpf_map__fd(skeleton_->maps.samples), OnRecord, &received, nullptr));
    LIBBPF_OPTS(bpf_test_run_opts, options);
    EXPECT_EQ(bpf_prog_test_run_opts(bpf_program__fd(program), &options), 0);
    ring_buffer__consume(ring.get());
    return received;
  }

  LibbpfLog log_;
  void (*Configure)(cpu_bpf&) = nullptr;
  BpfSkeleton<cpu_bpf> skeleton_;
  std::string reason_;
};

#define LOAD_OR_SKIP(prefix)                                      \
  if (!Load(prefix) && !reason_.empty()) GTEST_SKIP() << reason_; \
  ASSERT_FALSE(HasFailure())

TEST_F(ProgramsTest, VerifierTakesEveryProgramAtTheKnownCost) {
  LOAD_OR_SKIP("");
  utsname kernel{};
  ::uname(&kernel);
  // In another pid namespace the numbers are looked up the long way.
  const bool known = std::string(kernel.release).starts_with("6.18.") && InitialPidNamespace();
  for (const BpfProgramStats& program : ReadProgramStats(skeleton_->obj)) {
    const uint32_t count = program.verified_instructions != 0 ? program.verified_instructions
                                                              : VerifierSays(program.name);
    std::printf("%-18s %6u verified instructions\n", program.name.c_str(), count);
    RecordProperty("verified_" + program.name, std::to_string(count));  // read by tests/kernels
    EXPECT_GT(count, 0u) << program.name;
    ASSERT_TRUE(kVerifiedOn618.contains(program.name)) << program.name << " is not in the table";
    EXPECT_THAT(count, Le(known ? kVerifiedOn618.at(program.name) : kVerifiedElsewhere))
        << program.name;
  }
}

void ExpectOurself(const Received& received) {
  EXPECT_EQ(received.count, 1u);
  EXPECT_TRUE(received.in_kernel);  // in the bpf system call
  EXPECT_GT(received.kernel_frames, 2u);
  EXPECT_GE(received.user_frames, 1u);
  EXPECT_EQ(received.pid, Pid{static_cast<uint32_t>(::getpid())});
  EXPECT_EQ(received.tid, static_cast<uint32_t>(::gettid()));
  char name[16] = {};
  ::prctl(PR_GET_NAME, name);
  EXPECT_EQ(received.comm, name);
}

TEST_F(ProgramsTest, TickDescribesItsCaller) {
  LOAD_OR_SKIP("test_tick");
  ExpectOurself(RunOnce(skeleton_->progs.test_tick));
}

TEST_F(ProgramsTest, ExcludedProcessIsNotSampled) {
  Configure = [](cpu_bpf& skeleton) {
    skeleton.rodata->excluded_pid = static_cast<uint32_t>(::getpid());
  };
  LOAD_OR_SKIP("test_tick");
  EXPECT_EQ(RunOnce(skeleton_->progs.test_tick).count, 0u);
}

TEST_F(ProgramsTest, PidOfANamespaceThatSeesNothingIsZeroAndCounted) {
  Configure = [](cpu_bpf& skeleton) { skeleton.rodata->pid_namespace = 1; };  // nobody's
  LOAD_OR_SKIP("test_tick");
  const Received received = RunOnce(skeleton_->progs.test_tick);
  EXPECT_EQ(received.count, 1u);
  EXPECT_EQ(received.pid, Pid{0});
}

TEST_F(ProgramsTest, PidIsFoundByTheNumberOfTheNamespace) {
  // The long way, which agents in a container take, must give what the short one gives.
  Configure = [](cpu_bpf& skeleton) { skeleton.rodata->pid_namespace = PidNamespace(); };
  LOAD_OR_SKIP("test_tick");
  ExpectOurself(RunOnce(skeleton_->progs.test_tick));
}

}  // namespace
}  // namespace firewatch::agent
