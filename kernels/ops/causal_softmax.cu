// The softmax of rows of a square up to the diagonal, a warp or a block per row, and its dropout.
#include "ops/chacha.h"

struct Args {
  // Rows of all squares.
  u64 rows;
  // Of the logits; what a probability that stays is multiplied by.
  double scale, dropout_scale;
  // Rows of a square.
  u32 context, per_row;
  Key key;
  u32 dropped, unused;
};

// logits, probabilities: 0 above the diagonal.
template <typename T> RULE_FUNCTION void causal_softmax(Pointers p, Args args, u32 block, u32 thread) {
  typedef typename Real<T>::type real;
  enum { N = Vector<T>::N };
  const Row row = row_of(block, thread, args.per_row, args.rows);
  const u32 len = u32(row.index % args.context) + 1;
  const T *x = (const T *)p.at[0] + row.index * args.context;
  T *y = (T *)p.at[1] + row.index * args.context;
  const bool aligned = is_aligned(x), y_aligned = is_aligned(y);
  const real scale = real(args.scale);
  // The maximum first: a second reading finds the row in the cache.
  real max = -infinity<real>();
  for_each_vector<N>(len, row.lane, args.per_row, [&](u32 at, u32 n) {
    const Pack<T, N> pack = read<T, N>(x + at, n, aligned);
#pragma unroll
    for (u32 k = 0; k < N; k++)
      if (k < n && load(pack.x[k]) > max) max = load(pack.x[k]);
  });
#pragma unroll
  for (u32 mask = WARP / 2; mask > 0; mask /= 2) {
    const real other = shuffled(max, mask);
    max = other > max ? other : max;
  }
  if (args.per_row == THREADS) {
    __shared__ real of_warps[THREADS / WARP];
    if (thread % WARP == 0) of_warps[thread / WARP] = max;
    BARRIER();
    for (u32 k = 0; k < THREADS / WARP; k++) max = of_warps[k] > max ? of_warps[k] : max;
    BARRIER();
  }
  real sum = real(0);
  for_each_vector<N>(len, row.lane, args.per_row, [&](u32 at, u32 n) {
    const Pack<T, N> pack = read<T, N>(x + at, n, aligned);
#pragma unroll
    for (u32 k = 0; k < N; k++)
      if (k < n) sum += exp((load(pack.x[k]) - max) * scale);
  });
  sum = sum_of_row(sum, args.per_row, thread);
  if (!row.is_real) return;
  const real factor = real(1) / sum;
  for_each_vector<N>(args.context, row.lane, args.per_row, [&](u32 at, u32 n) {
    Pack<T, N> pack = read<T, N>(x + at, n, aligned);
#pragma unroll
    for (u32 k = 0; k < N; k++)
      put(&pack.x[k], at + k < len ? exp((load(pack.x[k]) - max) * scale) * factor : real(0));
    write<T, N>(y + at, pack, n, y_aligned);
  });
}
KERNELS(causal_softmax)

// probabilities, the same with a minus sign where they are dropped, and what is kept of them. The random numbers of a square
// are its own stream's, and go row by row up to the diagonal: a thread takes a block of them.
template <typename T> RULE_FUNCTION void causal_dropout(Pointers p, Args args, u32 block, u32 thread) {
  typedef typename Real<T>::type real;
  const Row row = row_of(block, thread, args.per_row, args.rows);
  if (!row.is_real) return;
  const u64 i = row.index % args.context, stream = row.index / args.context, start = i * (i + 1) / 2, end = start + i + 1;
  const T *x = (const T *)p.at[0] + row.index * args.context;
  T *marked = (T *)p.at[1] + row.index * args.context, *kept = (T *)p.at[2] + row.index * args.context;
  for (u64 counter = start / WORDS + row.lane; counter * WORDS < end; counter += args.per_row) {
    const Words words = words_at(args.key, counter, stream);
#pragma unroll
    for (u32 k = 0; k < WORDS; k++) {
      const u64 number = counter * WORDS + k;
      if (number < start || number >= end) continue;
      const real probability = load(x[number - start]);
      const bool stays = words.x[k] >= args.dropped;
      put(marked + (number - start), stays ? probability : -probability);
      put(kept + (number - start), stays ? probability * real(args.dropout_scale) : real(0));
    }
  }
  for (u64 at = i + 1 + row.lane; at < args.context; at += args.per_row) {
    put(marked + at, real(0));
    put(kept + at, real(0));
  }
}
KERNELS(causal_dropout)

// probabilities p, the gradient u by what is kept of them, the gradient by the logits:
// `s_j = scale p_j (u_j - sum_k p_k u_k)`, where the u of what is dropped counts as 0.
template <typename T> RULE_FUNCTION void causal_softmax_backward(Pointers p, Args args, u32 block, u32 thread) {
  typedef typename Real<T>::type real;
  enum { N = Vector<T>::N };
  const Row row = row_of(block, thread, args.per_row, args.rows);
  const u32 len = u32(row.index % args.context) + 1;
  const u64 start = row.index * args.context;
  const T *x = (const T *)p.at[0] + start, *u = (const T *)p.at[1] + start;
  T *s = (T *)p.at[2] + start;
  const bool x_aligned = is_aligned(x), u_aligned = is_aligned(u), s_aligned = is_aligned(s);
  const real dropout_scale = real(args.dropout_scale), scale = real(args.scale);
  real sum = real(0);
  for_each_vector<N>(len, row.lane, args.per_row, [&](u32 at, u32 n) {
    const Pack<T, N> a = read<T, N>(x + at, n, x_aligned), b = read<T, N>(u + at, n, u_aligned);
#pragma unroll
    for (u32 k = 0; k < N; k++) {
      const real probability = load(a.x[k]);
      if (k < n && !(probability < real(0))) sum += probability * (load(b.x[k]) * dropout_scale);
    }
  });
  sum = sum_of_row(sum, args.per_row, thread);
  if (!row.is_real) return;
  for_each_vector<N>(args.context, row.lane, args.per_row, [&](u32 at, u32 n) {
    const Pack<T, N> a = read<T, N>(x + at, n, x_aligned);
    Pack<T, N> b = read<T, N>(u + at, n, u_aligned);
#pragma unroll
    for (u32 k = 0; k < N; k++) {
      const real probability = load(a.x[k]), by = probability < real(0) ? real(0) : load(b.x[k]) * dropout_scale;
      const real size = probability < real(0) ? -probability : probability;
      put(&b.x[k], at + k < len ? size * (by - sum) * scale : real(0));
    }
    write<T, N>(s + at, b, n, s_aligned);
  });
}
KERNELS(causal_softmax_backward)
