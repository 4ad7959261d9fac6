//! Maxima of windows.

use crate::{
    cpu, device,
    graph::{detached_contiguous, differentiable},
    reference,
    shape::pool2d::{Pool2dOptions, Pooling},
    side::Side,
};
use candle_core::{Result, Tensor};

/// The maxima over the windows of images `x` (n, c, h, w), as PyTorch's `max_pool2d`. For a kernel of (kh, kw), the stride s and the
/// padding p they are (n, c, (h + 2 p - kh) / s + 1, (w + 2 p - kw) / s + 1). Rows and columns at the end that fill no window are left
/// out.
///
/// What is around the image is below every number. NaN counts as the largest. The whole gradient goes to the first maximum of a window
/// in reading order, and of several NaN to the last.
///
/// # Errors
/// When `x` is not (n, c, h, w), the kernel or the stride is 0, the padding is more than half the kernel, or the kernel is larger than
/// the padded image.
pub fn max_pool2d(x: &Tensor, pool: Pool2dOptions) -> Result<Tensor> {
    let pooling = Pooling::new("max_pool2d", x.shape(), pool)?;
    match Side::of(x) {
        Side::Device => {
            let [input] = detached_contiguous([x])?;
            let (y, backward) = device::pool2d::max_pool2d(&input, &pooling)?;
            differentiable("max_pool2d", &[x], y, backward)
        }
        Side::Cpu => {
            let [input] = detached_contiguous([x])?;
            let (y, backward) = cpu::max_pool2d::max_pool2d(input, pooling)?;
            differentiable("max_pool2d", &[x], y, backward)
        }
        Side::CpuInF32 | Side::Candle => reference::max_pool2d(x, pool),
    }
}
