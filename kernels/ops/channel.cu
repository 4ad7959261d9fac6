// Passes over the channels of images (n, c, h, w): batch norm, scale and shift. A channel is split into chunks, a block
// each, so that few channels fill a GPU too; what the chunks sum is added up in their order by a block per channel.
#include "ops/launch.h"

struct Args {
  // Elements of a channel: images times pixels.
  u64 len;
  double eps;
  u32 channels, pixels;
  // Chunks of a channel, and elements of each but the last.
  u32 chunks, chunk;
  u32 relu, unused;
};

template <u32 N> struct Count {
  enum { value = N };
};
template <u32 N, typename F> RULE_FUNCTION void for_each_run_of(Args args, u32 block, u32 thread, F f) {
  const u64 start = u64(block % args.chunks) * args.chunk, end = smaller(start + args.chunk, args.len);
  const u32 first = u32(start % args.pixels), len = u32(end - start);
  const u64 step = u64(args.channels) * args.pixels;
  const u64 plane = start / args.pixels * step + u64(block / args.chunks) * args.pixels;
  for (u32 at = thread * N; at < len; at += THREADS * N) {
    const u32 place = first + at;
    f(plane + place / args.pixels * step + place % args.pixels, Count<N>());
  }
}
// Calls `f(element, count)` for the runs of a thread in the chunk of a block: `count` elements of a plane, from `element` of
// the images on. They are vectors where a plane is a whole number of them.
template <u32 N, typename F> RULE_FUNCTION void for_each_run(Args args, u32 block, u32 thread, F f) {
  if (args.pixels % N == 0) for_each_run_of<N>(args, block, thread, f);
  else for_each_run_of<1>(args, block, thread, f);
}
#define VECTOR(count) enum { M = decltype(count)::value }
// A run of a tensor.
template <u32 N, typename T> RULE_FUNCTION Pack<T, N> run_of(const T *at, bool aligned) {
  return read<T, N>(at, N, aligned && N > 1);
}
template <u32 N, typename T> RULE_FUNCTION void set_run(T *at, Pack<T, N> pack, bool aligned) {
  write<T, N>(at, pack, N, aligned && N > 1);
}

// ---- statistics ----

// How many numbers, their mean, and the sum of the squared distances from it.
template <typename real> struct Moments {
  real count, mean, squares;
};
// Of both together (Chan, Golub & LeVeque 1979).
template <typename real> RULE_FUNCTION Moments<real> plus(Moments<real> a, Moments<real> b) {
  if (a.count == real(0)) return b;
  if (b.count == real(0)) return a;
  const real count = a.count + b.count, distance = b.mean - a.mean, share = b.count / count;
  return Moments<real>{count, a.mean + distance * share, a.squares + b.squares + distance * distance * a.count * share};
}
template <typename real> RULE_FUNCTION Moments<real> shuffled(Moments<real> x, u32 mask) {
  return Moments<real>{shuffled(x.count, mask), shuffled(x.mean, mask), shuffled(x.squares, mask)};
}

// x, and the moments of each chunk: its mean first, so that a mean far from 0 does not cancel the squares.
template <typename T> RULE_FUNCTION void moments(Pointers p, Args args, u32 block, u32 thread) {
  typedef typename Real<T>::type real;
  enum { N = Vector<T>::N };
  const T *x = (const T *)p.at[0];
  const bool aligned = is_aligned(x);
  const u64 start = u64(block % args.chunks) * args.chunk;
  const real len = real(smaller(u64(args.chunk), args.len - start));
  real sum = real(0), squares = real(0);
  for_each_run<N>(args, block, thread, [&](u64 at, auto count) {
    VECTOR(count);
    const Pack<T, M> pack = run_of<M>(x + at, aligned);
#pragma unroll
    for (u32 k = 0; k < M; k++)
      sum += load(pack.x[k]);
  });
  const real mean = sum_of_row(sum, THREADS, thread) / len;
  for_each_run<N>(args, block, thread, [&](u64 at, auto count) {
    VECTOR(count);
    const Pack<T, M> pack = run_of<M>(x + at, aligned);
#pragma unroll
    for (u32 k = 0; k < M; k++)
      squares += (load(pack.x[k]) - mean) * (load(pack.x[k]) - mean);
  });
  squares = sum_of_row(squares, THREADS, thread);
  if (thread == 0) ((Moments<real> *)p.at[1])[block] = Moments<real>{len, mean, squares};
}
KERNELS(moments)

