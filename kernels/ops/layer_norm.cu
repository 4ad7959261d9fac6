// Layer norm and RMS norm of rows, a warp or a block per row.
#include "ops/launch.h"

struct Args {
  u64 rows;
  double eps;
  u32 width, per_row;
  // For the weight's gradient: into how many parts of how many rows it is split.
  u32 parts, rows_per_part;
};

template <typename real> RULE_FUNCTION real inverse_root(real x) { return real(1) / sqrt(x); }

// The mean of a row (0 without centring), and one over the root of the mean square around it.
template <bool CENTRED, typename T, typename real>
RULE_FUNCTION Pair<real> moments(const T *x, bool aligned, Args args, u32 lane, u32 thread) {
  enum { N = Vector<T>::N };
  const real width = real(args.width);
  real mean = real(0), squares = real(0);
  if (CENTRED) {
    for_each_vector<N>(args.width, lane, args.per_row, [&](u32 at, u32 n) {
      const Pack<T, N> pack = read<T, N>(x + at, n, aligned);
#pragma unroll
      for (u32 k = 0; k < N; k++)
        if (k < n) mean += load(pack.x[k]);
    });
    mean = sum_of_row(mean, args.per_row, thread) / width;
  }
  for_each_vector<N>(args.width, lane, args.per_row, [&](u32 at, u32 n) {
    const Pack<T, N> pack = read<T, N>(x + at, n, aligned);
#pragma unroll
    for (u32 k = 0; k < N; k++)
      if (k < n) squares += (load(pack.x[k]) - mean) * (load(pack.x[k]) - mean);
  });
  squares = sum_of_row(squares, args.per_row, thread) / width;
  return Pair<real>{mean, inverse_root(squares + real(args.eps))};
}

// x, weight, y, and of each row what the gradient needs: its mean and scale.
template <bool CENTRED, typename T> RULE_FUNCTION void forward(Pointers p, Args args, u32 block, u32 thread) {
  typedef typename Real<T>::type real;
  enum { N = Vector<T>::N };
  const Row row = row_of(block, thread, args.per_row, args.rows);
  const T *x = (const T *)p.at[0] + row.index * args.width, *weight = (const T *)p.at[1];
  T *y = (T *)p.at[2] + row.index * args.width;
  const bool aligned = is_aligned(x);
  const Pair<real> m = moments<CENTRED, T, real>(x, aligned, args, row.lane, thread);
  if (!row.is_real) return;
  if (row.lane == 0) ((Pair<real> *)p.at[3])[row.index] = m;
  const bool weight_aligned = is_aligned(weight), y_aligned = is_aligned(y);
  for_each_vector<N>(args.width, row.lane, args.per_row, [&](u32 at, u32 n) {
    Pack<T, N> pack = read<T, N>(x + at, n, aligned);
    const Pack<T, N> w = read<T, N>(weight + at, n, weight_aligned);
#pragma unroll
    for (u32 k = 0; k < N; k++) put(&pack.x[k], (load(pack.x[k]) - m.a) * m.b * load(w.x[k]));
    write<T, N>(y + at, pack, n, y_aligned);
  });
}

