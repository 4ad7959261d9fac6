//! Scale and shift of channels.

use crate::{
    cpu::{
        self,
        tensor::{cpu_supports, in_f32, is_half_on_cpu},
    },
    device::{self, kernels::has_kernels},
    graph::{detached_contiguous, differentiable},
    reference,
    shape::channels::check_channels,
};
use candle_core::{Result, Tensor};

/// `y = x scale + shift` per channel of images `x` (n, c, h, w), and 0 where that is negative if `relu`; NaN stays NaN. It is
/// batch norm in evaluation, with `scale = weight / sqrt(variance + eps)` and `shift = bias - mean scale`, and the bias of a
/// convolution, with a scale of 1. `scale` and `shift` are (c), of x's dtype.
///
/// # Errors
/// When the shapes or dtypes do not fit each other.
pub fn scale_shift(x: &Tensor, scale: &Tensor, shift: &Tensor, relu: bool) -> Result<Tensor> {
    check_channels("scale_shift", (x.shape(), x.dtype()), [("scale", scale), ("shift", shift)])?;
    let (inputs, wanted) = ([x, scale, shift], [x, scale, shift].map(Tensor::track_op));
    if has_kernels(x) {
        let (y, backward) = device::channel::scale_shift(detached_contiguous(inputs)?, relu, wanted)?;
        return differentiable("scale_shift", &inputs, y, backward);
    }
    if is_half_on_cpu(x) {
        return scale_shift(&in_f32(x)?, &in_f32(scale)?, &in_f32(shift)?, relu)?.to_dtype(x.dtype());
    }
    if !cpu_supports(x) {
        return reference::scale_shift(x, scale, shift, relu);
    }
    let (y, backward) = cpu::scale_shift::scale_shift(detached_contiguous(inputs)?, relu, wanted)?;
    differentiable("scale_shift", &inputs, y, backward)
}
