// Start of the addon: one Environment per JavaScript environment, and the table of functions.
#include "allocator.hpp"
#include "environment.hpp"
#include "stacks.hpp"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <c10/util/Exception.h>
#include <torch/cuda.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <stdexcept>
#include <unordered_map>

namespace miro {
namespace {

constexpr int64_t kGeneratorBytes = sizeof(at::CPUGeneratorImpl);

}  // namespace

Environment::~Environment() {
  // With its environment a reference loses its object; its memory is given back here.
  const auto forget = [this](napi_ref reference) {
    if (reference != nullptr) napi_delete_reference(env, reference);
  };
  for (const Slot& s : slots_) forget(s.weak);
  for (const auto& tracked : trackedGenerators) forget(tracked.second);
  forget(errorClass);
  forget(flagsArray);
  slots_.clear();
}

Handle Environment::store(at::Tensor tensor) {
  uint32_t index;
  if (!freeSlots_.empty()) {
    index = freeSlots_.back();
    freeSlots_.pop_back();
  } else {
    index = static_cast<uint32_t>(slots_.size());
    if (index > kIndexMask)
      throw UsageError{"more than 4 million tensors are alive; free some with scope() or dispose()"};
    slots_.emplace_back();
  }
  Slot& s = slots_[index];
  s.isNew = tensor.defined() && tensor.has_storage() && tensor.storage().use_count() == 1;
  s.tensor = std::move(tensor);
  if (scopes_.empty()) countNew(s);
  s.used = true;
  s.kept = false;
  s.weak = nullptr;
  ++liveSlots;
  const Handle handle = (static_cast<Handle>(s.generation) << kIndexBits) | index;
  if (!scopes_.empty()) scopes_.back().push_back(handle);
  return handle;
}

Slot& Environment::slot(Handle handle) {
  if (Slot* found = find(handle)) return *found;
  throw UsageError{"this tensor was freed (disposed, or made in a scope that has ended)"};
}

void Environment::release(Slot& s) {
  if (s.weak != nullptr) napi_delete_reference(env, s.weak);
  s.weak = nullptr;
  s.used = false;
  if (++s.generation >= kGenerations) s.generation = 1;
  --liveSlots;
  freeSlots_.push_back(static_cast<uint32_t>(&s - slots_.data()));
  at::Tensor last = std::move(s.tensor);  // released after the slot is consistent again
}

void Environment::countNew(Slot& s) {
  if (!s.isNew) return;
  s.isNew = false;
  newBytes += static_cast<int64_t>(s.tensor.storage().nbytes());
}

void Environment::free(Handle handle) {
  if (Slot* found = find(handle)) release(*found);
}

void Environment::beginScope() { scopes_.emplace_back(); }

void Environment::endScope(const std::vector<Handle>& escaping) {
  if (scopes_.empty()) throw UsageError{"endScope without a scope"};
  std::vector<Handle> made = std::move(scopes_.back());
  scopes_.pop_back();
  std::vector<bool> wasKept(escaping.size());
  for (size_t i = 0; i < escaping.size(); ++i) {
    if (!valid(escaping[i])) continue;
    wasKept[i] = slot(escaping[i]).kept;
    slot(escaping[i]).kept = true;
  }
  // A view that stays holds memory which came with a tensor that goes: it brings that memory from now on.
  const auto storageOf = [](const Slot& s) { return s.tensor.storage().unsafeGetStorageImpl(); };
  std::unordered_map<const c10::StorageImpl*, Slot*> views;
  for (const Handle h : made) {
    Slot* found = find(h);
    if (found != nullptr && found->kept && !found->isNew && found->tensor.defined() && found->tensor.has_storage())
      views.emplace(storageOf(*found), found);
  }
  for (const Handle h : made) {
    Slot* found = find(h);
    if (found == nullptr || found->kept) continue;
    if (found->isNew && !views.empty()) {
      const auto view = views.find(storageOf(*found));
      if (view != views.end()) view->second->isNew = true;
    }
    release(*found);
  }
  for (size_t i = 0; i < escaping.size(); ++i) {
    if (!valid(escaping[i]) || wasKept[i]) continue;
    slot(escaping[i]).kept = false;
    if (scopes_.empty()) countNew(slot(escaping[i]));
    else scopes_.back().push_back(escaping[i]);
  }
  for (const Handle h : made) {
    Slot* found = find(h);
    if (found != nullptr && found->kept) countNew(*found);
  }
  askForSweep();
}

void Environment::track(Handle handle, napi_value object) {
  Slot& s = slot(handle);
  if (s.weak != nullptr) return;
  check(*this, napi_create_reference(env, object, 0, &s.weak));
  tracked_.push_back(handle);
  ++newTracked;
  askForSweep();
}

void Environment::trackGenerator(int32_t id, napi_value object) {
  napi_ref weak = nullptr;
  check(*this, napi_create_reference(env, object, 0, &weak));
  trackedGenerators.emplace_back(id, weak);
  newBytes += kGeneratorBytes;
  askForSweep();
}

void Environment::askForSweep() {
  if (flags != nullptr && (newTracked > 200'000 || newBytes > budgetBytes)) flags[0] = 1;
}

Environment::Swept Environment::sweep() {
  Swept swept;
  size_t kept = 0;
  for (const Handle h : tracked_) {
    if (!valid(h)) continue;
    Slot& s = slot(h);
    if (s.weak == nullptr) continue;
    const bool stored = s.tensor.defined() && s.tensor.has_storage();
    // Of the tensor, not of its storage: views of one mapped file would count the file each.
    const int64_t bytes = stored ? static_cast<int64_t>(s.tensor.nbytes()) : 0;
    napi_value object = nullptr;
    napi_get_reference_value(env, s.weak, &object);
    if (object == nullptr) {
      if (stored && s.tensor.storage().use_count() == 1) swept.freedBytes += bytes;
      free(h);
      ++swept.freed;
    } else {
      swept.heldBytes += bytes;
      tracked_[kept++] = h;
    }
  }
  tracked_.resize(kept);
  std::erase_if(trackedGenerators, [this](const auto& tracked) {
    const auto [id, weak] = tracked;
    napi_value object = nullptr;
    napi_get_reference_value(env, weak, &object);
    if (object != nullptr) return false;
    napi_delete_reference(env, weak);
    generators[id] = at::Generator();
    freeGenerators.push_back(id);
    return true;
  });
  swept.heldBytes += static_cast<int64_t>(trackedGenerators.size()) * kGeneratorBytes;
  newBytes = 0;
  newTracked = 0;
  if (flags != nullptr) flags[0] = 0;
  return swept;
}

// ---- talking to JavaScript -------------------------------------------------------------------------------------
void check(Environment& e, napi_status status) {
  if (status == napi_ok) return;
  bool pending = false;
  napi_is_exception_pending(e.env, &pending);
  if (pending) throw PendingException{};
  const napi_extended_error_info* info = nullptr;
  napi_get_last_error_info(e.env, &info);
  throw UsageError{std::string("Node-API: ") + (info && info->error_message ? info->error_message : "unknown error")};
}

napi_value makeError(Environment& e, const std::string& message) {
  napi_value text = nullptr, constructor = nullptr, error = nullptr;
  napi_create_string_utf8(e.env, message.data(), message.size(), &text);
  if (e.errorClass == nullptr || napi_get_reference_value(e.env, e.errorClass, &constructor) != napi_ok ||
      napi_new_instance(e.env, constructor, 1, &text, &error) != napi_ok) {
    napi_create_error(e.env, nullptr, text, &error);
  }
  return error;
}

double toDouble(Environment& e, napi_value v, const char* what) {
  double result = 0;
  if (napi_get_value_double(e.env, v, &result) != napi_ok) throw UsageError{std::string(what) + " must be a number"};
  return result;
}
std::string numberText(Environment& e, napi_value v) {
  napi_value text;
  check(e, napi_coerce_to_string(e.env, v, &text));
  return toString(e, text, "a number");
}
int64_t toInt(Environment& e, napi_value v, const char* what) {
  double result = 0;
  if (napi_get_value_double(e.env, v, &result) == napi_ok) {
    if (result != std::floor(result) || std::abs(result) > 9007199254740992.0) {
      throw UsageError{std::string(what) + " must be an integer, got " + numberText(e, v)};
    }
    return static_cast<int64_t>(result);
  }
  int64_t big = 0;
  bool lossless = false;
  if (napi_get_value_bigint_int64(e.env, v, &big, &lossless) == napi_ok && lossless) return big;
  throw UsageError{std::string(what) + " must be an integer"};
}
bool toBool(Environment& e, napi_value v, const char* what) {
  bool result = false;
  if (napi_get_value_bool(e.env, v, &result) != napi_ok) throw UsageError{std::string(what) + " must be a boolean"};
  return result;
}
std::string toString(Environment& e, napi_value v, const char* what) {
  size_t length = 0;
  if (napi_get_value_string_utf8(e.env, v, nullptr, 0, &length) != napi_ok) {
    throw UsageError{std::string(what) + " must be a string"};
  }
  std::string result(length, '\0');
  check(e, napi_get_value_string_utf8(e.env, v, result.data(), length + 1, &length));
  return result;
}
std::vector<Handle> toHandles(Environment& e, napi_value v, const char* what) {
  auto result = readArray(e, v, [&](napi_value item) {
    Handle handle = 0;
    if (!readHandle(e, item, &handle)) throw UsageError{std::string(what) + " must hold tensors"};
    return handle;
  });
  if (!result) throw UsageError{std::string(what) + " must be an array"};
  return *std::move(result);
}
std::pair<void*, size_t> toTypedArray(Environment& e, napi_value v, napi_typedarray_type type, const char* what) {
  static const char* const names[] = {"Int8Array",   "Uint8Array",   "Uint8ClampedArray", "Int16Array",
                                      "Uint16Array", "Int32Array",   "Uint32Array",       "Float32Array",
                                      "Float64Array", "BigInt64Array", "BigUint64Array"};
  napi_typedarray_type found;
  size_t length = 0, offset = 0;
  void* data = nullptr;
  napi_value buffer;
  bool typed = false;
  check(e, napi_is_typedarray(e.env, v, &typed));
  if (typed) check(e, napi_get_typedarray_info(e.env, v, &found, &length, &data, &buffer, &offset));
  if (!typed || found != type) throw UsageError{std::string(what) + ": expected " + names[type]};
  return {data, length};
}
napi_value makeNumber(Environment& e, double v) {
  napi_value result;
  check(e, napi_create_double(e.env, v, &result));
  return result;
}
napi_value makeInt(Environment& e, int64_t v) {
  napi_value result;
  check(e, napi_create_int64(e.env, v, &result));
  return result;
}
napi_value makeBool(Environment& e, bool v) {
  napi_value result;
  check(e, napi_get_boolean(e.env, v, &result));
  return result;
}
napi_value makeString(Environment& e, const std::string& v) {
  napi_value result;
  check(e, napi_create_string_utf8(e.env, v.data(), v.size(), &result));
  return result;
}
napi_value makeUndefined(Environment& e) {
  napi_value result;
  check(e, napi_get_undefined(e.env, &result));
  return result;
}
napi_value makeHandles(Environment& e, const std::vector<Handle>& v) {
  return makeArray(e, v, makeInt);
}
Handle handleAt(Environment& e, napi_value* argv, size_t argc, size_t i) {
  Handle handle = 0;
  if (i >= argc || !readHandle(e, argv[i], &handle)) throw UsageError{"a Tensor is expected"};
  return handle;
}
std::optional<at::Tensor> optionalTensor(Environment& e, napi_value* argv, size_t argc, size_t i) {
  const Handle handle = handleAt(e, argv, argc, i);
  return handle == 0 ? std::nullopt : std::optional<at::Tensor>(e.tensor(handle));
}

at::Tensor materialAt(Environment& e, napi_value* argv, size_t argc, size_t i) {
  return materialised(e.tensor(handleAt(e, argv, argc, i)));
}

int64_t intWithin(Environment& e, napi_value v, const char* what, int64_t first, int64_t last) {
  const int64_t result = toInt(e, v, what);
  if (result < first || result > last) {
    throw UsageError{std::string(what) + " must be from " + std::to_string(first) + " to " + std::to_string(last) +
                     ", got " + std::to_string(result)};
  }
  return result;
}
at::ScalarType dtypeAt(Environment& e, napi_value* argv, size_t argc, size_t i) {
  if (i >= argc) throw UsageError{"a dtype's code is expected"};
  const int64_t code = toInt(e, argv[i], "dtype");
  if (!knownDtype(code)) throw UsageError{"there is no dtype of code " + std::to_string(code)};
  return static_cast<at::ScalarType>(code);
}
c10::Device deviceOf(const std::string& name) {
  const auto refuse = [&](const std::string& why) -> c10::Device {
    throw UsageError{"'" + name + "' is no device: expected 'cpu', 'cuda' or 'cuda:N'" + why};
  };
  // Read here: libtorch would take other backends' names, and keeps the index in eight bits.
  if (name == "cpu" || name == "cpu:0") return c10::Device(c10::DeviceType::CPU);
  if (name == "meta") return c10::Device(c10::DeviceType::Meta);
  if (name.rfind("cuda", 0) != 0) return refuse("");
  int64_t index = -1;
  if (name.size() > 4) {
    if (name[4] != ':' || name.size() == 5 || name.size() > 8) return refuse("");
    index = 0;
    for (const char c : name.substr(5)) {
      if (c < '0' || c > '9') return refuse("");
      index = 10 * index + (c - '0');
    }
  }
  const int64_t count = torch::cuda::is_available() ? static_cast<int64_t>(torch::cuda::device_count()) : 0;
  if (count == 0) return refuse(" with a libtorch for CUDA; no CUDA device is available here");
  if (index >= count) return refuse("; there are " + std::to_string(count) + " CUDA devices");
  return c10::Device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index));
}
c10::DeviceIndex cudaIndexAt(Environment& e, napi_value* argv, size_t argc, size_t i) {
  if (!torch::cuda::is_available()) throw UsageError{"no CUDA device is available"};
  if (i >= argc) return 0;
  return static_cast<c10::DeviceIndex>(
      intWithin(e, argv[i], "the CUDA device", 0, static_cast<int64_t>(torch::cuda::device_count()) - 1));
}

std::string messageOf(const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const UsageError& error) {
    return error.message;
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  } catch (const std::bad_alloc&) {
    return "not enough memory";
  } catch (const std::length_error& error) {
    return std::string("not enough memory: a size is larger than any memory (") + error.what() + ")";
  } catch (const std::exception& error) {
    return error.what();
  } catch (...) {
    return "unknown error in native code";
  }
}
std::string describe(const at::Tensor& t) {
  if (!t.defined()) return "undefined";
  std::string text = std::string(c10::toString(t.scalar_type())) + "[";
  for (int64_t i = 0; i < t.dim(); ++i) text += (i ? ", " : "") + std::to_string(t.size(i));
  return text + "]" + (t.is_cpu() ? "" : " on " + t.device().str());
}

