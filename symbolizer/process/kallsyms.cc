// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/process/kallsyms.h"

#include <algorithm>
#include <charconv>
#include <system_error>
#include <utility>

namespace firewatch::symbolizer {
namespace {

constexpr size_t kMaxLineBytes = 4096;
constexpr size_t kMaxModules = 65'000;
constexpr uint64_t kMaxEntries = 8'000'000;
constexpr std::string_view kBpf = "bpf";
constexpr std::string_view kFtrace = "__builtin__ftrace";
constexpr uint64_t kModuleReach = 4096;
constexpr uint64_t kBpfReach = uint64_t{64} << 10;
constexpr uint64_t kKernelReach = uint64_t{1} << 20;

bool IsText(char type) { return type == 't' || type == 'T' || type == 'w' || type == 'W'; }

// Set by vmlinux.lds.S behind the last function of a part; not functions.
bool IsEndMarker(std::string_view name) {
  return name == "_etext" || name == "_einittext" || name == "_end" ||
         (name.starts_with("__") && name.ends_with("_text_end"));
}

uint8_t RankOf(char type) {
  if (type == 'T') return 0;
  return type == 't' ? 4 : 2;
}

// Takes the text up to `separator` off the front.
std::string_view Next(std::string_view* text, char separator) {
  const size_t end = std::min(text->find(separator), text->size());
  const std::string_view part = text->substr(0, end);
  text->remove_prefix(std::min(end + 1, text->size()));
  return part;
}

bool ParseHex(std::string_view text, uint64_t* value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value, 16);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

void KallsymsParser::Feed(std::string_view piece) {
  while (!piece.empty()) {
    const size_t newline = piece.find('\n');
    if (newline == std::string_view::npos) {
      partial_.append(piece.substr(0, kMaxLineBytes - std::min(kMaxLineBytes, partial_.size())));
      return;
    }
    if (partial_.empty()) {
      TakeLine(piece.substr(0, newline));
    } else {
      partial_.append(piece.substr(0, newline));
      TakeLine(partial_);
      partial_.clear();
    }
    piece.remove_prefix(newline + 1);
  }
}

void KallsymsParser::Finish() {
  if (!partial_.empty()) TakeLine(partial_);
  partial_.clear();
}

void KallsymsParser::TakeLine(std::string_view line) {
  ++lines_;
  line = line.substr(0, kMaxLineBytes);
  Entry entry;
  const bool address = ParseHex(Next(&line, ' '), &entry.address);
  const std::string_view type = Next(&line, ' ');
  const std::string_view name = Next(&line, '\t');
  if (!address || type.size() != 1 || name.empty() || name.size() > UINT16_MAX ||
      entries_.size() >= kMaxEntries) {
    ++malformed_;
    return;
  }
  if (entry.address == 0) return;
  ++nonzero_;
  std::string_view module = line;
  if (module.starts_with('[') && module.ends_with(']')) {
    module = module.substr(1, module.size() - 2);
  }
  entry.module = ModuleNumber(module);
  if (IsText(type[0]) && module != kFtrace && !IsEndMarker(name)) {
    entry.type = type[0];
    entry.name = static_cast<uint32_t>(names_.size());
    entry.name_size = static_cast<uint16_t>(name.size());
    names_.append(name);
  }
  entries_.push_back(entry);
}

uint16_t KallsymsParser::ModuleNumber(std::string_view name) {
  // Lines of one module follow each other, and there are a few hundred modules at most.
  if (modules_.back() == name) return static_cast<uint16_t>(modules_.size() - 1);
  const auto known = std::find(modules_.begin(), modules_.end(), name);
  if (known != modules_.end()) return static_cast<uint16_t>(known - modules_.begin());
  if (modules_.size() >= kMaxModules) return 0;
  modules_.emplace_back(name);
  return static_cast<uint16_t>(modules_.size() - 1);
}

uint64_t KallsymsParser::ReachOf(const Entry& entry,
                                 const std::vector<ModuleEnd>& module_ends) const {
  if (entry.module == 0) return kKernelReach;
  const std::string& module = modules_[entry.module];
  if (module == kBpf) return kBpfReach;
  for (const ModuleEnd& known : module_ends) {
    if (known.name == module && known.end > entry.address) return known.end - entry.address;
  }
  return kModuleReach;
}

IndexSource KallsymsParser::MakeSource(const std::vector<ModuleEnd>& module_ends) {
  std::sort(entries_.begin(), entries_.end(),
            [](const Entry& a, const Entry& b) { return a.address < b.address; });
  IndexSource source;
  source.groups = modules_;
  for (size_t i = 0, next = 0; i < entries_.size(); ++i) {
    const Entry& entry = entries_[i];
    if (next <= i) next = i + 1;
    while (next < entries_.size() && entries_[next].address == entry.address) ++next;
    if (entry.type == 0) continue;
    uint64_t reach = kKernelReach;
    if (next < entries_.size()) reach = std::min(reach, entries_[next].address - entry.address);
    // What follows in another module says nothing: it may be megabytes away.
    if (next == entries_.size() || entries_[next].module != entry.module) {
      reach = std::min(reach, ReachOf(entry, module_ends));
    }
    source.symbols.push_back({.start = entry.address,
                              .end = entry.address + std::min(reach, UINT64_MAX - entry.address),
                              .name = std::string_view(names_).substr(entry.name, entry.name_size),
                              .group = entry.module,
                              .rank = RankOf(entry.type)});
  }
  return source;
}

std::vector<KallsymsParser::ModuleEnd> ParseModules(std::string_view text) {
  std::vector<KallsymsParser::ModuleEnd> modules;
  while (!text.empty()) {
    std::string_view line = Next(&text, '\n');
    KallsymsParser::ModuleEnd module;
    module.name = Next(&line, ' ');
    const std::string_view size_text = Next(&line, ' ');
    uint64_t size = 0;
    std::from_chars(size_text.data(), size_text.data() + size_text.size(), size);
    const size_t address_at = line.rfind("0x");
    uint64_t address = 0;
    if (address_at == std::string_view::npos) continue;
    std::string_view address_text = line.substr(address_at + 2);
    if (!ParseHex(Next(&address_text, ' '), &address) || address == 0) continue;
    module.end = address + std::min(size, UINT64_MAX - address);
    modules.push_back(std::move(module));
  }
  return modules;
}

}  // namespace firewatch::symbolizer
