//! Convolution, batch normalisation, residual and rectifier in one operation.

use crate::{
    batch_norm::{self, batch_norm},
    conv2d::conv2d,
    cpu::{
        self,
        tensor::{cpu_supports, in_f32, is_half_on_cpu},
    },
    device::kernels::has_kernels,
    graph::{detached_contiguous, differentiable_by_output},
    relu::add_relu,
    shape::{
        batch_norm::BatchNormOutput,
        channels::check_channels,
        conv2d::{Conv2dBatchNormOptions, Geometry},
        error::fail,
    },
};
use candle_core::{Result, Tensor};

/// `batch_norm(conv2d(x, kernels), weight, bias) + residual`, and 0 where that is negative if `relu`: what residual networks
/// are made of, in one operation. It is [`conv2d`](crate::conv2d()) followed by [`batch_norm`](crate::batch_norm()), an
/// addition and [`relu`](crate::relu()), with fewer passes over the memory: the statistics are taken from each image while
/// it is in the cache, and the gradient by the convolution's output is made there too, and never stored.
///
/// The images `x` are (n, c, h, w), `kernels` (o, c / groups, kh, kw), `weight` and `bias` (o), and `residual` has the output's
/// shape. All are of one dtype.
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
    if has_kernels(x) {
        let (convolved, Conv2dBatchNormOptions { eps, relu, .. }) = (conv2d(x, kernels, options.conv)?, options);
        return batch_norm::on_device([&convolved, weight, bias], residual, eps, relu);
    }
    if is_half_on_cpu(x) {
        let residual = residual.map(in_f32).transpose()?;
        let (kernels, weight, bias) = (in_f32(kernels)?, in_f32(weight)?, in_f32(bias)?);
        let normal = conv2d_batch_norm(&in_f32(x)?, &kernels, &weight, &bias, residual.as_ref(), options)?;
        return normal.narrowed(x.dtype());
    }
    if !cpu_supports(x) {
        return unfused(x, kernels, weight, bias, residual, options);
    }
    let all: Vec<&Tensor> = [x, kernels, weight, bias].into_iter().chain(residual).collect();
    let wanted = [Some(x), Some(kernels), Some(weight), Some(bias), residual];
    let wanted = wanted.map(|input| input.is_some_and(Tensor::track_op));
    let inputs = detached_contiguous([x, kernels, weight, bias])?;
    let residual = residual.map(|residual| detached_contiguous([residual])).transpose()?.map(|[residual]| residual);
    let (normal, backward) =
        cpu::conv2d_batch_norm::conv2d_batch_norm(inputs, residual.as_ref(), geometry, options, wanted)?;
    let output = differentiable_by_output("conv2d_batch_norm", &all, normal.output, backward)?;
    Ok(BatchNormOutput { output, ..normal })
}

/// By the single operations, for other devices and dtypes.
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
