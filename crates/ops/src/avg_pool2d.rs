//! Means of windows.

use crate::{
    cpu::{self, tensor::in_f32},
    device,
    graph::{detached_contiguous, differentiable},
    reference,
    shape::pool2d::{Pool2dOptions, Pooling},
    side::Side,
};
use candle_core::{Result, Tensor};

/// The means over the windows of images `x` (n, c, h, w), as PyTorch's `avg_pool2d`. For a kernel of (kh, kw), the stride s and the
/// padding p they are (n, c, (h + 2 p - kh) / s + 1, (w + 2 p - kw) / s + 1). Rows and columns at the end that fill no window are left
/// out.
///
/// What is around the image counts as zeros if `count_padding` (PyTorch's `count_include_pad`, which is true there if nothing is said).
/// Else it is no part of the mean. Global average pooling is that of [`Pool2dOptions::whole`].
///
/// # Errors
/// When `x` is not (n, c, h, w), the kernel or the stride is 0, the padding is more than half the kernel, or the kernel is larger than
/// the padded image.
pub fn avg_pool2d(x: &Tensor, pool: Pool2dOptions, count_padding: bool) -> Result<Tensor> {
    let pooling = Pooling::new("avg_pool2d", x.shape(), pool)?;
    match Side::of(x) {
        Side::Device => {
            let [input] = detached_contiguous([x])?;
            let (y, backward) = device::pool2d::avg_pool2d(&input, &pooling, count_padding)?;
            differentiable("avg_pool2d", &[x], y, backward)
        }
        Side::Cpu => {
            let [input] = detached_contiguous([x])?;
            let (y, backward) = cpu::avg_pool2d::avg_pool2d(&input, pooling, count_padding)?;
            differentiable("avg_pool2d", &[x], y, backward)
        }
        Side::CpuInF32 => avg_pool2d(&in_f32(x)?, pool, count_padding)?.to_dtype(x.dtype()),
        Side::Candle => reference::avg_pool2d(x, pool, count_padding),
    }
}