std::string namedMessageOf(const char* name, const std::exception_ptr& failure) {
  const std::string message = messageOf(failure);
  return message.rfind("not enough memory", 0) == 0 ? std::string(name) + ": " + message : message;
}

// Every exported function runs in here: no C++ exception leaves the addon, libtorch's become TorchError.
napi_value guarded(napi_env env, napi_callback_info info) {
  // Node-API fills every place it is given, so the many calls with few arguments ask for few.
  constexpr size_t kFew = 6, kMost = 40;
  size_t argc = kFew;
  napi_value argv[kMost];
  void* data = nullptr;
  if (napi_get_cb_info(env, info, &argc, argv, nullptr, &data) != napi_ok) return nullptr;
  if (argc > kFew) {
    argc = kMost;
    if (napi_get_cb_info(env, info, &argc, argv, nullptr, &data) != napi_ok) return nullptr;
  }
  const auto [e, binding] = *static_cast<const Export*>(data);
  e->entry = binding->name;
  std::string message;
  try {
    return binding->function(*e, argv, std::min(argc, kMost));
  } catch (const PendingException&) {
    return nullptr;
  } catch (...) {
    message = namedMessageOf(binding->name, std::current_exception());
  }
  napi_throw(env, makeError(*e, message));
  return nullptr;
}

