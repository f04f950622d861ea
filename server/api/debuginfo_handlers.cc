// SPDX-License-Identifier: Apache-2.0
#include "server/api/debuginfo_handlers.h"

#include "base/status.h"
#include "server/api/answers.h"
#include "server/debuginfo/upload.h"
#include "server/query/request_query.h"
#include "transport/json_writer.h"

namespace firewatch::server {
namespace {

using transport::HttpRequest;
using transport::HttpResponse;
using transport::JsonWriter;

absl::Status CheckOn(const ApiContext& context) {
  if (context.debuginfo != nullptr) return absl::OkStatus();
  return base::NotFound("this server keeps no debug information");
}

void WriteEntry(const DebugInfoEntry& entry, JsonWriter& json) {
  json.BeginObject().Key("build_id").Value(entry.id.ToHex()).Key("path").Value(entry.path);
  // What is there for others has no names of its own.
  const bool is_common = entry.files.size() == 1 && entry.files[0].kind == FileKind::kCommon;
  json.Key("state").Value(is_common ? "common" : NamesStateText(entry.state));
  json.Key("lines").Value(entry.has_lines);
  if (!entry.missing_common.empty()) {
    json.Key("missing_common").Value(entry.missing_common.ToHex());
  }
  json.Key("reason").Value(entry.reason).Key("files").BeginArray();
  for (const StoredFile& file : entry.files) {
    json.BeginObject().Key("kind").Value(FileKindText(file.kind));
    json.Key("source").Value(FileSourceText(file.source)).Key("bytes").Value(file.bytes);
    json.Key("stored_ms").Value(file.stored_ms).Key("used_ms").Value(file.used_ms).EndObject();
  }
  json.EndArray().EndObject();
}

}  // namespace

absl::StatusOr<HttpResponse> HandleDebugInfoList(const ApiContext& context,
                                                 const HttpRequest& request) {
  RETURN_IF_ERROR(CheckOn(context));
  RETURN_IF_ERROR(CheckParameters(request, {}));
  const DebugInfo& debuginfo = *context.debuginfo;
  JsonWriter json;
  json.BeginObject().Key("bytes").Value(debuginfo.files().total_bytes());
  json.Key("max_bytes").Value(debuginfo.files().options().max_bytes);
  json.Key("max_file_bytes").Value(debuginfo.files().options().max_file_bytes);
  json.Key("binaries").BeginArray();
  for (const DebugInfoEntry& entry : debuginfo.List()) WriteEntry(entry, json);
  json.EndArray().EndObject();
  return JsonOf(std::move(json));
}

absl::StatusOr<HttpResponse> HandleDebugInfo(const ApiContext& context,
                                             const HttpRequest& request) {
  RETURN_IF_ERROR(CheckOn(context));
  RETURN_IF_ERROR(CheckParameters(request, {}));
  const symbolizer::BuildId id = BuildIdOfPath(request.path);
  if (id.empty()) {
    return base::InvalidArgument(
        "the path does not end in a build id of 1 to 20 bytes in "
        "hexadecimal");
  }
  if (request.method == "DELETE") {
    RETURN_IF_ERROR(context.debuginfo->Delete(id));
    return HttpResponse{.status = 204};
  }
  DebugInfoEntry entry = context.debuginfo->EntryOf(id);
  for (const StoredFile& file : context.debuginfo->files().List()) {
    if (file.id == id) entry.files.push_back(file);
  }
  JsonWriter json;
  WriteEntry(entry, json);
  return JsonOf(std::move(json));
}

}  // namespace firewatch::server
