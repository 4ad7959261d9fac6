//! Convolution of images.

use crate::{
    cpu::{self, tensor::in_f32},
    device,
    graph::{detached_contiguous, differentiable},
    reference,
    shape::{
        conv2d::{Conv2dOptions, Geometry},
        error::fail,
    },
    side::Side,
};
use candle_core::{Result, Tensor};

/// The convolution of images `x` (n, c, h, w) with the kernels `weight` (o, c / groups, kh, kw), as PyTorch's `conv2d`. (It is what
/// neural networks call a convolution: a cross-correlation.)
///
/// With the stride `s`, the padding `p`, the dilation `d`, and zeros around the image it is
///
/// `y[n, o, i, j] = sum over c, a, b of x[n, g c / groups + c, i s + a d - p, j s + b d - p] weight[o, c, a, b]`,
///
/// where `c` runs over the `c / groups` channels of the group `g` of `o`: the first `o / groups` output channels are the first group's,
/// and so on. The output is (n, o, (h + 2 p - d (kh - 1) - 1) / s + 1, (w + 2 p - d (kw - 1) - 1) / s + 1).
///
/// On the CPU it is computed here, forward and backward. On CUDA it is cuDNN's or a matrix product, elsewhere candle's. Where an argument
/// has no gradient (the first layer's images), none is computed.
///
/// # Errors
/// When the shapes or dtypes do not fit each other; when the stride, the dilation or the number of groups is 0; when the groups do not
/// divide the channels; or when the kernel is larger than the padded image.
pub fn conv2d(x: &Tensor, weight: &Tensor, options: Conv2dOptions) -> Result<Tensor> {
    if x.dtype() != weight.dtype() {
        fail!("conv2d: weight is of {:?} and must be of {:?}, as x", weight.dtype(), x.dtype());
    }
    let geometry = Geometry::new(x.shape(), weight.shape(), options)?;
    let (inputs, wanted) = ([x, weight], [x, weight].map(Tensor::track_op));
    match Side::of(x) {
        Side::Device => {
            let (y, backward) = device::conv2d::conv2d(detached_contiguous(inputs)?, &geometry, wanted)?;
            differentiable("conv2d", &inputs, y, backward)
        }
        Side::Cpu => {
            let (y, backward) = cpu::conv2d::conv2d(detached_contiguous(inputs)?, geometry, wanted)?;
            differentiable("conv2d", &inputs, y, backward)
        }
        Side::CpuInF32 => conv2d(&in_f32(x)?, &in_f32(weight)?, options)?.to_dtype(x.dtype()),
        Side::Candle => reference::conv2d(x, weight, options),
    }
}
