// SPDX-License-Identifier: Apache-2.0
#include "server/debuginfo/naming.h"

#include "base/status.h"

namespace firewatch::server {

absl::StatusOr<std::unique_ptr<Naming>> Naming::Open(const NamingOptions& options,
                                                     const base::Clock& clock,
                                                     base::MetricsRegistry& metrics) {
  auto naming = std::unique_ptr<Naming>(new Naming());
  ASSIGN_OR_RETURN(naming->files_, FileStore::Open({.directory = options.directory,
                                                    .max_bytes = options.max_bytes,
                                                    .max_file_bytes = options.max_file_bytes},
                                                   clock, metrics));
  ASSIGN_OR_RETURN(naming->binaries_,
                   BinaryRegistry::Open(options.directory + "/binaries", clock, metrics));
  ASSIGN_OR_RETURN(naming->indexes_, symbolizer::IndexService::Create(
                                         {.cache_directory = options.directory + "/index",
                                          .cache_max_bytes = options.max_index_bytes,
                                          .helper_path = options.helper_path},
                                         metrics));
  naming->names_ =
      std::make_unique<IndexNames>(*naming->indexes_, options.helper_path, clock, metrics);
  naming->debuginfo_ = std::make_unique<DebugInfo>(*naming->files_, *naming->names_,
                                                   *naming->binaries_, clock, metrics);
  naming->debuginfod_ =
      std::make_unique<Debuginfod>(DebuginfodOptions{.urls = options.debuginfod_urls,
                                                     .directory = options.directory + "/missing"},
                                   *naming->debuginfo_, clock, metrics);
  naming->debuginfo_->SetWant([debuginfod = naming->debuginfod_.get()](
                                  const symbolizer::BuildId& id) { debuginfod->Want(id); });
  return naming;
}

}  // namespace firewatch::server
