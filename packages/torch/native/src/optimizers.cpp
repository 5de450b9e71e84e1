// What a training step does to all parameters: one call for the whole list. Float32 tensors on the CPU are gone through
// by the loops of lists.cpp, all others by ATen's foreach and fused kernels. Lists are Float64Arrays of handles.
// Nothing here waits for a device.
#include "environment.hpp"
#include "lists.hpp"
#include "parallel.hpp"

#include <ATen/ATen.h>
#include <ATen/MemoryOverlap.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace miro {
namespace {

using Tensors = std::vector<at::Tensor>;

Tensors tensorsAt(Environment& e, napi_value* argv, size_t argc, size_t i, const char* what, bool mayLack = false) {
  if (i >= argc) throw UsageError{std::string(what) + " are missing"};
  const auto [data, length] = toTypedArray(e, argv[i], napi_float64_array, what);
  const auto* handles = static_cast<const double*>(data);
  Tensors result;
  result.reserve(length);
  for (size_t k = 0; k < length; ++k) {
    Handle handle = 0;
    if (!readHandle(handles[k], &handle)) throw UsageError{std::string(what) + " must hold tensors"};
    result.push_back(handle == 0 && mayLack ? at::Tensor() : e.tensor(handle));
  }
  return result;
}
// Of which 0 stands for no tensor.
Tensors statesAt(Environment& e, napi_value* argv, size_t argc, size_t i, const char* what) {
  return tensorsAt(e, argv, argc, i, what, true);
}

at::Tensor gradientOf(const at::Tensor& parameter) {
  return parameter.requires_grad() ? parameter.grad() : at::Tensor();
}

// Places in a list of parameters whose gradients one kernel can take together: of one device and one dtype.
struct Alike {
  c10::Device device;
  at::ScalarType dtype;
  std::vector<size_t> places;
  Tensors gradients;
};

std::vector<Alike> alike(const Tensors& parameters) {
  std::vector<Alike> lists;
  for (size_t i = 0; i < parameters.size(); ++i) {
    at::Tensor gradient = gradientOf(parameters[i]);
    if (!gradient.defined()) continue;
    const auto found = std::find_if(lists.begin(), lists.end(), [&](const Alike& list) {
      return list.device == gradient.device() && list.dtype == gradient.scalar_type();
    });
    Alike& list =
        found != lists.end() ? *found : lists.emplace_back(Alike{gradient.device(), gradient.scalar_type(), {}, {}});
    list.places.push_back(i);
    list.gradients.push_back(std::move(gradient));
  }
  return lists;
}

// Whether the loops of lists.cpp can go through a tensor.
bool isPlain(const at::Tensor& t) {
  return t.is_cpu() && t.scalar_type() == at::kFloat && t.layout() == at::kStrided && t.is_contiguous() && hasValues(t);
}
bool arePlain(const Tensors& list) { return std::all_of(list.begin(), list.end(), isPlain); }

// Calls `piece(from, count)` for all pieces of n values, on all threads where there are several pieces.
template <typename Piece>
void inPieces(int64_t n, const Piece& piece) {
  const int64_t pieces = (n + lists::kPiece - 1) / lists::kPiece;
  inParallel(pieces, 1, [&](int64_t first, int64_t last) {
    for (int64_t k = first; k < last; ++k) piece(k * lists::kPiece, std::min(lists::kPiece, n - k * lists::kPiece));
  });
}

double squares(const at::Tensor& t) {
  const float* x = t.const_data_ptr<float>();
  if (t.numel() <= lists::kPiece) return lists::squares(x, t.numel());
  std::vector<double> sums((t.numel() + lists::kPiece - 1) / lists::kPiece);
  inPieces(t.numel(),
           [&](int64_t from, int64_t count) { sums[from / lists::kPiece] = lists::squares(x + from, count); });
  double sum = 0;
  for (const double some : sums) sum += some;
  return sum;
}

void scale(const at::Tensor& t, float c) {
  float* x = t.mutable_data_ptr<float>();
  inPieces(t.numel(), [&](int64_t from, int64_t count) { lists::scale(x + from, c, count); });
  t.unsafeGetTensorImpl()->bump_version();
}

// gradients(parameters) -> handles, 0 where there is none
napi_value gradients(Environment& e, napi_value* argv, size_t argc) {
  std::vector<Handle> handles;
  for (const at::Tensor& parameter : tensorsAt(e, argv, argc, 0, "parameters")) {
    const at::Tensor gradient = gradientOf(parameter);
    handles.push_back(gradient.defined() ? e.store(gradient) : 0);
  }
  return makeHandles(e, handles);
}

// clearGradients(parameters)
napi_value clearGradients(Environment& e, napi_value* argv, size_t argc) {
  for (const at::Tensor& parameter : tensorsAt(e, argv, argc, 0, "parameters")) parameter.mutable_grad() = at::Tensor();
  return makeUndefined(e);
}

// The norm before. A coefficient that is not a number changes nothing.
at::Tensor clipPlain(const Tensors& gradients, double maxNorm) {
  double sum = 0;
  for (const at::Tensor& g : gradients) sum += squares(g);
  const auto norm = static_cast<float>(std::sqrt(sum));
  const float coefficient = 1 / (norm + 1e-6f) * static_cast<float>(maxNorm);
  if (coefficient < 1) {
    for (const at::Tensor& g : gradients) scale(g, coefficient);
  }
  return at::scalar_tensor(norm);
}

// clipGradients(parameters, maxNorm) -> the norm before
napi_value clipGradients(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 2) throw UsageError{"clipGradients(parameters, maxNorm)"};
  const double maxNorm = toDouble(e, argv[1], "maxNorm");
  at::NoGradGuard noGrad;
  const auto lists = alike(tensorsAt(e, argv, argc, 0, "parameters"));
  if (lists.empty()) return makeInt(e, e.store(at::zeros({})));
  if (lists.size() == 1 && arePlain(lists[0].gradients))
    return makeInt(e, e.store(clipPlain(lists[0].gradients, maxNorm)));
  Tensors norms;
  for (const Alike& list : lists) {
    for (at::Tensor& norm : at::_foreach_norm(list.gradients, 2)) norms.push_back(norm.to(lists.front().device));
  }
  const at::Tensor total = at::linalg_vector_norm(at::stack(norms), 2);
  // A norm that is NaN changes nothing, so that it can still be seen which gradients were to blame.
  const at::Tensor coefficient =
      total.add(1e-6).reciprocal().mul(maxNorm).clamp(std::nullopt, at::Scalar(1)).nan_to_num(1.0);
  for (const Alike& list : lists) {
    if (coefficient.is_cpu() && coefficient.item<double>() == 1) continue;  // looking costs nothing there
    at::_foreach_mul_(list.gradients, coefficient.to(list.device));
  }
  return makeInt(e, e.store(total));
}

