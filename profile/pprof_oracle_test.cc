// SPDX-License-Identifier: Apache-2.0
// The codec against protobuf's generated classes: what they say of a random message, the reader
// must say too, whatever way the message is laid out; and they must find in our bytes what we
// wrote.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "base/status.h"
#include "profile/pprof_codec.h"
#include "profile/pprof_fields.h"
#include "profile/test_profiles.h"
#include "profile/varint.h"
#include "proto/pprof.pb.h"

namespace firewatch::profile {
namespace {

using Samples = std::map<std::string, std::vector<int64_t>>;

class RandomMessage {
 public:
  explicit RandomMessage(std::mt19937& random) : random_(random) {}

  pprof::Profile Make() {
    message_.add_string_table("");
    for (const char* text :
         {"samples", "count", "bytes", "main", "_Z1fv", "a.cc", "/bin/app", "[kernel]", "[vdso]",
          "//anon", "deadbeef", "thread", "worker", "kilobytes", "main", "\xE2\x82\xAC"}) {
      message_.add_string_table(text);
    }
    for (uint32_t types = 1 + Below(3); types > 0; --types) {
      pprof::ValueType* type = message_.add_sample_type();
      type->set_type(Text());
      type->set_unit(Text());
    }
    message_.set_period(Number());
    message_.set_time_nanos(Number());
    message_.set_duration_nanos(Number());
    message_.mutable_period_type()->set_type(Text());
    for (uint32_t comments = Below(3); comments > 0; --comments) message_.add_comment(Text());
    MakeTables();
    for (uint32_t samples = Below(20); samples > 0; --samples) MakeSample();
    return message_;
  }

 private:
  uint32_t Below(uint32_t limit) { return static_cast<uint32_t>(random_() % limit); }
  int64_t Text() { return Below(static_cast<uint32_t>(message_.string_table_size())); }
  int64_t Number() { return static_cast<int64_t>(random_()) * (Below(4) == 0 ? -1 : 1); }
  // Dense, sparse and huge ids.
  uint64_t Id(uint64_t index) {
    switch (index % 3) {
      case 0:
        return index + 1;
      case 1:
        return 1000 * (index + 1);
      default:
        return ~uint64_t{0} - index;
    }
  }

  void MakeTables() {
    const uint32_t mappings = Below(6);
    const uint32_t functions = 1 + Below(10);
    const uint32_t locations = 1 + Below(15);
    for (uint32_t i = 0; i < mappings; ++i) {
      pprof::Mapping* mapping = message_.add_mapping();
      mapping->set_id(Id(i));
      mapping->set_memory_start(Below(3) * 0x1000);
      mapping->set_memory_limit(Below(5) * 0x1000);
      mapping->set_file_offset(Below(3) * 0x800);
      if (Below(10) == 0) mapping->set_file_offset(~uint64_t{0});
      mapping->set_filename(Text());
      mapping->set_build_id(Text());
      mapping->set_has_functions(Below(2) == 0);
    }
    for (uint32_t i = 0; i < functions; ++i) {
      pprof::Function* function = message_.add_function();
      function->set_id(Id(i));
      function->set_name(Text());
      function->set_system_name(Text());
      function->set_filename(Text());
      function->set_start_line(Number());
    }
    for (uint32_t i = 0; i < locations; ++i) {
      pprof::Location* location = message_.add_location();
      location->set_id(Id(i));
      if (mappings > 0 && Below(4) != 0) location->set_mapping_id(Id(Below(mappings)));
      location->set_address(Below(6) * 0x800);
      location->set_is_folded(Below(5) == 0);
      for (uint32_t lines = Below(4); lines > 0; --lines) {
        pprof::Line* line = location->add_line();
        line->set_function_id(Id(Below(functions)));
        line->set_line(Number());
        line->set_column(Below(3));
      }
    }
  }

  void MakeSample() {
    pprof::Sample* sample = message_.add_sample();
    for (uint32_t depth = Below(6); depth > 0; --depth) {
      sample->add_location_id(Id(Below(static_cast<uint32_t>(message_.location_size()))));
    }
    for (int i = 0; i < message_.sample_type_size(); ++i) sample->add_value(Number());
    for (uint32_t labels = Below(3); labels > 0; --labels) {
      pprof::Label* label = sample->add_label();
      label->set_key(1 + Below(16));
      if (Below(2) == 0) {
        label->set_str(Text());
      } else {
        label->set_num(Number());
        if (Below(2) == 0) label->set_num_unit(Text());
      }
    }
  }

  std::mt19937& random_;
  pprof::Profile message_;
};

// What the message says, in the words of SamplesByText, by the rules of pprof_codec.h.
class Oracle {
 public:
  explicit Oracle(const pprof::Profile& message) : message_(message) {
    for (const auto& mapping : message.mapping()) mappings_[mapping.id()] = &mapping;
    for (const auto& function : message.function()) functions_[function.id()] = &function;
    for (const auto& location : message.location()) {
      locations_[location.id()] = LocationText(location);
    }
  }

