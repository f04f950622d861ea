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
  ASSIGN_OR_RETURN(naming->common_,
                   CommonFiles::Open(options.directory + "/common", *naming->files_, metrics));
  ASSIGN_OR_RETURN(naming->binaries_,
                   BinaryRegistry::Open(options.directory + "/binaries", clock, metrics));
  symbolizer::IndexServiceOptions indexes = {.cache_directory = options.directory + "/index",
                                             .cache_max_bytes = options.max_index_bytes,
                                             .helper_path = options.helper_path};
  indexes.open_common = [common = naming->common_.get()](const symbolizer::BuildId& file,
                                                         const symbolizer::BuildId& needed_by) {
    return common->OpenFor(file, needed_by);
  };
  ASSIGN_OR_RETURN(naming->indexes_, symbolizer::IndexService::Create(std::move(indexes), metrics));
  naming->names_ =
      std::make_unique<IndexNames>(*naming->indexes_, options.helper_path, clock, metrics);
  naming->debuginfo_ = std::make_unique<DebugInfo>(
      *naming->files_, *naming->common_, *naming->names_, *naming->binaries_, clock, metrics);
  naming->debuginfod_ =
      std::make_unique<Debuginfod>(DebuginfodOptions{.urls = options.debuginfod_urls,
                                                     .directory = options.directory + "/missing"},
                                   *naming->debuginfo_, clock, metrics);
  const auto want = [debuginfod = naming->debuginfod_.get()](const symbolizer::BuildId& id) {
    debuginfod->Want(id);
  };
  naming->debuginfo_->SetWant(want);
  naming->common_->SetWant(want);
  return naming;
}

}  // namespace firewatch::server
