// c10d's NCCL backend. CMake compiles this file for trial first: without CUDA's and NCCL's headers the addon is built
// without it.
#ifndef USE_C10D_NCCL
#define USE_C10D_NCCL
#endif
#include "nccl.hpp"

#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include <cstdlib>

namespace miro {

// By default a collective that failed or ran out of time ends the whole process, from a thread of c10d's. Here wait()
// blocks until the collective is done and throws when it fails, so that a training can say what happened and close its
// files. Read by c10d when a group is made; what the user has set is kept.
static void waitWithErrors() {
  ::setenv("TORCH_NCCL_BLOCKING_WAIT", "1", 0);
  ::setenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0", 0);
  ::setenv("TORCH_NCCL_ENABLE_MONITORING", "0", 0);
}

c10::intrusive_ptr<c10d::Backend> ncclBackend(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size,
                                              std::chrono::milliseconds timeout) {
  waitWithErrors();
  auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = timeout;
  return c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, size, options);
}

c10::DeviceIndex currentCudaDevice() { return c10::cuda::current_device(); }

void waitForCurrentStream(c10::DeviceIndex device) { c10::cuda::getCurrentCUDAStream(device).synchronize(); }

}  // namespace miro
