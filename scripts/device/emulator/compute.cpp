// libtorch's operators on the emulated GPU, whose memory is the host's: those that have kernels for CUDA get those of
// the CPU, on the same memory. In a capture they are recorded, and done again whenever the graph is launched. Attention
// and the gradient of the root-mean-square norm, which have no such kernels for the CPU, are computed from their
// formulas. Choices that libtorch makes for CUDA (which attention, what autocast casts) stay what they are.
//
// A Node addon without functions: emulate.mjs has it loaded behind the engine's.
#include <node_api.h>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/cuda/CUDAGeneratorImpl.h>
#include <c10/core/DeviceGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>
#include <torch/torch.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <iostream>
#include <map>
#include <mutex>
#include <set>

bool emulatedIsCapturing(cudaStream_t stream);
void emulatedQueue(cudaStream_t stream, const char* what, std::function<void()> work);

namespace {

using c10::IValue;
using c10::Stack;
using Work = std::function<void(Stack&)>;  // takes the arguments, on the CPU, and leaves the results
using Tensors = std::vector<at::Tensor>;

// The memory of a tensor as one of the CPU; an empty one may be resized by an operator.
at::Tensor onHost(const at::Tensor& t) {
  const at::TensorOptions options = t.options().device(at::kCPU).pinned_memory(false).requires_grad(false);
  if (t.numel() == 0) return at::empty(t.sizes(), options);
  at::Tensor same = at::from_blob(t.data_ptr(), t.sizes(), t.strides(), [](void*) {}, options);
  if (t.is_conj()) same._set_conj(true);
  if (t.is_neg()) same._set_neg(true);
  return same;
}

at::Tensor dense(const at::Tensor& t) { return t.is_non_overlapping_and_dense() ? t : t.contiguous(); }

// What a kernel takes from the stream of random numbers: in a capture, from where the graph finds it at each launch.
class Draw {
 public:
  explicit Draw(const std::optional<at::Generator>& given) {
    auto* const own = at::get_generator_or_default<at::CUDAGeneratorImpl>(
        given, at::cuda::detail::getDefaultCUDAGenerator());
    std::lock_guard<std::mutex> lock(own->mutex_);
    state_ = own->philox_cuda_state(4);
  }
  at::Generator generator() const {
    const uint64_t seed = state_.captured_ ? *state_.seed_.ptr : state_.seed_.val;
    const uint64_t offset =
        state_.captured_ ? *state_.offset_.ptr + state_.offset_intragraph_ : state_.offset_.val;
    return at::make_generator<at::CPUGeneratorImpl>(seed * 1000003 + offset);
  }

