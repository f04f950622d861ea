// SPDX-License-Identifier: Apache-2.0
// Where the names of functions and files go while an index is built: dense ids in order of first
// use, 0 is "". The face of the builder of the index's table of names, so that the DWARF reader
// does not know how names are kept.
#pragma once

#include <cstdint>
#include <string_view>

namespace firewatch::symbolizer {

// Called by one thread at a time (not always the same), in an order that does not depend on the
// number of threads.
class NameInterner {
 public:
  virtual ~NameInterner() = default;
  // `name` points into a section of the input: it outlives the interner, no copy is needed.
  virtual uint32_t Intern(std::string_view name) = 0;
  // `name` is gone after the call (joined paths).
  virtual uint32_t InternCopy(std::string_view name) = 0;
};

}  // namespace firewatch::symbolizer
