// SPDX-License-Identifier: Apache-2.0
// The unwinder where it runs: mappings of this very process against /proc/self/maps, and a child
// without frame pointers whose table is written by hand. What rules mean is tested on the host, in
// bpf/unwind_test.cc.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/fs.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "agent/core/bpf_handles.h"
#include "agent/core/bpf_info.h"
#include "agent/cpu/perf_event.h"
#include "agent/cpu/sample.h"
#include "base/unique_fd.h"
#include "bpf/cpu.skel.h"
#include "bpf/include/unwind_table.h"

// Calls itself `depth` times without a frame pointer, 48 bytes per frame, then spins.
extern "C" {
void fw_test_start(int depth);
extern char fw_test_recurse[], fw_test_recurse_body[], fw_test_recurse_end[];
}
asm(R"(
  .text
  .p2align 8
  .globl fw_test_start
fw_test_start:
  sub $8, %rsp
  call fw_test_recurse
  nop
  .globl fw_test_recurse
fw_test_recurse:
  sub $40, %rsp
  .globl fw_test_recurse_body
fw_test_recurse_body:
  dec %edi
  jz 1f
  call fw_test_recurse
  nop
1:
  add $1, %rax
  jmp 1b
  .globl fw_test_recurse_end
fw_test_recurse_end:
  nop
)");

namespace firewatch::agent {
namespace {

using ::testing::Each;
using ::testing::SizeIs;

// enum fw_mapping_state of bpf/unwind.h, which cannot be included without its hooks.
constexpr fw_u64 kStateNone = 0;
constexpr fw_u64 kStateFile = 1;
constexpr fw_u64 kStateNewFile = 2;
constexpr fw_u64 kStateAnonymous = 3;

struct Record {
  std::vector<fw_u64> user_frames;
  std::vector<fw_file_note> notes;
  fw_stack_end end = FW_STACK_END_NONE;
};

int OnRecord(void* context, void* data, size_t size) {
  const auto sample = ParseSample({static_cast<const std::byte*>(data), size});
  if (!sample.ok()) return 0;
  static_cast<std::vector<Record>*>(context)->push_back(
      {.user_frames = {sample->user_frames.begin(), sample->user_frames.end()},
       .notes = {sample->file_notes.begin(), sample->file_notes.end()},
       .end = sample->stack_end});
  return 0;
}

struct MapsLine {
  fw_u64 start = 0;
  fw_u64 end = 0;
  fw_u64 offset = 0;
  fw_u32 device = 0;
  fw_u64 inode = 0;
  bool executable = false;
  std::string path;
};

std::vector<MapsLine> ReadMaps() {
  std::ifstream file("/proc/self/maps");
  std::vector<MapsLine> lines;
  for (std::string text; std::getline(file, text);) {
    MapsLine line;
    char dash, colon;
    fw_u32 major, minor;
    std::string permissions;
    std::istringstream in(text);
    in >> std::hex >> line.start >> dash >> line.end >> permissions >> line.offset >> major >>
        colon >> minor >> std::dec >> line.inode >> line.path;
    line.device = major << 20 | minor;
    line.executable = permissions[2] == 'x';
    if (line.path != "[vsyscall]") lines.push_back(line);  // not in the address space
  }
  return lines;
}

class UnwindBpfTest : public ::testing::Test {
 protected:
  // False, with a reason, when that is not permitted.
  bool Load(const std::string& name) {
    skeleton_.reset(cpu_bpf::open());
    bpf_program* program = nullptr;
    bpf_object__for_each_program(program, skeleton_->obj) {
      bpf_program__set_autoload(program, bpf_program__name(program) == name);
    }
    if (const int error = -cpu_bpf::load(skeleton_.get()); error != 0) {
      reason_ = std::string("load BPF programs: ") + std::strerror(error);
      EXPECT_EQ(error, EPERM) << log_.warnings();
      return false;
    }
    ring_.reset(
        ring_buffer__new(bpf_map__fd(skeleton_->maps.samples), OnRecord, &records_, nullptr));
    return true;
  }