// unscaleGradients(parameters, inverse of the scale, found): multiplies; `found` becomes 1 where a value is not finite
napi_value unscaleGradients(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 3) throw UsageError{"unscaleGradients(parameters, inverseScale, found)"};
  at::NoGradGuard noGrad;
  const at::Tensor inverse = e.tensor(handleAt(e, argv, argc, 1));
  at::Tensor found = e.tensor(handleAt(e, argv, argc, 2));
  for (const Alike& list : alike(tensorsAt(e, argv, argc, 0, "parameters"))) {
    at::Tensor there =
        list.device == found.device() ? found : at::zeros_like(found, found.options().device(list.device));
    at::_amp_foreach_non_finite_check_and_unscale_(list.gradients, there, inverse.to(list.device));
    if (list.device != found.device()) found.copy_(at::maximum(found, there.to(found.device())));
  }
  return makeUndefined(e);
}

// moveTowards(targets, sources, weight): targets += weight · (sources − targets)
napi_value moveTowards(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 3) throw UsageError{"moveTowards(targets, sources, weight)"};
  at::NoGradGuard noGrad;
  const Tensors targets = tensorsAt(e, argv, argc, 0, "targets"), sources = tensorsAt(e, argv, argc, 1, "sources");
  if (targets.size() != sources.size()) throw UsageError{"moveTowards: the lists must be of one length"};
  const double weight = toDouble(e, argv[2], "weight");
  Tensors others, theirSources;
  for (size_t i = 0; i < targets.size(); ++i) {
    const at::Tensor &target = targets[i], &source = sources[i];
    if (!isPlain(target) || !isPlain(source) || target.sizes() != source.sizes()) {
      others.push_back(target);
      theirSources.push_back(source);
      continue;
    }
    float* x = target.mutable_data_ptr<float>();
    const float* y = source.const_data_ptr<float>();
    inPieces(target.numel(), [&](int64_t from, int64_t count) {
      lists::moveTowards(x + from, y + from, static_cast<float>(weight), count);
    });
    target.unsafeGetTensorImpl()->bump_version();
  }
  if (!others.empty()) at::_foreach_lerp_(others, theirSources, at::Scalar(weight));
  return makeUndefined(e);
}

