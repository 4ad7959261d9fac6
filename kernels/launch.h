// What a launch is made of, for both backends: the tables that the host fills, and sums in a fixed order.
// `crates/optim/src/backend/device/` is the host's side of it.
#pragma once
#include "numbers.h"

enum { THREADS = 256, CHUNK = 4096 };
// Of a tensor. ALIGNED: parameter and gradient start at a multiple of 16 bytes, as the state always does.
enum { ALIGNED = 1, MASTER = 2, STOCHASTIC = 4, CAUTIOUS = 8, ADAPTIVE = 16, WEIGHTED = 32, CAUTIOUS_DECAY = 64, SCALED_BY_NORM = 128, TOWARD = 256 };
// Factors of a tensor, or of all, in `out`.
enum { MAX_FACTORS = 4 };
// Of a launch: scaled by a norm that is read from the device.
enum { BY_NORM = 1 };

struct Tensor {
  DEVICE u8 *param;
  DEVICE const u8 *grad;
  // The slots, then the master copy, `stride` numbers each.
  DEVICE u8 *state;
  u64 len, stride;
  // Of the random numbers of stochastic rounding.
  u64 key;
  // Its scalars: where they start in the rows. Its first chunk in the launch.
  u32 row, flags, first, unused;
};

// What one block works on: elements `index * CHUNK` and following of a tensor.
struct Chunk {
  u32 tensor, index;
};

struct Args {
  // Partial sums to add up, or the place of the launch's first one. Elements of all tensors.
  u64 partials, len;
  u32 flags, unused;
};

// ---- noise ----

// 16 random bits: a function of the key and the element alone, two rounds of a 32-bit hash of low bias.
RULE_FUNCTION u32 mixed(u32 x) {
  x = (x ^ x >> 16) * 0x7FEB352Du;
  x = (x ^ x >> 15) * 0x846CA68Bu;
  return x ^ x >> 16;
}
RULE_FUNCTION u32 noise_at(u64 key, u64 element) {
  return mixed(mixed(u32(element) ^ u32(key)) + u32(element >> 32) * 0x9E3779B9u + u32(key >> 32)) >> 16;
}

// ---- chunks ----

// The end of a chunk.
RULE_FUNCTION u64 end_of(Tensor t, Chunk chunk) {
  const u64 end = (u64(chunk.index) + 1) * CHUNK;
  return end < t.len ? end : t.len;
}

// ---- sums ----

#if defined(RULE_METAL)
// An unevaluated sum of two floats, 48 bits: Knuth's two-sum, and the rounding error of a product by fma.
struct Sum {
  float high, low;
};
RULE_FUNCTION Sum zero() { return Sum{0.0f, 0.0f}; }
RULE_FUNCTION Sum plus(Sum a, Sum b) {
  const float s = a.high + b.high, t = s - a.high;
  // Infinity and NaN have no error.
  const float e = s - s == 0.0f ? (a.high - (s - t)) + (b.high - t) + (a.low + b.low) : 0.0f;
  const float high = s + e;
  return Sum{high, s - s == 0.0f ? e - (high - s) : 0.0f};
}
RULE_FUNCTION Sum plus_square(Sum a, float x) {
  const float square = x * x, error = square - square == 0.0f ? fma(x, x, -square) : 0.0f;
  return plus(a, Sum{square, error});
}
RULE_FUNCTION Sum plus_value(Sum a, float x) { return plus(a, Sum{x, 0.0f}); }
RULE_FUNCTION wide value_of(Sum a) { return a.high + a.low; }
#else
struct Sum {
  double value;
};
RULE_FUNCTION Sum zero() { return Sum{0.0}; }
RULE_FUNCTION Sum plus(Sum a, Sum b) { return Sum{a.value + b.value}; }
RULE_FUNCTION Sum plus_square(Sum a, double x) { return Sum{a.value + x * x}; }
RULE_FUNCTION Sum plus_value(Sum a, double x) { return Sum{a.value + x}; }
RULE_FUNCTION wide value_of(Sum a) { return a.value; }
#endif

// The sum over the threads of a block, in the order of a binary tree. All threads have to call it.
RULE_FUNCTION Sum sum_of_block(SHARED Sum *shared, u32 thread_index, Sum mine) {
  shared[thread_index] = mine;
  for (u32 half_count = THREADS / 2; half_count > 0; half_count /= 2) {
    BARRIER();
    if (thread_index < half_count) {
      const Sum a = shared[thread_index], b = shared[thread_index + half_count];
      shared[thread_index] = plus(a, b);
    }
  }
  BARRIER();
  const Sum all = shared[0];
  BARRIER();
  return all;
}

// A thread's share of partial sums that are `step` apart.
RULE_FUNCTION Sum share_of_partials(DEVICE const Sum *partials, u64 count, u32 step, u32 thread_index) {
  Sum sum = zero();
  for (u64 k = thread_index; k < count; k += THREADS) sum = plus(sum, partials[k * step]);
  return sum;
}

// ---- kernels ----

// The head of a kernel. All take the same arguments; `block_index` and `thread_index` say which part is theirs, and
// `shared` has room for a sum per thread. A stand-in for Metal's header may have other words for the first two macros.
#define BUFFERS(at)                                                                                    \
  DEVICE const Tensor *tensors at(0), DEVICE const Chunk *chunks at(1), DEVICE const wide *rows at(2), \
      DEVICE const wide *norm at(3), DEVICE Sum *sums at(4), DEVICE wide *out at(5)
#define BODY(name)                                                                                   \
  RULE_FUNCTION void body_##name(BUFFERS(AT), Args args, SHARED Sum *shared, u32 block_index, u32 thread_index)
#define AT(n)
#define KERNEL(name) KERNEL_WITH(name, HEAD)
#define KERNEL_WITH(name, head)                                                                      \
  BODY(name);                                                                                        \
  head(name) {                                                                                       \
    STORAGE Sum shared[THREADS];                                                                     \
    body_##name(tensors, chunks, rows, norm, sums, out, args, shared, BLOCK_INDEX, THREAD_INDEX);    \
  }                                                                                                  \
  BODY(name)
#if defined(RULE_METAL)
#if !defined(ENTRY)
#define ENTRY [[max_total_threads_per_threadgroup(THREADS)]] kernel
#define STORAGE threadgroup
#endif
#define BUFFER(n) [[buffer(n)]]
#define HEAD(name)                                                                                  \
  ENTRY void name(BUFFERS(BUFFER), constant Args &args [[buffer(6)]],                               \
                  u32 block_index [[threadgroup_position_in_grid]],                                 \
                  u32 thread_index [[thread_index_in_threadgroup]])
#define ROOMY_HEAD(name) HEAD(name)
#define BLOCK_INDEX block_index
#define THREAD_INDEX thread_index
#else
#define STORAGE __shared__
#define HEAD(name) extern "C" __global__ void __launch_bounds__(THREADS) name(BUFFERS(AT), Args args)
// Of doubles and of 16 bits, of which a thread has many at a time: without a number of blocks ptxas spares registers and spills.
#define ROOMY_HEAD(name) extern "C" __global__ void __launch_bounds__(THREADS, 2) name(BUFFERS(AT), Args args)
#define BLOCK_INDEX blockIdx.x
#define THREAD_INDEX threadIdx.x
#endif
