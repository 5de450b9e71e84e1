// CUDA's runtime, what is used of its driver, and NCCL, without a GPU: memory of the device is the host's, streams do
// everything at once, and launched kernels do nothing (compute.cpp gives libtorch's operators those of the CPU).
//
// What is kept of the real ones are their rules, which decide whether a program works on a GPU: what a capture of a
// graph forbids, and to whom; that streams which join a capture leave it again; that an event is of one device and is
// not done as soon as it is asked; how much memory there is. A graph that is launched does what was recorded. Ranks of
// NCCL on one machine exchange real values.
//
// Loaded with LD_PRELOAD, and found as libcuda.so.1 by programs that open the driver. emulate.mjs tells its variables.
#include <cuda_runtime_api.h>

#include <dlfcn.h>
#include <pthread.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

using Todo = std::vector<std::function<void()>>;

struct Capture {
  unsigned long long id;
  cudaStreamCaptureMode mode;
  pthread_t thread;
  cudaStream_t origin;
  bool broken = false;
  std::set<cudaStream_t> forked;  // streams that have work of it which the origin does not wait for yet
  Todo todo;
};
struct Stream {
  int device = 0;
  unsigned flags = 0;
  Capture* capture = nullptr;
};
struct Event {
  int device = 0;
  bool recorded = false;
  cudaStream_t stream = nullptr;
  Capture* capture = nullptr;
  int asked = 0;  // since it was recorded: it is done at the second time
};
struct Block {
  size_t size;
  int device;
  bool isPinned;
};

std::recursive_mutex mutex;
using Lock = std::lock_guard<std::recursive_mutex>;
std::map<cudaStream_t, Stream> streams;
std::map<cudaEvent_t, Event> events;
std::set<Capture*> captures;
std::map<uintptr_t, Block> blocks;
size_t used[16];
thread_local int current = 0;
thread_local cudaError_t last = cudaSuccess;
thread_local cudaStreamCaptureMode threadMode = cudaStreamCaptureModeGlobal;

size_t setting(const char* name, size_t otherwise) {
  const char* const text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

int deviceCount() {
  static const int count = [] {
    const int all = static_cast<int>(setting("MIRO_EMULATED_GPUS", 1));
    const char* const visible = std::getenv("CUDA_VISIBLE_DEVICES");
    if (visible == nullptr) return all;
    return *visible == 0 ? 0 : std::min<int>(all, 1 + std::count(visible, visible + std::strlen(visible), ','));
  }();
  return count;
}

size_t memoryBytes() {
  static const size_t bytes = setting("MIRO_EMULATED_GIB", 139) << 30;
  return bytes;
}

void say(const std::string& what) {
  std::fprintf(stderr, "emulated GPU: %s\n", what.c_str());
}

cudaError_t refused(const char* call, cudaError_t error) {
  say(std::string(call) + ": " + cudaGetErrorString(error));
  return last = error;
}

bool isLegacy(cudaStream_t stream) { return stream == nullptr || stream == cudaStreamLegacy; }

Stream& streamAt(cudaStream_t stream) { return streams.try_emplace(stream, Stream{current}).first->second; }

Capture* captureOf(cudaStream_t stream) {
  const auto found = streams.find(stream);
  return found == streams.end() ? nullptr : found->second.capture;
}

Capture* captureOfThisThread() {
  for (Capture* one : captures)
    if (pthread_equal(one->thread, pthread_self())) return one;
  return nullptr;
}

// Whether a call that may wait for the device is refused, which ends the capture that refuses it.
bool isForbidden() {
  if (threadMode == cudaStreamCaptureModeRelaxed) return false;
  Capture* by = captureOfThisThread();
  if (by != nullptr && by->mode == cudaStreamCaptureModeRelaxed) by = nullptr;
  if (by == nullptr && threadMode == cudaStreamCaptureModeGlobal)
    for (Capture* other : captures)
      if (other->mode == cudaStreamCaptureModeGlobal) by = other;
  if (by != nullptr) by->broken = true;
  return by != nullptr;
}

// Does work on a stream: at once, or in a capture whenever its graph is launched.
cudaError_t queued(cudaStream_t stream, const char* what, std::function<void()> work) {
  {
    Lock lock(mutex);
    if (Capture* const capture = captureOf(stream)) {
      capture->todo.push_back(std::move(work));
      return cudaSuccess;
    }
    if (captureOfThisThread() != nullptr) say(std::string(what) + " beside the capture of its thread");
    for (Capture* one : captures)
      if (isLegacy(stream) && !(streamAt(one->origin).flags & cudaStreamNonBlocking)) one->broken = true;
  }
  work();
  return cudaSuccess;
}

cudaError_t allocated(void** result, size_t bytes, bool isPinned) {
  Lock lock(mutex);
  *result = nullptr;
  const size_t size = std::max<size_t>((bytes + 4095) / 4096 * 4096, 4096);
  if (!isPinned && used[current] + size > memoryBytes()) return last = cudaErrorMemoryAllocation;
  void* const data =
      mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) return last = cudaErrorMemoryAllocation;
  blocks[reinterpret_cast<uintptr_t>(data)] = {size, current, isPinned};
  if (!isPinned) used[current] += size;
  *result = data;
  return cudaSuccess;
}

