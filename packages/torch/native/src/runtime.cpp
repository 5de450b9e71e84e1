// Random generators, threads, memory, devices, and what this build is.
#include "allocator.hpp"
#include "captures.hpp"
#include "environment.hpp"
#include "gpu_program.hpp"
#include "parallel.hpp"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <torch/cuda.h>
#include <torch/version.h>

#include <dlfcn.h>

#include <algorithm>
#include <mutex>
#include <set>
#include <thread>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace miro {
namespace {

napi_value bigint(Environment& e, uint64_t v) {
  napi_value result;
  check(e, napi_create_bigint_uint64(e.env, v, &result));
  return result;
}

// Seeds are 64-bit, a number or a bigint: from -2^63, where negative ones wrap as in PyTorch, to 2^64 - 1.
uint64_t seedAt(Environment& e, napi_value v) {
  uint64_t seed = 0;
  bool lossless = false;
  if (napi_get_value_bigint_uint64(e.env, v, &seed, &lossless) != napi_ok)
    return static_cast<uint64_t>(toInt(e, v, "seed"));
  if (lossless) return seed;
  int64_t negative = 0;
  check(e, napi_get_value_bigint_int64(e.env, v, &negative, &lossless));
  if (!lossless) throw UsageError{"seed must be from -2^63 to 2^64 - 1"};
  return static_cast<uint64_t>(negative);
}

at::Generator& generatorAt(Environment& e, napi_value v) {
  const int64_t id = toInt(e, v, "generator");
  if (id < 0 || static_cast<size_t>(id) >= e.generators.size() || !e.generators[id].defined())
    throw UsageError{"this Generator was freed"};
  return e.generators[id];
}
int32_t storeGenerator(Environment& e, at::Generator g) {
  if (!e.freeGenerators.empty()) {
    const int32_t id = e.freeGenerators.back();
    e.freeGenerators.pop_back();
    e.generators[id] = std::move(g);
    return id;
  }
  e.generators.push_back(std::move(g));
  return static_cast<int32_t>(e.generators.size() - 1);
}

// generatorNew(device): a generator with PyTorch's default seed.
napi_value generatorNew(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 1) throw UsageError{"generatorNew(device)"};
  const c10::Device device = deviceOf(toString(e, argv[0], "device"));
  if (device.is_meta()) throw UsageError{"there are no random numbers on the device 'meta'"};
  if (device.is_cpu())
    return makeInt(e, storeGenerator(e, at::make_generator<at::CPUGeneratorImpl>(c10::default_rng_seed_val)));
  const auto& base = at::globalContext().defaultGenerator(device);
  at::Generator own = base.clone();
  own.set_current_seed(c10::default_rng_seed_val);
  return makeInt(e, storeGenerator(e, std::move(own)));
}
napi_value generatorDefault(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 1) throw UsageError{"generatorDefault(device)"};
  return makeInt(e, storeGenerator(e, at::globalContext().defaultGenerator(deviceOf(toString(e, argv[0], "device")))));
}
// trackGenerator(id, object): once JavaScript has forgotten the object, a sweep frees the generator.
napi_value trackGenerator(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 2) throw UsageError{"trackGenerator(id, object)"};
  generatorAt(e, argv[0]);
  e.trackGenerator(static_cast<int32_t>(toInt(e, argv[0], "generator")), argv[1]);
  return makeUndefined(e);
}
napi_value generatorSeed(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 2) throw UsageError{"generatorSeed(id, seed)"};
  at::Generator& g = generatorAt(e, argv[0]);
  const uint64_t seed = seedAt(e, argv[1]);
  std::lock_guard<std::mutex> lock(g.mutex());
  g.set_current_seed(seed);
  return makeUndefined(e);
}
napi_value generatorInitialSeed(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 1) throw UsageError{"generatorInitialSeed(id)"};
  return bigint(e, generatorAt(e, argv[0]).current_seed());
}
napi_value generatorGetState(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 1) throw UsageError{"generatorGetState(id)"};
  at::Generator& g = generatorAt(e, argv[0]);
  std::lock_guard<std::mutex> lock(g.mutex());
  return makeInt(e, e.store(g.get_state()));
}
napi_value generatorSetState(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 2) throw UsageError{"generatorSetState(id, state)"};
  at::Generator& g = generatorAt(e, argv[0]);
  const at::Tensor state = e.tensor(handleAt(e, argv, argc, 1));
  std::lock_guard<std::mutex> lock(g.mutex());
  g.set_state(state);
  return makeUndefined(e);
}

napi_value manualSeed(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 1) throw UsageError{"manualSeed(seed)"};
  at::manual_seed(seedAt(e, argv[0]));
  return makeUndefined(e);
}

