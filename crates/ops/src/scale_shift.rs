//! Scale and shift of channels.

use crate::{
    cpu::{self, tensor::in_f32},
    device,
    graph::{detached_contiguous, differentiable},
    reference,
    shape::channels::check_channels,
    side::Side,
};
use candle_core::{Result, Tensor};

/// Scale and shift of the channels of images `x` (n, c, h, w): `y = x scale + shift`, rectified if `relu`. `scale` and `shift` are
/// (c), of x's dtype.
///
/// It is batch norm in evaluation, with `scale = weight / sqrt(variance + eps)` and `shift = bias - mean scale`. With a scale of 1 it
/// is the bias of a convolution. NaN stays NaN.
///
/// # Errors
/// When the shapes or dtypes do not fit each other.
pub fn scale_shift(x: &Tensor, scale: &Tensor, shift: &Tensor, relu: bool) -> Result<Tensor> {
    check_channels("scale_shift", (x.shape(), x.dtype()), [("scale", scale), ("shift", shift)])?;
    let (inputs, wanted) = ([x, scale, shift], [x, scale, shift].map(Tensor::track_op));
    match Side::of(x) {
        Side::Device => {
            let (y, backward) = device::channel::scale_shift(detached_contiguous(inputs)?, relu, wanted)?;
            differentiable("scale_shift", &inputs, y, backward)
        }
        Side::Cpu => {
            let (y, backward) = cpu::scale_shift::scale_shift(detached_contiguous(inputs)?, relu, wanted)?;
            differentiable("scale_shift", &inputs, y, backward)
        }
        Side::CpuInF32 => scale_shift(&in_f32(x)?, &in_f32(scale)?, &in_f32(shift)?, relu)?.to_dtype(x.dtype()),
        Side::Candle => reference::scale_shift(x, scale, shift, relu),
    }
}
