// SPDX-License-Identifier: Apache-2.0
#include "cli/symbolize.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "base/unique_fd.h"
#include "cli/cache_directory.h"
#include "cli/line_reader.h"
#include "cli/symbolize_arguments.h"
#include "cli/symbolize_format.h"
#include "cli/symbolize_input.h"
#include "cli/symbolize_module.h"
#include "cli/symbolize_names.h"
#include "symbolizer/index_build.h"

namespace firewatch::cli {
namespace {

constexpr std::string_view kProgram = "firewatch symbolize";
constexpr uint64_t kMaxCacheBytes = uint64_t{1} << 30;  // as the agent's
constexpr size_t kMaxSourceBytes = size_t{64} << 20;
constexpr size_t kFlushBytes = size_t{1} << 18;
constexpr size_t kMaxBatch = 4096;  // questions that are answered together

bool WriteAll(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(STDOUT_FILENO, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    text.remove_prefix(static_cast<size_t>(written));
  }
  return true;
}

// "path: reason" -> "reason": llvm-symbolizer's errors have the path in front, in quotes.
std::string_view ReasonOf(const absl::Status& status, std::string_view path) {
  std::string_view message = base::Message(status);
  if (message.starts_with(path)) {
    message.remove_prefix(path.size());
    if (message.starts_with(": ")) message.remove_prefix(2);
  }
  return message;
}

void PrintError(std::string_view subject, std::string_view message) {
  fmt::print(stderr, "{}: error: '{}': {}\n", kProgram, subject, message);
}

// The last source file that was asked for.
class SourceFile {
 public:
  std::optional<std::string_view> Read(std::string_view file) {
    if (file != name_) {
      name_ = file;
      known_ = Load();
    }
    return known_ ? std::optional<std::string_view>(text_) : std::nullopt;
  }

