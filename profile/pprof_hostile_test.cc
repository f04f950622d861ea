// SPDX-License-Identifier: Apache-2.0
// Bytes that no profiler writes: each is refused with a reason, at a cost that its size bounds.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <zlib.h>
#include <zstd.h>

#include <random>

#include "base/status.h"
#include "profile/pprof_codec.h"
#include "profile/pprof_fields.h"
#include "profile/test_profiles.h"
#include "profile/wire.h"
#include "proto/pprof.pb.h"

namespace firewatch::profile {
namespace {

// A message that is fine; tests then break one thing.
pprof::Profile Fine() {
  pprof::Profile message;
  for (const char* text : {"", "cpu", "nanoseconds", "main", "thread"}) {
    message.add_string_table(text);
  }
  message.add_sample_type()->set_type(1);
  message.add_function()->set_id(1);
  message.mutable_function(0)->set_name(3);
  message.add_mapping()->set_id(1);
  message.add_location()->set_id(1);
  message.mutable_location(0)->set_mapping_id(1);
  message.mutable_location(0)->add_line()->set_function_id(1);
  message.add_sample()->add_location_id(1);
  message.mutable_sample(0)->add_value(5);
  return message;
}

std::string ErrorOf(std::string_view bytes, const PprofReadLimits& limits = {}) {
  const auto read = ReadPprof(bytes, limits);
  EXPECT_EQ(read.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(base::Message(read.status()));
}

std::string ErrorOf(const pprof::Profile& message, const PprofReadLimits& limits = {}) {
  return ErrorOf(message.SerializeAsString(), limits);
}

TEST(PprofHostileTest, TheUnbrokenMessageIsRead) {
  const auto read = ReadPprof(Fine().SerializeAsString());
  ASSERT_TRUE(read.ok()) << base::ToString(read.status());
  EXPECT_EQ(read->samples.at(0).values.at(0), 5);
}

TEST(PprofHostileTest, IdsThatAreZeroDoubledOrDangling) {
  pprof::Profile message = Fine();
  message.mutable_function(0)->set_id(0);
  EXPECT_EQ(ErrorOf(message), "pprof: function id 0: zero or there twice");
  message = Fine();
  message.add_function()->set_id(1);
  EXPECT_EQ(ErrorOf(message), "pprof: function id 1: zero or there twice");
  message = Fine();
  message.add_mapping()->set_id(1);
  EXPECT_EQ(ErrorOf(message), "pprof: mapping id 1: zero or there twice");
  message = Fine();
  message.add_location()->set_id(1);
  EXPECT_EQ(ErrorOf(message), "pprof: location id 1: zero or there twice");
  message = Fine();
  message.add_location();
  EXPECT_EQ(ErrorOf(message), "pprof: location id 0: zero or there twice");
  message = Fine();
  message.mutable_location(0)->mutable_line(0)->set_function_id(2);
  EXPECT_EQ(ErrorOf(message), "pprof: line: no function 2");
  message = Fine();
  message.mutable_location(0)->mutable_line(0)->set_function_id(0);
  EXPECT_EQ(ErrorOf(message), "pprof: line: no function 0");
  message = Fine();
  message.mutable_location(0)->set_mapping_id(~uint64_t{0});
  EXPECT_EQ(ErrorOf(message), "pprof: location 1: no mapping 18446744073709551615");
  message = Fine();
  message.mutable_sample(0)->add_location_id(2);
  EXPECT_EQ(ErrorOf(message),
            "pprof: sample: damaged, an unknown location or more than 65536 frames");
  message = Fine();
  message.mutable_sample(0)->add_location_id(0);
  ErrorOf(message);
}

// pprof has no references among locations or functions, so a cycle can only be meant: ids that
// point at rows of another table.
TEST(PprofHostileTest, IdsOfOneTableMeanNothingInAnother) {
  pprof::Profile message = Fine();
  message.mutable_function(0)->set_id(7);
  message.mutable_location(0)->set_id(8);
  message.mutable_location(0)->mutable_line(0)->set_function_id(8);
  message.mutable_sample(0)->set_location_id(0, 7);
  EXPECT_EQ(ErrorOf(message), "pprof: line: no function 8");
}

TEST(PprofHostileTest, StringIndicesPastTheTableOrNegative) {
  for (const int64_t index : {int64_t{5}, int64_t{-1}, int64_t{1} << 40}) {
    pprof::Profile message = Fine();
    message.mutable_function(0)->set_name(index);
    ErrorOf(message);
    message = Fine();
    message.mutable_mapping(0)->set_build_id(index);
    ErrorOf(message);
    message = Fine();
    message.mutable_sample_type(0)->set_unit(index);
    ErrorOf(message);
    message = Fine();
    message.add_comment(index);
    ErrorOf(message);
    message = Fine();
    message.set_default_sample_type(index);
    ErrorOf(message);
    message = Fine();
    message.mutable_sample(0)->add_label()->set_key(index);
    ErrorOf(message);
    message = Fine();
    message.mutable_sample(0)->add_label()->set_str(index);
    ErrorOf(message);
  }
}

TEST(PprofHostileTest, StringTableMustBeginEmpty) {
  pprof::Profile message = Fine();
  message.set_string_table(0, "x");
  EXPECT_EQ(ErrorOf(message), "pprof: string_table[0] is not \"\"");
  message.clear_string_table();
  ErrorOf(message);
  EXPECT_EQ(ErrorOf(std::string_view()), "pprof: no bytes");
}

TEST(PprofHostileTest, ValuesMustMatchTheSampleTypes) {
  pprof::Profile message = Fine();
  message.mutable_sample(0)->add_value(6);
  EXPECT_EQ(ErrorOf(message), "pprof: sample: damaged or more than 1 values");
  message.mutable_sample(0)->clear_value();
  EXPECT_EQ(ErrorOf(message), "pprof: sample: 0 values for 1 sample types");
  message = Fine();
  message.clear_sample_type();
  EXPECT_EQ(ErrorOf(message), "pprof: no sample types");
}

TEST(PprofHostileTest, EveryTruncationIsRefusedOrARealPrefix) {
  const std::string whole = Fine().SerializeAsString();
  size_t refused = 0;
  for (size_t size = 0; size < whole.size(); ++size) {
    refused += ReadPprof(whole.substr(0, size)).ok() ? 0 : 1;
  }
  // Without the string table, which comes last, no prefix makes sense.
  EXPECT_GE(refused, whole.size() - 9);
  for (const Compression compression : {Compression::kGzip, Compression::kZstd}) {
    const std::string packed = WritePprof(SmallTestProfile(), compression).value();
    for (size_t size = 1; size < packed.size(); ++size) {
      EXPECT_FALSE(ReadPprof(packed.substr(0, size)).ok()) << size;
    }
  }
}

TEST(PprofHostileTest, EveryChangedByteIsReadOrRefusedWithoutHarm) {
  std::mt19937 random(11);
  for (const Compression compression :
       {Compression::kNone, Compression::kGzip, Compression::kZstd}) {
    const std::string whole = WritePprof(SmallTestProfile(), compression).value();
    for (size_t i = 0; i < whole.size(); ++i) {
      std::string changed = whole;
      changed[i] = static_cast<char>(random());
      const auto read = ReadPprof(changed);
      if (read.ok()) {
        EXPECT_TRUE(WritePprof(*read, Compression::kNone).ok());
      }
    }
  }
}

size_t PeakRssBytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<size_t>(usage.ru_maxrss) * 1024;
}

TEST(PprofHostileTest, DeclaredLengthsOf4GiBCostNothing) {
  const size_t before = PeakRssBytes();
  for (const uint32_t number : {1u, 2u, 3u, 4u, 5u, 6u, 99u}) {
    std::string bytes;
    AppendVarint(bytes, number << 3 | 2);
    AppendVarint(bytes, uint64_t{4} << 30);
    bytes += "abc";
    EXPECT_EQ(ErrorOf(bytes), "pprof: profile: damaged or truncated message");
    bytes.clear();
    AppendVarint(bytes, number << 3 | 2);
    AppendVarint(bytes, ~uint64_t{0});
    ErrorOf(bytes);
  }
  EXPECT_LT(PeakRssBytes() - before, size_t{16} << 20);
}

TEST(PprofHostileTest, WrongWireTypesAndGroupsAreRefused) {
  for (const std::string_view bytes :
       {std::string_view("\x0b\x0c", 2), std::string_view("\x00\x01", 2),
        std::string_view("\x12\x02\x0d\x01", 4), std::string_view("\x0e", 1),
        std::string_view("\x48", 1), std::string_view("\x08\x01", 2)}) {
    ErrorOf(bytes);
  }
}

std::string Gzip(std::string_view bytes) { return Compress(bytes, Compression::kGzip, 9).value(); }

TEST(PprofHostileTest, BombsStopAtTheLimit) {
  const std::string zeros(size_t{64} << 20, '\0');
  const std::string gzip = Gzip(zeros);
  const std::string zstd = Compress(zeros, Compression::kZstd, 3).value();
  ASSERT_LT(gzip.size(), 100'000u);
  for (const std::string& bomb : {gzip, zstd}) {
    const auto inflated = Decompress(bomb, 1 << 20);
    EXPECT_EQ(base::Message(inflated.status()), "inflates to more than 1048576 bytes");
    EXPECT_EQ(Decompress(bomb, zeros.size()).value(), zeros) << "the limit itself is fine";
    EXPECT_FALSE(Decompress(bomb, zeros.size() - 1).ok());
  }
  EXPECT_FALSE(Decompress("12345", 4).ok());
  EXPECT_EQ(Decompress("1234", 4).value(), "1234");
}

TEST(PprofHostileTest, DeclaredContentSizesAreNotBelieved) {
  // A frame header that declares 2^62 bytes of content and a window of 8 MiB, then one last block
  // of one byte.
  const std::string frame("\x28\xb5\x2f\xfd\xc0\x68\x00\x00\x00\x00\x00\x00\x00\x40\x09\x00\x00x",
                          18);
  EXPECT_FALSE(Decompress(frame, 1 << 20).ok());
  // gzip's ISIZE says 4 GiB - 1.
  std::string gzip = Gzip("hello");
  gzip.replace(gzip.size() - 4, 4, "\xff\xff\xff\xff");
  EXPECT_FALSE(Decompress(gzip, 1 << 20).ok());
}

TEST(PprofHostileTest, HugeZstdWindowsAreRefused) {
  // Window descriptor 0x88: 2^27 bytes, to be allocated before the first byte.
  const std::string frame("\x28\xb5\x2f\xfd\x00\x88\x01\x00\x00", 9);
  const auto inflated = Decompress(frame, size_t{1} << 30);
  EXPECT_EQ(base::Message(inflated.status()), "zstd: Frame requires too much memory for decoding");
}

TEST(PprofHostileTest, SeveralMembersAndFramesAreOneStream) {
  EXPECT_EQ(Decompress(Gzip("ab") + Gzip("") + Gzip("cd"), 100).value(), "abcd");
  const std::string frame = Compress("ab", Compression::kZstd, 0).value();
  const std::string skippable("\x50\x2a\x4d\x18\x03\x00\x00\x00xyz", 11);
  EXPECT_EQ(Decompress(frame + skippable + frame, 100).value(), "abab");
  EXPECT_FALSE(Decompress(Gzip("ab") + "junk", 100).ok());
  EXPECT_FALSE(Decompress(frame + "junk", 100).ok());
}

TEST(PprofHostileTest, LimitsHold) {
  pprof::Profile message = Fine();
  for (int i = 0; i < 5; ++i) *message.add_sample() = message.sample(0);
  EXPECT_EQ(ErrorOf(message, {.max_samples = 5}), "pprof: more than 5 samples");
  EXPECT_TRUE(ReadPprof(message.SerializeAsString(), {.max_samples = 6}).ok());
  EXPECT_EQ(ErrorOf(message, {.max_table_rows = 4}), "pprof: more than 4 strings");
  EXPECT_EQ(ErrorOf(message, {.max_frames = 5}), "pprof: more than 5 frames");

  message = Fine();
  for (int i = 0; i < 9; ++i) message.mutable_sample(0)->add_location_id(1);
  EXPECT_TRUE(ReadPprof(message.SerializeAsString(), {.max_stack_depth = 10}).ok());
  EXPECT_FALSE(ReadPprof(message.SerializeAsString(), {.max_stack_depth = 9}).ok());
}

TEST(PprofHostileTest, InlinedFramesCountAsDepth) {
  // 300 bytes of location, named 700 times in a stack: 70,000 frames.
  pprof::Profile message = Fine();
  for (int i = 1; i < 100; ++i) message.mutable_location(0)->add_line()->set_function_id(1);
  for (int i = 1; i < 700; ++i) message.mutable_sample(0)->add_location_id(1);
  ErrorOf(message);
}

TEST(PprofHostileTest, ALongLabelPointedAtFromEverywhereIsBounded) {
  pprof::Profile message = Fine();
  const int64_t text = message.string_table_size();
  message.add_string_table(std::string(1 << 20, 'x'));
  for (int64_t i = 0; i < 1000; ++i) {
    pprof::Sample* sample = message.add_sample();
    sample->add_location_id(1);
    sample->add_value(1);
    pprof::Label* label = sample->add_label();
    label->set_key(4);
    label->set_str(text);
    label = sample->add_label();
    label->set_key(3);
    label->set_num(i + 1);
  }
  const auto read = ReadPprof(message.SerializeAsString());
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read->label_sets.at(1).Get("thread").size(), kMaxLabelValueBytes);
  EXPECT_EQ(ErrorOf(message, {.max_label_bytes = 1 << 20}),
            "pprof: more than 1048576 bytes of labels");
}

TEST(PprofHostileTest, CommentsAndTypesThatRepeatALongStringAreRefused) {
  pprof::Profile message = Fine();
  const int64_t text = message.string_table_size();
  message.add_string_table(std::string(300'000, 'x'));
  for (int i = 0; i < 4; ++i) message.add_comment(text);
  ErrorOf(message);
  message.clear_comment();
  for (int i = 0; i < 2000; ++i) message.add_comment(1);
  ErrorOf(message);
  message.clear_comment();
  message.mutable_sample_type(0)->set_unit(text);
  ErrorOf(message);
}

TEST(PprofHostileTest, TextThatIsNotUtf8IsRepaired) {
  WireWriter wire;
  wire.Bytes(kProfileString, "");
  wire.Bytes(kProfileString, "a\xff");
  size_t start = wire.Begin(kProfileSampleType);
  wire.Scalar(kValueTypeType, uint64_t{1});
  wire.End(start);
  start = wire.Begin(kProfileFunction);
  wire.Scalar(kFunctionId, uint64_t{1});
  wire.Scalar(kFunctionName, uint64_t{1});
  wire.End(start);
  const auto read = ReadPprof(wire.Take());
  ASSERT_TRUE(read.ok()) << base::ToString(read.status());
  EXPECT_EQ(read->sample_types.at(0).type, "a\xEF\xBF\xBD");
  EXPECT_EQ(read->String(read->functions.at(0).name), "a\xEF\xBF\xBD");
}

TEST(PprofHostileTest, WriterRefusesAProfileThatPointsNowhere) {
  Profile profile = SmallTestProfile();
  profile.samples.at(0).values.pop_back();
  EXPECT_EQ(WritePprof(profile, Compression::kNone).status().code(),
            absl::StatusCode::kInvalidArgument);
  profile = SmallTestProfile();
  profile.stacks.at(1).push_back(LocationId(999));
  EXPECT_FALSE(WritePprof(profile, Compression::kNone).ok());
  profile = SmallTestProfile();
  profile.locations.at(0).lines.at(0).function = FunctionId(999);
  EXPECT_FALSE(WritePprof(profile, Compression::kNone).ok());
  profile = SmallTestProfile();
  profile.functions.at(0).file = StringId(999);
  EXPECT_FALSE(WritePprof(profile, Compression::kNone).ok());
  EXPECT_FALSE(WritePprof(Profile(), Compression::kNone).ok());
}

}  // namespace
}  // namespace firewatch::profile
