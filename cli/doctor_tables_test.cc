// SPDX-License-Identifier: Apache-2.0
#include "cli/doctor_tables.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace firewatch::cli {
namespace {

constexpr std::string_view kAnswer = R"({"now_s":100,"rows_loaded":2000,"table_bytes":7000,
  "slab_bytes":9000,"slabs":1,"evictions":3,"rss_anon_bytes":6000000,"memory_limit_bytes":67108864,
  "map_bytes":{"samples":270000,"tables":262144},
  "tables":[{"path":"/lib/libc.so.6","build_id":"0123456789abcdef","rows":2000,"bytes":7000,
             "rules":120,"last_used_s":90,"uses":55,"state":"loaded","reason":""},
            {"path":"/bin/app","build_id":"","rows":0,"bytes":0,"rules":0,"last_used_s":0,"uses":0,
             "state":"none","reason":"no CFI"}]})";

TEST(DoctorTablesTest, ListsTablesFilesWithoutAndTotals) {
  const auto text = FormatTables(kAnswer);
  ASSERT_TRUE(text.ok());
  EXPECT_THAT(*text,
              testing::HasSubstr("3.50    120      10 s        55  loaded      0123456789ab  "
                                 "/lib/libc.so.6\n"));
  EXPECT_THAT(*text, testing::HasSubstr("  /bin/app: no CFI\n"));
  EXPECT_THAT(*text, testing::HasSubstr("1 tables loaded, 2000 rows, 4.50 bytes of slabs per row, "
                                        "3 evictions\n"));
  EXPECT_THAT(*text, testing::HasSubstr("541.1 KB of maps and 6000.0 KB of heap, 6541.1 KB of "
                                        "67.1 MB allowed\n"));
}

TEST(DoctorTablesTest, RefusesWhatIsNoListOfTables) {
  EXPECT_FALSE(FormatTables("ok\n").ok());
  EXPECT_FALSE(FormatTables("{}").ok());
  EXPECT_FALSE(FormatTables(R"({"tables":[{}]})").ok());
}

}  // namespace
}  // namespace firewatch::cli
