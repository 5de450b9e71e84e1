// Loops over a row of a tensor on the CPU that lies in one piece. Values are float32, or the bits of bfloat16
// (`uint16_t`), which is computed in float32 and rounded to the nearest, of two to the even one; what is not a number
// stays none.
#pragma once

#include <cstdint>

namespace miro::rows {

// The largest |x|; not a number where one is none
float largest(const float* x, int64_t n);
float largest(const uint16_t* x, int64_t n);
// Whole parts of middle + factor · x, which must lie within 0 and 255
void toBytes(const float* x, float factor, float middle, uint8_t* bytes, int64_t n);
void toBytes(const uint16_t* x, float factor, float middle, uint8_t* bytes, int64_t n);

// x ← c·x + bias + more; bias, more or both may be null
void scaleAndAdd(float* x, float c, const float* bias, const float* more, int64_t n);
void scaleAndAdd(float* x, float c, const float* bias, const uint16_t* more, int64_t n);
void scaleAndAdd(uint16_t* x, float c, const float* bias, const float* more, int64_t n);
void scaleAndAdd(uint16_t* x, float c, const float* bias, const uint16_t* more, int64_t n);
// x ← (c·x + bias) · SiLU(c·gate + gateBias); both biases may be null
void scaleAndGate(float* x, const float* gate, float c, const float* bias, const float* gateBias, int64_t n);
void scaleAndGate(uint16_t* x, const uint16_t* gate, float c, const float* bias, const float* gateBias, int64_t n);

// y ← x / √(mean(x²) + ε), rounded, · weight
void rmsNorm(const uint16_t* x, const uint16_t* weight, float eps, uint16_t* y, int64_t n);
// y ← (x − mean(x)) / √(variance(x) + ε) · weight + bias: `count` rows of n values, which begin every `stride` in x and
// lie side by side in y
void layerNorm(const float* x, int64_t count, int64_t stride, const float* weight, const float* bias, float eps,
               float* y, int64_t n);
void layerNorm(const uint16_t* x, int64_t count, int64_t stride, const float* weight, const float* bias, float eps,
               uint16_t* y, int64_t n);

}  // namespace miro::rows
