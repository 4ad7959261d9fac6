//! Maxima of windows.

use crate::{
    device,
    host::{Float, Reading, is_ours, slice, with_float, written},
    pool2d::{Pool2d, Pooling, zip_strided},
};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, WithDType, backend::BackendStorage};
use multiversion::multiversion;
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// The maxima over the windows of images `x` (n, c, h, w): (n, c, (h + 2 p - kh) / s + 1, (w + 2 p - kw) / s + 1) for a kernel of
/// (kh, kw), the stride s and the padding p. What is around the image is below every number, and rows and columns at the end that
/// fill no window are left out. The whole gradient goes to the first maximum of a window in reading order; NaN counts as the
/// largest, and the last of several gets the gradient: as PyTorch's `max_pool2d`.
///
/// f32 and f64 on the CPU and all of CUDA are computed here; other tensors by candle, but not by its `max_pool2d`, whose gradient is right for no
/// window of more than a pixel.
///
/// # Errors
/// When `x` is not (n, c, h, w), kernel or stride is 0, the padding is more than half the kernel, or the kernel is larger than the
/// padded image.
pub fn max_pool2d(x: &Tensor, pool: Pool2d) -> Result<Tensor> {
    let pooling = Pooling::new(MaxPool2d::NAME, x.shape(), pool)?;
    if device::runs(x) {
        return device::max_pool2d(x, &pooling);
    }
    if is_ours(x) { x.contiguous()?.apply_op1(MaxPool2d { pooling }) } else { composed(x, &pooling) }
}

/// The same by candle's operations, for other devices and dtypes.
fn composed(x: &Tensor, p: &Pooling) -> Result<Tensor> {
    let (n, c, window, out) = (p.images, p.channels, p.pool.kernel.0 * p.pool.kernel.1, p.out_pixels());
    // In the place of a pixel outside the image the nearest inside, which the window has too.
    let pixels = Tensor::new(p.windows().nearest(p.height, p.width), x.device())?;
    let planes = x.flatten_from(2)?.contiguous()?;
    let best = planes.detach().index_select(&pixels, 2)?.reshape((n, c, window, out))?.argmax_keepdim(2)?;
    let pixels = pixels.reshape((1, 1, window, out))?.broadcast_as((n, c, window, out))?.contiguous()?;
    let best = pixels.gather(&best.contiguous()?, 2)?.squeeze(2)?;
    planes.gather(&best.contiguous()?, 2)?.reshape(p.output_shape())
}

struct MaxPool2d {
    pooling: Pooling,
}

impl MaxPool2d {
    const NAME: &str = "max_pool2d";
}

/// Whether `x` takes the place of the maximum `best` of what comes before it.
#[inline(always)]
fn is_larger<T: Float>(x: T, best: T) -> bool {
    // Only NaN differs from itself.
    #[expect(clippy::eq_op, reason = "is_nan for any number type")]
    let is_nan = x != x;
    x > best || is_nan
}

#[inline(always)]
fn larger<T: Float>(best: T, x: T) -> T {
    if is_larger(x, best) { x } else { best }
}

/// Writes all of `y`. The maxima of columns go to `columns`, of which there are as many as in the image.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn forward<T: Float>(p: &Pooling, x: &[T], columns: &mut [T], y: &mut [MaybeUninit<T>]) {
    y.fill(MaybeUninit::new(T::narrow(f64::NEG_INFINITY)));
    // SAFETY: all were just written.
    let y = unsafe { written(y) };
    for (rows, y) in p.rows().zip(y.chunks_exact_mut(p.out_width)) {
        columns.copy_from_slice(&x[rows.start * p.width..][..p.width]);
        for row in x[rows.start * p.width..rows.end * p.width].chunks_exact(p.width).skip(1) {
            for (column, &x) in columns.iter_mut().zip(row) {
                *column = larger(*column, x);
            }
        }
        if p.is_halving() {
            for (y, pair) in y.iter_mut().zip(columns.as_chunks::<2>().0) {
                *y = larger(pair[0], pair[1]);
            }
        } else {
            for (outputs, first) in &p.taps {
                let y = &mut y[outputs.clone()];
                zip_strided(y, &columns[*first..], p.pool.stride, |y, &x| *y = larger(*y, x));
            }
        }
    }
}