  Record LookUp(fw_u64 address) {
    records_.clear();
    fw_u64 arguments[12] = {address};
    LIBBPF_OPTS(bpf_test_run_opts, options, .ctx_in = arguments, .ctx_size_in = sizeof(arguments));
    EXPECT_EQ(bpf_prog_test_run_opts(bpf_program__fd(skeleton_->progs.test_look_up), &options), 0);
    ring_buffer__consume(ring_.get());
    EXPECT_THAT(records_, SizeIs(1));
    return records_.empty() ? Record{} : records_[0];
  }
  fw_u64 StateOf(fw_u64 address) { return LookUp(address).user_frames.at(0); }

  // Samples of that process until there are `count`; the last ones.
  std::vector<Record> Sample(pid_t pid, size_t count) {
    records_.clear();
    perf_event_attr attr{};
    attr.type = PERF_TYPE_SOFTWARE;
    attr.config = PERF_COUNT_SW_CPU_CLOCK;
    attr.freq = 1;
    attr.sample_freq = 997;
    const auto ticks = OpenPerfEvent(attr, pid, -1);
    EXPECT_TRUE(ticks.ok()) << ticks.status().ToString();
    if (!ticks.ok()) return {};
    EXPECT_EQ(::ioctl(ticks->get(), PERF_EVENT_IOC_SET_BPF, bpf_program__fd(skeleton_->progs.tick)),
              0);
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (records_.size() < count && std::chrono::steady_clock::now() < deadline) {
      ::usleep(5000);
      ring_buffer__consume(ring_.get());
    }
    EXPECT_GE(records_.size(), count);
    return records_;
  }

  void LoadTable(const fw_file_note& note);