  Samples BySample() const {
    Samples samples;
    for (const auto& sample : message_.sample()) {
      std::string text;
      for (const uint64_t id : sample.location_id()) text += locations_.at(id);
      text += Labels(sample).ToString();
      std::vector<int64_t>& sums = samples[text];
      sums.resize(static_cast<size_t>(sample.value_size()));
      for (int i = 0; i < sample.value_size(); ++i) {
        sums[static_cast<size_t>(i)] += sample.value(i);
      }
    }
    return samples;
  }

 private:
  const std::string& Text(int64_t index) const {
    return message_.string_table(static_cast<int>(index));
  }

  LabelSet Labels(const pprof::Sample& sample) const {
    std::vector<std::pair<std::string, std::string>> pairs;
    for (const auto& label : sample.label()) {
      std::string value = Text(label.str());
      const std::string& unit = Text(label.num_unit());
      if (label.str() == 0 && (label.num() != 0 || !unit.empty())) {
        value = fmt::format("{}{}{}", label.num(), unit.empty() ? "" : " ", unit);
      }
      pairs.emplace_back(Text(label.key()), value);
    }
    return LabelSet(pairs);
  }

  std::string LocationText(const pprof::Location& location) const {
    static const pprof::Mapping kNone;
    const pprof::Mapping& mapping =
        location.mapping_id() == 0 ? kNone : *mappings_.at(location.mapping_id());
    const std::string& file = Text(mapping.filename());
    const std::string& build_id = Text(mapping.build_id());
    LocationKind kind = KindOfMapping(file, build_id);
    uint64_t address = location.address();
    if (kind == LocationKind::kNative || kind == LocationKind::kVdso) {
      const auto offset =
          static_cast<unsigned __int128>(address) - mapping.memory_start() + mapping.file_offset();
      const auto limit = static_cast<unsigned __int128>(mapping.memory_limit()) -
                         mapping.memory_start() + mapping.file_offset();
      const bool covered = address >= mapping.memory_start() && address < mapping.memory_limit() &&
                           limit <= ~uint64_t{0} && offset != 0;
      if (covered) {
        address = static_cast<uint64_t>(offset);
      } else {
        kind = LocationKind::kUnknown;
      }
    }
    std::string text = fmt::format("[{} {} {:x} kind {}{}", file, build_id, address,
                                   static_cast<int>(kind), location.is_folded() ? " folded" : "");
    for (const auto& line : location.line()) {
      const pprof::Function& function = *functions_.at(line.function_id());
      text +=
          fmt::format(" | {} {} {} {} {}:{}", Text(function.name()), Text(function.system_name()),
                      Text(function.filename()), function.start_line(), line.line(), line.column());
    }
    return text + "]";
  }

  const pprof::Profile& message_;
  std::map<uint64_t, const pprof::Mapping*> mappings_;
  std::map<uint64_t, const pprof::Function*> functions_;
  std::map<uint64_t, std::string> locations_;
};

// Takes serialized messages apart and puts them together in another legal way: fields of different
// numbers mixed, packed numbers unpacked or in two packs, unknown fields of all types strewn in.
class Scrambler {
 public:
  explicit Scrambler(std::mt19937& random) : random_(random) {}

  std::string Profile(const std::string& bytes) {
    std::vector<std::pair<uint64_t, std::string>> fields = Split(bytes);
    for (auto& [tag, body] : fields) {
      if (tag == Tag(kProfileSample)) body = Sample(body);
      if (tag == Tag(kProfileLocation) || tag == Tag(kProfileFunction) ||
          tag == Tag(kProfileMapping)) {
        body = Join(Split(body));
      }
    }
    // The order of the rows of one table is kept: strings are found by their place.
    std::vector<uint64_t> order;
    std::map<uint64_t, std::vector<std::string>> by_tag;
    for (auto& [tag, body] : fields) {
      order.push_back(tag);
      by_tag[tag].push_back(std::move(body));
    }
    std::ranges::shuffle(order, random_);
    std::map<uint64_t, size_t> next;
    std::vector<std::pair<uint64_t, std::string>> shuffled;
    for (const uint64_t tag : order) shuffled.emplace_back(tag, by_tag[tag][next[tag]++]);
    return Join(shuffled);
  }

 private:
  static uint64_t Tag(uint32_t number) { return number << 3 | 2; }

  static std::vector<std::pair<uint64_t, std::string>> Split(std::string_view bytes) {
    std::vector<std::pair<uint64_t, std::string>> fields;
    while (!bytes.empty()) {
      uint64_t tag = 0;
      uint64_t value = 0;
      EXPECT_TRUE(TakeVarint(bytes, tag) && TakeVarint(bytes, value));
      std::string body;
      if ((tag & 7) == 2) {
        body = bytes.substr(0, value);
        bytes.remove_prefix(value);
      } else {
        EXPECT_EQ(tag & 7, 0u);
        AppendVarint(body, value);
      }
      fields.emplace_back(tag, std::move(body));
    }
    return fields;
  }

  std::string Join(const std::vector<std::pair<uint64_t, std::string>>& fields) {
    std::string bytes;
    for (const auto& [tag, body] : fields) {
      Unknown(bytes);
      AppendVarint(bytes, tag);
      if ((tag & 7) == 2) AppendVarint(bytes, body.size());
      bytes += body;
    }
    Unknown(bytes);
    return bytes;
  }

