// The update of all tensors of a launch by one rule, a block per chunk, for both backends: load, clip, decay, direction,
// apply, store. Where sums are needed, a first pass takes them. RULE is the rule's name, RULE_HEADER its header.
#pragma once
#include "launch.h"
#include RULE_HEADER

// A row of scalars: lr, weight decay, scale and limit of the gradient, the smallest state that counts, then those of the rule.
enum { LR, WEIGHT_DECAY, GRAD_SCALE, CLIP_VALUE, SMALLEST_STATE, RULE_SCALAR };

// The partial sums of a block: those of the rule, or for one that has none in how many elements direction and gradient agree.
template <typename Rule> struct SumsOf {
  enum { COUNT = Rule::SUMS > 0 ? int(Rule::SUMS) : 1 };
};

// The update, or where it MEASURES the first pass, which changes nothing and adds to `sum`. `factor`: what was made of the sums.
template <typename Rule, bool MEASURES, typename real, typename P, typename G>
RULE_FUNCTION void update_chunk(Tensor t, Chunk chunk, DEVICE const wide *row, DEVICE const wide *norm,
                                DEVICE const wide *factor, u32 thread_index, RULE_LOCAL Sum *sum) {
  enum { N = Width<P, G>::N };
  const real lr = real(row[LR]), weight_decay = real(row[WEIGHT_DECAY]), limit = real(row[CLIP_VALUE]);
  const real smallest_state = real(row[SMALLEST_STATE]);
  const real grad_scale = real(t.flags & SCALED_BY_NORM ? norm[1] * row[GRAD_SCALE] : row[GRAD_SCALE]);
  real scalar[Rule::SCALARS + 1];
#pragma unroll
  for (int k = 0; k < Rule::SCALARS; k++) scalar[k] = real(row[RULE_SCALAR + k]);
  // The last scalars are the factors: of this update, or for sums over all tensors in the first pass of the one before.
  if (Rule::SUMS > 0 && (!MEASURES || Rule::SUMS_OVER_ALL)) {
#pragma unroll
    for (int k = 0; k < Rule::FACTORS; k++) scalar[Rule::SCALARS - Rule::FACTORS + k] = real(factor[k]);
  }
  const bool is_cautious = t.flags & CAUTIOUS, is_decay_cautious = t.flags & CAUTIOUS_DECAY;
  const real mask_scale = Rule::SUMS == 0 && !MEASURES && is_cautious ? real(factor[0]) : real(1);

  DEVICE real *state = (DEVICE real *)t.state;
  DEVICE real *master = state + Rule::SLOTS * t.stride;
  const bool aligned = t.flags & ALIGNED;
  const u64 end = end_of(t, chunk);
  for (u64 at = u64(chunk.index) * CHUNK + thread_index * N; at < end; at += THREADS * N) {
    const u32 n = end - at < N ? u32(end - at) : u32(N);
    const Pack<G, N> g = read<G, N>((DEVICE const G *)t.grad + at, n, aligned);
    Pack<P, N> p = read<P, N>((DEVICE const P *)t.param + at, n, aligned);
    Pack<real, N> slots[Rule::SLOTS + 1], theta;
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
      if (MEASURES) {
        real value[SumsOf<Rule>::COUNT];
        if (Rule::SUMS > 0)
          Rule::measured(scalar, grad, theta.x[k], slot, value);
        else
          value[0] = rule_select_positive(Rule::direction(scalar, grad, theta.x[k], slot) * grad, real(1), real(0));
#pragma unroll
        for (int s = 0; s < SumsOf<Rule>::COUNT; s++)
          if (k < n) sum[s] = Rule::SQUARES >> s & 1 ? plus_square(sum[s], value[s]) : plus_value(sum[s], value[s]);
        continue;
      }
      real u = Rule::direction(scalar, grad, theta.x[k], slot);
#pragma unroll
      for (int s = 0; s < Rule::SLOTS; s++) slots[s].x[k] = slot[s];
      if (Rule::GIVES_PARAMETER) {
        theta.x[k] = u;
      } else {
        // A product, so that NaN stays.
        if (is_cautious) u = u * rule_select_positive(u * grad, mask_scale, real(0));
        real decay = weight_decay;
        if (is_decay_cautious) decay = rule_select_positive(-(u * theta.x[k]), real(0), decay);
        if (!Rule::DECAY_IS_L2 && !Rule::DECAY_IS_OWN) u = u + decay * theta.x[k];
        theta.x[k] = theta.x[k] - lr * u;
      }
      store(theta.x[k], &p.x[k], t.flags & STOCHASTIC ? noise_at(t.key, at + k) : u32(NEAREST));
    }
    if (!MEASURES) {
#pragma unroll
      for (int s = 0; s < Rule::SLOTS; s++) write<real, N>(state + s * t.stride + at, slots[s], n, true);
      if (t.flags & MASTER) write<real, N>(master + at, theta, n, true);
      write<P, N>((DEVICE P *)t.param + at, p, n, aligned);
    }
  }
}

