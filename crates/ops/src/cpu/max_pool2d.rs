//! Maxima of windows: the loops.

use crate::{
    cpu::{
        number::{Float, with_float},
        simd::simd,
        tensor::{Reading, tensor, vec_written, written},
    },
    shape::{gradients::Backward, pool2d::Pooling},
};
use candle_core::{Result, Tensor};
use rayon::prelude::*;
use std::mem::MaybeUninit;

const NAME: &str = "max_pool2d";

/// Whether `x` takes the place of the maximum `best` of what comes before it.
#[inline(always)]
fn is_larger<T: Float>(x: T, best: T) -> bool {
    // Only NaN differs from itself.
    #[expect(clippy::eq_op, reason = "is_nan for any number type")]
    let is_nan = x != x;
    (x > best) | is_nan
}

#[inline(always)]
fn larger<T: Float>(best: T, x: T) -> T {
    if is_larger(x, best) { x } else { best }
}

/// Room for a plane. What is updated goes from one place to another: in its own place it would become a store under a mask, which
/// takes some processors twenty times as long.
struct Room<T> {
    /// The maxima of columns.
    columns: [Vec<T>; 2],
    /// Sorted rows, with the least of all numbers around the image: that of the maxima, or all of x.
    sorted: Vec<T>,
    /// The whole gradient by x.
    sorted_dx: Vec<T>,
    /// The maxima of a row of windows, and the number of the row and tap that each is from.
    best: [Vec<T>; 2],
    from: [Vec<T>; 2],
}

impl<T: Float> Room<T> {
    fn forward(p: &Pooling) -> Self {
        let columns = || vec![T::zero(); p.width];
        Self { columns: [columns(), columns()], sorted_dx: Vec::new(), ..Self::backward(p, 1) }
    }

    fn backward(p: &Pooling, rows: usize) -> Self {
        let row = || vec![T::zero(); p.out_width];
        let sorted = |value| vec![value; rows * p.sorted_width()];
        Self {
            columns: [Vec::new(), Vec::new()],
            sorted: sorted(T::narrow(f64::NEG_INFINITY)),
            sorted_dx: sorted(T::zero()),
            best: [row(), row()],
            from: [row(), row()],
        }
    }
}

simd! {
    /// Writes all of `y`.
    fn forward<T: Float>(p: &Pooling, x: &[T], room: &mut Room<T>, y: &mut [MaybeUninit<T>]) {
        let Room { columns: [columns, next_columns], sorted, best: [best, next_best], .. } = room;
        let (last, others) = p.taps.split_last().expect("a kernel has a column");
        for (rows, y) in p.rows().zip(y.chunks_exact_mut(p.out_width)) {
            columns.copy_from_slice(&x[rows.start * p.width..][..p.width]);
            for row in x[rows.start * p.width..rows.end * p.width].chunks_exact(p.width).skip(1) {
                for ((next, &column), &x) in next_columns.iter_mut().zip(&*columns).zip(row) {
                    *next = larger(column, x);
                }
                std::mem::swap(columns, next_columns);
            }
            p.sort(columns, sorted);
            best.fill(T::narrow(f64::NEG_INFINITY));
            for &tap in others {
                for ((next, &best), &x) in next_best.iter_mut().zip(&*best).zip(&sorted[tap..]) {
                    *next = larger(best, x);
                }
                std::mem::swap(best, next_best);
            }
            for ((y, &best), &x) in y.iter_mut().zip(&*best).zip(&sorted[*last..]) {
                y.write(larger(best, x));
            }
        }
    }
}

/// The number of the first tap that reads the image, for each column of the output.
fn first_taps<T: Float>(p: &Pooling) -> Vec<T> {
    let first = |column: usize| p.pool.padding.saturating_sub(column * p.pool.stride);
    (0..p.out_width).map(|column| T::narrow(first(column) as f64)).collect()
}

