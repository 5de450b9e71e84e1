// State of the addon in one JavaScript environment (the main thread or a worker), and helpers to talk to it.
//
// JavaScript names a tensor by an integer of 53 bits: slot index in the low 22, the slot's generation above them.
// A freed slot's generation moves on, so a stale handle is recognised instead of reaching another tensor.
#pragma once

#include <node_api.h>

#include <ATen/ATen.h>
#include <ATen/core/Generator.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/Event.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cstdint>
#include <deque>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace miro {

// The slot of a tensor, and how often the slot was filled before: an integer of JavaScript, which has 53 bits. A handle
// whose tensor was freed may come back from JavaScript at any time, and must not name what fills the slot by then.
using Handle = int64_t;

constexpr int kIndexBits = 22;
constexpr uint32_t kIndexMask = (1u << kIndexBits) - 1;
constexpr uint32_t kGenerations = 1u << 31;

// A JavaScript exception is pending; unwinds to the callback's boundary.
struct PendingException {};
// Wrong use found before libtorch was called: becomes a TorchError with this message.
struct UsageError {
  std::string message;
};

struct Slot {
  at::Tensor tensor;
  uint32_t generation = 1;
  bool used = false;
  bool kept = false;             // survives the scope it was made in
  bool isNew = false;            // came with memory of its own, which a scope owns so far
  napi_ref weak = nullptr;       // set for tensors outside of every scope: tells when JavaScript has forgotten them
};

enum class Kind : uint8_t {
  Tensor, TensorList, OptionalTensorList, Int, Float, Bool, Scalar, String, IntList, FloatList, BoolList, ScalarList,
  OptionalScalarList, ScalarType, MemoryFormat, Layout, Device, Generator, Unsupported
};

struct IntegerRange {
  int64_t first, last;
};

struct ArgumentPlan {
  std::string name;
  Kind kind = Kind::Unsupported;
  bool optional = false;
  bool hasDefault = false;
  int32_t fixedLength = 0;       // int[2]: one number stands for two
  const IntegerRange* range = nullptr;  // of an integer that stands for a member of an enumeration
  c10::IValue defaultValue;
};

// Calls an operator with its tensors, its scalars and its sizes; an undefined tensor where it only writes.
using DirectCall = std::function<at::Tensor(at::Tensor* const*, const at::Scalar*, c10::SymIntArrayRef)>;

struct OperatorPlan {
  explicit OperatorPlan(c10::OperatorHandle handle) : handle(std::move(handle)) {}
  c10::OperatorHandle handle;
  std::string name;              // aten::add.Tensor
  std::vector<ArgumentPlan> arguments;
  DirectCall direct;             // how to call it without the stack; empty where its schema does not allow that
  std::vector<at::Scalar> defaultScalars;
  bool writesOnly = false;       // every result aliases an argument that it writes: nothing to hand back
};

struct DistributedObject;  // distributed.cpp
class Environment;
struct Binding;

// What an exported function is called with: no question to Node-API is needed to find the environment.
struct Export {
  Environment* environment;
  const Binding* binding;
};

class Environment {
 public:
  explicit Environment(napi_env env) : env(env) {}
  ~Environment();

  Handle store(at::Tensor tensor);
  // The slot of a handle, null where its tensor was freed. Here, to be inlined: every tensor of every call asks for it.
  Slot* find(Handle handle) {
    const size_t index = static_cast<size_t>(handle) & kIndexMask;
    if (handle <= 0 || index >= slots_.size()) return nullptr;
    Slot& s = slots_[index];
    return s.used && s.generation == (handle >> kIndexBits) ? &s : nullptr;
  }
  Slot& slot(Handle handle);
  const at::Tensor& tensor(Handle handle) { return slot(handle).tensor; }
  bool valid(Handle handle) { return find(handle) != nullptr; }
  void free(Handle handle);

  void beginScope();
  void endScope(const std::vector<Handle>& escaping);
  void track(Handle handle, napi_value object);
  void trackGenerator(int32_t id, napi_value object);
  struct Swept {
    size_t freed = 0;
    int64_t freedBytes = 0, heldBytes = 0;
  };
  Swept sweep();

  napi_env env;
  napi_ref errorClass = nullptr;
  std::deque<Export> exports;    // of each function; their addresses stay
  const char* entry = "";        // name of the exported function that was called last
  napi_ref flagsArray = nullptr;
  int32_t* flags = nullptr;      // its memory, shared with JavaScript; [0]: forgotten tensors may be worth collecting
  int64_t budgetBytes = 64ll << 20;
  int64_t newBytes = 0;          // of tensors that no scope owns, since the last sweep
  int64_t newTracked = 0;
  size_t liveSlots = 0;

  std::vector<std::unique_ptr<OperatorPlan>> operators;
  std::vector<at::Generator> generators;
  std::vector<int32_t> freeGenerators;
  std::vector<std::pair<int32_t, napi_ref>> trackedGenerators;  // and their JavaScript objects, weakly
  std::vector<std::unique_ptr<c10::InferenceMode>> inferenceGuards;
  std::vector<std::shared_ptr<void>> graphs;  // CUDA graphs by id, null when freed
  std::vector<std::weak_ptr<void>> graphPools;  // memory that several of them share, by id; empty while none has any
  std::vector<std::shared_ptr<c10::Event>> events;  // how far devices have come, by id, null when freed
  // Stores, process groups and reducers by id, null when freed
  std::vector<std::shared_ptr<DistributedObject>> distributed;
  c10::Stack stack;              // reused between calls
  bool stackBusy = false;

 private:
  void release(Slot& s);
  void countNew(Slot& s);  // the memory that a tensor brought, once no scope owns it
  void askForSweep();

