//! Batch normalisation in training.

use crate::{
    cpu::{
        self,
        tensor::{cpu_supports, in_f32, is_half_on_cpu},
    },
    device::{self, kernels::has_kernels},
    graph::{detached_contiguous, differentiable, differentiable_by_output},
    reference,
    shape::{batch_norm::BatchNormOutput, channels::check_channels, error::fail},
};
use candle_core::{Result, Tensor};

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
pub fn batch_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64, relu: bool) -> Result<BatchNormOutput> {
    check_channels("batch_norm", (x.shape(), x.dtype()), [("weight", weight), ("bias", bias)])?;
    if x.elem_count() == 0 {
        fail!("batch_norm: x {:?} has no pixel to take a mean of", x.shape());
    }
    let inputs = [x, weight, bias];
    if has_kernels(x) {
        return on_device(inputs, None, eps, relu);
    }
    if is_half_on_cpu(x) {
        let normal = batch_norm(&in_f32(x)?, &in_f32(weight)?, &in_f32(bias)?, eps, relu)?;
        return normal.narrowed(x.dtype());
    }
    if !cpu_supports(x) {
        return reference::batch_norm(x, weight, bias, eps, relu);
    }
    let wanted = inputs.map(Tensor::track_op);
    let (normal, backward) = cpu::batch_norm::batch_norm(detached_contiguous(inputs)?, eps, relu, wanted)?;
    let output = differentiable("batch_norm", &inputs, normal.output, backward)?;
    Ok(BatchNormOutput { output, ..normal })
}

/// `batch_norm(x) + residual` of `[x, weight, bias]`, rectified if `relu`.
pub(crate) fn on_device(
    inputs: [&Tensor; 3],
    residual: Option<&Tensor>,
    eps: f64,
    relu: bool,
) -> Result<BatchNormOutput> {
    let all: Vec<&Tensor> = inputs.into_iter().chain(residual).collect();
    let [x, weight, bias] = inputs.map(Tensor::track_op);
    let wanted = [x, weight || bias, residual.is_some_and(Tensor::track_op)];
    let inputs = detached_contiguous(inputs)?;
    let residual = residual.map(|residual| detached_contiguous([residual])).transpose()?.map(|[residual]| residual);
    let (normal, backward) = device::channel::batch_norm(inputs, residual.as_ref(), eps, relu, wanted)?;
    // What a residual is added to does not say where the rectifier is.
    let output = match relu && residual.is_some() {
        false => differentiable("batch_norm", &all, normal.output, move |dy| backward(None, dy))?,
        true => differentiable_by_output("batch_norm", &all, normal.output, move |y, dy| backward(Some(y), dy))?,
    };
    Ok(BatchNormOutput { output, ..normal })
}