namespace {

// setup(TorchError, flags: Int32Array, cacheBytes, threads): what the addon needs from JavaScript. Test runners load
// the same JavaScript several times on one thread, which loads the addon once: it serves the one that came last. As
// many threads are the most that an operation uses by itself, 0: as many as libtorch likes; the first to come sets it.
napi_value setup(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 4) throw UsageError{"setup(errorClass, flags, cacheBytes, threads)"};
  const auto [flags, length] = toTypedArray(e, argv[1], napi_int32_array, "flags");
  if (length < 1) throw UsageError{"flags: expected one at least"};
  const auto hold = [&](napi_ref& reference, napi_value object) {
    if (reference != nullptr) check(e, napi_delete_reference(e.env, reference));
    check(e, napi_create_reference(e.env, object, 1, &reference));
  };
  hold(e.errorClass, argv[0]);
  hold(e.flagsArray, argv[1]);
  e.flags = static_cast<int32_t*>(flags);
  setCpuCacheLimit(toInt(e, argv[2], "cacheBytes"));
  const int64_t threads = toInt(e, argv[3], "threads");
  static std::once_flag bounded;
  std::call_once(bounded, [threads] {
    if (threads > 0 && threads < at::get_num_threads()) at::set_num_threads(static_cast<int>(threads));
  });
  return makeUndefined(e);
}

