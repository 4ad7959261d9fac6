//! Dropout with masks of a seeded generator: the loop.

use crate::{
    cpu::{
        number::{Float, with_float},
        tensor::{Reading, tensor},
    },
    shape::dropout::DropoutMasks,
};
use candle_core::{Result, Tensor};

/// The value of [`crate::dropout()`]; of the gradient by it, the gradient.
pub(crate) fn dropout(x: &Tensor, masks: &DropoutMasks) -> Result<Tensor> {
    with_float!("dropout", x.dtype(), T => tensor(apply(masks, Reading::new(x).slice::<T>()?), x.shape()))
}

/// `x`, or 0 where it is dropped by the first mask.
fn apply<T: Float>(masks: &DropoutMasks, x: &[T]) -> Vec<T> {
    let (mut stays, scale) = (masks.mask(0), T::narrow(masks.scale()));
    // A product, so that what is not a number stays that.
    x.iter().map(|&x| x * if stays() { scale } else { T::zero() }).collect()
}
