#include "gpu_rows.hpp"

#include "gpu_program.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <algorithm>
#include <climits>
#include <compare>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace miro {
namespace {

constexpr const char* kSource =
#include "row_kernels.cu.hpp"
    ;
constexpr unsigned kThreads = 256;
constexpr int64_t kBytes = 16;  // that a thread reads and writes at once

// What a kernel is compiled for; a norm's has lanes.
struct Shape {
  int in, out, lanes = 0, chunks = 0, centered = 0, weight = 0;
  auto operator<=>(const Shape&) const = default;
};

// How far a program is off what ATen computes, at most, as one value on its device.
using Difference = std::function<at::Tensor(const GpuProgram&)>;

// The program for a shape on a device; null where it cannot be had. A program was made by a compiler that no test has
// seen, for a device that none has run on: a new one does a little and is compared with ATen, and what does not agree
// is none. Asked for at every call, so that it is found fast.
const GpuProgram* programFor(c10::Device device, const Shape& shape, const char* name, const Difference& difference) {
  static std::mutex mutex;
  static std::map<std::pair<int, Shape>, std::shared_ptr<const GpuProgram>> known;
  std::lock_guard<std::mutex> lock(mutex);
  const auto key = std::make_pair(static_cast<int>(device.index()), shape);
  const auto found = known.find(key);
  if (found != known.end()) return found->second.get();
  std::map<std::string, int> macros{{"THREADS", static_cast<int>(kThreads)}, {"IN", shape.in}, {"OUT", shape.out}};
  if (shape.lanes > 0) {
    macros.insert({{"LANES", shape.lanes},
                   {"CHUNKS", shape.chunks},
                   {"CENTERED", shape.centered},
                   {"WEIGHT", shape.weight}});
  }
  auto program = GpuProgram::make(device, kSource, macros);
  if (!program) return nullptr;  // not now
  if (*program != nullptr) {
    at::NoGradGuard noGrad;
    const c10::impl::ExcludeDispatchKeyGuard noAutocast(c10::autocast_dispatch_keyset);
    std::string failure;
    try {
      const double off = difference(**program).item<double>();
      if (!(off <= 0.02)) failure = " is off by " + std::to_string(off);  // bfloat16 has eight bits
    } catch (const c10::OutOfMemoryError&) {
      throw;  // which says nothing about the program
    } catch (const c10::Error& error) {
      failure = std::string(": ") + error.what_without_backtrace();
    }
    if (!failure.empty()) {
      distrustGpuPrograms(name + failure);
      *program = nullptr;
    }
  }
  return (known[key] = *std::move(program)).get();
}

std::optional<int> codeOf(at::ScalarType dtype) {
  if (dtype == at::kFloat) return 0;
  if (dtype == at::kBFloat16) return 1;
  if (dtype == at::kHalf) return 2;
  return std::nullopt;
}

// How a row is divided among threads.
struct Division {
  unsigned lanes, chunks;
};
std::optional<Division> divisionOf(int64_t width) {
  const int64_t eights = width / 8;
  if (width % 8 != 0 || eights == 0 || eights > 128) return std::nullopt;
  if (eights <= 32) {
    if ((eights & (eights - 1)) != 0) return std::nullopt;
    return Division{static_cast<unsigned>(eights), 1};
  }
  if (eights % 32 != 0) return std::nullopt;
  return Division{32, static_cast<unsigned>(eights / 32)};
}

// As in the kernels.
struct Rows {
  int64_t step0 = 0, step1 = 0, step2 = 0;
  uint32_t size1 = 1, size2 = 1;
};

bool isAligned(const at::Tensor& t) { return reinterpret_cast<uintptr_t>(t.const_data_ptr()) % kBytes == 0; }

// Where the rows of a tensor lie, if the kernels can say and reach it.
std::optional<Rows> rowsOf(const at::Tensor& x) {
  if (!isAligned(x) || (x.size(-1) > 1 && x.stride(-1) != 1)) return std::nullopt;
  std::vector<std::pair<int64_t, int64_t>> dims;  // size and step of each dimension of rows, as few as can be
  for (int64_t i = 0; i + 1 < x.dim(); ++i) {
    const int64_t size = x.size(i), step = x.stride(i);
    if (size == 1) continue;
    if (step * x.element_size() % kBytes != 0) return std::nullopt;
    if (!dims.empty() && dims.back().second == size * step) {
      dims.back() = {dims.back().first * size, step};
    } else {
      dims.emplace_back(size, step);
    }
  }
  if (dims.size() > 3) return std::nullopt;
  dims.insert(dims.begin(), 3 - dims.size(), {1, 0});
  return Rows{dims[0].second, dims[1].second, dims[2].second, static_cast<uint32_t>(dims[1].first),
              static_cast<uint32_t>(dims[2].first)};
}

// The tensor, or a copy, whose values lie side by side from where the kernels can read them.
at::Tensor sideBySide(const at::Tensor& t) {
  const at::Tensor dense = t.contiguous();
  return isAligned(dense) ? dense : dense.clone();
}

// The tensor, or a copy whose rows the kernels reach.
std::pair<at::Tensor, Rows> reachable(const at::Tensor& x) {
  if (const auto rows = rowsOf(x)) return {x, *rows};
  const at::Tensor copy = sideBySide(x);
  return {copy, rowsOf(copy).value_or(Rows{})};
}

unsigned blocksFor(int64_t work, int64_t perBlock, int most) {
  return static_cast<unsigned>(std::min<int64_t>((work + perBlock - 1) / perBlock, most));
}

struct Norm {
  const GpuProgram* program;
  Division division;
  int64_t rows;
  at::ScalarType weights;  // in which the program takes weight and bias
};

// A weight or a bias as a program takes it.
at::Tensor weightFor(const Norm& norm, const at::Tensor& t) { return sideBySide(t.to(norm.weights)); }

at::Tensor normWith(const Norm& norm, const at::Tensor& given, const at::Tensor& weight,
                    const std::optional<at::Tensor>& bias, double eps, at::ScalarType dtype) {
  auto [x, rows] = reachable(given);
  const at::Tensor w = weightFor(norm, weight), b = bias ? weightFor(norm, *bias) : at::Tensor();
  const at::Tensor y = at::empty(x.sizes(), x.options().dtype(dtype));
  const void *from = x.const_data_ptr(), *by = w.const_data_ptr(), *plus = bias ? b.const_data_ptr() : nullptr;
  void* to = y.mutable_data_ptr();
  auto count = static_cast<uint32_t>(norm.rows);
  auto epsilon = static_cast<float>(eps);
  void* arguments[] = {&from, &rows, &by, &plus, &to, &count, &epsilon};
  const unsigned blocks = blocksFor(norm.rows, kThreads / norm.division.lanes, 16 * norm.program->multiprocessors());
  norm.program->launch("rowNorm", blocks, kThreads, arguments);
  return y;
}

NormGradients normBackwardWith(const Norm& norm, const at::Tensor& given, const at::Tensor& gradient,
                               const at::Tensor& weight, bool isCentered, double eps) {
  auto [x, rows] = reachable(given);
  auto [g, gradientRows] = reachable(gradient);
  const at::Tensor w = weightFor(norm, weight);
  const at::Tensor ofInput = at::empty(x.sizes(), x.options());
  const unsigned blocks = blocksFor(norm.rows, kThreads / norm.division.lanes, 4 * norm.program->multiprocessors());
  const at::Tensor partial = at::empty({blocks, isCentered ? 2 : 1, x.size(-1)}, x.options().dtype(at::kFloat));
  const void *from = x.const_data_ptr(), *of = g.const_data_ptr(), *by = w.const_data_ptr();
  void *to = ofInput.mutable_data_ptr(), *sums = partial.mutable_data_ptr();
  auto count = static_cast<uint32_t>(norm.rows);
  auto epsilon = static_cast<float>(eps);
  void* arguments[] = {&from, &rows, &of, &gradientRows, &by, &to, &sums, &count, &epsilon};
  norm.program->launch("rowNormBackward", blocks, kThreads, arguments);
  const at::Tensor summed = partial.sum(0);
  return {ofInput, summed[0], isCentered ? summed[1] : at::Tensor()};
}

struct Gate {
  const GpuProgram* program;
  uint32_t width, eights;  // of the result, in eights
};

at::Tensor swiGluWith(Gate gate, const at::Tensor& x) {
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() /= 2;
  const at::Tensor y = at::empty(shape, x.options());
  const void* from = x.const_data_ptr();
  void* to = y.mutable_data_ptr();
  void* arguments[] = {&from, &to, &gate.width, &gate.eights};
  gate.program->launch("swiGlu", blocksFor(gate.eights, kThreads, 32 * gate.program->multiprocessors()), kThreads,
                       arguments);
  return y;
}

at::Tensor swiGluBackwardWith(Gate gate, const at::Tensor& x, const at::Tensor& given) {
  const at::Tensor gradient = sideBySide(given);
  const at::Tensor ofInput = at::empty(x.sizes(), x.options());
  const void *from = x.const_data_ptr(), *of = gradient.const_data_ptr();
  void* to = ofInput.mutable_data_ptr();
  void* arguments[] = {&from, &of, &to, &gate.width, &gate.eights};
  gate.program->launch("swiGluBackward", blocksFor(gate.eights, kThreads, 32 * gate.program->multiprocessors()),
                       kThreads, arguments);
  return ofInput;
}

at::Tensor largestDifference(const std::vector<std::pair<at::Tensor, at::Tensor>>& pairs) {
  std::vector<at::Tensor> all;
  for (const auto& [got, want] : pairs) {
    const at::Tensor wanted = want.to(at::kFloat);
    all.push_back((got.to(at::kFloat) - wanted).abs().amax() / wanted.abs().amax().clamp_min(1));
  }
  return at::stack(all).amax();
}

// Values without a pattern, which take nothing from the stream of random numbers.
at::Tensor waves(at::IntArrayRef shape, double speed, const at::TensorOptions& options) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return at::arange(count, options.dtype(at::kFloat)).mul(speed).sin().view(shape).to(options.dtype());
}

