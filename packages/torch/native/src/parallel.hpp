// Loops on the CPU, shared by libtorch's threads.
#pragma once

#include <c10/util/FunctionRef.h>

#include <cstdint>

namespace miro {

// Calls `part(from, to)` for parts of at least `least` of `count` pieces of work, on as many threads as libtorch's own
// operators take. Parts are as at::parallel_for makes them.
void inParallel(int64_t count, int64_t least, c10::function_ref<void(int64_t, int64_t)> part);

}  // namespace miro
