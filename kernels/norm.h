// Norms and additions over all tensors of a launch, for both backends: a block per chunk, then one that adds
// up the partial sums in their order.
#pragma once
#include "launch.h"

// The sum of squares of a chunk of the gradient, each value first multiplied by the parameter's where WEIGHTED.
template <typename real, typename P, typename G>
RULE_FUNCTION Sum squares_of_chunk(Tensor t, Chunk chunk, u32 thread_index) {
  enum { N = Width<P, G>::N };
  const bool aligned = t.flags & ALIGNED;
  const u64 end = end_of(t, chunk);
  Sum sum = zero();
  for (u64 at = u64(chunk.index) * CHUNK + thread_index * N; at < end; at += THREADS * N) {
    const u32 n = end - at < N ? u32(end - at) : u32(N);
    const Pack<G, N> g = read<G, N>((DEVICE const G *)t.grad + at, n, aligned);
    Pack<P, N> p;
    if (t.flags & WEIGHTED) p = read<P, N>((DEVICE const P *)t.param + at, n, aligned);
#pragma unroll
    for (u32 k = 0; k < N; k++) {
      if (k >= n) continue;
      const real value = load(g.x[k]);
      sum = plus_square(sum, t.flags & WEIGHTED ? value * real(load(p.x[k])) : value);
    }
  }
  return sum;
}

// `out` gets the norm of the scaled gradients, and by what they are to be multiplied so that it is at most a limit.
// `row`: the scale; the limit; what keeps the division finite.
RULE_FUNCTION void finish_norm(Sum total, DEVICE const wide *row, DEVICE wide *out) {
  const wide norm = row[0] * sqrt(value_of(total));
  const wide share = row[1] / (norm + row[2]);
  out[0] = norm;
  // NaN stays.
  out[1] = row[0] * (share > wide(1) ? wide(1) : share);
}

// `param += scale grad`, or `scale param^2 grad` where ADAPTIVE, or `scale (grad - param)` where TOWARD, which ends at `grad` to
// the bit where the scale is 1. `row`: the scale, and with BY_NORM what is added to the
// norm that divides it.
template <typename real, typename P, typename G>
RULE_FUNCTION void add_chunk(Tensor t, Chunk chunk, DEVICE const wide *row, DEVICE const wide *norm, u32 flags,
                             u32 thread_index) {
  enum { N = Width<P, G>::N };
  const real scale = real(flags & BY_NORM ? row[0] / (norm[0] + row[1]) : row[0]);
  const bool aligned = t.flags & ALIGNED;
  const u64 end = end_of(t, chunk);
  for (u64 at = u64(chunk.index) * CHUNK + thread_index * N; at < end; at += THREADS * N) {
    const u32 n = end - at < N ? u32(end - at) : u32(N);
    const Pack<G, N> g = read<G, N>((DEVICE const G *)t.grad + at, n, aligned);
    Pack<P, N> p = read<P, N>((DEVICE const P *)t.param + at, n, aligned);
#pragma unroll
    for (u32 k = 0; k < N; k++) {
      const real theta = load(p.x[k]), addend = load(g.x[k]);
      const real weight = t.flags & ADAPTIVE ? theta * theta * scale : scale;
      const real sum = theta + weight * (t.flags & TOWARD ? addend - theta : addend);
      store(t.flags & TOWARD && scale == real(1) ? addend : sum, &p.x[k], NEAREST);
    }
    write<P, N>((DEVICE P *)t.param + at, p, n, aligned);
  }
}

// The norm, of all partial sums there are.
KERNEL(finish) {
  const Sum all = sum_of_block(shared, thread_index, share_of_partials(sums, args.partials, 1, thread_index));
  if (thread_index == 0) finish_norm(all, rows, out);
}

#define NORM_AND_ADD(real, P, G, suffix)                                                       \
  KERNEL(squares_##suffix) {                                                                   \
    const Chunk chunk = chunks[block_index];                                                   \
    const Sum mine = squares_of_chunk<real, P, G>(tensors[chunk.tensor], chunk, thread_index); \
    const Sum all = sum_of_block(shared, thread_index, mine);                                  \
    if (thread_index == 0) sums[args.partials + block_index] = all;                            \
  }                                                                                            \
  KERNEL(add_##suffix) {                                                                       \
    const Chunk chunk = chunks[block_index];                                                   \
    const Tensor t = tensors[chunk.tensor];                                                    \
    add_chunk<real, P, G>(t, chunk, rows + t.row, norm, args.flags, thread_index);             \
  }

NORM_AND_ADD(float, float, float, f32_f32)
#if !defined(RULE_METAL)
NORM_AND_ADD(double, double, double, f64_f64)
#endif
NORM_AND_ADD(float, Bf16, Bf16, bf16_bf16)
NORM_AND_ADD(float, Bf16, float, bf16_f32)
NORM_AND_ADD(float, F16, F16, f16_f16)
NORM_AND_ADD(float, F16, float, f16_f32)
// Sums of gradients in f32.
NORM_AND_ADD(float, float, Bf16, f32_bf16)
NORM_AND_ADD(float, float, F16, f32_f16)
