// Norms over the last dimension as one node of the graph: the root-mean-square norm x / √(mean(x²) + ε) · weight, and
// layer norm.
//
// On the CPU in float32 the former gives, to the bit, what ATen's operators give one after the other (pow, mean, add,
// rsqrt, mul, mul, and their derivatives), in a third of the passes over memory. Sums, whose result depends on their
// order, are left to the operators that would have made them; what is done here rounds each value by itself, as the
// file is compiled without contraction of products and sums. Without gradients, layer norms on the CPU, and its
// root-mean-square norms in bfloat16, are one pass over their rows by row_loops.cpp. On GPUs the kernels of
// gpu_rows.hpp are used where they fit. Everything else goes to ATen.
#include "environment.hpp"
#include "gpu_rows.hpp"
#include "row_loops.hpp"
#include "rows.hpp"

#include <ATen/ATen.h>
#include <ATen/ExpandUtils.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <cmath>

namespace miro {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::compute_requires_grad;
using torch::autograd::variable_list;

// 1 / √(mean(x²) + ε) of each row: (…, width) -> (…, 1)
at::Tensor inverseRms(const at::Tensor& x, double eps) {
  const int64_t width = x.size(-1), rows = x.numel() / width;
  at::Tensor squares = at::empty(x.sizes(), x.options());
  const float* in = x.const_data_ptr<float>();
  float* out = squares.mutable_data_ptr<float>();
  forRows(rows, width, [&](int64_t r) {
    const float* a = in + r * width;
    float* b = out + r * width;
    for (int64_t i = 0; i < width; ++i) b[i] = a[i] * a[i];
  });
  at::Tensor inverse = at::mean(squares, at::IntArrayRef{-1}, true);
  float* v = inverse.mutable_data_ptr<float>();
  const auto added = static_cast<float>(eps);
  for (int64_t r = 0; r < rows; ++r) v[r] = 1.0f / std::sqrt(v[r] + added);
  return inverse;
}

at::Tensor scaledRows(const at::Tensor& x, const at::Tensor& inverse, const at::Tensor& weight) {
  const int64_t width = x.size(-1), rows = x.numel() / width;
  at::Tensor result = at::empty(x.sizes(), x.options());
  const float *in = x.const_data_ptr<float>(), *w = weight.const_data_ptr<float>(),
              *v = inverse.const_data_ptr<float>();
  float* out = result.mutable_data_ptr<float>();
  forRows(rows, width, [&](int64_t r) {
    const float* a = in + r * width;
    float* y = out + r * width;
    const float scale = v[r];
    for (int64_t i = 0; i < width; ++i) y[i] = (a[i] * scale) * w[i];
  });
  return result;
}

// The input comes twice: the operators one by one would give it two gradients, of the quotient's numerator and of its
// denominator, which are added in this order to what other branches give it. Sums of three depend on their order.
struct RmsNorm : public torch::autograd::Function<RmsNorm> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor&, const at::Tensor& weight,
                            double eps) {
    const at::Tensor inverse = inverseRms(x, eps);
    context->save_for_backward({x, weight, inverse});
    return scaledRows(x, inverse, weight);
  }

  static variable_list backward(AutogradContext* context, variable_list outputs) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "rmsNorm has no derivative of its derivative");
    const auto saved = context->get_saved_variables();
    const at::Tensor x = saved[0], weight = saved[1], inverse = saved[2],
                     gradient = materialised(outputs[0]).contiguous();
    const int64_t width = x.size(-1), rows = x.numel() / width;
    const float *in = x.const_data_ptr<float>(), *w = weight.const_data_ptr<float>(),
                *v = inverse.const_data_ptr<float>(), *g = gradient.const_data_ptr<float>();
    at::Tensor ofWeight;
    if (context->needs_input_grad(2)) {
      at::Tensor products = at::empty(x.sizes(), x.options());
      float* out = products.mutable_data_ptr<float>();
      forRows(rows, width, [&](int64_t r) {
        const int64_t at = r * width;
        const float scale = v[r];
        for (int64_t i = at; i < at + width; ++i) out[i] = g[i] * (in[i] * scale);
      });
      ofWeight = at::sum_to(std::move(products), weight.sizes());
    }
    if (!context->needs_input_grad(0)) return {at::Tensor(), at::Tensor(), ofWeight, at::Tensor()};
    at::Tensor products = at::empty(x.sizes(), x.options()), numerator = at::empty(x.sizes(), x.options());
    float *p = products.mutable_data_ptr<float>(), *n = numerator.mutable_data_ptr<float>();
    forRows(rows, width, [&](int64_t r) {
      const int64_t at = r * width;
      const float scale = v[r];
      for (int64_t i = 0; i < width; ++i) {
        const float weighted = g[at + i] * w[i];
        n[at + i] = weighted * scale;
        p[at + i] = weighted * in[at + i];
      }
    });
    const at::Tensor ofInverse = at::sum_to(products, inverse.sizes());
    const float* s = ofInverse.const_data_ptr<float>();
    const auto count = static_cast<float>(width);
    forRows(rows, width, [&](int64_t r) {
      const int64_t at = r * width;
      const float each = ((-0.5f * s[r]) * ((v[r] * v[r]) * v[r])) / count;
      for (int64_t i = at; i < at + width; ++i) p[i] = each * (2.0f * in[i]);
    });
    return {numerator, products, ofWeight, at::Tensor()};
  }
};

