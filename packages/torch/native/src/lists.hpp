// Loops over the values of float32 tensors that lie in one piece on the CPU: what a training step does to every
// parameter. A list of hundreds of small tensors costs ATen more in preparations than in arithmetic.
#pragma once

#include <cstdint>

namespace miro::lists {

// Values that one call of the loops below takes: sums are over such pieces, so that they do not depend on threads.
constexpr int64_t kPiece = 1 << 15;

// Σ x²
double squares(const float* x, int64_t n);
// x ← c·x
void scale(float* x, float c, int64_t n);
// x ← x + c·y
void addScaled(float* x, const float* y, float c, int64_t n);
// x ← x + weight·(y − x)
void moveTowards(float* x, const float* y, float weight, int64_t n);

// Of one step of LAMB for one tensor.
struct Lamb {
  float old1, new1, old2, new2;        // β₁, 1 − β₁, β₂, 1 − β₂, each rounded by itself
  float rate1, rate2;                  // 1/(1 − β₁ᵏ), 1/√(1 − β₂ᵏ)
  float eps, decay;                    // decay: λ of λp in the direction
};
struct Sums {
  double weights, directions;          // Σ p², Σ r²
};
// m ← β₁m + (1 − β₁)g,  v ← β₂v + (1 − β₂)g²,  r = λp + m̂/(√v̂ + ε)
Sums lambDirection(const Lamb& s, const float* p, const float* g, float* m, float* v, float* r, int64_t n);

}  // namespace miro::lists