/// Adds to `dx`, which is zero. The maxima of a row of windows and their pixels go to `best`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn backward<T: Float>(p: &Pooling, x: &[T], dy: &[T], best: &mut [(T, usize)], dx: &mut [T]) {
    if p.is_halving() {
        let rows = x.chunks_exact(2 * p.width).zip(dx.chunks_exact_mut(2 * p.width));
        for ((x, dx), dy) in rows.zip(dy.chunks_exact(p.out_width)) {
            let ((x, dx), width) = ((x.split_at(p.width), dx.split_at_mut(p.width)), p.out_width);
            halving_backward([x.0, x.1].map(|x| &x.as_chunks().0[..width]), dy, [dx.0, dx.1]);
        }
        return;
    }
    let stride = p.pool.stride;
    for (rows, dy) in p.rows().zip(dy.chunks_exact(p.out_width)) {
        // The first pixel, where all are -infinity.
        for (best, columns) in best.iter_mut().zip(p.columns()) {
            *best = (T::narrow(f64::NEG_INFINITY), rows.start * p.width + columns.start);
        }
        for row in rows {
            for (outputs, first) in &p.taps {
                let mut pixel = row * p.width + first;
                zip_strided(&mut best[outputs.clone()], &x[pixel..], stride, |best, &x| {
                    *best = if is_larger(x, best.0) { (x, pixel) } else { *best };
                    pixel += stride;
                });
            }
        }
        for (&(_, pixel), &dy) in best.iter().zip(dy) {
            dx[pixel] += dy;
        }
    }
}

/// Two rows of windows of 2x2, without a branch.
#[inline(always)]
fn halving_backward<T: Float>([above, below]: [&[[T; 2]]; 2], dy: &[T], [dx_above, dx_below]: [&mut [T]; 2]) {
    let windows = above.iter().zip(below).zip(dy);
    let gradients = dx_above.as_chunks_mut().0.iter_mut().zip(dx_below.as_chunks_mut().0);
    for (((&[a, b], &[c, d]), &dy), (dx_above, dx_below)) in windows.zip(gradients) {
        let second = is_larger(b, a);
        let best = if second { b } else { a };
        let third = is_larger(c, best);
        let best = if third { c } else { best };
        let fourth = is_larger(d, best);
        let when = |condition: bool| if condition { dy } else { T::zero() };
        *dx_above = [when(!second & !third & !fourth), when(second & !third & !fourth)];
        *dx_below = [when(third & !fourth), when(fourth)];
    }
}

impl CustomOp1 for MaxPool2d {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let p = &self.pooling;
        with_float!(Self::NAME, x.dtype(), T => {
            let x = slice::<T>(x, layout)?;
            let mut y = Box::new_uninit_slice(p.output_shape().elem_count());
            let planes = y.par_chunks_mut(p.out_pixels()).zip(x.par_chunks(p.pixels()));
            planes.for_each_init(|| vec![0.0; p.width], |columns, (y, x)| forward(p, x, columns, y));
            // SAFETY: each plane was written, and these are all.
            let y = unsafe { y.assume_init() }.into_vec();
            Ok((T::to_cpu_storage_owned(y), p.output_shape()))
        })
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let p = &self.pooling;
        let dy = dy.contiguous()?;
        with_float!(Self::NAME, dy.dtype(), T => {
            let (x_read, dy_read) = (Reading::new(x), Reading::new(&dy));
            let (xs, dys) = (x_read.slice::<T>()?, dy_read.slice::<T>()?);
            let mut dx = vec![0.0; xs.len()];
            let planes = dx.par_chunks_mut(p.pixels()).zip(xs.par_chunks(p.pixels()));
            planes.zip(dys.par_chunks(p.out_pixels())).for_each_init(
                || vec![(0.0, 0); p.out_width],
                |best, ((dx, x), dy)| backward(p, x, dy, best, dx),
            );
            Tensor::from_vec(dx, x.shape(), x.device()).map(Some)
        })
    }
}
