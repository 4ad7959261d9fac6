// Maps of elements: a vector of each tensor per thread.
#include "ops/launch.h"

struct Args {
  u64 len;
};

template <typename T, typename F> RULE_FUNCTION void map(Pointers p, Args args, u32 block, u32 thread, F f) {
  enum { N = Vector<T>::N };
  const u64 at = (u64(block) * THREADS + thread) * N;
  if (at >= args.len) return;
  const u32 n = u32(smaller(args.len - at, u64(N)));
  const T *x = (const T *)p.at[0] + at;
  T *y = (T *)p.at[1] + at;
  const Pack<T, N> in = read<T, N>(x, n, is_aligned(x));
  Pack<T, N> out;
#pragma unroll
  for (u32 k = 0; k < N; k++) put(&out.x[k], f(load(in.x[k])));
  write<T, N>(y, out, n, is_aligned(y));
}

template <typename T, typename F> RULE_FUNCTION void zip(Pointers p, Args args, u32 block, u32 thread, F f) {
  enum { N = Vector<T>::N };
  const u64 at = (u64(block) * THREADS + thread) * N;
  if (at >= args.len) return;
  const u32 n = u32(smaller(args.len - at, u64(N)));
  const T *a = (const T *)p.at[0] + at, *b = (const T *)p.at[1] + at;
  T *y = (T *)p.at[2] + at;
  const Pack<T, N> left = read<T, N>(a, n, is_aligned(a)), right = read<T, N>(b, n, is_aligned(b));
  Pack<T, N> out;
#pragma unroll
  for (u32 k = 0; k < N; k++) put(&out.x[k], f(load(left.x[k]), load(right.x[k])));
  write<T, N>(y, out, n, is_aligned(y));
}

template <typename T> RULE_FUNCTION void relu(Pointers p, Args args, u32 block, u32 thread) {
  typedef typename Real<T>::type real;
  map<T>(p, args, block, thread, [](real x) { return rectified(x); });
}
KERNELS(relu)

// y, dy, dx.
template <typename T> RULE_FUNCTION void relu_backward(Pointers p, Args args, u32 block, u32 thread) {
  typedef typename Real<T>::type real;
  zip<T>(p, args, block, thread, [](real y, real dy) { return y <= real(0) ? real(0) : dy; });
}
KERNELS(relu_backward)

template <typename T> RULE_FUNCTION void add_relu(Pointers p, Args args, u32 block, u32 thread) {
  typedef typename Real<T>::type real;
  zip<T>(p, args, block, thread, [](real a, real b) { return rectified(a + b); });
}
KERNELS(add_relu)

// The distribution function of the standard normal: by erfc, which keeps its digits where it is small.
template <typename real> RULE_FUNCTION real distribution(real x) { return real(0.5) * erfc(x * real(-0.70710678118654752)); }

template <typename T> RULE_FUNCTION void gelu(Pointers p, Args args, u32 block, u32 thread) {
  typedef typename Real<T>::type real;
  map<T>(p, args, block, thread, [](real x) { return x * distribution(x); });
}
KERNELS(gelu)

// x, dy, dx.
template <typename T> RULE_FUNCTION void gelu_backward(Pointers p, Args args, u32 block, u32 thread) {
  typedef typename Real<T>::type real;
  zip<T>(p, args, block, thread, [](real x, real dy) {
    const real density = exp(real(-0.5) * x * x) * real(0.39894228040143268);
    return dy * (distribution(x) + x * density);
  });
}
KERNELS(gelu_backward)
