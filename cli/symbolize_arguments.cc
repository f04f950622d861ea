// SPDX-License-Identifier: Apache-2.0
// A table of flags. llvm-symbolizer takes --name value, --name=value, one dash as well as two for
// some, and groups of short flags (-afi): CLI11 has no such grammar.
#include "cli/symbolize_arguments.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "base/status.h"

namespace firewatch::cli {
namespace {

enum class Flag : uint8_t {
  kModule,
  kBuildId,
  kStandardInput,
  kStyle,
  kFunctions,
  kInlines,
  kNoInlines,
  kDemangle,
  kNoDemangle,
  kAddresses,
  kPretty,
  kBaseNames,
  kRelativeNames,
  kVerbose,
  kSourceLines,
  kAdjustVma,
  kDebugDirectory,
  kDwp,
  kCache,
  kNoCache,
  kBuildIndex,
  kFileOffsets,
  kDetails,
  kNoLines,
  kThreads,
  kHelp,
  kVersion,
  kIgnored,      // has no meaning here, and no effect on answers
  kUnsupported,  // would change answers: refused
};

enum class Value : uint8_t { kNone, kNeeded, kJoinedOnly, kBoolean };

struct FlagRow {
  std::string_view name;  // without dashes
  Flag flag;
  Value value;
};

// kJoinedOnly: "--functions short" would take an address for the value, as in llvm-symbolizer.
constexpr FlagRow kFlags[] = {
    {"exe", Flag::kModule, Value::kNeeded},
    {"obj", Flag::kModule, Value::kNeeded},
    {"e", Flag::kModule, Value::kNeeded},
    {"build-id", Flag::kBuildId, Value::kNeeded},
    {"stdin", Flag::kStandardInput, Value::kNone},
    {"output-style", Flag::kStyle, Value::kNeeded},
    {"functions", Flag::kFunctions, Value::kJoinedOnly},
    {"f", Flag::kFunctions, Value::kJoinedOnly},
    {"inlines", Flag::kInlines, Value::kNone},
    {"inlining", Flag::kInlines, Value::kBoolean},
    {"i", Flag::kInlines, Value::kNone},
    {"no-inlines", Flag::kNoInlines, Value::kNone},
    {"demangle", Flag::kDemangle, Value::kBoolean},
    {"C", Flag::kDemangle, Value::kNone},
    {"no-demangle", Flag::kNoDemangle, Value::kNone},
    {"addresses", Flag::kAddresses, Value::kNone},
    {"print-address", Flag::kAddresses, Value::kNone},
    {"a", Flag::kAddresses, Value::kNone},
    {"pretty-print", Flag::kPretty, Value::kNone},
    {"p", Flag::kPretty, Value::kNone},
    {"basenames", Flag::kBaseNames, Value::kNone},
    {"s", Flag::kBaseNames, Value::kNone},
    {"verbose", Flag::kVerbose, Value::kNone},
    {"print-source-context-lines", Flag::kSourceLines, Value::kNeeded},
    {"adjust-vma", Flag::kAdjustVma, Value::kNeeded},
    {"debug-file-directory", Flag::kDebugDirectory, Value::kNeeded},
    {"fallback-debug-path", Flag::kDebugDirectory, Value::kNeeded},
    {"dwp", Flag::kDwp, Value::kNeeded},
    {"cache", Flag::kCache, Value::kNeeded},
    {"no-cache", Flag::kNoCache, Value::kNone},
    {"build-index", Flag::kBuildIndex, Value::kNone},
    {"file-offsets", Flag::kFileOffsets, Value::kNone},
    {"details", Flag::kDetails, Value::kNone},
    {"no-lines", Flag::kNoLines, Value::kNone},
    {"threads", Flag::kThreads, Value::kNeeded},
    {"help", Flag::kHelp, Value::kNone},
    {"h", Flag::kHelp, Value::kNone},
    {"version", Flag::kVersion, Value::kNone},
    {"v", Flag::kVersion, Value::kNone},
    {"default-arch", Flag::kIgnored, Value::kNeeded},
    {"dsym-hint", Flag::kIgnored, Value::kNeeded},
    {"cache-size", Flag::kIgnored, Value::kNeeded},
    {"color", Flag::kIgnored, Value::kJoinedOnly},
    {"no-debuginfod", Flag::kIgnored, Value::kNone},
    {"no-untag-addresses", Flag::kIgnored, Value::kNone},
    {"debuginfod", Flag::kUnsupported, Value::kNone},
    {"dia", Flag::kUnsupported, Value::kNone},
    {"filter-markup", Flag::kUnsupported, Value::kNone},
    {"relative-address", Flag::kUnsupported, Value::kNone},
    {"relativenames", Flag::kRelativeNames, Value::kNone},
};

const FlagRow* FindFlag(std::string_view name) {
  const auto* row = std::ranges::find(kFlags, name, &FlagRow::name);
  return row == std::end(kFlags) ? nullptr : row;
}

// Reads arguments one by one.
class Parser {
 public:
  explicit Parser(std::span<const std::string_view> arguments) : arguments_(arguments) {}