simd! {
    /// Writes all of `dx`.
    fn backward<T: Float>(
        p: &Pooling,
        first_taps: &[T],
        x: &[T],
        dy: &[T],
        room: &mut Room<T>,
        dx: &mut [MaybeUninit<T>],
    ) {
        let Room { sorted, sorted_dx, best: [best, next_best], from: [from, next_from], .. } = room;
        let width = p.sorted_width();
        for (row, sorted) in x.chunks_exact(p.width).zip(sorted.chunks_exact_mut(width)) {
            p.sort(row, sorted);
        }
        sorted_dx.fill(T::zero());
        let number = |row: usize, tap: usize| T::narrow((row * p.taps.len() + tap) as f64);
        for (rows, dy) in p.rows().zip(dy.chunks_exact(p.out_width)) {
            // The first pixel, where all are -infinity.
            best.fill(T::narrow(f64::NEG_INFINITY));
            from.copy_from_slice(first_taps);
            for (row, x) in sorted[rows.start * width..rows.end * width].chunks_exact(width).enumerate() {
                for (tap, &place) in p.taps.iter().enumerate() {
                    let number = number(row, tap);
                    let next = next_best.iter_mut().zip(&mut *next_from);
                    for (((next_best, next_from), (&best, &from)), &x) in
                        next.zip(best.iter().zip(&*from)).zip(&x[place..])
                    {
                        let is_larger = is_larger(x, best);
                        *next_best = if is_larger { x } else { best };
                        *next_from = if is_larger { number } else { from };
                    }
                    std::mem::swap(best, next_best);
                    std::mem::swap(from, next_from);
                }
            }
            for (row, dx) in sorted_dx[rows.start * width..rows.end * width].chunks_exact_mut(width).enumerate() {
                for (tap, &place) in p.taps.iter().enumerate() {
                    let number = number(row, tap);
                    for (dx, (&from, &dy)) in dx[place..].iter_mut().zip(from.iter().zip(dy)) {
                        *dx += if from == number { dy } else { T::zero() };
                    }
                }
            }
        }
        dx.fill(MaybeUninit::new(T::zero()));
        // SAFETY: all were just written.
        let dx = unsafe { written(dx) };
        for (row, sorted) in dx.chunks_exact_mut(p.width).zip(sorted_dx.chunks_exact(width)) {
            p.unsort(sorted, row);
        }
    }
}

/// The value of [`crate::max_pool2d()`], and its gradient.
pub(crate) fn max_pool2d(input: Tensor, p: Pooling) -> Result<(Tensor, impl Backward)> {
    let y = with_float!(NAME, input.dtype(), T => {
        let read = Reading::new(&input);
        let xs = read.slice::<T>()?;
        let write = |y: &mut [MaybeUninit<T>]| {
            let planes = y.par_chunks_mut(p.out_pixels()).zip(xs.par_chunks(p.pixels()));
            planes.for_each_init(|| Room::forward(&p), |room, (y, x)| forward(&p, x, room, y));
        };
        // SAFETY: each plane is written, and these are all.
        tensor(unsafe { vec_written(p.output_shape().elem_count(), write) }, p.output_shape())
    })?;
    let gradients = move |dy: &Tensor| {
        with_float!(NAME, dy.dtype(), T => {
            let [x_read, dy_read] = [&input, dy].map(Reading::new);
            let (xs, dys) = (x_read.slice::<T>()?, dy_read.slice::<T>()?);
            let first_taps: Vec<T> = first_taps(&p);
            let write = |dx: &mut [MaybeUninit<T>]| {
                let planes = xs.par_chunks(p.pixels()).zip(dys.par_chunks(p.out_pixels()));
                dx.par_chunks_mut(p.pixels()).zip(planes).for_each_init(
                    || Room::backward(&p, p.height),
                    |room, (dx, (x, dy))| backward(&p, &first_taps, x, dy, room, dx),
                );
            };
            // SAFETY: each plane is written, and these are all.
            Ok(vec![Some(tensor(unsafe { vec_written(xs.len(), write) }, input.shape())?)])
        })
    };
    Ok((y, gradients))
}
