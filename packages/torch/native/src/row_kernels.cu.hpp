R"CUDA(
// Kernels for NVIDIA GPUs that go through the rows of a tensor, in CUDA C++ without any header: NVRTC compiles them on
// the machine that runs them (gpu_program.cpp). Everything is computed in float32.
//
// Defined from outside:
//   THREADS   of a block
//   IN, OUT   what is read and what is written: 0 float32, 1 bfloat16, 2 float16
// and for norms, which are left out without:
//   LANES     threads that share a row, a power of two up to 32
//   CHUNKS    how often each of them takes eight values of it: a row has 8 · LANES · CHUNKS
//   CENTERED  1: layer norm, 0: root-mean-square norm
//   WEIGHT    what weight and bias are, as IN

template <int code> struct Dtype { typedef unsigned short Stored; };
template <> struct Dtype<0> { typedef float Stored; };
typedef Dtype<IN>::Stored In;
typedef Dtype<OUT>::Stored Out;

#ifndef HALF_IS_DEFINED
__device__ float fromHalf(unsigned short bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}
__device__ unsigned short toHalf(float value) {
  unsigned short bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}
#endif

template <int code> __device__ float widened(unsigned short bits) {
  return code == 1 ? __uint_as_float((unsigned)bits << 16) : fromHalf(bits);
}
// To the nearest, of two the even one.
template <int code> __device__ unsigned short narrowed(float value) {
  if (code == 2) return toHalf(value);
  const unsigned bits = __float_as_uint(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fc0;
  return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
}
// Two values as one word, the first in its lower half. From the A100 on, that is one instruction.
template <int code> __device__ unsigned narrowedPair(float first, float second) {
#if __CUDA_ARCH__ >= 800
  unsigned word;
  if (code == 1) asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(second), "f"(first));
  else asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(second), "f"(first));
  return word;
#else
  return narrowed<code>(first) | (unsigned)narrowed<code>(second) << 16;
#endif
}
template <int code> __device__ float rounded(float value) {
  return code == 0 ? value : widened<code>(narrowedPair<code>(value, 0) & 0xffffu);
}

// Eight values that lie side by side, sixteen bytes at a time.
template <int code> struct Eight {
  __device__ static void load(const unsigned short* from, float* to) {
    const uint4 read = *reinterpret_cast<const uint4*>(from);
    const unsigned words[4] = {read.x, read.y, read.z, read.w};
    for (int i = 0; i < 4; ++i) {
      to[2 * i] = widened<code>(words[i] & 0xffffu);
      to[2 * i + 1] = widened<code>(words[i] >> 16);
    }
  }
  __device__ static void store(unsigned short* to, const float* from) {
    unsigned words[4];
    for (int i = 0; i < 4; ++i) words[i] = narrowedPair<code>(from[2 * i], from[2 * i + 1]);
    *reinterpret_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
  }
};
template <> struct Eight<0> {
  __device__ static void load(const float* from, float* to) {
    for (int i = 0; i < 2; ++i) {
      const float4 read = reinterpret_cast<const float4*>(from)[i];
      to[4 * i] = read.x, to[4 * i + 1] = read.y, to[4 * i + 2] = read.z, to[4 * i + 3] = read.w;
    }
  }
  __device__ static void store(float* to, const float* from) {
    for (int i = 0; i < 2; ++i) {
      reinterpret_cast<float4*>(to)[i] = make_float4(from[4 * i], from[4 * i + 1], from[4 * i + 2], from[4 * i + 3]);
    }
  }
};

#ifdef LANES

typedef Dtype<WEIGHT>::Stored Weight;
#define WIDTH (8 * LANES * CHUNKS)
#define EACH (8 * CHUNKS)

// Where the rows of a tensor with up to three dimensions of rows lie; the values of a row lie side by side.
struct Rows {
  long long step0, step1, step2;
  unsigned size1, size2;
};
__device__ long long placeOf(const Rows& rows, unsigned row) {
  // A division takes as long as two of a row's values.
  if (rows.size2 == 1 && rows.size1 == 1) return row * rows.step0;
  const unsigned others = row / rows.size2, last = row - others * rows.size2;
  if (rows.size1 == 1) return others * rows.step0 + last * rows.step2;
  const unsigned first = others / rows.size1;
  return first * rows.step0 + (others - first * rows.size1) * rows.step1 + last * rows.step2;
}