  absl::StatusOr<SymbolizeOptions> Run() {
    bool only_addresses = false;
    while (next_ < arguments_.size()) {
      const std::string_view argument = arguments_[next_++];
      if (only_addresses || argument.size() < 2 || argument[0] != '-') {
        options_.addresses.emplace_back(argument);
      } else if (argument == "--") {
        only_addresses = true;
      } else {
        RETURN_IF_ERROR(TakeFlag(argument));
      }
    }
    if (!options_.module.empty() && !options_.build_id.empty()) {
      return base::InvalidArgument("cannot specify both --build-id and --obj");
    }
    if (standard_input_ && !options_.addresses.empty()) {
      return base::InvalidArgument("--stdin and addresses ('{}') exclude one another",
                                   options_.addresses.front());
    }
    return std::move(options_);
  }

 private:
  absl::Status TakeFlag(std::string_view argument) {
    const bool two_dashes = argument[1] == '-';
    std::string_view name = argument.substr(two_dashes ? 2 : 1);
    std::optional<std::string_view> value;
    if (const size_t equals = name.find('='); equals != std::string_view::npos) {
      value = name.substr(equals + 1);
      name = name.substr(0, equals);
    }
    const FlagRow* row = FindFlag(name);
    if (row == nullptr && !two_dashes && !value.has_value()) return TakeGroup(argument);
    if (row == nullptr || (value.has_value() && row->value == Value::kNone)) {
      return base::InvalidArgument("unknown argument '{}'", argument);
    }
    const std::string_view spelled = argument.substr(0, argument.find('='));
    if (row->value == Value::kNeeded && !value.has_value()) {
      if (next_ >= arguments_.size()) {
        return base::InvalidArgument("{}: missing argument", spelled);
      }
      value = arguments_[next_++];
    }
    return Apply(*row, spelled, value);
  }

  // -afi is -a -f -i.
  absl::Status TakeGroup(std::string_view argument) {
    for (size_t i = 1; i < argument.size(); ++i) {
      const FlagRow* row = FindFlag(argument.substr(i, 1));
      if (row == nullptr || (row->value == Value::kNeeded && i + 1 < argument.size())) {
        return base::InvalidArgument("unknown argument '{}'", argument);
      }
    }
    for (size_t i = 1; i < argument.size(); ++i) {
      RETURN_IF_ERROR(TakeFlag(std::string("-") + argument[i]));
    }
    return absl::OkStatus();
  }

  absl::Status Apply(const FlagRow& row, std::string_view spelled,
                     std::optional<std::string_view> value) {
    const std::string_view text = value.value_or("");
    if (row.value == Value::kBoolean && value.has_value() && text != "true" && text != "false") {
      return base::InvalidArgument("{}: expected true or false, but got '{}'", spelled, text);
    }
    const bool on = text != "false";
    switch (row.flag) {
      case Flag::kModule:
        if (text.empty()) return base::InvalidArgument("{}: expected a file name", spelled);
        options_.module = text;
        break;
      case Flag::kBuildId:
        options_.build_id = NormalizeBuildId(text);
        if (options_.build_id.empty()) {
          return base::InvalidArgument("{}: expected a build ID, but got '{}'", spelled, text);
        }
        break;
      case Flag::kStandardInput:
        standard_input_ = true;
        break;
      case Flag::kStyle:
        return TakeStyle(spelled, text);
      case Flag::kFunctions:
        return TakeFunctions(spelled, value);
      case Flag::kInlines:
        options_.inlines = on;
        break;
      case Flag::kNoInlines:
        options_.inlines = false;
        break;
      case Flag::kDemangle:
        options_.demangle = on;
        break;
      case Flag::kNoDemangle:
        options_.demangle = false;
        break;
      case Flag::kAddresses:
        options_.print_addresses = true;
        break;
      case Flag::kPretty:
        options_.pretty = true;
        break;
      case Flag::kBaseNames:
        options_.paths = FilePaths::kBaseNames;
        break;
      case Flag::kRelativeNames:
        options_.paths = FilePaths::kRelative;
        break;
      case Flag::kVerbose:
        options_.verbose = true;
        break;
      case Flag::kSourceLines:
        return TakeNumber(spelled, text, &options_.source_lines);
      case Flag::kAdjustVma:
        return TakeNumber(spelled, text, &options_.adjust_vma);
      case Flag::kDebugDirectory:
        options_.debug_directories.emplace_back(text);
        break;
      case Flag::kDwp:
        options_.dwp = text;
        break;
      case Flag::kCache:
        options_.cache_directory = text;
        break;
      case Flag::kNoCache:
        options_.use_cache = false;
        break;
      case Flag::kBuildIndex:
        options_.build_index = true;
        break;
      case Flag::kFileOffsets:
        options_.file_offsets = true;
        break;
      case Flag::kDetails:
        options_.details = true;
        break;
      case Flag::kNoLines:
        options_.lines = false;
        break;
      case Flag::kThreads:
        return TakeNumber(spelled, text, &options_.threads);
      case Flag::kHelp:
        options_.help = true;
        break;
      case Flag::kVersion:
        options_.version = true;
        break;
      case Flag::kIgnored:
        break;
      case Flag::kUnsupported:
        return base::InvalidArgument("{} is llvm-symbolizer's, but not supported here", spelled);
    }
    return absl::OkStatus();
  }

