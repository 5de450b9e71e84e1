// Loops over the rows of tensors on the CPU, shared by threads.
#pragma once

#include "lists.hpp"
#include "parallel.hpp"

#include <ATen/core/Tensor.h>

#include <algorithm>

namespace miro {

// Rows that a thread takes at least.
inline int64_t leastRows(int64_t width) { return std::max<int64_t>(1, lists::kPiece / std::max<int64_t>(1, width)); }

// Calls `row(r)` for all rows, of `width` values each.
template <typename Row>
void forRows(int64_t rows, int64_t width, const Row& row) {
  inParallel(rows, leastRows(width), [&](int64_t from, int64_t to) {
    for (int64_t r = from; r < to; ++r) row(r);
  });
}

// The bits of bfloat16, as row_loops.hpp takes them.
inline const uint16_t* bitsOf(const at::Tensor& bfloat16) {
  return reinterpret_cast<const uint16_t*>(bfloat16.const_data_ptr<at::BFloat16>());
}
inline uint16_t* mutableBitsOf(const at::Tensor& bfloat16) {
  return reinterpret_cast<uint16_t*>(bfloat16.mutable_data_ptr<at::BFloat16>());
}

}  // namespace miro
