// Captures of CUDA graphs, for what must not happen beside them.
#pragma once

#include "environment.hpp"

#include <mutex>

namespace miro {

// While it is held, no other thread captures a graph; waits until none does. CUDA refuses to wait for a whole device on
// which something is captured, whoever asks, and the capture is lost; libtorch's allocator gives nothing back then.
// One turn serves all devices: a cache is emptied on all of them.
std::unique_lock<std::mutex> betweenCaptures(Environment& e);

}  // namespace miro
