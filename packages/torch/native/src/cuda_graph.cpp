// CUDA graphs: work is queued once under capture and replayed afterwards with one launch, on the same memory. Capture
// runs on a stream of its own, because the default stream cannot be captured. Captures on a device share it, and one is
// made after the other. Without CUDA the functions are there and refuse.
#include "captures.hpp"
#include "environment.hpp"

#ifdef MIRO_WITH_CUDA_GRAPHS
#include <ATen/core/CachingHostAllocator.h>
#include <ATen/cuda/CUDAGeneratorImpl.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/StreamGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#include <torch/version.h>

#include <algorithm>
#include <map>
#include <mutex>

// From 2.12 on a graph that is destroyed clears the workspaces of its stream.
#if TORCH_VERSION_MAJOR > 2 || TORCH_VERSION_MINOR >= 12
#define MIRO_GRAPHS_CLEAR_WORKSPACES
// As in ATen/cuda/CUDAContextLight.h, which includes headers of cuBLAS, cuSPARSE and cuSOLVER.
namespace at::cuda {
C10_IMPORT void clearCublasWorkspacesForStream(cudaStream_t stream);
}
#endif
#endif

namespace miro {
namespace {

#ifdef MIRO_WITH_CUDA_GRAPHS

template <typename Step>
bool succeeds(Step step) noexcept {
  try {
    step();
    return true;
  } catch (...) {
    return false;
  }
}

// A graph that leaves the process as it was when its capture is refused. libtorch's own stops at the first error: the
// allocators of the device and of pinned memory go on taking from its pool, and before 2.12 random numbers that are not
// captured are refused for ever.
class Graph : at::cuda::CUDAGraph {
 public:
  using CUDAGraph::replay;

  ~Graph() {
    if (underWay_) forget();
  }

  void begin(c10::MempoolId_t pool, c10::cuda::CUDAStream stream) {
    pool_ = pool;
    stream_ = stream;
    try {
      // Other threads of the process may go on using the device.
      capture_begin(pool, cudaStreamCaptureModeThreadLocal);
    } catch (...) {
      forget();
      throw;
    }
    underWay_ = true;
  }

  void end() {
    try {
      capture_end();
    } catch (...) {
      forget();
      throw;
    }
    underWay_ = false;
  }

 private:
  // Each step by itself: where one fails, the others are still to be done.
  void forget() noexcept {
    endCapture();
    for (auto& entry : captured_generator_states_) leaveCapture(*entry.first);
    // After a successful capture, reset() releases the pool.
    const bool held = underWay_ && !capture_ended_;
    const auto leave = [held](const auto& end, const auto& release) {
      const bool recorded = succeeds(end);
      if (recorded || held) succeeds(release);
    };
    namespace device = c10::cuda::CUDACachingAllocator;
    const c10::DeviceIndex index = stream_->device_index();
    leave([&] { device::endAllocateToPool(index, pool_); }, [&] { device::releasePool(index, pool_); });
    at::HostAllocator* const host = at::getHostAllocator(at::kCUDA);
    leave([&] { host->end_allocate_to_pool(pool_); }, [&] { host->release_pool(pool_); });
    underWay_ = false;
  }

  void endCapture() noexcept {
    auto status = cudaStreamCaptureStatusNone;
    if (cudaStreamIsCapturing(*stream_, &status) == cudaSuccess && status != cudaStreamCaptureStatusNone) {
      cudaGraph_t part = nullptr;
      if (cudaStreamEndCapture(*stream_, &part) == cudaSuccess && part != nullptr) cudaGraphDestroy(part);
    }
    (void)cudaGetLastError();  // or the next operator would report it
  }

  // From 2.12 on the state belongs to the graph and goes with it.
  template <typename State>
  static void leaveCapture(State& generator) {
    if constexpr (requires { generator.capturing_; }) generator.capturing_ = false;
  }

