#include "gpu_program.hpp"

#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>

#include <dlfcn.h>

#include <cstdlib>
#include <mutex>
#include <vector>

namespace miro {
namespace {

// What is used of CUDA's driver and of NVRTC. Their numbers and structures do not change from release to release.
struct Driver {
  using Pointer = void*;
  int (*cuInit)(unsigned);
  int (*cuGetErrorString)(int, const char**);
  int (*cuDeviceGet)(int*, int);
  int (*cuDeviceGetAttribute)(int*, int, int);
  int (*cuDevicePrimaryCtxRetain)(Pointer*, int);
  int (*cuCtxGetCurrent)(Pointer*);
  int (*cuCtxSetCurrent)(Pointer);
  int (*cuModuleLoadData)(Pointer*, const void*);
  int (*cuModuleGetFunction)(Pointer*, Pointer, const char*);
  int (*cuStreamIsCapturing)(Pointer, int*);
  int (*cuLaunchKernel)(Pointer, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, Pointer,
                        Pointer*, Pointer*);
  int (*nvrtcVersion)(int*, int*);
  const char* (*nvrtcGetErrorString)(int);
  int (*nvrtcCreateProgram)(Pointer*, const char*, const char*, int, const char* const*, const char* const*);
  int (*nvrtcCompileProgram)(Pointer, int, const char* const*);
  int (*nvrtcGetProgramLogSize)(Pointer, size_t*);
  int (*nvrtcGetProgramLog)(Pointer, char*);
  int (*nvrtcGetCUBINSize)(Pointer, size_t*);
  int (*nvrtcGetCUBIN)(Pointer, char*);
  int (*nvrtcDestroyProgram)(Pointer*);
};
constexpr int kMultiprocessors = 16, kMajor = 75, kMinor = 76;

template <typename F>
void find(void* library, const char* name, F*& function) {
  function = reinterpret_cast<F*>(::dlsym(library, name));
  TORCH_CHECK(function != nullptr, name, " is not there");
}
#define MIRO_FIND(library, name) find(library, #name, d.name)

// NVRTC needs a second library at its side, which it does not find where only the path of the first is known.
void loadBuiltins(const Driver& d) {
  Dl_info where{};
  int major = 0, minor = 0;
  if (::dladdr(reinterpret_cast<const void*>(d.nvrtcVersion), &where) == 0) return;
  if (d.nvrtcVersion(&major, &minor) != 0) return;
  const std::string file = where.dli_fname, folder = file.substr(0, file.rfind('/') + 1);
  const std::string name = "libnvrtc-builtins.so." + std::to_string(major) + "." + std::to_string(minor);
  ::dlopen((folder + name).c_str(), RTLD_NOW | RTLD_GLOBAL);
}

// @throws c10::Error where the driver or NVRTC is missing
const Driver& driver() {
  static const Driver found = [] {
    Driver d{};
    void* cuda = ::dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    TORCH_CHECK(cuda != nullptr, "libcuda.so.1 cannot be loaded: ", ::dlerror());
    MIRO_FIND(cuda, cuInit), MIRO_FIND(cuda, cuGetErrorString), MIRO_FIND(cuda, cuDeviceGet);
    MIRO_FIND(cuda, cuDeviceGetAttribute), MIRO_FIND(cuda, cuDevicePrimaryCtxRetain), MIRO_FIND(cuda, cuCtxGetCurrent);
    MIRO_FIND(cuda, cuCtxSetCurrent), MIRO_FIND(cuda, cuModuleLoadData), MIRO_FIND(cuda, cuModuleGetFunction);
    MIRO_FIND(cuda, cuStreamIsCapturing), MIRO_FIND(cuda, cuLaunchKernel);
    // Beside libtorch lies a library that finds the NVRTC that torch was built with.
    void* nvrtc = nullptr;
    for (const char* name : {"libcaffe2_nvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"}) {
      nvrtc = ::dlopen(name, RTLD_NOW | RTLD_LOCAL);
      if (nvrtc != nullptr && ::dlsym(nvrtc, "nvrtcCreateProgram") != nullptr) break;
      nvrtc = nullptr;
    }
    TORCH_CHECK(nvrtc != nullptr, "NVRTC cannot be loaded");
    MIRO_FIND(nvrtc, nvrtcVersion), MIRO_FIND(nvrtc, nvrtcGetErrorString), MIRO_FIND(nvrtc, nvrtcCreateProgram);
    MIRO_FIND(nvrtc, nvrtcCompileProgram), MIRO_FIND(nvrtc, nvrtcGetProgramLogSize);
    MIRO_FIND(nvrtc, nvrtcGetProgramLog), MIRO_FIND(nvrtc, nvrtcGetCUBINSize), MIRO_FIND(nvrtc, nvrtcGetCUBIN);
    MIRO_FIND(nvrtc, nvrtcDestroyProgram);
    loadBuiltins(d);
    TORCH_CHECK(d.cuInit(0) == 0, "the driver does not start");
    return d;
  }();
  return found;
}
#undef MIRO_FIND

void check(const char* call, int result) {
  if (result == 0) return;
  const char* said = nullptr;
  driver().cuGetErrorString(result, &said);
  TORCH_CHECK(false, call, ": ", said != nullptr ? said : "error ", said != nullptr ? "" : std::to_string(result));
}

int attribute(const Driver& d, int which, int device) {
  int value = 0;
  check("cuDeviceGetAttribute", d.cuDeviceGetAttribute(&value, which, device));
  return value;
}

// What the driver calls a device.
int indexOf(c10::Device device) {
  int index = 0;
  check("cuDeviceGet", driver().cuDeviceGet(&index, device.index()));
  return index;
}

// Threads that have not called CUDA's runtime have no context yet; the one that the runtime uses is the primary.
void haveContext(const Driver& d, int device) {
  void* context = nullptr;
  check("cuCtxGetCurrent", d.cuCtxGetCurrent(&context));
  if (context != nullptr) return;
  check("cuDevicePrimaryCtxRetain", d.cuDevicePrimaryCtxRetain(&context, device));  // for good, as the runtime does
  check("cuCtxSetCurrent", d.cuCtxSetCurrent(context));
}

void* currentStream(c10::Device device) {
  return c10::impl::VirtualGuardImpl(device.type()).getStream(device).native_handle();
}

// Machine code for one generation of devices.
std::vector<char> compiled(const Driver& d, const std::string& source, const std::vector<std::string>& options) {
  void* program = nullptr;
  const auto nvrtc = [&](const char* call, int result) {
    if (result == 0) return;
    std::string log;
    size_t length = 0;
    if (program != nullptr && d.nvrtcGetProgramLogSize(program, &length) == 0 && length > 1) {
      log.resize(length);
      d.nvrtcGetProgramLog(program, log.data());
    }
    const std::string reason = d.nvrtcGetErrorString(result);
    if (program != nullptr) d.nvrtcDestroyProgram(&program);
    TORCH_CHECK(false, call, ": ", reason, log.empty() ? "" : "\n", log.c_str());
  };
  nvrtc("nvrtcCreateProgram", d.nvrtcCreateProgram(&program, source.c_str(), "rows.cu", 0, nullptr, nullptr));
  std::vector<const char*> texts;
  for (const auto& option : options) texts.push_back(option.c_str());
  nvrtc("nvrtcCompileProgram", d.nvrtcCompileProgram(program, static_cast<int>(texts.size()), texts.data()));
  size_t length = 0;
  nvrtc("nvrtcGetCUBINSize", d.nvrtcGetCUBINSize(program, &length));
  std::vector<char> code(length);
  nvrtc("nvrtcGetCUBIN", d.nvrtcGetCUBIN(program, code.data()));
  d.nvrtcDestroyProgram(&program);
  return code;
}

std::mutex mutex;
std::string failure;

}  // namespace

GpuProgram::GpuProgram(c10::Device device, int index, const std::string& source,
                       const std::map<std::string, int>& macros)
    : device_(device), index_(index), multiprocessors_(attribute(driver(), kMultiprocessors, index)) {
  const Driver& d = driver();
  const int generation = 10 * attribute(d, kMajor, index) + attribute(d, kMinor, index);
  std::vector<std::string> options{"--gpu-architecture=sm_" + std::to_string(generation)};
  for (const auto& [name, value] : macros) options.push_back("-D" + name + "=" + std::to_string(value));
  const std::vector<char> code = compiled(d, source, options);
  check("cuModuleLoadData", d.cuModuleLoadData(&module_, code.data()));
  for (const char* name : {"rowNorm", "rowNormBackward", "swiGlu", "swiGluBackward"}) {
    void* kernel = nullptr;
    if (d.cuModuleGetFunction(&kernel, module_, name) == 0) kernels_[name] = kernel;
  }
}

std::optional<std::shared_ptr<const GpuProgram>> GpuProgram::make(c10::Device device, const char* source,
                                                                  const std::map<std::string, int>& macros) {
  const c10::DeviceGuard guard(device);
  try {
    const int index = indexOf(device);
    haveContext(driver(), index);
    int isCapturing = 0;
    check("cuStreamIsCapturing", driver().cuStreamIsCapturing(currentStream(device), &isCapturing));
    if (isCapturing != 0) return std::nullopt;
    return std::shared_ptr<const GpuProgram>(new GpuProgram(device, index, source, macros));
  } catch (const c10::Error& error) {
    distrustGpuPrograms(error.what_without_backtrace());
    return nullptr;
  }
}

void GpuProgram::launch(const char* kernel, unsigned blocks, unsigned threads, void** arguments) const {
  const Driver& d = driver();
  const c10::DeviceGuard guard(device_);
  haveContext(d, index_);
  const auto found = kernels_.find(kernel);
  TORCH_CHECK(found != kernels_.end(), "there is no kernel ", kernel);
  check(kernel, d.cuLaunchKernel(found->second, blocks, 1, 1, threads, 1, 1, 0, currentStream(device_), arguments,
                                 nullptr));
}

void distrustGpuPrograms(const std::string& reason) {
  std::lock_guard<std::mutex> lock(mutex);
  if (!failure.empty()) return;  // said once
  failure = reason;
  TORCH_WARN("ATen's kernels are used instead of this program's own, which are faster: ", reason);
}

std::string gpuProgramFailure() {
  std::lock_guard<std::mutex> lock(mutex);
  return failure;
}

}  // namespace miro