 private:
  at::PhiloxCudaState state_;
};

// The tensors of an argument or a result, each replaced by what `of` makes of it.
IValue mapped(const IValue& value, const std::function<at::Tensor(const at::Tensor&)>& of) {
  if (value.isTensor()) return of(value.toTensor());
  if (value.isTensorList()) {
    Tensors list;
    for (const at::Tensor& t : value.toTensorVector()) list.push_back(of(t));
    return list;
  }
  if (!value.isList()) return value;
  const auto& items = value.toListRef();
  const bool hasTensors = std::any_of(items.begin(), items.end(), [](const IValue& one) { return one.isTensor(); });
  if (!hasTensors) return value;
  c10::List<std::optional<at::Tensor>> list;
  for (const IValue& one : items)
    list.push_back(one.isNone() ? std::nullopt : std::optional<at::Tensor>(of(one.toTensor())));
  return list;
}

// Calls an operator by `work`: now, and in a capture whenever its graph is launched.
void perform(const c10::FunctionSchema& schema, Stack* stack, const Work& work) {
  const size_t count = schema.arguments().size();
  const std::vector<IValue> given(stack->end() - count, stack->end());
  stack->resize(stack->size() - count);

  std::optional<c10::Device> device;
  std::vector<std::pair<at::Tensor, at::Tensor>> pairs;  // on the device, and the same on the host
  const auto there = [&](const at::Tensor& t) {
    if (!t.defined() || !t.is_cuda()) {
      const bool mayMix = !t.defined() || t.dim() == 0 || schema.name().find("index") != std::string::npos;
      if (device && !mayMix) std::cerr << "emulated GPU: tensors of two devices in " << schema.name() << "\n";
      return t;
    }
    TORCH_CHECK(!device || *device == t.device(), schema.name(), ": tensors of two GPUs");
    device = t.device();
    return pairs.emplace_back(t, onHost(t)).second;
  };
  Stack arguments;
  std::optional<Draw> draw;
  size_t generatorAt = 0;
  for (size_t i = 0; i < count; ++i) {
    const IValue& value = given[i];
    if (schema.arguments()[i].type()->str().find("Generator") != std::string::npos) {
      draw.emplace(value.isGenerator() ? std::optional(value.toGenerator()) : std::nullopt);
      generatorAt = i;
      arguments.emplace_back();
    } else if (value.isDevice() && value.toDevice().is_cuda()) {
      device = value.toDevice();
      arguments.emplace_back(c10::Device(at::kCPU));
    } else {
      arguments.push_back(mapped(value, there));
    }
  }
  const auto run = [=] {
    const at::AutoDispatchBelowADInplaceOrView below;
    const at::NoGradGuard noGrad;
    Stack values = arguments;
    if (draw) values[generatorAt] = draw->generator();
    work(values);
    return values;
  };
  const c10::DeviceGuard guard(device.value_or(c10::Device(at::kCUDA, 0)));
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
  emulatedQueue(stream, schema.name().c_str(), [] {});

  std::vector<std::pair<void*, size_t>> places;  // of all tensors that come back, where they have memory of their own
  const auto back = [&](const at::Tensor& t) -> at::Tensor {
    auto& [data, bytes] = places.emplace_back(nullptr, 0);
    if (!t.defined()) return t;
    for (auto& [real, same] : pairs) {
      if (!same.is_same(t)) continue;
      if (real.sizes() == t.sizes() && real.numel() > 0) return real;
      real.resize_(t.sizes());
      data = real.data_ptr(), bytes = t.nbytes();
      std::memcpy(data, dense(t).data_ptr(), bytes);
      return real;
    }
    const at::Tensor values = dense(t);
    const at::TensorOptions options = values.options().device(guard.current_device()).pinned_memory(false);
    at::Tensor real = at::empty_strided(values.sizes(), values.strides(), options);
    data = real.data_ptr(), bytes = values.nbytes();
    std::memcpy(data, values.data_ptr(), bytes);
    return real;
  };
  for (const IValue& result : run()) stack->push_back(mapped(result, back));
  if (!emulatedIsCapturing(stream)) return;
  emulatedQueue(stream, schema.name().c_str(), [=] {
    size_t i = 0;
    const auto store = [&](const at::Tensor& t) {
      const auto [data, bytes] = places[i++];
      if (data != nullptr) std::memcpy(data, dense(t).data_ptr(), bytes);
      return t;
    };
    for (const IValue& result : run()) mapped(result, store);
  });
}

void byTheCpu(const c10::OperatorHandle& op, c10::DispatchKeySet, Stack* stack) {
  perform(op.schema(), stack,
          [op](Stack& values) { op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), &values); });
}

// ---- what the CPU has no kernels for -------------------------------------------------------------------------------
std::optional<at::Tensor> tensorOrNone(const IValue& value) {
  if (value.isNone() || !value.toTensor().defined()) return std::nullopt;
  return value.toTensor();
}

struct Attention {
  at::Tensor q, k, v;
  std::optional<at::Tensor> bias;
  bool isCausal;
  std::optional<double> scale;