struct GpuNorm : public torch::autograd::Function<GpuNorm> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias, double eps, at::ScalarType dtype) {
    context->save_for_backward({x, weight});
    context->saved_data["eps"] = eps;
    if (bias) context->saved_data["bias"] = static_cast<int64_t>(bias->scalar_type());
    at::AutoDispatchBelowADInplaceOrView below;
    return gpuNorm(x, weight, bias, eps, dtype);
  }

  static variable_list backward(AutogradContext* context, variable_list outputs) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "fused norms have no derivative of their derivative");
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1];
    const auto bias = context->saved_data.find("bias");
    const bool isCentered = bias != context->saved_data.end();
    auto [ofInput, ofWeight, ofBias] =
        gpuNormBackward(x, materialised(outputs[0]), weight, isCentered, context->saved_data["eps"].toDouble());
    if (isCentered) ofBias = ofBias.to(static_cast<at::ScalarType>(bias->second.toInt()));
    return {ofInput, ofWeight.to(weight.scalar_type()), ofBias, at::Tensor(), at::Tensor()};
  }
};

// Rows of the last dimension that lie as `outer` groups of `inner` rows, each kind with a stride of its own.
struct RowGroups {
  int64_t outer = 1, outerStride = 0, inner = 1, innerStride = 0;

  // Nothing where they do not lie so.
  static std::optional<RowGroups> of(const at::Tensor& x) {
    if (x.stride(-1) != 1 && x.size(-1) != 1) return std::nullopt;
    RowGroups g;
    int64_t k = x.dim() - 2;
    const auto collapse = [&](int64_t& count, int64_t& stride) {
      for (; k >= 0; --k) {
        if (x.size(k) == 1) continue;
        if (count != 1 && x.stride(k) != count * stride) return;
        if (count == 1) stride = x.stride(k);
        count *= x.size(k);
      }
    };
    collapse(g.inner, g.innerStride);
    collapse(g.outer, g.outerStride);
    if (k >= 0) return std::nullopt;
    return g;
  }

  // Calls `rows(first, count, place)` for all rows, `count` of one group at a time; the first one lies at `place`.
  template <typename Rows>
  void each(int64_t width, const Rows& rows) const {
    inParallel(outer * inner, leastRows(width), [&](int64_t from, int64_t to) {
      while (from < to) {
        const int64_t group = from / inner, i = from % inner, count = std::min(inner - i, to - from);
        rows(from, count, group * outerStride + i * innerStride);
        from += count;
      }
    });
  }
};

bool isStridedCpu(const at::Tensor& t) { return t.is_cpu() && t.layout() == at::kStrided && t.numel() > 0; }

// float32 or bfloat16, without gradients
at::Tensor layerNormOnCpu(at::Tensor x, const at::Tensor& weight, const at::Tensor& bias, double eps) {
  std::optional<RowGroups> found = RowGroups::of(x);
  if (!found) found = RowGroups::of(x = x.contiguous());
  const at::Tensor w = weight.to(at::kFloat).contiguous(), b = bias.to(at::kFloat).contiguous();
  at::Tensor result = at::empty(x.sizes(), x.options(), at::MemoryFormat::Contiguous);
  const int64_t width = x.size(-1), stride = found->innerStride;
  const float *scale = w.const_data_ptr<float>(), *added = b.const_data_ptr<float>();
  const auto small = static_cast<float>(eps);
  if (x.scalar_type() == at::kFloat) {
    const float* in = x.const_data_ptr<float>();
    float* out = result.mutable_data_ptr<float>();
    found->each(width, [&](int64_t first, int64_t count, int64_t place) {
      rows::layerNorm(in + place, count, stride, scale, added, small, out + first * width, width);
    });
  } else {
    const uint16_t* in = bitsOf(x);
    uint16_t* out = mutableBitsOf(result);
    found->each(width, [&](int64_t first, int64_t count, int64_t place) {
      rows::layerNorm(in + place, count, stride, scale, added, small, out + first * width, width);
    });
  }
  return result;
}

