//! Batch normalisation in training.

use crate::{
    channel::{Affine, Channels, Moments},
    device,
    host::{Float, Reading, fail, gradient, is_half, is_ours, slice, wide, with_float},
    scale_shift::{check, scale_shift},
};
use candle_core::{CpuStorage, CustomOp3, DType, Layout, Result, Shape, Tensor, WithDType, backend::BackendStorage};
use std::{
    mem::MaybeUninit,
    sync::{Arc, OnceLock},
};

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
    let statistics = Arc::new(OnceLock::new());
    let op = BatchNorm { eps, relu, statistics: statistics.clone() };
    let output = x.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, op)?;
    Normalized::new(output, statistics.get().expect("the forward pass has set them"))
}

impl Normalized {
    /// With an output of this type; the statistics keep theirs.
    pub(crate) fn narrowed(self, dtype: DType) -> Result<Self> {
        Ok(Self { output: self.output.to_dtype(dtype)?, ..self })
    }

    pub(crate) fn new(output: Tensor, statistics: &[Statistics]) -> Result<Self> {
        let per_channel = |value: fn(&Statistics) -> f64| {
            let values: Vec<f64> = statistics.iter().map(value).collect();
            Tensor::new(values, output.device())?.to_dtype(output.dtype())
        };
        Ok(Self { mean: per_channel(|s| s.mean)?, variance: per_channel(|s| s.variance)?, output })
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
}

impl From<Moments> for Statistics {
    fn from(moments: Moments) -> Self {
        Self { mean: moments.mean, variance: moments.variance() }
    }
}

struct BatchNorm {
    eps: f64,
    relu: bool,
    /// Set by the forward pass, for the backward pass and the caller.
    statistics: Arc<OnceLock<Vec<Statistics>>>,
}

impl CustomOp3 for BatchNorm {
    fn name(&self) -> &'static str {
        "batch_norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        weight: &CpuStorage,
        wl: &Layout,
        bias: &CpuStorage,
        bl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let channels = Channels::of(xl.shape());
        with_float!(self.name(), x.dtype(), T => {
            let (x, weight, bias) = (slice::<T>(x, xl)?, slice::<T>(weight, wl)?, slice::<T>(bias, bl)?);
            let normalize = |channel: usize, output: Vec<&mut [MaybeUninit<T>]>| {
                let planes = channels.planes(x, channel);
                let moments = planes.clone().map(Moments::of).reduce(Moments::and).unwrap_or_default();
                let statistics = Statistics::from(moments);
                let affine = statistics.affine(self.eps, weight[channel], bias[channel]);
                planes.zip(output).for_each(|(x, y)| affine.apply(self.relu, x, y));
                statistics
            };
            // SAFETY: x has a plane for each of the output's, of the same length, and each element is written from x's.
            let (output, statistics) = unsafe { channels.make(x.len(), normalize) };
            // An op runs forward once.
            let _ = self.statistics.set(statistics);
            Ok((T::to_cpu_storage_owned(output), xl.shape().clone()))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let channels = Channels::of(x.shape());
        let statistics = self.statistics.get().expect("the forward pass has set them");
        let dy = dy.contiguous()?;
        with_float!(self.name(), dy.dtype(), T => {
            let [x_read, weight_read, bias_read, dy_read] = [x, weight, bias, &dy].map(Reading::new);
            let (xs, dys) = (x_read.slice::<T>()?, dy_read.slice::<T>()?);
            let (weights, biases) = (weight_read.slice::<T>()?, bias_read.slice::<T>()?);
            let pixels = (xs.len() / channels.channels) as f64;
            let differentiate = |channel: usize, dx: Vec<&mut [MaybeUninit<T>]>| {
                let affine = statistics[channel].affine(self.eps, weights[channel], biases[channel]);
                let inverse = statistics[channel].inverse_deviation(self.eps);
                let planes = channels.planes(xs, channel).zip(channels.planes(dys, channel));
                let [sum, product] = affine.sums(self.relu, planes.clone());
                let means = [T::narrow(sum / pixels), T::narrow(product * inverse * inverse / pixels)];
                planes.zip(dx).for_each(|((x, dy), dx)| affine.normalized_gradient(self.relu, means, x, dy, dx));
                [product * inverse, sum]
            };
            // SAFETY: x and dy have a plane for each of dx's, of the same length, and each element is written from theirs.
            let (dx, sums) = unsafe { channels.make(xs.len(), differentiate) };
            let by_parameter = |parameter: &Tensor, which: usize| {
                let values: Vec<T> = sums.iter().map(|sums| T::narrow(sums[which])).collect();
                gradient(parameter, values)
            };
            Ok((gradient(x, dx)?, by_parameter(weight, 0)?, by_parameter(bias, 1)?))
        })
    }
}
