//! Batch normalisation in training.

use crate::{
    cpu::channel::{Affine, Channels, Moments},
    cpu::scale_shift::{check, scale_shift},
    cpu::tensor::{Float, Reading, fail, gradient, is_half, is_ours, tensor, wide, with_float},
    device,
    graph::{differentiable, plain},
};
use candle_core::{DType, Result, Tensor};
use std::mem::MaybeUninit;

/// What [`batch_norm`] returns.
#[derive(Clone, Debug)]
pub struct Normalized {
    /// The normalised images, (n, c, h, w).
    pub output: Tensor,
    /// The mean of each channel of the batch, (c), outside the graph. Of bf16 and f16 it is f32, on
    /// Metal of the type of x.
    pub mean: Tensor,
    /// The biased variance of each channel of the batch, (c), as the mean.
    pub variance: Tensor,
}

/// Batch normalisation (Ioffe & Szegedy 2015, arXiv:1502.03167) of images `x` (n, c, h, w) with the statistics of the batch:
/// for each channel, with mean and (biased) variance over n, h and w,
///
/// `y = (x - mean) / sqrt(variance + eps) weight + bias`,
///
/// and 0 where that is negative if `relu`; NaN stays NaN. The gradient takes into account that mean and variance depend on x.
/// The statistics are summed in f64. `weight` and `bias` are (c), of x's dtype.
///
/// # Errors
/// When the shapes or dtypes do not fit each other, or there is no pixel to take a mean of.
pub fn batch_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64, relu: bool) -> Result<Normalized> {
    check("batch_norm", (x.shape(), x.dtype()), [("weight", weight), ("bias", bias)])?;
    if x.elem_count() == 0 {
        fail!("batch_norm: x {:?} has no pixel to take a mean of", x.shape());
    }
    if device::runs(x) {
        return device::batch_norm(x, weight, bias, None, eps, relu);
    }
    if is_half(x) {
        let normal = batch_norm(&wide(x)?, &wide(weight)?, &wide(bias)?, eps, relu)?;
        return normal.narrowed(x.dtype());
    }
    if !is_ours(x) {
        return composed(x, weight, bias, eps, relu);
    }
    ours([x, weight, bias], eps, relu)
}

impl Normalized {
    /// With an output of this type; the statistics keep theirs.
    pub(crate) fn narrowed(self, dtype: DType) -> Result<Self> {
        Ok(Self { output: self.output.to_dtype(dtype)?, ..self })
    }
}

/// The same by candle's operations, for other devices and dtypes.
fn composed(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64, relu: bool) -> Result<Normalized> {
    // In two steps, because candle is quick at sums over the last dimension only.
    let channel_mean = |x: &Tensor| x.flatten_from(2)?.mean(2)?.mean(0);
    let mean = channel_mean(x)?;
    let centered = x.broadcast_sub(&mean.reshape((1, (), 1, 1))?)?;
    let variance = channel_mean(&centered.sqr()?)?;
    let scale = (weight / (&variance + eps)?.sqrt()?)?;
    let output = scale_shift(&centered, &scale, bias, relu)?;
    Ok(Normalized { output, mean: mean.detach(), variance: variance.detach() })
}

/// Of a channel of the batch.
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

fn ours(inputs: [&Tensor; 3], eps: f64, relu: bool) -> Result<Normalized> {
    let wanted = inputs.map(Tensor::track_op);
    let plain = plain(inputs)?;
    let channels = Channels::of(inputs[0].shape());
    let (y, statistics) = with_float!("batch_norm", inputs[0].dtype(), T => {
        let [x_read, weight_read, bias_read] = plain.each_ref().map(Reading::new);
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
    let output = differentiable("batch_norm", &inputs, y, move |dy| {
        with_float!("batch_norm", dy.dtype(), T => {
            let [x, weight, bias] = plain.each_ref();
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
    })?;
    Ok(Normalized { output, mean, variance })
}
