//! Normalisation by the root of the mean square: the loops.

use crate::{
    cpu::{
        number::{Float, with_float},
        simd::simd,
        tensor::{Reading, gradient, tensor, vec_written, written},
        vector::{sum, sum2},
    },
    shape::gradients::Backward,
};
use candle_core::{Result, Tensor};
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Rows that a task takes. It decides in which order the weight's gradient is added up, so it is no function of the number
/// of threads.
const ROWS_PER_TASK: usize = 64;

/// The value of [`crate::rms_norm()`], and those of its gradients that are wanted.
pub(crate) fn rms_norm([x, weight]: [Tensor; 2], eps: f64, wanted: [bool; 2]) -> Result<(Tensor, impl Backward)> {
    let chunk = ROWS_PER_TASK * weight.elem_count();
    let y = with_float!("rms_norm", x.dtype(), T => {
        let [x_read, weight_read] = [&x, &weight].map(Reading::new);
        let (xs, weights) = (x_read.slice::<T>()?, weight_read.slice::<T>()?);
        let write = |y: &mut [MaybeUninit<T>]| {
            let chunks = y.par_chunks_mut(chunk).zip(xs.par_chunks(chunk));
            chunks.for_each(|(y, x)| forward(x, weights, T::narrow(eps), y));
        };
        // SAFETY: as many elements are written as x has.
        tensor(unsafe { vec_written(xs.len(), write) }, x.shape())
    })?;
    let gradients = move |dy: &Tensor| {
        with_float!("rms_norm", dy.dtype(), T => {
            let [x_read, weight_read, dy_read] = [&x, &weight, dy].map(Reading::new);
            let (xs, weights, dys) = (x_read.slice::<T>()?, weight_read.slice::<T>()?, dy_read.slice::<T>()?);
            let mut parts: Vec<Vec<T>> = Vec::new();
            let write = |dx: &mut [MaybeUninit<T>]| {
                let chunks = dx.par_chunks_mut(chunk).zip(xs.par_chunks(chunk).zip(dys.par_chunks(chunk)));
                let part = chunks.map(|(dx, (x, dy))| {
                    let mut dw = vec![0.0; weights.len()];
                    backward(x, weights, dy, T::narrow(eps), dx, &mut dw);
                    dw
                });
                parts = part.collect();
            };
            // SAFETY: as many elements are written as x has.
            let dx = unsafe { vec_written(xs.len(), write) };
            let dw = (0..weights.len()).map(|i| parts.iter().map(|part| part[i]).sum()).collect();
            Ok(vec![gradient(wanted[0].then_some(dx), &x)?, gradient::<T>(wanted[1].then_some(dw), &weight)?])
        })
    };
    Ok((y, gradients))
}

/// One over the root of the mean square of a row.
#[inline(always)]
fn scale<T: Float>(x: &[T], eps: T) -> T {
    let mean = sum(x, |x| x * x) / T::narrow(x.len() as f64);
    T::narrow(1.0 / (mean + eps).wide().sqrt())
}

simd! {
    fn forward<T: Float>(x: &[T], weight: &[T], eps: T, y: &mut [MaybeUninit<T>]) {
        let n = weight.len();
        for (x, y) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)) {
            let scale = scale(x, eps);
            for ((y, &x), &weight) in y.iter_mut().zip(x).zip(weight) {
                y.write(x * scale * weight);
            }
        }
    }

    /// With the normalised row `z = scale x` and `u = grad weight`: `grad_x = scale (u - z mean(u z))` and `grad_weight += grad z`.
    fn backward<T: Float>(
        x: &[T],
        weight: &[T],
        grad: &[T],
        eps: T,
        grad_x: &mut [MaybeUninit<T>],
        grad_weight: &mut [T],
    ) {
        let n = weight.len();
        let rows = x.chunks_exact(n).zip(grad.chunks_exact(n));
        for ((x, grad), out) in rows.zip(grad_x.chunks_exact_mut(n)) {
            let scale = scale(x, eps);
            for (((out, &x), (&grad, &weight)), grad_weight) in
                out.iter_mut().zip(x).zip(grad.iter().zip(weight)).zip(grad_weight.iter_mut())
            {
                out.write(grad * weight);
                *grad_weight += grad * (x * scale);
            }
            // SAFETY: all were just written.
            let out = unsafe { written(out) };
            let mean = sum2(out, x, |u, x| u * x) * scale / T::narrow(n as f64);
            for (out, &x) in out.iter_mut().zip(x) {
                *out = scale * (*out - x * scale * mean);
            }
        }
    }
}
