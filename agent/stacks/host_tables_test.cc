// SPDX-License-Identifier: Apache-2.0
#include "agent/stacks/host_tables.h"

#include <gtest/gtest.h>

namespace firewatch::agent {
namespace {

TEST(HostTablesTest, WhatWasNeverAddedIsNotThere) {
  const HostTables tables;
  EXPECT_EQ(tables.table(0), nullptr);
  EXPECT_EQ(tables.table(FW_NO_TABLE), nullptr);
  EXPECT_EQ(tables.slab(0), nullptr);
}

}  // namespace
}  // namespace firewatch::agent
