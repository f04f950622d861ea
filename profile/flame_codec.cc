// SPDX-License-Identifier: Apache-2.0
#include "profile/flame_codec.h"

#include "profile/varint.h"

namespace firewatch::profile {
namespace {

constexpr char kMagicAndVersion[] = {'F', 'W', 'F', 'T', 2};

template <typename Column>
void AppendUnsigned(std::string& bytes, const Column& column) {
  for (const auto value : column) AppendVarint(bytes, value);
}

void AppendSigned(std::string& bytes, const std::vector<int64_t>& column) {
  for (const int64_t value : column) AppendVarint(bytes, ZigZag(value));
}

}  // namespace

std::string EncodeFlameTree(const FlameTree& tree) {
  std::string bytes(kMagicAndVersion, sizeof(kMagicAndVersion));
  bytes.reserve(12 * tree.size() + 32 * tree.names.size() + 32);
  AppendVarint(bytes, tree.size());
  AppendVarint(bytes, tree.names.size());
  for (const std::string& name : tree.names) {
    AppendVarint(bytes, name.size());
    bytes.append(name);
  }
  uint32_t above = 0;  // level order: parents never decrease
  for (const uint32_t parent : tree.parent) {
    AppendVarint(bytes, parent - above);
    above = parent;
  }
  AppendUnsigned(bytes, tree.name);
  AppendSigned(bytes, tree.self);
  AppendSigned(bytes, tree.total);
  AppendUnsigned(bytes, tree.flags);
  AppendUnsigned(bytes, tree.file);
  AppendUnsigned(bytes, tree.source);
  AppendUnsigned(bytes, tree.line);
  return bytes;
}

}  // namespace firewatch::profile
