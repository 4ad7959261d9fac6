//! Convolution of images.

use crate::{
    cpu::{
        self,
        tensor::{cpu_supports, in_f32, is_half_on_cpu},
    },
    device::{self, kernels::has_kernels},
    graph::{detached_contiguous, differentiable},
    reference,
    shape::{
        conv2d::{Conv2dOptions, Geometry},
        error::fail,
    },
};
use candle_core::{Result, Tensor};

/// The convolution (in the sense of neural networks: a cross-correlation) of images `x` (n, c, h, w) with the kernels
/// `weight` (o, c / groups, kh, kw): with stride `s`, padding `p`, dilation `d`, and zeros around the image,
///
/// `y[n, o, i, j] = sum over c, a, b of x[n, g c / groups + c, i s + a d - p, j s + b d - p] weight[o, c, a, b]`,
///
/// where `c` runs over the `c / groups` channels of the group `g` that `o` is of (the first `o / groups` output channels are the
/// first group's). Its shape is (n, o, (h + 2 p - d (kh - 1) - 1) / s + 1, (w + 2 p - d (kw - 1) - 1) / s + 1). As PyTorch's
/// `conv2d`.
///
/// On the CPU it is computed here, forward and backward, to the same bits for any number of threads; on CUDA by cuDNN or as matrix
/// products, and on Metal by candle. The gradient by an argument that has no gradient (the first layer's images) is not computed.
///
/// # Errors
/// When shapes or dtypes do not fit each other, stride, dilation or groups is 0, the groups do not divide the channels, or the
/// kernel is larger than the padded image.
pub fn conv2d(x: &Tensor, weight: &Tensor, options: Conv2dOptions) -> Result<Tensor> {
    if x.dtype() != weight.dtype() {
        fail!("conv2d: weight is of {:?} and must be of {:?}, as x", weight.dtype(), x.dtype());
    }
    let geometry = Geometry::new(x.shape(), weight.shape(), options)?;
    let (inputs, wanted) = ([x, weight], [x, weight].map(Tensor::track_op));
    if has_kernels(x) {
        let (y, backward) = device::conv2d::conv2d(detached_contiguous(inputs)?, &geometry, wanted)?;
        return differentiable("conv2d", &inputs, y, backward);
    }
    if is_half_on_cpu(x) {
        return conv2d(&in_f32(x)?, &in_f32(weight)?, options)?.to_dtype(x.dtype());
    }
    if !cpu_supports(x) {
        return reference::conv2d(x, weight, options);
    }
    let (y, backward) = cpu::conv2d::conv2d(detached_contiguous(inputs)?, geometry, wanted)?;
    differentiable("conv2d", &inputs, y, backward)
}
