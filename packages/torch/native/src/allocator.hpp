// Caching allocator for CPU tensors.
#pragma once
#include <cstddef>
#include <cstdint>

namespace miro {

struct AllocatorStats {
  int64_t liveBytes, peakBytes, cachedBytes;
};
void installCpuAllocator();
AllocatorStats cpuAllocatorStats();
void emptyCpuCache();

}  // namespace miro