// x, weight, mean and scale, dy, dx: with the normalised row z and u = dy weight, dx = scale (u - mean(u) - z mean(u z)),
// without mean(u) where the row is not centred.
template <bool CENTRED, typename T> RULE_FUNCTION void backward(Pointers p, Args args, u32 block, u32 thread) {
  typedef typename Real<T>::type real;
  enum { N = Vector<T>::N };
  const Row row = row_of(block, thread, args.per_row, args.rows);
  const u64 start = row.index * args.width;
  const T *x = (const T *)p.at[0] + start, *weight = (const T *)p.at[1], *dy = (const T *)p.at[3] + start;
  T *dx = (T *)p.at[4] + start;
  const Pair<real> m = ((const Pair<real> *)p.at[2])[row.index];
  const bool x_aligned = is_aligned(x), weight_aligned = is_aligned(weight), dy_aligned = is_aligned(dy);
  Pair<real> sums{real(0), real(0)};
  for_each_vector<N>(args.width, row.lane, args.per_row, [&](u32 at, u32 n) {
    const Pack<T, N> a = read<T, N>(x + at, n, x_aligned), w = read<T, N>(weight + at, n, weight_aligned);
    const Pack<T, N> b = read<T, N>(dy + at, n, dy_aligned);
#pragma unroll
    for (u32 k = 0; k < N; k++) {
      if (k >= n) continue;
      const real u = load(b.x[k]) * load(w.x[k]);
      sums.a += u;
      sums.b += u * ((load(a.x[k]) - m.a) * m.b);
    }
  });
  sums = sum_of_row(sums, args.per_row, thread);
  if (!row.is_real) return;
  const real width = real(args.width), mean_u = CENTRED ? sums.a / width : real(0), mean_uz = sums.b / width;
  const bool dx_aligned = is_aligned(dx);
  for_each_vector<N>(args.width, row.lane, args.per_row, [&](u32 at, u32 n) {
    const Pack<T, N> a = read<T, N>(x + at, n, x_aligned), w = read<T, N>(weight + at, n, weight_aligned);
    Pack<T, N> b = read<T, N>(dy + at, n, dy_aligned);
#pragma unroll
    for (u32 k = 0; k < N; k++) {
      const real u = load(b.x[k]) * load(w.x[k]), z = (load(a.x[k]) - m.a) * m.b;
      put(&b.x[k], m.b * (u - mean_u - z * mean_uz));
    }
    write<T, N>(dx + at, b, n, dx_aligned);
  });
}

template <typename T> RULE_FUNCTION void layer_norm(Pointers p, Args args, u32 block, u32 thread) {
  forward<true, T>(p, args, block, thread);
}
KERNELS(layer_norm)
template <typename T> RULE_FUNCTION void rms_norm(Pointers p, Args args, u32 block, u32 thread) {
  forward<false, T>(p, args, block, thread);
}
KERNELS(rms_norm)
template <typename T> RULE_FUNCTION void layer_norm_backward(Pointers p, Args args, u32 block, u32 thread) {
  backward<true, T>(p, args, block, thread);
}
KERNELS(layer_norm_backward)
template <typename T> RULE_FUNCTION void rms_norm_backward(Pointers p, Args args, u32 block, u32 thread) {
  backward<false, T>(p, args, block, thread);
}
KERNELS(rms_norm_backward)

// x, mean and scale, dy, and the sums of dy z over the rows of each part: a block per part and WARP columns, whose warps
// take every eighth row.
template <typename T> RULE_FUNCTION void weight_parts(Pointers p, Args args, u32 block, u32 thread) {
  typedef typename Real<T>::type real;
  enum { WARPS = THREADS / WARP };
  __shared__ real shared[WARPS][WARP];
  const u32 part = block % args.parts, column = block / args.parts * WARP + thread % WARP;
  const T *x = (const T *)p.at[0], *dy = (const T *)p.at[2];
  const Pair<real> *kept = (const Pair<real> *)p.at[1];
  const u64 start = u64(part) * args.rows_per_part, end = smaller(start + args.rows_per_part, args.rows);
  real sum = real(0);
  if (column < args.width) {
    for (u64 row = start + thread / WARP; row < end; row += WARPS) {
      const Pair<real> m = kept[row];
      sum += load(dy[row * args.width + column]) * ((load(x[row * args.width + column]) - m.a) * m.b);
    }
  }
  shared[thread / WARP][thread % WARP] = sum;
  BARRIER();
  if (thread >= WARP || column >= args.width) return;
  for (u32 k = 1; k < WARPS; k++) sum += shared[k][thread];
  ((real *)p.at[3])[u64(part) * args.width + column] = sum;
}
KERNELS(weight_parts)

// The sums of the parts, the weight's gradient: a thread per column.
template <typename T> RULE_FUNCTION void weight_gradient(Pointers p, Args args, u32 block, u32 thread) {
  typedef typename Real<T>::type real;
  const u32 column = block * THREADS + thread;
  if (column >= args.width) return;
  real sum = real(0);
  for (u32 part = 0; part < args.parts; part++) sum += ((const real *)p.at[0])[u64(part) * args.width + column];
  put((T *)p.at[1] + column, sum);
}
KERNELS(weight_gradient)