at::Tensor normDifference(const Norm& small, const at::Tensor& like, at::ScalarType out, bool isCentered) {
  const int64_t width = like.size(-1);
  const at::TensorOptions wide = at::TensorOptions(like.device()).dtype(at::kFloat);
  // As queries lie in the product that gives queries, keys and values.
  const at::Tensor x = waves({small.rows / 14, 7, 3, 2, width}, 0.7, like.options()).select(2, 1);
  const at::Tensor g = waves({small.rows / 14, 2, 7, width}, 1.3, wide.dtype(out)).transpose(1, 2);
  const at::Tensor weight = (waves({width}, 2.1, wide) + 1).to(small.weights);
  const at::Tensor bias = waves({width}, 0.3, wide.dtype(small.weights));
  const at::Tensor x32 = x.to(at::kFloat), g32 = g.to(at::kFloat), mean = x32.mean({-1}, true);
  const at::Tensor centered = isCentered ? x32 - mean : x32;
  const at::Tensor scale = (centered.square().mean({-1}, true) + 1e-6).rsqrt(), n = centered * scale;
  const at::Tensor y = n * weight + (isCentered ? bias : at::zeros_like(bias)), gw = g32 * weight;
  const at::Tensor ofInput =
      scale * (gw - (isCentered ? gw.mean({-1}, true) : at::zeros_like(scale)) - n * (gw * n).mean({-1}, true));
  const NormGradients got = normBackwardWith(small, x, g, weight, isCentered, 1e-6);
  std::vector<std::pair<at::Tensor, at::Tensor>> pairs{
      {normWith(small, x, weight, isCentered ? std::optional(bias) : std::nullopt, 1e-6, out), y},
      {got.ofInput, ofInput},
      {got.ofWeight, (g32 * n).sum({0, 1, 2})}};
  if (isCentered) pairs.emplace_back(got.ofBias, g32.sum({0, 1, 2}));
  return largestDifference(pairs);
}

