//! Convolution, bias and rectifier in one operation.

use crate::{
    conv2d::conv2d,
    cpu::{self, tensor::in_f32},
    device,
    graph::{detached_contiguous, differentiable_by_output},
    scale_shift::scale_shift,
    shape::{
        channels::check_channels,
        conv2d::{Conv2dOptions, Geometry},
        error::fail,
    },
    side::Side,
};
use candle_core::{Result, Tensor};

/// Convolution, bias and rectifier: `conv2d(x, weight) + bias`, rectified if `relu`. The images `x` are (n, c, h, w), `weight` is
/// (o, c / groups, kh, kw) and `bias` (o), all of one dtype.
///
/// On the CPU this is one operation, with fewer passes over the memory than [`conv2d`](crate::conv2d()) and [`relu`](crate::relu()).
///
/// # Errors
/// As [`conv2d`](crate::conv2d()), and when `bias` is not (o) or has another dtype.
pub fn conv2d_bias(x: &Tensor, weight: &Tensor, bias: &Tensor, relu: bool, options: Conv2dOptions) -> Result<Tensor> {
    if x.dtype() != weight.dtype() {
        fail!("conv2d_bias: weight is of {:?} and must be of {:?}, as x", weight.dtype(), x.dtype());
    }
    let geometry = Geometry::new(x.shape(), weight.shape(), options)?;
    check_channels("conv2d_bias", (&geometry.output_shape(), x.dtype()), [("bias", bias)])?;
    match Side::of(x) {
        Side::Device => {
            let convolved = conv2d(x, weight, options)?;
            let inputs = [&convolved, bias];
            let wanted = inputs.map(Tensor::track_op);
            let (y, backward) = device::channel::bias(detached_contiguous(inputs)?, relu, wanted)?;
            differentiable_by_output("bias", &inputs, y, backward)
        }
        Side::Cpu => {
            let inputs = [x, weight, bias];
            let wanted = inputs.map(Tensor::track_op);
            let (y, backward) = cpu::conv2d_bias::conv2d_bias(detached_contiguous(inputs)?, geometry, relu, wanted)?;
            differentiable_by_output("conv2d_bias", &inputs, y, backward)
        }
        Side::CpuInF32 => {
            conv2d_bias(&in_f32(x)?, &in_f32(weight)?, &in_f32(bias)?, relu, options)?.to_dtype(x.dtype())
        }
        Side::Candle => scale_shift(&conv2d(x, weight, options)?, &bias.ones_like()?, bias, relu),
    }
}
