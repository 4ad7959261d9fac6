//! Rectifiers.

use crate::{
    cpu::tensor::{Float, fail, is_ours, map, with_float},
    device,
    graph::{differentiable_by_output, plain},
};
use candle_core::{Result, Tensor};
use multiversion::multiversion;
use std::mem::MaybeUninit;

/// `y = x`, and 0 where that is negative; NaN stays NaN. The gradient at 0 is 0, as in PyTorch (in candle it is 1).
///
/// # Errors
/// When candle fails.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    if device::runs(x) {
        return device::relu(x);
    }
    if !is_ours(x) {
        return x.relu();
    }
    let [input] = plain([x])?;
    // SAFETY: as many elements are written as x has.
    let y = with_float!("relu", x.dtype(), T => unsafe { map::<T, _>([&input], |[x], y| rectify(x, y)) })?;
    differentiable_by_output("relu", &[x], y, |y, dy| Ok(vec![Some(gradient("relu", y, dy)?)]))
}

/// `relu(a + b)` in one pass, for two tensors of one shape: the end of a residual block.
///
/// # Errors
/// When shapes or dtypes differ.
pub fn add_relu(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if a.shape() != b.shape() || a.dtype() != b.dtype() {
        let [a, b] = [a, b].map(|t| format!("{:?} of {:?}", t.shape(), t.dtype()));
        fail!("add_relu: {a} and {b} must have the same shape and dtype");
    }
    if device::runs(a) {
        return device::add_relu(a, b);
    }
    if !is_ours(a) {
        return (a + b)?.relu();
    }
    let inputs = plain([a, b])?;
    let y = with_float!("add_relu", a.dtype(), T => {
        // SAFETY: as many elements are written as a and b have.
        unsafe { map::<T, _>(inputs.each_ref(), |[a, b], y| rectify_sum(a, b, y)) }
    })?;
    differentiable_by_output("add_relu", &[a, b], y, |y, dy| {
        let gradient = gradient("add_relu", y, dy)?;
        Ok(vec![Some(gradient.clone()), Some(gradient)])
    })
}

/// `dy`, and 0 where `y` is 0.
fn gradient(op: &str, y: &Tensor, dy: &Tensor) -> Result<Tensor> {
    // SAFETY: as many elements are written as y and dy have.
    with_float!(op, dy.dtype(), T => unsafe { map::<T, _>([y, dy], |[y, dy], dx| mask(y, dy, dx)) })
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn rectify<T: Float>(x: &[T], y: &mut [MaybeUninit<T>]) {
    for (y, x) in y.iter_mut().zip(x) {
        y.write(x.rectified());
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn rectify_sum<T: Float>(a: &[T], b: &[T], y: &mut [MaybeUninit<T>]) {
    for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
        y.write((a + b).rectified());
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn mask<T: Float>(y: &[T], dy: &[T], dx: &mut [MaybeUninit<T>]) {
    for ((dx, &y), &dy) in dx.iter_mut().zip(y).zip(dy) {
        dx.write(if y <= T::zero() { T::zero() } else { dy });
    }
}
