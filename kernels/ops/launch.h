// What the kernels of the ops share: their tensors, sums over the threads of a row in a fixed order, and their names.
// `crates/ops/src/device/launch.rs` is the host's side of it.
#pragma once
#define RULE_CUDA
#include <cuda_fp16.h>
#include "numbers.h"

enum { THREADS = 256, WARP = 32 };

// The tensors of a launch, each contiguous; null where there is none.
struct Pointers {
  u8 *at[9];
};

// ---- numbers ----

// What is computed in.
template <typename T> struct Real {
  typedef float type;
};
template <> struct Real<double> {
  typedef double type;
};

// The elements that a thread moves at a time.
template <typename T> struct Vector {
  enum { N = 16 / sizeof(T) };
};

template <typename T> RULE_FUNCTION bool is_aligned(const T *pointer) { return (u64(pointer) & 15) == 0; }

template <typename real, typename T> RULE_FUNCTION void put(T *to, real x) { store(x, to, NEAREST); }

template <typename real> RULE_FUNCTION real infinity() { return real(bits_float(0x7F800000u)); }
template <typename real> RULE_FUNCTION real not_a_number() { return real(bits_float(0x7FC00000u)); }

// 0 where it is negative; NaN stays NaN.
template <typename real> RULE_FUNCTION real rectified(real x) { return x < real(0) ? real(0) : x; }

template <typename N> RULE_FUNCTION N smaller(N a, N b) { return a < b ? a : b; }

// ---- sums ----

RULE_FUNCTION float plus(float a, float b) { return a + b; }
RULE_FUNCTION double plus(double a, double b) { return a + b; }
RULE_FUNCTION float shuffled(float x, u32 mask) { return __shfl_xor_sync(0xFFFFFFFFu, x, mask); }
RULE_FUNCTION double shuffled(double x, u32 mask) { return __shfl_xor_sync(0xFFFFFFFFu, x, mask); }

template <typename real> struct Pair {
  real a, b;
};
template <typename real> RULE_FUNCTION Pair<real> plus(Pair<real> x, Pair<real> y) {
  return Pair<real>{x.a + y.a, x.b + y.b};
}
template <typename real> RULE_FUNCTION Pair<real> shuffled(Pair<real> x, u32 mask) {
  return Pair<real>{shuffled(x.a, mask), shuffled(x.b, mask)};
}

// The sum over the threads that share a row, `per_row` side by side: a warp or the block. Each of them gets it, in the
// order of a tree, and all threads of the block have to call it.
template <typename Sum> RULE_FUNCTION Sum sum_of_row(Sum mine, u32 per_row, u32 thread) {
#pragma unroll
  for (u32 mask = WARP / 2; mask > 0; mask /= 2) {
    const Sum other = shuffled(mine, mask);
    // In this order `plus` need not commute.
    mine = thread & mask ? plus(other, mine) : plus(mine, other);
  }
  if (per_row == THREADS) {
    __shared__ Sum of_warps[THREADS / WARP];
    if (thread % WARP == 0) of_warps[thread / WARP] = mine;
    BARRIER();
    mine = of_warps[0];
#pragma unroll
    for (u32 k = 1; k < THREADS / WARP; k++) mine = plus(mine, of_warps[k]);
    BARRIER();
  }
  return mine;
}

// Calls `f(start, n)` for the vectors of a row of so many elements that are of a thread: n elements from `start` on.
template <u32 N, typename F> RULE_FUNCTION void for_each_vector(u32 len, u32 lane, u32 per_row, F f) {
  for (u32 at = lane * N; at < len; at += per_row * N) f(at, smaller(len - at, u32(N)));
}

// The row of a thread and its place there. Threads beyond the last row repeat it: they take part in sums and write
// nothing.
struct Row {
  u64 index;
  u32 lane;
  bool is_real;
};
RULE_FUNCTION Row row_of(u32 block, u32 thread, u32 per_row, u64 rows) {
  const u64 index = u64(block) * (THREADS / per_row) + thread / per_row;
  return Row{index < rows ? index : rows - 1, thread % per_row, index < rows};
}

// ---- kernels ----

// The kernel `name_f32` and so on, by the function `name<T>(Pointers, Args, block, thread)`.
#define KERNEL(name, suffix, T)                                                                    \
  extern "C" __global__ void __launch_bounds__(THREADS) name##_##suffix(Pointers p, Args args) { \
    name<T>(p, args, blockIdx.x, threadIdx.x);                                                     \
  }
#define KERNELS(name)        \
  KERNEL(name, f32, float)   \
  KERNEL(name, f64, double)  \
  KERNEL(name, bf16, Bf16)   \
  KERNEL(name, f16, F16)
