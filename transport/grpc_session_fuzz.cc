// SPDX-License-Identifier: Apache-2.0
// Any bytes as those of a server, in pieces, while a call is under way: an error, a result or
// nothing yet; what is left to send stays bounded. The first byte says how large the pieces are.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/check.h"
#include "transport/grpc_session.h"

using firewatch::transport::GrpcSession;

namespace {
constexpr size_t kMaxAnswer = 64;
constexpr int kMaxOutputs = 10'000;

bool Drain(GrpcSession& session) {
  for (int i = 0; i < kMaxOutputs; ++i) {
    const auto output = session.TakeOutput();
    if (!output.ok()) return false;
    if (output->empty()) return true;
  }
  CHECK(false);
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const size_t piece = data[0] + size_t{1};
  std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  auto session = GrpcSession::Create({.authority = "a:1", .max_answer_bytes = kMaxAnswer});
  CHECK(session.ok());
  const std::string message(100, 'm');
  CHECK((*session)->Begin("/p.S/M", message, 1000).ok());
  while (!bytes.empty() && Drain(**session) && !(*session)->done()) {
    if (!(*session)->Feed(bytes.substr(0, piece)).ok()) return 0;
    bytes.remove_prefix(std::min(piece, bytes.size()));
  }
  if (!(*session)->done()) return 0;
  const auto result = (*session)->TakeResult();
  CHECK(!result.ok() || result->size() <= kMaxAnswer);
  if ((*session)->usable()) (void)(*session)->Begin("/p.S/M", message, 1000);
  return 0;
}
