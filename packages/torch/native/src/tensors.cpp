// Tensors as JavaScript sees them: facts, host copies, lifetime (scopes, tracking, disposal), passing between threads.
#include "environment.hpp"

#include <atomic>
#include <cstring>
#include <map>
#include <mutex>

namespace miro {
namespace {

const at::Tensor& tensorAt(Environment& e, napi_value* argv, size_t argc, size_t i) {
  return e.tensor(handleAt(e, argv, argc, i));
}

napi_value shape(Environment& e, napi_value* argv, size_t argc) {
  return makeArray(e, tensorAt(e, argv, argc, 0).sizes(), makeNumber);
}
napi_value strides(Environment& e, napi_value* argv, size_t argc) {
  return makeArray(e, tensorAt(e, argv, argc, 0).strides(), makeNumber);
}
napi_value dtype(Environment& e, napi_value* argv, size_t argc) {
  return makeInt(e, static_cast<int32_t>(tensorAt(e, argv, argc, 0).scalar_type()));
}
napi_value device(Environment& e, napi_value* argv, size_t argc) {
  return makeString(e, tensorAt(e, argv, argc, 0).device().str());
}
napi_value numel(Environment& e, napi_value* argv, size_t argc) {
  return makeNumber(e, static_cast<double>(tensorAt(e, argv, argc, 0).numel()));
}
napi_value isContiguous(Environment& e, napi_value* argv, size_t argc) {
  return makeBool(e, tensorAt(e, argv, argc, 0).is_contiguous());
}

struct Bytes {
  char* data;
  size_t size;
};
Bytes bytesAt(Environment& e, napi_value v) {
  bool typed = false, view = false;
  check(e, napi_is_typedarray(e.env, v, &typed));
  void* data = nullptr;
  size_t size = 0;
  if (typed) {
    napi_typedarray_type type;
    size_t length = 0, offset = 0;
    napi_value buffer;
    check(e, napi_get_typedarray_info(e.env, v, &type, &length, &data, &buffer, &offset));
    static const size_t widths[] = {1, 1, 1, 2, 2, 4, 4, 4, 8, 8, 8};
    if (static_cast<size_t>(type) >= sizeof(widths) / sizeof(widths[0])) throw UsageError{"unsupported typed array"};
    return {static_cast<char*>(data), length * widths[type]};
  }
  check(e, napi_is_arraybuffer(e.env, v, &view));
  if (!view) throw UsageError{"a typed array or ArrayBuffer is expected"};
  check(e, napi_get_arraybuffer_info(e.env, v, &data, &size));
  return {static_cast<char*>(data), size};
}

// copyToHost(tensor, target): the elements in row-major order into a typed array of exactly their size in bytes.
napi_value copyToHost(Environment& e, napi_value* argv, size_t argc) {
  at::Tensor source = tensorAt(e, argv, argc, 0).detach();
  if (argc < 2) throw UsageError{"copyToHost(tensor, target)"};
  const Bytes target = bytesAt(e, argv[1]);
  if (target.size != source.nbytes()) {
    throw UsageError{"copyToHost: the target holds " + std::to_string(target.size) + " bytes, the tensor " +
                     std::to_string(source.nbytes())};
  }
  if (target.size == 0) return makeUndefined(e);
  if (source.layout() != at::kStrided)
    throw UsageError{"copyToHost: only dense tensors can be read, got " + describe(source)};
  source = materialised(source).cpu().contiguous();
  std::memcpy(target.data, source.const_data_ptr(), target.size);
  return makeUndefined(e);
}

// fromHost(source, shape, dtype): a new CPU tensor with a copy of the bytes.
napi_value fromHost(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 3) throw UsageError{"fromHost(source, shape, dtype)"};
  const auto sizes = readArray(e, argv[1], [&](napi_value item) {
    const int64_t size = toInt(e, item, "shape");
    if (size < 0) throw UsageError{"shape must not hold negative sizes"};
    return size;
  });
  if (!sizes) throw UsageError{"shape must be an array"};
  const at::ScalarType type = dtypeAt(e, argv, argc, 2);
  const Bytes source = bytesAt(e, argv[0]);  // last: reading the others may run JavaScript, which may take it away
  at::Tensor result = at::empty(*sizes, at::TensorOptions().dtype(type));
  if (result.nbytes() != source.size) {
    throw UsageError{"fromHost: shape and dtype need " + std::to_string(result.nbytes()) + " bytes, got " +
                     std::to_string(source.size)};
  }
  if (source.size > 0) std::memcpy(result.mutable_data_ptr(), source.data, source.size);
  return makeInt(e, e.store(std::move(result)));
}

napi_value item(Environment& e, napi_value* argv, size_t argc) {
  const at::Tensor& t = tensorAt(e, argv, argc, 0);
  if (t.numel() != 1) throw UsageError{"item() needs a tensor of one element, got " + describe(t)};
  const at::Scalar s = t.item();
  return makeNumber(e, s.isBoolean() ? (s.to<bool>() ? 1.0 : 0.0) : s.to<double>());
}

napi_value release(Environment& e, napi_value* argv, size_t argc) {
  e.free(handleAt(e, argv, argc, 0));
  return makeUndefined(e);
}
napi_value isValid(Environment& e, napi_value* argv, size_t argc) {
  return makeBool(e, e.valid(handleAt(e, argv, argc, 0)));
}
napi_value alias(Environment& e, napi_value* argv, size_t argc) {
  return makeInt(e, e.store(tensorAt(e, argv, argc, 0)));
}

// same(a, b): whether both handles denote one tensor (not merely equal values).
napi_value same(Environment& e, napi_value* argv, size_t argc) {
  return makeBool(e, tensorAt(e, argv, argc, 0).is_same(tensorAt(e, argv, argc, 1)));
}

napi_value beginScope(Environment& e, napi_value*, size_t) {
  e.beginScope();
  return makeUndefined(e);
}
napi_value endScope(Environment& e, napi_value* argv, size_t argc) {
  e.endScope(argc > 0 ? toHandles(e, argv[0], "escaping") : std::vector<Handle>{});
  return makeUndefined(e);
}
napi_value keep(Environment& e, napi_value* argv, size_t argc) {
  e.slot(handleAt(e, argv, argc, 0)).kept = true;
  return makeUndefined(e);
}
napi_value track(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 2) throw UsageError{"track(tensor, object)"};
  e.track(handleAt(e, argv, argc, 0), argv[1]);
  return makeUndefined(e);
}
// sweep(): frees tensors whose JavaScript objects were collected; gives [freed, freed bytes, bytes that tracked ones
// hold].
napi_value sweep(Environment& e, napi_value*, size_t) {
  const Environment::Swept swept = e.sweep();
  const double values[] = {static_cast<double>(swept.freed), static_cast<double>(swept.freedBytes),
                           static_cast<double>(swept.heldBytes)};
  return makeArray(e, values, makeNumber);
}
napi_value setBudget(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 1) throw UsageError{"setBudget(bytes)"};
  e.budgetBytes = toInt(e, argv[0], "bytes");
  return makeUndefined(e);
}

