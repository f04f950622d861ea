// SPDX-License-Identifier: Apache-2.0
// Everything that names frames on the server, built in order over one directory:
//   DIR/files, DIR/incoming   debug information (file_store.h)
//   DIR/binaries              what agents told (binary_registry.h)
//   DIR/index                 indexes made of the files (symbolizer/index_service.h)
//   DIR/missing               what debuginfod does not have (debuginfod.h)
//   DIR/common                which files need which common file of dwz (common_files.h)
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "server/debuginfo/common_files.h"
#include "server/debuginfo/debuginfo.h"
#include "server/debuginfo/debuginfod.h"
#include "server/debuginfo/index_names.h"

namespace firewatch::server {

struct NamingOptions {
  std::string directory;
  uint64_t max_bytes = uint64_t{10} << 30;
  uint64_t max_file_bytes = uint64_t{4} << 30;
  uint64_t max_index_bytes = uint64_t{1} << 30;
  std::vector<std::string> debuginfod_urls = {};
  std::string helper_path = {};  // "" = /proc/self/exe
};

// Any thread. Ends its threads in the reverse order.
class Naming {
 public:
  // `clock` and `metrics` must outlive it.
  static absl::StatusOr<std::unique_ptr<Naming>> Open(const NamingOptions& options,
                                                      const base::Clock& clock,
                                                      base::MetricsRegistry& metrics);
  // No build asks for a file any more when what answers goes.
  ~Naming() {
    if (common_ != nullptr) common_->SetWant(nullptr);
  }
  Naming(const Naming&) = delete;
  Naming& operator=(const Naming&) = delete;
  DebugInfo& debuginfo() { return *debuginfo_; }

 private:
  Naming() = default;

  std::unique_ptr<FileStore> files_;
  std::unique_ptr<CommonFiles> common_;
  std::unique_ptr<BinaryRegistry> binaries_;
  std::unique_ptr<symbolizer::IndexService> indexes_;
  std::unique_ptr<IndexNames> names_;
  std::unique_ptr<DebugInfo> debuginfo_;
  std::unique_ptr<Debuginfod> debuginfod_;
};

}  // namespace firewatch::server
