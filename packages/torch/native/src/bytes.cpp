// Values as bytes, for products in 8 bits: each row has a step of its own, with which its products are scaled.
#include "environment.hpp"
#include "lists.hpp"
#include "rows.hpp"

#include <c10/util/accumulate.h>

#include <vector>

namespace miro {
namespace {

bool isFloat(const at::Tensor& t) { return t.scalar_type() == at::kFloat; }

void needFloats(const char* where, const at::Tensor& t) {
  if (!t.is_cpu() || !(isFloat(t) || t.scalar_type() == at::kBFloat16)) {
    throw UsageError{std::string(where) + ": expected float32 or bfloat16 on the CPU, got " + describe(t)};
  }
}

const uint16_t* bits(const at::Tensor& bfloat16) {
  return reinterpret_cast<const uint16_t*>(bfloat16.const_data_ptr<at::BFloat16>());
}

// Rows of the last dimension, of which there must be one.
struct Rows {
  int64_t count, width;
  explicit Rows(const at::Tensor& t)
      : count(c10::multiply_integers(t.sizes().slice(0, t.dim() - 1))), width(t.size(-1)) {}

  // Calls `row(r, space)` for all rows; `space` has room for two rows.
  template <typename Row>
  void each(const Row& row) const {
    forRows(count, width, [&](int64_t r) {
      thread_local std::vector<float> space;
      space.resize(2 * width);
      row(r, space.data());
    });
  }
};

// Row r of t as float32, made in `space` if it is not; null where there is no t.
const float* rowOf(const at::Tensor& t, int64_t r, int64_t width, float* space) {
  if (!t.defined()) return nullptr;
  if (isFloat(t)) return t.const_data_ptr<float>() + r * width;
  lists::widen(bits(t) + r * width, space, width);
  return space;
}

// toBytes(x float32 or bfloat16 (…, width), levels, smallest) -> [bytes uint8 like x, steps float32 (…)]
// A row x ≈ step · (bytes − levels − 1); its largest magnitude, at least `smallest`, lies on the outermost of `levels`
// on each side of zero.
napi_value toBytes(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 3) throw UsageError{"toBytes(x, levels, smallest)"};
  const at::Tensor given = e.tensor(handleAt(e, argv, argc, 0));
  const int64_t levels = intWithin(e, argv[1], "levels", 1, 127);
  const auto smallest = static_cast<float>(toDouble(e, argv[2], "smallest"));
  needFloats("toBytes", given);
  if (given.dim() == 0) throw UsageError{"toBytes: expected rows, got " + describe(given)};
  at::NoGradGuard noGrad;
  const at::Tensor x = given.contiguous();
  const Rows rows(x);
  at::Tensor bytes = at::empty(x.sizes(), x.options().dtype(at::kByte));
  at::Tensor steps = at::empty(x.sizes().slice(0, x.dim() - 1), x.options().dtype(at::kFloat));
  auto* out = bytes.mutable_data_ptr<uint8_t>();
  auto* step = steps.mutable_data_ptr<float>();
  const auto count = static_cast<float>(levels);
  // The conversion to bytes cuts off: half a step more rounds.
  const float middle = count + 1.5f;
  rows.each([&](int64_t r, float* space) {
    const float* values = rowOf(x, r, rows.width, space);
    const float largest = lists::largest(values, rows.width);
    // Written so that what is not a number wins: the step then is none either.
    const float most = largest <= smallest ? smallest : largest;
    lists::toBytes(values, count / most, middle, out + r * rows.width, rows.width);
    step[r] = most / count;
  });
  return makeHandles(e, {e.store(std::move(bytes)), e.store(std::move(steps))});
}

void expect(const char* where, const at::Tensor& t, bool fits, const char* what) {
  if (fits && t.is_cpu() && t.is_contiguous()) return;
  throw UsageError{std::string(where) + ": expected " + what + ", contiguous on the CPU, got " + describe(t)};
}

void expectBias(const char* where, const at::Tensor& bias, const Rows& rows) {
  if (!bias.defined()) return;
  expect(where, bias, isFloat(bias) && bias.dim() == 1 && bias.size(0) == rows.width, "a float32 bias for each column");
}

// The rows of y, each of which has a step.
Rows rowsOfProducts(const char* where, const at::Tensor& y, const at::Tensor& steps) {
  needFloats(where, y);
  expect(where, y, y.dim() > 0, "rows of products");
  const Rows rows(y);
  expect(where, steps, isFloat(steps) && steps.numel() == rows.count, "a float32 step for each row");
  return rows;
}

const float* valuesOf(const at::Tensor& t) { return t.defined() ? t.const_data_ptr<float>() : nullptr; }

// Changes every row of y in place by `row(values, r, other)`; `other` is the same row of `others`, or null without.
template <typename Row>
void changeRows(const at::Tensor& y, const Rows& rows, const at::Tensor& others, const Row& row) {
  const bool plain = isFloat(y);
  void* values = y.mutable_data_ptr();
  rows.each([&](int64_t r, float* space) {
    const int64_t from = r * rows.width;
    const float* other = rowOf(others, r, rows.width, space + rows.width);
    if (plain) return row(static_cast<float*>(values) + from, r, other);
    auto* own = static_cast<uint16_t*>(values) + from;
    lists::widen(own, space, rows.width);
    row(space, r, other);
    lists::narrow(space, own, rows.width);
  });
}

// scaleRows_(y float32 or bfloat16 (…, width), steps (…), bias (width) or 0, more (float32 or bfloat16) like y or 0):
// each row becomes step · row + bias + more
napi_value scaleRows(Environment& e, napi_value* argv, size_t argc) {
  constexpr const char* kName = "scaleRows_";
  if (argc < 4) throw UsageError{"scaleRows_(y, steps, bias, more)"};
  at::NoGradGuard noGrad;
  const at::Tensor y = e.tensor(handleAt(e, argv, argc, 0)), steps = e.tensor(handleAt(e, argv, argc, 1));
  const at::Tensor bias = optionalTensor(e, argv, argc, 2).value_or(at::Tensor());
  at::Tensor more = optionalTensor(e, argv, argc, 3).value_or(at::Tensor());
  const Rows rows = rowsOfProducts(kName, y, steps);
  expectBias(kName, bias, rows);
  if (more.defined()) {
    needFloats(kName, more);
    if (more.sizes() != y.sizes()) throw UsageError{"scaleRows_: expected " + describe(y) + ", got " + describe(more)};
    more = more.contiguous();
  }
  const float *step = valuesOf(steps), *added = valuesOf(bias);
  changeRows(y, rows, more, [&](float* row, int64_t r, const float* other) {
    lists::scaleAndAdd(row, step[r], added, other, rows.width);
  });
  return makeUndefined(e);
}

// gateRows_(y float32 or bfloat16 (…, width), gate like y, steps (…), bias (width) or 0, gateBias (width) or 0):
// each row becomes (step · row + bias) · SiLU(step · gate + gateBias)
napi_value gateRows(Environment& e, napi_value* argv, size_t argc) {
  constexpr const char* kName = "gateRows_";
  if (argc < 5) throw UsageError{"gateRows_(y, gate, steps, bias, gateBias)"};
  at::NoGradGuard noGrad;
  const at::Tensor y = e.tensor(handleAt(e, argv, argc, 0)), gate = e.tensor(handleAt(e, argv, argc, 1));
  const at::Tensor steps = e.tensor(handleAt(e, argv, argc, 2));
  const at::Tensor bias = optionalTensor(e, argv, argc, 3).value_or(at::Tensor());
  const at::Tensor gateBias = optionalTensor(e, argv, argc, 4).value_or(at::Tensor());
  const Rows rows = rowsOfProducts(kName, y, steps);
  expect(kName, gate, gate.sizes() == y.sizes() && gate.scalar_type() == y.scalar_type(), "a gate for each product");
  expectBias(kName, bias, rows);
  expectBias(kName, gateBias, rows);
  const float *step = valuesOf(steps), *added = valuesOf(bias), *open = valuesOf(gateBias);
  changeRows(y, rows, gate, [&](float* row, int64_t r, const float* other) {
    lists::scaleAndGate(row, other, step[r], added, open, rows.width);
  });
  return makeUndefined(e);
}

}  // namespace

const std::vector<Binding> kByteBindings = {{"toBytes", toBytes}, {"scaleRows_", scaleRows}, {"gateRows_", gateRows}};

}  // namespace miro
