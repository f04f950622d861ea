// SPDX-License-Identifier: Apache-2.0
// From a closed window to the bytes of one upload.
#pragma once

#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "agent/core/module_host.h"
#include "agent/cpu/window.h"
#include "proto/ingest.pb.h"

namespace firewatch::agent {

// One zstd-compressed pprof per group; `node` names the machine. The uploader fills in the rest
// (agent id, sequence, protocol version).
absl::StatusOr<ingest::UploadWindowRequest> MakeUploadRequest(const ClosedWindow& window,
                                                              const std::string& node);

// The states of the modules that are enabled, for the server's page.
void AddModules(std::span<const ModuleView> modules, ingest::UploadWindowRequest* request);

}  // namespace firewatch::agent
