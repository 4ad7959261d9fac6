// The cross-entropy of rows of logits, a warp or a block per row, which reads it once.
#include "ops/launch.h"

struct Args {
  u64 rows;
  double smoothing;
  u32 classes, per_row;
};

// The maximum and the sum of the exponentials of what is below it.
template <typename real> struct Exponentials {
  real max, sum;
};
// e^(x - max) of an x that is not above. The maximum itself, -infinity too, gives 1; NaN gives NaN.
template <typename real> RULE_FUNCTION real exponential(real x, real max) { return x == max ? real(1) : exp(x - max); }
template <typename real> RULE_FUNCTION Exponentials<real> plus(Exponentials<real> a, Exponentials<real> b) {
  const real max = b.max > a.max ? b.max : a.max;
  return Exponentials<real>{max, a.sum * exponential(a.max, max) + b.sum * exponential(b.max, max)};
}
template <typename real> RULE_FUNCTION Exponentials<real> shuffled(Exponentials<real> x, u32 mask) {
  return Exponentials<real>{shuffled(x.max, mask), shuffled(x.sum, mask)};
}

// logits, labels, the loss of each row, and its maximum and sum for the gradient. A label that is no class gives NaN.
template <typename T> RULE_FUNCTION void cross_entropy(Pointers p, Args args, u32 block, u32 thread) {
  typedef typename Real<T>::type real;
  enum { N = Vector<T>::N };
  const Row row = row_of(block, thread, args.per_row, args.rows);
  const T *x = (const T *)p.at[0] + row.index * args.classes;
  const u32 label = ((const u32 *)p.at[1])[row.index];
  real *loss = (real *)p.at[2], *kept = (real *)p.at[3];
  const bool aligned = is_aligned(x);
  Exponentials<real> all{-infinity<real>(), real(0)};
  real sum = real(0);
  for_each_vector<N>(args.classes, row.lane, args.per_row, [&](u32 at, u32 n) {
    const Pack<T, N> pack = read<T, N>(x + at, n, aligned);
    real max = all.max;
#pragma unroll
    for (u32 k = 0; k < N; k++)
      if (k < n && load(pack.x[k]) > max) max = load(pack.x[k]);
    all.sum *= exponential(all.max, max);
    all.max = max;
#pragma unroll
    for (u32 k = 0; k < N; k++) {
      if (k >= n) continue;
      all.sum += exponential(real(load(pack.x[k])), max);
      sum += load(pack.x[k]);
    }
  });
  all = sum_of_row(all, args.per_row, thread);
  sum = sum_of_row(sum, args.per_row, thread);
  if (!row.is_real || row.lane != 0) return;
  // The difference of infinities.
  if (all.max == infinity<real>()) all.sum = not_a_number<real>();
  real target = label < args.classes ? load(x[label]) - all.max : not_a_number<real>();
  const real smoothing = real(args.smoothing);
  // The mean may be -infinity, whose product with 0 is no number.
  if (smoothing != real(0)) target = (real(1) - smoothing) * target + smoothing * (sum / real(args.classes) - all.max);
  loss[row.index] = log(all.sum) - target;
  kept[2 * row.index] = all.max;
  kept[2 * row.index + 1] = all.sum;
}
KERNELS(cross_entropy)

// The losses of the rows, their mean. One block.
template <typename T> RULE_FUNCTION void cross_entropy_mean(Pointers p, Args args, u32, u32 thread) {
  typedef typename Real<T>::type real;
  const real *loss = (const real *)p.at[0];
  real sum = real(0);
  for (u64 k = thread; k < args.rows; k += THREADS) sum += loss[k];
  sum = sum_of_row(sum, THREADS, thread);
  if (thread == 0) put((T *)p.at[1], sum / real(args.rows));
}
KERNELS(cross_entropy_mean)

// logits, labels, what the forward pass kept, the gradient by the loss, dx.
template <typename T> RULE_FUNCTION void cross_entropy_backward(Pointers p, Args args, u32 block, u32 thread) {
  typedef typename Real<T>::type real;
  enum { N = Vector<T>::N };
  const Row row = row_of(block, thread, args.per_row, args.rows);
  if (!row.is_real) return;
  const T *x = (const T *)p.at[0] + row.index * args.classes;
  const u32 label = ((const u32 *)p.at[1])[row.index];
  const real *kept = (const real *)p.at[2] + 2 * row.index;
  T *dx = (T *)p.at[4] + row.index * args.classes;
  real scale = load(*(const T *)p.at[3]) / real(args.rows);
  if (label >= args.classes) scale = not_a_number<real>();
  const real smoothing = real(args.smoothing), max = kept[0], factor = scale / kept[1];
  const real everywhere = smoothing / real(args.classes) * scale, at_label = (real(1) - smoothing) * scale;
  const bool aligned = is_aligned(x) && is_aligned(dx);
  for_each_vector<N>(args.classes, row.lane, args.per_row, [&](u32 at, u32 n) {
    Pack<T, N> pack = read<T, N>(x + at, n, aligned);
#pragma unroll
    for (u32 k = 0; k < N; k++) {
      const real by_sum = exponential(real(load(pack.x[k])), max) * factor - everywhere;
      put(&pack.x[k], at + k == label ? by_sum - at_label : by_sum);
    }
    write<T, N>(dx + at, pack, n, aligned);
  });
}
KERNELS(cross_entropy_backward)
