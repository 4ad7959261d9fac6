//! Means of windows: the loops.

use crate::{
    cpu::{
        number::{Float, with_float},
        simd::simd,
        tensor::{Reading, tensor, vec_written, written},
        vector::sum,
    },
    shape::{gradients::Backward, pool2d::Pooling},
};
use candle_core::{Result, Tensor};
use rayon::prelude::*;
use std::mem::MaybeUninit;

struct AvgPool2d {
    pooling: Pooling,
    count_padding: bool,
}

impl AvgPool2d {
    const NAME: &str = "avg_pool2d";

    /// Multiplies what is of each window of a row, whose windows have so many rows of the image, by [`Pooling::mean_weight`].
    #[inline(always)]
    fn weigh<T: Float>(&self, rows: usize, row: &mut [T]) {
        if self.count_padding {
            let weight = T::narrow(self.pooling.mean_weight(0, true));
            row.iter_mut().for_each(|x| *x *= weight);
        } else {
            for (x, columns) in row.iter_mut().zip(self.pooling.columns()) {
                *x *= T::narrow(self.pooling.mean_weight(rows * columns.len(), false));
            }
        }
    }
}

simd! {
    /// Writes all of `y`. The sums of columns go to `columns`, of which there are as many as in the image, and then sorted to `sorted`,
    /// whose padding is zero.
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
    fn backward<T: Float>(
        op: &AvgPool2d,
        dy: &[T],
        shares: &mut [T],
        sorted: &mut [T],
        columns: &mut [T],
        dx: &mut [T],
    ) {
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
}

/// The value of [`crate::avg_pool2d()`], and its gradient.
pub(crate) fn avg_pool2d(x: &Tensor, pooling: Pooling, count_padding: bool) -> Result<(Tensor, impl Backward + use<>)> {
    let op = AvgPool2d { pooling, count_padding };
    let p = &op.pooling;
    let y = with_float!(AvgPool2d::NAME, x.dtype(), T => {
        let read = Reading::new(x);
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
    let gradients = move |dy: &Tensor| {
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
    };
    Ok((y, gradients))
}
