// c10d's NCCL backend. CMake compiles this file for trial first: without CUDA's and NCCL's headers the addon is built without it.
#ifndef USE_C10D_NCCL
#define USE_C10D_NCCL
#endif
#include "nccl.hpp"

#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

namespace miro {

c10::intrusive_ptr<c10d::Backend> ncclBackend(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size,
                                              std::chrono::milliseconds timeout) {
  auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = timeout;
  return c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, size, options);
}

c10::DeviceIndex currentCudaDevice() { return c10::cuda::current_device(); }

void waitForCurrentStream(c10::DeviceIndex device) { c10::cuda::getCurrentCUDAStream(device).synchronize(); }

}  // namespace miro
