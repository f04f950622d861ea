// SPDX-License-Identifier: Apache-2.0
// Identities. The bytes that are hashed are drawn in docs/formats.md, section "Location identity":
// stores keep these hashes, so a change here needs a migration there.
#include "profile/profile.h"

#include <array>
#include <cstring>

#include "profile/varint.h"

namespace firewatch::profile {
namespace {

// The first byte of what is hashed. Never reuse a number.
enum class IdentityForm : uint8_t {
  kBuildId = 1,
  kFileOffset = 2,
  kKernelNames = 3,
  kChain = 4,
  kAddress = 5,
};

// Collects the bytes to hash; nearly always on the stack (an identity by build id is 51 bytes).
class HashInput {
 public:
  explicit HashInput(IdentityForm form) { Byte(static_cast<uint8_t>(form)); }

  void Byte(uint8_t value) {
    const char byte = static_cast<char>(value);
    Append({&byte, 1});
  }
  void Word(uint64_t value) {  // little endian, as every machine we run on
    char bytes[sizeof(value)];
    std::memcpy(bytes, &value, sizeof(value));
    Append({bytes, sizeof(bytes)});
  }
  void Varint(uint64_t value) {
    char bytes[kMaxVarintBytes];
    Append({bytes, static_cast<size_t>(PutVarint(bytes, value) - bytes)});
  }
  void Text(std::string_view text) {
    Varint(text.size());
    Append(text);
  }
  base::Hash128 Hash() const {
    return base::HashBytes128(overflow_.empty() ? std::string_view(inline_.data(), size_)
                                                : std::string_view(overflow_));
  }

 private:
  void Append(std::string_view bytes) {
    if (overflow_.empty() && size_ + bytes.size() <= inline_.size()) {
      std::memcpy(inline_.data() + size_, bytes.data(), bytes.size());
      size_ += bytes.size();
      return;
    }
    if (overflow_.empty()) overflow_.assign(inline_.data(), size_);
    overflow_.append(bytes);
  }

  std::array<char, 256> inline_;
  size_t size_ = 0;
  std::string overflow_;
};

base::Hash128 FileIdentity(const Profile& profile, const Mapping& mapping,
                           const Location& location) {
  const std::string_view build_id = profile.String(mapping.build_id);
  HashInput input(build_id.empty() ? IdentityForm::kFileOffset : IdentityForm::kBuildId);
  input.Byte(static_cast<uint8_t>(location.kind));
  input.Text(build_id.empty() ? profile.String(mapping.file) : build_id);
  input.Word(location.address);
  return input.Hash();
}

base::Hash128 KernelIdentity(const Profile& profile, const Mapping& mapping,
                             const Location& location) {
  HashInput input(IdentityForm::kKernelNames);
  input.Text(profile.String(mapping.file));
  for (const Line& line : location.lines) {
    const Function& function = profile.functions[line.function.index()];
    const std::string_view system_name = profile.String(function.system_name);
    input.Text(system_name.empty() ? profile.String(function.name) : system_name);
  }
  return input.Hash();
}

base::Hash128 ChainIdentity(const Profile& profile, const Mapping& mapping,
                            const Location& location) {
  HashInput input(IdentityForm::kChain);
  input.Text(profile.String(mapping.file));
  for (const Line& line : location.lines) {
    const Function& function = profile.functions[line.function.index()];
    input.Text(profile.String(function.name));
    input.Text(profile.String(function.system_name));
    input.Text(profile.String(function.file));
    input.Varint(static_cast<uint64_t>(function.start_line));
    input.Varint(static_cast<uint64_t>(line.line));
    input.Varint(static_cast<uint64_t>(line.column));
  }
  return input.Hash();
}

}  // namespace

int Profile::FindSampleType(std::string_view type) const {
  for (size_t i = 0; i < sample_types.size(); ++i) {
    if (sample_types[i].type == type) return static_cast<int>(i);
  }
  return -1;
}

base::Hash128 IdentityOf(const Profile& profile, const Location& location) {
  const Mapping& mapping = profile.mappings[location.mapping.index()];
  const bool in_file =
      location.kind == LocationKind::kNative || location.kind == LocationKind::kVdso;
  const bool named = !location.lines.empty();
  if (in_file && mapping.build_id != StringId()) return FileIdentity(profile, mapping, location);
  if (named && location.kind == LocationKind::kKernel) {
    return KernelIdentity(profile, mapping, location);
  }
  if (named) return ChainIdentity(profile, mapping, location);
  if (in_file && mapping.file != StringId()) return FileIdentity(profile, mapping, location);
  HashInput input(IdentityForm::kAddress);
  input.Text(profile.String(mapping.file));
  input.Word(location.address);
  return input.Hash();
}

base::Hash128 IdentityOf(std::span<const base::Hash128> locations) {
  static_assert(sizeof(base::Hash128) == 16);
  return base::HashBytes128(
      {reinterpret_cast<const char*>(locations.data()), locations.size_bytes()});
}

}  // namespace firewatch::profile
