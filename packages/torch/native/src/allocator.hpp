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
void setCpuCacheLimit(int64_t bytes);

}  // namespace miro
