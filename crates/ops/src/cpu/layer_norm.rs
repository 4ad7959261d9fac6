//! Layer normalisation: the loops.

use crate::{
    cpu::{
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

/// The value of [`crate::layer_norm()`], and those of its gradients that are wanted.
pub(crate) fn layer_norm([x, weight]: [Tensor; 2], eps: f32, wanted: [bool; 2]) -> Result<(Tensor, impl Backward)> {
    let chunk = ROWS_PER_TASK * weight.elem_count();
    let y = {
        let [x_read, weight_read] = [&x, &weight].map(Reading::new);
        let (xs, weights) = (x_read.slice()?, weight_read.slice()?);
        let write = |y: &mut [MaybeUninit<f32>]| {
            y.par_chunks_mut(chunk).zip(xs.par_chunks(chunk)).for_each(|(y, x)| forward(x, weights, eps, y));
        };
        // SAFETY: as many elements are written as x has.
        tensor(unsafe { vec_written(xs.len(), write) }, x.shape())?
    };
    let gradients = move |dy: &Tensor| {
        let [x_read, weight_read, dy_read] = [&x, &weight, dy].map(Reading::new);
        let (xs, weights, dys) = (x_read.slice()?, weight_read.slice()?, dy_read.slice()?);
        let mut parts: Vec<Vec<f32>> = Vec::new();
        let write = |dx: &mut [MaybeUninit<f32>]| {
            let chunks = dx.par_chunks_mut(chunk).zip(xs.par_chunks(chunk).zip(dys.par_chunks(chunk)));
            let part = chunks.map(|(dx, (x, dy))| {
                let mut dw = vec![0f32; weights.len()];
                backward(x, weights, dy, eps, dx, &mut dw);
                dw
            });
            parts = part.collect();
        };
        // SAFETY: as many elements are written as x has.
        let dx = unsafe { vec_written(xs.len(), write) };
        let dw = (0..weights.len()).map(|i| parts.iter().map(|part| part[i]).sum::<f32>()).collect();
        Ok(vec![gradient(wanted[0].then_some(dx), &x)?, gradient(wanted[1].then_some(dw), &weight)?])
    };
    Ok((y, gradients))
}

/// The mean of a row, and one over its standard deviation.
#[inline(always)]
fn moments(x: &[f32], eps: f32) -> (f32, f32) {
    let n = x.len() as f32;
    let mean = sum(x, |x| x) / n;
    let variance = sum(x, |x| (x - mean) * (x - mean)) / n;
    (mean, 1.0 / (variance + eps).sqrt())
}

simd! {
    pub(crate) fn forward(x: &[f32], weight: &[f32], eps: f32, y: &mut [MaybeUninit<f32>]) {
        let n = weight.len();
        for (x, y) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)) {
            let (mean, scale) = moments(x, eps);
            for ((y, x), weight) in y.iter_mut().zip(x).zip(weight) {
                y.write((x - mean) * scale * weight);
            }
        }
    }

    /// Writes the value to `y` and turns the gradient by it into the one by `x`; adds to the one by `weight`.
    pub(crate) fn again_and_backward(
        x: &[f32],
        weight: &[f32],
        eps: f32,
        y: &mut [MaybeUninit<f32>],
        grad: &mut [f32],
        grad_weight: &mut [f32],
    ) {
        let n = weight.len();
        let rows = x.chunks_exact(n).zip(y.chunks_exact_mut(n));
        for ((x, y), grad) in rows.zip(grad.chunks_exact_mut(n)) {
            let (mean, scale) = moments(x, eps);
            for (((y, x), weight), (grad, grad_weight)) in
                y.iter_mut().zip(x).zip(weight).zip(grad.iter_mut().zip(grad_weight.iter_mut()))
            {
                let z = (x - mean) * scale;
                y.write(z * weight);
                *grad_weight += *grad * z;
                *grad *= weight;
            }
            let mean_u = sum(grad, |u| u) / n as f32;
            let mean_uz = sum2(grad, x, |u, x| u * (x - mean)) * scale / n as f32;
            for (u, x) in grad.iter_mut().zip(x) {
                *u = scale * (*u - mean_u - (x - mean) * scale * mean_uz);
            }
        }
    }

    /// With the normalised row `z` and `u = grad weight`: `grad_x = scale (u - mean(u) - z mean(u z))` and
    /// `grad_weight += grad z`.
    fn backward(
        x: &[f32],
        weight: &[f32],
        grad: &[f32],
        eps: f32,
        grad_x: &mut [MaybeUninit<f32>],
        grad_weight: &mut [f32],
    ) {
        let n = weight.len();
        let rows = x.chunks_exact(n).zip(grad.chunks_exact(n));
        for ((x, grad), out) in rows.zip(grad_x.chunks_exact_mut(n)) {
            let (mean, scale) = moments(x, eps);
            for ((out, grad), weight) in out.iter_mut().zip(grad).zip(weight) {
                out.write(grad * weight);
            }
            // SAFETY: all were just written.
            let out = unsafe { written(out) };
            let mean_u = sum(out, |u| u) / n as f32;
            let mean_uz = sum2(out, x, |u, x| u * (x - mean)) * scale / n as f32;
            for (((out, x), grad), grad_weight) in out.iter_mut().zip(x).zip(grad).zip(grad_weight.iter_mut()) {
                let z = (x - mean) * scale;
                *out = scale * (*out - mean_u - z * mean_uz);
                *grad_weight += grad * z;
            }
        }
    }
}
