#include "row_loops.hpp"

#include "any_width.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace miro::rows {
namespace {

// What is not inlined would be compiled for the least processor.
#define MIRO_INLINE inline __attribute__((always_inline))
// `part` of sixteen values, the first of which is the i-th.
#define MIRO_STEP [&](int64_t i, auto part) __attribute__((always_inline))

// Sixteen values, in as many registers as the processor needs for them.
typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef int32_t Ints __attribute__((vector_size(4 * kLanes)));
typedef uint32_t Words __attribute__((vector_size(4 * kLanes)));
typedef uint16_t Halves __attribute__((vector_size(2 * kLanes)));
typedef uint8_t Bytes __attribute__((vector_size(kLanes)));

template <typename To, typename From>
MIRO_INLINE To bitsAs(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

// How many of sixteen values are meant: all of them, or the first ones.
struct All {};
struct First {
  int64_t count;
};

MIRO_INLINE Floats load(const float* x, All) {
  Floats v;
  std::memcpy(&v, x, sizeof(v));
  return v;
}
MIRO_INLINE Floats load(const uint16_t* x, All) {
  Halves v;
  std::memcpy(&v, x, sizeof(v));
  return bitsAs<Floats>(__builtin_convertvector(v, Words) << 16);
}
MIRO_INLINE void store(Floats x, float* y, All) { std::memcpy(y, &x, sizeof(x)); }
MIRO_INLINE void store(Floats x, uint16_t* y, All) {
  const Words bits = bitsAs<Words>(x), isNumber = bitsAs<Words>(x == x);
  const Words rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  const Halves v = __builtin_convertvector((rounded & isNumber) | (0x7fc0 & ~isNumber), Halves);
  std::memcpy(y, &v, sizeof(v));
}
// Whole parts.
MIRO_INLINE void store(Floats x, uint8_t* y, All) {
  const Bytes v = __builtin_convertvector(__builtin_convertvector(x, Ints), Bytes);
  std::memcpy(y, &v, sizeof(v));
}

// The others are zeros, and are not written.
template <typename Value>
MIRO_INLINE Floats load(const Value* x, First part) {
  Value values[kLanes] = {};
  std::copy(x, x + part.count, values);
  return load(values, All());
}
template <typename Value>
MIRO_INLINE void store(Floats x, Value* y, First part) {
  Value values[kLanes];
  store(x, values, All());
  std::copy(values, values + part.count, y);
}
MIRO_INLINE Floats only(Floats x, All) { return x; }
MIRO_INLINE Floats only(Floats x, First part) {
  float values[kLanes];
  store(x, values, All());
  return load(values, part);
}

// Calls a MIRO_STEP with All() for each i where sixteen values begin, and once with First{count} for the rest.
template <typename Step>
MIRO_INLINE void inSteps(int64_t n, const Step& step) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) step(i, All());
  if (i < n) step(i, First{n - i});
}

