// SPDX-License-Identifier: Apache-2.0
#include "agent/core/config_node.h"

#include <sys/stat.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <fstream>
#include <optional>
#include <sstream>
#include <utility>

#include "base/check.h"
#include "base/hash.h"
#include "base/status.h"

namespace firewatch::agent {
namespace {

std::optional<uint64_t> ParseNumber(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

struct Unit {
  std::string_view name;
  uint64_t factor;
};

constexpr std::array<Unit, 4> kTimes = {{{"ms", 1}, {"s", 1000}, {"m", 60'000}, {"h", 3'600'000}}};
constexpr uint64_t kK = 1024;
constexpr std::array<Unit, 7> kSizes = {{{"", 1},
                                         {"K", kK},
                                         {"KiB", kK},
                                         {"M", kK* kK},
                                         {"MiB", kK* kK},
                                         {"G", kK* kK* kK},
                                         {"GiB", kK* kK* kK}}};

// A whole number and one of the units; nothing on overflow.
std::optional<uint64_t> ParseWithUnit(std::string_view text, std::span<const Unit> units) {
  const size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  const auto number = ParseNumber(text.substr(0, digits));
  for (const Unit& unit : units) {
    if (!number || text.substr(digits) != unit.name) continue;
    if (*number > UINT64_MAX / unit.factor) return std::nullopt;
    return *number * unit.factor;
  }
  return std::nullopt;
}

// In the largest unit that divides it.
std::string WithUnit(uint64_t value, std::span<const Unit> units) {
  const Unit* best = &units.front();
  for (const Unit& unit : units) {
    if (value != 0 && value % unit.factor == 0) best = &unit;
  }
  return fmt::format("{}{}", value / best->factor, best->name);
}

// Levenshtein's, for words of a few letters.
size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      const size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({above + 1, row[j - 1] + 1, replaced});
      diagonal = above;
    }
  }
  return row[b.size()];
}

// Longer words are no one's mistyped key: an edit distance costs the product of the lengths.
constexpr size_t kMaxWordBytes = 128;

}  // namespace

struct ConfigNode::Data {
  Kind kind = Kind::kMap;
  std::string text;
  std::vector<ConfigNode> items;
  std::vector<ConfigEntry> entries;
  std::shared_ptr<const std::string> file;  // or "--hz"
  int at_line = 0;                          // 0: none

  // The file's name is shared by its nodes.
  static std::shared_ptr<Data> Make(Kind kind, std::shared_ptr<const std::string> file, int line) {
    auto data = std::make_shared<Data>();
    data->kind = kind;
    data->file = std::move(file);
    data->at_line = line;
    return data;
  }
  static ConfigNode Node(std::shared_ptr<Data> data) { return ConfigNode(std::move(data)); }

  // Turns yaml-cpp's tree into ours.
  struct Builder {
    std::shared_ptr<const std::string> file;
    const ConfigLimits& limits;
    size_t nodes = 0;

