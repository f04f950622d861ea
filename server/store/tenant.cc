// SPDX-License-Identifier: Apache-2.0
#include "server/store/tenant.h"

#include <algorithm>

namespace firewatch::server {
namespace {

bool IsTenantCharacter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '.' || c == '-';
}

}  // namespace

bool IsValidTenant(std::string_view tenant) {
  return !tenant.empty() && tenant.size() <= 64 && std::ranges::all_of(tenant, IsTenantCharacter);
}

}  // namespace firewatch::server