// ---- optimizer steps -------------------------------------------------------------------------------------------

struct Settings {
  double lr, beta1, beta2, eps, weightDecay;
  bool decoupled, adapted;
};

// Parameters that one kernel takes together, with their state.
struct Group {
  Tensors parameters, gradients, firsts, seconds, steps;
  size_t size() const { return parameters.size(); }
  Group part(size_t from, size_t to) const {
    const auto cut = [&](const Tensors& list) { return Tensors(list.begin() + from, list.begin() + to); };
    return {cut(parameters), cut(gradients), cut(firsts), cut(seconds), cut(steps)};
  }
};

// Temporaries are made for this many values at a time: enough to fill the kernels, little to hold.
constexpr int64_t kBucketValues = int64_t{1} << 24;

void adamw(const Settings& s, const Group& g, double weightDecay, const std::optional<at::Tensor>& skip) {
  at::_fused_adamw_(g.parameters, g.gradients, g.firsts, g.seconds, {}, g.steps, s.lr, s.beta1, s.beta2, weightDecay,
                    s.eps, false, false, std::nullopt, skip);
  // The fused kernel does not count its changes, by which a graph that still needs the old values knows of them.
  for (const at::Tensor& parameter : g.parameters) parameter.unsafeGetTensorImpl()->bump_version();
}

// ‖p‖/‖r‖ for each pair, 1 where either is 0.
at::Tensor trustRatios(const Tensors& parameters, const Tensors& directions) {
  const at::Tensor weights = at::stack(at::_foreach_norm(parameters, 2)),
                   changes = at::stack(at::_foreach_norm(directions, 2));
  return at::where(weights.ne(0).logical_and(changes.ne(0)), weights.div(changes), at::Scalar(1));
}

// p ← p − η·ρ·r with r = λp + m̂/(√v̂ + ε): Adam's kernel with a rate of −1 adds its step to what stands in λp.
void adaptedLamb(const Settings& s, const Group& g, const std::optional<at::Tensor>& skip) {
  const Tensors directions = at::_foreach_mul(g.parameters, at::Scalar(s.decoupled ? 0.0 : s.weightDecay));
  at::_fused_adam_(directions, g.gradients, g.firsts, g.seconds, {}, g.steps, -1.0, s.beta1, s.beta2, 0.0, s.eps, false,
                   false, std::nullopt, skip);
  at::Tensor rates = trustRatios(g.parameters, directions).mul(-s.lr);
  if (skip) rates = rates.mul(1 - *skip);
  at::_foreach_addcmul_(g.parameters, directions, rates.unbind(0));
}

bool isPlain(const Group& g) {
  return arePlain(g.parameters) && arePlain(g.gradients) && arePlain(g.firsts) && arePlain(g.seconds);
}

