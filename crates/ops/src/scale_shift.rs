//! Scale and shift of channels.

use crate::{
    channel::{Affine, Channels},
    device,
    host::{Float, Reading, fail, gradient, is_half, is_ours, slice, wide, with_float},
};
use candle_core::{CpuStorage, CustomOp3, DType, Layout, Result, Shape, Tensor, WithDType, backend::BackendStorage};
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
    x.contiguous()?.apply_op3(&scale.contiguous()?, &shift.contiguous()?, ScaleShift { relu })
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

struct ScaleShift {
    relu: bool,
}

fn affine<T: Float>(scale: T, shift: T) -> Affine<T> {
    Affine { center: T::zero(), scale, shift }
}

impl CustomOp3 for ScaleShift {
    fn name(&self) -> &'static str {
        "scale_shift"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        scale: &CpuStorage,
        scale_l: &Layout,
        shift: &CpuStorage,
        shift_l: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let channels = Channels::of(xl.shape());
        with_float!(self.name(), x.dtype(), T => {
            let (x, scale, shift) = (slice::<T>(x, xl)?, slice::<T>(scale, scale_l)?, slice::<T>(shift, shift_l)?);
            let apply = |channel: usize, output: Vec<&mut [MaybeUninit<T>]>| {
                let affine = affine(scale[channel], shift[channel]);
                channels.planes(x, channel).zip(output).for_each(|(x, y)| affine.apply(self.relu, x, y));
            };
            // SAFETY: x has a plane for each of the output's, of the same length, and each element is written from x's.
            let (output, _) = unsafe { channels.make(x.len(), apply) };
            Ok((T::to_cpu_storage_owned(output), xl.shape().clone()))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        scale: &Tensor,
        shift: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let channels = Channels::of(x.shape());
        let dy = dy.contiguous()?;
        with_float!(self.name(), dy.dtype(), T => {
            let [x_read, scale_read, shift_read, dy_read] = [x, scale, shift, &dy].map(Reading::new);
            let (xs, dys) = (x_read.slice::<T>()?, dy_read.slice::<T>()?);
            let (scales, shifts) = (scale_read.slice::<T>()?, shift_read.slice::<T>()?);
            let differentiate = |channel: usize, dx: Vec<&mut [MaybeUninit<T>]>| {
                let affine = affine(scales[channel], shifts[channel]);
                let planes = channels.planes(xs, channel).zip(channels.planes(dys, channel));
                let sums = affine.sums(self.relu, planes.clone());
                planes.zip(dx).for_each(|((x, dy), dx)| affine.gradient(self.relu, x, dy, dx));
                sums
            };
            // SAFETY: x and dy have a plane for each of dx's, of the same length, and each element is written from theirs.
            let (dx, sums) = unsafe { channels.make(xs.len(), differentiate) };
            let by_parameter = |parameter: &Tensor, which: usize| {
                let values: Vec<T> = sums.iter().map(|sums| T::narrow(sums[which])).collect();
                gradient(parameter, values)
            };
            Ok((gradient(x, dx)?, by_parameter(scale, 1)?, by_parameter(shift, 0)?))
        })
    }
}
