// SPDX-License-Identifier: Apache-2.0
// Settings as a tree of plain values that know where they stand, and a reader that turns a map of
// them into options: every error names the place, the key and what would have been right.
//
//   absl::StatusOr<NetworkOptions> ParseOptions(const ConfigSection& section) {
//     NetworkOptions options;
//     ConfigReader reader(section, "network");
//     reader.Integer("top", 1, 10'000, &options.top);
//     reader.Duration("interval", 100, 60'000, &options.interval_ms);
//     RETURN_IF_ERROR(reader.Finish());   // "agent.yaml:7: unknown key "tpo" in network; did …"
//     return options;
//   }
//
// yaml-cpp ends in config_node.cc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace firewatch::agent {

struct ConfigEntry;

struct ConfigLimits {
  size_t max_bytes = size_t{4} << 20;
  size_t max_nodes = 200'000;  // after aliases have been followed: no bomb of anchors
  int max_depth = 16;
};

// One value of a file (or of a flag, or of the body of a request) with its place. A value type:
// copies share one immutable tree. The default one is absent: a map without entries.
class ConfigNode {
 public:
  enum class Kind : uint8_t { kAbsent, kScalar, kList, kMap };

  ConfigNode() = default;
  // `place`: "--hz" for a flag, a file's name with `line` (from 1) else.
  static ConfigNode Scalar(std::string text, std::string_view place, int line = 0);
  static ConfigNode List(std::vector<ConfigNode> items, std::string_view place, int line = 0);
  // Keys must differ.
  static ConfigNode Map(std::vector<ConfigEntry> entries, std::string_view place, int line = 0);

  Kind kind() const;
  bool present() const { return data_ != nullptr; }
  // Of a scalar, else "". Valid as long as any copy of the node, as the spans below.
  const std::string& text() const;
  std::span<const ConfigNode> items() const;           // of a list, else empty
  std::span<const ConfigEntry> entries() const;        // of a map, in the order of the file
  const ConfigNode* Find(std::string_view key) const;  // of a map; nullptr when there is none
  // "agent.yaml:12" or "--hz"; "" when absent.
  std::string Place() const;
  // The map with `key` set to `value` (not absent), in place of what it was; of a map or an absent
  // node.
  ConfigNode With(std::string_view key, ConfigNode value) const;

  // Same values; places do not count. A reload that changes nothing is told by this.
  friend bool operator==(const ConfigNode& a, const ConfigNode& b);

 private:
  friend absl::StatusOr<ConfigNode> ParseConfigText(std::string_view text, std::string_view name,
                                                    const ConfigLimits& limits);
  struct Data;
  explicit ConfigNode(std::shared_ptr<const Data> data) : data_(std::move(data)) {}
  std::shared_ptr<const Data> data_;
};

struct ConfigEntry {
  std::string key;
  ConfigNode value;
  int line = 0;  // of the key
  friend bool operator==(const ConfigEntry& a, const ConfigEntry& b) {
    return a.key == b.key && a.value == b.value;
  }
};

// A module's part of the settings: a map, or absent.
using ConfigSection = ConfigNode;

// YAML text of anybody; `name` is what places call it. An empty text is an absent node.
// InvalidArgument: "NAME:LINE: why": syntax, a key given twice, a key that is no plain text, and
// what is beyond `limits`.
absl::StatusOr<ConfigNode> ParseConfigText(std::string_view text, std::string_view name,
                                           const ConfigLimits& limits = {});
// The same of a file; "PATH: cannot be read" when it is not there, is no regular file or is beyond
// max_bytes.
absl::StatusOr<ConfigNode> ReadConfigFile(const std::string& path, const ConfigLimits& limits = {});

// Reads the keys of one map. A setting that is absent leaves its target as it is. The first error
// (by the order of calls) is kept, later calls do nothing; Finish tells it, or the first key that
// nobody has asked for together with the nearest one of those that were. On the stack.
class ConfigReader {
 public:
  // `name` is the map's own in messages: "network", "enforce.rules". `section` must outlive it.
  ConfigReader(const ConfigNode& section, std::string name);

  void Text(std::string_view key, std::string* out);  // not empty
  void Bool(std::string_view key, bool* out);         // true, false, on, off
  void Integer(std::string_view key, uint64_t min, uint64_t max, uint64_t* out);
  void Integer(std::string_view key, uint32_t min, uint32_t max, uint32_t* out);
  void Number(std::string_view key, double min, double max, double* out);
  void Duration(std::string_view key, uint64_t min_ms, uint64_t max_ms, uint64_t* out_ms);
  void Bytes(std::string_view key, uint64_t min, uint64_t max, uint64_t* out);
  void OneOf(std::string_view key, std::span<const std::string_view> values, std::string* out);
  // A list of plain values, or one of them by itself. Each goes to `take`, whose error is told with
  // the place of the item.
  using TakeText = std::function<absl::Status(const std::string& text)>;
  void Texts(std::string_view key, const TakeText& take);
  // Anything, e.g. a list of maps that `take` reads with readers of its own. Errors of `take` are
  // passed on as they are when they name a place (readers' do), else with the node's place.
  using TakeNode = std::function<absl::Status(const ConfigNode& node)>;
  void Node(std::string_view key, const TakeNode& take);

  // For checks of the caller between calls: "PLACE: NAME.KEY: message".
  void Fail(std::string_view key, std::string_view message);
  absl::Status Finish();

 private:
  const ConfigNode* Ask(std::string_view key);
  const ConfigNode* AskScalar(std::string_view key);
  void FailAt(const ConfigNode& node, std::string_view key, std::string_view message);

  const ConfigNode& section_;
  const std::string name_;
  std::vector<std::string> asked_;
  absl::Status status_;
};

// The word of `words` with the fewest edits to `word`; "" when there are none.
std::string_view NearestWord(std::string_view word, std::span<const std::string_view> words);

// "10s", "1m", "500ms", "2h": milliseconds.
absl::StatusOr<uint64_t> ParseDurationMs(std::string_view text);

// "1048576", "512KiB", "256MiB", "2GiB" (K, M, G for short).
absl::StatusOr<uint64_t> ParseByteSize(std::string_view text);

}  // namespace firewatch::agent
