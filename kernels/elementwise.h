// The update of all tensors of a launch by one rule, a block per chunk, for both backends: load, clip, decay, direction,
// apply, store. RULE is the rule's name, RULE_HEADER its header.
#pragma once
#include "launch.h"
#include RULE_HEADER

// A row of scalars: lr, weight decay, scale and limit of the gradient, the smallest state that counts, then those of the rule.
enum { LR, WEIGHT_DECAY, GRAD_SCALE, CLIP_VALUE, SMALLEST_STATE, RULE_SCALAR };

// The update, or where a trust RATIO is to follow that of the state alone: the direction is kept and `squares` gets the
// sums of squares of parameter and direction.
template <typename Rule, bool RATIO, typename real, typename P, typename G>
RULE_FUNCTION void update_chunk(Tensor t, Chunk chunk, DEVICE const wide *row, DEVICE const wide *norm, u32 flags,
                                u32 thread_index, RULE_LOCAL Sum *squares) {
  enum { N = Width<P, G>::N };
  const real lr = real(row[LR]), weight_decay = real(row[WEIGHT_DECAY]), limit = real(row[CLIP_VALUE]);
  const real smallest_state = real(row[SMALLEST_STATE]);
  const real grad_scale = real(flags & BY_NORM ? norm[1] : row[GRAD_SCALE]);
  real scalar[Rule::SCALARS + 1];
#pragma unroll
  for (int k = 0; k < Rule::SCALARS; k++) scalar[k] = real(row[RULE_SCALAR + k]);

  DEVICE real *state = (DEVICE real *)t.state;
  DEVICE real *master = state + Rule::SLOTS * t.stride;
  DEVICE real *direction = t.flags & MASTER ? master + t.stride : master;
  const bool aligned = t.flags & ALIGNED;
  const u64 end = end_of(t, chunk);
  for (u64 at = u64(chunk.index) * CHUNK + thread_index * N; at < end; at += THREADS * N) {
    const u32 n = end - at < N ? u32(end - at) : u32(N);
    const Pack<G, N> g = read<G, N>((DEVICE const G *)t.grad + at, n, aligned);
    Pack<P, N> p = read<P, N>((DEVICE const P *)t.param + at, n, aligned);
    Pack<real, N> slots[Rule::SLOTS + 1], theta, u;
#pragma unroll
    for (int s = 0; s < Rule::SLOTS; s++) slots[s] = read<real, N>(state + s * t.stride + at, n, true);
    if (smallest_state > real(0)) {
#pragma unroll
      for (int s = 0; s < Rule::SLOTS; s++) {
#pragma unroll
        for (u32 k = 0; k < N; k++)
          if (load(g.x[k]) == real(0) && rule_abs(slots[s].x[k]) < smallest_state) slots[s].x[k] = real(0);
      }
    }
    if (t.flags & MASTER) {
      theta = read<real, N>(master + at, n, true);
#pragma unroll
      for (u32 k = 0; k < N; k++) theta.x[k] = adopt_written(theta.x[k], p.x[k]);
    } else {
#pragma unroll
      for (u32 k = 0; k < N; k++) theta.x[k] = load(p.x[k]);
    }
#pragma unroll
    for (u32 k = 0; k < N; k++) {
      real slot[Rule::SLOTS + 1];
#pragma unroll
      for (int s = 0; s < Rule::SLOTS; s++) slot[s] = slots[s].x[k];
      real grad = load(g.x[k]) * grad_scale;
      // NaN passes through both comparisons.
      grad = grad > limit ? limit : grad;
      grad = grad < -limit ? -limit : grad;
      if (Rule::DECAY_IS_L2) grad = grad + weight_decay * theta.x[k];
      u.x[k] = Rule::direction(scalar, grad, theta.x[k], slot);
      if (!Rule::DECAY_IS_L2) u.x[k] = u.x[k] + weight_decay * theta.x[k];
#pragma unroll
      for (int s = 0; s < Rule::SLOTS; s++) slots[s].x[k] = slot[s];
      if (RATIO) {
        if (k < n) {
          squares[0] = plus_square(squares[0], theta.x[k]);
          squares[1] = plus_square(squares[1], u.x[k]);
        }
      } else {
        theta.x[k] = theta.x[k] - lr * u.x[k];
        store(theta.x[k], &p.x[k], t.flags & STOCHASTIC ? noise_at(t.key, at + k) : u32(NEAREST));
      }
    }
#pragma unroll
    for (int s = 0; s < Rule::SLOTS; s++) write<real, N>(state + s * t.stride + at, slots[s], n, true);
    if (RATIO) {
      write<real, N>(direction + at, u, n, true);
    } else {
      if (t.flags & MASTER) write<real, N>(master + at, theta, n, true);
      write<P, N>((DEVICE P *)t.param + at, p, n, aligned);
    }
  }
}