MIRO_INLINE float sumOf(Floats x) {
  float lanes[kLanes];
  store(x, lanes, All());
  for (int k = 0; k < 8; ++k) lanes[k] += lanes[k + 8];
  for (int k = 0; k < 4; ++k) lanes[k] += lanes[k + 4];
  return (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
}

// Of all lanes, the one of two that a mask of all or no bits says.
MIRO_INLINE Floats choose(Ints first, Floats a, Floats b) {
  return bitsAs<Floats>((first & bitsAs<Ints>(a)) | (~first & bitsAs<Ints>(b)));
}

// eˣ to a relative 2e-7, of x within ±87; beyond, of the nearer end. eˣ = 2ᵏ·eʳ with |r| ≤ ln 2 / 2; adding a number
// as large as `kRound` rounds to a whole k, which is in the lowest bits of the sum.
MIRO_INLINE Floats exponential(Floats x) {
  constexpr float kRound = 12582912, kEnd = 87;
  const Floats end = Floats{} + kEnd;
  x = choose(x < -end, -end, x);
  x = choose(x > end, end, x);
  const Floats sum = x * 1.44269504f + kRound, k = sum - kRound;
  const Floats r = (x - k * 0.693359375f) + k * 2.12194440e-4f;
  Floats power = r * (1.0f / 720) + 1.0f / 120;
  power = power * r + 1.0f / 24;
  power = power * r + 1.0f / 6;
  power = power * r + 0.5f;
  power = power * r + 1;
  power = power * r + 1;
  const Ints exponent = bitsAs<Ints>(sum) - bitsAs<int32_t>(kRound) + 127;
  return power * bitsAs<Floats>(exponent << 23);
}

// To bfloat16 and back.
MIRO_INLINE Floats rounded(Floats x) {
  uint16_t values[kLanes];
  store(x, values, All());
  return load(values, All());
}

// Σ (x − middle)²
template <typename Value>
MIRO_INLINE float squaresAround(float middle, const Value* x, int64_t n) {
  Floats sums = {};
  inSteps(n, MIRO_STEP {
    const Floats v = only(load(x + i, part) - middle, part);
    sums += v * v;
  });
  return sumOf(sums);
}

// Of floats without their signs, the order is that of their bits.
template <typename Value>
MIRO_INLINE float largestOf(const Value* x, int64_t n) {
  Ints most = {};
  inSteps(n, MIRO_STEP {
    const Ints v = bitsAs<Ints>(load(x + i, part)) & 0x7fffffff;
    const Ints more = v > most;
    most = (more & v) | (~more & most);
  });
  int32_t largest = 0;
  for (int k = 0; k < kLanes; ++k) largest = std::max<int32_t>(largest, most[k]);
  return bitsAs<float>(largest);
}

template <typename Value>
MIRO_INLINE void bytesOf(const Value* x, float factor, float middle, uint8_t* bytes, int64_t n) {
  inSteps(n, MIRO_STEP { store(middle + factor * load(x + i, part), bytes + i, part); });
}

template <typename Value, typename Other>
MIRO_INLINE void scaledAndAdded(Value* x, float c, const float* bias, const Other* more, int64_t n) {
  inSteps(n, MIRO_STEP {
    Floats v = c * load(x + i, part);
    if (bias != nullptr) v += load(bias + i, part);
    if (more != nullptr) v += load(more + i, part);
    store(v, x + i, part);
  });
}

template <typename Value>
MIRO_INLINE void scaledAndGated(Value* x, const Value* gate, float c, const float* bias, const float* gateBias,
                                int64_t n) {
  inSteps(n, MIRO_STEP {
    Floats v = c * load(x + i, part), g = c * load(gate + i, part);
    if (bias != nullptr) v += load(bias + i, part);
    if (gateBias != nullptr) g += load(gateBias + i, part);
    store(v * (g / (1 + exponential(-g))), x + i, part);
  });
}

template <typename Value>
MIRO_INLINE void layerNormed(const Value* x, int64_t count, int64_t stride, const float* weight, const float* bias,
                             float eps, Value* y, int64_t n) {
  const auto width = static_cast<float>(n);
  for (int64_t r = 0; r < count; ++r, x += stride, y += n) {
    Floats sums = {};
    inSteps(n, MIRO_STEP { sums += load(x + i, part); });
    const float mean = sumOf(sums) / width;
    const float inverse = 1 / std::sqrt(squaresAround(mean, x, n) / width + eps);
    inSteps(n, MIRO_STEP {
      store((load(x + i, part) - mean) * inverse * load(weight + i, part) + load(bias + i, part), y + i, part);
    });
  }
}

}  // namespace

MIRO_ANY_WIDTH float largest(const float* x, int64_t n) { return largestOf(x, n); }
MIRO_ANY_WIDTH float largest(const uint16_t* x, int64_t n) { return largestOf(x, n); }

MIRO_ANY_WIDTH void toBytes(const float* x, float factor, float middle, uint8_t* bytes, int64_t n) {
  bytesOf(x, factor, middle, bytes, n);
}
MIRO_ANY_WIDTH void toBytes(const uint16_t* x, float factor, float middle, uint8_t* bytes, int64_t n) {
  bytesOf(x, factor, middle, bytes, n);
}

MIRO_ANY_WIDTH void scaleAndAdd(float* x, float c, const float* bias, const float* more, int64_t n) {
  scaledAndAdded(x, c, bias, more, n);
}
MIRO_ANY_WIDTH void scaleAndAdd(float* x, float c, const float* bias, const uint16_t* more, int64_t n) {
  scaledAndAdded(x, c, bias, more, n);
}
MIRO_ANY_WIDTH void scaleAndAdd(uint16_t* x, float c, const float* bias, const float* more, int64_t n) {
  scaledAndAdded(x, c, bias, more, n);
}
MIRO_ANY_WIDTH void scaleAndAdd(uint16_t* x, float c, const float* bias, const uint16_t* more, int64_t n) {
  scaledAndAdded(x, c, bias, more, n);
}

MIRO_ANY_WIDTH void scaleAndGate(float* x, const float* gate, float c, const float* bias, const float* gateBias,
                                 int64_t n) {
  scaledAndGated(x, gate, c, bias, gateBias, n);
}
MIRO_ANY_WIDTH void scaleAndGate(uint16_t* x, const uint16_t* gate, float c, const float* bias, const float* gateBias,
                                 int64_t n) {
  scaledAndGated(x, gate, c, bias, gateBias, n);
}

MIRO_ANY_WIDTH void rmsNorm(const uint16_t* x, const uint16_t* weight, float eps, uint16_t* y, int64_t n) {
  const float inverse = 1 / std::sqrt(squaresAround(0, x, n) / static_cast<float>(n) + eps);
  inSteps(n, MIRO_STEP {
    store(rounded(load(x + i, part) * inverse) * load(weight + i, part), y + i, part);
  });
}

MIRO_ANY_WIDTH void layerNorm(const float* x, int64_t count, int64_t stride, const float* weight, const float* bias,
                              float eps, float* y, int64_t n) {
  layerNormed(x, count, stride, weight, bias, eps, y, n);
}
MIRO_ANY_WIDTH void layerNorm(const uint16_t* x, int64_t count, int64_t stride, const float* weight, const float* bias,
                              float eps, uint16_t* y, int64_t n) {
  layerNormed(x, count, stride, weight, bias, eps, y, n);
}

}  // namespace miro::rows
