// The windows of images as columns of a matrix, and back. A section is the channels of a group in an image.
#include "ops/launch.h"

struct Args {
  u32 images, groups, channels;
  u32 height, width, out_height, out_width;
  u32 kernel_height, kernel_width, stride, padding, dilation;
  // Whether the columns of all images lie side by side: (groups, c kh kw, images, pixels), else (images, groups, c kh kw, pixels).
  u32 side_by_side, unused;
};

// x, columns: a thread per window of a channel.
template <typename T> RULE_FUNCTION void im2col(Pointers p, Args args, u32 block, u32 thread) {
  const u32 pixels = args.out_height * args.out_width, taps = args.kernel_height * args.kernel_width;
  const u64 at = u64(block) * THREADS + thread;
  if (at >= u64(args.images) * args.groups * args.channels * pixels) return;
  // The channel of all there are; the host sees to it that it and the pixels are 32-bit numbers.
  const u32 plane = u32(at / pixels), pixel = u32(at % pixels);
  const u32 all_channels = args.groups * args.channels, image = plane / all_channels, channel = plane % all_channels;
  const T *x = (const T *)p.at[0] + u64(plane) * args.height * args.width;
  T *column = (T *)p.at[1];
  u64 step = pixels;
  if (args.side_by_side) {
    step *= args.images;
    column += u64(channel) * taps * step + u64(image) * pixels + pixel;
  } else {
    column += u64(plane) * taps * step + pixel;
  }
  // Wraps around below 0.
  const u32 top = pixel / args.out_width * args.stride - args.padding;
  const u32 left = pixel % args.out_width * args.stride - args.padding;
  for (u32 a = 0; a < args.kernel_height; a++) {
    const u32 row = top + a * args.dilation;
    for (u32 b = 0; b < args.kernel_width; b++) {
      const u32 col = left + b * args.dilation;
      T value{};
      if (row < args.height && col < args.width) value = x[row * args.width + col];
      *column = value;
      column += step;
    }
  }
}
KERNELS(im2col)

// columns (images, groups, c kh kw, pixels), dx: a thread per pixel adds up what its windows have for it.
template <typename T> RULE_FUNCTION void col2im(Pointers p, Args args, u32 block, u32 thread) {
  typedef typename Real<T>::type real;
  const u32 pixels = args.height * args.width, out_pixels = args.out_height * args.out_width;
  const u64 at = u64(block) * THREADS + thread;
  if (at >= u64(args.images) * args.groups * args.channels * pixels) return;
  const u32 plane = u32(at / pixels), pixel = u32(at % pixels);
  const T *columns = (const T *)p.at[0] + u64(plane) * args.kernel_height * args.kernel_width * out_pixels;
  const u32 bottom = pixel / args.width + args.padding, right = pixel % args.width + args.padding;
  real sum = real(0);
  for (u32 a = 0; a < args.kernel_height; a++) {
    const u32 row = bottom - a * args.dilation, i = row / args.stride;
    // Above 0, since it wraps around below.
    const bool is_row = row <= bottom && row % args.stride == 0 && i < args.out_height;
    for (u32 b = 0; b < args.kernel_width; b++, columns += out_pixels) {
      const u32 col = right - b * args.dilation, j = col / args.stride;
      if (is_row && col <= right && col % args.stride == 0 && j < args.out_width) sum += load(columns[i * args.out_width + j]);
    }
  }
  put((T *)p.at[1] + at, sum);
}
KERNELS(col2im)
