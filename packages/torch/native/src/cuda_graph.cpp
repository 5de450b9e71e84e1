// CUDA graphs: work is queued once under capture and replayed afterwards with one launch, on the same memory. Capture
// runs on a stream of its own, because the default stream cannot be captured. Without CUDA the functions are there and
// refuse.
#include "environment.hpp"

#ifdef MIRO_WITH_CUDA_GRAPHS
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/version.h>
#endif

namespace miro {
namespace {

#ifdef MIRO_WITH_CUDA_GRAPHS

struct Captured {
  at::cuda::CUDAGraph graph;
  int64_t poolIndex;                       // in the environment's table, or -1 for memory of its own
  std::shared_ptr<c10::MempoolId_t> pool;  // from the capture on
  c10::cuda::CUDAStream stream;
  c10::cuda::CUDAStream before;  // the stream and the device that were current when this one was entered
  c10::DeviceIndex deviceBefore;
  Captured(c10::DeviceIndex device, int64_t poolIndex)
      : poolIndex(poolIndex),
        stream(c10::cuda::getStreamFromPool(false, device)),
        before(c10::cuda::getCurrentCUDAStream(device)),
        deviceBefore(device) {}
};

Captured& graphAt(Environment& e, napi_value* argv, size_t argc) {
  const int64_t id = argc > 0 ? toInt(e, argv[0], "graph") : -1;
  if (id < 0 || static_cast<size_t>(id) >= e.graphs.size() || !e.graphs[id])
    throw UsageError{"this CUDA graph was freed"};
  return *static_cast<Captured*>(e.graphs[id].get());  // only this file puts anything into the table
}

// What libtorch calls the memory that a graph takes: that of the graphs which share it, else a new one. libtorch lets go
// of a name with the last graph that used it, and refuses to take that name again.
std::shared_ptr<c10::MempoolId_t> poolAt(Environment& e, int64_t index) {
  if (index >= 0) {
    if (const auto shared = e.graphPools[index].lock()) return std::static_pointer_cast<c10::MempoolId_t>(shared);
  }
  auto fresh = std::make_shared<c10::MempoolId_t>(at::cuda::graph_pool_handle());
  if (index >= 0) e.graphPools[index] = fresh;
  return fresh;
}

// graphPool() -> id of memory that several graphs take what they compute from
napi_value graphPool(Environment& e, napi_value*, size_t) {
  e.graphPools.emplace_back();
  return makeInt(e, static_cast<int32_t>(e.graphPools.size() - 1));
}
// graphNew(device index, pool or -1 for one of its own) -> id
napi_value graphNew(Environment& e, napi_value* argv, size_t argc) {
  const c10::DeviceIndex device = cudaIndexAt(e, argv, argc, 0);
  const int64_t pool = argc > 1 ? intWithin(e, argv[1], "pool", -1, static_cast<int64_t>(e.graphPools.size()) - 1) : -1;
  e.graphs.push_back(std::make_shared<Captured>(device, pool));
  return makeInt(e, static_cast<int32_t>(e.graphs.size() - 1));
}
// graphEnter(id): work is queued on the graph's stream until graphLeave, for warming up and for capture.
napi_value graphEnter(Environment& e, napi_value* argv, size_t argc) {
  Captured& g = graphAt(e, argv, argc);
  g.before = c10::cuda::getCurrentCUDAStream(g.stream.device_index());
  g.deviceBefore = c10::cuda::current_device();
  c10::cuda::set_device(g.stream.device_index());
  c10::cuda::device_synchronize();
  c10::cuda::setCurrentCUDAStream(g.stream);
  return makeUndefined(e);
}
napi_value graphLeave(Environment& e, napi_value* argv, size_t argc) {
  Captured& g = graphAt(e, argv, argc);
  c10::cuda::setCurrentCUDAStream(g.before);
  c10::cuda::device_synchronize();
  c10::cuda::set_device(g.deviceBefore);
  return makeUndefined(e);
}
napi_value graphBegin(Environment& e, napi_value* argv, size_t argc) {
  // Other threads of the process may go on using the device.
  Captured& g = graphAt(e, argv, argc);
  g.pool = poolAt(e, g.poolIndex);
  g.graph.capture_begin(*g.pool, cudaStreamCaptureModeThreadLocal);
  return makeUndefined(e);
}
napi_value graphEnd(Environment& e, napi_value* argv, size_t argc) {
  Captured& g = graphAt(e, argv, argc);
#if TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR < 12
  try {
    g.graph.capture_end();
  } catch (...) {
    // These versions leave the allocator in the graph's pool when CUDA refuses to end the capture.
    c10::cuda::CUDACachingAllocator::endAllocateToPool(g.stream.device_index(), *g.pool);
    throw;
  }
#else
  g.graph.capture_end();
#endif
  return makeUndefined(e);
}
// graphReplay(id): queued on the current stream; returns at once.
napi_value graphReplay(Environment& e, napi_value* argv, size_t argc) {
  graphAt(e, argv, argc).graph.replay();
  return makeUndefined(e);
}
napi_value graphFree(Environment& e, napi_value* argv, size_t argc) {
  graphAt(e, argv, argc);
  e.graphs[toInt(e, argv[0], "graph")].reset();
  return makeUndefined(e);
}

#else

napi_value refuse(Environment&, napi_value*, size_t) { throw UsageError{"CUDA graphs need a libtorch with CUDA"}; }
constexpr Function graphNew = refuse, graphPool = refuse, graphEnter = refuse, graphLeave = refuse, graphBegin = refuse,
                   graphEnd = refuse, graphReplay = refuse, graphFree = refuse;

#endif

}  // namespace

const std::vector<Binding> kCudaGraphBindings = {
    {"graphNew", graphNew},     {"graphPool", graphPool}, {"graphEnter", graphEnter},   {"graphLeave", graphLeave},
    {"graphBegin", graphBegin}, {"graphEnd", graphEnd},   {"graphReplay", graphReplay}, {"graphFree", graphFree}};

}  // namespace miro
