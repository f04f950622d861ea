// SPDX-License-Identifier: Apache-2.0
#include "tests/tools/load.h"

#include <zstd.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <unordered_map>

namespace firewatch::tests {
namespace {

constexpr uint64_t kTextStart = 0x1000;
constexpr int64_t kPeriodNs = 10'101'010;  // 99 Hz

// xorshift64*: the load must be the same on every machine.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15 | 1) {}
  uint64_t Next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545f4914f6cdd1d;
  }
  uint64_t Below(uint64_t bound) { return Next() % bound; }

 private:
  uint64_t state_;
};

// Interns into one pprof message. Locations are numbered by function: one address per name, in one
// made-up binary, so that equal names of different windows are equal locations to the server.
class ProfileWriter {
 public:
  explicit ProfileWriter(pprof::Profile* profile) : profile_(profile) {
    profile_->add_string_table("");
    pprof::Mapping* mapping = profile_->add_mapping();
    mapping->set_id(1);
    mapping->set_memory_start(kTextStart);
    mapping->set_file_offset(kTextStart);
    mapping->set_memory_limit(uint64_t{1} << 40);
    mapping->set_filename(String("/opt/load/bin/load"));
    mapping->set_build_id(String("00112233445566778899aabbccddeeff00112233"));
    mapping->set_has_functions(true);
  }

  int64_t String(const std::string& text) {
    auto [found, is_new] = strings_.try_emplace(text, profile_->string_table_size());
    if (is_new) profile_->add_string_table(text);
    return found->second;
  }

  void AddType(pprof::ValueType* type, const std::string& name, const std::string& unit) {
    type->set_type(String(name));
    type->set_unit(String(unit));
  }

  uint64_t Location(const std::string& name, uint64_t slot) {
    auto [found, is_new] = locations_.try_emplace(slot, profile_->location_size() + 1);
    if (!is_new) return found->second;
    pprof::Function* function = profile_->add_function();
    function->set_id(found->second);
    function->set_name(String(name));
    function->set_system_name(String(name));
    pprof::Location* location = profile_->add_location();
    location->set_id(found->second);
    location->set_mapping_id(1);
    location->set_address(kTextStart + slot * 16);
    location->add_line()->set_function_id(found->second);
    return found->second;
  }

 private:
  pprof::Profile* profile_;
  std::unordered_map<std::string, int64_t> strings_{{"", 0}};
  std::unordered_map<uint64_t, uint64_t> locations_;
};

void AddValues(pprof::Sample* sample, int64_t count) {
  sample->add_value(count);
  sample->add_value(count * kPeriodNs);
}

using Spoiler = std::function<void(ingest::UploadWindowRequest*)>;

void ReplaceProfile(ingest::UploadWindowRequest* window, const pprof::Profile& profile) {
  window->mutable_profiles(0)->set_pprof_zstd(Compress(profile.SerializeAsString()));
}

pprof::Profile SmallProfile(const ingest::UploadWindowRequest& window) {
  return MakeProfile(LoadShape{.stacks = 2, .depth = 4}, 0, 9'999, 1, window.start_unix_ns(),
                     window.end_unix_ns() - window.start_unix_ns());
}