// The same, and the decoupled decay, in two passes over each tensor.
void plainLamb(const Settings& s, const Group& g) {
  for (size_t i = 0; i < g.size(); ++i) {
    const at::Tensor& parameter = g.parameters[i];
    const int64_t n = parameter.numel();
    const double k = g.steps[i].item<double>();
    const auto f = [](double value) { return static_cast<float>(value); };
    const lists::Lamb step{f(s.beta1), f(1 - s.beta1), f(s.beta2), f(1 - s.beta2), f(1 / (1 - std::pow(s.beta1, k))),
                           f(1 / std::sqrt(1 - std::pow(s.beta2, k))), f(s.eps), f(s.decoupled ? 0.0 : s.weightDecay)};
    const at::Tensor direction = at::empty_like(parameter);
    float *p = parameter.mutable_data_ptr<float>(), *m = g.firsts[i].mutable_data_ptr<float>(),
          *v = g.seconds[i].mutable_data_ptr<float>(), *r = direction.mutable_data_ptr<float>();
    const float* grad = g.gradients[i].const_data_ptr<float>();
    std::vector<lists::Sums> sums((n + lists::kPiece - 1) / lists::kPiece);
    inPieces(n, [&](int64_t from, int64_t count) {
      sums[from / lists::kPiece] =
          lists::lambDirection(step, p + from, grad + from, m + from, v + from, r + from, count);
    });
    lists::Sums all{0, 0};
    for (const auto& [weights, directions] : sums) all = {all.weights + weights, all.directions + directions};
    const double ratio =
        s.adapted && all.weights != 0 && all.directions != 0 ? std::sqrt(all.weights) / std::sqrt(all.directions) : 1;
    const auto rate = static_cast<float>(-s.lr * ratio), rest = static_cast<float>(1 - s.weightDecay);
    const bool decays = s.decoupled && s.weightDecay != 0;
    inPieces(n, [&](int64_t from, int64_t count) {
      lists::addScaled(p + from, r + from, rate, count);
      if (decays) lists::scale(p + from, rest, count);
    });
    for (const at::Tensor& changed : {parameter, g.firsts[i], g.seconds[i]})
      changed.unsafeGetTensorImpl()->bump_version();
  }
}

void lamb(const Settings& s, const Group& g, const std::optional<at::Tensor>& skip) {
  if (s.adapted) {
    size_t from = 0;
    int64_t values = 0;
    for (size_t i = 0; i <= g.size(); ++i) {
      const int64_t more = i < g.size() ? g.parameters[i].numel() : 0;
      if (i > from && (i == g.size() || values + more > kBucketValues)) {
        adaptedLamb(s, g.part(from, i), skip);
        from = i;
        values = 0;
      }
      values += more;
    }
  } else {
    adamw(s, g, s.decoupled ? 0 : s.weightDecay, skip);
  }
  if (!s.decoupled || s.weightDecay == 0) return;
  if (skip) at::_foreach_mul_(g.parameters, (*skip - 1).mul(s.weightDecay).add(1).to(g.parameters[0].scalar_type()));
  else at::_foreach_mul_(g.parameters, at::Scalar(1 - s.weightDecay));
}

// The fused kernels go through the memory of each tensor by the size of the parameter, from its first value on: all of
// them must lie in one piece and alike. Copies stand in for those that do not.
class InOnePiece {
 public:
  // Gaps in a parameter, as a slice has them, would be written to as well.
  at::Tensor parameter(const at::Tensor& t) {
    return t.is_non_overlapping_and_dense() && hasValues(t) ? t : standIn(t, t);
  }
  at::Tensor state(const at::Tensor& parameter, const at::Tensor& t) {
    return isLike(parameter, t) ? t : standIn(parameter, t);
  }
  static at::Tensor gradient(const at::Tensor& parameter, const at::Tensor& t) {
    return isLike(parameter, t) ? t : at::empty_like(parameter).copy_(t);
  }
  void copyBack() const {
    for (const auto& [original, copy] : copies_) original.copy_(copy);
  }

 private:
  static bool isLike(const at::Tensor& parameter, const at::Tensor& t) {
    return t.strides() == parameter.strides() && hasValues(t);
  }
  at::Tensor standIn(const at::Tensor& parameter, const at::Tensor& t) {
    if (at::has_internal_overlap(t) == at::MemOverlap::Yes) {
      throw UsageError{"optimizerStep: values of " + describe(t) +
                       " share their memory, as those of expand() do; optimise what was expanded"};
    }
    return copies_.emplace_back(t, at::empty_like(parameter).copy_(t)).second;
  }
  std::vector<std::pair<at::Tensor, at::Tensor>> copies_;
};