 private:
  bool Load() {
    text_.clear();
    // A name from a file of strangers: O_NONBLOCK, or a FIFO there would be waited for.
    const base::UniqueFd fd(::open(name_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
    struct stat info{};
    if (!fd.valid() || ::fstat(fd.get(), &info) != 0 || !S_ISREG(info.st_mode)) return false;
    text_.resize(std::min(static_cast<size_t>(info.st_size), kMaxSourceBytes));
    const ssize_t got = ::pread(fd.get(), text_.data(), text_.size(), 0);
    text_.resize(got > 0 ? static_cast<size_t>(got) : 0);
    return got > 0;
  }

  std::string name_;
  std::string text_;
  bool known_ = false;
};

class Session {
 public:
  explicit Session(SymbolizeOptions options)
      : options_(std::move(options)),
        printer_({.style = options_.style,
                  .functions = options_.functions != FunctionNames::kNone,
                  .addresses = options_.print_addresses,
                  .pretty = options_.pretty,
                  .verbose = options_.verbose,
                  .source_lines = options_.source_lines,
                  .read_source = [this](std::string_view file) { return source_.Read(file); }},
                 &out_) {}

  int Run() {
    OpenCache();
    if (!options_.module.empty()) {
      SymbolizeRequest request{.module = options_.module, .offset = 0};
      const auto opened = ModuleOf(request);
      if (!opened.ok()) {
        const std::string_view reason = ReasonOf(opened.status(), options_.module);
        PrintError(options_.module, reason);
        if (options_.style == SymbolizeStyle::kJson) printer_.Failure(request, reason);
        (void)Flush();
        return 1;
      }
    }
    if (!options_.addresses.empty()) {
      printer_.BeginList();
      for (const std::string& address : options_.addresses) questions_.push_back({.line = address});
      AnswerAll();
      printer_.EndList();
      return Flush() ? 0 : 1;
    }
    LineReader lines(STDIN_FILENO);
    const auto before_wait = [this] {
      AnswerAll();
      return Flush();
    };
    while (const std::optional<std::string_view> line = lines.Next(before_wait)) {
      questions_.push_back({.line = std::string(*line)});
      if (questions_.size() < kMaxBatch) continue;
      AnswerAll();
      if (out_.size() > kFlushBytes && !Flush()) return 1;
    }
    AnswerAll();
    return Flush() ? 0 : 1;
  }

 private:
  void OpenCache() {
    if (!options_.use_cache) return;
    const bool given = !options_.cache_directory.empty();
    auto cache = symbolizer::IndexCache::Open(
        given ? options_.cache_directory : DefaultCacheDirectory(), kMaxCacheBytes);
    if (cache.ok()) {
      cache_ = *std::move(cache);
    } else if (given) {
      fmt::print(stderr, "{}: warning: {}\n", kProgram, base::Message(cache.status()));
    }
  }

  // Opened once; a failure is remembered, too.
  absl::StatusOr<SymbolizeModule*> ModuleOf(const SymbolizeRequest& request) {
    const std::string key =
        request.build_id.empty() ? "f" + request.module : "b" + request.build_id;
    auto found = modules_.find(key);
    if (found == modules_.end()) {
      auto opened = request.build_id.empty()
                        ? SymbolizeModule::Open(request.module, options_, cache_.get())
                        : SymbolizeModule::OpenBuildId(request.build_id, options_, cache_.get());
      if (opened.ok() && options_.build_index) {
        if (const absl::Status built = (*opened)->BuildIndex(); !built.ok()) opened = built;
      }
      found = modules_.emplace(key, std::move(opened)).first;
    }
    if (!found->second.ok()) return found->second.status();
    return found->second->get();
  }

  struct Question {
    std::string line;
    SymbolizeRequest request;
    absl::Status status;                // of reading the line, then of opening the file
    SymbolizeModule* module = nullptr;  // null: there is nothing to look up
    std::optional<uint64_t> vaddr;      // of an address that lies in the file
  };

  // All that wait: what one file is asked for is looked up at once.
  void AnswerAll() {
    std::map<SymbolizeModule*, std::vector<uint64_t>> asked;
    for (Question& question : questions_) {
      Read(&question);
      if (question.vaddr.has_value()) asked[question.module].push_back(*question.vaddr);
    }
    for (auto& [module, addresses] : asked) module->Prepare(std::move(addresses));
    for (const Question& question : questions_) Answer(question);
    questions_.clear();
  }

  void Read(Question* question) {
    SymbolizeRequest& request = question->request;
    question->status =
        ParseSymbolizeLine(question->line, options_.module, options_.build_id, &request);
    if (!question->status.ok() || request.kind != SymbolizeRequest::Kind::kCode) return;
    const auto module = ModuleOf(request);
    question->status = module.status();
    if (!module.ok()) return;
    question->module = *module;
    if (!request.symbol.empty()) return;
    const uint64_t address = *request.offset - options_.adjust_vma;
    question->vaddr = options_.file_offsets ? (*module)->VaddrOf(address) : address;
  }

  void Answer(const Question& question) {
    const SymbolizeRequest& request = question.request;
    if (!request.offset.has_value()) {
      if (!question.line.empty()) PrintError(question.line, base::Message(question.status));
      printer_.Frames(request, {});
    } else if (request.kind != SymbolizeRequest::Kind::kCode) {
      PrintError(question.line, "variables are not kept here, only functions");
      printer_.Frames(request, {});
    } else if (question.module == nullptr) {
      const std::string_view reason = ReasonOf(question.status, request.module);
      // JSON has the reason in the answer.
      if (options_.style != SymbolizeStyle::kJson) PrintError(request.module, reason);
      printer_.Failure(request, reason);
    } else if (!request.symbol.empty()) {
      AnswerSymbol(*question.module, request);
    } else if (!question.vaddr.has_value()) {
      printer_.Frames(request, {});
    } else {
      AnswerAddress(*question.module, request, *question.vaddr);
    }
    if (question.module != nullptr) Warn(request, *question.module);
  }

  void AnswerAddress(SymbolizeModule& module, const SymbolizeRequest& request, uint64_t vaddr) {
    const std::span<const ModuleFrame> frames = module.Find(vaddr);
    shown_.clear();
    texts_.clear();
    if (options_.inlines) {
      for (const ModuleFrame& frame : frames) shown_.push_back(Shown(frame, frame));
    } else if (!frames.empty()) {
      shown_.push_back(OnlyFrame(frames));
    }
    if (options_.details) AddDetails(module, frames, vaddr);
    printer_.Frames(request, shown_);
  }

  void AnswerSymbol(SymbolizeModule& module, const SymbolizeRequest& request) {
    shown_.clear();
    texts_.clear();
    for (const uint64_t start : module.AddressesOf(request.symbol)) {
      const std::span<const ModuleFrame> frames = module.Find(start + *request.offset);
      if (!frames.empty()) shown_.push_back(OnlyFrame(frames));
    }
    printer_.Places(request, shown_);
  }

  // Without inlined frames: the innermost place, and the physical function; GNU's form has the
  // inlined function there.
  SourceFrame OnlyFrame(std::span<const ModuleFrame> frames) {
    const bool gnu = options_.style == SymbolizeStyle::kGnu;
    return Shown(gnu ? frames.front() : frames.back(), frames.front());
  }

  // The function of one frame with the place of another one (the same, or the innermost one where
  // inlined frames are not shown).
  SourceFrame Shown(const ModuleFrame& function, const ModuleFrame& place) {
    std::string_view name = options_.demangle ? function.display : function.linkage;
    if (options_.functions == FunctionNames::kShort) {
      name = texts_.emplace_back(BareName(function.display));
    }
    std::string_view file = place.file;
    if (options_.paths == FilePaths::kBaseNames) {
      if (const size_t slash = file.rfind('/'); slash != std::string_view::npos) {
        file.remove_prefix(slash + 1);
      }
    }
    return {.function = name,
            .file = file,
            .line = place.line,
            .start_line = place.start_line,
            .start_address = function.start_address};
  }

  void AddDetails(SymbolizeModule& module, std::span<const ModuleFrame> frames, uint64_t vaddr) {
    const std::span<const ModuleFrame> told =
        options_.inlines ? frames : frames.last(shown_.size());
    details_.resize(told.size());
    for (size_t i = 0; i < told.size(); ++i) {
      details_[i].flags = FlagNames(told[i].flags);
      shown_[i].details = &details_[i];
    }
    // Aliases are the physical function's.
    if (!told.empty()) details_.back().aliases = module.AliasesOf(vaddr, options_.demangle);
  }

  void Warn(const SymbolizeRequest& request, const SymbolizeModule& module) {
    if (module.note().empty() || !warned_.emplace(request.module, true).second) return;
    fmt::print(stderr, "{}: warning: '{}': {}\n", kProgram, request.module, module.note());
  }

  bool Flush() {
    const bool written = WriteAll(out_);
    out_.clear();
    return written;
  }

  const SymbolizeOptions options_;
  std::string out_;
  SourceFile source_;
  SymbolizePrinter printer_;
  std::unique_ptr<symbolizer::IndexCache> cache_;
  std::map<std::string, absl::StatusOr<std::unique_ptr<SymbolizeModule>>> modules_;
  std::map<std::string, bool> warned_;
  std::vector<Question> questions_;
  // Of the answer that is being made.
  std::vector<SourceFrame> shown_;
  std::vector<FrameDetails> details_;
  std::deque<std::string> texts_;
};

}  // namespace

int RunSymbolize(std::span<const std::string_view> arguments) {
  absl::StatusOr<SymbolizeOptions> options = ParseSymbolizeArguments(arguments);
  if (!options.ok()) {
    fmt::print(stderr, "{}: error: {}\n", kProgram, base::Message(options.status()));
    return 1;
  }
  if (options->help) {
    fmt::print("{}", SymbolizeHelp());
    return 0;
  }
  if (options->version) {
    // The first line is what build systems look for.
    fmt::print("llvm-symbolizer compatible: firewatch symbolize {}\n", FIREWATCH_VERSION);
    return 0;
  }
  symbolizer::ReturnLargeBlocks();
  return Session(*std::move(options)).Run();
}

}  // namespace firewatch::cli