  at::Tensor forward() const {
    const auto result =
        std::get<0>(at::_scaled_dot_product_attention_math(q, k, v, bias, 0, isCausal, std::nullopt, scale));
    return result.transpose(1, 2).contiguous().transpose(1, 2);
  }
  Tensors backward(const at::Tensor& gradient) const {
    // Outside of everything that a kernel is inside of.
    const auto before = c10::impl::tls_local_dispatch_key_set();
    c10::impl::_force_tls_local_dispatch_key_set(c10::impl::LocalDispatchKeySet(c10::impl::PODLocalDispatchKeySet{}));
    const at::AutoGradMode records(true);
    const auto wide = [](const at::Tensor& t) { return t.to(at::kFloat).detach(); };
    Tensors leaves{wide(q).requires_grad_(), wide(k).requires_grad_(), wide(v).requires_grad_()};
    const auto added = bias ? std::optional(wide(*bias)) : std::nullopt;
    const Attention same{leaves[0], leaves[1], leaves[2], added, isCausal, scale};
    Tensors found = torch::autograd::grad({same.forward()}, leaves, {wide(gradient)});
    for (at::Tensor& one : found) one = one.to(q.scalar_type());
    c10::impl::_force_tls_local_dispatch_key_set(before);
    return found;
  }
};

std::optional<double> scaleOf(const IValue& value) { return value.toOptional<double>(); }
at::Tensor logSumExp(const at::Tensor& q) { return at::zeros(q.sizes().slice(0, 3), at::kFloat); }

void efficientAttention(const c10::OperatorHandle& op, c10::DispatchKeySet, Stack* stack) {
  perform(op.schema(), stack, [](Stack& s) {
    const at::Tensor q = s[0].toTensor(), none = at::zeros({}, at::kLong);
    const Attention all{q, s[1].toTensor(), s[2].toTensor(), tensorOrNone(s[3]), s[6].toBool(), scaleOf(s[7])};
    s = {all.forward(), logSumExp(q), none, none};
  });
}
void efficientAttentionBackward(const c10::OperatorHandle& op, c10::DispatchKeySet, Stack* stack) {
  perform(op.schema(), stack, [](Stack& s) {
    const Attention all{s[1].toTensor(), s[2].toTensor(),  s[3].toTensor(),
                        tensorOrNone(s[4]), s[11].toBool(), scaleOf(s[12])};
    const Tensors found = all.backward(s[0].toTensor());
    s = {found[0], found[1], found[2], at::Tensor()};
  });
}
void flashAttention(const c10::OperatorHandle& op, c10::DispatchKeySet, Stack* stack) {
  perform(op.schema(), stack, [](Stack& s) {
    const at::Tensor q = s[0].toTensor(), k = s[1].toTensor();
    const Attention all{q, k, s[2].toTensor(), std::nullopt, s[4].toBool(), scaleOf(s[6])};
    s = {all.forward(), logSumExp(q), at::Tensor(), at::Tensor(), q.size(2), k.size(2),
         at::zeros({2}, at::kUInt64), at::zeros({}, at::kUInt64), at::empty({0}, at::kFloat)};
  });
}
void flashAttentionBackward(const c10::OperatorHandle& op, c10::DispatchKeySet, Stack* stack) {
  perform(op.schema(), stack, [](Stack& s) {
    const Attention all{s[1].toTensor(), s[2].toTensor(),  s[3].toTensor(),
                        std::nullopt,    s[11].toBool(), scaleOf(s[14])};
    const Tensors found = all.backward(s[0].toTensor());
    s = {found[0], found[1], found[2]};
  });
}
void rmsNormBackward(const c10::OperatorHandle& op, c10::DispatchKeySet, Stack* stack) {
  perform(op.schema(), stack, [](Stack& s) {
    const at::Tensor given = s[1].toTensor();
    const at::ScalarType wide = given.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    const at::Tensor g = s[0].toTensor().to(wide), inverse = s[3].toTensor().to(wide), n = given.to(wide) * inverse;
    const auto weight = tensorOrNone(s[4]);
    std::vector<int64_t> dims;
    for (size_t i = 1; i <= s[2].toIntVector().size(); ++i) dims.push_back(given.dim() - static_cast<int64_t>(i));
    const at::Tensor weighted = weight ? g * weight->to(wide) : g;
    const at::Tensor ofInput = inverse * (weighted - n * (weighted * n).mean(dims, true));
    const at::Tensor ofWeight =
        weight ? at::sum_to(g * n, weight->sizes()).to(weight->scalar_type()) : at::Tensor();
    s = {ofInput.to(given.scalar_type()), ofWeight};
  });
}