// Tensors on their way to another thread: the token holds the tensor until it is received or dropped.
std::mutex sharedMutex;
std::map<int64_t, at::Tensor>& sharedTensors() {
  static auto* map = new std::map<int64_t, at::Tensor>();
  return *map;
}
std::atomic<int64_t> nextShared{1};

napi_value share(Environment& e, napi_value* argv, size_t argc) {
  at::Tensor t = tensorAt(e, argv, argc, 0).detach();
  const int64_t id = nextShared++;
  std::lock_guard<std::mutex> lock(sharedMutex);
  sharedTensors().emplace(id, std::move(t));
  return makeNumber(e, static_cast<double>(id));
}
napi_value receive(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 1) throw UsageError{"receive(token)"};
  const int64_t id = toInt(e, argv[0], "token");
  at::Tensor t;
  {
    std::lock_guard<std::mutex> lock(sharedMutex);
    const auto found = sharedTensors().find(id);
    if (found == sharedTensors().end()) throw UsageError{"this shared tensor was already received or dropped"};
    t = std::move(found->second);
    sharedTensors().erase(found);
  }
  return makeInt(e, e.store(std::move(t)));
}

}  // namespace

const std::vector<Binding> kTensorBindings = {
    {"shape", shape}, {"strides", strides}, {"dtype", dtype}, {"device", device}, {"numel", numel},
    {"isContiguous", isContiguous},
    {"copyToHost", copyToHost}, {"fromHost", fromHost}, {"item", item}, {"free", release}, {"isValid", isValid},
    {"alias", alias}, {"same", same}, {"beginScope", beginScope}, {"endScope", endScope}, {"keep", keep},
    {"track", track}, {"sweep", sweep}, {"setBudget", setBudget}, {"share", share}, {"receive", receive}};

}  // namespace miro