// This thread's values of a row.
template <int code, typename Stored> __device__ void loadRow(const Stored* row, unsigned lane, float* to) {
  for (int c = 0; c < CHUNKS; ++c) Eight<code>::load(row + 8 * (c * LANES + lane), to + 8 * c);
}
template <int code, typename Stored> __device__ void storeRow(Stored* row, unsigned lane, const float* from) {
  for (int c = 0; c < CHUNKS; ++c) Eight<code>::store(row + 8 * (c * LANES + lane), from + 8 * c);
}

// The sum over the threads of a row, the same in each of them. All threads of a warp must come here.
__device__ float sumOfRow(float value) {
  for (int distance = LANES / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(0xffffffffu, value, distance, LANES);
  }
  return value;
}

// Turns a row into what its weight is multiplied by. @returns what it was multiplied by
__device__ float normalize(float* v, float eps) {
#if CENTERED
  float sum = 0;
  for (int i = 0; i < EACH; ++i) sum += v[i];
  const float mean = sumOfRow(sum) / WIDTH;
  for (int i = 0; i < EACH; ++i) v[i] -= mean;
#endif
  float squares = 0;
  for (int i = 0; i < EACH; ++i) squares += v[i] * v[i];
  const float scale = rsqrtf(sumOfRow(squares) / WIDTH + eps);
  for (int i = 0; i < EACH; ++i) v[i] *= scale;
  return scale;
}

// Rows are dealt to groups of LANES threads. The loop is the same for all threads of a warp, so that they can add up.
struct Deal {
  unsigned lane, first, step, own;
};
__device__ Deal deal() {
  const unsigned perWarp = 32 / LANES, warp = (blockIdx.x * THREADS + threadIdx.x) / 32;
  return {threadIdx.x % LANES, warp * perWarp, gridDim.x * (THREADS / 32) * perWarp, threadIdx.x % 32 / LANES};
}

extern "C" __global__ void __launch_bounds__(THREADS)
    rowNorm(const In* x, Rows at, const Weight* weight, const Weight* bias, Out* y, unsigned count, float eps) {
  const Deal of = deal();
  float w[EACH], b[EACH];
  loadRow<WEIGHT>(weight, of.lane, w);
#if CENTERED
  loadRow<WEIGHT>(bias, of.lane, b);
#else
  for (int i = 0; i < EACH; ++i) b[i] = 0;
#endif
  for (unsigned first = of.first; first < count; first += of.step) {
    const unsigned row = first + of.own;
    float v[EACH] = {};
    if (row < count) loadRow<IN>(x + placeOf(at, row), of.lane, v);
    normalize(v, eps);
    for (int i = 0; i < EACH; ++i) v[i] = v[i] * w[i] + b[i];
    if (row < count) storeRow<OUT>(y + (long long)row * WIDTH, of.lane, v);
  }
}

