//! Layer normalisation (Ba, Kiros & Hinton 2016, arXiv:1607.06450) without a bias.

use super::{is_fused, sum, sum2, values, with_values};
use candle_core::{CpuStorage, CustomOp2, D, Layout, Result, Shape, Tensor};
use multiversion::multiversion;
use rayon::prelude::*;

const EPS: f32 = 1e-5;

/// `(x - mean) / sqrt(variance + 1e-5) * weight`, with mean and variance (divided by n) over the last dimension, which has
/// `weight`'s length.
pub(in crate::models) fn layer_norm(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    if is_fused(x) { x.contiguous()?.apply_op2(weight, LayerNorm) } else { composed(x, weight) }
}

fn composed(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    centred.broadcast_div(&(variance + f64::from(EPS))?.sqrt()?)?.broadcast_mul(weight)
}

/// Rows that a task takes. It decides in which order the weight's gradient is added up, so it is no function of the number
/// of threads.
const ROWS: usize = 64;

struct LayerNorm;

impl CustomOp2 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, weight) = (values(self.name(), s1, l1)?, values(self.name(), s2, l2)?);
        let chunk = ROWS * weight.len();
        let mut y = vec![0f32; x.len()];
        y.par_chunks_mut(chunk).zip(x.par_chunks(chunk)).for_each(|(y, x)| forward(x, weight, y));
        Ok((CpuStorage::F32(y), l1.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, weight: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let args = [x, weight, &grad.contiguous()?];
        let (grad_x, grad_weight) = with_values(self.name(), args, |[x, weight, grad]| {
            let chunk = ROWS * weight.len();
            let mut grad_x = vec![0f32; x.len()];
            let chunks = x.par_chunks(chunk).zip(grad.par_chunks(chunk));
            let parts: Vec<Vec<f32>> = grad_x
                .par_chunks_mut(chunk)
                .zip(chunks)
                .map(|(grad_x, (x, grad))| {
                    let mut grad_weight = vec![0f32; weight.len()];
                    backward(x, weight, grad, grad_x, &mut grad_weight);
                    grad_weight
                })
                .collect();
            let grad_weight = (0..weight.len()).map(|i| parts.iter().map(|part| part[i]).sum::<f32>()).collect();
            Ok((grad_x, grad_weight))
        })?;
        let grad_x = Tensor::from_vec(grad_x, x.shape(), x.device())?;
        let grad_weight = Tensor::from_vec::<_, f32>(grad_weight, weight.shape(), weight.device())?;
        Ok((Some(grad_x), Some(grad_weight)))
    }
}

/// The mean of a row, and one over its standard deviation.
#[inline(always)]
fn moments(x: &[f32]) -> (f32, f32) {
    let n = x.len() as f32;
    let mean = sum(x, |x| x) / n;
    let variance = sum(x, |x| (x - mean) * (x - mean)) / n;
    (mean, 1.0 / (variance + EPS).sqrt())
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn forward(x: &[f32], weight: &[f32], y: &mut [f32]) {
    let n = weight.len();
    for (x, y) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)) {
        let (mean, scale) = moments(x);
        for ((y, x), weight) in y.iter_mut().zip(x).zip(weight) {
            *y = (x - mean) * scale * weight;
        }
    }
}

/// With the normalised row `z` and `u = grad weight`: `grad_x = scale (u - mean(u) - z mean(u z))` and
/// `grad_weight += grad z`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn backward(x: &[f32], weight: &[f32], grad: &[f32], grad_x: &mut [f32], grad_weight: &mut [f32]) {
    let n = weight.len();
    let rows = x.chunks_exact(n).zip(grad.chunks_exact(n));
    for ((x, grad), out) in rows.zip(grad_x.chunks_exact_mut(n)) {
        let (mean, scale) = moments(x);
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
    use crate::models::ops::tests::{check, wave};

    /// 70 rows make two tasks, and 19 columns do not fill the lanes.
    #[test]
    fn values_and_gradients() {
        let weight = (wave(&[19], 0.5, 2.0) + 1.0).unwrap();
        check([&wave(&[2, 35, 19], 3.0, 0.0), &weight], |[x, weight]| layer_norm(x, weight));
    }
}