  LibbpfLog log_;
  BpfSkeleton<cpu_bpf> skeleton_;
  std::vector<Record> records_;
  BpfRingBuffer ring_;
  std::string reason_;
};

#define LOAD_OR_SKIP(name)                                   \
  if (!Load(name) && !HasFailure()) GTEST_SKIP() << reason_; \
  ASSERT_FALSE(HasFailure())

bool KernelIsAtLeast(int major, int minor) {
  utsname name{};
  int here[2] = {0, 0};
  if (::uname(&name) != 0 || std::sscanf(name.release, "%d.%d", &here[0], &here[1]) != 2) {
    return false;
  }
  return here[0] > major || (here[0] == major && here[1] >= minor);
}

std::optional<fw_u32> Generation(const std::string& path) {
  const base::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  int generation = 0;
  struct stat info{};
  if (!fd.valid() || ::ioctl(fd.get(), FS_IOC_GETVERSION, &generation) != 0 ||
      ::fstat(fd.get(), &info) != 0) {
    return std::nullopt;
  }
  return fw_file_generation(static_cast<fw_u32>(generation),
                            static_cast<fw_u64>(info.st_ctim.tv_sec),
                            static_cast<fw_u64>(info.st_ctim.tv_nsec));
}

TEST_F(UnwindBpfTest, FindsMappingsAsProcHasThem) {
  LOAD_OR_SKIP("test_look_up");
  size_t files = 0;
  for (const MapsLine& line : ReadMaps()) {
    SCOPED_TRACE(line.path);
    const bool vdso = line.path == "[vdso]";
    for (const fw_u64 address : {line.start, (line.start + line.end) / 2, line.end - 1}) {
      const Record record = LookUp(address);
      if (!line.executable) {
        EXPECT_EQ(record.user_frames[0], kStateNone);
        EXPECT_THAT(record.notes, SizeIs(0));
        continue;
      }
      if (line.inode == 0 && !vdso) continue;
      ++files;
      EXPECT_EQ(record.user_frames[0], kStateNewFile);
      ASSERT_THAT(record.notes, SizeIs(1));
      const fw_file_note& note = record.notes[0];
      EXPECT_EQ(note.start, line.start);
      EXPECT_EQ(note.end, line.end);
      EXPECT_EQ(note.file_offset, line.offset);
      EXPECT_EQ(note.inode, vdso ? FW_VDSO_INODE : line.inode);
      EXPECT_EQ(note.device, line.device);
      EXPECT_EQ(note.inode_address != 0, !vdso);
      if (vdso) continue;
      if (const auto generation = Generation(line.path)) {
        EXPECT_EQ(note.generation, *generation);
      }
    }
  }
  EXPECT_GE(files, 9u);  // at least this program, libc and the vdso
}

// What the kernel side calls the file when it is mapped as code.
fw_file_note NoteOfFile(int fd, const std::function<Record(fw_u64)>& look_up) {
  void* memory = ::mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
  EXPECT_NE(memory, MAP_FAILED);
  const Record record = look_up(reinterpret_cast<fw_u64>(memory));
  ::munmap(memory, 4096);
  EXPECT_THAT(record.notes, SizeIs(1));
  return record.notes.empty() ? fw_file_note{} : record.notes[0];
}

TEST_F(UnwindBpfTest, FileThatIsWrittenOverInPlaceIsAnotherFile) {
  LOAD_OR_SKIP("test_look_up");
  // Beside this program: /tmp may be mounted noexec.
  std::string path =
      std::filesystem::read_symlink("/proc/self/exe").parent_path() / "written_over_XXXXXX";
  const base::UniqueFd fd(::mkstemp(path.data()));
  ASSERT_TRUE(fd.valid()) << path << ": " << std::strerror(errno);
  ::unlink(path.c_str());
  const std::string first(4096, 'a');
  ASSERT_EQ(::pwrite(fd.get(), first.data(), first.size(), 0), 4096);
  const auto look_up = [this](fw_u64 address) { return LookUp(address); };
  const fw_file_note before = NoteOfFile(fd.get(), look_up);
  EXPECT_EQ(NoteOfFile(fd.get(), look_up).generation, before.generation);
  ::usleep(50'000);  // a file's times are as coarse as the kernel's tick
  const std::string second(4096, 'b');
  ASSERT_EQ(::pwrite(fd.get(), second.data(), second.size(), 0), 4096);
  const fw_file_note after = NoteOfFile(fd.get(), look_up);
  EXPECT_EQ(after.inode_address, before.inode_address);
  EXPECT_EQ(after.inode, before.inode);
  EXPECT_NE(after.generation, before.generation);
}

TEST_F(UnwindBpfTest, FindsOneOfThousandsOfMappings) {
  LOAD_OR_SKIP("test_look_up");
  constexpr size_t kPages = 6000;
  const size_t page = static_cast<size_t>(::getpagesize());
  void* memory = ::mmap(nullptr, kPages * page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  const auto start = reinterpret_cast<fw_u64>(memory);
  // Executable, a hole, readable, and so on.
  for (size_t i = 0; i < kPages; i += 3) {
    auto* at = static_cast<char*>(memory) + i * page;
    ASSERT_EQ(::mprotect(at, page, PROT_READ | PROT_EXEC), 0);
    ASSERT_EQ(::munmap(at + page, page), 0);
  }
  for (size_t i = 0; i < kPages; i += 3 * 37) {
    EXPECT_EQ(StateOf(start + i * page), kStateAnonymous) << i;
    EXPECT_EQ(StateOf(start + i * page + page - 1), kStateAnonymous) << i;
    EXPECT_EQ(StateOf(start + (i + 1) * page), kStateNone) << i;
    EXPECT_EQ(StateOf(start + (i + 2) * page), kStateNone) << i;
  }
  ::munmap(memory, kPages * page);
}

TEST_F(UnwindBpfTest, AddressesOutsideEveryMappingHaveNone) {
  LOAD_OR_SKIP("test_look_up");
  for (const fw_u64 address : {fw_u64{0}, fw_u64{4096}, (fw_u64{1} << 47) - 4096,
                               fw_u64{0xffffffff81000000}, ~fw_u64{0}}) {
    EXPECT_EQ(StateOf(address), kStateNone) << std::hex << address;
  }
}

// --- mappings that are kept from sample to sample ------------------------------------------------

// Two files of one page, mapped executable at one address, one after the other. On one CPU: each
// keeps the mappings of the sample before.
class KeptMappingsBpfTest : public UnwindBpfTest {
 protected:
  void SetUp() override {
    ASSERT_EQ(::sched_getaffinity(0, sizeof(before_), &before_), 0);
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(static_cast<size_t>(::sched_getcpu()), &one);
    ASSERT_EQ(::sched_setaffinity(0, sizeof(one), &one), 0);
    for (base::UniqueFd& file : files_) {
      std::string path = ::testing::TempDir() + "kept_XXXXXX";
      file.Reset(::mkstemp(path.data()));
      ASSERT_TRUE(file.valid());
      ::unlink(path.c_str());
      ASSERT_EQ(::ftruncate(file.get(), kBytes), 0);
    }
    place_ = ::mmap(nullptr, kBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(place_, MAP_FAILED);
  }
  void TearDown() override {
    ::munmap(place_, kBytes);
    ::sched_setaffinity(0, sizeof(before_), &before_);
  }

  void Map(size_t file) {
    ASSERT_EQ(::mmap(place_, kBytes, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED,
                     files_[file].get(), 0),
              place_);
  }
  fw_u64 address() const { return reinterpret_cast<fw_u64>(place_) + 100; }

  static fw_file_key KeyOf(const Record& record) {
    const fw_file_note& note = record.notes.at(0);
    return {note.inode_address, note.inode, note.device, note.generation};
  }
  // As BpfTableMemory does it.
  void SetKnown(const fw_file_key& key, fw_u32 id) {
    const fw_known_file known = {id, FW_NO_TABLE};
    ASSERT_EQ(bpf_map_update_elem(bpf_map__fd(skeleton_->maps.known_files), &key, &known, BPF_ANY),
              0);
    ++skeleton_->bss->known_files_generation;
  }
  void ForgetSilently(const fw_file_key& key) {
    ASSERT_EQ(bpf_map_delete_elem(bpf_map__fd(skeleton_->maps.known_files), &key), 0);
  }

  static constexpr size_t kBytes = 4096;
  cpu_set_t before_{};
  std::array<base::UniqueFd, 2> files_;
  void* place_ = MAP_FAILED;
};

TEST_F(KeptMappingsBpfTest, AFileThatTakesThePlaceOfAnotherIsSeen) {
  LOAD_OR_SKIP("test_look_up");
  Map(0);
  const fw_file_key first = KeyOf(LookUp(address()));
  SetKnown(first, 1);
  Map(1);
  const Record other = LookUp(address());
  EXPECT_EQ(other.user_frames[0], kStateNewFile);
  const fw_file_key second = KeyOf(other);
  EXPECT_NE(first.inode, second.inode);
  SetKnown(second, 2);
  for (int round = 0; round < 50; ++round) {
    Map(0);
    EXPECT_EQ(StateOf(address()), kStateFile);
    EXPECT_EQ(StateOf(address()), kStateFile);
    ForgetSilently(second);
    Map(1);
    EXPECT_EQ(StateOf(address()), kStateNewFile) << "the first file was taken for the second";
    SetKnown(second, 2);
    ASSERT_EQ(::mprotect(place_, kBytes, PROT_READ), 0);
    EXPECT_EQ(StateOf(address()), kStateNone);
    ASSERT_FALSE(HasFailure()) << round;
  }
}

TEST_F(KeptMappingsBpfTest, AnotherProcessHasItsOwn) {
  LOAD_OR_SKIP("test_look_up");
  Map(0);
  SetKnown(KeyOf(LookUp(address())), 1);
  EXPECT_EQ(StateOf(address()), kStateFile);
  const pid_t child = ::fork();
  if (child == 0) {  // the same mappings but for this one
    ::munmap(place_, kBytes);
    ::_exit(StateOf(address()) == kStateNone ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(StateOf(address()), kStateFile);
}

TEST_F(KeptMappingsBpfTest, WhatUserSpaceSaysOfAFileIsTakenUp) {
  LOAD_OR_SKIP("test_look_up");
  Map(0);
  const fw_file_key key = KeyOf(LookUp(address()));
  SetKnown(key, 1);
  EXPECT_EQ(StateOf(address()), kStateFile);
  ForgetSilently(key);
  // Without the number nobody notices: this shows that mappings are kept at all, where the kernel
  // counts their changes (6.4).
  const fw_u64 state = StateOf(address());
  EXPECT_EQ(state, KernelIsAtLeast(6, 4) ? kStateFile : kStateNewFile);
  ++skeleton_->bss->known_files_generation;
  EXPECT_EQ(StateOf(address()), kStateNewFile);
}

// A process that spins below `depth` calls, and ends with us.
class Spinner {
 public:
  explicit Spinner(int depth) : pid_(::fork()) {
    if (pid_ != 0) return;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    fw_test_start(depth);
  }
  ~Spinner() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  Spinner(const Spinner&) = delete;
  Spinner& operator=(const Spinner&) = delete;
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_;
};

constexpr fw_u32 kFileId = 77;
constexpr fw_u32 kTable = 3;
constexpr fw_u32 kSlab = 2;

fw_u64 FileOffset(const fw_file_note& note, const char* address) {
  return reinterpret_cast<fw_u64>(address) - note.start + note.file_offset;
}
fw_u64 Frame(const fw_file_note& note, const char* address) {
  return FW_FRAME_FILE << FW_FRAME_KIND_SHIFT | fw_u64{kFileId} << FW_FRAME_FILE_OFFSET_BITS |
         FileOffset(note, address);
}

fw_unwind_rule StackPointerRule(fw_cfa_kind kind, short offset) {
  fw_unwind_rule rule{};
  rule.base = FW_REGISTER_RSP;
  rule.cfa = static_cast<fw_u8>(kind & 15);
  rule.cfa_offset = offset;
  rule.rbp_offset = rule.rbx_offset = FW_REGISTER_UNCHANGED;
  return rule;
}

// Words of the slab: rules from 0, the directory (one page) at 8, the page at 16.
void UnwindBpfTest::LoadTable(const fw_file_note& note) {
  const char* start = reinterpret_cast<const char*>(&fw_test_start);
  const fw_u64 offset = FileOffset(note, start);
  std::vector<fw_u64> slab(FW_SLAB_BYTES / 8);
  const fw_unwind_rule rules[] = {{},
                                  StackPointerRule(FW_CFA_ROOT, 0),
                                  StackPointerRule(FW_CFA_OFFSET, 8),
                                  StackPointerRule(FW_CFA_OFFSET, 48)};
  std::memcpy(slab.data(), rules, sizeof(rules));
  fw_page_entry entry{};
  entry.location = kSlab << FW_LOCATION_UNITS_SHIFT | 16;
  entry.rows = 5;
  std::memcpy(&slab[8], &entry, sizeof(entry));
  const auto place = [&](const char* at) {
    return static_cast<fw_u16>(FileOffset(note, at) % FW_PAGE_ROWS_MAX);
  };
  const fw_u16 places[] = {0, place(start), place(fw_test_recurse), place(fw_test_recurse_body),
                           place(fw_test_recurse_end)};
  const fw_u8 numbers[] = {0, 1, 2, 3, 0};
  std::memcpy(&slab[16], places, sizeof(places));
  std::memcpy(reinterpret_cast<char*>(&slab[16]) + sizeof(places), numbers, sizeof(numbers));

  LIBBPF_OPTS(bpf_map_create_opts, options, .map_flags = BPF_F_MMAPABLE);
  const base::UniqueFd map(
      bpf_map_create(BPF_MAP_TYPE_ARRAY, "slab", sizeof(fw_u32), FW_SLAB_BYTES, 1, &options));
  ASSERT_TRUE(map.valid());
  const fw_u32 zero = 0;
  ASSERT_EQ(bpf_map_update_elem(map.get(), &zero, slab.data(), BPF_ANY), 0);
  const fw_u32 slab_fd = static_cast<fw_u32>(map.get());
  ASSERT_EQ(bpf_map_update_elem(bpf_map__fd(skeleton_->maps.slabs), &kSlab, &slab_fd, BPF_ANY), 0);

  fw_table table{};
  table.state = FW_TABLE_READY;
  table.first_page = static_cast<fw_u32>(offset >> FW_PAGE_SHIFT);
  table.page_count = 1;
  table.rule_slots = 4;
  table.directory = kSlab << FW_LOCATION_UNITS_SHIFT | 8;
  table.rules = kSlab << FW_LOCATION_UNITS_SHIFT;
  ASSERT_EQ(bpf_map_update_elem(bpf_map__fd(skeleton_->maps.tables), &kTable, &table, BPF_ANY), 0);

  const fw_file_key key = {note.inode_address, note.inode, note.device, note.generation};
  const fw_known_file known = {kFileId, kTable};
  ASSERT_EQ(bpf_map_update_elem(bpf_map__fd(skeleton_->maps.known_files), &key, &known, BPF_ANY),
            0);
}

std::optional<fw_file_note> NoteOfOurself(const std::vector<Record>& records) {
  const auto address = reinterpret_cast<fw_u64>(&fw_test_start);
  for (const Record& record : records) {
    for (const fw_file_note& note : record.notes) {
      if (address >= note.start && address < note.end) return note;
    }
  }
  return std::nullopt;
}

TEST_F(UnwindBpfTest, WalksCodeWithoutFramePointersByItsTable) {
  LOAD_OR_SKIP("tick");
  constexpr size_t kDepth = 500;
  const Spinner spinner(kDepth);
  // First met: raw addresses, and a note that says which file they need.
  const auto note = NoteOfOurself(Sample(spinner.pid(), 20));
  ASSERT_TRUE(note.has_value());
  LoadTable(*note);
  ASSERT_FALSE(HasFailure());

  const std::vector<Record> records = Sample(spinner.pid(), 20);
  ASSERT_FALSE(records.empty());
  const Record& last = records.back();
  EXPECT_EQ(last.end, FW_STACK_END_ROOT);
  EXPECT_THAT(last.notes, SizeIs(0));
  ASSERT_THAT(last.user_frames, SizeIs(kDepth + 1));
  const fw_u64 leaf = last.user_frames.front();
  EXPECT_GE(leaf, Frame(*note, fw_test_recurse_body));
  EXPECT_LT(leaf, Frame(*note, fw_test_recurse_end));
  // Inside its call: the instruction before fw_test_recurse is one nop behind the call.
  EXPECT_EQ(last.user_frames.back(), Frame(*note, fw_test_recurse - 2));
  const std::vector<fw_u64> middle(last.user_frames.begin() + 1, last.user_frames.end() - 1);
  EXPECT_THAT(middle, Each(middle.front()));

  fw_table table{};
  ASSERT_EQ(bpf_map_lookup_elem(bpf_map__fd(skeleton_->maps.tables), &kTable, &table), 0);
  EXPECT_GT(table.uses, 10u);
  EXPECT_GT(table.last_used_s, 0u);
}

TEST_F(UnwindBpfTest, MarksAStackBeyondTheLimit) {
  LOAD_OR_SKIP("tick");
  const Spinner spinner(2000);
  const auto note = NoteOfOurself(Sample(spinner.pid(), 20));
  ASSERT_TRUE(note.has_value());
  LoadTable(*note);
  const std::vector<Record> records = Sample(spinner.pid(), 20);
  ASSERT_FALSE(records.empty());
  EXPECT_EQ(records.back().end, FW_STACK_END_TRUNCATED);
  EXPECT_THAT(records.back().user_frames, SizeIs(FW_MAX_USER_FRAMES));
}

}  // namespace
}  // namespace firewatch::agent
