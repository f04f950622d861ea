// SPDX-License-Identifier: Apache-2.0
#include "base/status.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace firewatch::base {
namespace {

absl::StatusOr<int> Parse(bool good) {
  if (!good) return InvalidArgument("not {}", "good");
  return 7;
}

absl::Status Use(bool good, int* out) {
  ASSIGN_OR_RETURN(*out, Parse(good));
  return absl::OkStatus();
}

TEST(StatusTest, AssignOrReturnPassesErrorsAndValues) {
  int out = 0;
  EXPECT_TRUE(Use(true, &out).ok());
  EXPECT_EQ(out, 7);
  EXPECT_EQ(Message(Use(false, &out)), "not good");
}

TEST(StatusTest, AnnotateKeepsTheCode) {
  const absl::Status status = Annotate(ErrnoStatus(ESRCH, "open maps"), "pid 42");
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Message(status), "pid 42: open maps: No such process");
  EXPECT_TRUE(Annotate(absl::OkStatus(), "x").ok());
}

}  // namespace
}  // namespace firewatch::base