cudaError_t freed(void* data) {
  if (data == nullptr) return cudaSuccess;
  Lock lock(mutex);
  const auto found = blocks.find(reinterpret_cast<uintptr_t>(data));
  if (found == blocks.end()) return refused("free", cudaErrorInvalidValue);
  munmap(data, found->second.size);
  if (!found->second.isPinned) used[found->second.device] -= found->second.size;
  blocks.erase(found);
  return cudaSuccess;
}

template <typename Call>
cudaError_t unlessForbidden(const char* name, const Call& call) {
  {
    Lock lock(mutex);
    if (isForbidden()) return refused(name, cudaErrorStreamCaptureUnsupported);
  }
  return call();
}

}  // namespace

// ---- for compute.cpp -----------------------------------------------------------------------------------------------
__attribute__((visibility("default"))) bool emulatedIsCapturing(cudaStream_t stream) {
  Lock lock(mutex);
  return captureOf(stream) != nullptr;
}
__attribute__((visibility("default"))) void emulatedQueue(cudaStream_t stream, const char* what,
                                                          std::function<void()> work) {
  queued(stream, what, std::move(work));
}

// ---- devices and errors --------------------------------------------------------------------------------------------
EXPORT cudaError_t cudaGetDeviceCount(int* count) {
  *count = deviceCount();
  return *count > 0 ? cudaSuccess : last = cudaErrorNoDevice;
}
EXPORT cudaError_t cudaGetDevice(int* device) {
  *device = current;
  return cudaSuccess;
}
EXPORT cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= deviceCount()) return refused("cudaSetDevice", cudaErrorInvalidDevice);
  current = device;
  return cudaSuccess;
}
EXPORT cudaError_t cudaDriverGetVersion(int* version) { return *version = 13000, cudaSuccess; }
EXPORT cudaError_t cudaRuntimeGetVersion(int* version) { return *version = 13000, cudaSuccess; }
EXPORT cudaError_t cudaGetLastError() { return std::exchange(last, cudaSuccess); }
EXPORT cudaError_t cudaPeekAtLastError() { return last; }
EXPORT const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorNotReady: return "device not ready";
    case cudaErrorStreamCaptureUnsupported: return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated: return "operation failed due to a previous error during capture";
    case cudaErrorStreamCaptureUnjoined: return "capturing stream has unjoined work";
    case cudaErrorStreamCaptureIsolation: return "dependency created on uncaptured work in another stream";
    case cudaErrorStreamCaptureImplicit:
      return "operation would make the legacy stream depend on a capturing blocking stream";
    case cudaErrorCapturedEvent: return "operation not permitted on an event last recorded in a capturing stream";
    default: return "an error of the emulated GPU";
  }
}
EXPORT const char* cudaGetErrorName(cudaError_t error) { return cudaGetErrorString(error); }
EXPORT cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  static const std::map<int, int> known{{cudaDevAttrMaxThreadsPerBlock, 1024},
                                        {cudaDevAttrMaxGridDimX, 2147483647},
                                        {cudaDevAttrMaxSharedMemoryPerBlock, 49152},
                                        {cudaDevAttrWarpSize, 32},
                                        {cudaDevAttrMultiProcessorCount, 132},
                                        {cudaDevAttrMaxThreadsPerMultiProcessor, 2048},
                                        {cudaDevAttrComputeCapabilityMajor, 9},
                                        {cudaDevAttrComputeCapabilityMinor, 0},
                                        {cudaDevAttrMaxSharedMemoryPerMultiprocessor, 233472},
                                        {cudaDevAttrMaxSharedMemoryPerBlockOptin, 232448}};
  const auto found = known.find(attribute);
  *value = found == known.end() ? 1 : found->second;
  return cudaSuccess;
}
EXPORT cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int device) {
  if (device >= deviceCount()) return last = cudaErrorInvalidDevice;
  *p = {};
  std::strcpy(p->name, "emulated GPU");
  p->totalGlobalMem = memoryBytes();
  p->sharedMemPerBlock = 49152, p->sharedMemPerMultiprocessor = 233472, p->sharedMemPerBlockOptin = 232448;
  p->regsPerBlock = p->regsPerMultiprocessor = 65536;
  p->warpSize = 32, p->major = 9, p->multiProcessorCount = 132;
  p->maxThreadsPerBlock = 1024, p->maxThreadsPerMultiProcessor = 2048, p->maxBlocksPerMultiProcessor = 32;
  p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024, p->maxThreadsDim[2] = 64;
  p->maxGridSize[0] = 2147483647, p->maxGridSize[1] = p->maxGridSize[2] = 65535;
  p->textureAlignment = 512, p->l2CacheSize = 60 << 20, p->unifiedAddressing = p->concurrentKernels = 1;
  return cudaSuccess;
}
EXPORT cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) { return *can = 1, cudaSuccess; }
EXPORT cudaError_t cudaDeviceEnablePeerAccess(int, unsigned) { return cudaSuccess; }
EXPORT cudaError_t cudaDeviceGetPCIBusId(char* text, int length, int device) {
  return std::snprintf(text, length, "0000:%02x:00.0", device), cudaSuccess;
}
EXPORT cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  if (least != nullptr) *least = 0;
  if (greatest != nullptr) *greatest = -5;
  return cudaSuccess;
}
EXPORT cudaError_t cudaDeviceSynchronize() {
  Lock lock(mutex);
  // Whichever thread asks: a device is no more to be waited for than the stream that is captured on it.
  bool isCapturing = false;
  for (Capture* one : captures)
    if (streamAt(one->origin).device == current) isCapturing = one->broken = true;
  if (isCapturing) return refused("cudaDeviceSynchronize", cudaErrorStreamCaptureUnsupported);
  for (auto& [_, event] : events) event.asked = 1;
  return cudaSuccess;
}

