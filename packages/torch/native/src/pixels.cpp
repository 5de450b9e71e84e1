// Resizing of 8-bit RGB pictures in whole numbers: rows or columns of pixels under a window of weights each.
#include "any_width.hpp"
#include "environment.hpp"

#include <algorithm>

namespace miro {
namespace {

// Of weights and sums.
constexpr int kFractionBits = 22;
constexpr int kChannels = 3;

// Where each output position finds its input, as JavaScript hands it over. Sums are modulo 2³², as JavaScript's are.
struct Windows {
  int64_t count;            // of output positions
  int64_t taps;             // of the largest window
  const int32_t* first;     // first input position of each
  const int32_t* counts;    // input positions of each
  const uint32_t* weights;  // of output position i from i · taps on
  const uint32_t* starts;   // what the sums of each begin with, a channel each
};

#define MIRO_INLINE inline __attribute__((always_inline))

MIRO_INLINE uint8_t levelOf(uint32_t sum) {
  return static_cast<uint8_t>(std::clamp(static_cast<int32_t>(sum) >> kFractionBits, 0, 255));
}

// A row of pixels becomes one of windows.count pixels.
MIRO_ANY_WIDTH void filterRow(const uint8_t* row, const Windows& windows, uint8_t* out) {
  const uint32_t* weights = windows.weights;
  for (int64_t x = 0; x < windows.count; ++x, weights += windows.taps) {
    const uint8_t* from = row + kChannels * static_cast<int64_t>(windows.first[x]);
    uint32_t sums[kChannels];
    for (int c = 0; c < kChannels; ++c) sums[c] = windows.starts[kChannels * x + c];
    for (int32_t tap = 0; tap < windows.counts[x]; ++tap, from += kChannels)
      for (int c = 0; c < kChannels; ++c) sums[c] += weights[tap] * from[c];
    for (int c = 0; c < kChannels; ++c) *out++ = levelOf(sums[c]);
  }
}

// sums += weight · row
MIRO_ANY_WIDTH void addRow(const uint8_t* __restrict row, uint32_t weight, uint32_t* __restrict sums, int64_t n) {
  for (int64_t i = 0; i < n; ++i) sums[i] += weight * row[i];
}

MIRO_ANY_WIDTH void toLevels(const uint32_t* __restrict sums, uint8_t* __restrict out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = levelOf(sums[i]);
}

template <typename T>
const T* numbersAt(Environment& e, napi_value v, size_t count, const char* what) {
  const auto [data, length] = toTypedArray(e, v, napi_int32_array, what);
  if (length == count) return static_cast<const T*>(data);
  throw UsageError{std::string(what) + ": expected " + std::to_string(count) + " numbers, got " +
                   std::to_string(length)};
}

// Four arguments: first, counts, weights, starts. The windows must lie within `length` input positions.
Windows windowsAt(Environment& e, napi_value* argv, int64_t length) {
  const size_t count = toTypedArray(e, argv[0], napi_int32_array, "first").second;
  const size_t all = toTypedArray(e, argv[2], napi_int32_array, "weights").second;
  if (count == 0 || all % count != 0) throw UsageError{"weights: expected as many for each output position"};
  const Windows windows{static_cast<int64_t>(count),
                        static_cast<int64_t>(all / count),
                        numbersAt<int32_t>(e, argv[0], count, "first"),
                        numbersAt<int32_t>(e, argv[1], count, "counts"),
                        numbersAt<uint32_t>(e, argv[2], all, "weights"),
                        numbersAt<uint32_t>(e, argv[3], kChannels * count, "starts")};
  for (size_t i = 0; i < count; ++i) {
    const int64_t begin = windows.first[i], size = windows.counts[i];
    if (begin < 0 || size < 0 || size > windows.taps || begin + size > length)
      throw UsageError{"output position " + std::to_string(i) + ": its window is not within the picture"};
  }
  return windows;
}

struct Pixels {
  uint8_t* data;
  int64_t width, height;
};

// Bytes of whole rows of `width` pixels.
Pixels pixelsAt(Environment& e, napi_value v, int64_t width, const char* what) {
  const auto [data, length] = toTypedArray(e, v, napi_uint8_array, what);
  if (width < 1 || width > (1 << 30) || length % (kChannels * width) != 0)
    throw UsageError{std::string(what) + ": expected rows of " + std::to_string(width) + " pixels"};
  return {static_cast<uint8_t*>(data), width, static_cast<int64_t>(length) / (kChannels * width)};
}

// filterRows(source, width, first, counts, weights, starts, target): each row of `width` pixels becomes one with a
// pixel for each window
napi_value filterRows(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 7) throw UsageError{"filterRows(source, width, first, counts, weights, starts, target)"};
  const int64_t width = toInt(e, argv[1], "width");
  const Windows windows = windowsAt(e, argv + 2, width);
  const Pixels source = pixelsAt(e, argv[0], width, "source");
  const Pixels target = pixelsAt(e, argv[6], windows.count, "target");
  if (target.height != source.height) throw UsageError{"target: expected as many rows as the source has"};
  for (int64_t y = 0; y < source.height; ++y)
    filterRow(source.data + kChannels * width * y, windows, target.data + kChannels * target.width * y);
  return makeUndefined(e);
}

// filterColumns(source, width, first, counts, weights, starts, target, left, count): the `count` columns of the source
// from `left` on become columns with a pixel for each window
napi_value filterColumns(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 9) throw UsageError{"filterColumns(source, width, first, counts, weights, starts, target, left, count)"};
  const int64_t width = toInt(e, argv[1], "width");
  const int64_t left = toInt(e, argv[7], "left"), count = toInt(e, argv[8], "count");
  const Pixels source = pixelsAt(e, argv[0], width, "source");
  const Windows windows = windowsAt(e, argv + 2, source.height);
  if (left < 0 || count < 1 || count > width || left > width - count)
    throw UsageError{"filterColumns: the columns are not within the picture"};
  const Pixels target = pixelsAt(e, argv[6], count, "target");
  if (target.height != windows.count) throw UsageError{"target: expected a row for each window"};
  const int64_t n = kChannels * count;
  std::vector<uint32_t> sums(n);
  for (int64_t y = 0; y < windows.count; ++y) {
    for (int64_t x = 0; x < n; x += kChannels) std::copy_n(windows.starts + kChannels * y, kChannels, &sums[x]);
    for (int32_t tap = 0; tap < windows.counts[y]; ++tap)
      addRow(source.data + kChannels * (width * (windows.first[y] + tap) + left),
             windows.weights[windows.taps * y + tap], sums.data(), n);
    toLevels(sums.data(), target.data + n * y, n);
  }
  return makeUndefined(e);
}

}  // namespace

const std::vector<Binding> kPixelBindings = {{"filterRows", filterRows}, {"filterColumns", filterColumns}};

}  // namespace miro
