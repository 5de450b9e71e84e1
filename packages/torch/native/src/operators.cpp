// Calling libtorch's operators by schema name: arguments are converted under the schema's guidance and pushed on a
// stack, the dispatcher is called boxed, results become handles, numbers, strings, arrays or null.
#include "environment.hpp"

#include <ATen/core/function_schema.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <unordered_map>

namespace miro {
namespace {

Kind kindOf(const c10::TypePtr& shown, const c10::TypePtr& real, bool* optional) {
  c10::TypePtr type = shown, exact = real;
  if (type->kind() == c10::TypeKind::OptionalType) {
    *optional = true;
    type = type->castRaw<c10::OptionalType>()->getElementType();
    if (exact->kind() == c10::TypeKind::OptionalType) exact = exact->castRaw<c10::OptionalType>()->getElementType();
  }
  switch (exact->kind()) {
    case c10::TypeKind::ScalarTypeType: return Kind::ScalarType;
    case c10::TypeKind::MemoryFormatType: return Kind::MemoryFormat;
    case c10::TypeKind::LayoutType: return Kind::Layout;
    default: break;
  }
  switch (type->kind()) {
    case c10::TypeKind::TensorType: return Kind::Tensor;
    case c10::TypeKind::IntType:
    case c10::TypeKind::SymIntType: return Kind::Int;
    case c10::TypeKind::FloatType:
    case c10::TypeKind::SymFloatType: return Kind::Float;
    case c10::TypeKind::BoolType:
    case c10::TypeKind::SymBoolType: return Kind::Bool;
    case c10::TypeKind::NumberType: return Kind::Scalar;
    case c10::TypeKind::StringType: return Kind::String;
    case c10::TypeKind::DeviceObjType: return Kind::Device;
    case c10::TypeKind::GeneratorType: return Kind::Generator;
    case c10::TypeKind::ListType: {
      const auto element = type->castRaw<c10::ListType>()->getElementType();
      switch (element->kind()) {
        case c10::TypeKind::TensorType: return Kind::TensorList;
        case c10::TypeKind::OptionalType:
          switch (element->castRaw<c10::OptionalType>()->getElementType()->kind()) {
            case c10::TypeKind::TensorType: return Kind::OptionalTensorList;
            case c10::TypeKind::NumberType: return Kind::OptionalScalarList;
            default: return Kind::Unsupported;
          }
        case c10::TypeKind::IntType:
        case c10::TypeKind::SymIntType: return Kind::IntList;
        case c10::TypeKind::FloatType: return Kind::FloatList;
        case c10::TypeKind::BoolType: return Kind::BoolList;
        case c10::TypeKind::NumberType: return Kind::ScalarList;
        default: return Kind::Unsupported;
      }
    }
    default: return Kind::Unsupported;
  }
}

const char* kindName(Kind kind) {
  switch (kind) {
    case Kind::Tensor: return "a Tensor";
    case Kind::TensorList: return "an array of Tensors";
    case Kind::OptionalTensorList: return "an array of Tensors or nulls";
    case Kind::Int: return "an integer";
    case Kind::Float: return "a number";
    case Kind::Bool: return "a boolean";
    case Kind::Scalar: return "a number, bigint or boolean";
    case Kind::String: return "a string";
    case Kind::IntList: return "an array of integers";
    case Kind::FloatList: return "an array of numbers";
    case Kind::BoolList: return "an array of booleans";
    case Kind::ScalarList: return "an array of numbers";
    case Kind::OptionalScalarList: return "an array of numbers or nulls";
    case Kind::ScalarType: return "a dtype name";
    case Kind::MemoryFormat: return "'contiguous_format', 'channels_last', 'channels_last_3d' or 'preserve_format'";
    case Kind::Layout: return "'strided'";
    case Kind::Device: return "a device name";
    case Kind::Generator: return "a Generator";
    default: return "something this binding does not support";
  }
}

const std::unordered_map<std::string, at::ScalarType> kDtypes = {
    {"uint8", at::kByte}, {"int8", at::kChar}, {"int16", at::kShort}, {"int32", at::kInt}, {"int64", at::kLong},
    {"float16", at::kHalf}, {"float32", at::kFloat}, {"float64", at::kDouble}, {"bool", at::kBool},
    {"bfloat16", at::kBFloat16}, {"complex64", at::kComplexFloat}, {"complex128", at::kComplexDouble}};

// Integers that stand for the members of an enumeration: libtorch switches over most of them without a default.
const std::unordered_map<std::string, IntegerRange> kEnumeratedIntegers = {
    {"reduction", {0, 2}},                              // none, mean, sum
    // grid_sampler: bilinear, nearest, bicubic; zeros, border, reflection
    {"interpolation_mode", {0, 2}}, {"padding_mode", {0, 2}},
    {"normalization", {0, 2}},                          // of Fourier transforms: none, by the root of n, by n
};

[[noreturn]] void refuse(const ArgumentPlan& a, const std::string& found) {
  std::string wanted = kindName(a.kind);
  if (a.range != nullptr) wanted += " from " + std::to_string(a.range->first) + " to " + std::to_string(a.range->last);
  throw UsageError{"argument '" + a.name + "' must be " + wanted + (a.optional ? " or null" : "") + ", got " + found};
}

[[noreturn]] void missing(const ArgumentPlan& a) {
  throw UsageError{"argument '" + a.name + "' is missing: it must be " + kindName(a.kind)};
}

bool isUndefined(Environment& e, napi_value v) {
  napi_valuetype type;
  check(e, napi_typeof(e.env, v, &type));
  return type == napi_undefined;
}

std::string foundType(Environment& e, napi_value v) {
  napi_valuetype type;
  check(e, napi_typeof(e.env, v, &type));
  switch (type) {
    case napi_undefined: return "undefined";
    case napi_null: return "null";
    case napi_boolean: return "a boolean";
    case napi_number: return "the number " + numberText(e, v);
    case napi_string: return "the string '" + toString(e, v, "") + "'";
    case napi_bigint: return "a bigint";
    case napi_object: {
      bool array = false;
      napi_is_array(e.env, v, &array);
      return array ? "an array" : "an object";
    }
    default: return "a value of another type";
  }
}

// A number that is integral is an integer Scalar; an object { float: x } (made by float(x)) forces a double.
at::Scalar toScalar(Environment& e, napi_value v, const ArgumentPlan& a) {
  napi_valuetype type;
  check(e, napi_typeof(e.env, v, &type));
  if (type == napi_number) {
    double d = 0;
    napi_get_value_double(e.env, v, &d);
    if (d == std::floor(d) && std::abs(d) < 9007199254740992.0 && !(d == 0 && std::signbit(d))) {
      return at::Scalar(static_cast<int64_t>(d));
    }
    return at::Scalar(d);
  }
  if (type == napi_boolean) return at::Scalar(toBool(e, v, "scalar"));
  if (type == napi_bigint) return at::Scalar(toInt(e, v, "scalar"));
  if (type == napi_object) {
    napi_value inner;
    double d = 0;
    if (napi_get_named_property(e.env, v, "float", &inner) == napi_ok &&
        napi_get_value_double(e.env, inner, &d) == napi_ok) {
      return at::Scalar(d);
    }
  }
  refuse(a, foundType(e, v));
}

template <typename Read>
auto readArray(Environment& e, napi_value v, const ArgumentPlan& a, const Read& read) {
  auto result = miro::readArray(e, v, read);
  if (!result) refuse(a, foundType(e, v));
  return *std::move(result);
}

// The tensor in its slot: valid until JavaScript runs again.
at::Tensor& tensorOf(Environment& e, Handle handle, const ArgumentPlan& a) {
  if (Slot* found = e.find(handle)) return found->tensor;
  throw UsageError{"argument '" + a.name + "': this tensor was freed (disposed, or made in a scope that has ended)"};
}

at::Tensor& readTensor(Environment& e, napi_value v, const ArgumentPlan& a) {
  Handle handle = 0;
  if (!readHandle(e, v, &handle)) {
    if (isUndefined(e, v)) missing(a);
    refuse(a, foundType(e, v));
  }
  return tensorOf(e, handle, a);
}

int64_t readInt(Environment& e, napi_value v, const ArgumentPlan& a) {
  double d = 0;
  int64_t result = 0;
  if (napi_get_value_double(e.env, v, &d) == napi_ok) {
    if (d != std::floor(d) || std::abs(d) > 9007199254740992.0) refuse(a, foundType(e, v));
    result = static_cast<int64_t>(d);
  } else {
    napi_valuetype type;
    check(e, napi_typeof(e.env, v, &type));
    if (type != napi_bigint) refuse(a, foundType(e, v));
    result = toInt(e, v, a.name.c_str());
  }
  if (a.range != nullptr && (result < a.range->first || result > a.range->last)) refuse(a, std::to_string(result));
  return result;
}

std::string readString(Environment& e, napi_value v, const ArgumentPlan& a) {
  napi_valuetype type;
  check(e, napi_typeof(e.env, v, &type));
  if (type != napi_string) refuse(a, foundType(e, v));
  return toString(e, v, a.name.c_str());
}

c10::IValue convert(Environment& e, napi_value v, const ArgumentPlan& a) {
  if (a.kind == Kind::Tensor) {  // by far the most frequent: no type query before
    Handle handle = 0;
    if (readHandle(e, v, &handle)) return tensorOf(e, handle, a);
  }
  napi_valuetype type;
  check(e, napi_typeof(e.env, v, &type));
  if (type == napi_undefined && a.hasDefault) return a.defaultValue;
  if (type == napi_undefined || type == napi_null) {
    if (a.optional) return c10::IValue();
    if (type == napi_undefined) missing(a);
    refuse(a, "null");
  }
  switch (a.kind) {
    case Kind::Tensor: return readTensor(e, v, a);
    case Kind::TensorList: {
      c10::List<at::Tensor> list;
      for (auto& t : readArray(e, v, a, [&](napi_value i) -> at::Tensor { return readTensor(e, i, a); }))
        list.push_back(std::move(t));
      return list;
    }
    case Kind::OptionalTensorList: {
      c10::List<std::optional<at::Tensor>> list;
      for (auto& t : readArray(e, v, a, [&](napi_value i) -> std::optional<at::Tensor> {
             napi_valuetype kind;
             check(e, napi_typeof(e.env, i, &kind));
             if (kind == napi_null || kind == napi_undefined) return std::nullopt;
             return readTensor(e, i, a);
           })) {
        list.push_back(std::move(t));
      }
      return list;
    }
    case Kind::Int: return readInt(e, v, a);
    case Kind::Float: {
      double d = 0;
      if (napi_get_value_double(e.env, v, &d) != napi_ok) refuse(a, foundType(e, v));
      return d;
    }
    case Kind::Bool: {
      bool b = false;
      if (napi_get_value_bool(e.env, v, &b) != napi_ok) refuse(a, foundType(e, v));
      return b;
    }
    case Kind::Scalar: return toScalar(e, v, a);
    case Kind::String: return readString(e, v, a);
    case Kind::IntList: {
      if (a.fixedLength > 0 && type == napi_number) {
        return c10::List<int64_t>(c10::IntArrayRef(std::vector<int64_t>(a.fixedLength, readInt(e, v, a))));
      }
      return c10::List<int64_t>(c10::IntArrayRef(readArray(e, v, a, [&](napi_value i) { return readInt(e, i, a); })));
    }
    case Kind::FloatList: {
      c10::List<double> list;
      if (a.fixedLength > 0 && type == napi_number) {
        for (int32_t i = 0; i < a.fixedLength; ++i) list.push_back(toDouble(e, v, a.name.c_str()));
        return list;
      }
      for (const double d : readArray(e, v, a, [&](napi_value i) { return toDouble(e, i, a.name.c_str()); }))
        list.push_back(d);
      return list;
    }
    case Kind::BoolList: {
      c10::List<bool> list;
      if (a.fixedLength > 0 && type == napi_boolean) {
        for (int32_t i = 0; i < a.fixedLength; ++i) list.push_back(toBool(e, v, a.name.c_str()));
        return list;
      }
      for (const bool b : readArray(e, v, a, [&](napi_value i) { return toBool(e, i, a.name.c_str()); }))
        list.push_back(b);
      // Becomes a std::array: its length is part of the signature.
      if (a.fixedLength > 0 && list.size() != static_cast<size_t>(a.fixedLength)) {
        refuse(a, "an array of " + std::to_string(list.size()) + " for " + std::to_string(a.fixedLength));
      }
      return list;
    }
    case Kind::ScalarList: {
      c10::impl::GenericList list(c10::NumberType::get());
      for (auto& s : readArray(e, v, a, [&](napi_value i) { return toScalar(e, i, a); })) list.push_back(std::move(s));
      return list;
    }
    case Kind::OptionalScalarList: {
      c10::impl::GenericList list(c10::OptionalType::create(c10::NumberType::get()));
      for (auto& s : readArray(e, v, a, [&](napi_value i) -> c10::IValue {
             napi_valuetype kind;
             check(e, napi_typeof(e.env, i, &kind));
             if (kind == napi_null || kind == napi_undefined) return c10::IValue();
             return toScalar(e, i, a);
           })) {
        list.push_back(std::move(s));
      }
      return list;
    }
    case Kind::ScalarType: {
      if (type == napi_number) {
        const int64_t code = readInt(e, v, a);
        if (!knownDtype(code)) refuse(a, "the code " + std::to_string(code));
        return code;
      }
      const auto found = kDtypes.find(readString(e, v, a));
      if (found == kDtypes.end()) refuse(a, foundType(e, v));
      return static_cast<int64_t>(found->second);
    }
    case Kind::MemoryFormat: {
      static const char* const names[] = {"contiguous_format", "preserve_format", "channels_last", "channels_last_3d"};
      if (type == napi_number) {
        const int64_t code = readInt(e, v, a);
        if (code < 0 || code >= 4) refuse(a, "the code " + std::to_string(code));
        return code;
      }
      const std::string name = readString(e, v, a);
      for (int64_t i = 0; i < 4; ++i) {
        if (name == names[i]) return i;
      }
      refuse(a, "'" + name + "'");
    }
    case Kind::Layout: {
      constexpr auto strided = static_cast<int64_t>(at::kStrided);
      if (type == napi_number ? readInt(e, v, a) != strided : readString(e, v, a) != "strided")
        refuse(a, foundType(e, v));
      return strided;
    }
    case Kind::Device: return deviceOf(readString(e, v, a));
    case Kind::Generator: {
      Handle id = -1;
      if (!readHandle(e, v, &id) || id < 0 || static_cast<size_t>(id) >= e.generators.size() ||
          !e.generators[id].defined()) {
        refuse(a, foundType(e, v));
      }
      return e.generators[id];
    }
    default: refuse(a, foundType(e, v));
  }
}

napi_value toJavaScript(Environment& e, const c10::IValue& v) {
  napi_value result;
  if (v.isTensor()) {
    if (!v.toTensor().defined()) {
      check(e, napi_get_null(e.env, &result));
      return result;
    }
    return makeInt(e, e.store(v.toTensor()));
  }
  if (v.isNone()) {
    check(e, napi_get_null(e.env, &result));
    return result;
  }
  if (v.isInt()) return makeNumber(e, static_cast<double>(v.toInt()));
  if (v.isDouble()) return makeNumber(e, v.toDouble());
  if (v.isBool()) {
    check(e, napi_get_boolean(e.env, v.toBool(), &result));
    return result;
  }
  if (v.isSymInt()) return makeNumber(e, static_cast<double>(v.toSymInt().expect_int()));
  if (v.isString()) return makeString(e, v.toStringRef());
  if (v.isDevice()) return makeString(e, v.toDevice().str());
  if (v.isTuple() || v.isList()) {
    std::vector<c10::IValue> items;
    if (v.isTuple()) {
      for (const auto& item : v.toTupleRef().elements()) items.push_back(item);
    } else {
      for (const auto& item : v.toListRef()) items.push_back(item);
    }
    return makeArray(e, items, toJavaScript);
  }
  if (v.isScalar()) return makeNumber(e, v.toScalar().to<double>());
  throw UsageError{"a result of type " + v.tagKind() + " is not supported"};
}

std::string argumentSummary(const OperatorPlan& plan, const c10::Stack& arguments) {
  std::string text;
  for (size_t i = 0; i < arguments.size() && i < plan.arguments.size(); ++i) {
    const auto& v = arguments[i];
    std::string shown;
    if (v.isTensor()) {
      shown = describe(v.toTensor());
    } else if (v.isTensorList()) {
      for (const at::Tensor& t : v.toTensorVector()) {
        if (shown.size() > 160) {
          shown += ", …";
          break;
        }
        shown += (shown.empty() ? "" : ", ") + describe(t);
      }
      shown = "[" + shown + "]";
    } else {
      continue;
    }
    text += (text.empty() ? "" : ", ") + plan.arguments[i].name + " " + shown;
  }
  return text;
}

// ---- calling without the stack ---------------------------------------------------------------------------------
// Most calls are of operators that take tensors, then scalars (or one list of sizes), and give a tensor. The C++
// signature of such an operator follows from its schema, so that it can be called as C++ does: no boxing, no copies of
// the arguments.

constexpr size_t kDirectTensors = 3, kDirectScalars = 2;

template <typename Type, size_t>
using Repeat = Type;

template <size_t... T, size_t... S>
DirectCall direct(const c10::OperatorHandle& handle, bool writes, std::index_sequence<T...>,
                  std::index_sequence<S...>) {
  if (!writes) {
    const auto typed = handle.typed<at::Tensor(Repeat<const at::Tensor&, T>..., Repeat<const at::Scalar&, S>...)>();
    return [typed](at::Tensor* const* tensors, const at::Scalar* scalars, c10::SymIntArrayRef) {
      return typed.call(*tensors[T]..., scalars[S]...);
    };
  }
  return [&]<size_t... R>(std::index_sequence<R...>) -> DirectCall {
    const auto typed =
        handle.typed<at::Tensor&(at::Tensor&, Repeat<const at::Tensor&, R>..., Repeat<const at::Scalar&, S>...)>();
    return [typed](at::Tensor* const* tensors, const at::Scalar* scalars, c10::SymIntArrayRef) {
      typed.call(*tensors[0], *tensors[R + 1]..., scalars[S]...);
      return at::Tensor();
    };
  }(std::make_index_sequence<sizeof...(T) - 1>());
}

template <size_t T>
DirectCall direct(const c10::OperatorHandle& handle, bool writes, size_t scalars) {
  constexpr auto tensors = std::make_index_sequence<T>();
  if (scalars == 0) return direct(handle, writes, tensors, std::make_index_sequence<0>());
  if (scalars == 1) return direct(handle, writes, tensors, std::make_index_sequence<1>());
  return direct(handle, writes, tensors, std::make_index_sequence<2>());
}

// Fills in how `plan` can be called without the stack, if it can.
void planDirect(OperatorPlan& plan) {
  const auto& schema = plan.handle.schema();
  if (schema.returns().size() != 1 || schema.returns()[0].type()->kind() != c10::TypeKind::TensorType) return;
  size_t tensors = 0, scalars = 0, sizes = 0;
  for (size_t i = 0; i < plan.arguments.size(); ++i) {
    const ArgumentPlan& a = plan.arguments[i];
    const auto* alias = schema.arguments()[i].alias_info();
    const bool written = alias != nullptr && alias->isWrite();
    if (a.optional || (written && i > 0) || (i == 0 && written != plan.writesOnly)) return;
    if (a.kind == Kind::Tensor && scalars + sizes == 0) {
      ++tensors;
    } else if (a.kind == Kind::Scalar && sizes == 0) {
      ++scalars;
      plan.defaultScalars.push_back(a.hasDefault ? a.defaultValue.toScalar() : at::Scalar());
    } else if (a.kind == Kind::IntList && scalars + sizes == 0 &&
               schema.arguments()[i].real_type()->str() == "SymInt[]" && a.fixedLength == 0 && !a.hasDefault) {
      ++sizes;
    } else {
      return;
    }
  }
  if (tensors == 0 || tensors > kDirectTensors || scalars > kDirectScalars) return;
  try {
    if (sizes > 0) {
      if (tensors != 1 || plan.writesOnly) return;
      const auto typed = plan.handle.typed<at::Tensor(const at::Tensor&, c10::SymIntArrayRef)>();
      plan.direct = [typed](at::Tensor* const* given, const at::Scalar*, c10::SymIntArrayRef list) {
        return typed.call(*given[0], list);
      };
    } else if (tensors == 1) {
      plan.direct = direct<1>(plan.handle, plan.writesOnly, scalars);
    } else if (tensors == 2) {
      plan.direct = direct<2>(plan.handle, plan.writesOnly, scalars);
    } else {
      plan.direct = direct<3>(plan.handle, plan.writesOnly, scalars);
    }
  } catch (const std::exception&) {
    plan.direct = nullptr;  // registered with another signature: called boxed
  }
}

// operator(name, overload) -> index for call(). Throws for unknown names and for types that JavaScript cannot express.
napi_value lookUp(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 2) throw UsageError{"operator(name, overload)"};
  const std::string name = toString(e, argv[0], "name"), overload = toString(e, argv[1], "overload");
  const std::string full = name + (overload.empty() ? "" : "." + overload);
  const auto handle = c10::Dispatcher::singleton().findSchema({name, overload});
  if (!handle.has_value()) throw UsageError{"libtorch has no operator " + full};
  auto plan = std::make_unique<OperatorPlan>(*handle);
  plan->name = full;
  const auto& schema = handle->schema();
  for (const auto& argument : schema.arguments()) {
    ArgumentPlan a;
    a.name = argument.name();
    a.kind = kindOf(argument.type(), argument.real_type(), &a.optional);
    a.fixedLength = argument.N().value_or(0);
    if (a.kind == Kind::Int) {
      const auto range = kEnumeratedIntegers.find(a.name);
      if (range != kEnumeratedIntegers.end()) a.range = &range->second;
    }
    if (argument.default_value().has_value()) {
      a.hasDefault = true;
      a.defaultValue = *argument.default_value();
    }
    plan->arguments.push_back(std::move(a));
  }
  plan->writesOnly = !schema.returns().empty();
  for (const auto& r : schema.returns()) {
    if (r.alias_info() == nullptr || !r.alias_info()->isWrite()) plan->writesOnly = false;
  }
  planDirect(*plan);
  e.operators.push_back(std::move(plan));
  return makeInt(e, static_cast<int32_t>(e.operators.size() - 1));
}

class StackLease {
 public:
  explicit StackLease(Environment& e) : e_(e), own_(e.stackBusy) {
    e.stackBusy = true;
    get().clear();
  }
  ~StackLease() {
    get().clear();
    if (!own_) e_.stackBusy = false;
  }
  c10::Stack& get() { return own_ ? local_ : e_.stack; }

