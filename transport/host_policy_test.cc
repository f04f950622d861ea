// SPDX-License-Identifier: Apache-2.0
#include "transport/host_policy.h"

#include <gtest/gtest.h>

namespace firewatch::transport {
namespace {

constexpr std::string_view kLocal = "192.0.2.7";

HostVerdict Check(std::string_view host, std::string_view origin = "") {
  const HostPolicy policy({"profiles.example:443", "2001:db8::1"});
  return policy.Check(host, origin, kLocal);
}

TEST(HostPolicyTest, AnswersToItsOwnNamesWithAnyPort) {
  for (const char* host :
       {"localhost", "localhost:7171", "LOCALHOST:8080", "127.0.0.1", "127.9.9.9:1", "[::1]:7171",
        "192.0.2.7:7171", "profiles.example", "profiles.example:80", "[2001:DB8:0::1]:7171"}) {
    EXPECT_EQ(Check(host), HostVerdict::kAllowed) << host;
  }
}

TEST(HostPolicyTest, RefusesNamesThatAnAttackerCanPointHere) {
  for (const char* host :
       {"evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "192.0.2.8",
        "profiles.example.evil", "", "localhost, evil.example", "user@localhost"}) {
    EXPECT_EQ(Check(host), HostVerdict::kForeignHost) << host;
  }
}

TEST(HostPolicyTest, AnOriginMustNameTheSameHostAndPort) {
  EXPECT_EQ(Check("localhost:7171", "http://localhost:7171"), HostVerdict::kAllowed);
  EXPECT_EQ(Check("localhost", "http://localhost:80"), HostVerdict::kAllowed);
  EXPECT_EQ(Check("profiles.example:443", "https://profiles.example"), HostVerdict::kAllowed);
  for (const char* origin :
       {"http://evil.example", "http://localhost:3000", "http://localhost", "null",
        "http://127.0.0.1:7171", "file://", "https://localhost", "chrome-extension://abc"}) {
    EXPECT_EQ(Check("localhost:7171", origin), HostVerdict::kForeignOrigin) << origin;
  }
}

}  // namespace
}  // namespace firewatch::transport
