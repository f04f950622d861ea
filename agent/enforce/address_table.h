// SPDX-License-Identifier: Apache-2.0
// The two address tables of an image (bpf/include/firewall.h) from runs.
#pragma once

#include <cstdint>
#include <vector>

#include "agent/enforce/address_runs.h"
#include "agent/enforce/image_writer.h"
#include "bpf/include/firewall.h"

namespace firewatch::agent {

// Fills the pages, for which there is room at out->pages, and blocks, details and entries of `out`.
// Runs start at 0.
void WriteTable4(const std::vector<Run<uint32_t>>& runs, ImageWriter* writer, fw_addresses* out);
// Fills the tree and the tails of `out`.
void WriteTable6(const std::vector<Run<Address6>>& runs, ImageWriter* writer, fw_addresses* out);

}  // namespace firewatch::agent