// optimizerStep("adamw" | "lamb", [lr, beta1, beta2, eps, weightDecay, decoupled, adapted], parameters, firsts,
// seconds, steps, all steps or 0, skip or 0): updates every parameter that has a gradient; nothing where `skip` is 1.
napi_value optimizerStep(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 8)
    throw UsageError{"optimizerStep(algorithm, settings, parameters, firsts, seconds, steps, allSteps, skip)"};
  const std::string algorithm = toString(e, argv[0], "algorithm");
  const auto [data, count] = toTypedArray(e, argv[1], napi_float64_array, "settings");
  const auto* numbers = static_cast<const double*>(data);
  if (count != 7 || (algorithm != "adamw" && algorithm != "lamb")) throw UsageError{"optimizerStep: unknown settings"};
  const Settings s{numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5] != 0, numbers[6] != 0};
  at::NoGradGuard noGrad;
  const Tensors parameters = tensorsAt(e, argv, argc, 2, "parameters"), firsts = statesAt(e, argv, argc, 3, "firsts"),
                seconds = statesAt(e, argv, argc, 4, "seconds"), steps = statesAt(e, argv, argc, 5, "steps");
  if (firsts.size() != parameters.size() || seconds.size() != parameters.size() || steps.size() != parameters.size()) {
    throw UsageError{"optimizerStep: the lists must be of one length"};
  }
  std::optional<at::Tensor> allSteps = optionalTensor(e, argv, argc, 6);
  const std::optional<at::Tensor> skip = optionalTensor(e, argv, argc, 7);
  for (const Alike& list : alike(parameters)) {
    Group g;
    InOnePiece pieces;
    for (size_t k = 0; k < list.places.size(); ++k) {
      const size_t i = list.places[k];
      if (!firsts[i].defined() || !seconds[i].defined() || !steps[i].defined()) {
        throw UsageError{"optimizerStep: a parameter with a gradient has no state"};
      }
      for (const at::Tensor* of : {&list.gradients[k], &firsts[i], &seconds[i]}) {
        if (of->sizes() != parameters[i].sizes()) {
          throw UsageError{"optimizerStep: a gradient or a state of " + describe(*of) + " does not fit the parameter " +
                           describe(parameters[i])};
        }
      }
      if (steps[i].numel() != 1) throw UsageError{"optimizerStep: a count of steps is no scalar"};
      const at::Tensor& parameter = g.parameters.emplace_back(pieces.parameter(parameters[i]));
      g.gradients.push_back(InOnePiece::gradient(parameter, list.gradients[k]));
      g.firsts.push_back(pieces.state(parameter, firsts[i]));
      g.seconds.push_back(pieces.state(parameter, seconds[i]));
      g.steps.push_back(steps[i]);
    }
    const std::optional<at::Tensor> skipThere =
        skip ? std::optional<at::Tensor>(skip->to(list.device).reshape({})) : std::nullopt;
    const bool all = allSteps && g.size() == parameters.size();
    const Tensors counted = all ? Tensors{*allSteps} : g.steps;
    if (skipThere) at::_foreach_add_(counted, 1 - *skipThere);
    else at::_foreach_add_(counted, at::Scalar(1));
    if (algorithm == "adamw") adamw(s, g, s.weightDecay, skipThere);
    else if (!isPlain(g)) lamb(s, g, skipThere);
    else if (!skipThere || skipThere->item<float>() == 0) plainLamb(s, g);
    pieces.copyBack();
  }
  return makeUndefined(e);
}

}  // namespace

const std::vector<Binding> kOptimizerBindings = {
    {"gradients", gradients}, {"clearGradients", clearGradients}, {"clipGradients", clipGradients},
    {"unscaleGradients", unscaleGradients}, {"moveTowards", moveTowards}, {"optimizerStep", optimizerStep}};

}  // namespace miro
