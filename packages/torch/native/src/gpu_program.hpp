// Kernels of this addon for NVIDIA GPUs: compiled on the machine that runs them, by NVRTC, which torch brings along,
// and launched by NVIDIA's driver. Neither is needed to build the addon or to run it on a CPU.
#pragma once

#include <c10/core/Device.h>

#include <map>
#include <memory>
#include <optional>
#include <string>

namespace miro {

// A compiled source, loaded on one device.
class GpuProgram {
 public:
  // A source with some macros defined, on a device; takes half a second. Null where that cannot be, as without NVRTC;
  // nothing at all during the capture of a graph, when no program may be loaded.
  static std::optional<std::shared_ptr<const GpuProgram>> make(c10::Device device, const char* source,
                                                               const std::map<std::string, int>& macros);

  // Queues a kernel on the device's current stream. @param arguments pointers to the kernel's arguments, as CUDA has it
  void launch(const char* kernel, unsigned blocks, unsigned threads, void** arguments) const;

  // Multiprocessors of the device.
  int multiprocessors() const { return multiprocessors_; }

 private:
  GpuProgram(c10::Device device, int index, const std::string& source, const std::map<std::string, int>& macros);

  c10::Device device_;
  int index_;  // of the device, as the driver names it
  int multiprocessors_;
  void* module_ = nullptr;
  std::map<std::string, void*> kernels_;
};

// Says that a program computes what it should not.
void distrustGpuPrograms(const std::string& reason);

// Why a program is not used, of the first that is not; empty where all are.
std::string gpuProgramFailure();

}  // namespace miro