  void Unknown(std::string& bytes) {
    switch (random_() % 12) {
      case 0:
        AppendVarint(bytes, 100 << 3 | 0);
        AppendVarint(bytes, ~uint64_t{0});
        break;
      case 1:
        AppendVarint(bytes, 101 << 3 | 1);
        bytes += "12345678";
        break;
      case 2:
        AppendVarint(bytes, 15 << 3 | 2);  // doc_url comes as a string in no known profile
        AppendVarint(bytes, 3);
        bytes += "abc";
        break;
      case 3:
        AppendVarint(bytes, ((1u << 29) - 1) << 3 | 5);
        bytes += "1234";
        break;
      default:
        break;
    }
  }

  std::string Sample(const std::string& bytes) {
    std::string result;
    for (const auto& [tag, body] : Split(bytes)) {
      Unknown(result);
      const bool packed = tag == Tag(kSampleLocationId) || tag == Tag(kSampleValue);
      if (!packed) {
        AppendVarint(result, tag);
        AppendVarint(result, body.size());
        result += body;
        continue;
      }
      std::string_view rest = body;
      uint64_t value = 0;
      while (!rest.empty()) {
        EXPECT_TRUE(TakeVarint(rest, value));
        if (random_() % 3 == 0 && !rest.empty()) {  // the rest as one pack
          AppendVarint(result, tag - 2);
          AppendVarint(result, value);
          AppendVarint(result, tag);
          AppendVarint(result, rest.size());
          result += rest;
          break;
        }
        AppendVarint(result, tag - 2);
        AppendVarint(result, value);
      }
    }
    return result;
  }

  std::mt19937& random_;
};

TEST(PprofOracleTest, ReaderSaysWhatTheGeneratedClassesSay) {
  std::mt19937 random(1);
  for (int round = 0; round < 400; ++round) {
    const pprof::Profile message = RandomMessage(random).Make();
    const auto read = ReadPprof(message.SerializeAsString());
    ASSERT_TRUE(read.ok()) << base::ToString(read.status());
    ASSERT_EQ(SamplesByText(*read), Oracle(message).BySample()) << "round " << round;
    EXPECT_EQ(read->period, message.period());
    EXPECT_EQ(read->start_unix_ns, message.time_nanos());
    EXPECT_EQ(read->duration_ns, message.duration_nanos());
    EXPECT_EQ(read->comments.size(), static_cast<size_t>(message.comment_size()));
    EXPECT_EQ(read->period_type.type,
              message.string_table(static_cast<int>(message.period_type().type())));
  }
}

TEST(PprofOracleTest, OrderPackingAndUnknownFieldsDoNotMatter) {
  std::mt19937 random(2);
  for (int round = 0; round < 400; ++round) {
    const pprof::Profile message = RandomMessage(random).Make();
    const std::string scrambled = Scrambler(random).Profile(message.SerializeAsString());
    pprof::Profile check;
    ASSERT_TRUE(check.ParseFromString(scrambled)) << "the scrambler is wrong";
    ASSERT_EQ(Oracle(check).BySample(), Oracle(message).BySample());
    const auto read = ReadPprof(scrambled);
    ASSERT_TRUE(read.ok()) << base::ToString(read.status());
    ASSERT_EQ(SamplesByText(*read), Oracle(message).BySample()) << "round " << round;
  }
}

TEST(PprofOracleTest, ReadingAndWritingForeignProfilesLosesNothing) {
  std::mt19937 random(3);
  for (int round = 0; round < 400; ++round) {
    const pprof::Profile message = RandomMessage(random).Make();
    const auto read = ReadPprof(message.SerializeAsString());
    ASSERT_TRUE(read.ok());
    const auto bytes = WritePprof(*read, Compression::kNone);
    ASSERT_TRUE(bytes.ok()) << base::ToString(bytes.status());
    const auto again = ReadPprof(*bytes);
    ASSERT_TRUE(again.ok()) << base::ToString(again.status());
    ASSERT_EQ(DescribeForTest(*again), DescribeForTest(*read));
  }
}

TEST(PprofOracleTest, GeneratedClassesFindWhatWeWrite) {
  std::mt19937 random(4);
  for (int round = 0; round < 200; ++round) {
    const Profile profile = RandomTestProfile(random);
    const auto bytes = WritePprof(profile, Compression::kNone);
    ASSERT_TRUE(bytes.ok());
    pprof::Profile message;
    ASSERT_TRUE(message.ParseFromString(*bytes));
    ASSERT_EQ(Oracle(message).BySample(), SamplesByText(profile));
    EXPECT_EQ(message.string_table(0), "");
    for (const auto& mapping : message.mapping()) EXPECT_TRUE(mapping.has_functions());
    for (const auto& location : message.location()) EXPECT_NE(location.mapping_id(), 0u);
    // Byte for byte what protobuf's own deterministic serializer would write, field order apart.
    EXPECT_EQ(bytes->size(), message.ByteSizeLong());
  }
}

}  // namespace
}  // namespace firewatch::profile