std::optional<Norm> normFor(const at::Tensor& x, at::ScalarType weight, at::ScalarType out, bool isCentered) {
  if (!x.is_cuda() || x.layout() != at::kStrided || x.dim() == 0 || x.numel() == 0) return std::nullopt;
  const auto from = codeOf(x.scalar_type()), to = codeOf(out);
  const auto division = divisionOf(x.size(-1));
  const int64_t rows = x.numel() / x.size(-1);
  if (!from || !to || !division || rows > INT_MAX || (isCentered && division->chunks > 2)) return std::nullopt;
  if (x.scalar_type() != out && x.scalar_type() != at::kFloat) return std::nullopt;
  // Of x's dtype they are taken as they are: to turn both into float32 at each call takes two kernels more.
  const at::ScalarType weights = weight == x.scalar_type() ? weight : at::kFloat;
  const Shape shape{*from,      *to,          static_cast<int>(division->lanes), static_cast<int>(division->chunks),
                    isCentered, *codeOf(weights)};
  const char* name = isCentered ? "layer norm" : "root-mean-square norm";
  const GpuProgram* program = programFor(x.device(), shape, name, [&](const GpuProgram& made) {
    return normDifference({&made, *division, 5 * 14, weights}, x, out, isCentered);
  });
  if (program == nullptr) return std::nullopt;
  return Norm{program, *division, rows, weights};
}