  c10::MempoolId_t pool_;
  std::optional<c10::cuda::CUDAStream> stream_;
  bool underWay_ = false;
};

// Where the graphs of a device are captured, in all threads of the process: a pool gives memory that it got back only
// to the stream that had it, so graphs that share one must share their stream. It is made here and not taken from c10's
// 32 streams, which are handed out in turn, so that it is no stream of copies or of NCCL.
c10::cuda::CUDAStream captureStreamOf(c10::DeviceIndex device) {
  static std::mutex mutex;
  static auto& streams = *new std::map<c10::DeviceIndex, c10::cuda::CUDAStream>;  // outlives CUDA, which ends first
  std::lock_guard<std::mutex> lock(mutex);
  if (const auto found = streams.find(device); found != streams.end()) return found->second;
  const c10::DeviceGuard guard(c10::Device(c10::kCUDA, device));
  cudaStream_t stream = nullptr;
  C10_CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return streams.emplace(device, c10::cuda::getStreamFromExternal(stream, device)).first->second;
}

// Held by the thread that is between graphEnter and graphLeave, on whichever device: see captures.hpp.
std::mutex& captureTurn() {
  static auto& mutex = *new std::mutex;
  return mutex;
}

// cuBLAS is given a workspace for each stream, which libtorch keeps. A graph must have its own, from its pool: one that
// others use would be freed with the first of them.
void clearWorkspaces([[maybe_unused]] c10::cuda::CUDAStream stream) {
#ifdef MIRO_GRAPHS_CLEAR_WORKSPACES
  at::cuda::clearCublasWorkspacesForStream(stream);
#endif
}

struct Captured {
  const c10::cuda::CUDAStream stream;
  // From graphEnter to graphLeave, which the same thread calls; else to the end of the environment, after the capture's
  std::unique_lock<std::mutex> entered;
  Graph graph;
  int64_t poolIndex;                       // in the environment's table, or -1 for memory of its own
  std::shared_ptr<c10::MempoolId_t> pool;  // from the capture on
  std::optional<c10::StreamGuard> current;
  Captured(c10::DeviceIndex device, int64_t poolIndex)
      : stream(captureStreamOf(device)), entered(captureTurn(), std::defer_lock), poolIndex(poolIndex) {}
};

Captured& graphAt(Environment& e, napi_value* argv, size_t argc) {
  const int64_t id = argc > 0 ? toInt(e, argv[0], "graph") : -1;
  if (id < 0 || static_cast<size_t>(id) >= e.graphs.size() || !e.graphs[id])
    throw UsageError{"this CUDA graph was freed"};
  return *static_cast<Captured*>(e.graphs[id].get());  // only this file puts anything into the table
}

// The same, between graphEnter and graphLeave.
Captured& entered(Environment& e, napi_value* argv, size_t argc) {
  Captured& g = graphAt(e, argv, argc);
  if (!g.entered) throw UsageError{"this CUDA graph was not entered"};
  return g;
}

// Whether this thread is between graphEnter and graphLeave.
bool isEntered(const Environment& e) {
  return std::any_of(e.graphs.begin(), e.graphs.end(), [](const std::shared_ptr<void>& graph) {
    return graph != nullptr && static_cast<const Captured*>(graph.get())->entered;
  });
}

void leave(Captured& g) {
  g.current.reset();
  if (g.entered) g.entered.unlock();
}

// What libtorch calls the memory that a graph takes: that of the graphs which share it, else a new one. libtorch lets
// go of a name with the last graph that used it, and refuses to take that name again.
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
// graphEnter(id): work is queued on the device's stream for graphs until graphLeave, for warming up and for capture.
// Waits while another thread is at it.
napi_value graphEnter(Environment& e, napi_value* argv, size_t argc) {
  Captured& g = graphAt(e, argv, argc);
  if (isEntered(e)) throw UsageError{"a CUDA graph is being captured already: a body must not capture another one"};
  g.entered.lock();
  try {
    g.current.emplace(g.stream);
    c10::cuda::device_synchronize();
  } catch (...) {
    leave(g);
    throw;
  }
  return makeUndefined(e);
}
napi_value graphLeave(Environment& e, napi_value* argv, size_t argc) {
  Captured& g = entered(e, argv, argc);
  try {
    c10::cuda::device_synchronize();
  } catch (...) {
    leave(g);
    throw;
  }
  leave(g);
  return makeUndefined(e);
}
napi_value graphBegin(Environment& e, napi_value* argv, size_t argc) {
  Captured& g = entered(e, argv, argc);
  clearWorkspaces(g.stream);
  g.pool = poolAt(e, g.poolIndex);
  try {
    g.graph.begin(*g.pool, g.stream);
  } catch (...) {
    g.pool.reset();
    throw;
  }
  return makeUndefined(e);
}
// graphEnd(id): also after an error, which the capture may not have survived.
napi_value graphEnd(Environment& e, napi_value* argv, size_t argc) {
  Captured& g = entered(e, argv, argc);
  c10::cuda::setCurrentCUDAStream(g.stream);  // libtorch ends no capture from another one
  clearWorkspaces(g.stream);
  try {
    g.graph.end();
  } catch (...) {
    g.pool.reset();
    throw;
  }
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

std::unique_lock<std::mutex> betweenCaptures([[maybe_unused]] Environment& e) {
#ifdef MIRO_WITH_CUDA_GRAPHS
  if (!isEntered(e)) return std::unique_lock(captureTurn());
#endif
  return {};
}

const std::vector<Binding> kCudaGraphBindings = {
    {"graphNew", graphNew},     {"graphPool", graphPool}, {"graphEnter", graphEnter},   {"graphLeave", graphLeave},
    {"graphBegin", graphBegin}, {"graphEnd", graphEnd},   {"graphReplay", graphReplay}, {"graphFree", graphFree}};

}  // namespace miro
