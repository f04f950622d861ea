// SPDX-License-Identifier: Apache-2.0
#include "cli/symbolize_module.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <thread>
#include <utility>

#include "base/status.h"
#include "symbolizer/demangle.h"
#include "symbolizer/index/text.h"
#include "symbolizer/index_build.h"
#include "symbolizer/process/debug_files.h"
#include "symbolizer/symbolizer.h"

namespace firewatch::cli {
namespace {

using symbolizer::BuildId;
using symbolizer::DebugFileKind;
using symbolizer::DebugFileQuery;
using symbolizer::IndexFrame;
using symbolizer::IndexSymbol;
using symbolizer::LinesState;
using symbolizer::ObjectFacts;
using symbolizer::ObjectFiles;
using symbolizer::OpenedDebugFile;

// More memory than this for names that have been shown: they are unpacked again.
constexpr size_t kMaxNameCacheBytes = size_t{256} << 20;
// Beyond these an index pays: 1,000 addresses cost what a third of an index costs.
constexpr uint64_t kMaxColdAddresses = 2000;
constexpr double kMaxColdSeconds = 2;
// Looks at the symbols of a few addresses: one index of them costs what ten looks cost.
constexpr int kMaxNearReads = 10;

// A FIFO must not be waited for, so: is it a regular file? Then open it.
absl::StatusOr<base::UniqueFd> OpenRegular(const std::string& path) {
  const base::UniqueFd place(::open(path.c_str(), O_PATH | O_CLOEXEC));
  if (!place.valid()) return base::ErrnoStatus(errno, path);
  struct stat info{};
  if (::fstat(place.get(), &info) != 0) return base::ErrnoStatus(errno, path);
  if (S_ISDIR(info.st_mode)) return base::ErrnoStatus(EISDIR, path);
  if (!S_ISREG(info.st_mode)) {
    return base::InvalidArgument("{}: The file was not recognized as a valid object file", path);
  }
  base::UniqueFd fd(::open(fmt::format("/proc/self/fd/{}", place.get()).c_str(),
                           O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid()) return base::ErrnoStatus(errno, path);
  return fd;
}

std::string AbsolutePath(const std::string& path) {
  std::error_code error;
  std::filesystem::path real = std::filesystem::canonical(path, error);
  return error ? path : real.string();
}

std::string BuildIdPath(const std::string& directory, const std::string& hex) {
  return fmt::format("{}/.build-id/{}/{}.debug", directory, hex.substr(0, 2), hex.substr(2));
}

// The files of one query: first in the directories of --debug-file-directory, then in the usual
// places.
class DebugFileSearch {
 public:
  DebugFileSearch(DebugFileQuery query, const std::vector<std::string>& directories, int not_fd)
      : query_(std::move(query)), not_fd_(not_fd) {
    const std::string hex = query_.id.ToHex();
    for (const std::string& directory : directories) {
      if (hex.size() > 2) own_.push_back(BuildIdPath(directory, hex));
      if (query_.name.empty()) continue;
      const std::filesystem::path place(query_.path);
      own_.push_back(fmt::format("{}{}/{}", directory, place.parent_path().string(),
                                 std::filesystem::path(query_.name).filename().string()));
      own_.push_back(
          fmt::format("{}/{}", directory, std::filesystem::path(query_.name).filename().string()));
    }
  }

  // The next one; NotFound at the end.
  absl::StatusOr<OpenedDebugFile> Next() {
    while (own_next_ < own_.size()) {
      const std::string& path = own_[own_next_++];
      auto fd = OpenRegular(path);
      if (fd.ok()) return OpenedDebugFile{.fd = *std::move(fd), .path = path};
    }
    ASSIGN_OR_RETURN(OpenedDebugFile opened,
                     symbolizer::OpenDebugFile(query_, {}, not_fd_, place_));
    place_ = opened.place + 1;
    return opened;
  }

 private:
  const DebugFileQuery query_;
  const int not_fd_;
  std::vector<std::string> own_;
  size_t own_next_ = 0;
  int place_ = 0;
};

absl::StatusOr<base::UniqueFd> NewMemory() {
  base::UniqueFd fd(::memfd_create("firewatch-index", MFD_CLOEXEC));
  if (!fd.valid()) return base::ErrnoStatus(errno, "memfd_create");
  return fd;
}

}  // namespace

SymbolizeModule::SymbolizeModule(const SymbolizeOptions& options, symbolizer::IndexCache* cache)
    : options_(options), cache_(cache), found_(symbolizer::kMaxIndexFrames) {}

SymbolizeModule::~SymbolizeModule() = default;

absl::StatusOr<std::unique_ptr<SymbolizeModule>> SymbolizeModule::Open(
    const std::string& path, const SymbolizeOptions& options, symbolizer::IndexCache* cache) {
  std::unique_ptr<SymbolizeModule> module(new SymbolizeModule(options, cache));
  ASSIGN_OR_RETURN(base::UniqueFd fd, OpenRegular(path));
  RETURN_IF_ERROR(module->OpenFiles(AbsolutePath(path), std::move(fd)));
  (void)module->UseSaved();
  return module;
}

absl::StatusOr<std::unique_ptr<SymbolizeModule>> SymbolizeModule::OpenBuildId(
    const std::string& build_id, const SymbolizeOptions& options, symbolizer::IndexCache* cache) {
  std::unique_ptr<SymbolizeModule> module(new SymbolizeModule(options, cache));
  const BuildId id = BuildId::FromHex(build_id);
  if (cache != nullptr && !id.empty() && options.paths != FilePaths::kRelative) {
    if (auto saved = cache->Find(id.ToHex()); saved.ok() && saved->index.has_lines()) {
      module->index_ = saved->index;
      module->index_file_ = std::move(saved->file);
      module->symbols_opened_ = module->whole_ = true;
      return module;
    }
  }
  std::vector<std::string> directories = options.debug_directories;
  directories.push_back("/usr/lib/debug");
  for (const std::string& directory : directories) {
    if (build_id.size() <= 2) break;
    const std::string path = BuildIdPath(directory, build_id);
    auto fd = OpenRegular(path);
    if (!fd.ok()) continue;
    const absl::Status opened = module->OpenFiles(AbsolutePath(path), *std::move(fd));
    if (!opened.ok() || module->files_->facts().id != id) continue;
    return module;
  }
  return base::NotFound("could not find build ID");
}

absl::Status SymbolizeModule::OpenFiles(const std::string& path, base::UniqueFd elf) {
  path_ = path;
  elf_fd_ = std::move(elf);
  return Reopen();
}

absl::Status SymbolizeModule::Reopen() {
  symbolizer::ObjectOptions options;
  options.limits.max_symbols = uint64_t{1} << 26;
  options.limits.max_string_bytes = uint64_t{4} << 30;
  options.max_inflated_bytes = uint64_t{16} << 30;
  options.relative_paths = options_.paths == FilePaths::kRelative;
  options.open_dwo = [this](std::string_view name, std::string_view compilation_directory) {
    DebugFileSearch search({.kind = DebugFileKind::kDwo,
                            .path = path_,
                            .name = std::string(name),
                            .compilation_directory = std::string(compilation_directory),
                            .debug_path = debug_path_},
                           options_.debug_directories, elf_fd_.get());
    auto found = search.Next();
    return found.ok() ? std::move(found->fd) : base::UniqueFd();
  };
  files_.reset();
  ASSIGN_OR_RETURN(files_, ObjectFiles::Open({.elf = elf_fd_.get(),
                                              .debug = debug_fd_.get(),
                                              .alt = alt_fd_.get(),
                                              .dwp = dwp_fd_.get()},
                                             std::move(options)));
  return absl::OkStatus();
}

void SymbolizeModule::FindCompanions() {
  if (std::exchange(companions_tried_, true) || files_ == nullptr) return;
  // A copy: files_ changes below.
  const ObjectFacts facts = files_->facts();
  const std::vector<std::string>& directories = options_.debug_directories;
  if (!facts.has_dwarf && (!facts.id.empty() || !facts.debuglink.empty())) {
    DebugFileSearch search({.kind = DebugFileKind::kDebug,
                            .path = path_,
                            .id = facts.has_pseudo_id ? BuildId() : facts.id,
                            .name = facts.debuglink},
                           directories, elf_fd_.get());
    for (auto next = search.Next(); next.ok(); next = search.Next()) {
      debug_fd_ = std::move(next->fd);
      debug_path_ = next->path;
      if (Reopen().ok() && files_->debug() != nullptr) break;
      if (note_.empty() && files_ != nullptr) {
        note_ = fmt::format("{}: {}", debug_path_, base::Message(files_->companion_status()));
      }
      debug_fd_.Reset();
      debug_path_.clear();
    }
    if (debug_fd_.valid()) note_.clear();
  }
  if (files_ == nullptr || !debug_fd_.valid()) (void)Reopen();
  if (files_ == nullptr || files_->dwarf_file() == nullptr) return;

  const auto dwarf = symbolizer::ReadObjectFacts(*files_->dwarf_file());
  if (!dwarf.ok()) return;
  if (!dwarf->altlink.empty()) {
    DebugFileSearch search({.kind = DebugFileKind::kAlt,
                            .path = debug_path_.empty() ? path_ : debug_path_,
                            .id = dwarf->altlink_id,
                            .name = dwarf->altlink},
                           directories, elf_fd_.get());
    for (auto next = search.Next(); next.ok(); next = search.Next()) {
      alt_fd_ = std::move(next->fd);
      if (Reopen().ok() && files_->companion_status().ok()) break;
      alt_fd_.Reset();
    }
    if (!alt_fd_.valid()) {
      note_ = fmt::format("the common debug file {} was not found: some names are missing",
                          dwarf->altlink);
      (void)Reopen();
    }
  }
  if (!options_.dwp.empty()) {
    auto fd = OpenRegular(options_.dwp);
    if (!fd.ok()) {
      note_ = base::Message(fd.status());
      return;
    }
    dwp_fd_ = *std::move(fd);
    (void)Reopen();
  } else if (dwarf->may_be_split) {
    DebugFileSearch search({.kind = DebugFileKind::kDwp, .path = path_, .debug_path = debug_path_},
                           {}, elf_fd_.get());
    if (auto next = search.Next(); next.ok()) {
      dwp_fd_ = std::move(next->fd);
      (void)Reopen();
    }
  }
}

std::string SymbolizeModule::CacheKey() const {
  const ObjectFacts& facts = files_->facts();
  return (facts.has_pseudo_id ? "pseudo-" : "") + facts.id.ToHex();
}

// Flags that look elsewhere for debug information, or at other paths, ask for an answer of their
// own.
bool SymbolizeModule::MayShare() const {
  return cache_ != nullptr && options_.dwp.empty() && options_.debug_directories.empty() &&
         options_.paths != FilePaths::kRelative;
}

bool SymbolizeModule::UseSaved() {
  if (!MayShare()) return false;
  auto saved = cache_->Find(CacheKey());
  // One without lines is the agent's first stage, or a debug file may have come since.
  if (!saved.ok() || !saved->index.has_lines()) return false;
  index_ = saved->index;
  index_file_ = std::move(saved->file);
  symbols_opened_ = whole_ = true;
  return true;
}

absl::Status SymbolizeModule::Use(base::MappedFile file) {
  ASSIGN_OR_RETURN(index_, symbolizer::SymbolIndex::Parse(file.bytes()));
  index_file_ = std::move(file);
  names_.Clear();
  return absl::OkStatus();
}

absl::Status SymbolizeModule::WriteIndex(bool lines) {
  if (files_ == nullptr) return absl::OkStatus();
  FindCompanions();
  near_.reset();
  symbols_opened_ = true;
  if (files_ == nullptr) return base::Internal("{} could be opened only once", path_);
  const bool save = lines && MayShare();
  base::UniqueFd fd;
  if (save) {
    auto scratch = cache_->NewScratch();
    if (scratch.ok()) fd = *std::move(scratch);
  }
  const bool in_cache = fd.valid();
  if (!in_cache) {
    ASSIGN_OR_RETURN(fd, NewMemory());
  }
  const unsigned threads =
      options_.threads != 0 ? options_.threads : std::max(1u, std::thread::hardware_concurrency());
  ASSIGN_OR_RETURN(
      const symbolizer::IndexBuildReport report,
      symbolizer::BuildIndex(*files_,
                             {.lines = lines, .threads = static_cast<int>(std::min(threads, 256u))},
                             fd.get()));
  if (lines && !report.lines_reason.empty() && note_.empty() && files_->dwarf_file() != nullptr) {
    note_ = report.lines_reason;
  }
  if (in_cache && report.lines == LinesState::kPresent) {
    auto adopted = cache_->Adopt(CacheKey(), files_->facts().id, fd.get());
    if (adopted.ok()) {
      index_ = adopted->index;
      index_file_ = std::move(adopted->file);
      names_.Clear();
      return absl::OkStatus();
    }
    note_ = base::Message(adopted.status());  // the disk is full: this answer needs no saved index
  }
  ASSIGN_OR_RETURN(base::MappedFile file, base::MappedFile::FromFd(fd.get(), path_));
  return Use(std::move(file));
}

absl::Status SymbolizeModule::BuildIndex() {
  if (std::exchange(whole_, true)) return absl::OkStatus();
  return WriteIndex(true);
}

void SymbolizeModule::OpenSymbols() {
  if (symbols_opened_) return;
  if (const absl::Status written = WriteIndex(false); !written.ok()) {
    note_ = base::Message(written);
  }
}

void SymbolizeModule::Prepare(std::vector<uint64_t> addresses) {
  asked_ += addresses.size();
  cold_.clear();
  if (whole_) return;
  if (asked_ > kMaxColdAddresses || cold_seconds_ > kMaxColdSeconds) {
    if (!options_.lines) {
      OpenSymbols();
      near_.reset();
      whole_ = true;
      return;
    }
    // What is damaged is noted; names are there all the same.
    if (const absl::Status built = BuildIndex(); !built.ok()) note_ = base::Message(built);
    return;
  }
  std::sort(addresses.begin(), addresses.end());
  addresses.erase(std::unique(addresses.begin(), addresses.end()), addresses.end());
  const auto begin = std::chrono::steady_clock::now();
  LookUp(addresses);
  cold_seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

void SymbolizeModule::ReadSymbols(std::span<const uint64_t> addresses) {
  near_.reset();
  // Flags and aliases are told by the whole.
  if (options_.details || symbols_opened_ || files_ == nullptr || near_reads_++ == kMaxNearReads) {
    return OpenSymbols();
  }
  FindCompanions();
  if (files_ == nullptr) return;
  auto symbols = symbolizer::ObjectSymbols::ReadAt(*files_, addresses);
  if (!symbols.ok()) return OpenSymbols();
  near_.emplace(*std::move(symbols));
}

void SymbolizeModule::LookUp(std::span<const uint64_t> addresses) {
  ReadSymbols(addresses);
  if (files_ == nullptr) return;
  for (const uint64_t address : addresses) cold_[address];  // found or not, it was looked up
  if (!options_.lines) return;
  auto dwarf = files_->Dwarf();
  if (!dwarf.ok()) {
    if (dwarf.status().code() != absl::StatusCode::kNotFound) {
      note_ = base::Message(dwarf.status());
    }
    return;
  }
  std::vector<symbolizer::LookupAnswer> answers;
  symbolizer::dwarf::UnitCounts counts;
  if (const absl::Status found = symbolizer::LookupAddresses(**dwarf, addresses, &answers, &counts);
      !found.ok()) {
    note_ = base::Message(found);
    return;
  }
  for (size_t i = 0; i < addresses.size(); ++i) {
    cold_.insert_or_assign(addresses[i], std::move(answers[i]));
  }
}

std::span<const ModuleFrame> SymbolizeModule::Find(uint64_t vaddr) {
  if (!whole_ && !cold_.contains(vaddr)) Prepare({vaddr});
  if (names_.bytes() > kMaxNameCacheBytes) names_.Clear();
  frames_.clear();
  texts_.clear();
  if (const auto answer = cold_.find(vaddr); answer != cold_.end()) {
    AddColdFrames(vaddr, answer->second);
  } else {
    AddIndexFrames(vaddr);
  }
  if (frames_.empty()) return frames_;
  if (near_.has_value()) {
    const auto symbol = near_->At(vaddr);
    if (symbol.has_value() && !symbol->continued) frames_.back().start_address = symbol->start;
  } else if (const auto symbol = index_.SymbolAt(vaddr);
             symbol.has_value() && (symbol->flags & symbolizer::kContinued) == 0) {
    frames_.back().start_address = symbol->start;
  }
  return frames_;
}

void SymbolizeModule::AddIndexFrames(uint64_t vaddr) {
  const size_t count = index_.FindAddress(vaddr, found_);
  // A saved index may have lines that were not asked for.
  const size_t first = options_.lines || count == 0 ? 0 : count - 1;
  for (IndexFrame frame : std::span(found_).first(count).subspan(first)) {
    if (!options_.lines) frame.file = frame.line = frame.start_line = 0;
    const auto function = names_.Get(index_.names(), frame.name, reader_);
    const auto file = names_.Get(index_.names(), frame.file, reader_);
    frames_.push_back({.linkage = function.linkage,
                       .display = function.display,
                       .file = file.linkage,
                       .line = frame.line,
                       .start_line = frame.start_line,
                       .flags = frame.flags});
  }
}

void SymbolizeModule::AddSymbolFrame(uint64_t vaddr) {
  if (!near_.has_value()) return AddIndexFrames(vaddr);
  const auto symbol = near_->At(vaddr);
  if (!symbol.has_value()) return;
  frames_.push_back(
      {.linkage = Printable(symbol->name), .display = DisplayOf(symbol->name, near_->is_go())});
}

// As SymbolIndex::FindAddress joins symbols and lines.
void SymbolizeModule::AddColdFrames(uint64_t vaddr, const symbolizer::LookupAnswer& answer) {
  AddSymbolFrame(vaddr);
  if (answer.frames.empty()) return;
  const bool has_symbol = !frames_.empty();
  const ModuleFrame physical = has_symbol ? frames_.front() : ModuleFrame();
  frames_.clear();
  if (!has_symbol && answer.frames.size() == 1 && answer.frames[0].function.empty()) return;
  for (const symbolizer::LookupFrame& frame : answer.frames) {
    frames_.push_back({.linkage = Printable(frame.function),
                       .display = DisplayOf(frame.function, false),
                       .file = frame.file,
                       .line = frame.line,
                       .start_line = frame.start_line,
                       .flags = frame.inlined ? uint8_t{symbolizer::kInlined} : uint8_t{0}});
  }
  if (has_symbol) {
    frames_.back().linkage = physical.linkage;
    frames_.back().display = physical.display;
    frames_.back().flags = physical.flags;
  }
}

std::string_view SymbolizeModule::Printable(std::string_view name) {
  if (symbolizer::IsPrintableUtf8(name)) return name;
  return texts_.emplace_back(symbolizer::MakePrintable(name));
}

std::string_view SymbolizeModule::DisplayOf(std::string_view linkage, bool keep_suffixes) {
  auto& shown = shown_[std::string(linkage)];
  if (shown == nullptr) {
    std::string name = symbolizer::ShownName(linkage, keep_suffixes);
    if (name.empty()) name = symbolizer::MakePrintable(linkage);
    shown = std::make_unique<const std::string>(std::move(name));
  }
  return *shown;
}

std::optional<uint64_t> SymbolizeModule::VaddrOf(uint64_t file_offset) {
  OpenSymbols();
  return index_.VaddrOf(file_offset);
}

std::vector<uint64_t> SymbolizeModule::AddressesOf(std::string_view symbol) {
  OpenSymbols();
  std::vector<uint64_t> addresses;
  std::vector<uint32_t> aliases(64);
  std::string linkage;
  const auto is_called = [&](uint32_t name) {
    return reader_.Read(index_.names(), name, &linkage, nullptr) && linkage == symbol;
  };
  for (uint32_t i = 0; i < index_.symbol_count(); ++i) {
    const IndexSymbol entry = index_.SymbolNumber(i);
    if ((entry.flags & symbolizer::kContinued) != 0) continue;
    bool found = is_called(entry.name);
    if (!found && (entry.flags & (symbolizer::kAliased | symbolizer::kFolded)) != 0) {
      const size_t count = index_.AliasesOf(entry.start, aliases);
      found =
          std::any_of(aliases.begin(), aliases.begin() + static_cast<ptrdiff_t>(count), is_called);
    }
    if (found) addresses.push_back(entry.start);
  }
  return addresses;
}

std::vector<std::string> SymbolizeModule::AliasesOf(uint64_t vaddr, bool demangled) {
  std::vector<uint32_t> ids(64);
  ids.resize(index_.AliasesOf(vaddr, ids));
  std::vector<std::string> aliases;
  for (const uint32_t id : ids) {
    const auto name = names_.Get(index_.names(), id, reader_);
    aliases.emplace_back(demangled ? name.display : name.linkage);
  }
  return aliases;
}

}  // namespace firewatch::cli
