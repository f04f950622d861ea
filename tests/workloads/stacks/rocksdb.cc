// SPDX-License-Identifier: Apache-2.0
// RocksDB at work, for as long as told: workload_rocksdb DIRECTORY SECONDS. Writes, flushes,
// compacts, reads, in its threads and in ours: librocksdb's code is large, C++ and optimized.
#include <rocksdb/db.h>
#include <rocksdb/options.h>
#include <sys/prctl.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

#include "tests/workloads/common.h"

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  rocksdb::Options options;
  options.create_if_missing = true;
  options.write_buffer_size = 1 << 20;
  options.level0_file_num_compaction_trigger = 2;
  options.compression = rocksdb::kZSTD;
  rocksdb::DB* opened = nullptr;
  if (!rocksdb::DB::Open(options, argv[1], &opened).ok()) return 1;
  const std::unique_ptr<rocksdb::DB> db(opened);
  const uint64_t end =
      workload::ClockNs(CLOCK_MONOTONIC) + static_cast<uint64_t>(std::atof(argv[2]) * 1e9);
  uint64_t x = 1;
  while (workload::ClockNs(CLOCK_MONOTONIC) < end) {
    for (int i = 0; i < 2000; ++i) {
      x = x * 6364136223846793005 + 1442695040888963407;
      const std::string key = std::to_string(x >> 44);
      db->Put({}, key, std::string(200, static_cast<char>('a' + x % 26)));
      std::string value;
      db->Get({}, std::to_string((x >> 40) & 0xfffff), &value);
    }
    const std::unique_ptr<rocksdb::Iterator> iterator(db->NewIterator({}));
    int count = 0;
    for (iterator->SeekToFirst(); iterator->Valid() && count < 5000; iterator->Next()) ++count;
  }
  workload::PrintOwnCpu();
  return 0;
}