// The moments of the chunks; the channel's mean and one over its deviation; its mean and variance for the caller.
template <typename T> RULE_FUNCTION void statistics(Pointers p, Args args, u32 block, u32 thread) {
  typedef typename Real<T>::type real;
  const Moments<real> *parts = (const Moments<real> *)p.at[0] + u64(block) * args.chunks;
  Moments<real> all{real(0), real(0), real(0)};
  for (u32 k = thread; k < args.chunks; k += THREADS) all = plus(all, parts[k]);
  all = sum_of_row(all, THREADS, thread);
  if (thread != 0) return;
  const real variance = rectified(all.squares / all.count);
  ((Pair<real> *)p.at[1])[block] = Pair<real>{all.mean, real(1) / sqrt(variance + real(args.eps))};
  ((real *)p.at[2])[block] = all.mean;
  ((real *)p.at[3])[block] = variance;
}
KERNELS(statistics)

// ---- maps ----

// `(x - centre) scale + shift` of a channel: of batch norm with its mean and inverse deviation, else of a scale, 1 where
// there is none.
template <typename real> struct Affine {
  real centre, inverse, scale, shift;
};
template <typename T, typename real>
RULE_FUNCTION Affine<real> affine_of(const u8 *kept, const u8 *weight, const u8 *bias, u32 channel) {
  Affine<real> a{real(0), real(1), real(1), real(load(((const T *)bias)[channel]))};
  if (kept) {
    const Pair<real> statistics = ((const Pair<real> *)kept)[channel];
    a.centre = statistics.a;
    a.inverse = statistics.b;
  }
  a.scale = weight ? real(load(((const T *)weight)[channel])) * a.inverse : a.inverse;
  return a;
}

// x, mean and inverse deviation, weight, bias, residual, y.
template <typename T> RULE_FUNCTION void normalize(Pointers p, Args args, u32 block, u32 thread) {
  typedef typename Real<T>::type real;
  enum { N = Vector<T>::N };
  const T *x = (const T *)p.at[0], *residual = (const T *)p.at[4];
  T *y = (T *)p.at[5];
  const Affine<real> a = affine_of<T, real>(p.at[1], p.at[2], p.at[3], block / args.chunks);
  const bool aligned = is_aligned(x) && is_aligned(y) && is_aligned(residual), relu = args.relu;
  for_each_run<N>(args, block, thread, [&](u64 at, auto count) {
    VECTOR(count);
    Pack<T, M> pack = run_of<M>(x + at, aligned), add;
    if (residual) add = run_of<M>(residual + at, aligned);
#pragma unroll
    for (u32 k = 0; k < M; k++) {
      real value = (load(pack.x[k]) - a.centre) * a.scale + a.shift;
      if (residual) value += load(add.x[k]);
      put(&pack.x[k], relu ? rectified(value) : value);
    }
    set_run<M>(y + at, pack, aligned);
  });
}
KERNELS(normalize)

// The gradient that passes the rectifier: none at 0, and NaN does not stop it. It is where y is positive, and where y is
// not given what y is made of is at hand.
template <typename real> RULE_FUNCTION real passed(real value, real dy, bool relu) {
  return relu && value <= real(0) ? real(0) : dy;
}

