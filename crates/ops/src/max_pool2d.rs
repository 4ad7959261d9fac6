//! Maxima of windows.

use crate::{
    cpu::{self, tensor::cpu_supports},
    device::{self, kernels::has_kernels},
    graph::{detached_contiguous, differentiable},
    reference,
    shape::pool2d::{Pool2dOptions, Pooling},
};
use candle_core::{Result, Tensor};

/// The maxima over the windows of images `x` (n, c, h, w): (n, c, (h + 2 p - kh) / s + 1, (w + 2 p - kw) / s + 1) for a kernel of
/// (kh, kw), the stride s and the padding p. What is around the image is below every number, and rows and columns at the end that
/// fill no window are left out. The whole gradient goes to the first maximum of a window in reading order; NaN counts as the
/// largest, and the last of several gets the gradient: as PyTorch's `max_pool2d`.
///
/// f32 and f64 on the CPU and all of CUDA are computed here; other tensors by candle, but not by its `max_pool2d`, whose gradient is
/// right for no window of more than a pixel.
///
/// # Errors
/// When `x` is not (n, c, h, w), kernel or stride is 0, the padding is more than half the kernel, or the kernel is larger than the
/// padded image.
pub fn max_pool2d(x: &Tensor, pool: Pool2dOptions) -> Result<Tensor> {
    let pooling = Pooling::new("max_pool2d", x.shape(), pool)?;
    if has_kernels(x) {
        let [input] = detached_contiguous([x])?;
        let (y, backward) = device::pool2d::max_pool2d(&input, &pooling)?;
        return differentiable("max_pool2d", &[x], y, backward);
    }
    if !cpu_supports(x) {
        return reference::max_pool2d(x, pool);
    }
    let [input] = detached_contiguous([x])?;
    let (y, backward) = cpu::max_pool2d::max_pool2d(input, pooling)?;
    differentiable("max_pool2d", &[x], y, backward)
}