    absl::Status Error(int line, std::string_view why) const {
      return base::InvalidArgument("{}:{}: {}", *file, line, why);
    }
    absl::StatusOr<ConfigNode> Build(const YAML::Node& from, int depth);
    absl::Status AddEntries(const YAML::Node& from, int depth, Data* to);
  };
};

absl::StatusOr<ConfigNode> ConfigNode::Data::Builder::Build(const YAML::Node& from, int depth) {
  const int line = from.Mark().line + 1;
  if (++nodes > limits.max_nodes) {
    return Error(line, fmt::format("more than {} values", limits.max_nodes));
  }
  if (depth > limits.max_depth) {
    return Error(line, fmt::format("nested deeper than {}", limits.max_depth));
  }
  std::shared_ptr<Data> to = Make(Kind::kMap, file, line);
  if (from.IsScalar()) {
    to->kind = Kind::kScalar;
    to->text = from.Scalar();
  } else if (from.IsSequence()) {
    to->kind = Kind::kList;
    for (const YAML::Node& item : from) {
      ASSIGN_OR_RETURN(to->items.emplace_back(), Build(item, depth + 1));
    }
  } else if (from.IsMap()) {
    RETURN_IF_ERROR(AddEntries(from, depth, to.get()));
  }
  return Node(std::move(to));
}

absl::Status ConfigNode::Data::Builder::AddEntries(const YAML::Node& from, int depth, Data* to) {
  base::StringMap<int> lines;
  for (const auto& pair : from) {
    const int line = pair.first.Mark().line + 1;
    if (!pair.first.IsScalar()) return Error(line, "a key that is no plain text");
    ConfigEntry entry{.key = pair.first.Scalar(), .value = {}, .line = line};
    if (const auto [seen, added] = lines.try_emplace(entry.key, line); !added) {
      return Error(line,
                   fmt::format("\"{}\" is given twice, first in line {}", entry.key, seen->second));
    }
    ASSIGN_OR_RETURN(entry.value, Build(pair.second, depth + 1));
    // A value's place is where its key stands: there the reader looks.
    if (entry.value.data_->at_line != line) {
      auto moved = std::make_shared<Data>(*entry.value.data_);
      moved->at_line = line;
      entry.value = Node(std::move(moved));
    }
    to->entries.push_back(std::move(entry));
  }
  return absl::OkStatus();
}

ConfigNode ConfigNode::Scalar(std::string text, std::string_view place, int line) {
  auto data = Data::Make(Kind::kScalar, std::make_shared<const std::string>(place), line);
  data->text = std::move(text);
  return ConfigNode(std::move(data));
}

ConfigNode ConfigNode::List(std::vector<ConfigNode> items, std::string_view place, int line) {
  auto data = Data::Make(Kind::kList, std::make_shared<const std::string>(place), line);
  data->items = std::move(items);
  return ConfigNode(std::move(data));
}

ConfigNode ConfigNode::Map(std::vector<ConfigEntry> entries, std::string_view place, int line) {
  auto data = Data::Make(Kind::kMap, std::make_shared<const std::string>(place), line);
  data->entries = std::move(entries);
  return ConfigNode(std::move(data));
}

ConfigNode::Kind ConfigNode::kind() const { return data_ == nullptr ? Kind::kAbsent : data_->kind; }

const std::string& ConfigNode::text() const {
  static const auto& none = *new std::string;
  return data_ == nullptr ? none : data_->text;
}

std::span<const ConfigNode> ConfigNode::items() const {
  return data_ == nullptr ? std::span<const ConfigNode>() : std::span(data_->items);
}

std::span<const ConfigEntry> ConfigNode::entries() const {
  return data_ == nullptr ? std::span<const ConfigEntry>() : std::span(data_->entries);
}

const ConfigNode* ConfigNode::Find(std::string_view key) const {
  for (const ConfigEntry& entry : entries()) {
    if (entry.key == key) return &entry.value;
  }
  return nullptr;
}

std::string ConfigNode::Place() const {
  if (data_ == nullptr) return "";
  return data_->at_line == 0 ? *data_->file : fmt::format("{}:{}", *data_->file, data_->at_line);
}

ConfigNode ConfigNode::With(std::string_view key, ConfigNode value) const {
  CHECK(kind() == Kind::kMap || kind() == Kind::kAbsent);
  CHECK(value.present());
  auto data = data_ == nullptr ? Data::Make(Kind::kMap, value.data_->file, value.data_->at_line)
                               : std::make_shared<Data>(*data_);
  for (ConfigEntry& entry : data->entries) {
    if (entry.key != key) continue;
    entry.value = std::move(value);
    return ConfigNode(std::move(data));
  }
  const int line = value.data_->at_line;
  data->entries.push_back({.key = std::string(key), .value = std::move(value), .line = line});
  return ConfigNode(std::move(data));
}

bool operator==(const ConfigNode& a, const ConfigNode& b) {
  if (a.data_ == b.data_) return true;
  // An empty section says as much as none.
  const auto is_empty = [](const ConfigNode& node) {
    return node.kind() == ConfigNode::Kind::kAbsent ||
           (node.kind() == ConfigNode::Kind::kMap && node.entries().empty());
  };
  if (is_empty(a) || is_empty(b)) return is_empty(a) && is_empty(b);
  return a.kind() == b.kind() && a.text() == b.text() && std::ranges::equal(a.items(), b.items()) &&
         std::ranges::equal(a.entries(), b.entries());
}

namespace {

// Counts documents, keeps nothing of them.
class DocumentStarts final : public YAML::EventHandler {
 public:
  std::vector<int> lines;