void DanglingIds(ingest::UploadWindowRequest* window) {
  pprof::Profile profile = SmallProfile(*window);
  profile.mutable_sample(0)->set_location_id(0, 4'000'000'000);
  profile.mutable_location(0)->mutable_line(0)->set_function_id(77'777);
  profile.mutable_function(0)->set_name(1'000'000);
  ReplaceProfile(window, profile);
}

// Ids that refer to one another and to themselves: two locations and two functions with one id,
// a function named by string 0, a stack that goes through one location ten thousand times.
void CyclicIds(ingest::UploadWindowRequest* window) {
  pprof::Profile profile = SmallProfile(*window);
  profile.mutable_location(1)->set_id(profile.location(0).id());
  profile.mutable_function(1)->set_id(profile.function(0).id());
  profile.mutable_mapping(0)->set_id(profile.location(0).id());
  for (int i = 0; i < 10'000; ++i) profile.mutable_sample(0)->add_location_id(1);
  ReplaceProfile(window, profile);
}

// Field 1000 as bytes and field 1001 as varint, in the profile and (by gRPC) in the window.
void UnknownFields(ingest::UploadWindowRequest* window) {
  std::string bytes = SmallProfile(*window).SerializeAsString();
  bytes += std::string("\xc2\x3e\x03xyz\xc8\x3e\x2a", 9);
  window->mutable_profiles(0)->set_pprof_zstd(Compress(bytes));
}

// A frame header that claims 4 GiB of content: FHD with an 8-byte content size, single segment.
void HugeLength(ingest::UploadWindowRequest* window) {
  std::string frame("\x28\xb5\x2f\xfd\xe0\x00\x00\x00\x00\x01\x00\x00\x00", 13);
  frame += std::string("\x01\x00\x00", 3);  // one last raw block of length 0
  window->mutable_profiles(0)->set_pprof_zstd(frame);
}

const std::unordered_map<std::string_view, Spoiler>& Spoilers() {
  static const auto& spoilers = *new std::unordered_map<std::string_view, Spoiler>{
      {"truncated-zstd",
       [](auto* w) {
         std::string* bytes = w->mutable_profiles(0)->mutable_pprof_zstd();
         bytes->resize(bytes->size() / 2);
       }},
      {"huge-length", HugeLength},
      {"bomb",
       [](auto* w) {
         w->mutable_profiles(0)->set_pprof_zstd(Compress(std::string(size_t{1} << 30, '\0')));
       }},
      {"cyclic-ids", CyclicIds},
      {"dangling-ids", DanglingIds},
      {"unknown-fields", UnknownFields},
      {"random-pprof",
       [](auto* w) {
         Random random(99);
         std::string bytes(10'000, '\0');
         for (char& byte : bytes) byte = static_cast<char>(random.Next());
         w->mutable_profiles(0)->set_pprof_zstd(Compress(bytes));
       }},
      {"empty-profile", [](auto* w) { w->mutable_profiles(0)->set_pprof_zstd(""); }},
      {"bad-labels",
       [](auto* w) {
         auto* pair = w->mutable_profiles(0)->add_labels();
         pair->set_name("a b\n\"{");
         pair->set_value("x");
       }},
      {"huge-label",
       [](auto* w) {
         auto* pair = w->mutable_profiles(0)->add_labels();
         pair->set_name("zzz");
         pair->set_value(std::string(size_t{2} << 20, 'x'));
       }},
      {"future-window",
       [](auto* w) {
         constexpr int64_t kHundredYearsNs = int64_t{100} * 365 * 86'400 * 1'000'000'000;
         w->set_start_unix_ns(w->start_unix_ns() + kHundredYearsNs);
         w->set_end_unix_ns(w->end_unix_ns() + kHundredYearsNs);
       }},
      {"backward-window", [](auto* w) { w->set_end_unix_ns(w->start_unix_ns() - 1); }},
      {"no-agent-id", [](auto* w) { w->clear_agent_id(); }},
      {"old-protocol", [](auto* w) { w->set_protocol_version(0); }},
      {"new-protocol", [](auto* w) { w->set_protocol_version(1'000'000); }},
  };
  return spoilers;
}

}  // namespace

std::string UniqueName(uint32_t agent, uint64_t sequence) {
  return "window_" + std::to_string(agent) + "_" + std::to_string(sequence);
}

std::string Compress(std::string_view bytes) {
  std::string out(ZSTD_compressBound(bytes.size()), '\0');
  const size_t size = ZSTD_compress(out.data(), out.size(), bytes.data(), bytes.size(), 1);
  if (ZSTD_isError(size) != 0) {
    std::fprintf(stderr, "zstd: %s\n", ZSTD_getErrorName(size));
    std::abort();
  }
  out.resize(size);
  return out;
}

pprof::Profile MakeProfile(const LoadShape& shape, uint32_t service, uint32_t agent,
                           uint64_t sequence, int64_t start_unix_ns, int64_t length_ns) {
  pprof::Profile profile;
  ProfileWriter writer(&profile);
  writer.AddType(profile.add_sample_type(), "samples", "count");
  writer.AddType(profile.add_sample_type(), "cpu", "nanoseconds");
  writer.AddType(profile.mutable_period_type(), "cpu", "nanoseconds");
  profile.set_period(kPeriodNs);
  profile.set_time_nanos(start_unix_ns);
  profile.set_duration_nanos(length_ns);

  const uint64_t main = writer.Location("main", 0);
  if (service == 0) {
    pprof::Sample* unique = profile.add_sample();
    const uint64_t slot = 1'000'000 + uint64_t{agent} * 10'000 + sequence;
    unique->add_location_id(writer.Location(UniqueName(agent, sequence), slot));
    unique->add_location_id(main);
    AddValues(unique, static_cast<int64_t>(UniqueValue(agent, sequence)));
  }
  Random random(uint64_t{service} + 1);  // a service has the same stacks in every window
  for (uint32_t i = 0; i < shape.stacks; ++i) {
    pprof::Sample* sample = profile.add_sample();
    for (uint32_t frame = 1; frame < shape.depth; ++frame) {
      const uint64_t number = 1 + random.Below(shape.names);
      sample->add_location_id(writer.Location("function_" + std::to_string(number), number));
    }
    sample->add_location_id(main);
    AddValues(sample, 1 + static_cast<int64_t>((i + sequence) % 7));
  }
  return profile;
}

ingest::UploadWindowRequest MakeWindow(const LoadShape& shape, uint32_t agent, uint64_t sequence,
                                       int64_t start_unix_ns, int64_t length_ns) {
  ingest::UploadWindowRequest window;
  const std::string node = shape.node + "-" + std::to_string(agent);
  window.set_protocol_version(1);
  window.set_node(node);
  std::string id(16, '\0');
  std::snprintf(id.data(), id.size(), "load-%010u", agent);
  window.set_agent_id(id);
  window.set_sequence(sequence);
  window.set_start_unix_ns(start_unix_ns);
  window.set_end_unix_ns(start_unix_ns + length_ns);
  window.set_sample_hz(99);
  for (uint32_t service = 0; service < shape.services; ++service) {
    ingest::ServiceProfile* profile = window.add_profiles();
    for (const auto& [name, value] : {std::pair<std::string, std::string>{"comm", "load"},
                                      {"node", node},
                                      {"service", "load-" + std::to_string(service)}}) {
      ingest::LabelPair* pair = profile->add_labels();
      pair->set_name(name);
      pair->set_value(value);
    }
    profile->set_pprof_zstd(
        Compress(MakeProfile(shape, service, agent, sequence, start_unix_ns, length_ns)
                     .SerializeAsString()));
  }
  return window;
}

bool Spoil(std::string_view kind, ingest::UploadWindowRequest* window) {
  const auto found = Spoilers().find(kind);
  if (found == Spoilers().end()) return false;
  found->second(window);
  return true;
}

std::string_view SpoilKinds() {
  return "truncated-zstd huge-length bomb cyclic-ids dangling-ids unknown-fields random-pprof "
         "empty-profile bad-labels huge-label future-window backward-window no-agent-id "
         "old-protocol new-protocol";
}

}  // namespace firewatch::tests