// x, mean and inverse deviation, weight, bias, y, dy, and of each chunk the sums of g and of g (x - centre), where g is what
// passes of dy. Without x the second is 0.
template <typename T> RULE_FUNCTION void gradient_parts(Pointers p, Args args, u32 block, u32 thread) {
  typedef typename Real<T>::type real;
  enum { N = Vector<T>::N };
  const T *x = (const T *)p.at[0], *y = (const T *)p.at[4], *dy = (const T *)p.at[5];
  const Affine<real> a = affine_of<T, real>(p.at[1], p.at[2], p.at[3], block / args.chunks);
  const bool aligned = is_aligned(x) && is_aligned(y) && is_aligned(dy), relu = args.relu;
  Pair<real> sums{real(0), real(0)};
  for_each_run<N>(args, block, thread, [&](u64 at, auto count) {
    VECTOR(count);
    Pack<T, M> in, out;
    const Pack<T, M> by = run_of<M>(dy + at, aligned);
    if (x) in = run_of<M>(x + at, aligned);
    if (y) out = run_of<M>(y + at, aligned);
#pragma unroll
    for (u32 k = 0; k < M; k++) {
      const real distance = x ? real(load(in.x[k])) - a.centre : real(0);
      const real g = passed(y ? real(load(out.x[k])) : distance * a.scale + a.shift, real(load(by.x[k])), relu);
      sums.a += g;
      sums.b += g * distance;
    }
  });
  sums = sum_of_row(sums, THREADS, thread);
  if (thread == 0) ((Pair<real> *)p.at[6])[block] = sums;
}
KERNELS(gradient_parts)

// The sums of the chunks, mean and inverse deviation; the channel's sums; the gradients by weight and bias.
template <typename T> RULE_FUNCTION void gradient_sums(Pointers p, Args args, u32 block, u32 thread) {
  typedef typename Real<T>::type real;
  const Pair<real> *parts = (const Pair<real> *)p.at[0] + u64(block) * args.chunks;
  Pair<real> all{real(0), real(0)};
  for (u32 k = thread; k < args.chunks; k += THREADS) all = plus(all, parts[k]);
  all = sum_of_row(all, THREADS, thread);
  if (thread != 0) return;
  ((Pair<real> *)p.at[2])[block] = all;
  const real inverse = p.at[1] ? ((const Pair<real> *)p.at[1])[block].b : real(1);
  if (p.at[3]) put((T *)p.at[3] + block, all.b * inverse);
  put((T *)p.at[4] + block, all.a);
}
KERNELS(gradient_sums)

// x, mean and inverse deviation, weight, bias, y, dy, the channels' sums, dx, and g for the residual. Of batch norm
// `dx = scale (g - mean(g) - (x - centre) inverse^2 mean(g (x - centre)))`, else `scale g`.
template <typename T> RULE_FUNCTION void gradient(Pointers p, Args args, u32 block, u32 thread) {
  typedef typename Real<T>::type real;
  enum { N = Vector<T>::N };
  const u32 channel = block / args.chunks;
  const T *x = (const T *)p.at[0], *y = (const T *)p.at[4], *dy = (const T *)p.at[5];
  T *dx = (T *)p.at[7], *through = (T *)p.at[8];
  const Affine<real> a = affine_of<T, real>(p.at[1], p.at[2], p.at[3], channel);
  real mean = real(0), slope = real(0);
  if (p.at[1]) {
    const Pair<real> sums = ((const Pair<real> *)p.at[6])[channel];
    mean = sums.a / real(args.len);
    slope = sums.b * a.inverse * a.inverse / real(args.len);
  }
  const bool relu = args.relu;
  const bool aligned = is_aligned(x) && is_aligned(y) && is_aligned(dy) && is_aligned(dx) && is_aligned(through);
  for_each_run<N>(args, block, thread, [&](u64 at, auto count) {
    VECTOR(count);
    Pack<T, M> in, out;
    Pack<T, M> by = run_of<M>(dy + at, aligned);
    if (x) in = run_of<M>(x + at, aligned);
    if (y) out = run_of<M>(y + at, aligned);
#pragma unroll
    for (u32 k = 0; k < M; k++) {
      const real distance = x ? real(load(in.x[k])) - a.centre : real(0);
      const real g = passed(y ? real(load(out.x[k])) : distance * a.scale + a.shift, real(load(by.x[k])), relu);
      put(&by.x[k], g);
      put(&in.x[k], a.scale * (g - mean - distance * slope));
    }
    if (through) set_run<M>(through + at, by, aligned);
    if (dx) set_run<M>(dx + at, in, aligned);
  });
}
KERNELS(gradient)
