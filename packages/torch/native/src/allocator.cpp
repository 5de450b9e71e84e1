// Caching allocator for CPU tensors: size classes with eight steps a doubling, one free list each, a bounded cache.
//
// Why: glibc maps and unmaps each large block, so a loop over 1 MB tensors spends its time in page faults and its
// resident memory fragments. Blocks of 4 MB and more are aligned to 2 MB and ask for huge pages.
// How much is cached at most is given by setup().
#include "allocator.hpp"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>

#include <sys/mman.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <vector>

namespace miro {
namespace {

constexpr size_t kHeader = 64;              // keeps the data 64-byte aligned
constexpr size_t kSmallest = 64;
constexpr size_t kHuge = 2u << 20;
constexpr size_t kHugeFrom = 4u << 20;
constexpr int kDoublings = 36;
constexpr size_t kTooLarge = kSmallest << kDoublings;
constexpr int kClasses = 1 + 8 * kDoublings;  // kSmallest, then eight for each doubling

struct Header {
  size_t block;                             // size of the whole block
  int index;                                // its class
};
static_assert(sizeof(Header) <= kHeader);

// The class of a request, and the size of its blocks. The header is not part of the class: sizes that are powers of
// two, which are common, must not round up to the next step.
int classOf(size_t bytes, size_t* block) {
  if (bytes <= kSmallest) {
    *block = kSmallest + kHeader;
    return 0;
  }
  const int exponent = 63 - __builtin_clzll(bytes - 1);  // 2^exponent < bytes <= 2^(exponent + 1)
  const size_t base = size_t{1} << exponent, step = base / 8;
  const size_t steps = (bytes - base + step - 1) / step;  // 1 .. 8
  *block = base + steps * step + kHeader;
  return (exponent - 6) * 8 + static_cast<int>(steps);
}

struct FreeList {
  std::mutex mutex;
  std::vector<void*> blocks;
};

class CachingCpuAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    if (bytes == 0) return {nullptr, nullptr, &release, c10::Device(c10::DeviceType::CPU)};
    void* data = take(bytes);
    return {data, data, &release, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t bytes) const override { std::memcpy(to, from, bytes); }

  void empty() {
    for (auto& list : lists_) {
      std::vector<void*> blocks;
      {
        std::lock_guard<std::mutex> lock(list.mutex);
        blocks.swap(list.blocks);
      }
      for (void* block : blocks) {
        owned_ -= static_cast<int64_t>(static_cast<Header*>(block)->block);
        std::free(block);
      }
    }
  }
  void setCapacity(int64_t bytes) { capacity_ = bytes; }
  AllocatorStats stats() const { return {live_, peak_, owned_ - live_}; }

  static CachingCpuAllocator& instance() {
    static auto* allocator = new CachingCpuAllocator();  // outlives every tensor
    return *allocator;
  }

 private:
  void* take(size_t bytes) {
    TORCH_CHECK(bytes < kTooLarge, "not enough memory: you tried to allocate ", bytes, " bytes");
    size_t block = 0;
    const int index = classOf(bytes, &block);
    void* raw = nullptr;
    {
      auto& list = lists_[index];
      std::lock_guard<std::mutex> lock(list.mutex);
      if (!list.blocks.empty()) {
        raw = list.blocks.back();
        list.blocks.pop_back();
      }
    }
    if (raw == nullptr) {
      raw = fresh(block);
      if (raw == nullptr) {
        empty();
        raw = fresh(block);
      }
      TORCH_CHECK(raw != nullptr, "not enough memory: you tried to allocate ", bytes, " bytes");
      *static_cast<Header*>(raw) = {block, index};
      owned_ += static_cast<int64_t>(block);
    }
    const int64_t live = live_ += static_cast<int64_t>(block);
    int64_t peak = peak_;
    while (live > peak && !peak_.compare_exchange_weak(peak, live)) {
    }
    return static_cast<char*>(raw) + kHeader;
  }

  static void* fresh(size_t block) {
    void* raw = nullptr;
    if (block >= kHugeFrom) {
      if (posix_memalign(&raw, kHuge, block) != 0) return nullptr;
#ifdef MADV_HUGEPAGE
      madvise(raw, block & ~(kHuge - 1), MADV_HUGEPAGE);
#endif
      return raw;
    }
    return posix_memalign(&raw, 64, block) == 0 ? raw : nullptr;
  }

  static void release(void* data) {
    if (data == nullptr) return;
    instance().give(static_cast<char*>(data) - kHeader);
  }
  void give(void* raw) {
    const auto [block, index] = *static_cast<Header*>(raw);
    const auto size = static_cast<int64_t>(block);
    const int64_t live = live_ -= size;
    if (owned_ - live > capacity_) {
      owned_ -= size;
      std::free(raw);
      return;
    }
    auto& list = lists_[index];
    try {
      std::lock_guard<std::mutex> lock(list.mutex);
      list.blocks.push_back(raw);
    } catch (const std::bad_alloc&) {  // a deleter must not throw
      owned_ -= size;
      std::free(raw);
    }
  }

  std::array<FreeList, kClasses> lists_;
  // Bytes of blocks that tensors hold, the most of them there were, and of all blocks: what tensors do not hold is
  // cached.
  std::atomic<int64_t> live_{0}, peak_{0}, owned_{0};
  std::atomic<int64_t> capacity_{0};
};

}  // namespace

void installCpuAllocator() {
  static std::once_flag once;
  std::call_once(once, [] { c10::SetCPUAllocator(&CachingCpuAllocator::instance(), 100); });
}
AllocatorStats cpuAllocatorStats() { return CachingCpuAllocator::instance().stats(); }
void setCpuCacheLimit(int64_t bytes) { CachingCpuAllocator::instance().setCapacity(bytes); }
void emptyCpuCache() { CachingCpuAllocator::instance().empty(); }

}  // namespace miro