// ---- memory --------------------------------------------------------------------------------------------------------
EXPORT cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  Lock lock(mutex);
  return *total = memoryBytes(), *free = *total - used[current], cudaSuccess;
}
EXPORT cudaError_t cudaMalloc(void** data, size_t bytes) {
  return unlessForbidden("cudaMalloc", [&] { return allocated(data, bytes, false); });
}
EXPORT cudaError_t cudaFree(void* data) {
  return unlessForbidden("cudaFree", [&] { return freed(data); });
}
EXPORT cudaError_t cudaHostAlloc(void** data, size_t bytes, unsigned) {
  return unlessForbidden("cudaHostAlloc", [&] { return allocated(data, bytes, true); });
}
EXPORT cudaError_t cudaFreeHost(void* data) {
  return unlessForbidden("cudaFreeHost", [&] { return freed(data); });
}
EXPORT cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* result, const void* data) {
  Lock lock(mutex);
  *result = {};
  result->type = cudaMemoryTypeUnregistered, result->device = -1;
  const auto address = reinterpret_cast<uintptr_t>(data);
  auto found = blocks.upper_bound(address);
  if (found == blocks.begin() || address >= (--found)->first + found->second.size) return cudaSuccess;
  result->type = found->second.isPinned ? cudaMemoryTypeHost : cudaMemoryTypeDevice;
  result->device = found->second.device;
  result->devicePointer = const_cast<void*>(data);
  return cudaSuccess;
}
EXPORT cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t n, cudaMemcpyKind, cudaStream_t stream) {
  return queued(stream, "cudaMemcpyAsync", [=] { std::memmove(to, from, n); });
}
EXPORT cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t n, cudaStream_t stream) {
  return queued(stream, "cudaMemcpyPeerAsync", [=] { std::memmove(to, from, n); });
}
EXPORT cudaError_t cudaMemcpy(void* to, const void* from, size_t n, cudaMemcpyKind) {
  return unlessForbidden("cudaMemcpy", [&] { return std::memmove(to, from, n), cudaSuccess; });
}
EXPORT cudaError_t cudaMemset(void* to, int value, size_t n) {
  return unlessForbidden("cudaMemset", [&] { return std::memset(to, value, n), cudaSuccess; });
}
EXPORT cudaError_t cudaMemsetAsync(void* to, int value, size_t n, cudaStream_t stream) {
  return queued(stream, "cudaMemsetAsync", [=] { std::memset(to, value, n); });
}