napi_value setNumThreads(Environment& e, napi_value* argv, size_t argc) {
  if (argc < 1) throw UsageError{"setNumThreads(n)"};
  const int64_t n = toInt(e, argv[0], "n");
  if (n < 1 || n > 4096) throw UsageError{"the number of threads must be between 1 and 4096, got " + std::to_string(n)};
  at::set_num_threads(static_cast<int>(n));
  return makeUndefined(e);
}
napi_value getNumThreads(Environment& e, napi_value*, size_t) { return makeInt(e, at::get_num_threads()); }

// loopThreads() -> on how many threads a loop of this addon runs that has work for all
napi_value loopThreads(Environment& e, napi_value*, size_t) {
  std::mutex mutex;
  std::set<std::thread::id> threads;
  inParallel(at::get_num_threads(), 1, [&](int64_t, int64_t) {
    const std::lock_guard<std::mutex> lock(mutex);
    threads.insert(std::this_thread::get_id());
  });
  return makeInt(e, static_cast<int64_t>(threads.size()));
}

// memoryStats() -> [live, peak, cached bytes on the CPU, live handles]
napi_value memoryStats(Environment& e, napi_value*, size_t) {
  const AllocatorStats s = cpuAllocatorStats();
  const double values[] = {static_cast<double>(s.liveBytes), static_cast<double>(s.peakBytes),
                           static_cast<double>(s.cachedBytes), static_cast<double>(e.liveSlots)};
  return makeArray(e, values, makeNumber);
}
// The allocator of CUDA memory once anything has been allocated there; before, null: asking about it is no reason to
// start CUDA.
c10::DeviceAllocator* cudaAllocator() {
  if (!torch::cuda::is_available()) return nullptr;
  auto* allocator = c10::getDeviceAllocator(c10::DeviceType::CUDA);
  return allocator->initialized() ? allocator : nullptr;
}
napi_value emptyCache(Environment& e, napi_value*, size_t) {
  emptyCpuCache();
  if (auto* allocator = cudaAllocator()) {
    const auto held = betweenCaptures(e);
    allocator->emptyCache();
  }
  return makeUndefined(e);
}
// cudaMemory(device) -> [allocated, reserved, peak allocated] bytes
napi_value cudaMemory(Environment& e, napi_value* argv, size_t argc) {
  const c10::DeviceIndex index = cudaIndexAt(e, argv, argc, 0);
  double values[] = {0, 0, 0};
  if (auto* allocator = cudaAllocator()) {
    const auto stats = allocator->getDeviceStats(index);
    values[0] = static_cast<double>(stats.allocated_bytes[0].current);
    values[1] = static_cast<double>(stats.reserved_bytes[0].current);
    values[2] = static_cast<double>(stats.allocated_bytes[0].peak);
  }
  return makeArray(e, values, makeNumber);
}

// cudaAllowTf32(matmul, cudnn) -> [matmul, cudnn] as they were: whether float32 products and convolutions on CUDA may
// round their factors to TF32's ten bits. Both are off from the start (see the addon's start).
napi_value cudaAllowTf32(Environment& e, napi_value* argv, size_t argc) {
  auto& context = at::globalContext();
  const bool before[] = {context.allowTF32CuBLAS(), context.allowTF32CuDNN()};
  if (argc > 0) context.setAllowTF32CuBLAS(toBool(e, argv[0], "matmul"));
  if (argc > 1) context.setAllowTF32CuDNN(toBool(e, argv[1], "cudnn"));
  return makeArray(e, before, makeBool);
}

// cudaDevices() -> [name, memory in bytes, compute capability's major, minor] of each GPU, in a flat array. Asked of
// NVIDIA's driver, which is there with any libtorch or none, and which gives this without claiming memory on a device.
napi_value cudaDevices(Environment& e, napi_value*, size_t) {
  napi_value result;
  check(e, napi_create_array(e.env, &result));
  void* driver = ::dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (driver == nullptr) return result;
  const auto symbol = [driver]<typename F>(const char* name, F*& function) {
    function = reinterpret_cast<F*>(::dlsym(driver, name));
    return function != nullptr;
  };
  // From CUDA's driver API, whose numbers do not change.
  constexpr int kMajor = 75, kMinor = 76;
  int (*start)(unsigned) = nullptr, (*count)(int*) = nullptr, (*get)(int*, int) = nullptr,
      (*name)(char*, int, int) = nullptr, (*memory)(size_t*, int) = nullptr, (*attribute)(int*, int, int) = nullptr;
  int devices = 0;
  if (!symbol("cuInit", start) || !symbol("cuDeviceGetCount", count) || !symbol("cuDeviceGet", get) ||
      !symbol("cuDeviceGetName", name) || !symbol("cuDeviceTotalMem_v2", memory) ||
      !symbol("cuDeviceGetAttribute", attribute) || start(0) != 0 || count(&devices) != 0) {
    return result;
  }
  uint32_t length = 0;
  for (int i = 0; i < devices; ++i) {
    int device = 0, major = 0, minor = 0;
    size_t bytes = 0;
    char text[256] = "";
    if (get(&device, i) != 0 || name(text, sizeof text, device) != 0 || memory(&bytes, device) != 0 ||
        attribute(&major, kMajor, device) != 0 || attribute(&minor, kMinor, device) != 0) {
      continue;
    }
    for (const napi_value v :
         {makeString(e, text), makeNumber(e, static_cast<double>(bytes)), makeInt(e, major), makeInt(e, minor)}) {
      check(e, napi_set_element(e.env, result, length++, v));
    }
  }
  return result;
}

