//! Batch normalisation in training: the passes.

use crate::{
    cpu::{
        channel::{Affine, Channels, Moments},
        number::{Float, with_float},
        tensor::{Reading, gradient, tensor},
    },
    shape::{batch_norm::BatchNormOutput, gradients::Backward},
};
use candle_core::{DType, Result, Tensor};
use std::mem::MaybeUninit;

/// The statistics of a channel of the batch.
#[derive(Clone, Copy)]
pub(crate) struct Statistics {
    mean: f64,
    variance: f64,
}

impl Statistics {
    pub fn inverse_deviation(&self, eps: f64) -> f64 {
        1.0 / (self.variance + eps).sqrt()
    }

    pub fn affine<T: Float>(&self, eps: f64, weight: T, bias: T) -> Affine<T> {
        let scale = T::narrow(weight.wide() * self.inverse_deviation(eps));
        Affine { center: T::narrow(self.mean), scale, shift: bias }
    }

    /// Mean and variance of each channel.
    pub fn tensors(statistics: &[Self], dtype: DType) -> Result<[Tensor; 2]> {
        let of =
            |value: fn(&Self) -> f64| tensor(statistics.iter().map(value).collect(), statistics.len())?.to_dtype(dtype);
        Ok([of(|statistics| statistics.mean)?, of(|statistics| statistics.variance)?])
    }
}

impl From<Moments> for Statistics {
    fn from(moments: Moments) -> Self {
        Self { mean: moments.mean, variance: moments.variance() }
    }
}

/// The value of [`crate::batch_norm()`], and those of its gradients that are wanted.
pub(crate) fn batch_norm(
    inputs: [Tensor; 3],
    eps: f64,
    relu: bool,
    wanted: [bool; 3],
) -> Result<(BatchNormOutput, impl Backward)> {
    let channels = Channels::of(inputs[0].shape());
    let (y, statistics) = with_float!("batch_norm", inputs[0].dtype(), T => {
        let [x_read, weight_read, bias_read] = inputs.each_ref().map(Reading::new);
        let (xs, weights, biases) = (x_read.slice::<T>()?, weight_read.slice::<T>()?, bias_read.slice::<T>()?);
        let normalize = |channel: usize, output: Vec<&mut [MaybeUninit<T>]>| {
            let planes = channels.planes(xs, channel);
            let moments = planes.clone().map(Moments::of).reduce(Moments::and).unwrap_or_default();
            let statistics = Statistics::from(moments);
            let affine = statistics.affine(eps, weights[channel], biases[channel]);
            planes.zip(output).for_each(|(x, y)| affine.apply(relu, x, y));
            statistics
        };
        // SAFETY: x has a plane for each of the output's, of the same length, and each element is written from x's.
        let (y, statistics) = unsafe { channels.make(xs.len(), normalize) };
        (tensor(y, inputs[0].shape())?, statistics)
    });
    let [mean, variance] = Statistics::tensors(&statistics, y.dtype())?;
    let gradients = move |dy: &Tensor| {
        with_float!("batch_norm", dy.dtype(), T => {
            let [x, weight, bias] = inputs.each_ref();
            let [x_read, weight_read, bias_read, dy_read] = [x, weight, bias, dy].map(Reading::new);
            let (xs, dys) = (x_read.slice::<T>()?, dy_read.slice::<T>()?);
            let (weights, biases) = (weight_read.slice::<T>()?, bias_read.slice::<T>()?);
            let pixels = (xs.len() / channels.channels) as f64;
            let differentiate = |channel: usize, dx: Vec<&mut [MaybeUninit<T>]>| {
                let affine = statistics[channel].affine(eps, weights[channel], biases[channel]);
                let inverse = statistics[channel].inverse_deviation(eps);
                let planes = channels.planes(xs, channel).zip(channels.planes(dys, channel));
                let [sum, product] = affine.sums(relu, planes.clone());
                let means = [T::narrow(sum / pixels), T::narrow(product * inverse * inverse / pixels)];
                planes.zip(dx).for_each(|((x, dy), dx)| affine.normalized_gradient(relu, means, x, dy, dx));
                [product * inverse, sum]
            };
            // SAFETY: x and dy have a plane for each of dx's, of the same length, and each element is written from theirs.
            let (dx, sums) = unsafe { channels.make(xs.len(), differentiate) };
            let by = |wanted: bool, which: usize| -> Option<Vec<T>> {
                wanted.then(|| sums.iter().map(|sums| T::narrow(sums[which])).collect())
            };
            Ok(vec![
                gradient(wanted[0].then_some(dx), x)?,
                gradient(by(wanted[1], 0), weight)?,
                gradient(by(wanted[2], 1), bias)?,
            ])
        })
    };
    Ok((BatchNormOutput { output: y, mean, variance }, gradients))
}