  absl::Status TakeStyle(std::string_view spelled, std::string_view text) {
    if (text == "LLVM") {
      options_.style = SymbolizeStyle::kLlvm;
    } else if (text == "GNU") {
      options_.style = SymbolizeStyle::kGnu;
    } else if (text == "JSON") {
      options_.style = SymbolizeStyle::kJson;
    } else {
      return base::InvalidArgument("{}: expected LLVM, GNU or JSON, but got '{}'", spelled, text);
    }
    return absl::OkStatus();
  }

  absl::Status TakeFunctions(std::string_view spelled, std::optional<std::string_view> value) {
    if (!value.has_value() || *value == "linkage") {
      options_.functions = FunctionNames::kLinkage;
    } else if (*value == "short") {
      options_.functions = FunctionNames::kShort;
    } else if (*value == "none") {
      options_.functions = FunctionNames::kNone;
    } else {
      return base::InvalidArgument("{}: expected none, short or linkage, but got '{}'", spelled,
                                   *value);
    }
    return absl::OkStatus();
  }

  template <typename Number>
  absl::Status TakeNumber(std::string_view spelled, std::string_view text, Number* number) {
    const std::optional<uint64_t> value = ParseNumber(text);
    if (!value.has_value() || *value > std::numeric_limits<Number>::max()) {
      return base::InvalidArgument("{}: expected a non-negative integer, but got '{}'", spelled,
                                   text);
    }
    *number = static_cast<Number>(*value);
    return absl::OkStatus();
  }

  const std::span<const std::string_view> arguments_;
  size_t next_ = 0;
  SymbolizeOptions options_;
  bool standard_input_ = false;
};

}  // namespace

absl::StatusOr<SymbolizeOptions> ParseSymbolizeArguments(
    std::span<const std::string_view> arguments) {
  return Parser(arguments).Run();
}

std::string_view SymbolizeHelp() {
  return R"(usage: firewatch symbolize [--exe FILE] [FLAGS] [ADDRESS...]

Functions, inlined ones too, and source lines of addresses of an ELF file; takes llvm-symbolizer's
flags and prints its forms. Without addresses, lines of standard input: [CODE] [FILE] ADDRESS.

  -e, --exe, --obj FILE        the file; without it each line names one (FILE, "FILE", FILE:FILE)
  --build-id HEX               the file by build id (BUILDID:HEX on a line)
  --stdin                      read lines, as without addresses
  --output-style LLVM|GNU|JSON form of the answers (LLVM)
  -f, --functions[=none|short|linkage]
  -i, --inlines, --no-inlines  all inlined frames (default), or one
  -C, --demangle, --no-demangle
  -a, --addresses              print the address first
  -p, --pretty-print           a line per frame
  -s, --basenames              file names without directories
  --relativenames              paths without the directory of compilation
  --verbose                    where functions begin, too
  --print-source-context-lines N
  --adjust-vma N               added to each address
  --debug-file-directory DIR   where to look for debug files before /usr/lib/debug; can be repeated
  --dwp FILE                   package of split DWARF

Not llvm-symbolizer's:
  --cache DIR                  where indexes are kept (default $XDG_CACHE_HOME/firewatch/symbols)
  --no-cache                   neither use nor save an index
  --build-index                build the index first, however few addresses are asked for
  --file-offsets               addresses are offsets in the file, as in Firewatch's profiles
  --no-lines                   functions of the symbol tables alone, without files and lines: the
                               quickest answer from a large debug file
  --details                    JSON with "Flags" and "Aliases" of each frame
  --threads N                  for building an index (default: all CPUs)
)";
}

}  // namespace firewatch::cli