  std::vector<Slot> slots_;
  std::vector<uint32_t> freeSlots_;
  std::vector<std::vector<Handle>> scopes_;
  std::vector<Handle> tracked_;
};

// ---- talking to JavaScript -------------------------------------------------------------------------------------
void check(Environment& e, napi_status status);
// A TorchError; a plain Error while JavaScript has not given its class.
napi_value makeError(Environment& e, const std::string& message);

double toDouble(Environment& e, napi_value v, const char* what);
// As JavaScript writes it: 3, not 3.000000.
std::string numberText(Environment& e, napi_value v);
int64_t toInt(Environment& e, napi_value v, const char* what);
bool toBool(Environment& e, napi_value v, const char* what);
std::string toString(Environment& e, napi_value v, const char* what);
std::vector<Handle> toHandles(Environment& e, napi_value v, const char* what);
// The memory and the length of a typed array of this type.
std::pair<void*, size_t> toTypedArray(Environment& e, napi_value v, napi_typedarray_type type, const char* what);
napi_value makeNumber(Environment& e, double v);
napi_value makeInt(Environment& e, int64_t v);
napi_value makeBool(Environment& e, bool v);
napi_value makeString(Environment& e, const std::string& v);
napi_value makeUndefined(Environment& e);
// An array of what `make` makes of each item.
template <typename Items, typename Make>
napi_value makeArray(Environment& e, const Items& items, const Make& make) {
  napi_value result;
  check(e, napi_create_array_with_length(e.env, std::size(items), &result));
  uint32_t i = 0;
  for (const auto& item : items) check(e, napi_set_element(e.env, result, i++, make(e, item)));
  return result;
}
napi_value makeHandles(Environment& e, const std::vector<Handle>& v);
// What `read` makes of each item of an array; nothing for what is none. Memory is taken as items are found: an array
// may be a thousand million long and hold nothing.
template <typename Read>
auto readArray(Environment& e, napi_value v, const Read& read) -> std::optional<std::vector<decltype(read(v))>> {
  uint32_t length = 0;
  if (napi_get_array_length(e.env, v, &length) != napi_ok) return std::nullopt;
  std::vector<decltype(read(v))> result;
  result.reserve(std::min<uint32_t>(length, 64));
  for (uint32_t i = 0; i < length; ++i) {
    napi_value item;
    check(e, napi_get_element(e.env, v, i, &item));
    result.push_back(read(item));
  }
  return result;
}
// A number that is exactly an integer of 53 bits; Node-API's own conversion would cut fractions off.
inline bool readHandle(double d, Handle* result) {
  constexpr double most = 9007199254740992.0;
  if (!(d >= -most && d <= most)) return false;
  *result = static_cast<Handle>(d);
  return static_cast<double>(*result) == d;
}
// One question to Node-API, and inlined: it is asked for every tensor of every call.
inline bool readHandle(Environment& e, napi_value v, Handle* result) {
  double d = 0;
  return napi_get_value_double(e.env, v, &d) == napi_ok && readHandle(d, result);
}
// Argument i of a call, which must be there and be a handle (0 included).
Handle handleAt(Environment& e, napi_value* argv, size_t argc, size_t i);
// The tensor of a handle, of which 0 stands for none.
std::optional<at::Tensor> optionalTensor(Environment& e, napi_value* argv, size_t argc, size_t i);
std::string describe(const at::Tensor& t);
// Whether a tensor's values lie in its memory. Some hold a promise in place of them: to be negated, conjugated, or zero
// without any memory. Operators of ATen's know that; what reads the memory itself has to ask.
inline bool hasValues(const at::Tensor& t) { return !t.is_neg() && !t.is_conj() && !t._is_zerotensor(); }
// The tensor, or a copy whose values lie in its memory. Gradients go through it.
inline at::Tensor materialised(const at::Tensor& t) {
  return hasValues(t) ? t : (t._is_zerotensor() ? t.clone() : t).resolve_conj().resolve_neg();
}
// The same for argument i of a call.
at::Tensor materialAt(Environment& e, napi_value* argv, size_t argc, size_t i);

// ---- enumerations and indices: libtorch uses most of them unchecked, as an index into a table ----------------------
// Whether a number is the c10::ScalarType of a dtype that this binding names.
bool knownDtype(int64_t code);
// Argument i of a call: a dtype's number.
at::ScalarType dtypeAt(Environment& e, napi_value* argv, size_t argc, size_t i);
// "cpu", "cuda", "cuda:N" or "meta" (shapes without values); others are refused.
c10::Device deviceOf(const std::string& name);
// Argument i of a call: the index of a CUDA device that there is; without the argument, 0.
c10::DeviceIndex cudaIndexAt(Environment& e, napi_value* argv, size_t argc, size_t i);
// What autocast turns products on a device into; nothing outside of it.
std::optional<at::ScalarType> productDtype(c10::DeviceType device);
// An integer within bounds, both included.
int64_t intWithin(Environment& e, napi_value v, const char* what, int64_t first, int64_t last);

// What a caught exception says, in one line; memory that ran out is said in words.
std::string messageOf(const std::exception_ptr& failure);
// The same; where memory ran out, with the name of what was called.
std::string namedMessageOf(const char* name, const std::exception_ptr& failure);

using Function = napi_value (*)(Environment&, napi_value* argv, size_t argc);
napi_value guarded(napi_env env, napi_callback_info info);

struct Binding {
  const char* name;
  Function function;
};
extern const std::vector<Binding> kOperatorBindings, kTensorBindings, kAutogradBindings, kRuntimeBindings,
    kFileBindings, kCudaGraphBindings, kDistributedBindings, kOptimizerBindings, kStreamBindings, kNormBindings,
    kLayerBindings, kByteBindings, kPixelBindings;

}  // namespace miro
