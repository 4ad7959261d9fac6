//! Layer normalisation.

use crate::{
    device,
    host::{Reading, fail, gradient, is_fused, is_half, slice, wide},
    vector::{sum, sum2},
};
use candle_core::{CpuStorage, CustomOp2, D, Layout, Result, Shape, Tensor};
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
        true => x.contiguous()?.apply_op2(&weight.contiguous()?, LayerNorm { eps: eps as f32 }),
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

struct LayerNorm {
    eps: f32,
}

impl CustomOp2 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, weight) = (slice::<f32>(s1, l1)?, slice::<f32>(s2, l2)?);
        let chunk = ROWS * weight.len();
        let mut y = vec![0f32; x.len()];
        y.par_chunks_mut(chunk).zip(x.par_chunks(chunk)).for_each(|(y, x)| forward(x, weight, self.eps, y));
        Ok((CpuStorage::F32(y), l1.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, weight: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let [x_read, weight_read, grad_read] = [x, weight, &grad].map(Reading::new);
        let (xs, weights, grads) = (x_read.slice::<f32>()?, weight_read.slice::<f32>()?, grad_read.slice::<f32>()?);
        let chunk = ROWS * weights.len();
        let mut grad_x = vec![0f32; xs.len()];
        let chunks = xs.par_chunks(chunk).zip(grads.par_chunks(chunk));
        let parts: Vec<Vec<f32>> = grad_x
            .par_chunks_mut(chunk)
            .zip(chunks)
            .map(|(grad_x, (x, grad))| {
                let mut grad_weight = vec![0f32; weights.len()];
                backward(x, weights, grad, self.eps, grad_x, &mut grad_weight);
                grad_weight
            })
            .collect();
        let grad_weight: Vec<f32> = (0..weights.len()).map(|i| parts.iter().map(|part| part[i]).sum::<f32>()).collect();
        Ok((gradient(x, grad_x)?, gradient(weight, grad_weight)?))
    }
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
pub(crate) fn forward(x: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) {
    let n = weight.len();
    for (x, y) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)) {
        let (mean, scale) = moments(x, eps);
        for ((y, x), weight) in y.iter_mut().zip(x).zip(weight) {
            *y = (x - mean) * scale * weight;
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
fn backward(x: &[f32], weight: &[f32], grad: &[f32], eps: f32, grad_x: &mut [f32], grad_weight: &mut [f32]) {
    let n = weight.len();
    let rows = x.chunks_exact(n).zip(grad.chunks_exact(n));
    for ((x, grad), out) in rows.zip(grad_x.chunks_exact_mut(n)) {
        let (mean, scale) = moments(x, eps);
        for ((out, grad), weight) in out.iter_mut().zip(grad).zip(weight) {
            *out = grad * weight;
        }
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
