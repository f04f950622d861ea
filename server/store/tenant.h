// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace firewatch::server {

// Tenant names: 1 to 64 of [A-Za-z0-9_.-]. They stand in keys, in URLs and in logs.
bool IsValidTenant(std::string_view tenant);

}  // namespace firewatch::server
