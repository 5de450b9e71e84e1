// The kernels of row_kernels.cu.hpp as functions of tensors on NVIDIA GPUs. ATen's kernels for norms give each row a
// block of threads, which queries and keys of 32 values leave idle; SwiGLU takes it two passes there and five back.
// What `has…` denies, because the kernel cannot be had or does not fit, is ATen's to compute.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace miro {

// Whether there is a kernel for a norm of x over its last dimension, layer norm where it is centered, else
// root-mean-square norm. @param dtype of the result: that of x, or with x in float32 any
bool hasGpuNorm(const at::Tensor& x, const at::Tensor& weight, bool isCentered, at::ScalarType dtype);

// The norm, in float32 inside. @param weight, bias (width), of any floating dtype; with a bias it is layer norm
at::Tensor gpuNorm(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias, double eps,
                   at::ScalarType dtype);

struct NormGradients {
  at::Tensor ofInput, ofWeight, ofBias;  // the last two in float32; without a bias the last is undefined
};
NormGradients gpuNormBackward(const at::Tensor& x, const at::Tensor& gradient, const at::Tensor& weight,
                              bool isCentered, double eps);

// Whether there is a kernel for value · SiLU(gate) of x (…, [value, gate]).
bool hasGpuSwiGlu(const at::Tensor& x);

// Rounded where ATen's operators round.
at::Tensor gpuSwiGlu(const at::Tensor& x);
at::Tensor gpuSwiGluBackward(const at::Tensor& x, const at::Tensor& gradient);

}  // namespace miro
