// NCCL between processes of one machine: the values of a collective go through shared memory, a piece at a time. What a
// stream was given before it is done already, as in runtime.cpp.
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

struct Id {
  char name[128];
};
// ncclDataType_t and ncclRedOp_t
enum Type { kInt8, kUint8, kInt32, kUint32, kInt64, kUint64, kHalf, kFloat, kDouble, kBfloat16 };
enum Operation { kSum, kProduct, kMax, kMin, kAverage };

constexpr size_t kPiece = 8 << 20;

struct Shared {
  std::atomic<int> arrived, phase;
  char padding[56];
  char* pieceOf(int rank) { return reinterpret_cast<char*>(this + 1) + rank * kPiece; }
};

struct Communicator {
  int ranks, rank;
  Shared* shared;
  std::atomic<bool> aborted{false};

  // Waits until all ranks have come here.
  void meet() {
    const int phase = shared->phase;
    if (++shared->arrived == ranks) {
      shared->arrived = 0;
      ++shared->phase;
    } else {
      while (shared->phase == phase && !aborted) sched_yield();
    }
  }

  // Calls `then(from, bytes)` for each piece of a collective, once the pieces of those who give are there.
  int inPieces(const void* data, size_t bytes, bool gives, const std::function<void(size_t, size_t)>& then) {
    for (size_t from = 0; from < bytes; from += kPiece) {
      const size_t count = std::min(kPiece, bytes - from);
      if (gives) std::memcpy(shared->pieceOf(rank), static_cast<const char*>(data) + from, count);
      meet();
      then(from, count);
      meet();
    }
    return 0;
  }
};

size_t sizeOf(Type type) {
  constexpr size_t sizes[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2};
  return sizes[type];
}

struct Bfloat16 {
  uint16_t bits;
  operator float() const {
    const uint32_t wide = uint32_t{bits} << 16;
    float value;
    std::memcpy(&value, &wide, sizeof value);
    return value;
  }
  Bfloat16(float value) {
    uint32_t wide;
    std::memcpy(&wide, &value, sizeof wide);
    bits = static_cast<uint16_t>((wide + 0x7fff + ((wide >> 16) & 1)) >> 16);
  }
};

template <typename T>
void reduce(Communicator& c, T* to, size_t count, Operation operation) {
  for (size_t i = 0; i < count; ++i) {
    auto value = reinterpret_cast<T*>(c.shared->pieceOf(0))[i] + 0;
    for (int rank = 1; rank < c.ranks; ++rank) {
      const auto other = reinterpret_cast<T*>(c.shared->pieceOf(rank))[i] + 0;
      if (operation == kMax) value = std::max(value, other);
      else if (operation == kMin) value = std::min(value, other);
      else value = operation == kProduct ? value * other : value + other;
    }
    to[i] = static_cast<T>(operation == kAverage ? value / c.ranks : value);
  }
}

void reduce(Communicator& c, void* to, size_t count, Type type, Operation operation) {
  const auto as = [&](auto zero) { reduce(c, static_cast<decltype(zero)*>(to), count, operation); };
  switch (type) {
    case kInt8: return as(int8_t{});
    case kUint8: return as(uint8_t{});
    case kInt32: return as(int32_t{});
    case kUint32: return as(uint32_t{});
    case kInt64: return as(int64_t{});
    case kUint64: return as(uint64_t{});
    case kFloat: return as(float{});
    case kDouble: return as(double{});
    case kBfloat16: return as(Bfloat16(0));
    default: std::fputs("emulated GPU: NCCL's sums in float16 are not there\n", stderr), std::abort();
  }
}

int join(Communicator** made, int ranks, const Id& id, int rank) {
  const size_t size = sizeof(Shared) + ranks * kPiece;
  const int file = shm_open(id.name, O_CREAT | O_RDWR, 0600);
  if (file < 0 || ftruncate(file, static_cast<off_t>(size)) != 0) return 2;
  void* const data = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file, 0);
  close(file);
  if (data == MAP_FAILED) return 2;
  *made = new Communicator{ranks, rank, static_cast<Shared*>(data)};
  (*made)->meet();
  if (rank == 0) shm_unlink(id.name);
  return 0;
}

}  // namespace

EXPORT int ncclGetVersion(int* version) { return *version = 22809, 0; }
EXPORT const char* ncclGetErrorString(int) { return "an error of the emulated NCCL"; }
EXPORT const char* ncclGetLastError(Communicator*) { return ""; }
EXPORT int ncclGetUniqueId(Id* id) {
  static std::atomic<int> next{0};
  *id = {};
  return std::snprintf(id->name, sizeof id->name, "/miro-nccl-%d-%d", getpid(), ++next), 0;
}
EXPORT int ncclCommInitRank(Communicator** made, int ranks, Id id, int rank) { return join(made, ranks, id, rank); }
EXPORT int ncclCommInitRankConfig(Communicator** made, int ranks, Id id, int rank, void*) {
  return join(made, ranks, id, rank);
}
EXPORT int ncclCommInitRankScalable(Communicator** made, int ranks, int rank, int, Id* id, void*) {
  return join(made, ranks, *id, rank);
}
EXPORT int ncclCommGetAsyncError(Communicator*, int* error) { return *error = 0; }
EXPORT int ncclCommCount(Communicator* c, int* ranks) { return *ranks = c->ranks, 0; }
EXPORT int ncclCommUserRank(Communicator* c, int* rank) { return *rank = c->rank, 0; }
EXPORT int ncclCommAbort(Communicator* c) { return c->aborted = true, 0; }
EXPORT int ncclCommFinalize(Communicator*) { return 0; }
EXPORT int ncclCommDestroy(Communicator*) { return 0; }
EXPORT int ncclCommRegister(Communicator*, void*, size_t, void**) { return 0; }
EXPORT int ncclCommDeregister(Communicator*, void*) { return 0; }
EXPORT int ncclGroupStart() { return 0; }
EXPORT int ncclGroupEnd() { return 0; }
EXPORT int ncclAllReduce(const void* from, void* to, size_t count, Type type, Operation operation, Communicator* c,
                         void*) {
  const size_t size = sizeOf(type);
  return c->inPieces(from, count * size, true, [=](size_t at, size_t bytes) {
    reduce(*c, static_cast<char*>(to) + at, bytes / size, type, operation);
  });
}
EXPORT int ncclAllGather(const void* from, void* to, size_t count, Type type, Communicator* c, void*) {
  const size_t all = count * sizeOf(type);
  return c->inPieces(from, all, true, [=](size_t at, size_t bytes) {
    for (int rank = 0; rank < c->ranks; ++rank)
      std::memcpy(static_cast<char*>(to) + rank * all + at, c->shared->pieceOf(rank), bytes);
  });
}
EXPORT int ncclBroadcast(const void* from, void* to, size_t count, Type type, int root, Communicator* c, void*) {
  return c->inPieces(from, count * sizeOf(type), c->rank == root, [=](size_t at, size_t bytes) {
    std::memcpy(static_cast<char*>(to) + at, c->shared->pieceOf(root), bytes);
  });
}
EXPORT int ncclBcast(void* data, size_t count, Type type, int root, Communicator* c, void* stream) {
  return ncclBroadcast(data, data, count, type, root, c, stream);
}
