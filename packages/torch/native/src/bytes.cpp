// Values as bytes, for products in 8 bits: each row has a step of its own, with which its products are scaled.
#include "environment.hpp"
#include "row_loops.hpp"
#include "rows.hpp"

#include <c10/util/accumulate.h>

namespace miro {
namespace {

bool isFloat(const at::Tensor& t) { return t.scalar_type() == at::kFloat; }

void needFloats(const char* where, const at::Tensor& t) {
  if (!t.is_cpu() || !(isFloat(t) || t.scalar_type() == at::kBFloat16)) {
    throw UsageError{std::string(where) + ": expected float32 or bfloat16 on the CPU, got " + describe(t)};
  }
}

// Calls `with(pointer)` with the values of t, of which all are float32 or bfloat16, as loops over rows take them.
template <typename With>
void withValues(const at::Tensor& t, const With& with) {
  if (isFloat(t)) return with(t.mutable_data_ptr<float>());
  with(mutableBitsOf(t));
}

// Rows of the last dimension, of which there must be one.
struct Rows {
  int64_t count, width;
  explicit Rows(const at::Tensor& t)
      : count(c10::multiply_integers(t.sizes().slice(0, t.dim() - 1))), width(t.size(-1)) {}

  // Calls `row(r, place of its first value)` for all rows.
  template <typename Row>
  void each(const Row& row) const {
    forRows(count, width, [&](int64_t r) { row(r, r * width); });
  }
};

// toBytes(x float32 or bfloat16 (…, width), levels, smallest) -> [bytes uint8 like x, steps float32 (…)]
// A row x ≈ step · (bytes − levels − 1); its largest magnitude, at least `smallest`, lies on the outermost of `levels`
// on each side of zero.
napi_value toBytes(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 3) throw UsageError{"toBytes(x, levels, smallest)"};
  const at::Tensor given = materialAt(e, argv, argc, 0);
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
  withValues(x, [&](const auto* values) {
    rows.each([&](int64_t r, int64_t place) {
      const float largest = rows::largest(values + place, rows.width);
      // Written so that what is not a number wins: the step then is none either.
      const float most = largest <= smallest ? smallest : largest;
      rows::toBytes(values + place, count / most, middle, out + place, rows.width);
      step[r] = most / count;
    });
  });
  return makeHandles(e, {e.store(std::move(bytes)), e.store(std::move(steps))});
}

void expect(const char* where, const at::Tensor& t, bool fits, const char* what) {
  if (fits && t.is_cpu() && t.is_contiguous() && hasValues(t)) return;
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

// scaleRows_(y float32 or bfloat16 (…, width), steps (…), bias (width) or 0, more (float32 or bfloat16) like y or 0):
// each row becomes step · row + bias + more
napi_value scaleRows(Environment& e, napi_value* argv, size_t argc) {
  constexpr const char* kName = "scaleRows_";
  if (argc < 4) throw UsageError{"scaleRows_(y, steps, bias, more)"};
  at::NoGradGuard noGrad;
  const at::Tensor y = e.tensor(handleAt(e, argv, argc, 0)), steps = materialAt(e, argv, argc, 1);
  const at::Tensor bias = optionalTensor(e, argv, argc, 2).value_or(at::Tensor());
  at::Tensor more = optionalTensor(e, argv, argc, 3).value_or(at::Tensor());
  const Rows rows = rowsOfProducts(kName, y, steps);
  expectBias(kName, bias, rows);
  if (more.defined()) {
    needFloats(kName, more);
    if (more.sizes() != y.sizes()) throw UsageError{"scaleRows_: expected " + describe(y) + ", got " + describe(more)};
    more = materialised(more).contiguous();
  }
  const float *step = valuesOf(steps), *added = valuesOf(bias);
  withValues(y, [&](auto* values) {
    if (!more.defined()) {
      rows.each([&](int64_t r, int64_t place) {
        rows::scaleAndAdd(values + place, step[r], added, static_cast<const float*>(nullptr), rows.width);
      });
    } else {
      withValues(more, [&](const auto* others) {
        rows.each([&](int64_t r, int64_t place) {
          rows::scaleAndAdd(values + place, step[r], added, others + place, rows.width);
        });
      });
    }
  });
  return makeUndefined(e);
}

// gateRows_(y float32 or bfloat16 (…, width), gate like y, steps (…), bias (width) or 0, gateBias (width) or 0):
// each row becomes (step · row + bias) · SiLU(step · gate + gateBias)
napi_value gateRows(Environment& e, napi_value* argv, size_t argc) {
  constexpr const char* kName = "gateRows_";
  if (argc < 5) throw UsageError{"gateRows_(y, gate, steps, bias, gateBias)"};
  at::NoGradGuard noGrad;
  const at::Tensor y = e.tensor(handleAt(e, argv, argc, 0)), gate = materialAt(e, argv, argc, 1);
  const at::Tensor steps = materialAt(e, argv, argc, 2);
  const at::Tensor bias = optionalTensor(e, argv, argc, 3).value_or(at::Tensor());
  const at::Tensor gateBias = optionalTensor(e, argv, argc, 4).value_or(at::Tensor());
  const Rows rows = rowsOfProducts(kName, y, steps);
  expect(kName, gate, gate.sizes() == y.sizes() && gate.scalar_type() == y.scalar_type(), "a gate for each product");
  expectBias(kName, bias, rows);
  expectBias(kName, gateBias, rows);
  const float *step = valuesOf(steps), *added = valuesOf(bias), *open = valuesOf(gateBias);
  withValues(y, [&](auto* values) {
    const auto* gates = static_cast<decltype(values)>(gate.data_ptr());
    rows.each([&](int64_t r, int64_t place) {
      rows::scaleAndGate(values + place, gates + place, step[r], added, open, rows.width);
    });
  });
  return makeUndefined(e);
}

}  // namespace

const std::vector<Binding> kByteBindings = {{"toBytes", toBytes}, {"scaleRows_", scaleRows}, {"gateRows_", gateRows}};

}  // namespace miro
