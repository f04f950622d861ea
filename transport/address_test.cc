// SPDX-License-Identifier: Apache-2.0
#include "transport/address.h"

#include <gtest/gtest.h>

#include "base/status.h"
#include "transport/http_server.h"

namespace firewatch::transport {
namespace {

TEST(HostPortTest, TakesNamesAndLiteralsWithAndWithoutPort) {
  struct Case {
    const char* text;
    const char* host;
    int port;  // -1: none
  };
  for (const Case& c :
       {Case{"localhost", "localhost", -1}, Case{"Node7.Example.:80", "node7.example", 80},
        Case{"127.0.0.1:7171", "127.0.0.1", 7171}, Case{"[::1]", "::1", -1},
        Case{"[FE80::2]:65535", "fe80::2", 65535}, Case{"h:0", "h", 0}}) {
    const auto parsed = ParseHostPort(c.text);
    ASSERT_TRUE(parsed.ok()) << c.text;
    EXPECT_EQ(parsed->host, c.host);
    EXPECT_EQ(parsed->port.has_value() ? int{*parsed->port} : -1, c.port) << c.text;
  }
}

TEST(HostPortTest, RefusesWhatIsNoAddress) {
  for (const char* text :
       {"", ":80", "h:", "h:65536", "h:-1", "h:8x", "[::1", "[::1]80", "[]:1", "::1", "[1.2.3.4]:1",
        "[fe80::1%lo]:1", "a b:1", "a/b:1", "evil@h:1", "h:80:90"}) {
    EXPECT_FALSE(ParseHostPort(text).ok()) << text;
  }
}

TEST(LoopbackTest, KnowsEveryLoopbackSpelling) {
  for (const char* address : {"127.0.0.1:1", "127.255.1.2:1", "localhost:1", "LocalHost:1",
                              "[::1]:1", "[0:0::0:1]:1", "[::ffff:127.0.0.1]:1"}) {
    const auto loopback = IsLoopbackAddress(address);
    ASSERT_TRUE(loopback.ok()) << address;
    EXPECT_TRUE(*loopback) << address;
  }
}

TEST(LoopbackTest, EverythingElseIsReachableFromOutside) {
  for (const char* address :
       {"0.0.0.0:1", "[::]:1", "10.0.0.1:1", "128.0.0.1:1", "[::2]:1", "[::ffff:10.0.0.1]:1",
        "localhost.evil.example:1", "127.0.0.1.nip.io:1", "[::127.0.0.1]:1"}) {
    const auto loopback = IsLoopbackAddress(address);
    ASSERT_TRUE(loopback.ok()) << address;
    EXPECT_FALSE(*loopback) << address;
  }
}

TEST(LoopbackTest, AListenerNeedsAPort) {
  EXPECT_EQ(IsLoopbackAddress("127.0.0.1").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ListenerPolicyTest, OpensOtherAddressesOnlyWhenToldTo) {
  EXPECT_TRUE(CheckListenerPolicy("127.0.0.1:7171", false).ok());
  EXPECT_TRUE(CheckListenerPolicy("[::1]:7171", false).ok());
  const absl::Status refused = CheckListenerPolicy("0.0.0.0:7171", false);
  EXPECT_EQ(refused.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_NE(base::Message(refused).find("--insecure"), std::string_view::npos);
  EXPECT_EQ(CheckListenerPolicy("[::]:7171", false).code(), absl::StatusCode::kPermissionDenied);
  EXPECT_TRUE(CheckListenerPolicy("0.0.0.0:7171", true).ok());
  EXPECT_EQ(CheckListenerPolicy("nonsense", true).code(), absl::StatusCode::kInvalidArgument);
}

TEST(CanonicalHostTest, GivesEqualAddressesOneSpelling) {
  EXPECT_EQ(CanonicalHost("0:0::1"), "::1");
  EXPECT_EQ(CanonicalHost("::FFFF:10.0.0.1"), "10.0.0.1");
  EXPECT_EQ(CanonicalHost("Node7"), "node7");
}

}  // namespace
}  // namespace firewatch::transport
