// Automatic differentiation, gradient and inference modes, autocast. All modes are per thread.
#include "environment.hpp"

#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/autograd.h>

namespace miro {

std::optional<at::ScalarType> productDtype(c10::DeviceType device) {
  const bool knows = device == c10::DeviceType::CPU || device == c10::DeviceType::CUDA;
  if (!knows || !at::autocast::is_autocast_enabled(device)) return std::nullopt;
  return at::autocast::get_autocast_dtype(device);
}

namespace {

using torch::autograd::variable_list;

variable_list variables(Environment& e, napi_value v, const char* what) {
  variable_list result;
  for (const Handle h : toHandles(e, v, what)) result.push_back(e.tensor(h));
  return result;
}

// As variables, where 0 stands for "none".
variable_list optionalVariables(Environment& e, napi_value v, const char* what) {
  variable_list result;
  for (const Handle h : toHandles(e, v, what)) result.push_back(h == 0 ? at::Tensor() : e.tensor(h));
  return result;
}

// backward(tensors, gradients, retainGraph, createGraph)
napi_value backward(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 4) throw UsageError{"backward(tensors, gradients, retainGraph, createGraph)"};
  torch::autograd::backward(variables(e, argv[0], "tensors"), optionalVariables(e, argv[1], "gradients"),
                            toBool(e, argv[2], "retainGraph"), toBool(e, argv[3], "createGraph"));
  return makeUndefined(e);
}

// grad(outputs, inputs, gradOutputs, retainGraph, createGraph, allowUnused) -> handles, 0 where unused
napi_value grad(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 6) throw UsageError{"grad(outputs, inputs, gradOutputs, retainGraph, createGraph, allowUnused)"};
  const auto results = torch::autograd::grad(
      variables(e, argv[0], "outputs"), variables(e, argv[1], "inputs"), optionalVariables(e, argv[2], "gradOutputs"),
      toBool(e, argv[3], "retainGraph"), toBool(e, argv[4], "createGraph"), toBool(e, argv[5], "allowUnused"));
  std::vector<Handle> handles;
  for (const auto& t : results) handles.push_back(t.defined() ? e.store(t) : 0);
  return makeHandles(e, handles);
}

napi_value requiresGrad(Environment& e, napi_value* argv, size_t argc) {
  return makeBool(e, e.tensor(handleAt(e, argv, argc, 0)).requires_grad());
}
napi_value setRequiresGrad(Environment& e, napi_value* argv, size_t argc) {
  const at::Tensor t = e.tensor(handleAt(e, argv, argc, 0));
  if (argc < 2) throw UsageError{"setRequiresGrad(tensor, on)"};
  t.set_requires_grad(toBool(e, argv[1], "requiresGrad"));
  return makeUndefined(e);
}
napi_value isLeaf(Environment& e, napi_value* argv, size_t argc) {
  return makeBool(e, e.tensor(handleAt(e, argv, argc, 0)).is_leaf());
}
napi_value getGrad(Environment& e, napi_value* argv, size_t argc) {
  const at::Tensor g = e.tensor(handleAt(e, argv, argc, 0)).grad();
  return makeInt(e, g.defined() ? e.store(g) : 0);
}
napi_value setGrad(Environment& e, napi_value* argv, size_t argc) {
  const at::Tensor t = e.tensor(handleAt(e, argv, argc, 0));
  const at::Tensor gradient = optionalTensor(e, argv, argc, 1).value_or(at::Tensor());
  if (gradient.defined() && (gradient.sizes() != t.sizes() || gradient.device() != t.device())) {
    throw UsageError{"grad: expected a gradient like " + describe(t) + ", got " + describe(gradient)};
  }
  t.mutable_grad() = gradient;
  return makeUndefined(e);
}

napi_value setGradMode(Environment& e, napi_value* argv, size_t argc) {
  const bool before = at::GradMode::is_enabled();
  if (argc > 0) at::GradMode::set_enabled(toBool(e, argv[0], "enabled"));
  return makeBool(e, before);
}
napi_value beginInference(Environment& e, napi_value*, size_t) {
  e.inferenceGuards.push_back(std::make_unique<c10::InferenceMode>(true));
  return makeUndefined(e);
}
napi_value endInference(Environment& e, napi_value*, size_t) {
  if (e.inferenceGuards.empty()) throw UsageError{"endInference without beginInference"};
  e.inferenceGuards.pop_back();
  return makeUndefined(e);
}

// Autocast is a matter of the kind of device: "cuda" may be named where there is none.
c10::DeviceType autocastDevice(Environment& e, napi_value v) {
  const std::string name = toString(e, v, "device");
  if (name == "cuda") return c10::DeviceType::CUDA;
  if (name == "cpu") return c10::DeviceType::CPU;
  throw UsageError{"autocast works on 'cpu' and 'cuda', got '" + name + "'"};
}

// beginAutocast(deviceType, dtype, enabled, cache) -> state for endAutocast
napi_value beginAutocast(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 4) throw UsageError{"beginAutocast(device, dtype, enabled, cache)"};
  const c10::DeviceType type = autocastDevice(e, argv[0]);
  const at::ScalarType dtype = dtypeAt(e, argv, argc, 1);
  const bool enabled = toBool(e, argv[2], "enabled"), cache = toBool(e, argv[3], "cache");
  if (!at::isFloatingType(dtype))
    throw UsageError{"autocast needs a floating dtype, got " + std::string(c10::toString(dtype))};
  const int state = static_cast<int>(at::autocast::get_autocast_dtype(type)) |
                    (at::autocast::is_autocast_enabled(type) ? 256 : 0) |
                    (at::autocast::is_autocast_cache_enabled() ? 512 : 0);
  at::autocast::increment_nesting();
  at::autocast::set_autocast_enabled(type, enabled);
  at::autocast::set_autocast_dtype(type, dtype);
  at::autocast::set_autocast_cache_enabled(cache);
  return makeInt(e, state);
}
napi_value endAutocast(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 2) throw UsageError{"endAutocast(device, state)"};
  const c10::DeviceType type = autocastDevice(e, argv[0]);
  const auto state = static_cast<int>(intWithin(e, argv[1], "state", 0, 1023));
  if (!knownDtype(state & 255)) throw UsageError{"endAutocast needs what beginAutocast gave"};
  if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
  at::autocast::set_autocast_enabled(type, (state & 256) != 0);
  at::autocast::set_autocast_dtype(type, static_cast<at::ScalarType>(state & 255));
  at::autocast::set_autocast_cache_enabled((state & 512) != 0);
  return makeUndefined(e);
}

}  // namespace

const std::vector<Binding> kAutogradBindings = {
    {"backward", backward}, {"grad", grad}, {"requiresGrad", requiresGrad}, {"setRequiresGrad", setRequiresGrad},
    {"isLeaf", isLeaf}, {"getGrad", getGrad}, {"setGrad", setGrad}, {"setGradMode", setGradMode},
    {"beginInference", beginInference}, {"endInference", endInference}, {"beginAutocast", beginAutocast},
    {"endAutocast", endAutocast}};

}  // namespace miro
