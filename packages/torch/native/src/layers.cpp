// Layers that are one node of the graph each: x·Wᵀ + b, value · SiLU(gate), and attention with its heads split. ATen
// makes three to seven nodes of each (the transposed weight, changes of shape, the product, the sum), whose keeping
// takes longer than small products do. Kernels, and the order in which gradients are summed, are ATen's, so that
// results are the same to the bit.
#include "environment.hpp"
#include "gpu_rows.hpp"

#include <ATen/ATen.h>
#include <ATen/ExpandUtils.h>
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <array>
#include <cmath>
#include <tuple>

namespace miro {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::compute_requires_grad;
using torch::autograd::variable_list;

struct Linear : public torch::autograd::Function<Linear> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias) {
    const bool ofInput = x.requires_grad(), ofWeight = weight.requires_grad();
    variable_list saved{ofWeight ? x : at::Tensor(), ofInput ? weight : at::Tensor()};
    if (bias) saved.emplace_back();  // only its being there counts
    context->save_for_backward(std::move(saved));
    at::AutoDispatchBelowADInplaceOrView below;
    return at::linear(x, weight, bias);
  }

  // Made of operators that have gradients themselves.
  static variable_list backward(AutogradContext* context, variable_list outputs) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &gradient = outputs[0];
    const at::Tensor rows = gradient.dim() == 2 ? gradient : gradient.reshape({-1, gradient.size(-1)});
    at::Tensor ofInput, ofWeight, ofBias;
    if (context->needs_input_grad(0)) {
      ofInput = rows.mm(weight);
      if (gradient.dim() != 2) {
        std::vector<int64_t> shape = gradient.sizes().vec();
        shape.back() = weight.size(1);
        ofInput = ofInput.view(shape);
      }
    }
    if (context->needs_input_grad(1)) ofWeight = rows.t().mm(x.dim() == 2 ? x : x.reshape({-1, x.size(-1)}));
    const int64_t width = rows.size(1);
    if (saved.size() == 3 && context->needs_input_grad(2)) ofBias = at::sum_to(rows, at::IntArrayRef(width));
    return {ofInput, ofWeight, ofBias};
  }
};

// Whether x·Wᵀ + b is what it seems to be. Everything else is aten::linear's to compute or to refuse.
bool fits(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
  const bool isCast = productDtype(x.device().type()) && x.scalar_type() != at::kDouble;
  const auto alike = [&](const at::Tensor& t) {
    return t.device() == x.device() && at::isFloatingType(t.scalar_type()) &&
           (t.scalar_type() == x.scalar_type() || (isCast && t.scalar_type() != at::kDouble));
  };
  return x.dim() >= 2 && x.numel() > 0 && weight.dim() == 2 && weight.numel() > 0 && x.size(-1) == weight.size(1) &&
         alike(x) && alike(weight) && (!bias || (bias->dim() == 1 && bias->size(0) == weight.size(0) && alike(*bias)));
}

// linear(x, weight, bias or 0): (…, in), (out, in), (out) -> (…, out); 0 where they do not fit
napi_value linear(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 3) throw UsageError{"linear(x, weight, bias)"};
  at::Tensor x = e.tensor(handleAt(e, argv, argc, 0)), weight = e.tensor(handleAt(e, argv, argc, 1));
  std::optional<at::Tensor> bias = optionalTensor(e, argv, argc, 2);
  if (!fits(x, weight, bias)) return makeInt(e, 0);
  if (!compute_requires_grad(x, weight, bias)) return makeInt(e, e.store(at::linear(x, weight, bias)));
  const c10::DeviceType device = x.device().type();
  if (const auto dtype = productDtype(device)) {
    x = at::autocast::cached_cast(*dtype, x, device);
    weight = at::autocast::cached_cast(*dtype, weight, device);
    if (bias) bias = at::autocast::cached_cast(*dtype, *bias, device);
  }
  return makeInt(e, e.store(Linear::apply(x, weight, bias)));
}

std::array<at::Tensor, 2> halves(const at::Tensor& x) {
  const int64_t width = x.size(-1) / 2;
  return {x.narrow(-1, 0, width), x.narrow(-1, width, width)};
}

struct SwiGlu : public torch::autograd::Function<SwiGlu> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x) {
    at::AutoDispatchBelowADInplaceOrView below;
    if (hasGpuSwiGlu(x)) {
      context->save_for_backward({x});  // the kernel computes the rest again
      return gpuSwiGlu(x);
    }
    const auto [value, gate] = halves(x);
    const at::Tensor open = at::silu(gate);
    context->save_for_backward({x, open});
    return open.mul(value);
  }

  static variable_list backward(AutogradContext* context, variable_list outputs) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "swiGlu has no derivative of its derivative");
    const auto saved = context->get_saved_variables();
    if (saved.size() == 1) return {gpuSwiGluBackward(saved[0], materialised(outputs[0]))};
    const auto [value, gate] = halves(saved[0]);
    at::Tensor ofInput = at::empty_like(saved[0], at::MemoryFormat::Contiguous);
    auto [ofValue, ofGate] = halves(ofInput);
    at::mul_out(ofValue, outputs[0], saved[1]);
    at::silu_backward_out(ofGate, outputs[0].mul(value), gate);
    return {ofInput};
  }
};