// In bfloat16, without gradients: the quotient is rounded before it meets the weight.
at::Tensor rmsNormInBfloat16(const at::Tensor& given, const at::Tensor& givenWeight, double eps) {
  const at::Tensor x = given.contiguous(), weight = givenWeight.contiguous();
  const int64_t width = x.size(-1), rows = x.numel() / width;
  at::Tensor result = at::empty(x.sizes(), x.options());
  const uint16_t *in = bitsOf(x), *w = bitsOf(weight);
  uint16_t* out = mutableBitsOf(result);
  forRows(rows, width, [&](int64_t r) {
    rows::rmsNorm(in + r * width, w, static_cast<float>(eps), out + r * width, width);
  });
  return result;
}

// Only where there is a kernel.
at::Tensor onGpu(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias, double eps,
                 at::ScalarType dtype) {
  return compute_requires_grad(x, weight, bias) ? GpuNorm::apply(x, weight, bias, eps, dtype)
                                                : gpuNorm(x, weight, bias, eps, dtype);
}

// rmsNorm(x, weight, eps, forProduct) -> in the dtype of x; for a product, in the one that autocast gives to products
// on GPUs
napi_value rmsNorm(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 4) throw UsageError{"rmsNorm(x, weight, eps, forProduct)"};
  const at::Tensor x = materialAt(e, argv, argc, 0), weight = materialAt(e, argv, argc, 1);
  const double eps = toDouble(e, argv[2], "eps");
  const bool forProduct = toBool(e, argv[3], "forProduct");
  if (x.dim() == 0 || weight.dim() != 1 || x.size(-1) != weight.size(0)) {
    throw UsageError{"rmsNorm: expected a weight for each value of the last dimension, got " + describe(x) + " and " +
                     describe(weight)};
  }
  const bool followed = compute_requires_grad(x, weight);
  const auto areOnCpu = [&](at::ScalarType dtype) {
    const auto is = [=](const at::Tensor& t) { return isStridedCpu(t) && t.scalar_type() == dtype; };
    return is(x) && is(weight);
  };
  if (!followed && areOnCpu(at::kBFloat16)) return makeInt(e, e.store(rmsNormInBfloat16(x, weight, eps)));
  if (!areOnCpu(at::kFloat) || !x.is_contiguous() || !weight.is_contiguous()) {
    const bool isCast =
        forProduct && x.is_cuda() && x.scalar_type() == at::kFloat && weight.scalar_type() == at::kFloat;
    if (const auto dtype = isCast ? productDtype(c10::DeviceType::CUDA) : std::nullopt) {
      if (hasGpuNorm(x, weight, false, *dtype)) return makeInt(e, e.store(onGpu(x, weight, std::nullopt, eps, *dtype)));
      return makeInt(e, e.store(at::rms_norm(x, {x.size(-1)}, weight, eps).to(*dtype)));
    }
    if (x.scalar_type() == weight.scalar_type()) return makeInt(e, e.store(at::rms_norm(x, {x.size(-1)}, weight, eps)));
    return makeInt(
        e, e.store(at::rms_norm(x.to(at::kFloat), {x.size(-1)}, std::nullopt, eps).to(x.scalar_type()).mul(weight)));
  }
  if (followed) return makeInt(e, e.store(RmsNorm::apply(x, x, weight, eps)));
  return makeInt(e, e.store(scaledRows(x, inverseRms(x, eps), weight)));
}

// layerNorm(x, weight, bias, eps) -> in the dtype of x, whatever that of weight and bias, and whatever autocast says
napi_value layerNorm(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 4) throw UsageError{"layerNorm(x, weight, bias, eps)"};
  const at::Tensor x = materialAt(e, argv, argc, 0), weight = materialAt(e, argv, argc, 1),
                   bias = materialAt(e, argv, argc, 2);
  const double eps = toDouble(e, argv[3], "eps");
  const auto fits = [&](const at::Tensor& t) {
    return t.dim() == 1 && t.size(0) == x.size(-1) && t.device() == x.device();
  };
  if (x.dim() == 0 || !fits(weight) || !fits(bias)) {
    throw UsageError{"layerNorm: expected a weight and a bias for each value of the last dimension, got " +
                     describe(x) + ", " + describe(weight) + " and " + describe(bias)};
  }
  const at::ScalarType dtype = x.scalar_type();
  if (hasGpuNorm(x, weight, true, dtype)) return makeInt(e, e.store(onGpu(x, weight, bias, eps, dtype)));
  if (!compute_requires_grad(x, weight, bias) && isStridedCpu(x) && (dtype == at::kFloat || dtype == at::kBFloat16))
    return makeInt(e, e.store(layerNormOnCpu(x, weight, bias, eps)));
  const c10::impl::ExcludeDispatchKeyGuard noAutocast(c10::autocast_dispatch_keyset);
  return makeInt(e, e.store(at::layer_norm(x, {x.size(-1)}, weight.to(dtype), bias.to(dtype), eps)));
}

}  // namespace

const std::vector<Binding> kNormBindings = {{"rmsNorm", rmsNorm}, {"layerNorm", layerNorm}};

}  // namespace miro
