//! Means of windows.

use crate::{
    cpu::{
        self,
        tensor::{cpu_supports, in_f32, is_half_on_cpu},
    },
    device::{self, kernels::has_kernels},
    graph::{detached_contiguous, differentiable},
    reference,
    shape::pool2d::{Pool2dOptions, Pooling},
};
use candle_core::{Result, Tensor};

/// The means over the windows of images `x` (n, c, h, w): (n, c, (h + 2 p - kh) / s + 1, (w + 2 p - kw) / s + 1) for a kernel of
/// (kh, kw), the stride s and the padding p; rows and columns at the end that fill no window are left out. What is around the
/// image counts as zeros if `count_padding`, and else is no part of the mean: as PyTorch's `avg_pool2d`, where `count_include_pad`
/// is true if nothing is said.
///
/// The mean of each plane, global average pooling, is that of [`Pool2dOptions::whole`].
///
/// # Errors
/// When `x` is not (n, c, h, w), kernel or stride is 0, the padding is more than half the kernel, or the kernel is larger than the
/// padded image.
pub fn avg_pool2d(x: &Tensor, pool: Pool2dOptions, count_padding: bool) -> Result<Tensor> {
    let pooling = Pooling::new("avg_pool2d", x.shape(), pool)?;
    if has_kernels(x) {
        let [input] = detached_contiguous([x])?;
        let (y, backward) = device::pool2d::avg_pool2d(&input, &pooling, count_padding)?;
        return differentiable("avg_pool2d", &[x], y, backward);
    }
    if is_half_on_cpu(x) {
        return avg_pool2d(&in_f32(x)?, pool, count_padding)?.to_dtype(x.dtype());
    }
    if !cpu_supports(x) {
        return reference::avg_pool2d(x, pool, count_padding);
    }
    let [input] = detached_contiguous([x])?;
    let (y, backward) = cpu::avg_pool2d::avg_pool2d(&input, pooling, count_padding)?;
    differentiable("avg_pool2d", &[x], y, backward)
}