// ---- streams and events --------------------------------------------------------------------------------------------
EXPORT cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int) {
  Lock lock(mutex);
  static uintptr_t next = 0x10000;
  *stream = reinterpret_cast<cudaStream_t>(next += 64);
  streams[*stream] = {current, flags};
  return cudaSuccess;
}
EXPORT cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return cudaStreamCreateWithPriority(stream, flags, 0);
}
EXPORT cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithPriority(stream, 0, 0); }
EXPORT cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  Lock lock(mutex);
  return streams.erase(stream), cudaSuccess;
}
EXPORT cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  Lock lock(mutex);
  if (Capture* const capture = captureOf(stream)) {
    capture->broken = true;
    return refused("cudaStreamSynchronize", cudaErrorStreamCaptureUnsupported);
  }
  for (auto& [_, event] : events)
    if (event.stream == stream) event.asked = 1;
  return cudaSuccess;
}
EXPORT cudaError_t cudaStreamQuery(cudaStream_t stream) {
  Lock lock(mutex);
  Capture* const capture = captureOf(stream);
  if (capture == nullptr) return cudaSuccess;
  capture->broken = true;
  return refused("cudaStreamQuery", cudaErrorStreamCaptureUnsupported);
}
EXPORT cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t id, unsigned flags) {
  Lock lock(mutex);
  const Event& event = events.at(id);
  Capture* const capture = captureOf(stream);
  if (!event.recorded) return cudaSuccess;
  if (capture != nullptr && event.capture != capture) {
    if (flags & cudaEventWaitExternal) return cudaSuccess;
    capture->broken = true;
    return refused("cudaStreamWaitEvent", cudaErrorStreamCaptureIsolation);
  }
  if (event.capture == nullptr) return cudaSuccess;
  if (capture == nullptr && isLegacy(stream)) {
    event.capture->broken = true;
    return refused("cudaStreamWaitEvent", cudaErrorStreamCaptureImplicit);
  }
  streamAt(stream).capture = event.capture;
  event.capture->forked.erase(event.stream);
  if (stream != event.capture->origin) event.capture->forked.insert(stream);
  return cudaSuccess;
}
EXPORT cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  Lock lock(mutex);
  static uintptr_t next = 0x7000000;
  *event = reinterpret_cast<cudaEvent_t>(next += 64);
  events[*event] = {current};
  return cudaSuccess;
}
EXPORT cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }
EXPORT cudaError_t cudaEventDestroy(cudaEvent_t event) {
  Lock lock(mutex);
  return events.erase(event) == 1 ? cudaSuccess : refused("cudaEventDestroy", cudaErrorInvalidResourceHandle);
}
EXPORT cudaError_t cudaEventRecordWithFlags(cudaEvent_t id, cudaStream_t stream, unsigned flags) {
  Lock lock(mutex);
  Event& event = events.at(id);
  if (event.device != (isLegacy(stream) ? current : streamAt(stream).device))
    return refused("cudaEventRecord on another device", cudaErrorInvalidResourceHandle);
  Capture* const capture = flags & cudaEventRecordExternal ? nullptr : captureOf(stream);
  event = {event.device, true, stream, capture};
  return cudaSuccess;
}
EXPORT cudaError_t cudaEventRecord(cudaEvent_t id, cudaStream_t stream) {
  return cudaEventRecordWithFlags(id, stream, 0);
}
EXPORT cudaError_t cudaEventQuery(cudaEvent_t id) {
  Lock lock(mutex);
  if (isForbidden()) return refused("cudaEventQuery", cudaErrorStreamCaptureUnsupported);
  Event& event = events.at(id);
  if (event.capture != nullptr) return event.capture->broken = true, refused("cudaEventQuery", cudaErrorCapturedEvent);
  return !event.recorded || event.asked++ > 0 ? cudaSuccess : last = cudaErrorNotReady;
}
EXPORT cudaError_t cudaEventSynchronize(cudaEvent_t id) {
  Lock lock(mutex);
  Event& event = events.at(id);
  if (event.capture != nullptr)
    return event.capture->broken = true, refused("cudaEventSynchronize", cudaErrorCapturedEvent);
  return event.asked = 1, cudaSuccess;
}
EXPORT cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t, cudaEvent_t) { return *ms = 0.1f, cudaSuccess; }