// @param partial (blocks, 1 or 2, WIDTH): each block's sums of the gradients of weight and bias
extern "C" __global__ void __launch_bounds__(THREADS)
    rowNormBackward(const In* x, Rows at, const Out* gradient, Rows gradientAt, const Weight* weight, In* ofInput,
                    float* partial, unsigned count, float eps) {
  const Deal of = deal();
  float w[EACH], ofWeight[EACH] = {};
  loadRow<WEIGHT>(weight, of.lane, w);
#if CENTERED
  float ofBias[EACH] = {};
#endif
  for (unsigned first = of.first; first < count; first += of.step) {
    const unsigned row = first + of.own;
    float v[EACH] = {}, g[EACH] = {};
    if (row < count) {
      loadRow<IN>(x + placeOf(at, row), of.lane, v);
      loadRow<OUT>(gradient + placeOf(gradientAt, row), of.lane, g);
    }
    const float scale = normalize(v, eps);
    float sum = 0, along = 0;
    for (int i = 0; i < EACH; ++i) {
      ofWeight[i] += row < count ? g[i] * v[i] : 0;
#if CENTERED
      ofBias[i] += g[i];
#endif
      g[i] *= w[i];
      sum += g[i];
      along += g[i] * v[i];
    }
    along = sumOfRow(along) / WIDTH;
    sum = CENTERED ? sumOfRow(sum) / WIDTH : 0;
    for (int i = 0; i < EACH; ++i) g[i] = scale * (g[i] - sum - v[i] * along);
    if (row < count) storeRow<IN>(ofInput + (long long)row * WIDTH, of.lane, g);
  }
  // The sums of all groups of the block, in the order of the groups.
  constexpr unsigned groups = THREADS / LANES;
  const unsigned group = threadIdx.x / LANES;
  __shared__ float sums[(1 + CENTERED) * groups * WIDTH];
  for (int c = 0; c < CHUNKS; ++c) {
    for (int i = 0; i < 8; ++i) {
      const unsigned column = 8 * (c * LANES + of.lane) + i;
      sums[group * WIDTH + column] = ofWeight[8 * c + i];
#if CENTERED
      sums[(groups + group) * WIDTH + column] = ofBias[8 * c + i];
#endif
    }
  }
  __syncthreads();
  for (unsigned column = threadIdx.x; column < (1 + CENTERED) * WIDTH; column += THREADS) {
    const float* from = sums + column / WIDTH * groups * WIDTH + column % WIDTH;
    float sum = 0;
    for (unsigned i = 0; i < groups; ++i) sum += from[i * WIDTH];
    partial[blockIdx.x * (1 + CENTERED) * WIDTH + column] = sum;
  }
}

#else

// 1 / (1 + e⁻ˣ). For values of sixteen bits the GPU's own approximations do, which take a third of the instructions:
// with exact ones the kernels below would compute for longer than they read and write.
template <int code> __device__ float sigmoid(float x) {
#ifdef __CUDA_ARCH__
  if (code != 0) return __fdividef(1, 1 + __expf(-x));
#endif
  return 1 / (1 + expf(-x));
}

// value · SiLU(gate) of rows [value, gate]; SiLU is rounded as it is where it is stored. Eight values a thread.
// @param width of the result, in eights
extern "C" __global__ void __launch_bounds__(THREADS) swiGlu(const In* x, Out* y, unsigned width, unsigned eights) {
  for (unsigned i = blockIdx.x * THREADS + threadIdx.x; i < eights; i += gridDim.x * THREADS) {
    const In* row = x + 8 * (2ll * (i / width) * width + i % width);
    float value[8], gate[8];
    Eight<IN>::load(row, value);
    Eight<IN>::load(row + 8 * width, gate);
    for (int k = 0; k < 8; ++k) value[k] *= rounded<IN>(gate[k] * sigmoid<IN>(gate[k]));
    Eight<OUT>::store(y + 8ll * i, value);
  }
}

extern "C" __global__ void __launch_bounds__(THREADS)
    swiGluBackward(const In* x, const Out* gradient, In* ofInput, unsigned width, unsigned eights) {
  for (unsigned i = blockIdx.x * THREADS + threadIdx.x; i < eights; i += gridDim.x * THREADS) {
    const long long place = 8 * (2ll * (i / width) * width + i % width);
    float value[8], gate[8], g[8];
    Eight<IN>::load(x + place, value);
    Eight<IN>::load(x + place + 8 * width, gate);
    Eight<OUT>::load(gradient + 8ll * i, g);
    for (int k = 0; k < 8; ++k) {
      const float open = sigmoid<IN>(gate[k]), ofSilu = rounded<IN>(g[k] * value[k]);
      value[k] = g[k] * rounded<IN>(gate[k] * open);
      gate[k] = ofSilu * open * (1 + gate[k] * (1 - open));
    }
    Eight<IN>::store(ofInput + place, value);
    Eight<IN>::store(ofInput + place + 8 * width, gate);
  }
}

#endif
)CUDA"
