// Values as bytes, for products in 8 bits.
#include "environment.hpp"
#include "lists.hpp"

#include <ATen/Parallel.h>

#include <algorithm>
#include <vector>

namespace miro {
namespace {

// toBytes(x float32 or bfloat16, levels, smallest) -> [bytes uint8, step float32 scalar]
// x ≈ step · (bytes − levels − 1); the largest magnitude, at least `smallest`, lies on the outermost of `levels` on
// each side of zero.
napi_value toBytes(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 3) throw UsageError{"toBytes(x, levels, smallest)"};
  const at::Tensor given = e.tensor(handleAt(e, argv, argc, 0));
  const int64_t levels = intWithin(e, argv[1], "levels", 1, 127);
  const double smallest = toDouble(e, argv[2], "smallest");
  if (!given.is_cpu() || (given.scalar_type() != at::kFloat && given.scalar_type() != at::kBFloat16)) {
    throw UsageError{"toBytes: expected float32 or bfloat16 on the CPU, got " + describe(given)};
  }
  at::NoGradGuard noGrad;
  const at::Tensor x = given.to(at::kFloat).contiguous();
  const int64_t n = x.numel(), pieces = (n + lists::kPiece - 1) / lists::kPiece;
  const float* values = x.const_data_ptr<float>();
  std::vector<float> most(pieces);
  at::parallel_for(0, pieces, 1, [&](int64_t first, int64_t last) {
    for (int64_t k = first; k < last; ++k) {
      most[k] = lists::largest(values + k * lists::kPiece, std::min(lists::kPiece, n - k * lists::kPiece));
    }
  });
  // Written so that what is not a number wins: the result then is none either.
  auto whole = static_cast<float>(smallest);
  for (const float some : most) whole = some <= whole ? whole : some;
  at::Tensor bytes = at::empty(x.sizes(), x.options().dtype(at::kByte));
  auto* out = bytes.mutable_data_ptr<uint8_t>();
  const float factor = 1 / whole * static_cast<float>(levels);
  // The conversion to bytes cuts off: half a step more rounds.
  const float middle = static_cast<float>(levels + 1) + 0.5f;
  at::parallel_for(0, pieces, 1, [&](int64_t first, int64_t last) {
    for (int64_t k = first; k < last; ++k) {
      const int64_t from = k * lists::kPiece;
      lists::toBytes(values + from, factor, middle, out + from, std::min(lists::kPiece, n - from));
    }
  });
  return makeHandles(e, {e.store(std::move(bytes)), e.store(at::scalar_tensor(whole / static_cast<float>(levels)))});
}

}  // namespace

const std::vector<Binding> kByteBindings = {{"toBytes", toBytes}};

}  // namespace miro
