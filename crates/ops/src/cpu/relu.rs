//! Rectifiers: the loops.

use crate::cpu::{
    number::{Float, with_float},
    simd::simd,
    tensor::map,
};
use candle_core::{Result, Tensor};
use std::mem::MaybeUninit;

/// `x`, and 0 where that is negative.
pub(crate) fn relu([x]: &[Tensor; 1]) -> Result<Tensor> {
    // SAFETY: as many elements are written as x has.
    with_float!("relu", x.dtype(), T => unsafe { map::<T, _>([x], |[x], y| rectify(x, y)) })
}

/// `relu(a + b)`
pub(crate) fn add_relu(inputs: &[Tensor; 2]) -> Result<Tensor> {
    with_float!("add_relu", inputs[0].dtype(), T => {
        // SAFETY: as many elements are written as a and b have.
        unsafe { map::<T, _>(inputs.each_ref(), |[a, b], y| rectify_sum(a, b, y)) }
    })
}

/// `dy`, and 0 where `y` is 0.
pub(crate) fn masked(op: &str, y: &Tensor, dy: &Tensor) -> Result<Tensor> {
    // SAFETY: as many elements are written as y and dy have.
    with_float!(op, dy.dtype(), T => unsafe { map::<T, _>([y, dy], |[y, dy], dx| mask(y, dy, dx)) })
}

simd! {
    fn rectify<T: Float>(x: &[T], y: &mut [MaybeUninit<T>]) {
        for (y, x) in y.iter_mut().zip(x) {
            y.write(x.rectified());
        }
    }

    fn rectify_sum<T: Float>(a: &[T], b: &[T], y: &mut [MaybeUninit<T>]) {
        for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
            y.write((a + b).rectified());
        }
    }

    fn mask<T: Float>(y: &[T], dy: &[T], dx: &mut [MaybeUninit<T>]) {
        for ((dx, &y), &dy) in dx.iter_mut().zip(y).zip(dy) {
            dx.write(if y <= T::zero() { T::zero() } else { dy });
        }
    }
}