// gpuProgramFailure() -> why the kernels of row_kernels.cu.hpp are not used; "" where they are, or nobody has asked yet
napi_value programFailure(Environment& e, napi_value*, size_t) { return makeString(e, gpuProgramFailure()); }

napi_value cudaAvailable(Environment& e, napi_value*, size_t) { return makeBool(e, torch::cuda::is_available()); }
napi_value cudaDeviceCount(Environment& e, napi_value*, size_t) { return makeInt(e, torch::cuda::device_count()); }
// cudaSynchronize(device): waits for all that it was given
napi_value cudaSynchronize(Environment& e, napi_value* argv, size_t argc) {
  const c10::DeviceIndex device = cudaIndexAt(e, argv, argc, 0);
  const auto held = betweenCaptures(e);
  torch::cuda::synchronize(device);
  return makeUndefined(e);
}

std::vector<std::string> cpuCapabilities() {
  std::vector<std::string> found;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2")) found.push_back("avx2");
  if (__builtin_cpu_supports("avx512f")) found.push_back("avx512f");
  if (__builtin_cpu_supports("avx512vnni")) found.push_back("avx512_vnni");
  if (__builtin_cpu_supports("avx512bf16")) found.push_back("avx512_bf16");
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
    if (d & (1u << 24) && d & (1u << 22)) found.push_back("amx_bf16");
    if (d & (1u << 24) && d & (1u << 25)) found.push_back("amx_int8");
  }
#endif
  return found;
}

// Whether bfloat16 matrix products outrun float32 ones. Intel's AVX-512 BF16 without AMX does not: measured on a
// Sapphire Rapids with AMX masked, 82 against 145 GFLOP/s a core; AMD's (Zen 4 and later) reaches four times float32.
bool fastBfloat16() {
#if defined(__x86_64__)
  const auto found = cpuCapabilities();
  const auto has = [&](const char* name) { return std::find(found.begin(), found.end(), name) != found.end(); };
  return has("amx_bf16") || (has("avx512_bf16") && __builtin_cpu_is("amd"));
#else
  return false;
#endif
}

// buildInfo() -> what was compiled against, and what was found at load.
napi_value buildInfo(Environment& e, napi_value*, size_t) {
  napi_value result;
  check(e, napi_create_object(e.env, &result));
  const auto set = [&](const char* key, napi_value v) { check(e, napi_set_named_property(e.env, result, key, v)); };
  set("torchVersion", makeString(e, TORCH_VERSION));
#ifdef MIRO_WITH_CUDA
  set("cuda", makeBool(e, true));
#else
  set("cuda", makeBool(e, false));
#endif
  set("capabilities", makeArray(e, cpuCapabilities(), makeString));
  set("fastBfloat16", makeBool(e, fastBfloat16()));
  set("cudnnAttention", makeBool(e, at::globalContext().userEnabledCuDNNSDP()));
  set("aten", makeString(e, at::get_cpu_capability()));
  Dl_info where{};
  const void* symbol = reinterpret_cast<const void*>(&at::get_num_threads);
  set("libraryPath", makeString(e, dladdr(symbol, &where) != 0 && where.dli_fname ? where.dli_fname : ""));
  return result;
}

}  // namespace

const std::vector<Binding> kRuntimeBindings = {{"generatorNew", generatorNew},
                                               {"generatorDefault", generatorDefault},
                                               {"trackGenerator", trackGenerator},
                                               {"generatorSeed", generatorSeed},
                                               {"generatorInitialSeed", generatorInitialSeed},
                                               {"generatorGetState", generatorGetState},
                                               {"generatorSetState", generatorSetState},
                                               {"manualSeed", manualSeed},
                                               {"setNumThreads", setNumThreads},
                                               {"getNumThreads", getNumThreads},
                                               {"loopThreads", loopThreads},
                                               {"memoryStats", memoryStats},
                                               {"emptyCache", emptyCache},
                                               {"cudaMemory", cudaMemory},
                                               {"cudaAvailable", cudaAvailable},
                                               {"cudaAllowTf32", cudaAllowTf32},
                                               {"cudaDevices", cudaDevices},
                                               {"cudaDeviceCount", cudaDeviceCount},
                                               {"cudaSynchronize", cudaSynchronize},
                                               {"gpuProgramFailure", programFailure},
                                               {"buildInfo", buildInfo}};

}  // namespace miro