  void OnDocumentStart(const YAML::Mark& mark) override { lines.push_back(mark.line); }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
  void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t,
                const std::string&) override {}
  void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {}
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {}
  void OnMapEnd() override {}
};

}  // namespace

absl::StatusOr<ConfigNode> ParseConfigText(std::string_view text, std::string_view name,
                                           const ConfigLimits& limits) {
  if (text.size() > limits.max_bytes) {
    return base::InvalidArgument("{}:1: more than {} bytes", name, limits.max_bytes);
  }
  try {
    // Not YAML::LoadAll: what is left behind some broken documents (", - {a: b" is one) it takes
    // for one more document for ever, until memory is gone. Two are enough to know.
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    DocumentStarts starts;
    for (int i = 0; i < 2 && parser.HandleNextDocument(starts); ++i) {
    }
    if (starts.lines.size() > 1) {
      return base::InvalidArgument("{}:{}: a second document", name, starts.lines[1] + 1);
    }
    const YAML::Node document = YAML::Load(std::string(text));
    if (!document.IsDefined() || document.IsNull()) return ConfigNode();  // only comments
    ConfigNode::Data::Builder builder{.file = std::make_shared<const std::string>(name),
                                      .limits = limits};
    return builder.Build(document, 0);
  } catch (const YAML::Exception& error) {
    return base::InvalidArgument("{}:{}: {}", name, error.mark.line + 1, error.msg);
  }
}

absl::StatusOr<ConfigNode> ReadConfigFile(const std::string& path, const ConfigLimits& limits) {
  struct stat info{};
  if (::stat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) {
    return base::InvalidArgument("{}: cannot be read", path);
  }
  std::ifstream file(path, std::ios::binary);
  std::string text(limits.max_bytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad() || !file.is_open()) return base::InvalidArgument("{}: cannot be read", path);
  text.resize(static_cast<size_t>(file.gcount()));
  return ParseConfigText(text, path, limits);
}

std::string_view NearestWord(std::string_view word, std::span<const std::string_view> words) {
  if (words.empty()) return "";
  const std::string_view cut = word.substr(0, kMaxWordBytes);
  return *std::ranges::min_element(words, {}, [cut](std::string_view candidate) {
    return EditDistance(cut, candidate.substr(0, kMaxWordBytes));
  });
}

absl::StatusOr<uint64_t> ParseDurationMs(std::string_view text) {
  const auto value = ParseWithUnit(text, kTimes);
  if (!value) return base::InvalidArgument("\"{}\" is not a time such as 500ms, 10s, 1m", text);
  return *value;
}

absl::StatusOr<uint64_t> ParseByteSize(std::string_view text) {
  const auto value = ParseWithUnit(text, kSizes);
  if (!value) return base::InvalidArgument("\"{}\" is not a size such as 1048576, 256MiB", text);
  return *value;
}

// --- the reader ----------------------------------------------------------------------------------

ConfigReader::ConfigReader(const ConfigNode& section, std::string name)
    : section_(section), name_(std::move(name)) {
  if (section.kind() == ConfigNode::Kind::kMap || !section.present()) return;
  status_ = base::InvalidArgument("{}: {}: KEY: VALUE lines are expected", section.Place(), name_);
}

const ConfigNode* ConfigReader::Ask(std::string_view key) {
  asked_.emplace_back(key);
  return status_.ok() ? section_.Find(key) : nullptr;
}

const ConfigNode* ConfigReader::AskScalar(std::string_view key) {
  const ConfigNode* node = Ask(key);
  if (node == nullptr || node->kind() == ConfigNode::Kind::kScalar) return node;
  FailAt(*node, key, "a plain value is expected");
  return nullptr;
}

void ConfigReader::FailAt(const ConfigNode& node, std::string_view key, std::string_view message) {
  if (!status_.ok()) return;
  const std::string place = node.Place();
  // A flag says its own name.
  status_ = place.starts_with("--")
                ? base::InvalidArgument("{}: {}", place, message)
                : base::InvalidArgument("{}: {}.{}: {}", place, name_, key, message);
}

void ConfigReader::Fail(std::string_view key, std::string_view message) {
  const ConfigNode* node = section_.Find(key);
  FailAt(node == nullptr ? section_ : *node, key, message);
}

void ConfigReader::Text(std::string_view key, std::string* out) {
  const ConfigNode* node = AskScalar(key);
  if (node == nullptr) return;
  if (node->text().empty()) return FailAt(*node, key, "is empty");
  *out = node->text();
}

void ConfigReader::Bool(std::string_view key, bool* out) {
  const ConfigNode* node = AskScalar(key);
  if (node == nullptr) return;
  const std::string& text = node->text();
  const bool yes = text == "true" || text == "on";
  if (!yes && text != "false" && text != "off") {
    return FailAt(*node, key, fmt::format("\"{}\" is neither true nor false", text));
  }
  *out = yes;
}

void ConfigReader::Integer(std::string_view key, uint64_t min, uint64_t max, uint64_t* out) {
  const ConfigNode* node = AskScalar(key);
  if (node == nullptr) return;
  const auto value = ParseNumber(node->text());
  if (!value || *value < min || *value > max) {
    return FailAt(*node, key, fmt::format("{} is not in {}..{}", node->text(), min, max));
  }
  *out = *value;
}

void ConfigReader::Integer(std::string_view key, uint32_t min, uint32_t max, uint32_t* out) {
  uint64_t value = *out;
  Integer(key, uint64_t{min}, uint64_t{max}, &value);
  *out = static_cast<uint32_t>(value);
}

void ConfigReader::Number(std::string_view key, double min, double max, double* out) {
  const ConfigNode* node = AskScalar(key);
  if (node == nullptr) return;
  const std::string& text = node->text();
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = error == std::errc() && end == text.data() + text.size();
  if (!whole || !std::isfinite(value) || value < min || value > max) {
    return FailAt(*node, key, fmt::format("{} is not in {}..{}", text, min, max));
  }
  *out = value;
}

void ConfigReader::Duration(std::string_view key, uint64_t min_ms, uint64_t max_ms,
                            uint64_t* out_ms) {
  const ConfigNode* node = AskScalar(key);
  if (node == nullptr) return;
  const auto value = ParseDurationMs(node->text());
  if (!value.ok()) return FailAt(*node, key, base::Message(value.status()));
  if (*value < min_ms || *value > max_ms) {
    return FailAt(*node, key,
                  fmt::format("{} is not in {}..{}", node->text(), WithUnit(min_ms, kTimes),
                              WithUnit(max_ms, kTimes)));
  }
  *out_ms = *value;
}

void ConfigReader::Bytes(std::string_view key, uint64_t min, uint64_t max, uint64_t* out) {
  const ConfigNode* node = AskScalar(key);
  if (node == nullptr) return;
  const auto value = ParseByteSize(node->text());
  if (!value.ok()) return FailAt(*node, key, base::Message(value.status()));
  if (*value < min || *value > max) {
    return FailAt(*node, key,
                  fmt::format("{} is not in {}..{}", node->text(), WithUnit(min, kSizes),
                              WithUnit(max, kSizes)));
  }
  *out = *value;
}

void ConfigReader::OneOf(std::string_view key, std::span<const std::string_view> values,
                         std::string* out) {
  const ConfigNode* node = AskScalar(key);
  if (node == nullptr) return;
  if (std::ranges::find(values, std::string_view(node->text())) == values.end()) {
    return FailAt(*node, key,
                  fmt::format("\"{}\" is none of {}", node->text(), fmt::join(values, ", ")));
  }
  *out = node->text();
}

void ConfigReader::Texts(std::string_view key, const TakeText& take) {
  const ConfigNode* node = Ask(key);
  if (node == nullptr) return;
  if (node->kind() == ConfigNode::Kind::kMap) {
    return FailAt(*node, key, "a list of plain values is expected");
  }
  const std::span<const ConfigNode> items =
      node->kind() == ConfigNode::Kind::kList ? node->items() : std::span(node, 1);
  for (const ConfigNode& item : items) {
    if (item.kind() != ConfigNode::Kind::kScalar) {
      return FailAt(item, key, "a list of plain values is expected");
    }
    if (const absl::Status status = take(item.text()); !status.ok()) {
      return FailAt(item, key, base::Message(status));
    }
  }
}

void ConfigReader::Node(std::string_view key, const TakeNode& take) {
  const ConfigNode* node = Ask(key);
  if (node == nullptr) return;
  const absl::Status status = take(*node);
  if (status.ok()) return;
  // What begins with the file's name has a place already.
  const std::string place = node->Place();
  const std::string_view file = std::string_view(place).substr(0, place.rfind(':'));
  if (base::Message(status).starts_with(fmt::format("{}:", file))) {
    status_ = status;
  } else {
    FailAt(*node, key, base::Message(status));
  }
}

absl::Status ConfigReader::Finish() {
  if (!status_.ok()) return status_;
  const std::vector<std::string_view> known(asked_.begin(), asked_.end());
  for (const ConfigEntry& entry : section_.entries()) {
    if (std::ranges::find(known, std::string_view(entry.key)) != known.end()) continue;
    status_ =
        base::InvalidArgument("{}: unknown key \"{}\" in {}; did you mean \"{}\"?",
                              entry.value.Place(), entry.key, name_, NearestWord(entry.key, known));
    break;
  }
  return status_;
}

}  // namespace firewatch::agent
