// Maxima and means of windows, a thread per element that is written: the gradient of a pixel is gathered from the windows
// that it is in, in their order.
//
// Loops that are not unrolled leave the registers to more threads.
#include "ops/launch.h"

struct Args {
  // Elements of the images and of the output.
  u32 len, out_len;
  u32 height, width, out_height, out_width;
  u32 kernel_height, kernel_width, stride, padding;
  // Whether padding counts in a mean.
  u32 count_padding, unused;
};

struct Span {
  u32 start, end;
};
// The pixels of a row or column in window i.
RULE_FUNCTION Span pixels_of(u32 i, u32 kernel, u32 size, Args args) {
  const u32 start = i * args.stride;
  return Span{start > args.padding ? start - args.padding : 0, smaller(start + kernel - args.padding, size)};
}
// The windows of a row or column that pixel k is in.
RULE_FUNCTION Span windows_of(u32 k, u32 kernel, u32 out, Args args) {
  const u32 place = k + args.padding;
  const u32 start = place >= kernel ? (place - kernel) / args.stride + 1 : 0;
  return Span{start, smaller(place / args.stride + 1, out)};
}

template <typename real> RULE_FUNCTION bool is_larger(real x, real best) { return x > best || x != x; }

// The pixel of a plane that is the maximum of a window: the first of several, and the last NaN.
template <typename T, typename real> RULE_FUNCTION u32 best_of(const T *plane, Span rows, Span columns, u32 width, real *best) {
  u32 pixel = rows.start * width + columns.start;
  *best = -infinity<real>();
  for (u32 row = rows.start; row < rows.end; row++) {
#pragma unroll 1
    for (u32 column = columns.start; column < columns.end; column++) {
      const real x = load(plane[row * width + column]);
      if (!is_larger(x, *best)) continue;
      *best = x;
      pixel = row * width + column;
    }
  }
  return pixel;
}

// x, y.
template <typename T> RULE_FUNCTION void max_pool2d(Pointers p, Args args, u32 block, u32 thread) {
  typedef typename Real<T>::type real;
  const u64 at = u64(block) * THREADS + thread;
  if (at >= args.out_len) return;
  const u32 column = u32(at) % args.out_width, rest = u32(at) / args.out_width;
  const u32 row = rest % args.out_height, plane = rest / args.out_height;
  const T *x = (const T *)p.at[0] + u64(plane) * args.height * args.width;
  real best;
  best_of(x, pixels_of(row, args.kernel_height, args.height, args),
          pixels_of(column, args.kernel_width, args.width, args), args.width, &best);
  put((T *)p.at[1] + at, best);
}
KERNELS(max_pool2d)

// x, dy, dx. The maxima are found again: windows are small and in the cache.
template <typename T> RULE_FUNCTION void max_pool2d_backward(Pointers p, Args args, u32 block, u32 thread) {
  typedef typename Real<T>::type real;
  const u64 at = u64(block) * THREADS + thread;
  if (at >= args.len) return;
  const u32 column = u32(at) % args.width, rest = u32(at) / args.width;
  const u32 row = rest % args.height, plane = rest / args.height, pixel = row * args.width + column;
  const T *x = (const T *)p.at[0] + u64(plane) * args.height * args.width;
  const T *dy = (const T *)p.at[1] + u64(plane) * args.out_height * args.out_width;
  const Span rows = windows_of(row, args.kernel_height, args.out_height, args);
  const Span columns = windows_of(column, args.kernel_width, args.out_width, args);
  real sum = real(0);
  for (u32 i = rows.start; i < rows.end; i++) {
    for (u32 j = columns.start; j < columns.end; j++) {
      real best;
      const u32 found = best_of(x, pixels_of(i, args.kernel_height, args.height, args),
                                pixels_of(j, args.kernel_width, args.width, args), args.width, &best);
      if (found == pixel) sum += load(dy[i * args.out_width + j]);
    }
  }
  put((T *)p.at[2] + at, sum);
}
KERNELS(max_pool2d_backward)

// Pixels that the mean of a window is over.
RULE_FUNCTION u32 count_of(Span rows, Span columns, Args args) {
  return args.count_padding ? args.kernel_height * args.kernel_width
                            : (rows.end - rows.start) * (columns.end - columns.start);
}

// x, y.
template <typename T> RULE_FUNCTION void avg_pool2d(Pointers p, Args args, u32 block, u32 thread) {
  typedef typename Real<T>::type real;
  const u64 at = u64(block) * THREADS + thread;
  if (at >= args.out_len) return;
  const u32 rest = u32(at) / args.out_width, plane = rest / args.out_height;
  const Span columns = pixels_of(u32(at) % args.out_width, args.kernel_width, args.width, args);
  const Span rows = pixels_of(rest % args.out_height, args.kernel_height, args.height, args);
  const T *x = (const T *)p.at[0] + u64(plane) * args.height * args.width;
  real sum = real(0);
  for (u32 row = rows.start; row < rows.end; row++)
    for (u32 column = columns.start; column < columns.end; column++) sum += load(x[row * args.width + column]);
  put((T *)p.at[1] + at, sum / real(count_of(rows, columns, args)));
}
KERNELS(avg_pool2d)

// dy, dx.
template <typename T> RULE_FUNCTION void avg_pool2d_backward(Pointers p, Args args, u32 block, u32 thread) {
  typedef typename Real<T>::type real;
  const u64 at = u64(block) * THREADS + thread;
  if (at >= args.len) return;
  const u32 rest = u32(at) / args.width, plane = rest / args.height;
  const T *dy = (const T *)p.at[0] + u64(plane) * args.out_height * args.out_width;
  const Span rows = windows_of(rest % args.height, args.kernel_height, args.out_height, args);
  const Span columns = windows_of(u32(at) % args.width, args.kernel_width, args.out_width, args);
  real sum = real(0);
  for (u32 i = rows.start; i < rows.end; i++) {
    const Span window_rows = pixels_of(i, args.kernel_height, args.height, args);
#pragma unroll 1
    for (u32 j = columns.start; j < columns.end; j++) {
      const Span window_columns = pixels_of(j, args.kernel_width, args.width, args);
      sum += load(dy[i * args.out_width + j]) / real(count_of(window_rows, window_columns, args));
    }
  }
  put((T *)p.at[1] + at, sum);
}
KERNELS(avg_pool2d_backward)