// The factors of a tensor, or of all, from `all` sums.
template <typename Rule>
RULE_FUNCTION void factors_of(RULE_LOCAL const Sum *all, u64 len, DEVICE const wide *row, DEVICE wide *out) {
  wide scalar[Rule::SCALARS + 1], sum[3], factor[MAX_FACTORS];
  if (Rule::SUMS == 0) {
    // The directions that are left are scaled up by 1 over their share.
    const wide share = value_of(all[0]) / wide(len);
    out[0] = wide(1) / rule_max(share, wide(1e-3));
  } else {
#pragma unroll
    for (int k = 0; k < Rule::SCALARS; k++) scalar[k] = row[RULE_SCALAR + k];
    if (Rule::SUMS_OVER_ALL) {
#pragma unroll
      for (int k = 0; k < Rule::FACTORS; k++) scalar[Rule::SCALARS - Rule::FACTORS + k] = out[k];
    }
#pragma unroll
    for (int k = 0; k < 3; k++) sum[k] = k < Rule::SUMS ? value_of(all[k < SumsOf<Rule>::COUNT ? k : 0]) : wide(0);
    Rule::factors(scalar, sum, wide(len), factor);
#pragma unroll
    for (int k = 0; k < Rule::FACTORS; k++) out[k] = factor[k];
  }
}

#define JOIN(a, b) a##b
#define STRUCT(name) JOIN(rule_, name)

// `update` does all of it. `measure` is the first pass where there are sums, of which `factors` makes factors, a block per
// tensor, or `factors_of_all`, one block.
#define UPDATE(real, P, G, suffix, head)                                                                    \
  KERNEL_WITH(update_##suffix, head) {                                                                       \
    typedef STRUCT(RULE)<real> Rule;                                                                  \
    const Chunk chunk = chunks[block_index];                                                          \
    const Tensor t = tensors[chunk.tensor];                                                           \
    Sum none[1];                                                                                      \
    update_chunk<Rule, false, real, P, G>(t, chunk, rows + t.row, norm,                               \
                                          out + (Rule::SUMS_OVER_ALL ? 0 : MAX_FACTORS * u64(chunk.tensor)), thread_index, none); \
  }                                                                                                   \
  KERNEL_WITH(measure_##suffix, head) {                                                                      \
    typedef STRUCT(RULE)<real> Rule;                                                                  \
    const Chunk chunk = chunks[block_index];                                                          \
    const Tensor t = tensors[chunk.tensor];                                                           \
    Sum mine[SumsOf<Rule>::COUNT];                                                                    \
    for (int k = 0; k < SumsOf<Rule>::COUNT; k++) mine[k] = zero();                                   \
    update_chunk<Rule, true, real, P, G>(t, chunk, rows + t.row, norm, out, thread_index, mine);      \
    for (int k = 0; k < SumsOf<Rule>::COUNT; k++) {                                                   \
      const Sum all = sum_of_block(shared, thread_index, mine[k]);                                    \
      if (thread_index == 0) sums[SumsOf<Rule>::COUNT * (args.partials + block_index) + k] = all;     \
    }                                                                                                 \
  }

KERNEL(factors) {
  typedef STRUCT(RULE)<wide> Rule;
  enum { COUNT = SumsOf<Rule>::COUNT };
  const Tensor t = tensors[block_index];
  const u64 count = (t.len + CHUNK - 1) / CHUNK;
  Sum all[COUNT];
  for (int k = 0; k < COUNT; k++)
    all[k] = sum_of_block(shared, thread_index, share_of_partials(sums + COUNT * u64(t.first) + k, count, COUNT, thread_index));
  if (thread_index == 0) factors_of<Rule>(all, t.len, rows + t.row, out + MAX_FACTORS * u64(block_index));
}

KERNEL(factors_of_all) {
  typedef STRUCT(RULE)<wide> Rule;
  enum { COUNT = SumsOf<Rule>::COUNT };
  Sum all[COUNT];
  for (int k = 0; k < COUNT; k++)
    all[k] = sum_of_block(shared, thread_index, share_of_partials(sums + k, args.partials, COUNT, thread_index));
  if (thread_index == 0) factors_of<Rule>(all, args.len, rows, out);
}

UPDATE(float, float, float, f32_f32, HEAD)
#if !defined(RULE_METAL)
UPDATE(double, double, double, f64_f64, ROOMY_HEAD)
#endif
UPDATE(float, Bf16, Bf16, bf16_bf16, ROOMY_HEAD)
UPDATE(float, Bf16, float, bf16_f32, ROOMY_HEAD)
UPDATE(float, F16, F16, f16_f16, ROOMY_HEAD)
UPDATE(float, F16, float, f16_f32, ROOMY_HEAD)