// swiGlu((…, 2 · width)) -> (…, width): the first half times SiLU of the second
napi_value swiGlu(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 1) throw UsageError{"swiGlu(x)"};
  const at::Tensor x = materialAt(e, argv, argc, 0);
  if (x.dim() == 0 || x.size(-1) % 2 != 0)
    throw UsageError{"swiGlu: expected an even number of values in the last dimension, got " + describe(x)};
  if (compute_requires_grad(x)) return makeInt(e, e.store(SwiGlu::apply(x)));
  if (hasGpuSwiGlu(x)) return makeInt(e, e.store(gpuSwiGlu(x)));
  const auto [value, gate] = halves(x);
  return makeInt(e, e.store(at::silu(gate).mul(value)));
}

// (B, T, H, E) <-> (B, H, T, E)
at::Tensor swapped(const at::Tensor& x) { return x.transpose(1, 2); }

// By the kernel for CPUs that never holds all weights of attention.
struct FlashAttention : public torch::autograd::Function<FlashAttention> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const std::optional<at::Tensor>& mask) {
    at::AutoDispatchBelowADInplaceOrView below;
    const auto [result, logSumExp] =
        at::_scaled_dot_product_flash_attention_for_cpu(swapped(q), swapped(k), swapped(v), 0.0, false, mask);
    const at::Tensor sideBySide = swapped(result).flatten(2);
    context->save_for_backward({q, k, v, mask.value_or(at::Tensor()), sideBySide, logSumExp});
    return sideBySide;
  }

  static variable_list backward(AutogradContext* context, variable_list outputs) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "multiHeadAttention has no derivative of its derivative");
    const auto saved = context->get_saved_variables();
    const auto& [q, k, v] = std::tie(saved[0], saved[1], saved[2]);
    const std::optional<at::Tensor> mask = saved[3].defined() ? std::optional<at::Tensor>(saved[3]) : std::nullopt;
    const auto byHead = [&](const at::Tensor& x) { return swapped(x.unflatten(2, {q.size(2), -1})); };
    const auto [ofQ, ofK, ofV] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
        byHead(outputs[0]), swapped(q), swapped(k), swapped(v), byHead(saved[4]), saved[5], 0.0, false, mask);
    return {swapped(ofQ), swapped(ofK), swapped(ofV), at::Tensor()};
  }
};

constexpr int64_t kFlashBackend = 1;  // as sdp::SDPBackend numbers them

// multiHeadAttention(q (B, Q, H, E), k (B, S, H, E), v (B, S, H, F), mask for (B, H, Q, S) or 0) -> (B, Q, H · F)
napi_value multiHeadAttention(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 4) throw UsageError{"multiHeadAttention(q, k, v, mask)"};
  const at::Tensor q = materialAt(e, argv, argc, 0), k = materialAt(e, argv, argc, 1), v = materialAt(e, argv, argc, 2);
  std::optional<at::Tensor> mask = optionalTensor(e, argv, argc, 3);
  if (mask) mask = materialised(*mask);
  const bool fit = q.dim() == 4 && k.dim() == 4 && v.dim() == 4 && q.size(0) == k.size(0) && q.size(2) == k.size(2) &&
                   q.size(3) == k.size(3) && k.sizes().slice(0, 3) == v.sizes().slice(0, 3);
  if (!fit)
    throw UsageError{"multiHeadAttention: expected (B, Q, H, E), (B, S, H, E) and (B, S, H, F), got " + describe(q) +
                     ", " + describe(k) + " and " + describe(v)};
  const at::Tensor qs = swapped(q), ks = swapped(k), vs = swapped(v);
  const bool followed = compute_requires_grad(q, k, v) && q.is_cpu() && !productDtype(q.device().type()) &&
                        !(mask && mask->requires_grad());
  if (!followed || at::_fused_sdp_choice(qs, ks, vs, mask) != kFlashBackend)
    return makeInt(e, e.store(swapped(at::scaled_dot_product_attention(qs, ks, vs, mask)).flatten(2)));
  if (mask && mask->scalar_type() == at::kBool) {
    const at::Tensor allowed = at::zeros({}, q.options()), forbidden = at::full({}, -INFINITY, q.options());
    mask = at::where(*mask, allowed, forbidden);
  }
  return makeInt(e, e.store(FlashAttention::apply(q, k, v, mask)));
}

}  // namespace

const std::vector<Binding> kLayerBindings = {
    {"linear", linear}, {"swiGlu", swiGlu}, {"multiHeadAttention", multiHeadAttention}};

}  // namespace miro
