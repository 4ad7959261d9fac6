//! Batch normalisation in training.

use crate::{
    cpu::{self, tensor::in_f32},
    device,
    graph::{detached_contiguous, differentiable, differentiable_by_output},
    reference,
    shape::{batch_norm::BatchNormOutput, channels::check_channels, error::fail},
    side::Side,
};
use candle_core::{Result, Tensor};

/// Batch normalisation in training (Ioffe & Szegedy 2015, arXiv:1502.03167) of images `x` (n, c, h, w), with the statistics of the
/// batch. `weight` and `bias` are (c), of x's dtype. With the mean and the biased variance of each channel, over n, h and w, it is
///
/// `y = (x - mean) / sqrt(variance + eps) weight + bias`,
///
/// rectified if `relu`.
///
/// The statistics are summed in f64 on the CPU, and returned for the running statistics that evaluation needs. The gradient takes into
/// account that they depend on x. NaN stays NaN.
///
/// # Errors
/// When the shapes or dtypes do not fit each other, or there is no pixel to take a mean of.
pub fn batch_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64, relu: bool) -> Result<BatchNormOutput> {
    check_channels("batch_norm", (x.shape(), x.dtype()), [("weight", weight), ("bias", bias)])?;
    if x.elem_count() == 0 {
        fail!("batch_norm: x {:?} has no pixel to take a mean of", x.shape());
    }
    let inputs = [x, weight, bias];
    match Side::of(x) {
        Side::Device => on_device(inputs, None, eps, relu),
        Side::Cpu => {
            let wanted = inputs.map(Tensor::track_op);
            let (normal, backward) = cpu::batch_norm::batch_norm(detached_contiguous(inputs)?, eps, relu, wanted)?;
            let output = differentiable("batch_norm", &inputs, normal.output, backward)?;
            Ok(BatchNormOutput { output, ..normal })
        }
        Side::CpuInF32 => {
            let normal = batch_norm(&in_f32(x)?, &in_f32(weight)?, &in_f32(bias)?, eps, relu)?;
            normal.narrowed(x.dtype())
        }
        Side::Candle => reference::batch_norm(x, weight, bias, eps, relu),
    }
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
    let residual = residual.map(|residual| residual.detach().contiguous()).transpose()?;
    let (normal, backward) = device::channel::batch_norm(inputs, residual.as_ref(), eps, relu, wanted)?;
    // What a residual is added to does not say where the rectifier is.
    let output = match relu && residual.is_some() {
        false => differentiable("batch_norm", &all, normal.output, move |dy| backward(None, dy))?,
        true => differentiable_by_output("batch_norm", &all, normal.output, move |y, dy| backward(Some(y), dy))?,
    };
    Ok(BatchNormOutput { output, ..normal })
}
