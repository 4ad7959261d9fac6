//! Convolution, batch normalisation, residual and rectifier in one operation.

use crate::{
    batch_norm::{self, batch_norm},
    conv2d::conv2d,
    cpu::{self, tensor::in_f32},
    graph::{detached_contiguous, differentiable_by_output},
    relu::add_relu,
    shape::{
        batch_norm::BatchNormOutput,
        channels::check_channels,
        conv2d::{Conv2dBatchNormOptions, Geometry},
        error::fail,
    },
    side::Side,
};
use candle_core::{Result, Tensor};

/// What residual networks are made of: `batch_norm(conv2d(x, kernels), weight, bias) + residual`, rectified if
/// [`options.relu`](Conv2dBatchNormOptions::relu). The images `x` are (n, c, h, w), the `kernels` of the convolution
/// (o, c / groups, kh, kw), `weight` and `bias` of the batch norm (o). The `residual`, if there is one, has the output's shape. All have
/// one dtype.
///
/// On the CPU this is one operation, with fewer passes over the memory than [`conv2d`](crate::conv2d()),
/// [`batch_norm`](crate::batch_norm()), an addition and [`relu`](crate::relu()). The statistics are taken from each image while it is in
/// the cache. The gradient by the convolution's output is made there too, and never stored.
///
/// # Errors
/// As [`conv2d`](crate::conv2d()), and when other shapes or dtypes do not fit each other, or there is no pixel to take a mean of.
pub fn conv2d_batch_norm(
    x: &Tensor,
    kernels: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    residual: Option<&Tensor>,
    options: Conv2dBatchNormOptions,
) -> Result<BatchNormOutput> {
    if x.dtype() != kernels.dtype() {
        fail!("conv2d_batch_norm: kernels are of {:?} and must be of {:?}, as x", kernels.dtype(), x.dtype());
    }
    let geometry = Geometry::new(x.shape(), kernels.shape(), options.conv)?;
    let shape = geometry.output_shape();
    check_channels("conv2d_batch_norm", (&shape, x.dtype()), [("weight", weight), ("bias", bias)])?;
    if let Some(residual) = residual.filter(|r| r.shape() != &shape || r.dtype() != x.dtype()) {
        let (found, dtype) = (residual.shape(), residual.dtype());
        fail!("conv2d_batch_norm: residual {found:?} of {dtype:?} must be {shape:?} of {:?}, as the output", x.dtype());
    }
    if shape.elem_count() == 0 {
        fail!("conv2d_batch_norm: x {:?} has no pixel to take a mean of", x.shape());
    }
    match Side::of(x) {
        Side::Device => {
            let (convolved, Conv2dBatchNormOptions { eps, relu, .. }) = (conv2d(x, kernels, options.conv)?, options);
            batch_norm::on_device([&convolved, weight, bias], residual, eps, relu)
        }
        Side::Cpu => {
            let all: Vec<&Tensor> = [x, kernels, weight, bias].into_iter().chain(residual).collect();
            let wanted = [Some(x), Some(kernels), Some(weight), Some(bias), residual];
            let wanted = wanted.map(|input| input.is_some_and(Tensor::track_op));
            let inputs = detached_contiguous([x, kernels, weight, bias])?;
            let residual = residual.map(|residual| residual.detach().contiguous()).transpose()?;
            let (normal, backward) =
                cpu::conv2d_batch_norm::conv2d_batch_norm(inputs, residual.as_ref(), geometry, options, wanted)?;
            let output = differentiable_by_output("conv2d_batch_norm", &all, normal.output, backward)?;
            Ok(BatchNormOutput { output, ..normal })
        }
        Side::CpuInF32 => {
            let residual = residual.map(in_f32).transpose()?;
            let (kernels, weight, bias) = (in_f32(kernels)?, in_f32(weight)?, in_f32(bias)?);
            let normal = conv2d_batch_norm(&in_f32(x)?, &kernels, &weight, &bias, residual.as_ref(), options)?;
            normal.narrowed(x.dtype())
        }
        Side::Candle => unfused(x, kernels, weight, bias, residual, options),
    }
}

/// The same, made of the single operations: for other devices and dtypes.
fn unfused(
    x: &Tensor,
    kernels: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    residual: Option<&Tensor>,
    Conv2dBatchNormOptions { conv, eps, relu: rectified }: Conv2dBatchNormOptions,
) -> Result<BatchNormOutput> {
    let convolved = conv2d(x, kernels, conv)?;
    let normal = batch_norm(&convolved, weight, bias, eps, rectified && residual.is_none())?;
    let output = match residual {
        None => normal.output,
        Some(residual) if rectified => add_relu(&normal.output, residual)?,
        Some(residual) => (normal.output + residual)?,
    };
    Ok(BatchNormOutput { output, ..normal })
}