void define(Environment& e, napi_value exports, const std::vector<Binding>& bindings) {
  for (const Binding& b : bindings) {
    napi_value function;
    e.exports.push_back({&e, &b});
    check(e, napi_create_function(e.env, b.name, NAPI_AUTO_LENGTH, guarded, &e.exports.back(), &function));
    check(e, napi_set_named_property(e.env, exports, b.name, function));
  }
}

}  // namespace

const std::vector<Binding> kModuleBindings = {{"setup", setup}};

// Whether the user has set a variable to 1.
static bool isWanted(const char* variable) {
  const char* const value = std::getenv(variable);
  return value != nullptr && std::strcmp(value, "1") == 0;
}

napi_value initialise(napi_env env, napi_value exports) {
  try {
    installCpuAllocator();
    // "float32" means float32 on every device; PyTorch lets cuDNN's convolutions round to TF32 unless told otherwise.
    // cuDNN's attention is PyTorch's first choice in half precision on an H100. It makes a plan for each shape, which
    // takes up to a second, and texts have many lengths; and its masked backward can give NaN where a length is 64 more
    // than a multiple of 128 (github.com/pytorch/pytorch/issues/196678). Flash attention serves what has no mask,
    // memory-efficient attention the rest.
    static std::once_flag choices;
    std::call_once(choices, [] {
      at::globalContext().setAllowTF32CuBLAS(false);
      at::globalContext().setAllowTF32CuDNN(false);
      if (!isWanted("MIRO_CUDNN_ATTENTION")) at::globalContext().setSDPUseCuDNN(false);
      if (isWanted("MIRO_STACKS")) tellStacksOfCrashes();
    });
    auto owned = std::make_unique<Environment>(env);
    Environment* e = owned.get();
    if (napi_set_instance_data(
            env, e, [](napi_env, void* data, void*) { delete static_cast<Environment*>(data); }, nullptr) != napi_ok) {
      return nullptr;
    }
    owned.release();
    define(*e, exports, kModuleBindings);
    define(*e, exports, kOperatorBindings);
    define(*e, exports, kTensorBindings);
    define(*e, exports, kAutogradBindings);
    define(*e, exports, kRuntimeBindings);
    define(*e, exports, kFileBindings);
    define(*e, exports, kCudaGraphBindings);
    define(*e, exports, kDistributedBindings);
    define(*e, exports, kOptimizerBindings);
    define(*e, exports, kStreamBindings);
    define(*e, exports, kNormBindings);
    define(*e, exports, kLayerBindings);
    define(*e, exports, kByteBindings);
    define(*e, exports, kPixelBindings);
  } catch (...) {
    const std::string message = "could not start the addon: " + messageOf(std::current_exception());
    napi_throw_error(env, nullptr, message.c_str());
    return nullptr;
  }
  return exports;
}

}  // namespace miro

NAPI_MODULE_INIT() { return miro::initialise(env, exports); }
