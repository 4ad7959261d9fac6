//! The Gaussian error linear unit: the loops.

use crate::cpu::{number::exp, simd::simd, tensor::map};
use candle_core::{Result, Tensor};
use std::mem::MaybeUninit;

/// The value of [`crate::gelu()`].
pub(crate) fn gelu(x: &Tensor) -> Result<Tensor> {
    // SAFETY: as many elements are written as x has.
    unsafe { map([x], |[x], y| forward(x, y)) }
}

/// The gradient by x.
pub(crate) fn gradient(x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    // SAFETY: as many elements are written as x and dy have.
    unsafe { map([x, dy], |[x, dy], dx| backward(x, dy, dx)) }
}

simd! {
    pub(crate) fn forward(x: &[f32], y: &mut [MaybeUninit<f32>]) {
        for (y, &x) in y.iter_mut().zip(x) {
            y.write(x * normal(x).0);
        }
    }

    /// `grad (Phi(x) + x phi(x))`.
    fn backward(x: &[f32], grad: &[f32], grad_x: &mut [MaybeUninit<f32>]) {
        for ((grad_x, &x), &grad) in grad_x.iter_mut().zip(x).zip(grad) {
            let (distribution, density) = normal(x);
            grad_x.write(grad * (distribution + x * density));
        }
    }

    /// Writes the value to `y` and turns the gradient by it into the one by `x`.
    pub(crate) fn again_and_backward(x: &[f32], y: &mut [MaybeUninit<f32>], grad: &mut [f32]) {
        for ((y, &x), grad) in y.iter_mut().zip(x).zip(grad) {
            let (distribution, density) = normal(x);
            y.write(x * distribution);
            *grad *= distribution + x * density;
        }
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
