#include "parallel.hpp"

#include <ATen/Parallel.h>
#include <ATen/TensorIterator.h>
#include <ATen/ops/empty.h>

#include <algorithm>

namespace miro {

// at::parallel_for is a template: without OpenMP here it would run on one thread, and with it on the threads of a
// second OpenMP library wherever libtorch brings its own under another name. An iterator's loop is compiled within
// libtorch. So one goes over a byte for each piece of work; its places say which pieces are meant, and none is touched.
void inParallel(int64_t count, int64_t least, c10::function_ref<void(int64_t, int64_t)> part) {
  if (count <= 0) return;
  if (count <= least || at::get_num_threads() == 1 || at::in_parallel_region()) return part(0, count);
  const at::Tensor places = at::empty({count}, at::kByte);
  const auto* first = static_cast<const char*>(places.const_data_ptr());
  at::TensorIterator iterator = at::TensorIterator::borrowing_nullary_op(places);
  iterator.for_each(
      [&](char** data, const int64_t*, int64_t size, int64_t) { part(data[0] - first, data[0] - first + size); },
      std::max<int64_t>(1, least));
}

}  // namespace miro
