// SPDX-License-Identifier: Apache-2.0
// Writes a jitdump record by record.
#pragma once

#include <elf.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace firewatch::symbolizer {

class JitDumpBuilder {
 public:
  struct Line {
    uint64_t address;
    uint32_t line;
    std::string file;
  };

  JitDumpBuilder() { Header(0x4A695444, 1, EM_X86_64); }
  void Header(uint32_t magic, uint32_t version, uint32_t machine) {
    bytes_.clear();
    Put32({magic, version, 40, machine, 0, 1});
    Put64({0, 0});
  }
  void Load(uint64_t address, uint64_t size, std::string_view name, size_t code_bytes) {
    const size_t at = Begin(0);
    Put32({1, 1});
    Put64({address, address, size, 0});
    bytes_.append(name).push_back('\0');
    bytes_.append(code_bytes, '\xcc');
    End(at);
  }
  void Move(uint64_t from, uint64_t to, uint64_t size) {
    const size_t at = Begin(1);
    Put32({1, 1});
    Put64({to, from, to, size, 0});
    End(at);
  }
  void DebugInfo(uint64_t address, const std::vector<Line>& lines) {
    const size_t at = Begin(2);
    Put64({address, lines.size()});
    for (const Line& line : lines) {
      Put64({line.address});
      Put32({line.line, 0});
      bytes_.append(line.file).push_back('\0');
    }
    End(at);
  }
  void Close() { End(Begin(3)); }
  size_t Begin(uint32_t id) {
    const size_t at = bytes_.size();
    Put32({id, 0});
    Put64({1});
    return at;
  }
  void End(size_t at) {
    const auto size = static_cast<uint32_t>(bytes_.size() - at);
    std::memcpy(bytes_.data() + at + 4, &size, sizeof(size));
  }
  void Put32(std::initializer_list<uint32_t> words) {
    for (const uint32_t word : words) {
      bytes_.append(reinterpret_cast<const char*>(&word), sizeof(word));
    }
  }
  void Put64(const std::vector<uint64_t>& words) {
    for (const uint64_t word : words) {
      bytes_.append(reinterpret_cast<const char*>(&word), sizeof(word));
    }
  }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

}  // namespace firewatch::symbolizer
