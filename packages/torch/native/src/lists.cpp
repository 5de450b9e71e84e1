// Compiled for several processors, of which the widest is taken at run time, and without contraction of products and
// sums: every one of them rounds the same. Sums have sixteen partial sums whatever the width.
#include "lists.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define MIRO_ANY_WIDTH __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define MIRO_ANY_WIDTH
#endif

namespace miro::lists {
namespace {

constexpr int kLanes = 16;
// Values whose squares are summed in float32 before the sum goes on in double.
constexpr int64_t kRun = 1024;

inline double total(const float* lanes) {
  double sum = 0;
  for (int k = 0; k < kLanes; ++k) sum += lanes[k];
  return sum;
}

inline int32_t bitsOf(float x) {
  int32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return bits;
}

inline float ofBits(int32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}

// eˣ to a relative 2e-7, of x within ±87; beyond, of the nearer end. eˣ = 2ᵏ·eʳ with |r| ≤ ln 2 / 2; adding a number
// as large as `kRound` rounds to a whole k, which is in the lowest bits of the sum.
inline float exponential(float x) {
  constexpr float kRound = 12582912, kEnd = 87;
  x = x < -kEnd ? -kEnd : x;
  x = x > kEnd ? kEnd : x;
  const float sum = x * 1.44269504f + kRound, k = sum - kRound;
  const float r = (x - k * 0.693359375f) + k * 2.12194440e-4f;
  float power = 1.0f / 720;
  power = power * r + 1.0f / 120;
  power = power * r + 1.0f / 24;
  power = power * r + 1.0f / 6;
  power = power * r + 0.5f;
  power = power * r + 1;
  power = power * r + 1;
  return power * ofBits((bitsOf(sum) - bitsOf(kRound) + 127) << 23);
}

}  // namespace

MIRO_ANY_WIDTH double squares(const float* x, int64_t n) {
  double sum = 0;
  for (int64_t from = 0; from < n; from += kRun) {
    const int64_t to = std::min(n, from + kRun);
    float lanes[kLanes] = {};
    int64_t i = from;
    for (; i + kLanes <= to; i += kLanes) {
      for (int k = 0; k < kLanes; ++k) lanes[k] += x[i + k] * x[i + k];
    }
    for (int k = 0; i < to; ++i, ++k) lanes[k] += x[i] * x[i];
    sum += total(lanes);
  }
  return sum;
}

MIRO_ANY_WIDTH void scale(float* x, float c, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] *= c;
}

MIRO_ANY_WIDTH void addScaled(float* x, const float* y, float c, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] += c * y[i];
}

MIRO_ANY_WIDTH void moveTowards(float* x, const float* y, float weight, int64_t n) {
  if (std::abs(weight) < 0.5f) {
    for (int64_t i = 0; i < n; ++i) x[i] = x[i] + weight * (y[i] - x[i]);
  } else {
    const float rest = 1 - weight;
    for (int64_t i = 0; i < n; ++i) x[i] = y[i] - (y[i] - x[i]) * rest;
  }
}

// Of floats without their signs, the order is that of their bits.
MIRO_ANY_WIDTH float largest(const float* x, int64_t n) {
  int32_t most = 0;
  for (int64_t i = 0; i < n; ++i) most = std::max(most, bitsOf(x[i]) & 0x7fffffff);
  return ofBits(most);
}

MIRO_ANY_WIDTH void toBytes(const float* __restrict x, float factor, float middle, uint8_t* __restrict bytes,
                            int64_t n) {
  for (int64_t i = 0; i < n; ++i) bytes[i] = static_cast<uint8_t>(static_cast<int32_t>(middle + factor * x[i]));
}

MIRO_ANY_WIDTH void scaleAndAdd(float* __restrict x, float c, const float* __restrict bias,
                                const float* __restrict more, int64_t n) {
  if (bias != nullptr && more != nullptr) {
    for (int64_t i = 0; i < n; ++i) x[i] = c * x[i] + bias[i] + more[i];
  } else if (bias != nullptr || more != nullptr) {
    const float* __restrict other = bias != nullptr ? bias : more;
    for (int64_t i = 0; i < n; ++i) x[i] = c * x[i] + other[i];
  } else {
    scale(x, c, n);
  }
}

MIRO_ANY_WIDTH void scaleAndGate(float* __restrict x, const float* __restrict gate, float c,
                                 const float* __restrict bias, const float* __restrict gateBias, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const float g = c * gate[i] + (gateBias != nullptr ? gateBias[i] : 0);
    x[i] = (c * x[i] + (bias != nullptr ? bias[i] : 0)) * (g / (1 + exponential(-g)));
  }
}

MIRO_ANY_WIDTH void widen(const uint16_t* __restrict x, float* __restrict y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = ofBits(static_cast<int32_t>(static_cast<uint32_t>(x[i]) << 16));
}

MIRO_ANY_WIDTH void narrow(const float* __restrict x, uint16_t* __restrict y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const auto bits = static_cast<uint32_t>(bitsOf(x[i]));
    const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    y[i] = static_cast<uint16_t>(x[i] == x[i] ? rounded : 0x7fc0);
  }
}

MIRO_ANY_WIDTH Sums lambDirection(const Lamb& s, const float* __restrict p, const float* __restrict g,
                                  float* __restrict m, float* __restrict v, float* __restrict r, int64_t n) {
  const auto [old1, new1, old2, new2, rate1, rate2, eps, decay] = s;
  for (int64_t i = 0; i < n; ++i) {
    m[i] = old1 * m[i] + new1 * g[i];
    v[i] = old2 * v[i] + new2 * g[i] * g[i];
    r[i] = decay * p[i] + (rate1 * m[i]) / (std::sqrt(v[i]) * rate2 + eps);
  }
  return {squares(p, n), squares(r, n)};
}

}  // namespace miro::lists