// The second half of an update with a trust ratio: `param -= lr ratio direction`.
template <typename Rule, typename real, typename P>
RULE_FUNCTION void apply_chunk(Tensor t, Chunk chunk, DEVICE const wide *row, wide ratio, u32 thread_index) {
  enum { N = Width<P, P>::N };
  const real step = real(row[LR]) * real(ratio);
  DEVICE real *master = (DEVICE real *)t.state + Rule::SLOTS * t.stride;
  DEVICE real *direction = t.flags & MASTER ? master + t.stride : master;
  const bool aligned = t.flags & ALIGNED;
  const u64 end = end_of(t, chunk);
  for (u64 at = u64(chunk.index) * CHUNK + thread_index * N; at < end; at += THREADS * N) {
    const u32 n = end - at < N ? u32(end - at) : u32(N);
    Pack<P, N> p = read<P, N>((DEVICE const P *)t.param + at, n, aligned);
    const Pack<real, N> u = read<real, N>(direction + at, n, true);
    Pack<real, N> theta;
    if (t.flags & MASTER) theta = read<real, N>(master + at, n, true);
#pragma unroll
    for (u32 k = 0; k < N; k++) {
      theta.x[k] = (t.flags & MASTER ? adopt_written(theta.x[k], p.x[k]) : load(p.x[k])) - step * u.x[k];
      store(theta.x[k], &p.x[k], t.flags & STOCHASTIC ? noise_at(t.key, at + k) : u32(NEAREST));
    }
    if (t.flags & MASTER) write<real, N>(master + at, theta, n, true);
    write<P, N>((DEVICE P *)t.param + at, p, n, aligned);
  }
}

#define JOIN(a, b) a##b
#define STRUCT(name) JOIN(rule_, name)

// `update` does all of it. `direction` and `apply` are its halves around a trust ratio.
#define UPDATE(real, P, G, suffix)                                                                    \
  KERNEL(update_##suffix) {                                                                           \
    const Chunk chunk = chunks[block_index];                                                          \
    const Tensor t = tensors[chunk.tensor];                                                           \
    Sum squares[2];                                                                                   \
    update_chunk<STRUCT(RULE)<real>, false, real, P, G>(t, chunk, rows + t.row, norm, args.flags, thread_index, squares); \
  }                                                                                                   \
  KERNEL(direction_##suffix) {                                                                        \
    const Chunk chunk = chunks[block_index];                                                          \
    const Tensor t = tensors[chunk.tensor];                                                           \
    Sum squares[2] = {zero(), zero()};                                                                \
    update_chunk<STRUCT(RULE)<real>, true, real, P, G>(t, chunk, rows + t.row, norm, args.flags, thread_index, squares); \
    for (int k = 0; k < 2; k++) {                                                                     \
      const Sum all = sum_of_block(shared, thread_index, squares[k]);                                 \
      if (thread_index == 0) sums[2 * u64(block_index) + k] = all;                                    \
    }                                                                                                 \
  }
#define APPLY(real, P, suffix)                                                                        \
  KERNEL(apply_##suffix) {                                                                            \
    const Chunk chunk = chunks[block_index];                                                          \
    const Tensor t = tensors[chunk.tensor];                                                           \
    apply_chunk<STRUCT(RULE)<real>, real, P>(t, chunk, rows + t.row, out[chunk.tensor], thread_index); \
  }

UPDATE(float, float, float, f32_f32)
#if !defined(RULE_METAL)
UPDATE(double, double, double, f64_f64)
#endif
UPDATE(float, Bf16, Bf16, bf16_bf16)
UPDATE(float, Bf16, float, bf16_f32)
UPDATE(float, F16, F16, f16_f16)
UPDATE(float, F16, float, f16_f32)
APPLY(float, float, f32)
#if !defined(RULE_METAL)
APPLY(double, double, f64)
#endif
APPLY(float, Bf16, bf16)
APPLY(float, F16, f16)
