//! The Gaussian error linear unit.

use crate::{
    device,
    host::{Reading, is_fused, slice},
    vector::exp,
};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use multiversion::multiversion;
use rayon::prelude::*;
use std::{f64::consts::FRAC_1_SQRT_2, mem::MaybeUninit};

/// `x Phi(x)`, where Phi is the distribution function of the standard normal (Hendrycks & Gimpel 2016, arXiv:1606.08415), for
/// tensors of any shape. In f32 on the CPU its error is below 1e-7 |x| plus f32's own.
///
/// # Errors
/// When candle fails.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    if device::runs(x) {
        return device::gelu(x);
    }
    if is_fused(x) {
        return x.contiguous()?.apply_op1(Gelu);
    }
    // candle's own gelu has a gradient of eight digits.
    let distribution = (((x * FRAC_1_SQRT_2)?.erf()? + 1.0)? * 0.5)?;
    x * distribution
}

/// Values that a task takes: enough to be worth a task.
const CHUNK: usize = 1 << 14;

struct Gelu;

impl CustomOp1 for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice::<f32>(storage, layout)?;
        let mut y = vec![0f32; x.len()];
        y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| forward(x, y));
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let (x_read, grad_read) = (Reading::new(x), Reading::new(&grad));
        let (xs, grads) = (x_read.slice::<f32>()?, grad_read.slice::<f32>()?);
        let mut grad_x = vec![0f32; xs.len()];
        let chunks = xs.par_chunks(CHUNK).zip(grads.par_chunks(CHUNK));
        grad_x.par_chunks_mut(CHUNK).zip(chunks).for_each(|(grad_x, (x, grad))| backward(x, grad, grad_x));
        Ok(Some(Tensor::from_vec(grad_x, x.shape(), x.device())?))
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub(crate) fn forward(x: &[f32], y: &mut [f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = x * normal(x).0;
    }
}

/// `grad (Phi(x) + x phi(x))`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn backward(x: &[f32], grad: &[f32], grad_x: &mut [f32]) {
    for ((grad_x, &x), &grad) in grad_x.iter_mut().zip(x).zip(grad) {
        let (distribution, density) = normal(x);
        *grad_x = grad * (distribution + x * density);
    }
}

/// Writes the value to `y` and turns the gradient by it into the one by `x`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub(crate) fn again_and_backward(x: &[f32], y: &mut [MaybeUninit<f32>], grad: &mut [f32]) {
    for ((y, &x), grad) in y.iter_mut().zip(x).zip(grad) {
        let (distribution, density) = normal(x);
        y.write(x * distribution);
        *grad *= distribution + x * density;
    }
}

/// The distribution function and the density of the standard normal. The first has an error of 7.5e-8: Abramowitz & Stegun
/// 1964, formula 7.1.26, for erf(x / sqrt 2), whose exponential is the density's too.
#[inline(always)]
fn normal(x: f32) -> (f32, f32) {
    const SQRT_TAU: f32 = 2.506_628_3;
    let exponential = exp(-0.5 * x * x);
    let t = 1.0 / (1.0 + 0.327_591_1 * std::f32::consts::FRAC_1_SQRT_2 * x.abs());
    let polynomial = t * (0.254_829_6 + t * (-0.284_496_74 + t * (1.421_413_7 + t * (-1.453_152 + t * 1.061_405_4))));
    let tail = 0.5 * polynomial * exponential;
    (if x < 0.0 { tail } else { 1.0 - tail }, exponential / SQRT_TAU)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{check, wave};
    use candle_core::Device;

    #[test]
    fn values_and_gradients() {
        check([&wave(&[3, 50], 4.0, 0.1)], |[x]| gelu(x));
    }

    /// scipy.stats.norm.cdf(x) * x
    #[test]
    fn known_values() {
        let x = [-3f32, -1.0, 0.0, 0.5, 2.0, 20.0, -20.0];
        let expected = [-0.004_049_694_2, -0.158_655_25, 0.0, 0.345_731_23, 1.954_499_7, 20.0, 0.0];
        let y = gelu(&Tensor::new(&x, &Device::Cpu).unwrap()).unwrap().to_vec1::<f32>().unwrap();
        for (found, expected) in y.into_iter().zip(expected) {
            assert!((found - expected as f32).abs() < 4e-7, "{found} is not {expected}");
        }
        let nan = gelu(&Tensor::new(&[f32::NAN], &Device::Cpu).unwrap()).unwrap();
        assert!(nan.to_vec1::<f32>().unwrap()[0].is_nan());
    }
}
