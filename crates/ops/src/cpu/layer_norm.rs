//! Layer normalisation.

use crate::{
    cpu::tensor::{Reading, fail, gradient, is_fused, is_half, tensor, vec_written, wide, written},
    cpu::vector::{sum, sum2},
    device,
    graph::{differentiable, plain},
};
use candle_core::{D, Result, Tensor};
use multiversion::multiversion;
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Layer normalisation (Ba, Kiros & Hinton 2016, arXiv:1607.06450) without a bias:
/// `(x - mean) / sqrt(variance + eps) * weight`, with mean and (biased) variance over the last dimension of `x`, which has
/// `weight`'s length.
///
/// # Errors
/// When `weight` is not (n) with n the last dimension of x and at least 1, or has another dtype.
pub fn layer_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    check_rows("layer_norm", x, weight)?;
    if device::runs(x) {
        return device::layer_norm(x, weight, eps);
    }
    if is_half(x) {
        return layer_norm(&wide(x)?, &wide(weight)?, eps)?.to_dtype(x.dtype());
    }
    match is_fused(x) {
        true => fused(x, weight, eps as f32),
        false => composed(x, weight, eps),
    }
}

/// That `weight` has a number for each of the last dimension of `x`.
pub(crate) fn check_rows(op: &str, x: &Tensor, weight: &Tensor) -> Result<()> {
    let width = x.dims().last().copied().unwrap_or(0);
    if width == 0 || weight.dims() != [width] {
        fail!(
            "{op}: weight {:?} must be (n), as the last dimension of x {:?}, and n at least 1",
            weight.shape(),
            x.shape()
        );
    }
    if weight.dtype() != x.dtype() {
        fail!("{op}: weight is of {:?} and must be of {:?}, as x", weight.dtype(), x.dtype());
    }
    Ok(())
}

fn composed(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    centred.broadcast_div(&(variance + eps)?.sqrt()?)?.broadcast_mul(weight)
}

/// Rows that a task takes. It decides in which order the weight's gradient is added up, so it is no function of the number
/// of threads.
const ROWS: usize = 64;

fn fused(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    let (inputs, wanted) = ([x, weight], [x, weight].map(Tensor::track_op));
    let [x, weight] = plain(inputs)?;
    let chunk = ROWS * weight.elem_count();
    let y = {
        let [x_read, weight_read] = [&x, &weight].map(Reading::new);
        let (xs, weights) = (x_read.slice()?, weight_read.slice()?);
        let write = |y: &mut [MaybeUninit<f32>]| {
            y.par_chunks_mut(chunk).zip(xs.par_chunks(chunk)).for_each(|(y, x)| forward(x, weights, eps, y));
        };
        // SAFETY: as many elements are written as x has.
        tensor(unsafe { vec_written(xs.len(), write) }, x.shape())?
    };
    differentiable("layer_norm", &inputs, y, move |dy| {
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
    })
}

/// The mean of a row, and one over its standard deviation.
#[inline(always)]
fn moments(x: &[f32], eps: f32) -> (f32, f32) {
    let n = x.len() as f32;
    let mean = sum(x, |x| x) / n;
    let variance = sum(x, |x| (x - mean) * (x - mean)) / n;
    (mean, 1.0 / (variance + eps).sqrt())
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
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
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
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
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{check, wave};

    /// 70 rows make two tasks, and 19 columns do not fill the lanes.
    #[test]
    fn values_and_gradients() {
        let weight = (wave(&[19], 0.5, 2.0) + 1.0).unwrap();
        check([&wave(&[2, 35, 19], 3.0, 0.0), &weight], |[x, weight]| layer_norm(x, weight, 1e-5));
    }
}
