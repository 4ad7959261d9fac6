//! Normalisation by the root of the mean square.

use crate::{
    device,
    host::{Float, Reading, gradient, is_half, is_ours, slice, wide, with_float},
    layer_norm::check_rows,
    vector::{sum, sum2},
};
use candle_core::{CpuStorage, CustomOp2, D, Layout, Result, Shape, Tensor, WithDType, backend::BackendStorage};
use multiversion::multiversion;
use rayon::prelude::*;

/// RMSNorm (Zhang & Sennrich 2019, arXiv:1910.07467): `x / sqrt(mean(x^2) + eps) * weight`, with the mean over the last dimension
/// of `x`, which has `weight`'s length. As PyTorch's `rms_norm`, whose eps is the dtype's (1.2e-7 for f32) if nothing is said.
///
/// # Errors
/// When `weight` is not (n) with n the last dimension of x and at least 1, or has another dtype.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    check_rows("rms_norm", x, weight)?;
    if device::runs(x) {
        return device::rms_norm(x, weight, eps);
    }
    if is_half(x) {
        return rms_norm(&wide(x)?, &wide(weight)?, eps)?.to_dtype(x.dtype());
    }
    match is_ours(x) {
        true => x.contiguous()?.apply_op2(&weight.contiguous()?, RmsNorm { eps }),
        false => x.broadcast_div(&(x.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?)?.broadcast_mul(weight),
    }
}

/// Rows that a task takes. It decides in which order the weight's gradient is added up, so it is no function of the number
/// of threads.
const ROWS: usize = 64;

struct RmsNorm {
    eps: f64,
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        with_float!(self.name(), s1.dtype(), T => {
            let (x, weight) = (slice::<T>(s1, l1)?, slice::<T>(s2, l2)?);
            let chunk = ROWS * weight.len();
            let mut y = vec![0.0; x.len()];
            let chunks = y.par_chunks_mut(chunk).zip(x.par_chunks(chunk));
            chunks.for_each(|(y, x)| forward(x, weight, T::narrow(self.eps), y));
            Ok((T::to_cpu_storage_owned(y), l1.shape().clone()))
        })
    }

    fn bwd(&self, x: &Tensor, weight: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        with_float!(self.name(), grad.dtype(), T => {
            let [x_read, weight_read, grad_read] = [x, weight, &grad].map(Reading::new);
            let (xs, weights, grads) = (x_read.slice::<T>()?, weight_read.slice::<T>()?, grad_read.slice::<T>()?);
            let chunk = ROWS * weights.len();
            let mut grad_x = vec![0.0; xs.len()];
            let chunks = xs.par_chunks(chunk).zip(grads.par_chunks(chunk));
            let parts: Vec<Vec<T>> = grad_x
                .par_chunks_mut(chunk)
                .zip(chunks)
                .map(|(grad_x, (x, grad))| {
                    let mut grad_weight = vec![0.0; weights.len()];
                    backward(x, weights, grad, T::narrow(self.eps), grad_x, &mut grad_weight);
                    grad_weight
                })
                .collect();
            let grad_weight: Vec<T> =
                (0..weights.len()).map(|i| parts.iter().map(|part| part[i]).sum()).collect();
            Ok((gradient(x, grad_x)?, gradient(weight, grad_weight)?))
        })
    }
}

/// One over the root of the mean square of a row.
#[inline(always)]
fn scale<T: Float>(x: &[T], eps: T) -> T {
    let mean = sum(x, |x| x * x) / T::narrow(x.len() as f64);
    T::narrow(1.0 / (mean + eps).wide().sqrt())
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn forward<T: Float>(x: &[T], weight: &[T], eps: T, y: &mut [T]) {
    let n = weight.len();
    for (x, y) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)) {
        let scale = scale(x, eps);
        for ((y, &x), &weight) in y.iter_mut().zip(x).zip(weight) {
            *y = x * scale * weight;
        }
    }
}

/// With the normalised row `z = scale x` and `u = grad weight`: `grad_x = scale (u - z mean(u z))` and `grad_weight += grad z`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn backward<T: Float>(x: &[T], weight: &[T], grad: &[T], eps: T, grad_x: &mut [T], grad_weight: &mut [T]) {
    let n = weight.len();
    let rows = x.chunks_exact(n).zip(grad.chunks_exact(n));
    for ((x, grad), out) in rows.zip(grad_x.chunks_exact_mut(n)) {
        let scale = scale(x, eps);
        for (((out, &x), (&grad, &weight)), grad_weight) in
            out.iter_mut().zip(x).zip(grad.iter().zip(weight)).zip(grad_weight.iter_mut())
        {
            *out = grad * weight;
            *grad_weight += grad * (x * scale);
        }
        let mean = sum2(out, x, |u, x| u * x) * scale / T::narrow(n as f64);
        for (out, &x) in out.iter_mut().zip(x) {
            *out = scale * (*out - x * scale * mean);
        }
    }
}
