//! Scale and shift of channels: the passes.

use crate::{
    cpu::{
        channel::{Affine, Channels},
        number::{Float, with_float},
        tensor::{Reading, gradient, tensor},
    },
    shape::gradients::Backward,
};
use candle_core::{Result, Tensor};
use std::mem::MaybeUninit;

fn affine<T: Float>(scale: T, shift: T) -> Affine<T> {
    Affine { center: T::zero(), scale, shift }
}

/// The value of [`crate::scale_shift()`], and those of its gradients that are wanted.
pub(crate) fn scale_shift(inputs: [Tensor; 3], relu: bool, wanted: [bool; 3]) -> Result<(Tensor, impl Backward)> {
    let channels = Channels::of(inputs[0].shape());
    let y = with_float!("scale_shift", inputs[0].dtype(), T => {
        let [x_read, scale_read, shift_read] = inputs.each_ref().map(Reading::new);
        let (xs, scales, shifts) = (x_read.slice::<T>()?, scale_read.slice::<T>()?, shift_read.slice::<T>()?);
        let apply = |channel: usize, output: Vec<&mut [MaybeUninit<T>]>| {
            let affine = affine(scales[channel], shifts[channel]);
            channels.planes(xs, channel).zip(output).for_each(|(x, y)| affine.apply(relu, x, y));
        };
        // SAFETY: x has a plane for each of the output's, of the same length, and each element is written from x's.
        tensor(unsafe { channels.make(xs.len(), apply) }.0, inputs[0].shape())
    })?;
    let gradients = move |dy: &Tensor| {
        with_float!("scale_shift", dy.dtype(), T => {
            let [x, scale, shift] = inputs.each_ref();
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
    };
    Ok((y, gradients))
}