at::Tensor gateDifference(const GpuProgram& program, const at::Tensor& like) {
  constexpr int64_t kWidth = 24, kRows = 37;
  const at::Tensor x = waves({kRows, 2 * kWidth}, 0.7, like.options()) * 3;
  const at::Tensor g = waves({kRows, kWidth}, 1.3, like.options());
  const Gate small{&program, kWidth / 8, kRows * kWidth / 8};
  const at::Tensor value = x.narrow(1, 0, kWidth), open = x.narrow(1, kWidth, kWidth);
  return largestDifference(
      {{swiGluWith(small, x), at::silu(open) * value},
       {swiGluBackwardWith(small, x, g), at::cat({g * at::silu(open), at::silu_backward(g * value, open)}, -1)}});
}

std::optional<Gate> gateFor(const at::Tensor& x) {
  if (!x.is_cuda() || x.dim() == 0 || x.numel() == 0 || !x.is_contiguous() || !isAligned(x)) return std::nullopt;
  const auto code = codeOf(x.scalar_type());
  if (!code || x.size(-1) % 16 != 0 || x.numel() / 16 > INT_MAX) return std::nullopt;
  const GpuProgram* program = programFor(x.device(), {*code, *code}, "SwiGLU", [&](const GpuProgram& made) {
    return gateDifference(made, x);
  });
  if (program == nullptr) return std::nullopt;
  return Gate{program, static_cast<uint32_t>(x.size(-1) / 16), static_cast<uint32_t>(x.numel() / 16)};
}

template <typename T>
T there(std::optional<T> kernel) {
  TORCH_CHECK(kernel, "there is no kernel for this tensor");
  return *std::move(kernel);
}

}  // namespace

bool hasGpuNorm(const at::Tensor& x, const at::Tensor& weight, bool isCentered, at::ScalarType dtype) {
  return normFor(x, weight.scalar_type(), dtype, isCentered).has_value();
}

at::Tensor gpuNorm(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias, double eps,
                   at::ScalarType dtype) {
  return normWith(there(normFor(x, weight.scalar_type(), dtype, bias.has_value())), x, weight, bias, eps, dtype);
}

NormGradients gpuNormBackward(const at::Tensor& x, const at::Tensor& gradient, const at::Tensor& weight,
                              bool isCentered, double eps) {
  const Norm norm = there(normFor(x, weight.scalar_type(), gradient.scalar_type(), isCentered));
  return normBackwardWith(norm, x, gradient, weight, isCentered, eps);
}

bool hasGpuSwiGlu(const at::Tensor& x) { return gateFor(x).has_value(); }

at::Tensor gpuSwiGlu(const at::Tensor& x) { return swiGluWith(there(gateFor(x)), x); }

at::Tensor gpuSwiGluBackward(const at::Tensor& x, const at::Tensor& gradient) {
  return swiGluBackwardWith(there(gateFor(x)), x, gradient);
}

}  // namespace miro