// Copies of bytes are the runtime's; all others are kernels.
at::Tensor& copy(at::Tensor& self, const at::Tensor& source, bool nonBlocking) {
  const bool isPlain = self.scalar_type() == source.scalar_type() && self.sizes() == source.sizes() &&
                       self.is_contiguous() && source.is_contiguous() && self.is_conj() == source.is_conj() &&
                       self.is_neg() == source.is_neg();
  if (isPlain || self.device() != source.device()) return at::native::copy_(self, source, nonBlocking);
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("aten::copy_", "");
  Stack stack{self, source, nonBlocking};
  perform(op.schema(), &stack, [](Stack& s) { s = {s[0].toTensor().copy_(s[1].toTensor())}; });
  return self;
}

// ---- which operators -----------------------------------------------------------------------------------------------
// Those that make tensors, look at them or choose are libtorch's own.
const std::set<std::string> kOwn{
    "as_strided", "view", "view_as_real", "view_as_complex", "_reshape_alias", "resize_", "set_", "empty",
    "empty_strided", "unfold", "alias", "record_stream", "is_pinned", "_pin_memory", "pin_memory",
    "_local_scalar_dense", "is_set_to", "_copy_from", "_copy_from_and_resize", "_fused_sdp_choice", "copy_",
    "_has_compatible_shallow_copy_type", "native_dropout", "_efficientzerotensor", "_to_copy", "clone"};
const std::map<std::string, torch::CppFunction (*)()> kFormulas{
    {"_scaled_dot_product_efficient_attention", &torch::CppFunction::makeFromBoxedFunction<&efficientAttention>},
    {"_scaled_dot_product_efficient_attention_backward",
     &torch::CppFunction::makeFromBoxedFunction<&efficientAttentionBackward>},
    {"_scaled_dot_product_flash_attention", &torch::CppFunction::makeFromBoxedFunction<&flashAttention>},
    {"_scaled_dot_product_flash_attention_backward",
     &torch::CppFunction::makeFromBoxedFunction<&flashAttentionBackward>},
    {"_fused_rms_norm_backward", &torch::CppFunction::makeFromBoxedFunction<&rmsNormBackward>}};

struct Silent : c10::WarningHandler {
  void process(const c10::Warning&) override {}
};

void install() {
  at::globalContext().setUserEnabledCuDNN(false);  // its convolutions are no operators
  Silent silent;
  const c10::WarningUtils::WarningHandlerGuard quiet(&silent);  // of kernels that are replaced
  auto& library = *new torch::Library(torch::Library::IMPL, "aten", c10::DispatchKey::CUDA, __FILE__, __LINE__);
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const auto& name : dispatcher.getAllOpNames()) {
    if (name.name.rfind("aten::", 0) != 0) continue;
    const std::string own = name.name.substr(6);
    const std::string full = own + (name.overload_name.empty() ? "" : "." + name.overload_name);
    const auto op = dispatcher.findOp(name);
    if (kOwn.count(own) != 0 || !op || !op->hasKernelForDispatchKey(c10::DispatchKey::CUDA)) continue;
    const auto formula = kFormulas.find(own);
    if (formula != kFormulas.end()) library.impl(full.c_str(), formula->second());
    else if (op->hasComputedKernelForDispatchKey(c10::DispatchKey::CPU))
      library.impl(full.c_str(), torch::CppFunction::makeFromBoxedFunction<&byTheCpu>());
  }
  library.impl("copy_", TORCH_FN(copy));
}

}  // namespace

NAPI_MODULE_INIT() {
  static std::once_flag once;
  std::call_once(once, install);
  return exports;
}
