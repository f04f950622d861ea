// SPDX-License-Identifier: Apache-2.0
#include "server/debuginfo/upload.h"

#include <zstd.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "transport/json_writer.h"

namespace firewatch::server {
namespace {

using symbolizer::BuildId;
using transport::ErrorResponse;
using transport::HttpRequest;
using transport::HttpResponse;

constexpr std::string_view kElfMagic =
    "\x7f"
    "ELF";
// What a frame may make us hold: level 19 of zstd needs 8 MiB.
constexpr int kMaxWindowLog = 24;

int HttpStatusOfUpload(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kFailedPrecondition:
      return 422;
    case absl::StatusCode::kResourceExhausted:
      return 413;
    case absl::StatusCode::kUnavailable:
      return 507;
    default:
      return 500;
  }
}

HttpResponse Refusal(const absl::Status& status) {
  return ErrorResponse(HttpStatusOfUpload(status), base::Message(status));
}

// One zstd frame, as a stream.
class Inflater {
 public:
  Inflater() : stream_(::ZSTD_createDStream(), &::ZSTD_freeDStream) {
    ::ZSTD_DCtx_setParameter(stream_.get(), ZSTD_d_windowLogMax, kMaxWindowLog);
    out_.resize(::ZSTD_DStreamOutSize());
  }
  template <typename Write>
  absl::Status Take(std::string_view piece, const Write& write) {
    ZSTD_inBuffer in{.src = piece.data(), .size = piece.size(), .pos = 0};
    bool full = false;  // there may be more to come out
    while (in.pos < in.size || full) {
      if (complete_) return base::InvalidArgument("bytes follow the zstd frame");
      ZSTD_outBuffer out{.dst = out_.data(), .size = out_.size(), .pos = 0};
      const size_t left = ::ZSTD_decompressStream(stream_.get(), &out, &in);
      if (::ZSTD_isError(left)) {
        return base::InvalidArgument("the body is no zstd frame: {}", ::ZSTD_getErrorName(left));
      }
      complete_ = left == 0;
      full = !complete_ && out.pos == out.size;
      RETURN_IF_ERROR(write(std::string_view(out_.data(), out.pos)));
    }
    return absl::OkStatus();
  }
  bool complete() const { return complete_; }

 private:
  std::unique_ptr<ZSTD_DStream, decltype(&::ZSTD_freeDStream)> stream_;
  std::vector<char> out_;
  bool complete_ = false;
};

class UploadSink final : public transport::BodySink {
 public:
  UploadSink(DebugInfo& debuginfo, std::unique_ptr<IncomingFile> file, BuildId id, FileKind kind,
             FileSource source, bool is_zstd)
      : debuginfo_(debuginfo),
        file_(std::move(file)),
        id_(std::move(id)),
        kind_(kind),
        source_(source) {
    if (is_zstd) inflater_.emplace();
  }

  std::optional<HttpResponse> Take(std::string_view piece) override {
    const auto write = [this](std::string_view bytes) { return Write(bytes); };
    const absl::Status status = inflater_ ? inflater_->Take(piece, write) : write(piece);
    if (status.ok()) return std::nullopt;
    return Refusal(status);
  }

  HttpResponse Finish() override {
    if (inflater_ && !inflater_->complete()) {
      return Refusal(base::InvalidArgument("the zstd frame is cut off"));
    }
    if (file_->size() < kElfMagic.size()) {
      return Refusal(base::InvalidArgument("the body is no ELF file"));
    }
    const absl::Status status = debuginfo_.Accept(*file_, id_, kind_, source_);
    if (!status.ok()) return Refusal(status);
    transport::JsonWriter json;
    json.BeginObject().Key("build_id").Value(id_.ToHex()).Key("kind").Value(FileKindText(kind_));
    json.Key("bytes").Value(file_->size()).EndObject();
    return {.status = 201,
            .content_type = "application/json",
            .body = std::move(json).Take(),
            .headers = {{"Cache-Control", "no-store"}}};
  }

 private:
  // What is no ELF file by its first bytes is not worth receiving.
  absl::Status Write(std::string_view bytes) {
    const size_t seen = static_cast<size_t>(file_->size());
    if (seen < kElfMagic.size()) {
      const size_t count = std::min(bytes.size(), kElfMagic.size() - seen);
      if (bytes.substr(0, count) != kElfMagic.substr(seen, count)) {
        return base::InvalidArgument("the body is no ELF file");
      }
    }
    return file_->Write(bytes);
  }

  DebugInfo& debuginfo_;
  const std::unique_ptr<IncomingFile> file_;
  const BuildId id_;
  const FileKind kind_;
  const FileSource source_;
  std::optional<Inflater> inflater_;
};

}  // namespace

BuildId BuildIdOfPath(std::string_view path) {
  if (!path.starts_with(kDebugInfoPath)) return {};
  return BuildId::FromHex(path.substr(kDebugInfoPath.size()));
}

transport::StreamStart OpenUpload(DebugInfo& debuginfo, const HttpRequest& request) {
  const auto refuse = [](int status, std::string_view text) {
    return transport::StreamStart{.sink = nullptr, .refusal = ErrorResponse(status, text)};
  };
  const BuildId id = BuildIdOfPath(request.path);
  if (id.empty()) {
    return refuse(400, "the path does not end in a build id of 1 to 20 bytes in hexadecimal");
  }
  for (const auto& [name, value] : request.query) {
    if (name != "kind" && name != "source")
      return refuse(400, "unknown parameter; known: kind, source");
  }
  const auto kind = ParseFileKind(request.Query("kind").value_or("debug"));
  if (!kind || *kind == FileKind::kCommon) return refuse(400, "kind: not one of debug, executable");
  const std::string_view source = request.Query("source").value_or("upload");
  if (source != "upload" && source != "agent")
    return refuse(400, "source: not one of upload, agent");
  const std::string_view encoding = request.Header("content-encoding");
  if (!encoding.empty() && encoding != "identity" && encoding != "zstd") {
    return refuse(400, "Content-Encoding: not one of identity, zstd");
  }
  if (debuginfo.files().options().max_bytes == 0) {
    return refuse(403, "this server keeps no debug information (--debuginfo-bytes 0)");
  }
  auto file = debuginfo.files().Receive();
  if (!file.ok()) return {.sink = nullptr, .refusal = Refusal(file.status())};
  return {.sink = std::make_unique<UploadSink>(
              debuginfo, *std::move(file), id, *kind,
              source == "agent" ? FileSource::kAgent : FileSource::kUpload, encoding == "zstd"),
          .refusal = {}};
}

}  // namespace firewatch::server
