// SPDX-License-Identifier: Apache-2.0
// Encoded rows of all units, which are wanted again when all are there: half of what a build would
// have in memory, so it is put aside in blocks where there is room (put_aside.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "symbolizer/index/put_aside.h"

namespace firewatch::symbolizer {

// One thread at a time.
class RowStore {
 public:
  struct Place {
    uint32_t block = 0;
    uint32_t offset = 0;
  };

  // `put_aside` may be empty: then rows stay in memory.
  explicit RowStore(PutAside put_aside) : put_aside_(std::move(put_aside)) {}

  Place Add(std::span<const uint8_t> bytes) {
    if (open_.size() + bytes.size() > BlockBytes()) CloseBlock();
    const Place place = {static_cast<uint32_t>(blocks_.size()),
                         static_cast<uint32_t>(open_.size())};
    open_.reserve(BlockBytes());
    open_.insert(open_.end(), bytes.begin(), bytes.end());
    return place;
  }
  // After the last Add, before the first At.
  void Finish() { CloseBlock(); }
  const uint8_t* At(Place place) const { return blocks_[place.block] + place.offset; }

 private:
  // Each is mapped by itself, of which there may not be too many: larger ones, where there are
  // many.
  size_t BlockBytes() const { return blocks_.size() < 64 ? size_t{32} << 10 : size_t{256} << 10; }

  void CloseBlock() {
    if (open_.empty()) return;
    if (put_aside_) {
      if (const auto put = put_aside_(std::as_bytes(std::span(open_))); put.ok()) {
        blocks_.push_back(reinterpret_cast<const uint8_t*>(put->data()));
        open_.clear();
        return;
      }
      put_aside_ = nullptr;  // no room: memory has to do
    }
    blocks_.push_back(open_.data());  // which moving leaves where it is
    kept_.push_back(std::move(open_));
    open_ = {};
  }

  PutAside put_aside_;
  std::vector<uint8_t> open_;
  std::vector<const uint8_t*> blocks_;
  std::vector<std::vector<uint8_t>> kept_;
};

}  // namespace firewatch::symbolizer
