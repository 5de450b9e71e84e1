// As much of CUDA C++ as the kernels of row_kernels.cu.hpp use, on a CPU: each of a block's threads is a thread, and
// those of a warp wait for each other where they exchange values. Slow, and only for tests.
#pragma once

#include <barrier>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

struct uint4 {
  unsigned x, y, z, w;
};
struct float4 {
  float x, y, z, w;
};
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

inline float __uint_as_float(unsigned bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline unsigned __float_as_uint(float value) {
  unsigned bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline float rsqrtf(float value) { return 1 / std::sqrt(value); }

#define HALF_IS_DEFINED
inline float fromHalf(unsigned short bits) {
  _Float16 value;
  std::memcpy(&value, &bits, sizeof value);
  return static_cast<float>(value);
}
inline unsigned short toHalf(float value) {
  const auto half = static_cast<_Float16>(value);
  unsigned short bits;
  std::memcpy(&bits, &half, sizeof bits);
  return bits;
}

struct Index {
  unsigned x;
};
inline thread_local Index threadIdx, blockIdx, gridDim;

struct Warp {
  std::barrier<> barrier{32};
  float values[32];
};
inline thread_local Warp* warp;
inline thread_local std::barrier<>* block;

inline float __shfl_xor_sync(unsigned, float value, int distance, int) {
  const unsigned own = threadIdx.x % 32;
  warp->values[own] = value;
  warp->barrier.arrive_and_wait();
  const float other = warp->values[own ^ distance];
  warp->barrier.arrive_and_wait();
  return other;
}
inline void __syncthreads() { block->arrive_and_wait(); }

#define __device__
#define __global__
#define __launch_bounds__(threads)
#define __shared__ static

// One block after the other, so that what they share can be static.
template <typename Kernel>
void launch(unsigned blocks, unsigned threads, Kernel kernel) {
  for (unsigned b = 0; b < blocks; ++b) {
    std::barrier<> all(threads);
    std::vector<std::unique_ptr<Warp>> warps;
    for (unsigned i = 0; i < threads / 32; ++i) warps.push_back(std::make_unique<Warp>());
    std::vector<std::thread> running;
    for (unsigned t = 0; t < threads; ++t) {
      running.emplace_back([&, t] {
        threadIdx.x = t, blockIdx.x = b, gridDim.x = blocks;
        warp = warps[t / 32].get(), block = &all;
        kernel();
      });
    }
    for (auto& thread : running) thread.join();
  }
}