// ---- graphs --------------------------------------------------------------------------------------------------------
EXPORT cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  Lock lock(mutex);
  static unsigned long long next = 1;
  if (isLegacy(stream) || captureOf(stream) != nullptr)
    return refused("cudaStreamBeginCapture", cudaErrorStreamCaptureUnsupported);
  auto* const capture = new Capture{next++, mode, pthread_self(), stream};
  streamAt(stream).capture = capture;
  captures.insert(capture);
  return cudaSuccess;
}
EXPORT cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  Lock lock(mutex);
  *graph = nullptr;
  Capture* const capture = captureOf(stream);
  if (capture == nullptr || capture->origin != stream)
    return refused("cudaStreamEndCapture", cudaErrorStreamCaptureUnmatched);
  if (capture->mode != cudaStreamCaptureModeRelaxed && !pthread_equal(capture->thread, pthread_self()))
    return refused("cudaStreamEndCapture", cudaErrorStreamCaptureWrongThread);
  for (auto& [_, one] : streams)
    if (one.capture == capture) one.capture = nullptr;
  for (auto& [_, event] : events)
    if (event.capture == capture) event = {event.device};
  captures.erase(capture);
  const std::unique_ptr<Capture> ended(capture);
  if (ended->broken) return refused("cudaStreamEndCapture", cudaErrorStreamCaptureInvalidated);
  if (!ended->forked.empty()) return refused("cudaStreamEndCapture", cudaErrorStreamCaptureUnjoined);
  *graph = reinterpret_cast<cudaGraph_t>(new Todo(std::move(ended->todo)));
  return cudaSuccess;
}
EXPORT cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, cudaStreamCaptureStatus* status,
                                            unsigned long long* id, cudaGraph_t* graph,
                                            const cudaGraphNode_t** before, const cudaGraphEdgeData** edges,
                                            size_t* count) {
  Lock lock(mutex);
  const Capture* const capture = captureOf(stream);
  *status = capture == nullptr ? cudaStreamCaptureStatusNone
            : capture->broken  ? cudaStreamCaptureStatusInvalidated
                               : cudaStreamCaptureStatusActive;
  if (id != nullptr) *id = capture == nullptr ? 0 : capture->id;
  if (graph != nullptr) *graph = nullptr;
  if (before != nullptr) *before = nullptr;
  if (edges != nullptr) *edges = nullptr;
  if (count != nullptr) *count = 0;
  return cudaSuccess;
}
EXPORT cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  return cudaStreamGetCaptureInfo(stream, status, nullptr, nullptr, nullptr, nullptr, nullptr);
}
EXPORT cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  return std::swap(*mode, threadMode), cudaSuccess;
}
EXPORT cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* made, cudaGraph_t graph, unsigned long long) {
  *made = reinterpret_cast<cudaGraphExec_t>(new Todo(*reinterpret_cast<Todo*>(graph)));
  return cudaSuccess;
}
EXPORT cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return delete reinterpret_cast<Todo*>(graph), cudaSuccess; }
EXPORT cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  return delete reinterpret_cast<Todo*>(graph), cudaSuccess;
}
EXPORT cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t*, size_t* count) {
  return *count = reinterpret_cast<Todo*>(graph)->size(), cudaSuccess;
}
EXPORT cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
  const Todo& todo = *reinterpret_cast<Todo*>(graph);
  return queued(stream, "cudaGraphLaunch", [&] {
    for (const auto& work : todo) work();
  });
}