 private:
  Environment& e_;
  bool own_;
  c10::Stack local_;
};

// The error of a call that libtorch refused: its message with the tensors that were given.
[[noreturn]] void refused(Environment& e, const OperatorPlan& plan, std::string message, napi_value* given,
                          size_t count) {
  message = message.substr(0, message.find('\n'));
  c10::Stack arguments;
  try {
    for (size_t i = 0; i < count; ++i) arguments.push_back(convert(e, given[i], plan.arguments[i]));
  } catch (...) {
  }
  const std::string summary = argumentSummary(plan, arguments);
  throw UsageError{plan.name + ": " + message + (summary.empty() ? "" : " (" + summary + ")")};
}

napi_value callDirect(Environment& e, OperatorPlan& plan, napi_value* given, size_t count) {
  at::Tensor* tensors[kDirectTensors];
  at::Scalar scalars[kDirectScalars];
  c10::SmallVector<c10::SymInt, 8> sizes;
  const size_t wanted = plan.arguments.size();
  const size_t before = wanted - plan.defaultScalars.size();  // arguments that are no scalars
  try {
    // Tensors last: reading the others may run JavaScript, which may move or free tensors.
    for (size_t i = before; i < wanted; ++i) {
      const ArgumentPlan& a = plan.arguments[i];
      const bool absent = i >= count || isUndefined(e, given[i]);
      if (absent && !a.hasDefault) missing(a);
      scalars[i - before] = absent ? plan.defaultScalars[i - before] : toScalar(e, given[i], a);
    }
    for (size_t i = before; i-- > 0;) {
      const ArgumentPlan& a = plan.arguments[i];
      if (i >= count) missing(a);
      if (a.kind == Kind::Tensor) {
        tensors[i] = &readTensor(e, given[i], a);
        continue;
      }
      uint32_t length = 0;
      if (napi_get_array_length(e.env, given[i], &length) != napi_ok) {
        if (isUndefined(e, given[i])) missing(a);
        refuse(a, foundType(e, given[i]));
      }
      for (uint32_t k = 0; k < length; ++k) {
        napi_value item;
        check(e, napi_get_element(e.env, given[i], k, &item));
        sizes.emplace_back(readInt(e, item, a));
      }
    }
  } catch (UsageError& error) {
    throw UsageError{plan.name + ": " + error.message};
  }
  std::string message;
  try {
    at::Tensor result = plan.direct(tensors, scalars, sizes);
    if (plan.writesOnly) return makeUndefined(e);
    return result.defined() ? makeInt(e, e.store(std::move(result))) : toJavaScript(e, result);
  } catch (const UsageError&) {
    throw;
  } catch (const PendingException&) {
    throw;
  } catch (...) {
    message = messageOf(std::current_exception());
  }
  refused(e, plan, std::move(message), given, count);
}

// call(index, ...arguments) -> results. Tensors are handles; an operator that only writes into its arguments gives
// undefined.
napi_value callOperator(Environment& e, napi_value* argv, size_t argc) {
  Handle index = -1;
  if (argc < 1 || !readHandle(e, argv[0], &index) || index < 0 ||
      static_cast<size_t>(index) >= e.operators.size()) {
    throw UsageError{"call: unknown operator index"};
  }
  OperatorPlan& plan = *e.operators[index];
  const size_t given = argc - 1, wanted = plan.arguments.size();
  if (given > wanted) {
    throw UsageError{plan.name + ": takes " + std::to_string(wanted) + " arguments, got " + std::to_string(given)};
  }
  if (plan.direct) return callDirect(e, plan, argv + 1, given);
  StackLease lease(e);
  c10::Stack& stack = lease.get();
  try {
    for (size_t i = 0; i < wanted; ++i) {
      const ArgumentPlan& a = plan.arguments[i];
      if (i < given) {
        stack.push_back(convert(e, argv[i + 1], a));
      } else if (a.hasDefault) {
        stack.push_back(a.defaultValue);
      } else if (a.optional) {
        stack.emplace_back();
      } else {
        missing(a);
      }
    }
  } catch (UsageError& error) {
    throw UsageError{plan.name + ": " + error.message};
  }
  // Boxed kernels consume the stack: for an error message the arguments are converted once more.
  std::string message;
  bool failed = false;
  try {
    plan.handle.callBoxed(stack);
  } catch (...) {
    message = messageOf(std::current_exception());
    failed = true;
  }
  if (failed) refused(e, plan, std::move(message), argv + 1, given);
  if (plan.writesOnly || stack.empty()) return makeUndefined(e);
  if (stack.size() == 1) {
    if (stack[0].isTensor() && stack[0].toTensor().defined())
      return makeInt(e, e.store(std::move(stack[0]).toTensor()));
    return toJavaScript(e, stack[0]);
  }
  return makeArray(e, stack, toJavaScript);
}

// schemas() -> every schema of the dispatcher as text, sorted: what the typed wrappers are generated from.
napi_value schemas(Environment& e, napi_value*, size_t) {
  std::vector<std::string> lines;
  for (const auto& name : c10::Dispatcher::singleton().getAllOpNames()) {
    const auto handle = c10::Dispatcher::singleton().findSchema(name);
    if (!handle.has_value()) continue;
    std::ostringstream text;
    text << handle->schema();
    lines.push_back(text.str());
  }
  std::sort(lines.begin(), lines.end());
  return makeArray(e, lines, makeString);
}

// schema(name with overload) -> its text.
napi_value schema(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 1) throw UsageError{"schema(name)"};
  const std::string full = toString(e, argv[0], "name");
  const size_t dot = full.find('.');
  const auto handle = c10::Dispatcher::singleton().findSchema(
      {full.substr(0, dot), dot == std::string::npos ? "" : full.substr(dot + 1)});
  if (!handle.has_value()) throw UsageError{"libtorch has no operator " + full};
  std::ostringstream text;
  text << handle->schema();
  return makeString(e, text.str());
}

}  // namespace

bool knownDtype(int64_t code) {
  return std::any_of(kDtypes.begin(), kDtypes.end(),
                     [code](const auto& entry) { return static_cast<int64_t>(entry.second) == code; });
}

const std::vector<Binding> kOperatorBindings = {
    {"operator", lookUp}, {"call", callOperator}, {"schemas", schemas}, {"schema", schema}};

}  // namespace miro
