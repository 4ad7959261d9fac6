//! Scale and shift of channels.

use crate::{
    cpu::channel::{Affine, Channels},
    cpu::tensor::{Float, Reading, fail, gradient, is_half, is_ours, tensor, wide, with_float},
    device,
    graph::{differentiable, plain},
};
use candle_core::{DType, Result, Shape, Tensor};
use std::mem::MaybeUninit;

/// `y = x scale + shift` per channel of images `x` (n, c, h, w), and 0 where that is negative if `relu`; NaN stays NaN. It is
/// batch norm in evaluation, with `scale = weight / sqrt(variance + eps)` and `shift = bias - mean scale`, and the bias of a
/// convolution, with a scale of 1. `scale` and `shift` are (c), of x's dtype.
///
/// # Errors
/// When the shapes or dtypes do not fit each other.
pub fn scale_shift(x: &Tensor, scale: &Tensor, shift: &Tensor, relu: bool) -> Result<Tensor> {
    check("scale_shift", (x.shape(), x.dtype()), [("scale", scale), ("shift", shift)])?;
    if device::runs(x) {
        return device::scale_shift(x, scale, shift, relu);
    }
    if is_half(x) {
        return scale_shift(&wide(x)?, &wide(scale)?, &wide(shift)?, relu)?.to_dtype(x.dtype());
    }
    if !is_ours(x) {
        let per_channel = |t: &Tensor| t.reshape((1, (), 1, 1));
        let y = x.broadcast_mul(&per_channel(scale)?)?.broadcast_add(&per_channel(shift)?)?;
        return if relu { y.relu() } else { Ok(y) };
    }
    ours([x, scale, shift], relu)
}

/// That `images` are images, and `parameters` have a number of their dtype for each channel.
pub(crate) fn check<const N: usize>(
    op: &str,
    (images, dtype): (&Shape, DType),
    parameters: [(&str, &Tensor); N],
) -> Result<()> {
    let &[_, channels, _, _] = images.dims() else { fail!("{op}: x {images:?} must be (n, c, h, w)") };
    for (name, parameter) in parameters {
        if parameter.dims() != [channels] {
            fail!("{op}: {name} {:?} must be [{channels}], as {images:?} has channels", parameter.shape());
        }
        if parameter.dtype() != dtype {
            fail!("{op}: {name} is of {:?} and must be of {dtype:?}, as x", parameter.dtype());
        }
    }
    Ok(())
}

fn affine<T: Float>(scale: T, shift: T) -> Affine<T> {
    Affine { center: T::zero(), scale, shift }
}

fn ours(inputs: [&Tensor; 3], relu: bool) -> Result<Tensor> {
    let wanted = inputs.map(Tensor::track_op);
    let plain = plain(inputs)?;
    let channels = Channels::of(inputs[0].shape());
    let y = with_float!("scale_shift", inputs[0].dtype(), T => {
        let [x_read, scale_read, shift_read] = plain.each_ref().map(Reading::new);
        let (xs, scales, shifts) = (x_read.slice::<T>()?, scale_read.slice::<T>()?, shift_read.slice::<T>()?);
        let apply = |channel: usize, output: Vec<&mut [MaybeUninit<T>]>| {
            let affine = affine(scales[channel], shifts[channel]);
            channels.planes(xs, channel).zip(output).for_each(|(x, y)| affine.apply(relu, x, y));
        };
        // SAFETY: x has a plane for each of the output's, of the same length, and each element is written from x's.
        tensor(unsafe { channels.make(xs.len(), apply) }.0, inputs[0].shape())
    })?;
    differentiable("scale_shift", &inputs, y, move |dy| {
        with_float!("scale_shift", dy.dtype(), T => {
            let [x, scale, shift] = plain.each_ref();
            let [x_read, scale_read, shift_read, dy_read] = [x, scale, shift, dy].map(Reading::new);
            let (xs, dys) = (x_read.slice::<T>()?, dy_read.slice::<T>()?);
            let (scales, shifts) = (scale_read.slice::<T>()?, shift_read.slice::<T>()?);
            let differentiate = |channel: usize, dx: Vec<&mut [MaybeUninit<T>]>| {
                let affine = affine(scales[channel], shifts[channel]);
                let planes = channels.planes(xs, channel).zip(channels.planes(dys, channel));
                let sums = affine.sums(relu, planes.clone());
                planes.zip(dx).for_each(|((x, dy), dx)| affine.gradient(relu, x, dy, dx));
                sums
            };
            // SAFETY: x and dy have a plane for each of dx's, of the same length, and each element is written from theirs.
            let (dx, sums) = unsafe { channels.make(xs.len(), differentiate) };
            let by = |wanted: bool, which: usize| -> Option<Vec<T>> {
                wanted.then(|| sums.iter().map(|sums| T::narrow(sums[which])).collect())
            };
            Ok(vec![
                gradient(wanted[0].then_some(dx), x)?,
                gradient(by(wanted[1], 1), scale)?,
                gradient(by(wanted[2], 0), shift)?,
            ])
        })
    })
}
