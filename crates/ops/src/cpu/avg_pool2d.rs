//! Means of windows.

use crate::{
    cpu::tensor::{Float, Reading, is_half, is_ours, tensor, vec_written, wide, with_float, written},
    cpu::vector::sum,
    device,
    graph::{differentiable, plain},
    shape::pool2d::{Pool2d, Pooling},
};
use candle_core::{Result, Tensor};
use multiversion::multiversion;
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// The means over the windows of images `x` (n, c, h, w): (n, c, (h + 2 p - kh) / s + 1, (w + 2 p - kw) / s + 1) for a kernel of
/// (kh, kw), the stride s and the padding p; rows and columns at the end that fill no window are left out. What is around the
/// image counts as zeros if `count_padding`, and else is no part of the mean: as PyTorch's `avg_pool2d`, where `count_include_pad`
/// is true if nothing is said.
///
/// The mean of each plane, global average pooling, is that of [`Pool2d::whole`].
///
/// # Errors
/// When `x` is not (n, c, h, w), kernel or stride is 0, the padding is more than half the kernel, or the kernel is larger than the
/// padded image.
pub fn avg_pool2d(x: &Tensor, pool: Pool2d, count_padding: bool) -> Result<Tensor> {
    let op = AvgPool2d { pooling: Pooling::new(AvgPool2d::NAME, x.shape(), pool)?, count_padding };
    if device::runs(x) {
        return device::avg_pool2d(x, &op.pooling, count_padding);
    }
    if is_half(x) {
        return avg_pool2d(&wide(x)?, pool, count_padding)?.to_dtype(x.dtype());
    }
    if is_ours(x) { ours(x, op) } else { op.composed(x) }
}

struct AvgPool2d {
    pooling: Pooling,
    count_padding: bool,
}

impl AvgPool2d {
    const NAME: &str = "avg_pool2d";

    /// What the sum over a window of so many pixels of the image is multiplied by.
    fn weight(&self, pixels: usize) -> f64 {
        let (height, width) = self.pooling.pool.kernel;
        1.0 / if self.count_padding { height * width } else { pixels } as f64
    }

    /// The same by candle's operations, for other devices and dtypes.
    fn composed(&self, x: &Tensor) -> Result<Tensor> {
        let p = &self.pooling;
        let pixels = |rows: usize| p.columns().map(move |columns| rows * columns.len());
        let weights: Vec<f64> =
            p.rows().flat_map(|rows| pixels(rows.len())).map(|pixels| self.weight(pixels)).collect();
        let weights = Tensor::new(weights, x.device())?.to_dtype(x.dtype())?;
        p.windows().unfold(x)?.sum(2)?.broadcast_mul(&weights)?.reshape(p.output_shape())
    }

    /// Multiplies what is of each window of a row, whose windows have so many rows of the image, by [`Self::weight`].
    #[inline(always)]
    fn weigh<T: Float>(&self, rows: usize, row: &mut [T]) {
        if self.count_padding {
            let weight = T::narrow(self.weight(0));
            row.iter_mut().for_each(|x| *x *= weight);
        } else {
            for (x, columns) in row.iter_mut().zip(self.pooling.columns()) {
                *x *= T::narrow(self.weight(rows * columns.len()));
            }
        }
    }
}

/// Writes all of `y`. The sums of columns go to `columns`, of which there are as many as in the image, and then sorted to `sorted`,
/// whose padding is zero.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn forward<T: Float>(op: &AvgPool2d, x: &[T], columns: &mut [T], sorted: &mut [T], y: &mut [MaybeUninit<T>]) {
    let p = &op.pooling;
    y.fill(MaybeUninit::new(T::zero()));
    // SAFETY: all were just written.
    let y = unsafe { written(y) };
    if p.is_whole() {
        y[0] = sum(x, |x| x);
        return op.weigh(p.height, y);
    }
    for (rows, y) in p.rows().zip(y.chunks_exact_mut(p.out_width)) {
        columns.fill(T::zero());
        for row in x[rows.start * p.width..rows.end * p.width].chunks_exact(p.width) {
            columns.iter_mut().zip(row).for_each(|(column, &x)| *column += x);
        }
        p.sort(columns, sorted);
        for &tap in &p.taps {
            y.iter_mut().zip(&sorted[tap..]).for_each(|(y, &x)| *y += x);
        }
        op.weigh(rows.len(), y);
    }
}

/// Adds to `dx`, which is zero. The gradients of a row of windows go to `shares`, and what each column of the image gets of it to
/// `sorted` and then to `columns`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn backward<T: Float>(op: &AvgPool2d, dy: &[T], shares: &mut [T], sorted: &mut [T], columns: &mut [T], dx: &mut [T]) {
    let p = &op.pooling;
    for (rows, dy) in p.rows().zip(dy.chunks_exact(p.out_width)) {
        shares.copy_from_slice(dy);
        op.weigh(rows.len(), shares);
        if p.is_whole() {
            return dx.fill(shares[0]);
        }
        sorted.fill(T::zero());
        for &tap in &p.taps {
            sorted[tap..].iter_mut().zip(&*shares).for_each(|(column, &share)| *column += share);
        }
        p.unsort(sorted, columns);
        for row in dx[rows.start * p.width..rows.end * p.width].chunks_exact_mut(p.width) {
            row.iter_mut().zip(&*columns).for_each(|(dx, &column)| *dx += column);
        }
    }
}

fn ours(x: &Tensor, op: AvgPool2d) -> Result<Tensor> {
    let ([input], p) = (plain([x])?, &op.pooling);
    let y = with_float!(AvgPool2d::NAME, x.dtype(), T => {
        let read = Reading::new(&input);
        let xs = read.slice::<T>()?;
        let write = |y: &mut [MaybeUninit<T>]| {
            y.par_chunks_mut(p.out_pixels()).zip(xs.par_chunks(p.pixels())).for_each_init(
                || (vec![0.0; p.width], vec![0.0; p.sorted_width()]),
                |(columns, sorted), (y, x)| forward(&op, x, columns, sorted, y),
            );
        };
        // SAFETY: each plane is written, and these are all.
        tensor(unsafe { vec_written(p.output_shape().elem_count(), write) }, p.output_shape())
    })?;
    let shape = x.shape().clone();
    differentiable(AvgPool2d::NAME, &[x], y, move |dy| {
        let p = &op.pooling;
        with_float!(AvgPool2d::NAME, dy.dtype(), T => {
            let read = Reading::new(dy);
            let mut dx = vec![0.0; shape.elem_count()];
            let planes = dx.par_chunks_mut(p.pixels()).zip(read.slice::<T>()?.par_chunks(p.out_pixels()));
            planes.for_each_init(
                || (vec![0.0; p.out_width], vec![0.0; p.sorted_width()], vec![0.0; p.width]),
                |(shares, sorted, columns), (dx, dy)| backward(&op, dy, shares, sorted, columns, dx),
            );
            Ok(vec![Some(tensor(dx, &shape)?)])
        })
    })
}
