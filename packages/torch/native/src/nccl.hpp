// c10d's NCCL backend, apart from the rest because its headers need those of CUDA and NCCL.
#pragma once

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

namespace miro {

// Connects a device with those of the other ranks; waits for them.
c10::intrusive_ptr<c10d::Backend> ncclBackend(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size,
                                              std::chrono::milliseconds timeout, c10::DeviceIndex device);
// Cuts a backend's connections and ends its threads.
void endNccl(c10d::Backend& backend);
c10::DeviceIndex currentCudaDevice();
// Waits on the host for the calling thread's stream of a device.
void waitForCurrentStream(c10::DeviceIndex device);

}  // namespace miro
