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
namespace {

struct Nccl : c10d::ProcessGroupNCCL {
  using ProcessGroupNCCL::ProcessGroupNCCL;
  void end() {
    abort();
    watchdog_->join();
    heartbeatMonitor_->stop();
    heartbeatMonitor_->join();
  }
};

}  // namespace

// By default a collective that failed or ran out of time ends the whole process, from a thread of c10d's. Here that
// thread aborts the communicator instead, which frees whoever waits for the device, and getError() tells of it: a
// training can say what happened and close its files. Read by c10d when a group is made; what the user has set is kept.
static void abortOnErrors() {
  ::setenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", "2", 0);
  ::setenv("TORCH_NCCL_ENABLE_MONITORING", "0", 0);
  ::setenv("TORCH_NCCL_RETHROW_CUDA_ERRORS", "0", 0);
  // Four times this passes before it aborts, for reports that are not asked for here.
  ::setenv("TORCH_NCCL_DUMP_ON_TIMEOUT", "0", 0);
  ::setenv("TORCH_NCCL_WAIT_TIMEOUT_DUMP_MILSEC", "250", 0);
}

c10::intrusive_ptr<c10d::Backend> ncclBackend(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size,
                                              std::chrono::milliseconds timeout, c10::DeviceIndex device) {
  abortOnErrors();
  auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = timeout;
  auto backend = c10::make_intrusive<Nccl>(store, rank, size, options);
  try {
    // Else the first collective would, on the thread that queues it.
    backend->eagerConnectSingleDevice(c10::Device(c10::kCUDA, device));
  } catch (...) {
    backend->abort();
    throw;
  }
  return backend;
}

void endNccl(c10d::Backend& backend) { static_cast<Nccl&>(backend).end(); }

c10::DeviceIndex currentCudaDevice() { return c10::cuda::current_device(); }

void waitForCurrentStream(c10::DeviceIndex device) { c10::cuda::getCurrentCUDAStream(device).synchronize(); }

}  // namespace miro