// ---- kernels, which do nothing -------------------------------------------------------------------------------------
namespace {
cudaError_t launched(cudaStream_t stream) { return queued(stream, "a kernel", [] {}); }
thread_local struct {
  dim3 grid, block;
  size_t shared;
  void* stream;
} configuration;
}  // namespace
EXPORT cudaError_t cudaLaunchKernel(const void*, dim3, dim3, void**, size_t, cudaStream_t stream) {
  return launched(stream);
}
EXPORT cudaError_t cudaLaunchCooperativeKernel(const void*, dim3, dim3, void**, size_t, cudaStream_t stream) {
  return launched(stream);
}
EXPORT cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void*, void**) {
  return launched(config->stream);
}
EXPORT cudaError_t __cudaLaunchKernel(cudaKernel_t, dim3, dim3, void**, size_t, cudaStream_t stream) {
  return launched(stream);
}
EXPORT cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  return *kernel = reinterpret_cast<cudaKernel_t>(const_cast<void*>(function)), cudaSuccess;
}
EXPORT unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, cudaStream_t stream) {
  return configuration = {grid, block, shared, stream}, 0;
}
EXPORT cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  *grid = configuration.grid, *block = configuration.block, *shared = configuration.shared;
  *static_cast<void**>(stream) = configuration.stream;
  return cudaSuccess;
}
EXPORT void** __cudaRegisterFatBinary(void*) {
  static void* handle;
  return &handle;
}
EXPORT void __cudaRegisterFatBinaryEnd(void**) {}
EXPORT void __cudaUnregisterFatBinary(void**) {}
EXPORT char __cudaInitModule(void**) { return 1; }
EXPORT void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
EXPORT void __cudaRegisterFunction(void**, const char*, char*, const char*, int, uint3*, uint3*, dim3*, dim3*, int*) {}
EXPORT cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  *attributes = {};
  attributes->maxThreadsPerBlock = 1024, attributes->numRegs = 32;
  attributes->binaryVersion = attributes->ptxVersion = 90;
  return cudaSuccess;
}
EXPORT cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) { return cudaSuccess; }
EXPORT cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void*, int, size_t) {
  return *blocks = 2, cudaSuccess;
}
EXPORT cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void*, int, size_t,
                                                                          unsigned) {
  return *blocks = 2, cudaSuccess;
}
EXPORT cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned, unsigned long long,
                                                    cudaDriverEntryPointQueryResult* result) {
  *function = dlsym(RTLD_DEFAULT, name);
  *result = *function == nullptr ? cudaDriverEntryPointSymbolNotFound : cudaDriverEntryPointSuccess;
  return cudaSuccess;
}

// ---- the driver ----------------------------------------------------------------------------------------------------
EXPORT int cuInit(unsigned) { return 0; }
EXPORT int cuGetErrorString(int, const char** text) { return *text = "an error of the emulated driver", 0; }
EXPORT int cuGetExportTable(const void** table, const void*) { return *table = nullptr, 500; }
EXPORT int cuDeviceGetCount(int* count) { return *count = deviceCount(), 0; }
EXPORT int cuDeviceGet(int* device, int index) { return *device = index, 0; }
EXPORT int cuDeviceGetName(char* text, int length, int) { return std::snprintf(text, length, "emulated GPU"), 0; }
EXPORT int cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = memoryBytes(), 0; }
EXPORT int cuDeviceGetAttribute(int* value, int attribute, int device) {
  return cudaDeviceGetAttribute(value, static_cast<cudaDeviceAttr>(attribute), device);
}
EXPORT int cuDevicePrimaryCtxRetain(void** context, int) { return *context = used, 0; }
EXPORT int cuDevicePrimaryCtxGetState(int, unsigned* flags, int* active) { return *flags = 0, *active = 1, 0; }
EXPORT int cuCtxGetCurrent(void** context) { return *context = used, 0; }
EXPORT int cuCtxSetCurrent(void*) { return 0; }
EXPORT int cuStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  return cudaStreamIsCapturing(stream, status);
}
// What is not there: machine code of the addon's own kernels, for which it then uses ATen's, and what only has to be
// there for libcaffe2_nvrtc.so to be loaded.
#define UNUSED(name) \
  EXPORT int name() { return 801; }
UNUSED(cuModuleLoadData)
UNUSED(cuModuleGetFunction)
UNUSED(cuLaunchKernel)
UNUSED(cuFuncGetAttribute)
UNUSED(cuFuncSetAttribute)
UNUSED(cuFuncSetCacheConfig)
UNUSED(cuLaunchCooperativeKernel)
UNUSED(cuLinkAddData_v2)
UNUSED(cuLinkComplete)
UNUSED(cuLinkCreate_v2)
UNUSED(cuModuleLoad)
UNUSED(cuModuleLoadDataEx)
UNUSED(cuModuleUnload)
UNUSED(cuOccupancyMaxActiveBlocksPerMultiprocessor)
UNUSED(cuPointerGetAttribute)
UNUSED(cuTensorMapEncodeTiled)
