#include "lists.hpp"

#include "any_width.hpp"

#include <algorithm>
#include <cmath>

namespace miro::lists {
namespace {

// Values whose squares are summed in float32 before the sum goes on in double.
constexpr int64_t kRun = 1024;

inline double total(const float* lanes) {
  double sum = 0;
  for (int k = 0; k < kLanes; ++k) sum += lanes[k];
  return sum;
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
