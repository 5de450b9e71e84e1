// Functions that are compiled for several processors, of which the widest is taken at run time. Files of them are
// compiled without contraction of products and sums, and sums have sixteen partial sums: all processors round the same.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define MIRO_ANY_WIDTH __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define MIRO_ANY_WIDTH
#endif

namespace miro {

constexpr int kLanes = 16;

}  // namespace miro
